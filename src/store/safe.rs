//! Safe deployments and the wallets they make, as the follower sees them.

use std::collections::BTreeSet;

use sqlx::{AssertSqlSafe, FromRow};
use uuid::Uuid;

use super::{
    Conn, StoreError,
    chain::number,
    on,
    set::{Blobs, sets},
};
use crate::{
    chain::{Address, BlockHash, BlockRef, ChainName, TxId},
    clock::Millis,
    id::{SafeDeploymentId, TenantId, WalletId},
    ledger::{
        changes::{DeploymentChange, SafeProof},
        known::HashMap,
    },
    model::{ChainNo, Deployment, DeploymentStatus, ShownSafe, TenantNo},
};

#[derive(FromRow)]
pub(super) struct Raw {
    id: SafeDeploymentId,
    tenant_no: i64,
    tenant_id: TenantId,
    #[sqlx(try_from = "String")]
    chain: ChainName,
    #[sqlx(try_from = "Vec<u8>")]
    tx: TxId,
    found_by: String,
    #[sqlx(try_from = "String")]
    status: DeploymentStatus,
    reason: Option<String>,
    address: Option<Vec<u8>>,
    wallet_id: Option<WalletId>,
    owner_wallet: Option<WalletId>,
    version: Option<String>,
    singleton: Option<Vec<u8>>,
    owners: String,
    threshold: Option<i64>,
    block_number: Option<i64>,
    block_hash: Option<Vec<u8>>,
    sender: Option<Vec<u8>>,
    nonce: Option<i64>,
    missing_since: Option<Millis>,
    look_at: Millis,
    looks: i64,
    revision: i64,
    created_at: Millis,
    updated_at: Millis,
}

/// Addresses as the store lists them: hexadecimal texts in a JSON array.
#[must_use]
pub fn write_addresses(addresses: &[Address]) -> String {
    let texts: Vec<String> = addresses.iter().map(|a| hex::encode(a.as_slice())).collect();
    serde_json::to_string(&texts).unwrap_or_default()
}

/// The inverse of [`write_addresses`].
///
/// # Errors
/// [`StoreError::Corrupt`] for anything else.
pub fn read_addresses(text: &str) -> Result<Vec<Address>, StoreError> {
    let texts: Vec<String> = serde_json::from_str(text).map_err(StoreError::corrupt)?;
    texts
        .iter()
        .map(|text| {
            let bytes = hex::decode(text).map_err(StoreError::corrupt)?;
            bytes.try_into().map_err(StoreError::corrupt)
        })
        .collect()
}

impl TryFrom<Raw> for Deployment {
    type Error = StoreError;

