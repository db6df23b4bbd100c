//! Balance reads over HTTP: kept connections, one request in flight on each.

use std::time::{Duration, Instant};

use alloy::primitives::Address;
use anyhow::ensure;
use tokio::task::JoinSet;

use super::{
    Figure, Goal,
    daemon::Prepared,
    http::{Connection, get_request},
    recorded::{Chain, Node},
    seed,
};

const WALLETS: u64 = 10_000;
const CONNECTIONS: usize = 32;
const FOR: Duration = Duration::from_secs(5);

pub async fn measure() -> anyhow::Result<Vec<Figure>> {
    let chain = Chain::new();
    let genesis = chain.genesis();
    let node = Node::start(chain).await?;
    let token = Address::repeat_byte(0xa0).to_checksum(None);
    let prepared = Prepared::new(&node.url, false, &token).await?;
    let wallets = seed::wallets(&prepared, &genesis, WALLETS, true).await?;
    let daemon = prepared.start().await?;
    let requests: Vec<String> = wallets
        .iter()
        .map(|wallet| get_request(&format!("/v1/wallets/{wallet}/balances"), &daemon.key))
        .collect();
    // One thread makes the load, so that the daemon keeps what it can get of the machine.
    let address = daemon.address.clone();
    let loading = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(load(&address, &requests))
    });
    let (count, took, latencies) = loading.await??;
    #[expect(clippy::cast_precision_loss, reason = "a count of requests")]
    let rate = count as f64 / took.as_secs_f64();
    let what = format!("reads: balances of {WALLETS} wallets, {CONNECTIONS} connections");
    Ok(vec![
        Figure::new(what, rate, "reads/s").with_goal(Goal::AtLeast(15_000.0)),
        Figure::new("reads: p99 of one", percentile(latencies, 99), "ms"),
    ])
}

async fn load(
    address: &str,
    requests: &[String],
) -> anyhow::Result<(usize, Duration, Vec<Duration>)> {
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(Connection::open(address).await?);
    }
    let started = Instant::now();
    let mut readers = JoinSet::new();
    for (index, mut connection) in connections.into_iter().enumerate() {
        let requests: Vec<String> =
            requests.iter().skip(index).step_by(CONNECTIONS).cloned().collect();
        readers.spawn(async move {
            let mut latencies = Vec::new();
            for request in requests.iter().cycle() {
                let sent = Instant::now();
                let answer = connection.send(request.as_bytes()).await?;
                ensure!(answer.status == 200, "{}", String::from_utf8_lossy(answer.body));
                ensure!(answer.body.len() > 500, "a wallet without balances");
                latencies.push(sent.elapsed());
                if started.elapsed() > FOR {
                    break;
                }
            }
            Ok(latencies)
        });
    }
    let mut all = Vec::new();
    while let Some(latencies) = readers.join_next().await {
        all.append(&mut latencies??);
    }
    Ok((all.len(), started.elapsed(), all))
}

/// In milliseconds.
pub fn percentile(mut durations: Vec<Duration>, percent: usize) -> f64 {
    durations.sort_unstable();
    let index = (durations.len() * percent / 100).min(durations.len().saturating_sub(1));
    durations.get(index).map_or(0.0, |duration| duration.as_secs_f64() * 1000.0)
}
