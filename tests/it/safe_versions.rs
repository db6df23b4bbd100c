//! Every version of Safe that is in use: made by its own factory, found, proven, and taken back.

use alloy::{
    primitives::{Address, U256, address},
    sol,
    sol_types::SolCall as _,
};
use serde_json::{Value, json};
use tidemark::dev::{
    anvil::Request,
    contracts::{SafeContracts, SafeSetup},
};

use crate::harness::{
    Api, CHAIN, Daemon, Node, eventually, on_both_stores,
    safes::{ALL_SAFES, SAFE_1_0_0, SAFE_1_1_1, SAFE_1_4_1, SAFE_1_5_0},
};

/// A contract that calls others: Multicall3, which here stands for an entry point.
const ENTRY: Address = address!("cA11bde05977b3631167028862bE2a173976CA11");
const CODE: &str = include_str!("../../src/chain/evm/tests/multicall3.hex");

sol! {
    interface Entry {
        struct Call3 {
            address target;
            bool allowFailure;
            bytes callData;
        }
        function aggregate3(Call3[] calldata calls) external;
    }
}

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

    /// As an ERC-4337 entry point does it: the bundler's one transaction makes Safes of several people.
    async fn every_safe_of_a_transaction_that_makes_several_is_found(store) {
        let node = Node::start().await;
        node.place_safe(&SAFE_1_4_1).await;
        let _: Value = node.call("anvil_setCode", json!([ENTRY, CODE.trim()])).await.unwrap();
        let daemon = Daemon::start(&node, &store).await;
        let api = daemon.customer("acme").await;
        let people = [node.accounts[1], node.accounts[2]];
        for person in people {
            api.watch(person).await;
        }
        let mut calls = Vec::new();
        let mut places = Vec::new();
        for owner in people {
            let setup = SafeSetup { owners: vec![owner], threshold: 1, salt_nonce: 3 };
            let planned = node.safe_deployment(&SAFE_1_4_1, &setup).await;
            calls.push(Entry::Call3 {
                target: SAFE_1_4_1.factory,
                allowFailure: false,
                callData: planned.request.data.clone(),
            });
            places.push(planned.address);
        }
        let bundle = Entry::aggregate3Call { calls };
        let request = Request::call(node.accounts[0], ENTRY, bundle.abi_encode());
        node.block_with(&[request.with_gas(2_000_000)]).await;
        node.settle().await;
        for (place, owner) in places.into_iter().zip(people) {
            let wallet = deployed(&api, place, "completed").await;
            assert_eq!(wallet["safe"]["owners"], json!([owner.to_checksum(None)]));
        }
    }

    async fn which_safes_stand_on_a_chain_is_told_by_their_code(store) {
        let node = Node::start().await;
        node.place_safe(&SAFE_1_4_1).await;
        // Somebody else's code where a singleton belongs.
        let code = node.code(SAFE_1_4_1.factory).await.unwrap();
        node.set_code(SAFE_1_5_0.singleton, &code).await.unwrap();
        node.mine(1).await.unwrap();
        let daemon = Daemon::start(&node, &store).await;
        let api = daemon.customer("acme").await;
        let config = eventually("the contracts", || async {
            let config = api.get(&format!("/v1/chains/{CHAIN}/safe-config")).await.ok();
            let release = config["releases"].as_array().unwrap().last().unwrap().clone();
            release["singleton"]["deployed"].is_boolean().then_some(config)
        })
        .await;
        let of = |version: &str| {
            let releases = config["releases"].as_array().unwrap();
            releases.iter().rfind(|release| release["version"] == version).unwrap().clone()
        };
        let standing = of("1.4.1");
        for role in ["factory", "singleton", "singletonL2"] {
            assert_eq!(standing[role]["deployed"], true, "{role}: {standing}");
        }
        assert_eq!(standing["fallbackHandlers"][0]["deployed"], true);
        assert_eq!(standing["factory"]["address"], SAFE_1_4_1.factory.to_checksum(None));
        let foreign = of("1.5.0");
        assert_eq!(foreign["singleton"]["deployed"], false, "by its code, not by having some");
        assert_eq!(foreign["factory"]["deployed"], false);
        assert_eq!(of("1.3.0")["deployment"], "eip155");
        api.get("/v1/chains/nowhere/safe-config").await.is_error(400, "unknown_chain");
    }
}
