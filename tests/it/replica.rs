//! API reads at a streaming standby: what it answers may be old, but belongs together, and nobody is sent away
//! because of it.

use std::time::Duration;

use alloy::primitives::{Address, U256};
use serde_json::{Value, json};

use crate::harness::{
    Api, Daemon, Node, Receiver, Server, Settings, Store, balance_in, eventually,
};

/// A primary, a standby, a daemon that reads at the standby, and one that does not know of it.
struct Pair {
    node: Node,
    primary: Server,
    standby: Server,
    daemon: Daemon,
    lagging: Api,
    direct: Api,
    _other: Daemon,
}

/// A daemon whose API reads go to the standby.
fn reading(node: &Node, store: &Store, standby: &Server, lag_limit: u32) -> Settings {
    let mut settings = Settings::new(node, store);
    let variable = |name: &str, value: String| (format!("TIDEMARK__DATABASE__{name}"), value);
    settings.environment.push(variable("READ_URL", standby.url("tidemark")));
    settings.environment.push(variable("READ_LAG_LIMIT_SECONDS", lag_limit.to_string()));
    settings
}

impl Pair {
    async fn start(lag_limit: u32) -> Self {
        let (node, primary) = (Node::start().await, Server::start().await);
        let store = primary.store("tidemark").await;
        let standby = primary.standby().await;
        let daemon = Daemon::start_with(reading(&node, &store, &standby, lag_limit)).await;
        let other = Daemon::start_with(Settings::new(&node, &store)).await;
        let lagging = daemon.customer("acme").await;
        let direct = Api::new(other.base(), lagging.key.clone());
        let pair = Self { node, primary, standby, daemon, lagging, direct, _other: other };
        pair.is_away(false).await;
        pair
    }

    async fn is_away(&self, away: bool) {
        let line = format!("tidemark_replica_away {}\n", u8::from(away));
        eventually(&line, || async { self.daemon.metrics().await.contains(&line).then_some(()) })
            .await;
    }

    /// What the standby gets it does not show from now on.
    async fn pause(&self) {
        // All that is there already is shown.
        let there = "SELECT pg_current_wal_lsn()::TEXT";
        let there = self.primary.text(there).await;
        eventually("the standby's replay", || async {
            let shown = format!("pg_last_wal_replay_lsn() >= '{there}'");
            self.standby.is(&shown).await.then_some(())
        })
        .await;
        self.standby.execute("postgres", "SELECT pg_wal_replay_pause()").await;
        eventually("the standby's pause", || async {
            self.standby.is("pg_get_wal_replay_pause_state() = 'paused'").await.then_some(())
        })
        .await;
    }

    async fn resume(&self) {
        self.standby.execute("postgres", "SELECT pg_wal_replay_resume()").await;
    }

    fn told(&self, what: &str) -> usize {
        self.daemon.log().matches(what).count()
    }
}

const GONE: &str = "the replica cannot be read";
const BACK: &str = "the replica answers";

async fn total(api: &Api, wallet: Address) -> U256 {
    api.balance(wallet, "DUSD").await.total
}

fn ids(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["id"].as_str().unwrap()).collect()
}

