//! The daemons that share the database, by their signs of life.

use std::{collections::BTreeSet, time::Duration};

use sqlx::FromRow;

use super::{
    Conn, StoreError,
    engine::schema_version,
    lease::{by_clock, millis},
    on,
};
use crate::{chain::ChainName, clock::Millis};

/// How long a daemon that says nothing is remembered.
const REMEMBERED: Duration = Duration::from_hours(24);

/// A daemon that has shown a sign of life lately.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonRow {
    pub id: String,
    /// The chains that it can follow now.
    pub chains: BTreeSet<ChainName>,
    /// How long it has been there.
    pub age: Duration,
}

/// A sign of life, as the database has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromRow)]
pub struct Sign {
    /// Its time now.
    pub seen_at: Millis,
    /// When the daemon of this id entered.
    pub started_at: Millis,
}

/// Shows a sign of life.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn beat(
    conn: &mut Conn<'_>,
    id: &str,
    version: &str,
    chains: &BTreeSet<ChainName>,
) -> Result<Sign, StoreError> {
    let chains: Vec<&str> = chains.iter().map(ChainName::as_str).collect();
    let sql = by_clock!(
        conn,
        "INSERT INTO daemon (id, version, chains, started_at, seen_at) VALUES ($1, $2, $3, ",
        ", ",
        ") ON CONFLICT (id) DO UPDATE SET version = excluded.version, chains = excluded.chains, seen_at = ";
        " RETURNING seen_at, started_at"
    );
    Ok(on!(conn, c => sqlx::query_as(sql)
        .bind(id)
        .bind(version)
        .bind(chains.join(" "))
        .fetch_one(c)
        .await)?)
}

/// The daemons that were seen within so long, by their ids.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn live(conn: &mut Conn<'_>, within: Duration) -> Result<Vec<DaemonRow>, StoreError> {
    let sql = by_clock!(
        conn,
        "SELECT id, chains, seen_at - started_at FROM daemon WHERE seen_at >= -$1 + ";
        " ORDER BY id"
    );
    let rows: Vec<(String, String, i64)> =
        on!(conn, c => sqlx::query_as(sql).bind(millis(within)).fetch_all(c).await)?;
    let row = |(id, chains, age): (String, String, i64)| DaemonRow {
        id,
        chains: chains.split(' ').filter(|name| !name.is_empty()).map(ChainName::new).collect(),
        age: Duration::from_millis(u64::try_from(age).unwrap_or(0)),
    };
    Ok(rows.into_iter().map(row).collect())
}

/// Forgets a daemon that ends, and those that were not seen for a day.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn leave(conn: &mut Conn<'_>, id: &str) -> Result<(), StoreError> {
    let sql = by_clock!(conn, "DELETE FROM daemon WHERE id = $1 OR seen_at < -$2 + "; "");
    on!(conn, c => sqlx::query(sql)
        .bind(id)
        .bind(millis(REMEMBERED))
        .execute(c)
        .await
        .map(|_| ()))?;
    Ok(())
}

/// Whether the database was brought to a newer schema than this program's.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn is_superseded(conn: &mut Conn<'_>) -> Result<bool, StoreError> {
    let newer: Option<i64> = on!(conn, c => sqlx::query_scalar(
        "SELECT version FROM _sqlx_migrations WHERE version > $1 LIMIT 1",
    )
    .bind(schema_version())
    .fetch_optional(c)
    .await)?;
    Ok(newer.is_some())
}

/// Counts calls of a day (since the Unix epoch) to an endpoint; gives those of all daemons. `None` for a day before
/// the one that is counted.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn count_calls(
    conn: &mut Conn<'_>,
    chain: &ChainName,
    endpoint: &str,
    day: i64,
    calls: i64,
) -> Result<Option<i64>, StoreError> {
    Ok(on!(conn, c => sqlx::query_scalar(
        "INSERT INTO endpoint_use (chain, endpoint, day, calls) VALUES ($1, $2, $3, $4)
         ON CONFLICT (chain, endpoint) DO UPDATE
         SET calls = CASE WHEN endpoint_use.day = excluded.day THEN endpoint_use.calls ELSE 0 END + excluded.calls,
             day = excluded.day
         WHERE endpoint_use.day <= excluded.day
         RETURNING calls",
    )
    .bind(chain.as_str())
    .bind(endpoint)
    .bind(day)
    .bind(calls)
    .fetch_optional(c)
    .await)?)
}
