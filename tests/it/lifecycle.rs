//! Starting, stopping, dying.

use std::{collections::BTreeSet, time::Duration};

use alloy::primitives::{Address, U256};
use futures::future::join_all;
use rand::Rng as _;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use crate::harness::{
    Api, CHAIN, Daemon, Gate, Node, Receiver, Settings, eventually, on_both_stores,
};

/// Registers one address after the other until there is no answer: with which key, which address, and what
/// was answered.
async fn register_until_lost(api: &Api) -> Vec<(String, Address, Option<Value>)> {
    let mut told = Vec::new();
    loop {
        let (key, address) = (format!("{:032x}", rand::random::<u128>()), Node::stranger());
        let request = api.request(Method::POST, "/v1/wallets").header("X-API-Key", &api.key);
        let body = json!({"address": address.to_string(), "chains": [CHAIN]});
        let sent = request.header("Idempotency-Key", &key).json(&body).send().await;
        let answer = match sent {
            Ok(response) if response.status() == StatusCode::CREATED => response.json().await.ok(),
            Ok(response) => panic!("{}", response.status()),
            Err(_) => None,
        };
        let lost = answer.is_none();
        told.push((key, address, answer));
        if lost {
            return told;
        }
    }
}

on_both_stores! {
    async fn sigterm_ends_the_daemon_with_0_in_time(store) {
        let node = Node::start().await;
        let mut daemon = Daemon::start(&node, &store).await;
        let api = daemon.customer("acme").await;
        let wallet = Node::stranger();
        api.watch(wallet).await;
        node.mint(wallet, 3).await;
        daemon.terminate().await;
        daemon.begin().await;
        daemon.ready().await;
        assert_eq!(api.balance_at_head(wallet, "DUSD", &node).await.total, U256::from(3));
        daemon.terminate().await;
    }

    async fn a_daemon_has_its_allocator_return_large_buffers_unless_the_environment_says_how(store) {
        let node = Node::start().await;
        let environment = |daemon: &Daemon| {
            let read = std::fs::read(format!("/proc/{}/environ", daemon.pid())).unwrap();
            String::from_utf8_lossy(&read).into_owned()
        };
        let mut daemon = Daemon::start(&node, &store).await;
        assert!(environment(&daemon).contains("MALLOC_MMAP_THRESHOLD_="));
        assert!(environment(&daemon).contains("MALLOC_ARENA_MAX="));
        daemon.terminate().await;
        let mut settings = Settings::new(&node, &store);
        settings.environment = vec![("MALLOC_ARENA_MAX".to_owned(), "3".to_owned())];
        let mut daemon = Daemon::start_with(settings).await;
        assert!(!environment(&daemon).contains("MALLOC_MMAP_THRESHOLD_="));
        daemon.terminate().await;
    }

    async fn a_client_that_never_ends_its_request_does_not_hold_the_daemon(store) {
        let node = Node::start().await;
        let mut daemon = Daemon::start(&node, &store).await;
        let address = daemon.base();
        let mut client = tokio::net::TcpStream::connect(address.trim_start_matches("http://")).await.unwrap();
        client.write_all(b"GET /v1/wallets HTTP/1.1\r\nhost: x\r\n").await.unwrap();
        daemon.terminate().await;
    }

    async fn kill_9_at_any_moment_loses_and_doubles_nothing(store) {
        let node = Node::start().await;
        let mut daemon = Daemon::start(&node, &store).await;
        let api = daemon.customer("acme").await;
        let receiver = Receiver::start().await;
        receiver.subscribe(&api, "hook", &["*"]).await;
        let wallets = [Node::stranger(), Node::stranger()];
        for wallet in wallets {
            api.watch(wallet).await;
        }
        let (mut sent, mut deposits) = ([0u64; 2], 0);
        for _ in 0..13 {
            let pause = Duration::from_millis(rand::rng().random_range(0..120));
            let load = async {
                for _ in 0..6 {
                    for (index, wallet) in wallets.into_iter().enumerate() {
                        let value = rand::rng().random_range(1..1000);
                        node.mint(wallet, value).await;
                        sent[index] += value;
                        deposits += 1;
                    }
                }
            };
            let death = async {
                tokio::time::sleep(pause).await;
                daemon.kill_9().await;
            };
            tokio::join!(load, death);
            daemon.begin().await;
        }
        daemon.ready().await;
        node.settle().await;
        for (wallet, sent) in wallets.into_iter().zip(sent) {
            let sent = U256::from(sent);
            let balance = api.balance_settled(wallet, "DUSD", &node).await;
            assert_eq!((balance.available, balance.pending), (sent, U256::ZERO));
        }
        let events = api.events().await;
        for kind in ["deposit.pending", "deposit.available"] {
            let count = events.iter().filter(|event| event["type"] == kind).count();
            assert_eq!(count, deposits, "{kind}");
        }
        let feed: std::collections::BTreeSet<_> =
            events.iter().map(|event| event["id"].to_string()).collect();
        eventually("every event by webhook", || async {
            let seen = receiver.events("hook").await;
            let seen: std::collections::BTreeSet<_> =
                seen.iter().map(|event| event["id"].to_string()).collect();
            (seen == feed).then_some(())
        })
        .await;
        // Each commit has its place in the journal, and the newest hash is shown.
        daemon.audit().await;
        let chain = &api.get("/v1/chains").await.ok()["data"][0];
        let hash = chain["journal"]["hash"].as_str().expect("something was booked");
        let (commit, prefix) = (&chain["journal"]["commit"], i64::from_str_radix(&hash[..12], 16));
        let metrics = daemon.metrics().await;
        for gauge in [format!("journal_commit{{chain=\"local\"}} {commit}"),
            format!("journal_hash_prefix{{chain=\"local\"}} {}", prefix.unwrap())] {
            assert!(metrics.contains(&gauge), "{gauge}");
        }
        let said = daemon.command(&["verify-journal", "--chain", CHAIN, "--expect", hash]).await;
        assert!(said.contains(&format!("commit {commit} has the expected hash")), "{said}");
        let other = hash.replace(['0', '1', '2', '3'], "4");
        let expected = ["verify-journal", "--expect", &other];
        let (code, said) = daemon.outcome(&expected).await;
        assert_eq!(code, 1, "{said}");
    }

    async fn kill_9_loses_no_registration_that_was_answered_and_doubles_none(store) {
        let node = Node::start().await;
        let mut daemon = Daemon::start(&node, &store).await;
        let api = daemon.customer("acme").await;
        let mut registered = BTreeSet::new();
        for _ in 0..4 {
            let pause = Duration::from_millis(rand::rng().random_range(20..200));
            let death = async {
                tokio::time::sleep(pause).await;
                daemon.kill_9().await;
            };
            let clients = join_all((0..16).map(|_| register_until_lost(&api)));
            let (told, ()) = tokio::join!(clients, death);
            daemon.begin().await;
            for (key, address, answer) in told.into_iter().flatten() {
                let body = json!({"address": address.to_string(), "chains": [CHAIN]});
                let again = api.post_as(&key, "/v1/wallets", &body).await;
                assert_eq!(again.status, StatusCode::CREATED, "{}", again.body);
                if let Some(answer) = answer {
                    assert_eq!(again.body, answer, "the first answer");
                }
                let id = again.body["id"].to_string();
                assert!(registered.insert(id), "two registrations, one wallet");
                let found = api.get(&format!("/v1/wallets?address={address}")).await.ok();
                assert_eq!(found["data"].as_array().map(Vec::len), Some(1));
            }
        }
        let created = api.events().await.into_iter().filter(|event| event["type"] == "wallet.created");
        let created: Vec<_> =
            created.map(|event| event["data"]["wallet"]["id"].to_string()).collect();
        assert_eq!(created.len(), registered.len());
        assert_eq!(BTreeSet::from_iter(created), registered);
    }

    async fn a_node_that_was_away_is_caught_up_with(store) {
        let node = Node::start().await;
        let gate = Gate::to(node.url()).await;
        let mut settings = Settings::new(&node, &store);
        settings.node_url = gate.url();
        settings.node_ws = Some(gate.ws_url());
        let daemon = Daemon::start_with(settings).await;
        let api = daemon.customer("acme").await;
        let (early, late) = (Node::stranger(), Node::stranger());
        api.watch(early).await;
        gate.close();
        let registered = api.register(late).await;
        assert_eq!(registered["status"], "pending", "there is nobody to ask for its balance");
        node.mint(early, 3).await;
        node.mint(late, 4).await;
        gate.open(node.url());
        assert_eq!(api.balance_at_head(early, "DUSD", &node).await.total, U256::from(3));
        api.active(late).await;
        assert_eq!(api.balance_at_head(late, "DUSD", &node).await.total, U256::from(4));
    }
}
