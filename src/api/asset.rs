//! The verified and the quarantined assets, in memory, and what a request means by a token.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    App,
    answer::Json,
    auth::Caller,
    error::{Code, Failures, Problem},
    key::Scope,
    page::Page,
    past::{Watched, not_covered},
    request::Params,
};
use crate::{
    chain::{AssetKey, ChainName, Family},
    config::ChainConfig,
    model::{Asset, AssetNo},
    store::asset,
    view::AssetView,
};

/// The verified and the quarantined assets of every chain.
#[derive(Debug, Default)]
pub(super) struct AssetIndex {
    by_chain: BTreeMap<ChainName, BTreeMap<AssetKey, Asset>>,
    by_no: BTreeMap<AssetNo, Asset>,
}

impl AssetIndex {
    fn new(rows: Vec<Asset>) -> Self {
        let mut index = Self::default();
        for row in rows {
            index.by_no.insert(row.no, row.clone());
            index.by_chain.entry(row.chain.clone()).or_default().insert(row.key, row);
        }
        index
    }

    pub fn get(&self, chain: &ChainName, key: &AssetKey) -> Option<&Asset> {
        self.by_chain.get(chain)?.get(key)
    }

    pub fn by_no(&self, no: AssetNo) -> Option<&Asset> {
        self.by_no.get(&no)
    }

    pub fn of_chain(&self, chain: &ChainName) -> impl Iterator<Item = &Asset> {
        self.by_chain.get(chain).into_iter().flat_map(BTreeMap::values)
    }

    /// All that `token` can mean: a symbol, a CAIP-19 id or a contract, on whichever chains.
    pub fn named(&self, token: &str) -> Vec<&Asset> {
        let contract = Family::ALL
            .iter()
            .find_map(|family| family.parse_address(token).ok())
            .map(AssetKey::Token);
        let is_named = |asset: &&Asset| {
            contract == Some(asset.key)
                || asset.caip19.eq_ignore_ascii_case(token)
                || asset.symbol.as_ref().is_some_and(|symbol| symbol.eq_ignore_ascii_case(token))
        };
        self.by_chain.values().flat_map(BTreeMap::values).filter(is_named).collect()
    }

    /// The one asset, and the one chain of a wallet, that are meant.
    ///
    /// # Errors
    /// 400 if none or several are, 409 if the wallet is not watched there.
    pub fn meant(
        &self,
        token: &str,
        chain: Option<&ChainName>,
        watched: Vec<Watched>,
    ) -> Result<(&Asset, Watched), Problem> {
        let mut named = self.named(token);
        if named.is_empty() {
            return Err(unknown_token("asset", token));
        }
        named.retain(|asset| chain.is_none_or(|chain| asset.chain == *chain));
        let mut meant = Vec::new();
        for one in watched {
            let on: Vec<&&Asset> =
                named.iter().filter(|asset| asset.chain == one.on.chain).collect();
            match on[..] {
                [] => {}
                [asset] => meant.push((*asset, one)),
                _ => {
                    let message = "names several assets of the chain: use a contract address";
                    return Err(Problem::field(Code::InvalidRequest, "asset", message));
                }
            }
        }
        if meant.len() > 1 {
            let chains: BTreeSet<&str> =
                meant.iter().map(|(asset, _)| asset.chain.as_str()).collect();
            let chains: Vec<&str> = chains.into_iter().collect();
            let message = format!(
                "is to be named: the wallet is watched for this asset on {}",
                chains.join(", ")
            );
            return Err(Problem::field(Code::InvalidRequest, "chain", message));
        }
        meant.pop().ok_or_else(|| not_covered(Vec::new()))
    }
}

pub(super) fn unknown_token(field: &str, token: &str) -> Problem {
    Problem::field(
        Code::UnknownToken,
        field,
        format!(
            "names the token '{token}', which is not configured: use a symbol, a contract address or an id \
             of GET /v1/assets"
        ),
    )
}

impl App {
    pub(super) async fn asset_index(&self) -> Result<Arc<AssetIndex>, Problem> {
        let now = self.clock.now();
        if let Some(index) = self.assets.get(&(), now) {
            return Ok(index);
        }
        let mut session = self.db.read().await?;
        let index = Arc::new(AssetIndex::new(asset::listed(&mut session.conn()).await?));
        // Followers write the configured assets when their chain begins. What was read before that is not
        // kept: balances of the missing assets would be left out for as long, and removed ones shown.
        if self.is_as_configured(&index) {
            self.assets.put((), Arc::clone(&index), now);
        }
        Ok(index)
    }

    fn is_as_configured(&self, index: &AssetIndex) -> bool {
        self.config.chains.values().all(|chain| {
            let configured: BTreeSet<AssetKey> = chain.assets().into_iter().collect();
            let mut listed = index.of_chain(&chain.name).filter(|asset| asset.verified);
            configured.iter().all(|key| index.get(&chain.name, key).is_some())
                && listed.all(|asset| configured.contains(&asset.key))
        })
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// Only the assets of this chain.
    chain: Option<String>,
}

/// A verified or a quarantined asset.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrackedAssetView {
    pub chain: String,
    #[serde(flatten)]
    pub asset: AssetView,
    /// The token's contract; null for the native coin.
    pub contract: Option<String>,
}

/// What is tracked
///
/// The assets that count as money, and those that did until they were quarantined, by chain; the native coin
/// comes first.
#[utoipa::path(get, path = "/v1/assets", tag = "chains", params(ListParams),
    responses((status = 200, body = Page<TrackedAssetView>), Failures),
    security(("apiKey" = []), ("bearer" = [])))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Params(params): Params<ListParams>,
) -> Result<Json<Page<TrackedAssetView>>, Problem> {
    caller.need(Scope::WalletsRead)?;
    let index = app.asset_index().await?;
    let chains: Vec<&ChainConfig> = match &params.chain {
        Some(chain) => vec![app.chain("chain", chain)?],
        None => app.config.chains.values().collect(),
    };
    let view = |chain: &ChainConfig, asset: &Asset| TrackedAssetView {
        chain: asset.chain.to_string(),
        asset: asset.into(),
        contract: match &asset.key {
            AssetKey::Native => None,
            AssetKey::Token(contract) => Some(chain.family.format_address(contract)),
        },
    };
    let data = chains
        .into_iter()
        .flat_map(|chain| index.of_chain(&chain.name).map(move |asset| view(chain, asset)))
        .collect();
    Ok(Json(Page { data, next_cursor: None }))
}
