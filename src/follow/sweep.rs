//! The slow walk over all that is watched: what no transfer touches is compared with the chain's state too.
//!
//! It goes on only at the head, when nothing else is to be done, and inside a budget of addresses per minute; the
//! nodes are asked beside the follower.
//! Where it stands is in memory: a new process begins anew.

use std::sync::Arc;

use tokio_util::task::AbortOnDropHandle;

use super::{
    Announcements, Follower, TurnError, announcement,
    figures::{self, Sure, Told},
};
use crate::{
    chain::{Source, SourceError},
    clock::Millis,
    ledger::{
        known::HashMap,
        reconcile::{Comparison, Drift, Figure, Outcome, compare},
    },
    model::{Asset, AssetNo, Balance, BalanceRef, BlockPoint, Cursor, WalletNo},
    store::{
        asset, asset_opening, balance,
        watch::{self, Watched},
    },
    task::joined,
};

/// Addresses looked at in one go at most: a block that comes meanwhile waits for no more than them.
const PAGE: u64 = 100;
/// Balances asked for in one go at most; with many assets, a page has fewer addresses.
const QUESTIONS: u64 = 1_000;
/// What one address costs; a budget of N addresses per minute earns N each millisecond.
const COST: u64 = 60_000;

/// How far the walk is, and what it may spend.
#[derive(Debug)]
pub(super) struct Sweep {
    per_minute: u64,
    saved: u64,
    since: Option<Millis>,
    after: Option<Watched>,
    /// What is being read.
    page: Option<Page>,
    /// Whether it was told that the walk stands still.
    told: bool,
}

impl Sweep {
    pub(super) fn new(per_minute: u64) -> Self {
        Self { per_minute, saved: 0, since: None, after: None, page: None, told: false }
    }

    /// How many addresses are due. What a long catch-up has saved is not made up for.
    fn due(&mut self, now: Millis) -> u64 {
        let since = self.since.replace(now).unwrap_or(now);
        let elapsed = u64::try_from(now.since(since).as_millis()).unwrap_or(u64::MAX);
        let earned = elapsed.saturating_mul(self.per_minute);
        self.saved = self.saved.saturating_add(earned).min(PAGE * COST);
        self.saved / COST
    }

    /// Leaves what is being read: the store may be another one by now.
    pub(super) fn give_up(&mut self) {
        self.page = None;
    }

    fn spend(&mut self, addresses: u64) {
        self.saved = self.saved.saturating_sub(addresses.saturating_mul(COST));
    }
}

/// Addresses whose balances are on their way from the nodes.
#[derive(Debug)]
struct Page {
    /// The settled block of which they are asked.
    at: BlockPoint,
    watched: Vec<Watched>,
    /// Whether no more come behind them.
    end: bool,
    task: AbortOnDropHandle<Result<Option<Compared>, SourceError>>,
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
        let Some(Page { at, watched, end, .. }) = self.sweep.page.take() else { return Ok(false) };
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
        let Some(accepted) = self.believable(cursor, &weighed).await? else { return Ok(false) };
        let differing = drifts.len();
        // What is equal has no news but what its issuer has frozen, which was asked about like a difference.
        let asked = weighed.iter().map(|weighed| weighed.difference.is_some());
        let figures: Vec<Figure> = self
            .beliefs(&weighed, at.at.number, accepted)
            .into_iter()
            .zip(asked)
            .filter_map(|(figure, asked)| asked.then_some(figure))
            .collect();
        if !figures.is_empty() {
            let committed = self.committer.reconcile(cursor, &figures, accepted).await?;
            self.committed(&committed);
        }
        self.passed(&watched, weighed.len() - differing, end);
        Ok(!end && self.sweep.saved >= COST)
    }

    /// Begins to read the addresses that are due; `false` if none are.
    async fn next_page(&mut self, cursor: &Cursor) -> Result<bool, TurnError> {
        let assets = self.config.assets();
        let most = (QUESTIONS / u64::try_from(assets.len()).unwrap_or(QUESTIONS).max(1)).max(1);
        let limit = self.sweep.due(self.clock.now()).min(most);
        if limit == 0 {
            return Ok(false);
        }
        let at = cursor.settled;
        let after = self.sweep.after;
        let rows = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut session = self.committer.db.read().await?;
        let mut conn = session.conn();
        let (number, after) = (at.at.number, after.as_ref());
        let watched = watch::watched_after(&mut conn, cursor.no, after, number, rows).await?;
        let wallets: Vec<WalletNo> = watched.iter().map(|watched| watched.wallet).collect();
        let held = balance::of_wallets(&mut conn, cursor.no, &wallets).await?;
        let assets = asset::by_keys(&mut conn, cursor.no, &assets).await?;
        let unsettled = asset_opening::above(&mut conn, cursor.no, number).await?;
        drop(session);
        let taken = u64::try_from(watched.len()).unwrap_or(limit);
        // The end of the walk costs something too: without addresses it would be reached in every turn.
        self.sweep.spend(taken.max(1));
        // Below its beginning an asset's balance is not known.
        let begun = |watched: &Watched, asset: &Asset| {
            asset.counts_for(watched.wallet)
                && !unsettled.iter().any(|opening| opening.holds(asset.no, watched.wallet))
        };
        let balances: Vec<BalanceRef> = watched
            .iter()
            .flat_map(|watched| assets.iter().map(move |asset| (watched, asset)))
            .filter(|(watched, asset)| begun(watched, asset))
            .map(|(watched, asset)| watched.balance(asset))
            .collect();
        let source = Arc::clone(&self.source);
        let task = AbortOnDropHandle::new(tokio::spawn(async move {
            compare_all(source.as_ref(), at, &balances, &held).await
        }));
        self.sweep.page = Some(Page { at, watched, end: taken < limit, task });
        Ok(true)
    }

    /// Goes on behind a page that was compared.
    fn passed(&mut self, page: &[Watched], equal: usize, end: bool) {
        let name = self.config.name.as_str();
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        self.metrics.reconciled_balances_total.with_label_values(&[name]).inc_by(count(equal));
        self.metrics.swept_addresses_total.with_label_values(&[name]).inc_by(count(page.len()));
        if end {
            self.gauge_swept();
        }
        self.sweep.after = page.last().copied().filter(|_| !end);
        if std::mem::take(&mut self.sweep.told) {
            tracing::info!(chain = name, "the sweep goes on");
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

#[cfg(test)]
mod tests {
    use super::*;

    fn after(seconds: i64) -> Millis {
        Millis(1_768_469_400_000 + seconds * 1000)
    }

    #[test]
    fn the_budget_is_earned_by_the_minute_and_saved_for_one_page_only() {
        let mut sweep = Sweep::new(30);
        assert_eq!(sweep.due(after(0)), 0, "nothing is due at the start");
        assert_eq!(sweep.due(after(1)), 0);
        assert_eq!(sweep.due(after(5)), 2);
        sweep.spend(2);
        assert_eq!(sweep.due(after(5)), 0);
        assert_eq!(sweep.due(after(7)), 1, "the half address of before is not lost");
        assert_eq!(sweep.due(after(3)), 1, "a clock that is set back earns nothing");
        assert_eq!(sweep.due(after(100_000)), PAGE);
    }

    #[test]
    fn a_budget_of_nothing_is_never_due() {
        let mut sweep = Sweep::new(0);
        assert_eq!(sweep.due(after(0)), 0);
        assert_eq!(sweep.due(after(1_000_000)), 0);
    }
}
