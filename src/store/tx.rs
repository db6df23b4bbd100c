//! Transactions: begun, repeated after a collision, timed and committed in one place, [`Db::run_tx`].

use std::time::{Duration, Instant};

use sqlx::{Postgres, Sqlite};

use super::{Conn, Db, StoreError, engine::Engine};
use crate::retry::Backoff;

/// How often a transaction that collides is tried. Whoever collides that often has a reason other than luck.
const TRIES: u32 = 8;
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// A transaction. Dropping it undoes it.
pub enum Tx {
    Sqlite(sqlx::Transaction<'static, Sqlite>),
    Postgres(sqlx::Transaction<'static, Postgres>),
}

impl Tx {
    pub fn conn(&mut self) -> Conn<'_> {
        match self {
            Self::Sqlite(tx) => Conn::Sqlite(tx),
            Self::Postgres(tx) => Conn::Postgres(tx),
        }
    }

    /// Makes everything since the transaction began durable.
    ///
    /// # Errors
    /// After a [`StoreError::Collision`] or [`StoreError::Constraint`] the transaction is undone. After any
    /// other error nobody knows whether it was committed: read before you write again.
    pub async fn commit(self) -> Result<(), StoreError> {
        let done = match self {
            Self::Sqlite(tx) => tx.commit().await,
            Self::Postgres(tx) => tx.commit().await,
        };
        done.map_err(|error| match StoreError::from(error) {
            StoreError::Unavailable(why) => StoreError::Unavailable(format!(
                "it is unknown whether the transaction was committed: {why}"
            )),
            other => other,
        })
    }
}

/// What the work of a transaction fails with.
pub trait TxError: From<StoreError> {
    /// Whether the transaction lost against another one, so that the same work may succeed if done again.
    fn is_collision(&self) -> bool;
}

impl TxError for StoreError {
    fn is_collision(&self) -> bool {
        matches!(self, Self::Collision(_))
    }
}

impl Db {
    /// Runs `work` in a transaction that may write, and commits it. After a collision all of it is done
    /// again, at most eight times in all and within about half a second of pauses; after any other error it
    /// is undone. A commit whose outcome is unknown is never repeated.
    ///
    /// `work` gets the transaction and hands it back with its result. It may run several times, so it
    /// changes nothing but the store. What it borrows is captured as a reference:
    ///
    /// ```text
    /// let name = &name;
    /// let id = db.run_tx("tenant_create", |mut tx| async move {
    ///     let id = key::ensure_tenant(&mut tx.conn(), new, name, now).await?;
    ///     Ok((tx, id))
    /// }).await?;
    /// ```
    ///
    /// `name` is the label of `tidemark_db_transaction_duration_seconds`, which tells how long the try that
    /// committed took.
    ///
    /// # Errors
    /// What `work` fails with, and the [`StoreError`]s of beginning and of [`Tx::commit`].
    pub async fn run_tx<T, E, F, Fut>(&self, name: &'static str, mut work: F) -> Result<T, E>
    where
        E: TxError,
        F: FnMut(Tx) -> Fut,
        // Not `AsyncFnMut(&mut Conn)`: that its future is `Send` for every lifetime cannot be said yet.
        Fut: Future<Output = Result<(Tx, T), E>> + Send,
    {
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        for _ in 1..TRIES {
            match self.try_tx(name, &mut work).await {
                Err(error) if error.is_collision() => {
                    tokio::time::sleep(backoff.next_delay()).await;
                }
                done => return done,
            }
        }
        self.try_tx(name, &mut work).await
    }

    async fn try_tx<T, E, F, Fut>(&self, name: &'static str, work: &mut F) -> Result<T, E>
    where
        E: TxError,
        F: FnMut(Tx) -> Fut,
        Fut: Future<Output = Result<(Tx, T), E>> + Send,
    {
        let started = Instant::now();
        let (tx, value) = work(self.begin().await?).await?;
        tx.commit().await?;
        self.durations.with_label_values(&[name]).observe(started.elapsed().as_secs_f64());
        Ok(value)
    }

    /// Begins a transaction that may write. [`Db::run_tx`] is for everything that is done more than once.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when no connection is to be had.
    pub async fn begin(&self) -> Result<Tx, StoreError> {
        Ok(match &self.engine {
            // IMMEDIATE: a write lock that cannot be had is found out here, not half-way.
            Engine::Sqlite { write, .. } => Tx::Sqlite(write.begin_with("BEGIN IMMEDIATE").await?),
            Engine::Postgres { pool, .. } => Tx::Postgres(pool.begin().await?),
        })
    }

    /// Begins a transaction for several reads that must see one state.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when no connection is to be had.
    pub async fn snapshot(&self) -> Result<Tx, StoreError> {
        Ok(match &self.engine {
            Engine::Sqlite { snapshots, .. } => Tx::Sqlite(snapshots.begin().await?),
            Engine::Postgres { pool, .. } => Tx::Postgres(
                pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?,
            ),
        })
    }
}

#[cfg(test)]
mod tests;
