//! The daemon while its PostgreSQL changes hands, as Patroni does it: in good order, and because a machine is gone.
//! It takes minutes and programs that not every machine has: `tests/failover` runs it.

mod patroni;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use alloy::primitives::{Address, U256};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::sleep;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use self::patroni::{Cluster, commits};
use crate::harness::{Api, Daemon, Node, Receiver, Settings, Store, balance_in, client};

/// What the ledger may take to be where the chain is, once there is a store.
const PATIENCE: Duration = Duration::from_secs(90);
const PAUSE: Duration = Duration::from_millis(50);

/// A block every moment with a deposit in it, and a new wallet with every fourth.
struct Load {
    wallets: Arc<Mutex<Vec<Address>>>,
    blocks: Arc<Mutex<u64>>,
    stop: CancellationToken,
    task: AbortOnDropHandle<()>,
}

impl Load {
    fn begin(node: Arc<Node>, apis: Vec<Api>) -> Self {
        let (wallets, blocks) =
            (Arc::<Mutex<Vec<Address>>>::default(), Arc::<Mutex<u64>>::default());
        let stop = CancellationToken::new();
        let task = tokio::spawn({
            let (wallets, blocks, stop) = (Arc::clone(&wallets), Arc::clone(&blocks), stop.clone());
            async move {
                let mut registering = None;
                for step in 0_usize.. {
                    if stop.is_cancelled() {
                        break;
                    }
                    if step % 4 == 0
                        && registering.as_ref().is_none_or(AbortOnDropHandle::is_finished)
                    {
                        let (api, wallets) =
                            (apis[step / 4 % apis.len()].clone(), Arc::clone(&wallets));
                        registering = Some(AbortOnDropHandle::new(tokio::spawn(async move {
                            let wallet = Node::stranger();
                            register(&api, wallet).await;
                            wallets.lock().push(wallet);
                        })));
                    }
                    let wallet = {
                        let wallets = wallets.lock();
                        (!wallets.is_empty()).then(|| wallets[step % wallets.len()])
                    };
                    node.mint(wallet.unwrap_or_else(Node::stranger), 1 + step as u64 % 7).await;
                    *blocks.lock() += 1;
                    sleep(PAUSE).await;
                }
                if let Some(registering) = registering {
                    registering.await.unwrap();
                }
            }
        });
        Self { wallets, blocks, stop, task: AbortOnDropHandle::new(task) }
    }

    /// The wallets whose registration was acknowledged.
    async fn end(self) -> Vec<Address> {
        self.stop.cancel();
        self.task.await.unwrap();
        self.wallets.lock().clone()
    }
}

/// Until it is acknowledged, as a customer would: with one key.
async fn register(api: &Api, wallet: Address) {
    let body = json!({"address": wallet.to_string(), "chains": [crate::harness::CHAIN]});
    let key = format!("register-{wallet}-{:x}", rand::random::<u64>());
    while !api.post_as(&key, "/v1/wallets", &body).await.status.is_success() {
        sleep(PAUSE).await;
    }
}

/// The longest time without something.
#[derive(Clone, Default)]
struct Gap(Arc<Mutex<(Option<Instant>, Duration)>>);

impl Gap {
    fn there(&self) {
        let mut gap = self.0.lock();
        let now = Instant::now();
        if let Some(last) = gap.0.replace(now) {
            gap.1 = gap.1.max(now - last);
        }
    }

    /// The longest one since this was asked last.
    fn longest(&self) -> Duration {
        std::mem::take(&mut self.0.lock().1)
    }
}

struct World {
    cluster: Cluster,
    node: Arc<Node>,
    daemons: Vec<Daemon>,
    apis: Vec<Api>,
    receiver: Receiver,
}

fn applied(metrics: &str) -> u64 {
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix("tidemark_chain_applied_block{chain=\"local\"} "));
    line.and_then(|number| number.parse().ok()).unwrap_or(0)
}

