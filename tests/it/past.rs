//! What was held at any block, and why: always what the chain itself says.

use alloy::primitives::{Address, U256};
use serde_json::{Value, json};
use tidemark::dev::anvil::Request;

use crate::harness::{Api, Daemon, Node, balance_in, on_both_stores};

/// What the node says of an address after a block: coins, and demo tokens.
async fn figures(node: &Node, address: Address, block: u64) -> (U256, U256) {
    let at = format!("{block:#x}");
    let coins = node.call("eth_getBalance", json!([address, at])).await.unwrap();
    let question = json!({"to": node.token, "data": format!("0x70a08231{:0>64}", hex(address))});
    let tokens = node.call("eth_call", json!([question, at])).await.unwrap();
    (coins, tokens)
}

fn hex(address: Address) -> String {
    alloy::hex::encode(address)
}

/// At every block from the opening on the answer is the node's own.
async fn agrees_at_every_block(api: &Api, node: &Node, address: Address) {
    let read = api.balances_at_head(address, node).await;
    let head = read["asOf"][0]["head"]["number"].as_u64().unwrap();
    let wallet = api.get(&format!("/v1/wallets/{address}")).await.ok();
    let first = wallet["chains"][0]["coveredFrom"].as_u64().unwrap() - 1;
    assert!(head > first + 5, "there is a past");
    let path = format!("/v1/wallets/{address}/balances?tokens=eth,dusd");
    for block in first..=head {
        let past = api.get(&format!("{path}&at={block}")).await.ok();
        let told = (balance_in(&past, "ETH").total, balance_in(&past, "DUSD").total);
        assert_eq!(told, figures(node, address, block).await, "{address} after block {block}");
    }
    api.get(&format!("{path}&at={}", first - 1)).await.is_error(409, "not_covered");
    api.get(&format!("{path}&at={}", head + 1)).await.is_error(409, "not_covered");
    for (asset, index) in [("eth", 0), ("dusd", 1)] {
        let total = read_all(api, &format!("/v1/wallets/{address}/balances/{asset}/explain")).await;
        let now = figures(node, address, head).await;
        assert_eq!(total, [now.0, now.1][index].to_string(), "the entries of {asset} add up");
    }
}

/// What the pages of an explanation add up to.
async fn read_all(api: &Api, path: &str) -> String {
    let mut cursor = String::new();
    loop {
        let page: Value = api.get(&format!("{path}?chain=local&limit=3{cursor}")).await.ok();
        let Some(next) = page["nextCursor"].as_str() else {
            assert_eq!(page["agrees"], true, "{page}");
            return page["total"]["raw"].as_str().unwrap().to_owned();
        };
        cursor = format!("&cursor={next}");
    }
}

on_both_stores! {
    async fn a_past_balance_is_the_chains_own_at_every_block_whatever_branches_came_and_went(store) {
        let node = Node::start().await;
        let daemon = Daemon::start(&node, &store).await;
        let api = daemon.customer("acme").await;
        let (stranger, sender) = (Node::stranger(), node.accounts[3]);
        for wallet in [stranger, sender] {
            api.watch(wallet).await;
        }
        node.pay(sender, stranger, 1_000).await;
        node.mint(stranger, 500).await;
        node.mine(1).await.unwrap();
        node.mint(sender, 70).await;
        node.block_with(&[node.token_transfer(sender, stranger, 30)]).await;
        node.pay(sender, stranger, 5).await;
        node.pay(node.accounts[0], sender, 7).await;
        api.balances_at_head(stranger, &node).await;
        // The last two never were; something else was in their place.
        let other = Request::pay(node.accounts[0], stranger, U256::from(33)).with_gas(21_000);
        node.reorg(2, &[(other, 1)]).await.unwrap();
        node.block_with(&[node.token_transfer(sender, stranger, 11)]).await;
        for wallet in [stranger, sender] {
            agrees_at_every_block(&api, &node, wallet).await;
        }
        node.settle().await;
        node.pay(sender, stranger, 2).await;
        for wallet in [stranger, sender] {
            agrees_at_every_block(&api, &node, wallet).await;
        }
    }
}
