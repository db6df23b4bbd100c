//! Where each chain stands: cursor, recent blocks, assets.

use sqlx::FromRow;

use super::{Conn, StoreError, on};
use crate::{
    chain::{AssetKey, BlockHash, BlockRef, ChainName, Family, Header},
    clock::Millis,
};

/// A block and its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockPoint {
    pub at: BlockRef,
    pub time: Millis,
}

impl From<&Header> for BlockPoint {
    fn from(header: &Header) -> Self {
        Self { at: header.at, time: Millis::from_seconds(header.time) }
    }
}

/// How far a chain is applied and settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    pub chain: ChainName,
    pub family: Family,
    pub caip2: String,
    pub head: BlockPoint,
    pub settled: BlockPoint,
    /// Why the chain stands still until a person acts.
    pub halted: Option<String>,
}

#[derive(FromRow)]
struct CursorRow {
    #[sqlx(try_from = "String")]
    chain: ChainName,
    #[sqlx(try_from = "String")]
    family: Family,
    caip2: String,
    #[sqlx(try_from = "i64")]
    head_number: u64,
    #[sqlx(try_from = "Vec<u8>")]
    head_hash: BlockHash,
    head_time: Millis,
    #[sqlx(try_from = "i64")]
    settled_number: u64,
    #[sqlx(try_from = "Vec<u8>")]
    settled_hash: BlockHash,
    settled_time: Millis,
    halted: Option<String>,
}

impl From<CursorRow> for Cursor {
    fn from(row: CursorRow) -> Self {
        let at = |number, hash| BlockRef { number, hash };
        Self {
            chain: row.chain,
            family: row.family,
            caip2: row.caip2,
            head: BlockPoint { at: at(row.head_number, row.head_hash), time: row.head_time },
            settled: BlockPoint {
                at: at(row.settled_number, row.settled_hash),
                time: row.settled_time,
            },
            halted: row.halted,
        }
    }
}

/// A block number as the store holds it.
///
/// # Errors
/// [`StoreError::Corrupt`] past 2^63, which no chain reaches.
pub fn number(value: u64) -> Result<i64, StoreError> {
    i64::try_from(value).map_err(StoreError::corrupt)
}

/// # Errors
/// [`StoreError`] of the engine.
pub async fn cursor(conn: &mut Conn<'_>, chain: &ChainName) -> Result<Option<Cursor>, StoreError> {
    let row: Option<CursorRow> = on!(conn, c => sqlx::query_as(
        "SELECT chain, family, caip2, head_number, head_hash, head_time,
                settled_number, settled_hash, settled_time, halted
         FROM chain_cursor WHERE chain = $1",
    )
    .bind(chain.as_str())
    .fetch_optional(c)
    .await)?;
    Ok(row.map(Cursor::from))
}

/// # Errors
/// [`StoreError`] of the engine.
pub async fn cursors(conn: &mut Conn<'_>) -> Result<Vec<Cursor>, StoreError> {
    let rows: Vec<CursorRow> = on!(conn, c => sqlx::query_as(
        "SELECT chain, family, caip2, head_number, head_hash, head_time,
                settled_number, settled_hash, settled_time, halted
         FROM chain_cursor ORDER BY chain",
    )
    .fetch_all(c)
    .await)?;
    Ok(rows.into_iter().map(Cursor::from).collect())
}

/// Begins a chain at `cursor`; `false` if another process has begun it already.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn insert_cursor(
    conn: &mut Conn<'_>,
    cursor: &Cursor,
    now: Millis,
) -> Result<bool, StoreError> {
    let changed = on!(conn, c => sqlx::query(
        "INSERT INTO chain_cursor (chain, family, caip2, head_number, head_hash, head_time,
                                   settled_number, settled_hash, settled_time, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (chain) DO NOTHING",
    )
    .bind(cursor.chain.as_str())
    .bind(cursor.family.as_str())
    .bind(&cursor.caip2)
    .bind(number(cursor.head.at.number)?)
    .bind(&cursor.head.at.hash.0[..])
    .bind(cursor.head.time)
    .bind(number(cursor.settled.at.number)?)
    .bind(&cursor.settled.at.hash.0[..])
    .bind(cursor.settled.time)
    .bind(now)
    .execute(c)
    .await
    .map(|done| done.rows_affected()))?;
    Ok(changed == 1)
}

