//! What a history says of internal transfers: from which block on they are in it.

use super::{
    history::{covered_from, shown, standing, until_decided},
    *,
};
use crate::{chain::Kind, model::HistoryStatus};

const BLOCKS: u64 = 12;
/// The blocks in which a contract paid.
const CALLED: [u64; 4] = [2, 5, 8, 11];

/// A rig at the head of a chain in which the wallet was paid ten in each block, and who asks for that since block 1.
async fn asked(store: &TestStore) -> (Rig, TenantId, WalletId) {
    let mut rig = Rig::new(store);
    rig.follow().await.unwrap();
    for number in 1..=BLOCKS {
        rig.chain.mine(&[pay(number, None, who(9), 10)]);
        if CALLED.contains(&number) {
            rig.chain.call_in_last();
        }
    }
    rig.chain.settle(BLOCKS);
    rig.follow().await.unwrap();
    let tenant = store.tenant().await;
    let wallet = store.register_since(tenant, &chain_name(), who(9), Some(1)).await;
    (rig, tenant, wallet)
}

/// The blocks of the internal transfers that are there; all else is there, and the sum is the chain's own.
async fn internal(store: &TestStore, rig: &Rig, wallet: WalletId) -> Vec<u64> {
    let rows = standing(store, wallet).await;
    let of = |wanted: Kind| rows.iter().filter(move |(_, kind, _)| *kind == wanted);
    let shown: Vec<u64> = (1..=BLOCKS).filter(|number| !CALLED.contains(number)).collect();
    assert_eq!(of(Kind::Transfer).map(|row| row.0).collect::<Vec<_>>(), shown);
    let found: Vec<u64> = of(Kind::Internal).map(|row| row.0).collect();
    let opened = of(Kind::Opening).fold(Amount::ZERO, |sum, row| sum.checked_add(row.2).unwrap());
    let missing = 10 * (CALLED.len() - found.len());
    assert_eq!(opened, Amount::from(u64::try_from(missing).unwrap()), "nothing of it is lost");
    assert_exact(store, rig, &BTreeMap::from([(who(9), wallet)])).await;
    found
}

/// What the wallet's chain says of its history: that it is complete, and from which block on with internal transfers.
async fn internal_from(store: &TestStore, tenant: TenantId, wallet: WalletId) -> Option<u64> {
    let shown = shown(store, tenant, wallet).await;
    assert_eq!((shown.history, shown.covered_from), (Some(HistoryStatus::Complete), Some(1)));
    shown.internal_from()
}

#[tokio::test]
async fn a_history_has_internal_transfers_where_a_node_traces_and_says_from_which_block_on() {
    for (traces, found, from) in [(true, &CALLED[..], 1), (false, &[], 12)] {
        for store in TestStore::all().await {
            let (mut rig, tenant, wallet) = asked(&store).await;
            rig.chain.have_traced(traces);
            until_decided(&store, &mut rig).await;
            assert_eq!(internal(&store, &rig, wallet).await, found);
            assert_eq!(internal_from(&store, tenant, wallet).await, Some(from));
            store.close().await;
        }
    }
}

#[tokio::test]
async fn where_a_node_traces_for_a_while_only_the_highest_block_that_it_did_not_is_what_counts() {
    let cases: [(bool, bool, &[u64], u64); 3] =
        [(true, false, &[8, 11], 6), (false, true, &[2, 5], 12), (false, false, &[], 12)];
    for (first, then, found, from) in cases {
        for store in TestStore::all().await {
            let (mut rig, tenant, wallet) = asked(&store).await;
            rig.chain.have_traced(first);
            rig.chain.lose([6]);
            while covered_from(&store, tenant, wallet).await != Some(7) {
                rig.follow().await.unwrap();
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            let so_far = shown(&store, tenant, wallet).await;
            assert_eq!(so_far.internal_from(), Some(if first { 7 } else { 12 }));
            rig.chain.have_traced(then);
            rig.chain.lose([]);
            rig.restart(&store);
            until_decided(&store, &mut rig).await;
            assert_eq!(internal(&store, &rig, wallet).await, found);
            assert_eq!(internal_from(&store, tenant, wallet).await, Some(from));
            store.close().await;
        }
    }
}

#[tokio::test]
async fn a_history_that_begins_anew_forgets_what_was_not_traced() {
    for store in TestStore::all().await {
        let (mut rig, tenant, wallet) = asked(&store).await;
        until_decided(&store, &mut rig).await;
        assert_eq!(internal_from(&store, tenant, wallet).await, Some(12));
        let target = rig.chain.header_at(10).await.unwrap().unwrap();
        rig.follower.committer.rewind(&target, &journal::order()).await.unwrap();
        rig.follower.cursor = None;
        rig.chain.have_traced(true);
        until_decided(&store, &mut rig).await;
        rig.chain.mine(&[]);
        rig.chain.settle(BLOCKS + 1);
        until_decided(&store, &mut rig).await;
        assert_eq!(internal(&store, &rig, wallet).await, CALLED);
        assert_eq!(internal_from(&store, tenant, wallet).await, Some(1));
        store.close().await;
    }
}
