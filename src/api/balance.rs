//! `GET /v1/wallets/{locator}/balances`: the hot path. One statement, whatever names the wallet.

use std::{collections::BTreeSet, sync::Arc};

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    App,
    answer::Json,
    asset::{AssetIndex, unknown_token},
    auth::Caller,
    error::{Failures, Problem},
    key::Scope,
    locator::Locator,
    past::{self, At},
    request::{Named, Params},
};
use crate::{
    amount::Amount,
    chain::{AssetKey, ChainName, Family},
    clock::Millis,
    model::{Asset, BlockPoint, Position},
    store::balance::{self, ChainHoldings},
    view::{AssetView, BlockView, BucketsView, PointView},
};

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ReadParams {
    /// Symbols, contract addresses or CAIP-19 ids, separated by commas. A named asset is shown even if
    /// nothing was ever held of it.
    #[param(example = "usdc,eth")]
    tokens: Option<String>,
    /// Names of chains, separated by commas.
    #[param(example = "base")]
    chains: Option<String>,
    /// A block of one chain, by its number, or a time: what was held then, as the chain is known now.
    ///
    /// Up to a block, transfers count that are in it or below it; up to a time, those in blocks that are not younger.
    /// `total` is their sum. Of it, `available` is what has settled by now and `pending` what could still vanish;
    /// `frozen` is 0, for holds and freezes are of now. An adjustment counts from the block whose state proved it, which
    /// can be later than what it makes good. Only assets of which something was held then are shown, and those that
    /// `tokens` names.
    ///
    /// 409 `not_covered` with `covered` before the balances are known, above the newest block, and for a time before a
    /// younger block is there. 422 `history_too_long` where more than 50,000 transfers lie between the block and each
    /// end of the wallet's history.
    #[param(example = "2026-01-15T09:30:00Z")]
    at: Option<String>,
}

/// What a wallet holds. A chain whose watch has not begun is not in it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BalancesView {
    #[schema(value_type = String)]
    pub wallet_id: crate::id::WalletId,
    pub address: String,
    pub balances: Vec<BalanceView>,
    /// Null where a price is missing.
    pub total_usd: Option<String>,
    pub as_of: Vec<AsOfView>,
    /// Only with `at`, and where there are some: assets that began to count later, so that nobody knows what was held
    /// of them then.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_covered: Vec<NotCoveredView>,
}

/// An asset whose balance at a past block is not known.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NotCovered)]
pub struct NotCoveredView {
    pub chain: String,
    pub asset: AssetView,
    /// From where on it is known; null while it is not.
    pub from: Option<PointView>,
}

/// What a wallet holds of one asset.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BalanceView {
    pub chain: String,
    pub asset: AssetView,
    #[serde(flatten)]
    pub buckets: BucketsView,
    /// When it last changed; null if nothing was ever held, and with `at`.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub updated_at: Option<Millis>,
}

/// The blocks at which the balances of a chain hold.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AsOfView {
    pub chain: String,
    pub head: BlockView,
    pub settled: BlockView,
    /// How old the head is, by its own time.
    pub lag_seconds: f64,
    /// Only with `at`: the past block or time at which the balances hold, instead of the head.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<PointView>,
}

pub(super) fn block_view(family: Family, point: &BlockPoint) -> BlockView {
    BlockView {
        number: point.at.number,
        hash: family.format_block_hash(&point.at.hash),
        time: point.time,
    }
}

/// Which assets and chains are asked for.
pub(super) struct Choice<'a> {
    chains: Option<BTreeSet<&'a str>>,
    pub assets: Option<BTreeSet<(&'a ChainName, AssetKey)>>,
}

impl<'a> Choice<'a> {
    fn new(app: &'a App, index: &'a AssetIndex, params: &ReadParams) -> Result<Self, Problem> {
        let mut chains = None;
        if let Some(names) = &params.chains {
            let set: &mut BTreeSet<&str> = chains.insert(BTreeSet::new());
            for name in names.split(',') {
                set.insert(app.chain("chains", name)?.name.as_str());
            }
        }
        let mut assets = None;
        if let Some(tokens) = &params.tokens {
            let set: &mut BTreeSet<_> = assets.insert(BTreeSet::new());
            for token in tokens.split(',') {
                let named = index.named(token);
                if named.is_empty() {
                    return Err(unknown_token("tokens", token));
                }
                set.extend(named.into_iter().map(|asset| (&asset.chain, asset.key)));
            }
        }
        Ok(Self { chains, assets })
    }

