//! A new version reads settled blocks again before it books anything.

use super::*;
use crate::store::canary;

/// A wallet with settled deposits, and another version that has followed the chain last.
async fn upgraded(store: &TestStore) -> (Rig, WalletId) {
    let mut rig = Rig::new(store);
    let (_, wallet) = one_wallet(store, &mut rig).await;
    for tx in 1..=5 {
        rig.chain.mine(&[pay(tx, None, who(9), 10 * tx)]);
    }
    rig.chain.settle(4);
    rig.follow().await.unwrap();
    store.execute("UPDATE chain_cursor SET read_by = '0.0.0'").await.unwrap();
    rig.restart(store);
    rig.chain.read();
    (rig, wallet)
}

async fn read_by(store: &TestStore) -> String {
    let no = store.cursor(&chain_name()).await.unwrap().no;
    let mut session = store.db.read().await.unwrap();
    canary::read_by(&mut session.conn(), no).await.unwrap().unwrap_or_default()
}

const THIS_VERSION: &str = env!("CARGO_PKG_VERSION");

#[tokio::test]
async fn a_version_that_reads_the_same_is_remembered_and_asks_no_more() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        rig.follow().await.unwrap();
        assert_eq!(read_by(&store).await, THIS_VERSION, "a new chain has nothing to compare");
        let (mut rig, wallet) = upgraded(&store).await;
        rig.chain.by_hash(|by| by.asked = 0);
        rig.follow().await.unwrap();
        assert_eq!(read_by(&store).await, THIS_VERSION);
        assert_eq!(rig.chain.by_hash(|by| by.asked), 4, "the settled blocks with movements");
        rig.restart(&store);
        rig.chain.by_hash(|by| by.asked = 0);
        rig.follow().await.unwrap();
        assert_eq!(rig.chain.by_hash(|by| by.asked), 0, "an ordinary start asks for nothing");
        assert_exact(&store, &rig, &BTreeMap::from([(who(9), wallet)])).await;
        store.close().await;
    }
}

#[tokio::test]
async fn a_version_that_reads_a_settled_block_otherwise_halts_before_it_books_anything() {
    for store in TestStore::all().await {
        let (mut rig, wallet) = upgraded(&store).await;
        let before = store.position(wallet, &chain_name(), AssetKey::Native).await;
        rig.chain.by_hash(|by| by.amounts.insert(3, 31));
        rig.chain.mine(&[pay(9, None, who(9), 7)]);
        let reason = rig.follow().await.unwrap_err();
        for word in ["settled block 3", "of 30", "of 31 now", env!("CARGO_PKG_VERSION")] {
            assert!(reason.contains(word), "{reason}");
        }
        assert!(store.cursor(&chain_name()).await.unwrap().halted.is_some());
        assert_eq!(store.position(wallet, &chain_name(), AssetKey::Native).await, before);
        // A rewind to the newest settled block does not hide it.
        let target = rig.chain.header_at(4).await.unwrap().unwrap();
        rig.follower.committer.rewind(&target, &journal::order()).await.unwrap();
        rig.restart(&store);
        assert!(rig.follow().await.unwrap_err().contains("settled block 3"));
        // One below it books what this version reads.
        let target = rig.chain.header_at(2).await.unwrap().unwrap();
        rig.follower.committer.rewind(&target, &journal::order()).await.unwrap();
        rig.follow().await.unwrap();
        assert_eq!(read_by(&store).await, THIS_VERSION);
        store.close().await;
    }
}

#[tokio::test]
async fn what_no_node_tells_holds_nothing_and_is_tried_again() {
    for store in TestStore::all().await {
        let (mut rig, wallet) = upgraded(&store).await;
        rig.chain.by_hash(|by| by.refused = true);
        rig.chain.mine(&[]);
        rig.chain.mine(&[pay(9, None, who(9), 7)]);
        rig.follow().await.unwrap();
        assert_eq!(read_by(&store).await, "0.0.0", "not yet");
        assert_exact(&store, &rig, &BTreeMap::from([(who(9), wallet)])).await;
        rig.chain.by_hash(|by| by.refused = false);
        rig.follow().await.unwrap();
        assert_eq!(read_by(&store).await, "0.0.0", "it rests");
        rig.follower.canary.try_now();
        rig.follow().await.unwrap();
        assert_eq!(read_by(&store).await, THIS_VERSION);
        store.close().await;
    }
}
