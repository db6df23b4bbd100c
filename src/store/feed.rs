//! Reading events back: the feed, and what a replay sends again.

use sqlx::{AssertSqlSafe, FromRow};

use super::{Conn, StoreError, on};
use crate::{
    clock::Millis,
    event::EventType,
    id::{EventId, TenantId, WalletId},
};

/// One event as the feed lists it.
#[derive(Clone, Debug, FromRow)]
pub struct FeedRow {
    pub id: EventId,
    /// The JSON that consumers get.
    pub body: String,
}

/// What a delivery of an event needs to know of it.
#[derive(Clone, Copy, Debug, FromRow)]
pub struct EventRef {
    pub id: EventId,
    pub wallet_id: Option<WalletId>,
    pub sequence: Option<i64>,
}

/// The place of an event in its tenant's feed.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn position(
    conn: &mut Conn<'_>,
    tenant: TenantId,
    id: EventId,
) -> Result<Option<i64>, StoreError> {
    Ok(on!(conn, c => sqlx::query_scalar(
        "SELECT position FROM event WHERE id = $1 AND tenant_id = $2",
    )
    .bind(id)
    .bind(tenant)
    .fetch_optional(c)
    .await)?)
}

/// The types as a list for `IN`: they are words of this program, never input.
fn type_list(types: &[EventType]) -> String {
    let words: Vec<String> = types.iter().map(|kind| format!("'{}'", kind.as_str())).collect();
    words.join(", ")
}

/// The tenant's events after `position` in commit order, of all types if `types` is empty.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn after(
    conn: &mut Conn<'_>,
    tenant: TenantId,
    position: i64,
    types: &[EventType],
    limit: i64,
) -> Result<Vec<FeedRow>, StoreError> {
    let of_types = if types.is_empty() {
        String::new()
    } else {
        format!("AND type IN ({})", type_list(types))
    };
    let sql = format!(
        "SELECT id, body FROM event WHERE tenant_id = $1 AND position > $2 {of_types}
         ORDER BY position LIMIT $3"
    );
    Ok(on!(conn, c => sqlx::query_as(AssertSqlSafe(sql))
        .bind(tenant)
        .bind(position)
        .bind(limit)
        .fetch_all(c)
        .await)?)
}

/// # Errors
/// [`StoreError`] of the engine.
pub async fn event(
    conn: &mut Conn<'_>,
    tenant: TenantId,
    id: EventId,
) -> Result<Option<EventRef>, StoreError> {
    Ok(on!(conn, c => sqlx::query_as(
        "SELECT id, wallet_id, sequence FROM event WHERE id = $1 AND tenant_id = $2",
    )
    .bind(id)
    .bind(tenant)
    .fetch_optional(c)
    .await)?)
}

/// The tenant's events of those types with `from <= time < to`, in commit order.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn between(
    conn: &mut Conn<'_>,
    tenant: TenantId,
    from: Millis,
    to: Millis,
    types: &[EventType],
    limit: i64,
) -> Result<Vec<EventRef>, StoreError> {
    let sql = format!(
        "SELECT id, wallet_id, sequence FROM event
         WHERE tenant_id = $1 AND created_at >= $2 AND created_at < $3 AND type IN ({})
         ORDER BY position LIMIT $4",
        type_list(types)
    );
    Ok(on!(conn, c => sqlx::query_as(AssertSqlSafe(sql))
        .bind(tenant)
        .bind(from)
        .bind(to)
        .bind(limit)
        .fetch_all(c)
        .await)?)
}
