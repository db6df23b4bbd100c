//! Leases, by the database's own clock: which daemon follows a chain, and which does a named work for all of them.
//!
//! A chain's lease has a fencing epoch, which every commit checks: whoever has lost the lease without knowing
//! changes nothing. See Kleppmann, "How to do distributed locking".

use std::time::Duration;

use sqlx::FromRow;

use super::{
    Conn, StoreError,
    engine::schema_version,
    on,
    set::{Ints, sets},
};
use crate::{chain::ChainName, model::ChainNo};

/// The database's clock, in milliseconds since the Unix epoch.
macro_rules! clock {
    (sqlite) => {
        "CAST(unixepoch('subsec') * 1000 AS INTEGER)"
    };
    (postgres) => {
        "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)"
    };
}

/// A text with the database's clock between its parts.
macro_rules! by_clock {
    ($conn:expr, $($text:literal),+; $end:literal) => {
        match $conn {
            Conn::Sqlite(_) => concat!($($text, $crate::store::lease::clock!(sqlite)),+, $end),
            Conn::Postgres(_) => concat!($($text, $crate::store::lease::clock!(postgres)),+, $end),
        }
    };
}

pub(super) use {by_clock, clock};

/// [`win`] by a clock, and how the row is taken.
macro_rules! win_sql {
    ($engine:ident, $row:literal) => {
        concat!(
            "UPDATE chain_cursor SET holder = $2, fencing_epoch = fencing_epoch + 1, lease_until = $3 + ",
            clock!($engine),
            " WHERE chain_no = ",
            $row,
            " AND (holder IS NULL OR holder = $2 OR lease_until < ",
            clock!($engine),
            ") AND NOT EXISTS (SELECT 1 FROM _sqlx_migrations WHERE version > $4) RETURNING fencing_epoch"
        )
    };
}
/// [`renew`] by a clock, and how the rows are taken.
macro_rules! renew_sql {
    ($engine:ident, $lock:literal) => {
        concat!(
            "UPDATE chain_cursor SET lease_until = $3 + ",
            clock!($engine),
            " WHERE holder = $2 AND chain_no IN (
                 SELECT chain_no FROM chain_cursor WHERE chain_no IN ints($1) ",
            $lock,
            ")"
        )
    };
}

/// A length of time as it is bound.
pub(super) fn millis(length: Duration) -> i64 {
    i64::try_from(length.as_millis()).unwrap_or(i64::MAX)
}

/// A chain that was begun, and who follows it.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct ChainHolder {
    #[sqlx(try_from = "String")]
    pub name: ChainName,
    /// `None` if nobody does: it was given back, or the lease has run out.
    pub holder: Option<String>,
    pub fencing_epoch: i64,
}

/// Makes `holder` the one that follows a chain, if nobody else does: gives the epoch that its commits must name.
/// `None` while another one's lease has not run out, or if the chain was never begun, or if the database is of a
/// newer version than this one.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn win(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    holder: &str,
    lease: Duration,
) -> Result<Option<i64>, StoreError> {
    let sql = match conn {
        Conn::Sqlite(_) => win_sql!(sqlite, "$1"),
        // A row that somebody is writing is held by them: it is not waited for.
        Conn::Postgres(_) => win_sql!(
            postgres,
            "(SELECT chain_no FROM chain_cursor WHERE chain_no = $1 FOR UPDATE SKIP LOCKED)"
        ),
    };
    Ok(on!(conn, c => sqlx::query_scalar(sql)
        .bind(chain.0)
        .bind(holder)
        .bind(millis(lease))
        .bind(schema_version())
        .fetch_optional(c)
        .await)?)
}

/// Makes a holder's leases of chains last from now on. One that is being written is left out: the write does it.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn renew(
    conn: &mut Conn<'_>,
    chains: &[ChainNo],
    holder: &str,
    lease: Duration,
) -> Result<(), StoreError> {
    let sql = match conn {
        Conn::Sqlite(_) => renew_sql!(sqlite, ""),
        Conn::Postgres(_) => renew_sql!(postgres, "FOR UPDATE SKIP LOCKED"),
    };
    let sql = sets(conn, sql);
    let chains = Ints::of(chains.iter().map(|chain| chain.0));
    on!(conn, c => sqlx::query(sql)
        .bind(chains)
        .bind(holder)
        .bind(millis(lease))
        .execute(c)
        .await
        .map(|_| ()))?;
    Ok(())
}

