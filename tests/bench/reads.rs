//! Balance reads over HTTP: kept connections, one request in flight on each.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::ensure;
use tokio::task::JoinSet;

use super::{
    Bench,
    catch_up::{Plan, ready},
    dense::account,
    figure::{Figure, per_second, percentile},
    http::{Connection, get_request},
    recorded::Chain,
    register::on_a_thread,
};

const WALLETS: u64 = 10_000;
const CONNECTIONS: usize = 32;
const FOR: Duration = Duration::from_secs(5);

pub async fn measure(bench: &mut Bench) -> anyhow::Result<()> {
    let chain = Arc::new(Chain::new());
    for engine in bench.engines().await? {
        let ready = ready(&chain, &engine, Plan::default(), (0..WALLETS).map(account)).await?;
        let daemon = &ready.daemon;
        let requests: Vec<String> = ready
            .wallets
            .iter()
            .map(|wallet| get_request(&format!("/v1/wallets/{wallet}/balances"), &daemon.key))
            .collect();
        let address = daemon.address.clone();
        let (took, latencies) = on_a_thread(load(address, requests)).await?;
        let name = engine.name();
        let what = format!("reads: balances of {WALLETS} wallets, {CONNECTIONS} clients, {name}");
        let rate = per_second(latencies.len() as u64, took);
        let goal = engine.goal(30_000.0, 20_000.0);
        bench.figures([
            Figure::new(what, rate, "reads/s").at_least(goal),
            Figure::new(format!("reads: p99 of one, {name}"), percentile(latencies, 99), "ms"),
        ]);
    }
    Ok(())
}

async fn load(address: String, requests: Vec<String>) -> anyhow::Result<(Duration, Vec<Duration>)> {
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(Connection::open(&address).await?);
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
                ensure!(answer.status == 200, "{}", answer.text());
                ensure!(answer.body.len() > 500, "a wallet without balances");
                latencies.push(sent.elapsed());
                if started.elapsed() > FOR {
                    break;
                }
            }
            anyhow::Ok(latencies)
        });
    }
    let mut all = Vec::new();
    while let Some(latencies) = readers.join_next().await {
        all.append(&mut latencies??);
    }
    Ok((started.elapsed(), all))
}