/// Moves head and settled block to those of `next`, if both still are those of `from`: the guard against a
/// second writer, and against a commit whose outcome was not learned. `false` means that nothing was changed
/// and the caller must read the cursor again.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn move_cursor(
    conn: &mut Conn<'_>,
    from: &Cursor,
    next: &Cursor,
    now: Millis,
) -> Result<bool, StoreError> {
    let Cursor { head, settled, .. } = next;
    let changed = on!(conn, c => sqlx::query(
        "UPDATE chain_cursor
         SET head_number = $6, head_hash = $7, head_time = $8,
             settled_number = $9, settled_hash = $10, settled_time = $11, updated_at = $12
         WHERE chain = $1 AND head_number = $2 AND head_hash = $3
           AND settled_number = $4 AND settled_hash = $5 AND halted IS NULL",
    )
    .bind(from.chain.as_str())
    .bind(number(from.head.at.number)?)
    .bind(&from.head.at.hash.0[..])
    .bind(number(from.settled.at.number)?)
    .bind(&from.settled.at.hash.0[..])
    .bind(number(head.at.number)?)
    .bind(&head.at.hash.0[..])
    .bind(head.time)
    .bind(number(settled.at.number)?)
    .bind(&settled.at.hash.0[..])
    .bind(settled.time)
    .bind(now)
    .execute(c)
    .await
    .map(|done| done.rows_affected()))?;
    Ok(changed == 1)
}

/// Stops a chain with a reason, or (`None`) lets it go on.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn set_halted(
    conn: &mut Conn<'_>,
    chain: &ChainName,
    reason: Option<&str>,
    now: Millis,
) -> Result<(), StoreError> {
    on!(conn, c => sqlx::query(
        "UPDATE chain_cursor SET halted = $2, updated_at = $3 WHERE chain = $1",
    )
    .bind(chain.as_str())
    .bind(reason)
    .bind(now)
    .execute(c)
    .await
    .map(|_| ()))?;
    Ok(())
}

#[derive(FromRow)]
struct BlockRow {
    #[sqlx(try_from = "i64")]
    number: u64,
    #[sqlx(try_from = "Vec<u8>")]
    hash: BlockHash,
    time: Millis,
}

impl From<BlockRow> for BlockPoint {
    fn from(row: BlockRow) -> Self {
        Self { at: BlockRef { number: row.number, hash: row.hash }, time: row.time }
    }
}

/// Remembers applied blocks, so that a reorg finds the way back.
///
/// # Errors
/// [`StoreError::Constraint`] if a height is taken: the caller skipped a rollback.
pub async fn insert_block(
    conn: &mut Conn<'_>,
    chain: &ChainName,
    header: &Header,
) -> Result<(), StoreError> {
    on!(conn, c => sqlx::query(
        "INSERT INTO block (chain, number, hash, parent_number, parent_hash, time)
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(chain.as_str())
    .bind(number(header.at.number)?)
    .bind(&header.at.hash.0[..])
    .bind(number(header.parent.number)?)
    .bind(&header.parent.hash.0[..])
    .bind(Millis::from_seconds(header.time))
    .execute(c)
    .await
    .map(|_| ()))?;
    Ok(())
}

/// The newest remembered block at or below `at`.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn block_at_or_below(
    conn: &mut Conn<'_>,
    chain: &ChainName,
    at: u64,
) -> Result<Option<BlockPoint>, StoreError> {
    let row: Option<BlockRow> = on!(conn, c => sqlx::query_as(
        "SELECT number, hash, time FROM block WHERE chain = $1 AND number <= $2
         ORDER BY number DESC LIMIT 1",
    )
    .bind(chain.as_str())
    .bind(number(at)?)
    .fetch_optional(c)
    .await)?;
    Ok(row.map(BlockPoint::from))
}

/// The remembered blocks from `from` up, ascending.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn blocks_from(
    conn: &mut Conn<'_>,
    chain: &ChainName,
    from: u64,
) -> Result<Vec<BlockPoint>, StoreError> {
    let rows: Vec<BlockRow> = on!(conn, c => sqlx::query_as(
        "SELECT number, hash, time FROM block WHERE chain = $1 AND number >= $2 ORDER BY number",
    )
    .bind(chain.as_str())
    .bind(number(from)?)
    .fetch_all(c)
    .await)?;
    Ok(rows.into_iter().map(BlockPoint::from).collect())
}

