//! A wallet's history: pages of its transfers, each one index range however deep it lies.

use sqlx::AssertSqlSafe;

use super::{
    Conn, StoreError, on,
    transfer::{RawTransfer, TransferRow, transfer_columns},
};
use crate::{
    chain::{AssetKey, ChainName, Kind},
    clock::Millis,
    id::{TenantId, TransferId, WalletId},
    ledger::{Direction, Status},
};

/// Which transfers of a wallet; every condition that is set must hold.
#[derive(Clone, Debug, Default)]
pub struct TransferFilter {
    /// Any of these assets. `Some` and empty: none at all.
    pub assets: Option<Vec<(ChainName, AssetKey)>>,
    pub chain: Option<ChainName>,
    pub status: Option<Status>,
    pub direction: Option<Direction>,
    pub kind: Option<Kind>,
    /// The first block time that counts.
    pub from: Option<Millis>,
    /// The first block time that does not.
    pub to: Option<Millis>,
    /// Also those that are not in the balances: unverified assets and amounts of nothing.
    pub uncounted: bool,
    /// Only transfers that were seen before this one.
    pub before: Option<TransferId>,
}

/// A page of a wallet's transfers, the newest seen first.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn page(
    conn: &mut Conn<'_>,
    tenant: TenantId,
    wallet: WalletId,
    filter: &TransferFilter,
    limit: i64,
) -> Result<Vec<TransferRow>, StoreError> {
    const BOUND: usize = 10;
    let mut sql = concat!(
        "SELECT ",
        transfer_columns!(),
        " FROM transfer WHERE wallet_id = $1 AND tenant_id = $2",
    )
    .to_owned();
    let conditions = [
        (filter.chain.is_some(), " AND chain = $3"),
        (filter.status.is_some(), " AND status = $4"),
        (filter.direction.is_some(), " AND direction = $5"),
        (filter.kind.is_some(), " AND kind = $6"),
        (filter.from.is_some(), " AND block_time >= $7"),
        (filter.to.is_some(), " AND block_time < $8"),
        (filter.before.is_some(), " AND id < $9"),
        (!filter.uncounted, " AND counted"),
    ];
    for (_, condition) in conditions.iter().filter(|(set, _)| *set) {
        sql.push_str(condition);
    }
    let assets = filter.assets.as_deref().unwrap_or_default();
    if filter.assets.is_some() {
        let pairs: Vec<String> = (0..assets.len())
            .map(|n| format!("(chain = ${} AND asset = ${})", BOUND + 2 * n + 1, BOUND + 2 * n + 2))
            .collect();
        if pairs.is_empty() {
            return Ok(Vec::new());
        }
        sql.push_str(" AND (");
        sql.push_str(&pairs.join(" OR "));
        sql.push(')');
    }
    sql.push_str(" ORDER BY id DESC LIMIT $10");
    let rows: Vec<RawTransfer> = on!(conn, c => {
        let mut query = sqlx::query_as(AssertSqlSafe(sql))
            .bind(wallet)
            .bind(tenant)
            .bind(filter.chain.as_ref().map(ChainName::as_str))
            .bind(filter.status.map(Status::as_str))
            .bind(filter.direction.map(Direction::as_str))
            .bind(filter.kind.map(Kind::as_str))
            .bind(filter.from)
            .bind(filter.to)
            .bind(filter.before)
            .bind(limit);
        for (chain, asset) in assets {
            query = query.bind(chain.as_str()).bind(asset.as_bytes());
        }
        query.fetch_all(c).await
    })?;
    Ok(rows.into_iter().map(TransferRow::from).collect())
}
