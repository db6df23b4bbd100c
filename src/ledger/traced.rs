//! What moved inside the transactions of a block is known only after the block was connected.
//!
//! It is booked as what that block holds. Where the ledger was short meanwhile, it has taken the missing money for
//! granted: in the same commit, each such correction becomes what it would have been with what is known by now.

use std::collections::BTreeMap;

use super::{
    Changes, Known, LedgerError, Refused,
    changes::TransferUpdate,
    connect::{Side, overflow, sides},
    known::{MatchedBlock, adjustment},
    posting::{Posting, refused},
    rollback::take_back,
};
use crate::{
    amount::Amount,
    chain::{BlockRef, Header, Kind},
    clock::Millis,
    model::{ChainInfo, CommitKind, Cursor, Direction, EntryKind, Reason, Status, Transfer},
};

/// Connects what moved inside the transactions of `block`, which was connected without it and has not settled.
///
/// `known` are the watches that had begun before it. `pending` are the transfers in it and in later blocks of those
/// wallets that have corrections there, or lose something in it.
///
/// # Errors
/// Booking would break an invariant.
pub fn complete(
    chain: &ChainInfo,
    cursor: &Cursor,
    known: &Known,
    pending: &[Transfer],
    block: &MatchedBlock,
    now: Millis,
) -> Result<Changes, Refused> {
    let mut posting = Posting::new(chain, known, cursor, cursor.clone(), now, CommitKind::Blocks);
    posting.changes.blocks.traced.push(block.header.at);
    let mut sides = sides(&mut posting, block)?;
    // Whoever was told twice books once.
    sides.retain(|side| !posting.stands(&side.transfer));
    let revised = revised(&mut posting, &sides, pending, &block.header)?;
    for side in sides.iter_mut().filter(|side| side.transfer.direction == Direction::In) {
        posting.connect(&mut side.transfer, side.slot)?;
    }
    let (mut gone, mut replaced) = (Vec::new(), Vec::new());
    let mut booked = Vec::with_capacity(sides.len());
    for Revised { side, old, at, time, amount } in revised {
        let side = &sides[side];
        if !amount.is_zero() {
            let new = match &old {
                Some(old) => {
                    replaced.push(TransferUpdate::Replaced(old.no));
                    posting.connect_anew(old, amount, side.slot)?
                }
                None => cover(&mut posting, side, at, time, amount)?,
            };
            booked.push((new, side.slot));
        }
        gone.extend(old);
    }
    take_back(&mut posting, &mut gone, Some(Reason::ExplainedByTrace))?;
    posting.changes.updates.append(&mut replaced);
    for side in sides.iter_mut().filter(|side| side.transfer.direction == Direction::Out) {
        posting.connect(&mut side.transfer, side.slot)?;
    }
    for transfer in &gone {
        posting.tell(transfer);
    }
    booked.extend(sides.into_iter().map(|side| (side.transfer, side.slot)));
    for (transfer, slot) in booked {
        posting.tell_at(slot, &transfer, Status::Pending);
        posting.book(transfer, false);
    }
    posting.finish()
}

/// A correction with another amount than it had so far, or a new one.
struct Revised {
    /// One of the sides of its balance.
    side: usize,
    old: Option<Transfer>,
    at: BlockRef,
    time: Millis,
    /// Zero if nothing is left of it.
    amount: Amount,
}

/// What moved of one balance in one block.
struct Moved<'a> {
    at: BlockRef,
    time: Millis,
    came: Amount,
    left: Amount,
    correction: Option<&'a Transfer>,
}

