//! What was committed, told to metrics, log and whoever waits for it.

use super::{Committer, write::Written};
use crate::{
    chain::Address,
    ledger::{
        Changes,
        changes::SafeChange,
        reconcile::{Drift, Outcome},
    },
    model::HistoryStatus,
};

impl Committer {
    pub(super) fn report(&self, changes: &Changes, written: &Written) {
        let name = self.chain.name.as_str();
        let metrics = &self.metrics;
        let report = &changes.report;
        for (kind, class) in &report.connected {
            let labels = [name, kind.as_str(), class.as_str()];
            metrics.transfers_total.with_label_values(&labels).inc();
        }
        if !report.settled.is_empty() {
            let delays = metrics.settlement_delay_seconds.with_label_values(&[name]);
            for time in &report.settled {
                delays.observe(changes.now.since(*time).as_secs_f64());
            }
        }
        if report.uncompared > 0 {
            let uncompared = &metrics.settled_uncompared_total;
            let count = u64::try_from(report.uncompared).unwrap_or(u64::MAX);
            uncompared.with_label_values(&[name, "catching_up"]).inc_by(count);
        }
        if report.compared > 0 {
            let compared = metrics.reconciled_balances_total.with_label_values(&[name]);
            compared.inc_by(report.compared);
        }
        for drift in &report.drifts {
            self.report_drift(drift);
        }
        for (wallet, asset) in &report.contradictions {
            tracing::error!(
                chain = name,
                wallet.no = wallet.0,
                asset.no = asset.0,
                "a history does not lead to the opening balance: it ends where it is"
            );
        }
        for wallet in &report.unbookable {
            tracing::error!(
                chain = name,
                wallet.no = wallet.0,
                "a history cannot be booked: it ends where it is"
            );
        }
        self.histories(HistoryStatus::Complete, written.histories.complete);
        for end in &changes.watches.ended {
            self.histories(end.status, 1);
        }
        for status in &report.deployments {
            metrics.safe_deployments.with_label_values(&[name, status.as_str()]).inc();
        }
        for (address, change) in &report.safe_changes {
            self.report_safe(address, *change);
        }
        if report.omitted_safes > 0 {
            tracing::warn!(
                chain = name,
                safes = report.omitted_safes,
                "a registered owner has led to more Safes than max_safes_per_owner: these make no wallets"
            );
            let omitted = metrics.safe_candidates_total.with_label_values(&[name, "omitted"]);
            omitted.inc_by(report.omitted_safes);
        }
        for kind in changes.events.iter().flat_map(crate::event::NewEvent::kinds) {
            metrics.events_total.with_label_values(&[kind.as_str()]).inc();
        }
        if !changes.events.is_empty() {
            self.wake.deliveries();
        }
    }

    fn report_safe(&self, address: &Address, change: SafeChange) {
        let name = self.chain.name.as_str();
        self.metrics.safe_changes_total.with_label_values(&[name, change.as_str()]).inc();
        let address = self.chain.family.format_address(address);
        match change {
            SafeChange::Owners | SafeChange::Plugs => {
                tracing::info!(
                    chain = name,
                    address,
                    change = change.as_str(),
                    "a Safe has changed"
                );
            }
            SafeChange::Singleton => {
                tracing::warn!(chain = name, address, "a Safe runs another version of Safe's code");
            }
            SafeChange::Untrusted => tracing::error!(
                chain = name,
                address,
                "a Safe runs code that is not Safe's own: whoever did that may dispose of what it holds"
            ),
        }
    }

    /// Histories that ended.
    pub(super) fn histories(&self, status: HistoryStatus, count: u64) {
        if count > 0 {
            let labels = [self.chain.name.as_str(), status.as_str()];
            self.metrics.histories_total.with_label_values(&labels).inc_by(count);
        }
    }

    fn report_drift(&self, drift: &Drift) {
        let name = self.chain.name.as_str();
        let Drift { balance, at, position, chain, outcome, .. } = drift;
        // What is doubted is counted when it is confirmed.
        if matches!(outcome, Outcome::Doubted | Outcome::Unconfirmed) {
            return;
        }
        self.metrics.balance_drift_total.with_label_values(&[name]).inc();
        let (wallet, asset) = (balance.wallet_id, self.chain.caip19(&balance.key));
        if *outcome == Outcome::Booked {
            tracing::warn!(
                chain = name,
                %wallet,
                asset,
                block.number = at,
                ledger = %position.settled,
                figure = %chain,
                "a balance differed from the chain's own figure: an adjustment was booked"
            );
        } else {
            tracing::error!(
                chain = name,
                %wallet,
                asset,
                block.number = at,
                ledger = %position.settled,
                outgoing = %position.outgoing,
                figure = %chain,
                "a balance differs from the chain's own figure by what cannot be booked while so much is \
                 on its way out: it stays as it is until the next comparison"
            );
        }
    }
}
