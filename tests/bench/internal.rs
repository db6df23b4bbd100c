//! From a block's announcement to the balance with what a contract of the block has sent on, which only a trace shows.

use alloy::{
    primitives::{Address, U256},
    sol,
    sol_types::SolCall as _,
};
use serde_json::{Value, json};
use tidemark::dev::{anvil::Request, contracts};

use super::{
    Bench,
    daemon::{Evm, Installation},
    figure::{Figure, percentile},
    head::{Node, readable_after},
    recorded::address,
    register::{CLIENTS, register, watched},
    store::Engine,
};

const BLOCKS: u64 = 300;
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
    let pay = async || {
        let _: Value = node.rpc().call("eth_sendTransaction", json!([call])).await?;
        Ok(())
    };
    let latencies = readable_after(&node, &daemon, 0, BLOCKS, pay).await?;
    drop(daemon);
    node.anvil.stop().await?;
    let what = |which| format!("internal: announced → in the balance, {which} of {BLOCKS}, SQLite");
    bench.figures([
        Figure::new(what("p50"), percentile(latencies.clone(), 50), "ms"),
        Figure::new(what("p99"), percentile(latencies, 99), "ms").at_most(50.0),
    ]);
    Ok(())
}