impl World {
    async fn start(synchronous: bool) -> Self {
        let cluster = Cluster::start(synchronous).await;
        cluster.execute("postgres", "CREATE DATABASE tidemark").await;
        let node = Arc::new(Node::start().await);
        let store = Store::Postgres { url: cluster.url() };
        let mut daemons = Vec::new();
        for _ in 0..2 {
            let mut settings = Settings::new(&node, &store);
            let set = |name: &str, value: String| (format!("TIDEMARK__{name}"), value);
            settings.environment.extend([
                set("DATABASE__READ_URL", cluster.read_url()),
                set("SERVER__REQUEST_TIMEOUT_SECONDS", "5".to_owned()),
            ]);
            daemons.push(Daemon::start_with(settings).await);
        }
        let first = daemons[0].customer("acme").await;
        let apis = daemons.iter().map(|daemon| Api::new(daemon.base(), first.key.clone()));
        let apis: Vec<Api> = apis.collect();
        let receiver = Receiver::start().await;
        receiver.subscribe(&apis[0], "hook", &["*"]).await;
        cluster
            .execute("tidemark", "CREATE TABLE probe (no BIGINT GENERATED ALWAYS AS IDENTITY)")
            .await;
        Self { cluster, node, daemons, apis, receiver }
    }

    /// Moves the database to the other server twice under load, and tells what that took.
    async fn run(&mut self) -> Vec<Address> {
        let load = Load::begin(Arc::clone(&self.node), self.apis.clone());
        let (store, ledger) = (Gap::default(), Gap::default());
        let _probes = [
            AbortOnDropHandle::new(tokio::spawn({
                let (url, store) = (self.cluster.url(), store.clone());
                async move {
                    loop {
                        if commits(&url).await {
                            store.there();
                        }
                        sleep(PAUSE).await;
                    }
                }
            })),
            AbortOnDropHandle::new(tokio::spawn({
                let urls: Vec<String> =
                    self.daemons.iter().map(|daemon| daemon.base() + "/metrics").collect();
                let ledger = ledger.clone();
                async move {
                    let client = client();
                    let mut newest = 0;
                    loop {
                        for url in &urls {
                            let answer = client.get(url).send().await.expect("the daemon lives");
                            let number = applied(&answer.text().await.unwrap());
                            if number > newest {
                                newest = number;
                                ledger.there();
                            }
                        }
                        sleep(PAUSE).await;
                    }
                }
            })),
        ];
        sleep(Duration::from_secs(4)).await;
        let tell = |what: &str| {
            let (store, ledger) = (store.longest().as_secs_f64(), ledger.longest().as_secs_f64());
            eprintln!(
                "{what}: no commit for {store:.1} s, no block in the ledger for {ledger:.1} s"
            );
        };
        tell("before");
        self.cluster.switch_over().await;
        self.cluster.is_whole().await;
        self.keeps_up(&load).await;
        tell("switchover");
        sleep(Duration::from_secs(2)).await;
        self.cluster.kill_leader(sleep(Duration::from_secs(3))).await;
        self.keeps_up(&load).await;
        tell("kill of the primary");
        self.cluster.bring_back().await;
        self.keeps_up(&load).await;
        tell("return of the other one");
        let blocks = *load.blocks.lock();
        let wallets = load.end().await;
        eprintln!("{blocks} blocks, {} wallets", wallets.len());
        wallets
    }

    /// The ledger has a block that was made from now on.
    async fn keeps_up(&self, load: &Load) {
        let (started, made) = (Instant::now(), *load.blocks.lock());
        let head = self.node.head().await.unwrap().number.to::<u64>();
        loop {
            for daemon in &self.daemons {
                if applied(&daemon.metrics().await) > head {
                    return;
                }
            }
            assert!(started.elapsed() < PATIENCE, "the ledger stands still since {made} blocks");
            sleep(PAUSE).await;
        }
    }

    /// Says which of the wallets are not there (any more).
    async fn missing(&self, wallets: &[Address]) -> Vec<Address> {
        let mut missing = Vec::new();
        for &wallet in wallets {
            let answer = self.apis[0].get(&format!("/v1/wallets/{wallet}")).await;
            match answer.status.as_u16() {
                200 => {}
                404 => missing.push(wallet),
                other => panic!("{other}: {}", answer.body),
            }
        }
        missing
    }

    /// Every balance is the chain's, at both daemons, and the books are right.
    async fn is_exact(&self, wallets: &[Address]) {
        self.node.settle().await;
        for api in &self.apis {
            for &wallet in wallets {
                let there = self.node.token_balance(wallet).await;
                let balances = api.balances_settled(wallet, &self.node).await;
                let balance = balance_in(&balances, "DUSD");
                assert_eq!((balance.available, balance.pending), (there, U256::ZERO), "{wallet}");
            }
        }
        for daemon in &self.daemons {
            daemon.audit().await;
            assert!(daemon.metrics().await.contains("tidemark_task_failures_total 0"));
        }
    }

