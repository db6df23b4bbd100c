//! Deleting what is past its time, in batches. How long what is kept is for `crate::retention` to decide.
//!
//! A batch is a range of a key that sorts by time: an id (`UUIDv7`), a position in a feed, or the time itself.
//! It examines a bounded number of rows and passes over those that must stay. Subqueries repeat the range, so
//! that no plan reads more than it.

use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::{Conn, StoreError, on};
use crate::{
    clock::Millis,
    id::{DeliveryId, TenantId},
    string_enum::string_enum,
};

#[cfg(test)]
mod tests;

string_enum! {
    /// The tables with a rule; the names are a metric's label.
    Table {
        DeliveryAttempt = "delivery_attempt",
        Delivery = "delivery",
        IdempotencyKey = "idempotency_key",
        WebhookSecret = "webhook_secret",
        OwnershipChallenge = "ownership_challenge",
        Event = "event",
        Transfer = "transfer",
    }
}

/// What a batch did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch<P> {
    pub deleted: u64,
    /// Where the next batch begins; `None` if no row was left to examine.
    pub next: Option<P>,
}

/// The smallest id that can have been made at `time`.
fn first_id(time: Millis) -> DeliveryId {
    let millis = u64::try_from(time.0).unwrap_or(0);
    DeliveryId(Uuid::from_u128(u128::from(millis) << 80))
}

/// The last key of the next `limit` rows in the order of the key, which `$sql` names; `None` if there is none.
macro_rules! last_key {
    ($conn:expr, $sql:expr, $after:expr, $before:expr, $limit:expr) => {
        on!($conn, c => sqlx::query_scalar($sql)
            .bind($after)
            .bind($before)
            .bind($limit)
            .fetch_optional(c)
            .await)?
    };
}

/// Deletes attempts of deliveries after `after` that ended before `before`. Examines `limit` attempts and
/// the rest of the last one's delivery.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn delete_attempts(
    conn: &mut Conn<'_>,
    after: DeliveryId,
    before: Millis,
    limit: i64,
) -> Result<Batch<DeliveryId>, StoreError> {
    let last: Option<DeliveryId> = last_key!(
        conn,
        "SELECT delivery_id FROM (
             SELECT delivery_id FROM delivery_attempt WHERE delivery_id > $1 AND delivery_id < $2
             ORDER BY delivery_id LIMIT $3 + 0) a
         ORDER BY delivery_id DESC LIMIT 1",
        after,
        first_id(before),
        limit
    );
    let Some(last) = last else { return Ok(Batch { deleted: 0, next: None }) };
    let deleted = on!(conn, c => sqlx::query(
        "DELETE FROM delivery_attempt WHERE delivery_id > $1 AND delivery_id <= $2
           AND EXISTS (SELECT 1 FROM delivery d
                       WHERE d.id = delivery_attempt.delivery_id AND d.id > $1 AND d.id <= $2
                         AND d.status <> 'pending' AND d.finished_at < $3)",
    )
    .bind(after)
    .bind(last)
    .bind(before)
    .execute(c)
    .await
    .map(|done| done.rows_affected()))?;
    Ok(Batch { deleted, next: Some(last) })
}

/// Deletes deliveries after `after` that ended before `before` and have no attempts any more. Examines
/// `limit` deliveries.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn delete_deliveries(
    conn: &mut Conn<'_>,
    after: DeliveryId,
    before: Millis,
    limit: i64,
) -> Result<Batch<DeliveryId>, StoreError> {
    let last: Option<DeliveryId> = last_key!(
        conn,
        "SELECT id FROM (SELECT id FROM delivery WHERE id > $1 AND id < $2 ORDER BY id LIMIT $3 + 0) d
         ORDER BY id DESC LIMIT 1",
        after,
        first_id(before),
        limit
    );
    let Some(last) = last else { return Ok(Batch { deleted: 0, next: None }) };
    let deleted = on!(conn, c => sqlx::query(
        "DELETE FROM delivery WHERE id > $1 AND id <= $2 AND status <> 'pending' AND finished_at < $3
           AND NOT EXISTS (SELECT 1 FROM delivery_attempt a
                           WHERE a.delivery_id = delivery.id
                             AND a.delivery_id > $1 AND a.delivery_id <= $2)",
    )
    .bind(after)
    .bind(last)
    .bind(before)
    .execute(c)
    .await
    .map(|done| done.rows_affected()))?;
    Ok(Batch { deleted, next: Some(last) })
}

/// Tables whose rows have one time at which they expire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiring {
    /// By when they were taken.
    IdempotencyKeys,
    /// Those that were rotated out.
    Secrets,
    /// Those that were never met; the others are proofs and stay.
    Challenges,
    /// Those that are no money: no entry, balance or event tells of them. What is pending stays.
    WorthlessTransfers,
}

impl Expiring {
    #[must_use]
    pub const fn table(self) -> Table {
        match self {
            Self::IdempotencyKeys => Table::IdempotencyKey,
            Self::Secrets => Table::WebhookSecret,
            Self::Challenges => Table::OwnershipChallenge,
            Self::WorthlessTransfers => Table::Transfer,
        }
    }

    /// The column with the time, and which rows have an end at all.
    const fn condition(self) -> (&'static str, &'static str) {
        match self {
            Self::IdempotencyKeys => ("created_at", "TRUE"),
            Self::Secrets => ("expires_at", "expires_at IS NOT NULL"),
            Self::Challenges => ("expires_at", "verified_at IS NULL"),
            Self::WorthlessTransfers => ("seen_at", "NOT counted AND status <> 1"),
        }
    }
}

