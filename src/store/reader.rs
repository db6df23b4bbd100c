//! Connections for reads outside transactions, lent one at a time.
//!
//! sqlx's pool asks a connection for a sign of life each time it is taken and each time it is given back. At
//! a read of one statement that is two thirds of the work, so these are asked once a second at most. After
//! the server has gone away reads fail for that long at most; then the connection is made anew.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use sqlx::Connection;
use tokio::sync::{Mutex, OwnedMappedMutexGuard, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

use super::StoreError;

/// How long a connection is believed to live without being asked.
const BELIEVED: Duration = Duration::from_secs(1);
/// How old a connection gets. After a failover the old server may answer for ever, with old data.
const LIFETIME: Duration = Duration::from_mins(30);

/// What a new connection does before its first statement.
pub(super) trait Prepare: Connection {
    fn prepare(&mut self) -> impl Future<Output = Result<(), sqlx::Error>> + Send;
}

/// The connections there are; cloning shares them. Each is opened when it is first needed.
pub struct Readers<C: Connection> {
    shared: Arc<Shared<C>>,
}

struct Shared<C: Connection> {
    slots: Vec<Arc<Mutex<Slot<C>>>>,
    /// As many as slots: who has one finds a slot that nobody uses.
    permits: Arc<Semaphore>,
    options: C::Options,
    patience: Duration,
}

/// Empty until it is first used, and after its connection broke.
type Slot<C> = Option<Open<C>>;

struct Open<C> {
    connection: C,
    since: Instant,
    believed_until: Instant,
}

/// A lent connection; dropping it gives it back. A statement that nobody waits for any more ends before the
/// next one begins.
pub struct Reader<C: 'static> {
    // Given back before the permit is.
    connection: OwnedMappedMutexGuard<Slot<C>, C>,
    _permit: OwnedSemaphorePermit,
}

impl<C: Connection> Clone for Readers<C> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<C: Prepare + 'static> Readers<C> {
    /// At most `count` connections. `patience` is how long a reader waits for one of them.
    pub(super) fn new(options: C::Options, count: usize, patience: Duration) -> Self {
        let slots = (0..count).map(|_| Arc::new(Mutex::new(None))).collect();
        let permits = Arc::new(Semaphore::new(count));
        Self { shared: Arc::new(Shared { slots, permits, options, patience }) }
    }

    pub(super) async fn lend(&self) -> Result<Reader<C>, StoreError> {
        let shared = &self.shared;
        // Nearly always there is one that needs nothing, so no timer either.
        if let Ok(permit) = Arc::clone(&shared.permits).try_acquire_owned()
            && let Some(slot) = shared.free()
            && slot.as_ref().is_some_and(|open| open.is_believed(Instant::now()))
        {
            return lent(slot, permit);
        }
        let ready = async {
            let permit = Arc::clone(&shared.permits).acquire_owned().await.map_err(|_| closed())?;
            let mut slot = shared.free().ok_or_else(closed)?;
            make_ready(&mut slot, &shared.options).await?;
            lent(slot, permit)
        };
        tokio::time::timeout(shared.patience, ready)
            .await
            .map_err(|_| StoreError::Unavailable("no connection became free in time".to_owned()))?
    }

    /// Closes the connections, lent ones as soon as they are given back. Nothing is lent any more.
    pub(super) async fn close(&self) {
        self.shared.permits.close();
        for slot in &self.shared.slots {
            if let Some(open) = slot.lock().await.take() {
                // It is gone either way.
                let _ = open.connection.close().await;
            }
        }
    }
}

impl<C: Connection> Shared<C> {
    /// The first one, so that under a small load the others rest.
    fn free(&self) -> Option<OwnedMutexGuard<Slot<C>>> {
        self.slots.iter().find_map(|slot| Arc::clone(slot).try_lock_owned().ok())
    }
}

impl<C> Open<C> {
    fn is_old(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= LIFETIME
    }

    fn is_believed(&self, now: Instant) -> bool {
        now < self.believed_until && !self.is_old(now)
    }
}

fn closed() -> StoreError {
    StoreError::Unavailable("it is closed".to_owned())
}

