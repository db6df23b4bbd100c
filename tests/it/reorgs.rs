//! The chain changes its mind.

use alloy::primitives::U256;
use serde_json::Value;
use tidemark::dev::anvil::Request;

use crate::harness::{Api, Daemon, Gate, Node, Settings, eventually, on_both_stores};

/// How often each type of event was told, for one transaction.
async fn told(api: &Api, transaction: &str) -> Vec<(String, usize)> {
    let mut counts = std::collections::BTreeMap::new();
    for event in api.events().await {
        if event["data"]["transfer"]["txHash"] == transaction {
            *counts.entry(event["type"].as_str().unwrap().to_owned()).or_insert(0) += 1;
        }
    }
    counts.into_iter().collect()
}

/// The sequence of a wallet's events counts from 1 without gaps.
fn assert_sequence(events: &[Value], wallet: &Value) {
    let of_wallet: Vec<_> = events
        .iter()
        .filter(|event| event["data"]["wallet"]["id"] == wallet["id"])
        .map(|event| event["sequence"].as_u64().unwrap())
        .collect();
    assert_eq!(of_wallet, (1..=of_wallet.len() as u64).collect::<Vec<_>>());
}

on_both_stores! {
    async fn a_reorg_returns_money_once_and_the_same_transaction_credits_once(store) {
        let node = Node::start().await;
        let daemon = Daemon::start(&node, &store).await;
        let api = daemon.customer("acme").await;
        let wallet = Node::stranger();
        let registered = api.watch(wallet).await;
        node.mine(2).await.unwrap();

        let raw = Request::pay(node.accounts[0], wallet, U256::from(1000)).with_gas(21_000);
        let receipt = node.block_with(std::slice::from_ref(&raw)).await.remove(0);
        let transaction = receipt.transaction_hash.to_string();
        let bytes: String = node
            .call("eth_getRawTransactionByHash", serde_json::json!([receipt.transaction_hash]))
            .await
            .unwrap();
        let first = api.balance_at_head(wallet, "ETH", &node).await;
        assert_eq!(first.pending, U256::from(1000));
        let id = api.event("deposit.pending").await["data"]["transfer"]["id"].clone();

        // Gone …
        node.reorg(1, &[]).await.unwrap();
        node.mine(1).await.unwrap();
        let gone = api.balance_at_head(wallet, "ETH", &node).await;
        assert_eq!(gone.total, U256::ZERO);
        let orphaned = api.event("deposit.orphaned").await;
        assert_eq!(orphaned["data"]["transfer"]["id"], id, "it names what it retracts");

        // … and back, in another block.
        let hash: alloy::primitives::B256 =
            node.call("eth_sendRawTransaction", serde_json::json!([bytes])).await.unwrap();
        assert_eq!(hash, receipt.transaction_hash);
        node.mine(1).await.unwrap();
        let again = api.balance_at_head(wallet, "ETH", &node).await;
        assert_eq!(again.pending, U256::from(1000));
        node.settle().await;
        let settled = api.balance_settled(wallet, "ETH", &node).await;
        assert_eq!(settled.available, U256::from(1000));

        let transfers = api.transfers(wallet).await;
        let of_it: Vec<_> =
            transfers.iter().filter(|t| t["txHash"] == transaction.as_str()).collect();
        assert_eq!(of_it.len(), 1, "one deposit: {transfers:?}");
        assert_eq!((&of_it[0]["id"], &of_it[0]["status"]), (&id, &Value::from("settled")));
        let counts = told(&api, &transaction).await;
        assert_eq!(
            counts,
            [
                ("deposit.available".to_owned(), 1),
                ("deposit.orphaned".to_owned(), 1),
                ("deposit.pending".to_owned(), 2)
            ]
        );
        assert_sequence(&api.events().await, &registered);
    }

    async fn a_reorg_to_the_same_height_is_noticed(store) {
        let node = Node::start().await;
        let daemon = Daemon::start(&node, &store).await;
        let api = daemon.customer("acme").await;
        let wallet = Node::stranger();
        api.watch(wallet).await;
        node.mine(2).await.unwrap();
        node.pay(node.accounts[0], wallet, 10).await;
        assert_eq!(api.balance_at_head(wallet, "ETH", &node).await.total, U256::from(10));
        let other = Request::pay(node.accounts[0], wallet, U256::from(33)).with_gas(21_000);
        node.reorg(2, &[(other, 1)]).await.unwrap();
        assert_eq!(api.balance_at_head(wallet, "ETH", &node).await.total, U256::from(33));
    }

    async fn a_reorg_while_down_is_undone_at_the_start(store) {
        let node = Node::start().await;
        let mut daemon = Daemon::start(&node, &store).await;
        let api = daemon.customer("acme").await;
        let wallet = Node::stranger();
        api.watch(wallet).await;
        node.mine(2).await.unwrap();
        node.pay(node.accounts[0], wallet, 10).await;
        node.pay(node.accounts[0], wallet, 20).await;
        assert_eq!(api.balance_at_head(wallet, "ETH", &node).await.total, U256::from(30));
        daemon.kill_9().await;
        let other = Request::pay(node.accounts[0], wallet, U256::from(5)).with_gas(21_000);
        node.reorg(2, &[(other, 0)]).await.unwrap();
        node.mine(1).await.unwrap();
        daemon.begin().await;
        daemon.ready().await;
        assert_eq!(api.balance_at_head(wallet, "ETH", &node).await.total, U256::from(5));
        node.settle().await;
        assert_eq!(api.balance_settled(wallet, "ETH", &node).await.available, U256::from(5));
    }

    async fn a_chain_that_returns_to_its_first_branch_counts_once(store) {
        let first = Node::start().await;
        let gate = Gate::to(first.url()).await;
        let mut settings = Settings::new(&first, &store);
        settings.node_url = gate.url();
        settings.node_ws = Some(gate.ws_url());
        let daemon = Daemon::start_with(settings).await;
        let api = daemon.customer("acme").await;
        let wallet = Node::stranger();
        api.watch(wallet).await;
        first.mine(2).await.unwrap();
        let second = first.twin().await;

        first.pay(first.accounts[0], wallet, 10).await;
        assert_eq!(api.balance_at_head(wallet, "ETH", &first).await.total, U256::from(10));
        second.pay(second.accounts[1], wallet, 20).await;
        second.pay(second.accounts[1], wallet, 20).await;
        gate.open(second.url());
        assert_eq!(api.balance_at_head(wallet, "ETH", &second).await.total, U256::from(40));
        first.mine(2).await.unwrap();
        gate.open(first.url());
        assert_eq!(api.balance_at_head(wallet, "ETH", &first).await.total, U256::from(10));
        first.settle().await;
        let settled = api.balance_settled(wallet, "ETH", &first).await;
        assert_eq!(settled.available, U256::from(10));
    }

    async fn a_reorg_below_the_settled_block_halts_the_chain(store) {
        let node = Node::start().await;
        let daemon = Daemon::start(&node, &store).await;
        let api = daemon.customer("acme").await;
        let wallet = Node::stranger();
        api.watch(wallet).await;
        node.pay(node.accounts[0], wallet, 10).await;
        node.mine(8).await.unwrap();
        assert_eq!(api.balance_settled(wallet, "ETH", &node).await.available, U256::from(10));
        node.reorg(9, &[]).await.unwrap();
        node.mine(1).await.unwrap();
        eventually("the alarm", || async {
            daemon.metrics().await.contains("tidemark_chain_halted{chain=\"local\"} 1").then_some(())
        })
        .await;
        eventually("readiness to fail", || async { (daemon.readiness().await == 503).then_some(()) })
            .await;
        let kept = api.balance(wallet, "ETH").await;
        assert_eq!(kept.available, U256::from(10), "settled money is never rewritten silently");
    }
}
