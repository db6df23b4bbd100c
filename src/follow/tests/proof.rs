//! When blocks settle, the ledger is what the chain's own state says, and tells what it had to adjust.

use super::*;
use crate::{
    ledger::reconcile::{Belief, Figure},
    model::Status,
    store::testing::StoredTransfer,
};

/// A movement that no block shows, as an internal call or a rebase is.
fn hidden(rig: &Rig, payment: Payment) {
    rig.chain.mine(&[payment]);
    rig.chain.hide_last();
}

async fn settle_all(rig: &mut Rig) {
    rig.chain.settle(rig.chain.head().at.number);
    rig.follow().await.unwrap();
}

async fn adjustments(store: &TestStore, wallet: WalletId) -> Vec<StoredTransfer> {
    let mut rows = store.transfers(wallet).await;
    rows.retain(|row| row.kind == Kind::Adjustment);
    rows
}

/// The events that tell of adjustments: direction, status, amount, reason.
async fn told(store: &TestStore, tenant: TenantId) -> Vec<[String; 4]> {
    let word = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let events = store.events(tenant).await;
    let told = events.iter().filter(|(kind, ..)| kind == "balance.adjusted").map(|(.., body)| {
        let transfer = &body["data"]["transfer"];
        assert!(transfer["txHash"].is_null(), "it belongs to no transaction");
        [
            word(&transfer["direction"]),
            word(&transfer["status"]),
            word(&transfer["amount"]["raw"]),
            word(&transfer["reason"]),
        ]
    });
    told.collect()
}

fn compared(rig: &Rig) -> (u64, u64) {
    let metrics = &rig.follower.metrics;
    let count = |metric: &prometheus::IntCounterVec| metric.with_label_values(&["scripted"]).get();
    (count(&metrics.reconciled_balances_total), count(&metrics.balance_drift_total))
}

#[tokio::test]
async fn an_untraced_credit_is_found_at_settlement_and_told_once() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let (tenant, wallet) = one_wallet(&store, &mut rig).await;
        hidden(&rig, pay(1, None, who(9), 40));
        rig.chain.mine(&[pay(2, None, who(9), 5)]);
        rig.follow().await.unwrap();
        assert!(adjustments(&store, wallet).await.is_empty(), "nothing has settled yet");
        settle_all(&mut rig).await;
        assert_exact(&store, &rig, &BTreeMap::from([(who(9), wallet)])).await;
        let position = store.position(wallet, &chain_name(), AssetKey::Native).await;
        assert_eq!((position.settled, position.incoming), (45.into(), 0.into()));
        let expected = ["in", "settled", "40", "untraced_credit"].map(str::to_owned);
        assert_eq!(told(&store, tenant).await, std::slice::from_ref(&expected));
        assert_eq!(compared(&rig), (1, 1));
        // It is explained now: what settles later, or a new process, finds nothing.
        rig.chain.mine(&[pay(3, None, who(9), 1)]);
        settle_all(&mut rig).await;
        rig.restart(&store);
        rig.chain.mine(&[pay(4, None, who(9), 1)]);
        settle_all(&mut rig).await;
        assert_eq!(told(&store, tenant).await, [expected]);
        assert_exact(&store, &rig, &BTreeMap::from([(who(9), wallet)])).await;
        store.close().await;
    }
}

#[tokio::test]
async fn an_untraced_debit_is_found_at_settlement_and_told_once() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let (tenant, wallet) = one_wallet(&store, &mut rig).await;
        rig.chain.mine(&[pay(1, None, who(9), 100)]);
        hidden(&rig, pay(2, Some(who(9)), who(8), 30));
        rig.chain.mine(&[pay(3, Some(who(9)), who(8), 5)]);
        rig.follow().await.unwrap();
        settle_all(&mut rig).await;
        assert_exact(&store, &rig, &BTreeMap::from([(who(9), wallet)])).await;
        let expected = ["out", "settled", "30", "untraced_debit"].map(str::to_owned);
        assert_eq!(told(&store, tenant).await, [expected]);
        assert_eq!(compared(&rig), (1, 1));
        store.close().await;
    }
}

