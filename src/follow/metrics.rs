//! The follower's gauges.

use super::{Follower, quorum::Dissent};
use crate::{
    chain::Header,
    clock::Millis,
    config::ChainConfig,
    ledger::changes::SafeChange,
    metrics::Metrics,
    model::{Cursor, JournalHead},
};

/// An alert sees that something has happened for the first time only where it was to be seen before that it had not.
pub(super) fn begin_at_zero(metrics: &Metrics, config: &ChainConfig, has_safes: bool) {
    let name = config.name.as_str();
    metrics.reorg_depth_blocks.with_label_values(&[name]);
    for counted in [&metrics.balance_drift_total, &metrics.disputed_figures_total] {
        counted.with_label_values(&[name]).inc_by(0);
    }
    for reason in ["catching_up", "no_state", "no_answer", "too_many"] {
        metrics.settled_uncompared_total.with_label_values(&[name, reason]).inc_by(0);
    }
    if config.sweep_per_minute > 0 {
        metrics.swept_addresses_total.with_label_values(&[name]).inc_by(0);
    }
    if has_safes {
        metrics.safe_candidates_total.with_label_values(&[name, "omitted"]).inc_by(0);
        for change in SafeChange::ALL {
            metrics.safe_changes_total.with_label_values(&[name, change.as_str()]).inc_by(0);
        }
    }
}

impl Follower {
    pub(super) fn gauge_head(&self, head: &Header) {
        let name = self.config.name.as_str();
        self.metrics.chain_head_block.with_label_values(&[name]).set(gauge(head.at.number));
        #[expect(clippy::cast_precision_loss, reason = "Unix seconds, for a gauge")]
        self.metrics.chain_head_timestamp_seconds.with_label_values(&[name]).set(head.time as f64);
    }

    pub(super) fn gauge_cursor(&self, cursor: &Cursor) {
        let name = self.config.name.as_str();
        let metrics = &self.metrics;
        metrics.chain_applied_block.with_label_values(&[name]).set(gauge(cursor.head.at.number));
        metrics.chain_settled_block.with_label_values(&[name]).set(gauge(cursor.settled.at.number));
        metrics
            .chain_applied_timestamp_seconds
            .with_label_values(&[name])
            .set(seconds(cursor.head.time));
        metrics
            .chain_settled_timestamp_seconds
            .with_label_values(&[name])
            .set(seconds(cursor.settled.time));
        metrics
            .chain_settlement_limit_seconds
            .with_label_values(&[name])
            .set(gauge(self.config.settlement_limit.as_secs()));
        let JournalHead { commit, hash } = cursor.journal;
        metrics.journal_commit.with_label_values(&[name]).set(gauge(commit));
        metrics.journal_hash_prefix.with_label_values(&[name]).set(hash.prefix());
        self.gauge_registered();
    }

    pub(super) fn gauge_registered(&self) {
        let gauge = &self.metrics.registered_addresses;
        gauge
            .with_label_values(&[self.config.name.as_str()])
            .set(i64::try_from(self.watchlist.len()).unwrap_or(i64::MAX));
    }

    pub(super) fn gauge_progress(&self) {
        self.metrics
            .chain_last_progress_timestamp_seconds
            .with_label_values(&[self.config.name.as_str()])
            .set(seconds(self.clock.now()));
    }

    /// The sweep has looked at everything once more.
    pub(super) fn gauge_swept(&self) {
        self.metrics
            .sweep_last_completed_timestamp_seconds
            .with_label_values(&[self.config.name.as_str()])
            .set(seconds(self.clock.now()));
    }

    /// How long the sweep takes for everybody.
    pub(super) fn gauge_round(&self) {
        let seconds = self.sweep.walk.round_seconds(self.watchlist.len());
        self.metrics
            .sweep_round_seconds
            .with_label_values(&[self.config.name.as_str()])
            .set(gauge(seconds));
    }

    /// So many scans for histories wait after a failure.
    pub(super) fn gauge_backing_off(&self, scans: usize) {
        self.metrics
            .history_scans_backing_off
            .with_label_values(&[self.config.name.as_str()])
            .set(i64::try_from(scans).unwrap_or(i64::MAX));
    }

    pub(super) fn gauge_stopped(&self, stopped: i64) {
        self.metrics
            .settlement_stopped
            .with_label_values(&[self.config.name.as_str()])
            .set(stopped);
    }

    /// Why two endpoints have not agreed on what settles; `None`: they have.
    pub(super) fn gauge_dissent(&self, dissent: Option<Dissent>) {
        for why in Dissent::ALL {
            self.metrics
                .settlement_unagreed
                .with_label_values(&[self.config.name.as_str(), why.as_str()])
                .set(i64::from(dissent == Some(*why)));
        }
    }

    pub(super) fn gauge_doubts(&self) {
        self.metrics
            .balances_in_doubt
            .with_label_values(&[self.config.name.as_str()])
            .set(i64::try_from(self.doubts.len()).unwrap_or(i64::MAX));
    }

    pub(super) fn gauge_halted(&self, halted: i64) {
        self.metrics.chain_halted.with_label_values(&[self.config.name.as_str()]).set(halted);
    }
}

fn gauge(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "Unix seconds, for a gauge")]
fn seconds(time: Millis) -> f64 {
    time.0 as f64 / 1000.0
}
