//! What a node calls settled is believed only where it fits to what was applied, and nothing takes its place.

use super::*;

async fn position(store: &TestStore, wallet: WalletId) -> (Amount, Amount) {
    let position = store.position(wallet, &chain_name(), AssetKey::Native).await;
    (position.settled, position.incoming)
}

/// By how many seconds the newest settled block is older than the newest one, as the gauges tell it.
fn behind(rig: &Rig) -> String {
    let (metrics, name) = (&rig.follower.metrics, chain_name());
    let of = |gauge: &prometheus::GaugeVec| gauge.with_label_values(&[name.as_str()]).get();
    let applied = of(&metrics.chain_applied_timestamp_seconds);
    format!("{:.1}", applied - of(&metrics.chain_settled_timestamp_seconds))
}

#[tokio::test]
async fn a_deposit_is_pending_when_seen_and_available_when_its_block_settles() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let (tenant, wallet) = one_wallet(&store, &mut rig).await;
        rig.chain.mine(&[pay(1, None, who(9), 50)]);
        rig.follow().await.unwrap();
        let seen = store.position(wallet, &chain_name(), AssetKey::Native).await;
        assert_eq!((seen.settled, seen.incoming), (0.into(), 50.into()));
        rig.chain.settle(1);
        rig.follow().await.unwrap();
        let settled = store.position(wallet, &chain_name(), AssetKey::Native).await;
        assert_eq!((settled.settled, settled.incoming), (50.into(), 0.into()));
        let events = store.events(tenant).await;
        assert_eq!(types(&events), ["wallet.activated", "deposit.pending", "deposit.available"]);
        let sequences: Vec<_> = events.iter().map(|(_, sequence, _)| *sequence).collect();
        assert_eq!(sequences, [Some(1), Some(2), Some(3)]);
        store.close().await;
    }
}

#[tokio::test]
async fn confirmations_settle_by_depth() {
    for store in TestStore::all().await {
        let mut rig = Rig::with(&store, Arc::new(Scripted::new()), Settlement::Confirmations(2));
        let (_, wallet) = one_wallet(&store, &mut rig).await;
        for tx in 1..6 {
            rig.chain.mine(&[pay(tx, None, who(9), 1)]);
            rig.follow().await.unwrap();
        }
        let position = store.position(wallet, &chain_name(), AssetKey::Native).await;
        assert_eq!((position.settled, position.incoming), (3.into(), 2.into()));
        store.close().await;
    }
}

#[tokio::test]
async fn a_finality_that_stalls_settles_nothing_however_many_blocks_come() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let (tenant, wallet) = one_wallet(&store, &mut rig).await;
        rig.chain.mine(&[pay(1, None, who(9), 50)]);
        rig.chain.settle(1);
        rig.chain.mine(&[pay(2, None, who(9), 7)]);
        rig.follow().await.unwrap();
        for restart in [false, true] {
            for _ in 0..150 {
                rig.chain.mine(&[]);
            }
            if restart {
                rig.restart(&store);
            }
            rig.follow().await.unwrap();
            assert_eq!(position(&store, wallet).await, (50.into(), 7.into()));
        }
        let events = store.events(tenant).await;
        assert_eq!(types(&events).iter().filter(|kind| **kind == "deposit.available").count(), 1);
        assert_eq!(behind(&rig), "301.0", "the gauges tell how long it has stalled");
        let limit = rig.follower.config.settlement_limit.as_secs();
        let gauge = &rig.follower.metrics.chain_settlement_limit_seconds;
        let told = gauge.with_label_values(&[chain_name().as_str()]).get();
        assert_eq!(u64::try_from(told).unwrap(), limit);
        rig.chain.settle(302);
        rig.follow().await.unwrap();
        assert_eq!(position(&store, wallet).await, (57.into(), Amount::ZERO));
        assert_eq!(behind(&rig), "0.0");
        store.close().await;
    }
}

#[tokio::test]
async fn a_finality_that_moves_back_or_ahead_of_what_was_applied_changes_nothing() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let (_, wallet) = one_wallet(&store, &mut rig).await;
        for tx in 1..6 {
            rig.chain.mine(&[pay(tx, None, who(9), 1)]);
        }
        rig.chain.settle(4);
        rig.follow().await.unwrap();
        let stays = (Amount::from(4), Amount::from(1));
        for height in [3, 1, 0] {
            rig.chain.settle(height);
            rig.follow().await.unwrap();
            assert_eq!(position(&store, wallet).await, stays, "final never moves back");
        }
        // A node that is ahead of the one which gave the head, or makes it up.
        let head = rig.chain.head();
        let mut ahead = head;
        ahead.at.number += 10;
        rig.chain.call_settled(Some(ahead));
        rig.follow().await.unwrap();
        assert_eq!(position(&store, wallet).await, stays);
        assert_eq!(store.cursor(&chain_name()).await.unwrap().settled.at.number, 4);
        assert_eq!(store.cursor(&chain_name()).await.unwrap().halted, None);
        rig.chain.call_settled(None);
        rig.chain.settle(5);
        rig.follow().await.unwrap();
        assert_eq!(position(&store, wallet).await, (5.into(), Amount::ZERO), "it goes on");
        store.close().await;
    }
}

#[tokio::test]
async fn a_node_that_names_another_hash_settles_nothing_and_at_the_settled_block_halts_the_chain() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let (_, wallet) = one_wallet(&store, &mut rig).await;
        for tx in 1..6 {
            rig.chain.mine(&[pay(tx, None, who(9), 1)]);
        }
        rig.chain.settle(2);
        rig.follow().await.unwrap();
        let stays = (Amount::from(2), Amount::from(3));
        let mut other = rig.chain.header_at(4).await.unwrap().unwrap();
        other.at.hash.0[31] ^= 1;
        rig.chain.call_settled(Some(other));
        let outcome = rig.follow().await;
        assert!(
            outcome.unwrap_err().contains("do not fit together"),
            "its own blocks say otherwise"
        );
        assert_eq!(position(&store, wallet).await, stays);
        assert_eq!(store.cursor(&chain_name()).await.unwrap().halted, None, "no reason to halt");
        let mut other = rig.chain.header_at(2).await.unwrap().unwrap();
        other.at.hash.0[31] ^= 1;
        rig.chain.call_settled(Some(other));
        assert!(rig.follow().await.unwrap_err().contains("another block 2 settled"));
        assert!(store.cursor(&chain_name()).await.unwrap().halted.is_some());
        assert_eq!(position(&store, wallet).await, stays);
        store.close().await;
    }
}