/// Lets another one win at once what is still held under `epoch`.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn give_back(conn: &mut Conn<'_>, chain: ChainNo, epoch: i64) -> Result<(), StoreError> {
    on!(conn, c => sqlx::query(
        "UPDATE chain_cursor SET holder = NULL, lease_until = NULL WHERE chain_no = $1 AND fencing_epoch = $2",
    )
    .bind(chain.0)
    .bind(epoch)
    .execute(c)
    .await
    .map(|_| ()))?;
    Ok(())
}

/// All chains that were begun, and who follows them now.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn holders(conn: &mut Conn<'_>) -> Result<Vec<ChainHolder>, StoreError> {
    let sql = by_clock!(
        conn,
        "SELECT n.name, c.fencing_epoch, CASE WHEN c.lease_until >= ";
        " THEN c.holder END AS holder
         FROM chain_cursor c JOIN chain n ON n.no = c.chain_no ORDER BY n.name"
    );
    Ok(on!(conn, c => sqlx::query_as(sql).fetch_all(c).await)?)
}

/// What is newest of the things that the follower of a chain has to look at.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct Requests {
    #[sqlx(try_from = "String")]
    pub name: ChainName,
    opening: Option<i64>,
    closing: Option<i64>,
    history: Option<i64>,
    deployment: Option<i64>,
}

impl Requests {
    /// Whether something has come since `before`.
    #[must_use]
    pub fn has_more_than(&self, before: &Self) -> bool {
        self.opening > before.opening
            || self.closing > before.closing
            || self.history > before.history
            || self.deployment > before.deployment
    }
}

/// What there is to do on the chains of a holder.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn requests(conn: &mut Conn<'_>, holder: &str) -> Result<Vec<Requests>, StoreError> {
    Ok(on!(conn, c => sqlx::query_as(
        "SELECT n.name,
                (SELECT w.wallet_no FROM watch w WHERE w.chain_no = c.chain_no AND w.status = 0
                 ORDER BY w.wallet_no DESC LIMIT 1) AS opening,
                (SELECT w.wallet_no FROM watch w WHERE w.chain_no = c.chain_no AND w.status = 2
                 ORDER BY w.wallet_no DESC LIMIT 1) AS closing,
                (SELECT w.wallet_no FROM watch w
                 WHERE w.chain_no = c.chain_no AND w.history = 'wanted' AND w.scan_no IS NULL AND w.status = 1
                 ORDER BY w.wallet_no DESC LIMIT 1) AS history,
                (SELECT d.created_at FROM safe_deployment d WHERE d.chain_no = c.chain_no AND d.status = 'pending'
                 ORDER BY d.created_at DESC LIMIT 1) AS deployment
         FROM chain_cursor c JOIN chain n ON n.no = c.chain_no
         WHERE c.holder = $1 ORDER BY n.name",
    )
    .bind(holder)
    .fetch_all(c)
    .await)?)
}

/// Makes `holder` the one that does a work, for so long; `false` while another one does it.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn win_named(
    conn: &mut Conn<'_>,
    work: &str,
    holder: &str,
    lease: Duration,
) -> Result<bool, StoreError> {
    let sql = by_clock!(
        conn,
        "INSERT INTO named_lease (name, holder, lease_until) VALUES ($1, $2, $3 + ",
        ") ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, lease_until = excluded.lease_until
         WHERE named_lease.holder = excluded.holder OR named_lease.lease_until < ";
        ""
    );
    let changed = on!(conn, c => sqlx::query(sql)
        .bind(work)
        .bind(holder)
        .bind(millis(lease))
        .execute(c)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(changed == 1)
}

/// Lets another one do the work at once.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn give_back_named(
    conn: &mut Conn<'_>,
    work: &str,
    holder: &str,
) -> Result<(), StoreError> {
    on!(conn, c => sqlx::query("DELETE FROM named_lease WHERE name = $1 AND holder = $2")
        .bind(work)
        .bind(holder)
        .execute(c)
        .await
        .map(|_| ()))?;
    Ok(())
}
