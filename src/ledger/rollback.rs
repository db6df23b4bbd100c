//! Blocks vanished: the opposite entries, and orphaned transfers that may come back.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Changes, Known, Refused,
    changes::{AssetChange, AssetOpening, BalanceChange, NewBlock, TransferUpdate},
    deployments,
    posting::{Posting, booked_first},
};
use crate::{
    amount::Amount,
    chain::{Address, BlockRef, Header},
    clock::Millis,
    event::EventType,
    model::{
        Asset, AssetNo, BlockPoint, ChainInfo, CommitKind, Cursor, Deployment, Direction,
        EntryKind, Listing, Position, Reason, Rewind, RewindOrder, Status, TenantNo, Transfer,
        WalletNo,
    },
};

/// What a rollback takes back.
#[derive(Clone, Debug, Default)]
pub struct Gone {
    /// The transfers of the blocks that vanished, and all of the watches that begin anew.
    pub transfers: Vec<Transfer>,
    /// Watches that were opened above the fork: they begin anew, with nothing.
    pub reopened: Vec<(WalletNo, Address)>,
    /// Deployments that a vanished block held.
    pub deployments: Vec<Deployment>,
    /// Where assets began to count in blocks that vanished, with these assets as they are known.
    pub asset_openings: Vec<(AssetOpening, Asset)>,
    /// The block that was applied at the height to go back to, where it is remembered.
    pub remembered: Option<BlockRef>,
}

/// Goes back to `fork`, a block that was applied: never below the settled block.
///
/// # Errors
/// Booking would break an invariant.
pub fn rollback(
    chain: &ChainInfo,
    cursor: &Cursor,
    known: &Known,
    gone: Gone,
    fork: BlockPoint,
    now: Millis,
) -> Result<Changes, Refused> {
    let next = Cursor { head: fork, ..cursor.clone() };
    let mut posting = Posting::new(chain, known, cursor, next, now, CommitKind::Reorg);
    undo(&mut posting, gone, fork)?;
    posting.finish()
}

/// The way out of a halt: goes back to `target`, a block of the node's chain, even below the settled block,
/// and lets the chain go on. Settled money above it is taken back, with events that say so.
///
/// # Errors
/// Booking would break an invariant.
pub fn rewind(
    chain: &ChainInfo,
    cursor: &Cursor,
    known: &Known,
    gone: Gone,
    target: &Header,
    order: RewindOrder,
    now: Millis,
) -> Result<(Changes, TakenBack), Refused> {
    let point = BlockPoint::from(target);
    let settled = if cursor.settled.at.number > point.at.number { point } else { cursor.settled };
    let next = Cursor { head: point, settled, halted: None, ..cursor.clone() };
    let mut posting = Posting::new(chain, known, cursor, next, now, CommitKind::Rewind);
    posting.by_hand = true;
    posting.rewind = Some(Rewind { from: cursor.head.at.number, order });
    let mut taken = TakenBack::of(&gone, known);
    let is_known = gone.remembered == Some(point.at);
    undo(&mut posting, gone, point)?;
    // What lies below a block that is remembered is its own past, for the next reorg. Of another one nothing says
    // whether it continues what is remembered above the settled block.
    if !is_known {
        let number = point.at.number;
        let above_settled = cursor.settled.at.number + 1;
        let blocks = &mut posting.changes.blocks;
        blocks.forgotten = Some((if number < above_settled { 0 } else { above_settled }, number));
        blocks.connected.push(NewBlock { header: *target, untraced: false });
    }
    let changes = posting.finish()?;
    taken.see(&changes);
    Ok((changes, taken))
}

/// What a rewind takes back, and from whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TakenBack {
    pub balances: BTreeMap<(WalletNo, AssetNo), TakenBalance>,
    /// Whose watches begin anew.
    pub anew: BTreeSet<WalletNo>,
    /// Transfers that are no money.
    pub worthless: u64,
    /// What is told of it.
    pub events: BTreeMap<(TenantNo, EventType), u64>,
}

/// What a rewind takes back of one balance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TakenBalance {
    pub deposits: TakenSum,
    pub withdrawals: TakenSum,
    pub before: Position,
    pub after: Position,
}

