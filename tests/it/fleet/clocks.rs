//! Daemons whose clocks are ten and twenty minutes apart: nobody sees a difference.

use std::time::{Duration, Instant};

use alloy::primitives::{Address, hex};
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use tidemark::clock::{Clock, Millis};

use crate::harness::{
    Api, CHAIN, Node, Receiver, Settings,
    clock::wrong_by,
    eventually,
    fleet::{Fleet, LEASE, SLACK, leads},
};

const FAST: i64 = 600;
/// By how many seconds each daemon's clock is wrong.
const WRONG: [i64; 3] = [0, FAST, -FAST];
/// What a webhook may take after its block, with a refusal and a second try on the way.
const ON_TIME: Duration = Duration::from_secs(8);
/// A webhook's lease: what a send may take, and the margin.
const SENDING: Duration = Duration::from_secs(5 + 5);
/// How exactly times are told.
const TOLERANCE: Duration = Duration::from_secs(2);
const DAY: Duration = Duration::from_hours(24);
/// Less than the clocks are wrong.
const SHORT: Duration = Duration::from_mins(5);

async fn apart() -> Fleet {
    let own = |index: usize, settings: Settings| match WRONG[index] {
        0 => settings,
        seconds => Settings { environment: wrong_by(seconds), ..settings },
    };
    let fleet = Fleet::start(WRONG.len(), 1, own).await;
    for (daemon, wrong) in fleet.daemons.iter().zip(WRONG) {
        let log = daemon.log();
        let line: Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
        let said: jiff::Timestamp = line["timestamp"].as_str().unwrap().parse().unwrap();
        let off = said.as_second() - Clock::System.now().seconds();
        assert!((off - wrong).abs() < 60, "a clock is wrong by {off} seconds, not {wrong}");
    }
    fleet
}

impl Fleet {
    /// Makes one daemon the one that follows: the others come back when it does.
    async fn let_follow(&mut self, at: usize) {
        let others: Vec<usize> = (0..self.daemons.len()).filter(|&other| other != at).collect();
        for &other in &others {
            self.daemons[other].terminate().await;
        }
        let begun = Instant::now();
        let daemon = &self.daemons[at];
        eventually("the next one", || async { leads(daemon, CHAIN).await.then_some(()) }).await;
        assert!(begun.elapsed() < LEASE + SLACK, "{:?}", begun.elapsed());
        for &other in &others {
            self.daemons[other].begin().await;
        }
    }

    /// One daemon alone, begun anew.
    async fn only(&mut self, at: usize) {
        for daemon in &mut self.daemons {
            if daemon.runs() {
                daemon.terminate().await;
            }
        }
        self.daemons[at].begin().await;
    }

    async fn database(&self) -> PgConnection {
        PgConnection::connect(&self.store.url()).await.unwrap()
    }
}

fn millis(event: &Value) -> i64 {
    let time: jiff::Timestamp = event["timestamp"].as_str().unwrap().parse().unwrap();
    time.as_millisecond()
}

