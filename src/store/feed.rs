//! Reading events back: the feed, what a replay sends again, and the JSON that consumers get.
//!
//! A row holds facts; the JSON is made of them and of rows that never change, so an event is always the same
//! bytes. One row can tell two events, at neighbouring positions.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::value::RawValue;
use sqlx::{AssertSqlSafe, FromRow};

use super::{
    Conn, StoreError, asset, code, on,
    safe::shown_safe,
    set::{Ints, sets},
    transfer::{RawTransfer, select_transfer},
};
use crate::{
    amount::Amount,
    chain::{Address, Family},
    clock::Millis,
    event::{Body, EventType, TransferFacts, transfer_event_id},
    id::{AccountId, EventId, TenantId, WalletId},
    model::{AssetNo, Position, Status, Transfer, TransferNo, WalletNo, WalletRef},
};

/// What a delivery of an event needs to know of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventRef {
    pub id: EventId,
    pub kind: EventType,
    pub position: i64,
    pub wallet: Option<WalletNo>,
    pub sequence: Option<i64>,
}

/// One event as the feed lists it.
#[derive(Clone, Debug)]
pub struct FeedRow {
    pub event: EventRef,
    /// The JSON that consumers get.
    pub body: Box<RawValue>,
}

#[derive(Clone, Debug, FromRow)]
struct RawEvent {
    position: i64,
    events: i16,
    kind: i16,
    wallet_no: Option<i64>,
    sequence: Option<i64>,
    time: Millis,
    transfer_no: Option<i64>,
    status: Option<i16>,
    settled: Option<Amount>,
    incoming: Option<Amount>,
    outgoing: Option<Amount>,
    early: Option<Amount>,
    locked: Option<Amount>,
    head_number: Option<i64>,
    asset_version: Option<i64>,
    id: Option<EventId>,
    data: Option<String>,
    created_at: Millis,
}

macro_rules! select_event {
    ($rest:literal) => {
        concat!(
            "SELECT position, events, kind, wallet_no, sequence, time, transfer_no, status, settled, incoming,
                    outgoing, early, locked, head_number, asset_version, id, data, created_at
             FROM ",
            $rest
        )
    };
}

/// What an event says of a wallet.
#[derive(Clone, Debug, FromRow)]
struct RawWallet {
    no: i64,
    id: WalletId,
    #[sqlx(try_from = "String")]
    family: Family,
    #[sqlx(try_from = "Vec<u8>")]
    address: Address,
    account_id: Option<AccountId>,
    client_reference_id: Option<String>,
    found_by_owner: bool,
    safe_owners: Option<String>,
    safe_threshold: Option<i64>,
}

#[derive(Clone, Debug, FromRow)]
struct RawPast {
    wallet_no: i64,
    until_position: i64,
    account_id: Option<AccountId>,
    client_reference_id: Option<String>,
    safe_owners: Option<String>,
    safe_threshold: Option<i64>,
}

/// Everything that the events of one call are made of.
struct Facts {
    transfers: HashMap<TransferNo, Transfer>,
    wallets: HashMap<WalletNo, RawWallet>,
    /// By wallet and position.
    past: BTreeMap<(WalletNo, i64), RawPast>,
    assets: BTreeMap<AssetNo, crate::model::Asset>,
    past_assets: BTreeMap<(AssetNo, i64), crate::model::Asset>,
}

