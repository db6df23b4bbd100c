//! Webhook endpoints, their secrets, and the deliveries to them as a tenant sees them. Sending is the
//! dispatcher's work.

use sqlx::{AssertSqlSafe, FromRow};

use super::{Conn, StoreError, on};
use crate::{
    chain::words,
    clock::Millis,
    id::{DeliveryId, EndpointId, EventId, TenantId, WalletId},
};

/// Where a tenant wants its events.
#[derive(Clone, Debug)]
pub struct EndpointRow {
    pub id: EndpointId,
    pub tenant_id: TenantId,
    pub url: String,
    pub events: Vec<String>,
    pub description: Option<String>,
    pub ordered: bool,
    pub failing_since: Option<Millis>,
    pub disabled_at: Option<Millis>,
    pub disabled_reason: Option<String>,
    pub created_at: Millis,
    pub updated_at: Millis,
}

#[derive(FromRow)]
struct RawEndpoint {
    id: EndpointId,
    tenant_id: TenantId,
    url: String,
    events: String,
    description: Option<String>,
    ordered: bool,
    failing_since: Option<Millis>,
    disabled_at: Option<Millis>,
    disabled_reason: Option<String>,
    created_at: Millis,
    updated_at: Millis,
}

impl TryFrom<RawEndpoint> for EndpointRow {
    type Error = StoreError;

    fn try_from(row: RawEndpoint) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.id,
            tenant_id: row.tenant_id,
            url: row.url,
            events: serde_json::from_str(&row.events).map_err(StoreError::corrupt)?,
            description: row.description,
            ordered: row.ordered,
            failing_since: row.failing_since,
            disabled_at: row.disabled_at,
            disabled_reason: row.disabled_reason,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

/// # Errors
/// [`StoreError`] of the engine.
pub async fn insert(conn: &mut Conn<'_>, row: &EndpointRow) -> Result<(), StoreError> {
    let events = serde_json::to_string(&row.events).map_err(StoreError::corrupt)?;
    on!(conn, c => sqlx::query(
        "INSERT INTO webhook_endpoint (id, tenant_id, url, events, description, ordered, created_at,
                                       updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $7)",
    )
    .bind(row.id)
    .bind(row.tenant_id)
    .bind(&row.url)
    .bind(&events)
    .bind(&row.description)
    .bind(row.ordered)
    .bind(row.created_at)
    .execute(c)
    .await
    .map(|_| ()))?;
    Ok(())
}

/// # Errors
/// [`StoreError`] of the engine.
pub async fn insert_secret(
    conn: &mut Conn<'_>,
    endpoint: EndpointId,
    secret: &str,
    now: Millis,
) -> Result<(), StoreError> {
    on!(conn, c => sqlx::query(
        "INSERT INTO webhook_secret (endpoint_id, secret, created_at) VALUES ($1, $2, $3)",
    )
    .bind(endpoint)
    .bind(secret)
    .bind(now)
    .execute(c)
    .await
    .map(|_| ()))?;
    Ok(())
}

/// Lets the secrets that would be valid for ever, or for longer, end at `end`.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn expire_secrets(
    conn: &mut Conn<'_>,
    endpoint: EndpointId,
    end: Millis,
) -> Result<(), StoreError> {
    on!(conn, c => sqlx::query(
        "UPDATE webhook_secret SET expires_at = $2
         WHERE endpoint_id = $1 AND (expires_at IS NULL OR expires_at > $2)",
    )
    .bind(endpoint)
    .bind(end)
    .execute(c)
    .await
    .map(|_| ()))?;
    Ok(())
}

/// A page of the tenant's endpoints, newest first, those before `before`.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn list(
    conn: &mut Conn<'_>,
    tenant: TenantId,
    before: Option<EndpointId>,
    limit: i64,
) -> Result<Vec<EndpointRow>, StoreError> {
    let rows: Vec<RawEndpoint> = on!(conn, c => sqlx::query_as(
        "SELECT id, tenant_id, url, events, description, ordered, failing_since, disabled_at,
                disabled_reason, created_at, updated_at
         FROM webhook_endpoint
         WHERE tenant_id = $1 AND deleted_at IS NULL AND ($2 IS NULL OR id < $2)
         ORDER BY id DESC LIMIT $3",
    )
    .bind(tenant)
    .bind(before)
    .bind(limit)
    .fetch_all(c)
    .await)?;
    rows.into_iter().map(EndpointRow::try_from).collect()
}

/// # Errors
/// [`StoreError`] of the engine.
pub async fn by_id(
    conn: &mut Conn<'_>,
    tenant: TenantId,
    id: EndpointId,
) -> Result<Option<EndpointRow>, StoreError> {
    let row: Option<RawEndpoint> = on!(conn, c => sqlx::query_as(
        "SELECT id, tenant_id, url, events, description, ordered, failing_since, disabled_at,
                disabled_reason, created_at, updated_at
         FROM webhook_endpoint WHERE id = $1 AND tenant_id = $2 AND deleted_at IS NULL",
    )
    .bind(id)
    .bind(tenant)
    .fetch_optional(c)
    .await)?;
    row.map(EndpointRow::try_from).transpose()
}

