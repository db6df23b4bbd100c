//! Recorded blocks, a scripted node, and the promises that are kept with them.
//!
//! The recorded blocks are a development node's: five transactions (a legacy one with value; two that log the
//! same transfer twice, one of them a burn; one that reverts; a creation), and the empty block after it.

mod balances;
mod decoding;
mod endpoints;
mod logs;
mod node;
mod panics;
mod safes;
mod verification;
mod websocket;

use std::{collections::BTreeMap, time::Duration};

use serde_json::Value;

use super::{
    json::Receipt,
    verify::{Checker, FullBlock},
};
use crate::{
    chain::{Block, ChainName, Family, HistoryMethod, Settlement, SettlementTag, rpc::Failure},
    config::{ChainConfig, EndpointConfig, NativeCoin, Secret, Verification},
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
    Checker { chain: ChainName::new("anvil"), verification, metrics: Metrics::new() }
}

/// What the source makes of a block and its receipts.
fn read(checker: &Checker, block: &Value, receipts: &Value) -> Result<Block, Failure> {
    let block: FullBlock = serde_json::from_str(&block.to_string()).expect("a block");
    let text = receipts.to_string();
    let receipts: Vec<Receipt<'_>> = serde_json::from_str(&text).expect("receipts");
    super::fetch::checked(checker, &block, &receipts)
}

fn endpoint(name: &str, url: &str, weight: u32) -> EndpointConfig {
    EndpointConfig {
        name: name.to_owned(),
        url: Secret::new(url),
        ws: None,
        weight,
        max_requests_per_second: None,
        headers: BTreeMap::new(),
        connect_timeout: Duration::from_secs(1),
        request_timeout: Duration::from_secs(2),
        max_response_bytes: 1 << 20,
        max_batch: 100,
    }
}

fn config(endpoints: Vec<EndpointConfig>) -> ChainConfig {
    ChainConfig {
        name: ChainName::new("anvil"),
        family: Family::Evm,
        caip2: "eip155:31337".to_owned(),
        chain_id: 31337,
        native: NativeCoin {
            symbol: "ETH".to_owned(),
            name: "Ether".to_owned(),
            decimals: 18,
            slip44: 60,
        },
        settlement: Settlement::Tag(SettlementTag::Finalized),
        endpoints,
        tokens: Vec::new(),
        verification: Verification::Full,
        history: HistoryMethod::Blocks,
        poll_interval: Duration::from_secs(1),
        lag_limit: Duration::from_mins(1),
        batch_blocks: 100,
        start_block: None,
        dropped_after: Duration::from_hours(1),
        sweep_per_minute: 0,
    }
}