async fn facts(conn: &mut Conn<'_>, rows: &[RawEvent]) -> Result<Facts, StoreError> {
    let transfers: Vec<RawTransfer> = {
        let numbers = Ints::of(rows.iter().filter_map(|row| row.transfer_no));
        if numbers.is_empty() {
            Vec::new()
        } else {
            let sql = sets(conn, select_transfer!("WHERE no IN ints($1)"));
            on!(conn, c => sqlx::query_as(sql).bind(&numbers).fetch_all(c).await)?
        }
    };
    let mut by_no = HashMap::with_capacity(transfers.len());
    for row in transfers {
        let transfer = Transfer::try_from(row)?;
        by_no.insert(transfer.no, transfer);
    }
    let told = rows.iter().filter(|row| row.transfer_no.is_some());
    let numbers = Ints::of(told.filter_map(|row| row.wallet_no));
    let (mut wallets, mut past) = (Vec::<RawWallet>::new(), Vec::<RawPast>::new());
    if !numbers.is_empty() {
        let sql = sets(
            conn,
            "SELECT no, id, family, address, account_id, client_reference_id, found_by_owner, safe_owners,
                    safe_threshold
             FROM wallet WHERE no IN ints($1)",
        );
        wallets = on!(conn, c => sqlx::query_as(sql).bind(&numbers).fetch_all(c).await)?;
        let sql = sets(
            conn,
            "SELECT wallet_no, until_position, account_id, client_reference_id, safe_owners, safe_threshold
             FROM wallet_past WHERE wallet_no IN ints($1)",
        );
        past = on!(conn, c => sqlx::query_as(sql).bind(&numbers).fetch_all(c).await)?;
    }
    let assets: Vec<AssetNo> = by_no.values().map(|transfer| transfer.asset).collect();
    let past_of = |row: RawPast| ((WalletNo(row.wallet_no), row.until_position), row);
    let facts = Facts {
        transfers: by_no,
        wallets: wallets.into_iter().map(|row| (WalletNo(row.no), row)).collect(),
        past: past.into_iter().map(past_of).collect(),
        assets: asset::by_numbers(conn, &assets).await?,
        past_assets: asset::past(conn, &assets).await?,
    };
    Ok(facts)
}

/// One event of a row.
#[derive(Clone, Copy)]
struct Told {
    position: i64,
    sequence: Option<i64>,
    kind: EventType,
    /// Whether it is the second of two.
    settled: bool,
}

impl RawEvent {
    /// The events of the row, in order.
    fn told(&self) -> Result<Vec<Told>, StoreError> {
        let unknown = || StoreError::corrupt(format!("the event type {}", self.kind));
        let kind = EventType::from_code(self.kind).ok_or_else(unknown)?;
        let Self { position, sequence, .. } = *self;
        if self.events == 1 {
            return Ok(vec![Told { position, sequence, kind, settled: false }]);
        }
        let second = kind.once_settled().ok_or_else(unknown)?;
        let before = sequence.map(|sequence| sequence - 1);
        Ok(vec![
            Told { position: position - 1, sequence: before, kind, settled: false },
            Told { position, sequence, kind: second, settled: true },
        ])
    }

    fn row(&self, told: Told, facts: &Facts) -> Result<FeedRow, StoreError> {
        let Told { position, sequence, kind, settled } = told;
        let (id, body) = match (self.id, &self.data) {
            (Some(id), Some(data)) => {
                let data: &RawValue = serde_json::from_str(data).map_err(StoreError::corrupt)?;
                let body = Body { id, kind, timestamp: self.created_at, sequence, data };
                (id, body.json().map_err(StoreError::corrupt)?)
            }
            _ => self.transfer(told, settled, facts)?,
        };
        let wallet = self.wallet_no.map(WalletNo);
        Ok(FeedRow { event: EventRef { id, kind, position, wallet, sequence }, body })
    }

