//! `GET /v1/wallets/{locator}/balances/{asset}/explain`: why a balance is what it is, entry by entry.

use std::sync::Arc;

use alloy::primitives::U256;
use axum::extract::State;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{
    App,
    answer::Json,
    asset::AssetIndex,
    auth::Caller,
    balance::{AsOfView, block_view},
    error::{Code, Failures, Problem},
    key::Scope,
    locator::Locator,
    page::read_limit,
    past::{MOST, Watched, from_view, too_long},
    request::{Fields, Named, Params},
};
use crate::{
    amount::Amount,
    chain::{ChainName, Family, Kind},
    clock::Millis,
    id::{TenantId, TransferId},
    ledger::{
        explain::{Bookmark, Effect, Line, Place, Reader, Sum, Tally},
        past::{Coverage, Way},
    },
    model::{Asset, Reason, Transfer, Wallet},
    store::{
        Conn, StoreError, asset_opening, balance, chain,
        history::past::{self, Booked},
        transfer,
    },
    view::{AmountView, AssetView, BlockRefView, BlockView, PointView},
};

/// Transfers of a wallet in one part, and looked at for one page beside those that were shown.
const PART: i64 = 500;
const LOOKED_AT: i64 = 4_000;

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ReadParams {
    /// The chain that is meant, where the asset is on several on which the wallet is watched.
    #[param(example = "base")]
    chain: Option<String>,
    /// So many transfers with all their entries, 1 to 200; 50 if left out.
    limit: Option<String>,
    /// The nextCursor of the page before.
    cursor: Option<String>,
}

/// Why a balance is what it is.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Explanation)]
pub struct ExplanationView {
    #[schema(value_type = String)]
    pub wallet_id: crate::id::WalletId,
    pub address: String,
    pub chain: String,
    pub asset: AssetView,
    pub opening: OpeningView,
    pub entries: Vec<ExplainedView>,
    /// Give it as `cursor` to get the next page; null on the last one.
    pub next_cursor: Option<String>,
    /// What all entries add up to; null before the last page.
    pub total: Option<AmountView>,
    /// `total` of the balance at `asOf`; null before the last page.
    pub balance: Option<AmountView>,
    /// Whether the two are equal; null before the last page. If they are not, the books are wrong: `tidemark audit`
    /// shows where.
    pub agrees: Option<bool>,
    /// What the chain's own state said when it was last compared with the ledger and agreed; null until then. How it is
    /// shown to others: `GET /v1/wallets/{locator}/proof`.
    pub proof: Option<AgreementView>,
    pub as_of: AsOfView,
}

/// A figure of the chain's own that agreed with the ledger.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Agreement)]
pub struct AgreementView {
    /// The settled block after which it was held.
    pub block: PointView,
    pub figure: AmountView,
    /// When it was compared.
    #[schema(value_type = String, format = DateTime)]
    pub at: Millis,
}

/// What there was before the entries explain all. It is the first of the entries itself, where it is more than nothing.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Opening)]
pub struct OpeningView {
    /// The block whose state it was.
    pub block: PointView,
    pub amount: AmountView,
}

/// One entry of the ledger.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Explained)]
pub struct ExplainedView {
    /// The block of its transfer.
    pub block: BlockView,
    #[schema(value_type = String)]
    pub transfer_id: TransferId,
    /// Null for what belongs to no transaction.
    pub tx_hash: Option<String>,
    pub ordinal: String,
    /// As of a transfer: `transfer`, `fee`, `opening`, `adjustment`, …
    pub kind: &'static str,
    /// `in` or `out`.
    pub direction: &'static str,
    /// `connect` (its block came), `settle` (it settled), `connect_settled` (both at once), `disconnect` (its block
    /// vanished) or `disconnect_settled` (taken back after it had settled: an opening that older transfers explain, or a
    /// rewind by hand); `early` (a value tier made it available before its block settled) or `early_over` (no longer that: it
    /// settles or its block vanishes, as the next entry says). The last two change no sum.
    pub effect: &'static str,
    pub amount: AmountView,
    /// How the transfer stands now.
    pub status: &'static str,
    /// In a word, why it was booked or taken back, where no movement on the chain says so.
    pub reason: Option<&'static str>,
    /// Of an adjustment: the block whose state proved it; null where no node had that state, and for all others.
    pub proof: Option<BlockRefView>,
    /// When it was booked.
    #[schema(value_type = String, format = DateTime)]
    pub at: Millis,
    /// What the entries so far add up to, as far as they have settled, and in all. Null where transfers of a block that
    /// vanished would lead below zero.
    pub settled_after: Option<AmountView>,
    pub total_after: Option<AmountView>,
}