/// Waits for the webhook of a deposit, which must come in time.
async fn comes(receiver: &Receiver, kind: &str, transaction: &str, within: Duration) {
    let begun = Instant::now();
    receiver.event_of("hook", kind, transaction).await;
    assert!(begun.elapsed() < within, "{kind} after {:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn daemons_whose_clocks_are_ten_minutes_apart_tell_one_history_in_order_and_on_time() {
    let begun = Clock::System.now();
    let mut fleet = apart().await;
    let receiver = Receiver::start().await;
    let endpoint = json!({"url": receiver.url("hook"), "events": ["deposit.*"], "ordered": true});
    let endpoint = fleet.apis[0].post("/v1/webhook-endpoints", &endpoint).await.ok();
    let control = json!({"secret": endpoint["secret"], "refuseEvery": 5});
    receiver.control("hook", &control).await;
    let mut wallets: Vec<Address> = Vec::new();
    for following in 0..WRONG.len() {
        fleet.let_follow(following).await;
        for api in &fleet.apis {
            let wallet = Node::stranger();
            api.watch(wallet).await;
            wallets.push(wallet);
        }
        let node = &fleet.chains[0].node;
        let payments: Vec<_> = wallets.iter().map(|&wallet| node.minting(wallet, 1)).collect();
        let receipts = node.block_with(&payments).await;
        for receipt in &receipts {
            comes(&receiver, "deposit.pending", &receipt.transaction_hash.to_string(), ON_TIME)
                .await;
        }
        node.settle().await;
        for receipt in receipts {
            comes(&receiver, "deposit.available", &receipt.transaction_hash.to_string(), ON_TIME)
                .await;
        }
    }

    // Taken slowly, so that one who believes a lease to be over would send it again meanwhile.
    receiver.control("hook", &json!({"refuseEvery": 0, "delayMs": 2_500})).await;
    let node = &fleet.chains[0].node;
    let slow = node.mint(wallets[0], 1).await.transaction_hash.to_string();
    comes(&receiver, "deposit.pending", &slow, ON_TIME).await;
    node.settle().await;
    comes(&receiver, "deposit.available", &slow, ON_TIME).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    receiver.control("hook", &json!({"delayMs": 0})).await;

    for api in &fleet.apis {
        fleet.settled(api).await;
    }
    let history = fleet.history().await;
    let mut earlier = begun;
    for event in &history {
        let told = Millis(millis(event));
        assert!(told.plus(TOLERANCE).0 >= earlier.0, "before the one before it: {event:#}");
        assert!(told.0 <= Clock::System.now().plus(TOLERANCE).0, "in the future: {event:#}");
        earlier = Millis(earlier.0.max(told.0));
    }
    let seen = receiver.seen("hook").await;
    let mut taken: Vec<(&str, u64, &str)> = seen
        .iter()
        .filter(|delivery| delivery["status"] == 204)
        .map(|delivery| {
            let event = &delivery["event"];
            let wallet = event["data"]["wallet"]["id"].as_str().unwrap();
            (wallet, event["sequence"].as_u64().unwrap(), event["id"].as_str().unwrap())
        })
        .collect();
    taken.sort_by_key(|(wallet, ..)| *wallet);
    for pair in taken.windows(2) {
        let ordered = pair[0].0 != pair[1].0 || pair[0].1 < pair[1].1;
        assert!(ordered, "again, or out of order: {pair:?}");
    }
    let deposits =
        history.iter().filter(|event| event["type"].as_str().unwrap().starts_with("deposit"));
    assert_eq!(taken.len(), deposits.count());
    for &wallet in &wallets {
        let tokens = fleet.apis[2].balance(wallet, "DUSD").await.available;
        assert_eq!(tokens, node.token_balance(wallet).await);
    }
    fleet.one_followed_at_a_time().await;
    fleet.audit().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_daemon_with_a_fast_clock_was_sending_when_it_was_killed_is_not_late() {
    let mut fleet = apart().await;
    let receiver = Receiver::start().await;
    receiver.subscribe(&fleet.apis[0], "hook", &["deposit.pending"]).await;
    let wallet = Node::stranger();
    fleet.apis[0].watch(wallet).await;
    fleet.only(1).await;
    receiver.control("hook", &json!({"delayMs": 4_000})).await;
    let node = &fleet.chains[0].node;
    let transaction = node.mint(wallet, 1).await.transaction_hash.to_string();
    receiver.event_of("hook", "deposit.pending", &transaction).await;
    fleet.daemons[1].kill_9().await;
    receiver.control("hook", &json!({"delayMs": 0})).await;
    let killed = Instant::now();
    fleet.daemons[0].begin().await;
    eventually("the second try", || async {
        (receiver.seen("hook").await.len() == 2).then_some(())
    })
    .await;
    assert!(killed.elapsed() < SENDING + SLACK, "{:?}", killed.elapsed());
}

/// Makes an answer that was kept under a key so old.
async fn age(database: &mut PgConnection, key: &str, age: Duration) {
    let created = Clock::System.now().minus(age).0;
    let aged = sqlx::query("UPDATE idempotency_key SET created_at = $2 WHERE key = $1")
        .bind(key)
        .bind(created)
        .execute(database)
        .await
        .unwrap();
    assert_eq!(aged.rows_affected(), 1);
}

async fn kept(database: &mut PgConnection, key: &str) -> bool {
    let sql = "SELECT EXISTS (SELECT FROM idempotency_key WHERE key = $1)";
    sqlx::query_scalar(sql).bind(key).fetch_one(database).await.unwrap()
}

/// Registers an address under a key; the wallet's id.
async fn register(api: &Api, key: &str, address: Address) -> String {
    let body = json!({"address": address, "chains": [CHAIN]});
    let wallet = api.post_as(key, "/v1/wallets", &body).await.ok();
    wallet["id"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_answers_of_repeated_requests_are_kept_exactly_as_long_whatever_the_clocks_say() {
    let mut fleet = apart().await;
    let mut database = fleet.database().await;
    for (index, key) in ["true", "fast", "slow"].into_iter().enumerate() {
        let address = Node::stranger();
        let first = register(&fleet.apis[index], key, address).await;
        for api in &fleet.apis {
            assert_eq!(register(api, key, address).await, first, "the same answer at each");
        }
        let created: i64 =
            sqlx::query_scalar("SELECT created_at FROM idempotency_key WHERE key = $1")
                .bind(key)
                .fetch_one(&mut database)
                .await
                .unwrap();
        let off = Duration::from_millis(created.abs_diff(Clock::System.now().0));
        assert!(off < TOLERANCE, "{key}: off by {off:?}");
    }
    for at in [1, 2] {
        age(&mut database, "true", DAY.checked_sub(SHORT).unwrap()).await;
        age(&mut database, "fast", DAY + SHORT).await;
        fleet.only(at).await;
        eventually("what is past its time to go", || async {
            let mut database = fleet.database().await;
            (!kept(&mut database, "fast").await).then_some(())
        })
        .await;
        assert!(kept(&mut database, "true").await, "deleted five minutes early");
        register(&fleet.apis[at], "fast", Node::stranger()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_challenge_lasts_as_long_at_every_daemon_whatever_its_clock_says() {
    let fleet = apart().await;
    let node = &fleet.chains[0].node;
    for created_at in 0..WRONG.len() {
        for met_at in 0..WRONG.len() {
            let owner = node.accounts[met_at];
            let body = json!({
                "address": owner, "chain": CHAIN, "domain": "app.example",
                "expiresInSeconds": SHORT.as_secs(),
            });
            let api = &fleet.apis[created_at];
            let challenge = api.post("/v1/ownership/challenges", &body).await.ok();
            let message = hex::encode_prefixed(challenge["message"].as_str().unwrap());
            let signature: Value =
                node.call("personal_sign", json!([message, owner])).await.unwrap();
            let path =
                format!("/v1/ownership/challenges/{}/verify", challenge["id"].as_str().unwrap());
            fleet.apis[met_at].post(&path, &json!({"signature": signature})).await.ok();
        }
    }
}
