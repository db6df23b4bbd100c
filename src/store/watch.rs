//! Watches: which wallet's address is followed on which chain, and since which block.

use std::collections::HashMap;

use sqlx::{FromRow, QueryBuilder};

use super::{
    Conn, StoreError,
    chain::number,
    code, on,
    safe::shown_safe,
    scan::{self, Moved},
    set::{Blobs, Ints, runs, sets},
};
use crate::{
    chain::{Address, BlockHash, BlockRef, ChainName, Family},
    clock::Millis,
    id::{AccountId, TenantId, WalletId},
    ledger::{changes::WatchChanges, known::Watches},
    model::{
        Asset, BalanceRef, BlockPoint, ChainNo, TenantNo, WalletNo, WalletRef, Watch, WatchStatus,
    },
};

/// The columns of a watch `w` and its wallet `v` that make a [`Watch`].
macro_rules! watch_columns {
    () => {
        "w.wallet_no, w.tenant_no, v.id AS wallet_id, v.tenant_id, w.address, v.kind, w.activated"
    };
}
pub(super) use watch_columns;

#[derive(FromRow)]
pub(super) struct RawWatch {
    wallet_no: i64,
    tenant_no: i64,
    wallet_id: WalletId,
    tenant_id: TenantId,
    #[sqlx(try_from = "Vec<u8>")]
    address: Address,
    kind: String,
    activated: bool,
}

/// With what events show of the wallet.
#[derive(FromRow)]
struct RawShown {
    #[sqlx(flatten)]
    watch: RawWatch,
    account_id: Option<AccountId>,
    client_reference_id: Option<String>,
    found_by_owner: bool,
    safe_owners: Option<String>,
    safe_threshold: Option<i64>,
}

impl RawShown {
    fn shown(&self, family: Family) -> Result<WalletRef, StoreError> {
        let owners = self.safe_owners.as_deref();
        Ok(WalletRef {
            id: self.watch.wallet_id,
            family,
            address: self.watch.address,
            account_id: self.account_id,
            client_reference_id: self.client_reference_id.clone(),
            safe: shown_safe(self.found_by_owner, owners, self.safe_threshold)?,
        })
    }

    fn with_wallet(self, family: Family) -> Result<(Watch, WalletRef), StoreError> {
        let shown = self.shown(family)?;
        Ok((self.watch.into(), shown))
    }
}

impl From<RawWatch> for Watch {
    fn from(row: RawWatch) -> Self {
        Self {
            wallet: WalletNo(row.wallet_no),
            tenant: TenantNo(row.tenant_no),
            wallet_id: row.wallet_id,
            tenant_id: row.tenant_id,
            address: row.address,
            is_eoa: row.kind == "eoa",
            activated: row.activated,
        }
    }
}

macro_rules! select_watch {
    ($watches:literal, $rest:literal) => {
        concat!(
            "SELECT ",
            watch_columns!(),
            ", v.account_id, v.client_reference_id, v.found_by_owner, v.safe_owners, v.safe_threshold FROM ",
            $watches,
            " w JOIN wallet v ON v.no = w.wallet_no ",
            $rest
        )
    };
}

/// A page of those that wait, in the order of `watch_to_do` and of nothing else. By the wallet alone, PostgreSQL would
/// walk all wallets before the first one that it looks for. For the same reason the status is a range: what must
/// be equal to one value is left out of an order.
const TO_DO: &str = select_watch!(
    "watch",
    "WHERE w.chain_no = $1 AND (w.status, w.wallet_no) > ($2, $4) AND w.status <= $2 AND w.status IN (0, 2)
     ORDER BY w.status, w.wallet_no LIMIT $3 + 0"
);

/// Watches that wait to be opened (`requested`) or closed (`closing`), of wallets after `after`, oldest wallets
/// first, with their wallets as events show them.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn to_do(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    family: Family,
    status: WatchStatus,
    after: WalletNo,
    limit: i64,
) -> Result<Vec<(Watch, WalletRef)>, StoreError> {
    let rows: Vec<RawShown> = on!(conn, c => sqlx::query_as(TO_DO)
        .bind(chain.0)
        .bind(code::watch_status(status))
        .bind(limit)
        .bind(after.0)
        .fetch_all(c)
        .await)?;
    rows.into_iter().map(|row| row.with_wallet(family)).collect()
}