#[tokio::test]
async fn nothing_is_adjusted_where_the_figures_agree_and_each_is_asked_for_once() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let (tenant, wallet) = one_wallet(&store, &mut rig).await;
        let other = store.register(store.tenant().await, &chain_name(), who(9)).await;
        rig.follow().await.unwrap();
        rig.chain.mine(&[pay(1, None, who(9), 100)]);
        rig.chain.mine(&[
            pay(2, Some(who(9)), who(8), 30),
            Payment { asset: token(), ..pay(3, None, who(9), 7) },
        ]);
        rig.follow().await.unwrap();
        rig.chain.asked();
        settle_all(&mut rig).await;
        let query = |asset| BalanceQuery { address: who(9), asset };
        assert_eq!(rig.chain.asked(), [vec![query(AssetKey::Native), query(token())]]);
        assert_eq!(compared(&rig), (4, 0), "two wallets, two assets");
        assert!(told(&store, tenant).await.is_empty());
        assert!(adjustments(&store, wallet).await.is_empty());
        assert!(adjustments(&store, other).await.is_empty());
        store.close().await;
    }
}

#[tokio::test]
async fn blocks_are_followed_while_the_balances_that_settle_are_still_being_read() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let (_, wallet) = one_wallet(&store, &mut rig).await;
        rig.chain.mine(&[pay(1, None, who(9), 50)]);
        rig.follow().await.unwrap();
        rig.chain.settle(1);
        rig.chain.hold_balances(true);
        let mut announced = rig.chain.announced();
        for (number, sum) in [(2, 51), (3, 52)] {
            rig.chain.mine(&[pay(number, None, who(9), 1)]);
            rig.chain.announce();
            assert_eq!(rig.follower.turn(&mut announced).await.unwrap(), Turn::More);
            let position = store.position(wallet, &chain_name(), AssetKey::Native).await;
            assert_eq!((position.settled, position.incoming), (0.into(), sum.into()));
        }
        rig.chain.hold_balances(false);
        rig.follow().await.unwrap();
        let position = store.position(wallet, &chain_name(), AssetKey::Native).await;
        assert_eq!((position.settled, position.incoming), (50.into(), 2.into()));
        assert_eq!(compared(&rig), (1, 0), "it was read once");
        store.close().await;
    }
}

#[tokio::test]
async fn a_reading_of_a_branch_that_is_gone_settles_nothing() {
    for store in TestStore::all().await {
        let mut rig = Rig::with(&store, Arc::new(Scripted::new()), Settlement::Confirmations(1));
        let (_, wallet) = one_wallet(&store, &mut rig).await;
        rig.chain.mine(&[pay(1, None, who(9), 50)]);
        rig.follow().await.unwrap();
        rig.chain.hold_balances(true);
        let mut announced = rig.chain.announced();
        rig.chain.mine(&[]);
        assert_eq!(rig.follower.turn(&mut announced).await.unwrap(), Turn::More);
        // The block that was about to settle never was.
        rig.chain.cut(0);
        rig.chain.mine(&[pay(1, None, who(9), 30)]);
        rig.chain.hold_balances(false);
        rig.follow().await.unwrap();
        let position = store.position(wallet, &chain_name(), AssetKey::Native).await;
        assert_eq!((position.settled, position.incoming), (0.into(), 30.into()));
        rig.chain.mine(&[]);
        rig.follow().await.unwrap();
        assert_exact(&store, &rig, &BTreeMap::from([(who(9), wallet)])).await;
        let position = store.position(wallet, &chain_name(), AssetKey::Native).await;
        assert_eq!((position.settled, position.incoming), (30.into(), 0.into()));
        store.close().await;
    }
}

