//! Webhook endpoints: where a tenant wants its events, the secrets that sign them, and how the endpoint fares.

use sqlx::FromRow;

use super::{Conn, StoreError, on};
use crate::{
    clock::Millis,
    delivery::{DisabledReason, EndpointHealth},
    id::{EndpointId, TenantId},
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
    pub disabled_reason: Option<DisabledReason>,
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
        let disabled_reason = row.disabled_reason.map(DisabledReason::try_from);
        Ok(Self {
            id: row.id,
            tenant_id: row.tenant_id,
            url: row.url,
            events: serde_json::from_str(&row.events).map_err(StoreError::corrupt)?,
            description: row.description,
            ordered: row.ordered,
            failing_since: row.failing_since,
            disabled_at: row.disabled_at,
            disabled_reason: disabled_reason.transpose().map_err(StoreError::corrupt)?,
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

/// Where to send to, and the secrets valid at `now`, the newest first; `None` if the endpoint is disabled or
/// deleted.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn target(
    conn: &mut Conn<'_>,
    endpoint: EndpointId,
    now: Millis,
) -> Result<Option<(String, Vec<String>)>, StoreError> {
    let rows: Vec<(String, Option<String>)> = on!(conn, c => sqlx::query_as(
        "SELECT e.url, s.secret FROM webhook_endpoint e
         LEFT JOIN webhook_secret s
             ON s.endpoint_id = e.id AND (s.expires_at IS NULL OR s.expires_at > $2)
         WHERE e.id = $1 AND e.disabled_at IS NULL AND e.deleted_at IS NULL
         ORDER BY s.created_at DESC, s.secret",
    )
    .bind(endpoint)
    .bind(now)
    .fetch_all(c)
    .await)?;
    let (urls, secrets): (Vec<String>, Vec<Option<String>>) = rows.into_iter().unzip();
    Ok(urls.into_iter().next().map(|url| (url, secrets.into_iter().flatten().collect())))
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
         ORDER BY id DESC LIMIT $3 + 0",
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

/// Deletes an endpoint; `false` if it is gone. What waits for it is for `delivery::fail_pending` to end.
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
    Ok(changed == 1)
}

/// Notes that an attempt succeeded; writes only if the endpoint was failing.
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

/// Notes that an attempt failed; `None` if there is no such endpoint.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn note_failure(
    conn: &mut Conn<'_>,
    endpoint: EndpointId,
    now: Millis,
) -> Result<Option<EndpointHealth>, StoreError> {
    let health: Option<(Option<Millis>, bool)> = on!(conn, c => sqlx::query_as(
        "UPDATE webhook_endpoint SET failing_since = COALESCE(failing_since, $2) WHERE id = $1
         RETURNING failing_since, disabled_at IS NOT NULL OR deleted_at IS NOT NULL",
    )
    .bind(endpoint)
    .bind(now)
    .fetch_optional(c)
    .await)?;
    Ok(health.map(|(failing_since, closed)| EndpointHealth { failing_since, closed }))
}

/// Disables an endpoint; `false` if it already was, so that only one caller appends the event.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn disable(
    conn: &mut Conn<'_>,
    endpoint: EndpointId,
    reason: DisabledReason,
    now: Millis,
) -> Result<bool, StoreError> {
    let changed = on!(conn, c => sqlx::query(
        "UPDATE webhook_endpoint SET disabled_at = $2, disabled_reason = $3, updated_at = $2
         WHERE id = $1 AND disabled_at IS NULL AND deleted_at IS NULL",
    )
    .bind(endpoint)
    .bind(now)
    .bind(reason.as_str())
    .execute(c)
    .await
    .map(|done| done.rows_affected()))?;
    Ok(changed == 1)
}
