//! Many wallets that ask for their past: 20,000 with `fromBlock` 0 on the dense chain.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde::Deserialize;

use super::{
    Bench,
    catch_up::{Plan, follow, ready},
    daemon::{Daemon, Evm, Installation},
    dense::{ACCOUNTS, Dense, account},
    figure::{Figure, float, megabytes},
    http::Connection,
    recorded::{Manner, Node, token},
    register::{CLIENTS, register, watched},
    store::Engine,
};

const PROBE: Duration = Duration::from_millis(20);
/// After so many times the catch-up it is given up, and the figure is what it would come to at this pace.
const GIVEN_UP: u32 = 10;
const LEAST_PATIENCE: Duration = Duration::from_secs(30);

pub async fn measure(bench: &mut Bench) -> anyhow::Result<()> {
    let dense = bench.dense();
    for engine in bench.engines().await? {
        let caught_up = if let Some(known) = bench.of_all_accounts(&engine) {
            known
        } else {
            let all =
                ready(&dense.chain, &engine, Plan::default(), (0..ACCOUNTS).map(account)).await?;
            follow(&all, &dense.chain).await?
        };
        let Past { took, complete, peak } = past(&dense, &engine, caught_up).await?;
        let whole = took.as_secs_f64() * float(ACCOUNTS) / float(complete.max(1));
        let what = |detail: &str| {
            let some = if complete == ACCOUNTS {
                String::new()
            } else {
                format!(" (from {complete} in {} s)", took.as_secs())
            };
            format!("backfill of {ACCOUNTS} wallets, {}: {detail}{some}", engine.name())
        };
        bench.figures([
            Figure::new(what("wall"), whole, "s"),
            Figure::new(what("of the catch-up"), whole / caught_up.as_secs_f64(), "times")
                .at_most(1.5),
            Figure::new(what("peak memory"), megabytes(peak), "MB").at_most(150.0),
        ]);
    }
    Ok(())
}

struct Past {
    took: Duration,
    /// Wallets whose history is complete.
    complete: u64,
    /// Bytes.
    peak: u64,
}

/// From the moment that the node tells balances, so that the watches can begin, until every wallet's history
/// is complete.
async fn past(dense: &Dense, engine: &Engine, caught_up: Duration) -> anyhow::Result<Past> {
    // The past is told of what is final.
    let shown = dense.chain.head();
    let manner = Manner { shown, final_below: 0, has_state: false, ..Manner::default() };
    let node = Node::start(&dense.chain, manner).await?;
    let evm = Evm { poll_ms: 100, ..Evm::new(&node.url, token(0).to_checksum(None)) };
    let installation = Installation::new(engine, &evm).await?;
    let daemon = installation.start().await?;
    let addresses = (0..ACCOUNTS).map(|n| account(n).to_string());
    register(&daemon, addresses, Some(0), CLIENTS).await?;
    let patience = (caught_up * GIVEN_UP).max(LEAST_PATIENCE);
    let begun = Instant::now();
    node.show_state();
    watched(&daemon, ACCOUNTS).await?;
    let counted = || daemon.metric("tidemark_histories_total", "status=\"complete\"");
    let mut complete = 0;
    while complete < ACCOUNTS && begun.elapsed() < patience {
        tokio::time::sleep(PROBE).await;
        complete = counted().await?;
    }
    let took = begun.elapsed();
    let peak = daemon.memory()?.peak;
    if complete == ACCOUNTS {
        let mut connection = Connection::open(&daemon.address).await?;
        for n in 0..ACCOUNTS {
            ensure!(is_complete(&mut connection, &daemon, n).await?, "a history is not complete");
        }
        dense.check(&daemon, ACCOUNTS, node.settled()).await?;
    }
    Ok(Past { took, complete, peak })
}

#[derive(Deserialize)]
struct Wallet {
    chains: Vec<On>,
}

#[derive(Deserialize)]
struct On {
    history: Option<String>,
}

async fn is_complete(connection: &mut Connection, daemon: &Daemon, n: u64) -> anyhow::Result<bool> {
    let path = format!("/v1/wallets/{}", account(n));
    let answer = connection.get(&path, &daemon.key).await?;
    let wallet: Wallet = answer.json()?;
    let history = wallet.chains.first().context("the chain")?.history.as_deref();
    ensure!(history != Some("incomplete"), "a history could not be told");
    Ok(history == Some("complete"))
}