#[tokio::test]
async fn two_wallets_of_one_address_are_each_adjusted() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let (first, wallet) = one_wallet(&store, &mut rig).await;
        rig.chain.mine(&[pay(1, None, who(9), 3)]);
        hidden(&rig, pay(2, None, who(9), 40));
        rig.follow().await.unwrap();
        // The second tenant's opening knows of the money already; what comes next, neither does.
        let second = store.tenant().await;
        let other = store.register(second, &chain_name(), who(9)).await;
        rig.follow().await.unwrap();
        hidden(&rig, pay(3, None, who(9), 2));
        rig.chain.mine(&[pay(4, None, who(9), 1)]);
        rig.follow().await.unwrap();
        settle_all(&mut rig).await;
        for wallet in [wallet, other] {
            assert_exact(&store, &rig, &BTreeMap::from([(who(9), wallet)])).await;
        }
        let amounts = async |tenant| {
            told(&store, tenant)
                .await
                .into_iter()
                .map(|[_, _, amount, _]| amount)
                .collect::<Vec<_>>()
        };
        assert_eq!(amounts(first).await, ["42"]);
        assert_eq!(amounts(second).await, ["2"]);
        assert_eq!(adjustments(&store, other).await.len(), 1);
        store.close().await;
    }
}

#[tokio::test]
async fn a_watch_is_compared_from_its_beginning_on() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        rig.follow().await.unwrap();
        rig.chain.mine(&[pay(1, None, who(9), 100)]);
        rig.chain.mine(&[pay(2, Some(who(9)), who(8), 60)]);
        rig.follow().await.unwrap();
        let tenant = store.tenant().await;
        let wallet = store.register(tenant, &chain_name(), who(9)).await;
        rig.follow().await.unwrap();
        rig.chain.mine(&[pay(3, None, who(9), 1)]);
        rig.follow().await.unwrap();
        // Below its beginning the wallet had another balance, which is no drift.
        rig.chain.settle(1);
        rig.follow().await.unwrap();
        assert_eq!(compared(&rig), (0, 0));
        settle_all(&mut rig).await;
        assert_eq!(compared(&rig), (1, 0));
        assert!(adjustments(&store, wallet).await.is_empty());
        store.close().await;
    }
}

#[tokio::test]
async fn what_settles_at_the_end_of_a_catch_up_is_compared() {
    for store in TestStore::all().await {
        let mut rig = Rig::with(&store, Arc::new(Scripted::new()), Settlement::Confirmations(1));
        let (_, wallet) = one_wallet(&store, &mut rig).await;
        // Batches have three blocks: the second is the last one.
        for tx in 1..4 {
            rig.chain.mine(&[pay(tx, None, who(9), tx)]);
        }
        hidden(&rig, pay(10, None, who(9), 40));
        rig.chain.mine(&[pay(11, None, who(9), 5)]);
        rig.chain.mine(&[]);
        rig.follow().await.unwrap();
        assert_exact(&store, &rig, &BTreeMap::from([(who(9), wallet)])).await;
        assert_eq!(adjustments(&store, wallet).await.len(), 1);
        store.close().await;
    }
}

#[tokio::test]
async fn a_node_without_the_state_is_asked_once_and_the_block_settles_all_the_same() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let (tenant, wallet) = one_wallet(&store, &mut rig).await;
        hidden(&rig, pay(1, None, who(9), 40));
        rig.chain.mine(&[pay(2, None, who(9), 5)]);
        rig.chain.mine(&[]);
        rig.follow().await.unwrap();
        rig.chain.prune(true);
        rig.chain.asked();
        rig.chain.settle(2);
        rig.follow().await.unwrap();
        assert_eq!(rig.chain.asked().len(), 1);
        let position = store.position(wallet, &chain_name(), AssetKey::Native).await;
        assert_eq!((position.settled, position.incoming), (5.into(), 0.into()));
        assert!(told(&store, tenant).await.is_empty());
        // What was skipped is found as soon as the state is there again and the balance is touched.
        rig.chain.prune(false);
        rig.chain.mine(&[pay(3, None, who(9), 1)]);
        settle_all(&mut rig).await;
        assert_exact(&store, &rig, &BTreeMap::from([(who(9), wallet)])).await;
        store.close().await;
    }
}

