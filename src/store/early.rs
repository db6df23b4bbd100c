//! Deposits that may become available before their block settles.

use sqlx::FromRow;

use super::{Conn, StoreError, chain::number, on};
use crate::{
    amount::Amount,
    chain::{Address, AssetKey},
    id::WalletId,
    model::{AssetNo, BalanceRef, ChainNo, TenantNo, TransferNo, WalletNo},
};

#[derive(FromRow)]
struct RawWaiting {
    no: i64,
    amount: Amount,
    #[sqlx(try_from = "i64")]
    block_number: u64,
    wallet_no: i64,
    tenant_no: i64,
    wallet_id: WalletId,
    #[sqlx(try_from = "Vec<u8>")]
    address: Address,
    asset_no: i64,
    #[sqlx(try_from = "Vec<u8>")]
    asset: AssetKey,
}

/// A deposit whose block has not settled.
#[derive(Clone, Copy, Debug)]
pub struct Waiting {
    pub no: TransferNo,
    pub balance: BalanceRef,
    pub amount: Amount,
    pub block: u64,
}

/// The pending deposits in the blocks above `above` up to `upto` that are not available yet, of open watches and assets
/// that are money, in chain order.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn waiting(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    above: u64,
    upto: u64,
    limit: i64,
) -> Result<Vec<Waiting>, StoreError> {
    // `+`: as in settling::balances.
    let rows: Vec<RawWaiting> = on!(conn, c => sqlx::query_as(
        "SELECT t.no, t.amount, t.block_number, t.wallet_no, t.tenant_no, v.id AS wallet_id, w.address, t.asset_no,
                a.asset
         FROM transfer t
         JOIN watch w ON w.wallet_no = t.wallet_no AND +w.chain_no = t.chain_no
         JOIN wallet v ON v.no = t.wallet_no
         JOIN asset a ON a.no = t.asset_no AND a.verified
         WHERE t.chain_no = $1 AND t.status = 1 AND t.block_number > $2 AND t.block_number <= $3 AND t.counted
           AND t.direction + 0 = 0 AND t.kind + 0 IN (0, 4) AND t.settled_by IS NULL AND w.status + 0 = 1
         ORDER BY t.block_number, t.no LIMIT $4 + 0",
    )
    .bind(chain.0)
    .bind(number(above)?)
    .bind(number(upto)?)
    .bind(limit)
    .fetch_all(c)
    .await)?;
    let waiting = |row: RawWaiting| Waiting {
        no: TransferNo(row.no),
        balance: BalanceRef {
            wallet: WalletNo(row.wallet_no),
            tenant: TenantNo(row.tenant_no),
            wallet_id: row.wallet_id,
            address: row.address,
            asset: AssetNo(row.asset_no),
            key: row.asset,
        },
        amount: row.amount,
        block: row.block_number,
    };
    Ok(rows.into_iter().map(waiting).collect())
}
