//! Watches: which wallet's address is followed on which chain, and since which block.

use std::collections::BTreeSet;

use sqlx::{FromRow, QueryBuilder};

use super::{Conn, StoreError, chain::number, on};
use crate::{
    chain::{Address, BlockHash, BlockRef, ChainName},
    clock::Millis,
    id::{AccountId, TenantId, WalletId},
};

/// Addresses asked for in one statement; both engines take far more parameters.
const CHUNK: usize = 500;

/// A watch with what events say of its wallet.
#[derive(Clone, Debug)]
pub struct WatchRow {
    pub wallet_id: WalletId,
    pub tenant_id: TenantId,
    pub address: Address,
    /// Whether the wallet is an ordinary account, one that can own a Safe.
    pub is_eoa: bool,
    pub account_id: Option<AccountId>,
    pub client_reference_id: Option<String>,
    /// Whether `wallet.activated` was told already.
    pub activated: bool,
}

#[derive(FromRow)]
struct RawWatch {
    wallet_id: WalletId,
    tenant_id: TenantId,
    #[sqlx(try_from = "Vec<u8>")]
    address: Address,
    kind: String,
    account_id: Option<AccountId>,
    client_reference_id: Option<String>,
    activated: bool,
}

impl From<RawWatch> for WatchRow {
    fn from(row: RawWatch) -> Self {
        Self {
            wallet_id: row.wallet_id,
            tenant_id: row.tenant_id,
            address: row.address,
            is_eoa: row.kind == "eoa",
            account_id: row.account_id,
            client_reference_id: row.client_reference_id,
            activated: row.activated,
        }
    }
}

/// The addresses whose movements count on a chain.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn open_addresses(
    conn: &mut Conn<'_>,
    chain: &ChainName,
) -> Result<Vec<Address>, StoreError> {
    let rows: Vec<Vec<u8>> = on!(conn, c => sqlx::query_scalar(
        "SELECT DISTINCT address FROM watch WHERE chain = $1 AND status IN ('open', 'closing')",
    )
    .bind(chain.as_str())
    .fetch_all(c)
    .await)?;
    rows.into_iter().map(|bytes| bytes.try_into().map_err(StoreError::corrupt)).collect()
}

/// Watches that wait to be opened (`requested`) or closed (`closing`), oldest wallets first.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn to_do(
    conn: &mut Conn<'_>,
    chain: &ChainName,
    status: &'static str,
    limit: i64,
) -> Result<Vec<WatchRow>, StoreError> {
    let rows: Vec<RawWatch> = on!(conn, c => sqlx::query_as(
        "SELECT w.wallet_id, w.tenant_id, w.address, wallet.kind, wallet.account_id,
                wallet.client_reference_id, w.activated
         FROM watch w JOIN wallet ON wallet.id = w.wallet_id
         WHERE w.chain = $1 AND w.status = $2 AND w.status IN ('requested', 'closing')
         ORDER BY w.wallet_id LIMIT $3",
    )
    .bind(chain.as_str())
    .bind(status)
    .bind(limit)
    .fetch_all(c)
    .await)?;
    Ok(rows.into_iter().map(WatchRow::from).collect())
}

/// The open watches of some addresses, by address and wallet.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn open_by_address(
    conn: &mut Conn<'_>,
    chain: &ChainName,
    addresses: &BTreeSet<Address>,
) -> Result<Vec<WatchRow>, StoreError> {
    let all: Vec<Address> = addresses.iter().copied().collect();
    let mut found = Vec::new();
    for chunk in all.chunks(CHUNK) {
        let rows: Vec<RawWatch> = on!(conn, c => {
            let mut query = QueryBuilder::new(
                "SELECT w.wallet_id, w.tenant_id, w.address, wallet.kind, wallet.account_id,
                        wallet.client_reference_id, w.activated
                 FROM watch w JOIN wallet ON wallet.id = w.wallet_id
                 WHERE w.status IN ('open', 'closing') AND w.chain = ",
            );
            query.push_bind(chain.as_str());
            query.push(" AND w.address IN (");
            let mut list = query.separated(", ");
            for address in chunk {
                list.push_bind(address.as_slice());
            }
            query.push(") ORDER BY w.address, w.wallet_id");
            query.build_query_as().fetch_all(c).await
        })?;
        found.extend(rows.into_iter().map(WatchRow::from));
    }
    Ok(found)
}

/// All open watches of a chain: only for an asset that begins to count on it.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn all_open(conn: &mut Conn<'_>, chain: &ChainName) -> Result<Vec<WatchRow>, StoreError> {
    let rows: Vec<RawWatch> = on!(conn, c => sqlx::query_as(
        "SELECT w.wallet_id, w.tenant_id, w.address, wallet.kind, wallet.account_id,
                wallet.client_reference_id, w.activated
         FROM watch w JOIN wallet ON wallet.id = w.wallet_id
         WHERE w.chain = $1 AND w.status = 'open' ORDER BY w.wallet_id",
    )
    .bind(chain.as_str())
    .fetch_all(c)
    .await)?;
    Ok(rows.into_iter().map(WatchRow::from).collect())
}

