//! Daemons that are killed, put to sleep and stopped at random, while wallets are registered and paid.
//!
//! `TIDEMARK_FLEET_STEPS=200 tests/run --test it fleet::random` does more of it, and `TIDEMARK_FLEET_SEED` chooses as
//! a run before did.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    time::{Duration, Instant},
};

use alloy::primitives::{Address, U256};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use reqwest::Method;
use serde_json::{Value, json};
use tidemark::dev::anvil::Request;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::harness::{
    Api, Daemon, Node, Receiver, balance_in, eventually,
    fleet::{Chain, Fleet, LEASE},
};

const STEPS: u64 = 25;
/// How long a daemon may take to answer a registration before another one is asked.
const ASKING: Duration = Duration::from_secs(2);
/// Until some daemon has taken a registration: longer than all of them can sleep.
const REGISTERED_WITHIN: Duration = Duration::from_secs(90);
/// More than a transaction's fee, in wei.
const COINS: u64 = 10_000_000_000_000_000;

fn of_environment(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// Money that went to a registered address.
struct Deposit {
    wallet: Address,
    transaction: String,
    block: u64,
}

/// Registers and pays until it is told to stop.
struct Traffic<'fleet> {
    chains: &'fleet [Chain],
    apis: &'fleet [Api],
    random: StdRng,
    /// By the number of their chain.
    wallets: Vec<Vec<Address>>,
    deposits: Vec<Deposit>,
    asked_again: u32,
}

impl Traffic<'_> {
    async fn go_on(&mut self, stop: &CancellationToken) {
        while !stop.is_cancelled() {
            let at = self.random.random_range(0..self.chains.len());
            if self.wallets[at].is_empty() || self.random.random_range(0..5) == 0 {
                self.register(at).await;
            }
            self.pay(at).await;
            sleep(Duration::from_millis(self.random.random_range(0..150))).await;
        }
    }

    /// Through any daemon; through any other, with the same key, while one does not answer.
    async fn register(&mut self, at: usize) {
        let Chain { name, node } = &self.chains[at];
        let address = Node::stranger();
        node.impersonate(address).await.unwrap();
        let body = json!({"address": address, "chains": [name]});
        let key = address.to_string();
        let begun = Instant::now();
        loop {
            let api = &self.apis[self.random.random_range(0..self.apis.len())];
            let request = api.request(Method::POST, "/v1/wallets");
            let request = request.header("X-API-Key", &api.key).header("Idempotency-Key", &key);
            match request.timeout(ASKING).json(&body).send().await {
                Ok(response) if response.status().is_success() => break,
                Ok(response) if [409, 503].contains(&response.status().as_u16()) => {}
                Ok(response) => panic!("{}: {:?}", response.status(), response.text().await),
                Err(_) => {}
            }
            assert!(begun.elapsed() < REGISTERED_WITHIN, "nobody registers {address}");
            self.asked_again += 1;
            sleep(Duration::from_millis(50)).await;
        }
        self.wallets[at].push(address);
    }

    /// One block with money in it: new, from somewhere else, or from one wallet to another.
    async fn pay(&mut self, at: usize) {
        let node = &self.chains[at].node;
        let wallets = &self.wallets[at];
        let [from, to] = [0, 0].map(|_| wallets[self.random.random_range(0..wallets.len())]);
        let amount = self.random.random_range(1..1_000_000);
        let request = match self.random.random_range(0..8) {
            0 | 1 => Request::pay(node.accounts[0], to, U256::from(COINS + amount)),
            2 | 3 if from != to && self.can_send(at, from, amount).await => {
                node.token_transfer(from, to, amount)
            }
            _ => node.minting(to, amount),
        };
        let receipt = node.block_with(&[request]).await.remove(0);
        let transaction = receipt.transaction_hash.to_string();
        self.deposits.push(Deposit { wallet: to, transaction, block: receipt.block_number.to() });
    }

    async fn can_send(&self, at: usize, from: Address, amount: u64) -> bool {
        let node = &self.chains[at].node;
        node.token_balance(from).await >= U256::from(amount)
            && node.balance(from).await.unwrap() >= U256::from(COINS / 2)
    }
}

/// What a daemon is doing, and until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Runs,
    Sleeps(Instant),
    Gone(Instant),
}

/// Disturbs them so many times; in the end all of them run.
async fn disturb(daemons: &mut [Daemon], random: &mut StdRng, steps: u64) {
    let mut states = vec![State::Runs; daemons.len()];
    let pause = |random: &mut StdRng, longest: Duration| {
        Duration::from_millis(random.random_range(0..u64::try_from(longest.as_millis()).unwrap()))
    };
    let mut step = 0;
    while step < steps {
        sleep(pause(random, LEASE)).await;
        restore(daemons, &mut states, |until| until <= Instant::now()).await;
        let running: Vec<usize> =
            (0..daemons.len()).filter(|&at| states[at] == State::Runs).collect();
        if running.is_empty() {
            continue;
        }
        step += 1;
        let at = running[random.random_range(0..running.len())];
        let now = Instant::now();
        let what = match random.random_range(0..3) {
            0 => {
                daemons[at].kill_9().await;
                states[at] = State::Gone(now + pause(random, LEASE * 2));
                "kill -9"
            }
            1 => {
                daemons[at].sleep().await;
                states[at] = State::Sleeps(now + pause(random, LEASE * 3));
                "SIGSTOP"
            }
            _ => {
                daemons[at].terminate().await;
                states[at] = State::Gone(now + pause(random, LEASE));
                "SIGTERM"
            }
        };
        eprintln!("step {step}: {what} for daemon {at}");
    }
    restore(daemons, &mut states, |_| true).await;
}

