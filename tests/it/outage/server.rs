//! A server that takes no writes, or no connections, or is not there yet.

use std::time::Duration;

use serde_json::json;
use sqlx::{Connection as _, PgConnection};
use tokio_util::task::AbortOnDropHandle;

use super::{fails, readiness, recovers, survives};
use crate::harness::{Api, Daemon, Node, Server, Settings, Stop, Store};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_only_reads_is_waited_for() {
    let server = Server::start().await;
    let (node, store) = (Node::start().await, server.store("tidemark").await);
    let daemon = Daemon::start(&node, &store).await;
    let set = async |to: &str| {
        let sql = format!("ALTER SYSTEM SET default_transaction_read_only = {to}");
        server.execute("postgres", &sql).await;
        server.execute("postgres", "SELECT pg_reload_conf()").await;
    };
    survives(daemon, &node, "read-only", async || set("on").await, async || set("off").await).await;
}

/// Takes every connection that is to be had.
async fn eat(url: String) {
    let mut eaten = Vec::new();
    loop {
        match PgConnection::connect(&url).await {
            Ok(connection) => eaten.push(connection),
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_a_free_connection_is_waited_for() {
    let server = Server::start_with(&["max_connections=40"]).await;
    for made in [
        "CREATE ROLE teller LOGIN",
        "CREATE ROLE other LOGIN",
        "CREATE DATABASE tidemark OWNER teller",
    ] {
        server.execute("postgres", made).await;
    }
    let store = Store::Postgres { url: server.url("tidemark").replace("postgres@", "teller@") };
    let node = Node::start().await;
    let daemon = Daemon::start(&node, &store).await;
    let eaters = parking_lot::Mutex::new(None);
    let begin = async || {
        let url = server.url("postgres").replace("postgres@", "other@");
        *eaters.lock() = Some(AbortOnDropHandle::new(tokio::spawn(eat(url))));
        let hang_up =
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'teller'";
        for _ in 0..20 {
            server.execute("postgres", hang_up).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let end = async || drop(eaters.lock().take());
    survives(daemon, &node, "out of connections", begin, end).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_starts_before_its_server_waits_and_says_so() {
    let mut server = Server::start().await;
    let (node, store) = (Node::start().await, server.store("tidemark").await);
    server.stop(Stop::Fast).await;
    let mut daemon = Daemon::prepare(Settings::new(&node, &store));
    daemon.begin().await;
    let api = Api::new(daemon.base(), "tmk_none".to_owned());
    fails(&api, "no connection").await;
    let body = json!({"address": Node::stranger().to_string()});
    api.post("/v1/wallets", &body).await.is_error(503, "unavailable");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(readiness(&api).await, (503, "no connection".to_owned()));
    server.begin().await;
    recovers(&api).await;
    super::says_once(&daemon).await;
    let api = daemon.customer("acme").await;
    let wallet = Node::stranger();
    api.watch(wallet).await;
    daemon.terminate().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_waits_for_its_server_can_be_stopped() {
    let mut server = Server::start().await;
    let (node, store) = (Node::start().await, server.store("tidemark").await);
    server.stop(Stop::Immediate).await;
    let mut daemon = Daemon::prepare(Settings::new(&node, &store));
    daemon.begin().await;
    daemon.terminate().await;
}
