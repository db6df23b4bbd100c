//! Connections, lent one at a time.
//!
//! sqlx's pool asks a connection for a sign of life each time it is taken and each time it is given back. At
//! a read of one statement that is two thirds of the work, so these are asked once a second at most, and after one
//! of them has failed. A connection that is gone is made anew. And where sqlx's
//! waits for the sign as long as TCP does, nothing here waits longer than a few seconds for a peer that is gone.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::{
    runtime::Handle,
    sync::{Mutex, OwnedMappedMutexGuard, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::{
    StoreError,
    outage::{Cause, Outage},
};

/// How long a connection is believed to live without being asked.
const BELIEVED: Duration = Duration::from_secs(1);
/// How old a connection gets. After a failover the old server may answer for ever, with old data.
const LIFETIME: Duration = Duration::from_mins(30);
/// How long one that nobody needs is kept.
const IDLE: Duration = Duration::from_mins(10);
/// What can be lent.
pub trait Pooled: Send + Sized + 'static {
    type Options: Send + Sync + 'static;

    /// How long opening one may take.
    const OPENING: Duration;
    /// How long a sign of life, or a statement that nobody waits for any more, may take; then it is closed.
    const CLEANING: Duration;

    fn open(options: &Self::Options) -> impl Future<Output = Result<Self, sqlx::Error>> + Send;

    /// Whether nothing was left undone on it.
    fn is_clean(&self) -> bool;

    /// Undoes what was begun, or asks for a sign of life.
    fn clean(&mut self) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    fn close(self) -> impl Future<Output = ()> + Send;
}

/// The connections there are; cloning shares them. Each is opened when it is first needed.
pub struct Pool<C: Pooled> {
    shared: Arc<Shared<C>>,
}

struct Shared<C: Pooled> {
    slots: Vec<Arc<Mutex<Slot<C>>>>,
    /// As many as slots: who has one finds a slot that nobody uses.
    permits: Arc<Semaphore>,
    options: C::Options,
    patience: Duration,
    /// Connections of another one are opened anew.
    generation: AtomicU32,
}

/// Empty until it is first used, and after its connection broke.
type Slot<C> = Option<Open<C>>;

struct Open<C> {
    connection: C,
    generation: u32,
    since: Instant,
    believed_until: Instant,
}

/// A lent connection; dropping it gives it back. A statement that nobody waits for any more ends before the
/// next one begins, and a transaction that was not committed is undone.
pub struct Lent<C: Pooled> {
    // Given back before the permit is.
    connection: OwnedMappedMutexGuard<Slot<C>, C>,
    permit: Option<OwnedSemaphorePermit>,
    slot: Arc<Mutex<Slot<C>>>,
}

impl<C: Pooled> Clone for Pool<C> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<C: Pooled> Pool<C> {
    /// At most `count` connections. `patience` is how long one waits until one of them is free.
    pub(super) fn new(options: C::Options, count: usize, patience: Duration) -> Self {
        let slots = (0..count).map(|_| Arc::new(Mutex::new(None))).collect();
        let permits = Arc::new(Semaphore::new(count));
        Self {
            shared: Arc::new(Shared {
                slots,
                permits,
                options,
                patience,
                generation: AtomicU32::new(0),
            }),
        }
    }

    pub(super) fn options(&self) -> &C::Options {
        &self.shared.options
    }

    pub(super) async fn lend(&self) -> Result<Lent<C>, StoreError> {
        let shared = &self.shared;
        // Nearly always there is one that needs nothing, so no timer either.
        let permit = match Arc::clone(&shared.permits).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => timeout(shared.patience, Arc::clone(&shared.permits).acquire_owned())
                .await
                .map_err(|_| Outage::new(Cause::Busy, "no connection became free in time"))
                .map_err(StoreError::Unavailable)?
                .map_err(|_| closed())?,
        };
        let (place, mut slot) = shared.free().ok_or_else(closed)?;
        let generation = shared.generation.load(Relaxed);
        slot.take_if(|open| open.generation != generation);
        if !slot.as_ref().is_some_and(|open| open.is_believed(Instant::now())) {
            make_ready(&mut slot, &shared.options, generation).await?;
            shared.close_idle();
        }
        let connection =
            OwnedMutexGuard::try_map(slot, |slot| Some(&mut slot.as_mut()?.connection));
        let connection = connection.map_err(|_| closed())?;
        Ok(Lent { connection, permit: Some(permit), slot: place })
    }

    /// Nothing is lent again that is open now.
    pub(super) fn renew(&self) {
        self.shared.generation.fetch_add(1, Relaxed);
    }

    /// Closes the connections, lent ones as soon as they are given back. Nothing is lent any more.
    pub(super) async fn close(&self) {
        self.shared.permits.close();
        for slot in &self.shared.slots {
            if let Some(open) = slot.lock().await.take() {
                // The other end may be gone.
                let _ = timeout(C::CLEANING, open.connection.close()).await;
            }
        }
    }
}

