use std::sync::{
    Mutex,
    atomic::{AtomicU32, Ordering::Relaxed},
};

use sqlx::Connection as _;
use tokio::sync::Barrier;

use super::*;
use crate::{
    clock::Millis,
    id::TenantId,
    store::{key, on, testing::TestStore},
};

async fn insert(conn: &mut Conn<'_>, id: TenantId, name: &str) -> Result<(), StoreError> {
    key::ensure_tenant(conn, id, name, Millis(0)).await.map(|_| ())
}

async fn tenants(db: &Db) -> i64 {
    let mut session = db.read().await.unwrap();
    on!(&mut session.conn(), c => sqlx::query_scalar("SELECT count(*) FROM tenant").fetch_one(c).await)
        .unwrap()
}

fn observed(db: &Db, name: &str) -> u64 {
    db.durations.with_label_values(&[name]).get_sample_count()
}

/// Writes a row, then fails with `error`, until this has been tried `failures` times.
async fn fail_at_first(
    db: &Db,
    failures: u32,
    error: fn(String) -> StoreError,
) -> (Result<u32, StoreError>, u32) {
    let (tried, id) = (&AtomicU32::new(0), TenantId(uuid::Uuid::nil()));
    let done = db
        .run_tx("test", |mut tx| async move {
            insert(&mut tx.conn(), id, "acme").await?;
            match tried.fetch_add(1, Relaxed) {
                n if n < failures => Err(error("on purpose".to_owned())),
                n => Ok((tx, n)),
            }
        })
        .await;
    (done, tried.load(Relaxed))
}

#[tokio::test]
async fn work_that_collided_is_undone_and_done_again_until_it_commits_once() {
    for store in TestStore::all().await {
        let (done, tried) = fail_at_first(&store.db, 3, StoreError::Collision).await;
        assert_eq!((done.unwrap(), tried), (3, 4));
        assert_eq!(tenants(&store.db).await, 1);
        assert_eq!(observed(&store.db, "test"), 1, "only what committed is timed");
        store.close().await;
    }
}

#[tokio::test]
async fn work_that_collides_for_ever_is_given_up() {
    for store in TestStore::all().await {
        let (done, tried) = fail_at_first(&store.db, u32::MAX, StoreError::Collision).await;
        assert!(matches!(done, Err(StoreError::Collision(_))), "{done:?}");
        assert_eq!(tried, TRIES);
        assert_eq!(tenants(&store.db).await, 0);
        store.close().await;
    }
}

#[tokio::test]
async fn any_other_failure_undoes_the_work_and_is_told_at_once() {
    for store in TestStore::all().await {
        let (done, tried) = fail_at_first(&store.db, 1, unavailable).await;
        assert!(matches!(done, Err(StoreError::Unavailable(_))), "{done:?}");
        assert_eq!(tried, 1);
        assert_eq!(tenants(&store.db).await, 0);
        assert_eq!(observed(&store.db, "test"), 0);
        store.close().await;
    }
}

#[tokio::test]
async fn a_deadlock_is_resolved_by_doing_one_of_the_two_again() {
    for store in TestStore::all().await {
        let both = [store.tenant().await, store.tenant().await];
        let meeting = &Barrier::new(2);
        let tried = &AtomicU32::new(0);
        let db = &store.db;
        let engine = &db.engine;
        let take = async |first: TenantId, second: TenantId| {
            db.run_tx("test", |mut tx| async move {
                key::lock_tenant(&mut tx.conn(), first).await?;
                // With one writer at a time nobody comes to meet it.
                if tried.fetch_add(1, Relaxed) < 2 && matches!(engine, Engine::Postgres { .. }) {
                    meeting.wait().await;
                }
                key::lock_tenant(&mut tx.conn(), second).await?;
                Ok::<_, StoreError>((tx, ()))
            })
            .await
        };
        let [a, b] = both;
        let (one, other) = tokio::join!(take(a, b), take(b, a));
        one.unwrap();
        other.unwrap();
        let expected = if matches!(engine, Engine::Postgres { .. }) { 3 } else { 2 };
        assert_eq!(tried.load(Relaxed), expected);
        store.close().await;
    }
}

