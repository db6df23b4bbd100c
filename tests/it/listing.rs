//! A token that begins to count on a chain that is followed already.

use alloy::primitives::U256;

use crate::harness::{Daemon, Node, Settings, eventually, on_both_stores};

on_both_stores! {
    async fn a_token_listed_while_it_is_on_its_way_out_never_becomes_money_that_is_gone(store) {
        let node = Node::start().await;
        let with_token = Settings::new(&node, &store);
        let mut without = with_token.clone();
        without.tokens.clear();
        let mut daemon = Daemon::start_with(without).await;
        let api = daemon.customer("acme").await;
        let wallet = node.accounts[6];
        let other = Node::stranger();
        for address in [wallet, other] {
            api.watch(address).await;
        }
        node.mint(wallet, 1_000).await;
        node.settle().await;
        api.balance_settled(wallet, "ETH", &node).await;
        node.block_with(&[node.token_transfer(wallet, node.accounts[7], 1_000)]).await;
        node.mint(other, 5).await;
        api.balances_at_head(wallet, &node).await;
        daemon.terminate().await;

        // At the settled block the chain still has the thousand; the sweep asks for just that state.
        let mut with_token = with_token;
        with_token.chain.push_str("sweep_per_minute = 60000");
        let daemon = Daemon::start_with(with_token).await;
        let balance = api.balance_at_head(wallet, "DUSD", &node).await;
        assert_eq!(balance.total, U256::ZERO);
        for _ in 0..20 {
            let balance = api.balance(wallet, "DUSD").await;
            assert_eq!((balance.available, balance.total), (U256::ZERO, U256::ZERO));
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        node.settle().await;
        eventually("the opening", || async {
            let balance = api.balance(other, "DUSD").await;
            (balance.available == U256::from(5)).then_some(())
        })
        .await;
        let balance = api.balance_settled(wallet, "DUSD", &node).await;
        assert_eq!((balance.available, balance.total), (U256::ZERO, U256::ZERO));
        let drift = "tidemark_balance_drift_total{chain=\"local\"} 0\n";
        assert!(daemon.metrics().await.contains(drift));
    }
}
