//! How far PostgreSQL's log has come: where a standby is, compared with its primary.

use super::{Conn, StoreError};

/// The bytes of log that a primary has made durable, or that a standby has replayed. SQLite has no standby: 0.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn position(conn: &mut Conn<'_>) -> Result<i64, StoreError> {
    match conn {
        Conn::Sqlite(_) => Ok(0),
        Conn::Postgres(c) => Ok(sqlx::query_scalar(
            "SELECT (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
                          ELSE pg_current_wal_flush_lsn() END - '0/0'::pg_lsn)::BIGINT",
        )
        .fetch_one(&mut **c)
        .await?),
    }
}
