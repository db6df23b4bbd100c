//! A store that does not answer for a while ends nothing and loses nothing.

mod disk;
mod restart;
mod server;
mod silence;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use alloy::primitives::{Address, U256};
use futures::future;
use serde_json::{Value, json};
use sqlx::{ConnectOptions as _, Connection as _, PgConnection, sqlite::SqliteConnectOptions};

use crate::harness::{
    Api, CHAIN, Daemon, Gate, Node, Receiver, Settings, Store, eventually, on_both_stores,
};

/// Longer than any statement waits for a lock.
const HELD: Duration = Duration::from_secs(12);
/// A server that restarts.
const GONE: Duration = Duration::from_secs(6);
/// When the store works again, so does the daemon within this time.
const RECOVERY: Duration = Duration::from_secs(5);

/// Holds what every write of the daemon needs.
async fn hold(store: &Store) {
    match store {
        Store::Sqlite { .. } => {
            let path = store.url().trim_start_matches("sqlite://").to_owned();
            let mut other = SqliteConnectOptions::new().filename(path).connect().await.unwrap();
            sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
            tokio::time::sleep(HELD).await;
            sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
            other.close().await.unwrap();
        }
        Store::Postgres { url } => {
            let mut other = PgConnection::connect(url).await.unwrap();
            let lock =
                "BEGIN; LOCK TABLE chain_cursor, delivery, webhook_endpoint IN EXCLUSIVE MODE";
            sqlx::raw_sql(lock).execute(&mut other).await.unwrap();
            tokio::time::sleep(HELD).await;
            sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
            other.close().await.unwrap();
        }
    }
}

/// What a receiver that fails at first and the deposits before and during an outage have become afterwards.
struct Watched {
    wallet: Address,
    endpoint: Value,
    receiver: Receiver,
}

impl Watched {
    /// A wallet with a deposit, of which nobody takes the webhook yet: it is due again each second.
    async fn begin(api: &Api, node: &Node) -> Self {
        let mut receiver = Receiver::start().await;
        let endpoint = receiver.subscribe(api, "hook", &["deposit.*"]).await;
        let wallet = Node::stranger();
        api.watch(wallet).await;
        receiver.end().await;
        node.mint(wallet, 10).await;
        let path = format!("/v1/webhook-endpoints/{}/deliveries", endpoint["id"].as_str().unwrap());
        eventually("a failed attempt", || async {
            let deliveries = api.get(&path).await.ok();
            let attempts = deliveries["data"][0]["attempts"].as_array()?.len();
            (attempts > 0).then_some(())
        })
        .await;
        Self { wallet, endpoint, receiver }
    }

