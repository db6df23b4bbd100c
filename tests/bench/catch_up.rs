//! Blocks of a recorded node, from the first one asked for to the last one committed and settled.

use std::{sync::Arc, time::Duration};

use alloy::primitives::Address;
use anyhow::{Context as _, ensure};

use super::{
    Bench,
    answer::Balances,
    client::{self, Fetched},
    daemon::{Daemon, Evm, Installation},
    dense::{ACCOUNTS, Dense, TRANSFERS, account},
    figure::{Figure, float, median, megabytes, milliseconds, per_second},
    http::Connection,
    recorded::{Chain, Manner, Node, OPENING_WEI, insider, token},
    register::{CLIENTS, register, watched},
    store::Engine,
};

const PROBE: Duration = Duration::from_millis(3);
const NEAR_EMPTY_BLOCKS: u64 = 20_000;
/// Runs of which the middle one counts, where one takes less than a second.
const RUNS: usize = 5;
const LATENCY: Duration = Duration::from_millis(20);
const MOST_MEMORY: f64 = 150.0;
/// Ranges so short that every sender in them is proven when they are read.
const FEW_BLOCKS: u64 = 8;

/// A daemon on a chain of which it has seen block 0, with its wallets registered there.
pub struct Ready {
    pub node: Node,
    pub installation: Installation,
    pub daemon: Daemon,
    /// The ids of its wallets.
    pub wallets: Vec<String>,
}

/// What one catch-up took.
struct Run {
    took: Duration,
    /// Bytes.
    peak: u64,
    /// Bytes that the store grew by.
    grown: u64,
}

/// How a daemon and its node are set up.
pub struct Plan {
    pub verification: &'static str,
    pub poll_ms: u64,
    pub batch_blocks: u64,
    pub tracing: &'static str,
    pub manner: Manner,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            verification: "full",
            poll_ms: 1000,
            batch_blocks: 100,
            tracing: "none",
            manner: Manner::default(),
        }
    }
}

/// Starts a daemon whose node shows block 0 only, and registers accounts there.
pub async fn ready(
    chain: &Arc<Chain>,
    engine: &Engine,
    plan: Plan,
    accounts: impl IntoIterator<Item = Address>,
) -> anyhow::Result<Ready> {
    let Plan { verification, poll_ms, batch_blocks, tracing, manner } = plan;
    let node = Node::start(chain, manner).await?;
    let evm = Evm {
        verification,
        poll_ms,
        batch_blocks,
        tracing,
        ..Evm::new(&node.url, token(0).to_checksum(None))
    };
    let installation = Installation::new(engine, &evm).await?;
    let daemon = installation.start().await?;
    let addresses: Vec<String> = accounts.into_iter().map(|address| address.to_string()).collect();
    let count = addresses.len() as u64;
    let wallets = register(&daemon, addresses, None, CLIENTS).await?.wallets;
    watched(&daemon, count).await?;
    Ok(Ready { node, installation, daemon, wallets })
}

/// Shows the daemon the whole chain; from the first block asked for until the last one is applied and the
/// newest final one settled.
pub async fn follow(ready: &Ready, chain: &Chain) -> anyhow::Result<Duration> {
    ready.node.show(chain.head());
    let done = ready.daemon.reached(chain.head(), ready.node.settled(), PROBE).await?;
    Ok(done.duration_since(ready.node.begun()?))
}

/// Blocks with one payment of the native coin each.
pub async fn near_empty_blocks(bench: &mut Bench) -> anyhow::Result<()> {
    let mut chain = Chain::new();
    for _ in 0..NEAR_EMPTY_BLOCKS {
        chain.push(&[Vec::new()]);
    }
    let chain = Arc::new(chain);
    let ready = ready(&chain, &Engine::Sqlite, Plan::default(), (0..1000).map(account)).await?;
    let rate = per_second(NEAR_EMPTY_BLOCKS, follow(&ready, &chain).await?);
    let what = format!("near-empty: {NEAR_EMPTY_BLOCKS} blocks of one transaction, SQLite");
    bench.figure(Figure::new(what, rate, "blocks/s").at_least(2000.0));
    Ok(())
}

