//! One history, one ledger: any order of blocks, reorgs, settlement, faults, restarts and registrations ends
//! with the chain's own figures. Seeded, so that a failure can be run again: see [`crate::seeds`].
//!
//! These run the whole follower, on every store, which takes some tenths of a second each. The rules alone go
//! through many more seeds in memory: `ledger::tests::simulation`.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};

use super::{
    past::{Account, reading},
    *,
};
use crate::{
    api::tests::reading::Reading, clock::Millis, follow::backfill::budget::Budget, model::Status,
    seeds,
};

/// In which the chain shows every movement.
const SEEDS: u64 = 60;
/// In which it does not.
const UNTRACED_SEEDS: u64 = 30;
/// In which only a trace shows some.
const TRACED_SEEDS: u64 = 60;
/// In which configured tokens log amounts that no balance can hold.
const HOSTILE_SEEDS: u64 = 30;
const STEPS: usize = 120;

/// What blocks do beside showing what they move.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Blocks {
    Honest,
    /// Some move money that they do not show.
    Untraced,
    /// Some move money that only a trace shows, and the node traces now and then.
    Traced,
    /// Some show movements of tokens that no balance can hold.
    Hostile,
}

/// Of what only a trace shows.
impl Rig {
    /// Whether all that was taken in is traced.
    fn all_traced(&self) -> bool {
        self.follower.cursor.is_some() && self.follower.traces.is_done()
    }

    /// Follows until it is.
    async fn traced(&mut self) {
        for _ in 0..600 {
            self.follow().await.unwrap();
            if self.all_traced() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("some blocks were never traced");
    }
}

/// Deposits that are available before they settle.
fn tiers() -> Vec<Tier> {
    let tier =
        |asset, up_to: u64, confirmations| Tier { asset, up_to: up_to.into(), confirmations };
    vec![tier(AssetKey::Native, 500, 1), tier(AssetKey::Native, 1_500, 3), tier(token(), 800, 2)]
}

struct Simulation {
    random: StdRng,
    next_tx: u64,
    wallets: BTreeMap<Address, WalletId>,
    blocks: Blocks,
    clock: Clock,
    reading: Reading,
}

impl Simulation {
    /// Payments that the chain's state allows: nobody spends more than there is.
    fn payments(&mut self, rig: &Rig) -> Vec<Payment> {
        let mut spent: BTreeMap<(Address, AssetKey), u64> = BTreeMap::new();
        let count = self.random.random_range(0..4);
        let mut made = Vec::new();
        for _ in 0..count {
            let asset = if self.random.random() { AssetKey::Native } else { token() };
            let (from, to) = (self.random.random_range(1..7), self.random.random_range(1..7));
            let (from, to) = (who(from), who(to));
            self.next_tx += 1;
            let has = u64::try_from(rig.chain.balance(from, asset).get()).unwrap();
            let left = has - spent.get(&(from, asset)).copied().unwrap_or_default();
            let payment = if left == 0 || self.random.random_bool(0.3) {
                let amount = self.random.random_range(0..1000);
                Payment { tx: self.next_tx, from: None, to: Some(to), asset, amount }
            } else {
                let amount = self.random.random_range(0..=left);
                *spent.entry((from, asset)).or_default() += amount;
                Payment { tx: self.next_tx, from: Some(from), to: Some(to), asset, amount }
            };
            made.push(payment);
        }
        made
    }

    /// A follower that sweeps, on a clock that the simulation moves, and that books the past in small pieces.
    fn take(&self, rig: &mut Rig) {
        if self.blocks == Blocks::Hostile {
            let mut config = ChainConfig::clone(&rig.follower.config);
            config.tokens.extend(hostile_tokens());
            rig.follower.config = Arc::new(config);
        }
        rig.follower.clock = self.clock.clone();
        rig.follower.sweep = Sweep::new(if self.blocks == Blocks::Untraced { 600 } else { 0 });
        // Histories in several commits, so that anything can happen between two of them.
        rig.follower.backfill.limit(Budget::new(Duration::from_mins(1), 2));
    }

    /// Movements of tokens in the newest block that no balance of theirs explains.
    fn log_anything(&mut self, rig: &Rig) {
        let half = Amount::new(Amount::MAX.get() >> 1);
        for _ in 0..self.random.random_range(1..4) {
            let amount =
                *[Amount::MAX, half, Amount::ZERO, 7.into()].choose(&mut self.random).unwrap();
            let from = self.random.random_bool(0.5).then(|| who(self.random.random_range(1..7)));
            let to = who(self.random.random_range(1..7));
            let token = *hostile().choose(&mut self.random).unwrap();
            rig.chain.log_in_last(token, &[(from, to, amount)]);
        }
    }

