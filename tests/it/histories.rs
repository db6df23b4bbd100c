//! Long random histories on a real chain: after each block, every registered address has of every asset what the chain
//! says at that block's hash. What a configuration cannot see in its block (a token that rebases, and the coin where
//! nobody traces) is compared when it has settled.
//!
//! `TIDEMARK_HISTORY_SEEDS=20 TIDEMARK_HISTORY_BLOCKS=500 tests/run --test it histories` runs so many seeds of so many
//! blocks in each of the tests, and `TIDEMARK_HISTORY_SEEDS=17..18` the one in it. A seed says what is sent; hashes and
//! times are the node's own.

mod chance;
mod check;
mod world;

use std::{env, ops::Range};

use parking_lot::Mutex;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};

use crate::harness::{Daemon, Store, on_both_stores};
use check::{Checked, Tracing};
use world::World;

const BLOCKS: u64 = 12;
/// Blocks between two comparisons of all that has settled.
const SETTLED_AFTER: u64 = 12;
/// As many blocks as the node's finality leaves open.
const DEEPEST: u64 = 4;

fn seeds(usual: u64) -> Range<u64> {
    let Ok(text) = env::var("TIDEMARK_HISTORY_SEEDS") else { return usual..usual + 1 };
    let number = |text: &str| text.parse::<u64>().ok();
    let range = match text.split_once("..") {
        Some((from, to)) => number(from).zip(number(to)).map(|(from, to)| from..to),
        None => number(&text).map(|count| usual..usual + count),
    };
    range.unwrap_or_else(|| panic!("TIDEMARK_HISTORY_SEEDS={text}: not N and not N..M"))
}

fn blocks() -> u64 {
    let Ok(text) = env::var("TIDEMARK_HISTORY_BLOCKS") else { return BLOCKS };
    text.parse().unwrap_or_else(|_| panic!("TIDEMARK_HISTORY_BLOCKS={text} is no number"))
}

/// Says which history failed and what it did last, when that unwinds.
struct Failing {
    seed: u64,
    block: u64,
    sent: Mutex<Vec<Value>>,
    differs: Mutex<String>,
}

impl Drop for Failing {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let (seed, end, block) = (self.seed, self.seed + 1, self.block);
            let differs = self.differs.lock();
            println!("seed {seed} failed at its block {block}: {differs}");
            for sent in self.sent.lock().iter().rev().take(60).rev() {
                println!("  {}", sent.to_string().chars().take(700).collect::<String>());
            }
            println!("TIDEMARK_HISTORY_SEEDS={seed}..{end} runs it again, in the same test");
        }
    }
}

/// A history that has come so far.
struct History {
    random: StdRng,
    world: World,
    checked: Checked,
    /// No branch goes below: the node has called it final.
    floor: u64,
    failing: Failing,
}

impl History {
    async fn head(&self) -> u64 {
        self.world.node.head().await.unwrap().number.to()
    }

    async fn mined(&mut self) {
        self.floor = self.floor.max(self.head().await.saturating_sub(DEEPEST));
    }

    /// One block of anything. Where the daemon sees all in its block, it is waited for: Anvil can stand still for good
    /// when it mines while it traces.
    async fn block(&mut self) {
        for request in self.world.anything(&mut self.random) {
            let request = self.world.in_an_envelope(&request, &mut self.random).await;
            self.failing.sent.lock().push(without_blobs(&request));
            self.world.send(&request).await;
        }
        self.world.node.mine(1).await.unwrap();
        self.failing.sent.lock().push(json!("mined"));
        self.mined().await;
        if self.checked.tracing != Tracing::None {
            self.checked.at_head(&self.world, &self.failing.differs).await;
        }
    }

    /// Other blocks in the place of some; now and then fewer or more of them.
    async fn reorganize(&mut self) {
        let most = self.head().await.saturating_sub(self.floor).min(DEEPEST);
        if most == 0 {
            return;
        }
        let depth = self.random.random_range(1..=most);
        self.failing.sent.lock().push(json!({"vanish": depth}));
        if self.random.random() {
            let mut blocks = Vec::new();
            for request in self.world.anything(&mut self.random) {
                let place = self.random.random_range(0..depth);
                let request = chance::as_it_is(&request);
                self.failing.sent.lock().push(json!([request, place]));
                blocks.push(json!([request, place]));
            }
            let _: Value =
                self.world.node.call("anvil_reorg", json!([depth, blocks])).await.unwrap();
            self.mined().await;
        } else {
            self.world.node.rollback(depth).await.unwrap();
            for _ in 0..self.random.random_range(1..=depth + 2) {
                self.block().await;
            }
        }
    }

    /// Everything so far is final, and compared with the chain's own state; then one more is watched.
    async fn settle(&mut self) {
        let History { world, checked, failing, random, .. } = self;
        world.touch(&checked.addresses()).await;
        world.node.settle().await;
        checked.settled(world, &failing.differs).await;
        checked.past(world, random, &failing.differs).await;
        if let Some(address) = world.later.pop() {
            checked.watch(address, world).await;
        }
        failing.sent.lock().push(json!("settled"));
        self.mined().await;
    }

    async fn step(&mut self) {
        match self.random.random_range(0..10) {
            0 | 1 => self.reorganize().await,
            2 => {
                for _ in 0..self.random.random_range(2..6) {
                    self.block().await;
                }
            }
            _ => self.block().await,
        }
    }
}

/// A request that a person can read.
fn without_blobs(request: &Value) -> Value {
    let mut request = request.clone();
    if let Some(fields) = request.as_object_mut() {
        for field in ["blobs", "commitments", "cellProofs"] {
            fields.remove(field);
        }
    }
    request
}

/// The histories of the seeds, each on a store of its own; `usual` is the first of them.
async fn hold(store: &Store, usual: u64, tracing: Tracing) {
    let sqlite = matches!(store, Store::Sqlite { .. });
    for seed in seeds(if sqlite { usual } else { usual + 1 }) {
        holds(&store.another().await, seed, tracing).await;
    }
}

async fn holds(store: &Store, seed: u64, tracing: Tracing) {
    let failing = Failing { seed, block: 0, sent: Mutex::default(), differs: Mutex::default() };
    let mut random = StdRng::seed_from_u64(seed);
    let world = World::start(&mut random).await;
    let daemon = Daemon::start_with(world.settings(store, tracing.name())).await;
    let api = daemon.customer("acme").await;
    let checked = Checked::register(api, &world, tracing).await;
    let mut history = History { random, world, checked, floor: 0, failing };
    history.mined().await;
    let blocks = blocks();
    for block in 1..=blocks {
        history.failing.block = block;
        history.step().await;
        let History { world, checked, failing, .. } = &mut history;
        checked.at_head(world, &failing.differs).await;
        if block % SETTLED_AFTER == 0 || block == blocks {
            history.settle().await;
        }
    }
    let metrics = daemon.metrics().await;
    if tracing != Tracing::None {
        assert!(
            metrics.contains("tidemark_trace_mismatches_total{chain=\"local\"} 0"),
            "{metrics}"
        );
    }
    daemon.audit().await;
}

on_both_stores! {
    async fn a_random_history_is_exact_at_each_block_by_debug_traces(store) {
        hold(&store, 100, Tracing::Debug).await;
    }

    async fn a_random_history_is_exact_at_each_block_by_flat_traces(store) {
        hold(&store, 200, Tracing::Flat).await;
    }

    async fn a_random_history_that_nobody_traces_is_exact_when_it_has_settled(store) {
        hold(&store, 300, Tracing::None).await;
    }
}
