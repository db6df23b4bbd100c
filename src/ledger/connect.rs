//! Blocks continue the chain. What of them is settled already settles with them, block by block, so that one
//! history gives the same entries and events however it is cut into commits.

use std::collections::BTreeMap;

use super::{
    Decision, Known, LedgerError, Refused,
    changes::NewBlock,
    deployments,
    known::{Figures, KnownDeployments, MatchedBlock, Shortage, adjustment},
    posting::{Posting, Slot, booked_first, refused},
    safes, settle,
};
use crate::{
    amount::Amount,
    chain::{AssetKey, BlockRef},
    clock::Millis,
    event::Told,
    model::{
        BlockPoint, ChainInfo, CommitKind, Cursor, Direction, EntryKind, Position, Reason, Status,
        Transfer, Watch,
    },
};

/// Blocks remembered below the settled one, for a node that shows an old branch.
pub const REMEMBERED_BELOW_SETTLED: u64 = 64;

/// What is to be connected.
#[derive(Clone, Copy, Debug)]
pub struct Blocks<'a> {
    /// Each the child of the one before, the first of the cursor's head.
    pub blocks: &'a [MatchedBlock],
    /// One of them, or the block that is settled already: what settles with this commit.
    pub settled: BlockPoint,
    /// The chain's own balances for what an earlier try asked for.
    pub figures: &'a Figures,
    /// Earlier blocks that were traced since, with nothing in them that is to be booked.
    pub traced: &'a [BlockRef],
}

/// Connects `blocks` and settles up to `settled`. What settles is compared with nothing: that is
/// [`settle`]'s work.
///
/// `pending` are the transfers of earlier blocks that settle with these, in chain order.
///
/// # Errors
/// Booking would break an invariant.
pub fn connect(
    chain: &ChainInfo,
    cursor: &Cursor,
    known: &Known,
    safes: KnownDeployments,
    pending: Vec<Transfer>,
    input: Blocks<'_>,
    now: Millis,
) -> Result<Decision, Refused> {
    let Blocks { blocks, settled, figures, traced } = input;
    let head = blocks.last().map_or(cursor.head, |block| (&block.header).into());
    let next = Cursor { head, settled, ..cursor.clone() };
    let mut posting = Posting::new(chain, known, cursor, next, now, CommitKind::Blocks);
    posting.changes.blocks.traced.extend_from_slice(traced);
    let moved = settled.at.number > cursor.settled.at.number;
    if moved {
        // A settled block between two batches keeps its row: the next reorg search ends there.
        let below = if settled == head { 0 } else { REMEMBERED_BELOW_SETTLED };
        posting.changes.blocks.forget_below(settled.at.number.saturating_sub(below));
        settle::settle_pending(&mut posting, pending)?;
    }
    let movements: usize = blocks.iter().map(|block| block.movements.len()).sum();
    posting.reserve(2 * movements);
    let mut tracking = deployments::Tracking::new(safes);
    let mut short = BTreeMap::new();
    for block in blocks {
        // Rows of settled blocks are of no use to a reorg; while catching up that is nearly all of them.
        if block.header.at.number >= settled.at.number {
            let MatchedBlock { header, untraced, .. } = *block;
            posting.changes.blocks.connected.push(NewBlock { header, untraced });
        }
        let settles = moved && block.header.at.number <= settled.at.number;
        posting.head = block.header.at.number;
        connect_block(&mut posting, block, figures, settles, &mut short)?;
        deployments::seen(&mut posting, &mut tracking, block)?;
        safes::ran(&mut posting, block);
    }
    posting.head = head.at.number;
    posting.changes.report.uncompared = posting.changes.report.settled.len();
    if short.is_empty() {
        Ok(Decision::Commit(Box::new(posting.finish()?)))
    } else {
        Ok(Decision::Ask(short))
    }
}

fn connect_block(
    posting: &mut Posting<'_>,
    block: &MatchedBlock,
    figures: &Figures,
    settles: bool,
    short: &mut BTreeMap<Shortage, BlockRef>,
) -> Result<(), Refused> {
    if block.movements.is_empty() && block.touched.is_empty() {
        return Ok(());
    }
    let mut sides = sides(posting, block)?;
    for side in sides.iter_mut().filter(|side| side.transfer.direction == Direction::In) {
        posting.connect(&mut side.transfer, side.slot)?;
    }
    let mut booked = book_untraced(posting, block, &sides, figures, short)?;
    for side in sides.iter_mut().filter(|side| side.transfer.direction == Direction::Out) {
        posting.connect(&mut side.transfer, side.slot)?;
    }
    freeze(posting, block)?;
    booked.extend(sides.into_iter().map(|side| (side.transfer, side.slot)));
    let first_event = posting.changes.events.len();
    for (transfer, slot) in &booked {
        posting.tell_at(*slot, transfer, transfer.status);
    }
    if settles {
        settle_now(posting, &booked, first_event)?;
    }
    for (transfer, _) in booked {
        posting.book(transfer, settles);
    }
    Ok(())
}

/// A movement as one watching wallet sees it.
pub(super) struct Side<'a> {
    pub transfer: Transfer,
    pub slot: Slot,
    pub watch: &'a Watch,
    pub asset: AssetKey,
}

