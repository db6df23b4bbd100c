//! Transactions: begun, repeated after a collision, timed and committed in one place, [`Db::run_tx`].

use std::time::{Duration, Instant};

use super::{
    Conn, Db, StoreError,
    engine::Engine,
    file_session::FileSession,
    outage::{Cause, Outage},
    pool::{Lent, Pool},
    session::Session,
};
use crate::retry::Backoff;

/// How often a transaction that collides is tried. Whoever collides that often has a reason other than luck.
const TRIES: u32 = 8;
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// A transaction. Dropping it undoes it.
pub enum Tx {
    Sqlite(Lent<FileSession>),
    Postgres(Lent<Session>),
}

impl Tx {
    pub fn conn(&mut self) -> Conn<'_> {
        match self {
            Self::Sqlite(session) => Conn::Sqlite(session.conn().connection()),
            Self::Postgres(session) => Conn::Postgres(session.conn()),
        }
    }

    /// Makes everything since the transaction began durable.
    ///
    /// # Errors
    /// After a [`StoreError::Collision`] or [`StoreError::Constraint`] the transaction is undone. After any
    /// other error nobody knows whether it was committed: read before you write again.
    pub async fn commit(self) -> Result<(), StoreError> {
        let done = match self {
            Self::Sqlite(mut session) => session.conn().commit().await,
            Self::Postgres(mut session) => session.conn().commit().await,
        };
        done.map_err(|error| match StoreError::from(error) {
            StoreError::Unavailable(why) => {
                let detail = format!("it is unknown whether the transaction was committed: {why}");
                StoreError::Unavailable(Outage::new(why.cause, detail))
            }
            other => other,
        })
    }
}

/// What the work of a transaction fails with.
pub trait TxError: From<StoreError> {
    /// Whether the transaction lost against another one, so that the same work may succeed if done again.
    fn is_collision(&self) -> bool;

    /// Why the store cannot work now, if that is the reason.
    fn outage(&self) -> Option<Cause>;
}

impl TxError for StoreError {
    fn is_collision(&self) -> bool {
        matches!(self, Self::Collision(_))
    }

    fn outage(&self) -> Option<Cause> {
        self.outage()
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
                done => return self.note(done),
            }
        }
        let done = self.try_tx(name, &mut work).await;
        self.note(done)
    }

    /// Remembers whether the store works.
    fn note<T, E: TxError>(&self, done: Result<T, E>) -> Result<T, E> {
        match &done {
            Ok(_) => self.health.succeeded(Instant::now()),
            Err(error) => {
                if let Some(cause) = error.outage() {
                    self.health.failed(Instant::now(), cause);
                    // One that was opened while the file took no writes only reads for ever.
                    if let Engine::Sqlite { write, .. } = &self.engine {
                        write.renew();
                    }
                }
            }
        }
        done
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
            // A write lock that cannot be had is found out here, not half-way.
            Engine::Sqlite { write, .. } => begin_file(write, "BEGIN IMMEDIATE").await?,
            Engine::Postgres { pool, .. } => begin(pool, "BEGIN").await?,
        })
    }

    /// Begins a transaction for several reads that must see one state.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when no connection is to be had.
    pub async fn snapshot(&self) -> Result<Tx, StoreError> {
        Ok(match &self.engine {
            Engine::Sqlite { snapshots, .. } => begin_file(snapshots, "BEGIN").await?,
            Engine::Postgres { pool, .. } => {
                begin(pool, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?
            }
        })
    }
}

async fn begin_file(pool: &Pool<FileSession>, begin: &'static str) -> Result<Tx, StoreError> {
    let mut session = pool.lend().await?;
    session.conn().begin(begin).await?;
    Ok(Tx::Sqlite(session))
}

async fn begin(pool: &Pool<Session>, begin: &'static str) -> Result<Tx, StoreError> {
    let mut session = pool.lend().await?;
    let error = match session.conn().begin(begin).await {
        Ok(()) => return Ok(Tx::Postgres(session)),
        Err(error) => StoreError::from(error),
    };
    // The server had hung up meanwhile. Now every connection is asked first, or made anew.
    match error.outage() {
        Some(cause) if cause != Cause::Silent => {}
        _ => return Err(error),
    }
    drop(session);
    let mut session = pool.lend().await?;
    session.conn().begin(begin).await?;
    Ok(Tx::Postgres(session))
}

#[cfg(test)]
mod tests;