    /// The event as it tells of a transfer.
    fn transfer(
        &self,
        told: Told,
        settled: bool,
        facts: &Facts,
    ) -> Result<(EventId, Box<RawValue>), StoreError> {
        let gone =
            || StoreError::corrupt(format!("an event without its facts at {}", self.position));
        let no = TransferNo(self.transfer_no.ok_or_else(gone)?);
        let transfer = facts.transfers.get(&no).ok_or_else(gone)?;
        let wallet = facts.wallets.get(&transfer.wallet).ok_or_else(gone)?;
        let asset = facts.assets.get(&transfer.asset).ok_or_else(gone)?;
        let version = self.asset_version.unwrap_or(0);
        let asset = if asset.version == version {
            asset
        } else {
            facts.past_assets.get(&(asset.no, version)).ok_or_else(gone)?
        };
        let first = Position {
            settled: self.settled.unwrap_or_default(),
            incoming: self.incoming.unwrap_or_default(),
            outgoing: self.outgoing.unwrap_or_default(),
            early: self.early.unwrap_or_default(),
        };
        let (status, position) = if settled {
            (Status::Settled, Position::of(first.total().map_err(StoreError::corrupt)?))
        } else {
            (code::read_status(self.status.ok_or_else(gone)?)?, first)
        };
        let at = |wanted| (status == wanted).then_some(self.created_at);
        // While it was pending no rule applied yet, but for what became available early.
        let ruled = status != Status::Pending || told.kind == EventType::DepositAvailable;
        let transfer = Transfer {
            status,
            settled_by: transfer.settled_by.filter(|_| ruled),
            settled_at: at(Status::Settled),
            orphaned_at: at(Status::Orphaned),
            ..transfer.clone()
        };
        let id = transfer_event_id(transfer.id, transfer.connection, told.kind, status, self.time);
        // What events up to a position said of the wallet, if it has changed since.
        let mut past = facts.past.range((transfer.wallet, told.position)..);
        let (account_id, reference, owners, threshold) = match past.next() {
            Some(((no, _), past)) if *no == transfer.wallet => {
                let RawPast { account_id, client_reference_id, .. } = past;
                (*account_id, client_reference_id, &past.safe_owners, past.safe_threshold)
            }
            _ => {
                let RawWallet { account_id, client_reference_id, .. } = wallet;
                (*account_id, client_reference_id, &wallet.safe_owners, wallet.safe_threshold)
            }
        };
        let wallet = WalletRef {
            id: wallet.id,
            family: wallet.family,
            address: wallet.address,
            account_id,
            client_reference_id: reference.clone(),
            safe: shown_safe(wallet.found_by_owner, owners.as_deref(), threshold)?,
        };
        let facts = TransferFacts {
            transfer: &transfer,
            wallet: &wallet,
            asset,
            position,
            locked: self.locked.unwrap_or_default(),
            head: self.head_number.and_then(|head| u64::try_from(head).ok()).ok_or_else(gone)?,
        };
        let data = facts.data().map_err(StoreError::corrupt)?;
        let (kind, sequence) = (told.kind, told.sequence);
        let body = Body { id, kind, timestamp: self.created_at, sequence, data };
        Ok((id, body.json().map_err(StoreError::corrupt)?))
    }
}

/// The events of some rows, in their order.
async fn write_out(conn: &mut Conn<'_>, rows: &[RawEvent]) -> Result<Vec<FeedRow>, StoreError> {
    let facts = facts(conn, rows).await?;
    let mut out = Vec::with_capacity(rows.len());
    for row in rows {
        for told in row.told()? {
            out.push(row.row(told, &facts)?);
        }
    }
    Ok(out)
}

/// An event of a tenant by its id: the time in front of it says where to look.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn event(
    conn: &mut Conn<'_>,
    tenant: TenantId,
    id: EventId,
) -> Result<Option<FeedRow>, StoreError> {
    // A range, and its order: what is equal says nothing of an order, and without one a planner may rather read all
    // of the feed.
    let rows: Vec<RawEvent> = on!(conn, c => sqlx::query_as(select_event!(
        "event WHERE tenant_no = (SELECT no FROM tenant WHERE id = $1) AND time BETWEEN $2 AND $2 ORDER BY time"
    ))
    .bind(tenant)
    .bind(id.time())
    .fetch_all(c)
    .await)?;
    let found = write_out(conn, &rows).await?;
    Ok(found.into_iter().find(|row| row.event.id == id))
}

/// Whether an event that a feed does not have may have been in it: its time is one of deleted events, or after
/// those of all that there are.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn may_have_been(
    conn: &mut Conn<'_>,
    tenant: TenantId,
    id: EventId,
) -> Result<bool, StoreError> {
    let times: Option<(Option<Millis>, Millis)> = on!(conn, c => sqlx::query_as(
        "SELECT (SELECT MAX(e.time) FROM event e WHERE e.tenant_no = t.no), t.feed_floor_time
         FROM tenant t WHERE t.id = $1",
    )
    .bind(tenant)
    .fetch_optional(c)
    .await)?;
    let Some((newest, deleted)) = times else { return Ok(false) };
    Ok(id.time() <= deleted || newest.is_none_or(|newest| id.time() > newest))
}