    fn wait(&self, seconds: i64) {
        self.clock.set(Millis(self.clock.now().0 + seconds * 1000));
    }

    /// What was booked explains the balances; that they are the chain's own is certain in between only where
    /// every movement is shown.
    async fn check(&mut self, store: &TestStore, rig: &Rig) {
        let shown = match self.blocks {
            Blocks::Honest | Blocks::Hostile => true,
            Blocks::Untraced => false,
            Blocks::Traced => rig.all_traced(),
        };
        if shown {
            assert_exact(store, rig, &self.wallets).await;
        }
        self.look_back(rig).await;
        for &wallet in self.wallets.values() {
            let replayed = store.replayed(wallet, &chain_name()).await;
            for asset in [AssetKey::Native, token()].into_iter().chain(hostile()) {
                let position = store.position(wallet, &chain_name(), asset).await;
                assert!(position.total().is_ok(), "{position:?}");
                let tiers = rig.tiers.iter().filter(|tier| tier.asset == asset);
                let most = tiers.map(|tier| tier.up_to).max().unwrap_or_default();
                assert!(position.early <= most.min(position.incoming), "{position:?}");
                assert_eq!(replayed.get(&asset).copied().unwrap_or_default(), position);
            }
        }
    }

    /// What a tenant reads of the past of one wallet, and why it has what it has.
    async fn look_back(&mut self, rig: &Rig) {
        let all: Vec<(Address, WalletId)> = self.wallets.iter().map(|(a, w)| (*a, *w)).collect();
        let Some(&(address, wallet)) = all.choose(&mut self.random) else { return };
        let head = rig.chain.head().at.number;
        let (at, limit) = (self.random.random_range(0..=head), self.random.random_range(2..12));
        let account = Account { reading: &self.reading, rig, wallet, address };
        if self.blocks == Blocks::Honest {
            account.assert_past(at).await;
        }
        let asset = if self.random.random() { "eth" } else { "usd" };
        account.assert_explained(asset, limit).await;
    }

    /// Another branch from above the settled block: some payments come again, most do not.
    fn reorg(&mut self, rig: &Rig) {
        let head = rig.chain.head().at.number;
        let floor = rig.chain.settled_number();
        if head == floor {
            return;
        }
        let fork = self.random.random_range(floor..head);
        let gone = rig.chain.cut(fork);
        if self.random.random_bool(0.2) {
            rig.chain.put_back(&gone);
            return;
        }
        let pool: Vec<Payment> = gone
            .iter()
            .flat_map(|header| rig.chain.payments(header.at.hash))
            .filter(|payment| payment.from.is_none())
            .collect();
        let mut mined = BTreeSet::new();
        for _ in 0..self.random.random_range(1..4) {
            let mut payments = self.payments(rig);
            if let Some(again) = pool.choose(&mut self.random)
                && mined.insert(again.tx)
            {
                payments.push(*again);
            }
            rig.chain.mine(&payments);
        }
    }

