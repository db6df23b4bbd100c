//! Transfers, entries and balances: what the ledger's transactions read and write.

use sqlx::FromRow;

use super::{Conn, StoreError, chain::number, on};
use crate::{
    amount::Amount,
    chain::{Address, AssetKey, BlockHash, BlockRef, ChainName, Kind, TxId},
    clock::Millis,
    id::{TenantId, TransferId, WalletId},
    ledger::{Direction, Effect, Position, Status},
};

/// One movement as one wallet sees it, as it stands now.
#[derive(Clone, Debug)]
pub struct TransferRow {
    pub id: TransferId,
    pub wallet_id: WalletId,
    pub tenant_id: TenantId,
    pub chain: ChainName,
    /// The transaction; the block's hash for what belongs to no transaction.
    pub tx: TxId,
    pub ordinal: String,
    pub direction: Direction,
    pub asset: AssetKey,
    pub kind: Kind,
    pub status: Status,
    pub amount: Amount,
    pub from: Option<Address>,
    pub to: Option<Address>,
    /// Whether it is in the balances: a verified asset and more than nothing.
    pub counted: bool,
    pub block: BlockRef,
    pub block_time: Millis,
    pub connections: i64,
    pub reason: Option<String>,
    pub memo: Option<String>,
    pub seen_at: Millis,
    pub settled_at: Option<Millis>,
    pub orphaned_at: Option<Millis>,
}

impl TransferRow {
    /// Whether `tx` is a transaction rather than a block.
    #[must_use]
    pub fn has_transaction(&self) -> bool {
        !matches!(self.kind, Kind::Opening | Kind::Adjustment | Kind::Reward)
            && !self.ordinal.starts_with("withdrawal:")
            && !self.ordinal.starts_with("reward:")
    }

    /// Whether the chain's state at a settled block proved it, so that it never was pending.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        self.kind == Kind::Adjustment && self.ordinal.starts_with("proof:")
    }
}

#[derive(FromRow)]
pub(super) struct RawTransfer {
    id: TransferId,
    wallet_id: WalletId,
    tenant_id: TenantId,
    #[sqlx(try_from = "String")]
    chain: ChainName,
    #[sqlx(try_from = "Vec<u8>")]
    tx: TxId,
    ordinal: String,
    #[sqlx(try_from = "String")]
    direction: Direction,
    #[sqlx(try_from = "Vec<u8>")]
    asset: AssetKey,
    #[sqlx(try_from = "String")]
    kind: Kind,
    #[sqlx(try_from = "String")]
    status: Status,
    amount: Amount,
    from_address: Option<Vec<u8>>,
    to_address: Option<Vec<u8>>,
    counted: bool,
    #[sqlx(try_from = "i64")]
    block_number: u64,
    #[sqlx(try_from = "Vec<u8>")]
    block_hash: BlockHash,
    block_time: Millis,
    connections: i64,
    reason: Option<String>,
    memo: Option<String>,
    seen_at: Millis,
    settled_at: Option<Millis>,
    orphaned_at: Option<Millis>,
}

impl From<RawTransfer> for TransferRow {
    fn from(row: RawTransfer) -> Self {
        let address = |bytes: Option<Vec<u8>>| bytes.as_deref().and_then(Address::from_slice);
        Self {
            id: row.id,
            wallet_id: row.wallet_id,
            tenant_id: row.tenant_id,
            chain: row.chain,
            tx: row.tx,
            ordinal: row.ordinal,
            direction: row.direction,
            asset: row.asset,
            kind: row.kind,
            status: row.status,
            amount: row.amount,
            from: address(row.from_address),
            to: address(row.to_address),
            counted: row.counted,
            block: BlockRef { number: row.block_number, hash: row.block_hash },
            block_time: row.block_time,
            connections: row.connections,
            reason: row.reason,
            memo: row.memo,
            seen_at: row.seen_at,
            settled_at: row.settled_at,
            orphaned_at: row.orphaned_at,
        }
    }
}

/// The columns of [`TransferRow`], for every statement that reads one.
macro_rules! transfer_columns {
    () => {
        "id, wallet_id, tenant_id, chain, tx, ordinal, direction, asset, kind, status, amount,
         from_address, to_address, counted, block_number, block_hash, block_time, connections, reason, memo,
         seen_at, settled_at, orphaned_at"
    };
}
pub(super) use transfer_columns;

