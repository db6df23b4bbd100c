//! The slow walk over all that is watched: what no transfer touches is compared with the chain's state too.
//!
//! It goes on only at the head, when nothing else is to be done, and inside a budget of addresses per minute.
//! Where it stands is in memory: a new process begins anew.

use super::{Follower, TurnError, figures};
use crate::{
    chain::ChainBalance,
    clock::Millis,
    model::{BalanceRef, Cursor, WalletNo},
    store::{
        asset, balance,
        watch::{self, Watched},
    },
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
    /// Whether it was told that the walk stands still.
    told: bool,
}

impl Sweep {
    pub(super) fn new(per_minute: u64) -> Self {
        Self { per_minute, saved: 0, since: None, after: None, told: false }
    }

    /// How many addresses are due. What a long catch-up has saved is not made up for.
    fn due(&mut self, now: Millis) -> u64 {
        let since = self.since.replace(now).unwrap_or(now);
        let elapsed = u64::try_from(now.since(since).as_millis()).unwrap_or(u64::MAX);
        let earned = elapsed.saturating_mul(self.per_minute);
        self.saved = self.saved.saturating_add(earned).min(PAGE * COST);
        self.saved / COST
    }

    fn spend(&mut self, addresses: u64) {
        self.saved = self.saved.saturating_sub(addresses.saturating_mul(COST));
    }
}

impl Follower {
    /// Compares as many addresses as are due. Returns whether more are due already.
    pub(super) async fn sweep(&mut self, cursor: &Cursor) -> Result<bool, TurnError> {
        let assets = self.config.assets();
        let most = (QUESTIONS / u64::try_from(assets.len()).unwrap_or(QUESTIONS).max(1)).max(1);
        let limit = self.sweep.due(self.clock.now()).min(most);
        if limit == 0 {
            return Ok(false);
        }
        let settled = cursor.settled.at;
        let after = self.sweep.after;
        let rows = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut session = self.committer.db.read().await?;
        let mut conn = session.conn();
        let page = watch::watched_after(&mut conn, cursor.no, after.as_ref(), settled.number, rows)
            .await?;
        let wallets: Vec<WalletNo> = page.iter().map(|watched| watched.wallet).collect();
        let held = balance::of_wallets(&mut conn, cursor.no, &wallets).await?;
        let assets = asset::by_keys(&mut conn, cursor.no, &assets).await?;
        drop(session);
        let taken = u64::try_from(page.len()).unwrap_or(limit);
        // The end of the walk costs something too: without addresses it would be reached in every turn.
        self.sweep.spend(taken.max(1));
        let balances: Vec<BalanceRef> = page
            .iter()
            .flat_map(|watched| assets.iter().map(|asset| watched.balance(asset)))
            .collect();
        let figures = match figures::read(self.source.as_ref(), settled, &balances).await {
            Ok(Some(figures)) => figures,
            Ok(None) => {
                self.stand_still("the node no longer has the state of the settled block");
                return Ok(false);
            }
            // Whether the node is ill is for the next turn to find out: blocks do not wait for the sweep.
            Err(error) => {
                self.stand_still(&error.to_string());
                return Ok(false);
            }
        };
        let same = |(balance, figure): &(BalanceRef, ChainBalance)| {
            let held = held.get(&(balance.wallet, balance.asset)).copied().unwrap_or_default();
            held.position.settled == figure.total && held.frozen == figure.frozen
        };
        let (equal, other): (Vec<_>, Vec<_>) = figures.into_iter().partition(same);
        if !other.is_empty() {
            let committed = self.committer.reconcile(cursor, &other).await?;
            self.committed(&committed);
        }
        self.passed(&page, equal.len(), taken < limit);
        Ok(taken == limit && self.sweep.saved >= COST)
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
