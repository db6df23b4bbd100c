//! One answer of one node never changes settled money.

use super::*;
use crate::{chain::Certainty, clock::Millis, config::DifferenceLimits};

const START: Millis = Millis(1_768_469_400_000);

/// A wallet that holds 1,000 settled units, on a chain of which one node tells.
async fn rich(store: &TestStore, certainty: Certainty) -> (Rig, TenantId, WalletId) {
    let mut rig = Rig::new(store);
    let (tenant, wallet) = one_wallet(store, &mut rig).await;
    rig.chain.mine(&[pay(1, None, who(9), 1000)]);
    settle_on(&mut rig, 0).await;
    rig.chain.certainty(certainty);
    (rig, tenant, wallet)
}

/// So many more blocks settle, one after the other, each with a payment that does not concern the wallet.
async fn settle_on(rig: &mut Rig, blocks: u64) {
    for _ in 0..blocks {
        rig.chain.mine(&[]);
        rig.follow().await.unwrap();
    }
    let head = rig.chain.head().at.number;
    for number in head.saturating_sub(blocks)..=head {
        rig.chain.settle(number);
        rig.follow().await.unwrap();
    }
}

async fn settled(store: &TestStore, wallet: WalletId) -> Amount {
    store.position(wallet, &chain_name(), AssetKey::Native).await.settled
}

/// The sweep comes by once.
async fn sweep_once(rig: &mut Rig, minute: i64) {
    rig.follower.clock = Clock::manual(START);
    rig.follower.sweep = Sweep::new(60);
    rig.follow().await.unwrap();
    rig.follower.clock.set(Millis(START.0 + minute * 60_000));
    rig.follow().await.unwrap();
    rig.follower.sweep = Sweep::new(0);
}

fn in_doubt(rig: &Rig) -> i64 {
    rig.follower.metrics.balances_in_doubt.with_label_values(&["scripted"]).get()
}

#[tokio::test]
async fn one_false_answer_of_one_node_changes_no_settled_money() {
    use Certainty::{Agreed, Disputed, Proven, Told};
    for (certainty, lie) in
        [(Disputed, 0), (Told, 0), (Told, 2000), (Agreed, 0), (Agreed, 2000), (Proven, 2000)]
    {
        for store in TestStore::all().await {
            let (mut rig, tenant, wallet) = rich(&store, certainty).await;
            rig.chain.lie(who(9), AssetKey::Native, Some(lie));
            sweep_once(&mut rig, 1).await;
            assert_eq!(settled(&store, wallet).await, 1000.into());
            rig.chain.lie(who(9), AssetKey::Native, None);
            settle_on(&mut rig, 8).await;
            assert_eq!(settled(&store, wallet).await, 1000.into());
            assert_eq!(in_doubt(&rig), 0);
            assert!(!types(&store.events(tenant).await).contains(&"balance.adjusted"));
            assert_exact(&store, &rig, &BTreeMap::from([(who(9), wallet)])).await;
            store.close().await;
        }
    }
}

#[tokio::test]
async fn what_one_node_stands_by_is_booked_at_the_third_settled_block_and_a_debit_at_the_fifth() {
    for (lie, blocks) in [(1700, 2), (300, 4)] {
        for store in TestStore::all().await {
            let (mut rig, _, wallet) = rich(&store, Certainty::Told).await;
            rig.chain.lie(who(9), AssetKey::Native, Some(lie));
            sweep_once(&mut rig, 1).await;
            for _ in 1..blocks {
                settle_on(&mut rig, 1).await;
                assert_eq!(settled(&store, wallet).await, 1000.into());
                assert_eq!(in_doubt(&rig), 1);
            }
            settle_on(&mut rig, 1).await;
            assert_eq!(settled(&store, wallet).await, lie.into());
            assert_eq!(in_doubt(&rig), 0);
            store.close().await;
        }
    }
}

#[tokio::test]
async fn what_the_nodes_tell_differently_of_is_never_booked() {
    for store in TestStore::all().await {
        let (mut rig, _, wallet) = rich(&store, Certainty::Disputed).await;
        rig.chain.lie(who(9), AssetKey::Native, Some(0));
        rig.chain.mine(&[pay(2, None, who(9), 5)]);
        rig.follow().await.unwrap();
        settle_on(&mut rig, 12).await;
        assert_eq!(
            settled(&store, wallet).await,
            1005.into(),
            "and what came settles all the same"
        );
        assert_eq!(in_doubt(&rig), 1);
        let disputed = &rig.follower.metrics.disputed_figures_total;
        assert!(disputed.with_label_values(&["scripted"]).get() > 0);
        store.close().await;
    }
}