/// The transfer that a movement is to a wallet, if it was ever connected.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn same_movement(
    conn: &mut Conn<'_>,
    transfer: &TransferRow,
) -> Result<Option<TransferRow>, StoreError> {
    let row: Option<RawTransfer> = on!(conn, c => sqlx::query_as(concat!(
        "SELECT ", transfer_columns!(), " FROM transfer
         WHERE wallet_id = $1 AND chain = $2 AND tx = $3 AND ordinal = $4 AND direction = $5
           AND asset = $6",
    ))
    .bind(transfer.wallet_id)
    .bind(transfer.chain.as_str())
    .bind(transfer.tx.as_slice())
    .bind(&transfer.ordinal)
    .bind(transfer.direction.as_str())
    .bind(transfer.asset.as_bytes())
    .fetch_optional(c)
    .await)?;
    Ok(row.map(TransferRow::from))
}

/// # Errors
/// [`StoreError::Constraint`] if the movement is booked already.
pub async fn insert_transfer(conn: &mut Conn<'_>, row: &TransferRow) -> Result<(), StoreError> {
    on!(conn, c => sqlx::query(
        "INSERT INTO transfer (id, wallet_id, tenant_id, chain, tx, ordinal, direction, asset, kind, status,
                               amount, from_address, to_address, counted, block_number, block_hash,
                               block_time, connections, reason, memo, seen_at, settled_at, orphaned_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20,
                 $21, $22, $23)",
    )
    .bind(row.id)
    .bind(row.wallet_id)
    .bind(row.tenant_id)
    .bind(row.chain.as_str())
    .bind(row.tx.as_slice())
    .bind(&row.ordinal)
    .bind(row.direction.as_str())
    .bind(row.asset.as_bytes())
    .bind(row.kind.as_str())
    .bind(row.status.as_str())
    .bind(row.amount)
    .bind(row.from.as_ref().map(Address::as_slice))
    .bind(row.to.as_ref().map(Address::as_slice))
    .bind(row.counted)
    .bind(number(row.block.number)?)
    .bind(&row.block.hash.0[..])
    .bind(row.block_time)
    .bind(row.connections)
    .bind(&row.reason)
    .bind(&row.memo)
    .bind(row.seen_at)
    .bind(row.settled_at)
    .bind(row.orphaned_at)
    .execute(c)
    .await
    .map(|_| ()))?;
    Ok(())
}

/// Writes where a transfer stands now. What names it never changes; what it moves can: a fee, or what a swap
/// pays out, depends on the block that holds the transaction.
///
/// # Errors
/// [`StoreError::Corrupt`] if there is no such transfer.
pub async fn update_transfer(conn: &mut Conn<'_>, row: &TransferRow) -> Result<(), StoreError> {
    let changed = on!(conn, c => sqlx::query(
        "UPDATE transfer
         SET status = $3, block_number = $4, block_hash = $5, block_time = $6, connections = $7,
             settled_at = $8, orphaned_at = $9, kind = $10, amount = $11, from_address = $12,
             to_address = $13, counted = $14, reason = $15, memo = $16
         WHERE wallet_id = $1 AND id = $2",
    )
    .bind(row.wallet_id)
    .bind(row.id)
    .bind(row.status.as_str())
    .bind(number(row.block.number)?)
    .bind(&row.block.hash.0[..])
    .bind(row.block_time)
    .bind(row.connections)
    .bind(row.settled_at)
    .bind(row.orphaned_at)
    .bind(row.kind.as_str())
    .bind(row.amount)
    .bind(row.from.as_ref().map(Address::as_slice))
    .bind(row.to.as_ref().map(Address::as_slice))
    .bind(row.counted)
    .bind(&row.reason)
    .bind(&row.memo)
    .execute(c)
    .await
    .map(|done| done.rows_affected()))?;
    if changed == 1 { Ok(()) } else { Err(StoreError::corrupt(format!("no transfer {}", row.id))) }
}

