//! The slow walk finds what no transfer touches, inside its budget.

use super::*;
use crate::{clock::Millis, config::ChainConfig};

const START: Millis = Millis(1_768_469_400_000);

/// A follower that sweeps, on a clock that is set by hand.
fn sweeping(rig: &mut Rig, per_minute: u64) {
    rig.follower.clock = Clock::manual(START);
    rig.follower.sweep = Sweep::new(per_minute);
}

async fn after(rig: &mut Rig, seconds: i64) {
    rig.follower.clock.set(Millis(START.0 + seconds * 1000));
    rig.follow().await.unwrap();
}

async fn drifted(store: &TestStore, tenant: TenantId) -> usize {
    types(&store.events(tenant).await).iter().filter(|kind| **kind == "balance.adjusted").count()
}

fn completed(rig: &Rig) -> f64 {
    let metric = &rig.follower.metrics.sweep_last_completed_timestamp_seconds;
    metric.with_label_values(&["scripted"]).get()
}

fn swept(rig: &Rig) -> u64 {
    rig.follower.metrics.swept_addresses_total.with_label_values(&["scripted"]).get()
}

#[tokio::test]
async fn the_sweep_finds_what_no_transfer_touched_and_tells_it_once() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        sweeping(&mut rig, 60);
        let (tenant, wallet) = one_wallet(&store, &mut rig).await;
        let wallets = BTreeMap::from([(who(9), wallet)]);
        rig.chain.mine(&[pay(1, None, who(9), 40)]);
        rig.chain.hide_last();
        rig.chain.mine(&[]);
        after(&mut rig, 10).await;
        assert_eq!(drifted(&store, tenant).await, 0, "it has not settled yet");
        rig.chain.settle(2);
        after(&mut rig, 11).await;
        after(&mut rig, 20).await;
        assert_eq!(drifted(&store, tenant).await, 1);
        assert_exact(&store, &rig, &wallets).await;
        // A rebase takes something back; a new process finds it too.
        rig.chain.mine(&[pay(2, Some(who(9)), who(8), 15)]);
        rig.chain.hide_last();
        rig.chain.settle(3);
        rig.restart(&store);
        sweeping(&mut rig, 60);
        for seconds in [0, 10, 20, 30] {
            after(&mut rig, seconds).await;
        }
        assert_eq!(drifted(&store, tenant).await, 2);
        assert_exact(&store, &rig, &wallets).await;
        store.close().await;
    }
}

#[tokio::test]
async fn the_sweep_keeps_to_its_budget_and_comes_round() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        sweeping(&mut rig, 6);
        rig.follow().await.unwrap();
        let tenant = store.tenant().await;
        for number in 10..17 {
            store.register(tenant, &chain_name(), who(number)).await;
        }
        rig.chain.mine(&[]);
        rig.chain.settle(1);
        after(&mut rig, 0).await;
        rig.chain.asked();
        let mut asked = Vec::new();
        for seconds in 1..=40 {
            after(&mut rig, seconds).await;
            asked.extend(rig.chain.asked().into_iter().flatten());
        }
        let wanted: Vec<BalanceQuery> = (10..14)
            .flat_map(|number| {
                [AssetKey::Native, token()]
                    .map(|asset| BalanceQuery { address: who(number), asset })
            })
            .collect();
        assert_eq!(asked, wanted, "an address in ten seconds, all its assets, in order");
        assert_eq!((swept(&rig), completed(&rig)), (4, 0.0));
        // What was saved in an hour is a page, not an hour's worth of addresses.
        after(&mut rig, 3600).await;
        assert_eq!(swept(&rig), 7);
        assert!(completed(&rig) > 0.0, "it came to the end");
        for seconds in 3610..3680 {
            after(&mut rig, seconds).await;
        }
        assert!(swept(&rig) > 7, "and begins anew");
        store.close().await;
    }
}

#[tokio::test]
async fn a_budget_of_nothing_asks_nothing() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        sweeping(&mut rig, 0);
        one_wallet(&store, &mut rig).await;
        rig.chain.mine(&[]);
        rig.chain.settle(1);
        rig.follow().await.unwrap();
        rig.chain.asked();
        after(&mut rig, 100_000).await;
        assert!(rig.chain.asked().is_empty());
        store.close().await;
    }
}