/// The block's movements as each watching wallet sees them, in chain order.
pub(super) fn sides<'a>(
    posting: &mut Posting<'a>,
    block: &MatchedBlock,
) -> Result<Vec<Side<'a>>, Refused> {
    let watches = posting.watches();
    let mut sides = Vec::with_capacity(2 * block.movements.len());
    for (index, movement) in block.movements.iter().enumerate() {
        for (address, direction) in [(movement.from, Direction::Out), (movement.to, Direction::In)]
        {
            if block.worthless.leaves_out(index, direction) {
                continue;
            }
            let Some(watching) = address.and_then(|address| watches.get(&address)) else {
                continue;
            };
            for watch in watching {
                let mut transfer =
                    posting.side(&block.header, movement, watch.owner(), direction)?;
                transfer.omitted = block.worthless.omitted(index, direction);
                let slot = posting.slot(transfer.wallet, transfer.asset);
                sides.push(Side { transfer, slot, watch, asset: movement.asset });
            }
        }
    }
    Ok(sides)
}

/// Where more leaves than the ledger knows of, connects what the chain's own figure proves; without a figure,
/// names what has to be asked, and goes on as if that were nothing.
fn book_untraced(
    posting: &mut Posting<'_>,
    block: &MatchedBlock,
    sides: &[Side<'_>],
    figures: &Figures,
    short: &mut BTreeMap<Shortage, BlockRef>,
) -> Result<Vec<(Transfer, Slot)>, Refused> {
    // What leaves of each balance in this block, the same balance behind one another.
    let mut spent: Vec<&Side<'_>> = sides
        .iter()
        .filter(|side| side.transfer.counted && side.transfer.direction == Direction::Out)
        .collect();
    spent.sort_by_key(|side| (side.transfer.wallet, side.transfer.asset));
    let mut adjustments = Vec::new();
    for of_one in spent.chunk_by(|a, b| a.slot == b.slot) {
        let side = of_one[0];
        let mut sum = Amount::ZERO;
        for side in of_one {
            sum = sum.checked_add(side.transfer.amount).ok_or_else(|| overflow(side))?;
        }
        let position = posting.balance_at(side.slot).position;
        let missing = position.shortfall(sum).map_err(|_| overflow(side))?;
        if missing.is_zero() {
            continue;
        }
        let at = block.header.at;
        let shortage =
            Shortage { number: at.number, address: side.watch.address, asset: side.asset };
        let figure = figures.get(&shortage).copied();
        if figure.is_none() {
            short.insert(shortage, at);
        }
        let figure = figure.flatten();
        let amount =
            missing.checked_add(figure.unwrap_or_default()).ok_or_else(|| overflow(side))?;
        let movement = adjustment(at, side.watch.address, side.asset, amount);
        let reason =
            if figure.is_some() { Reason::UntracedCredit } else { Reason::UntracedCreditAtLeast };
        let mut covering =
            posting.side(&block.header, &movement, side.watch.owner(), Direction::In)?;
        covering.reason = Some(reason);
        posting.connect(&mut covering, side.slot)?;
        adjustments.push((covering, side.slot));
    }
    Ok(adjustments)
}

pub(super) fn overflow(side: &Side<'_>) -> Refused {
    let refused = refused(&side.transfer, EntryKind::Connect, LedgerError::Overflow);
    match side.asset {
        AssetKey::Native => refused,
        AssetKey::Token(_) => refused.by_token(&side.transfer),
    }
}

/// Takes over what the issuers of assets have frozen, as the chain's state has it after the block.
fn freeze(posting: &mut Posting<'_>, block: &MatchedBlock) -> Result<(), Refused> {
    for (query, holding) in &block.touched {
        if !posting.counts(&query.asset) {
            continue;
        }
        let Some(watching) = posting.watches().get(&query.address) else { continue };
        let asset = posting.asset(query.asset)?.no;
        for watch in watching {
            posting.set_frozen(watch.wallet, asset, holding.frozen);
        }
    }
    Ok(())
}

/// Settles a block that was connected just now. The events of its transfers tell of both, where all that was
/// open settles with it; they stand from `first_event` on.
fn settle_now(
    posting: &mut Posting<'_>,
    booked: &[(Transfer, Slot)],
    first_event: usize,
) -> Result<(), Refused> {
    for first in [true, false] {
        for (transfer, slot) in booked {
            if (transfer.direction == booked_first(EntryKind::Settle)) == first {
                posting.apply_at(*slot, transfer, EntryKind::Settle)?;
            }
        }
    }
    let connected = posting.changes.events.split_off(first_event);
    let mut seen = connected.into_iter().peekable();
    for (transfer, slot) in booked {
        let mut together = false;
        let own =
            |told: &Told| matches!(told, Told::Transfer(told) if told.transfer == transfer.no);
        if let Some(mut event) = seen.next_if(|event| own(&event.told)) {
            if let Told::Transfer(told) = &mut event.told {
                let after = posting.balance_at(*slot).position;
                together = told.kind.once_settled().is_some()
                    && told.position.total().is_ok_and(|total| after == Position::of(total));
                told.and_settled = together;
            }
            posting.changes.events.push(event);
        }
        if !together {
            posting.tell_at(*slot, transfer, Status::Settled);
        }
    }
    Ok(())
}
