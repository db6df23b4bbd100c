//! From a block's announcement to the balance with what a contract of the block has sent on, which only a trace shows.

use std::time::Duration;

use alloy::{
    primitives::{Address, U256},
    sol,
    sol_types::SolCall as _,
};
use serde_json::{Value, json};
use tidemark::dev::{anvil::Request, contracts};

use super::{
    Bench,
    announced::Heads,
    daemon::{Evm, Installation},
    figure::{Figure, percentile},
    head::{Node, PAUSE, PROBE},
    http::Connection,
    recorded::address,
    register::{CLIENTS, register, watched},
    store::Engine,
};

const BLOCKS: u64 = 300;
const WARM_UP: u64 = 10;
const GAS: u64 = 200_000;
const MOVER: &str = include_str!("../it/contracts/Mover.hex");

sol! {
    function pay(address[] to, uint256 amount) external payable;
}

pub async fn measure(bench: &mut Bench) -> anyhow::Result<()> {
    let node = Node::start().await?;
    let mover = contracts::deploy(node.rpc(), node.bank, MOVER).await?;
    let ws = node.rpc().ws_url();
    let token = node.token.to_checksum(None);
    let evm = Evm { ws: Some(&ws), tracing: "debug", ..Evm::new(node.rpc().url(), token) };
    let installation = Installation::new(&Engine::Sqlite, &evm).await?;
    let daemon = installation.start().await?;
    register(&daemon, std::iter::once(address(0).to_string()), None, CLIENTS).await?;
    watched(&daemon, 1).await?;
    let to: Vec<Address> = vec![address(0)];
    let data = payCall { to, amount: U256::from(1) }.abi_encode();
    let mut call = Request::call(node.bank, mover, data).with_gas(GAS);
    call.value = U256::from(1);
    let mut heads = Heads::subscribe(&ws).await?;
    let mut connection = Connection::open(&daemon.address).await?;
    let path = format!("/v1/wallets/{}/balances", address(0));
    let mut number = node.height().await?;
    let mut latencies: Vec<Duration> = Vec::new();
    for total in 1..=BLOCKS + WARM_UP {
        let _: Value = node.rpc().call("eth_sendTransaction", json!([call])).await?;
        tokio::time::sleep(PAUSE).await;
        number += 1;
        let mining = tokio::spawn({
            let rpc = node.rpc().clone();
            async move { rpc.mine(1).await }
        });
        let announced = heads.announced(number).await?;
        let expected = format!("\"total\":{{\"raw\":\"{total}\"");
        while !connection.get(&path, &daemon.key).await?.contains(&expected) {
            tokio::time::sleep(PROBE).await;
        }
        let took = announced.elapsed();
        mining.await??;
        if total > WARM_UP {
            latencies.push(took);
        }
    }
    drop(daemon);
    node.anvil.stop().await?;
    let what = |which| format!("internal: announced → in the balance, {which} of {BLOCKS}, SQLite");
    bench.figures([
        Figure::new(what("p50"), percentile(latencies.clone(), 50), "ms"),
        Figure::new(what("p99"), percentile(latencies, 99), "ms").at_most(50.0),
    ]);
    Ok(())
}