    /// The feed, in which each event is once, and what came by webhook.
    async fn told(&self) -> (Vec<Value>, Vec<Value>) {
        let feed = self.apis[0].events().await;
        let ids: BTreeSet<&str> = feed.iter().map(id).collect();
        assert_eq!(ids.len(), feed.len(), "each event once");
        // What was told last is on its way.
        let started = Instant::now();
        loop {
            let came = self.receiver.events("hook").await;
            let there: BTreeSet<&str> = came.iter().map(id).collect();
            if ids.is_subset(&there) {
                eprintln!("{} events in the feed, {} deliveries", feed.len(), came.len());
                return (feed, came);
            }
            assert!(started.elapsed() < PATIENCE, "{} webhooks of {}", there.len(), ids.len());
            sleep(PAUSE).await;
        }
    }
}

fn id(event: &Value) -> &str {
    event["id"].as_str().unwrap()
}

/// The ids under which each deposit was told, by type, transaction and wallet's address.
fn deposits<'a>(
    events: impl IntoIterator<Item = &'a Value>,
) -> BTreeMap<(&'a str, &'a str, &'a str), BTreeSet<&'a str>> {
    let mut deposits = BTreeMap::<_, BTreeSet<&str>>::new();
    for event in events {
        let kind = event["type"].as_str().unwrap();
        let Some(tx) = event["data"]["transfer"]["txHash"].as_str() else { continue };
        let wallet = event["data"]["wallet"]["address"].as_str().unwrap();
        deposits.entry((kind, tx, wallet)).or_default().insert(id(event));
    }
    deposits
}

#[cfg_attr(feature = "failover", tokio::test(flavor = "multi_thread", worker_threads = 2))]
async fn with_a_synchronous_standby_no_acknowledged_event_is_lost() {
    let mut world = World::start(true).await;
    let wallets = world.run().await;
    assert!(world.missing(&wallets).await.is_empty(), "an acknowledged registration is lost");
    world.is_exact(&wallets).await;
    let (feed, came) = world.told().await;
    let in_feed: BTreeSet<&str> = feed.iter().map(id).collect();
    for event in &came {
        assert!(in_feed.contains(id(event)), "told by webhook, and not in the feed: {event}");
    }
    for (deposit, ids) in deposits(feed.iter().chain(&came)) {
        assert_eq!(ids.len(), 1, "{deposit:?}: {ids:?}");
    }
}

#[cfg_attr(feature = "failover", tokio::test(flavor = "multi_thread", worker_threads = 2))]
async fn with_an_asynchronous_standby_what_is_told_again_has_its_old_id() {
    let mut world = World::start(false).await;
    let wallets = world.run().await;
    // What was committed last is gone with the machine: its customers have to register again.
    let missing = world.missing(&wallets).await;
    for &wallet in &missing {
        register(&world.apis[0], wallet).await;
        world.apis[0].active(wallet).await;
    }
    world.is_exact(&wallets).await;
    let (feed, came) = world.told().await;
    let in_feed: BTreeSet<&str> = feed.iter().map(id).collect();
    let lost = came.iter().filter(|event| !in_feed.contains(id(event)));
    let lost: Vec<&Value> = lost.collect();
    eprintln!("{} registrations were lost, and {} events", missing.len(), lost.len());
    assert!(!lost.is_empty(), "nothing was lost: the test has not shown anything");
    // A wallet of that moment begins anew: what it was paid before is in its opening balance.
    let address = |event: &Value| event["data"]["wallet"]["address"].as_str().unwrap().to_owned();
    let begun_anew =
        lost.iter().filter(|event| event["type"].as_str().unwrap().starts_with("wallet."));
    let begun_anew: BTreeSet<String> = begun_anew.map(|event| address(event)).collect();
    for event in &lost {
        assert!(
            begun_anew.contains(&address(event)),
            "of a wallet that was there all the time: {event}"
        );
    }
    for (deposit, ids) in deposits(feed.iter().chain(&came)) {
        assert_eq!(ids.len(), 1, "{deposit:?}: {ids:?}");
    }
}
