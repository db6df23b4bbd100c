//! What happened before a registration, on a real node.

use alloy::primitives::{Address, I256, U256};
use serde_json::{Value, json};
use tidemark::dev::anvil::Request;

use crate::harness::{Api, CHAIN, Daemon, Node, Settings, eventually, on_both_stores};

/// Blocks with payments, token transfers, mints and a failure or two between these addresses.
async fn traffic(node: &Node, addresses: &[Address], blocks: u64) {
    for n in 0..blocks {
        let at = |n: u64| addresses[usize::try_from(n).unwrap() % addresses.len()];
        let (from, to) = (at(n), at(n + 1));
        let requests = [
            node.minting(to, 1_000 + n),
            Request::pay(from, to, U256::from(n + 1)),
            // Every third one is more than there is: it fails, and costs a fee.
            node.token_transfer(to, from, if n % 3 == 0 { u64::MAX } else { 7 }),
        ];
        for request in requests {
            let sent = node.call::<Value>("eth_sendTransaction", json!([request])).await;
            sent.expect("a transaction that the node takes");
        }
        node.mine(1).await.unwrap();
    }
    node.settle().await;
}

async fn register_since(api: &Api, address: Address, block: u64) {
    let body = json!({"address": address, "chains": [CHAIN], "fromBlock": {CHAIN: block}});
    api.post("/v1/wallets", &body).await.ok();
    // Only what has settled is history: the block at which the watch opens, too.
    api.active(address).await;
}

/// The wallet's chain, once its history is no longer looked for.
async fn decided(api: &Api, address: Address) -> Value {
    eventually("the history", || async {
        let wallet = api.get(&format!("/v1/wallets/{address}")).await.ok();
        let chain = wallet["chains"][0].clone();
        ["complete", "incomplete"].iter().any(|end| chain["history"] == *end).then_some(chain)
    })
    .await
}

fn of<'a>(transfers: &'a [Value], symbol: &'a str) -> impl Iterator<Item = &'a Value> {
    transfers.iter().filter(move |transfer| {
        transfer["status"] == "settled" && transfer["asset"]["symbol"] == symbol
    })
}

fn amount(transfer: &Value) -> U256 {
    transfer["amount"]["raw"].as_str().unwrap().parse().unwrap()
}

/// What the settled transfers of an asset come to.
fn sum(transfers: &[Value], symbol: &str) -> U256 {
    let signed = |transfer: &Value| {
        let amount = I256::from_raw(amount(transfer));
        if transfer["direction"] == "in" { amount } else { -amount }
    };
    of(transfers, symbol).map(signed).fold(I256::ZERO, |sum, one| sum + one).into_raw()
}

/// The opening that stands, and the block after which it holds.
fn opening(transfers: &[Value], symbol: &str) -> Option<(u64, U256)> {
    let mut openings = of(transfers, symbol).filter(|transfer| transfer["kind"] == "opening");
    let found = openings.next().map(|one| (one["block"]["number"].as_u64().unwrap(), amount(one)));
    assert!(openings.next().is_none(), "one at most");
    found
}

async fn balance_at(node: &Node, address: Address, block: u64) -> U256 {
    node.call("eth_getBalance", json!([address, format!("{block:#x}")])).await.unwrap()
}

on_both_stores! {
    async fn the_transfers_since_a_block_explain_the_opening_balance(store) {
        let node = Node::start().await;
        let addresses = node.accounts[1..5].to_vec();
        traffic(&node, &addresses, 40).await;
        let daemon = Daemon::start(&node, &store).await;
        let (acme, globex) = (daemon.customer("acme").await, daemon.customer("globex").await);
        let requests = [(&acme, 0, 0), (&acme, 1, 1), (&globex, 1, 17), (&globex, 2, 30)];
        for (api, n, from) in requests {
            register_since(api, addresses[n], from).await;
        }
        node.pay(addresses[0], addresses[1], 5).await;
        node.settle().await;
        for (api, n, from) in requests {
            let address = addresses[n];
            let chain = decided(api, address).await;
            assert_eq!(
                (&chain["history"], &chain["historyMethod"], &chain["coveredFrom"]),
                (&json!("complete"), &json!("blocks"), &json!(from)),
            );
            let balances = api.balances_settled(address, &node).await;
            let transfers = api.transfers(address).await;
            for symbol in ["ETH", "DUSD"] {
                let total = crate::harness::balance_in(&balances, symbol).total;
                assert_eq!(sum(&transfers, symbol), total, "{symbol}: nothing is told twice");
            }
            let before = from.max(1) - 1;
            let had = balance_at(&node, address, before).await;
            assert_eq!(opening(&transfers, "ETH"), Some((before, had)));
            let first = transfers.iter().filter(|one| one["status"] == "settled");
            assert_eq!(first.map(|one| one["block"]["number"].as_u64()).min(), Some(Some(before)));
        }
        let said = daemon.command(&["audit", "--chain", CHAIN]).await;
        assert!(said.contains("4 wallets"), "{said}");
    }

    async fn an_index_of_logs_finds_the_past_of_tokens_without_reading_every_block(store) {
        let node = Node::start().await;
        let addresses = node.accounts[1..3].to_vec();
        traffic(&node, &addresses, 12).await;
        node.mine(300).await.unwrap();
        let mut settings = Settings::new(&node, &store);
        settings.chain.push_str("history = \"logs\"");
        let daemon = Daemon::start_with(settings).await;
        let api = daemon.customer("acme").await;
        let address = addresses[0];
        register_since(&api, address, 6).await;
        node.settle().await;
        let chain = decided(&api, address).await;
        assert_eq!(
            (&chain["history"], &chain["historyMethod"]),
            (&json!("complete"), &json!("logs")),
        );
        let balances = api.balances_settled(address, &node).await;
        let transfers = api.transfers(address).await;
        for symbol in ["ETH", "DUSD"] {
            let total = crate::harness::balance_in(&balances, symbol).total;
            assert_eq!(sum(&transfers, symbol), total);
        }
        assert!(of(&transfers, "DUSD").count() > 5, "{transfers:#?}");
        let opened = opening(&transfers, "ETH").expect("what it had when it was registered");
        assert!(opened.0 > 300, "the native coin's past is not looked for");
        assert_eq!(of(&transfers, "ETH").count(), 1);
        let metrics = daemon.metrics().await;
        let asked = |method: &str| metrics.lines().any(|line| {
            line.starts_with("tidemark_rpc_requests_total") && line.contains(method)
        });
        assert!(asked("\"eth_getLogs\""), "{metrics}");
        let said = daemon.command(&["audit", "--chain", CHAIN]).await;
        assert!(said.contains("1 wallets"), "{said}");
    }
}