/// Forgets the blocks above `fork` (a rollback).
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn delete_blocks_above(
    conn: &mut Conn<'_>,
    chain: &ChainName,
    fork: u64,
) -> Result<(), StoreError> {
    on!(conn, c => sqlx::query("DELETE FROM block WHERE chain = $1 AND number > $2")
        .bind(chain.as_str())
        .bind(number(fork)?)
        .execute(c)
        .await
        .map(|_| ()))?;
    Ok(())
}

/// Forgets the blocks below `floor`, which no reorg can reach.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn delete_blocks_below(
    conn: &mut Conn<'_>,
    chain: &ChainName,
    floor: u64,
) -> Result<(), StoreError> {
    on!(conn, c => sqlx::query("DELETE FROM block WHERE chain = $1 AND number < $2")
        .bind(chain.as_str())
        .bind(number(floor)?)
        .execute(c)
        .await
        .map(|_| ()))?;
    Ok(())
}

/// An asset on one chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssetRow {
    pub chain: ChainName,
    pub key: AssetKey,
    pub caip19: String,
    pub symbol: Option<String>,
    pub name: Option<String>,
    pub decimals: Option<u8>,
    pub verified: bool,
}

#[derive(FromRow)]
struct RawAsset {
    #[sqlx(try_from = "String")]
    chain: ChainName,
    #[sqlx(try_from = "Vec<u8>")]
    asset: AssetKey,
    caip19: String,
    symbol: Option<String>,
    name: Option<String>,
    decimals: Option<i32>,
    verified: bool,
}

impl From<RawAsset> for AssetRow {
    fn from(row: RawAsset) -> Self {
        Self {
            chain: row.chain,
            key: row.asset,
            caip19: row.caip19,
            symbol: row.symbol,
            name: row.name,
            decimals: row.decimals.and_then(|decimals| u8::try_from(decimals).ok()),
            verified: row.verified,
        }
    }
}

/// Writes what the configuration says of an asset over what the store has.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn upsert_asset(
    conn: &mut Conn<'_>,
    asset: &AssetRow,
    now: Millis,
) -> Result<(), StoreError> {
    on!(conn, c => sqlx::query(
        "INSERT INTO asset (chain, asset, caip19, symbol, name, decimals, verified, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8)
         ON CONFLICT (chain, asset) DO UPDATE
         SET caip19 = excluded.caip19, symbol = excluded.symbol, name = excluded.name,
             decimals = excluded.decimals, verified = excluded.verified, updated_at = excluded.updated_at",
    )
    .bind(asset.chain.as_str())
    .bind(asset.key.as_bytes())
    .bind(&asset.caip19)
    .bind(&asset.symbol)
    .bind(&asset.name)
    .bind(asset.decimals.map(i32::from))
    .bind(asset.verified)
    .bind(now)
    .execute(c)
    .await
    .map(|_| ()))?;
    Ok(())
}

/// Records an asset that nobody configured, once.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn insert_unverified_asset(
    conn: &mut Conn<'_>,
    asset: &AssetRow,
    now: Millis,
) -> Result<(), StoreError> {
    on!(conn, c => sqlx::query(
        "INSERT INTO asset (chain, asset, caip19, verified, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $5) ON CONFLICT (chain, asset) DO NOTHING",
    )
    .bind(asset.chain.as_str())
    .bind(asset.key.as_bytes())
    .bind(&asset.caip19)
    .bind(false)
    .bind(now)
    .execute(c)
    .await
    .map(|_| ()))?;
    Ok(())
}

/// # Errors
/// [`StoreError`] of the engine.
pub async fn asset(
    conn: &mut Conn<'_>,
    chain: &ChainName,
    key: &AssetKey,
) -> Result<Option<AssetRow>, StoreError> {
    let row: Option<RawAsset> = on!(conn, c => sqlx::query_as(
        "SELECT chain, asset, caip19, symbol, name, decimals, verified
         FROM asset WHERE chain = $1 AND asset = $2",
    )
    .bind(chain.as_str())
    .bind(key.as_bytes())
    .fetch_optional(c)
    .await)?;
    Ok(row.map(AssetRow::from))
}

/// All verified assets, by chain and contract, the native coin first.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn verified_assets(conn: &mut Conn<'_>) -> Result<Vec<AssetRow>, StoreError> {
    let rows: Vec<RawAsset> = on!(conn, c => sqlx::query_as(
        "SELECT chain, asset, caip19, symbol, name, decimals, verified
         FROM asset WHERE verified ORDER BY chain, asset",
    )
    .fetch_all(c)
    .await)?;
    Ok(rows.into_iter().map(AssetRow::from).collect())
}