#[tokio::test]
async fn a_commit_whose_outcome_is_unknown_is_not_done_again() {
    for store in TestStore::all().await {
        // A file does not hang up.
        let Engine::Postgres { pool, .. } = &store.db.engine else {
            store.close().await;
            continue;
        };
        let mut other = sqlx::PgConnection::connect_with(&pool.options().connect).await.unwrap();
        let (other, tried) = (&Mutex::new(Some(&mut other)), &AtomicU32::new(0));
        let id: TenantId = store.ids.next();
        let done = store
            .db
            .run_tx("test", |mut tx| async move {
                tried.fetch_add(1, Relaxed);
                let mut conn = tx.conn();
                insert(&mut conn, id, "acme").await?;
                let Conn::Postgres(own) = &mut conn else { unreachable!("it is PostgreSQL") };
                let pid: i32 =
                    sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut **own).await?;
                let killer = other.lock().unwrap().take().expect("this runs once");
                sqlx::query("SELECT pg_terminate_backend($1, 5000)")
                    .bind(pid)
                    .execute(killer)
                    .await?;
                Ok::<_, StoreError>((tx, ()))
            })
            .await;
        let Err(StoreError::Unavailable(why)) = done else { panic!("{done:?}") };
        assert!(why.to_string().contains("it is unknown whether"), "{why}");
        assert_eq!(tried.load(Relaxed), 1);
        store.close().await;
    }
}

#[tokio::test]
async fn a_server_that_cannot_work_now_is_waited_for_and_what_it_holds_is_not_blamed() {
    for store in TestStore::all().await {
        let Engine::Postgres { pool, .. } = &store.db.engine else {
            store.close().await;
            continue;
        };
        // A failover to a server that only reads, ended sessions, a changed password, a full disk, a restart.
        for state in
            ["25006", "25P03", "28P01", "3D000", "40003", "53100", "55P03", "57P01", "58030"]
        {
            let raised = raise(pool, state).await;
            assert!(matches!(raised, StoreError::Unavailable(_)), "{state}: {raised:?}");
            assert!(raised.is_transient());
        }
        for state in ["40001", "40P01"] {
            let raised = raise(pool, state).await;
            assert!(matches!(raised, StoreError::Collision(_)), "{state}: {raised:?}");
        }
        for state in ["22003", "42703"] {
            let raised = raise(pool, state).await;
            assert!(matches!(raised, StoreError::Corrupt(_)), "{state}: {raised:?}");
        }
        store.close().await;
    }
}

#[tokio::test]
async fn a_file_without_room_is_waited_for_and_takes_the_next_transaction_when_there_is_some() {
    for store in TestStore::all().await {
        if !store.has_one_writer() {
            store.close().await;
            continue;
        }
        let (db, id) = (&store.db, &store.ids);
        let write = async |room: bool| {
            db.run_tx("test", |mut tx| async move {
                let mut conn = tx.conn();
                // It counts for the connection: one that is opened anew has room.
                let limit = if room {
                    "PRAGMA max_page_count = 1000000"
                } else {
                    "PRAGMA max_page_count = 1"
                };
                on!(&mut conn, c => sqlx::raw_sql(limit).execute(c).await.map(|_| ()))?;
                // Each with a name of its own: a few pages may be free.
                for n in 0..200 {
                    let name = format!("{n} {}", "long".repeat(500));
                    insert(&mut conn, id.next(), &name).await?;
                }
                Ok::<_, StoreError>((tx, ()))
            })
            .await
        };
        for _ in 0..3 {
            let error = write(false).await.expect_err("no room");
            assert_eq!(error.outage(), Some(Cause::DiskFull), "{error}");
            assert_eq!(db.trouble().await.unwrap(), Some(Cause::DiskFull));
        }
        assert_eq!(tenants(db).await, 0);
        write(true).await.expect("there is room");
        store.close().await;
    }
}

async fn raise(pool: &Pool<Session>, state: &str) -> StoreError {
    let sql = format!("DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{state}'; END $$");
    let mut lent = pool.lend().await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(lent.conn()).await.unwrap_err().into()
}

fn unavailable(detail: String) -> StoreError {
    StoreError::Unavailable(Outage::new(Cause::Other, detail))
}
