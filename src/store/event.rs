//! Appending events: positions, sequences and deliveries, all in the caller's transaction.

use std::collections::{BTreeMap, HashMap};

use sqlx::FromRow;

use super::{
    Conn, StoreError, code,
    delivery::{self, NewDelivery},
    on,
    rows::Table,
    set::{Blobs, sets},
};
use crate::{
    amount::Amount,
    clock::Millis,
    event::{self, EventType, EventWallet, NewEvent, Told},
    id::{EndpointId, Ids, TenantId, WalletId},
    model::{TenantNo, WalletNo},
};

/// SQLite adds what the wallet's sequence was before, see [`sequences`].
static EVENT: Table = Table::computed(
    "event",
    &[
        "tenant_no",
        "position",
        "events",
        "kind",
        "wallet_no",
        "sequence",
        "time",
        "transfer_no",
        "status",
        "settled",
        "incoming",
        "outgoing",
        "early",
        "locked",
        "head_number",
        "asset_version",
        "id",
        "data",
        "created_at",
    ],
    "sequence",
    "sequence + COALESCE((SELECT s.sequence FROM wallet_sequence s WHERE s.wallet_no = added.wallet_no), 0)",
);

static WALLET_SEQUENCE: Table = Table::upsert(
    "wallet_sequence",
    &["wallet_no", "sequence"],
    "ON CONFLICT (wallet_no) DO UPDATE SET sequence = wallet_sequence.sequence + excluded.sequence",
);

static TAKEN_SEQUENCE: Table = Table::upsert(
    "wallet_sequence",
    &["wallet_no", "sequence"],
    "ON CONFLICT (wallet_no) DO UPDATE SET sequence = wallet_sequence.sequence + excluded.sequence
     RETURNING wallet_no, sequence",
);

/// A row of the table `event`.
struct NewRow<'a> {
    /// Of its last event, like the sequence.
    position: i64,
    sequence: Option<i64>,
    wallet: Option<WalletNo>,
    events: i16,
    event: &'a NewEvent,
}

#[derive(FromRow)]
struct Subscription {
    id: EndpointId,
    events: String,
}

/// The number of a tenant.
///
/// # Errors
/// [`StoreError::Corrupt`] if there is no such tenant.
pub async fn tenant_no(conn: &mut Conn<'_>, tenant: TenantId) -> Result<TenantNo, StoreError> {
    let no: Option<i64> = on!(conn, c => sqlx::query_scalar("SELECT no FROM tenant WHERE id = $1")
        .bind(tenant)
        .fetch_optional(c)
        .await)?;
    no.map(TenantNo).ok_or_else(|| StoreError::corrupt(format!("no tenant {tenant}")))
}

/// Appends `events` in their order and a delivery of each to every endpoint that takes it. Holds the rows of
/// the tenants concerned until commit, in the order of their numbers, so that feeds grow in commit order.
/// Call it last in a transaction, and once.
///
/// # Errors
/// [`StoreError`] of the engine; [`StoreError::Corrupt`] if a tenant or wallet does not exist.
pub async fn append(
    conn: &mut Conn<'_>,
    ids: &Ids,
    now: Millis,
    events: &[NewEvent],
) -> Result<(), StoreError> {
    if events.is_empty() {
        return Ok(());
    }
    let wallets = wallet_numbers(conn, events).await?;
    let mut by_tenant: BTreeMap<TenantNo, Vec<&NewEvent>> = BTreeMap::new();
    for event in events {
        by_tenant.entry(event.tenant).or_default().push(event);
    }
    for (tenant, events) in by_tenant {
        let count: usize = events.iter().map(|event| event.kinds().count()).sum();
        let count = i64::try_from(count).map_err(StoreError::corrupt)?;
        let (tenant_id, last) = advance_feed(conn, tenant, count).await?;
        let mut position = last - count;
        let wallet_of = |event: &NewEvent| match event.wallet {
            Some(EventWallet::No(no)) => Some(no),
            Some(EventWallet::Id(id)) => wallets.get(&id).copied(),
            None => None,
        };
        let mut counts: BTreeMap<WalletNo, i64> = BTreeMap::new();
        for event in &events {
            if let Some(wallet) = wallet_of(event) {
                *counts.entry(wallet).or_default() += i64::from(told(event));
            }
        }
        let mut sequences = sequences(conn, &counts).await?;
        let rows: Vec<NewRow<'_>> = events
            .into_iter()
            .map(|event| {
                let events = told(event);
                position += i64::from(events);
                let wallet = wallet_of(event);
                let sequence = wallet.map(|wallet| {
                    let last = sequences.entry(wallet).or_default();
                    *last += i64::from(events);
                    *last
                });
                NewRow { position, sequence, wallet, events, event }
            })
            .collect();
        insert_events(conn, tenant, now, &rows).await?;
        if matches!(conn, Conn::Sqlite(_)) {
            advance_sequences(conn, &counts).await?;
        }
        let deliveries = deliveries(conn, tenant_id, &rows).await?;
        delivery::insert(conn, ids, now, tenant_id, &deliveries).await?;
    }
    Ok(())
}

