//! Challenges: messages that the owner of an address is to sign, each good for one use in its time.

use sqlx::FromRow;

use super::{Conn, StoreError, on};
use crate::{
    chain::{Address, ChainName, Family},
    clock::Millis,
    id::{ChallengeId, TenantId},
};

/// A message to be signed.
#[derive(Clone, Debug, FromRow)]
pub struct Challenge {
    pub id: ChallengeId,
    pub tenant_id: TenantId,
    #[sqlx(try_from = "String")]
    pub chain: ChainName,
    #[sqlx(try_from = "String")]
    pub family: Family,
    #[sqlx(try_from = "Vec<u8>")]
    pub address: Address,
    /// Byte for byte what is to be signed.
    pub message: String,
    pub created_at: Millis,
    /// The first millisecond in which it is too late.
    pub expires_at: Millis,
    /// When it was used.
    pub verified_at: Option<Millis>,
}

/// Writes a challenge that was not used yet.
///
/// # Errors
/// [`StoreError`] of the engine; the constraint `ownership_challenge_lives` if it never was valid.
pub async fn insert(conn: &mut Conn<'_>, row: &Challenge) -> Result<(), StoreError> {
    on!(conn, c => sqlx::query(
        "INSERT INTO ownership_challenge (id, tenant_id, chain, family, address, message, created_at,
                                          expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(row.id)
    .bind(row.tenant_id)
    .bind(row.chain.as_str())
    .bind(row.family.as_str())
    .bind(row.address.as_slice())
    .bind(&row.message)
    .bind(row.created_at)
    .bind(row.expires_at)
    .execute(c)
    .await
    .map(|_| ()))?;
    Ok(())
}

/// One challenge of a tenant.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn get(
    conn: &mut Conn<'_>,
    tenant: TenantId,
    id: ChallengeId,
) -> Result<Option<Challenge>, StoreError> {
    Ok(on!(conn, c => sqlx::query_as(
        "SELECT id, tenant_id, chain, family, address, message, created_at, expires_at, verified_at
         FROM ownership_challenge WHERE tenant_id = $1 AND id = $2",
    )
    .bind(tenant)
    .bind(id)
    .fetch_optional(c)
    .await)?)
}

/// Uses a challenge up. `false` if it was used before, perhaps a moment ago.
///
/// # Errors
/// [`StoreError`] of the engine; the constraint `ownership_challenge_verified_in_time` if it has expired.
pub async fn use_up(
    conn: &mut Conn<'_>,
    tenant: TenantId,
    id: ChallengeId,
    now: Millis,
) -> Result<bool, StoreError> {
    let changed = on!(conn, c => sqlx::query(
        "UPDATE ownership_challenge SET verified_at = $3
         WHERE tenant_id = $1 AND id = $2 AND verified_at IS NULL",
    )
    .bind(tenant)
    .bind(id)
    .bind(now)
    .execute(c)
    .await
    .map(|done| done.rows_affected()))?;
    Ok(changed == 1)
}