#[tokio::test]
async fn a_node_that_tells_no_balances_delays_settlement_but_does_not_stop_it() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let (_, wallet) = one_wallet(&store, &mut rig).await;
        rig.chain.mine(&[pay(1, None, who(9), 5)]);
        rig.follow().await.unwrap();
        rig.chain.mute(true);
        rig.chain.asked();
        settle_all(&mut rig).await;
        assert_eq!(rig.chain.asked().len(), 6, "it is tried again before it is given up");
        let position = store.position(wallet, &chain_name(), AssetKey::Native).await;
        assert_eq!(position.settled, 5.into());
        rig.chain.mine(&[pay(2, None, who(9), 5)]);
        settle_all(&mut rig).await;
        assert_eq!(rig.chain.asked().len(), 1, "while it lasts, each settlement asks once");
        rig.chain.mute(false);
        rig.chain.mine(&[pay(3, None, who(9), 5)]);
        settle_all(&mut rig).await;
        assert_eq!(compared(&rig), (1, 0));
        store.close().await;
    }
}

#[tokio::test]
async fn money_that_was_spent_before_it_was_explained_is_credited_once() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let (tenant, wallet) = one_wallet(&store, &mut rig).await;
        let wallets = BTreeMap::from([(who(9), wallet)]);
        hidden(&rig, pay(1, None, who(9), 40));
        rig.chain.mine(&[pay(2, None, who(9), 5)]);
        rig.chain.mine(&[pay(3, Some(who(9)), who(8), 30)]);
        rig.follow().await.unwrap();
        assert_exact(&store, &rig, &wallets).await;
        // The state at block 2 proves the credit, but block 3 has explained it already.
        rig.chain.settle(2);
        rig.follow().await.unwrap();
        assert_exact(&store, &rig, &wallets).await;
        settle_all(&mut rig).await;
        assert_exact(&store, &rig, &wallets).await;
        let expected = ["in", "pending", "40", "untraced_credit"].map(str::to_owned);
        assert_eq!(
            told(&store, tenant).await,
            [expected],
            "told when seen, not again when settled"
        );
        store.close().await;
    }
}

#[tokio::test]
async fn money_settles_and_wallets_begin_below_a_block_that_cannot_be_had() {
    // The next block, and one further above.
    for ahead in [1, 5] {
        for store in TestStore::all().await {
            let mut rig = Rig::new(&store);
            let (tenant, wallet) = one_wallet(&store, &mut rig).await;
            rig.chain.mine(&[pay(1, None, who(9), 60)]);
            rig.follow().await.unwrap();
            rig.chain.enlarge(true);
            for _ in 0..ahead {
                rig.chain.mine(&[]);
            }
            rig.chain.settle(1);
            let other = store.register(tenant, &chain_name(), who(8)).await;
            let mut announced = rig.chain.announced();
            for _ in 0..3 {
                let turn = rig.follower.turn(&mut announced).await;
                assert!(matches!(turn, Err(TurnError::Source(SourceError::TooLarge(_)))));
            }
            let position = store.position(wallet, &chain_name(), AssetKey::Native).await;
            assert_eq!(position.settled, 60.into());
            let events = store.events(tenant).await;
            let begun = types(&events).into_iter().filter(|kind| *kind == "wallet.activated");
            assert_eq!(begun.count(), 2);
            rig.chain.enlarge(false);
            rig.chain.mine(&[pay(2, None, who(8), 5)]);
            rig.follow().await.unwrap();
            assert_exact(&store, &rig, &BTreeMap::from([(who(9), wallet), (who(8), other)])).await;
            store.close().await;
        }
    }
}

#[tokio::test]
async fn no_block_waits_for_a_node_that_does_not_tell_why_more_was_spent_than_came() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let (_, wallet) = one_wallet(&store, &mut rig).await;
        hidden(&rig, pay(1, None, who(9), 60));
        rig.chain.mine(&[pay(2, Some(who(9)), who(8), 40)]);
        rig.chain.mute(true);
        rig.follow().await.unwrap();
        assert_eq!(store.cursor(&chain_name()).await.unwrap().head.at, rig.chain.head().at);
        rig.chain.mute(false);
        rig.chain.mine(&[pay(3, None, who(9), 1)]);
        rig.follow().await.unwrap();
        settle_all(&mut rig).await;
        assert_exact(&store, &rig, &BTreeMap::from([(who(9), wallet)])).await;
        store.close().await;
    }
}