/// Whether anyone still watches an address.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn is_open(
    conn: &mut Conn<'_>,
    chain: &ChainName,
    address: &Address,
) -> Result<bool, StoreError> {
    let row: Option<i64> = on!(conn, c => sqlx::query_scalar(
        "SELECT CAST(1 AS BIGINT) FROM watch
         WHERE chain = $1 AND address = $2 AND status IN ('open', 'closing') LIMIT 1",
    )
    .bind(chain.as_str())
    .bind(address.as_slice())
    .fetch_optional(c)
    .await)?;
    Ok(row.is_some())
}

/// Opens a requested watch at a block; `false` if the wish was withdrawn meanwhile.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn open(
    conn: &mut Conn<'_>,
    chain: &ChainName,
    watch: &WatchRow,
    at: &BlockRef,
    now: Millis,
) -> Result<bool, StoreError> {
    let changed = on!(conn, c => sqlx::query(
        "UPDATE watch SET status = 'open', opened_number = $4, opened_hash = $5, activated = $6,
                          updated_at = $7
         WHERE chain = $1 AND address = $2 AND wallet_id = $3 AND status = 'requested'",
    )
    .bind(chain.as_str())
    .bind(watch.address.as_slice())
    .bind(watch.wallet_id)
    .bind(number(at.number)?)
    .bind(&at.hash.0[..])
    .bind(true)
    .bind(now)
    .execute(c)
    .await
    .map(|done| done.rows_affected()))?;
    Ok(changed == 1)
}

/// Closes a watch that was asked to close.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn close(
    conn: &mut Conn<'_>,
    chain: &ChainName,
    watch: &WatchRow,
    now: Millis,
) -> Result<(), StoreError> {
    on!(conn, c => sqlx::query(
        "UPDATE watch SET status = 'closed', updated_at = $4
         WHERE chain = $1 AND address = $2 AND wallet_id = $3 AND status = 'closing'",
    )
    .bind(chain.as_str())
    .bind(watch.address.as_slice())
    .bind(watch.wallet_id)
    .bind(now)
    .execute(c)
    .await
    .map(|_| ()))?;
    Ok(())
}

#[derive(FromRow)]
struct Reset {
    wallet_id: WalletId,
    #[sqlx(try_from = "Vec<u8>")]
    address: Address,
}

/// Takes back the watches that were opened above a fork: they wait to be opened anew.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn reopen_above(
    conn: &mut Conn<'_>,
    chain: &ChainName,
    fork: u64,
    now: Millis,
) -> Result<Vec<(WalletId, Address)>, StoreError> {
    let rows: Vec<Reset> = on!(conn, c => sqlx::query_as(
        "UPDATE watch SET status = 'requested', opened_number = NULL, opened_hash = NULL,
                          history = CASE WHEN from_block IS NULL THEN NULL ELSE 'wanted' END,
                          updated_at = $3
         WHERE chain = $1 AND opened_number > $2 AND status = 'open' RETURNING wallet_id, address",
    )
    .bind(chain.as_str())
    .bind(number(fork)?)
    .bind(now)
    .fetch_all(c)
    .await)?;
    Ok(rows.into_iter().map(|row| (row.wallet_id, row.address)).collect())
}

/// What events say of a wallet.
#[derive(Clone, Debug)]
pub struct WalletRef {
    pub address: Address,
    pub account_id: Option<AccountId>,
    pub client_reference_id: Option<String>,
}

#[derive(FromRow)]
struct RawRef {
    #[sqlx(try_from = "Vec<u8>")]
    address: Address,
    account_id: Option<AccountId>,
    client_reference_id: Option<String>,
}

/// # Errors
/// [`StoreError::Corrupt`] if there is no such wallet.
pub async fn wallet_ref(conn: &mut Conn<'_>, wallet: WalletId) -> Result<WalletRef, StoreError> {
    let row: Option<RawRef> = on!(conn, c => sqlx::query_as(
        "SELECT address, account_id, client_reference_id FROM wallet WHERE id = $1",
    )
    .bind(wallet)
    .fetch_optional(c)
    .await)?;
    let row = row.ok_or_else(|| StoreError::corrupt(format!("no wallet {wallet}")))?;
    Ok(WalletRef {
        address: row.address,
        account_id: row.account_id,
        client_reference_id: row.client_reference_id,
    })
}

#[derive(FromRow)]
struct RawOpening {
    #[sqlx(try_from = "i64")]
    number: u64,
    #[sqlx(try_from = "Vec<u8>")]
    hash: BlockHash,
}

/// The newest block at or below `upto` at which an open watch begins.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn newest_opening(
    conn: &mut Conn<'_>,
    chain: &ChainName,
    upto: u64,
) -> Result<Option<BlockRef>, StoreError> {
    let row: Option<RawOpening> = on!(conn, c => sqlx::query_as(
        "SELECT opened_number AS number, opened_hash AS hash FROM watch
         WHERE chain = $1 AND status = 'open' AND opened_number <= $2
         ORDER BY opened_number DESC LIMIT 1",
    )
    .bind(chain.as_str())
    .bind(number(upto)?)
    .fetch_optional(c)
    .await)?;
    Ok(row.map(|row| BlockRef { number: row.number, hash: row.hash }))
}