/// Four wallets of 50 settled units each, where at most three may differ at once. Block 1 has paid them.
async fn four(store: &TestStore) -> (Rig, BTreeMap<Address, WalletId>) {
    let mut rig = Rig::new(store);
    let differences = DifferenceLimits { count: 3, percent: 100 };
    rig.follower.config = Arc::new(ChainConfig { differences, ..config(rig.settlement) });
    rig.follow().await.unwrap();
    let tenant = store.tenant().await;
    let mut wallets = BTreeMap::new();
    for number in 10..14 {
        wallets.insert(who(number), store.register(tenant, &chain_name(), who(number)).await);
    }
    rig.follow().await.unwrap();
    rig.chain.mine(&(10..14).map(|n| pay(n.into(), None, who(n), 50)).collect::<Vec<_>>());
    rig.chain.settle(1);
    rig.follow().await.unwrap();
    rig.chain.certainty(Certainty::Agreed);
    (rig, wallets)
}

/// A block that takes 7 from each of the four, which nothing shows, and settles.
async fn take_unseen(rig: &mut Rig) {
    unseen(rig, |who| pay(0, Some(who), self::who(8), 7)).await;
}

/// The same, of what each gets.
async fn give_unseen(rig: &mut Rig) {
    unseen(rig, |who| pay(0, None, who, 7)).await;
}

async fn unseen(rig: &mut Rig, payment: impl Fn(Address) -> Payment) {
    let number = rig.chain.head().at.number;
    let pays = (10..14).map(|n| Payment { tx: 1000 * number + u64::from(n), ..payment(who(n)) });
    rig.chain.mine(&pays.collect::<Vec<_>>());
    rig.chain.hide_last();
    rig.chain.settle(rig.chain.head().at.number);
    rig.follow().await.unwrap();
}

async fn all_have(store: &TestStore, wallets: &BTreeMap<Address, WalletId>, units: u64) {
    for wallet in wallets.values() {
        assert_eq!(settled(store, *wallet).await, units.into());
    }
}

fn is_stopped(rig: &Rig) -> bool {
    rig.follower.metrics.settlement_stopped.with_label_values(&["scripted"]).get() == 1
}

/// One more block settles, and settlement is tried whether it has stopped or not.
async fn settle_quietly(rig: &mut Rig) {
    rig.chain.mine(&[pay(rig.chain.head().at.number + 100, None, who(8), 1)]);
    rig.chain.settle(rig.chain.head().at.number);
    rig.follower.stopped.try_now();
    rig.follow().await.unwrap();
}

#[tokio::test]
async fn a_wave_that_the_sweep_finds_stops_what_settles_next_and_a_quiet_block_does_not_lift_it() {
    for came in [true, false] {
        for store in TestStore::all().await {
            let (mut rig, wallets) = four(&store).await;
            if came {
                give_unseen(&mut rig).await;
            } else {
                take_unseen(&mut rig).await;
            }
            sweep_once(&mut rig, 1).await;
            all_have(&store, &wallets, 50).await;
            for _ in 0..3 {
                settle_quietly(&mut rig).await;
                assert!(is_stopped(&rig));
                let settled = store.cursor(&chain_name()).await.unwrap().settled.at.number;
                assert_eq!(settled, 2, "nothing settles");
            }
            rig.follower.committer.accept_differences().await.unwrap();
            settle_quietly(&mut rig).await;
            assert!(!is_stopped(&rig));
            all_have(&store, &wallets, if came { 57 } else { 43 }).await;
            assert_exact(&store, &rig, &wallets).await;
            store.close().await;
        }
    }
}

#[tokio::test]
async fn what_was_accepted_before_it_was_needed_does_not_count_later() {
    for store in TestStore::all().await {
        let (mut rig, wallets) = four(&store).await;
        rig.follower.committer.accept_differences().await.unwrap();
        take_unseen(&mut rig).await;
        sweep_once(&mut rig, 1).await;
        settle_quietly(&mut rig).await;
        assert!(is_stopped(&rig));
        all_have(&store, &wallets, 50).await;
        store.close().await;
    }
}

