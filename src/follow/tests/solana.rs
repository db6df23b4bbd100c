//! The follower on a Solana cluster, over HTTP: slots without blocks, forks of confirmed blocks, restarts and
//! failing nodes end with the cluster's own figures. Seeded, so that a failure can be run again.

use std::{
    collections::btree_map::Entry,
    sync::atomic::{AtomicU32, Ordering},
};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use super::*;
use crate::{
    chain::{
        rpc::testing::{Node, Reply},
        solana::{
            SolanaSource, TOKEN,
            tests::{
                self,
                cluster::{Cluster, Key, Op, Tx, key},
            },
        },
    },
    config::testing::endpoint,
    follow::backfill::budget::Budget,
    model::Status,
};

const SEEDS: u64 = 6;
const STEPS: usize = 60;
const USD: Key = [150; 32];

fn usd() -> AssetKey {
    AssetKey::Token(Address::from(USD))
}

struct World {
    cluster: Cluster,
    node: Node,
    faults: Arc<AtomicU32>,
    follower: Follower,
    finalized: u64,
    wallets: BTreeMap<u8, WalletId>,
}

fn follower(store: &TestStore, node: &Node) -> Follower {
    let mut config = tests::config(vec![endpoint("one", &node.url, 1)]);
    config.tokens.push(TokenConfig {
        contract: Address::from(USD),
        symbol: "USD".into(),
        name: "Dollar".into(),
        decimals: 6,
        wraps_native: false,
        destroys_funds: false,
    });
    let metrics = Metrics::new();
    let source = SolanaSource::new(&config, metrics.clone()).unwrap();
    let wake = Wake::new([config.name.clone()]);
    let committer = Committer::new(
        store.db.clone(),
        store.ids.clone(),
        Clock::System,
        metrics.clone(),
        wake.clone(),
        ChainInfo::from(&config),
    );
    let watchlist = Registry::default().watchlist(&config.name);
    let wake_up = wake.chain_wake_up(&config.name);
    Follower::new(
        Arc::new(config),
        Arc::new(source),
        committer,
        watchlist,
        metrics,
        Clock::System,
        wake_up,
    )
}

impl World {
    /// People 1 to 5 have SOL, and dollars in the accounts 11 to 15; 21 is a second account of 1.
    async fn new(store: &TestStore) -> Self {
        let people: Vec<Key> = (1..6).map(key).collect();
        let cluster = Cluster::new(&people);
        let open = |account: u8, owner: u8| {
            let account = key(account);
            let open =
                Op::Open { payer: key(5), account, mint: USD, owner: key(owner), program: TOKEN };
            Tx::new(key(5), vec![open, Op::Mint { account, amount: 1_000_000 }])
        };
        let opened: Vec<Tx> =
            (1..6).map(|owner| open(10 + owner, owner)).chain([open(21, 1)]).collect();
        cluster.mine(&opened);
        let faults = Arc::new(AtomicU32::new(0));
        let (honest, failing) = (cluster.clone(), Arc::clone(&faults));
        let node = Node::start(move |method, params| {
            let fails = failing
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                .is_ok();
            if fails { Reply::error(-32603, "told to fail") } else { honest.honest(method, params) }
        })
        .await;
        let follower = follower(store, &node);
        let finalized = cluster.head().at.number;
        cluster.finalize(finalized);
        Self { cluster, node, faults, follower, finalized, wallets: BTreeMap::new() }
    }

    async fn follow(&mut self) {
        let mut announced = self.follower.source.announced();
        let mut last = String::new();
        for _ in 0..300 {
            match self.follower.turn(&mut announced).await {
                Ok(Turn::Idle) if self.follower.wake_up.notified().now_or_never().is_none() => {
                    return;
                }
                Ok(_) => {}
                Err(TurnError::Source(error)) => {
                    last = error.to_string();
                    // The endpoint is left alone for a moment after each failure.
                    tokio::time::sleep(Duration::from_millis(25)).await;
                }
                Err(TurnError::Retry(why)) => {
                    self.follower.cursor = None;
                    last = why;
                }
                Err(error) => panic!("an honest cluster is followed: {error}"),
            }
        }
        panic!("it never came to rest: {last}");
    }

