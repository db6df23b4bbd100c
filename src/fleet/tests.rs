use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures::FutureExt as _;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    chain::{BlockHash, BlockRef, Family},
    clock::Millis,
    model::{BlockPoint, ChainNo, Cursor, JournalHead},
    store::{chain as chain_store, testing::TestStore},
};

const CHAINS: [&str; 4] = ["arbitrum", "base", "ethereum", "solana"];

/// A store whose chains were begun.
async fn begun(store: &TestStore) -> BTreeMap<ChainName, ChainNo> {
    let mut tx = store.db.begin().await.unwrap();
    let mut numbers = BTreeMap::new();
    for (place, name) in CHAINS.into_iter().enumerate() {
        let chain = ChainName::new(name);
        let no = chain_store::ensure(&mut tx.conn(), &chain).await.unwrap();
        let caip2 = format!("eip155:{place}");
        let at = BlockRef { number: 0, hash: BlockHash([0; 32]) };
        let genesis = BlockPoint { at, time: Millis(0) };
        let cursor = Cursor {
            no,
            chain: chain.clone(),
            family: Family::Evm,
            caip2,
            head: genesis,
            settled: genesis,
            halted: None,
            epoch: 0,
            transfers: 0,
            assets: 0,
            journal: JournalHead::default(),
        };
        assert!(chain_store::insert_cursor(&mut tx.conn(), &cursor, Millis(0)).await.unwrap());
        numbers.insert(chain, no);
    }
    tx.commit().await.unwrap();
    numbers
}

/// A daemon, with what its followers would do with their leases.
struct One {
    fleet: Fleet,
    leases: BTreeMap<ChainName, Arc<ChainLease>>,
    wake: Wake,
}

impl One {
    async fn enter(store: &TestStore, id: &str, chains: &[&str]) -> Self {
        let wake = Wake::new(CHAINS.map(ChainName::new));
        let config = FleetConfig { rebalance: Duration::ZERO, ..FleetConfig::default() };
        let fleet = Fleet::new(
            store.db.clone(),
            id.to_owned(),
            config,
            Clock::shared(),
            Metrics::new(),
            wake.clone(),
        );
        let names = chains.iter().map(|chain| ChainName::new(chain));
        let leases = names.map(|name| (name.clone(), fleet.chain(&name))).collect();
        fleet.enter().await.unwrap();
        Self { fleet, leases, wake }
    }

    /// Takes what it should; leaves what it is asked to leave.
    async fn follow(&self, numbers: &BTreeMap<ChainName, ChainNo>) {
        for (chain, lease) in &self.leases {
            self.fleet.look_again().await;
            if lease.is_to_leave() {
                lease.give_back().await.unwrap();
            } else if lease.epoch().is_none() && lease.may_take().await.unwrap() {
                lease.win(numbers[chain]).await.unwrap();
            }
        }
    }

    /// One sign of life, and what follows from what it shows.
    async fn beat(&self) {
        let picture = self.fleet.beat_and_look().await.unwrap();
        self.fleet.leave_one(&picture);
    }

    fn held(&self) -> BTreeSet<&str> {
        let held =
            self.leases.iter().filter(|(_, lease)| lease.epoch().is_some() && !lease.is_lost());
        held.map(|(chain, _)| chain.as_str()).collect()
    }
}