/// Goes on reading the feed behind what was read so far.
async fn read_on(api: &Api, seen: &mut Vec<Value>) {
    let after = seen.last().map(|event| format!("after={}", event["id"].as_str().unwrap()));
    let page = api.get(&format!("/v1/events?{}", after.unwrap_or_default())).await.ok();
    seen.extend(page["data"].as_array().unwrap().iter().cloned());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_lags_gives_balances_of_the_blocks_it_names_and_a_feed_without_gaps() {
    let pair = Pair::start(60).await;
    let Pair { node, lagging, direct, .. } = &pair;
    let mut seen = Vec::new();
    let wallet = Node::stranger();
    lagging.watch(wallet).await;
    node.mint(wallet, 10).await;
    let before = lagging.balances_at_head(wallet, node).await;
    assert_eq!(balance_in(&before, "DUSD").total, U256::from(10));
    read_on(lagging, &mut seen).await;
    assert!(
        pair.daemon.metrics().await.contains("tidemark_replica_reads_total{outcome=\"answered\"}")
    );

    pair.pause().await;
    node.mint(wallet, 5).await;
    node.settle().await;
    let new = direct.balances_settled(wallet, node).await;
    assert_eq!(balance_in(&new, "DUSD").available, U256::from(15));
    let old = lagging.balances(wallet).await;
    assert_eq!(old["balances"], before["balances"], "what was there at the block that it names");
    assert_eq!(old["asOf"][0]["head"], before["asOf"][0]["head"]);
    assert_eq!(old["asOf"][0]["settled"], before["asOf"][0]["settled"]);
    let lag = |balances: &Value| balances["asOf"][0]["lagSeconds"].as_f64().unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let older = lagging.balances(wallet).await;
    assert!(lag(&older) >= lag(&old) + 1.0, "it says how old it is");
    assert_eq!(lagging.transfers(wallet).await.len(), 1);
    assert_eq!(direct.transfers(wallet).await.len(), 2);
    let chains = lagging.get("/v1/chains").await.ok();
    assert_eq!(chains["data"][0]["head"], before["asOf"][0]["head"]);

    // What the replica does not know is asked of the primary: a wallet just made, an event that came by webhook.
    let young = lagging.register(Node::stranger()).await;
    let path = format!("/v1/wallets/{}", young["id"].as_str().unwrap());
    assert_eq!(lagging.get(&path).await.ok()["id"], young["id"]);
    let known = seen.len();
    read_on(lagging, &mut seen).await;
    assert_eq!(seen.len(), known, "nothing new is there yet");
    read_on(direct, &mut seen).await;
    assert!(seen.len() > known);
    read_on(lagging, &mut seen).await;
    let newest = seen.last().unwrap()["id"].as_str().unwrap();
    let other = if newest.ends_with('0') { '1' } else { '0' };
    let nobodys = format!("/v1/events?after={}{other}", &newest[..newest.len() - 1]);
    lagging.get(&nobodys).await.is_error(400, "invalid_request");
    assert!(
        pair.daemon.metrics().await.contains("tidemark_replica_reads_total{outcome=\"repeated\"}")
    );

    pair.resume().await;
    node.mint(wallet, 7).await;
    let last = lagging.balances_at_head(wallet, node).await;
    assert_eq!(balance_in(&last, "DUSD").total, U256::from(22));
    eventually("the whole feed", || async {
        let (here, there) = (lagging.events().await, direct.events().await);
        (ids(&here) == ids(&there)).then_some(())
    })
    .await;
    read_on(lagging, &mut seen).await;
    read_on(direct, &mut seen).await;
    assert_eq!(ids(&seen), ids(&direct.events().await), "each event once, in order");
    assert_eq!(pair.told(GONE), 0, "{}", pair.daemon.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_go_on_at_the_primary_while_the_replica_is_gone() {
    let mut pair = Pair::start(60).await;
    let wallet = Node::stranger();
    pair.lagging.watch(wallet).await;
    pair.node.mint(wallet, 10).await;
    pair.lagging.balances_at_head(wallet, &pair.node).await;
    assert_eq!((pair.told(BACK), pair.told(GONE)), (1, 0));

    let reads = tokio::spawn({
        let api = pair.lagging.clone();
        async move {
            for _ in 0..400 {
                assert_eq!(total(&api, wallet).await, U256::from(10));
                api.get("/v1/events").await.ok();
                api.get(&format!("/v1/wallets/{wallet}/transfers")).await.ok();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    pair.standby.kill().await;
    reads.await.expect("each read has its answer");
    pair.is_away(true).await;
    assert_eq!(pair.told(GONE), 1, "one line says so: {}", pair.daemon.log());
    assert_eq!(pair.daemon.readiness().await, 200);
    pair.node.mint(wallet, 5).await;
    pair.lagging.balances_at_head(wallet, &pair.node).await;

    // The daemon begins without its replica as well, and finds it when it is there.
    pair.daemon.terminate().await;
    pair.daemon.begin().await;
    pair.daemon.ready().await;
    assert_eq!(total(&pair.lagging, wallet).await, U256::from(15));
    eventually("a word", || async { (pair.told(GONE) == 2).then_some(()) }).await;
    pair.standby.begin().await;
    pair.is_away(false).await;
    assert_eq!((pair.told(BACK), pair.told(GONE)), (2, 2), "{}", pair.daemon.log());
    pair.node.mint(wallet, 1).await;
    let balances = pair.lagging.balances_at_head(wallet, &pair.node).await;
    assert_eq!(balance_in(&balances, "DUSD").total, U256::from(16));
    pair.daemon.terminate().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_too_far_behind_is_not_read() {
    let pair = Pair::start(2).await;
    let wallet = Node::stranger();
    pair.lagging.watch(wallet).await;
    pair.pause().await;
    pair.node.mint(wallet, 10).await;
    let head = json!(pair.node.head_hash().await);
    let new = pair.direct.balances_at_head(wallet, &pair.node).await;
    assert_ne!(pair.lagging.balances(wallet).await["asOf"][0]["head"]["hash"], head);
    pair.is_away(true).await;
    let balances = pair.lagging.balances(wallet).await;
    assert_eq!(balances["balances"], new["balances"]);
    assert_eq!(balances["asOf"][0]["head"]["hash"], head);
    assert_eq!(pair.told("behind, the limit is 2 s"), 1, "{}", pair.daemon.log());
    pair.resume().await;
    pair.is_away(false).await;
    assert_eq!(total(&pair.lagging, wallet).await, U256::from(10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webhooks_and_writes_do_not_wait_for_the_replica() {
    let pair = Pair::start(60).await;
    let receiver = Receiver::start().await;
    let wallet = Node::stranger();
    pair.lagging.watch(wallet).await;
    pair.pause().await;
    let endpoint = receiver.subscribe(&pair.lagging, "hook", &["deposit.*"]).await;
    let path = format!("/v1/webhook-endpoints/{}", endpoint["id"].as_str().unwrap());
    assert_eq!(pair.lagging.get(&path).await.ok()["id"], endpoint["id"]);
    let deposit = pair.node.mint(wallet, 10).await;
    receiver.event_of("hook", "deposit.pending", &deposit.transaction_hash.to_string()).await;
    let deliveries = pair.lagging.get(&format!("{path}/deliveries")).await.ok();
    assert_eq!(deliveries["data"].as_array().unwrap().len(), 1);
    let changes = json!({"nickname": "new"});
    let path = format!("/v1/wallets/{wallet}");
    let request = pair.lagging.request(reqwest::Method::PATCH, &path).json(&changes);
    assert_eq!(pair.lagging.send(request).await.ok()["nickname"], "new");
}
