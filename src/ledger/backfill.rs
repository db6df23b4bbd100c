//! The past of watches, from their openings downwards.
//!
//! A watch begins with the balances of its first block, at once. Where history was asked for, the blocks below
//! are read range by range, the highest first. Each range puts an older opening in place of the one that stands,
//! and the transfers in between, settled like their blocks. The sum stays the same, so nothing that has happened
//! since is touched, and after every range the ledger explains all from its lowest block on.

use std::collections::BTreeMap;

use super::{
    Changes, Known, LedgerError, Refused,
    changes::{HistoryEnd, ScanChange, TransferUpdate},
    posting::{Posting, refused},
};
use crate::{
    amount::Amount,
    chain::{Address, AssetKey, BlockRef, Header, HistoryBlock, Movement},
    clock::Millis,
    ledger::known::opening,
    model::{
        AssetNo, BlockPoint, ChainInfo, CommitKind, Cursor, Direction, EntryKind, HistoryStatus,
        Reason, ScanNo, Status, Transfer, Watch,
    },
};

/// What moved in consecutive blocks of the chain, for some addresses.
#[derive(Clone, Copy, Debug)]
pub struct Range<'a> {
    /// The highest first; those without a movement of a participant may be left out.
    pub blocks: &'a [HistoryBlock],
    /// The block below the lowest.
    pub below: BlockPoint,
    /// Sides of movements in the blocks, as [`sides`] gives them: all of some addresses.
    pub sides: &'a [Side],
    /// Whether no other address moved in the blocks: then the scans move on, else only those who take part here.
    pub is_last: bool,
}

/// One side of a movement in some blocks.
#[derive(Clone, Copy, Debug)]
pub struct Side {
    pub address: Address,
    pub direction: Direction,
    /// The index of its block.
    block: usize,
    /// The index of the movement in the block.
    movement: usize,
}

impl Side {
    /// The movement, and the header of its block.
    #[must_use]
    pub fn of<'a>(&self, blocks: &'a [HistoryBlock]) -> Option<(&'a Header, &'a Movement)> {
        let block = blocks.get(self.block)?;
        Some((&block.header, block.movements.get(self.movement)?))
    }
}

/// What moved of `assets` in `blocks` for those who are wanted: by address, in the order of the blocks.
#[must_use]
pub fn sides(
    blocks: &[HistoryBlock],
    assets: &[AssetKey],
    is_wanted: impl Fn(&Address) -> bool,
) -> Vec<Side> {
    let mut sides = Vec::new();
    for (block, HistoryBlock { movements, .. }) in blocks.iter().enumerate() {
        for (movement, moved) in movements.iter().enumerate() {
            // Anybody can move nothing, any number of times.
            if moved.amount.is_zero() || !assets.contains(&moved.asset) {
                continue;
            }
            for (address, direction) in [(moved.to, Direction::In), (moved.from, Direction::Out)] {
                if let Some(address) = address.filter(|address| is_wanted(address)) {
                    sides.push(Side { address, direction, block, movement });
                }
            }
        }
    }
    // Stable: the sides of one address stay in order.
    sides.sort_by_key(|side| side.address);
    sides
}

/// The first of some sides that are left to book.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    pub sides: usize,
    /// How many blocks it covers, if they are not all: so much happened to one address that it is booked in parts.
    pub blocks: Option<usize>,
}

/// The first of `sides` that are booked together: about `most` of them, and all of each address or, of a single
/// one, all of some blocks.
#[must_use]
pub fn piece(sides: &[Side], most: usize) -> Piece {
    let Some(left) = sides.get(most.max(1)) else {
        return Piece { sides: sides.len(), blocks: None };
    };
    let own = sides.partition_point(|side| side.address < left.address);
    if own > 0 {
        return Piece { sides: own, blocks: None };
    }
    let own = sides.partition_point(|side| side.address == left.address);
    let above = sides[..own].partition_point(|side| side.block < left.block);
    let end = if above > 0 {
        above
    } else {
        sides[..own].partition_point(|side| side.block == left.block)
    };
    Piece { sides: end, blocks: (end < own).then(|| sides[end].block) }
}

impl<'a> Range<'a> {
    /// What moved for an address.
    fn of_address(&self, address: &Address) -> &'a [Side] {
        let sides = self.sides;
        let first = sides.partition_point(|side| side.address < *address);
        let end = first + sides[first..].partition_point(|side| side.address == *address);
        &sides[first..end]
    }

    /// The block below all that a history since `from_block` gets from this range: its older opening is the
    /// balance after it.
    #[must_use]
    pub fn start(&self, from_block: u64) -> BlockPoint {
        let first = from_block.max(1);
        if self.below.at.number + 1 >= first {
            return self.below;
        }
        let counting = self.blocks.partition_point(|past| past.header.at.number >= first);
        let (counting, others) = self.blocks.split_at(counting);
        match (others.first(), counting.last()) {
            (Some(HistoryBlock { header, .. }), _) if header.at.number + 1 == first => {
                header.into()
            }
            // Nothing that counts lies between.
            (_, Some(HistoryBlock { header, .. })) => {
                BlockPoint { at: header.parent, ..BlockPoint::from(header) }
            }
            (_, None) => self.below,
        }
    }
}