/// The dense chain with both sides of every transfer watched, and with one account in twenty.
pub async fn dense(bench: &mut Bench) -> anyhow::Result<()> {
    let dense = bench.dense();
    for engine in bench.engines().await? {
        let all = run(&dense, &engine, ACCOUNTS).await?;
        let what = |detail: &str| format!("catch-up, all accounts, {}: {detail}", engine.name());
        let rate = per_second(TRANSFERS, all.took);
        let each = float(all.grown) / float(TRANSFERS);
        bench.all_accounts(&engine, all.took);
        bench.figures([
            Figure::new(what("wall"), all.took.as_secs_f64(), "s"),
            Figure::new(what("both sides watched"), rate, "transfers/s")
                .at_least(engine.goal(40_000.0, 30_000.0)),
            Figure::new(what("peak memory"), megabytes(all.peak), "MB").at_most(MOST_MEMORY),
            Figure::new(what("store per transfer"), each, "B").at_most(engine.goal(700.0, 1500.0)),
        ]);
        let some = run(&dense, &engine, ACCOUNTS / 20).await?;
        let what = |detail: &str| format!("catch-up, 5 % of accounts, {}: {detail}", engine.name());
        bench.figures([
            Figure::new(what("wall"), some.took.as_secs_f64(), "s"),
            Figure::new(what("scanned"), per_second(TRANSFERS, some.took), "logs/s")
                .at_least(150_000.0),
            Figure::new(what("peak memory"), megabytes(some.peak), "MB").at_most(MOST_MEMORY),
        ]);
    }
    Ok(())
}

/// One catch-up of the dense chain, and whether everything in the store is right after it.
async fn run(dense: &Dense, engine: &Engine, accounts: u64) -> anyhow::Result<Run> {
    let ready = ready(&dense.chain, engine, Plan::default(), (0..accounts).map(account)).await?;
    let before = ready.installation.store.size().await?;
    let events = events(&ready.daemon).await?;
    let took = follow(&ready, &dense.chain).await?;
    let Ready { node, installation, daemon, .. } = ready;
    let peak = daemon.memory()?.peak;
    dense.check(&daemon, accounts, node.settled()).await?;
    let told = self::events(&daemon).await? - events;
    let expected =
        dense.sides(accounts, dense.chain.head()) + dense.sides(accounts, node.settled());
    ensure!(told == expected, "{told} events were told of {expected}");
    let grown = installation.store.size().await?.saturating_sub(before);
    daemon.stop().await?;
    Ok(Run { took, peak, grown })
}

/// Events of deposits and withdrawals, as the metrics count them.
async fn events(daemon: &Daemon) -> anyhow::Result<u64> {
    let deposits = daemon.metric("tidemark_events_total", "type=\"deposit.").await?;
    Ok(deposits + daemon.metric("tidemark_events_total", "type=\"withdrawal.").await?)
}

/// What one catch-up of the dense chain takes if none of it touches the only registered account.
async fn nothing(dense: &Dense, engine: &Engine, plan: Plan) -> anyhow::Result<Fetched> {
    let ready = ready(&dense.chain, engine, plan, [account(ACCOUNTS)]).await?;
    let took = follow(&ready, &dense.chain).await?;
    let Ready { daemon, .. } = ready;
    let peak = daemon.memory()?.peak;
    daemon.stop().await?;
    Ok(Fetched { took, peak })
}

/// The dense chain for 20,000 addresses that have no part in it, but for one to which one transaction in a thousand
/// sends something that only a trace shows: with tracing, and without.
pub async fn tracing(bench: &mut Bench) -> anyhow::Result<()> {
    let dense = bench.dense();
    let (mut on, mut off) = (Runs::default(), Runs::default());
    for _ in 0..RUNS {
        off.0.push(traced(&dense, "none").await?);
        on.0.push(traced(&dense, "debug").await?);
    }
    let rate = |runs: &Runs| per_second(dense.chain.head(), runs.took());
    let what = |detail: &str| format!("tracing, 0.1 % matter, SQLite: {detail}");
    bench.figures([
        Figure::new(what("not traced"), rate(&off), "blocks/s"),
        Figure::new(what("traced"), rate(&on), "blocks/s"),
        Figure::new(what("traced, of not traced"), 100.0 * rate(&on) / rate(&off), "%")
            .at_least(80.0),
        Figure::new(what("peak memory, traced"), on.peak(), "MB").at_most(MOST_MEMORY),
    ]);
    Ok(())
}

/// One catch-up, and whether the traces are in the balance after it.
async fn traced(dense: &Dense, tracing: &'static str) -> anyhow::Result<Fetched> {
    let others = (ACCOUNTS + 1..2 * ACCOUNTS).map(account);
    let plan = Plan { tracing, ..Plan::default() };
    let accounts = others.chain([insider()]);
    let ready = ready(&dense.chain, &Engine::Sqlite, plan, accounts).await?;
    let took = follow(&ready, &dense.chain).await?;
    let Ready { node, daemon, .. } = ready;
    let peak = daemon.memory()?.peak;
    // Nothing else shows it: in a catch-up only what moved is compared, and the sweep is off.
    let inside = if tracing == "none" { 0 } else { dense.chain.inside(node.settled()) };
    let expected = OPENING_WEI + inside;
    let path = format!("/v1/wallets/{}/balances", insider());
    let mut connection = Connection::open(&daemon.address).await?;
    let answer = connection.get(&path, &daemon.key).await?;
    let Balances { balances } = answer.json()?;
    let coin = balances.iter().find(|balance| balance.asset.native).context("no coin")?;
    let available: u64 = coin.available.raw.parse()?;
    ensure!(available == expected, "the insider has {available} instead of {expected}");
    daemon.stop().await?;
    Ok(Fetched { took, peak })
}

