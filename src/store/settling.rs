//! What settles next, and in which pieces blocks settle or are taken back.

use sqlx::FromRow;

use super::{Conn, StoreError, chain::number, on};
use crate::{
    chain::{Address, AssetKey, BlockHash, BlockRef},
    id::WalletId,
    model::{AssetNo, BalanceRef, ChainNo, TenantNo, WalletNo},
};

#[derive(FromRow)]
struct RawSettling {
    wallet_no: i64,
    tenant_no: i64,
    wallet_id: WalletId,
    #[sqlx(try_from = "Vec<u8>")]
    address: Address,
    #[sqlx(try_from = "i64")]
    opened_number: u64,
    asset_no: i64,
    #[sqlx(try_from = "Vec<u8>")]
    asset: AssetKey,
}

/// The balances whose settled part changes when the blocks up to `upto` settle, of watches that are open and
/// began there or before: below its beginning a watch does not know the whole balance.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn balances(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    upto: u64,
    limit: i64,
) -> Result<Vec<BalanceRef>, StoreError> {
    // `+`: by its chain alone, SQLite would read every watch of it for each transfer. How far a watch reaches
    // back is judged here for the same reason.
    let rows: Vec<RawSettling> = on!(conn, c => sqlx::query_as(
        "SELECT DISTINCT w.wallet_no, w.tenant_no, v.id AS wallet_id, w.address, w.opened_number,
                t.asset_no, a.asset
         FROM transfer t
         JOIN watch w ON w.wallet_no = t.wallet_no AND +w.chain_no = t.chain_no
         JOIN wallet v ON v.no = w.wallet_no
         JOIN asset a ON a.no = t.asset_no AND a.verified
         WHERE t.chain_no = $1 AND t.status = 1 AND t.block_number <= $2 AND t.counted AND w.status + 0 = 1
         ORDER BY w.address, w.wallet_no, t.asset_no LIMIT $3 + 0",
    )
    .bind(chain.0)
    .bind(number(upto)?)
    .bind(limit)
    .fetch_all(c)
    .await)?;
    let balance = |row: RawSettling| BalanceRef {
        wallet: WalletNo(row.wallet_no),
        tenant: TenantNo(row.tenant_no),
        wallet_id: row.wallet_id,
        address: row.address,
        asset: AssetNo(row.asset_no),
        key: row.asset,
    };
    Ok(rows.into_iter().filter(|row| row.opened_number <= upto).map(balance).collect())
}

/// The block of the first pending transfer behind the first `count` of those up to `upto`.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn block_behind(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    upto: u64,
    count: i64,
) -> Result<Option<u64>, StoreError> {
    let block: Option<i64> = on!(conn, c => sqlx::query_scalar(
        "SELECT block_number FROM transfer WHERE chain_no = $1 AND status = 1 AND block_number <= $2
         ORDER BY block_number LIMIT 1 OFFSET $3",
    )
    .bind(chain.0)
    .bind(number(upto)?)
    .bind(count)
    .fetch_optional(c)
    .await)?;
    Ok(block.and_then(|block| u64::try_from(block).ok()))
}

/// The block of the first pending transfer before the last `count` of those above `above`.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn block_before(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    above: u64,
    count: i64,
) -> Result<Option<u64>, StoreError> {
    let block: Option<i64> = on!(conn, c => sqlx::query_scalar(
        "SELECT block_number FROM transfer WHERE chain_no = $1 AND status = 1 AND block_number > $2
         ORDER BY block_number DESC LIMIT 1 OFFSET $3",
    )
    .bind(chain.0)
    .bind(number(above)?)
    .bind(count)
    .fetch_optional(c)
    .await)?;
    Ok(block.and_then(|block| u64::try_from(block).ok()))
}

#[derive(FromRow)]
struct RawBlock {
    #[sqlx(try_from = "i64")]
    number: u64,
    #[sqlx(try_from = "Vec<u8>")]
    hash: BlockHash,
}

/// The newest block at or below `upto` that holds a transfer which was not taken back: only for a rewind by
/// hand, it reads all of the chain's transfers.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn newest_block(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    upto: u64,
) -> Result<Option<BlockRef>, StoreError> {
    let row: Option<RawBlock> = on!(conn, c => sqlx::query_as(
        "SELECT block_number AS number, block_hash AS hash FROM transfer
         WHERE chain_no = $1 AND status IN (0, 1) AND block_number <= $2
         ORDER BY block_number DESC LIMIT 1",
    )
    .bind(chain.0)
    .bind(number(upto)?)
    .fetch_optional(c)
    .await)?;
    Ok(row.map(|row| BlockRef { number: row.number, hash: row.hash }))
}
