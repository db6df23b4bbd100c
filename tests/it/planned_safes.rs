//! Safes that are registered before they are deployed: what they are paid counts, and whoever deploys them.

use alloy::primitives::U256;
use serde_json::{Value, json};
use tidemark::dev::contracts::{SafeContracts, SafeSetup};

use crate::harness::{
    Api, CHAIN, Daemon, Node, eventually, on_both_stores,
    safes::{SAFE_1_3_0_EIP155, SAFE_1_4_1, SAFE_1_5_0, plan},
};

async fn registered(api: &Api, safe: &SafeContracts, setup: &SafeSetup) -> Value {
    let body = json!({"chains": [CHAIN], "safe": plan(safe, setup)});
    let answer = api.post("/v1/wallets", &body).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    answer.body
}

async fn becomes(api: &Api, wallet: &Value, status: &str) -> Value {
    let path = format!("/v1/wallets/{}", wallet["id"].as_str().unwrap());
    eventually(&format!("the Safe {status}"), || async {
        let now = api.get(&path).await.ok();
        (now["safe"]["deployments"][0]["status"] == status).then_some(now)
    })
    .await
}

on_both_stores! {
    async fn what_is_paid_to_a_safe_before_it_is_deployed_counts(store) {
        let node = Node::start().await;
        for safe in [&SAFE_1_3_0_EIP155, &SAFE_1_4_1, &SAFE_1_5_0] {
            node.place_safe(safe).await;
        }
        let daemon = Daemon::start(&node, &store).await;
        let api = daemon.customer("acme").await;
        for safe in [&SAFE_1_3_0_EIP155, &SAFE_1_4_1, &SAFE_1_5_0] {
            let owners = vec![node.accounts[2], node.accounts[1]];
            let setup = SafeSetup { owners, threshold: 2, salt_nonce: 7 };
            let planned = node.safe_deployment(safe, &setup).await;
            let wallet = registered(&api, safe, &setup).await;
            let address = planned.address.to_checksum(None);
            assert_eq!(wallet["address"], address, "where the factory will put it");
            assert_eq!((&wallet["kind"], &wallet["safe"]["deployed"]), (&json!("safe"), &json!(false)));
            assert_eq!(wallet["safe"]["version"], safe.version);
            let again = json!({"chains": [CHAIN], "safe": plan(safe, &setup)});
            let refused = api.post("/v1/wallets", &again).await;
            refused.is_error(409, "wallet_exists");
            api.active(planned.address).await;
            node.mint(planned.address, 70).await;
            let before = api.balance_at_head(planned.address, "DUSD", &node).await;
            assert_eq!(before.pending, U256::from(70));

            // Somebody who is none of its owners deploys it.
            node.block_with(std::slice::from_ref(&planned.request)).await;
            becomes(&api, &wallet, "processing").await;
            node.settle().await;
            let done = becomes(&api, &wallet, "completed").await;
            assert_eq!(done["safe"]["deployed"], true);
            assert_eq!(done["safe"]["foundByOwner"], false);
            let state = &done["safe"]["deployments"][0]["state"];
            assert_eq!((&state["threshold"], &state["trusted"]), (&json!(2), &json!(true)), "{done}");
            let listed = api.get(&format!("/v1/safe-deployments?chain={CHAIN}")).await.ok();
            let listed = listed["data"].as_array().unwrap();
            let own = listed.iter().find(|own| own["walletId"] == wallet["id"]).unwrap();
            assert_eq!(own["sender"], node.accounts[0].to_checksum(None), "who deployed it");
            node.mint(planned.address, 7).await;
            let after = api.balance_at_head(planned.address, "DUSD", &node).await;
            assert_eq!(after.total, U256::from(77));
        }
        let wallets = api.get("/v1/wallets?kind=safe").await.ok();
        assert_eq!(wallets["data"].as_array().map(Vec::len), Some(3), "none was found besides");
    }

    async fn a_reorg_takes_a_planned_safe_back_and_its_money_stays(store) {
        let node = Node::start().await;
        node.place_safe(&SAFE_1_4_1).await;
        let daemon = Daemon::start(&node, &store).await;
        let api = daemon.customer("acme").await;
        let setup = SafeSetup { owners: vec![node.accounts[1]], threshold: 1, salt_nonce: 8 };
        let planned = node.safe_deployment(&SAFE_1_4_1, &setup).await;
        let wallet = registered(&api, &SAFE_1_4_1, &setup).await;
        api.active(planned.address).await;
        node.mint(planned.address, 70).await;
        node.mine(1).await.unwrap();
        node.block_with(std::slice::from_ref(&planned.request)).await;
        becomes(&api, &wallet, "processing").await;
        node.reorg(1, &[]).await.unwrap();
        node.mine(1).await.unwrap();
        becomes(&api, &wallet, "pending").await;
        let balance = api.balance_at_head(planned.address, "DUSD", &node).await;
        assert_eq!(balance.total, U256::from(70));
        let kinds: Vec<Value> = api.events().await.iter().map(|event| event["type"].clone()).collect();
        assert!(!kinds.contains(&json!("safe.changed")), "it was not taken over: {kinds:?}");
        node.block_with(std::slice::from_ref(&planned.request)).await;
        node.settle().await;
        becomes(&api, &wallet, "completed").await;
    }

    async fn a_safe_that_no_factory_would_make_is_refused(store) {
        let node = Node::start().await;
        let daemon = Daemon::start(&node, &store).await;
        let api = daemon.customer("acme").await;
        let owner = node.accounts[1].to_string();
        let with = |key: &str, value: Value| {
            let setup = SafeSetup { owners: vec![node.accounts[1]], threshold: 1, salt_nonce: 1 };
            let mut body = json!({"chains": [CHAIN], "safe": plan(&SAFE_1_4_1, &setup)});
            body["safe"][key] = value;
            body
        };
        for (key, value, field) in [
            ("owners", json!([owner, owner]), "safe.owners[1]"),
            ("owners", json!([]), "safe.owners"),
            ("owners", json!(["0x0000000000000000000000000000000000000001"]), "safe.owners[0]"),
            ("owners", json!(["0x12"]), "safe.owners[0]"),
            ("threshold", json!(2), "safe.threshold"),
            ("threshold", json!(0), "safe.threshold"),
            ("version", json!("1.1.1"), "safe.version"),
            ("saltNonce", json!("-1"), "safe.saltNonce"),
            ("singleton", json!("l3"), "safe.singleton"),
            ("deployment", json!("eip155"), "safe.deployment"),
        ] {
            let answer = api.post("/v1/wallets", &with(key, value)).await;
            answer.is_error(400, "invalid_request");
            assert!(answer.body["errors"][0]["field"] == field, "{}", answer.body);
        }
        let mut both = with("threshold", json!(1));
        both["address"] = json!(owner);
        api.post("/v1/wallets", &both).await.is_error(400, "invalid_request");
    }
}