/// The open watches of some addresses: all of them, or those that had begun below a block.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn open_by_address(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    addresses: &[Address],
    below: Option<u64>,
) -> Result<Watches, StoreError> {
    let addresses = Blobs::of(addresses.iter().map(Address::as_slice));
    if addresses.is_empty() {
        return Ok(Watches::default());
    }
    let sql = sets(
        conn,
        select_watch!(
            "watches($1, $2)",
            "WHERE w.status IN (1, 2) AND w.opened_number < $3 ORDER BY w.address, w.wallet_no"
        ),
    );
    let rows: Vec<RawShown> = on!(conn, c => sqlx::query_as(sql)
        .bind(chain.0)
        .bind(&addresses)
        .bind(below.map_or(Ok(i64::MAX), number)?)
        .fetch_all(c)
        .await)?;
    let mut found = Watches::default();
    for watch in rows.into_iter().map(|row| Watch::from(row.watch)) {
        found.entry(watch.address).or_default().push(watch);
    }
    Ok(found)
}

/// The open watches of the wallets behind `after`, up to `upto`, oldest wallets first: for an asset that begins to
/// count for them.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn open_between(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    family: Family,
    after: WalletNo,
    upto: WalletNo,
    limit: i64,
) -> Result<Vec<(Watch, WalletRef)>, StoreError> {
    // `+`: in the order of `watch_of_wallet`, whatever else there is.
    let rows: Vec<RawShown> = on!(conn, c => sqlx::query_as(select_watch!(
        "watch",
        "WHERE w.wallet_no > $1 AND w.wallet_no <= $2 AND w.chain_no + 0 = $3 AND w.status + 0 = 1
         ORDER BY w.wallet_no LIMIT $4 + 0"
    ))
    .bind(after.0)
    .bind(upto.0)
    .bind(chain.0)
    .bind(limit)
    .fetch_all(c)
    .await)?;
    rows.into_iter().map(|row| row.with_wallet(family)).collect()
}

/// Which of some addresses somebody still watches.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn still_open(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    addresses: &[Address],
) -> Result<Vec<Address>, StoreError> {
    let addresses = Blobs::of(addresses.iter().map(Address::as_slice));
    if addresses.is_empty() {
        return Ok(Vec::new());
    }
    let sql =
        sets(conn, "SELECT DISTINCT w.address FROM watches($1, $2) w WHERE w.status IN (1, 2)");
    let rows: Vec<Vec<u8>> =
        on!(conn, c => sqlx::query_scalar(sql).bind(chain.0).bind(&addresses).fetch_all(c).await)?;
    rows.into_iter().map(|bytes| bytes.try_into().map_err(StoreError::corrupt)).collect()
}

/// Opens, closes and reopens watches, and moves their histories on; gives what became of these.
///
/// # Errors
/// [`StoreError::Stale`] if one of them is not as it was read: a request was withdrawn meanwhile.
pub async fn write(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    head: &BlockPoint,
    changes: &WatchChanges,
    now: Millis,
) -> Result<Moved, StoreError> {
    for run in runs(&changes.opened) {
        let written = on!(conn, c => {
            let mut query = places("UPDATE watch SET status = 1, opened_number = ", run);
            query.push_bind(head.at.number.cast_signed());
            query.push(", opened_hash = ").push_bind(&head.at.hash.0[..]);
            query.push(", opened_time = ").push_bind(head.time);
            query.push(", activated = ").push_bind(true);
            query.push(", updated_at = ").push_bind(now);
            query.push(" FROM place WHERE watch.status + 0 = 0 AND watch.chain_no = ").push_bind(chain.0);
            query.push(THE_PLACE);
            query.build().execute(c).await.map(|done| done.rows_affected())
        })?;
        as_read(written, run.len())?;
    }
    for run in runs(&changes.closed) {
        let written = on!(conn, c => {
            let mut query = places("UPDATE watch SET status = 3, scan_no = NULL, updated_at = ", run);
            query.push_bind(now);
            query.push(" FROM place WHERE watch.status + 0 = 2 AND watch.chain_no = ").push_bind(chain.0);
            query.push(THE_PLACE);
            query.build().execute(c).await.map(|done| done.rows_affected())
        })?;
        as_read(written, run.len())?;
    }
    if let Some((fork, reopened)) = &changes.reopened {
        let written = on!(conn, c => sqlx::query(
            "UPDATE watch SET status = 0, opened_number = NULL, opened_hash = NULL, opened_time = NULL,
                              history_method = NULL, scan_no = NULL, covered_from = NULL, untraced = NULL,
                              history = CASE WHEN from_block IS NULL THEN NULL ELSE 'wanted' END,
                              updated_at = $3
             WHERE chain_no = $1 AND opened_number > $2 AND status = 1",
        )
        .bind(chain.0)
        .bind(number(*fork)?)
        .bind(now)
        .execute(c)
        .await
        .map(|done| done.rows_affected()))?;
        as_read(written, reopened.len())?;
    }
    scan::write(conn, chain, changes, now).await
}

