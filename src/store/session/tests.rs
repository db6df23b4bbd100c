use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{AbortHandle, JoinSet},
};

use crate::store::{
    Db, StoreError, engine::Engine, on, outage::Cause, pool::Pooled as _, session::Session,
    session::SessionOptions, testing::TestStore,
};

const LEASE: Duration = Duration::from_secs(10);

/// A way to a server on which everything stops without a word.
struct Cable {
    address: SocketAddr,
    pulled: watch::Sender<u32>,
    task: AbortHandle,
}

impl Cable {
    async fn to(server: (String, u16)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let pulled = watch::Sender::new(0);
        let pulls = pulled.clone();
        let carry = async move {
            let mut connections = JoinSet::new();
            while let Ok((mut one, _)) = listener.accept().await {
                let mut other = TcpStream::connect(&server).await.unwrap();
                let mut pulled = pulls.subscribe();
                pulled.mark_unchanged();
                connections.spawn(async move {
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut one, &mut other) => {}
                        _ = pulled.changed() => std::future::pending::<()>().await,
                    }
                });
            }
        };
        Self { address, pulled, task: tokio::spawn(carry).abort_handle() }
    }

    /// The connections of now stay silent for ever; new ones are carried.
    fn pull(&self) {
        self.pulled.send_modify(|pulls| *pulls += 1);
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The PostgreSQL of a test store, as a daemon reaches it by a cable.
async fn by_cable(store: &TestStore) -> Option<(Cable, SessionOptions)> {
    let Engine::Postgres { pool, .. } = &store.db.engine else { return None };
    let connect = &pool.options().connect;
    let cable = Cable::to((connect.get_host().to_owned(), connect.get_port())).await;
    let (host, port) = (cable.address.ip().to_string(), cable.address.port());
    let connect = connect.clone().host(&host).port(port);
    Some((cable, SessionOptions::new(connect, Some(LEASE))))
}

#[tokio::test]
async fn an_answer_that_will_not_come_is_not_waited_for_and_one_that_will_is() {
    for store in TestStore::all().await {
        let Some((cable, options)) = by_cable(&store).await else {
            store.close().await;
            continue;
        };
        let mut patient = Session::open(&options).await.unwrap();
        let slept = sqlx::query("SELECT pg_sleep(7)").execute(&mut patient).await;
        slept.expect("the server works on it");
        for at_rest in [false, true] {
            let mut session = Session::open(&options).await.unwrap();
            let started = Instant::now();
            let asked = async {
                if at_rest {
                    cable.pull();
                }
                sqlx::query("SELECT pg_sleep(1)").execute(&mut session).await
            };
            let pull = async {
                tokio::time::sleep(std::time::Duration::from_millis(500)).await;
                cable.pull();
            };
            let (done, ()) = tokio::join!(asked, pull);
            let error = StoreError::from(done.expect_err("nobody answers"));
            assert_eq!(error.outage(), Some(Cause::Silent), "{error}");
            assert!(started.elapsed().as_millis() < 5000, "{:?}", started.elapsed());
            assert!(!session.is_clean());
            assert!(session.clean().await.is_err(), "it is not used again");
        }
        store.close().await;
    }
}

async fn one(db: &Db) -> Result<i64, StoreError> {
    let mut tx = db.begin().await?;
    let one: Result<i64, _> = on!(&mut tx.conn(), c => {
        sqlx::query_scalar("SELECT CAST(1 AS BIGINT)").fetch_one(c).await
    });
    let one = one?;
    tx.commit().await?;
    Ok(one)
}

#[tokio::test]
async fn connections_that_died_at_rest_are_replaced_within_seconds() {
    for store in TestStore::all().await {
        let Some((cable, options)) = by_cable(&store).await else {
            store.close().await;
            continue;
        };
        let mut db = store.db.clone();
        let pool = || {
            crate::store::pool::Pool::new(options.clone(), 4, std::time::Duration::from_secs(10))
        };
        db.engine = Engine::Postgres { readers: pool(), pool: pool() };
        let all = async || futures::future::try_join_all((0..8).map(|_| one(&db))).await;
        all().await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
        cable.pull();
        let started = Instant::now();
        all().await.expect("by new connections");
        assert!(started.elapsed().as_secs() < 4, "{:?}", started.elapsed());
        db.close().await;
        store.close().await;
    }
}

#[tokio::test]
async fn connections_to_a_server_that_takes_no_writes_are_opened_anew() {
    for store in TestStore::all().await {
        let Engine::Postgres { pool, .. } = &store.db.engine else {
            store.close().await;
            continue;
        };
        let options = SessionOptions::new(pool.options().connect.clone(), Some(LEASE));
        let mut one = Session::open(&options).await.unwrap();
        let mut other = Session::open(&options).await.unwrap();
        assert!(one.is_clean() && other.is_clean());
        let demote = "SET default_transaction_read_only = on";
        sqlx::raw_sql(demote).execute(&mut one).await.unwrap();
        let refused = sqlx::query("DELETE FROM tenant").execute(&mut one).await.map(|_| ());
        let refused = StoreError::from(refused.expect_err("it only reads"));
        assert_eq!(refused.outage(), Some(Cause::ReadOnly));
        for session in [&mut one, &mut other] {
            assert!(!session.is_clean());
            assert!(session.clean().await.is_err(), "its name may lead elsewhere by now");
        }
        assert!(Session::open(&options).await.unwrap().is_clean());
        store.close().await;
    }
}

#[tokio::test]
async fn a_transaction_that_sleeps_is_ended_by_the_server_and_holds_nothing_for_long() {
    for store in TestStore::all().await {
        let Engine::Postgres { pool, .. } = &store.db.engine else {
            store.close().await;
            continue;
        };
        store.tenant().await;
        let options = SessionOptions::new(pool.options().connect.clone(), Some(LEASE));
        let mut sleeper = Session::open(&options).await.unwrap();
        sleeper.begin("BEGIN").await.unwrap();
        let lock = "SELECT no FROM tenant FOR UPDATE";
        sqlx::query(lock).execute(&mut sleeper).await.unwrap();
        let mut other = Session::open(&options).await.unwrap();
        let started = Instant::now();
        let refused = sqlx::query(lock).execute(&mut other).await.map(|_| ());
        let refused =
            StoreError::from(refused.expect_err("a lock is waited for, but not for long"));
        assert_eq!(refused.outage(), Some(Cause::Locked));
        assert!(started.elapsed().as_secs() < 7, "{:?}", started.elapsed());
        sqlx::query(lock).execute(&mut other).await.expect("the sleeper has lost it");
        assert!(started.elapsed().as_secs() < 10, "{:?}", started.elapsed());
        let lost = sleeper.commit().await.expect_err("the server has ended it");
        assert!(StoreError::from(lost).is_transient());
        store.close().await;
    }
}
