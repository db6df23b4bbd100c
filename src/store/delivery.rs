//! Deliveries on their way: what is due, who holds it, what came of it.
//!
//! A delivery is sent by whoever holds its lease, and only the holder's token may record what came of it.
//! An endpoint's health is changed before its deliveries, in every transaction that does both, so that two
//! of them never wait for each other.

use sqlx::FromRow;
use uuid::Uuid;

use super::{Conn, StoreError, on};
use crate::{
    clock::Millis,
    id::{DeliveryId, EndpointId, EventId, LeaseToken, TenantId},
};

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

/// An endpoint with at least one delivery that can be claimed now.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct DueEndpoint {
    pub id: EndpointId,
    /// Since when every attempt has failed.
    pub failing_since: Option<Millis>,
}

/// Until when somebody may send what they claimed, and the token by which they are known.
#[derive(Clone, Copy, Debug)]
pub struct Lease {
    pub token: LeaseToken,
    pub until: Millis,
}

/// A delivery that the holder of `token` may send.
#[derive(Clone, Debug)]
pub struct Claimed {
    pub id: DeliveryId,
    pub endpoint: EndpointId,
    pub tenant: TenantId,
    pub event: EventId,
    /// Attempts made before this one.
    pub attempts: i64,
    pub created_at: Millis,
    pub token: LeaseToken,
}

#[derive(FromRow)]
struct RawClaimed {
    id: DeliveryId,
    endpoint_id: EndpointId,
    tenant_id: TenantId,
    event_id: EventId,
    attempts: i64,
    created_at: Millis,
}

/// What is sent, and where to. Not printable: it holds secrets.
pub struct Letter {
    pub url: String,
    pub body: String,
    /// Those valid now, the newest first.
    pub secrets: Vec<String>,
}

/// One attempt, as it is listed to the tenant.
#[derive(Clone, Debug)]
pub struct AttemptRow {
    pub started_at: Millis,
    pub latency_ms: i64,
    pub status_code: Option<i64>,
    /// A short text without secrets or addresses.
    pub error: Option<String>,
}

/// Where a delivery stands after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Delivered,
    Failed,
    Again { at: Millis },
}

/// An endpoint's health as it stands after a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromRow)]
pub struct Health {
    pub failing_since: Option<Millis>,
    pub disabled_at: Option<Millis>,
    pub deleted_at: Option<Millis>,
}

/// What waits for an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromRow)]
pub struct Backlog {
    pub pending: i64,
    pub oldest: Option<Millis>,
}

/// The conditions under which delivery `d` to endpoint `e` can be claimed at the time `$1`.
macro_rules! claimable {
    () => {
        "e.disabled_at IS NULL AND e.deleted_at IS NULL
         AND d.status = 'pending' AND d.next_attempt_at <= $1
         AND (d.lease_until IS NULL OR d.lease_until <= $1)
         AND (NOT e.ordered OR d.wallet_id IS NULL OR NOT EXISTS (
             SELECT 1 FROM delivery p
             WHERE p.endpoint_id = d.endpoint_id AND p.wallet_id = d.wallet_id AND p.status = 'pending'
               AND (p.sequence, p.id) < (d.sequence, d.id)))"
    };
}

/// The claim; `$lock` is what differs between the engines.
macro_rules! claim_sql {
    ($lock:literal) => {
        concat!(
            // Materialized: PostgreSQL might run a plain subquery more than once, and pass its limit.
            "WITH due AS MATERIALIZED (
                 SELECT d.id FROM delivery d JOIN webhook_endpoint e ON e.id = d.endpoint_id
                 WHERE d.endpoint_id = $2 AND ",
            claimable!(),
            " ORDER BY d.next_attempt_at, d.id LIMIT $5 ",
            $lock,
            ")
             UPDATE delivery SET lease_token = $3, lease_until = $4
             WHERE id IN (SELECT id FROM due)
               AND status = 'pending' AND (lease_until IS NULL OR lease_until <= $1)
             RETURNING id, endpoint_id, tenant_id, event_id, attempts, created_at"
        )
    };
}

/// Endpoints after `after` that have something to claim, in the order of their ids.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn due_endpoints(
    conn: &mut Conn<'_>,
    now: Millis,
    after: Option<EndpointId>,
    limit: i64,
) -> Result<Vec<DueEndpoint>, StoreError> {
    Ok(on!(conn, c => sqlx::query_as(concat!(
        "SELECT e.id, e.failing_since FROM webhook_endpoint e
         WHERE e.id > $2
           AND EXISTS (SELECT 1 FROM delivery d WHERE d.endpoint_id = e.id AND ", claimable!(), ")
         ORDER BY e.id LIMIT $3",
    ))
    .bind(now)
    .bind(after.unwrap_or(EndpointId(Uuid::nil())))
    .bind(limit)
    .fetch_all(c)
    .await)?)
}

