//! One history, one ledger: any order of blocks, reorgs, settlement, faults, restarts and registrations ends
//! with the chain's own figures. Seeded, so that a failure can be run again.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};

use super::*;

const SEEDS: u64 = 40;
const STEPS: usize = 120;

struct Simulation {
    random: StdRng,
    next_tx: u64,
    wallets: BTreeMap<Address, WalletId>,
}

impl Simulation {
    /// Payments that the chain's state allows: nobody spends more than he has.
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
                if self.random.random() {
                    rig.chain.announce();
                }
            }
            8..11 => self.reorg(rig),
            11..14 => {
                // Only what was followed can have settled: else the node would contradict our own block.
                let (floor, head) = (rig.chain.settled_number(), rig.chain.head().at.number);
                rig.chain.settle(self.random.random_range(floor..=head));
            }
            14..16 => {
                let address = who(self.random.random_range(1..7));
                if let Entry::Vacant(slot) = self.wallets.entry(address) {
                    slot.insert(store.register(tenant, &chain_name(), address).await);
                }
            }
            16 => rig.restart(store),
            17 => rig.chain.fail(self.random.random_range(1..6)),
            _ => {
                rig.follow().await.expect("an honest chain is followed");
                assert_exact(store, rig, &self.wallets).await;
            }
        }
    }
}

async fn simulate(seed: u64, store: &TestStore) {
    let mut rig = Rig::new(store);
    rig.follow().await.unwrap();
    let tenant = store.tenant().await;
    let random = StdRng::seed_from_u64(seed);
    let mut simulation = Simulation { random, next_tx: 0, wallets: BTreeMap::new() };
    for _ in 0..STEPS {
        simulation.step(store, &mut rig, tenant).await;
    }
    rig.chain.fail(0);
    rig.follow().await.unwrap();
    assert_exact(store, &rig, &simulation.wallets).await;
    rig.chain.settle(rig.chain.head().at.number);
    rig.follow().await.unwrap();
    for &wallet in simulation.wallets.values() {
        for asset in [AssetKey::Native, token()] {
            let position = store.position(wallet, &chain_name(), asset).await;
            assert_eq!((position.incoming, position.outgoing), (Amount::ZERO, Amount::ZERO));
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

#[tokio::test]
async fn one_history_ends_in_the_chains_own_figures_whatever_happens_on_the_way() {
    for seed in 0..SEEDS {
        for store in TestStore::all().await {
            println!("seed {seed}");
            simulate(seed, &store).await;
            store.close().await;
        }
    }
}