    fn try_from(row: Raw) -> Result<Self, StoreError> {
        let address = |bytes: Option<Vec<u8>>| bytes.as_deref().and_then(Address::from_slice);
        let block = row.block_number.zip(row.block_hash).and_then(|(number, hash)| {
            Some(BlockRef {
                number: u64::try_from(number).ok()?,
                hash: BlockHash::from_slice(&hash)?,
            })
        });
        Ok(Self {
            id: row.id,
            tenant: TenantNo(row.tenant_no),
            tenant_id: row.tenant_id,
            chain: row.chain,
            tx: row.tx,
            found_by_owner: row.found_by == "owner",
            status: row.status,
            reason: row.reason,
            address: address(row.address),
            wallet_id: row.wallet_id,
            owner_wallet: row.owner_wallet,
            version: row.version,
            singleton: address(row.singleton),
            owners: read_addresses(&row.owners)?,
            threshold: row.threshold.and_then(|value| u64::try_from(value).ok()),
            block,
            sender: address(row.sender),
            nonce: row.nonce.and_then(|value| u64::try_from(value).ok()),
            missing_since: row.missing_since,
            look_at: row.look_at,
            looks: u32::try_from(row.looks).unwrap_or(u32::MAX),
            revision: row.revision,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

macro_rules! select_deployment {
    ($rest:literal) => {
        select_deployment!("safe_deployment", $rest)
    };
    ($deployments:literal, $rest:literal) => {
        concat!(
            "SELECT d.id, t.no AS tenant_no, d.tenant_id, n.name AS chain, d.tx, d.found_by, d.status, d.reason,
                    d.address, d.wallet_id, d.owner_wallet, d.version, d.singleton, d.owners, d.threshold,
                    d.block_number, d.block_hash, d.sender, d.nonce, d.missing_since, d.look_at, d.looks,
                    d.revision, d.created_at, d.updated_at
             FROM ",
            $deployments,
            " d JOIN tenant t ON t.id = d.tenant_id JOIN chain n ON n.no = d.chain_no ",
            $rest
        )
    };
}
pub(super) use select_deployment;

pub(super) fn all(rows: Vec<Raw>) -> Result<Vec<Deployment>, StoreError> {
    rows.into_iter().map(Deployment::try_from).collect()
}

/// What all tenants track of some transactions.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn of_transactions(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    txs: &[TxId],
) -> Result<Vec<Deployment>, StoreError> {
    let txs = Blobs::of(txs.iter().map(TxId::as_slice));
    if txs.is_empty() {
        return Ok(Vec::new());
    }
    let sql =
        sets(conn, select_deployment!("WHERE d.chain_no = $1 AND d.tx IN blobs($2) ORDER BY d.id"));
    all(on!(conn, c => sqlx::query_as(sql).bind(chain.0).bind(&txs).fetch_all(c).await)?)
}

/// Begins to track a deployment by its transaction.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn insert_by_hash(
    conn: &mut Conn<'_>,
    id: SafeDeploymentId,
    tenant: TenantId,
    chain: &ChainName,
    tx: &TxId,
    now: Millis,
) -> Result<(), StoreError> {
    on!(conn, c => sqlx::query(
        "INSERT INTO safe_deployment (id, tenant_id, chain_no, tx, found_by, status, look_at, created_at,
                                      updated_at)
         VALUES ($1, $2, (SELECT no FROM chain WHERE name = $3), $4, 'hash', 'pending', $5, $5, $5)",
    )
    .bind(id)
    .bind(tenant)
    .bind(chain.as_str())
    .bind(tx.as_slice())
    .bind(now)
    .execute(c)
    .await
    .map(|_| ()))?;
    Ok(())
}

/// One deployment of a tenant.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn get(
    conn: &mut Conn<'_>,
    tenant: TenantId,
    id: SafeDeploymentId,
) -> Result<Option<Deployment>, StoreError> {
    let row: Option<Raw> = on!(conn, c => sqlx::query_as(select_deployment!(
        "WHERE d.tenant_id = $1 AND d.id = $2"
    ))
    .bind(tenant)
    .bind(id)
    .fetch_optional(c)
    .await)?;
    row.map(Deployment::try_from).transpose()
}

/// What a tenant tracks of one transaction.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn by_tx(
    conn: &mut Conn<'_>,
    tenant: TenantId,
    chain: &ChainName,
    tx: &TxId,
) -> Result<Vec<Deployment>, StoreError> {
    let rows: Vec<Raw> = on!(conn, c => sqlx::query_as(select_deployment!(
        "WHERE d.chain_no = (SELECT no FROM chain WHERE name = $2) AND d.tx = $3
           AND CASE WHEN d.tx = $3 THEN d.tenant_id END = $1
         ORDER BY d.id"
    ))
    .bind(tenant)
    .bind(chain.as_str())
    .bind(tx.as_slice())
    .fetch_all(c)
    .await)?;
    all(rows)
}

/// A page of the tenant's deployments, newest first, those before `before`.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn list(
    conn: &mut Conn<'_>,
    tenant: TenantId,
    chain: Option<&ChainName>,
    status: Option<DeploymentStatus>,
    before: Option<SafeDeploymentId>,
    limit: i64,
) -> Result<Vec<Deployment>, StoreError> {
    let of_chain = " AND +chain_no = (SELECT no FROM chain WHERE name = $2)";
    let sql = format!(
        select_deployment!(
            "(SELECT * FROM safe_deployment
              WHERE tenant_id BETWEEN $1 AND $1 AND (tenant_id, id) < ($1, $4){}{}
              ORDER BY tenant_id DESC, id DESC LIMIT $5 + 0)",
            "ORDER BY d.id DESC"
        ),
        if chain.is_some() { of_chain } else { "" },
        if status.is_some() { " AND status = $3" } else { "" },
    );
    let rows: Vec<Raw> = on!(conn, c => sqlx::query_as(AssertSqlSafe(sql))
        .bind(tenant)
        .bind(chain.map(ChainName::as_str))
        .bind(status.map(DeploymentStatus::as_str))
        .bind(before.unwrap_or(SafeDeploymentId(Uuid::max())))
        .bind(limit)
        .fetch_all(c)
        .await)?;
    rows.into_iter().map(Deployment::try_from).collect()
}

