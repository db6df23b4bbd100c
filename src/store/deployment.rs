//! Safe deployments as a tenant sees them. What a deployment becomes is written by the ledger.

use sqlx::{AssertSqlSafe, FromRow};

use super::{Conn, StoreError, on};
use crate::{
    chain::{Address, BlockHash, BlockRef, ChainName, TxId, words},
    clock::Millis,
    id::{SafeDeploymentId, TenantId, WalletId},
};

words! {
    /// Where a Safe's deployment stands.
    DeploymentStatus {
        Pending = "pending",
        /// Seen in a block that could still vanish.
        Processing = "processing",
        Completed = "completed",
        Failed = "failed",
    }
}

/// A Safe on its way to being deployed.
#[derive(Clone, Debug)]
pub struct DeploymentRow {
    pub id: SafeDeploymentId,
    pub tenant_id: TenantId,
    pub chain: ChainName,
    pub tx: TxId,
    pub status: DeploymentStatus,
    pub reason: Option<String>,
    pub address: Option<Address>,
    pub wallet_id: Option<WalletId>,
    pub version: Option<String>,
    pub singleton: Option<Address>,
    /// As the family writes them.
    pub owners: Vec<String>,
    pub threshold: Option<i64>,
    pub block: Option<BlockRef>,
    pub created_at: Millis,
    pub updated_at: Millis,
}

#[derive(FromRow)]
struct RawDeployment {
    id: SafeDeploymentId,
    tenant_id: TenantId,
    #[sqlx(try_from = "String")]
    chain: ChainName,
    #[sqlx(try_from = "Vec<u8>")]
    tx: TxId,
    #[sqlx(try_from = "String")]
    status: DeploymentStatus,
    reason: Option<String>,
    address: Option<Vec<u8>>,
    wallet_id: Option<WalletId>,
    version: Option<String>,
    singleton: Option<Vec<u8>>,
    owners: String,
    threshold: Option<i64>,
    block_number: Option<i64>,
    block_hash: Option<Vec<u8>>,
    created_at: Millis,
    updated_at: Millis,
}

impl TryFrom<RawDeployment> for DeploymentRow {
    type Error = StoreError;

    fn try_from(row: RawDeployment) -> Result<Self, StoreError> {
        let block = match (row.block_number, row.block_hash) {
            (Some(number), Some(hash)) => Some(BlockRef {
                number: u64::try_from(number).map_err(StoreError::corrupt)?,
                hash: BlockHash::try_from(hash).map_err(StoreError::corrupt)?,
            }),
            _ => None,
        };
        Ok(Self {
            id: row.id,
            tenant_id: row.tenant_id,
            chain: row.chain,
            tx: row.tx,
            status: row.status,
            reason: row.reason,
            address: row.address.as_deref().and_then(Address::from_slice),
            wallet_id: row.wallet_id,
            version: row.version,
            singleton: row.singleton.as_deref().and_then(Address::from_slice),
            owners: serde_json::from_str(&row.owners).map_err(StoreError::corrupt)?,
            threshold: row.threshold,
            block,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

macro_rules! deployment_columns {
    () => {
        "id, tenant_id, chain, tx, status, reason, address, wallet_id, version, singleton, owners,
         threshold, block_number, block_hash, created_at, updated_at"
    };
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

/// # Errors
/// [`StoreError`] of the engine.
pub async fn by_id(
    conn: &mut Conn<'_>,
    tenant: TenantId,
    id: SafeDeploymentId,
) -> Result<Option<DeploymentRow>, StoreError> {
    let row: Option<RawDeployment> = on!(conn, c => sqlx::query_as(concat!(
        "SELECT ", deployment_columns!(), " FROM safe_deployment WHERE id = $1 AND tenant_id = $2",
    ))
    .bind(id)
    .bind(tenant)
    .fetch_optional(c)
    .await)?;
    row.map(DeploymentRow::try_from).transpose()
}

/// The tenant's oldest deployment in that transaction.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn by_tx(
    conn: &mut Conn<'_>,
    tenant: TenantId,
    chain: &ChainName,
    tx: &TxId,
) -> Result<Option<DeploymentRow>, StoreError> {
    let row: Option<RawDeployment> = on!(conn, c => sqlx::query_as(concat!(
        "SELECT ", deployment_columns!(), " FROM safe_deployment
         WHERE tenant_id = $1 AND chain = $2 AND tx = $3 ORDER BY id LIMIT 1",
    ))
    .bind(tenant)
    .bind(chain.as_str())
    .bind(tx.as_slice())
    .fetch_optional(c)
    .await)?;
    row.map(DeploymentRow::try_from).transpose()
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
) -> Result<Vec<DeploymentRow>, StoreError> {
    let mut sql =
        concat!("SELECT ", deployment_columns!(), " FROM safe_deployment WHERE tenant_id = $1")
            .to_owned();
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
    let rows: Vec<RawDeployment> = on!(conn, c => sqlx::query_as(AssertSqlSafe(sql))
        .bind(tenant)
        .bind(chain.map(ChainName::as_str))
        .bind(status.map(DeploymentStatus::as_str))
        .bind(before)
        .bind(limit)
        .fetch_all(c)
        .await)?;
    rows.into_iter().map(DeploymentRow::try_from).collect()
}
