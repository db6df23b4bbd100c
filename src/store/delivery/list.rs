//! Deliveries as a tenant lists them, each with its attempts.

use sqlx::{AssertSqlSafe, FromRow};
use uuid::Uuid;

use crate::{
    clock::Millis,
    delivery::{Attempt, DeliveryStatus},
    event::EventType,
    id::{DeliveryId, EndpointId, EventId, TenantId, WalletId},
    store::{
        Conn, StoreError,
        feed::{self, FeedRow},
        on,
    },
};

/// One event on its way to one endpoint, with all attempts so far.
#[derive(Clone, Debug)]
pub struct DeliveryRow {
    pub id: DeliveryId,
    pub event_id: EventId,
    pub event_type: EventType,
    pub wallet_id: Option<WalletId>,
    pub sequence: Option<i64>,
    pub status: DeliveryStatus,
    pub next_attempt_at: Millis,
    pub created_at: Millis,
    pub finished_at: Option<Millis>,
    pub attempts: Vec<Attempt>,
}

#[derive(FromRow)]
struct RawDelivery {
    id: DeliveryId,
    event_position: i64,
    wallet_id: Option<WalletId>,
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

/// A page of the deliveries to an endpoint, newest first, those before `before`. One whose event was deleted
/// by its age is not listed any more. Call it in a snapshot.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn list(
    conn: &mut Conn<'_>,
    tenant: TenantId,
    endpoint: EndpointId,
    status: Option<DeliveryStatus>,
    before: Option<DeliveryId>,
    limit: i64,
) -> Result<Vec<DeliveryRow>, StoreError> {
    let sql = format!(
        "SELECT d.id, d.event_position, w.id AS wallet_id, d.status, d.next_attempt_at, d.created_at,
                d.finished_at, a.attempt, a.started_at, a.latency_ms, a.status_code, a.error
         FROM (SELECT * FROM delivery
               WHERE endpoint_id BETWEEN $2 AND $2 AND (endpoint_id, id) < ($2, $4) AND tenant_id = $1
                 AND event_position > (SELECT feed_floor FROM tenant WHERE id = $1) {}
               ORDER BY endpoint_id DESC, id DESC LIMIT $5 + 0) d
         LEFT JOIN wallet w ON w.no = d.wallet_no
         LEFT JOIN delivery_attempt a ON a.delivery_id = d.id
         ORDER BY d.id DESC, a.attempt",
        if status.is_some() { "AND status = $3" } else { "" },
    );
    let rows: Vec<RawDelivery> = on!(conn, c => sqlx::query_as(AssertSqlSafe(sql))
        .bind(tenant)
        .bind(endpoint)
        .bind(status.map(DeliveryStatus::as_str))
        .bind(before.unwrap_or(DeliveryId(Uuid::max())))
        .bind(limit)
        .fetch_all(c)
        .await)?;
    let positions: Vec<i64> = rows.iter().map(|row| row.event_position).collect();
    let events = feed::bodies(conn, tenant, &positions).await?;
    let mut deliveries: Vec<DeliveryRow> = Vec::new();
    for row in rows {
        let Some(FeedRow { event, .. }) = events.get(&row.event_position) else {
            return Err(StoreError::corrupt(format!("the delivery {} without its event", row.id)));
        };
        let attempt = row.attempt.zip(row.started_at).zip(row.latency_ms).map(
            |((number, started_at), latency_ms)| Attempt {
                number,
                started_at,
                latency_ms,
                status_code: row.status_code,
                error: row.error,
            },
        );
        if deliveries.last().is_none_or(|last| last.id != row.id) {
            deliveries.push(DeliveryRow {
                id: row.id,
                event_id: event.id,
                event_type: event.kind,
                wallet_id: row.wallet_id,
                sequence: event.sequence,
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
