//! The watchlist is the store's, whatever fails, and is not read again for it.

use std::collections::BTreeSet;

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use super::*;
use crate::{
    chain::PackedAddresses,
    store::{chain, wallet, watch_load::watched_addresses},
};

const SEEDS: u64 = 12;
const STEPS: u8 = 60;

/// What the store says is watched.
async fn watched(store: &TestStore) -> BTreeSet<Address> {
    // Connections that were ended are found out by whoever uses them next.
    for _ in 0..100 {
        if let Some(all) = try_watched(store).await {
            return all;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the store does not answer");
}

async fn try_watched(store: &TestStore) -> Option<BTreeSet<Address>> {
    let mut all = BTreeSet::new();
    let mut session = store.db.read().await.ok()?;
    let cursor = chain::cursor(&mut session.conn(), &chain_name()).await.ok()??;
    drop(session);
    let read = watched_addresses(&store.db, cursor.no, |packed| match packed {
        PackedAddresses::Short(some) => all.extend(some.iter().copied().map(Address::from)),
        PackedAddresses::Long(some) => all.extend(some.iter().copied().map(Address::from)),
    });
    read.await.ok()?;
    Some(all)
}

/// What is open and would be missed.
async fn missed(store: &TestStore, rig: &Rig) -> Vec<Address> {
    let open = watched(store).await.into_iter();
    open.filter(|address| !rig.follower.watchlist.contains(address)).collect()
}

/// Opens a watch as nobody does, without the follower.
async fn open_unseen(store: &TestStore, tenant: TenantId, address: Address) {
    let wallet = store.register(tenant, &chain_name(), address).await;
    let mut tx = store.db.begin().await.unwrap();
    wallet::open_for_test(&mut tx.conn(), wallet, &chain_name()).await;
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn a_failure_has_nothing_read_again_but_the_cursor() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let (tenant, _) = one_wallet(&store, &mut rig).await;
        open_unseen(&store, tenant, who(7)).await;
        for tx in 1..4 {
            rig.chain.mine(&[pay(tx, None, who(9), 1)]);
            rig.chain.fail(1);
            rig.follow().await.unwrap();
            // As after a transaction that collided.
            rig.follower.cursor = None;
            rig.follow().await.unwrap();
        }
        assert!(rig.follower.watchlist.contains(&who(9)));
        assert!(!rig.follower.watchlist.contains(&who(7)), "all addresses were read again");
        rig.restart(&store);
        rig.follow().await.unwrap();
        assert!(rig.follower.watchlist.contains(&who(7)), "whoever begins reads them");
        store.close().await;
    }
}

#[tokio::test]
async fn what_another_process_opened_is_watched_once_it_has_moved_the_cursor() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let (tenant, _) = one_wallet(&store, &mut rig).await;
        let mut other = Rig::with(&store, Arc::clone(&rig.chain), rig.settlement);
        store.register(tenant, &chain_name(), who(8)).await;
        other.follow().await.unwrap();
        rig.chain.mine(&[pay(1, None, who(8), 5)]);
        other.follow().await.unwrap();
        rig.chain.mine(&[pay(2, None, who(8), 5)]);
        rig.follow().await.unwrap();
        assert!(rig.follower.watchlist.contains(&who(8)));
        store.close().await;
    }
}

/// One step of somebody's, or a round of the follower that ends as it may.
async fn step(
    random: &mut StdRng,
    n: u8,
    store: &TestStore,
    rig: &mut Rig,
    tenants: [TenantId; 2],
    wallets: &mut Vec<WalletId>,
) {
    let address = who(n + 1);
    match random.random_range(0..12) {
        0..4 => {
            let both = if random.random_bool(0.3) { 2 } else { 1 };
            for tenant in &tenants[..both] {
                wallets.push(store.register(*tenant, &chain_name(), address).await);
            }
        }
        4..6 if !wallets.is_empty() => {
            let one = random.random_range(0..wallets.len());
            store.ask_to_close(wallets[one]).await;
        }
        6 => {
            let settled = rig.chain.settled_number();
            let head = rig.chain.head().at.number;
            if head > settled {
                rig.chain.cut(random.random_range(settled..head));
                rig.chain.mine(&[]);
            }
        }
        7 => {
            store.end_connections().await;
        }
        _ => {
            rig.chain.mine(&[pay(n.into(), None, address, 1)]);
        }
    }
    let mut announced = rig.chain.announced();
    // Given up in its middle, it does not know what became of its last commit.
    let patience = Duration::from_micros(random.random_range(0..30_000));
    match tokio::time::timeout(patience, rig.follower.turn(&mut announced)).await {
        Ok(Ok(_) | Err(TurnError::Source(_))) => {}
        Ok(Err(_)) | Err(_) => rig.follower.cursor = None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_fails_all_that_is_open_is_watched_and_in_the_end_nothing_else() {
    for seed in 0..SEEDS {
        let mut random = StdRng::seed_from_u64(seed);
        for store in TestStore::all().await {
            let mut rig = Rig::new(&store);
            rig.follow().await.unwrap();
            let tenants = [store.tenant().await, store.tenant().await];
            let mut wallets = Vec::new();
            for n in 0..STEPS {
                step(&mut random, n, &store, &mut rig, tenants, &mut wallets).await;
                let missed = missed(&store, &rig).await;
                assert!(missed.is_empty(), "seed {seed}, step {n}: {missed:?} are not watched");
            }
            // The last commit in doubt is over once another one has come.
            store.register(tenants[0], &chain_name(), who(200)).await;
            rig.chain.mine(&[]);
            rig.follow().await.unwrap();
            assert_eq!(missed(&store, &rig).await, [], "seed {seed}");
            assert_eq!(rig.follower.watchlist.len(), watched(&store).await.len(), "seed {seed}");
            store.close().await;
        }
    }
}