#[tokio::test]
async fn the_sweep_stands_still_while_the_node_lacks_the_state_and_blocks_go_on() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        sweeping(&mut rig, 60);
        let (tenant, wallet) = one_wallet(&store, &mut rig).await;
        rig.chain.mine(&[pay(1, None, who(9), 40)]);
        rig.chain.hide_last();
        rig.chain.settle(1);
        rig.chain.mine(&[]);
        rig.chain.prune(true);
        after(&mut rig, 5).await;
        rig.chain.prune(false);
        rig.chain.mute(true);
        rig.chain.mine(&[]);
        rig.follower.clock.set(Millis(START.0 + 10_000));
        let mut announced = rig.chain.announced();
        rig.chain.asked();
        assert!(rig.follower.turn(&mut announced).await.is_ok(), "it is no trouble to the chain");
        assert_eq!(rig.chain.asked().len(), 1, "though it asked in vain");
        assert_eq!(store.cursor(&chain_name()).await.unwrap().head.at.number, 3);
        assert_eq!((swept(&rig), drifted(&store, tenant).await), (0, 0));
        rig.chain.mute(false);
        after(&mut rig, 15).await;
        assert_eq!(drifted(&store, tenant).await, 1);
        assert_exact(&store, &rig, &BTreeMap::from([(who(9), wallet)])).await;
        store.close().await;
    }
}

#[tokio::test]
async fn what_begins_above_the_settled_block_is_swept_from_there_on() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        rig.follower.config =
            Arc::new(ChainConfig { tokens: Vec::new(), ..config(rig.settlement) });
        let (tenant, wallet) = one_wallet(&store, &mut rig).await;
        rig.chain.mine(&[
            Payment { asset: token(), ..pay(1, None, who(9), 77) },
            pay(2, None, who(7), 100),
        ]);
        rig.chain.mine(&[
            Payment { asset: token(), ..pay(3, Some(who(9)), who(8), 7) },
            pay(4, Some(who(7)), who(8), 60),
        ]);
        rig.follow().await.unwrap();
        // The token counts from block 2 on, and so does the new wallet; at block 1 both had more.
        rig.restart(&store);
        sweeping(&mut rig, 60);
        let other = store.register(tenant, &chain_name(), who(7)).await;
        after(&mut rig, 0).await;
        rig.chain.settle(1);
        after(&mut rig, 10).await;
        after(&mut rig, 20).await;
        assert!(swept(&rig) > 0);
        assert_eq!(drifted(&store, tenant).await, 0);
        rig.chain.mine(&[]);
        rig.chain.settle(3);
        after(&mut rig, 30).await;
        after(&mut rig, 40).await;
        assert_eq!(drifted(&store, tenant).await, 0);
        assert_exact(&store, &rig, &BTreeMap::from([(who(9), wallet), (who(7), other)])).await;
        store.close().await;
    }
}

#[tokio::test]
async fn the_sweep_looks_at_money_first_and_seldom_asks_for_tokens_that_a_wallet_never_had() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        rig.follow().await.unwrap();
        let tenant = store.tenant().await;
        for number in 10..60 {
            store.register(tenant, &chain_name(), who(number)).await;
        }
        rig.follow().await.unwrap();
        rig.chain.mine(&[Payment { asset: token(), ..pay(1, None, who(47), 5) }]);
        rig.chain.settle(1);
        rig.follow().await.unwrap();
        sweeping(&mut rig, 60);
        after(&mut rig, 0).await;
        rig.chain.asked();
        let native = |n| BalanceQuery { address: who(n), asset: AssetKey::Native };
        let held = BalanceQuery { address: who(47), asset: token() };
        let mut first = Vec::new();
        for seconds in 1..=3 {
            after(&mut rig, seconds).await;
            first.extend(rig.chain.asked().into_iter().flatten());
        }
        assert!(first.contains(&held), "{first:?}");
        assert!(first.contains(&native(47)));
        // The first round asks everybody for everything, the next three do not.
        rig.follower.sweep.walk.came_round();
        for seconds in 4..=80 {
            after(&mut rig, seconds).await;
        }
        let asked: Vec<BalanceQuery> = rig.chain.asked().into_iter().flatten().collect();
        let everybody = (10..60).filter(|number| asked.contains(&native(*number))).count();
        assert!((15..50).contains(&everybody), "{everybody}");
        let others = asked.iter().filter(|query| query.asset == token() && **query != held).count();
        assert_eq!(others, 0);
        let round = rig.follower.metrics.sweep_round_seconds.with_label_values(&["scripted"]).get();
        assert_eq!(round, 200, "50 addresses, one page in four for everybody, 60 a minute");
        store.close().await;
    }
}
