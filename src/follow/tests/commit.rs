//! What one commit builds upon, and what it does with a movement that was there before.

use super::*;
use crate::{commit::Pipeline, store::on};

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

/// The newest block as a follower commits it, settled at once.
async fn newest(rig: &Rig) -> (Arc<Vec<MatchedBlock>>, BlockPoint) {
    let block = rig.chain.block(rig.chain.head().at).await.unwrap().unwrap();
    let settled = BlockPoint::from(&block.header);
    (Arc::new(rig.follower.matched(vec![block]).await.unwrap()), settled)
}

async fn run(store: &TestStore, sql: &'static str) {
    let mut tx = store.db.begin().await.unwrap();
    on!(&mut tx.conn(), c => sqlx::query(sql).execute(c).await.map(|_| ())).unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn commits_behind_one_another_are_decided_again_when_a_balance_changes_under_them() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let (_, wallet) = one_wallet(&store, &mut rig).await;
        let mut cursor = store.cursor(&chain_name()).await.unwrap();
        let mut pipeline = Pipeline::new(rig.follower.committer.clone());
        for number in 1..=40 {
            rig.chain.mine(&[pay(number, None, who(9), number)]);
            let (matched, settled) = newest(&rig).await;
            cursor = pipeline.connect(&cursor, matched, settled).await.unwrap();
            if number % 4 == 0 {
                // As a hold does, before, while or after the commit is written.
                run(&store, "UPDATE balance SET version = version + 1").await;
            }
        }
        pipeline.finish().await.unwrap();
        assert_eq!(store.cursor(&chain_name()).await.unwrap().head, cursor.head);
        rig.restart(&store);
        rig.follow().await.unwrap();
        assert_exact(&store, &rig, &BTreeMap::from([(who(9), wallet)])).await;
        assert_eq!(store.transfers(wallet).await.len(), 40);
        store.close().await;
    }
}

#[tokio::test]
async fn nothing_is_written_upon_a_commit_that_was_refused() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let (_, wallet) = one_wallet(&store, &mut rig).await;
        let mut cursor = store.cursor(&chain_name()).await.unwrap();
        let mut pipeline = Pipeline::new(rig.follower.committer.clone());
        let mut refused = 0;
        for number in 1..=6 {
            rig.chain.mine(&[pay(number, None, who(9), number)]);
            let (matched, settled) = newest(&rig).await;
            match pipeline.connect(&cursor, matched, settled).await {
                Ok(next) => cursor = next,
                Err(error) => {
                    assert!(matches!(error, CommitError::CursorMoved(_)), "{error:?}");
                    refused += 1;
                }
            }
            if number == 3 {
                pipeline.finish().await.unwrap();
                // Another process takes the chain over.
                run(&store, "UPDATE chain_cursor SET epoch = epoch + 1").await;
            }
        }
        refused += u64::from(pipeline.finish().await.is_err());
        assert!(refused > 0);
        let stands = store.cursor(&chain_name()).await.unwrap();
        assert_eq!(stands.head.at.number, 3);
        assert_eq!(store.transfers(wallet).await.len(), 3);
        rig.restart(&store);
        rig.follow().await.unwrap();
        assert_exact(&store, &rig, &BTreeMap::from([(who(9), wallet)])).await;
        store.close().await;
    }
}
