//! What no transfer shows is found by comparison with the chain: by the daemon, and on demand.

use alloy::primitives::{Address, U256};
use serde_json::json;

use crate::harness::{CHAIN, Daemon, Node, Settings, on_both_stores};

/// Money that comes from nowhere, as an internal call does without a tracer.
async fn conjure(node: &Node, to: Address, balance: u64) {
    let _: serde_json::Value =
        node.call("anvil_setBalance", json!([to, U256::from(balance)])).await.unwrap();
    node.mine(1).await.unwrap();
}

on_both_stores! {
    async fn an_untraced_credit_is_adjusted_when_the_address_is_next_touched(store) {
        let node = Node::start().await;
        let mut settings = Settings::new(&node, &store);
        settings.chain.push_str("sweep_per_minute = 0");
        let daemon = Daemon::start_with(settings).await;
        let api = daemon.customer("acme").await;
        let wallet = Node::stranger();
        api.watch(wallet).await;
        node.pay(node.accounts[0], wallet, 10).await;
        conjure(&node, wallet, 510).await;
        node.pay(node.accounts[0], wallet, 1).await;
        node.settle().await;
        let settled = api.balance_settled(wallet, "ETH", &node).await;
        assert_eq!(settled.available, U256::from(511));
        let told = api.event("balance.adjusted").await;
        let transfer = &told["data"]["transfer"];
        assert_eq!(transfer["kind"], "adjustment");
        assert_eq!(transfer["reason"], "untraced_credit");
        assert_eq!(transfer["amount"]["raw"], "500");
        assert_eq!(transfer["status"], "settled");
        assert!(daemon.metrics().await.contains("tidemark_balance_drift_total{chain=\"local\"} 1"));
    }

    async fn the_sweep_finds_what_nothing_touches(store) {
        let node = Node::start().await;
        let mut settings = Settings::new(&node, &store);
        settings.chain.push_str("sweep_per_minute = 6000");
        let daemon = Daemon::start_with(settings).await;
        let api = daemon.customer("acme").await;
        let wallet = Node::stranger();
        api.watch(wallet).await;
        node.pay(node.accounts[0], wallet, 10).await;
        node.settle().await;
        conjure(&node, wallet, 7).await;
        node.settle().await;
        let told = api.event("balance.adjusted").await;
        assert_eq!(told["data"]["transfer"]["reason"], "untraced_debit");
        assert_eq!(told["data"]["transfer"]["amount"]["raw"], "3");
        assert_eq!(api.balance(wallet, "ETH").await.available, U256::from(7));
    }

    async fn an_audit_answers_with_its_exit_code(store) {
        let node = Node::start().await;
        let mut settings = Settings::new(&node, &store);
        settings.chain.push_str("sweep_per_minute = 0");
        let daemon = Daemon::start_with(settings).await;
        let api = daemon.customer("acme").await;
        let wallet = Node::stranger();
        let id = api.watch(wallet).await["id"].as_str().unwrap().to_owned();
        node.pay(node.accounts[0], wallet, 10).await;
        node.mint(wallet, 3).await;
        node.settle().await;
        api.balance_settled(wallet, "ETH", &node).await;

        // Beside the running daemon.
        let (code, said) = daemon.outcome(&["audit"]).await;
        assert_eq!(code, 0, "{said}");
        assert!(said.contains("local: 1 wallets, 2 balances recomputed, 2 figures"), "{said}");

        conjure(&node, wallet, 510).await;
        node.settle().await;
        api.balance_settled(wallet, "ETH", &node).await;
        let (code, said) = daemon.outcome(&["audit", "--chain", CHAIN]).await;
        assert_eq!(code, 1, "{said}");
        let line = said.lines().find(|line| line.contains(&id)).unwrap_or_default();
        for word in [&wallet.to_checksum(None), "eip155:31337/slip44:60", "ledger 10, chain 510"] {
            assert!(line.contains(word), "{word} in {said}");
        }
        assert_eq!(api.balance(wallet, "ETH").await.total, U256::from(10), "nothing is booked");

        node.stop().await;
        let (code, said) = daemon.outcome(&["audit"]).await;
        assert_eq!(code, 3, "{said}");
    }
}
