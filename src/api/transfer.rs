//! `GET /v1/wallets/{locator}/transfers`: the history, one index range per page.

use std::{collections::BTreeMap, sync::Arc};

use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    App,
    answer::Json,
    asset::{AssetIndex, unknown_token},
    auth::Caller,
    error::{Failures, Problem},
    key::Scope,
    locator::Locator,
    page::{Page, Window},
    request::{Fields, Named, Params},
};
use crate::{
    chain::{AssetKey, ChainName, Kind},
    id::{TenantId, TransferId},
    model::{Asset, AssetNo, Cursor, Direction, Status, Transfer, Wallet},
    store::{
        Conn, StoreError, asset, chain,
        history::{self, TransferFilter},
    },
    view::{Seen, TransferView},
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
async fn meant(
    conn: &mut Conn<'_>,
    index: &AssetIndex,
    text: &str,
    wallet: &Wallet,
    unverified: bool,
    cursors: &[Cursor],
) -> Result<Vec<AssetNo>, Problem> {
    let named = index.named(text);
    let watched = |asset: &&&Asset| wallet.chains.iter().any(|on| on.chain == asset.chain);
    let mut assets: Vec<AssetNo> = named.iter().filter(watched).map(|asset| asset.no).collect();
    let mut known = !named.is_empty();
    if unverified && let Ok(contract) = wallet.family.parse_address(text) {
        known = true;
        let key = [AssetKey::Token(contract)];
        for cursor in cursors {
            if wallet.chains.iter().any(|on| on.chain == cursor.chain) {
                let found = asset::by_keys(conn, cursor.no, &key).await?;
                let found = found.into_iter().filter(|asset| asset.key == key[0]);
                assets.extend(found.map(|asset| asset.no));
            }
        }
    }
    if !known {
        return Err(unknown_token("asset", text));
    }
    assets.sort_unstable();
    assets.dedup();
    Ok(assets)
}

/// The assets of a page that are in no index: unverified ones, and those that left the configuration.
async fn unlisted(
    conn: &mut Conn<'_>,
    index: &AssetIndex,
    rows: &[Transfer],
) -> Result<BTreeMap<AssetNo, Asset>, Problem> {
    let missing = rows.iter().map(|row| row.asset).filter(|no| index.by_no(*no).is_none());
    let missing: Vec<AssetNo> = missing.collect();
    Ok(asset::by_numbers(conn, &missing).await?)
}

/// Transfers of a wallet
///
/// The newest blocks first. A page can have fewer transfers than asked for where a filter passes few: go on with
/// `nextCursor` until it is null.
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
    let filter = TransferFilter {
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
    let chain = params.chain.as_deref().map(|name| app.chain("chain", name).map(|c| &c.name));
    let query = &Query {
        locator,
        index: app.asset_index().await?,
        chain: chain.transpose()?,
        asset: params.asset,
        unverified,
        filter,
        window,
    };
    let read = app.reads.snapshot(|mut tx| async move { query.page(&mut tx.conn(), tenant).await });
    Ok(Json(read.await?))
}

/// What is asked for, checked as far as that goes without the store.
struct Query<'a> {
    locator: Locator,
    index: Arc<AssetIndex>,
    chain: Option<&'a ChainName>,
    asset: Option<String>,
    unverified: bool,
    filter: TransferFilter,
    window: Window,
}

impl Query<'_> {
    async fn page(
        &self,
        conn: &mut Conn<'_>,
        tenant: TenantId,
    ) -> Result<Page<TransferView>, Problem> {
        let Self { index, window, .. } = self;
        let mut filter = self.filter.clone();
        let wallet = self.locator.resolve(conn, tenant).await?;
        let cursors = chain::cursors(conn).await?;
        if let Some(name) = self.chain {
            let Some(cursor) = cursors.iter().find(|cursor| cursor.chain == *name) else {
                // A chain that has not begun has no transfers.
                return Ok(Page { data: Vec::new(), next_cursor: None });
            };
            filter.chain = Some(cursor.no);
        }
        if let Some(text) = &self.asset {
            let meant = meant(conn, index, text, &wallet, self.unverified, &cursors).await?;
            filter.assets = Some(meant);
        }
        let page = history::page(conn, wallet.no, &filter, window.limit()).await?;
        let unlisted = unlisted(conn, index, &page.transfers).await?;
        let address = wallet.family.format_address(&wallet.address);
        let seen = Seen { wallet: wallet.id, address: &address, family: wallet.family };
        let view = |row: &Transfer| {
            let asset = index.by_no(row.asset).or_else(|| unlisted.get(&row.asset));
            let asset = asset.ok_or_else(|| StoreError::corrupt("a transfer without its asset"))?;
            let head = cursors.iter().find(|cursor| cursor.no == row.no.chain());
            let head = head.map_or(row.block.number, |cursor| cursor.head.at.number);
            Ok(TransferView::new(row, seen, asset, head))
        };
        let data = page.transfers.iter().map(view).collect::<Result<_, StoreError>>()?;
        Ok(Page { data, next_cursor: page.next.map(|id| Window::cursor(id.0)) })
    }
}
