//! What was booked of the newest settled blocks, to be compared with what nodes say of them.

use sqlx::FromRow;

use super::{Conn, StoreError, code, on};
use crate::{
    amount::Amount,
    chain::{Address, AssetKey, BlockHash, BlockRef, Kind, Ordinal, TxId},
    model::{ChainNo, Direction, Status, TransferNo, read_ordinal},
};

/// A transfer as far as a block shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Booked {
    pub block: BlockRef,
    pub address: Address,
    pub tx: TxId,
    pub ordinal: Ordinal,
    pub direction: Direction,
    pub asset: AssetKey,
    pub kind: Kind,
    pub amount: Amount,
    /// Whether it is in the balances, and has settled.
    pub firm: bool,
}

#[derive(FromRow)]
struct RawBooked {
    no: i64,
    #[sqlx(try_from = "i64")]
    block_number: u64,
    #[sqlx(try_from = "Vec<u8>")]
    block_hash: BlockHash,
    #[sqlx(try_from = "Vec<u8>")]
    address: Address,
    #[sqlx(try_from = "Vec<u8>")]
    tx: TxId,
    ordinal: Vec<u8>,
    direction: i16,
    #[sqlx(try_from = "Vec<u8>")]
    asset: AssetKey,
    kind: i16,
    amount: Amount,
    counted: bool,
    status: i16,
}

/// The transfers of a chain that were booked last, the newest first.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn newest(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    limit: i64,
) -> Result<Vec<Booked>, StoreError> {
    let (first, end) = TransferNo::of_chain(chain);
    let rows: Vec<RawBooked> = on!(conn, c => sqlx::query_as(
        "SELECT t.no, t.block_number, t.block_hash, w.address, t.tx, t.ordinal, t.direction, a.asset, t.kind, t.amount,
                t.counted, t.status
         FROM transfer t JOIN wallet w ON w.no = t.wallet_no JOIN asset a ON a.no = t.asset_no
         WHERE t.no >= $1 AND t.no < $2 ORDER BY t.no DESC LIMIT $3 + 0",
    )
    .bind(first.0)
    .bind(end.0)
    .bind(limit)
    .fetch_all(c)
    .await)?;
    let booked = |row: RawBooked| {
        Ok(Booked {
            block: BlockRef { number: row.block_number, hash: row.block_hash },
            address: row.address,
            tx: row.tx,
            ordinal: read_ordinal(&row.ordinal)
                .ok_or_else(|| StoreError::corrupt(format!("the ordinal of no. {}", row.no)))?,
            direction: code::read_direction(row.direction)?,
            asset: row.asset,
            kind: code::read_kind(row.kind)?,
            amount: row.amount,
            firm: row.counted && code::read_status(row.status)? == Status::Settled,
        })
    };
    rows.into_iter().map(booked).collect()
}

/// The version of the daemon that has last read settled blocks again.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn read_by(conn: &mut Conn<'_>, chain: ChainNo) -> Result<Option<String>, StoreError> {
    let version: Option<Option<String>> = on!(conn, c => sqlx::query_scalar("SELECT read_by FROM chain_cursor WHERE chain_no = $1")
            .bind(chain.0)
            .fetch_optional(c)
            .await)?;
    Ok(version.flatten())
}

/// Remembers that version, if the chain's epoch still is the one of whoever says so.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn was_read_by(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    epoch: i64,
    version: &str,
) -> Result<(), StoreError> {
    on!(conn, c => sqlx::query(
        "UPDATE chain_cursor SET read_by = $3 WHERE chain_no = $1 AND fencing_epoch = $2",
    )
    .bind(chain.0)
    .bind(epoch)
    .bind(version)
    .execute(c)
    .await
    .map(|_| ()))?;
    Ok(())
}
