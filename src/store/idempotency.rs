//! The first answers to POSTs, kept so that a repeated request is not executed twice.

use sqlx::FromRow;

use super::{Conn, StoreError, on};
use crate::{clock::Millis, id::TenantId};

/// What was answered, and to which request.
#[derive(Clone, Debug, FromRow)]
pub struct FirstAnswer {
    pub request_hash: Vec<u8>,
    pub status: i32,
    pub body: String,
}

/// Takes a key for the transaction at hand. `false`: somebody else had it after `cutoff`; their answer
/// is in the store by now, because a transaction that has taken the key makes the next one wait.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn take(
    conn: &mut Conn<'_>,
    tenant: TenantId,
    key: &str,
    request_hash: &[u8; 32],
    now: Millis,
    cutoff: Millis,
) -> Result<bool, StoreError> {
    let changed = on!(conn, c => sqlx::query(
        "INSERT INTO idempotency_key (tenant_id, key, request_hash, status, body, created_at)
         VALUES ($1, $2, $3, 0, '', $4)
         ON CONFLICT (tenant_id, key) DO UPDATE
         SET request_hash = excluded.request_hash, status = excluded.status, body = excluded.body,
             created_at = excluded.created_at
         WHERE idempotency_key.created_at < $5",
    )
    .bind(tenant)
    .bind(key)
    .bind(&request_hash[..])
    .bind(now)
    .bind(cutoff)
    .execute(c)
    .await
    .map(|done| done.rows_affected()))?;
    Ok(changed == 1)
}

/// # Errors
/// [`StoreError`] of the engine.
pub async fn first_answer(
    conn: &mut Conn<'_>,
    tenant: TenantId,
    key: &str,
) -> Result<Option<FirstAnswer>, StoreError> {
    Ok(on!(conn, c => sqlx::query_as(
        "SELECT request_hash, status, body FROM idempotency_key WHERE tenant_id = $1 AND key = $2",
    )
    .bind(tenant)
    .bind(key)
    .fetch_optional(c)
    .await)?)
}

/// Keeps the answer with the key that the same transaction took.
///
/// # Errors
/// [`StoreError::Corrupt`] if the key was not taken.
pub async fn keep_answer(
    conn: &mut Conn<'_>,
    tenant: TenantId,
    key: &str,
    status: u16,
    body: &str,
) -> Result<(), StoreError> {
    let changed = on!(conn, c => sqlx::query(
        "UPDATE idempotency_key SET status = $3, body = $4 WHERE tenant_id = $1 AND key = $2",
    )
    .bind(tenant)
    .bind(key)
    .bind(i32::from(status))
    .bind(body)
    .execute(c)
    .await
    .map(|done| done.rows_affected()))?;
    if changed == 1 { Ok(()) } else { Err(StoreError::corrupt(format!("the key {key} vanished"))) }
}