/// Why a balance is what it is
///
/// Every entry of the ledger that the balance is made of, in the order of the chain, with what they add up to so far:
/// the opening, what came and went, adjustments with what proved them, and what was taken back when blocks vanished.
/// Inside a block what came in is first. On the last page, what they add up to stands beside the balance.
///
/// A page can have fewer entries than asked for where other assets moved more: go on with `nextCursor` until it is
/// null. Blocks that come or vanish meanwhile are in the sums of the pages that are still to be read.
#[utoipa::path(get, path = "/v1/wallets/{locator}/balances/{asset}/explain", tag = "wallets",
    params(("locator" = String, Path, description = "wlt_…, an address, external:{id}, email:a@b.c:evm, …"),
        ("asset" = String, Path, description = "A symbol, a contract address, or a CAIP-19 id with %2F for its /"),
        ReadParams),
    responses((status = 200, body = ExplanationView), Failures),
    security(("apiKey" = []), ("bearer" = [])))]
pub(super) async fn read(
    State(app): State<Arc<App>>,
    caller: Caller,
    Named((locator, asset)): Named<(String, String)>,
    Params(params): Params<ReadParams>,
) -> Result<Json<ExplanationView>, Problem> {
    let tenant = caller.need(Scope::WalletsRead)?;
    let locator = Locator::parse(locator)?;
    let mut fields = Fields::default();
    let limit = read_limit(&mut fields, params.limit.as_deref());
    fields.finish()?;
    let chain = params.chain.as_deref().map(|name| app.chain("chain", name).map(|c| &c.name));
    let query = &Query {
        app: &app,
        locator,
        index: app.asset_index().await?,
        chain: chain.transpose()?,
        asset,
        limit,
        cursor: params.cursor,
    };
    let read = app.reads.snapshot(|mut tx| async move { query.page(&mut tx.conn(), tenant).await });
    Ok(Json(read.await?))
}

/// What is asked for, checked as far as that goes without the store.
struct Query<'a> {
    app: &'a App,
    locator: Locator,
    index: Arc<AssetIndex>,
    chain: Option<&'a ChainName>,
    asset: String,
    limit: i64,
    cursor: Option<String>,
}

impl Query<'_> {
    async fn page(
        &self,
        conn: &mut Conn<'_>,
        tenant: TenantId,
    ) -> Result<ExplanationView, Problem> {
        let wallet = self.locator.resolve(conn, tenant).await?;
        let cursors = chain::cursors(conn).await?;
        let watched = Watched::of(&wallet, &cursors);
        let (asset, on) = self.index.meant(&self.asset, self.chain, watched)?;
        let mark = match &self.cursor {
            Some(text) => read_cursor(text, &wallet, asset).ok_or_else(|| {
                let message = "must be a nextCursor of this list, or be left out";
                Problem::field(Code::InvalidRequest, "cursor", message)
            })?,
            None => Bookmark::default(),
        };
        let limit = usize::try_from(self.limit).unwrap_or(0);
        let mut reader = Reader::new(mark, limit, on.cursor.settled.time);
        let is_end = fill(conn, &wallet, asset, &mut reader).await?;
        let opening = opening(conn, &wallet, asset, &on).await?;
        let held = balance::of_wallets(conn, on.cursor.no, &[wallet.no]).await?;
        let position = held.get(&(wallet.no, asset.no)).map(|held| held.position);
        let balance = position.unwrap_or_default().total()?;
        let proof = agreement(conn, &wallet, asset, &on).await?;
        let sum = Some(reader.tally().total).filter(|_| is_end);
        let family = wallet.family;
        let entries = reader.lines.iter().flat_map(|line| views(line, asset, family)).collect();
        Ok(ExplanationView {
            wallet_id: wallet.id,
            address: family.format_address(&wallet.address),
            chain: asset.chain.to_string(),
            asset: asset.into(),
            opening,
            entries,
            next_cursor: (!is_end).then(|| write_cursor(reader.mark(), &wallet, asset)),
            total: sum.and_then(Sum::amount).map(|sum| AmountView::new(sum, asset)),
            balance: sum.map(|_| AmountView::new(balance, asset)),
            agrees: sum.map(|sum| sum.amount() == Some(balance)),
            proof,
            as_of: AsOfView {
                chain: asset.chain.to_string(),
                head: block_view(family, &on.cursor.head),
                settled: block_view(family, &on.cursor.settled),
                lag_seconds: self.app.lag_seconds(on.cursor.head.time),
                at: None,
            },
        })
    }
}

