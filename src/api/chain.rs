//! `GET /v1/chains`: where each chain stands.

use std::sync::Arc;

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    App,
    answer::Json,
    auth::Caller,
    balance::block_view,
    error::{Failures, Problem},
    key::Scope,
    page::Page,
};
use crate::{
    chain::{AssetKey, Family, TraceAbility},
    config::ChainConfig,
    model::{JournalHead, Tier},
    store::{chain, watch_count},
    view::BlockView,
};

/// A chain's own coin.
#[derive(Debug, Serialize, ToSchema)]
pub struct NativeView {
    pub symbol: String,
    pub name: String,
    pub decimals: u8,
}

/// The newest commit of a chain's journal. Whoever keeps it elsewhere can prove later that nothing up to it was changed:
/// `tidemark verify-journal --expect`.
#[derive(Debug, Serialize, ToSchema)]
pub struct JournalView {
    /// Counts from 1.
    pub commit: u64,
    /// SHA-256, in hexadecimal digits.
    pub hash: String,
}

impl JournalView {
    fn of(head: &JournalHead) -> Option<Self> {
        let JournalHead { commit, hash } = *head;
        (commit > 0).then(|| Self { commit, hash: hash.to_string() })
    }
}

/// Deposits of an asset that are available early, as long as what is available of one balance that way is no more.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Tier)]
pub struct TierView {
    /// CAIP-19.
    pub asset: String,
    /// Whole units.
    #[schema(example = "1000")]
    pub up_to: String,
    pub confirmations: u64,
}

impl TierView {
    fn new(config: &ChainConfig, tier: &Tier) -> Self {
        let decimals = match tier.asset {
            AssetKey::Native => Some(config.native.decimals),
            AssetKey::Token(contract) => config
                .tokens
                .iter()
                .find(|token| token.contract == contract)
                .map(|token| token.decimals),
        };
        Self {
            asset: config.family.caip19(&config.caip2, config.native.slip44, &tier.asset),
            up_to: tier.up_to.to_units(decimals.unwrap_or(0)),
            confirmations: tier.confirmations,
        }
    }
}

/// A chain and where it stands.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChainView {
    pub name: String,
    #[schema(value_type = String, example = "evm")]
    pub family: Family,
    #[schema(example = "eip155:8453")]
    pub caip2: String,
    /// EIP-155; 0 for families that have none.
    pub chain_id: u64,
    /// When a block counts as irreversible: `finalized`, `safe` or a number of confirmations.
    pub settlement: String,
    /// Deposits that are available before that, so many blocks below the head.
    pub tiers: Vec<TierView>,
    pub native: NativeView,
    /// The newest block whose movements are in the balances; null until the chain has begun.
    pub head: Option<BlockView>,
    pub settled: Option<BlockView>,
    /// How old the head is, by its own time.
    pub lag_seconds: Option<f64>,
    /// Why the chain stands still until a person acts.
    pub halted: Option<String>,
    /// Null until something is booked.
    pub journal: Option<JournalView>,
    /// What each of its endpoints shows of the native coin that moves inside transactions, in the order of the
    /// configuration: `debug`, `trace`, `none`, or `unknown` until it was asked. Where none does, such movements are
    /// booked when they settle, as one `adjustment`.
    #[schema(value_type = Vec<String>, example = json!(["debug", "none"]))]
    pub tracing: Vec<TraceAbility>,
    /// How many addresses of yours are watched here.
    pub registered_addresses: i64,
}

/// Chains and where they stand
#[utoipa::path(get, path = "/v1/chains", tag = "chains",
    responses((status = 200, body = Page<ChainView>), Failures),
    security(("apiKey" = []), ("bearer" = [])))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
) -> Result<Json<Page<ChainView>>, Problem> {
    let tenant = caller.need(Scope::WalletsRead)?;
    let read = app.reads.read(|mut session| async move {
        let conn = &mut session.conn();
        let counts = watch_count::per_chain(conn, tenant).await?;
        Ok::<_, Problem>((counts, chain::cursors(conn).await?, chain::tracing(conn).await?))
    });
    let (counts, cursors, tracing) = read.await?;
    let view = |config: &ChainConfig| {
        let cursor = cursors.iter().find(|cursor| cursor.chain == config.name);
        ChainView {
            name: config.name.to_string(),
            family: config.family,
            caip2: config.caip2.clone(),
            chain_id: config.chain_id,
            settlement: config.settlement.to_string(),
            tiers: config.tiers.iter().map(|tier| TierView::new(config, tier)).collect(),
            native: NativeView {
                symbol: config.native.symbol.clone(),
                name: config.native.name.clone(),
                decimals: config.native.decimals,
            },
            head: cursor.map(|cursor| block_view(config.family, &cursor.head)),
            settled: cursor.map(|cursor| block_view(config.family, &cursor.settled)),
            lag_seconds: cursor.map(|cursor| app.lag_seconds(cursor.head.time)),
            halted: cursor.and_then(|cursor| cursor.halted.clone()),
            journal: cursor.and_then(|cursor| JournalView::of(&cursor.journal)),
            tracing: cursor.and_then(|cursor| tracing.get(&cursor.no)).cloned().unwrap_or_default(),
            registered_addresses: counts.get(&config.name).copied().unwrap_or(0),
        }
    };
    Ok(Json(Page { data: app.config.chains.values().map(view).collect(), next_cursor: None }))
}
