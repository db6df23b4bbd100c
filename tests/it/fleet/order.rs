//! An endpoint that wants each wallet's events in order gets them so, whichever daemon sends them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::harness::{CHAIN, Node, Receiver, eventually, fleet::Fleet};

const WALLETS: usize = 6;
const ROUNDS: usize = 12;
/// In which of them a daemon is killed.
const KILLED_IN: usize = 5;
/// Of so many deliveries the receiver refuses one.
const REFUSED: usize = 7;

/// What came for each wallet, in the order of arrival: the event's number, and whether it was taken.
fn arrivals(seen: &[Value]) -> BTreeMap<String, Vec<(u64, bool)>> {
    let mut arrivals: BTreeMap<String, Vec<(u64, bool)>> = BTreeMap::new();
    for delivery in seen {
        assert!(delivery["error"].is_null(), "a signature was wrong: {delivery}");
        let event = &delivery["event"];
        let Some(wallet) = event["data"]["wallet"]["id"].as_str() else { continue };
        let taken = delivery["status"] == 204;
        arrivals
            .entry(wallet.to_owned())
            .or_default()
            .push((event["sequence"].as_u64().unwrap(), taken));
    }
    arrivals
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_dispatchers_keep_each_wallets_order_though_one_is_killed_and_the_receiver_fails() {
    let mut fleet = Fleet::start(3, 1, |_, settings| settings).await;
    let receiver = Receiver::start().await;
    let endpoint =
        json!({"url": receiver.url("hook"), "events": ["wallet.*", "deposit.*"], "ordered": true});
    let endpoint = fleet.apis[0].post("/v1/webhook-endpoints", &endpoint).await.ok();
    let control = json!({"secret": endpoint["secret"], "refuseEvery": REFUSED, "delayMs": 5});
    receiver.control("hook", &control).await;
    let mut wallets = Vec::new();
    for number in 0..WALLETS {
        let wallet = Node::stranger();
        fleet.apis[number % 3].watch(wallet).await;
        wallets.push(wallet);
    }
    let spared = fleet.leader(CHAIN).await;
    let killed = (spared + 1) % 3;
    for round in 0..ROUNDS {
        let node = &fleet.chains[0].node;
        let payments: Vec<_> = wallets.iter().map(|&wallet| node.minting(wallet, 1)).collect();
        node.block_with(&payments).await;
        if round == KILLED_IN {
            // Its sends in flight end with it, some of them taken and not recorded.
            fleet.daemons[killed].kill_9().await;
        }
    }
    fleet.daemons[killed].begin().await;
    fleet.chains[0].node.settle().await;
    fleet.settled(&fleet.apis[spared]).await;
    let history = fleet.history().await;
    let id = |event: &Value| event["id"].as_str().unwrap().to_owned();
    let told: BTreeSet<String> = history.iter().map(id).collect();
    eventually("every webhook", || async {
        let seen = receiver.seen("hook").await;
        let taken = seen.iter().filter(|delivery| delivery["status"] == 204);
        let taken: BTreeSet<String> = taken.map(|delivery| id(&delivery["event"])).collect();
        (taken == told).then_some(())
    })
    .await;

    let seen = receiver.seen("hook").await;
    let refused = seen.iter().filter(|delivery| delivery["status"] == 503).count();
    assert!(refused > WALLETS, "the receiver failed {refused} times");
    let mut unrecorded = 0;
    for (wallet, arrivals) in arrivals(&seen) {
        let (mut last, mut was_taken) = (0, true);
        for &(number, taken) in &arrivals {
            if number == last {
                unrecorded += usize::from(was_taken);
            } else {
                assert_eq!((number, was_taken), (last + 1, true), "{wallet}: {arrivals:?}");
            }
            (last, was_taken) = (number, taken);
        }
        assert!(was_taken);
    }
    // One in flight for each wallet, at the one that was killed.
    assert!(unrecorded <= WALLETS, "{unrecorded} came again though they were taken");
    eprintln!("{} deliveries, {refused} refused, {unrecorded} again", seen.len());
}
