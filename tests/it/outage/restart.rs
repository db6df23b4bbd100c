//! A server that restarts again and again under load.
//!
//! `TIDEMARK_TEST_RESTARTS=20 cargo test --test it restart` does it twenty times; the suite does it less often.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use alloy::primitives::{Address, U256};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::{active, readiness, recovers, register};
use crate::harness::{Api, Daemon, Node, Receiver, Server, Stop, eventually};

/// How often in the suite.
const RESTARTS: usize = 6;

fn restarts() -> usize {
    std::env::var("TIDEMARK_TEST_RESTARTS").map_or(RESTARTS, |text| text.parse().unwrap())
}

/// What each wallet was paid, in how many deposits.
type Paid = Mutex<BTreeMap<Address, (u64, usize)>>;

/// Registers one wallet after the other; one that is watched gets paid.
async fn grow(api: &Api, paid: &Paid, over: &CancellationToken) {
    while !over.is_cancelled() {
        let wallet = Node::stranger();
        register(api, wallet).await;
        active(api, wallet).await;
        paid.lock().insert(wallet, (0, 0));
    }
}

async fn pay(node: &Node, paid: &Paid, over: &CancellationToken) {
    let mut amount = 0;
    while !over.is_cancelled() {
        let wallets: Vec<Address> = paid.lock().keys().copied().collect();
        if let Some(&wallet) = wallets.get(rand::random_range(0..wallets.len().max(1))) {
            amount += 1;
            node.mint(wallet, amount).await;
            let mut paid = paid.lock();
            let (sum, times) = paid.get_mut(&wallet).unwrap();
            (*sum, *times) = (*sum + amount, *times + 1);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Everything is there, told once, delivered, and exact.
async fn check(api: &Api, node: &Node, daemon: &Daemon, receiver: &Receiver, paid: &Paid) {
    node.settle().await;
    let paid = paid.lock().clone();
    let mut deposits = 0;
    for (&wallet, &(sum, times)) in &paid {
        let balance = api.balance_settled(wallet, "DUSD", node).await;
        assert_eq!(balance.available, U256::from(sum), "{wallet}");
        assert_eq!(api.transfers(wallet).await.len(), times, "{wallet}");
        deposits += times;
    }
    let mut told: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    let mut ids = BTreeSet::new();
    for event in api.events().await {
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let (kind, id) = (text(&event["type"]), text(&event["id"]));
        if kind.starts_with("deposit.") {
            let of = (kind, text(&event["data"]["transfer"]["txHash"]));
            told.entry(of).or_default().insert(id.clone());
        }
        assert!(ids.insert(id), "an event comes once in the feed: {event}");
    }
    assert_eq!(told.len(), 2 * deposits, "each deposit is pending and available");
    for (of, ids) in &told {
        assert_eq!(ids.len(), 1, "{of:?} is told once");
    }
    eventually("every webhook", || async {
        let events = receiver.events("hook").await;
        let came: BTreeSet<_> =
            events.iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect();
        (came == ids).then_some(())
    })
    .await;
    daemon.audit().await;
    println!("{} wallets, {deposits} deposits, {} events", paid.len(), ids.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_restarts_again_and_again_under_load_loses_nothing() {
    let mut server = Server::start().await;
    let (node, store) = (Node::start().await, server.store("tidemark").await);
    let mut daemon = Daemon::start(&node, &store).await;
    let api = daemon.customer("acme").await;
    let receiver = Receiver::start().await;
    receiver.subscribe(&api, "hook", &["*"]).await;
    let (paid, over) = (Paid::default(), CancellationToken::new());
    let process = daemon.pid();
    let restarting = async {
        let mut longest = Duration::ZERO;
        for round in 0..restarts() {
            tokio::time::sleep(Duration::from_millis(rand::random_range(500..2000))).await;
            server.stop(if round % 2 == 0 { Stop::Fast } else { Stop::Immediate }).await;
            tokio::time::sleep(Duration::from_millis(rand::random_range(0..3000))).await;
            assert_eq!(api.get("/healthz").await.status, 200);
            assert_eq!(readiness(&api).await.0, 503);
            server.begin().await;
            longest = longest.max(recovers(&api).await);
        }
        over.cancel();
        longest
    };
    let (longest, (), ()) =
        tokio::join!(restarting, grow(&api, &paid, &over), pay(&node, &paid, &over));
    println!("{} restarts, ready again within {} ms", restarts(), longest.as_millis());
    assert_eq!(daemon.pid(), process);
    check(&api, &node, &daemon, &receiver, &paid).await;
    assert!(daemon.metrics().await.contains("tidemark_task_failures_total 0"));
    daemon.terminate().await;
}
