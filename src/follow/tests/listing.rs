//! Watches and assets begin wallet by wallet, each at a block of its own, and nobody waits for another.

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use super::*;
use crate::chain::Certainty;

/// A follower whose configuration has no token yet.
fn without_token(store: &TestStore) -> Rig {
    let mut rig = Rig::new(store);
    rig.follower.config = Arc::new(ChainConfig { tokens: Vec::new(), ..config(rig.settlement) });
    rig
}

fn tokens(tx: u64, from: Option<Address>, to: Address, amount: u64) -> Payment {
    Payment { asset: token(), ..pay(tx, from, to, amount) }
}

async fn sweep_all(rig: &mut Rig) {
    rig.follower.sweep = Sweep::new(60_000);
    for _ in 0..3 {
        rig.follow().await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_token_listed_while_a_transfer_of_it_is_unsettled_is_not_credited_with_an_old_figure() {
    for store in TestStore::all().await {
        let mut rig = without_token(&store);
        let (tenant, wallet) = one_wallet(&store, &mut rig).await;
        rig.chain.mine(&[tokens(1, None, who(9), 1000)]);
        rig.chain.settle(1);
        rig.follow().await.unwrap();
        rig.chain.mine(&[tokens(2, Some(who(9)), who(8), 1000)]);
        rig.follow().await.unwrap();
        // At its head the chain holds nothing; at the settled block it held all.
        rig.restart(&store);
        sweep_all(&mut rig).await;
        let position = store.position(wallet, &chain_name(), token()).await;
        assert_eq!((position.settled, position.total()), (0.into(), Ok(0.into())));
        rig.chain.mine(&[tokens(3, None, who(9), 5)]);
        for number in [2, 3] {
            rig.chain.settle(number);
            sweep_all(&mut rig).await;
        }
        assert_exact(&store, &rig, &BTreeMap::from([(who(9), wallet)])).await;
        assert!(!types(&store.events(tenant).await).contains(&"balance.adjusted"));
        store.close().await;
    }
}

#[tokio::test]
async fn an_asset_that_began_in_a_block_that_vanished_begins_anew() {
    for store in TestStore::all().await {
        let mut rig = without_token(&store);
        let (_, wallet) = one_wallet(&store, &mut rig).await;
        rig.chain.mine(&[tokens(1, None, who(9), 30)]);
        rig.chain.settle(1);
        rig.chain.mine(&[tokens(2, None, who(9), 12)]);
        rig.follow().await.unwrap();
        rig.restart(&store);
        rig.follow().await.unwrap();
        let position = store.position(wallet, &chain_name(), token()).await;
        assert_eq!((position.settled, position.total()), (30.into(), Ok(42.into())));
        rig.chain.cut(1);
        rig.chain.mine(&[tokens(3, Some(who(9)), who(8), 10)]);
        rig.chain.mine(&[]);
        rig.follow().await.unwrap();
        assert_exact(&store, &rig, &BTreeMap::from([(who(9), wallet)])).await;
        rig.chain.settle(3);
        sweep_all(&mut rig).await;
        assert_exact(&store, &rig, &BTreeMap::from([(who(9), wallet)])).await;
        store.close().await;
    }
}

#[tokio::test]
async fn a_new_asset_is_opened_in_pages_and_blocks_are_followed_between_them() {
    for store in TestStore::all().await {
        let mut rig = without_token(&store);
        rig.follow().await.unwrap();
        let tenant = store.tenant().await;
        let mut wallets = BTreeMap::new();
        for number in 10..50 {
            wallets.insert(who(number), store.register(tenant, &chain_name(), who(number)).await);
        }
        rig.follow().await.unwrap();
        rig.chain.mine(&(10..50).map(|n| tokens(n.into(), None, who(n), 100)).collect::<Vec<_>>());
        rig.follow().await.unwrap();
        rig.restart(&store);
        rig.follower.opener.pages_of(3);
        let mut announced = rig.chain.announced();
        // A block in each turn, in which some of them move; and a wallet that is new in the middle.
        for turn in 0..30u64 {
            let (from, to) = (10 + (turn % 40) as u8, 10 + ((turn * 7 + 1) % 40) as u8);
            rig.chain.mine(&[tokens(1000 + turn, Some(who(from)), who(to), 1)]);
            let before = store.cursor(&chain_name()).await.unwrap().head.at.number;
            rig.follower.turn(&mut announced).await.unwrap();
            let after = store.cursor(&chain_name()).await.unwrap().head.at.number;
            assert_eq!(after, before + 1, "it does not wait for the pages");
            rig.follower.opener.pages_of(3);
            if turn == 5 {
                wallets.insert(who(60), store.register(tenant, &chain_name(), who(60)).await);
            }
            if turn == 12 {
                rig.chain.cut(rig.chain.head().at.number - 4);
                rig.chain.mine(&[tokens(5000, None, who(60), 8)]);
                for number in 0..4 {
                    rig.chain.mine(&[tokens(6000 + number, None, who(12), 2)]);
                }
                rig.follow().await.unwrap();
            }
        }
        rig.follow().await.unwrap();
        assert_exact(&store, &rig, &wallets).await;
        rig.chain.mine(&[]);
        rig.chain.settle(rig.chain.head().at.number);
        sweep_all(&mut rig).await;
        assert_exact(&store, &rig, &wallets).await;
        let drift = &rig.follower.metrics.balance_drift_total;
        assert_eq!(drift.with_label_values(&["scripted"]).get(), 0);
        store.close().await;
    }
}

#[tokio::test]
async fn a_registration_that_no_node_answers_for_waits_alone_and_holds_no_settlement() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        rig.follow().await.unwrap();
        let tenant = store.tenant().await;
        let mut wallets = BTreeMap::new();
        rig.chain.refuse(Some(who(77)));
        for number in [20, 77, 21, 22, 23] {
            let wallet = store.register(tenant, &chain_name(), who(number)).await;
            wallets.insert(who(number), wallet);
        }
        rig.follow().await.unwrap();
        let refused = wallets.remove(&who(77)).unwrap();
        rig.follower.opener.at_once(false);
        rig.follow().await.unwrap();
        rig.chain.mine(&(20..24).map(|n| pay(n.into(), None, who(n), 9)).collect::<Vec<_>>());
        rig.chain.settle(1);
        rig.follow().await.unwrap();
        for wallet in wallets.values() {
            let position = store.position(*wallet, &chain_name(), AssetKey::Native).await;
            assert_eq!(position.settled, 9.into());
        }
        rig.chain.refuse(None);
        rig.follower.opener.at_once(true);
        rig.follow().await.unwrap();
        rig.chain.mine(&[pay(99, None, who(77), 4)]);
        rig.follow().await.unwrap();
        let position = store.position(refused, &chain_name(), AssetKey::Native).await;
        assert_eq!(position.total(), Ok(4.into()));
        store.close().await;
    }
}

