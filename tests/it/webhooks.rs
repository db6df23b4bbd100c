//! Every event reaches its consumer, signed, whatever happens in between.

use std::collections::BTreeSet;

use alloy::primitives::U256;
use serde_json::json;

use crate::harness::{Daemon, Node, Receiver, eventually, on_both_stores};

fn ids(events: &[serde_json::Value]) -> BTreeSet<String> {
    events.iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect()
}

on_both_stores! {
    async fn the_reference_library_verifies_every_webhook(store) {
        let node = Node::start().await;
        let daemon = Daemon::start(&node, &store).await;
        let api = daemon.customer("acme").await;
        let receiver = Receiver::start().await;
        receiver.subscribe(&api, "all", &["*"]).await;
        receiver.subscribe(&api, "some", &["deposit.available"]).await;
        let wallet = Node::stranger();
        let registered = api.watch(wallet).await;
        node.mint(wallet, 1_500_000).await;
        node.settle().await;
        let event = receiver.event("all", "deposit.available").await;
        assert_eq!(event["data"]["wallet"]["id"], registered["id"]);
        let feed = ids(&api.events().await);
        eventually("all events of the feed", || async {
            (ids(&receiver.events("all").await) == feed).then_some(())
        })
        .await;
        receiver.event("some", "deposit.available").await;
        let some = receiver.events("some").await;
        assert!(some.iter().all(|event| event["type"] == "deposit.available"), "{some:?}");
        let delivery = &receiver.seen("all").await[0];
        assert_eq!(delivery["headers"]["webhook-id"], delivery["event"]["id"]);
        assert_eq!(delivery["headers"]["content-type"], "application/json");
    }

    async fn a_receiver_that_was_down_gets_everything_afterwards(store) {
        let node = Node::start().await;
        let daemon = Daemon::start(&node, &store).await;
        let api = daemon.customer("acme").await;
        let mut receiver = Receiver::start().await;
        let endpoint = receiver.subscribe(&api, "hook", &["deposit.*"]).await;
        let wallet = Node::stranger();
        api.watch(wallet).await;
        receiver.end().await;
        for _ in 0..5 {
            node.mint(wallet, 10).await;
        }
        node.settle().await;
        api.balance_becomes(wallet, "DUSD", "settlement", |b| b.available == U256::from(50)).await;
        let feed: Vec<_> = api
            .events()
            .await
            .into_iter()
            .filter(|event| event["type"].as_str().unwrap().starts_with("deposit."))
            .collect();
        assert_eq!(feed.len(), 10);
        // Time for a first attempt to fail.
        let path = format!("/v1/webhook-endpoints/{}/deliveries", endpoint["id"].as_str().unwrap());
        eventually("a failed attempt", || async {
            let attempts = api.get(&path).await.ok();
            (!attempts["data"].as_array()?.is_empty()).then_some(())
        })
        .await;
        receiver.begin().await;
        receiver.control("hook", &json!({"secret": endpoint["secret"]})).await;
        eventually("all deposits", || async {
            (ids(&receiver.events("hook").await) == ids(&feed)).then_some(())
        })
        .await;
    }

    async fn a_webhook_that_was_not_acknowledged_is_sent_again_after_kill_9(store) {
        let node = Node::start().await;
        let mut daemon = Daemon::start(&node, &store).await;
        let api = daemon.customer("acme").await;
        let receiver = Receiver::start().await;
        receiver.subscribe(&api, "hook", &["deposit.pending"]).await;
        let wallet = Node::stranger();
        api.watch(wallet).await;
        receiver.control("hook", &json!({"delayMs": 600_000})).await;
        node.mint(wallet, 10).await;
        eventually("a delivery under way", || async {
            (!receiver.seen("hook").await.is_empty()).then_some(())
        })
        .await;
        daemon.kill_9().await;
        receiver.control("hook", &json!({"delayMs": 0})).await;
        daemon.begin().await;
        eventually("the same delivery again", || async {
            (receiver.seen("hook").await.len() > 1).then_some(())
        })
        .await;
        let events = receiver.events("hook").await;
        assert_eq!(ids(&events).len(), 1, "the same event: {events:?}");
    }
}
