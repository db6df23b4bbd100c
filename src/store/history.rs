//! A wallet's history: pages of its transfers, by block time, however deep they lie.

use sqlx::AssertSqlSafe;

use super::{
    Conn, StoreError, code, on,
    transfer::{RawTransfer, select_transfer},
};
use crate::{
    chain::Kind,
    clock::Millis,
    id::TransferId,
    model::{AssetNo, ChainNo, Direction, Status, Transfer, WalletNo},
};

/// Rows of a wallet looked at for one page. A filter that few of them pass ends the page early, with the place
/// to go on from: a page never costs more, however long the history.
const LOOKED_AT: i64 = 2_000;

/// Which transfers of a wallet; every condition that is set must hold.
#[derive(Clone, Debug, Default)]
pub struct TransferFilter {
    /// Any of these assets. `Some` and empty: none at all.
    pub assets: Option<Vec<AssetNo>>,
    pub chain: Option<ChainNo>,
    pub status: Option<Status>,
    pub direction: Option<Direction>,
    pub kind: Option<Kind>,
    /// The first block time that counts.
    pub from: Option<Millis>,
    /// The first block time that does not.
    pub to: Option<Millis>,
    /// Also those that are not in the balances: unverified assets and amounts of nothing.
    pub uncounted: bool,
    /// Only transfers below this one in the order.
    pub before: Option<TransferId>,
}

/// A part of a history.
#[derive(Clone, Debug)]
pub struct HistoryPage {
    pub transfers: Vec<Transfer>,
    /// The last one looked at, where the history goes on; `None` at its end.
    pub next: Option<TransferId>,
}

impl TransferFilter {
    fn takes(&self, transfer: &Transfer) -> bool {
        let is = |asset: &Vec<AssetNo>| asset.contains(&transfer.asset);
        self.assets.as_ref().is_none_or(is)
            && self.chain.is_none_or(|chain| transfer.no.chain() == chain)
            && self.status.is_none_or(|status| transfer.status == status)
            && self.direction.is_none_or(|direction| transfer.direction == direction)
            && self.kind.is_none_or(|kind| transfer.kind == kind)
            && self.from.is_none_or(|from| transfer.block_time >= from)
            && self.to.is_none_or(|to| transfer.block_time < to)
            && (self.uncounted || transfer.counted)
    }

    /// Whether nearly all transfers of a wallet pass.
    fn is_wide(&self) -> bool {
        let Self { assets, chain, status, direction, kind, from, to, .. } = self;
        assets.is_none()
            && chain.is_none()
            && status.is_none_or(|status| status == Status::Settled)
            && direction.is_none()
            && kind.is_none()
            && from.is_none()
            && to.is_none()
    }
}

/// A page of a wallet's transfers, the newest blocks first.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn page(
    conn: &mut Conn<'_>,
    wallet: WalletNo,
    filter: &TransferFilter,
    limit: i64,
) -> Result<HistoryPage, StoreError> {
    let wanted = usize::try_from(limit).unwrap_or(0);
    if filter.assets.as_ref().is_some_and(Vec::is_empty) || wanted == 0 {
        return Ok(HistoryPage { transfers: Vec::new(), next: None });
    }
    let mut page = HistoryPage { transfers: Vec::new(), next: filter.before };
    let mut looked_at = 0;
    // A wide filter needs little more than a page; a narrow one looks at more rows at once.
    let mut batch = if filter.is_wide() { limit + 1 } else { 4 * limit };
    while looked_at < LOOKED_AT {
        batch = batch.min(LOOKED_AT - looked_at);
        let rows = read(conn, wallet, filter, page.next, batch).await?;
        let full = i64::try_from(rows.len()).is_ok_and(|count| count == batch);
        for row in rows {
            looked_at += 1;
            let transfer = Transfer::try_from(row)?;
            let id = transfer.id;
            if filter.takes(&transfer) {
                if page.transfers.len() == wanted {
                    return Ok(page);
                }
                page.transfers.push(transfer);
            }
            page.next = Some(id);
        }
        if !full {
            return Ok(HistoryPage { next: None, ..page });
        }
        batch *= 4;
    }
    Ok(page)
}

async fn read(
    conn: &mut Conn<'_>,
    wallet: WalletNo,
    filter: &TransferFilter,
    before: Option<TransferId>,
    limit: i64,
) -> Result<Vec<RawTransfer>, StoreError> {
    let mut sql = select_transfer!("WHERE wallet_no = $1").to_owned();
    // These have an index of their own: few transfers stand so.
    match filter.status {
        Some(Status::Pending | Status::Orphaned) => {
            sql.push_str(" AND status <> 0 AND status = $4");
        }
        Some(Status::Settled) | None => sql.push_str(" AND status <> 3"),
    }
    if before.is_some() {
        sql.push_str(" AND id < $2");
    }
    sql.push_str(" ORDER BY id DESC LIMIT $3");
    Ok(on!(conn, c => sqlx::query_as(AssertSqlSafe(sql))
        .bind(wallet.0)
        .bind(before)
        .bind(limit)
        .bind(filter.status.map(code::status))
        .fetch_all(c)
        .await)?)
}