#[tokio::test]
async fn a_debit_that_pending_money_stands_against_waits_and_stops_nothing() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let (tenant, wallet) = one_wallet(&store, &mut rig).await;
        let wallets = BTreeMap::from([(who(9), wallet)]);
        rig.chain.mine(&[pay(1, None, who(9), 100)]);
        hidden(&rig, pay(2, Some(who(9)), who(8), 95));
        rig.chain.mine(&[pay(3, None, who(9), 1)]);
        rig.chain.mine(&[pay(4, None, who(9), 50)]);
        rig.chain.mine(&[pay(5, Some(who(9)), who(8), 20)]);
        rig.follow().await.unwrap();
        // At block 3 the chain has 6, and 20 are on their way out: without the deposit of block 4 they
        // could not be.
        rig.chain.settle(3);
        rig.follow().await.unwrap();
        assert_eq!(compared(&rig), (1, 1), "it is counted");
        assert!(told(&store, tenant).await.is_empty(), "and not booked");
        // A reorg takes the deposit and the withdrawal back, and brings both again.
        let gone = rig.chain.cut(3);
        rig.chain.mine(&[]);
        rig.follow().await.unwrap();
        rig.chain.cut(3);
        rig.chain.put_back(&gone);
        rig.follow().await.unwrap();
        settle_all(&mut rig).await;
        assert_exact(&store, &rig, &wallets).await;
        let expected = ["out", "settled", "95", "untraced_debit"].map(str::to_owned);
        assert_eq!(told(&store, tenant).await, [expected]);
        store.close().await;
    }
}

#[tokio::test]
async fn an_asset_that_gives_no_figure_proves_nothing() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let (tenant, wallet) = one_wallet(&store, &mut rig).await;
        rig.chain.mine(&[
            Payment { asset: token(), ..pay(1, None, who(9), 7) },
            pay(2, None, who(9), 8),
        ]);
        rig.follow().await.unwrap();
        rig.chain.unreadable(token());
        settle_all(&mut rig).await;
        assert_eq!(store.position(wallet, &chain_name(), token()).await.settled, 7.into());
        assert_eq!(compared(&rig), (1, 0), "only the native coin told");
        assert!(told(&store, tenant).await.is_empty());
        store.close().await;
    }
}

#[tokio::test]
async fn what_the_issuer_has_frozen_is_taken_over_with_the_proof() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let (_, wallet) = one_wallet(&store, &mut rig).await;
        rig.chain.mine(&[Payment { asset: token(), ..pay(1, None, who(9), 7) }]);
        rig.follow().await.unwrap();
        rig.chain.freeze(who(9), token(), 4);
        settle_all(&mut rig).await;
        let balance = store.balance(wallet, &chain_name(), token()).await;
        assert_eq!(balance.frozen, 4.into());
        store.close().await;
    }
}

#[tokio::test]
async fn two_proofs_that_disagree_about_one_block_are_both_booked() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let (tenant, wallet) = one_wallet(&store, &mut rig).await;
        rig.chain.mine(&[pay(1, None, who(9), 10)]);
        rig.follow().await.unwrap();
        settle_all(&mut rig).await;
        let mut cursor = store.cursor(&chain_name()).await.unwrap();
        let (name, native) = (chain_name(), AssetKey::Native);
        let balance = store.balance_ref(tenant, wallet, who(9), &name, native).await;
        for total in [15u64, 12, 15, 12, 10] {
            let holding = Amount::from(total).into();
            let belief = Belief::Confirmed { most: Amount::MAX };
            let figures = [Figure { balance, holding, belief }];
            let committer = &rig.follower.committer;
            cursor = committer.reconcile(&cursor, &figures).await.unwrap().cursor;
            let position = store.position(wallet, &chain_name(), AssetKey::Native).await;
            assert_eq!(position.settled, total.into());
        }
        assert_eq!(adjustments(&store, wallet).await.len(), 5);
        assert_exact(&store, &rig, &BTreeMap::from([(who(9), wallet)])).await;
        store.close().await;
    }
}