/// How many events a row tells.
fn told(event: &NewEvent) -> i16 {
    if event.kinds().count() == 2 { 2 } else { 1 }
}

/// The numbers of the wallets that events name by their ids.
async fn wallet_numbers(
    conn: &mut Conn<'_>,
    events: &[NewEvent],
) -> Result<HashMap<WalletId, WalletNo>, StoreError> {
    let named: Vec<WalletId> = events
        .iter()
        .filter_map(|event| match event.wallet {
            Some(EventWallet::Id(id)) => Some(id),
            _ => None,
        })
        .collect();
    numbers(conn, &named).await
}

/// The numbers of wallets by their ids.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn numbers(
    conn: &mut Conn<'_>,
    ids: &[WalletId],
) -> Result<HashMap<WalletId, WalletNo>, StoreError> {
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    // PostgreSQL compares UUIDs with UUIDs.
    let sql = match conn {
        Conn::Sqlite(_) => sets(conn, "SELECT id, no FROM wallet WHERE id IN blobs($1)"),
        Conn::Postgres(_) => sets(
            conn,
            "SELECT id, no FROM wallet WHERE id IN (SELECT encode(b, 'hex')::uuid FROM unnest($1) AS b)",
        ),
    };
    let list = Blobs::of(ids.iter().map(|id| &id.0.as_bytes()[..]));
    let rows: Vec<(WalletId, i64)> =
        on!(conn, c => sqlx::query_as(sql).bind(&list).fetch_all(c).await)?;
    Ok(rows.into_iter().map(|(id, no)| (id, WalletNo(no))).collect())
}