const THE_PLACE: &str = " AND watch.address = place.address AND watch.wallet_no = place.wallet_no";

/// The start of a statement on some watches.
fn places<'a, DB: sqlx::Database>(update: &str, run: &'a [(WalletNo, Address)]) -> QueryBuilder<DB>
where
    &'a [u8]: sqlx::Encode<'a, DB> + sqlx::Type<DB>,
    i64: sqlx::Encode<'a, DB> + sqlx::Type<DB>,
{
    let mut query = QueryBuilder::new("WITH place (address, wallet_no) AS (");
    query.push_values(run, |mut row, (wallet, address)| {
        row.push_bind(address.as_slice()).push_bind(wallet.0);
    });
    query.push(") ").push(update);
    query
}

fn as_read(written: u64, expected: usize) -> Result<(), StoreError> {
    if usize::try_from(written) == Ok(expected) {
        return Ok(());
    }
    Err(StoreError::Stale(format!("{written} of {expected} watches are as they were read")))
}

/// The watches that were opened above a block.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn opened_above(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    fork: u64,
) -> Result<Vec<(WalletNo, Address)>, StoreError> {
    let rows: Vec<(i64, Vec<u8>)> = on!(conn, c => sqlx::query_as(
        "SELECT wallet_no, address FROM watch WHERE chain_no = $1 AND opened_number > $2 AND status = 1",
    )
    .bind(chain.0)
    .bind(number(fork)?)
    .fetch_all(c)
    .await)?;
    let place = |(wallet, address): (i64, Vec<u8>)| {
        Ok((WalletNo(wallet), address.try_into().map_err(StoreError::corrupt)?))
    };
    rows.into_iter().map(place).collect()
}

#[derive(FromRow)]
struct RawBlock {
    #[sqlx(try_from = "i64")]
    number: u64,
    #[sqlx(try_from = "Vec<u8>")]
    hash: BlockHash,
}

/// The newest block at or below `upto` at which an open watch begins.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn newest_opening(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    upto: u64,
) -> Result<Option<BlockRef>, StoreError> {
    let row: Option<RawBlock> = on!(conn, c => sqlx::query_as(
        "SELECT opened_number AS number, opened_hash AS hash FROM watch
         WHERE chain_no = $1 AND status = 1 AND opened_number <= $2
         ORDER BY opened_number DESC LIMIT 1",
    )
    .bind(chain.0)
    .bind(number(upto)?)
    .fetch_optional(c)
    .await)?;
    Ok(row.map(|row| BlockRef { number: row.number, hash: row.hash }))
}

/// A wallet whose balances can be compared with the chain's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watched {
    pub address: Address,
    pub wallet: WalletNo,
    pub tenant: TenantNo,
    pub wallet_id: WalletId,
    /// The block whose state was the opening balance.
    pub opened: u64,
}

impl Watched {
    /// Its balance of one asset.
    #[must_use]
    pub fn balance(&self, asset: &Asset) -> BalanceRef {
        let Self { address, wallet, tenant, wallet_id, .. } = *self;
        BalanceRef { wallet, tenant, wallet_id, address, asset: asset.no, key: asset.key }
    }
}

#[derive(FromRow)]
struct RawWatched {
    #[sqlx(try_from = "Vec<u8>")]
    address: Address,
    wallet_no: i64,
    tenant_no: i64,
    id: WalletId,
    #[sqlx(try_from = "i64")]
    opened_number: u64,
}

impl From<RawWatched> for Watched {
    fn from(row: RawWatched) -> Self {
        Self {
            address: row.address,
            wallet: WalletNo(row.wallet_no),
            tenant: TenantNo(row.tenant_no),
            wallet_id: row.id,
            opened: row.opened_number,
        }
    }
}