/// The JSON of a tenant's events at some positions; one that is gone is left out.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn bodies(
    conn: &mut Conn<'_>,
    tenant: TenantId,
    positions: &[i64],
) -> Result<BTreeMap<i64, FeedRow>, StoreError> {
    // The first of two events stands in the row of the second.
    let list = Ints::of(positions.iter().flat_map(|&position| [position, position + 1]));
    if list.is_empty() {
        return Ok(BTreeMap::new());
    }
    let sql = match conn {
        Conn::Sqlite(_) => sets(
            conn,
            select_event!(
                "event WHERE tenant_no = (SELECT no FROM tenant WHERE id = $1) AND position IN ints($2)"
            ),
        ),
        // One look-up for each: of a list, PostgreSQL may read all of the feed as long as it seems to be short.
        Conn::Postgres(_) => AssertSqlSafe(
            select_event!(
                "unnest($2) AS wanted (place) CROSS JOIN LATERAL (
                     SELECT * FROM event
                     WHERE tenant_no = (SELECT no FROM tenant WHERE id = $1) 
                       AND position BETWEEN wanted.place AND wanted.place
                     ORDER BY position LIMIT 1) AS found"
            )
            .to_owned(),
        ),
    };
    let rows: Vec<RawEvent> =
        on!(conn, c => sqlx::query_as(sql).bind(tenant).bind(&list).fetch_all(c).await)?;
    let found = write_out(conn, &rows).await?;
    let wanted: BTreeSet<i64> = positions.iter().copied().collect();
    let wanted = |row: &FeedRow| wanted.contains(&row.event.position);
    Ok(found.into_iter().filter(wanted).map(|row| (row.event.position, row)).collect())
}

/// The types as a list for `IN`, with those whose row tells them as the second event.
fn type_list(types: &[EventType]) -> (String, String) {
    let list = |types: &mut dyn Iterator<Item = EventType>| {
        let codes: Vec<String> = types.map(|kind| kind.code().to_string()).collect();
        if codes.is_empty() { "0".to_owned() } else { codes.join(", ") }
    };
    let firsts = EventType::ALL
        .iter()
        .copied()
        .filter(|kind| kind.once_settled().is_some_and(|second| types.contains(&second)));
    (list(&mut types.iter().copied()), list(&mut firsts.into_iter()))
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
        let (firsts, seconds) = type_list(types);
        format!("AND (kind IN ({firsts}) OR (events = 2 AND kind IN ({seconds})))")
    };
    let sql = format!(
        "{} {of_types} ORDER BY position LIMIT $3 + 0",
        select_event!(
            "event WHERE tenant_no = (SELECT no FROM tenant WHERE id = $1) AND position > $2"
        )
    );
    let rows: Vec<RawEvent> = on!(conn, c => sqlx::query_as(AssertSqlSafe(sql))
        .bind(tenant)
        .bind(position)
        .bind(limit)
        .fetch_all(c)
        .await)?;
    let mut found = write_out(conn, &rows).await?;
    found.retain(|row| {
        row.event.position > position && (types.is_empty() || types.contains(&row.event.kind))
    });
    found.truncate(usize::try_from(limit).unwrap_or(0));
    Ok(found)
}

/// How many rows of a tenant's feed were written in `from <= time < to`: `limit` if they are more.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn count_between(
    conn: &mut Conn<'_>,
    tenant: TenantId,
    from: Millis,
    to: Millis,
    limit: i64,
) -> Result<i64, StoreError> {
    Ok(on!(conn, c => sqlx::query_scalar(
        "SELECT COUNT(*) FROM (
             SELECT created_at FROM event
             WHERE tenant_no = (SELECT no FROM tenant WHERE id = $1) AND created_at >= $2 AND created_at < $3
             ORDER BY created_at LIMIT $4 + 0) AS span",
    )
    .bind(tenant)
    .bind(from)
    .bind(to)
    .bind(limit)
    .fetch_one(c)
    .await)?)
}

/// The tenant's events of those types with `from <= time < to`, in commit order. Reads every event of that time:
/// [`count_between`] tells how many they are.
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
    let (firsts, seconds) = type_list(types);
    // Materialized: with its limit, PostgreSQL would rather walk all of the feed in its order.
    let sql = format!(
        "WITH span AS MATERIALIZED (
             SELECT * FROM event
             WHERE tenant_no = (SELECT no FROM tenant WHERE id = $1) AND created_at >= $2 AND created_at < $3
             ORDER BY created_at)
         {} WHERE (kind IN ({firsts}) OR (events = 2 AND kind IN ({seconds}))) ORDER BY position LIMIT $4 + 0",
        select_event!("span")
    );
    let rows: Vec<RawEvent> = on!(conn, c => sqlx::query_as(AssertSqlSafe(sql))
        .bind(tenant)
        .bind(from)
        .bind(to)
        .bind(limit)
        .fetch_all(c)
        .await)?;
    let found = write_out(conn, &rows).await?;
    let wanted = found.into_iter().map(|row| row.event).filter(|event| types.contains(&event.kind));
    Ok(wanted.take(usize::try_from(limit).unwrap_or(0)).collect())
}
