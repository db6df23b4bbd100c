//! Every rule about money: pure and synchronous, without I/O, clock or database.
//!
//! A commit is three steps: `commit` loads what is [`Known`], a function here decides, `commit` writes the
//! [`Changes`]. There is one such function for each thing that can happen to a chain:
//!
//! | module | what happened |
//! |---|---|
//! | [`connect`] | blocks continue the chain; those that are settled already settle with them |
//! | [`traced`] | what moved inside a connected block's transactions is known |
//! | [`settle`] | blocks became irreversible |
//! | [`early`] | small deposits became available before that |
//! | [`rollback`] | blocks vanished |
//! | [`opening`] | a watch begins |
//! | [`reconcile`] | the chain's own figures are known |
//! | [`backfill`] | the past of a watch is known |
//! | [`deployments`] | more is known of a Safe's deployment |
//! | [`safes`] | a watched Safe was read |
//! | [`worthless`] | movements came that are no money |
//! | [`quarantine`] | a token chose figures that cannot be booked |
//!
//! [`past`] and [`explain`] only read: balances of past blocks, and the entries that make up one.
//!
//! [`journal`] makes the hash of what they decided.
//!
//! They share `posting`, which keeps balances, entries and events together. This file is the arithmetic: a
//! [`Position`] is changed by entries, and replaying them in any order that keeps each transfer's own order
//! gives the same position. Nothing can wrap: what does not fit in 256 bits, or would fall below zero, is a
//! [`LedgerError`] and changes nothing.

pub mod backfill;
pub mod changes;
pub mod connect;
pub mod deployments;
pub mod early;
pub mod explain;
pub mod journal;
pub mod known;
pub mod opening;
pub mod past;
mod posting;
pub mod quarantine;
pub mod reconcile;
pub mod rollback;
pub mod safes;
pub mod settle;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
pub mod traced;
pub mod worthless;

pub use changes::{Changes, Culprit, Decision, Refused};
pub use known::Known;

use crate::{
    amount::Amount,
    model::{Buckets, Direction, EntryKind, Position},
};

/// Why an entry cannot be booked. The position stays as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// A sum would not fit in 256 bits: no honest asset does that.
    #[error("a balance would exceed 256 bits")]
    Overflow,
    /// More would leave than the ledger knows of by `missing`: a credit was not seen.
    #[error("the ledger lacks {missing} base units that were spent")]
    Shortfall { missing: Amount },
    /// A sum of open transfers would fall below zero: an entry is booked twice or missing.
    #[error("an entry does not fit what is booked")]
    Inconsistent,
}

impl Position {
    /// The position after an entry of a transfer of `amount`.
    ///
    /// # Errors
    /// See [`LedgerError`]. A shortfall is found where money leaves: when an outgoing transfer is
    /// connected, or an incoming one is disconnected.
    pub fn apply(
        self,
        kind: EntryKind,
        direction: Direction,
        amount: Amount,
    ) -> Result<Self, LedgerError> {
        use Direction::{In, Out};
        let Self { settled, incoming, outgoing, early } = self;
        let add = |sum: Amount| sum.checked_add(amount).ok_or(LedgerError::Overflow);
        let sub = |sum: Amount| sum.checked_sub(amount).ok_or(LedgerError::Inconsistent);
        let spend = |sum: Amount| {
            let missing = amount.saturating_sub(sum);
            sum.checked_sub(amount).ok_or(LedgerError::Shortfall { missing })
        };
        let next = match (kind, direction) {
            (EntryKind::Connect, In) => Self { incoming: add(incoming)?, ..self },
            (EntryKind::Connect, Out) => Self { outgoing: add(outgoing)?, ..self },
            (EntryKind::Disconnect, In) => Self { incoming: sub(incoming)?, ..self },
            (EntryKind::Disconnect, Out) => Self { outgoing: sub(outgoing)?, ..self },
            (EntryKind::Settle, In) => {
                Self { incoming: sub(incoming)?, settled: add(settled)?, ..self }
            }
            (EntryKind::Settle, Out) => {
                Self { outgoing: sub(outgoing)?, settled: spend(settled)?, ..self }
            }
            (EntryKind::ConnectSettled, In) | (EntryKind::DisconnectSettled, Out) => {
                Self { settled: add(settled)?, ..self }
            }
            (EntryKind::ConnectSettled, Out) | (EntryKind::DisconnectSettled, In) => {
                Self { settled: spend(settled)?, ..self }
            }
            (EntryKind::Early, In) => Self { early: add(early)?, ..self },
            (EntryKind::EarlyOver, In) => Self { early: sub(early)?, ..self },
            (EntryKind::Early | EntryKind::EarlyOver, Out) => {
                return Err(LedgerError::Inconsistent);
            }
        };
        if next.early > next.incoming {
            return Err(LedgerError::Inconsistent);
        }
        next.total()?;
        Ok(next)
    }