fn lent<C: Connection>(
    slot: OwnedMutexGuard<Slot<C>>,
    permit: OwnedSemaphorePermit,
) -> Result<Reader<C>, StoreError> {
    let connection = OwnedMutexGuard::try_map(slot, |slot| Some(&mut slot.as_mut()?.connection));
    let connection = connection.map_err(|_| closed())?;
    Ok(Reader { connection, _permit: permit })
}

/// Asks the connection for a sign of life, if it was not asked just now, and makes it anew if there is none.
async fn make_ready<C: Prepare>(
    slot: &mut Slot<C>,
    options: &C::Options,
) -> Result<(), sqlx::Error> {
    let now = Instant::now();
    // Taken out: whoever gives up while waiting leaves an empty slot and not a broken connection.
    if let Some(mut open) = slot.take() {
        let lives =
            open.is_believed(now) || (!open.is_old(now) && open.connection.ping().await.is_ok());
        if lives {
            open.believed_until = now + BELIEVED;
            *slot = Some(open);
            return Ok(());
        }
    }
    let mut connection = C::connect_with(options).await?;
    connection.prepare().await?;
    *slot = Some(Open { connection, since: now, believed_until: now + BELIEVED });
    Ok(())
}

impl<C> Reader<C> {
    pub(super) fn conn(&mut self) -> &mut C {
        &mut self.connection
    }
}

#[cfg(test)]
mod tests {
    use sqlx::{PgConnection, SqliteConnection, sqlite::SqliteConnectOptions};

    use super::*;
    use crate::store::{Db, engine::Engine, on, testing::TestStore};

    #[tokio::test]
    async fn a_reader_waits_for_one_given_back_and_none_is_lent_after_the_close() {
        let options = SqliteConnectOptions::new().in_memory(true);
        let readers: Readers<SqliteConnection> =
            Readers::new(options, 1, Duration::from_millis(50));
        let lent = readers.lend().await.expect("a free one");
        assert!(matches!(readers.lend().await, Err(StoreError::Unavailable(_))));
        drop(lent);
        let lent = readers.lend().await.expect("the one given back");
        let closing = tokio::spawn({
            let readers = readers.clone();
            async move { readers.close().await }
        });
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(!closing.is_finished(), "one is lent");
        drop(lent);
        closing.await.expect("closed");
        assert!(matches!(readers.lend().await, Err(StoreError::Unavailable(_))));
    }

    async fn one(db: &Db) -> Result<i64, StoreError> {
        let mut session = db.read().await?;
        let one: Result<i64, _> = on!(&mut session.conn(), c => {
            sqlx::query_scalar("SELECT CAST(1 AS BIGINT)").fetch_one(c).await
        });
        Ok(one?)
    }

    #[tokio::test]
    async fn reads_go_on_after_the_server_has_hung_up() {
        for store in TestStore::all().await {
            // A file does not hang up.
            let Engine::Postgres { pool, .. } = &store.db.engine else {
                store.close().await;
                continue;
            };
            assert_eq!(one(&store.db).await.expect("an answer"), 1);
            let mut other = PgConnection::connect_with(&pool.connect_options()).await.unwrap();
            let ended: i64 = sqlx::query_scalar(
                "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity
                 WHERE datname = current_database() AND pid <> pg_backend_pid()",
            )
            .fetch_one(&mut other)
            .await
            .unwrap();
            assert!(ended > 0);
            // While they are still believed, reads may fail; however many come, that ends by itself.
            let started = Instant::now();
            while one(&store.db).await.is_err() {
                assert!(started.elapsed() < BELIEVED * 3, "reads still fail");
            }
            store.close().await;
        }
    }

    #[tokio::test]
    async fn a_read_that_is_given_up_does_not_disturb_the_next_one() {
        for store in TestStore::all().await {
            let db = &store.db;
            for patience in 0..20 {
                let mut session = db.read().await.unwrap();
                let slow = async {
                    let counted: Result<i64, sqlx::Error> = on!(&mut session.conn(), c => {
                        sqlx::query_scalar(
                            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)
                             SELECT count(*) FROM n",
                        )
                        .fetch_one(c)
                        .await
                    });
                    counted
                };
                let _ = tokio::time::timeout(Duration::from_micros(patience * 100), slow).await;
                drop(session);
                assert_eq!(one(db).await.expect("an answer"), 1);
            }
            store.close().await;
        }
    }
}
