//! All SQL, one file per group of tables; nobody outside this folder names `sqlx`.
//!
//! One SQL text serves SQLite and PostgreSQL: `$1` placeholders, `ON CONFLICT`, `RETURNING`, and no
//! arithmetic on amounts (that is the ledger's work). What must differ stands in `engine`.
//!
//! A bound limit is written `LIMIT $3 + 0`: SQLite looks at the value of a bare one when it plans, so it would
//! prepare the statement anew each time it is run.
//!
//! Store functions borrow a [`Conn`] and never begin or commit: [`Db::run_tx`] does. Not found is `Ok(None)`; an update of one
//! row that changes no row is an error or a `false`, never ignored.

mod amount;
mod code;
mod engine;
mod reader;
mod replica;
mod rows;
mod scalar;
mod set;
pub mod tx;
mod wal;

pub mod account;
pub mod asset;
pub mod asset_opening;
pub mod audit;
pub mod balance;
pub mod chain;
pub mod daemon;
pub mod delivery;
pub mod endpoint;
pub mod event;
pub mod feed;
pub mod history;
pub mod idempotency;
pub mod key;
pub mod lease;
pub mod ownership;
pub mod participant;
#[cfg(test)]
mod plans;
pub mod registration;
pub mod retention;
pub mod safe;
pub mod safe_look;
pub mod scan;
pub mod setting;
pub mod settling;
#[cfg(test)]
pub(crate) mod testing;
pub mod transfer;
pub mod wallet;
pub mod watch;
pub mod watch_count;
pub mod watch_load;

pub(crate) use engine::on;
pub use engine::{Conn, Db, ReadSession};
pub use replica::{ReadError, Reads};
pub use tx::{Tx, TxError};

/// Why the store could not do what was asked, by what the caller can do about it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The transaction lost against another one (SQLSTATE 40001, 40P01, `SQLITE_BUSY`): do it again.
    #[error("the transaction collided with another one: {0}")]
    Collision(String),
    /// What was read has changed meanwhile: read it again and decide again.
    #[error("what was read has changed meanwhile: {0}")]
    Stale(String),
    /// A constraint refused the row. `constraint` is its name where the engine gives one.
    #[error("refused by the constraint {constraint}: {detail}")]
    Constraint { constraint: String, detail: String },
    /// The store cannot be reached or written to.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// The database cannot be used as it is; the text says what to do.
    #[error("{0}")]
    Unusable(String),
    /// A row that this version cannot have written.
    #[error("the store holds what it should not: {0}")]
    Corrupt(String),
}

impl StoreError {
    /// A value that does not fit its column's meaning.
    pub(crate) fn corrupt(what: impl std::fmt::Display) -> Self {
        Self::Corrupt(what.to_string())
    }

    /// Whether the same may succeed a little later, without anybody's doing: the store did not answer, or the
    /// transaction lost against another one.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Collision(_) | Self::Unavailable(_))
    }

    /// Whether a unique constraint refused a row that is already there.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Constraint { .. })
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(db) => {
                let code = db.code().unwrap_or_default().into_owned();
                // PostgreSQL's SQLSTATE, or SQLite's result code in decimal (primary code in the low byte).
                let sqlite = code.parse::<i32>().ok().filter(|_| code.len() != 5).map(|c| c & 0xff);
                match (code.as_str(), sqlite) {
                    // Lost against another transaction, or waited too long for its lock.
                    ("40001" | "40P01" | "55P03", _) | (_, Some(5 | 6)) => {
                        Self::Collision(db.to_string())
                    }
                    (_, Some(8)) => Self::Unavailable(format!("the database is read-only: {db}")),
                    // No memory, interrupted, an I/O error, a full disk, a file that does not open, a lock that
                    // is in the way.
                    (_, Some(7 | 9 | 10 | 13 | 14 | 15)) => Self::Unavailable(db.to_string()),
                    (_, Some(11 | 26)) => {
                        Self::Unusable(format!("the database file is damaged: {db}"))
                    }
                    (_, Some(19)) => Self::Constraint {
                        constraint: db.message().to_owned(),
                        detail: db.to_string(),
                    },
                    (state, None) if state.starts_with("23") => Self::Constraint {
                        constraint: db.constraint().unwrap_or_default().to_owned(),
                        detail: db.to_string(),
                    },
                    (state, None) if is_outage(state) => Self::Unavailable(db.to_string()),
                    _ => Self::Corrupt(db.to_string()),
                }
            }
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => {
                Self::Corrupt(error.to_string())
            }
            _ => Self::Unavailable(error.to_string()),
        }
    }
}

/// Whether a SQLSTATE says that the server cannot work now, whatever is asked of it: by class, no connection (08),
/// a transaction that the server ended or that cannot write, as after a failover (25), a login or a database that is
/// not there (28, 3D), a transaction whose end is unknown (40), no resources (53), an operator who stops it (57) and
/// trouble of its system (58). See <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
fn is_outage(state: &str) -> bool {
    ["08", "25", "28", "3D", "40", "53", "57", "58"].iter().any(|class| state.starts_with(class))
}
