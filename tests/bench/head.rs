//! From a block's announcement to the balance that anyone can read, at the head of a real node's chain; and
//! what settling the balances that a block touched asks of the node.

use std::time::{Duration, Instant};

use alloy::primitives::{Address, U64, U256};
use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use tidemark::dev::{
    anvil::{Anvil, Mining, Options, Rpc},
    contracts,
};

use super::{
    Bench,
    announced::Heads,
    counted::Proxy,
    daemon::{Daemon, Evm, Installation},
    dense::token_balance,
    figure::{Figure, float, percentile},
    http::Connection,
    recorded::address,
    register::{CLIENTS, register, watched},
    store::Engine,
};

const BLOCKS: u64 = 300;
const FULL_BLOCKS: u64 = 100;
const WARM_UP: u64 = 10;
/// Watched transfers in a full block.
const TRANSFERS: u64 = 500;
const PROBE: Duration = Duration::from_millis(1);
/// Between two blocks: no chain makes them back to back.
const PAUSE: Duration = Duration::from_millis(25);
const GAS: u64 = 100_000;
/// `finalized` is twice as many blocks below the head.
const EPOCH: u64 = 2;
const MULTICALL3: &str = "0xcA11bde05977b3631167028862bE2a173976CA11";
const CODE: &str = include_str!("../../src/chain/evm/tests/multicall3.hex");

/// A real node with the demo token and Multicall3.
pub(super) struct Node {
    pub anvil: Anvil,
    pub bank: Address,
    pub token: Address,
}

impl Node {
    pub async fn start() -> anyhow::Result<Self> {
        let anvil = Anvil::start(Options {
            mining: Mining::Manual,
            slots_in_an_epoch: Some(EPOCH),
            arguments: vec!["--disable-block-gas-limit".into()],
            ..Options::default()
        })
        .await?;
        let bank = *anvil.rpc.accounts().await?.first().context("an account")?;
        let token = contracts::deploy_demo_token(&anvil.rpc, bank).await?;
        // Nearly every chain has it, at this address.
        let _: Value = anvil.rpc.call("anvil_setCode", json!([MULTICALL3, CODE.trim()])).await?;
        Ok(Self { anvil, bank, token })
    }

    pub fn rpc(&self) -> &Rpc {
        &self.anvil.rpc
    }

    /// Puts one new unit of the token for each of the first `count` accounts into the next block.
    async fn pay(&self, count: u64) -> anyhow::Result<()> {
        let sent: U64 =
            self.rpc().call("eth_getTransactionCount", json!([self.bank, "latest"])).await?;
        let calls: Vec<Value> = (0..count)
            .map(|n| {
                let to = address(n);
                let mint = contracts::token_mint(self.token, self.bank, to, U256::from(1));
                let mut call = json!({
                    "jsonrpc": "2.0", "id": n, "method": "eth_sendTransaction",
                    "params": [mint.with_gas(GAS)]
                });
                // The node takes the calls of a batch in any order.
                call["params"][0]["nonce"] = json!(sent + U64::from(n));
                call
            })
            .collect();
        let host = self.rpc().url().trim_start_matches("http://");
        let mut connection = Connection::open(host).await?;
        let answer = connection.post("/", "", &Value::from(calls).to_string()).await?;
        let answers: Vec<Value> = answer.json()?;
        let refused = answers.iter().find(|answer| answer["error"].is_object());
        ensure!(refused.is_none(), "a transaction was refused: {refused:?}");
        Ok(())
    }

    /// How long the newest block with its transactions and receipts takes when nobody else asks.
    async fn answers_in(&self) -> anyhow::Result<Duration> {
        let call = |method: &str, params: Value| json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let calls = json!([
            call("eth_getBlockByNumber", json!(["latest", true])),
            call("eth_getBlockReceipts", json!(["latest"])),
        ]);
        let host = self.rpc().url().trim_start_matches("http://");
        let mut connection = Connection::open(host).await?;
        let begun = Instant::now();
        connection.post("/", "", &calls.to_string()).await?;
        Ok(begun.elapsed())
    }

    pub async fn height(&self) -> anyhow::Result<u64> {
        Ok(self.rpc().head().await?.number.to())
    }

    /// Makes a block and gives its number.
    async fn mine(&self) -> anyhow::Result<u64> {
        self.rpc().mine(1).await?;
        self.height().await
    }
}

