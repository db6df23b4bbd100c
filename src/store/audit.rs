//! What only the audit reads: whole histories, which the daemon never needs.

use std::collections::BTreeMap;

use futures::TryStreamExt as _;
use sqlx::FromRow;

use super::{Conn, StoreError, code, on};
use crate::{
    amount::Amount,
    ledger::Replay,
    model::{AssetNo, ChainNo, EntryKind, Position, WalletNo},
};

#[derive(FromRow)]
struct RawEntry {
    asset_no: i64,
    direction: i16,
    kind: i16,
    amount: Amount,
    booked: Amount,
}

/// A wallet's books on a chain, read anew.
#[derive(Clone, Debug, Default)]
pub struct Replayed {
    /// Balances computed from the entries alone.
    pub positions: BTreeMap<AssetNo, Position>,
    /// Entries whose amount is not the one of their transfer.
    pub altered: u64,
    /// Movements that stand more than once: what no index guards.
    pub doubled: u64,
}

/// Reads a wallet's books. Entries are read as a stream: a busy wallet can have millions.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn replayed(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    wallet: WalletNo,
) -> Result<Replayed, StoreError> {
    let mut sums: BTreeMap<AssetNo, Replay> = BTreeMap::new();
    let mut replayed = Replayed::default();
    on!(conn, c => {
        let mut rows = sqlx::query_as::<_, RawEntry>(
            "SELECT t.asset_no, t.direction, e.kind, e.amount, t.amount AS booked
             FROM transfer t JOIN entry e ON e.transfer_no = t.no
             WHERE t.wallet_no = $1 AND t.chain_no = $2",
        )
        .bind(wallet.0)
        .bind(chain.0)
        .fetch(c);
        while let Some(RawEntry { asset_no, direction, kind, amount, booked }) = rows.try_next().await? {
            let unknown = || StoreError::corrupt(format!("the entry kind {kind}"));
            let kind = EntryKind::from_code(kind).ok_or_else(unknown)?;
            let direction = code::read_direction(direction)?;
            sums.entry(AssetNo(asset_no)).or_default().add(kind, direction, amount);
            replayed.altered += u64::from(amount != booked);
        }
    });
    replayed.positions = sums.into_iter().map(|(asset, sum)| (asset, sum.position())).collect();
    let doubled: i64 = on!(conn, c => sqlx::query_scalar(
        "SELECT COUNT(*) FROM (
             SELECT 1 FROM transfer WHERE wallet_no = $1 AND chain_no = $2 AND status <> 3
             GROUP BY tx, ordinal, direction, asset_no HAVING COUNT(*) > 1) twice",
    )
    .bind(wallet.0)
    .bind(chain.0)
    .fetch_one(c)
    .await)?;
    replayed.doubled = u64::try_from(doubled).map_err(StoreError::corrupt)?;
    Ok(replayed)
}
