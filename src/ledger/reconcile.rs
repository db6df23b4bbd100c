//! The ledger against the chain's own state: what a difference means.
//!
//! The settled part of a balance is compared with what the chain's state says at exactly the settled block.
//! The daemon books an adjustment once the difference is confirmed; `tidemark audit` only tells.

use super::{Changes, Known, Refused, known::KnownProofs, posting::Posting};
use crate::{
    amount::Amount,
    chain::{ChainBalance, Header, Kind, Movement, Ordinal, TxId},
    clock::Millis,
    model::{
        BalanceRef, BlockPoint, ChainInfo, CommitKind, Cursor, Direction, Position, Reason, Status,
        Transfer,
    },
};

/// What a comparison says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    Equal,
    /// The chain has more by this: something came in that no movement showed.
    Credit(Amount),
    /// The chain has less by this: something left, or was taken, that no movement showed.
    Debit(Amount),
    /// The chain has another figure, and the ledger cannot take it over yet.
    Unbookable,
}

/// Compares a balance with the chain's own figure at the settled block.
#[must_use]
pub fn compare(position: Position, chain: Amount) -> Comparison {
    let settled = position.settled;
    if let Some(less) = settled.checked_sub(chain).filter(|less| !less.is_zero()) {
        // What is on its way out must be covered by what is left, whichever incoming block vanishes: else a
        // later settlement or reorg would find a balance below zero.
        return if position.outgoing <= chain {
            Comparison::Debit(less)
        } else {
            Comparison::Unbookable
        };
    }
    let more = chain.saturating_sub(settled);
    if more.is_zero() {
        return Comparison::Equal;
    }
    let fits = chain.checked_add(position.incoming).is_some()
        && position.incoming.checked_add(more).is_some();
    if fits { Comparison::Credit(more) } else { Comparison::Unbookable }
}

/// What the chain says of a balance, and what follows if the ledger says otherwise.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    pub balance: BalanceRef,
    pub holding: ChainBalance,
    pub belief: Belief,
}

/// How far a figure is believed that differs from the ledger's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Belief {
    /// One node's word: it must be confirmed before anything is decided.
    Unconfirmed,
    /// It could not be confirmed: the ledger stays as it is.
    Doubted,
    /// The difference is confirmed, up to this many base units.
    Confirmed { most: Amount },
}

/// A balance that differed from the chain's own figure.
#[derive(Clone, Copy, Debug)]
pub struct Drift {
    pub balance: BalanceRef,
    pub at: u64,
    pub position: Position,
    pub chain: Amount,
    pub comparison: Comparison,
    pub outcome: Outcome,
}

/// What became of a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An adjustment was booked.
    Booked,
    /// The ledger cannot take it over yet.
    Unbookable,
    /// Nothing may be written before it is confirmed, or doubted.
    Unconfirmed,
    Doubted,
}

/// Takes over what the chain itself says of balances after exactly the cursor's settled block.
///
/// # Errors
/// Booking would break an invariant.
pub fn reconcile(
    chain: &ChainInfo,
    cursor: &Cursor,
    known: &Known,
    figures: &[Figure],
    proofs: &KnownProofs,
    now: Millis,
) -> Result<Changes, Refused> {
    let mut posting =
        Posting::new(chain, known, cursor, cursor.clone(), now, CommitKind::Comparison);
    take_over(&mut posting, cursor.settled, figures, proofs)?;
    posting.finish()
}

