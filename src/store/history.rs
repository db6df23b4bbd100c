//! A wallet's history: pages of its transfers, by block time, however deep they lie.

pub mod past;
mod row;

use sqlx::AssertSqlSafe;

use self::row::{Listed, select_listed};
use super::{
    Conn, StoreError,
    code::{self, REPLACED},
    on,
    set::{Ints, sets},
};
use crate::{
    chain::Kind,
    clock::Millis,
    id::TransferId,
    model::{AssetNo, ChainNo, Direction, Status, Transfer, WalletNo},
};

/// Rows of a wallet looked at for one page. A filter that few of them pass ends the page early, with the
/// place to go on from: a page never costs more, however long the history.
const LOOKED_AT: i64 = 1_000;

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

    /// What a transfer must fulfil. Words stand in the text as their numbers: with a bound one SQLite would
    /// prepare the statement anew each time, to see whether an index holds just those rows. `+`: no other index
    /// than the wallet's own is wanted.
    fn conditions(&self, sql: &mut String) {
        let mut and = |condition: &str| {
            sql.push_str(" AND ");
            sql.push_str(condition);
        };
        match self.status {
            Some(status) => and(&format!("status = {}", code::status(status))),
            None => and(&format!("status <> {REPLACED}")),
        }
        if let Some(direction) = self.direction {
            and(&format!("direction = {}", code::direction(direction)));
        }
        if let Some(kind) = self.kind {
            and(&format!("kind = {}", code::kind(kind)));
        }
        if self.assets.is_some() {
            and("asset_no IN ints($5)");
        }
        if self.chain.is_some() {
            and("+chain_no = $6");
        }
        if self.from.is_some() {
            and("block_time >= $7");
        }
        if self.to.is_some() {
            and("block_time < $8");
        }
        if !self.uncounted {
            and("counted");
        }
    }

    /// What the wallet's indexes walk through, newest first: everything, or the few transfers that are not settled.
    fn walk(&self, sql: &mut String, before: Option<TransferId>) {
        if matches!(self.status, Some(Status::Pending | Status::Orphaned)) {
            sql.push_str(" AND status <> 0");
        }
        if before.is_some() {
            sql.push_str(" AND id < $2");
        }
    }
}

/// A page of a wallet's transfers, the newest blocks first. `conn` is in a transaction.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn page(
    conn: &mut Conn<'_>,
    wallet: WalletNo,
    filter: &TransferFilter,
    limit: i64,
) -> Result<HistoryPage, StoreError> {
    let mut page = HistoryPage { transfers: Vec::new(), next: filter.before };
    let wanted = usize::try_from(limit).unwrap_or(0);
    if filter.assets.as_ref().is_some_and(Vec::is_empty) || wanted == 0 {
        return Ok(HistoryPage { next: None, ..page });
    }
    keep_order(conn).await?;
    // Most filters pass many: little more than the page shows is looked at first. Where nearly all pass, one row
    // more, to know whether the history goes on.
    let mut rows = if filter.is_wide() { limit + 1 } else { 2 * limit }.min(LOOKED_AT);
    let mut left = LOOKED_AT;
    loop {
        left -= rows;
        let before = page.next;
        page.next = last_of(conn, wallet, filter, before, rows).await?;
        let missing = limit + 1 - i64::try_from(page.transfers.len()).unwrap_or(limit);
        let found = taken(conn, wallet, filter, before, page.next, missing).await?;
        page.transfers.extend(found);
        if page.transfers.len() > wanted {
            page.transfers.truncate(wanted);
            let next = page.transfers.last().map(|transfer| transfer.id);
            return Ok(HistoryPage { next, ..page });
        }
        if page.next.is_none() || left == 0 {
            return Ok(page);
        }
        rows = left;
    }
}

/// By what wallets have on average, PostgreSQL would fetch and sort all transfers of one that has far more, for
/// every page. The indexes have the order.
async fn keep_order(conn: &mut Conn<'_>) -> Result<(), StoreError> {
    if let Conn::Postgres(c) = conn {
        sqlx::raw_sql("SET LOCAL enable_sort = off").execute(&mut **c).await?;
    }
    Ok(())
}

/// The id of the last one of so many rows; `None` if the history ends before.
async fn last_of(
    conn: &mut Conn<'_>,
    wallet: WalletNo,
    filter: &TransferFilter,
    before: Option<TransferId>,
    rows: i64,
) -> Result<Option<TransferId>, StoreError> {
    let mut sql = "SELECT id FROM transfer WHERE wallet_no = $1".to_owned();
    filter.walk(&mut sql, before);
    sql.push_str(" ORDER BY id DESC LIMIT 1 OFFSET $3 - 1");
    Ok(on!(conn, c => sqlx::query_scalar(AssertSqlSafe(sql))
        .bind(wallet.0)
        .bind(before)
        .bind(rows)
        .fetch_optional(c)
        .await)?)
}

/// The first transfers that the filter takes, down to the row `last`.
async fn taken(
    conn: &mut Conn<'_>,
    wallet: WalletNo,
    filter: &TransferFilter,
    before: Option<TransferId>,
    last: Option<TransferId>,
    limit: i64,
) -> Result<Vec<Transfer>, StoreError> {
    let mut sql = select_listed!("WHERE wallet_no = $1").to_owned();
    filter.walk(&mut sql, before);
    if last.is_some() {
        sql.push_str(" AND id >= $3");
    }
    filter.conditions(&mut sql);
    sql.push_str(" ORDER BY id DESC LIMIT $4 + 0");
    let sql = sets(conn, &sql);
    let assets = Ints::of(filter.assets.iter().flatten().map(|asset| asset.0));
    let rows: Vec<Listed> = on!(conn, c => sqlx::query_as(sql)
        .bind(wallet.0)
        .bind(before)
        .bind(last)
        .bind(limit)
        .bind(&assets)
        .bind(filter.chain.map(|chain| chain.0))
        .bind(filter.from)
        .bind(filter.to)
        .fetch_all(c)
        .await)?;
    rows.into_iter().map(|row| row.transfer(wallet)).collect()
}

#[cfg(test)]
mod tests;
