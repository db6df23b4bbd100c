//! Safes that change after they were deployed: told at once, whichever way they were changed.

use alloy::{
    primitives::{Address, B256, U256},
    sol_types::SolCall as _,
};
use serde_json::{Value, json};
use tidemark::dev::{
    anvil::Request,
    contracts::{SafeContracts, SafeSetup},
};

use crate::harness::{
    Api, Daemon, Node, eventually, on_both_stores,
    safes::{ALL_SAFES, SAFE_1_4_1, Wallet, execute, writer},
};

/// A Safe of this version that one registered owner has alone, watched.
async fn own_safe(node: &Node, api: &Api, safe: &SafeContracts, salt_nonce: u64) -> Address {
    let owner = node.accounts[1];
    let setup = SafeSetup { owners: vec![owner], threshold: 1, salt_nonce };
    let planned = node.safe_deployment(safe, &setup).await;
    node.block_with(std::slice::from_ref(&planned.request)).await;
    eventually("the Safe's wallet", || async {
        let answer = api.get(&format!("/v1/wallets/{}", planned.address)).await;
        (answer.status == 200 && answer.body["status"] == "active").then_some(())
    })
    .await;
    planned.address
}

/// The newest event of a kind of a Safe, once it says what is expected.
async fn told(api: &Api, kind: &str, safe: Address, says: impl Fn(&Value) -> bool) -> Value {
    let of = json!(safe.to_checksum(None));
    eventually(kind, || async {
        let events = api.events().await;
        let last = events
            .into_iter()
            .rfind(|event| event["type"] == kind && event["data"]["wallet"]["address"] == of);
        last.filter(|event| says(&event["data"]))
    })
    .await
}

async fn shown(api: &Api, safe: Address) -> Value {
    api.get(&format!("/v1/wallets/{safe}")).await.ok()["safe"].clone()
}

on_both_stores! {
    async fn what_changes_of_a_safe_of_any_version_is_told_and_shown(store) {
        let node = Node::start().await;
        for safe in &ALL_SAFES {
            node.place_safe(safe).await;
        }
        let daemon = Daemon::start(&node, &store).await;
        let api = daemon.customer("acme").await;
        let (owner, other, module) = (node.accounts[1], node.accounts[2], node.accounts[3]);
        api.watch(owner).await;
        for (salt_nonce, safe) in (1..).zip(&ALL_SAFES) {
            let address = own_safe(&node, &api, safe, salt_nonce).await;
            let add = Wallet::addOwnerWithThresholdCall { owner: other, threshold: U256::from(1) };
            node.block_with(&[execute(owner, address, address, add.abi_encode(), false)]).await;
            let both = json!([other.to_checksum(None), owner.to_checksum(None)]);
            let event = told(&api, "safe.owners_changed", address, |_| true).await;
            assert_eq!(event["data"]["safe"]["owners"], both, "Safe {}", safe.version);
            assert_eq!(event["data"]["before"]["owners"], json!([owner.to_checksum(None)]));
            assert_eq!(shown(&api, address).await["owners"], both);

            // The first version does not tell its modules.
            if safe.version == "1.0.0" {
                continue;
            }
            let enable = Wallet::enableModuleCall { module };
            node.block_with(&[execute(owner, address, address, enable.abi_encode(), false)]).await;
            let event = told(&api, "safe.changed", address, |_| true).await;
            let modules = json!([module.to_checksum(None)]);
            assert_eq!(event["data"]["safe"]["modules"], modules, "Safe {}", safe.version);
            let state = &shown(&api, address).await["deployments"][0]["state"];
            assert_eq!((&state["modules"], &state["trusted"]), (&modules, &json!(true)));
        }
    }

    /// As at Bybit in 2025: a delegate call replaces the singleton, and no event says so.
    async fn a_safe_that_is_taken_over_by_a_delegate_call_is_an_alarm_and_its_money_counts_on(store) {
        let node = Node::start().await;
        node.place_safe(&SAFE_1_4_1).await;
        let thief = node.accounts[5];
        let takeover = writer(&[(B256::ZERO, thief.into_word())]);
        let create = Request::create(thief, takeover).with_gas(1_000_000);
        let takeover = node.block_with(&[create]).await.remove(0).contract_address.unwrap();
        let daemon = Daemon::start(&node, &store).await;
        let api = daemon.customer("acme").await;
        let owner = node.accounts[1];
        api.watch(owner).await;
        let safe = own_safe(&node, &api, &SAFE_1_4_1, 1).await;
        assert_eq!(shown(&api, safe).await["deployments"][0]["state"]["trusted"], true);
        node.block_with(&[execute(owner, safe, takeover, Vec::new(), true)]).await;
        let event = told(&api, "safe.changed", safe, |_| true).await;
        assert_eq!(event["data"]["safe"]["trusted"], false);
        assert_eq!(event["data"]["safe"]["singleton"], thief.to_checksum(None));
        assert_eq!(event["data"]["before"]["singleton"], SAFE_1_4_1.singleton.to_checksum(None));
        let state = &shown(&api, safe).await["deployments"][0]["state"];
        assert_eq!(state["trusted"], false, "{state}");
        let metrics = daemon.metrics().await;
        let alarm = "tidemark_safe_changes_total{chain=\"local\",change=\"untrusted\"} 1";
        assert!(metrics.contains(alarm), "{metrics}");
        node.mint(safe, 77).await;
        let balance = api.balance_at_head(safe, "DUSD", &node).await;
        assert_eq!(balance.pending, U256::from(77));
    }

    async fn a_reorg_gives_a_safe_its_owners_back(store) {
        let node = Node::start().await;
        node.place_safe(&SAFE_1_4_1).await;
        let daemon = Daemon::start(&node, &store).await;
        let api = daemon.customer("acme").await;
        let (owner, other) = (node.accounts[1], node.accounts[2]);
        api.watch(owner).await;
        let safe = own_safe(&node, &api, &SAFE_1_4_1, 1).await;
        node.mine(1).await.unwrap();
        let add = Wallet::addOwnerWithThresholdCall { owner: other, threshold: U256::from(2) };
        node.block_with(&[execute(owner, safe, safe, add.abi_encode(), false)]).await;
        told(&api, "safe.owners_changed", safe, |data| data["safe"]["threshold"] == 2).await;
        node.reorg(1, &[]).await.unwrap();
        node.mine(1).await.unwrap();
        let back = |data: &Value| data["safe"]["threshold"] == 1;
        let event = told(&api, "safe.owners_changed", safe, back).await;
        assert_eq!(event["data"]["safe"]["owners"], json!([owner.to_checksum(None)]));
        assert_eq!(shown(&api, safe).await["owners"], json!([owner.to_checksum(None)]));
    }
}