type Place<C> = (Arc<Mutex<Slot<C>>>, OwnedMutexGuard<Slot<C>>);

impl<C: Pooled> Shared<C> {
    /// The first one, so that under a small load the others rest.
    fn free(&self) -> Option<Place<C>> {
        self.slots.iter().find_map(|slot| {
            let free = Arc::clone(slot).try_lock_owned().ok()?;
            Some((Arc::clone(slot), free))
        })
    }

    /// Closes those that have rested for long.
    fn close_idle(&self) {
        // Who holds a slot has a permit.
        let Ok(_permit) = self.permits.try_acquire() else { return };
        let now = Instant::now();
        for slot in self.slots.iter().rev() {
            if let Ok(mut slot) = slot.try_lock() {
                slot.take_if(|open| now.saturating_duration_since(open.believed_until) >= IDLE);
            }
        }
    }
}

impl<C: Pooled> Open<C> {
    fn is_old(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= LIFETIME
    }

    fn is_believed(&self, now: Instant) -> bool {
        now < self.believed_until && !self.is_old(now) && self.connection.is_clean()
    }
}

fn closed() -> StoreError {
    StoreError::Unavailable(Outage::new(Cause::Closed, "it is closed"))
}

/// Asks the connection for a sign of life, if it was not asked just now, and makes it anew if there is none.
async fn make_ready<C: Pooled>(
    slot: &mut Slot<C>,
    options: &C::Options,
    generation: u32,
) -> Result<(), StoreError> {
    let now = Instant::now();
    // Taken out: whoever gives up while waiting leaves an empty slot and not a broken connection.
    if let Some(mut open) = slot.take()
        && !open.is_old(now)
        && matches!(timeout(C::CLEANING, open.connection.clean()).await, Ok(Ok(())))
    {
        open.believed_until = now + BELIEVED;
        *slot = Some(open);
        return Ok(());
    }
    let connection = open(options).await?;
    let now = Instant::now();
    *slot = Some(Open { connection, generation, since: now, believed_until: now + BELIEVED });
    Ok(())
}

/// Opens a connection, within a few seconds.
pub(super) async fn open<C: Pooled>(options: &C::Options) -> Result<C, StoreError> {
    let opened = timeout(C::OPENING, C::open(options)).await.map_err(|_| {
        let detail = format!("no connection within {} s", C::OPENING.as_secs());
        StoreError::Unavailable(Outage::new(Cause::NoConnection, detail))
    });
    Ok(opened??)
}

impl<C: Pooled> Lent<C> {
    pub(super) fn conn(&mut self) -> &mut C {
        &mut self.connection
    }
}

impl<C: Pooled> Drop for Lent<C> {
    /// What was left undone is undone at once: it may hold locks. Without a runtime the next one does it.
    fn drop(&mut self) {
        if self.connection.is_clean() {
            return;
        }
        let Ok(runtime) = Handle::try_current() else { return };
        let (slot, permit) = (Arc::clone(&self.slot), self.permit.take());
        runtime.spawn(async move {
            let mut slot = slot.lock_owned().await;
            // Dropped, and so closed, if it cannot be cleaned.
            if let Some(mut open) = slot.take()
                && (open.connection.is_clean()
                    || matches!(timeout(C::CLEANING, open.connection.clean()).await, Ok(Ok(()))))
            {
                *slot = Some(open);
            }
            drop(slot);
            drop(permit);
        });
    }
}

#[cfg(test)]
mod tests {
    use sqlx::{Connection as _, PgConnection, sqlite::SqliteConnectOptions};

    use super::*;
    use crate::store::{Db, engine::Engine, file_session::FileSession, on, testing::TestStore};

    #[tokio::test]
    async fn a_reader_waits_for_one_given_back_and_none_is_lent_after_the_close() {
        let options = SqliteConnectOptions::new().in_memory(true);
        let readers: Pool<FileSession> = Pool::new(options, 1, Duration::from_millis(50));
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

    #[tokio::test]
    async fn nothing_that_was_open_is_lent_after_a_renewal() {
        let options = SqliteConnectOptions::new().in_memory(true);
        let pool: Pool<FileSession> = Pool::new(options, 1, Duration::from_secs(1));
        // Each connection has a database of its own.
        let version = async |set: bool| -> i64 {
            let mut lent = pool.lend().await.expect("a connection");
            let conn = lent.conn().connection();
            if set {
                sqlx::query("PRAGMA user_version = 7").execute(&mut *conn).await.unwrap();
            }
            sqlx::query_scalar("PRAGMA user_version").fetch_one(conn).await.unwrap()
        };
        assert_eq!((version(true).await, version(false).await), (7, 7));
        pool.renew();
        assert_eq!(version(false).await, 0);
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
            let mut other = PgConnection::connect_with(&pool.options().connect).await.unwrap();
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
