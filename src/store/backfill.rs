//! Wishes for the history of a watch from before it began.

use sqlx::FromRow;

use super::{Conn, StoreError, chain::number, on, watch::WatchRow};
use crate::{
    chain::{Address, BlockHash, BlockRef, ChainName, words},
    clock::Millis,
    id::{AccountId, TenantId, WalletId},
};

words! {
    /// How far the history of a watch is.
    HistoryStatus {
        /// Not yet looked up.
        Wanted = "wanted",
        /// All of it stands among the transfers.
        Complete = "complete",
        /// No node could prove all of it; the balance at the watch's beginning stands instead.
        Incomplete = "incomplete",
    }
}

/// An open watch whose history is wanted.
#[derive(Clone, Debug)]
pub struct HistoryWish {
    pub watch: WatchRow,
    /// The first block that counts.
    pub from: u64,
    /// The block with whose balances the watch began.
    pub opened: BlockRef,
}

#[derive(FromRow)]
struct RawWish {
    wallet_id: WalletId,
    tenant_id: TenantId,
    #[sqlx(try_from = "Vec<u8>")]
    address: Address,
    kind: String,
    account_id: Option<AccountId>,
    client_reference_id: Option<String>,
    activated: bool,
    #[sqlx(try_from = "i64")]
    from_block: u64,
    #[sqlx(try_from = "i64")]
    opened_number: u64,
    #[sqlx(try_from = "Vec<u8>")]
    opened_hash: BlockHash,
}

/// The oldest wish of a chain, by wallet.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn first_wish(
    conn: &mut Conn<'_>,
    chain: &ChainName,
) -> Result<Option<HistoryWish>, StoreError> {
    let row: Option<RawWish> = on!(conn, c => sqlx::query_as(
        "SELECT w.wallet_id, w.tenant_id, w.address, wallet.kind, wallet.account_id,
                wallet.client_reference_id, w.activated, w.from_block, w.opened_number, w.opened_hash
         FROM watch w JOIN wallet ON wallet.id = w.wallet_id
         WHERE w.chain = $1 AND w.history = 'wanted' AND w.status = 'open' AND w.from_block IS NOT NULL
         ORDER BY w.wallet_id LIMIT 1",
    )
    .bind(chain.as_str())
    .fetch_optional(c)
    .await)?;
    Ok(row.map(|row| HistoryWish {
        watch: WatchRow {
            wallet_id: row.wallet_id,
            tenant_id: row.tenant_id,
            address: row.address,
            is_eoa: row.kind == "eoa",
            account_id: row.account_id,
            client_reference_id: row.client_reference_id,
            activated: row.activated,
        },
        from: row.from_block,
        opened: BlockRef { number: row.opened_number, hash: row.opened_hash },
    }))
}

/// Says how a wish ended; `false` if it is no longer the wish that was read.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn decide(
    conn: &mut Conn<'_>,
    chain: &ChainName,
    wish: &HistoryWish,
    status: HistoryStatus,
    now: Millis,
) -> Result<bool, StoreError> {
    let changed = on!(conn, c => sqlx::query(
        "UPDATE watch SET history = $6, updated_at = $7
         WHERE chain = $1 AND address = $2 AND wallet_id = $3 AND status = 'open' AND history = 'wanted'
           AND opened_number = $4 AND opened_hash = $5",
    )
    .bind(chain.as_str())
    .bind(wish.watch.address.as_slice())
    .bind(wish.watch.wallet_id)
    .bind(number(wish.opened.number)?)
    .bind(&wish.opened.hash.0[..])
    .bind(status.as_str())
    .bind(now)
    .execute(c)
    .await
    .map(|done| done.rows_affected()))?;
    Ok(changed == 1)
}
