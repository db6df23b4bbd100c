//! Configuration: the raw file made into checked types, once, at start.
//!
//! `config/default.toml` (compiled in), then the file given, then `TIDEMARK__…` variables. Unknown keys are
//! refused. Secrets never print: see [`Secret`]. An error names the key, the problem and what to do, and
//! never repeats a value that may be a secret.

mod check;
mod database;
mod endpoint;
mod error;
mod fleet;
mod identity;
mod known;
mod load;
mod raw;
mod retention;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod tiers;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

pub use error::ConfigError;

use crate::{
    chain::{Address, AssetKey, ChainName, Family, HistoryMethod, Settlement},
    model::Tier,
    string_enum::string_enum,
};

/// A text that must not appear in logs: a database or node URL, a header with a token.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself; never hand it to a formatter.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// All that the daemon is told.
#[derive(Clone, Debug)]
pub struct Config {
    pub server: ServerConfig,
    pub database_url: Secret,
    /// Who answers the API's reads; `None`: the database itself.
    pub replica: Option<ReplicaConfig>,
    pub chains: BTreeMap<ChainName, ChainConfig>,
    pub fleet: FleetConfig,
    pub webhooks: WebhookConfig,
    pub retention: RetentionConfig,
}

impl Config {
    /// Where files are kept that are no part of the database: beside SQLite's, or in `data`.
    #[must_use]
    pub fn data_folder(&self) -> PathBuf {
        let file = self.database_url.expose().strip_prefix("sqlite://");
        let folder = file.and_then(|file| Path::new(file).parent());
        folder.map_or_else(|| PathBuf::from("data"), Path::to_path_buf)
    }
}

/// How this daemon shares the chains with others on the same PostgreSQL.
#[derive(Clone, Debug)]
pub struct FleetConfig {
    /// The chains that it may follow; `None`: all.
    pub follow: Option<BTreeSet<ChainName>>,
    /// How long a daemon that says nothing keeps its chains.
    pub lease: Duration,
    /// Between two signs of life; at most half a lease.
    pub heartbeat: Duration,
    /// Between two chains that it gives to others that follow fewer.
    pub rebalance: Duration,
}

impl Default for FleetConfig {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { follow: None, lease: seconds(10), heartbeat: seconds(3), rebalance: seconds(60) }
    }
}

impl FleetConfig {
    /// Whether this daemon may follow a chain.
    #[must_use]
    pub fn follows(&self, chain: &ChainName) -> bool {
        self.follow.as_ref().is_none_or(|chains| chains.contains(chain))
    }
}

/// A streaming standby of the database, for reads that may lag.
#[derive(Clone, Debug)]
pub struct ReplicaConfig {
    pub url: Secret,
    /// One that is further behind is not read.
    pub lag_limit: Duration,
}

#[derive(Clone, Debug)]
pub struct ServerConfig {
    pub listen: SocketAddr,
    /// Bytes of a request body; more is refused with 413.
    pub max_body_bytes: usize,
    /// From the first byte of a request to the last of its answer.
    pub request_timeout: Duration,
}

/// One chain, complete: what the file left out is filled in from the well-known chains.
#[derive(Clone, Debug)]
pub struct ChainConfig {
    pub name: ChainName,
    pub family: Family,
    /// CAIP-2, such as `eip155:8453`.
    pub caip2: String,
    /// EIP-155; 0 for families that have none.
    pub chain_id: u64,
    pub native: NativeCoin,
    pub settlement: Settlement,
    /// Which deposits are available before they settle; by asset, and by their confirmations, the fewest first.
    pub tiers: Vec<Tier>,
    pub endpoints: Vec<EndpointConfig>,
    /// So many endpoints must agree on what settles: one, or two.
    pub quorum: u64,
    pub tokens: Vec<TokenConfig>,
    pub verification: Verification,
    /// How the past of a wallet is looked for.
    pub history: HistoryMethod,
    /// How often the head is asked for while the node announces nothing.
    pub poll_interval: Duration,
    /// Readiness fails when the newest applied block is older, by its own time, than this.
    pub lag_limit: Duration,
    /// By how much the newest settled block may be older than the newest applied one before somebody is alerted.
    /// It changes nothing of what settles.
    pub settlement_limit: Duration,
    /// Blocks fetched by one request and committed by one transaction while catching up.
    pub batch_blocks: u64,
    /// Where a chain without a cursor begins; `None`: at the head.
    pub start_block: Option<u64>,
    /// Addresses per minute that are compared with the chain's own figures though nothing touched them; 0
    /// compares none.
    pub sweep_per_minute: u64,
    /// How many differences from the chain's own figures are believed at once.
    pub differences: DifferenceLimits,
    /// Transfers of unverified assets and of nothing that are recorded of one transaction and wallet; 0: none.
    pub worthless_transfers: u64,
    /// Safes found by one owner that become wallets: whoever pays for it can set up any number in his name.
    pub safes_per_owner: u64,
    /// How long a tracked transaction may stay unknown to the node before it counts as dropped.
    pub dropped_after: Duration,
}