    fn payments(random: &mut StdRng) -> Vec<Tx> {
        let mut made = Vec::new();
        for _ in 0..random.random_range(0..4) {
            let mut person = || random.random_range(1..6_u8);
            let (payer, from, to) = (key(person()), person(), person());
            let accounts = [key(10 + from), key(if to == 1 { 21 } else { 10 + to })];
            let amount = random.random_range(0..300);
            let op = if random.random() {
                Op::Pay { from: key(from), to: key(to), lamports: amount }
            } else if accounts[0] == accounts[1] {
                Op::Mint { account: accounts[0], amount }
            } else {
                Op::Move { from: accounts[0], to: accounts[1], amount, withheld: 0 }
            };
            let failed = random.random_bool(0.2);
            made.push(Tx { payer, ops: vec![op], failed });
        }
        made
    }

    fn mine(&self, random: &mut StdRng) {
        let skipped = if random.random_bool(0.3) { random.random_range(1..5) } else { 0 };
        let reward = [(key(random.random_range(1..6)), random.random_range(1..900))];
        let rewards = if random.random_bool(0.3) { &reward[..] } else { &[] };
        self.cluster.mine_after(skipped, &Self::payments(random), rewards);
    }

    async fn step(&mut self, store: &TestStore, tenant: TenantId, random: &mut StdRng) {
        let head = self.cluster.head().at.number;
        match random.random_range(0..20) {
            0..9 => self.mine(random),
            9..11 if head > self.finalized => {
                self.cluster.cut(random.random_range(self.finalized..head));
                for _ in 0..random.random_range(1..4) {
                    self.mine(random);
                }
            }
            11..13 => {
                // Finality is of what was followed: else the cluster would contradict our own block.
                self.follow().await;
                let head = self.cluster.head().at.number;
                let slots =
                    (self.finalized..=head).filter(|slot| self.cluster.slot(*slot).is_some());
                let slots: Vec<u64> = slots.collect();
                self.finalized = slots[random.random_range(0..slots.len())];
                self.cluster.finalize(self.finalized);
            }
            13 | 14 => {
                let person = random.random_range(1..6);
                if let Entry::Vacant(slot) = self.wallets.entry(person) {
                    let address = Address::from(key(person));
                    let name = self.follower.config.name.clone();
                    slot.insert(store.register(tenant, &name, address).await);
                }
            }
            15 => self.follower = follower(store, &self.node),
            16 => self.faults.store(random.random_range(1..4), Ordering::Relaxed),
            _ => {
                self.follow().await;
                self.assert_exact(store).await;
            }
        }
    }

    async fn assert_exact(&self, store: &TestStore) {
        let name = &self.follower.config.name;
        let applied = store.cursor(name).await.unwrap();
        assert_eq!(applied.head.at, self.cluster.head().at);
        let settled = self.cluster.slot(applied.settled.at.number).unwrap();
        for (&person, &wallet) in &self.wallets {
            let replayed = store.replayed(wallet, name).await;
            for asset in [AssetKey::Native, usd()] {
                let position = store.position(wallet, name, asset).await;
                let held = Cluster::holds(&self.cluster.head(), key(person), asset);
                assert_eq!(position.total(), Ok(held), "{person}'s total is the cluster's figure");
                if position.incoming.is_zero() && position.outgoing.is_zero() {
                    continue;
                }
                let sure = Cluster::holds(&settled, key(person), asset);
                assert!(
                    position.settled <= held.max(sure),
                    "{person}'s settled figure was the cluster's own at a finalized block"
                );
                assert_eq!(
                    replayed.get(&asset).copied().unwrap_or_default(),
                    position,
                    "the balance is the sum of its entries"
                );
            }
        }
    }
}

#[tokio::test]
async fn any_history_of_a_cluster_ends_with_the_clusters_own_figures() {
    for seed in 0..SEEDS {
        for store in TestStore::all().await {
            let mut random = StdRng::seed_from_u64(seed);
            let mut world = World::new(&store).await;
            world.follow().await;
            let tenant = store.tenant().await;
            for _ in 0..STEPS {
                world.step(&store, tenant, &mut random).await;
            }
            world.faults.store(0, Ordering::Relaxed);
            world.follow().await;
            world.assert_exact(&store).await;
            world.cluster.finalize(world.cluster.head().at.number);
            world.follow().await;
            for (&person, &wallet) in &world.wallets {
                for asset in [AssetKey::Native, usd()] {
                    let position = store.position(wallet, &world.follower.config.name, asset).await;
                    let held = Cluster::holds(&world.cluster.head(), key(person), asset);
                    assert_eq!(position.settled, held, "seed {seed}: all of it is settled");
                    assert!(position.incoming.is_zero() && position.outgoing.is_zero());
                }
            }
            store.close().await;
        }
    }
}