    async fn step(&mut self, store: &TestStore, rig: &mut Rig, tenant: TenantId) {
        match self.random.random_range(0..20) {
            0..8 => {
                let payments = self.payments(rig);
                rig.chain.mine(&payments);
                if self.blocks == Blocks::Untraced && self.random.random_bool(0.3) {
                    rig.chain.hide_last();
                }
                if self.blocks == Blocks::Traced && self.random.random_bool(0.5) {
                    rig.chain.call_in_last();
                }
                if self.blocks == Blocks::Hostile && self.random.random_bool(0.4) {
                    self.log_anything(rig);
                }
                if self.random.random() {
                    rig.chain.announce();
                }
            }
            8..11 => self.reorg(rig),
            // What settles untraced is found by comparing: here nothing does.
            11..14 if self.blocks == Blocks::Traced => {
                let followed = rig.follower.cursor.as_ref().map(|cursor| cursor.head.at);
                let floor = rig.chain.settled_number();
                if let Some(followed) = followed.filter(|at| rig.all_traced() && rig.chain.has(*at))
                {
                    rig.chain.settle(self.random.random_range(floor..=followed.number));
                }
            }
            11..14 => {
                // Only what was followed can have settled: else the node would contradict our own block.
                let (floor, head) = (rig.chain.settled_number(), rig.chain.head().at.number);
                rig.chain.settle(self.random.random_range(floor..=head));
            }
            14..16 => {
                let address = who(self.random.random_range(1..7));
                // Some ask for their past, others for what is still to come.
                let head = rig.chain.head().at.number;
                let from = self.random.random_range(0..2 * head + 2);
                let from = Some(from).filter(|from| *from <= head + 1);
                if let Entry::Vacant(slot) = self.wallets.entry(address) {
                    let id = store.register_since(tenant, &chain_name(), address, from).await;
                    slot.insert(id);
                }
            }
            16 => {
                rig.restart(store);
                self.take(rig);
            }
            17 if self.blocks == Blocks::Hostile && self.random.random() => {
                rig.follow().await.expect("an honest chain is followed");
                for asset in hostile() {
                    rig.follower.committer.release(asset).await.unwrap();
                }
                rig.follow().await.expect("an honest chain is followed");
            }
            17 if self.blocks == Blocks::Traced => {
                rig.chain.have_traced(self.random.random_bool(0.6));
            }
            17 => rig.chain.fail(self.random.random_range(1..6)),
            _ => {
                rig.follow().await.expect("an honest chain is followed");
                self.check(store, rig).await;
                self.wait(1);
            }
        }
    }
}

async fn simulate(seed: u64, blocks: Blocks, store: &TestStore) {
    let mut rig = Rig::new(store);
    rig.follow().await.unwrap();
    // What it takes over is the configuration of its next process.
    rig.tiers = tiers();
    rig.restart(store);
    let tenant = store.tenant().await;
    let random = StdRng::seed_from_u64(seed);
    let clock = Clock::manual(Millis(1_768_469_400_000));
    let wallets = BTreeMap::new();
    let reading = reading(store, &rig, tenant).await;
    let mut simulation = Simulation { random, next_tx: 0, wallets, blocks, clock, reading };
    simulation.take(&mut rig);
    for _ in 0..STEPS {
        simulation.step(store, &mut rig, tenant).await;
    }
    rig.chain.fail(0);
    rig.chain.have_traced(true);
    rig.follow().await.unwrap();
    rig.traced().await;
    simulation.check(store, &rig).await;
    rig.chain.settle(rig.chain.head().at.number);
    rig.follow().await.unwrap();
    // The sweep comes round at least once.
    for _ in 0..3 {
        simulation.wait(5);
        rig.follow().await.unwrap();
    }
    // A scan that failed rests for a while; a new process tries it at once.
    rig.restart(store);
    simulation.take(&mut rig);
    history::until_decided(store, &mut rig).await;
    assert_exact(store, &rig, &simulation.wallets).await;
    for _ in 0..20 {
        simulation.look_back(&rig).await;
    }
    for (&address, &wallet) in &simulation.wallets {
        if blocks == Blocks::Honest {
            history::assert_complete(store, &rig, tenant, wallet, address).await;
        }
        for asset in [AssetKey::Native, token()] {
            let position = store.position(wallet, &chain_name(), asset).await;
            assert_eq!((position.incoming, position.outgoing), (Amount::ZERO, Amount::ZERO));
        }
        if blocks == Blocks::Traced {
            let mut rows = store.transfers(wallet).await;
            rows.retain(|row| row.kind == Kind::Adjustment && row.status != Status::Orphaned);
            assert_eq!(rows.len(), 0, "a trace explains what was taken for granted: {rows:?}");
        }
        let told: Vec<i64> = store
            .events(tenant)
            .await
            .into_iter()
            .filter(|(_, _, body)| body["data"]["wallet"]["id"] == wallet.to_string())
            .filter_map(|(_, sequence, _)| sequence)
            .collect();
        let expected: Vec<i64> = (1..=i64::try_from(told.len()).unwrap()).collect();
        assert_eq!(told, expected, "a wallet's events count from 1 without gaps");
    }
}

fn on_every_store(seed: u64, blocks: Blocks) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.unwrap().block_on(async {
        for store in TestStore::all().await {
            Box::pin(simulate(seed, blocks, &store)).await;
            store.close().await;
        }
    });
}

#[test]
fn one_history_ends_in_the_chains_own_figures_whatever_happens_on_the_way() {
    seeds::each(SEEDS, |seed| on_every_store(seed, Blocks::Honest));
}

#[test]
fn what_no_movement_showed_is_in_the_balances_once_all_has_settled() {
    seeds::each(UNTRACED_SEEDS, |seed| on_every_store(seed, Blocks::Untraced));
}

#[test]
fn what_only_a_trace_shows_is_booked_as_what_it_is_whenever_it_is_told() {
    seeds::each(TRACED_SEEDS, |seed| on_every_store(seed, Blocks::Traced));
}

#[test]
fn tokens_that_log_what_no_balance_can_hold_change_nothing_but_themselves() {
    seeds::each(HOSTILE_SEEDS, |seed| on_every_store(seed, Blocks::Hostile));
}
