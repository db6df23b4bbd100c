//! Every metric: its name, labels and help. Nothing else.
//!
//! Names begin with `tidemark_`, units are base units, labels are bounded: a chain, an endpoint's short name,
//! a route template; never an address, a URL or an error's text.

use prometheus::{
    Encoder as _, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter,
    IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

/// Seconds, from a tenth of a millisecond to ten seconds.
const FAST: &[f64] = &[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    10.0,
];
/// Seconds, from a tenth of a second to three days.
const SLOW: &[f64] = &[
    0.1, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0, 180.0, 600.0, 1200.0, 3600.0, 10800.0, 43200.0, 259_200.0,
];
/// Blocks.
const DEPTHS: &[f64] = &[1.0, 2.0, 3.0, 5.0, 8.0, 13.0, 21.0, 34.0, 64.0, 128.0, 256.0];

macro_rules! metrics {
    ($($(#[doc = $help:literal])+ $field:ident: $kind:ident $([$($label:literal),+])? $(in $buckets:ident)?;)*) => {
        /// The process's metrics; cloning shares them.
        #[derive(Clone)]
        pub struct Metrics {
            registry: Registry,
            $($(#[doc = $help])+ pub $field: $kind,)*
        }

        impl Metrics {
            /// # Panics
            /// When two metrics have one name, which the tests would show.
            #[must_use]
            pub fn new() -> Self {
                let registry = Registry::new();
                $(
                    let $field = metrics!(@new $kind, concat!("tidemark_", stringify!($field)),
                        concat!($($help),+).trim() $(, &[$($label),+])? $(, $buckets)?)
                        .expect("a valid metric");
                    registry.register(Box::new($field.clone())).expect("a metric's name is its own");
                )*
                Self { registry, $($field,)* }
            }

            /// The names of all metrics, for checking dashboards and alerts against them.
            #[must_use]
            pub fn names() -> &'static [&'static str] {
                &[$(concat!("tidemark_", stringify!($field))),*]
            }
        }
    };
    (@new Histogram, $name:expr, $help:expr, $buckets:ident) => {
        Histogram::with_opts(HistogramOpts::new($name, $help).buckets($buckets.to_vec()))
    };
    (@new HistogramVec, $name:expr, $help:expr, $labels:expr, $buckets:ident) => {
        HistogramVec::new(HistogramOpts::new($name, $help).buckets($buckets.to_vec()), $labels)
    };
    (@new $kind:ident, $name:expr, $help:expr, $labels:expr) => {
        $kind::new(Opts::new($name, $help), $labels)
    };
    (@new $kind:ident, $name:expr, $help:expr) => {
        $kind::with_opts(Opts::new($name, $help))
    };
}

metrics! {
    /// Number of the newest block that a node of the chain has shown.
    chain_head_block: IntGaugeVec ["chain"];
    /// Number of the newest block whose movements are in the ledger.
    chain_applied_block: IntGaugeVec ["chain"];
    /// Number of the newest block that the chain's settlement policy calls irreversible.
    chain_settled_block: IntGaugeVec ["chain"];
    /// Time of the newest block shown, in Unix seconds, as the block says.
    chain_head_timestamp_seconds: GaugeVec ["chain"];
    /// Time of the newest block in the ledger, in Unix seconds, as the block says.
    chain_applied_timestamp_seconds: GaugeVec ["chain"];
    /// Time of the newest settled block, in Unix seconds, as the block says.
    chain_settled_timestamp_seconds: GaugeVec ["chain"];
    /// By how much the newest settled block may be older than the newest one in the ledger, as configured.
    chain_settlement_limit_seconds: IntGaugeVec ["chain"];
    /// When the follower last finished a step without an error, in Unix seconds.
    chain_last_progress_timestamp_seconds: GaugeVec ["chain"];
    /// Number of the newest commit of the chain's journal.
    journal_commit: IntGaugeVec ["chain"];
    /// The first 12 hexadecimal digits of the newest commit's hash, as a number: what is to be kept elsewhere.
    journal_hash_prefix: IntGaugeVec ["chain"];
    /// 1 where this daemon follows the chain.
    chain_leader: IntGaugeVec ["chain"];
    /// Times that another daemon has won a chain that this one followed.
    lease_losses_total: IntCounterVec ["chain"];
    /// Commits that were refused because another daemon had won the chain.
    fenced_commits_total: IntCounterVec ["chain"];
    /// Daemons on this database that have shown a sign of life.
    fleet_daemons: IntGauge;
    /// How far the database's clock, which counts for all daemons, is ahead of this machine's.
    clock_offset_seconds: Gauge;
    /// 1 while the chain stands still until a person acts.
    chain_halted: IntGaugeVec ["chain"];
    /// Blocks committed to the ledger.
    blocks_applied_total: IntCounterVec ["chain"];
    /// Time to apply one block or batch, by step: match, commit, settle.
    apply_duration_seconds: HistogramVec ["chain", "step"] in FAST;
    /// Transfers committed to the ledger, by kind and asset class (native, token, unverified).
    transfers_total: IntCounterVec ["chain", "kind", "asset_class"];
    /// Times that blocks were taken back.
    reorgs_total: IntCounterVec ["chain"];
    /// How many blocks a reorg took back.
    reorg_depth_blocks: HistogramVec ["chain"] in DEPTHS;
    /// From a deposit's block to its settlement.
    settlement_delay_seconds: HistogramVec ["chain"] in SLOW;
    /// Answers of nodes that contradicted themselves, by check.
    verification_failures_total: IntCounterVec ["chain", "check"];
    /// Transactions of types that cannot be hashed here, in blocks that were verified all the same, by type: the
    /// transactions of these blocks are a node's word.
    unhashed_transactions_total: IntCounterVec ["chain", "type"];
    /// Times that our own code panicked on what a node said.
    decoder_panics_total: IntCounterVec ["chain"];
    /// Balances that differed from the chain's own figure.
    balance_drift_total: IntCounterVec ["chain"];
    /// Tokens set aside because their figures cannot be booked, by symbol, until somebody releases them.
    assets_quarantined: IntGaugeVec ["chain", "asset"];
    /// Histories asked for with a registration, by how they ended (complete, incomplete).
    histories_total: IntCounterVec ["chain", "status"];
    /// Scans for histories that wait after a failure, until they are tried again with success.
    history_scans_backing_off: IntGaugeVec ["chain"];
    /// Old blocks that were read for histories.
    history_blocks_total: IntCounterVec ["chain"];
    /// Balances compared with the chain's own figure.
    reconciled_balances_total: IntCounterVec ["chain"];
    /// Balances that settled without being compared with the chain's own figure, by the reason: `catching_up`
    /// (transfers, in batches), `no_state` (no node has the settled block's state), `no_answer`, `too_many`.
    settled_uncompared_total: IntCounterVec ["chain", "reason"];
    /// Balances that differ from the chain's own figure, which nobody has confirmed yet.
    balances_in_doubt: IntGaugeVec ["chain"];
    /// Differences that the endpoints tell differently of.
    disputed_figures_total: IntCounterVec ["chain"];
    /// 1 while nothing settles, because too many balances differ from the chain's own figures.
    settlement_stopped: IntGaugeVec ["chain"];
    /// 1 while settlement waits for a second endpoint, by why (block: they have different ones, figure: they tell
    /// differently of what is held, silence: fewer than two answer).
    settlement_unagreed: IntGaugeVec ["chain", "why"];
    /// Addresses that the sweep has compared with the chain's own figures.
    swept_addresses_total: IntCounterVec ["chain"];
    /// How long the sweep takes to look at every address once, at its budget.
    sweep_round_seconds: IntGaugeVec ["chain"];
    /// When the sweep last had compared everything, in Unix seconds.
    sweep_last_completed_timestamp_seconds: GaugeVec ["chain"];
    /// Addresses watched on the chain, in memory.
    registered_addresses: IntGaugeVec ["chain"];
    /// Requests to nodes, by endpoint, method and outcome (ok, error, timeout, limited, invalid).
    rpc_requests_total: IntCounterVec ["chain", "endpoint", "method", "outcome"];
    /// Time of requests to nodes.
    rpc_request_duration_seconds: HistogramVec ["chain", "method"] in FAST;
    /// Answers of nodes that could not be had for their size, however they were asked for.
    oversized_answers_total: IntCounterVec ["chain", "endpoint"];
    /// How many bytes the last such answer had, or how many of it were read; 0 while there was none, and where
    /// the node itself refused it.
    oversized_answer_bytes: IntGaugeVec ["chain", "endpoint"];
    /// Calls of an endpoint's budget that were used in this second, or this day (UTC), as of the last call.
    rpc_endpoint_budget_used: IntGaugeVec ["chain", "endpoint", "per"];
    /// Calls that are left of it.
    rpc_endpoint_budget_left: IntGaugeVec ["chain", "endpoint", "per"];
    /// 1 while the endpoint answers.
    rpc_endpoint_healthy: IntGaugeVec ["chain", "endpoint"];
    /// 1 while quicker endpoints are asked before it.
    rpc_endpoint_slow: IntGaugeVec ["chain", "endpoint"];
    /// 1 for the way in which the endpoint tells what moved inside the newest blocks' transactions (debug, trace).
    rpc_endpoint_tracing: IntGaugeVec ["chain", "endpoint", "method"];
    /// Blocks in which code ran, by whether what moved inside their transactions was traced (traced, untraced).
    traced_blocks_total: IntCounterVec ["chain", "outcome"];
    /// Traces that did not fit to their block or to the chain's own balances, and were left out.
    trace_mismatches_total: IntCounterVec ["chain"];
    /// Safe deployments that reached a status since the start, by status.
    safe_deployments: IntCounterVec ["chain", "status"];
    /// Safes of registered owners or tracked transactions that known factories made, by what became of them
    /// (proven, rejected, unanswered: a node is asked again, omitted: beyond what one block may bring, or
    /// unanswered for a day).
    safe_candidates_total: IntCounterVec ["chain", "outcome"];
    /// Changes of watched Safes, by what changed (owners: or the threshold, plugs: a module, a guard or the fallback
    /// handler, singleton: it runs another version of Safe's own code, untrusted: it runs anything else).
    safe_changes_total: IntCounterVec ["chain", "change"];
    /// Events written, by type.
    events_total: IntCounterVec ["type"];
    /// Webhook attempts, by outcome (delivered, rejected, timeout, unreachable, refused).
    webhook_attempts_total: IntCounterVec ["outcome"];
    /// From an event's commit to its acknowledged delivery.
    webhook_delivery_delay_seconds: Histogram in SLOW;
    /// Deliveries that wait for an attempt.
    webhook_deliveries_pending: IntGauge;
    /// Age of the oldest delivery that waits.
    webhook_oldest_pending_seconds: Gauge;
    /// HTTP requests answered, by route template and status code.
    api_requests_total: IntCounterVec ["route", "status"];
    /// Time to answer HTTP requests.
    api_request_duration_seconds: HistogramVec ["route"] in FAST;
    /// Time of write transactions, by name.
    db_transaction_duration_seconds: HistogramVec ["name"] in FAST;
    /// 1 while a replica is configured, but API reads go to the primary, because it does not answer or is too far behind.
    replica_away: IntGauge;
    /// For how long the primary has been ahead of the replica, as of the last look.
    replica_lag_seconds: Gauge;
    /// API reads that were tried at the replica, by outcome (answered, repeated: done again at the primary, because it
    /// failed or did not have what was asked for).
    replica_reads_total: IntCounterVec ["outcome"];
    /// Rows that retention has deleted, by table.
    retention_deleted_total: IntCounterVec ["table"];
    /// When retention was last through with every rule, in Unix seconds; until then, when the process started.
    retention_last_run_timestamp_seconds: Gauge;
    /// Time that retention took to follow every rule, pauses included.
    retention_run_duration_seconds: Histogram in SLOW;
    /// Age of the oldest price in use.
    price_age_seconds: Gauge;
    /// Tasks that ended without being asked to.
    task_failures_total: IntCounter;
    /// Always 1; the version is the label.
    build_info: IntGaugeVec ["version"];
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    /// The text that Prometheus scrapes.
    #[must_use]
    pub fn render(&self) -> String {
        let mut out = Vec::new();
        match TextEncoder::new().encode(&self.registry.gather(), &mut out) {
            Ok(()) => String::from_utf8(out).unwrap_or_default(),
            Err(error) => format!("# the metrics cannot be written: {error}\n"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_a_name_of_its_own_and_a_help_text() {
        let metrics = Metrics::new();
        metrics.build_info.with_label_values(&["0"]).set(1);
        assert!(metrics.render().contains("tidemark_build_info{version=\"0\"} 1"));
        assert!(Metrics::names().len() > 30);
    }
}