#[tokio::test]
async fn neither_a_lost_state_nor_a_batch_of_old_blocks_settles_what_it_has_stopped_for() {
    for store in TestStore::all().await {
        let (mut rig, wallets) = four(&store).await;
        take_unseen(&mut rig).await;
        sweep_once(&mut rig, 1).await;
        settle_quietly(&mut rig).await;
        assert!(is_stopped(&rig));
        rig.chain.prune(true);
        for _ in 0..30 {
            rig.chain.mine(&[]);
        }
        rig.chain.settle(20);
        rig.follow().await.unwrap();
        rig.follower.stopped.try_now();
        rig.follow().await.unwrap();
        let cursor = store.cursor(&chain_name()).await.unwrap();
        assert_eq!((cursor.head.at.number, cursor.settled.at.number), (33, 2));
        assert!(is_stopped(&rig));
        rig.chain.prune(false);
        rig.follower.committer.accept_differences().await.unwrap();
        settle_quietly(&mut rig).await;
        all_have(&store, &wallets, 43).await;
        store.close().await;
    }
}

#[tokio::test]
async fn differences_that_are_proven_stop_nothing_however_many_they_are() {
    for store in TestStore::all().await {
        let (mut rig, wallets) = four(&store).await;
        rig.chain.certainty(Certainty::Proven);
        let pays = |tx: u64, amount| -> Vec<Payment> {
            (10..14).map(|n| pay(tx + u64::from(n), None, who(n), amount)).collect()
        };
        rig.chain.mine(&pays(100, 1));
        rig.chain.hide_last();
        rig.chain.mine(&pays(200, 2));
        rig.chain.settle(3);
        rig.follow().await.unwrap();
        assert!(!is_stopped(&rig));
        all_have(&store, &wallets, 53).await;
        take_unseen(&mut rig).await;
        sweep_once(&mut rig, 1).await;
        assert!(!is_stopped(&rig));
        all_have(&store, &wallets, 46).await;
        assert_exact(&store, &rig, &wallets).await;
        store.close().await;
    }
}

#[tokio::test]
async fn too_many_differences_stop_settlement_until_the_node_agrees_or_a_person_accepts_them() {
    for accepted in [false, true] {
        for store in TestStore::all().await {
            let mut rig = Rig::new(&store);
            let limits = DifferenceLimits { count: 3, percent: 25 };
            rig.follower.config =
                Arc::new(ChainConfig { differences: limits, ..config(rig.settlement) });
            rig.follow().await.unwrap();
            let tenant = store.tenant().await;
            let mut wallets = BTreeMap::new();
            for number in 10..14 {
                let id = store.register(tenant, &chain_name(), who(number)).await;
                wallets.insert(who(number), id);
            }
            rig.follow().await.unwrap();
            rig.chain.mine(&(10..14).map(|n| pay(n.into(), None, who(n), 50)).collect::<Vec<_>>());
            rig.chain.certainty(Certainty::Agreed);
            rig.chain.hide_last();
            rig.chain.mine(&(10..14).map(|n| pay(n.into(), None, who(n), 7)).collect::<Vec<_>>());
            rig.chain.settle(2);
            rig.follow().await.unwrap();
            let stopped = rig.follower.metrics.settlement_stopped.clone();
            assert_eq!(stopped.with_label_values(&["scripted"]).get(), 1);
            for wallet in wallets.values() {
                assert_eq!(settled(&store, *wallet).await, 0.into(), "nothing settles");
            }
            rig.chain.mine(&[pay(99, None, who(10), 1)]);
            rig.follow().await.unwrap();
            let cursor = store.cursor(&chain_name()).await.unwrap();
            assert_eq!(cursor.head.at.number, 3, "and the chain is followed");
            if accepted {
                rig.follower.committer.accept_differences().await.unwrap();
            } else {
                let more = DifferenceLimits { count: 4, percent: 25 };
                rig.follower.config =
                    Arc::new(ChainConfig { differences: more, ..config(rig.settlement) });
            }
            rig.follower.stopped.try_now();
            rig.follow().await.unwrap();
            assert_eq!(stopped.with_label_values(&["scripted"]).get(), 0);
            for wallet in wallets.values() {
                assert_eq!(settled(&store, *wallet).await, 57.into());
            }
            assert_exact(&store, &rig, &wallets).await;
            store.close().await;
        }
    }
}

