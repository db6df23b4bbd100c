//! Deliveries: what is due, who sends it, what came of it.
//!
//! A delivery is sent by the holder of its lease, and only the lease's token may record what came of it.
//! A transaction that changes an endpoint and its deliveries changes the endpoint first, so that two of them
//! never wait for each other.

use sqlx::FromRow;
use uuid::Uuid;

use super::{
    Conn, StoreError, endpoint,
    feed::{self, EventRef},
    on,
    rows::Table,
};
use crate::{
    clock::Millis,
    delivery::{Attempt, DeliveryOutcome, DeliveryStatus},
    id::{DeliveryId, EndpointId, EventId, Ids, LeaseToken, TenantId},
    model::WalletNo,
};

mod list;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use list::{DeliveryRow, list};

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

/// A delivery that the holder of its lease may send.
#[derive(Clone, Debug)]
pub struct Claimed {
    pub id: DeliveryId,
    pub endpoint: EndpointId,
    pub tenant: TenantId,
    /// The event's position in the tenant's feed.
    pub event_position: i64,
    /// Attempts made before this one.
    pub attempts: i64,
    pub created_at: Millis,
    pub lease: Lease,
}

#[derive(FromRow)]
struct RawClaimed {
    id: DeliveryId,
    endpoint_id: EndpointId,
    tenant_id: TenantId,
    event_position: i64,
    attempts: i64,
    created_at: Millis,
}

/// What is sent, and where to. Not printable: it holds secrets.
pub struct WebhookRequest {
    pub event: EventId,
    pub url: String,
    pub body: String,
    /// Those valid now, the newest first.
    pub secrets: Vec<String>,
}

/// What waits for an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromRow)]
pub struct Backlog {
    pub pending: i64,
    pub oldest: Option<Millis>,
}

/// A delivery to be written.
#[derive(Clone, Copy, Debug)]
pub struct NewDelivery {
    pub endpoint: EndpointId,
    /// The event's place in its tenant's feed.
    pub position: i64,
    /// Whose event it is, for endpoints that take a wallet's events in order.
    pub wallet: Option<WalletNo>,
}

impl NewDelivery {
    #[must_use]
    pub fn new(endpoint: EndpointId, event: &EventRef) -> Self {
        Self { endpoint, position: event.position, wallet: event.wallet }
    }
}

static DELIVERY: Table = Table::new(
    "delivery",
    &[
        "id",
        "endpoint_id",
        "tenant_id",
        "event_position",
        "wallet_no",
        "status",
        "next_attempt_at",
        "created_at",
    ],
);

/// Puts events of one tenant on their way; the ids in the order of `deliveries`.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn insert(
    conn: &mut Conn<'_>,
    ids: &Ids,
    now: Millis,
    tenant: TenantId,
    deliveries: &[NewDelivery],
) -> Result<Vec<DeliveryId>, StoreError> {
    let rows: Vec<(DeliveryId, &NewDelivery)> =
        deliveries.iter().map(|delivery| (ids.next(), delivery)).collect();
    DELIVERY
        .write(conn, &rows, |row, (id, NewDelivery { endpoint, position, wallet })| {
            row.push(*id)?;
            row.push(*endpoint)?;
            row.push(tenant)?;
            row.push(*position)?;
            row.push(wallet.map(|wallet| wallet.0))?;
            row.push(DeliveryStatus::Pending.as_str())?;
            row.push(now)?;
            row.push(now)
        })
        .await?;
    Ok(rows.into_iter().map(|(id, _)| id).collect())
}