/// The bare client at the same node.
async fn fetched(dense: &Dense, latency: Duration) -> anyhow::Result<Fetched> {
    let shown = dense.chain.head();
    let manner = Manner { shown, latency, ..Manner::default() };
    let node = Node::start(&dense.chain, manner).await?;
    client::fetch(&node.url, shown, TRANSFERS).await
}

/// The middle of several runs, and the largest peak of memory.
#[derive(Default)]
struct Runs(Vec<Fetched>);

impl Runs {
    fn took(&self) -> Duration {
        median(self.0.iter().map(|run| run.took).collect())
    }

    fn peak(&self) -> f64 {
        megabytes(self.0.iter().map(|run| run.peak).max().unwrap_or_default())
    }
}

/// The dense chain for an account that has no part in it, beside a client that only fetches and parses: in
/// turns, so that both have the machine in the same mood.
pub async fn scan(bench: &mut Bench) -> anyhow::Result<()> {
    let dense = bench.dense();
    let bytes = megabytes(dense.chain.bytes());
    bench.figure(Figure::new("scan: what the node hands out", bytes, "MB"));
    for engine in bench.engines().await? {
        let (mut full, mut links, mut client) = (Runs::default(), Runs::default(), Runs::default());
        for _ in 0..RUNS {
            client.0.push(fetched(&dense, Duration::ZERO).await?);
            full.0.push(nothing(&dense, &engine, Plan::default()).await?);
            let unverified = Plan { verification: "links", ..Plan::default() };
            links.0.push(nothing(&dense, &engine, unverified).await?);
        }
        let what = |detail: &str| format!("scan, nothing matches, {}: {detail}", engine.name());
        let ratio = client.took().as_secs_f64() / full.took().as_secs_f64();
        let price = full.took().as_secs_f64() / links.took().as_secs_f64() - 1.0;
        bench.figures([
            Figure::new(
                what("a client that stores nothing"),
                per_second(TRANSFERS, client.took()),
                "logs/s",
            ),
            Figure::new(what("its peak memory"), client.peak(), "MB"),
            Figure::new(what("the daemon"), per_second(TRANSFERS, full.took()), "logs/s"),
            Figure::new(what("wall"), milliseconds(full.took()), "ms"),
            Figure::new(what("the daemon, of the client"), 100.0 * ratio, "%").at_least(85.0),
            Figure::new(what("price of `full` against `links`"), 100.0 * price, "%").at_most(25.0),
            Figure::new(what("peak memory"), full.peak(), "MB").at_most(MOST_MEMORY),
        ]);
    }
    let (mut far, mut client) = (Runs::default(), Runs::default());
    for _ in 0..RUNS {
        client.0.push(fetched(&dense, LATENCY).await?);
        let manner = Manner { latency: LATENCY, ..Manner::default() };
        let plan = Plan { manner, ..Plan::default() };
        far.0.push(nothing(&dense, &Engine::Sqlite, plan).await?);
    }
    let ratio = client.took().as_secs_f64() / far.took().as_secs_f64();
    let what =
        |detail: &str| format!("scan at {} ms latency, SQLite: {detail}", LATENCY.as_millis());
    bench.figures([
        Figure::new(what("the client"), per_second(TRANSFERS, client.took()), "logs/s"),
        Figure::new(what("the daemon"), per_second(TRANSFERS, far.took()), "logs/s"),
        Figure::new(what("the daemon, of the client"), 100.0 * ratio, "%").at_least(80.0),
    ]);
    let few = |verification| Plan { verification, batch_blocks: FEW_BLOCKS, ..Plan::default() };
    let every = nothing(&dense, &Engine::Sqlite, few("full")).await?;
    let none = nothing(&dense, &Engine::Sqlite, few("links")).await?;
    let each = (every.took.as_secs_f64() - none.took.as_secs_f64()) / float(dense.transactions());
    let what = |detail: &str| format!("scan by {FEW_BLOCKS} blocks, SQLite: {detail}");
    bench.figures([
        Figure::new(what("wall"), milliseconds(none.took), "ms"),
        Figure::new(what("with every sender recovered"), milliseconds(every.took), "ms"),
        Figure::new(what("for each transaction"), 1e6 * each, "µs"),
    ]);
    Ok(())
}
