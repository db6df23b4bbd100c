//! A watch begins: the balances of its first block are where everything starts.

use serde::Serialize;

use super::{
    Changes, Known, LedgerError, Refused,
    changes::{AssetChange, AssetOpening},
    known,
    posting::Posting,
};
use crate::{
    amount::Amount,
    chain::{AssetKey, Header},
    clock::Millis,
    event::{EventType, EventWallet, NewEvent},
    model::{
        Asset, AssetNo, ChainInfo, CommitKind, Cursor, Direction, Listing, WalletNo, WalletRef,
        Watch,
    },
    view::{BlockView, WalletRefView},
};

/// The opening balances of one watch, read at the block where it begins.
#[derive(Clone, Debug)]
pub struct Opening {
    pub watch: Watch,
    /// As `wallet.activated` shows the wallet.
    pub shown: WalletRef,
    pub balances: Vec<OpeningBalance>,
}

/// Base units at the block where a watch begins.
#[derive(Clone, Copy, Debug)]
pub struct OpeningBalance {
    pub asset: AssetKey,
    pub total: Amount,
    /// What of it the asset's issuer has frozen.
    pub frozen: Amount,
    /// What of it was there at the settled block already.
    pub settled: Amount,
}

/// The data of `wallet.activated`.
#[derive(Serialize)]
struct Activated<'a> {
    wallet: WalletRefView,
    chain: &'a str,
    block: BlockView,
}

/// Opens watches at the cursor's head, with the balances read at exactly that block, and closes those that
/// were asked to close.
///
/// # Errors
/// Booking would break an invariant.
pub fn open(
    chain: &ChainInfo,
    cursor: &Cursor,
    known: &Known,
    openings: &[Opening],
    closings: &[Watch],
    now: Millis,
) -> Result<Changes, Refused> {
    let mut posting = Posting::new(chain, known, cursor, cursor.clone(), now, CommitKind::Openings);
    for opening in openings {
        book_opening(&mut posting, opening, cursor)?;
        if !opening.watch.activated {
            activated(&mut posting, opening, cursor)?;
        }
    }
    let place = |watch: &Watch| (watch.wallet, watch.address);
    posting.changes.watches.opened = openings.iter().map(|o| place(&o.watch)).collect();
    posting.changes.watches.closed = closings.iter().map(place).collect();
    posting.finish()
}

/// Makes assets money: what the configuration says of them. For the watches that there are they begin to count
/// with [`open_assets`], wallet by wallet.
///
/// # Errors
/// A number ran out.
pub fn list_assets(
    chain: &ChainInfo,
    cursor: &Cursor,
    known: &Known,
    assets: &[Asset],
    now: Millis,
) -> Result<Changes, Refused> {
    let mut next = cursor.clone();
    let mut changes = Vec::with_capacity(assets.len());
    for asset in assets {
        changes.push(if let Some(before) = known.assets.get(&asset.key).cloned() {
            let version = before.version.saturating_add(1);
            let after = Asset { no: before.no, version, ..asset.clone() };
            AssetChange::Changed { before, after }
        } else {
            let no = AssetNo::nth(next.no, next.assets)
                .ok_or_else(|| Refused::new("a new asset", LedgerError::Overflow))?;
            next.assets += 1;
            AssetChange::New(Asset { no, version: 0, ..asset.clone() })
        });
    }
    let mut posting = Posting::new(chain, known, cursor, next, now, CommitKind::Assets);
    posting.changes.assets.extend(changes);
    posting.finish()
}

/// Wallets for which assets begin to count, with what their watches have of them at the cursor's head.
#[derive(Clone, Copy, Debug)]
pub struct AssetPage<'a> {
    /// As they are known: all listed at once, and opened equally far.
    pub assets: &'a [Asset],
    /// Up to this wallet.
    pub to: WalletNo,
    pub openings: &'a [Opening],
}

/// Assets begin to count for some more wallets.
///
/// # Errors
/// Booking would break an invariant.
pub fn open_assets(
    chain: &ChainInfo,
    cursor: &Cursor,
    mut known: Known,
    page: AssetPage<'_>,
    now: Millis,
) -> Result<Changes, Refused> {
    let mut changes = Vec::with_capacity(page.assets.len());
    let mut rows = Vec::with_capacity(page.assets.len());
    for asset in page.assets {
        let Some(listing) = asset.listing else { continue };
        let on = Listing { opened_to: page.to, ..listing };
        let listing_now = (on.opened_to < on.below).then_some(on);
        let after = Asset { listing: listing_now, ..asset.clone() };
        let (from, head) = (listing.opened_to, cursor.head);
        let (block, time) = (head.at.number, head.time);
        rows.push(AssetOpening { asset: asset.no, from, to: page.to, block, time });
        known.assets.insert(after.key, after.clone());
        changes.push(AssetChange::Opened(after));
    }
    let mut posting = Posting::new(chain, &known, cursor, cursor.clone(), now, CommitKind::Assets);
    for opening in page.openings {
        book_opening(&mut posting, opening, cursor)?;
    }
    posting.changes.assets.extend(changes);
    posting.changes.asset_openings = rows;
    posting.finish()
}

/// Books the balances with which a watch or an asset begins, at the cursor's head, on top of what the ledger has.
/// Where it has more than the chain, the comparison at the settled block tells.
fn book_opening(
    posting: &mut Posting<'_>,
    opening: &Opening,
    cursor: &Cursor,
) -> Result<(), Refused> {
    let watch = &opening.watch;
    let at = cursor.head.at;
    let time = u64::try_from(cursor.head.time.seconds()).unwrap_or(0);
    let header = Header { at, parent: at, time };
    for balance in &opening.balances {
        let asset = posting.asset(balance.asset)?;
        // An asset that is being opened wallet by wallet comes to this one in its turn.
        if asset.verified && !asset.counts_for(watch.wallet) {
            continue;
        }
        let asset = asset.no;
        let position = posting.balance(watch.wallet, asset).position;
        let more = balance.total.saturating_sub(position.total().unwrap_or(Amount::MAX));
        let settled = balance.settled.saturating_sub(position.settled).min(more);
        let parts = [(settled, true), (more.saturating_sub(settled), false)];
        for (amount, settled) in parts {
            if amount.is_zero() {
                continue;
            }
            let movement = known::opening(at, settled, watch.address, balance.asset, amount);
            let mut side = posting.side(&header, &movement, watch.owner(), Direction::In)?;
            // Listed twice at one block: what came between is found by the comparison.
            if posting.stands(&side) {
                continue;
            }
            if settled {
                posting.connect_settled(&mut side)?;
            } else {
                let slot = posting.slot(side.wallet, side.asset);
                posting.connect(&mut side, slot)?;
            }
            if side.counted {
                posting.set_frozen(side.wallet, side.asset, balance.frozen);
            }
            posting.book(side, settled);
        }
    }
    Ok(())
}

fn activated(posting: &mut Posting<'_>, opening: &Opening, cursor: &Cursor) -> Result<(), Refused> {
    let Opening { watch, shown, .. } = opening;
    let chain = posting.chain;
    let data = Activated {
        wallet: shown.into(),
        chain: chain.name.as_str(),
        block: BlockView {
            number: cursor.head.at.number,
            hash: chain.family.format_block_hash(&cursor.head.at.hash),
            time: cursor.head.time,
        },
    };
    let event = NewEvent::data(
        watch.tenant,
        Some(EventWallet::No(watch.wallet)),
        EventType::WalletActivated,
        &[watch.wallet_id.0.as_bytes(), chain.name.as_str().as_bytes()],
        cursor.head.time,
        &data,
    );
    posting.tell_data(event)
}
