//! A chain's configuration for tests, each of which changes what it is about.

use std::{collections::BTreeMap, time::Duration};

use super::{
    ChainConfig, DifferenceLimits, EndpointConfig, NativeCoin, Secret, Tracing, Verification,
};
use crate::chain::{ChainName, Family, HistoryMethod, Settlement, SettlementTag};

/// An EVM chain without endpoints and tokens that settles what its node calls final.
pub(crate) fn chain(name: &str) -> ChainConfig {
    ChainConfig {
        name: ChainName::new(name),
        family: Family::Evm,
        caip2: "eip155:1".to_owned(),
        chain_id: 1,
        native: NativeCoin {
            symbol: "ETH".to_owned(),
            name: "Ether".to_owned(),
            decimals: 18,
            slip44: 60,
        },
        settlement: Settlement::Tag(SettlementTag::Finalized),
        tiers: Vec::new(),
        endpoints: Vec::new(),
        quorum: 1,
        tokens: Vec::new(),
        verification: Verification::Full,
        history: HistoryMethod::Blocks,
        poll_interval: Duration::from_millis(10),
        lag_limit: Duration::from_mins(1),
        settlement_limit: Duration::from_hours(1),
        batch_blocks: 3,
        start_block: None,
        dropped_after: Duration::from_hours(1),
        sweep_per_minute: 0,
        differences: DifferenceLimits { count: 100, percent: 25 },
        worthless_transfers: 10,
        safes_per_owner: 3,
    }
}

pub(crate) fn endpoint(name: &str, url: &str, weight: u32) -> EndpointConfig {
    EndpointConfig {
        name: name.to_owned(),
        url: Secret::new(url),
        ws: None,
        weight,
        max_requests_per_second: None,
        max_requests_per_day: None,
        headers: BTreeMap::new(),
        connect_timeout: Duration::from_secs(1),
        request_timeout: Duration::from_secs(2),
        max_response_bytes: 1 << 20,
        max_batch: 100,
        tracing: Tracing::None,
    }
}