/// The corrections of all balances that the block's sides change.
fn revised(
    posting: &mut Posting<'_>,
    sides: &[Side<'_>],
    pending: &[Transfer],
    header: &Header,
) -> Result<Vec<Revised>, Refused> {
    let mut counted: Vec<usize> =
        (0..sides.len()).filter(|&index| sides[index].transfer.counted).collect();
    let key = |index: usize| (sides[index].transfer.wallet, sides[index].transfer.asset);
    counted.sort_by_key(|&index| key(index));
    let mut revised = Vec::new();
    for of_one in counted.chunk_by(|&a, &b| key(a) == key(b)) {
        let first = of_one[0];
        let side = &sides[first];
        let own: Vec<&Transfer> = pending
            .iter()
            .filter(|row| row.counted && (row.wallet, row.asset) == key(first))
            .collect();
        let late = of_one.iter().map(|&index| &sides[index].transfer);
        let total = posting.balance_at(side.slot).position.total();
        let inconsistent =
            || refused(&side.transfer, EntryKind::Connect, LedgerError::Inconsistent);
        let found = of_balance(total.map_err(|_| inconsistent())?, &own, late, header);
        let found = found.ok_or_else(|| overflow(side))?;
        revised.extend(found.into_iter().map(|(moved, amount)| Revised {
            side: first,
            old: moved.correction.cloned(),
            at: moved.at,
            time: moved.time,
            amount,
        }));
    }
    Ok(revised)
}

/// The corrections of one balance that change, with their new amounts. `total` is the balance so far, `own` its pending
/// transfers from the block on, `late` what is to be connected in that block. `None` if a sum cannot be.
fn of_balance<'a>(
    total: Amount,
    own: &[&'a Transfer],
    late: impl Iterator<Item = &'a Transfer>,
    header: &Header,
) -> Option<Vec<(Moved<'a>, Amount)>> {
    let mut blocks: BTreeMap<u64, Moved<'a>> = BTreeMap::new();
    let of = |at: BlockRef, time: Millis| Moved {
        at,
        time,
        came: Amount::ZERO,
        left: Amount::ZERO,
        correction: None,
    };
    for &row in own {
        let moved = blocks.entry(row.block.number).or_insert_with(|| of(row.block, row.block_time));
        match (row.kind, row.direction) {
            (Kind::Adjustment, Direction::In) => moved.correction = Some(row),
            (_, Direction::In) => moved.came = moved.came.checked_add(row.amount)?,
            (_, Direction::Out) => moved.left = moved.left.checked_add(row.amount)?,
        }
    }
    // What was there before the block.
    let (mut came, mut left) = (Amount::ZERO, total);
    for moved in blocks.values() {
        came = came.checked_add(moved.came)?;
        came = came.checked_add(moved.correction.map_or(Amount::ZERO, |row| row.amount))?;
        left = left.checked_add(moved.left)?;
    }
    let before = left.checked_sub(came)?;
    let time = Millis::from_seconds(header.time);
    let (mut was, mut is) = (before, before);
    let first = blocks.entry(header.at.number).or_insert_with(|| of(header.at, time));
    let (mut more, mut less) = (Amount::ZERO, Amount::ZERO);
    for transfer in late {
        let sum = match transfer.direction {
            Direction::In => &mut more,
            Direction::Out => &mut less,
        };
        *sum = sum.checked_add(transfer.amount)?;
    }
    let shown = (first.came, first.left);
    (first.came, first.left) = (first.came.checked_add(more)?, first.left.checked_add(less)?);
    let mut changed = Vec::new();
    for (number, moved) in blocks {
        let (came, left) =
            if number == header.at.number { shown } else { (moved.came, moved.left) };
        let old = moved.correction.map_or(Amount::ZERO, |row| row.amount);
        was = was.checked_add(came)?.checked_add(old)?.checked_sub(left)?;
        let has = is.checked_add(moved.came)?;
        // The chain's own figure after the block stays, where it was known; else only the least is taken for granted.
        let figure =
            moved.correction.filter(|row| row.reason == Some(Reason::UntracedCredit)).map(|_| was);
        let needed = moved.left.checked_add(figure.unwrap_or(Amount::ZERO))?;
        let new = needed.saturating_sub(has);
        is = has.checked_add(new)?.checked_sub(moved.left)?;
        if new != old {
            changed.push((moved, new));
        }
    }
    Some(changed)
}

/// More left in a block than was known of: at least that much must have come in.
fn cover(
    posting: &mut Posting<'_>,
    side: &Side<'_>,
    at: BlockRef,
    time: Millis,
    amount: Amount,
) -> Result<Transfer, Refused> {
    let movement = adjustment(at, side.watch.address, side.asset, amount);
    let time = u64::try_from(time.seconds()).unwrap_or(0);
    let header = Header { at, parent: at, time };
    let mut covering = posting.side(&header, &movement, side.watch.owner(), Direction::In)?;
    covering.reason = Some(Reason::UntracedCreditAtLeast);
    posting.connect(&mut covering, side.slot)?;
    Ok(covering)
}