/// The processing deployments of blocks above `fork`.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn processing_above(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    fork: u64,
) -> Result<Vec<Deployment>, StoreError> {
    all(on!(conn, c => sqlx::query_as(select_deployment!(
        "(SELECT * FROM safe_deployment
          WHERE chain_no = $1 AND status = 'processing' AND block_number > $2
          ORDER BY chain_no, block_number)",
        "ORDER BY d.id"
    ))
    .bind(chain.0)
    .bind(number(fork)?)
    .fetch_all(c)
    .await)?)
}

/// Writes a new deployment, or all of an old one that may change. [`StoreError::Stale`] if it is not the
/// revision that was read.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn write(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    change: &DeploymentChange,
) -> Result<(), StoreError> {
    let DeploymentChange { seen, now: row } = change;
    let (block_number, block_hash) = match row.block {
        Some(block) => (Some(number(block.number)?), Some(block.hash.0.to_vec())),
        None => (None, None),
    };
    let changed = on!(conn, c => sqlx::query(
        "INSERT INTO safe_deployment (id, tenant_id, chain_no, tx, found_by, status, reason, address,
             wallet_id, owner_wallet, version, singleton, owners, threshold, block_number, block_hash,
             sender, nonce, missing_since, look_at, looks, revision, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19,
                 $20, $21, $22, $23, $24)
         ON CONFLICT (id) DO UPDATE
         SET status = excluded.status, reason = excluded.reason, address = excluded.address,
             wallet_id = excluded.wallet_id, owner_wallet = excluded.owner_wallet,
             version = excluded.version, singleton = excluded.singleton, owners = excluded.owners,
             threshold = excluded.threshold, block_number = excluded.block_number,
             block_hash = excluded.block_hash, sender = excluded.sender, nonce = excluded.nonce,
             missing_since = excluded.missing_since, look_at = excluded.look_at, looks = excluded.looks,
             revision = excluded.revision, updated_at = excluded.updated_at
         WHERE safe_deployment.revision = $25",
    )
    .bind(row.id)
    .bind(row.tenant_id)
    .bind(chain.0)
    .bind(row.tx.as_slice())
    .bind(if row.found_by_owner { "owner" } else { "hash" })
    .bind(row.status.as_str())
    .bind(&row.reason)
    .bind(row.address.as_ref().map(Address::as_slice))
    .bind(row.wallet_id)
    .bind(row.owner_wallet)
    .bind(&row.version)
    .bind(row.singleton.as_ref().map(Address::as_slice))
    .bind(write_addresses(&row.owners))
    .bind(row.threshold.map(number).transpose()?)
    .bind(block_number)
    .bind(&block_hash)
    .bind(row.sender.as_ref().map(Address::as_slice))
    .bind(row.nonce.map(number).transpose()?)
    .bind(row.missing_since)
    .bind(row.look_at)
    .bind(i64::from(row.looks))
    .bind(row.revision)
    .bind(row.created_at)
    .bind(row.updated_at)
    // No revision is below zero: a deployment that is new to the caller is not to be there.
    .bind(seen.unwrap_or(-1))
    .execute(c)
    .await
    .map(|done| done.rows_affected()))?;
    if changed == 1 {
        Ok(())
    } else {
        Err(StoreError::Stale(format!("the deployment {} changed meanwhile", row.id)))
    }
}