/// A scan that a range moves on to the block below it.
#[derive(Clone, Debug)]
pub struct ScanMove {
    pub no: ScanNo,
    /// The block that it needed next.
    pub seen: BlockRef,
    /// Scans that stand in the range as well, or at the block below it, each with the height that it needed next:
    /// they are one with it from now on.
    pub absorbs: Vec<(ScanNo, u64)>,
}

/// A watch of a scan, with movements in a range.
#[derive(Clone, Debug)]
pub struct Participant {
    pub watch: Watch,
    /// The height of the block that it needs next: what lies above is explained.
    pub seen: u64,
    /// The block with whose balances the watch began.
    pub opened: BlockRef,
    /// The first block that counts.
    pub from_block: u64,
    /// Openings that stand.
    pub openings: Vec<Transfer>,
}

impl Participant {
    /// It ends where it is.
    fn incomplete(&self) -> HistoryEnd {
        HistoryEnd {
            wallet: self.watch.wallet,
            address: self.watch.address,
            status: HistoryStatus::Incomplete,
            covered_from: Some(self.seen + 1),
        }
    }
}

/// One asset's part of a range.
#[derive(Default)]
struct Part {
    gained: Vec<Transfer>,
    lost: Vec<Transfer>,
    openings: Vec<Transfer>,
}

fn sum<'a>(transfers: impl IntoIterator<Item = &'a Transfer>) -> Result<Amount, Refused> {
    transfers.into_iter().try_fold(Amount::ZERO, |sum, transfer| {
        sum.checked_add(transfer.amount)
            .ok_or_else(|| refused(transfer, EntryKind::ConnectSettled, LedgerError::Overflow))
            .map_err(|refused| refused.by_token(transfer))
    })
}

impl Part {
    /// What there was before it all; `None` if the parts contradict each other.
    fn before(&self) -> Result<Option<Amount>, Refused> {
        let after = sum(self.openings.iter().chain(&self.lost))?;
        Ok(after.checked_sub(sum(&self.gained)?))
    }
}

/// Books a range for all who take part, and moves their scans on, or them ahead of their scans. A past that
/// contradicts what its watch began with, or that cannot be booked, ends incomplete, for that wallet alone.
///
/// # Errors
/// Booking would break an invariant, whoever is left out.
pub fn backfill(
    chain: &ChainInfo,
    cursor: &Cursor,
    known: &Known,
    participants: &[Participant],
    scans: &[ScanMove],
    range: Range<'_>,
    now: Millis,
) -> Result<Changes, Refused> {
    let book = |participants: &[&Participant]| {
        let mut posting =
            Posting::new(chain, known, cursor, cursor.clone(), now, CommitKind::History);
        for participant in participants {
            let parts = parts(&mut posting, participant, range)?;
            let start = range.start(participant.from_block);
            if !explain(&mut posting, participant, parts, start)? {
                posting.changes.watches.ended.push(participant.incomplete());
            }
        }
        posting.finish()
    };
    let all: Vec<&Participant> = participants.iter().collect();
    let booked = book(&all);
    // Without the token whose figures these are, the histories go on.
    if booked.as_ref().is_err_and(|refused| refused.culprit.is_some()) {
        return booked;
    }
    let mut changes = if let Ok(changes) = booked {
        changes
    } else {
        let (some, others): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|participant| book(&[participant]).is_ok());
        let mut changes = book(&some)?;
        changes.report.unbookable = others.iter().map(|other| other.watch.wallet).collect();
        changes.watches.ended.extend(others.into_iter().map(Participant::incomplete));
        changes
    };
    // What the past explains changes no balance.
    changes.balances.retain(|change| {
        known.balances.get(&(change.wallet, change.asset)) != Some(&change.balance)
    });
    changes.watches.untraced = untraced(scans, range.blocks);
    let moved = scans.iter().map(|ScanMove { no, seen, absorbs }| ScanChange {
        no: *no,
        seen: *seen,
        absorbs: absorbs.iter().map(|(no, _)| *no).collect(),
    });
    if range.is_last {
        changes.watches.scans = Some((range.below.at, moved.collect()));
    } else {
        // Who is further ahead already, by other cuts before a restart, stays there: nothing is booked twice.
        let next = range.below.at.number;
        let behind = participants.iter().filter(|participant| participant.seen > next);
        let wallets = behind.map(|participant| participant.watch.wallet).collect();
        changes.watches.ahead = Some((next, wallets));
    }
    Ok(changes)
}

