//! Safe deployments and the wallets they make, as the follower sees them.

use sqlx::{AssertSqlSafe, FromRow};

use super::{Conn, StoreError, chain::number, on};
use crate::{
    chain::{Address, BlockHash, BlockRef, ChainName, SafeProof, TxId, words},
    clock::Millis,
    id::{SafeDeploymentId, TenantId, WalletId},
};

words! {
    /// Where a deployment stands.
    DeploymentStatus {
        /// Not seen in a block.
        Pending = "pending",
        /// In a block that could still vanish.
        Processing = "processing",
        /// Proven at a settled block.
        Completed = "completed",
        Failed = "failed",
    }
}

/// A Safe on its way to being deployed.
#[derive(Clone, Debug)]
pub struct Deployment {
    pub id: SafeDeploymentId,
    pub tenant_id: TenantId,
    pub chain: ChainName,
    pub tx: TxId,
    pub found_by_owner: bool,
    pub status: DeploymentStatus,
    /// In a word, why it failed.
    pub reason: Option<String>,
    pub address: Option<Address>,
    pub wallet_id: Option<WalletId>,
    /// The registered owner's wallet that led to it.
    pub owner_wallet: Option<WalletId>,
    pub version: Option<String>,
    pub singleton: Option<Address>,
    pub owners: Vec<Address>,
    pub threshold: Option<u64>,
    pub block: Option<BlockRef>,
    pub sender: Option<Address>,
    pub nonce: Option<u64>,
    /// Since when no node knows the transaction.
    pub missing_since: Option<Millis>,
    pub created_at: Millis,
    pub updated_at: Millis,
}

impl Deployment {
    /// Takes over what the chain's state proved.
    pub fn prove(&mut self, address: Address, proof: &SafeProof) {
        self.address = Some(address);
        self.version = Some(proof.version.to_owned());
        self.singleton = Some(proof.singleton);
        self.owners.clone_from(&proof.owners);
        self.threshold = Some(proof.threshold);
    }
}

