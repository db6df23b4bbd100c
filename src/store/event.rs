//! Appending events: ids, positions, sequences and deliveries, all in the caller's transaction.

use std::collections::BTreeMap;

use sqlx::{FromRow, QueryBuilder};

use super::{Conn, StoreError, on};
use crate::{
    clock::Millis,
    event::{self, NewEvent},
    id::{DeliveryId, EndpointId, EventId, Ids, TenantId, WalletId},
};

/// Events written by one statement; both engines take far more parameters.
const CHUNK: usize = 100;

/// A row of the table `event`, but for what all rows of one call share.
struct NewRow<'a> {
    position: i64,
    id: EventId,
    event: &'a NewEvent,
    sequence: Option<i64>,
    body: String,
}

#[derive(FromRow)]
struct Subscription {
    id: EndpointId,
    events: String,
}

/// Appends `events` in their order and a delivery of each to every endpoint that takes it. Holds the rows of
/// the tenants concerned until commit, in the order of their ids, so that feeds grow in commit order.
/// Call it last in a transaction, and once.
///
/// # Errors
/// [`StoreError`] of the engine; [`StoreError::Corrupt`] if a tenant or wallet does not exist.
pub async fn append(
    conn: &mut Conn<'_>,
    ids: &Ids,
    now: Millis,
    events: &[NewEvent],
) -> Result<Vec<EventId>, StoreError> {
    let mut made: Vec<Option<EventId>> = vec![None; events.len()];
    let mut by_tenant: BTreeMap<TenantId, Vec<usize>> = BTreeMap::new();
    for (index, event) in events.iter().enumerate() {
        by_tenant.entry(event.tenant).or_default().push(index);
    }
    for (tenant, indices) in by_tenant {
        let count = i64::try_from(indices.len()).map_err(StoreError::corrupt)?;
        let last = advance_feed(conn, tenant, count).await?;
        let mut sequences = advance_sequences(conn, events, &indices).await?;
        let subscriptions = subscriptions(conn, tenant).await?;
        let mut rows = Vec::with_capacity(indices.len());
        for (position, index) in (last - count + 1..).zip(indices) {
            let event = &events[index];
            let id: EventId = ids.next();
            let sequence = event.wallet.and_then(|wallet| {
                let next = sequences.get_mut(&wallet)?;
                *next += 1;
                Some(*next)
            });
            let body = event::body(id, event, sequence, now);
            rows.push(NewRow { position, id, event, sequence, body });
            made[index] = Some(id);
        }
        for chunk in rows.chunks(CHUNK) {
            insert_events(conn, tenant, now, chunk).await?;
        }
        for NewRow { id, event, sequence, .. } in rows {
            for (endpoint, patterns) in &subscriptions {
                if patterns.iter().any(|pattern| event::matches(pattern, event.kind)) {
                    insert_delivery(conn, ids, now, *endpoint, tenant, id, event.wallet, sequence)
                        .await?;
                }
            }
        }
    }
    Ok(made.into_iter().flatten().collect())
}

/// Writes events of one tenant in one statement.
async fn insert_events(
    conn: &mut Conn<'_>,
    tenant: TenantId,
    now: Millis,
    rows: &[NewRow<'_>],
) -> Result<(), StoreError> {
    on!(conn, c => {
        let mut query = QueryBuilder::new(
            "INSERT INTO event (tenant_id, position, id, type, wallet_id, sequence, body, created_at) ",
        );
        query.push_values(rows, |mut row, new| {
            row.push_bind(tenant)
                .push_bind(new.position)
                .push_bind(new.id)
                .push_bind(new.event.kind.as_str())
                .push_bind(new.event.wallet)
                .push_bind(new.sequence)
                .push_bind(&new.body)
                .push_bind(now);
        });
        query.build().execute(c).await.map(|_| ())
    })?;
    Ok(())
}

async fn advance_feed(conn: &mut Conn<'_>, tenant: TenantId, by: i64) -> Result<i64, StoreError> {
    on!(conn, c => sqlx::query_scalar(
        "UPDATE tenant SET feed_position = feed_position + $2 WHERE id = $1 RETURNING feed_position",
    )
    .bind(tenant)
    .bind(by)
    .fetch_optional(c)
    .await)?
    .ok_or_else(|| StoreError::corrupt(format!("an event for the unknown tenant {tenant}")))
}

/// Takes the sequences that the wallets' events need; gives the last one taken before each.
async fn advance_sequences(
    conn: &mut Conn<'_>,
    events: &[NewEvent],
    indices: &[usize],
) -> Result<BTreeMap<WalletId, i64>, StoreError> {
    let mut counts: BTreeMap<WalletId, i64> = BTreeMap::new();
    for wallet in indices.iter().filter_map(|&index| events[index].wallet) {
        *counts.entry(wallet).or_default() += 1;
    }
    for (wallet, count) in &mut counts {
        let last: Option<i64> = on!(conn, c => sqlx::query_scalar(
            "UPDATE wallet SET event_sequence = event_sequence + $2 WHERE id = $1
             RETURNING event_sequence",
        )
        .bind(*wallet)
        .bind(*count)
        .fetch_optional(c)
        .await)?;
        let last = last.ok_or_else(|| {
            StoreError::corrupt(format!("an event for the unknown wallet {wallet}"))
        })?;
        *count = last - *count;
    }
    Ok(counts)
}

async fn subscriptions(
    conn: &mut Conn<'_>,
    tenant: TenantId,
) -> Result<Vec<(EndpointId, Vec<String>)>, StoreError> {
    let rows: Vec<Subscription> = on!(conn, c => sqlx::query_as(
        "SELECT id, events FROM webhook_endpoint
         WHERE tenant_id = $1 AND disabled_at IS NULL AND deleted_at IS NULL ORDER BY id",
    )
    .bind(tenant)
    .fetch_all(c)
    .await)?;
    rows.into_iter()
        .map(|row| Ok((row.id, serde_json::from_str(&row.events).map_err(StoreError::corrupt)?)))
        .collect()
}

/// Puts one event on its way to one endpoint.
///
/// # Errors
/// [`StoreError`] of the engine.
#[expect(clippy::too_many_arguments, reason = "the columns of one row")]
pub async fn insert_delivery(
    conn: &mut Conn<'_>,
    ids: &Ids,
    now: Millis,
    endpoint: EndpointId,
    tenant: TenantId,
    event: EventId,
    wallet: Option<WalletId>,
    sequence: Option<i64>,
) -> Result<DeliveryId, StoreError> {
    let id: DeliveryId = ids.next();
    on!(conn, c => sqlx::query(
        "INSERT INTO delivery (id, endpoint_id, tenant_id, event_id, wallet_id, sequence, status,
                               next_attempt_at, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, 'pending', $7, $7)",
    )
    .bind(id)
    .bind(endpoint)
    .bind(tenant)
    .bind(event)
    .bind(wallet)
    .bind(sequence)
    .bind(now)
    .execute(c)
    .await
    .map(|_| ()))?;
    Ok(id)
}