/// Writes events of one tenant.
async fn insert_events(
    conn: &mut Conn<'_>,
    tenant: TenantNo,
    now: Millis,
    rows: &[NewRow<'_>],
) -> Result<(), StoreError> {
    EVENT
        .write(conn, rows, |row, new| {
            let (transfer, kind, data) = match &new.event.told {
                Told::Transfer(told) => (Some(told), told.kind, None),
                Told::Data { kind, id, data } => (None, *kind, Some((*id, data.as_str()))),
            };
            row.push(tenant.0)?;
            row.push(new.position)?;
            row.push(new.events)?;
            row.push(kind.code())?;
            row.push(new.wallet.map(|wallet| wallet.0))?;
            row.push(new.sequence)?;
            row.push(new.event.time)?;
            row.push(transfer.map(|told| told.transfer.0))?;
            row.push(transfer.map(|told| code::status(told.status)))?;
            row.push(transfer.and_then(|told| above_zero(told.position.settled)))?;
            row.push(transfer.and_then(|told| above_zero(told.position.incoming)))?;
            row.push(transfer.and_then(|told| above_zero(told.position.outgoing)))?;
            row.push(transfer.and_then(|told| above_zero(told.position.early)))?;
            row.push(transfer.and_then(|told| above_zero(told.locked)))?;
            row.push(transfer.map(|told| told.head.cast_signed()))?;
            row.push(transfer.map(|told| told.asset_version))?;
            row.push(data.map(|(id, _)| id))?;
            row.push(data.map(|(_, data)| data))?;
            row.push(now)
        })
        .await?;
    Ok(())
}

/// Zero is left out: of the five amounts of most events, that is four.
fn above_zero(amount: Amount) -> Option<Amount> {
    (!amount.is_zero()).then_some(amount)
}

async fn advance_feed(
    conn: &mut Conn<'_>,
    tenant: TenantNo,
    by: i64,
) -> Result<(TenantId, i64), StoreError> {
    on!(conn, c => sqlx::query_as(
        "UPDATE tenant SET feed_position = feed_position + $2 WHERE no = $1 RETURNING id, feed_position",
    )
    .bind(tenant.0)
    .bind(by)
    .fetch_optional(c)
    .await)?
    .ok_or_else(|| StoreError::corrupt(format!("an event for the unknown tenant no. {}", tenant.0)))
}

/// The sequences of wallets from which these events go on. PostgreSQL takes as many as are needed and tells the
/// last before them. To SQLite's driver a row that comes back is dear, and a look-up is cheap: there all go on
/// from 0, [`EVENT`] adds what was before, and [`advance_sequences`] comes after.
async fn sequences(
    conn: &mut Conn<'_>,
    counts: &BTreeMap<WalletNo, i64>,
) -> Result<HashMap<WalletNo, i64>, StoreError> {
    if matches!(conn, Conn::Sqlite(_)) {
        return Ok(HashMap::with_capacity(counts.len()));
    }
    let rows: Vec<(&WalletNo, &i64)> = counts.iter().collect();
    let taken: Vec<(i64, i64)> = TAKEN_SEQUENCE
        .write_returning(conn, &rows, |row, (wallet, count)| {
            row.push(wallet.0)?;
            row.push(**count)
        })
        .await?;
    if taken.len() != counts.len() {
        return Err(StoreError::corrupt("a wallet got no sequence"));
    }
    let before = |(wallet, last)| {
        let wallet = WalletNo(wallet);
        (wallet, last - counts.get(&wallet).copied().unwrap_or_default())
    };
    Ok(taken.into_iter().map(before).collect())
}

/// Counts the events that the wallets got.
async fn advance_sequences(
    conn: &mut Conn<'_>,
    counts: &BTreeMap<WalletNo, i64>,
) -> Result<(), StoreError> {
    let rows: Vec<(&WalletNo, &i64)> = counts.iter().collect();
    WALLET_SEQUENCE
        .write(conn, &rows, |row, (wallet, count)| {
            row.push(wallet.0)?;
            row.push(**count)
        })
        .await?;
    Ok(())
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

/// Who gets what; a test event goes only to the endpoint that it is for. Endpoints are read under the tenant's lock:
/// one that was made before takes part.
async fn deliveries(
    conn: &mut Conn<'_>,
    tenant: TenantId,
    rows: &[NewRow<'_>],
) -> Result<Vec<NewDelivery>, StoreError> {
    let subscriptions = subscriptions(conn, tenant).await?;
    let mut deliveries = Vec::new();
    if subscriptions.is_empty() {
        return Ok(deliveries);
    }
    for row in rows {
        // The first of two events stands one place before the row's own.
        let last = i64::from(row.events) - 1;
        let kinds = row.event.kinds().zip((0..=last).rev());
        for (kind, back) in kinds.filter(|(kind, _)| *kind != EventType::Test) {
            let (position, wallet) = (row.position - back, row.wallet);
            let takes = |patterns: &Vec<String>| {
                patterns.iter().any(|pattern| event::matches(pattern, kind))
            };
            let subscribed = subscriptions.iter().filter(|(_, patterns)| takes(patterns));
            deliveries.extend(subscribed.map(|(endpoint, _)| NewDelivery {
                endpoint: *endpoint,
                position,
                wallet,
            }));
        }
    }
    Ok(deliveries)
}