/// How many Safes some owners have led to, by the owner's wallet.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn found_by_owners(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    owners: impl IntoIterator<Item = WalletId>,
) -> Result<HashMap<WalletId, u64>, StoreError> {
    let owners: Vec<WalletId> = owners.into_iter().collect();
    let owners = Blobs::of(owners.iter().map(|owner| owner.0.as_bytes().as_slice()));
    if owners.is_empty() {
        return Ok(HashMap::default());
    }
    // PostgreSQL compares UUIDs with UUIDs.
    let sql = match conn {
        Conn::Sqlite(_) => sets(
            conn,
            "SELECT owner_wallet, COUNT(*) FROM safe_deployment
             WHERE chain_no = $1 AND found_by = 'owner' AND owner_wallet IN blobs($2) GROUP BY owner_wallet",
        ),
        Conn::Postgres(_) => sets(
            conn,
            "SELECT o.id, (SELECT COUNT(*) FROM safe_deployment
                           WHERE chain_no = $1 AND found_by = 'owner' AND owner_wallet = o.id)
             FROM (SELECT encode(b, 'hex')::uuid AS id FROM unnest($2) AS b) AS o",
        ),
    };
    let rows: Vec<(WalletId, i64)> =
        on!(conn, c => sqlx::query_as(sql).bind(chain.0).bind(&owners).fetch_all(c).await)?;
    Ok(rows.into_iter().map(|(owner, count)| (owner, count.unsigned_abs())).collect())
}

/// What events show of a wallet's Safe: nothing, unless it was found by its owner.
///
/// # Errors
/// [`StoreError::Corrupt`] for owners that no Safe was written with.
pub(super) fn shown_safe(
    found_by_owner: bool,
    owners: Option<&str>,
    threshold: Option<i64>,
) -> Result<Option<ShownSafe>, StoreError> {
    let (true, Some(owners), Some(threshold)) = (found_by_owner, owners, threshold) else {
        return Ok(None);
    };
    Ok(Some(ShownSafe { owners: read_addresses(owners)?, threshold }))
}

/// Writes what was proven of a Safe to its wallet, which is of kind `safe` from then on. Events that were told
/// before go on to say what they said: the caller holds the tenant's row, see [`hold_tenants`].
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn write_proof(
    conn: &mut Conn<'_>,
    proof: &SafeProof,
    now: Millis,
) -> Result<(), StoreError> {
    let SafeProof { wallet, state, found_by_owner, .. } = proof;
    let (owners, threshold) = (write_addresses(&state.owners), state.threshold);
    on!(conn, c => sqlx::query(
        "INSERT INTO wallet_past (wallet_no, until_position, account_id, client_reference_id, safe_owners,
                                  safe_threshold)
         SELECT w.no, t.feed_position, w.account_id, w.client_reference_id, w.safe_owners, w.safe_threshold
         FROM wallet w JOIN tenant t ON t.id = w.tenant_id
         WHERE w.id = $1 AND w.found_by_owner AND (w.safe_owners <> $2 OR w.safe_threshold <> $3)
         ON CONFLICT (wallet_no, until_position) DO NOTHING",
    )
    .bind(wallet)
    .bind(&owners)
    .bind(threshold)
    .execute(c)
    .await
    .map(|_| ()))?;
    on!(conn, c => sqlx::query(
        "UPDATE wallet SET kind = 'safe', safe_version = $2, safe_singleton = $3, safe_owners = $4,
                           safe_threshold = $5, found_by_owner = (found_by_owner OR $6), updated_at = $7
         WHERE id = $1",
    )
    .bind(wallet)
    .bind(&state.version)
    .bind(state.singleton.as_slice())
    .bind(&owners)
    .bind(threshold)
    .bind(*found_by_owner)
    .bind(now)
    .execute(c)
    .await
    .map(|_| ()))?;
    Ok(())
}

/// Holds the rows of some tenants until commit, in the order in which [`super::event::append`] takes them: no
/// event is told of their wallets meanwhile.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn hold_tenants(
    conn: &mut Conn<'_>,
    tenants: &BTreeSet<TenantNo>,
) -> Result<(), StoreError> {
    for tenant in tenants {
        on!(conn, c => sqlx::query("UPDATE tenant SET feed_position = feed_position WHERE no = $1")
            .bind(tenant.0)
            .execute(c)
            .await
            .map(|_| ()))?;
    }
    Ok(())
}
