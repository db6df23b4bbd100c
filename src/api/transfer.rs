//! `GET /v1/wallets/{locator}/transfers`: the history, one index range per page.

use std::{collections::BTreeMap, sync::Arc};

use axum::{Json, extract::State};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    App,
    asset::{AssetIndex, unknown_token},
    auth::Caller,
    error::{Failures, Problem},
    key::Scope,
    locator::Locator,
    page::{Page, Window},
    request::{Fields, Named, Params},
};
use crate::{
    chain::{AssetKey, ChainName, Family, Kind},
    id::TransferId,
    ledger::{Direction, Status},
    store::{
        Conn, chain,
        chain::{AssetRow, Cursor},
        history::{self, TransferFilter},
        transfer::TransferRow,
        wallet::WalletRow,
    },
    view::TransferView,
};

#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// A symbol, a contract address or a CAIP-19 id.
    asset: Option<String>,
    /// `pending`, `settled` or `orphaned`.
    status: Option<String>,
    /// `in` or `out`.
    direction: Option<String>,
    /// `transfer`, `internal`, `fee`, `withdrawal`, `mint`, `burn`, `wrap`, `unwrap`, `reward`, `opening` or
    /// `adjustment`.
    kind: Option<String>,
    chain: Option<String>,
    /// The first block time that counts.
    #[param(example = "2026-01-15T09:30:00Z")]
    from: Option<String>,
    /// The first block time that does not.
    to: Option<String>,
    /// 1 to 200; 50 if left out.
    limit: Option<String>,
    /// The nextCursor of the page before.
    cursor: Option<String>,
    /// `true`: also unverified tokens and amounts of nothing, which are in no balance.
    include_unverified: Option<String>,
}

/// What `asset` can mean for this wallet.
fn meant(
    index: &AssetIndex,
    text: &str,
    wallet: &WalletRow,
    unverified: bool,
) -> Result<Vec<(ChainName, AssetKey)>, Problem> {
    let mut assets: Vec<(ChainName, AssetKey)> =
        index.named(text).into_iter().map(|asset| (asset.chain.clone(), asset.key)).collect();
    if unverified && let Ok(contract) = wallet.family.parse_address(text) {
        let any = wallet.chains.iter().map(|on| (on.chain.clone(), AssetKey::Token(contract)));
        assets.extend(any);
    }
    if assets.is_empty() {
        return Err(unknown_token("asset", text));
    }
    assets.retain(|(chain, _)| wallet.chains.iter().any(|on| on.chain == *chain));
    assets.sort();
    assets.dedup();
    Ok(assets)
}

/// The assets of a page that are in no index: unverified ones, and those that left the configuration.
async fn strangers(
    conn: &mut Conn<'_>,
    index: &AssetIndex,
    rows: &[TransferRow],
) -> Result<BTreeMap<(ChainName, AssetKey), AssetRow>, Problem> {
    let mut found = BTreeMap::new();
    for row in rows {
        let key = (row.chain.clone(), row.asset);
        if index.get(&row.chain, &row.asset).is_none()
            && !found.contains_key(&key)
            && let Some(asset) = chain::asset(conn, &row.chain, &row.asset).await?
        {
            found.insert(key, asset);
        }
    }
    Ok(found)
}

fn view(
    row: &TransferRow,
    asset: Option<&AssetRow>,
    family: Family,
    cursors: &[Cursor],
) -> TransferView {
    let head = cursors.iter().find(|cursor| cursor.chain == row.chain);
    let head = head.map_or(row.block.number, |cursor| cursor.head.at.number);
    let unknown;
    let asset = if let Some(asset) = asset {
        asset
    } else {
        // Whoever books a transfer records its asset, so this only keeps a page readable.
        unknown = AssetRow {
            chain: row.chain.clone(),
            key: row.asset,
            caip19: String::new(),
            symbol: None,
            name: None,
            decimals: None,
            verified: false,
        };
        &unknown
    };
    TransferView::new(row, asset, family, head)
}

/// Transfers of a wallet
///
/// The newest seen first.
#[utoipa::path(get, path = "/v1/wallets/{locator}/transfers", tag = "wallets",
    params(("locator" = String, Path, description = "wlt_…, an address, external:{id}, email:a@b.c:evm, …"),
        ListParams),
    responses((status = 200, body = Page<TransferView>), Failures),
    security(("apiKey" = []), ("bearer" = [])))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Named(locator): Named,
    Params(params): Params<ListParams>,
) -> Result<Json<Page<TransferView>>, Problem> {
    let tenant = caller.need(Scope::WalletsRead)?;
    let locator = Locator::parse(locator)?;
    let mut fields = Fields::default();
    let window = Window::read(&mut fields, params.limit.as_deref(), params.cursor.as_deref());
    let unverified = fields.read("includeUnverified", params.include_unverified.as_deref());
    let unverified = unverified.unwrap_or(false);
    let mut filter = TransferFilter {
        assets: None,
        chain: None,
        status: fields.word("status", params.status.as_deref(), Status::ALL, Status::as_str),
        direction: fields.word(
            "direction",
            params.direction.as_deref(),
            Direction::ALL,
            Direction::as_str,
        ),
        kind: fields.word("kind", params.kind.as_deref(), Kind::ALL, Kind::as_str),
        from: fields.time("from", params.from.as_deref()),
        to: fields.time("to", params.to.as_deref()),
        uncounted: unverified,
        before: window.before.map(TransferId),
    };
    fields.finish()?;
    if let Some(name) = &params.chain {
        filter.chain = Some(app.chain("chain", name)?.name.clone());
    }
    let index = app.asset_index().await?;
    let mut tx = app.db.snapshot().await?;
    let mut conn = tx.conn();
    let wallet = locator.resolve(&mut conn, tenant).await?;
    if let Some(text) = &params.asset {
        filter.assets = Some(meant(&index, text, &wallet, unverified)?);
    }
    let rows = history::page(&mut conn, tenant, wallet.id, &filter, window.fetch()).await?;
    let strangers = strangers(&mut conn, &index, &rows).await?;
    let cursors = chain::cursors(&mut conn).await?;
    let view = |row: TransferRow| {
        let stranger = || strangers.get(&(row.chain.clone(), row.asset));
        let asset = index.get(&row.chain, &row.asset).or_else(stranger);
        view(&row, asset, wallet.family, &cursors)
    };
    Ok(Json(window.page(rows, |row| row.id.0, view)))
}
