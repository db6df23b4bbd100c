//! The balance read: wallet, watches, chain cursors and balances in one statement, so in one state.

use sqlx::{AssertSqlSafe, FromRow};

use super::{
    Conn, StoreError,
    chain::BlockPoint,
    on,
    wallet::{MATCHES, WalletFilter, bind_filter},
};
use crate::{
    amount::Amount,
    chain::{Address, AssetKey, BlockHash, BlockRef, ChainName, Family},
    clock::Millis,
    id::{TenantId, WalletId},
    ledger::Position,
};

/// What one wallet holds.
#[derive(Clone, Debug)]
pub struct Holdings {
    pub wallet_id: WalletId,
    pub family: Family,
    pub address: Address,
    pub is_primary: bool,
    /// The chains whose watch has begun, by name.
    pub chains: Vec<ChainHoldings>,
}

/// What a wallet holds on one chain, and the blocks at which it does.
#[derive(Clone, Debug)]
pub struct ChainHoldings {
    pub chain: ChainName,
    pub head: BlockPoint,
    pub settled: BlockPoint,
    /// By contract, the native coin first.
    pub assets: Vec<AssetHolding>,
}

#[derive(Clone, Debug)]
pub struct AssetHolding {
    pub asset: AssetKey,
    pub position: Position,
    /// The sum of the open holds, and what the asset's issuer has frozen.
    pub locked: Amount,
    pub updated_at: Millis,
}

#[derive(FromRow)]
struct RawHolding {
    id: WalletId,
    #[sqlx(try_from = "String")]
    family: Family,
    #[sqlx(try_from = "Vec<u8>")]
    address: Address,
    is_primary: bool,
    chain: Option<String>,
    head_number: Option<i64>,
    head_hash: Option<Vec<u8>>,
    head_time: Option<Millis>,
    settled_number: Option<i64>,
    settled_hash: Option<Vec<u8>>,
    settled_time: Option<Millis>,
    asset: Option<Vec<u8>>,
    settled: Option<Amount>,
    incoming: Option<Amount>,
    outgoing: Option<Amount>,
    held: Option<Amount>,
    frozen: Option<Amount>,
    updated_at: Option<Millis>,
}

fn point(
    number: Option<i64>,
    hash: Option<&Vec<u8>>,
    time: Option<Millis>,
) -> Result<Option<BlockPoint>, StoreError> {
    let (Some(number), Some(hash), Some(time)) = (number, hash, time) else { return Ok(None) };
    let number = u64::try_from(number).map_err(StoreError::corrupt)?;
    let hash = BlockHash::from_slice(hash).ok_or_else(|| StoreError::corrupt("a block hash"))?;
    Ok(Some(BlockPoint { at: BlockRef { number, hash }, time }))
}

impl RawHolding {
    fn chain(&self) -> Result<Option<ChainHoldings>, StoreError> {
        let head = point(self.head_number, self.head_hash.as_ref(), self.head_time)?;
        let settled = point(self.settled_number, self.settled_hash.as_ref(), self.settled_time)?;
        let (Some(chain), Some(head), Some(settled)) = (&self.chain, head, settled) else {
            return Ok(None);
        };
        Ok(Some(ChainHoldings { chain: ChainName::new(chain), head, settled, assets: Vec::new() }))
    }

    fn asset(&self) -> Result<Option<AssetHolding>, StoreError> {
        let Some(asset) = &self.asset else { return Ok(None) };
        let (Some(settled), Some(incoming), Some(outgoing)) =
            (self.settled, self.incoming, self.outgoing)
        else {
            return Ok(None);
        };
        let (Some(held), Some(frozen), Some(at)) = (self.held, self.frozen, self.updated_at) else {
            return Ok(None);
        };
        Ok(Some(AssetHolding {
            asset: AssetKey::from_bytes(asset).ok_or_else(|| StoreError::corrupt("an asset"))?,
            position: Position { settled, incoming, outgoing },
            locked: held.saturating_add(frozen),
            updated_at: at,
        }))
    }
}

/// The statement up to its conditions.
macro_rules! select {
    ($wallets:literal, $rest:literal) => {
        concat!(
            "SELECT w.id, w.family, w.address, w.is_primary, t.chain, c.head_number, c.head_hash,
                    c.head_time, c.settled_number, c.settled_hash, c.settled_time, b.asset, b.settled,
                    b.incoming, b.outgoing, b.held, b.frozen, b.updated_at
             FROM ", $wallets, " w
             LEFT JOIN watch t ON t.wallet_id = w.id AND t.status = 'open'
             LEFT JOIN chain_cursor c ON c.chain = t.chain
             LEFT JOIN balance b ON b.wallet_id = w.id AND b.chain = t.chain ",
            $rest
        )
    };
}

/// What the wallets hold that a locator names: at most [`MATCHES`] of them, a primary one among them.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn holdings(
    conn: &mut Conn<'_>,
    tenant: TenantId,
    filter: &WalletFilter,
) -> Result<Vec<Holdings>, StoreError> {
    let rows: Vec<RawHolding> = if let Some(id) = filter.id {
        // The common case has a text of its own, which needs no building.
        on!(conn, c => sqlx::query_as(select!(
            "wallet",
            "WHERE w.id = $1 AND w.tenant_id = $2 AND w.deleted_at IS NULL ORDER BY t.chain, b.asset"
        ))
        .bind(id)
        .bind(tenant)
        .fetch_all(c)
        .await)?
    } else {
        let sql = format!(
            select!(
                "(SELECT * FROM wallet w WHERE {} ORDER BY w.is_primary DESC, w.id DESC LIMIT $12)",
                "ORDER BY w.id DESC, t.chain, b.asset"
            ),
            filter.conditions()
        );
        on!(conn, c => {
            bind_filter!(sqlx::query_as(AssertSqlSafe(sql)), tenant, filter)
                .bind(MATCHES)
                .fetch_all(c)
                .await
        })?
    };
    fold(&rows)
}

fn fold(rows: &[RawHolding]) -> Result<Vec<Holdings>, StoreError> {
    let mut wallets: Vec<Holdings> = Vec::new();
    for row in rows {
        if wallets.last().is_none_or(|last| last.wallet_id != row.id) {
            wallets.push(Holdings {
                wallet_id: row.id,
                family: row.family,
                address: row.address,
                is_primary: row.is_primary,
                chains: Vec::new(),
            });
        }
        let Some(wallet) = wallets.last_mut() else { continue };
        let Some(name) = &row.chain else { continue };
        if wallet.chains.last().is_none_or(|last| last.chain.as_str() != name)
            && let Some(chain) = row.chain()?
        {
            wallet.chains.push(chain);
        }
        if let (Some(chain), Some(asset)) = (wallet.chains.last_mut(), row.asset()?) {
            chain.assets.push(asset);
        }
    }
    Ok(wallets)
}
