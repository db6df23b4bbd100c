//! Configured tokens whose contracts log amounts that no balance can hold, beside an honest deposit.

use alloy::{
    primitives::{Address, U256},
    sol_types::SolValue as _,
};
use serde_json::Value;
use tidemark::dev::{
    anvil::{Receipt, Request},
    contracts,
};

use crate::{
    harness::{Api, CHAIN, Daemon, Node, Settings, Store, Token, eventually, on_both_stores},
    hostile::an_honest_deposit_is_available,
};

/// What a contract does with a call: `balanceOf(address)`, by its 36 bytes, is nothing for everybody. Else it logs a
/// transfer from nobody to the first word of so much as the second one says, and again unless the third one is set.
fn runtime() -> Vec<u8> {
    const TRANSFER: &str = "ddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef";
    // To, from nobody, the event, 32 bytes from 0: LOG3.
    let log = format!("600035 6000 7f{TRANSFER} 6020 6000 a3");
    let first = format!("6024 36 14 DEST 57 602035 6000 52 {log} 604035 ENDS 57 {log} 5b 00");
    let rest = "5b 6020 6040 f3";
    let bytes = |text: &str| hex::decode(text.replace(' ', "")).unwrap();
    let length = |text: &str| bytes(&text.replace("DEST", "6000").replace("ENDS", "6000")).len();
    let ends = length(&first) - 2;
    let code = first.replace("DEST", &format!("60{:02x}", length(&first)));
    bytes(&(code.replace("ENDS", &format!("60{ends:02x}")) + rest))
}

async fn evil(node: &Node) -> Address {
    let runtime = runtime();
    let code = format!("60{:02x}80600b6000396000f3{}", runtime.len(), hex::encode(&runtime));
    contracts::deploy(node, node.accounts[0], &code).await.unwrap()
}

/// Logs so much to `to`, once or twice.
fn log(node: &Node, token: Address, to: Address, amount: U256, twice: bool) -> Request {
    let data = (to, amount, U256::from(u8::from(!twice))).abi_encode();
    Request::call(node.accounts[0], token, data).with_gas(200_000)
}