/// Deletes the oldest rows with a time after `after` and before `before`: `limit` of them, and those of the
/// last one's millisecond.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn delete_expired(
    conn: &mut Conn<'_>,
    rows: Expiring,
    after: Millis,
    before: Millis,
    limit: i64,
) -> Result<Batch<Millis>, StoreError> {
    let (time, condition) = rows.condition();
    let table = rows.table();
    let sql = format!(
        "SELECT {time} FROM (
             SELECT {time} FROM {table} WHERE {condition} AND {time} > $1 AND {time} < $2
             ORDER BY {time} LIMIT $3 + 0) r
         ORDER BY {time} DESC LIMIT 1"
    );
    let last: Option<Millis> = last_key!(conn, AssertSqlSafe(sql), after, before, limit);
    let Some(last) = last else { return Ok(Batch { deleted: 0, next: None }) };
    let sql = format!("DELETE FROM {table} WHERE {condition} AND {time} > $1 AND {time} <= $2");
    let deleted = on!(conn, c => sqlx::query(AssertSqlSafe(sql))
        .bind(after)
        .bind(last)
        .execute(c)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(Batch { deleted, next: Some(last) })
}

/// Tenants after `after` whose oldest event is from before `before`, in the order of their ids.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn tenants_with_events(
    conn: &mut Conn<'_>,
    after: TenantId,
    before: Millis,
    limit: i64,
) -> Result<Vec<TenantId>, StoreError> {
    Ok(on!(conn, c => sqlx::query_scalar(
        "SELECT id FROM tenant
         WHERE id > $1
           AND EXISTS (SELECT 1 FROM event e WHERE e.tenant_no = tenant.no
                       AND e.position > tenant.feed_floor AND e.position <= tenant.feed_floor + 2
                       AND e.created_at < $2)
         ORDER BY id LIMIT $3 + 0",
    )
    .bind(after)
    .bind(before)
    .bind(limit)
    .fetch_all(c)
    .await)?)
}

/// The beginning of a tenant's feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedPage {
    /// Positions and times, in the order of the feed.
    pub events: Vec<(i64, Millis)>,
    /// The first event that a delivery waits for.
    pub waiting: Option<i64>,
}

/// The first `limit` events of a tenant's feed. Holds the tenant's row until commit, as whoever appends or
/// replays events does, so that no delivery of one of them can be added meanwhile.
///
/// # Errors
/// [`StoreError`] of the engine; [`StoreError::Corrupt`] if there is no such tenant.
pub async fn feed_page(
    conn: &mut Conn<'_>,
    tenant: TenantId,
    limit: i64,
) -> Result<FeedPage, StoreError> {
    let floor: Option<i64> = on!(conn, c => sqlx::query_scalar(
        "UPDATE tenant SET feed_floor = feed_floor WHERE id = $1 RETURNING feed_floor",
    )
    .bind(tenant)
    .fetch_optional(c)
    .await)?;
    let floor = floor.ok_or_else(|| StoreError::corrupt(format!("no tenant {tenant}")))?;
    let events = on!(conn, c => sqlx::query_as(
        "SELECT position, created_at FROM event
         WHERE tenant_no = (SELECT no FROM tenant WHERE id = $1) AND position > $2
         ORDER BY position LIMIT $3 + 0",
    )
    .bind(tenant)
    .bind(floor)
    .bind(limit)
    .fetch_all(c)
    .await)?;
    let waiting = on!(conn, c => sqlx::query_scalar(
        "SELECT event_position FROM delivery WHERE tenant_id = $1 AND status = 'pending'
         ORDER BY event_position LIMIT 1",
    )
    .bind(tenant)
    .fetch_optional(c)
    .await)?;
    Ok(FeedPage { events, waiting })
}

/// Deletes a tenant's events up to a position. Where the feed was cut stays in the tenant's row. Call it in the
/// transaction of [`feed_page`].
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn cut_feed(
    conn: &mut Conn<'_>,
    tenant: TenantId,
    through: i64,
) -> Result<u64, StoreError> {
    let sql = match conn {
        Conn::Sqlite(_) => {
            "DELETE FROM event
             WHERE tenant_no = (SELECT no FROM tenant WHERE id = $1) AND position <= $2
             RETURNING time"
        }
        // In the order of the one index that is meant: by the tenant alone several lead to all of its feed.
        Conn::Postgres(_) => {
            "DELETE FROM event
             WHERE ctid = ANY(ARRAY(
                 SELECT ctid FROM event
                 WHERE tenant_no = (SELECT no FROM tenant WHERE id = $1) AND position <= $2
                 ORDER BY position))
             RETURNING time"
        }
    };
    let times: Vec<Millis> = on!(conn, c => sqlx::query_scalar(sql)
    .bind(tenant)
    .bind(through)
    .fetch_all(c)
    .await)?;
    // Positions follow commits and times follow blocks: the last one need not have the greatest time.
    let greatest = times.iter().max().copied().unwrap_or(Millis(0));
    on!(conn, c => sqlx::query(
        "UPDATE tenant
         SET feed_floor = $2,
             feed_floor_time = CASE WHEN feed_floor_time < $3 THEN $3 ELSE feed_floor_time END
         WHERE id = $1",
    )
    .bind(tenant)
    .bind(through)
    .bind(greatest)
    .execute(c)
    .await
    .map(|_| ()))?;
    u64::try_from(times.len()).map_err(StoreError::corrupt)
}
