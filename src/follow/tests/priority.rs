//! The head goes before what settlements wait for, and that before what can wait.

use super::*;
use crate::{chain::Priority, clock::Millis};

const START: Millis = Millis(1_768_469_400_000);

#[tokio::test]
async fn what_is_asked_says_whether_the_head_a_settlement_or_nobody_waits_for_it() {
    let (head, settlement, background) =
        (Priority::Head, Priority::Settlement, Priority::Background);
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        for tx in 0..9 {
            rig.chain.mine(&[pay(tx, None, who(9), 5)]);
        }
        rig.follow().await.unwrap();
        rig.chain.priorities();
        // The head, one block and several.
        for blocks in [1, 5] {
            for _ in 0..blocks {
                rig.chain.mine(&[]);
            }
            rig.follow().await.unwrap();
            assert_eq!(rig.chain.priorities(), [("blocks", head)]);
        }
        // An opening.
        let tenant = store.tenant().await;
        store.register(tenant, &chain_name(), who(9)).await;
        rig.follow().await.unwrap();
        assert_eq!(rig.chain.priorities(), [("balances", background)]);
        // A settlement.
        rig.chain.mine(&[pay(10, None, who(9), 5)]);
        rig.follow().await.unwrap();
        rig.chain.priorities();
        rig.chain.settle(rig.chain.head().at.number);
        rig.follow().await.unwrap();
        assert_eq!(rig.chain.priorities(), [("balances", settlement)]);
        // The sweep.
        rig.follower.clock = Clock::manual(START);
        rig.follower.sweep = Sweep::new(60);
        rig.follow().await.unwrap();
        rig.follower.clock.set(Millis(START.0 + 10_000));
        rig.follow().await.unwrap();
        assert_eq!(rig.chain.priorities(), [("balances", background)]);
        // A history.
        rig.follower.sweep = Sweep::new(0);
        store.register_since(tenant, &chain_name(), who(8), Some(1)).await;
        history::until_decided(&store, &mut rig).await;
        assert_eq!(rig.chain.priorities(), [("balances", background), ("blocks", background)]);
        store.close().await;
    }
}