#[tokio::test]
async fn a_rewind_takes_adjustments_back_and_they_can_come_again() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let (tenant, wallet) = one_wallet(&store, &mut rig).await;
        let wallets = BTreeMap::from([(who(9), wallet)]);
        rig.chain.mine(&[pay(1, None, who(9), 100)]);
        rig.follow().await.unwrap();
        settle_all(&mut rig).await;
        hidden(&rig, pay(2, Some(who(9)), who(8), 30));
        hidden(&rig, Payment { asset: token(), ..pay(3, None, who(9), 4) });
        rig.chain.mine(&[
            pay(4, None, who(9), 1),
            Payment { asset: token(), ..pay(5, None, who(9), 1) },
        ]);
        rig.follow().await.unwrap();
        settle_all(&mut rig).await;
        assert_exact(&store, &rig, &wallets).await;
        let target = rig.chain.header_at(1).await.unwrap().unwrap();
        rig.follower.committer.rewind(&target, &journal::order()).await.unwrap();
        let position = store.position(wallet, &chain_name(), AssetKey::Native).await;
        assert_eq!(position.settled, 100.into());
        assert_eq!(store.position(wallet, &chain_name(), token()).await.total(), Ok(Amount::ZERO));
        let replayed = store.replayed(wallet, &chain_name()).await;
        assert_eq!(replayed[&AssetKey::Native], position);
        assert!(adjustments(&store, wallet).await.iter().all(|row| row.status == Status::Orphaned));
        // The same blocks again: the same two adjustments, with entries of their own.
        rig.restart(&store);
        rig.follow().await.unwrap();
        rig.chain.mine(&[]);
        settle_all(&mut rig).await;
        assert_exact(&store, &rig, &wallets).await;
        let statuses: Vec<String> =
            told(&store, tenant).await.into_iter().map(|[_, status, ..]| status).collect();
        assert_eq!(
            statuses,
            ["settled", "settled", "orphaned", "orphaned", "settled", "settled"],
            "each time it is told"
        );
        store.close().await;
    }
}

#[tokio::test]
async fn what_the_chain_agreed_with_is_remembered_until_its_block_is_taken_back() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let (_, wallet) = one_wallet(&store, &mut rig).await;
        let chain = chain_name();
        let agreed = async || {
            let agreed = store.agreement(wallet, &chain, AssetKey::Native).await;
            agreed.map(|agreed| (agreed.block, agreed.figure))
        };
        let beginning = rig.chain.head();
        rig.chain.mine(&[pay(1, None, who(9), 100)]);
        rig.follow().await.unwrap();
        assert_eq!(agreed().await, None, "nothing was compared yet");
        settle_all(&mut rig).await;
        let first = Some((rig.chain.head().at.number, Amount::from(100)));
        assert_eq!(agreed().await, first);
        rig.chain.mine(&[]);
        settle_all(&mut rig).await;
        assert_eq!(agreed().await, first, "nothing touched it");
        hidden(&rig, pay(2, None, who(9), 40));
        rig.chain.mine(&[pay(3, None, who(9), 5)]);
        settle_all(&mut rig).await;
        let adjusted = Some((rig.chain.head().at.number, Amount::from(145)));
        assert_eq!(agreed().await, adjusted, "after an adjustment it agrees");
        rig.follower.committer.rewind(&beginning, &journal::order()).await.unwrap();
        assert_eq!(agreed().await, None, "that block may never have been");
        store.close().await;
    }
}

#[tokio::test]
async fn a_trace_that_no_balance_can_hold_is_left_out_and_halts_nothing() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let (_, wallet) = one_wallet(&store, &mut rig).await;
        rig.chain.have_traced(true);
        rig.chain.mine(&[]);
        rig.chain.overflow_in_last(who(9));
        for _ in 0..20 {
            rig.follow().await.expect("the chain goes on");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let refused = &rig.follower.metrics.trace_mismatches_total;
        assert!(refused.with_label_values(&["scripted"]).get() > 0, "it was refused");
        rig.chain.mine(&[pay(2, None, who(9), 5)]);
        rig.follow().await.expect("the chain goes on");
        assert_exact(&store, &rig, &BTreeMap::from([(who(9), wallet)])).await;
        store.close().await;
    }
}
