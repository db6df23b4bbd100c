//! The promises of the arithmetic, for every history that a chain can have.

use alloy::primitives::U256;
use proptest::prelude::*;

mod books;
mod early;
mod histories;
mod journal;
mod simulation;
mod traced;

use super::*;

/// One wallet's movements of one asset, block by block.
type Blocks = Vec<Vec<(Direction, Amount)>>;

/// Blocks in which nothing is spent that was not received: what a chain can contain.
fn history() -> impl Strategy<Value = Blocks> {
    let movement = (any::<bool>(), 0u64..1_000_000);
    prop::collection::vec(prop::collection::vec(movement, 0..4), 1..12).prop_map(|blocks| {
        let mut total = 0u64;
        let mut honest = Vec::new();
        for block in blocks {
            let mut kept = Vec::new();
            for (incoming, amount) in block {
                if incoming {
                    total += amount;
                    kept.push((Direction::In, Amount::from(amount)));
                } else {
                    let amount = amount.min(total);
                    total -= amount;
                    kept.push((Direction::Out, Amount::from(amount)));
                }
            }
            honest.push(kept);
        }
        honest
    })
}

fn each(position: Position, kind: EntryKind, block: &[(Direction, Amount)]) -> Position {
    // The order that the commit point uses: what raises the total comes first.
    let booked_first = match kind {
        EntryKind::Connect
        | EntryKind::Settle
        | EntryKind::ConnectSettled
        | EntryKind::Early
        | EntryKind::EarlyOver => Direction::In,
        EntryKind::Disconnect | EntryKind::DisconnectSettled => Direction::Out,
    };
    let (first, second): (Vec<_>, Vec<_>) = block.iter().partition(|(d, _)| *d == booked_first);
    first.into_iter().chain(second).fold(position, |position, &(direction, amount)| {
        let next = position.apply(kind, direction, amount).expect("an honest history is bookable");
        assert_buckets(next, Amount::from(7));
        next
    })
}

fn assert_buckets(position: Position, held: Amount) {
    let buckets = position.buckets(held).expect("a booked position has buckets");
    let sum = buckets
        .available
        .checked_add(buckets.pending)
        .and_then(|sum| sum.checked_add(buckets.frozen))
        .expect("no overflow");
    assert_eq!(sum, buckets.total, "available + pending + frozen = total");
    assert!(buckets.frozen <= held);
}

proptest! {
    #[test]
    fn one_history_gives_one_balance_in_any_order_of_settling_and_reorgs(
        blocks in history(),
        moves in prop::collection::vec((0u8..3, 1usize..4), 0..60),
    ) {
        let mut position = Position::default();
        let (mut head, mut settled) = (0usize, 0usize);
        for (what, count) in moves {
            for _ in 0..count {
                match what {
                    0 if head < blocks.len() => {
                        position = each(position, EntryKind::Connect, &blocks[head]);
                        head += 1;
                    }
                    1 if head > settled => {
                        head -= 1;
                        position = each(position, EntryKind::Disconnect, &blocks[head]);
                    }
                    2 if settled < head => {
                        position = each(position, EntryKind::Settle, &blocks[settled]);
                        settled += 1;
                    }
                    _ => {}
                }
            }
        }
        while head < blocks.len() {
            position = each(position, EntryKind::Connect, &blocks[head]);
            head += 1;
        }
        let straight = blocks.iter().fold(Position::default(), |p, b| each(p, EntryKind::Connect, b));
        prop_assert_eq!(position.total(), straight.total());
        while settled < head {
            position = each(position, EntryKind::Settle, &blocks[settled]);
            settled += 1;
        }
        prop_assert_eq!(position.incoming, Amount::ZERO);
        prop_assert_eq!(position.outgoing, Amount::ZERO);
        prop_assert_eq!(Ok(position.settled), straight.total());
    }

    #[test]
    fn what_is_undone_leaves_no_trace(blocks in history()) {
        let mut position = Position::default();
        for block in &blocks {
            position = each(position, EntryKind::Connect, block);
        }
        for block in &blocks {
            position = each(position, EntryKind::Settle, block);
        }
        for block in blocks.iter().rev() {
            position = each(position, EntryKind::DisconnectSettled, block);
        }
        prop_assert_eq!(position, Position::default());
    }

    #[test]
    fn no_bucket_is_negative_and_they_always_sum_up(
        settled in any::<u64>(), incoming in any::<u64>(), outgoing in any::<u64>(), held in any::<u64>(),
        early in any::<u64>(),
    ) {
        let position = Position {
            settled: settled.into(), incoming: incoming.into(), outgoing: outgoing.into(),
            early: early.min(incoming).into(),
        };
        match position.total() {
            Ok(_) => assert_buckets(position, held.into()),
            Err(LedgerError::Shortfall { missing }) => {
                prop_assert_eq!(
                    Amount::from(outgoing),
                    missing.checked_add(settled.into()).and_then(|m| m.checked_add(incoming.into())).unwrap()
                );
            }
            Err(other) => return Err(TestCaseError::fail(other.to_string())),
        }
    }
}

#[test]
fn a_deposit_is_pending_then_available_and_a_withdrawal_counts_at_once() {
    let deposit =
        Position::default().apply(EntryKind::Connect, Direction::In, 100.into()).expect("bookable");
    let seen = deposit.buckets(Amount::ZERO).expect("buckets");
    assert_eq!((seen.available, seen.pending), (0.into(), 100.into()));
    let settled = deposit.apply(EntryKind::Settle, Direction::In, 100.into()).expect("bookable");
    let spent = settled.apply(EntryKind::Connect, Direction::Out, 30.into()).expect("bookable");
    let after = spent.buckets(20.into()).expect("buckets");
    assert_eq!((after.available, after.frozen, after.pending), (50.into(), 20.into(), 0.into()));
    assert_eq!(after.total, 70.into());
}

#[test]
fn the_edges_of_256_bits_are_errors_not_wraps() {
    let full = Position { settled: Amount::MAX, ..Position::default() };
    assert_eq!(full.apply(EntryKind::Connect, Direction::In, 1.into()), Err(LedgerError::Overflow));
    let all_out = full.apply(EntryKind::Connect, Direction::Out, Amount::MAX).expect("all of it");
    assert_eq!(all_out.total(), Ok(Amount::ZERO));
    assert_eq!(
        Position::default().apply(EntryKind::Connect, Direction::Out, Amount::new(U256::MAX)),
        Err(LedgerError::Shortfall { missing: Amount::MAX })
    );
    assert_eq!(
        Position::default().apply(EntryKind::Settle, Direction::In, 1.into()),
        Err(LedgerError::Inconsistent)
    );
}
