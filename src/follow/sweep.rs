//! The slow walk over all that is watched: what no transfer touches is compared with the chain's state too.
//!
//! It goes on only at the head, when nothing else is to be done, and inside a budget of addresses per minute; the
//! nodes are asked beside the follower. Where it stands is in memory: a new process begins anew.

use std::sync::Arc;

use tokio_util::task::AbortOnDropHandle;

use super::{
    Announcements, Follower, TurnError, announcement,
    figures::{self, Sure, Told},
    walk::{Lane, Walk},
};
use crate::{
    chain::{AssetKey, Priority, Source, SourceError},
    ledger::{
        known::HashMap,
        reconcile::{Comparison, Drift, Figure, Outcome, compare},
    },
    model::{Asset, AssetNo, Balance, BalanceRef, BlockPoint, Cursor, WalletNo},
    store::{
        Conn, asset, asset_opening, balance,
        watch::{self, Watched},
    },
    task::joined,
};

/// Balances asked for in one go at most; with many assets, a page has fewer addresses.
const QUESTIONS: u64 = 1_000;

/// The walk, and what is being read of it.
#[derive(Debug)]
pub(super) struct Sweep {
    pub walk: Walk,
    page: Option<Page>,
    /// Whether it was told that the walk stands still.
    told: bool,
}

impl Sweep {
    pub(super) fn new(per_minute: u64) -> Self {
        Self { walk: Walk::new(per_minute), page: None, told: false }
    }

    /// Leaves what is being read: the store may be another one by now.
    pub(super) fn give_up(&mut self) {
        self.page = None;
    }
}

/// Addresses whose balances are on their way from the nodes.
#[derive(Debug)]
struct Page {
    /// The settled block of which they are asked.
    at: BlockPoint,
    watched: Vec<Watched>,
    /// Whether as many were found as are due: there may be more.
    full: bool,
    /// Where the walks stand behind it.
    behind: Behind,
    task: AbortOnDropHandle<Result<Option<Compared>, SourceError>>,
}

/// Where a walk stands when a page is done.
#[derive(Clone, Copy, Debug)]
enum Behind {
    Suspects,
    Holders((WalletNo, AssetNo)),
    Everybody(Option<Watched>),
}

/// What the nodes say of a page.
struct Compared {
    told: Vec<Told>,
    /// Those that differ from the ledger, and what is sure of them.
    drifts: Vec<Drift>,
    sure: Sure,
}

impl Follower {
    /// Compares as many addresses as are due. Returns whether more are due already, or something came meanwhile.
    pub(super) async fn sweep(
        &mut self,
        cursor: &Cursor,
        announced: &mut Announcements,
    ) -> Result<bool, TurnError> {
        if self.stopped.waits() {
            return Ok(false);
        }
        if self.sweep.page.is_none() && !self.next_page(cursor).await? {
            return Ok(false);
        }
        let Some(page) = self.sweep.page.as_mut() else { return Ok(false) };
        let read = tokio::select! {
            biased;
            read = &mut page.task => read,
            () = announcement(announced) => return Ok(true),
            () = self.wake_up.notified() => return Ok(true),
            () = tokio::time::sleep(self.config.poll_interval) => return Ok(true),
        };
        let Some(Page { at, watched, full, behind, .. }) = self.sweep.page.take() else {
            return Ok(false);
        };
        let Compared { told, drifts, sure } = match joined(read) {
            Some(Ok(Some(compared))) => compared,
            Some(Ok(None)) => {
                self.stand_still("the node no longer has the state of the settled block");
                return Ok(false);
            }
            // Whether the node is ill is for the next turn to find out: blocks do not wait for the sweep.
            Some(Err(error)) => {
                self.stand_still(&error.to_string());
                return Ok(false);
            }
            None => return Ok(false),
        };
        // What has settled meanwhile is another state: the page is read again.
        if at != cursor.settled {
            return Ok(true);
        }
        let weighed = figures::weighed(told, &drifts, &sure);
        let differing = drifts.len();
        // So many are for the next settlement, which stops for them unless they agree by then.
        if self.too_many(&weighed) {
            self.owe(drifts.iter().map(|drift| drift.balance));
            self.passed(&watched, weighed.len() - differing, behind);
            return Ok(false);
        }
        // What is equal has no news but what its issuer has frozen, which was asked about like a difference.
        let asked = weighed.iter().map(|weighed| weighed.difference.is_some());
        let figures: Vec<Figure> = self
            .beliefs(&weighed, at.at.number, false)
            .into_iter()
            .zip(asked)
            .filter_map(|(figure, asked)| asked.then_some(figure))
            .collect();
        if !figures.is_empty() {
            let committed = self.committer.reconcile(cursor, &figures).await?;
            self.committed(&committed);
        }
        self.passed(&watched, weighed.len() - differing, behind);
        Ok(full && self.sweep.walk.rich())
    }

