//! From the block to the balance that anyone can read, at the head of a real node's chain.

use std::time::{Duration, Instant};

use alloy::primitives::{Address, U256};
use anyhow::{Context as _, ensure};
use tidemark::dev::{
    anvil::{Anvil, Mining, Options},
    contracts,
};

use super::{Figure, Goal, daemon::Prepared, http::Connection, reads::percentile, seed};

const BLOCKS: u64 = 300;
const WARM_UP: u64 = 10;
const PROBE: Duration = Duration::from_millis(1);
/// Between two blocks: no chain makes them back to back.
const PAUSE: Duration = Duration::from_millis(25);
const GAS: u64 = 100_000;

/// The clock starts when the node is asked to make the block, before it announces it.
pub async fn measure() -> anyhow::Result<Vec<Figure>> {
    let node = Anvil::start(Options {
        mining: Mining::Manual,
        slots_in_an_epoch: Some(2),
        ..Options::default()
    })
    .await?;
    let rpc = node.rpc.clone();
    let bank = *rpc.accounts().await?.first().context("an account")?;
    let token = contracts::deploy_demo_token(&rpc, bank).await?;
    let prepared = Prepared::new(rpc.url(), true, &token.to_checksum(None)).await?;
    let daemon = prepared.start().await?;
    let mut connection = Connection::open(&daemon.address).await?;
    let wallet = Address::from(seed::address(0));
    let body = format!("{{\"address\":\"{wallet}\",\"chains\":[\"local\"]}}");
    let answer = connection.post("/v1/wallets", &daemon.key, &body).await?;
    ensure!(answer.status == 201, "{}", String::from_utf8_lossy(answer.body));
    let path = format!("/v1/wallets/{wallet}");
    while !connection.get(&path, &daemon.key).await?.contains("\"status\":\"active\"") {
        tokio::time::sleep(PROBE).await;
    }
    let path = format!("{path}/balances");
    let mut latencies = Vec::new();
    for total in 1..=BLOCKS + WARM_UP {
        let deposit = contracts::token_mint(token, bank, wallet, U256::from(1)).with_gas(GAS);
        rpc.send(&deposit).await?;
        tokio::time::sleep(PAUSE).await;
        let expected = format!("\"total\":{{\"raw\":\"{total}\"");
        let asked = Instant::now();
        let mining = tokio::spawn({
            let rpc = rpc.clone();
            async move { rpc.mine(1).await }
        });
        while !connection.get(&path, &daemon.key).await?.contains(&expected) {
            tokio::time::sleep(PROBE).await;
        }
        let took = asked.elapsed();
        mining.await??;
        if total > WARM_UP {
            latencies.push(took);
        }
    }
    node.stop().await?;
    let p50 = percentile(latencies.clone(), 50);
    let p99 = percentile(latencies, 99);
    let what = |which| format!("head: block asked for → balance readable, {which} of {BLOCKS}");
    Ok(vec![
        Figure::new(what("p50"), p50, "ms"),
        Figure::new(what("p99"), p99, "ms").with_goal(Goal::Under(50.0)),
    ])
}