#[derive(FromRow)]
struct Raw {
    id: SafeDeploymentId,
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
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

macro_rules! columns {
    () => {
        "id, tenant_id, chain, tx, found_by, status, reason, address, wallet_id, owner_wallet, version,
         singleton, owners, threshold, block_number, block_hash, sender, nonce, missing_since, created_at,
         updated_at"
    };
}

/// The deployments that a chain's follower still has to judge.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn undecided(
    conn: &mut Conn<'_>,
    chain: &ChainName,
) -> Result<Vec<Deployment>, StoreError> {
    let rows: Vec<Raw> = on!(conn, c => sqlx::query_as(concat!(
        "SELECT ", columns!(), " FROM safe_deployment
         WHERE chain = $1 AND status IN ('pending', 'processing') ORDER BY id",
    ))
    .bind(chain.as_str())
    .fetch_all(c)
    .await)?;
    rows.into_iter().map(Deployment::try_from).collect()
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
        "INSERT INTO safe_deployment (id, tenant_id, chain, tx, found_by, status, created_at, updated_at)
         VALUES ($1, $2, $3, $4, 'hash', 'pending', $5, $5)",
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
    let row: Option<Raw> = on!(conn, c => sqlx::query_as(concat!(
        "SELECT ", columns!(), " FROM safe_deployment WHERE tenant_id = $1 AND id = $2",
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
    let rows: Vec<Raw> = on!(conn, c => sqlx::query_as(concat!(
        "SELECT ", columns!(), " FROM safe_deployment
         WHERE tenant_id = $1 AND chain = $2 AND tx = $3 ORDER BY id",
    ))
    .bind(tenant)
    .bind(chain.as_str())
    .bind(tx.as_slice())
    .fetch_all(c)
    .await)?;
    rows.into_iter().map(Deployment::try_from).collect()
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
    let mut sql =
        concat!("SELECT ", columns!(), " FROM safe_deployment WHERE tenant_id = $1").to_owned();
    if chain.is_some() {
        sql.push_str(" AND chain = $2");
    }
    if status.is_some() {
        sql.push_str(" AND status = $3");
    }
    if before.is_some() {
        sql.push_str(" AND id < $4");
    }
    sql.push_str(" ORDER BY id DESC LIMIT $5");
    let rows: Vec<Raw> = on!(conn, c => sqlx::query_as(AssertSqlSafe(sql))
        .bind(tenant)
        .bind(chain.map(ChainName::as_str))
        .bind(status.map(DeploymentStatus::as_str))
        .bind(before)
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
    chain: &ChainName,
    fork: u64,
) -> Result<Vec<Deployment>, StoreError> {
    let rows: Vec<Raw> = on!(conn, c => sqlx::query_as(concat!(
        "SELECT ", columns!(), " FROM safe_deployment
         WHERE chain = $1 AND status = 'processing' AND block_number > $2 ORDER BY id",
    ))
    .bind(chain.as_str())
    .bind(number(fork)?)
    .fetch_all(c)
    .await)?;
    rows.into_iter().map(Deployment::try_from).collect()
}

/// Writes a new deployment, or all of an old one that may change. `seen` is the `updated_at` that it was
/// read with (`None` for a new one): [`StoreError::Collision`] if it has another by now.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn write(
    conn: &mut Conn<'_>,
    row: &Deployment,
    seen: Option<(DeploymentStatus, Millis)>,
) -> Result<(), StoreError> {
    let (block_number, block_hash) = match row.block {
        Some(block) => (Some(number(block.number)?), Some(block.hash.0.to_vec())),
        None => (None, None),
    };
    let changed = if let Some((status, updated_at)) = seen {
        on!(conn, c => sqlx::query(
            "UPDATE safe_deployment
             SET status = $4, reason = $5, address = $6, wallet_id = $7, owner_wallet = $8, version = $9,
                 singleton = $10, owners = $11, threshold = $12, block_number = $13, block_hash = $14,
                 sender = $15, nonce = $16, missing_since = $17, updated_at = $18
             WHERE id = $1 AND status = $2 AND updated_at = $3",
        )
        .bind(row.id)
        .bind(status.as_str())
        .bind(updated_at)
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
        .bind(row.updated_at)
        .execute(c)
        .await
        .map(|done| done.rows_affected()))?
    } else {
        on!(conn, c => sqlx::query(
            "INSERT INTO safe_deployment (id, tenant_id, chain, tx, found_by, status, reason, address,
                 wallet_id, owner_wallet, version, singleton, owners, threshold, block_number, block_hash,
                 sender, nonce, missing_since, created_at, updated_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19,
                     $20, $21)",
        )
        .bind(row.id)
        .bind(row.tenant_id)
        .bind(row.chain.as_str())
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
        .bind(row.created_at)
        .bind(row.updated_at)
        .execute(c)
        .await
        .map(|done| done.rows_affected()))?
    };
    if changed == 1 {
        Ok(())
    } else {
        Err(StoreError::Collision(format!("the deployment {} changed meanwhile", row.id)))
    }
}

/// Writes what was proven of a Safe to its wallet, which is of kind `safe` from then on.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn write_proof(
    conn: &mut Conn<'_>,
    wallet: WalletId,
    proof: &SafeProof,
    now: Millis,
) -> Result<(), StoreError> {
    on!(conn, c => sqlx::query(
        "UPDATE wallet SET kind = 'safe', safe_version = $2, safe_singleton = $3, safe_owners = $4,
                           safe_threshold = $5, updated_at = $6
         WHERE id = $1",
    )
    .bind(wallet)
    .bind(proof.version)
    .bind(proof.singleton.as_slice())
    .bind(write_addresses(&proof.owners))
    .bind(number(proof.threshold)?)
    .bind(now)
    .execute(c)
    .await
    .map(|_| ()))?;
    Ok(())
}