/// The conditions under which delivery `d` to endpoint `e` can be claimed at the time `$1`.
macro_rules! claimable {
    () => {
        "e.disabled_at IS NULL AND e.deleted_at IS NULL
         AND d.status = 'pending' AND d.next_attempt_at <= $1
         AND (d.lease_until IS NULL OR d.lease_until <= $1)
         AND (NOT e.ordered OR d.wallet_no IS NULL OR NOT EXISTS (
             SELECT 1 FROM delivery p
             WHERE p.endpoint_id = d.endpoint_id AND p.wallet_no = d.wallet_no AND p.status = 'pending'
               AND (p.event_position, p.id) < (d.event_position, d.id)))"
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
            " ORDER BY d.next_attempt_at, d.id LIMIT $5 + 0 ",
            $lock,
            ")
             UPDATE delivery SET lease_token = $3, lease_until = $4
             WHERE id IN (SELECT id FROM due)
               AND status || '' = 'pending' AND (lease_until IS NULL OR lease_until <= $1)
             RETURNING id, endpoint_id, tenant_id, event_position, attempts, created_at"
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
         ORDER BY e.id LIMIT $3 + 0",
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
        event_position: row.event_position,
        attempts: row.attempts,
        created_at: row.created_at,
        lease,
    });
    Ok(claimed.collect())
}

/// What a claimed delivery sends; `None` when its endpoint was closed meanwhile or its event is gone.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn request(
    conn: &mut Conn<'_>,
    claimed: &Claimed,
    now: Millis,
) -> Result<Option<WebhookRequest>, StoreError> {
    let target = endpoint::target(conn, claimed.endpoint, now).await?;
    let Some((url, secrets)) = target else { return Ok(None) };
    let position = claimed.event_position;
    let mut told = feed::bodies(conn, claimed.tenant, &[position]).await?;
    let Some(told) = told.remove(&position) else { return Ok(None) };
    let (event, body) = (told.event.id, told.body.get().to_owned());
    Ok(Some(WebhookRequest { event, url, body, secrets }))
}

/// Records an attempt and ends its lease; `false`, and nothing changed, if the lease is not the delivery's
/// any more.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn record(
    conn: &mut Conn<'_>,
    claimed: &Claimed,
    attempt: &Attempt,
    outcome: DeliveryOutcome,
    now: Millis,
) -> Result<bool, StoreError> {
    let (next, finished) = match outcome {
        DeliveryOutcome::Delivered | DeliveryOutcome::Failed => (None, Some(now)),
        DeliveryOutcome::Retry { at } => (Some(at), None),
    };
    let changed = on!(conn, c => sqlx::query(
        "UPDATE delivery
         SET status = $3, attempts = $4, next_attempt_at = COALESCE($5, next_attempt_at),
             finished_at = $6, lease_token = NULL, lease_until = NULL
         WHERE id = $1 AND lease_token = $2 AND status || '' = 'pending'",
    )
    .bind(claimed.id)
    .bind(claimed.lease.token)
    .bind(outcome.status().as_str())
    .bind(attempt.number)
    .bind(next)
    .bind(finished)
    .execute(c)
    .await
    .map(|done| done.rows_affected()))?;
    if changed != 1 {
        return Ok(false);
    }
    on!(conn, c => sqlx::query(
        "INSERT INTO delivery_attempt (delivery_id, attempt, started_at, latency_ms, status_code, error)
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(claimed.id)
    .bind(attempt.number)
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
         WHERE id = $1 AND lease_token = $2 AND status || '' = 'pending'",
    )
    .bind(claimed.id)
    .bind(claimed.lease.token)
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
pub async fn release_all(conn: &mut Conn<'_>, now: Millis) -> Result<(), StoreError> {
    // Only what was due was claimed.
    on!(conn, c => sqlx::query(
        "UPDATE delivery SET lease_token = NULL, lease_until = NULL
         WHERE status = 'pending' AND next_attempt_at <= $1 AND lease_token IS NOT NULL",
    )
    .bind(now)
    .execute(c)
    .await
    .map(|_| ()))?;
    Ok(())
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
           AND (SELECT 1 FROM delivery d WHERE d.endpoint_id = e.id AND d.status = 'pending'
                  AND (d.lease_until IS NULL OR d.lease_until <= $1) LIMIT 1) IS NOT NULL
         ORDER BY e.id LIMIT $2 + 0",
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
        "SELECT COUNT(*) AS pending, MIN(created_at) AS oldest FROM delivery
         WHERE status = 'pending' AND next_attempt_at >= 0",
    )
    .fetch_one(c)
    .await)?)
}