/// The highest block that nobody traced, and the scans for which it is that.
fn untraced(scans: &[ScanMove], blocks: &[HistoryBlock]) -> BTreeMap<u64, Vec<ScanNo>> {
    let untraced: Vec<u64> =
        blocks.iter().filter(|past| past.untraced).map(|past| past.header.at.number).collect();
    let mut highest: BTreeMap<u64, Vec<ScanNo>> = BTreeMap::new();
    for ScanMove { no, seen, absorbs } in scans {
        for (no, seen) in absorbs.iter().copied().chain([(*no, seen.number)]) {
            if let Some(number) = untraced.iter().find(|number| **number <= seen) {
                highest.entry(*number).or_default().push(no);
            }
        }
    }
    highest
}

/// Ends histories: nothing more is booked.
#[must_use]
pub fn end(cursor: &Cursor, ended: Vec<HistoryEnd>, now: Millis) -> Changes {
    let mut changes = Changes::new(cursor, cursor.clone(), now);
    changes.watches.ended = ended;
    changes
}

type Parts = BTreeMap<AssetKey, Part>;

/// What moved for one participant in the blocks that it asks for, by asset.
fn parts(
    posting: &mut Posting<'_>,
    participant: &Participant,
    range: Range<'_>,
) -> Result<Parts, Refused> {
    let mut parts = Parts::new();
    let lowest = participant.from_block.max(range.below.at.number + 1);
    for side in range.of_address(&participant.watch.address) {
        let Some((header, movement)) = side.of(range.blocks) else { continue };
        let direction = side.direction;
        if !(lowest..=participant.seen).contains(&header.at.number) {
            continue;
        }
        let side = posting.side(header, movement, participant.watch.owner(), direction)?;
        if side.counted {
            let part = parts.entry(movement.asset).or_default();
            match direction {
                Direction::In => part.gained.push(side),
                Direction::Out => part.lost.push(side),
            }
        }
    }
    Ok(parts)
}

/// Puts older openings and the transfers since in place of what stands; `false`, and nothing is booked, if they
/// contradict each other.
fn explain(
    posting: &mut Posting<'_>,
    participant: &Participant,
    mut parts: Parts,
    start: BlockPoint,
) -> Result<bool, Refused> {
    let mut numbers: BTreeMap<AssetNo, AssetKey> = BTreeMap::new();
    for key in parts.keys().copied().collect::<Vec<_>>() {
        numbers.insert(posting.asset(key)?.no, key);
    }
    for opening in &participant.openings {
        let Some(key) = numbers.get(&opening.asset) else { continue };
        if opening.block.number > participant.opened.number {
            // The asset began to count later than the watch: its opening holds at another block.
            parts.remove(key);
        } else if let Some(part) = parts.get_mut(key) {
            part.openings.push(opening.clone());
        }
    }
    let mut planned = Vec::new();
    for (asset, part) in parts {
        let before = match part.before() {
            Ok(before) => before,
            // Nobody chooses the native coin's figures: they contradict each other.
            Err(_) if asset == AssetKey::Native => None,
            Err(refused) => return Err(refused),
        };
        let Some(before) = before else {
            if let Some((no, _)) = numbers.iter().find(|(_, key)| **key == asset) {
                posting.changes.report.contradictions.push((participant.watch.wallet, *no));
            }
            return Ok(false);
        };
        planned.push((asset, part, before));
    }
    for (asset, part, before) in planned {
        replace_opening(posting, participant, start, asset, part, before)?;
    }
    Ok(true)
}

fn replace_opening(
    posting: &mut Posting<'_>,
    participant: &Participant,
    start: BlockPoint,
    asset: AssetKey,
    part: Part,
    before: Amount,
) -> Result<(), Refused> {
    let Part { mut gained, lost, openings } = part;
    if !before.is_zero() {
        let movement = opening(start.at, true, participant.watch.address, asset, before);
        let time = u64::try_from(start.time.seconds()).unwrap_or(0);
        let header = Header { at: start.at, parent: start.at, time };
        let side = posting.side(&header, &movement, participant.watch.owner(), Direction::In)?;
        gained.insert(0, side);
    }
    // What raises the balance first, so that no sum falls below zero on the way.
    for mut side in gained.into_iter().chain(lost) {
        posting.connect_settled(&mut side)?;
        posting.book(side, true);
    }
    for old in openings {
        if old.status != Status::Settled {
            let context = format!("the opening {} of a history", old.id);
            return Err(Refused::new(context, LedgerError::Inconsistent));
        }
        posting.apply(&old, EntryKind::DisconnectSettled)?;
        posting.entry(&old, EntryKind::DisconnectSettled);
        // What the watch began with stays to be seen; openings on the way down do not.
        posting.changes.updates.push(if old.block == participant.opened {
            TransferUpdate::Orphaned {
                no: old.no,
                mark: old.id.mark(),
                reason: Some(Reason::ExplainedByHistory),
            }
        } else {
            TransferUpdate::Replaced(old.no)
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
