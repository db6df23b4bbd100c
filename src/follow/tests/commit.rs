//! What one commit builds upon, and what it does with a movement that was there before.

use super::*;

#[tokio::test]
async fn a_transaction_that_comes_back_with_another_amount_counts_with_that_amount() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let (_, wallet) = one_wallet(&store, &mut rig).await;
        let wallets = BTreeMap::from([(who(9), wallet)]);
        rig.chain.mine(&[pay(1, None, who(9), 50)]);
        rig.follow().await.unwrap();
        // What a swap pays out, or what a transaction costs, depends on the block that holds it.
        rig.chain.cut(0);
        rig.chain.mine(&[]);
        rig.chain.mine(&[pay(1, None, who(9), 70)]);
        rig.follow().await.unwrap();
        assert_exact(&store, &rig, &wallets).await;
        rig.chain.settle(2);
        rig.follow().await.unwrap();
        assert_exact(&store, &rig, &wallets).await;
        assert_eq!(store.transfers(wallet).await[0].amount, 70.into());
        store.close().await;
    }
}

#[tokio::test]
async fn a_writer_that_knows_an_older_settled_block_commits_nothing() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let (_, wallet) = one_wallet(&store, &mut rig).await;
        rig.chain.mine(&[pay(1, None, who(9), 50)]);
        rig.follow().await.unwrap();
        let stale = store.cursor(&chain_name()).await.unwrap();
        rig.chain.settle(1);
        rig.follow().await.unwrap();
        let now = store.cursor(&chain_name()).await.unwrap();
        assert_eq!(stale.head, now.head, "only the settled block has moved");
        let late = rig.follower.committer.open(&stale, &[], &[]).await;
        assert!(matches!(late, Err(CommitError::CursorMoved(_))), "{late:?}");
        assert_eq!(store.cursor(&chain_name()).await.unwrap().settled, now.settled);
        let position = store.position(wallet, &chain_name(), AssetKey::Native).await;
        assert_eq!(position.settled, 50.into());
        store.close().await;
    }
}