/// Leases up to `limit` deliveries of one endpoint that are due and nobody else's. At an ordered endpoint
/// an earlier pending delivery keeps the later ones of its wallet back.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn claim(
    conn: &mut Conn<'_>,
    endpoint: EndpointId,
    now: Millis,
    lease: Lease,
    limit: i64,
) -> Result<Vec<Claimed>, StoreError> {
    // SQLite has one writer. On PostgreSQL several claim at once, and none waits for rows another takes.
    let sql = match conn {
        Conn::Sqlite(_) => claim_sql!(""),
        Conn::Postgres(_) => claim_sql!("FOR UPDATE OF d SKIP LOCKED"),
    };
    let rows: Vec<RawClaimed> = on!(conn, c => sqlx::query_as(sql)
        .bind(now)
        .bind(endpoint)
        .bind(lease.token)
        .bind(lease.until)
        .bind(limit)
        .fetch_all(c)
        .await)?;
    let claimed = rows.into_iter().map(|row| Claimed {
        id: row.id,
        endpoint: row.endpoint_id,
        tenant: row.tenant_id,
        event: row.event_id,
        attempts: row.attempts,
        created_at: row.created_at,
        token: lease.token,
    });
    Ok(claimed.collect())
}

/// What a claimed delivery sends; `None` when its endpoint was closed meanwhile or its event is gone.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn letter(
    conn: &mut Conn<'_>,
    claimed: &Claimed,
    now: Millis,
) -> Result<Option<Letter>, StoreError> {
    let found: Option<(String, String)> = on!(conn, c => sqlx::query_as(
        "SELECT e.url, v.body FROM webhook_endpoint e JOIN event v ON v.id = $2
         WHERE e.id = $1 AND e.disabled_at IS NULL AND e.deleted_at IS NULL",
    )
    .bind(claimed.endpoint)
    .bind(claimed.event)
    .fetch_optional(c)
    .await)?;
    let Some((url, body)) = found else { return Ok(None) };
    let secrets = on!(conn, c => sqlx::query_scalar(
        "SELECT secret FROM webhook_secret
         WHERE endpoint_id = $1 AND (expires_at IS NULL OR expires_at > $2)
         ORDER BY created_at DESC, secret",
    )
    .bind(claimed.endpoint)
    .bind(now)
    .fetch_all(c)
    .await)?;
    Ok(Some(Letter { url, body, secrets }))
}

/// Records an attempt and ends its lease; `false`, and nothing changed, if the lease is not the delivery's
/// any more.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn record(
    conn: &mut Conn<'_>,
    claimed: &Claimed,
    attempt: &AttemptRow,
    standing: Standing,
    now: Millis,
) -> Result<bool, StoreError> {
    let (status, next, finished) = match standing {
        Standing::Delivered => ("delivered", None, Some(now)),
        Standing::Failed => ("failed", None, Some(now)),
        Standing::Again { at } => ("pending", Some(at), None),
    };
    let number: Option<i64> = on!(conn, c => sqlx::query_scalar(
        "UPDATE delivery
         SET status = $3, attempts = attempts + 1, next_attempt_at = COALESCE($4, next_attempt_at),
             finished_at = $5, lease_token = NULL, lease_until = NULL
         WHERE id = $1 AND lease_token = $2 AND status = 'pending'
         RETURNING attempts",
    )
    .bind(claimed.id)
    .bind(claimed.token)
    .bind(status)
    .bind(next)
    .bind(finished)
    .fetch_optional(c)
    .await)?;
    let Some(number) = number else { return Ok(false) };
    on!(conn, c => sqlx::query(
        "INSERT INTO delivery_attempt (delivery_id, attempt, started_at, latency_ms, status_code, error)
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(claimed.id)
    .bind(number)
    .bind(attempt.started_at)
    .bind(attempt.latency_ms)
    .bind(attempt.status_code)
    .bind(&attempt.error)
    .execute(c)
    .await
    .map(|_| ()))?;
    Ok(true)
}

/// Gives a claimed delivery back unsent; `false` if the lease is not the delivery's any more.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn release(conn: &mut Conn<'_>, claimed: &Claimed) -> Result<bool, StoreError> {
    let changed = on!(conn, c => sqlx::query(
        "UPDATE delivery SET lease_token = NULL, lease_until = NULL
         WHERE id = $1 AND lease_token = $2 AND status = 'pending'",
    )
    .bind(claimed.id)
    .bind(claimed.token)
    .execute(c)
    .await
    .map(|done| done.rows_affected()))?;
    Ok(changed == 1)
}

