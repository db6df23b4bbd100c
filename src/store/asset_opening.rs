//! Where assets began to count for wallets that were there before them.

use sqlx::FromRow;

use super::{Conn, StoreError, chain::number, on, rows::Table};
use crate::{
    clock::Millis,
    ledger::changes::AssetOpening,
    model::{AssetNo, ChainNo, WalletNo},
};

#[derive(FromRow)]
struct Row {
    asset_no: i64,
    wallet_from: i64,
    wallet_to: i64,
    #[sqlx(try_from = "i64")]
    block_number: u64,
    block_time: Millis,
}

impl From<Row> for AssetOpening {
    fn from(row: Row) -> Self {
        Self {
            asset: AssetNo(row.asset_no),
            from: WalletNo(row.wallet_from),
            to: WalletNo(row.wallet_to),
            block: row.block_number,
            time: row.block_time,
        }
    }
}

/// Those of a chain above a block.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn above(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    block: u64,
) -> Result<Vec<AssetOpening>, StoreError> {
    let rows: Vec<Row> = on!(conn, c => sqlx::query_as(
        "SELECT asset_no, wallet_from, wallet_to, block_number, block_time FROM asset_opening
         WHERE chain_no = $1 AND block_number > $2",
    )
    .bind(chain.0)
    .bind(number(block)?)
    .fetch_all(c)
    .await)?;
    Ok(rows.into_iter().map(AssetOpening::from).collect())
}

/// Those that opened assets for one wallet, on whichever chains.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn of_wallet(
    conn: &mut Conn<'_>,
    wallet: WalletNo,
) -> Result<Vec<AssetOpening>, StoreError> {
    let rows: Vec<Row> = on!(conn, c => sqlx::query_as(
        "SELECT asset_no, wallet_from, wallet_to, block_number, block_time FROM asset_opening
         WHERE wallet_from < $1 AND wallet_to >= $1",
    )
    .bind(wallet.0)
    .fetch_all(c)
    .await)?;
    Ok(rows.into_iter().map(AssetOpening::from).collect())
}

static ASSET_OPENING: Table = Table::new(
    "asset_opening",
    &["chain_no", "asset_no", "wallet_from", "wallet_to", "block_number", "block_time"],
);

/// # Errors
/// [`StoreError`] of the engine.
pub async fn insert(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    openings: &[AssetOpening],
) -> Result<(), StoreError> {
    ASSET_OPENING
        .write(conn, openings, |row, opening| {
            row.push(chain.0)?;
            row.push(opening.asset.0)?;
            row.push(opening.from.0)?;
            row.push(opening.to.0)?;
            row.push(opening.block.cast_signed())?;
            row.push(opening.time)
        })
        .await?;
    Ok(())
}

/// Takes those above a block back (a rollback).
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn delete_above(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    block: u64,
) -> Result<(), StoreError> {
    on!(conn, c => sqlx::query(
        "DELETE FROM asset_opening WHERE chain_no = $1 AND block_number > $2",
    )
    .bind(chain.0)
    .bind(number(block)?)
    .execute(c)
    .await
    .map(|_| ()))?;
    Ok(())
}

/// The newest wallet of all tenants; 0 while there is none.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn newest_wallet(conn: &mut Conn<'_>) -> Result<WalletNo, StoreError> {
    let newest: Option<i64> =
        on!(conn, c => sqlx::query_scalar("SELECT MAX(no) FROM wallet").fetch_one(c).await)?;
    Ok(WalletNo(newest.unwrap_or(0)))
}

/// The assets of a chain that do not count for all wallets yet.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn unopened(conn: &mut Conn<'_>, chain: ChainNo) -> Result<Vec<AssetNo>, StoreError> {
    let rows: Vec<i64> = on!(conn, c => sqlx::query_scalar(
        "SELECT no FROM asset WHERE chain_no = $1 AND verified AND opened_to IS NOT NULL ORDER BY no",
    )
    .bind(chain.0)
    .fetch_all(c)
    .await)?;
    Ok(rows.into_iter().map(AssetNo).collect())
}
