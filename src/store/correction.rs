//! Corrections of balances, and which balances a block has begun or corrected.

use std::collections::BTreeSet;

use sqlx::FromRow;

use super::{
    Conn, StoreError,
    chain::number,
    on,
    set::{Ints, sets},
    transfer::{all, select_transfer},
};
use crate::{
    clock::Millis,
    id::TransferId,
    model::{AssetNo, ChainNo, Transfer, WalletNo},
};

#[derive(FromRow)]
struct RawPair {
    wallet_no: i64,
    asset_no: i64,
}

/// The balances, among those of `wallets`, that a block above `settled` has begun or corrected: their settled part
/// is not what the chain had at the settled block; it is when that block settles.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn unfinished(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    wallets: &[WalletNo],
    settled: u64,
) -> Result<BTreeSet<(WalletNo, AssetNo)>, StoreError> {
    let wallets = Ints::of(wallets.iter().map(|wallet| wallet.0));
    if wallets.is_empty() {
        return Ok(BTreeSet::new());
    }
    let sql = sets(
        conn,
        "SELECT wallet_no, asset_no FROM transfer
         WHERE wallet_no IN ints($1) AND kind = 9 AND status IN (0, 1) AND chain_no = $2 AND block_number > $3
         UNION
         SELECT wallet_no, asset_no FROM transfer
         WHERE wallet_no IN ints($1) AND kind = 10 AND status & 3 = 1 AND chain_no = $2 AND block_number > $3",
    );
    let rows: Vec<RawPair> = on!(conn, c => sqlx::query_as(sql)
        .bind(&wallets)
        .bind(chain.0)
        .bind(number(settled)?)
        .fetch_all(c)
        .await)?;
    Ok(rows.into_iter().map(|row| (WalletNo(row.wallet_no), AssetNo(row.asset_no))).collect())
}

/// Whose balances were corrected in blocks from `from` on that are not settled.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn corrected_from(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    wallets: &[WalletNo],
    from: u64,
) -> Result<BTreeSet<WalletNo>, StoreError> {
    let wallets = Ints::of(wallets.iter().map(|wallet| wallet.0));
    if wallets.is_empty() {
        return Ok(BTreeSet::new());
    }
    let sql = sets(
        conn,
        "SELECT wallet_no FROM transfer
         WHERE wallet_no IN ints($1) AND kind = 10 AND status & 3 = 1 AND chain_no = $2 AND block_number >= $3",
    );
    let rows: Vec<i64> = on!(conn, c => sqlx::query_scalar(sql)
        .bind(&wallets)
        .bind(chain.0)
        .bind(number(from)?)
        .fetch_all(c)
        .await)?;
    Ok(rows.into_iter().map(WalletNo).collect())
}

/// The pending transfers of some wallets in blocks from `from` on.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn pending_of(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    wallets: &[WalletNo],
    from: u64,
) -> Result<Vec<Transfer>, StoreError> {
    let wallets = Ints::of(wallets.iter().map(|wallet| wallet.0));
    if wallets.is_empty() {
        return Ok(Vec::new());
    }
    // Of a wallet's rows those that are not settled are read, on whichever chain.
    let sql = sets(
        conn,
        select_transfer!(
            "WHERE wallet_no IN ints($1) AND status <> 0 AND status + 0 = 1 AND chain_no + 0 = $2
               AND block_number + 0 >= $3"
        ),
    );
    all(on!(conn, c => sqlx::query_as(sql)
        .bind(&wallets)
        .bind(chain.0)
        .bind(number(from)?)
        .fetch_all(c)
        .await)?)
}

/// The adjustments of some wallets in blocks of one time.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn adjustments_at(
    conn: &mut Conn<'_>,
    wallets: &[WalletNo],
    time: Millis,
) -> Result<Vec<Transfer>, StoreError> {
    let wallets = Ints::of(wallets.iter().map(|wallet| wallet.0));
    if wallets.is_empty() {
        return Ok(Vec::new());
    }
    let (first, last) = TransferId::range(time);
    let sql = sets(
        conn,
        select_transfer!(
            "WHERE wallet_no IN ints($1) AND id >= $2 AND id <= $3 AND kind = 10 AND status <> 3"
        ),
    );
    all(on!(conn, c => sqlx::query_as(sql)
        .bind(&wallets)
        .bind(first)
        .bind(last)
        .fetch_all(c)
        .await)?)
}