/// Gives back everything that was claimed: only for a daemon that knows itself to be the only one, when it
/// starts. What a killed process was sending is sent again at once.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn release_all(conn: &mut Conn<'_>) -> Result<(), StoreError> {
    on!(conn, c => sqlx::query(
        "UPDATE delivery SET lease_token = NULL, lease_until = NULL
         WHERE status = 'pending' AND lease_token IS NOT NULL",
    )
    .execute(c)
    .await
    .map(|_| ()))?;
    Ok(())
}

/// Notes a success of an endpoint; writes only if it was failing.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn note_success(conn: &mut Conn<'_>, endpoint: EndpointId) -> Result<(), StoreError> {
    on!(conn, c => sqlx::query(
        "UPDATE webhook_endpoint SET failing_since = NULL WHERE id = $1 AND failing_since IS NOT NULL",
    )
    .bind(endpoint)
    .execute(c)
    .await
    .map(|_| ()))?;
    Ok(())
}

/// Notes a failure of an endpoint; `None` if there is no such endpoint.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn note_failure(
    conn: &mut Conn<'_>,
    endpoint: EndpointId,
    now: Millis,
) -> Result<Option<Health>, StoreError> {
    Ok(on!(conn, c => sqlx::query_as(
        "UPDATE webhook_endpoint SET failing_since = COALESCE(failing_since, $2) WHERE id = $1
         RETURNING failing_since, disabled_at, deleted_at",
    )
    .bind(endpoint)
    .bind(now)
    .fetch_optional(c)
    .await)?)
}

/// Disables an endpoint; `false` if it already was, so that only one caller tells it.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn disable_endpoint(
    conn: &mut Conn<'_>,
    endpoint: EndpointId,
    reason: &str,
    now: Millis,
) -> Result<bool, StoreError> {
    let changed = on!(conn, c => sqlx::query(
        "UPDATE webhook_endpoint SET disabled_at = $2, disabled_reason = $3, updated_at = $2
         WHERE id = $1 AND disabled_at IS NULL AND deleted_at IS NULL",
    )
    .bind(endpoint)
    .bind(now)
    .bind(reason)
    .execute(c)
    .await
    .map(|done| done.rows_affected()))?;
    Ok(changed == 1)
}

/// Ends what waits for an endpoint that is disabled or deleted; returns how many. What is being sent now ends
/// by itself. All can be replayed.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn fail_pending(
    conn: &mut Conn<'_>,
    endpoint: EndpointId,
    now: Millis,
) -> Result<u64, StoreError> {
    Ok(on!(conn, c => sqlx::query(
        "UPDATE delivery
         SET status = 'failed', finished_at = $2, lease_token = NULL, lease_until = NULL
         WHERE endpoint_id = $1 AND status = 'pending' AND (lease_until IS NULL OR lease_until <= $2)",
    )
    .bind(endpoint)
    .bind(now)
    .execute(c)
    .await
    .map(|done| done.rows_affected()))?)
}

/// Disabled or deleted endpoints for which something waits all the same: it was told while they were being
/// closed, or its sender died.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn closed_with_pending(
    conn: &mut Conn<'_>,
    now: Millis,
    limit: i64,
) -> Result<Vec<EndpointId>, StoreError> {
    Ok(on!(conn, c => sqlx::query_scalar(
        "SELECT e.id FROM webhook_endpoint e
         WHERE (e.disabled_at IS NOT NULL OR e.deleted_at IS NOT NULL)
           AND EXISTS (SELECT 1 FROM delivery d WHERE d.endpoint_id = e.id AND d.status = 'pending'
                       AND (d.lease_until IS NULL OR d.lease_until <= $1))
         ORDER BY e.id LIMIT $2",
    )
    .bind(now)
    .bind(limit)
    .fetch_all(c)
    .await)?)
}

/// When the next delivery that is not due yet will be.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn next_due(conn: &mut Conn<'_>, now: Millis) -> Result<Option<Millis>, StoreError> {
    Ok(on!(conn, c => sqlx::query_scalar(
        "SELECT next_attempt_at FROM delivery WHERE status = 'pending' AND next_attempt_at > $1
         ORDER BY next_attempt_at LIMIT 1",
    )
    .bind(now)
    .fetch_optional(c)
    .await)?)
}

/// How many deliveries wait, and when the oldest was made.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn backlog(conn: &mut Conn<'_>) -> Result<Backlog, StoreError> {
    Ok(on!(conn, c => sqlx::query_as(
        "SELECT COUNT(*) AS pending, MIN(created_at) AS oldest FROM delivery WHERE status = 'pending'",
    )
    .fetch_one(c)
    .await)?)
}