/// The pending transfers of blocks up to `upto`, in chain order: what settles with that block.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn pending_up_to(
    conn: &mut Conn<'_>,
    chain: &ChainName,
    upto: u64,
) -> Result<Vec<TransferRow>, StoreError> {
    let rows: Vec<RawTransfer> = on!(conn, c => sqlx::query_as(concat!(
        "SELECT ", transfer_columns!(), " FROM transfer
         WHERE chain = $1 AND status = 'pending' AND block_number <= $2 ORDER BY block_number, id",
    ))
    .bind(chain.as_str())
    .bind(number(upto)?)
    .fetch_all(c)
    .await)?;
    Ok(rows.into_iter().map(TransferRow::from).collect())
}

/// The pending transfers of blocks above `fork`, newest first: what a rollback takes back.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn pending_above(
    conn: &mut Conn<'_>,
    chain: &ChainName,
    fork: u64,
) -> Result<Vec<TransferRow>, StoreError> {
    let rows: Vec<RawTransfer> = on!(conn, c => sqlx::query_as(concat!(
        "SELECT ", transfer_columns!(), " FROM transfer
         WHERE chain = $1 AND status = 'pending' AND block_number > $2
         ORDER BY block_number DESC, id DESC",
    ))
    .bind(chain.as_str())
    .bind(number(fork)?)
    .fetch_all(c)
    .await)?;
    Ok(rows.into_iter().map(TransferRow::from).collect())
}

/// The settled transfers of blocks above `fork`, newest first: only for a rewind by hand, it reads all of
/// the chain's transfers.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn settled_above(
    conn: &mut Conn<'_>,
    chain: &ChainName,
    fork: u64,
) -> Result<Vec<TransferRow>, StoreError> {
    let rows: Vec<RawTransfer> = on!(conn, c => sqlx::query_as(concat!(
        "SELECT ", transfer_columns!(), " FROM transfer
         WHERE chain = $1 AND status = 'settled' AND block_number > $2
         ORDER BY block_number DESC, id DESC",
    ))
    .bind(chain.as_str())
    .bind(number(fork)?)
    .fetch_all(c)
    .await)?;
    Ok(rows.into_iter().map(TransferRow::from).collect())
}

/// What of a wallet has settled on a chain: for a watch that begins anew.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn settled_of(
    conn: &mut Conn<'_>,
    wallet: WalletId,
    chain: &ChainName,
) -> Result<Vec<TransferRow>, StoreError> {
    let rows: Vec<RawTransfer> = on!(conn, c => sqlx::query_as(concat!(
        "SELECT ", transfer_columns!(), " FROM transfer
         WHERE wallet_id = $1 AND chain = $2 AND status = 'settled' ORDER BY id DESC",
    ))
    .bind(wallet)
    .bind(chain.as_str())
    .fetch_all(c)
    .await)?;
    Ok(rows.into_iter().map(TransferRow::from).collect())
}

/// The openings of a wallet on a chain that stand.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn openings(
    conn: &mut Conn<'_>,
    wallet: WalletId,
    chain: &ChainName,
) -> Result<Vec<TransferRow>, StoreError> {
    let rows: Vec<RawTransfer> = on!(conn, c => sqlx::query_as(concat!(
        "SELECT ", transfer_columns!(), " FROM transfer
         WHERE wallet_id = $1 AND chain = $2 AND kind = 'opening' AND status <> 'orphaned'",
    ))
    .bind(wallet)
    .bind(chain.as_str())
    .fetch_all(c)
    .await)?;
    Ok(rows.into_iter().map(TransferRow::from).collect())
}

/// Adds one effect of a transfer to the ledger.
///
/// # Errors
/// [`StoreError::Constraint`] if this effect of this connection is booked already.
pub async fn insert_entry(
    conn: &mut Conn<'_>,
    transfer: &TransferRow,
    effect: Effect,
    now: Millis,
) -> Result<(), StoreError> {
    on!(conn, c => sqlx::query(
        "INSERT INTO entry (wallet_id, chain, asset, transfer_id, connection, effect, direction, amount,
                            block_number, block_hash, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    )
    .bind(transfer.wallet_id)
    .bind(transfer.chain.as_str())
    .bind(transfer.asset.as_bytes())
    .bind(transfer.id)
    .bind(transfer.connections)
    .bind(effect.as_str())
    .bind(transfer.direction.as_str())
    .bind(transfer.amount)
    .bind(number(transfer.block.number)?)
    .bind(&transfer.block.hash.0[..])
    .bind(now)
    .execute(c)
    .await
    .map(|_| ()))?;
    Ok(())
}

