//! Tenants and their API keys. Only a key's SHA-256 is ever stored.

use sqlx::FromRow;

use super::{Conn, StoreError, on};
use crate::{
    clock::Millis,
    id::{KeyId, TenantId},
};

/// An API key as it can be shown: without the key.
#[derive(Clone, Debug, FromRow)]
pub struct KeyRow {
    pub id: KeyId,
    pub tenant_id: TenantId,
    pub tenant_name: String,
    /// Space-separated.
    pub scopes: String,
    pub created_at: Millis,
    pub revoked_at: Option<Millis>,
}

/// The tenant of that name, made if there is none.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn ensure_tenant(
    conn: &mut Conn<'_>,
    new: TenantId,
    name: &str,
    now: Millis,
) -> Result<TenantId, StoreError> {
    on!(conn, c => sqlx::query(
        "INSERT INTO tenant (id, name, created_at) VALUES ($1, $2, $3) ON CONFLICT (name) DO NOTHING",
    )
    .bind(new)
    .bind(name)
    .bind(now)
    .execute(c)
    .await
    .map(|_| ()))?;
    on!(conn, c => sqlx::query_scalar("SELECT id FROM tenant WHERE name = $1")
        .bind(name)
        .fetch_optional(c)
        .await)?
    .ok_or_else(|| StoreError::corrupt(format!("the tenant {name} vanished")))
}

/// Holds the tenant's row until commit, so that what is counted or looked for cannot change meanwhile.
///
/// # Errors
/// [`StoreError::Corrupt`] if there is no such tenant.
pub async fn lock_tenant(conn: &mut Conn<'_>, tenant: TenantId) -> Result<(), StoreError> {
    let changed = on!(conn, c => sqlx::query(
        "UPDATE tenant SET feed_position = feed_position WHERE id = $1",
    )
    .bind(tenant)
    .execute(c)
    .await
    .map(|done| done.rows_affected()))?;
    if changed == 1 { Ok(()) } else { Err(StoreError::corrupt(format!("no tenant {tenant}"))) }
}

/// # Errors
/// [`StoreError`] of the engine.
pub async fn insert_key(
    conn: &mut Conn<'_>,
    id: KeyId,
    tenant: TenantId,
    hash: &[u8; 32],
    scopes: &str,
    now: Millis,
) -> Result<(), StoreError> {
    on!(conn, c => sqlx::query(
        "INSERT INTO api_key (id, tenant_id, hash, scopes, created_at) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(id)
    .bind(tenant)
    .bind(&hash[..])
    .bind(scopes)
    .bind(now)
    .execute(c)
    .await
    .map(|_| ()))?;
    Ok(())
}

/// The key with that hash, unless it is revoked.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn valid_key(conn: &mut Conn<'_>, hash: &[u8; 32]) -> Result<Option<KeyRow>, StoreError> {
    Ok(on!(conn, c => sqlx::query_as(
        "SELECT k.id, k.tenant_id, t.name AS tenant_name, k.scopes, k.created_at, k.revoked_at
         FROM api_key k JOIN tenant t ON t.id = k.tenant_id
         WHERE k.hash = $1 AND k.revoked_at IS NULL",
    )
    .bind(&hash[..])
    .fetch_optional(c)
    .await)?)
}

/// All keys, or those of one tenant, oldest first.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn keys(conn: &mut Conn<'_>, tenant: Option<&str>) -> Result<Vec<KeyRow>, StoreError> {
    Ok(on!(conn, c => sqlx::query_as(
        "SELECT k.id, k.tenant_id, t.name AS tenant_name, k.scopes, k.created_at, k.revoked_at
         FROM api_key k JOIN tenant t ON t.id = k.tenant_id
         WHERE $1 IS NULL OR t.name = $1 ORDER BY k.id",
    )
    .bind(tenant)
    .fetch_all(c)
    .await)?)
}

/// Ends a key; `false` if there is none of that id, or it was revoked before.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn revoke_key(conn: &mut Conn<'_>, id: KeyId, now: Millis) -> Result<bool, StoreError> {
    let changed = on!(conn, c => sqlx::query(
        "UPDATE api_key SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL",
    )
    .bind(id)
    .bind(now)
    .execute(c)
    .await
    .map(|done| done.rows_affected()))?;
    Ok(changed == 1)
}
