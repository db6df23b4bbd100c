//! SQLite connections for single statements, lent one at a time.
//!
//! A connection that goes back to its pool is sent once more to its thread, to see whether it still lives.
//! One to a file does, and at the balance read that would be half of the work: these never go back.

use std::{sync::Arc, time::Duration};

use parking_lot::RwLock;
use sqlx::{Sqlite, SqliteConnection, SqlitePool, pool::PoolConnection};
use tokio::sync::{Mutex, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

use super::StoreError;

type Kept = Arc<Mutex<PoolConnection<Sqlite>>>;

/// The connections there are; cloning shares them.
#[derive(Clone, Debug)]
pub struct Readers {
    kept: Arc<RwLock<Vec<Kept>>>,
    /// As many as connections: who has one finds a connection that nobody uses.
    permits: Arc<Semaphore>,
    patience: Duration,
}

/// A lent connection; dropping it gives it back. A statement that nobody waits for any more ends before the
/// next one begins.
pub struct Reader {
    // Given back before the permit is.
    connection: OwnedMutexGuard<PoolConnection<Sqlite>>,
    _permit: OwnedSemaphorePermit,
}

impl Readers {
    /// Takes `count` connections out of the pool. `patience` is how long a reader waits for one of them.
    pub(super) async fn new(
        pool: &SqlitePool,
        count: usize,
        patience: Duration,
    ) -> Result<Self, sqlx::Error> {
        let mut kept = Vec::with_capacity(count);
        for _ in 0..count {
            kept.push(Arc::new(Mutex::new(pool.acquire().await?)));
        }
        let kept = Arc::new(RwLock::new(kept));
        Ok(Self { kept, permits: Arc::new(Semaphore::new(count)), patience })
    }

    pub(super) async fn lend(&self) -> Result<Reader, StoreError> {
        let unavailable = |what: &str| StoreError::Unavailable(what.to_owned());
        let permit = match Arc::clone(&self.permits).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                tokio::time::timeout(self.patience, Arc::clone(&self.permits).acquire_owned())
                    .await
                    .map_err(|_| unavailable("no connection became free in time"))?
                    .map_err(|_| unavailable("it is closed"))?
            }
        };
        let connection =
            self.kept.read().iter().find_map(|one| Arc::clone(one).try_lock_owned().ok());
        let connection = connection.ok_or_else(|| unavailable("it is closed"))?;
        Ok(Reader { connection, _permit: permit })
    }

    /// Gives the connections back to their pool, lent ones as soon as they are no longer used.
    pub(super) fn close(&self) {
        self.permits.close();
        self.kept.write().clear();
    }
}

impl Reader {
    pub(super) fn conn(&mut self) -> &mut SqliteConnection {
        &mut self.connection
    }
}

#[cfg(test)]
mod tests {
    use sqlx::sqlite::SqlitePoolOptions;

    use super::*;

    #[tokio::test]
    async fn a_reader_waits_for_one_given_back_and_the_pool_closes_after_the_last() {
        let pool = SqlitePoolOptions::new().max_connections(1);
        let pool = pool.connect("sqlite::memory:").await.expect("a database");
        let readers = Readers::new(&pool, 1, Duration::from_millis(50)).await.expect("a reader");
        let lent = readers.lend().await.expect("a free one");
        assert!(matches!(readers.lend().await, Err(StoreError::Unavailable(_))));
        drop(lent);
        let lent = readers.lend().await.expect("the one given back");
        readers.close();
        assert!(matches!(readers.lend().await, Err(StoreError::Unavailable(_))));
        let closing = tokio::spawn(async move { pool.close().await });
        drop(lent);
        closing.await.expect("closed");
    }
}
