//! Safes that are found because one of their owners is registered: whose they are, and what is said of them.

use alloy::{
    primitives::{Address, B256, Bytes, U256, b256, keccak256},
    sol_types::{SolCall as _, SolValue as _},
};
use serde_json::{Value, json};
use tidemark::dev::{
    anvil::Request,
    contracts::{Safe, SafeContracts, SafeProxyFactory, SafeSetup},
};

use crate::harness::{
    Api, CHAIN, Daemon, Node, eventually, on_both_stores,
    safes::{Wallet, execute, writer},
};

const PROXY_CREATION: B256 =
    b256!("4f51faf6c4561ff95f067657e43439f0f856d97c04d9ec9070a6199ad418e235");

/// Registers an address as a player's.
async fn player(api: &Api, address: Address, name: &str) -> Value {
    let body = json!({
        "address": address.to_string(),
        "chains": [CHAIN],
        "account": {"externalId": name},
    });
    let wallet = api.post("/v1/wallets", &body).await.ok();
    api.active(address).await;
    wallet
}

async fn safe_of(
    node: &Node,
    safe: &SafeContracts,
    owners: Vec<Address>,
    threshold: u64,
    salt_nonce: u64,
) -> Address {
    let setup = SafeSetup { owners, threshold, salt_nonce };
    let planned = safe.deployment(node, node.accounts[0], &setup).await.unwrap();
    node.block_with(std::slice::from_ref(&planned.request)).await;
    planned.address
}

/// The wallet once it is there and watched.
async fn found(api: &Api, safe: Address) -> Value {
    eventually("the Safe's wallet", || async {
        let answer = api.get(&format!("/v1/wallets/{safe}")).await;
        (answer.status == 200 && answer.body["status"] == "active").then_some(answer.body)
    })
    .await
}

async fn adopt(api: &Api, choice: &str) {
    let request = api.request(reqwest::Method::PATCH, "/v1/settings");
    let answer = api.send(request.json(&json!({"adoptSafes": choice}))).await;
    assert_eq!(answer.ok(), json!({"adoptSafes": choice}));
    assert_eq!(api.get("/v1/settings").await.ok(), json!({"adoptSafes": choice}));
}

/// A Safe of the real factory whose setup runs the code of `to`.
async fn set_up_by(node: &Node, safe: &SafeContracts, owner: Address, to: Address) -> Address {
    let initializer = Safe::setupCall {
        owners: vec![owner],
        threshold: U256::from(1),
        to,
        data: Bytes::new(),
        fallbackHandler: safe.fallback_handler,
        paymentToken: Address::ZERO,
        payment: U256::ZERO,
        paymentReceiver: Address::ZERO,
    }
    .abi_encode();
    let call = SafeProxyFactory::createProxyWithNonceCall {
        singleton: safe.singleton,
        initializer: Bytes::from(initializer),
        saltNonce: U256::from(rand::random::<u64>()),
    };
    let request = Request::call(node.accounts[0], safe.factory, call.abi_encode());
    let receipt = node.block_with(&[request.with_gas(1_000_000)]).await.remove(0);
    let receipt: Value =
        node.call("eth_getTransactionReceipt", json!([receipt.transaction_hash])).await.unwrap();
    let logs = receipt["logs"].as_array().unwrap();
    let made = logs.iter().find(|log| log["topics"][0] == PROXY_CREATION.to_string()).unwrap();
    let proxy: B256 = made["topics"][1].as_str().unwrap().parse().unwrap();
    Address::from_word(proxy)
}

