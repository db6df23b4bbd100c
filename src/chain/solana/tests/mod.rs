//! The promises of the source, kept on a cluster in memory that can do what a real one cannot be made to do.

pub(crate) mod cluster;
mod endpoints;
mod history;
mod movements;
mod state;
mod websocket;

use std::{collections::BTreeMap, time::Duration};

use super::{SolanaSource, caip2};
use crate::{
    chain::{ChainName, Family, HistoryMethod, Settlement, SettlementTag},
    config::{ChainConfig, EndpointConfig, NativeCoin, Secret, Verification},
    metrics::Metrics,
};

pub(crate) fn endpoint(name: &str, url: &str, weight: u32) -> EndpointConfig {
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

pub(crate) fn config(endpoints: Vec<EndpointConfig>) -> ChainConfig {
    ChainConfig {
        name: ChainName::new("cluster"),
        family: Family::Solana,
        caip2: caip2(cluster::GENESIS),
        chain_id: 0,
        native: NativeCoin {
            symbol: "SOL".to_owned(),
            name: "Solana".to_owned(),
            decimals: 9,
            slip44: 501,
        },
        settlement: Settlement::Tag(SettlementTag::Finalized),
        endpoints,
        tokens: Vec::new(),
        verification: Verification::Full,
        history: HistoryMethod::Signatures,
        poll_interval: Duration::from_millis(10),
        lag_limit: Duration::from_mins(1),
        batch_blocks: 3,
        start_block: None,
        sweep_per_minute: 0,
        dropped_after: Duration::from_hours(1),
    }
}

fn source(endpoints: Vec<EndpointConfig>) -> SolanaSource {
    SolanaSource::new(&config(endpoints), Metrics::new()).expect("a source")
}
