//! The past of watches, from their openings downwards.
//!
//! A watch begins with the balances of its first block, at once. Where history was asked for, the blocks below
//! are read range by range, the highest first. Each range puts an older opening in place of the one that stands,
//! and the transfers in between, settled like their blocks. The sum stays the same, so nothing that has happened
//! since is touched, and after every range the ledger explains all from its lowest block on.

use std::collections::BTreeMap;

use super::{
    Changes, Known, LedgerError, Refused,
    changes::{HistoryChange, HistoryStep, TransferUpdate},
    known::opening,
    posting::Posting,
};
use crate::{
    amount::Amount,
    chain::{AssetKey, BlockRef, Header, Movement},
    clock::Millis,
    model::{
        AssetNo, BlockPoint, ChainInfo, Cursor, Direction, EntryKind, Reason, Transfer, Watch,
    },
};

/// Consecutive blocks of the chain, ascending; those without a movement of a participant may be left out.
#[derive(Clone, Copy, Debug)]
pub struct Range<'a> {
    pub blocks: &'a [(Header, Vec<Movement>)],
    /// The block below the lowest: the older openings are the balances after it.
    pub below: BlockPoint,
}

/// A watch whose past is in a range.
#[derive(Clone, Debug)]
pub struct Participant {
    pub watch: Watch,
    /// The block down to which its past is explained; the blocks up to it are new.
    pub seen: BlockPoint,
    /// The block with whose balances the watch began.
    pub opened: BlockRef,
    /// The first block that counts.
    pub from_block: u64,
    /// Assets whose past is looked for; the openings of others stay.
    pub assets: Vec<AssetKey>,
    /// Openings that stand.
    pub openings: Vec<Transfer>,
}

/// One asset's part of a range.
#[derive(Default)]
struct Part {
    gained: Vec<Transfer>,
    lost: Vec<Transfer>,
    openings: Vec<Transfer>,
}

fn sum(transfers: &[Transfer]) -> Option<Amount> {
    transfers.iter().try_fold(Amount::ZERO, |sum, transfer| sum.checked_add(transfer.amount))
}

impl Part {
    /// What there was before it all; `None` if the parts contradict each other.
    fn before(&self) -> Option<Amount> {
        sum(&self.openings)?.checked_add(sum(&self.lost)?)?.checked_sub(sum(&self.gained)?)
    }
}

/// Books a range for all who take part. A past that contradicts what its watch began with ends incomplete, for
/// that wallet alone.
///
/// # Errors
/// Booking would break an invariant.
pub fn backfill(
    chain: &ChainInfo,
    cursor: &Cursor,
    known: &Known,
    participants: Vec<Participant>,
    range: Range<'_>,
    now: Millis,
) -> Result<Changes, Refused> {
    let mut posting = Posting::new(chain, known, cursor, cursor.clone(), now);
    let mut parts = parts(&mut posting, &participants, range)?;
    for participant in participants {
        let Participant { watch, seen, from_block, .. } = &participant;
        let done = range.below.at.number < (*from_block).max(1);
        let own = parts.remove(&watch.wallet.0).unwrap_or_default();
        let step = match explain(&mut posting, &participant, own, range.below)? {
            true if done => HistoryStep::Complete,
            true => HistoryStep::To(range.below),
            false => HistoryStep::Incomplete,
        };
        let (wallet, address) = (watch.wallet, watch.address);
        let change = HistoryChange { wallet, address, seen: seen.at, now: step };
        posting.changes.watches.histories.push(change);
    }
    posting.finish()
}

/// Gives up the rest of some histories: no node can prove it.
#[must_use]
pub fn give_up(cursor: &Cursor, participants: &[Participant], now: Millis) -> Changes {
    let mut changes = Changes::new(cursor, cursor.clone(), now);
    changes.watches.histories = participants
        .iter()
        .map(|Participant { watch, seen, .. }| HistoryChange {
            wallet: watch.wallet,
            address: watch.address,
            seen: seen.at,
            now: HistoryStep::Incomplete,
        })
        .collect();
    changes
}

type Parts = BTreeMap<AssetKey, Part>;

/// What moved for each participant, by wallet.
fn parts(
    posting: &mut Posting<'_>,
    participants: &[Participant],
    range: Range<'_>,
) -> Result<BTreeMap<i64, Parts>, Refused> {
    let mut by_address: BTreeMap<_, Vec<&Participant>> = BTreeMap::new();
    for participant in participants {
        by_address.entry(participant.watch.address).or_default().push(participant);
    }
    let mut parts: BTreeMap<i64, Parts> = BTreeMap::new();
    for (header, movements) in range.blocks {
        for movement in movements {
            let sides = [(movement.to, Direction::In), (movement.from, Direction::Out)];
            for (address, direction) in sides {
                let watching = address.and_then(|address| by_address.get(&address));
                for participant in watching.into_iter().flatten() {
                    // A past may reach a little further back than was asked for: its opening is then the
                    // balance below the whole range.
                    let inside = header.at.number > range.below.at.number
                        && header.at.number <= participant.seen.at.number;
                    if !inside || !participant.assets.contains(&movement.asset) {
                        continue;
                    }
                    let leg =
                        posting.leg(header, movement, participant.watch.owner(), direction)?;
                    if !leg.counted {
                        continue;
                    }
                    let own = parts.entry(participant.watch.wallet.0).or_default();
                    let part = own.entry(movement.asset).or_default();
                    match direction {
                        Direction::In => part.gained.push(leg),
                        Direction::Out => part.lost.push(leg),
                    }
                }
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
    below: BlockPoint,
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
        let Some(before) = part.before() else {
            if let Some((no, _)) = numbers.iter().find(|(_, key)| **key == asset) {
                posting.changes.report.contradictions.push((participant.watch.wallet, *no));
            }
            return Ok(false);
        };
        planned.push((asset, part, before));
    }
    for (asset, part, before) in planned {
        replace_opening(posting, participant, below, asset, part, before)?;
    }
    Ok(true)
}

fn replace_opening(
    posting: &mut Posting<'_>,
    participant: &Participant,
    below: BlockPoint,
    asset: AssetKey,
    part: Part,
    before: Amount,
) -> Result<(), Refused> {
    let Part { mut gained, lost, openings } = part;
    if !before.is_zero() {
        let movement = opening(below.at, true, participant.watch.address, asset, before);
        let time = u64::try_from(below.time.seconds()).unwrap_or(0);
        let header = Header { at: below.at, parent: below.at, time };
        let leg = posting.leg(&header, &movement, participant.watch.owner(), Direction::In)?;
        gained.insert(0, leg);
    }
    // What raises the balance first, so that no sum falls below zero on the way.
    for mut leg in gained.into_iter().chain(lost) {
        posting.connect_settled(&mut leg)?;
        posting.book(leg, true);
    }
    for old in openings {
        if old.status != crate::model::Status::Settled {
            return Err(Refused {
                context: format!("the opening {} of a history", old.id),
                error: LedgerError::Inconsistent,
            });
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
