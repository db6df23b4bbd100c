//! Which daemon follows a chain: leases by the database's own clock, with a number that every commit checks.

use std::time::Duration;

use super::{Conn, StoreError, on};
use crate::model::ChainNo;

/// A text with the database's clock in it, in milliseconds since the Unix epoch.
macro_rules! by_clock {
    ($conn:expr, $($text:literal),+; $end:literal) => {
        match $conn {
            Conn::Sqlite(_) => {
                concat!($($text, "CAST(unixepoch('subsec') * 1000 AS INTEGER)"),+, $end)
            }
            Conn::Postgres(_) => {
                concat!($($text, "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)"),+, $end)
            }
        }
    };
}

pub(super) use by_clock;

/// How long a holder that says nothing keeps a chain.
const LEASE: Duration = Duration::from_secs(10);

/// The same in milliseconds, as it is bound.
pub(super) fn lease() -> i64 {
    i64::try_from(LEASE.as_millis()).unwrap_or(i64::MAX)
}

/// Makes `holder` the one that follows a chain, if nobody else does: gives the number that its commits must name.
/// `None` while another one's lease has not run out, or if the chain was never begun.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn win(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    holder: &str,
) -> Result<Option<i64>, StoreError> {
    let sql = by_clock!(
        conn,
        "UPDATE chain_cursor SET holder = $2, epoch = epoch + 1, lease_until = $3 + ",
        " WHERE chain_no = $1 AND (holder IS NULL OR holder = $2 OR lease_until < ";
        ") RETURNING epoch"
    );
    Ok(on!(conn, c => sqlx::query_scalar(sql)
        .bind(chain.0)
        .bind(holder)
        .bind(lease())
        .fetch_optional(c)
        .await)?)
}

/// Makes a lease last from now on; `false` if another one has won it meanwhile.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn renew(conn: &mut Conn<'_>, chain: ChainNo, epoch: i64) -> Result<bool, StoreError> {
    let sql = by_clock!(
        conn,
        "UPDATE chain_cursor SET lease_until = $3 + ";
        " WHERE chain_no = $1 AND epoch = $2"
    );
    let changed = on!(conn, c => sqlx::query(sql)
        .bind(chain.0)
        .bind(epoch)
        .bind(lease())
        .execute(c)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(changed == 1)
}

/// Lets another one win at once what is still held under `epoch`.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn give_back(conn: &mut Conn<'_>, chain: ChainNo, epoch: i64) -> Result<(), StoreError> {
    on!(conn, c => sqlx::query(
        "UPDATE chain_cursor SET holder = NULL, lease_until = NULL WHERE chain_no = $1 AND epoch = $2",
    )
    .bind(chain.0)
    .bind(epoch)
    .execute(c)
    .await
    .map(|_| ()))?;
    Ok(())
}