fn settings(node: &Node, store: &Store, tokens: &[(Address, &'static str)]) -> Settings {
    let mut settings = Settings::new(node, store);
    settings.tokens.extend(tokens.iter().map(|&(contract, symbol)| Token {
        contract: contract.to_checksum(None),
        symbol,
        decimals: 18,
        wraps: false,
    }));
    settings
}

async fn asset(api: &Api, symbol: &str) -> Option<Value> {
    let assets = api.get("/v1/assets").await.ok();
    let assets = assets["data"].as_array().unwrap().clone();
    assets.into_iter().find(|asset| asset["symbol"] == symbol)
}

async fn quarantined(api: &Api, symbol: &str) -> Value {
    eventually(&format!("the quarantine of {symbol}"), || async {
        let asset = asset(api, symbol).await?;
        (asset["quarantined"]["reason"] == "overflow" && asset["verified"] == false)
            .then_some(asset)
    })
    .await
}

on_both_stores! {
    async fn tokens_that_no_balance_can_hold_are_set_aside_and_the_chain_goes_on(store) {
        let node = Node::start().await;
        let (one, two, late) = (evil(&node).await, evil(&node).await, evil(&node).await);
        let tokens = [(one, "ONE"), (two, "TWO"), (late, "LATE")];
        let mut daemon = Daemon::start_with(settings(&node, &store, &tokens)).await;
        let api = daemon.customer("acme").await;
        let wallet = Node::stranger();
        api.watch(wallet).await;
        node.block_with(&[log(&node, two, wallet, U256::MAX, false)]).await;
        assert_eq!(api.balance_at_head(wallet, "TWO", &node).await.total, U256::MAX);
        // The whole chain would stand still at this block, and after every rewind again.
        let receipts = node
            .block_with(&[
                log(&node, one, wallet, U256::MAX, true),
                node.minting(wallet, 5),
                log(&node, two, wallet, U256::MAX, true),
            ])
            .await;
        assert!(receipts.iter().all(Receipt::succeeded));
        assert_eq!(api.balance_at_head(wallet, "DUSD", &node).await.total, U256::from(5));
        an_honest_deposit_is_available(&api, &node).await;
        quarantined(&api, "ONE").await;
        let shown = quarantined(&api, "TWO").await;
        let told = api.event("asset.quarantined").await;
        assert_eq!(told["data"]["asset"]["id"], shown["id"], "of what somebody holds");
        assert_eq!(told["data"]["asset"]["quarantined"], shown["quarantined"]);
        let balance = api.balance_settled(wallet, "TWO", &node).await;
        assert_eq!(balance.total, U256::MAX, "it stays as it was, whatever the contract says");
        let metrics = daemon.metrics().await;
        assert!(metrics.contains(&format!(r#"tidemark_assets_quarantined{{asset="TWO",chain="{CHAIN}"}} 1"#)));

        // While the daemon is away.
        daemon.terminate().await;
        for _ in 0..3 {
            node.block_with(&[log(&node, late, wallet, U256::MAX, true), node.minting(wallet, 1)]).await;
        }
        daemon.begin().await;
        daemon.ready().await;
        assert_eq!(api.balance_at_head(wallet, "DUSD", &node).await.total, U256::from(8));
        quarantined(&api, "LATE").await;
        an_honest_deposit_is_available(&api, &node).await;

        // The way back, beside the running daemon.
        let id = quarantined(&api, "ONE").await["id"].as_str().unwrap().to_owned();
        let list = daemon.command(&["assets", "list"]).await;
        assert!(list.contains(&id) && list.contains("(overflow)"), "{list}");
        daemon.command(&["assets", "release", "--chain", CHAIN, "--asset", &id]).await;
        node.block_with(&[]).await;
        eventually("the token counts again", || async {
            asset(&api, "ONE").await.filter(|asset| asset["verified"] == true)
        })
        .await;
        let (code, said) = daemon.outcome(&["assets", "release", "--chain", CHAIN, "--asset", &id]).await;
        assert_eq!(code, 1, "{said}");

        // A token that is not configured does not count, whatever it logs.
        daemon.terminate().await;
        let daemon = Daemon::start_with(settings(&node, &store, &[])).await;
        let api = Api::new(daemon.base(), api.key.clone());
        node.block_with(&[log(&node, one, wallet, U256::MAX, true), node.minting(wallet, 1)]).await;
        assert_eq!(api.balance_at_head(wallet, "DUSD", &node).await.total, U256::from(9));
        an_honest_deposit_is_available(&api, &node).await;
        assert!(asset(&api, "ONE").await.is_none());
    }

    async fn a_past_that_no_balance_can_hold_sets_its_token_aside_and_is_found(store) {
        let node = Node::start().await;
        let token = evil(&node).await;
        let wallet = Node::stranger();
        node.block_with(&[log(&node, token, wallet, U256::MAX, true), node.minting(wallet, 5)]).await;
        node.settle().await;
        let daemon = Daemon::start_with(settings(&node, &store, &[(token, "EVIL")])).await;
        let api = daemon.customer("acme").await;
        let body = serde_json::json!({
            "address": wallet, "chains": [CHAIN], "fromBlock": {CHAIN: 0}
        });
        api.post("/v1/wallets", &body).await.ok();
        api.active(wallet).await;
        node.settle().await;
        eventually("the history", || async {
            let shown = api.get(&format!("/v1/wallets/{wallet}")).await.ok();
            (shown["chains"][0]["history"] == "complete").then_some(())
        })
        .await;
        quarantined(&api, "EVIL").await;
        assert_eq!(api.balance_at_head(wallet, "DUSD", &node).await.total, U256::from(5));
        an_honest_deposit_is_available(&api, &node).await;
    }

    async fn a_token_that_an_operator_sets_aside_is_learnt_by_the_running_daemon_and_comes_back_in_full(store) {
        let node = Node::start().await;
        let daemon = Daemon::start(&node, &store).await;
        let api = daemon.customer("acme").await;
        let wallet = Node::stranger();
        api.watch(wallet).await;
        node.mint(wallet, 5).await;
        assert_eq!(api.balance_at_head(wallet, "DUSD", &node).await.total, U256::from(5));
        let id = asset(&api, "DUSD").await.unwrap()["id"].as_str().unwrap().to_owned();
        let order = ["assets", "quarantine", "--chain", CHAIN, "--asset", &id];
        let said = daemon.command(&order).await;
        assert!(said.contains("assets release --chain local --asset"), "{said}");
        let (code, said) = daemon.outcome(&order).await;
        assert_eq!(code, 1, "{said}");

        node.block_with(&[node.minting(wallet, 7)]).await;
        node.pay(node.accounts[0], wallet, 9).await;
        assert_eq!(api.balance_at_head(wallet, "ETH", &node).await.total, U256::from(9));
        let told = api.event("asset.quarantined").await;
        assert_eq!(told["data"]["asset"]["quarantined"]["reason"], "operator");
        assert_eq!(api.balance(wallet, "DUSD").await.total, U256::from(5), "it stays as it was");
        let gauge = format!(r#"tidemark_assets_quarantined{{asset="DUSD",chain="{CHAIN}"}} 1"#);
        assert!(daemon.metrics().await.contains(&gauge));
        assert!(daemon.log().contains("by an operator"), "the log says how to bring it back");

        daemon.command(&["assets", "release", "--chain", CHAIN, "--asset", &id]).await;
        eventually("the token in full", || async {
            let balance = api.balance(wallet, "DUSD").await;
            (balance.total == U256::from(12)).then_some(())
        })
        .await;
        node.mint(wallet, 1).await;
        assert_eq!(api.balance_at_head(wallet, "DUSD", &node).await.total, U256::from(13));
        daemon.command(&["verify-journal", "--chain", CHAIN]).await;
    }
}
