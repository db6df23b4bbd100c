//! What only the audit reads: whole histories, which the daemon never needs.

use std::collections::BTreeMap;

use futures::TryStreamExt as _;
use sqlx::FromRow;

use super::{Conn, StoreError, chain::number, on};
use crate::{
    amount::Amount,
    chain::{AssetKey, ChainName},
    id::WalletId,
    ledger::{Direction, Effect, Position, Replay},
};

#[derive(FromRow)]
struct RawEntry {
    #[sqlx(try_from = "Vec<u8>")]
    asset: AssetKey,
    #[sqlx(try_from = "String")]
    effect: Effect,
    #[sqlx(try_from = "String")]
    direction: Direction,
    amount: Amount,
}

/// A wallet's balances on a chain, computed anew from the entries alone. They are read as a stream: a busy
/// wallet can have millions.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn replayed(
    conn: &mut Conn<'_>,
    chain: &ChainName,
    wallet: WalletId,
) -> Result<BTreeMap<AssetKey, Position>, StoreError> {
    let mut sums: BTreeMap<AssetKey, Replay> = BTreeMap::new();
    on!(conn, c => {
        let mut rows = sqlx::query_as::<_, RawEntry>(
            "SELECT asset, effect, direction, amount FROM entry WHERE wallet_id = $1 AND chain = $2",
        )
        .bind(wallet)
        .bind(chain.as_str())
        .fetch(c);
        while let Some(RawEntry { asset, effect, direction, amount }) = rows.try_next().await? {
            sums.entry(asset).or_default().add(effect, direction, amount);
        }
    });
    Ok(sums.into_iter().map(|(asset, sum)| (asset, sum.position())).collect())
}

/// How many watches are open on a chain.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn open_watches(conn: &mut Conn<'_>, chain: &ChainName) -> Result<u64, StoreError> {
    let count: i64 = on!(conn, c => sqlx::query_scalar(
        "SELECT COUNT(*) FROM watch WHERE chain = $1 AND status = 'open' AND opened_number <= $2",
    )
    .bind(chain.as_str())
    .bind(number(super::proof::ANY_BLOCK)?)
    .fetch_one(c)
    .await)?;
    u64::try_from(count).map_err(StoreError::corrupt)
}