#[tokio::test]
async fn a_new_asset_waits_for_a_node_that_tells_nothing_and_not_for_one_wallet() {
    for store in TestStore::all().await {
        let mut rig = without_token(&store);
        rig.follow().await.unwrap();
        let tenant = store.tenant().await;
        let mut wallets = BTreeMap::new();
        for number in 10..16 {
            wallets.insert(who(number), store.register(tenant, &chain_name(), who(number)).await);
        }
        rig.follow().await.unwrap();
        rig.chain.mine(&(10..16).map(|n| tokens(n.into(), None, who(n), 100)).collect::<Vec<_>>());
        rig.follow().await.unwrap();
        rig.restart(&store);
        let opened = async |rig: &mut Rig| {
            for _ in 0..20 {
                rig.follower.opener.at_once(false);
                rig.follower.opener.pages_of(1);
                rig.follow().await.unwrap();
            }
            let mut opened = 0;
            for wallet in wallets.values() {
                let position = store.position(*wallet, &chain_name(), token()).await;
                opened += usize::from(position.total() == Ok(100.into()));
            }
            opened
        };
        rig.chain.mute(true);
        assert_eq!(opened(&mut rig).await, 0, "nothing counts without what was there before");
        assert!(rig.chain.asked().len() > 20, "and it is asked for");
        rig.chain.mute(false);
        rig.chain.refuse(Some(who(12)));
        assert_eq!(opened(&mut rig).await, 5, "one wallet holds nobody");
        rig.chain.refuse(None);
        rig.chain.mine(&[]);
        rig.chain.settle(2);
        sweep_all(&mut rig).await;
        assert_eq!(opened(&mut rig).await, 6, "what it had is found by the comparison");
        store.close().await;
    }
}

#[tokio::test]
async fn what_is_listed_again_begins_with_what_is_there_then() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        rig.chain.certainty(Certainty::Agreed);
        let (_, wallet) = one_wallet(&store, &mut rig).await;
        rig.chain.mine(&[tokens(1, None, who(9), 30)]);
        rig.chain.settle(1);
        rig.follow().await.unwrap();
        store.unlist(&chain_name(), token()).await;
        rig.restart(&store);
        rig.follower.config =
            Arc::new(ChainConfig { tokens: Vec::new(), ..config(rig.settlement) });
        rig.chain.mine(&[tokens(2, None, who(9), 12)]);
        rig.follow().await.unwrap();
        let position = store.position(wallet, &chain_name(), token()).await;
        assert_eq!(position.total(), Ok(30.into()), "it does not count");
        rig.restart(&store);
        rig.follow().await.unwrap();
        assert_exact(&store, &rig, &BTreeMap::from([(who(9), wallet)])).await;
        store.close().await;
    }
}