/// How many differences from the chain's own figures, of balances that are compared together, are believed; more
/// of them stop settlement until a person has looked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DifferenceLimits {
    pub count: u64,
    /// Of what is compared, where that is at least [`DifferenceLimits::SHARE_FROM`] balances.
    pub percent: u64,
}

impl DifferenceLimits {
    /// Fewer balances have no share worth the name.
    pub const SHARE_FROM: u64 = 20;

    /// Whether so many need a person's look.
    #[must_use]
    pub fn exceeded(self, differing: usize, compared: usize) -> bool {
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let (differing, compared) = (count(differing), count(compared));
        let share = compared >= Self::SHARE_FROM
            && differing.saturating_mul(100) > compared.saturating_mul(self.percent);
        differing > self.count || share
    }
}

impl ChainConfig {
    /// The assets that are money on this chain.
    #[must_use]
    pub fn assets(&self) -> Vec<AssetKey> {
        let tokens = self.tokens.iter().map(|token| AssetKey::Token(token.contract));
        std::iter::once(AssetKey::Native).chain(tokens).collect()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NativeCoin {
    pub symbol: String,
    pub name: String,
    pub decimals: u8,
    /// The SLIP-44 coin type, for the CAIP-19 id.
    pub slip44: u32,
}

/// A token contract that the operator calls money.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenConfig {
    pub contract: Address,
    pub symbol: String,
    pub name: String,
    pub decimals: u8,
    /// Whether it is made of the native coin and becomes it again by `Deposit` and `Withdrawal` (as WETH9), without
    /// a log of a transfer.
    pub wraps_native: bool,
    /// Whether its issuer destroys what an address holds by `DestroyedBlackFunds` (as USDT's on Ethereum), without a log
    /// of a transfer.
    pub destroys_funds: bool,
}

string_enum! {
    /// How much of what a node returns is recomputed before it is believed.
    Verification {
        /// The header's hash and the receipts' root.
        Full = "full",
        /// The logs' bloom and the block hash in every receipt; for chains whose headers or receipts have
        /// fields of their own.
        Bloom = "bloom",
        /// Only the links between blocks; for chains that keep neither.
        Links = "links",
    }
}

string_enum! {
    /// How a node is asked for what moved inside transactions.
    Tracing {
        /// In whatever way it can.
        Auto = "auto",
        /// `debug_traceBlockByHash` and `debug_traceTransaction`.
        Debug = "debug",
        /// `trace_block` and `trace_transaction`.
        Trace = "trace",
        /// Not at all.
        None = "none",
    }
}

/// One node of a chain.
#[derive(Clone, Debug)]
pub struct EndpointConfig {
    /// A short name for logs and metrics, never the URL.
    pub name: String,
    pub url: Secret,
    pub ws: Option<Secret>,
    /// Of several healthy endpoints the one with the greatest weight is asked first.
    pub weight: u32,
    /// Calls, each of a batch counted: those in a second, and those in a day (UTC). `None`: as many as are wanted.
    pub max_requests_per_second: Option<u32>,
    pub max_requests_per_day: Option<u64>,
    pub headers: BTreeMap<String, Secret>,
    pub connect_timeout: Duration,
    /// From the request's first byte to the answer's last.
    pub request_timeout: Duration,
    pub max_response_bytes: usize,
    /// Calls in one JSON-RPC batch.
    pub max_batch: usize,
    pub tracing: Tracing,
}

#[derive(Clone, Debug)]
pub struct WebhookConfig {
    /// For development only: endpoints without TLS.
    pub allow_http: bool,
    /// For development only: endpoints on private, loopback and link-local addresses.
    pub allow_private_addresses: bool,
    /// The pause before each further attempt, before jitter. When they are used up the delivery has failed.
    pub retry_schedule: Vec<Duration>,
    /// From the start of the connection to the answer's end.
    pub request_timeout: Duration,
    pub max_in_flight: usize,
    pub max_in_flight_per_endpoint: usize,
    /// An endpoint that has failed for this long without a success is disabled.
    pub disable_after: Duration,
}

/// How long is kept what only grows; `None`: for ever. Deliveries that wait stay, and the events they need.
#[derive(Clone, Debug)]
pub struct RetentionConfig {
    pub events: Option<Duration>,
    /// After a delivery has ended; not longer than its event.
    pub deliveries: Option<Duration>,
    /// After their delivery has ended; not longer than it.
    pub delivery_attempts: Option<Duration>,
    /// For so long a POST that is repeated gets its first answer again.
    pub idempotency_keys: Duration,
    pub expired_secrets: Option<Duration>,
    /// Challenges that nobody met; the others are proofs and stay.
    pub expired_challenges: Option<Duration>,
    /// Transfers that are no money, after they were first seen.
    pub worthless_transfers: Option<Duration>,
}

impl RetentionConfig {
    /// Keeps everything but the idempotency keys.
    #[must_use]
    pub const fn for_ever(idempotency_keys: Duration) -> Self {
        Self {
            events: None,
            deliveries: None,
            delivery_attempts: None,
            idempotency_keys,
            expired_secrets: None,
            expired_challenges: None,
            worthless_transfers: None,
        }
    }
}