async fn daemon(node: &Node, url: &str, wallets: u64) -> anyhow::Result<(Installation, Daemon)> {
    let ws = node.rpc().ws_url();
    let evm = Evm { ws: Some(&ws), ..Evm::new(url, node.token.to_checksum(None)) };
    let installation = Installation::new(&Engine::Sqlite, &evm).await?;
    let daemon = installation.start().await?;
    register(&daemon, (0..wallets).map(|n| address(n).to_string()), None, CLIENTS).await?;
    watched(&daemon, wallets).await?;
    Ok((installation, daemon))
}

pub async fn measure(bench: &mut Bench) -> anyhow::Result<()> {
    let (latencies, _) = latencies(1, BLOCKS).await?;
    let what = |which| format!("head: announced → readable, {which} of {BLOCKS} blocks, SQLite");
    bench.figures([
        Figure::new(what("p50"), percentile(latencies.clone(), 50), "ms"),
        Figure::new(what("p99"), percentile(latencies, 99), "ms").at_most(15.0),
    ]);
    let (latencies, node) = self::latencies(TRANSFERS, FULL_BLOCKS).await?;
    let what = |which| {
        format!(
            "head: {TRANSFERS} watched transfers in the block, {which} of {FULL_BLOCKS}, SQLite"
        )
    };
    bench.figures([
        Figure::new(what("p50"), percentile(latencies.clone(), 50), "ms"),
        Figure::new(what("p99"), percentile(latencies, 99), "ms").at_most(50.0),
        Figure::new(
            "head: the node alone, for such a block and its receipts",
            percentile(node, 50),
            "ms",
        ),
    ]);
    let requests = settling().await?;
    let what = format!("head: requests to settle {TRANSFERS} touched balances");
    bench.figure(Figure::new(what, float(requests), "requests").at_most(2.0));
    Ok(())
}

/// How long after its announcement each of `blocks` blocks is in the balance of an account. `pay` puts one unit for it
/// into the next block.
pub(super) async fn readable_after(
    node: &Node,
    daemon: &Daemon,
    account: u64,
    blocks: u64,
    pay: impl AsyncFn() -> anyhow::Result<()>,
) -> anyhow::Result<Vec<Duration>> {
    let mut heads = Heads::subscribe(&node.rpc().ws_url()).await?;
    let mut connection = Connection::open(&daemon.address).await?;
    let path = format!("/v1/wallets/{}/balances", address(account));
    let mut number = node.height().await?;
    let mut latencies = Vec::new();
    for total in 1..=blocks + WARM_UP {
        pay().await?;
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
    Ok(latencies)
}

/// How long after its announcement each of `blocks` blocks with `transfers` watched transfers is readable, and how
/// long the node takes to hand out the last one, a few times.
async fn latencies(transfers: u64, blocks: u64) -> anyhow::Result<(Vec<Duration>, Vec<Duration>)> {
    let node = Node::start().await?;
    let (_installation, daemon) = daemon(&node, node.rpc().url(), transfers).await?;
    // A block is one commit: any of its wallets tells of all.
    let pay = async || node.pay(transfers).await;
    let latencies = readable_after(&node, &daemon, transfers - 1, blocks, pay).await?;
    drop(daemon);
    let mut alone = Vec::new();
    for _ in 0..9 {
        alone.push(node.answers_in().await?);
    }
    node.anvil.stop().await?;
    Ok((latencies, alone))
}

/// How many requests about the chain's state the node gets while a block that touched so many balances settles.
async fn settling() -> anyhow::Result<u64> {
    let node = Node::start().await?;
    let proxy = Proxy::start(node.rpc().url()).await?;
    let (_installation, daemon) = daemon(&node, &proxy.url, TRANSFERS).await?;
    node.pay(TRANSFERS).await?;
    let full = node.mine().await?;
    daemon.reached(full, 0, PROBE).await?;
    let before = proxy.about_state();
    let begun = Instant::now();
    for _ in 0..2 * EPOCH {
        let number = node.mine().await?;
        daemon.reached(number, 0, PROBE).await?;
    }
    daemon.reached(full, full, PROBE).await?;
    ensure!(begun.elapsed() < Duration::from_mins(1), "settling took too long to be counted");
    let requests = proxy.about_state() - before;
    let mut connection = Connection::open(&daemon.address).await?;
    for n in 0..TRANSFERS {
        let path = format!("/v1/wallets/{}/balances", address(n));
        let found = token_balance(&connection.get(&path, &daemon.key).await?)?;
        ensure!((found.available, found.total) == (1, 1), "account {n}: {found:?}");
    }
    let compared = daemon.metric("tidemark_reconciled_balances_total", "").await?;
    ensure!(compared >= TRANSFERS, "only {compared} balances were compared with the chain");
    node.anvil.stop().await?;
    Ok(requests)
}
