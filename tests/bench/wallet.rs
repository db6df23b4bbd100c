//! One wallet with a long past: its balance, the pages of its transfers at any depth, and what filters cost
//! that find little or nothing.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::ensure;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    Bench,
    catch_up::{Plan, Ready, follow, ready},
    dense::{Expected, account, token_balance},
    figure::{Figure, per_second, percentile},
    http::Connection,
    recorded::{Chain, Manner, Transfer, token},
};

const TRANSFERS: u64 = 250_000;
const PER_BLOCK: u64 = 100;
const PER_TRANSACTION: u64 = 4;
const PAGE: u64 = 200;
/// How often a balance is read, and each filtered page.
const READS: usize = 2_000;
const FILTERED: usize = 200;
/// Filters of the newest page, and the number of transfers that they let through at most: none, or so many that
/// a page is full.
const FILTERS: &[(&str, u64)] = &[
    ("status=settled", PAGE),
    ("status=pending", 0),
    ("status=orphaned", 0),
    ("direction=in", PAGE),
    ("direction=out", PAGE),
    ("asset=dusd", PAGE),
    ("asset=eth", 1),
    ("kind=transfer", PAGE),
    ("kind=fee", 0),
    ("kind=opening", 2),
    ("asset=dusd&direction=out&status=pending", 0),
    // The recorded blocks are of June 2025.
    ("from=2026-01-01T00:00:00Z", 0),
    ("to=2025-01-01T00:00:00Z", 0),
    ("from=2025-06-15T15:30:00Z&to=2025-06-15T15:40:00Z", PAGE),
];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page<'a> {
    #[serde(borrow)]
    data: Vec<&'a RawValue>,
    next_cursor: Option<String>,
}

/// One in five leaves, the others come in.
fn record() -> Chain {
    let mut chain = Chain::new();
    let mut random = StdRng::seed_from_u64(7);
    let mut strangers = 1..;
    for _ in 0..TRANSFERS / PER_BLOCK {
        let mut transfer = || {
            let (wallet, other) = (account(0), account(strangers.next().unwrap_or_default()));
            let is_out = random.random_range(0..5) == 0;
            let (from, to) = if is_out { (wallet, other) } else { (other, wallet) };
            Transfer { token: token(0), from, to, value: random.random_range(1..1_000_000) }
        };
        let transactions: Vec<Vec<Transfer>> = (0..PER_BLOCK / PER_TRANSACTION)
            .map(|_| (0..PER_TRANSACTION).map(|_| transfer()).collect())
            .collect();
        chain.push(&transactions);
    }
    chain
}

pub async fn measure(bench: &mut Bench) -> anyhow::Result<()> {
    let chain = Arc::new(record());
    for engine in bench.engines().await? {
        // Everything is final: no transfer is pending.
        let manner = Manner { final_below: 0, ..Manner::default() };
        let ready =
            ready(&chain, &engine, Plan { manner, ..Plan::default() }, [account(0)]).await?;
        let took = follow(&ready, &chain).await?;
        let what =
            |detail: &str| format!("wallet of {TRANSFERS} transfers, {}: {detail}", engine.name());
        bench.figure(Figure::new(what("caught up"), per_second(TRANSFERS, took), "transfers/s"));
        let balances = balances(&ready, &chain).await?;
        bench
            .figure(Figure::new(what("balance, p99"), percentile(balances, 99), "ms").at_most(1.0));
        let pages = pages(&ready).await?;
        let deepest = pages.iter().rev().take(pages.len() / 10).copied().collect();
        bench.figures([
            Figure::new(what("page of 200 at any depth, p99"), percentile(pages, 99), "ms")
                .at_most(5.0),
            Figure::new(what("the deepest tenth, p99"), percentile(deepest, 99), "ms").at_most(5.0),
        ]);
        for &(filter, most) in FILTERS {
            let filtered = filtered(&ready, filter, most).await?;
            let detail = format!("{filter}, p99");
            bench.figure(Figure::new(what(&detail), percentile(filtered, 99), "ms").at_most(5.0));
        }
    }
    Ok(())
}

async fn balances(ready: &Ready, chain: &Chain) -> anyhow::Result<Vec<Duration>> {
    let daemon = &ready.daemon;
    let mut connection = Connection::open(&daemon.address).await?;
    let path = format!("/v1/wallets/{}/balances", ready.wallets[0]);
    let found = token_balance(&connection.get(&path, &daemon.key).await?)?;
    let expected = Expected::new(chain, account(0), chain.head(), chain.head());
    ensure!(found == expected, "{found:?} instead of {expected:?}");
    let mut latencies = Vec::new();
    for _ in 0..READS {
        let asked = Instant::now();
        ensure!(connection.get(&path, &daemon.key).await?.status == 200, "no balance");
        latencies.push(asked.elapsed());
    }
    Ok(latencies)
}

/// The whole past, a page at a time, the newest first.
async fn pages(ready: &Ready) -> anyhow::Result<Vec<Duration>> {
    let daemon = &ready.daemon;
    let mut connection = Connection::open(&daemon.address).await?;
    let mut latencies = Vec::new();
    let mut cursor = String::new();
    let mut listed = 0;
    loop {
        let path = format!("/v1/wallets/{}/transfers?limit={PAGE}{cursor}", ready.wallets[0]);
        let asked = Instant::now();
        let answer = connection.get(&path, &daemon.key).await?;
        latencies.push(asked.elapsed());
        let page: Page<'_> = answer.json()?;
        listed += page.data.len() as u64;
        let Some(next) = page.next_cursor else { break };
        cursor = format!("&cursor={next}");
    }
    // The openings of the coin and of the token are listed too.
    ensure!(listed == TRANSFERS + 2, "{listed} transfers are listed");
    Ok(latencies)
}

async fn filtered(ready: &Ready, filter: &str, most: u64) -> anyhow::Result<Vec<Duration>> {
    let daemon = &ready.daemon;
    let mut connection = Connection::open(&daemon.address).await?;
    let path = format!("/v1/wallets/{}/transfers?limit={PAGE}&{filter}", ready.wallets[0]);
    let mut latencies = Vec::new();
    for _ in 0..FILTERED {
        let asked = Instant::now();
        let answer = connection.get(&path, &daemon.key).await?;
        latencies.push(asked.elapsed());
        let page: Page<'_> = answer.json()?;
        let listed = page.data.len() as u64;
        // A page looks at so many rows at most: a short one says where to go on.
        let goes_on = listed < most && page.next_cursor.is_some();
        ensure!(listed == most || goes_on, "{filter}: {listed} transfers instead of {most}");
    }
    Ok(latencies)
}