/// What happens around a token that is configured on a running chain.
struct Coming {
    random: StdRng,
    rig: Rig,
    wallets: BTreeMap<Address, WalletId>,
    tx: u64,
}

impl Coming {
    async fn new(store: &TestStore, seed: u64) -> Self {
        let mut rig = without_token(store);
        rig.follow().await.unwrap();
        let tenant = store.tenant().await;
        let mut wallets = BTreeMap::new();
        for number in 1..5 {
            wallets.insert(who(number), store.register(tenant, &chain_name(), who(number)).await);
        }
        rig.follow().await.unwrap();
        Self { random: StdRng::seed_from_u64(seed), rig, wallets, tx: 0 }
    }

    /// A block in which the token moves between those who are watched and others.
    fn mine(&mut self) {
        let mut left: BTreeMap<Address, u64> = BTreeMap::new();
        let payments: Vec<Payment> = (0..self.random.random_range(0..3))
            .map(|_| {
                let from = who(self.random.random_range(1..7));
                let held = self.rig.chain.balance(from, token()).get();
                let has = left.entry(from).or_insert_with(|| held.try_into().unwrap());
                let to = who(self.random.random_range(1..7));
                let spends = *has > 0 && self.random.random_bool(0.5);
                let amount = self.random.random_range(1..=if spends { *has } else { 50 });
                if spends {
                    *has -= amount;
                }
                self.tx += 1;
                tokens(self.tx, spends.then_some(from), to, amount)
            })
            .collect();
        self.rig.chain.mine(&payments);
    }

    /// Another branch from anywhere above the settled block.
    fn reorg(&mut self) {
        let (head, floor) = (self.rig.chain.head().at.number, self.rig.chain.settled_number());
        self.rig.chain.cut(self.random.random_range(floor..=head));
        while self.rig.chain.head().at.number <= head {
            self.mine();
        }
    }

    /// One turn of the follower, or all there are; the wallets are opened one by one.
    async fn turn(&mut self) {
        self.rig.follower.opener.pages_of(1);
        if self.random.random_bool(0.4) {
            self.rig.follow().await.unwrap();
            return;
        }
        let mut announced = self.rig.chain.announced();
        match self.rig.follower.turn(&mut announced).await {
            Ok(_) | Err(TurnError::Source(_)) => {}
            Err(_) => self.rig.follower.cursor = None,
        }
    }
}

impl Coming {
    /// A block, another branch, or settlement.
    fn step(&mut self, number: u64) {
        match self.random.random_range(0..10) {
            0..2 if number > 2 => self.reorg(),
            2 => {
                let (head, settled) =
                    (self.rig.chain.head().at.number, self.rig.chain.settled_number());
                self.rig.chain.settle(self.random.random_range(settled..=head));
            }
            _ => self.mine(),
        }
    }
}

#[tokio::test]
async fn whenever_a_token_is_configured_and_whatever_vanishes_meanwhile_it_counts_in_full() {
    for seed in 0..24 {
        for store in TestStore::all().await {
            let mut coming = Coming::new(&store, seed).await;
            let listed_at = coming.random.random_range(3..12);
            for step in 0..30 {
                if step == listed_at {
                    coming.rig.restart(&store);
                }
                coming.step(step);
                coming.turn().await;
                if step > listed_at && coming.random.random_bool(0.3) {
                    coming.rig.follow().await.unwrap();
                    assert_exact(&store, &coming.rig, &coming.wallets).await;
                }
            }
            coming.rig.follow().await.unwrap();
            assert_exact(&store, &coming.rig, &coming.wallets).await;
            let drift = &coming.rig.follower.metrics.balance_drift_total;
            assert_eq!(drift.with_label_values(&["scripted"]).get(), 0, "seed {seed}");
            store.close().await;
        }
    }
}

#[tokio::test]
async fn a_token_that_is_taken_out_and_put_back_ends_exact_whatever_vanished_meanwhile() {
    for seed in 0..12 {
        for store in TestStore::all().await {
            let mut coming = Coming::new(&store, seed).await;
            coming.rig.restart(&store);
            let out_at = coming.random.random_range(5..12);
            let back_at = out_at + coming.random.random_range(2..10);
            for step in 0..30 {
                if step == out_at {
                    coming.rig.restart(&store);
                    let config = ChainConfig::clone(&coming.rig.follower.config);
                    coming.rig.follower.config =
                        Arc::new(ChainConfig { tokens: Vec::new(), ..config });
                }
                if step == back_at {
                    coming.rig.restart(&store);
                }
                coming.step(step);
                coming.turn().await;
            }
            coming.mine();
            coming.rig.chain.settle(coming.rig.chain.head().at.number);
            sweep_all(&mut coming.rig).await;
            assert_exact(&store, &coming.rig, &coming.wallets).await;
            store.close().await;
        }
    }
}