/// Reads on until the page is full, enough was looked at or the history ends, which it tells.
async fn fill(
    conn: &mut Conn<'_>,
    wallet: &Wallet,
    asset: &Asset,
    reader: &mut Reader,
) -> Result<bool, Problem> {
    let Bookmark { firm, shown, .. } = reader.mark();
    let moved = past::moved(conn, wallet.no, MOST).await?.ok_or_else(too_long)?;
    let moved: Vec<Transfer> =
        moved.into_iter().filter(|row| row.asset == asset.no && row.counted).collect();
    let mut from = firm.map(|firm| firm.time);
    let (mut looked, mut again) = (0, 0);
    loop {
        let span = past::span(conn, wallet.no, Way::Up, from, PART).await?;
        let mut rows = past::transfers(conn, wallet.no, asset.no, span).await?;
        let here = |row: &&Transfer| {
            let time = Place::of(row).time;
            span.first <= time && time <= span.last
        };
        rows.extend(moved.iter().filter(here).cloned());
        rows.retain(|row| reader.is_ahead(Place::of(row)));
        rows.sort_by_cached_key(Place::of);
        let entries = past::entries(conn, &rows).await?;
        for row in rows {
            let own = entries.partition_point(|entry| entry.transfer < row.no);
            let own = entries[own..].iter().take_while(|entry| entry.transfer == row.no);
            let own: Vec<_> = own.map(|Booked { kind, at, .. }| (*kind, *at)).collect();
            if !reader.take(row, &own) {
                return Ok(false);
            }
        }
        if span.is_end {
            return Ok(true);
        }
        reader.passed(Place::behind(span.last));
        if shown.is_some_and(|shown| span.last <= shown.time) {
            again += PART;
        } else {
            looked += PART;
        }
        if again > MOST {
            return Err(too_long());
        }
        if looked >= LOOKED_AT {
            return Ok(false);
        }
        from = Some(span.next(Way::Up));
    }
}

/// The balance with which the explanation begins.
async fn opening(
    conn: &mut Conn<'_>,
    wallet: &Wallet,
    asset: &Asset,
    on: &Watched,
) -> Result<OpeningView, Problem> {
    let mut openings = transfer::openings(conn, on.cursor.no, &[wallet.no]).await?;
    openings.retain(|row| row.asset == asset.no);
    let first = openings.iter().map(|row| row.block.number).min();
    openings.retain(|row| Some(row.block.number) == first);
    let sum = openings.iter().try_fold(Amount::ZERO, |sum, row| sum.checked_add(row.amount));
    let sum = sum.ok_or_else(|| Problem::internal("openings exceed 256 bits"))?;
    let block = if let Some(row) = openings.first() {
        PointView {
            number: Some(row.block.number),
            hash: Some(wallet.family.format_block_hash(&row.block.hash)),
            time: Some(row.block_time),
        }
    } else {
        let listed = asset_opening::of_wallet(conn, wallet.no).await?;
        let coverage: Option<Coverage> = on.coverage(asset, wallet.no, &listed);
        coverage.map(from_view).unwrap_or_default()
    };
    Ok(OpeningView { block, amount: AmountView::new(sum, asset) })
}

/// The newest comparison with the chain's own state that agreed.
async fn agreement(
    conn: &mut Conn<'_>,
    wallet: &Wallet,
    asset: &Asset,
    on: &Watched,
) -> Result<Option<AgreementView>, StoreError> {
    let settled = on.cursor.settled.at.number;
    let found = balance::agreement(conn, wallet.no, asset.no).await?;
    // After a rewind the block may be ahead, and may be another one by then.
    let Some(found) = found.filter(|found| found.block <= settled) else { return Ok(None) };
    let point = chain::block_at_or_below(conn, on.cursor.no, found.block).await?;
    let point = point.filter(|point| point.at.number == found.block);
    let block = PointView {
        number: Some(found.block),
        hash: point.map(|point| wallet.family.format_block_hash(&point.at.hash)),
        time: point.map(|point| point.time),
    };
    Ok(Some(AgreementView { block, figure: AmountView::new(found.figure, asset), at: found.at }))
}