/// Transfers in one direction, and what they moved; past 256 bits the highest number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TakenSum {
    pub transfers: u64,
    pub amount: Amount,
}

impl TakenBack {
    fn of(gone: &Gone, known: &Known) -> Self {
        let mut taken = Self::default();
        taken.anew.extend(gone.reopened.iter().map(|(wallet, _)| *wallet));
        for transfer in &gone.transfers {
            if !transfer.counted {
                taken.worthless += 1;
                continue;
            }
            let key = (transfer.wallet, transfer.asset);
            let before = known.balances.get(&key).copied().unwrap_or_default().position;
            let balance = taken.balances.entry(key).or_insert(TakenBalance {
                before,
                after: before,
                ..TakenBalance::default()
            });
            let sum = match transfer.direction {
                Direction::In => &mut balance.deposits,
                Direction::Out => &mut balance.withdrawals,
            };
            sum.transfers += 1;
            sum.amount = sum.amount.saturating_add(transfer.amount);
        }
        taken
    }

    /// Takes over how balances stand afterwards, and what is told.
    fn see(&mut self, changes: &Changes) {
        for BalanceChange { wallet, asset, balance, .. } in &changes.balances {
            if let Some(taken) = self.balances.get_mut(&(*wallet, *asset)) {
                taken.after = balance.position;
            }
        }
        for event in &changes.events {
            for kind in event.kinds() {
                *self.events.entry((event.tenant, kind)).or_default() += 1;
            }
        }
    }
}

fn undo(posting: &mut Posting<'_>, gone: Gone, fork: BlockPoint) -> Result<(), Refused> {
    let number = fork.at.number;
    disconnect(posting, gone.transfers, None)?;
    close_assets(posting, &gone.asset_openings);
    deployments::gone(posting, gone.deployments)?;
    posting.changes.watches.reopened = Some((number, gone.reopened));
    posting.changes.blocks.above = Some(number);
    Ok(())
}

/// Assets count for fewer wallets again, and are opened anew for them.
fn close_assets(posting: &mut Posting<'_>, gone: &[(AssetOpening, Asset)]) {
    let mut assets: BTreeMap<AssetNo, Asset> = BTreeMap::new();
    // What was set aside or left the configuration since counts for nobody.
    for (opening, known) in gone.iter().filter(|(_, known)| known.verified) {
        let asset = assets.entry(known.no).or_insert_with(|| known.clone());
        let before = asset.listing.unwrap_or(Listing { below: opening.to, opened_to: opening.to });
        asset.listing = Some(Listing {
            below: before.below.max(opening.to),
            opened_to: before.opened_to.min(opening.from),
        });
    }
    posting.changes.assets.extend(assets.into_values().map(AssetChange::Opened));
}

/// Takes transfers back, whatever their status.
pub(super) fn disconnect(
    posting: &mut Posting<'_>,
    mut transfers: Vec<Transfer>,
    reason: Option<Reason>,
) -> Result<(), Refused> {
    take_back(posting, &mut transfers, reason)?;
    for transfer in &transfers {
        posting.tell(transfer);
    }
    Ok(())
}

/// The same, without telling of it.
pub(super) fn take_back(
    posting: &mut Posting<'_>,
    transfers: &mut [Transfer],
    reason: Option<Reason>,
) -> Result<(), Refused> {
    for first in [true, false] {
        for transfer in &mut *transfers {
            if (transfer.direction == booked_first(EntryKind::Disconnect)) != first {
                continue;
            }
            let kind = match transfer.status {
                Status::Settled => EntryKind::DisconnectSettled,
                Status::Pending | Status::Orphaned => EntryKind::Disconnect,
            };
            posting.end_early(transfer)?;
            posting.apply(transfer, kind)?;
            posting.entry(transfer, kind);
            transfer.status = Status::Orphaned;
            transfer.settled_at = None;
            transfer.orphaned_at = Some(posting.now);
            let (no, mark) = (transfer.no, transfer.id.mark());
            posting.changes.updates.push(TransferUpdate::Orphaned { no, mark, reason });
        }
    }
    Ok(())
}
