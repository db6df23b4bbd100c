//! Safes: found by transaction and by owner, proven by the chain's state, never by somebody's logs.

use alloy::{primitives::Address, sol, sol_types::SolCall as _};
use serde_json::{Value, json};
use tidemark::dev::{
    anvil::Request,
    contracts::{self, SafeSetup},
};

use crate::harness::{Api, CHAIN, Daemon, Node, eventually, on_both_stores};

const FAKE_FACTORY: &str = include_str!("contracts/FakeSafeFactory.hex");

sol! {
    interface FakeSafeFactory {
        function create(address[] calldata owners, address singleton) external returns (address);
    }
}

async fn track(api: &Api, transaction: impl ToString) -> Value {
    let body = json!({"chain": CHAIN, "txHash": transaction.to_string()});
    let answer = api.post("/v1/safe-deployments", &body).await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    answer.body
}

async fn becomes(api: &Api, deployment: &Value, status: &str) -> Value {
    let path = format!("/v1/safe-deployments/{}", deployment["id"].as_str().unwrap());
    eventually(&format!("the deployment {status}"), || async {
        let now = api.get(&path).await.ok();
        (now["status"] == status).then_some(now)
    })
    .await
}

fn same(text: &Value, address: Address) -> bool {
    text.as_str() == Some(&address.to_checksum(None))
}

on_both_stores! {
    async fn a_safe_is_detected_by_its_transaction(store) {
        let node = Node::start().await;
        let versions = [node.deploy_safe_1_4_1().await, node.deploy_safe_1_3_0().await];
        let daemon = Daemon::start(&node, &store).await;
        let api = daemon.customer("acme").await;
        let owners = vec![node.accounts[1], node.accounts[2]];
        for safe in versions {
            let setup = SafeSetup { owners: owners.clone(), threshold: 2, salt_nonce: 1 };
            let planned = safe.deployment(&node, node.accounts[0], &setup).await.unwrap();
            let transaction = node.send(&planned.request).await.unwrap();
            let tracked = track(&api, transaction).await;
            assert_eq!(tracked["status"], "pending");
            node.mine(1).await.unwrap();
            becomes(&api, &tracked, "processing").await;
            node.settle().await;
            let done = becomes(&api, &tracked, "completed").await;
            assert!(same(&done["address"], planned.address), "{done}");
            assert_eq!(done["version"], safe.version);
            assert!(same(&done["singleton"], safe.singleton), "{done}");
            assert_eq!(done["threshold"], 2);
            assert_eq!(done["owners"].as_array().map(Vec::len), Some(2));
            let wallet = api.get(&format!("/v1/wallets/{}", planned.address)).await.ok();
            assert_eq!(wallet["kind"], "safe");
        }
        let kinds: Vec<Value> = api.events().await.iter().map(|event| event["type"].clone()).collect();
        for kind in ["safe_deployment.processing", "safe_deployment.completed"] {
            assert_eq!(kinds.iter().filter(|&told| told == kind).count(), 2, "{kinds:?}");
        }
    }

    async fn a_safe_of_a_registered_owner_is_found_by_itself(store) {
        let node = Node::start().await;
        let safe = node.deploy_safe_1_4_1().await;
        let daemon = Daemon::start(&node, &store).await;
        let api = daemon.customer("acme").await;
        let owner = node.accounts[1];
        api.watch(owner).await;
        let setup = SafeSetup { owners: vec![node.accounts[2], owner], threshold: 1, salt_nonce: 5 };
        let planned = safe.deployment(&node, node.accounts[0], &setup).await.unwrap();
        node.block_with(std::slice::from_ref(&planned.request)).await;
        node.settle().await;
        api.event("safe_deployment.completed").await;
        let wallet = api.get(&format!("/v1/wallets/{}", planned.address)).await.ok();
        assert_eq!((&wallet["kind"], &wallet["safe"]["deployed"]), (&json!("safe"), &json!(true)));
        assert_eq!(wallet["safe"]["version"], "1.4.1");
        let listed = api.get(&format!("/v1/safe-deployments?chain={CHAIN}")).await.ok();
        assert!(same(&listed["data"][0]["address"], planned.address), "{listed}");

        // From now on its money counts.
        api.active(planned.address).await;
        node.mint(planned.address, 77).await;
        let balance = api.balance_at_head(planned.address, "DUSD", &node).await;
        assert_eq!(balance.pending, alloy::primitives::U256::from(77));
    }

    async fn a_fake_proxy_creation_is_refused(store) {
        let node = Node::start().await;
        let safe = node.deploy_safe_1_4_1().await;
        let factory = contracts::deploy(&node, node.accounts[0], FAKE_FACTORY).await.unwrap();
        let daemon = Daemon::start(&node, &store).await;
        let api = daemon.customer("acme").await;
        let owner = node.accounts[1];
        api.watch(owner).await;
        let call = FakeSafeFactory::createCall { owners: vec![owner], singleton: safe.singleton };
        let request = Request::call(node.accounts[0], factory, call.abi_encode()).with_gas(1_000_000);
        let transaction = node.send(&request).await.unwrap();
        let tracked = track(&api, transaction).await;
        node.mine(1).await.unwrap();
        node.settle().await;
        let failed = becomes(&api, &tracked, "failed").await;
        assert_eq!(failed["reason"], "not_a_safe");
        let event = api.event("safe_deployment.failed").await;
        assert!(event["id"].as_str().is_some_and(|id| id.starts_with("evt_")));
        let wallets = api.get("/v1/wallets?kind=safe").await.ok();
        assert_eq!(wallets["data"], json!([]), "nothing was registered");
    }

    async fn a_reverted_deployment_fails(store) {
        let node = Node::start().await;
        let safe = node.deploy_safe_1_4_1().await;
        let daemon = Daemon::start(&node, &store).await;
        let api = daemon.customer("acme").await;
        let setup = SafeSetup { owners: vec![node.accounts[1]], threshold: 2, salt_nonce: 5 };
        let planned = safe.deployment(&node, node.accounts[0], &setup).await.unwrap();
        let transaction = node.send(&planned.request.with_gas(1_000_000)).await.unwrap();
        let tracked = track(&api, transaction).await;
        node.mine(1).await.unwrap();
        node.settle().await;
        assert_eq!(becomes(&api, &tracked, "failed").await["reason"], "reverted");
    }

    async fn a_reorg_takes_a_safe_back(store) {
        let node = Node::start().await;
        let safe = node.deploy_safe_1_4_1().await;
        let daemon = Daemon::start(&node, &store).await;
        let api = daemon.customer("acme").await;
        node.mine(2).await.unwrap();
        let setup = SafeSetup { owners: vec![node.accounts[1]], threshold: 1, salt_nonce: 6 };
        let planned = safe.deployment(&node, node.accounts[0], &setup).await.unwrap();
        let receipt = node.block_with(std::slice::from_ref(&planned.request)).await.remove(0);
        let tracked = track(&api, receipt.transaction_hash).await;
        becomes(&api, &tracked, "processing").await;
        node.reorg(1, &[]).await.unwrap();
        node.mine(1).await.unwrap();
        becomes(&api, &tracked, "pending").await;
    }
}