#[tokio::test]
async fn what_a_stall_of_finality_has_gathered_settles_in_pieces_and_is_compared_at_the_end() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let (tenant, wallet) = one_wallet(&store, &mut rig).await;
        let other = store.register(tenant, &chain_name(), who(8)).await;
        let early = store.register(tenant, &chain_name(), who(7)).await;
        rig.follow().await.unwrap();
        rig.chain.mine(&[pay(6000, None, who(7), 3)]);
        rig.chain.hide_last();
        rig.chain.mine(&[pay(6001, None, who(7), 4)]);
        // Pieces have twenty transfers; one block has more.
        for block in 0..9u64 {
            let count = if block == 4 { 50 } else { 7 };
            let pays: Vec<Payment> =
                (0..count).map(|n| pay(block * 100 + n, None, who(9), 1)).collect();
            rig.chain.mine(&pays);
            rig.follow().await.unwrap();
        }
        rig.chain.mine(&[pay(5000, None, who(8), 40)]);
        rig.chain.hide_last();
        rig.chain.mine(&[pay(5001, None, who(8), 2)]);
        rig.follow().await.unwrap();
        rig.chain.settle(13);
        let mut announced = rig.chain.announced();
        let (mut points, mut failed) = (Vec::new(), 0);
        while points.last() != Some(&13) {
            // The comparison at the end fails at first: what the pieces owe to it is owed on.
            rig.chain.mute(failed < 2);
            failed += u32::from(rig.follower.turn(&mut announced).await.is_err());
            points.push(store.cursor(&chain_name()).await.unwrap().settled.at.number);
            assert!(points.len() < 50, "{points:?}");
        }
        points.dedup();
        assert!(points.len() > 4, "{points:?}");
        assert_exact(&store, &rig, &BTreeMap::from([(who(9), wallet), (who(8), other)])).await;
        assert_eq!(settled(&store, wallet).await, 106.into());
        assert_eq!(settled(&store, early).await, 7.into());
        assert_eq!(settled(&store, other).await, 42.into());
        assert!(rig.chain.asked().iter().flatten().any(|query| query.address == who(9)));
        store.close().await;
    }
}

#[tokio::test]
async fn a_wallet_of_which_the_nodes_tell_differently_begins_when_they_agree_and_with_no_lie() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        rig.chain.mine(&[pay(1, None, who(9), 5)]);
        rig.chain.settle(1);
        rig.follow().await.unwrap();
        rig.chain.lie(who(9), AssetKey::Native, Some(10_000));
        rig.chain.certainty(Certainty::Disputed);
        let tenant = store.tenant().await;
        let wallet = store.register(tenant, &chain_name(), who(9)).await;
        rig.follow().await.unwrap();
        assert!(types(&store.events(tenant).await).is_empty(), "it waits");
        rig.chain.certainty(Certainty::Proven);
        rig.follower.opener.at_once(true);
        rig.follow().await.unwrap();
        assert_eq!(settled(&store, wallet).await, 5.into(), "the proof's figure, not the lie");
        store.close().await;
    }
}

#[tokio::test]
async fn a_deep_reorg_is_taken_back_in_pieces_and_each_leaves_the_ledger_at_one_block() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let (_, wallet) = one_wallet(&store, &mut rig).await;
        for block in 0..9u64 {
            let count = if block == 4 { 50 } else { 7 };
            let pays: Vec<Payment> =
                (0..count).map(|n| pay(block * 100 + n, None, who(9), 1)).collect();
            rig.chain.mine(&pays);
            rig.follow().await.unwrap();
        }
        rig.chain.cut(1);
        rig.chain.mine(&[pay(1000, None, who(9), 3)]);
        let steps = rig.follower.metrics.apply_duration_seconds.clone();
        let pieces = || steps.with_label_values(&["scripted", "rollback"]).get_sample_count();
        rig.follow().await.unwrap();
        assert!(pieces() > 3, "{}", pieces());
        assert_exact(&store, &rig, &BTreeMap::from([(who(9), wallet)])).await;
        let reorgs = rig.follower.metrics.reorgs_total.with_label_values(&["scripted"]).get();
        assert_eq!(reorgs, 1, "told once");
        store.close().await;
    }
}
