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
mod file_session;
mod liveness;
pub mod outage;
mod pool;
mod replica;
mod rows;
mod scalar;
mod session;
mod set;
pub mod tx;
mod wal;

pub mod account;
pub mod asset;
pub mod asset_opening;
pub mod audit;
pub mod balance;
pub mod canary;
pub mod chain;
pub mod correction;
pub mod daemon;
pub mod delivery;
pub mod early;
pub mod endpoint;
pub mod event;
pub mod feed;
pub mod history;
pub mod idempotency;
pub mod journal;
pub mod key;
pub mod lease;
pub mod ownership;
pub mod participant;
#[cfg(test)]
mod plans;
pub mod registration;
pub mod retention;
pub mod safe;
pub mod safe_contract;
pub mod safe_look;
pub mod safe_state;
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
use outage::{Cause, Outage};
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
    Unavailable(Outage),
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

    /// Why the store cannot work now; `None` if that is not the reason.
    #[must_use]
    pub fn outage(&self) -> Option<Cause> {
        match self {
            Self::Unavailable(outage) => Some(outage.cause),
            _ => None,
        }
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
                let outage = sqlite.map_or_else(|| Cause::of_sqlstate(&code), Cause::of_sqlite);
                match (code.as_str(), sqlite) {
                    // Lost against another transaction.
                    ("40001" | "40P01", _) | (_, Some(5 | 6)) => Self::Collision(db.to_string()),
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
                    _ => match outage {
                        Some(cause) => Self::Unavailable(Outage::new(cause, db)),
                        None => Self::Corrupt(db.to_string()),
                    },
                }
            }
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => {
                Self::Corrupt(error.to_string())
            }
            _ => Self::Unavailable(Outage::new(Cause::of_connection(&error), &error)),
        }
    }
}
