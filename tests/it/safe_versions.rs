//! Every version of Safe that is in use: made by its own factory, found, proven, and taken back.

use alloy::primitives::{Address, U256};
use serde_json::{Value, json};
use tidemark::dev::contracts::{SafeContracts, SafeSetup};

use crate::harness::{
    Api, CHAIN, Daemon, Node, eventually, on_both_stores,
    safes::{ALL_SAFES, SAFE_1_0_0, SAFE_1_1_1},
};

async fn placed(node: &Node) -> [SafeContracts; 6] {
    for safe in &ALL_SAFES {
        node.place_safe(safe).await;
    }
    ALL_SAFES
}

/// The wallet of a Safe once its deployment has come so far.
async fn deployed(api: &Api, address: Address, status: &str) -> Value {
    eventually(&format!("the Safe {status}"), || async {
        let answer = api.get(&format!("/v1/wallets/{address}")).await;
        let told = &answer.body["safe"]["deployments"][0]["status"];
        (answer.status == 200 && told == status).then_some(answer.body)
    })
    .await
}

on_both_stores! {
    async fn a_safe_of_every_version_is_found_by_its_owner_and_its_money_counts(store) {
        let node = Node::start().await;
        let versions = placed(&node).await;
        let daemon = Daemon::start(&node, &store).await;
        let api = daemon.customer("acme").await;
        let (owner, other) = (node.accounts[1], node.accounts[2]);
        api.watch(owner).await;
        for safe in &versions {
            let setup = SafeSetup { owners: vec![other, owner], threshold: 2, salt_nonce: 7 };
            let planned = node.safe_deployment(safe, &setup).await;
            node.block_with(std::slice::from_ref(&planned.request)).await;
            node.settle().await;
            let wallet = deployed(&api, planned.address, "completed").await;
            assert_eq!(wallet["safe"]["version"], safe.version, "{wallet}");
            let singleton = json!(safe.singleton.to_checksum(None));
            assert_eq!(wallet["safe"]["singleton"], singleton);
            assert_eq!(wallet["safe"]["threshold"], 2);
            let owners = json!([other.to_checksum(None), owner.to_checksum(None)]);
            assert_eq!(wallet["safe"]["owners"], owners, "Safe {}", safe.version);
            api.active(planned.address).await;
            node.mint(planned.address, 77).await;
            let balance = api.balance_at_head(planned.address, "DUSD", &node).await;
            assert_eq!(balance.pending, U256::from(77));
        }
    }

    async fn a_safe_of_an_early_version_is_tracked_by_its_transaction(store) {
        let node = Node::start().await;
        placed(&node).await;
        let daemon = Daemon::start(&node, &store).await;
        let api = daemon.customer("acme").await;
        for safe in [SAFE_1_0_0, SAFE_1_1_1] {
            let setup = SafeSetup { owners: vec![node.accounts[3]], threshold: 1, salt_nonce: 8 };
            let planned = node.safe_deployment(&safe, &setup).await;
            let receipt = node.block_with(std::slice::from_ref(&planned.request)).await.remove(0);
            let body = json!({"chain": CHAIN, "txHash": receipt.transaction_hash.to_string()});
            assert_eq!(api.post("/v1/safe-deployments", &body).await.status, 202);
            node.settle().await;
            let wallet = deployed(&api, planned.address, "completed").await;
            assert_eq!(wallet["safe"]["version"], safe.version, "{wallet}");
            assert_eq!(wallet["safe"]["owners"], json!([node.accounts[3].to_checksum(None)]));
        }
    }

    async fn a_reorg_takes_a_safe_of_an_early_version_back(store) {
        let node = Node::start().await;
        placed(&node).await;
        let daemon = Daemon::start(&node, &store).await;
        let api = daemon.customer("acme").await;
        node.mine(2).await.unwrap();
        api.watch(node.accounts[1]).await;
        let setup = SafeSetup { owners: vec![node.accounts[1]], threshold: 1, salt_nonce: 9 };
        let planned = node.safe_deployment(&SAFE_1_1_1, &setup).await;
        node.block_with(std::slice::from_ref(&planned.request)).await;
        let wallet = deployed(&api, planned.address, "processing").await;
        // Nothing in its logs shows that no other code ran while it was set up.
        assert_eq!(wallet["accountId"], Value::Null);
        node.reorg(1, &[]).await.unwrap();
        node.mine(1).await.unwrap();
        deployed(&api, planned.address, "pending").await;
    }
}
