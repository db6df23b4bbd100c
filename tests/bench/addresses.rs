//! Millions of registered addresses: how soon a daemon follows that finds them in its store, what they take of
//! memory, and what they cost a block.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::ensure;

use super::{
    Bench,
    catch_up::{Plan, Ready, ready},
    daemon::{Daemon, Installation},
    dense::{Expected, account, token_balance},
    figure::{Figure, float, median, megabytes, milliseconds},
    http::Connection,
    recorded::{Chain, Manner, Node, Transfer, token},
    register::watched,
    seed,
    store::Engine,
};

/// Registered over HTTP: those that the blocks pay.
const PAID: u64 = 1_000;
const SOME: u64 = 3_000_000;
const MANY: u64 = 10_000_000;
/// Blocks that are timed at each stage; each pays all of [`PAID`].
const BLOCKS: u64 = 40;
const WARM_UP: u64 = 5;
const PROBE: Duration = Duration::from_millis(1);
/// How long a daemon rests before its memory is read.
const REST: Duration = Duration::from_secs(3);
const POLL_MS: u64 = 10;

/// A daemon that is started again and again, on a chain that shows its blocks one by one.
struct Site {
    chain: Arc<Chain>,
    node: Node,
    installation: Installation,
    shown: u64,
}

/// What one start came to.
struct Started {
    daemon: Daemon,
    /// From the start of the process until a new block is applied.
    follows: Duration,
}

fn record() -> Chain {
    let mut chain = Chain::new();
    for _ in 0..2 * (BLOCKS + WARM_UP) + 8 {
        let transfers: Vec<Vec<Transfer>> = (0..PAID)
            .map(|n| {
                let (from, to) = (account(PAID + n), account(n));
                vec![Transfer { token: token(0), from, to, value: 1 }]
            })
            .collect();
        chain.push(&transfers);
    }
    chain
}

impl Site {
    async fn new(engine: &Engine) -> anyhow::Result<Self> {
        let chain = Arc::new(record());
        let manner = Manner { final_below: 4, ..Manner::default() };
        let Ready { node, installation, daemon, .. } = ready(
            &chain,
            engine,
            Plan { manner, poll_ms: POLL_MS, ..Plan::default() },
            (0..PAID).map(account),
        )
        .await?;
        daemon.stop().await?;
        Ok(Self { chain, node, installation, shown: 0 })
    }

    /// Starts the daemon when there is one new block.
    async fn start(&mut self) -> anyhow::Result<Started> {
        self.shown += 1;
        self.node.show(self.shown);
        let daemon = self.installation.start().await?;
        // Not by `/v1/chains`, which counts the tenant's addresses.
        while daemon.metric("tidemark_chain_applied_block", "").await? < self.shown {
            tokio::time::sleep(PROBE).await;
        }
        Ok(Started { follows: daemon.started.elapsed(), daemon })
    }

    /// How long a block takes, from its first question to the node until its balances are readable.
    async fn block(&mut self, daemon: &Daemon) -> anyhow::Result<Duration> {
        let mut connection = Connection::open(&daemon.address).await?;
        let path = format!("/v1/wallets/{}/balances", account(PAID - 1));
        let mut times = Vec::new();
        for n in 0..BLOCKS + WARM_UP {
            self.shown += 1;
            self.node.show(self.shown);
            let expected = Expected::new(&self.chain, account(PAID - 1), self.shown, self.shown);
            while token_balance(&connection.get(&path, &daemon.key).await?)?.total != expected.total
            {
                tokio::time::sleep(PROBE).await;
            }
            let readable = Instant::now();
            if n >= WARM_UP {
                times.push(readable.duration_since(self.node.begun()?));
            }
        }
        Ok(median(times))
    }
}

pub async fn measure(bench: &mut Bench) -> anyhow::Result<()> {
    for engine in bench.engines().await? {
        let mut site = Site::new(&engine).await?;
        let what = |detail: &str| format!("addresses, {}: {detail}", engine.name());
        let started = site.start().await?;
        tokio::time::sleep(REST).await;
        let bare = started.daemon.memory()?.now;
        let with_few = site.block(&started.daemon).await?;
        bench.figures([
            Figure::new(what("start with 1,000"), started.follows.as_secs_f64(), "s"),
            Figure::new(what("block of 1,000 with 1,000"), milliseconds(with_few), "ms"),
        ]);
        started.daemon.stop().await?;
        let mut there = PAID;
        for (count, seconds) in [(SOME, 0.5), (MANY, 2.0)] {
            let seeding = Instant::now();
            seed::wallets(&site.installation.store, there, count).await?;
            there = count;
            let millions = count / 1_000_000;
            let seeded = seeding.elapsed().as_secs_f64();
            let started = site.start().await?;
            watched(&started.daemon, count).await?;
            tokio::time::sleep(REST).await;
            let memory = started.daemon.memory()?;
            let each = |bytes: u64| float(bytes.saturating_sub(bare)) / float(count);
            let what =
                |detail: &str| format!("addresses, {}: {detail} {millions} M", engine.name());
            bench.figures([
                Figure::new(what("written for the bench,"), seeded, "s"),
                Figure::new(what("start with"), started.follows.as_secs_f64(), "s")
                    .at_most(seconds),
                Figure::new(what("memory for each of"), each(memory.now), "B").at_most(24.0),
                Figure::new(what("at its peak, for each of"), each(memory.peak), "B"),
                Figure::new(what("memory with"), megabytes(memory.now), "MB"),
            ]);
            if count == MANY {
                let with_many = site.block(&started.daemon).await?;
                let ratio = with_many.as_secs_f64() / with_few.as_secs_f64();
                bench.figures([
                    Figure::new(what("block of 1,000 with"), milliseconds(with_many), "ms"),
                    Figure::new(what("of that with 1,000, with"), ratio, "times").at_most(1.2),
                ]);
            }
            ensure!(site.shown <= site.chain.head(), "the chain is too short");
            started.daemon.stop().await?;
        }
    }
    Ok(())
}
