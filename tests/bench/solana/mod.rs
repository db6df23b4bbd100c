//! Blocks of a busy Solana cluster, caught up by the whole daemon: a thousand owners that are active in them,
//! watched among a million that are registered.

mod maker;
mod node;

use std::fmt::Write as _;

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use maker::{Cluster, MINTS, OWNERS};
use node::{BASE, GENESIS, Node};

use super::{
    Bench,
    answer::Balances,
    daemon::{CHAIN, Daemon, Installation},
    figure::{Figure, float, megabytes, per_second},
    http::{self, get_request},
    register::{CLIENTS, register, watched},
    seed,
    store::Engine,
};

const BLOCKS: u64 = 1_000;
const REGISTERED: u64 = 1_000_000;
const PROBE: Duration = Duration::from_millis(5);
const READERS: usize = 8;

pub async fn measure(bench: &mut Bench) -> anyhow::Result<()> {
    let cluster = Arc::new(Cluster::record());
    let node = Node::start(&cluster).await?;
    let installation = Installation::with(&Engine::Sqlite, &toml(&node.url)).await?;
    let daemon = installation.start().await?;
    let owners = (0..OWNERS).map(|n| maker::text(maker::owner(n)));
    register(&daemon, owners, None, CLIENTS).await?;
    watched(&daemon, OWNERS).await?;
    daemon.stop().await?;
    seed::wallets(&installation.store, OWNERS, REGISTERED).await?;
    let daemon = installation.start().await?;
    watched(&daemon, REGISTERED).await?;

    let before = daemon.metric("tidemark_transfers_total", "").await?;
    node.show(BASE + BLOCKS);
    let done = daemon.reached(BASE + BLOCKS, node.settled(), PROBE).await?;
    let took = done.duration_since(node.begun()?);
    let memory = daemon.memory()?;
    let sides = daemon.metric("tidemark_transfers_total", "").await? - before;
    check(&daemon, &cluster).await?;
    let size = megabytes(cluster.bytes()) / float(cluster.bodies());
    let what =
        |detail: &str| format!("solana, {OWNERS} active of {REGISTERED} owners, SQLite: {detail}");
    bench.figures([
        Figure::new(what("size of a block"), size, "MB"),
        Figure::new(what("booked in a block"), float(sides) / float(BLOCKS), "transfers"),
        Figure::new(what("caught up"), per_second(BLOCKS, took), "blocks/s").at_least(60.0),
        Figure::new(what("peak memory"), megabytes(memory.peak), "MB"),
    ]);
    Ok(())
}

fn toml(url: &str) -> String {
    let mut text = format!(
        r#"
[chains.{CHAIN}]
family = "solana"
genesis = "{GENESIS}"
sweep_per_minute = 0
poll_interval_ms = 100
endpoints = [{{ name = "node", url = "{url}" }}]
"#
    );
    for n in 0..MINTS {
        // Writing to a String does not fail.
        let _ = write!(
            text,
            "\n[[chains.{CHAIN}.tokens]]\ncontract = \"{}\"\nsymbol = \"T{n}\"\ndecimals = 6\n",
            maker::mint(n)
        );
    }
    text
}

/// Fails unless every active owner has what the cluster says after the last block.
async fn check(daemon: &Daemon, cluster: &Arc<Cluster>) -> anyhow::Result<()> {
    let wallet = |n| format!("/v1/wallets/{}/balances", maker::text(maker::owner(n)));
    let requests = (0..OWNERS).map(|n| get_request(&wallet(n), &daemon.key)).collect();
    let cluster = Arc::clone(cluster);
    http::all(&daemon.address, requests, READERS, move |n, answer| {
        let Balances { balances } = answer.json()?;
        let total = |native: bool| -> anyhow::Result<u64> {
            let found = balances.iter().find(|balance| balance.asset.native == native);
            Ok(found.context("a balance is missing")?.total.raw.parse()?)
        };
        let (found, expected) = ((total(true)?, total(false)?), cluster.holds(n, BLOCKS)?);
        ensure!(found == expected, "owner {n}: {found:?} instead of {expected:?}");
        Ok(())
    })
    .await
}