    /// Begins to read the addresses that are due; `false` if none are.
    async fn next_page(&mut self, cursor: &Cursor) -> Result<bool, TurnError> {
        let assets = self.counting();
        let most = (QUESTIONS / u64::try_from(assets.len()).unwrap_or(QUESTIONS).max(1)).max(1);
        let limit = self.sweep.walk.due(self.clock.now()).min(most);
        if limit == 0 {
            return Ok(false);
        }
        let at = cursor.settled;
        let number = at.at.number;
        let mut session = self.committer.db.read().await?;
        let mut conn = session.conn();
        let (watched, behind) = self.choose(&mut conn, cursor, limit).await?;
        let wallets: Vec<WalletNo> = watched.iter().map(|watched| watched.wallet).collect();
        let held = balance::of_wallets(&mut conn, cursor.no, &wallets).await?;
        let assets = asset::by_keys(&mut conn, cursor.no, &assets).await?;
        let unsettled = asset_opening::above(&mut conn, cursor.no, number).await?;
        drop(session);
        let taken = u64::try_from(watched.len()).unwrap_or(limit);
        // An empty page costs something too: without addresses the end would be reached in every turn.
        self.sweep.walk.spend(taken.max(1));
        // Below its beginning an asset's balance is not known.
        let begun = |watched: &Watched, asset: &Asset| {
            asset.counts_for(watched.wallet)
                && !unsettled.iter().any(|opening| opening.holds(asset.no, watched.wallet))
        };
        // A token that a wallet never had comes with a log; only now and then it is asked for all the same.
        let full = matches!(behind, Behind::Everybody(_)) && self.sweep.walk.is_full();
        let asked = |watched: &Watched, asset: &Asset| {
            full || asset.key == AssetKey::Native || held.contains_key(&(watched.wallet, asset.no))
        };
        let balances: Vec<BalanceRef> = watched
            .iter()
            .flat_map(|watched| assets.iter().map(move |asset| (watched, asset)))
            .filter(|(watched, asset)| asked(watched, asset) && begun(watched, asset))
            .map(|(watched, asset)| watched.balance(asset))
            .collect();
        let source = Arc::clone(&self.source);
        let compared = async move { compare_all(source.as_ref(), at, &balances, &held).await };
        let compared = Priority::Background.scope(compared);
        let task = AbortOnDropHandle::new(tokio::spawn(compared));
        self.sweep.page = Some(Page { at, watched, full: taken == limit, behind, task });
        Ok(true)
    }

    /// Whom the next page is about, and where the walk stands behind it.
    async fn choose(
        &mut self,
        conn: &mut Conn<'_>,
        cursor: &Cursor,
        limit: u64,
    ) -> Result<(Vec<Watched>, Behind), TurnError> {
        let (no, settled) = (cursor.no, cursor.settled.at.number);
        let rows = i64::try_from(limit).unwrap_or(i64::MAX);
        let walk = &mut self.sweep.walk;
        let (wallets, behind) = match walk.lane(&self.clock) {
            Lane::Suspects => (walk.suspects(limit, self.clock.now()), Behind::Suspects),
            Lane::Holders => {
                let (holders, last) = balance::holders(conn, no, walk.holder, rows).await?;
                (holders, Behind::Holders(last))
            }
            Lane::Everybody => (Vec::new(), Behind::Everybody(None)),
        };
        let mut watched: Vec<Watched> =
            watch::watched(conn, no, &wallets, settled).await?.into_values().collect();
        if !watched.is_empty() {
            watched.sort_unstable_by_key(|watched| (watched.address, watched.wallet));
            return Ok((watched, behind));
        }
        // Nobody of them is left: the page is for everybody.
        if let Behind::Holders(last) = behind {
            walk.holder = last;
        }
        let watched = watch::watched_after(conn, no, walk.after.as_ref(), settled, rows).await?;
        let full = u64::try_from(watched.len()) == Ok(limit);
        let behind = Behind::Everybody(watched.last().copied().filter(|_| full));
        Ok((watched, behind))
    }

    /// Goes on behind a page that was compared.
    fn passed(&mut self, page: &[Watched], equal: usize, behind: Behind) {
        let name = self.config.name.as_str();
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        self.metrics.reconciled_balances_total.with_label_values(&[name]).inc_by(count(equal));
        self.metrics.swept_addresses_total.with_label_values(&[name]).inc_by(count(page.len()));
        match behind {
            Behind::Suspects => {}
            Behind::Holders(last) => self.sweep.walk.holder = last,
            Behind::Everybody(Some(last)) => self.sweep.walk.after = Some(last),
            Behind::Everybody(None) => {
                self.sweep.walk.came_round();
                self.gauge_swept();
            }
        }
        self.gauge_round();
        if std::mem::take(&mut self.sweep.told) {
            tracing::info!(chain = %self.config.name, "the sweep goes on");
        }
    }

    /// The same addresses are tried again when they are due again.
    fn stand_still(&mut self, reason: &str) {
        if !std::mem::replace(&mut self.sweep.told, true) {
            tracing::warn!(chain = %self.config.name, reason, "the sweep stands still");
        }
    }
}

/// Reads balances, and what differs from the ledger once more, as surely as can be; `None` if the node has no such
/// state.
async fn compare_all(
    source: &dyn Source,
    at: BlockPoint,
    balances: &[BalanceRef],
    held: &HashMap<(WalletNo, AssetNo), Balance>,
) -> Result<Option<Compared>, SourceError> {
    let Some(told) = figures::read(source, at.at, balances).await? else { return Ok(None) };
    let drift = |Told { balance, holding }: &Told| {
        let held = held.get(&(balance.wallet, balance.asset)).copied().unwrap_or_default();
        let position = held.position;
        let comparison = compare(position, holding.total);
        let same = comparison == Comparison::Equal && held.frozen == holding.frozen;
        (!same).then_some(Drift {
            balance: *balance,
            at: at.at.number,
            position,
            chain: holding.total,
            comparison,
            outcome: Outcome::Unconfirmed,
        })
    };
    let drifts: Vec<Drift> = told.iter().filter_map(drift).collect();
    let differing: Vec<BalanceRef> = drifts.iter().map(|drift| drift.balance).collect();
    let sure = figures::for_sure(source, at.at, &differing).await;
    Ok(Some(Compared { told, drifts, sure }))
}
