//! What a watch is told of the time before it.

use super::*;
use crate::{
    chain::Kind,
    model::{HistoryStatus, Status, WalletNo},
    store::{transfer, wallet, watch},
};

/// Registers with the history since a block, and follows until it is there.
async fn register_since(store: &TestStore, rig: &mut Rig, address: Address, from: u64) -> WalletId {
    let tenant = store.tenant().await;
    let id = store.register_since(tenant, &chain_name(), address, Some(from)).await;
    rig.follow().await.unwrap();
    id
}

async fn until_decided(store: &TestStore, rig: &mut Rig) {
    for _ in 0..500 {
        rig.follow().await.unwrap();
        let mut session = store.db.read().await.unwrap();
        let conn = &mut session.conn();
        let cursor = crate::store::chain::cursor(conn, &chain_name()).await.unwrap().unwrap();
        let wanted = watch::wanted_histories(conn, cursor.no, WalletNo(0), 1).await.unwrap();
        if wanted.is_empty() {
            return;
        }
        drop(session);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("the history never came");
}

async fn status(store: &TestStore, wallet: WalletId) -> Option<HistoryStatus> {
    let mut session = store.db.read().await.unwrap();
    wallet::history_of(&mut session.conn(), wallet, &chain_name()).await.unwrap()
}

/// Kind, status and amount of what stands, by block.
async fn standing(store: &TestStore, wallet: WalletId) -> Vec<(u64, Kind, Amount)> {
    let wallet = store.wallet_no(wallet).await;
    let cursor = store.cursor(&chain_name()).await.unwrap();
    let mut session = store.db.read().await.unwrap();
    let rows = transfer::settled_of(&mut session.conn(), cursor.no, &[wallet]).await.unwrap();
    let mut rows: Vec<_> = rows
        .into_iter()
        .filter(|row| row.status == Status::Settled)
        .map(|row| (row.block.number, row.kind, row.amount))
        .collect();
    rows.sort();
    rows
}

fn past(rig: &Rig) {
    rig.chain.mine(&[pay(1, None, who(9), 100)]);
    rig.chain.mine(&[pay(2, Some(who(9)), who(8), 30)]);
    rig.chain.mine(&[]);
    rig.chain.mine(&[pay(3, Some(who(8)), who(9), 5), pay(4, Some(who(9)), who(9), 2)]);
    rig.chain.mine(&[]);
}

#[tokio::test]
async fn the_history_takes_the_place_of_the_opening_and_changes_no_balance() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        rig.follow().await.unwrap();
        past(&rig);
        rig.follow().await.unwrap();
        let wallet = register_since(&store, &mut rig, who(9), 2).await;
        let opened = store.position(wallet, &chain_name(), AssetKey::Native).await;
        assert_eq!(opened.total(), Ok(75.into()), "it is there at once, before its history");
        rig.chain.mine(&[pay(5, None, who(9), 1)]);
        rig.follow().await.unwrap();
        assert_eq!(status(&store, wallet).await, Some(HistoryStatus::Wanted), "not settled yet");
        rig.chain.settle(6);
        until_decided(&store, &mut rig).await;
        assert_eq!(status(&store, wallet).await, Some(HistoryStatus::Complete));
        assert_eq!(
            standing(&store, wallet).await,
            [
                (1, Kind::Opening, 100.into()),
                (2, Kind::Transfer, 30.into()),
                (4, Kind::Transfer, 2.into()),
                (4, Kind::Transfer, 2.into()),
                (4, Kind::Transfer, 5.into()),
                (6, Kind::Transfer, 1.into()),
            ]
        );
        assert_exact(&store, &rig, &BTreeMap::from([(who(9), wallet)])).await;
        store.close().await;
    }
}

#[tokio::test]
async fn a_restart_and_a_reorg_in_the_middle_lose_and_double_nothing() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        rig.follow().await.unwrap();
        past(&rig);
        rig.chain.settle(3);
        rig.follow().await.unwrap();
        let wallet = register_since(&store, &mut rig, who(9), 1).await;
        let wallets = BTreeMap::from([(who(9), wallet)]);
        // The block that it began at vanishes.
        rig.chain.cut(3);
        rig.chain.mine(&[pay(3, Some(who(8)), who(9), 5)]);
        rig.chain.mine(&[]);
        rig.chain.mine(&[]);
        rig.follow().await.unwrap();
        rig.restart(&store);
        rig.follow().await.unwrap();
        assert_exact(&store, &rig, &wallets).await;
        rig.chain.settle(6);
        until_decided(&store, &mut rig).await;
        rig.restart(&store);
        until_decided(&store, &mut rig).await;
        assert_eq!(
            standing(&store, wallet).await,
            [
                (1, Kind::Transfer, 100.into()),
                (2, Kind::Transfer, 30.into()),
                (4, Kind::Transfer, 5.into()),
            ]
        );
        assert_exact(&store, &rig, &wallets).await;
        store.close().await;
    }
}

#[tokio::test]
async fn a_rewind_below_the_beginning_takes_the_history_back_and_it_comes_again() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        rig.follow().await.unwrap();
        past(&rig);
        rig.chain.settle(5);
        rig.follow().await.unwrap();
        let wallet = register_since(&store, &mut rig, who(9), 1).await;
        until_decided(&store, &mut rig).await;
        let before = standing(&store, wallet).await;
        let target = rig.chain.header_at(2).await.unwrap().unwrap();
        rig.follower.committer.rewind(&target).await.unwrap();
        rig.follower.cursor = None;
        until_decided(&store, &mut rig).await;
        rig.chain.mine(&[]);
        rig.chain.settle(6);
        until_decided(&store, &mut rig).await;
        assert_exact(&store, &rig, &BTreeMap::from([(who(9), wallet)])).await;
        assert_eq!(standing(&store, wallet).await, before);
        store.close().await;
    }
}

#[tokio::test]
async fn a_history_that_does_not_lead_to_the_opening_is_not_booked() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        rig.follow().await.unwrap();
        rig.chain.mine(&[pay(1, None, who(9), 100)]);
        rig.chain.mine(&[pay(2, Some(who(9)), who(8), 60)]);
        // The spending is not shown: a hundred came in, and forty are there.
        rig.chain.hide_last();
        rig.chain.mine(&[]);
        rig.chain.settle(3);
        rig.follow().await.unwrap();
        let wallet = register_since(&store, &mut rig, who(9), 1).await;
        until_decided(&store, &mut rig).await;
        assert_eq!(status(&store, wallet).await, Some(HistoryStatus::Incomplete));
        let counted =
            rig.follower.metrics.histories_total.with_label_values(&["scripted", "incomplete"]);
        assert_eq!(counted.get(), 1, "an operator sees it");
        assert_eq!(standing(&store, wallet).await, [(3, Kind::Opening, 40.into())]);
        assert_exact(&store, &rig, &BTreeMap::from([(who(9), wallet)])).await;
        store.close().await;
    }
}

#[tokio::test]
async fn a_history_that_begins_after_the_watch_is_empty() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        rig.follow().await.unwrap();
        past(&rig);
        rig.chain.settle(5);
        rig.follow().await.unwrap();
        let wallet = register_since(&store, &mut rig, who(9), 50).await;
        until_decided(&store, &mut rig).await;
        assert_eq!(status(&store, wallet).await, Some(HistoryStatus::Complete));
        assert_eq!(standing(&store, wallet).await, [(5, Kind::Opening, 75.into())]);
        store.close().await;
    }
}