/// A page of the open watches that began at `upto` or below, by address and wallet, after `after`.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn watched_after(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    after: Option<&Watched>,
    upto: u64,
    limit: i64,
) -> Result<Vec<Watched>, StoreError> {
    // No address is empty, so this lies before them all.
    let (address, wallet) =
        after.map_or((&[][..], 0), |last| (last.address.as_slice(), last.wallet.0));
    let rows: Vec<RawWatched> = on!(conn, c => sqlx::query_as(
        "SELECT w.address, w.wallet_no, w.tenant_no, v.id, w.opened_number
         FROM watch w JOIN wallet v ON v.no = w.wallet_no
         WHERE w.chain_no = $1 AND (w.address, w.wallet_no) > ($2, $3)
           AND w.status = 1 AND w.opened_number <= $4
         ORDER BY w.address, w.wallet_no LIMIT $5 + 0",
    )
    .bind(chain.0)
    .bind(address)
    .bind(wallet)
    .bind(number(upto)?)
    .bind(limit)
    .fetch_all(c)
    .await)?;
    Ok(rows.into_iter().map(Watched::from).collect())
}

/// The open watches of some wallets that began at `upto` or below.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn watched(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    wallets: &[WalletNo],
    upto: u64,
) -> Result<HashMap<WalletNo, Watched>, StoreError> {
    let wallets = Ints::of(wallets.iter().map(|wallet| wallet.0));
    if wallets.is_empty() {
        return Ok(HashMap::new());
    }
    // `+`: by its chain alone, SQLite would read every watch of it for each wallet. How far a watch reaches back
    // is judged here for the same reason.
    let sql = sets(
        conn,
        "SELECT w.address, w.wallet_no, w.tenant_no, v.id, w.opened_number
         FROM watch w JOIN wallet v ON v.no = w.wallet_no
         WHERE w.wallet_no IN ints($2) AND +w.chain_no = $1 AND w.status + 0 = 1",
    );
    let rows: Vec<RawWatched> =
        on!(conn, c => sqlx::query_as(sql).bind(chain.0).bind(&wallets).fetch_all(c).await)?;
    let watched = rows.into_iter().map(Watched::from).filter(|watched| watched.opened <= upto);
    Ok(watched.map(|watched| (watched.wallet, watched)).collect())
}

/// How many watches are open on a chain.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn count_open(conn: &mut Conn<'_>, chain: &ChainName) -> Result<u64, StoreError> {
    let count: i64 = on!(conn, c => sqlx::query_scalar(
        "SELECT COUNT(*) FROM watch
         WHERE chain_no = (SELECT no FROM chain WHERE name = $1) AND status = 1 AND opened_number >= 0",
    )
    .bind(chain.as_str())
    .fetch_one(c)
    .await)?;
    u64::try_from(count).map_err(StoreError::corrupt)
}

/// Who watches each of some addresses, with the wallet as events show it.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn watching(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    family: Family,
    addresses: &[Address],
) -> Result<Vec<(Watch, WalletRef)>, StoreError> {
    let addresses = Blobs::of(addresses.iter().map(Address::as_slice));
    if addresses.is_empty() {
        return Ok(Vec::new());
    }
    let sql = sets(conn, select_watch!("watches($1, $2)", "WHERE w.status IN (0, 1)"));
    let rows: Vec<RawShown> =
        on!(conn, c => sqlx::query_as(sql).bind(chain.0).bind(&addresses).fetch_all(c).await)?;
    rows.into_iter().map(|row| row.with_wallet(family)).collect()
}

#[derive(FromRow)]
struct RawNamed {
    #[sqlx(try_from = "Vec<u8>")]
    address: Address,
    account_id: Option<AccountId>,
    client_reference_id: Option<String>,
    found_by_owner: bool,
    safe_owners: Option<String>,
    safe_threshold: Option<i64>,
}

/// The wallets by their ids, as events show them.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn shown(
    conn: &mut Conn<'_>,
    family: Family,
    ids: &[WalletId],
) -> Result<Vec<WalletRef>, StoreError> {
    let mut found = Vec::new();
    for id in ids {
        let row: Option<RawNamed> = on!(conn, c => sqlx::query_as(
                "SELECT address, account_id, client_reference_id, found_by_owner, safe_owners, safe_threshold
                 FROM wallet WHERE id = $1",
            )
            .bind(id)
            .fetch_optional(c)
            .await)?;
        if let Some(row) = row {
            found.push(WalletRef {
                id: *id,
                family,
                address: row.address,
                account_id: row.account_id,
                client_reference_id: row.client_reference_id,
                safe: shown_safe(
                    row.found_by_owner,
                    row.safe_owners.as_deref(),
                    row.safe_threshold,
                )?,
            });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