/// Deletes an endpoint; `false` if it is gone. What was on its way to it is not sent any more.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn delete(
    conn: &mut Conn<'_>,
    tenant: TenantId,
    id: EndpointId,
    now: Millis,
) -> Result<bool, StoreError> {
    let changed = on!(conn, c => sqlx::query(
        "UPDATE webhook_endpoint SET deleted_at = $3, updated_at = $3
         WHERE id = $1 AND tenant_id = $2 AND deleted_at IS NULL",
    )
    .bind(id)
    .bind(tenant)
    .bind(now)
    .execute(c)
    .await
    .map(|done| done.rows_affected()))?;
    if changed != 1 {
        return Ok(false);
    }
    on!(conn, c => sqlx::query(
        "UPDATE delivery SET status = 'failed', finished_at = $2
         WHERE endpoint_id = $1 AND status = 'pending'",
    )
    .bind(id)
    .bind(now)
    .execute(c)
    .await
    .map(|_| ()))?;
    Ok(true)
}

words! {
    DeliveryStatus {
        Pending = "pending",
        Delivered = "delivered",
        Failed = "failed",
    }
}

/// One attempt to deliver.
#[derive(Clone, Debug)]
pub struct AttemptRow {
    pub attempt: i64,
    pub started_at: Millis,
    pub latency_ms: i64,
    pub status_code: Option<i64>,
    pub error: Option<String>,
}

/// One event on its way to one endpoint, with all attempts so far.
#[derive(Clone, Debug)]
pub struct DeliveryRow {
    pub id: DeliveryId,
    pub event_id: EventId,
    pub event_type: String,
    pub wallet_id: Option<WalletId>,
    pub sequence: Option<i64>,
    pub status: DeliveryStatus,
    pub next_attempt_at: Millis,
    pub created_at: Millis,
    pub finished_at: Option<Millis>,
    pub attempts: Vec<AttemptRow>,
}

#[derive(FromRow)]
struct RawDelivery {
    id: DeliveryId,
    event_id: EventId,
    event_type: String,
    wallet_id: Option<WalletId>,
    sequence: Option<i64>,
    #[sqlx(try_from = "String")]
    status: DeliveryStatus,
    next_attempt_at: Millis,
    created_at: Millis,
    finished_at: Option<Millis>,
    attempt: Option<i64>,
    started_at: Option<Millis>,
    latency_ms: Option<i64>,
    status_code: Option<i64>,
    error: Option<String>,
}

/// A page of the deliveries to an endpoint, newest first, those before `before`.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn deliveries(
    conn: &mut Conn<'_>,
    tenant: TenantId,
    endpoint: EndpointId,
    status: Option<DeliveryStatus>,
    before: Option<DeliveryId>,
    limit: i64,
) -> Result<Vec<DeliveryRow>, StoreError> {
    let sql = format!(
        "SELECT d.id, d.event_id, e.type AS event_type, d.wallet_id, d.sequence, d.status,
                d.next_attempt_at, d.created_at, d.finished_at,
                a.attempt, a.started_at, a.latency_ms, a.status_code, a.error
         FROM (SELECT * FROM delivery WHERE tenant_id = $1 AND endpoint_id = $2 {} {}
               ORDER BY id DESC LIMIT $5) d
         JOIN event e ON e.id = d.event_id
         LEFT JOIN delivery_attempt a ON a.delivery_id = d.id
         ORDER BY d.id DESC, a.attempt",
        if status.is_some() { "AND status = $3" } else { "" },
        if before.is_some() { "AND id < $4" } else { "" },
    );
    let rows: Vec<RawDelivery> = on!(conn, c => sqlx::query_as(AssertSqlSafe(sql))
        .bind(tenant)
        .bind(endpoint)
        .bind(status.map(DeliveryStatus::as_str))
        .bind(before)
        .bind(limit)
        .fetch_all(c)
        .await)?;
    let mut deliveries: Vec<DeliveryRow> = Vec::new();
    for row in rows {
        let attempt = row.attempt.zip(row.started_at).zip(row.latency_ms).map(
            |((attempt, started_at), latency_ms)| AttemptRow {
                attempt,
                started_at,
                latency_ms,
                status_code: row.status_code,
                error: row.error,
            },
        );
        if deliveries.last().is_none_or(|last| last.id != row.id) {
            deliveries.push(DeliveryRow {
                id: row.id,
                event_id: row.event_id,
                event_type: row.event_type,
                wallet_id: row.wallet_id,
                sequence: row.sequence,
                status: row.status,
                next_attempt_at: row.next_attempt_at,
                created_at: row.created_at,
                finished_at: row.finished_at,
                attempts: Vec::new(),
            });
        }
        if let Some(delivery) = deliveries.last_mut() {
            delivery.attempts.extend(attempt);
        }
    }
    Ok(deliveries)
}

/// The delivery of an event that the same transaction appended, to this endpoint and to no other.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn keep_only(
    conn: &mut Conn<'_>,
    event: EventId,
    endpoint: EndpointId,
) -> Result<Option<DeliveryId>, StoreError> {
    on!(conn, c => sqlx::query("DELETE FROM delivery WHERE event_id = $1 AND endpoint_id <> $2")
        .bind(event)
        .bind(endpoint)
        .execute(c)
        .await
        .map(|_| ()))?;
    Ok(on!(conn, c => sqlx::query_scalar("SELECT id FROM delivery WHERE event_id = $1")
        .bind(event)
        .fetch_optional(c)
        .await)?)
}
