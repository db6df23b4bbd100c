//! Histories in whose middle something happens: nothing of them is lost, and nothing is booked twice.

use super::{
    history::{assert_explained, covered_from, on_a_lively_chain, standing, until_decided},
    *,
};
use crate::{
    chain::HistoryBlock,
    follow::backfill::budget::Budget,
    ledger::backfill::{Range, ScanMove, sides},
    store::scan,
};

/// Commits of a few movements.
fn small() -> Budget {
    Budget::new(Duration::from_mins(1), 2)
}

/// Turns until the condition holds; `false` if it never does.
async fn turns_until(rig: &mut Rig, mut holds: impl AsyncFnMut() -> bool) -> bool {
    let mut announced = rig.chain.announced();
    for _ in 0..500 {
        rig.follower.turn(&mut announced).await.unwrap();
        if holds().await {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    false
}

#[tokio::test]
async fn a_kill_after_any_commit_loses_and_doubles_nothing() {
    for store in TestStore::all().await {
        let mut rig = on_a_lively_chain(&store, 30).await;
        let tenants = [store.tenant().await, store.tenant().await];
        let mut wallets = BTreeMap::new();
        let requests = [(0, 2, 1), (1, 3, 7), (1, 4, 20)];
        for (tenant, n, from) in requests {
            let tenant = tenants[tenant];
            let id = store.register_since(tenant, &chain_name(), who(n), Some(from)).await;
            wallets.insert(who(n), id);
        }
        let deepest = wallets[&who(2)];
        let mut lives = 0;
        while lives == 0 || store.wanted_histories().await > 0 {
            rig.restart(&store);
            rig.follower.backfill.limit(small());
            let before = covered_from(&store, tenants[0], deepest).await;
            let moved = async || {
                covered_from(&store, tenants[0], deepest).await != before
                    || store.wanted_histories().await == 0
            };
            assert!(turns_until(&mut rig, moved).await);
            assert_exact(&store, &rig, &wallets).await;
            lives += 1;
        }
        assert!(lives > 10, "{lives} lives");
        for (_, n, from) in requests {
            assert_explained(&store, &rig, wallets[&who(n)], who(n), from).await;
        }
        store.close().await;
    }
}

#[tokio::test]
async fn a_range_is_booked_once_however_often_it_is_committed() {
    for store in TestStore::all().await {
        let mut rig = on_a_lively_chain(&store, 10).await;
        rig.chain.lose(1..=10);
        let tenant = store.tenant().await;
        let wallet = store.register_since(tenant, &chain_name(), who(2), Some(1)).await;
        rig.follow().await.unwrap();
        rig.chain.lose([]);
        let cursor = store.cursor(&chain_name()).await.unwrap();
        let scans = {
            let mut session = store.db.read().await.unwrap();
            scan::all(&mut session.conn(), cursor.no).await.unwrap()
        };
        let [one] = scans.as_slice() else { panic!("one scan: {scans:?}") };
        let moves = [ScanMove { no: one.no, seen: one.next, absorbs: Vec::new() }];
        let blocks = rig.chain.blocks(4, 10).await.unwrap().into_iter().rev();
        let blocks: Vec<HistoryBlock> = blocks
            .map(|it| HistoryBlock { movements: it.movements, ..HistoryBlock::empty(it.header) })
            .collect();
        let below = rig.chain.header_at(3).await.unwrap().unwrap();
        let assets = rig.follower.config.assets();
        let sides = sides(&blocks, &assets, |_| true);
        let range = Range { blocks: &blocks, below: (&below).into(), sides: &sides, is_last: true };
        let writer = rig.follower.committer.clone();
        let committed = writer.backfill(&cursor, &moves, range).await.unwrap();
        let told = store.transfers(wallet).await;
        assert_eq!(covered_from(&store, tenant, wallet).await, Some(4));
        let again = writer.backfill(&cursor, &moves, range).await;
        assert!(matches!(again, Err(CommitError::CursorMoved(_))), "{again:?}");
        let again = writer.backfill(&committed.cursor, &moves, range).await;
        assert!(matches!(again, Err(CommitError::Store(StoreError::Stale(_)))), "{again:?}");
        assert_eq!(store.transfers(wallet).await, told);
        rig.restart(&store);
        until_decided(&store, &mut rig).await;
        assert_exact(&store, &rig, &BTreeMap::from([(who(2), wallet)])).await;
        assert_explained(&store, &rig, wallet, who(2), 1).await;
        store.close().await;
    }
}

#[tokio::test]
async fn a_short_history_that_meets_a_deeper_one_is_read_to_its_end_without_a_rest() {
    for store in TestStore::all().await {
        let mut rig = on_a_lively_chain(&store, 40).await;
        rig.chain.lose([40]);
        let tenant = store.tenant().await;
        let deep = store.register_since(tenant, &chain_name(), who(2), Some(1)).await;
        rig.follow().await.unwrap();
        rig.chain.lose([]);
        for n in 0..4 {
            rig.chain.mine(&[pay(9000 + n, None, who(3), 1)]);
        }
        rig.chain.settle(44);
        rig.follow().await.unwrap();
        rig.follower.backfill.limit(small());
        let short = store.register_since(tenant, &chain_name(), who(3), Some(33)).await;
        until_decided(&store, &mut rig).await;
        let wallets = BTreeMap::from([(who(2), deep), (who(3), short)]);
        assert_exact(&store, &rig, &wallets).await;
        assert_explained(&store, &rig, deep, who(2), 1).await;
        assert_explained(&store, &rig, short, who(3), 33).await;
        store.close().await;
    }
}

#[tokio::test]
async fn the_past_of_a_wallet_that_is_deleted_is_no_longer_read() {
    for store in TestStore::all().await {
        let mut rig = on_a_lively_chain(&store, 60).await;
        rig.chain.lose([20]);
        let tenant = store.tenant().await;
        let gone = store.register_since(tenant, &chain_name(), who(2), Some(1)).await;
        let stays = store.register_since(tenant, &chain_name(), who(3), Some(15)).await;
        let stuck = async || covered_from(&store, tenant, stays).await == Some(22);
        assert!(turns_until(&mut rig, stuck).await);
        store.ask_to_close(gone).await;
        rig.follow().await.unwrap();
        let told = standing(&store, gone).await;
        rig.chain.lose([]);
        rig.chain.read();
        rig.restart(&store);
        until_decided(&store, &mut rig).await;
        rig.follow().await.unwrap();
        let lowest = rig.chain.read().into_iter().map(|(from, _)| from).min();
        assert_eq!(lowest, Some(15), "nobody asks for more");
        assert_eq!(standing(&store, gone).await, told);
        assert_explained(&store, &rig, stays, who(3), 15).await;
        store.close().await;
    }
}
