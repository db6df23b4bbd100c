//! Recorded blocks, a scripted node, and the promises that are kept with them.
//!
//! The recorded blocks are a development node's: five transactions (a legacy one with value; two that log the
//! same transfer twice, one of them a burn; one that reverts; a creation), and the empty block after it.

mod arbitrum;
mod balances;
mod budgets;
mod corpus;
mod decoding;
mod derived;
mod endpoints;
mod envelope;
mod fuzz;
mod liars;
mod logs;
mod node;
mod opinions;
mod panics;
mod proofs;
mod retryables;
mod rollups;
mod safes;
mod signing;
mod sizes;
mod tokens;
mod traces;
mod tracing;
mod verification;
mod websocket;

use std::time::Duration;

use serde_json::Value;

use super::{
    coin::Coin,
    json::{self, Receipt},
    verify::{Checker, FullBlock},
};
use crate::{
    chain::{Block, ChainName, rpc::Failure},
    config::{
        ChainConfig, EndpointConfig, Verification,
        testing::{chain, endpoint},
    },
    metrics::Metrics,
};

fn mixed_block() -> Value {
    serde_json::from_str(include_str!("mixed_block.json")).expect("a recorded block")
}

fn mixed_receipts() -> Value {
    serde_json::from_str(include_str!("mixed_receipts.json")).expect("recorded receipts")
}

fn empty_block() -> Value {
    serde_json::from_str(include_str!("empty_block.json")).expect("a recorded block")
}

fn checker(verification: Verification) -> Checker {
    Checker {
        chain: ChainName::new("anvil"),
        chain_id: 31_337,
        verification,
        metrics: Metrics::new(),
    }
}

fn coin() -> Coin {
    Coin::new(&config(Vec::new()))
}

/// A block as the source takes it in.
fn told(checker: &Checker, block: &Value) -> FullBlock {
    let text = block.to_string();
    let block: json::Block<Vec<json::Transaction<'_>>> =
        serde_json::from_str(&text).expect("a block");
    checker.told(block)
}

/// What the source makes of a block that is read by itself, and its receipts.
fn read(checker: &Checker, block: &Value, receipts: &Value) -> Result<Block, Failure> {
    read_as(&coin(), checker, block, receipts)
}

fn read_as(
    coin: &Coin,
    checker: &Checker,
    block: &Value,
    receipts: &Value,
) -> Result<Block, Failure> {
    let text = receipts.to_string();
    let receipts: Vec<Receipt<'_>> = serde_json::from_str(&text).expect("receipts");
    let block = super::fetch::checked(checker, coin, &told(checker, block), &receipts)?;
    checker.senders(&block)?;
    Ok(block)
}

fn config(endpoints: Vec<EndpointConfig>) -> ChainConfig {
    ChainConfig {
        caip2: "eip155:31337".to_owned(),
        chain_id: 31337,
        endpoints,
        poll_interval: Duration::from_secs(1),
        batch_blocks: 100,
        ..chain("anvil")
    }
}
