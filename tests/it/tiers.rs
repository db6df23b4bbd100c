//! Small deposits are available before they settle, on a real node.

use alloy::primitives::U256;
use serde_json::Value;
use tidemark::dev::anvil::Options;

use crate::harness::{Daemon, Node, Settings, eventually, on_both_stores};

on_both_stores! {
    async fn a_small_deposit_is_early_a_large_one_waits_and_a_reorg_takes_the_early_one_back(store) {
        // Final twenty below the head: nothing settles on the way.
        let epoch = Options { slots_in_an_epoch: Some(10), ..Options::default() };
        let node = Node::start_with(epoch).await;
        let mut settings = Settings::new(&node, &store);
        settings.chain.push_str(r#"tiers = [{ asset = "DUSD", up_to = "1.5", confirmations = 3 }]"#);
        let daemon = Daemon::start_with(settings).await;
        let api = daemon.customer("acme").await;
        let (small, large) = (Node::stranger(), Node::stranger());
        api.watch(small).await;
        api.watch(large).await;
        node.mine(2).await.unwrap();

        let receipt = node.mint(small, 1_500_000).await;
        let other = node.mint(large, 1_500_001).await;
        node.mine(1).await.unwrap();
        let seen = api.balance_at_head(small, "DUSD", &node).await;
        assert_eq!((seen.available, seen.pending), (U256::ZERO, U256::from(1_500_000)));
        node.mine(1).await.unwrap();
        let event = api.event_of("deposit.available", &receipt.transaction_hash.to_string()).await;
        let transfer = &event["data"]["transfer"];
        assert_eq!(transfer["settledBy"], "tier:3");
        assert_eq!((&transfer["status"], &transfer["settledAt"]), (&"pending".into(), &Value::Null));
        assert_eq!(event["data"]["balance"]["available"]["raw"], "1500000");
        let early = api.balance_at_head(small, "DUSD", &node).await;
        assert_eq!((early.available, early.pending), (U256::from(1_500_000), U256::ZERO));
        node.mine(3).await.unwrap();
        let waits = api.balance_at_head(large, "DUSD", &node).await;
        assert_eq!((waits.available, waits.pending), (U256::ZERO, U256::from(1_500_001)));
        let tiers = &api.get("/v1/chains").await.ok()["data"][0]["tiers"];
        assert_eq!((&tiers[0]["upTo"], &tiers[0]["confirmations"]), (&"1.5".into(), &3.into()));

        // Deeper than the tier: the block of both goes.
        node.reorg(7, &[]).await.unwrap();
        node.mine(1).await.unwrap();
        for wallet in [small, large] {
            let gone = api.balance_at_head(wallet, "DUSD", &node).await;
            assert_eq!((gone.available, gone.total), (U256::ZERO, U256::ZERO));
        }
        let orphaned = api.event_of("deposit.orphaned", &receipt.transaction_hash.to_string()).await;
        assert_eq!(orphaned["data"]["transfer"]["id"], transfer["id"]);
        assert_eq!(orphaned["data"]["transfer"]["settledBy"], "tier:3", "it had been available");
        assert_eq!(orphaned["data"]["balance"]["available"]["raw"], "0");
        let never = api.event_of("deposit.orphaned", &other.transaction_hash.to_string()).await;
        assert_eq!(never["data"]["transfer"].get("settledBy"), None);

        // Another one, which settles: it is told to be available once.
        let last = node.mint(small, 7).await.transaction_hash.to_string();
        node.mine(3).await.unwrap();
        api.event_of("deposit.available", &last).await;
        node.mine(20).await.unwrap();
        let settled = api.balance_settled(small, "DUSD", &node).await;
        assert_eq!((settled.available, settled.total), (U256::from(7), U256::from(7)));
        eventually("the settled transfer", || async {
            let transfers = api.transfers(small).await;
            let row = transfers.iter().find(|row| row["txHash"] == last.as_str())?.clone();
            (row["status"] == "settled" && row["settledBy"] == "tier:3").then_some(())
        })
        .await;
        let told = api.events().await.into_iter().filter(|event| {
            event["type"] == "deposit.available" && event["data"]["transfer"]["txHash"] == last.as_str()
        });
        assert_eq!(told.count(), 1);
    }
}