/// Compares balances with the chain's own figures after the settled block `at`, and books what differs. Each
/// wallet is compared on its own, whoever shares its address.
pub(super) fn take_over(
    posting: &mut Posting<'_>,
    at: BlockPoint,
    figures: &[Figure],
    proofs: &KnownProofs,
) -> Result<(), Refused> {
    // What does not count stays as it was last booked.
    let counting = |figure: &&Figure| posting.counts(&figure.balance.key);
    let figures: Vec<_> = figures.iter().filter(counting).collect();
    for Figure { balance, holding, belief } in figures {
        let position = posting.balance(balance.wallet, balance.asset).position;
        let comparison = compare(position, holding.total);
        // A correction above this block may tell of the same money: when it settles, all is compared.
        if comparison != Comparison::Equal
            && proofs.unfinished.contains(&(balance.wallet, balance.asset))
        {
            continue;
        }
        posting.changes.report.compared += 1;
        let adjustment = match comparison {
            Comparison::Credit(amount) => Some((Direction::In, amount, Reason::UntracedCredit)),
            Comparison::Debit(amount) => Some((Direction::Out, amount, Reason::UntracedDebit)),
            Comparison::Equal | Comparison::Unbookable => None,
        };
        if comparison != Comparison::Equal {
            let outcome = match (belief, adjustment) {
                (Belief::Unconfirmed, _) => Outcome::Unconfirmed,
                (Belief::Doubted, _) => Outcome::Doubted,
                (Belief::Confirmed { .. }, None) => Outcome::Unbookable,
                (Belief::Confirmed { most }, Some((direction, amount, reason))) => {
                    adjust(posting, at, balance, direction, amount.min(*most), reason, proofs)?;
                    Outcome::Booked
                }
            };
            posting.changes.report.drifts.push(Drift {
                balance: *balance,
                at: at.at.number,
                position,
                chain: holding.total,
                comparison,
                outcome,
            });
            if outcome != Outcome::Booked {
                continue;
            }
        }
        let settled = posting.balance(balance.wallet, balance.asset).position.settled;
        if settled == holding.total {
            posting.agreed(balance.wallet, balance.asset, at.at.number, settled);
        }
        posting.set_frozen(balance.wallet, balance.asset, holding.frozen);
    }
    Ok(())
}

/// Books a difference as a transfer of its own, settled at once: the block that proves it is.
fn adjust(
    posting: &mut Posting<'_>,
    at: BlockPoint,
    balance: &BalanceRef,
    direction: Direction,
    amount: Amount,
    reason: Reason,
    proofs: &KnownProofs,
) -> Result<(), Refused> {
    let (from, to) = match direction {
        Direction::In => (None, Some(balance.address)),
        Direction::Out => (Some(balance.address), None),
    };
    let time = u64::try_from(at.time.seconds()).unwrap_or(0);
    let header = Header { at: at.at, parent: at.at, time };
    let proof = |count: u32| Movement {
        tx: TxId::from(at.at.hash.0),
        ordinal: Ordinal::Proof(at.at.number, count),
        kind: Kind::Adjustment,
        asset: balance.key,
        from,
        to,
        amount,
        memo: None,
    };
    let mut side = posting.side(&header, &proof(1), balance.owner(), direction)?;
    // The chain's figure at one block does not change, but nodes can disagree about it.
    let mut count = 1;
    while proofs.booked.contains(&(side.wallet, side.id)) {
        count += 1;
        side = posting.side(&header, &proof(count), balance.owner(), direction)?;
    }
    side.counted = true;
    side.reason = Some(reason);
    posting.connect_settled(&mut side)?;
    let settled = Transfer {
        status: Status::Settled,
        settled_by: Some(posting.policy()),
        settled_at: Some(posting.now),
        ..side.clone()
    };
    posting.tell(&settled);
    posting.book(side, true);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(settled: u64, incoming: u64, outgoing: u64) -> Position {
        Position {
            settled: settled.into(),
            incoming: incoming.into(),
            outgoing: outgoing.into(),
            ..Position::default()
        }
    }

    #[test]
    fn the_settled_part_is_what_is_compared() {
        assert_eq!(compare(position(50, 7, 3), 50.into()), Comparison::Equal);
        assert_eq!(compare(position(50, 7, 3), 54.into()), Comparison::Credit(4.into()));
        assert_eq!(compare(position(50, 7, 3), 48.into()), Comparison::Debit(2.into()));
        assert_eq!(compare(position(0, 0, 0), Amount::ZERO), Comparison::Equal);
    }

    #[test]
    fn what_would_break_the_ledger_later_is_not_booked_now() {
        // The incoming 90 may still vanish, and then 20 would leave of 10.
        assert_eq!(compare(position(50, 90, 20), 10.into()), Comparison::Unbookable);
        assert_eq!(compare(position(50, 90, 20), 20.into()), Comparison::Debit(30.into()));
        assert_eq!(compare(position(1, 1, 0), Amount::MAX), Comparison::Unbookable);
        assert_eq!(
            compare(position(1, 0, 0), Amount::MAX),
            Comparison::Credit(Amount::MAX.saturating_sub(1.into()))
        );
    }
}