#[tokio::test]
async fn a_fork_of_a_confirmed_block_is_undone_and_a_skipped_slot_is_no_reorg() {
    for store in TestStore::all().await {
        let mut world = World::new(&store).await;
        world.follow().await;
        let tenant = store.tenant().await;
        let name = world.follower.config.name.clone();
        let wallet = store.register(tenant, &name, Address::from(key(9))).await;
        world.follow().await;
        let pay = |lamports| Tx::new(key(1), vec![Op::Pay { from: key(1), to: key(9), lamports }]);
        let fork = world.cluster.head().at.number;
        world.cluster.mine_after(3, &[pay(7)], &[]);
        world.follow().await;
        // The slot of our block stays empty on the other branch, and a later one holds other money.
        world.cluster.cut(fork);
        world.cluster.mine_after(6, &[pay(9)], &[]);
        world.follow().await;
        let position = store.position(wallet, &name, AssetKey::Native).await;
        assert_eq!(position.incoming, 9.into());
        let events = store.events(tenant).await;
        assert_eq!(
            types(&events),
            ["wallet.activated", "deposit.pending", "deposit.orphaned", "deposit.pending"]
        );
        assert_eq!(
            world.follower.metrics.reorgs_total.with_label_values(&[name.as_str()]).get(),
            1
        );
        store.close().await;
    }
}

#[tokio::test]
async fn a_long_history_is_booked_in_pieces_and_a_kill_between_them_loses_nothing() {
    for store in TestStore::all().await {
        let mut world = World::new(&store).await;
        let start = world.cluster.head().at.number;
        let before = Cluster::holds(&world.cluster.head(), key(2), AssetKey::Native);
        let pay = |lamports| Tx::new(key(1), vec![Op::Pay { from: key(1), to: key(2), lamports }]);
        for n in 0..12 {
            world.cluster.mine_after(n % 3, &[pay(100 + n)], &[]);
        }
        let head = world.cluster.head();
        world.cluster.finalize(head.at.number);
        world.follow().await;
        let tenant = store.tenant().await;
        let name = world.follower.config.name.clone();
        let address = Address::from(key(2));
        let wallet = store.register_since(tenant, &name, address, Some(start + 1)).await;
        let mut lives = 0;
        let settled = async || {
            let rows = store.transfers(wallet).await.into_iter();
            rows.filter(|row| row.status == Status::Settled).collect::<Vec<_>>()
        };
        while lives == 0 || store.wanted_histories().await > 0 {
            world.follower = follower(&store, &world.node);
            world.follower.backfill.limit(Budget::new(Duration::from_mins(1), 3));
            let told = settled().await;
            let mut announced = world.follower.source.announced();
            for _ in 0..500 {
                world.follower.turn(&mut announced).await.unwrap();
                if settled().await != told || store.wanted_histories().await == 0 {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let position = store.position(wallet, &name, AssetKey::Native).await;
            let figure = Cluster::holds(&head, key(2), AssetKey::Native);
            assert_eq!(position.settled, figure);
            let replayed = store.replayed(wallet, &name).await;
            assert_eq!(replayed[&AssetKey::Native], position);
            lives += 1;
            assert!(lives < 20, "it never ends");
        }
        assert!(lives > 3, "{lives} lives");
        let native = settled().await.into_iter().filter(|row| row.amount < 1_000_000.into());
        let mut amounts: Vec<Amount> =
            native.filter(|row| row.kind == Kind::Transfer).map(|row| row.amount).collect();
        amounts.sort();
        assert_eq!(amounts, (100..112).map(Amount::from).collect::<Vec<_>>());
        let opened: Vec<Amount> = settled()
            .await
            .into_iter()
            .filter(|row| row.kind == Kind::Opening && row.amount == before)
            .map(|row| row.amount)
            .collect();
        assert_eq!(opened, [before], "what there was before");
        store.close().await;
    }
}
