//! One daemon follows a chain at a time, and whoever has lost it changes nothing.

use super::*;
use crate::fleet::ChainLease;

/// Another daemon of the same chain and store.
fn another(rig: &Rig, store: &TestStore) -> Rig {
    let mut other = Rig::with(store, Arc::clone(&rig.chain), rig.settlement);
    let metrics = other.follower.metrics.clone();
    let lease = ChainLease::named(store.db.clone(), chain_name(), "another", &metrics);
    other.follower.committer = other.follower.committer.clone().held_by(Arc::new(lease));
    other
}

async fn turn(rig: &mut Rig) -> Result<Turn, TurnError> {
    let mut announced = rig.chain.announced();
    rig.follower.turn(&mut announced).await
}

/// As after anything that went wrong, it reads anew where the chain stands, and finds that it must wait.
async fn waits(rig: &mut Rig) {
    rig.follower.cursor = None;
    assert!(matches!(turn(rig).await, Err(TurnError::Elsewhere)));
}

#[tokio::test]
async fn a_chain_is_followed_by_one_daemon_and_by_the_next_when_that_gives_it_back() {
    for store in TestStore::all().await {
        let mut one = Rig::new(&store);
        let (tenant, wallet) = one_wallet(&store, &mut one).await;
        let mut other = another(&one, &store);
        waits(&mut other).await;
        one.chain.mine(&[pay(1, None, who(9), 5)]);
        one.follow().await.unwrap();
        waits(&mut other).await;
        one.follower.give_back().await;
        // What the first has opened is watched by the second, and the other way round.
        let late = store.register(tenant, &chain_name(), who(8)).await;
        other.follow().await.unwrap();
        one.chain.mine(&[pay(2, None, who(9), 6), pay(3, None, who(8), 7)]);
        other.follow().await.unwrap();
        waits(&mut one).await;
        other.follower.give_back().await;
        one.chain.mine(&[pay(4, None, who(8), 1)]);
        one.follow().await.unwrap();
        assert_exact(&store, &one, &BTreeMap::from([(who(9), wallet), (who(8), late)])).await;
        store.close().await;
    }
}

#[tokio::test]
async fn whoever_has_lost_a_chain_without_knowing_changes_nothing() {
    for store in TestStore::all().await {
        let mut one = Rig::new(&store);
        let (tenant, wallet) = one_wallet(&store, &mut one).await;
        let mut other = another(&one, &store);
        // It says nothing for longer than its lease.
        store.execute("UPDATE chain_cursor SET lease_until = 1").await.unwrap();
        let late = store.register(tenant, &chain_name(), who(8)).await;
        other.follow().await.unwrap();
        let before = store.cursor(&chain_name()).await.unwrap();
        let stopped = one.follower.metrics.settlement_stopped.clone();
        stopped.with_label_values(&["scripted"]).set(1);
        one.chain.mine(&[pay(1, None, who(8), 5), pay(2, None, who(9), 6)]);
        assert!(matches!(turn(&mut one).await, Err(TurnError::Retry(_))), "its commit is refused");
        assert_eq!(store.cursor(&chain_name()).await, Some(before), "nothing was changed");
        waits(&mut one).await;
        assert_eq!(
            stopped.with_label_values(&["scripted"]).get(),
            0,
            "that is another one's to show"
        );
        other.follow().await.unwrap();
        assert_exact(&store, &one, &BTreeMap::from([(who(9), wallet), (who(8), late)])).await;
        store.close().await;
    }
}

#[tokio::test]
async fn each_commit_makes_the_lease_last() {
    for store in TestStore::all().await {
        let mut one = Rig::new(&store);
        one_wallet(&store, &mut one).await;
        let mut other = another(&one, &store);
        store.execute("UPDATE chain_cursor SET lease_until = 1").await.unwrap();
        one.chain.mine(&[pay(1, None, who(9), 5)]);
        one.follow().await.unwrap();
        waits(&mut other).await;
        store.close().await;
    }
}
