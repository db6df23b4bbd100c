//! A server that is gone without a word: connections stay open, and nothing comes.

use std::time::Duration;

use super::survives;
use crate::harness::{Daemon, Gate, Node, Settings, Store};

/// Where a request finds one dead connection after the other: to know the caller, to write, to follow.
const SECONDS: Duration = Duration::from_secs(8);

/// A daemon that reaches its database through a door.
async fn behind_a_door() -> (Node, Gate, Daemon) {
    let store = Store::postgres().await;
    let mut url: url::Url = store.url().parse().unwrap();
    let server = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap_or(5432));
    let door = Gate::to(&server).await;
    url.set_host(Some("127.0.0.1")).unwrap();
    url.set_port(door.url().parse::<url::Url>().unwrap().port()).unwrap();
    let node = Node::start().await;
    let mut settings = Settings::new(&node, &store);
    settings.database_url = url.into();
    let daemon = Daemon::start_with(settings).await;
    (node, door, daemon)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_cut_off_without_a_word_is_noticed_and_taken_up_again() {
    let (node, door, daemon) = behind_a_door().await;
    survives(daemon, &node, "no ", async || door.hold(), async || door.release()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_stay_dead_for_ever_are_replaced() {
    let (node, door, daemon) = behind_a_door().await;
    survives(daemon, &node, "no ", async || door.hold(), async || door.forget()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_whose_store_is_cut_off_can_be_stopped() {
    let (_node, door, mut daemon) = behind_a_door().await;
    door.hold();
    tokio::time::sleep(Duration::from_secs(2)).await;
    daemon.terminate().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_firewall_that_forgets_connections_costs_seconds_at_most() {
    let (node, door, mut daemon) = behind_a_door().await;
    let api = daemon.customer("acme").await;
    let watched = super::Watched::begin(&api, &node).await;
    for round in 0..3 {
        door.hold();
        door.forget();
        let begun = std::time::Instant::now();
        let wallet = Node::stranger();
        super::register(&api, wallet).await;
        super::active(&api, wallet).await;
        let took = begun.elapsed();
        assert!(took < SECONDS, "round {round}: registered after {took:?}");
    }
    node.mint(watched.wallet, 5).await;
    watched.check(&api, &node, &mut daemon).await;
}
