//! The arithmetic of balances: pure, without I/O, clock or database.
//!
//! A [`Position`] is what one wallet holds of one asset on one chain, split at the settled block. Movements
//! change it by [`Effect`]s; the ledger's entries are those effects, and replaying them in any order that
//! keeps each transfer's own order gives the same position. Nothing here can wrap: what does not fit in
//! 256 bits, or would fall below zero, is a [`LedgerError`] and changes nothing.

#[cfg(test)]
mod tests;

use crate::{amount::Amount, chain::words};

words! {
    /// Whether money comes to the wallet or leaves it.
    Direction {
        In = "in",
        Out = "out",
    }
}

words! {
    /// Where a transfer stands.
    Status {
        /// In a block that could still vanish.
        Pending = "pending",
        /// In a block that this chain's policy calls irreversible.
        Settled = "settled",
        /// Its block vanished, and no other holds it so far.
        Orphaned = "orphaned",
    }
}

words! {
    /// What an entry records. Entries are only ever added.
    Effect {
        /// A block with the transfer was connected.
        Connect = "connect",
        /// That block was disconnected again: the opposite of its `connect`.
        Disconnect = "disconnect",
        /// That block settled.
        Settle = "settle",
        /// The opposite of its `settle`: an opening whose watch begins anew, or a rewind by hand.
        Unsettle = "unsettle",
    }
}

/// What one wallet holds of one asset, in base units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The balance at the settled block.
    pub settled: Amount,
    /// Sum of the deposits above the settled block.
    pub incoming: Amount,
    /// Sum of the withdrawals above the settled block.
    pub outgoing: Amount,
}

/// What a user sees: `available + pending + frozen = total`, always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Buckets {
    pub available: Amount,
    pub pending: Amount,
    pub frozen: Amount,
    pub total: Amount,
}

/// Why an effect cannot be booked. The position stays as it was.
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
    /// The position after `effect` of a transfer of `amount`.
    ///
    /// # Errors
    /// See [`LedgerError`]. A shortfall is found where money leaves: when an outgoing transfer is
    /// connected, or an incoming one is disconnected.
    pub fn apply(
        self,
        effect: Effect,
        direction: Direction,
        amount: Amount,
    ) -> Result<Self, LedgerError> {
        let Self { settled, incoming, outgoing } = self;
        let add = |sum: Amount| sum.checked_add(amount).ok_or(LedgerError::Overflow);
        let sub = |sum: Amount| sum.checked_sub(amount).ok_or(LedgerError::Inconsistent);
        let next = match (effect, direction) {
            (Effect::Connect, Direction::In) => Self { incoming: add(incoming)?, ..self },
            (Effect::Connect, Direction::Out) => Self { outgoing: add(outgoing)?, ..self },
            (Effect::Disconnect, Direction::In) => Self { incoming: sub(incoming)?, ..self },
            (Effect::Disconnect, Direction::Out) => Self { outgoing: sub(outgoing)?, ..self },
            (Effect::Settle, Direction::In) => {
                Self { incoming: sub(incoming)?, settled: add(settled)?, ..self }
            }
            (Effect::Unsettle, Direction::In) => Self {
                incoming: add(incoming)?,
                settled: settled
                    .checked_sub(amount)
                    .ok_or(LedgerError::Shortfall { missing: amount.saturating_sub(settled) })?,
                ..self
            },
            (Effect::Unsettle, Direction::Out) => {
                Self { outgoing: add(outgoing)?, settled: add(settled)?, ..self }
            }
            (Effect::Settle, Direction::Out) => Self {
                outgoing: sub(outgoing)?,
                settled: settled
                    .checked_sub(amount)
                    .ok_or(LedgerError::Shortfall { missing: amount.saturating_sub(settled) })?,
                ..self
            },
        };
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
        let sure = self.settled.saturating_sub(self.outgoing);
        let frozen = held.min(sure);
        Ok(Buckets {
            available: sure.saturating_sub(frozen),
            pending: total.saturating_sub(sure),
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
    pub fn add(&mut self, effect: Effect, direction: Direction, amount: Amount) {
        let Position { settled, incoming, outgoing } = &mut self.0;
        let open = match direction {
            Direction::In => incoming,
            Direction::Out => outgoing,
        };
        let more = |sum: &mut Amount| *sum = Amount::new(sum.get().wrapping_add(amount.get()));
        let less = |sum: &mut Amount| *sum = Amount::new(sum.get().wrapping_sub(amount.get()));
        match effect {
            Effect::Connect | Effect::Unsettle => more(open),
            Effect::Disconnect | Effect::Settle => less(open),
        }
        match (effect, direction) {
            (Effect::Settle, Direction::In) | (Effect::Unsettle, Direction::Out) => more(settled),
            (Effect::Settle, Direction::Out) | (Effect::Unsettle, Direction::In) => less(settled),
            (Effect::Connect | Effect::Disconnect, _) => {}
        }
    }

    #[must_use]
    pub fn position(self) -> Position {
        self.0
    }
}