/// Those that slept or were gone until a time that is over run again.
async fn restore(daemons: &mut [Daemon], states: &mut [State], over: impl Fn(Instant) -> bool) {
    for (daemon, state) in daemons.iter_mut().zip(states) {
        match *state {
            State::Sleeps(until) if over(until) => daemon.wake().await,
            State::Gone(until) if over(until) => daemon.begin().await,
            _ => continue,
        }
        *state = State::Runs;
    }
}

/// Every deposit after its wallet's opening was told exactly once as available, and no other one.
fn each_was_told_once(history: &[Value], deposits: &[Deposit]) {
    let mut opened = BTreeMap::new();
    let mut told = BTreeMap::<(&str, &str, &str), usize>::new();
    for event in history {
        let data = &event["data"];
        let kind = event["type"].as_str().unwrap();
        let wallet = data["wallet"]["address"].as_str().unwrap_or_default();
        if kind == "wallet.activated" {
            let again = opened.insert(wallet, data["block"]["number"].as_u64().unwrap());
            assert_eq!(again, None, "{wallet} was opened twice");
        } else if kind.starts_with("deposit.") {
            let transaction = data["transfer"]["txHash"].as_str().unwrap();
            *told.entry((wallet, transaction, kind)).or_default() += 1;
        }
    }
    let mut expected = 0;
    for Deposit { wallet, transaction, block } in deposits {
        let wallet = wallet.to_string();
        let count = |kind| {
            told.get(&(wallet.as_str(), transaction.as_str(), kind)).copied().unwrap_or_default()
        };
        let counts = *block > opened[wallet.as_str()];
        assert_eq!(count("deposit.available"), usize::from(counts), "{transaction} to {wallet}");
        assert!(count("deposit.pending") <= usize::from(counts), "{transaction} to {wallet}");
        expected += usize::from(counts);
    }
    let available = told.keys().filter(|(.., kind)| *kind == "deposit.available").count();
    assert_eq!(available, expected, "nothing else was told");
    assert!(!told.keys().any(|(.., kind)| *kind == "deposit.orphaned"), "nothing was taken back");
    eprintln!("{} deposits, {expected} of them after their wallet's opening", deposits.len());
}

/// Everything that was told of deposits has come, with a right signature.
async fn all_were_delivered(receiver: &Receiver, history: &[Value]) {
    let deposits =
        history.iter().filter(|event| event["type"].as_str().unwrap().starts_with("deposit."));
    let id = |event: &Value| event["id"].as_str().unwrap().to_owned();
    let told: BTreeSet<String> = deposits.map(id).collect();
    eventually("every webhook", || async {
        let came: BTreeSet<String> = receiver.events("hook").await.iter().map(id).collect();
        (came == told).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_daemons_that_are_killed_and_put_to_sleep_at_random_keep_one_exact_history() {
    let steps = of_environment("TIDEMARK_FLEET_STEPS").unwrap_or(STEPS);
    let seed = of_environment("TIDEMARK_FLEET_SEED").unwrap_or_else(rand::random);
    eprintln!("TIDEMARK_FLEET_SEED={seed} TIDEMARK_FLEET_STEPS={steps}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut fleet = Fleet::start(3, 4, |_, settings| settings).await;
    let receiver = Receiver::start().await;
    receiver.subscribe(&fleet.apis[0], "hook", &["deposit.*"]).await;

    let Fleet { chains, daemons, apis, .. } = &mut fleet;
    let mut traffic = Traffic {
        chains,
        apis,
        random: StdRng::seed_from_u64(random.random()),
        wallets: vec![Vec::new(); chains.len()],
        deposits: Vec::new(),
        asked_again: 0,
    };
    let stop = CancellationToken::new();
    let disturbed = async {
        disturb(daemons, &mut random, steps).await;
        stop.cancel();
    };
    tokio::join!(traffic.go_on(&stop), disturbed);
    let Traffic { wallets, deposits, asked_again, .. } = traffic;
    eprintln!("{asked_again} registrations were sent again");

    for daemon in &mut fleet.daemons {
        daemon.ready().await;
    }
    for Chain { node, .. } in &fleet.chains {
        node.settle().await;
    }
    let api = &fleet.apis[random.random_range(0..3)];
    for &address in wallets.iter().flatten() {
        api.active(address).await;
    }
    fleet.settled(api).await;
    for (Chain { node, name }, wallets) in fleet.chains.iter().zip(&wallets) {
        for &address in wallets {
            let balances = api.balances(address).await;
            let [coins, tokens] = ["ETH", "DUSD"].map(|symbol| balance_in(&balances, symbol));
            let figures = (node.balance(address).await.unwrap(), node.token_balance(address).await);
            assert_eq!((coins.total, tokens.total), figures, "{address} on {name}");
            assert_eq!((coins.available, tokens.available), figures, "{address} on {name}");
        }
        fleet.leader(name).await;
    }
    let history = fleet.history().await;
    each_was_told_once(&history, &deposits);
    all_were_delivered(&receiver, &history).await;
    fleet.one_followed_at_a_time().await;
    fleet.audit().await;
}