    pub fn has_chain(&self, chain: &ChainName) -> bool {
        self.chains.as_ref().is_none_or(|chains| chains.contains(chain.as_str()))
    }
}

pub(super) fn view(
    asset: &Asset,
    position: Position,
    held: Amount,
    updated_at: Option<Millis>,
) -> Result<BalanceView, Problem> {
    Ok(BalanceView {
        chain: asset.chain.to_string(),
        asset: asset.into(),
        buckets: BucketsView::new(&position.buckets(held)?, asset),
        updated_at,
    })
}

fn of_chain(
    held: &ChainHoldings,
    index: &AssetIndex,
    choice: &Choice<'_>,
) -> Result<Vec<BalanceView>, Problem> {
    let Some(named) = &choice.assets else {
        let known = held
            .assets
            .iter()
            .filter_map(|holding| index.by_no(holding.asset).map(|asset| (asset, holding)));
        let mut known: Vec<_> = known.collect();
        // By contract, the native coin first.
        known.sort_unstable_by_key(|(asset, _)| asset.key);
        return known
            .into_iter()
            .map(|(asset, h)| view(asset, h.position, h.locked, Some(h.updated_at)))
            .collect();
    };
    let named = named.iter().filter(|(chain, _)| **chain == held.chain);
    named
        .filter_map(|(chain, key)| index.get(chain, key))
        .map(|asset| match held.assets.iter().find(|holding| holding.asset == asset.no) {
            Some(h) => view(asset, h.position, h.locked, Some(h.updated_at)),
            None => view(asset, Position::default(), Amount::ZERO, None),
        })
        .collect()
}

/// Balances of a wallet
///
/// For each asset: what is available, pending and frozen, and the blocks at which that holds. Assets of
/// which nothing was ever held are left out unless `tokens` names them.
#[utoipa::path(get, path = "/v1/wallets/{locator}/balances", tag = "wallets",
    params(("locator" = String, Path, description = "wlt_…, an address, external:{id}, email:a@b.c:evm, …"),
        ReadParams),
    responses((status = 200, body = BalancesView), Failures),
    security(("apiKey" = []), ("bearer" = [])))]
pub(super) async fn read(
    State(app): State<Arc<App>>,
    caller: Caller,
    Named(locator): Named,
    Params(params): Params<ReadParams>,
) -> Result<Json<BalancesView>, Problem> {
    let tenant = caller.need(Scope::WalletsRead)?;
    let locator = Locator::parse(locator)?;
    let index = app.asset_index().await?;
    let choice = Choice::new(&app, &index, &params)?;
    if let Some(at) = &params.at {
        let at = At::read(at)?;
        let query = past::Query { app: &app, locator, index: &index, choice, at };
        return Ok(Json(query.answer(tenant).await?));
    }
    let locator = &locator;
    let read = app.reads.read(|mut session| async move {
        locator.choose(balance::holdings(&mut session.conn(), tenant, &locator.filter).await?)
    });
    let wallet = read.await?;
    let mut balances = Vec::new();
    let mut as_of = Vec::new();
    for held in wallet.chains.iter().filter(|held| choice.has_chain(&held.chain)) {
        balances.extend(of_chain(held, &index, &choice)?);
        as_of.push(AsOfView {
            chain: held.chain.to_string(),
            head: block_view(wallet.family, &held.head),
            settled: block_view(wallet.family, &held.settled),
            lag_seconds: app.lag_seconds(held.head.time),
            at: None,
        });
    }
    Ok(Json(BalancesView {
        wallet_id: wallet.wallet_id,
        address: wallet.family.format_address(&wallet.address),
        balances,
        total_usd: None,
        as_of,
        not_covered: Vec::new(),
    }))
}
