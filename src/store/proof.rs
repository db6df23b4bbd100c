//! What of the ledger can be compared with the chain's own state, and at which block.

use std::collections::BTreeMap;

use sqlx::{FromRow, QueryBuilder};
use uuid::Uuid;

use super::{Conn, StoreError, chain::number, on};
use crate::{
    amount::Amount,
    chain::{Address, AssetKey, ChainName},
    id::{TenantId, WalletId},
    ledger::Position,
};

/// Above every block that the store can hold.
pub const ANY_BLOCK: u64 = i64::MAX.unsigned_abs();

/// One wallet's balance of one asset. Several wallets can have one address: each is compared on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    pub wallet_id: WalletId,
    pub tenant_id: TenantId,
    pub address: Address,
    pub asset: AssetKey,
}

#[derive(FromRow)]
struct RawClaim {
    wallet_id: WalletId,
    tenant_id: TenantId,
    #[sqlx(try_from = "Vec<u8>")]
    address: Address,
    #[sqlx(try_from = "i64")]
    opened_number: u64,
    #[sqlx(try_from = "Vec<u8>")]
    asset: AssetKey,
}

/// The balances whose settled part changes when the blocks up to `upto` settle, of watches that are open and
/// began there or before: below its beginning a watch does not know the whole balance.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn settling(
    conn: &mut Conn<'_>,
    chain: &ChainName,
    upto: u64,
    limit: i64,
) -> Result<Vec<Claim>, StoreError> {
    // How far a watch reaches back is judged here: in the statement, SQLite would look each watch up by it.
    let rows: Vec<RawClaim> = on!(conn, c => sqlx::query_as(
        "SELECT DISTINCT w.wallet_id, w.tenant_id, w.address, w.opened_number, t.asset
         FROM transfer t JOIN watch w ON w.wallet_id = t.wallet_id AND w.chain = t.chain
         WHERE t.chain = $1 AND t.status = 'pending' AND t.block_number <= $2 AND t.counted
           AND w.status = 'open'
         ORDER BY w.address, w.wallet_id, t.asset LIMIT $3",
    )
    .bind(chain.as_str())
    .bind(number(upto)?)
    .bind(limit)
    .fetch_all(c)
    .await)?;
    let claim = |row: RawClaim| Claim {
        wallet_id: row.wallet_id,
        tenant_id: row.tenant_id,
        address: row.address,
        asset: row.asset,
    };
    Ok(rows.into_iter().filter(|row| row.opened_number <= upto).map(claim).collect())
}

/// Whether a block above the settled one holds a wallet's beginning in an asset, or a correction of it. The
/// settled figure alone is not what the chain had at the settled block then; it is when that block settles.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn is_unfinished(
    conn: &mut Conn<'_>,
    chain: &ChainName,
    claim: &Claim,
    settled: u64,
) -> Result<bool, StoreError> {
    // Openings and adjustments are named by their block's hash, and all blocks above the settled one are
    // remembered: a few look-ups, however long the wallet's history. SQLite would read all of that for want of
    // statistics, so it is told the order (CROSS JOIN) and asked for what the index transfer_once covers.
    let row: Option<i64> = on!(conn, c => sqlx::query_scalar(
        "SELECT CAST(1 AS BIGINT)
         FROM block b CROSS JOIN transfer place CROSS JOIN transfer t
         WHERE b.chain = $1 AND b.number > $4
           AND place.wallet_id = $2 AND place.chain = $1 AND place.tx = b.hash AND place.asset = $3
           AND (place.ordinal LIKE 'opening:%' OR place.ordinal LIKE 'adjustment:%')
           AND t.wallet_id = place.wallet_id AND t.id = place.id AND t.status <> 'orphaned' LIMIT 1",
    )
    .bind(chain.as_str())
    .bind(claim.wallet_id)
    .bind(claim.asset.as_bytes())
    .bind(number(settled)?)
    .fetch_optional(c)
    .await)?;
    Ok(row.is_some())
}

/// A wallet whose balances can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watched {
    pub address: Address,
    pub wallet_id: WalletId,
    pub tenant_id: TenantId,
    /// The block whose state was the opening balance.
    pub opened: u64,
}

impl Watched {
    #[must_use]
    pub fn claim(&self, asset: AssetKey) -> Claim {
        let Self { address, wallet_id, tenant_id, .. } = *self;
        Claim { wallet_id, tenant_id, address, asset }
    }
}

#[derive(FromRow)]
struct RawWatched {
    #[sqlx(try_from = "Vec<u8>")]
    address: Address,
    wallet_id: WalletId,
    tenant_id: TenantId,
    #[sqlx(try_from = "i64")]
    opened_number: u64,
}

/// A page of the open watches that began at `upto` or below, by address and wallet, after `after`.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn watched_after(
    conn: &mut Conn<'_>,
    chain: &ChainName,
    after: Option<&Watched>,
    upto: u64,
    limit: i64,
) -> Result<Vec<Watched>, StoreError> {
    // No address is empty, so this lies before them all.
    let start = (&[][..], WalletId(Uuid::nil()));
    let (address, wallet) = after.map_or(start, |last| (last.address.as_slice(), last.wallet_id));
    let rows: Vec<RawWatched> = on!(conn, c => sqlx::query_as(
        "SELECT address, wallet_id, tenant_id, opened_number FROM watch
         WHERE chain = $1 AND (address, wallet_id) > ($2, $3)
           AND status = 'open' AND opened_number <= $4
         ORDER BY address, wallet_id LIMIT $5",
    )
    .bind(chain.as_str())
    .bind(address)
    .bind(wallet)
    .bind(number(upto)?)
    .bind(limit)
    .fetch_all(c)
    .await)?;
    let watched = |row: RawWatched| Watched {
        address: row.address,
        wallet_id: row.wallet_id,
        tenant_id: row.tenant_id,
        opened: row.opened_number,
    };
    Ok(rows.into_iter().map(watched).collect())
}

/// A balance as it stands, and what of it the asset's issuer has frozen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    pub position: Position,
    pub frozen: Amount,
}

#[derive(FromRow)]
struct RawStanding {
    wallet_id: WalletId,
    #[sqlx(try_from = "Vec<u8>")]
    asset: AssetKey,
    settled: Amount,
    incoming: Amount,
    outgoing: Amount,
    frozen: Amount,
}

/// The balances of a page of wallets.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn standings(
    conn: &mut Conn<'_>,
    chain: &ChainName,
    wallets: &[Watched],
) -> Result<BTreeMap<(WalletId, AssetKey), Standing>, StoreError> {
    if wallets.is_empty() {
        return Ok(BTreeMap::new());
    }
    let rows: Vec<RawStanding> = on!(conn, c => {
        let mut query = QueryBuilder::new(
            "SELECT wallet_id, asset, settled, incoming, outgoing, frozen FROM balance WHERE chain = ",
        );
        query.push_bind(chain.as_str());
        query.push(" AND wallet_id IN (");
        let mut list = query.separated(", ");
        for wallet in wallets {
            list.push_bind(wallet.wallet_id);
        }
        query.push(")");
        query.build_query_as().fetch_all(c).await
    })?;
    let standing = |row: RawStanding| {
        let position =
            Position { settled: row.settled, incoming: row.incoming, outgoing: row.outgoing };
        ((row.wallet_id, row.asset), Standing { position, frozen: row.frozen })
    };
    Ok(rows.into_iter().map(standing).collect())
}