on_both_stores! {
    async fn a_sole_owners_safe_joins_the_account_and_makes_no_locator_ambiguous(store) {
        let node = Node::start().await;
        let safe = node.deploy_safe_1_4_1().await;
        let daemon = Daemon::start(&node, &store).await;
        let api = daemon.customer("acme").await;
        assert_eq!(api.get("/v1/settings").await.ok(), json!({"adoptSafes": "sole_owner"}));
        let owner = node.accounts[1];
        let mine = player(&api, owner, "player-1").await;
        let first = found(&api, safe_of(&node, &safe, vec![owner], 1, 1).await).await;
        assert_eq!(first["accountId"], mine["accountId"]);
        assert_eq!(first["safe"]["foundByOwner"], true);
        let second = found(&api, safe_of(&node, &safe, vec![owner], 1, 2).await).await;
        assert_eq!(second["accountId"], mine["accountId"]);
        for path in ["/v1/wallets/external:player-1", "/v1/wallets/external:player-1/balances"] {
            let named = api.get(path).await.ok();
            assert_eq!(named.get("id").unwrap_or(&named["walletId"]), &mine["id"], "{named}");
        }
        let listed = api.get("/v1/wallets?account=player-1").await.ok();
        assert_eq!(listed["data"].as_array().map(Vec::len), Some(3));
    }

    async fn a_safe_of_two_owners_gets_a_wallet_of_its_own_and_each_event_names_them(store) {
        let node = Node::start().await;
        let safe = node.deploy_safe_1_4_1().await;
        let daemon = Daemon::start(&node, &store).await;
        let api = daemon.customer("acme").await;
        let (owner, other) = (node.accounts[1], node.accounts[2]);
        player(&api, owner, "player-1").await;
        let address = safe_of(&node, &safe, vec![other, owner], 1, 1).await;
        let wallet = found(&api, address).await;
        assert_eq!(wallet["accountId"], Value::Null);
        node.mint(address, 77).await;
        node.settle().await;
        api.event("safe_deployment.completed").await;
        let told = api.event("deposit.available").await;
        let shown = json!({
            "foundByOwner": true,
            "owners": [other.to_checksum(None), owner.to_checksum(None)],
            "threshold": 1,
        });
        assert_eq!(told["data"]["wallet"]["safe"], shown);
        let events = api.events().await;
        let of_safe: Vec<&Value> =
            events.iter().filter(|event| event["data"]["wallet"]["id"] == wallet["id"]).collect();
        assert!(of_safe.len() > 4, "{events:?}");
        for event in of_safe {
            let said = &event["data"]["wallet"]["safe"];
            for fact in ["foundByOwner", "owners", "threshold"] {
                assert_eq!(said[fact], shown[fact], "{event}");
            }
        }
    }

    async fn events_keep_what_they_said_of_a_safe_that_changes(store) {
        let node = Node::start().await;
        let safe = node.deploy_safe_1_4_1().await;
        let daemon = Daemon::start(&node, &store).await;
        let api = daemon.customer("acme").await;
        let (owner, other) = (node.accounts[1], node.accounts[2]);
        player(&api, owner, "player-1").await;
        let address = safe_of(&node, &safe, vec![other, owner], 1, 1).await;
        found(&api, address).await;
        node.mint(address, 77).await;
        let pending = api.event("deposit.pending").await;
        assert_eq!(pending["data"]["wallet"]["safe"]["threshold"], 1);
        node.block_with(&[change_threshold(owner, address, 2)]).await;
        node.settle().await;
        eventually("the new threshold", || async {
            let wallet = api.get(&format!("/v1/wallets/{address}")).await.ok();
            (wallet["safe"]["threshold"] == 2).then_some(())
        })
        .await;
        assert_eq!(api.event("deposit.pending").await, pending, "the same, whenever it is read");
        let again = node.mint(address, 78).await.transaction_hash.to_string();
        let told = api.event_of("deposit.pending", &again).await;
        assert_eq!(told["data"]["wallet"]["safe"]["threshold"], 2);
    }

    async fn a_tenant_says_which_safes_join_an_account(store) {
        let node = Node::start().await;
        let safe = node.deploy_safe_1_4_1().await;
        let daemon = Daemon::start(&node, &store).await;
        let api = daemon.customer("acme").await;
        let (owner, other) = (node.accounts[1], node.accounts[2]);
        let mine = player(&api, owner, "player-1").await;
        adopt(&api, "never").await;
        let never = found(&api, safe_of(&node, &safe, vec![owner], 1, 1).await).await;
        assert_eq!(never["accountId"], Value::Null);
        adopt(&api, "any").await;
        let any = found(&api, safe_of(&node, &safe, vec![owner, other], 2, 2).await).await;
        assert_eq!(any["accountId"], mine["accountId"]);
        let readers = daemon.customer_with("acme", "wallets:read").await;
        let request = readers.request(reqwest::Method::PATCH, "/v1/settings");
        let body = json!({"adoptSafes": "never"});
        readers.send(request.json(&body)).await.is_error(403, "forbidden");
        let request = api.request(reqwest::Method::PATCH, "/v1/settings");
        let wrong = api.send(request.json(&json!({"adoptSafes": "always"}))).await;
        wrong.is_error(400, "invalid_request");
    }

    /// Genuine factory, proxy, singleton, one owner; what its setup ran is what matters.
    async fn a_safe_whose_setup_enabled_a_module_never_joins_the_account(store) {
        let node = Node::start().await;
        let safe = node.deploy_safe_1_4_1().await;
        let thief = node.accounts[5];
        let of = |module: B256| keccak256((module, U256::from(1)).abi_encode());
        let end = B256::with_last_byte(1);
        // Enabled, and in no list: no reading of the modules shows it.
        let hidden = [(of(thief.into_word()), end)];
        let listed = [(of(end), thief.into_word()), hidden[0]];
        let mut setups = Vec::new();
        for slots in [&hidden[..], &listed] {
            let request = Request::create(thief, writer(slots)).with_gas(1_000_000);
            setups.push(node.block_with(&[request]).await.remove(0).contract_address.unwrap());
        }
        let daemon = Daemon::start(&node, &store).await;
        let api = daemon.customer("acme").await;
        let owner = node.accounts[1];
        player(&api, owner, "player-1").await;
        for setup in setups {
            let ghost = set_up_by(&node, &safe, owner, setup).await;
            let enabled = node.ask(ghost, is_module_enabled(thief)).await.unwrap();
            assert_eq!(U256::from_be_slice(&enabled), U256::from(1), "the thief's module");
            let wallet = found(&api, ghost).await;
            assert_eq!(wallet["accountId"], Value::Null);
            assert_eq!(wallet["safe"]["foundByOwner"], true);
        }
    }
}

/// Of a Safe that one owner may act for alone.
fn change_threshold(owner: Address, safe: Address, threshold: u64) -> Request {
    let change = Wallet::changeThresholdCall { threshold: U256::from(threshold) };
    execute(owner, safe, safe, change.abi_encode(), false)
}

/// `isModuleEnabled(address)`.
fn is_module_enabled(module: Address) -> Vec<u8> {
    [&[0x2d, 0x9a, 0xd5, 0x3d], module.into_word().as_slice()].concat()
}