    /// The daemon has lived on, everything has come, and nothing of it twice.
    async fn check(mut self, api: &Api, node: &Node, daemon: &mut Daemon) {
        self.receiver.begin().await;
        self.receiver.control("hook", &json!({"secret": self.endpoint["secret"]})).await;
        node.settle().await;
        api.balance_becomes(self.wallet, "DUSD", "both deposits", |balance| {
            balance.available == U256::from(15)
        })
        .await;
        assert_eq!(api.transfers(self.wallet).await.len(), 2);
        let told: Vec<String> = api
            .events()
            .await
            .iter()
            .filter(|event| event["type"].as_str().unwrap().starts_with("deposit."))
            .map(|event| event["id"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(told.len(), 4, "each deposit is pending once and available once: {told:?}");
        let told = BTreeSet::from_iter(told);
        eventually("every webhook", || async {
            let events = self.receiver.events("hook").await;
            let came = events.iter().map(|event| event["id"].as_str().unwrap().to_owned());
            (came.collect::<BTreeSet<_>>() == told).then_some(())
        })
        .await;
        assert!(daemon.metrics().await.contains("tidemark_task_failures_total 0"));
        daemon.terminate().await;
    }
}

on_both_stores! {
    async fn a_transaction_of_twelve_seconds_while_webhooks_are_due_ends_nothing(store) {
        let node = Node::start().await;
        let mut daemon = Daemon::start(&node, &store).await;
        let api = daemon.customer("acme").await;
        let watched = Watched::begin(&api, &node).await;
        let before = daemon.pid();
        let during = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            node.mint(watched.wallet, 5).await;
        };
        tokio::join!(hold(&store), during);
        assert_eq!(daemon.pid(), before);
        watched.check(&api, &node, &mut daemon).await;
    }
}

/// What `/readyz` says of the store, with its status.
async fn readiness(api: &Api) -> (u16, String) {
    let answer = api.get("/readyz").await;
    (answer.status.as_u16(), answer.body["store"].as_str().expect("of the store").to_owned())
}

/// Waits until the daemon says that the store fails, in words that begin so. It lives.
async fn fails(api: &Api, words: &str) {
    eventually(&format!("the word of the store: {words}"), || async {
        let (status, store) = readiness(api).await;
        assert!(store == "ok" || status == 503, "{store}");
        store.starts_with(words).then_some(())
    })
    .await;
    assert_eq!(api.get("/healthz").await.status, 200);
}

/// The store works again since now: so does the daemon.
async fn recovers(api: &Api) -> Duration {
    let begun = Instant::now();
    eventually("readiness", || async { (readiness(api).await.0 == 200).then_some(()) }).await;
    let took = begun.elapsed();
    assert!(took < RECOVERY, "ready after {took:?}");
    took
}

/// Registers an address as a client does whose request may fail: again with the same key.
async fn register(api: &Api, address: Address) -> Value {
    let key = format!("{:032x}", rand::random::<u128>());
    let body = json!({"address": address.to_string(), "chains": [CHAIN]});
    eventually("the registration's answer", || async {
        let answer = api.post_as(&key, "/v1/wallets", &body).await;
        match answer.status.as_u16() {
            201 => Some(answer.body),
            503 => {
                tokio::time::sleep(Duration::from_millis(500)).await;
                None
            }
            _ => panic!("{}: {}", answer.status, answer.body),
        }
    })
    .await
}

/// Waits until it is watched, however often that cannot be told.
async fn active(api: &Api, address: Address) {
    eventually("the wallet's watch", || async {
        let answer = api.get(&format!("/v1/wallets/{address}")).await;
        (answer.body["status"] == "active").then_some(())
    })
    .await;
}

/// Each task that said that it waits for the store says once that this is over.
async fn says_once(daemon: &Daemon) {
    let said = eventually("the last word of every task", || async {
        let mut said: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        for line in daemon.log().lines() {
            let Some((_, task)) = line.split_once("\"task\":\"") else { continue };
            let (waits, works) = said.entry(task.split('"').next()?.to_owned()).or_default();
            *waits += line.matches("waiting for the store, trying again").count();
            *works += line.matches("the store answers again").count();
        }
        said.values().all(|(waits, works)| waits == works).then_some(said)
    })
    .await;
    assert!(!said.is_empty(), "nothing was said");
    assert!(said.values().all(|&times| times == (1, 1)), "{said:?}");
}

/// Lets a daemon work on a store that fails between `begin` and `end`, with `words` for it.
async fn survives(
    mut daemon: Daemon,
    node: &Node,
    words: &str,
    begin: impl AsyncFnOnce(),
    end: impl AsyncFnOnce(),
) {
    let api = daemon.customer("acme").await;
    let watched = Watched::begin(&api, node).await;
    let pid = daemon.pid();
    begin().await;
    let registering = future::join_all((0..100).map(|_| register(&api, Node::stranger())));
    let outage = async {
        node.mint(watched.wallet, 5).await;
        fails(&api, words).await;
        tokio::time::sleep(GONE).await;
        fails(&api, words).await;
        let back = Instant::now();
        end().await;
        recovers(&api).await;
        let total = U256::from(15);
        api.balance_becomes(watched.wallet, "DUSD", "both deposits", |b| b.total == total).await;
        let took = back.elapsed();
        assert!(took < RECOVERY, "the deposit came after {took:?}");
        took
    };
    let (registered, took) = tokio::join!(registering, outage);
    println!("back after {} ms", took.as_millis());
    let ids: BTreeSet<_> = registered.iter().map(|wallet| wallet["id"].to_string()).collect();
    assert_eq!(ids.len(), 100, "each is registered");
    assert_eq!(daemon.pid(), pid);
    says_once(&daemon).await;
    daemon.audit().await;
    watched.check(&api, node, &mut daemon).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_server_that_is_gone_for_seconds_ends_nothing() {
    let store = Store::postgres().await;
    let mut url: url::Url = store.url().parse().unwrap();
    let server = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap_or(5432));
    let door = Gate::to(&server).await;
    let port = door.url().parse::<url::Url>().unwrap().port();
    url.set_host(Some("127.0.0.1")).unwrap();
    url.set_port(port).unwrap();
    let node = Node::start().await;
    let mut settings = Settings::new(&node, &store);
    settings.database_url = url.into();
    let mut daemon = Daemon::start_with(settings).await;
    let api = daemon.customer("acme").await;
    let watched = Watched::begin(&api, &node).await;
    door.close();
    node.mint(watched.wallet, 5).await;
    tokio::time::sleep(GONE).await;
    door.open(&server);
    watched.check(&api, &node, &mut daemon).await;
}