/// As if all daemons had been there for a while.
async fn settle_in(store: &TestStore, all: &[&One]) {
    store.execute("UPDATE daemon SET started_at = 1").await.unwrap();
    for one in all {
        one.fleet.shared.entered_at.store(1, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn chains_are_shared_out_and_a_newcomer_is_left_its_share_one_chain_at_a_time() {
    for store in TestStore::all().await {
        let numbers = begun(&store).await;
        let first = One::enter(&store, "first", &CHAINS).await;
        first.follow(&numbers).await;
        assert_eq!(first.held().len(), 4, "there is nobody else");
        let second = One::enter(&store, "second", &CHAINS).await;
        second.follow(&numbers).await;
        assert_eq!(second.held().len(), 0, "all are held");
        first.beat().await;
        first.follow(&numbers).await;
        assert_eq!(first.held().len(), 4, "a newcomer may be gone in a moment");
        settle_in(&store, &[&first, &second]).await;
        for moved in 1..=3 {
            second.beat().await;
            first.beat().await;
            first.follow(&numbers).await;
            second.follow(&numbers).await;
            first.follow(&numbers).await;
            assert_eq!(second.held().len(), moved.min(2));
            assert_eq!(first.held().len(), 4 - moved.min(2));
        }
        store.close().await;
    }
}

#[tokio::test]
async fn a_pinned_daemon_follows_only_its_chains_and_one_without_any_follows_none() {
    for store in TestStore::all().await {
        let numbers = begun(&store).await;
        let pinned = One::enter(&store, "pinned", &["ethereum"]).await;
        let none = One::enter(&store, "api", &[]).await;
        let any = One::enter(&store, "any", &CHAINS).await;
        for daemon in [&none, &pinned, &any] {
            daemon.follow(&numbers).await;
        }
        assert_eq!(none.held(), BTreeSet::new());
        assert_eq!(pinned.held(), BTreeSet::from(["ethereum"]));
        assert_eq!(any.held(), BTreeSet::from(["arbitrum", "base", "solana"]));
        store.close().await;
    }
}

#[tokio::test]
async fn a_free_chain_is_left_to_the_daemon_that_should_follow_it_for_a_moment_only() {
    for store in TestStore::all().await {
        let numbers = begun(&store).await;
        // It is there, and takes nothing.
        let _idle = One::enter(&store, "idle", &CHAINS).await;
        let busy = One::enter(&store, "busy", &CHAINS).await;
        busy.follow(&numbers).await;
        assert_eq!(busy.held().len(), 2, "the others are not its share");
        tokio::time::sleep(COURTESY).await;
        busy.follow(&numbers).await;
        assert_eq!(busy.held().len(), 4);
        store.close().await;
    }
}

#[tokio::test]
async fn the_chains_of_a_daemon_that_says_nothing_are_another_ones_and_it_learns_that() {
    for store in TestStore::all().await {
        let numbers = begun(&store).await;
        let first = One::enter(&store, "first", &CHAINS).await;
        first.follow(&numbers).await;
        let second = One::enter(&store, "second", &CHAINS).await;
        store.execute("UPDATE daemon SET seen_at = 1 WHERE id = 'first'").await.unwrap();
        store.execute("UPDATE chain_cursor SET lease_until = 1").await.unwrap();
        second.follow(&numbers).await;
        assert_eq!(second.held().len(), 4);
        assert_eq!(first.held().len(), 4, "it does not know");
        let leader = first.fleet.shared.metrics.chain_leader.clone();
        assert_eq!(leader.with_label_values(&["base"]).get(), 1);
        first.beat().await;
        assert_eq!(first.held().len(), 0);
        assert_eq!(leader.with_label_values(&["base"]).get(), 0);
        // A lease that has run out and was not won by anybody goes on.
        store.execute("UPDATE chain_cursor SET lease_until = 1").await.unwrap();
        second.beat().await;
        assert_eq!(second.held().len(), 4);
        store.close().await;
    }
}

#[tokio::test]
async fn a_daemon_whose_nodes_are_silent_is_not_one_that_should_follow() {
    for store in TestStore::all().await {
        let numbers = begun(&store).await;
        let first = One::enter(&store, "first", &["base"]).await;
        first.follow(&numbers).await;
        let base = &first.leases[&ChainName::new("base")];
        assert!(!base.has_another().await.unwrap());
        let second = One::enter(&store, "second", &["base"]).await;
        first.fleet.look_again().await;
        assert!(base.has_another().await.unwrap());
        base.disable().await;
        base.give_back().await.unwrap();
        first.beat().await;
        second.follow(&numbers).await;
        assert_eq!(second.held(), BTreeSet::from(["base"]));
        base.enable().await;
        first.beat().await;
        second.fleet.look_again().await;
        assert!(second.leases[&ChainName::new("base")].has_another().await.unwrap());
        store.close().await;
    }
}

#[tokio::test]
async fn every_daemon_goes_by_the_clock_of_the_database() {
    for store in TestStore::all().await {
        let one = One::enter(&store, "one", &[]).await;
        let clock = one.fleet.shared.clock.clone();
        // As if the machine's clock had been ten minutes late until now.
        clock.follow(600_000);
        one.beat().await;
        let off = clock.now().0 - Clock::System.now().0;
        assert!(off.abs() < 1000, "{off} ms: the database is on this machine");
        store.close().await;
    }
}

#[tokio::test]
async fn a_daemon_beside_a_newer_schema_wins_nothing_and_ends() {
    for store in TestStore::all().await {
        let numbers = begun(&store).await;
        let one = One::enter(&store, "one", &CHAINS).await;
        store
            .execute(
                "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                 SELECT 99, 'newer', success, checksum, 0 FROM _sqlx_migrations WHERE version = 1",
            )
            .await
            .unwrap();
        one.follow(&numbers).await;
        assert_eq!(one.held().len(), 0);
        let ended = one.fleet.clone().run(CancellationToken::new()).await;
        assert!(matches!(ended, Err(HeartbeatError::Superseded)), "{ended:?}");
        store.close().await;
    }
}

#[tokio::test]
async fn of_two_daemons_with_one_id_the_first_ends_and_says_why() {
    for store in TestStore::all().await {
        let first = One::enter(&store, "same", &CHAINS).await;
        first.beat().await;
        tokio::time::sleep(Duration::from_millis(5)).await;
        let second = One::enter(&store, "same", &CHAINS).await;
        let ended = first.fleet.clone().run(CancellationToken::new()).await;
        assert!(matches!(&ended, Err(HeartbeatError::Twin(id)) if id == "same"), "{ended:?}");
        second.beat().await;
        store.close().await;
    }
}

#[tokio::test]
async fn the_version_before_leases_cannot_commit_beside_this_one() {
    for store in TestStore::all().await {
        begun(&store).await;
        // How each of its commits begins.
        let refused =
            store.execute("UPDATE chain_cursor SET transfers = transfers WHERE epoch = 0").await;
        assert!(refused.is_err(), "{refused:?}");
        store.close().await;
    }
}

#[tokio::test]
async fn a_work_is_done_by_one_daemon_until_it_ends_or_is_silent() {
    for store in TestStore::all().await {
        let work = |id: &str| NamedLease::new(store.db.clone(), "retention", id.to_owned());
        let (one, other) = (work("one"), work("other"));
        let long = Duration::from_mins(1);
        assert!(one.win(long).await.unwrap());
        assert!(!other.win(long).await.unwrap());
        assert!(one.win(long).await.unwrap(), "it goes on");
        other.give_back().await.unwrap();
        assert!(!other.win(long).await.unwrap(), "it was not its own to give");
        one.give_back().await.unwrap();
        assert!(other.win(long).await.unwrap());
        store.execute("UPDATE named_lease SET lease_until = 1").await.unwrap();
        assert!(one.win(long).await.unwrap());
        store.close().await;
    }
}

#[tokio::test]
async fn a_registration_at_one_daemon_wakes_the_follower_in_another() {
    for store in TestStore::all().await {
        let numbers = begun(&store).await;
        let holder = One::enter(&store, "holder", &CHAINS).await;
        holder.follow(&numbers).await;
        let _other = One::enter(&store, "other", &[]).await;
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(holder.fleet.clone().run(shutdown.clone()));
        let base = ChainName::new("base");
        let woken = holder.wake.chain_wake_up(&base);
        // What was there before is looked at once.
        tokio::time::sleep(Duration::from_millis(1200)).await;
        let _ = woken.notified().now_or_never();
        let tenant = store.tenant().await;
        let address = crate::chain::Address::from([7; 20]);
        let wallet = store.register(tenant, &base, address).await;
        tokio::time::timeout(Duration::from_secs(1), woken.notified())
            .await
            .expect("within a second");
        tokio::time::sleep(Duration::from_millis(1200)).await;
        assert!(woken.notified().now_or_never().is_none(), "once");
        store.ask_to_close(wallet).await;
        shutdown.cancel();
        running.await.unwrap().unwrap();
        assert_eq!(store.rows("daemon").await, 1, "it has left");
        store.close().await;
    }
}