fn views(line: &Line, asset: &Asset, family: Family) -> Vec<ExplainedView> {
    let row = &line.transfer;
    let after = |sum: Sum| sum.amount().map(|sum| AmountView::new(sum, asset));
    let block = BlockView {
        number: row.block.number,
        hash: family.format_block_hash(&row.block.hash),
        time: row.block_time,
    };
    let is_proven =
        row.kind == Kind::Adjustment && row.reason != Some(Reason::UntracedCreditAtLeast);
    let proof = is_proven.then(|| BlockRefView { number: block.number, hash: block.hash.clone() });
    let view = |effect: &Effect| ExplainedView {
        block: block.clone(),
        transfer_id: row.id,
        tx_hash: row.has_transaction().then(|| family.format_tx(&row.tx)),
        ordinal: row.ordinal.to_string(),
        kind: row.kind.as_str(),
        direction: row.direction.as_str(),
        effect: effect.kind.as_str(),
        amount: AmountView::new(row.amount, asset),
        status: row.status.as_str(),
        reason: row.reason.map(Reason::as_str),
        proof: proof.clone(),
        at: effect.at,
        settled_after: after(effect.after.settled),
        total_after: after(effect.after.total),
    };
    line.effects.iter().map(view).collect()
}

/// A mark as a text that only this list takes. Nothing is trusted to it but the sums of who sends it.
fn write_cursor(mark: Bookmark, wallet: &Wallet, asset: &Asset) -> String {
    let Bookmark { tally, firm, shown } = mark;
    let mut bytes = Vec::with_capacity(168);
    for sum in [tally.settled, tally.total] {
        bytes.extend_from_slice(&sum.low.to_be_bytes::<32>());
        bytes.extend_from_slice(&sum.high.to_be_bytes());
    }
    for place in [firm, shown] {
        bytes.push(u8::from(place.is_some()));
        if let Some(Place { time, block, is_out, id, connection }) = place {
            bytes.extend_from_slice(&time.0.to_be_bytes());
            bytes.extend_from_slice(&block.to_be_bytes());
            bytes.push(u8::from(is_out));
            bytes.extend_from_slice(id.0.as_bytes());
            bytes.extend_from_slice(&connection.to_be_bytes());
        }
    }
    bytes.extend_from_slice(&tag(&bytes, wallet, asset));
    URL_SAFE_NO_PAD.encode(bytes)
}

fn read_cursor(text: &str, wallet: &Wallet, asset: &Asset) -> Option<Bookmark> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let (bytes, own) = bytes.split_at_checked(bytes.len().checked_sub(TAG)?)?;
    if own != tag(bytes, wallet, asset) {
        return None;
    }
    let mut bytes = Bytes(bytes);
    let tally = Tally { settled: bytes.sum()?, total: bytes.sum()? };
    let (mut firm, mut shown) = (None, None);
    bytes.place(&mut firm)?;
    bytes.place(&mut shown)?;
    bytes.0.is_empty().then_some(Bookmark { tally, firm, shown })
}

const TAG: usize = 4;

/// What a cursor of another list does not end with.
fn tag(bytes: &[u8], wallet: &Wallet, asset: &Asset) -> [u8; TAG] {
    let mut digest = Sha256::new();
    digest.update(wallet.id.0.as_bytes());
    digest.update(asset.caip19.as_bytes());
    digest.update(bytes);
    let digest: [u8; 32] = digest.finalize().into();
    [digest[0], digest[1], digest[2], digest[3]]
}

struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn sum(&mut self) -> Option<Sum> {
        Some(Sum {
            low: U256::from_be_bytes(self.take::<32>()?),
            high: i64::from_be_bytes(self.take()?),
        })
    }

    /// Reads a place, if there is one; `None` if the bytes end before it does.
    fn place(&mut self, place: &mut Option<Place>) -> Option<()> {
        if self.take()? != [0] {
            *place = Some(Place {
                time: Millis(i64::from_be_bytes(self.take()?)),
                block: u64::from_be_bytes(self.take()?),
                is_out: self.take()? != [0],
                id: TransferId(Uuid::from_bytes(self.take()?)),
                connection: u32::from_be_bytes(self.take()?),
            });
        }
        Some(())
    }
}