/// A balance with what guards its next write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BalanceRow {
    pub position: Position,
    /// The sum of the open holds.
    pub held: Amount,
    /// What the asset's issuer has frozen.
    pub frozen: Amount,
    /// 0 while there is no row.
    pub version: i64,
}

#[derive(FromRow)]
struct RawBalance {
    settled: Amount,
    incoming: Amount,
    outgoing: Amount,
    held: Amount,
    frozen: Amount,
    version: i64,
}

impl BalanceRow {
    /// What cannot be spent though it is there, by our holds or by the issuer.
    #[must_use]
    pub fn locked(&self) -> Amount {
        self.held.saturating_add(self.frozen)
    }
}

/// The balance of one asset; an empty one of version 0 where there is none.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn balance(
    conn: &mut Conn<'_>,
    wallet: WalletId,
    chain: &ChainName,
    asset: &AssetKey,
) -> Result<BalanceRow, StoreError> {
    let row: Option<RawBalance> = on!(conn, c => sqlx::query_as(
        "SELECT settled, incoming, outgoing, held, frozen, version FROM balance
         WHERE wallet_id = $1 AND chain = $2 AND asset = $3",
    )
    .bind(wallet)
    .bind(chain.as_str())
    .bind(asset.as_bytes())
    .fetch_optional(c)
    .await)?;
    Ok(row.map_or_else(BalanceRow::default, |row| BalanceRow {
        position: Position { settled: row.settled, incoming: row.incoming, outgoing: row.outgoing },
        held: row.held,
        frozen: row.frozen,
        version: row.version,
    }))
}

/// Writes a balance that was read as `row.version`; its version grows by one.
///
/// # Errors
/// [`StoreError::Collision`] if it has another version by now.
pub async fn write_balance(
    conn: &mut Conn<'_>,
    wallet: WalletId,
    chain: &ChainName,
    asset: &AssetKey,
    row: &BalanceRow,
    block: u64,
    now: Millis,
) -> Result<(), StoreError> {
    let Position { settled, incoming, outgoing } = row.position;
    let changed = on!(conn, c => sqlx::query(
        "INSERT INTO balance (wallet_id, chain, asset, settled, incoming, outgoing, held, frozen,
                              version, block_number, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $11, 1, $9, $10)
         ON CONFLICT (wallet_id, chain, asset) DO UPDATE
         SET settled = excluded.settled, incoming = excluded.incoming, outgoing = excluded.outgoing,
             held = excluded.held, frozen = excluded.frozen, version = balance.version + 1, block_number = excluded.block_number,
             updated_at = excluded.updated_at
         WHERE balance.version = $8",
    )
    .bind(wallet)
    .bind(chain.as_str())
    .bind(asset.as_bytes())
    .bind(settled)
    .bind(incoming)
    .bind(outgoing)
    .bind(row.held)
    .bind(row.version)
    .bind(number(block)?)
    .bind(now)
    .bind(row.frozen)
    .execute(c)
    .await
    .map(|done| done.rows_affected()))?;
    if changed == 1 {
        Ok(())
    } else {
        Err(StoreError::Collision(format!("the balance of {wallet} changed meanwhile")))
    }
}

#[derive(FromRow)]
struct RawBlock {
    #[sqlx(try_from = "i64")]
    number: u64,
    #[sqlx(try_from = "Vec<u8>")]
    hash: BlockHash,
}

/// The newest block at or below `upto` that holds a transfer which was not taken back: only for a rewind by
/// hand, it reads all of the chain's transfers.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn newest_block(
    conn: &mut Conn<'_>,
    chain: &ChainName,
    upto: u64,
) -> Result<Option<BlockRef>, StoreError> {
    let row: Option<RawBlock> = on!(conn, c => sqlx::query_as(
        "SELECT block_number AS number, block_hash AS hash FROM transfer
         WHERE chain = $1 AND status <> 'orphaned' AND block_number <= $2
         ORDER BY block_number DESC LIMIT 1",
    )
    .bind(chain.as_str())
    .bind(number(upto)?)
    .fetch_optional(c)
    .await)?;
    Ok(row.map(|row| BlockRef { number: row.number, hash: row.hash }))
}