    /// What is missing for `spent` more to leave; zero if nothing is.
    pub fn shortfall(self, spent: Amount) -> Result<Amount, LedgerError> {
        let outgoing = self.outgoing.checked_add(spent).ok_or(LedgerError::Overflow)?;
        let received = self.settled.checked_add(self.incoming).ok_or(LedgerError::Overflow)?;
        Ok(outgoing.saturating_sub(received))
    }

    /// Settled plus incoming minus outgoing: the chain's own figure at the head.
    ///
    /// # Errors
    /// [`LedgerError::Overflow`] past 256 bits, [`LedgerError::Shortfall`] below zero.
    pub fn total(self) -> Result<Amount, LedgerError> {
        let received = self.settled.checked_add(self.incoming).ok_or(LedgerError::Overflow)?;
        received
            .checked_sub(self.outgoing)
            .ok_or(LedgerError::Shortfall { missing: self.outgoing.saturating_sub(received) })
    }

    /// The position as a user sees it, with `held` the sum of the open holds.
    ///
    /// # Errors
    /// As [`Position::total`]; a position that came from [`Position::apply`] never fails.
    pub fn buckets(self, held: Amount) -> Result<Buckets, LedgerError> {
        let total = self.total()?;
        let firm = self.settled.checked_add(self.early).ok_or(LedgerError::Overflow)?;
        let spendable = firm.saturating_sub(self.outgoing);
        let frozen = held.min(spendable);
        Ok(Buckets {
            available: spendable.saturating_sub(frozen),
            pending: total.saturating_sub(spendable),
            frozen,
            total,
        })
    }
}

/// What entries add up to, in whatever order they are read: plain sums modulo 2^256. Whether each step was
/// allowed was checked when it was booked; here only the result counts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Replay(Position);

impl Replay {
    pub fn add(&mut self, kind: EntryKind, direction: Direction, amount: Amount) {
        let Position { settled, incoming, outgoing, early } = &mut self.0;
        let open = match direction {
            Direction::In => incoming,
            Direction::Out => outgoing,
        };
        let more = |sum: &mut Amount| *sum = Amount::new(sum.get().wrapping_add(amount.get()));
        let less = |sum: &mut Amount| *sum = Amount::new(sum.get().wrapping_sub(amount.get()));
        match kind {
            EntryKind::Connect => more(open),
            EntryKind::Disconnect | EntryKind::Settle => less(open),
            EntryKind::Early => more(early),
            EntryKind::EarlyOver => less(early),
            EntryKind::ConnectSettled | EntryKind::DisconnectSettled => {}
        }
        match (kind, direction) {
            (EntryKind::Settle | EntryKind::ConnectSettled, Direction::In)
            | (EntryKind::DisconnectSettled, Direction::Out) => more(settled),
            (EntryKind::Settle | EntryKind::ConnectSettled, Direction::Out)
            | (EntryKind::DisconnectSettled, Direction::In) => less(settled),
            (
                EntryKind::Connect
                | EntryKind::Disconnect
                | EntryKind::Early
                | EntryKind::EarlyOver,
                _,
            ) => {}
        }
    }

    #[must_use]
    pub fn position(self) -> Position {
        self.0
    }
}
