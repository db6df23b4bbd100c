//! Blocks of a recorded node, from the first one asked for to the last one committed.

use std::time::{Duration, Instant};

use alloy::primitives::{Address, U256};
use anyhow::{Context as _, ensure};

use super::{
    Figure, Goal,
    daemon::{Daemon, Prepared},
    http::Connection,
    recorded::{Chain, Node, Transfer},
    seed,
};

const PROBE: Duration = Duration::from_millis(5);
const TOKENS: u8 = 20;
const REGISTERED: u64 = 100_000;
const NEAR_EMPTY_BLOCKS: u64 = 20_000;
const FULL_BLOCKS: u64 = 600;
const TRANSACTIONS: u64 = 100;
const LOGS_PER_TRANSACTION: u64 = 2;

/// The contract of the n-th token; the first is the configured one.
fn token(n: u8) -> Address {
    Address::repeat_byte(0xa0 + n)
}

/// Blocks with one payment of the native coin each.
pub async fn near_empty_blocks() -> anyhow::Result<Vec<Figure>> {
    let mut chain = Chain::new();
    for _ in 0..NEAR_EMPTY_BLOCKS {
        chain.push(&[Vec::new()]);
    }
    let seconds = follow(chain, 1000).await?.as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a count of blocks")]
    let rate = NEAR_EMPTY_BLOCKS as f64 / seconds;
    let what = format!("catch-up: {NEAR_EMPTY_BLOCKS} blocks of one transaction");
    Ok(vec![Figure::new(what, rate, "blocks/s").with_goal(Goal::AtLeast(2000.0))])
}

/// Blocks full of token transfers, of which `share` go to registered addresses.
pub async fn transfer_logs(share: f64) -> anyhow::Result<Vec<Figure>> {
    let mut chain = Chain::new();
    let mut count = 0_u64;
    let (mut matched, mut due) = (0_u64, 0.0);
    for _ in 0..FULL_BLOCKS {
        let mut transactions = Vec::new();
        for _ in 0..TRANSACTIONS {
            let mut transfers = Vec::new();
            for _ in 0..LOGS_PER_TRANSACTION {
                count += 1;
                due += share;
                let is_match = due >= 1.0;
                let kind = u8::try_from(count % u64::from(TOKENS))?;
                let (token, to) = if is_match {
                    due -= 1.0;
                    matched += 1;
                    (token(0), seed::address(count * 7919 % REGISTERED))
                } else {
                    (token(kind), seed::address(REGISTERED + count))
                };
                transfers.push(Transfer {
                    token,
                    from: Address::from(seed::address(2 * REGISTERED + count)),
                    to: Address::from(to),
                    value: U256::from(count),
                });
            }
            transactions.push(transfers);
        }
        chain.push(&transactions);
    }
    let seconds = follow(chain, REGISTERED).await?.as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a count of logs")]
    let rate = count as f64 / seconds;
    let what = format!(
        "scan: {count} transfer logs, {matched} ({} %) of {REGISTERED} addresses",
        share * 100.0
    );
    Ok(vec![Figure::new(what, rate, "logs/s").with_goal(Goal::AtLeast(30_000.0))])
}

async fn follow(chain: Chain, registered: u64) -> anyhow::Result<Duration> {
    let (head, genesis) = (chain.head(), chain.genesis());
    let node = Node::start(chain).await?;
    let prepared = Prepared::new(&node.url, false, &token(0).to_checksum(None)).await?;
    seed::wallets(&prepared, &genesis, registered, false).await?;
    let daemon = prepared.start().await?;
    let done = reached(&daemon, head).await?;
    let begun = node.begun().context("no block was asked for")?;
    Ok(done.duration_since(begun))
}

/// When the daemon says that it has applied this block.
async fn reached(daemon: &Daemon, head: u64) -> anyhow::Result<Instant> {
    let mut connection = Connection::open(&daemon.address).await?;
    loop {
        let answer = connection.get("/v1/chains", &daemon.key).await?;
        ensure!(answer.status == 200, "{}", String::from_utf8_lossy(answer.body));
        if answer.contains(&format!("\"head\":{{\"number\":{head},")) {
            return Ok(Instant::now());
        }
        tokio::time::sleep(PROBE).await;
    }
}
