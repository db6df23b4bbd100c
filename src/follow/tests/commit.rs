//! What one commit builds upon, and what it does with a movement that was there before.

use super::*;
use crate::{commit::Pipeline, model::Status};

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
                store.execute("UPDATE balance SET version = version + 1").await.unwrap();
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
async fn what_waits_in_a_commit_that_is_being_written_settles_in_the_next() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let (_, wallet) = one_wallet(&store, &mut rig).await;
        let mut cursor = store.cursor(&chain_name()).await.unwrap();
        let mut pipeline = Pipeline::new(rig.follower.committer.clone());
        for number in 1..=20 {
            rig.chain.mine(&[pay(number, None, who(9), 1)]);
            let (matched, _) = newest(&rig).await;
            let before = cursor.head;
            cursor = pipeline.connect(&cursor, matched, before).await.unwrap();
        }
        pipeline.finish().await.unwrap();
        let position = store.position(wallet, &chain_name(), AssetKey::Native).await;
        assert_eq!((position.settled, position.incoming), (19.into(), 1.into()));
        assert_exact(&store, &rig, &BTreeMap::from([(who(9), wallet)])).await;
        store.close().await;
    }
}

#[tokio::test]
async fn what_was_known_before_a_rewind_is_not_believed_after_another_step() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        rig.follow().await.unwrap();
        let start = rig.chain.head();
        rig.chain.mine(&[]);
        let (_, wallet) = one_wallet(&store, &mut rig).await;
        // Seen, but no balance has a version that would tell.
        rig.chain.mine(&[pay(1, None, who(9), 0)]);
        rig.follow().await.unwrap();
        rig.chain.mine(&[pay(2, None, who(9), 5)]);
        // Takes the opening of the watch back, behind the back of the follower's memory.
        let other = Rig::with(&store, Arc::clone(&rig.chain), rig.settlement).follower;
        let cursor = other.committer.rewind(&start, &journal::order()).await.unwrap().cursor;
        let committer = rig.follower.committer.clone();
        let mut cursor = committer.reconcile(&cursor, &[]).await.unwrap().cursor;
        for number in 1..=3 {
            let block = rig.chain.blocks(number, number).await.unwrap();
            let matched = rig.follower.matched(block).await.unwrap();
            let figures = BTreeMap::new();
            let done = committer.connect(&cursor, &matched, cursor.settled, &figures, &[]).await;
            cursor = done.unwrap().cursor;
        }
        assert!(store.transfers(wallet).await.iter().all(|row| row.status == Status::Orphaned));
        rig.restart(&store);
        rig.follow().await.unwrap();
        assert_exact(&store, &rig, &BTreeMap::from([(who(9), wallet)])).await;
        let standing = store.transfers(wallet).await.into_iter();
        let standing = standing.filter(|row| row.status != Status::Orphaned).map(|row| row.amount);
        assert_eq!(standing.collect::<Vec<_>>(), [5.into()], "the new opening");
        store.close().await;
    }
}

#[tokio::test]
async fn a_bug_that_panics_in_a_task_of_the_follower_is_not_the_nodes_fault() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        one_wallet(&store, &mut rig).await;
        rig.chain.mine(&[pay(1, None, who(9), 5)]);
        rig.chain.settle(1);
        rig.chain.panic();
        let followed = std::panic::AssertUnwindSafe(rig.follow()).catch_unwind().await;
        assert!(followed.is_err(), "the process ends, loudly");
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
                store
                    .execute("UPDATE chain_cursor SET fencing_epoch = fencing_epoch + 1")
                    .await
                    .unwrap();
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
