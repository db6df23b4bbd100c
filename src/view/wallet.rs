//! Wallets and Safes on the wire.

use serde::Serialize;
use utoipa::ToSchema;

use super::BlockRefView;
use crate::{
    chain::{Address, Family, HistoryMethod},
    clock::Millis,
    id::{AccountId, WalletId},
    model::{HistoryStatus, SafeOnChain, Wallet, WalletKind, WalletStatus, WatchStatus},
};

/// A wallet.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Wallet)]
pub struct WalletView {
    #[schema(value_type = String, example = "wlt_2xKjF9mQb7vN4hL1pR3w8t")]
    pub id: WalletId,
    #[schema(example = "0x742D35CC6634C0532925a3B844Bc9E7595F2bD18")]
    pub address: String,
    /// `evm`, `solana` or `tron`.
    #[schema(value_type = String, example = "evm")]
    pub family: crate::chain::Family,
    /// `eoa`, `safe` or `contract`.
    #[schema(value_type = String, example = "eoa")]
    pub kind: WalletKind,
    /// `pending` (no watch has begun), `active` or `disabled`.
    #[schema(value_type = String, example = "active")]
    pub status: WalletStatus,
    pub chains: Vec<WalletChainView>,
    #[schema(value_type = Option<String>)]
    pub account_id: Option<AccountId>,
    pub client_reference_id: Option<String>,
    pub nickname: Option<String>,
    pub is_primary: bool,
    /// Null for wallets that are no Safe.
    pub safe: Option<SafeView>,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub rotated_at: Option<Millis>,
    #[schema(value_type = Option<String>)]
    pub replaced_by_wallet_id: Option<WalletId>,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Millis,
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Millis,
}

/// One chain of a wallet.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WalletChainView {
    pub chain: String,
    /// `pending` (the watch has not begun), `active`, `closing` or `closed`.
    pub status: &'static str,
    /// The first block whose movements were asked for; null for the future only.
    pub from_block: Option<u64>,
    /// Whether the transfers since `fromBlock` are there: `wanted` (not yet), `complete`, or `incomplete` (no
    /// node could prove all of them; the opening balance stands instead). Null without `fromBlock`.
    pub history: Option<&'static str>,
    /// How they are found: `blocks` (every block is read), `logs` (only blocks that the nodes' index of logs names:
    /// without the native coin's past), `signatures` (what the nodes list for the address). Null until somebody
    /// has begun.
    pub history_method: Option<&'static str>,
    /// The first block from which on the transfers are all there; null until the watch has begun. While a history
    /// is wanted it goes down towards `fromBlock`.
    pub covered_from: Option<u64>,
    /// The first block from which on the history has internal transfers, too: `coveredFrom` if a node has traced all of
    /// its blocks; else the one after the highest that none has traced, in and below which some may be missing. Null
    /// without `fromBlock`, by `logs`, and until somebody has begun.
    pub internal_from: Option<u64>,
    /// The block up to which everything is in the balances; null until the watch has begun.
    pub covered_to: Option<u64>,
}

/// A Safe's facts as last proven.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SafeView {
    /// Whether it became a wallet because one of its owners is registered: others may dispose of it, too.
    pub found_by_owner: bool,
    pub version: Option<String>,
    pub singleton: Option<String>,
    pub owners: Vec<String>,
    pub threshold: Option<i64>,
    /// Whether a block that will stay holds it on some chain.
    pub deployed: bool,
    pub deployments: Vec<SafeChainView>,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct SafeChainView {
    pub chain: String,
    /// As of a Safe deployment: `pending`, `processing`, `completed` or `failed`; `completed` as well for a Safe that
    /// was there before anybody asked.
    pub status: String,
    /// As it is on this chain; null until it was read.
    pub state: Option<SafeStateView>,
    /// The block after which it was read.
    pub block: Option<BlockRefView>,
}

/// A Safe as a chain's state shows it.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = SafeState)]
pub struct SafeStateView {
    pub version: String,
    pub singleton: String,
    /// Whether it runs Safe's own code. If not, somebody may have taken it over: its singleton is the one that it has
    /// now, the rest is as it was last proven.
    pub trusted: bool,
    pub owners: Vec<String>,
    pub threshold: i64,
    /// Who can spend without the owners, at most 16 of them; null where this version does not tell.
    pub modules: Option<Vec<String>>,
    pub guard: Option<String>,
    pub module_guard: Option<String>,
    pub fallback_handler: Option<String>,
}

impl SafeStateView {
    #[must_use]
    pub fn new(safe: &SafeOnChain, family: Family) -> Self {
        let show = |address: &Address| family.format_address(address);
        let plugs = &safe.plugs;
        Self {
            version: safe.version.clone(),
            singleton: show(&safe.singleton),
            trusted: safe.trusted,
            owners: safe.owners.iter().map(show).collect(),
            threshold: safe.threshold,
            modules: plugs.modules.as_ref().map(|modules| modules.iter().map(show).collect()),
            guard: plugs.guard.as_ref().map(show),
            module_guard: plugs.module_guard.as_ref().map(show),
            fallback_handler: plugs.fallback_handler.as_ref().map(show),
        }
    }
}

fn safe_view(row: &Wallet) -> Option<SafeView> {
    let safe = row.safe.as_ref()?;
    let deployments: Vec<SafeChainView> = row
        .chains
        .iter()
        .filter_map(|on| {
            let stands = || on.safe.as_ref().map(|_| "completed".to_owned());
            Some(SafeChainView {
                chain: on.chain.to_string(),
                status: on.deployment.clone().or_else(stands)?,
                state: on.safe.as_ref().map(|safe| SafeStateView::new(safe, row.family)),
                block: on.safe.as_ref().map(|safe| BlockRefView::new(safe.at, row.family)),
            })
        })
        .collect();
    Some(SafeView {
        found_by_owner: safe.found_by_owner,
        version: safe.version.clone(),
        singleton: safe.singleton.as_ref().map(|address| row.family.format_address(address)),
        owners: safe.owners.iter().map(|owner| row.family.format_address(owner)).collect(),
        threshold: safe.threshold,
        deployed: deployments.iter().any(|on| on.status == "completed"),
        deployments,
    })
}

impl From<&Wallet> for WalletView {
    fn from(row: &Wallet) -> Self {
        let chains = row.chains.iter().map(|on| WalletChainView {
            chain: on.chain.to_string(),
            status: match on.status {
                WatchStatus::Requested => "pending",
                WatchStatus::Open => "active",
                WatchStatus::Closing => "closing",
                WatchStatus::Closed => "closed",
            },
            from_block: on.from_block,
            history: on.history.map(HistoryStatus::as_str),
            history_method: on.history_method.map(HistoryMethod::as_str),
            covered_from: on.covered_from.filter(|_| on.status == WatchStatus::Open),
            internal_from: on.internal_from().filter(|_| on.status == WatchStatus::Open),
            covered_to: on.head.filter(|_| on.status == WatchStatus::Open),
        });
        Self {
            id: row.id,
            address: row.family.format_address(&row.address),
            family: row.family,
            kind: row.kind,
            status: row.status(),
            chains: chains.collect(),
            account_id: row.account_id,
            client_reference_id: row.client_reference_id.clone(),
            nickname: row.nickname.clone(),
            is_primary: row.is_primary,
            safe: safe_view(row),
            rotated_at: row.rotated_at,
            replaced_by_wallet_id: row.replaced_by,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

/// The data of an event about a wallet as a whole.
#[derive(Clone, Debug, Serialize)]
pub struct WalletData {
    pub wallet: WalletView,
}
