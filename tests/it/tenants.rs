//! Two tenants see nothing of each other.

use alloy::primitives::U256;
use serde_json::json;

use crate::harness::{Daemon, Node, Receiver, on_both_stores};

on_both_stores! {
    async fn two_tenants_see_nothing_of_each_other(store) {
        let node = Node::start().await;
        let daemon = Daemon::start(&node, &store).await;
        let (acme, bolt) = (daemon.customer("acme").await, daemon.customer("bolt").await);
        let receiver = Receiver::start().await;
        let endpoint = receiver.subscribe(&acme, "acme", &["*"]).await;
        receiver.subscribe(&bolt, "bolt", &["*"]).await;
        let (ours, shared) = (Node::stranger(), Node::stranger());
        let wallet = acme.watch(ours).await;
        acme.watch(shared).await;
        bolt.watch(shared).await;

        node.mint(ours, 5).await;
        node.mint(shared, 7).await;
        for api in [&acme, &bolt] {
            assert_eq!(api.balance_at_head(shared, "DUSD", &node).await.total, U256::from(7));
        }
        let id = wallet["id"].as_str().unwrap();
        for locator in [id, &ours.to_checksum(None)] {
            for path in ["", "/balances", "/transfers"] {
                let answer = bolt.get(&format!("/v1/wallets/{locator}{path}")).await;
                answer.is_error(404, "wallet_not_found");
            }
            bolt.delete(&format!("/v1/wallets/{locator}")).await.is_error(404, "wallet_not_found");
        }
        let listed = bolt.get("/v1/wallets").await.ok();
        assert_eq!(listed["data"].as_array().map(Vec::len), Some(1));
        let hook = format!("/v1/webhook-endpoints/{}", endpoint["id"].as_str().unwrap());
        assert_eq!(bolt.get(&hook).await.status, 404);
        assert_eq!(bolt.delete(&hook).await.status, 404);

        receiver.event("acme", "deposit.pending").await;
        receiver.event("bolt", "deposit.pending").await;
        let foreign = json!(ours.to_checksum(None));
        for event in bolt.events().await.iter().chain(&receiver.events("bolt").await) {
            assert_ne!(event["data"]["wallet"]["address"], foreign);
        }
        assert_eq!(acme.balance(ours, "DUSD").await.total, U256::from(5), "nothing was deleted");
    }

    async fn a_key_opens_only_what_its_scopes_say(store) {
        let node = Node::start().await;
        let daemon = Daemon::start(&node, &store).await;
        let reader = daemon.customer_with("acme", "wallets:read").await;
        let body = json!({"address": Node::stranger().to_checksum(None), "chains": ["local"]});
        reader.post("/v1/wallets", &body).await.is_error(403, "forbidden");
        reader.get("/v1/wallets").await.ok();
        let mut nobody = reader.clone();
        nobody.key = String::from("tmk_nobody");
        nobody.get("/v1/wallets").await.is_error(401, "unauthorized");
    }
}
