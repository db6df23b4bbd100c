//! The promises of the source, kept on a cluster in memory that can do what a real one cannot be made to do.

pub(crate) mod cluster;
mod endpoints;
mod fuzz;
mod history;
mod movements;
mod opinions;
mod state;
mod websocket;

use super::{SolanaSource, caip2};
use crate::{
    chain::{Family, HistoryMethod},
    config::{
        ChainConfig, EndpointConfig, NativeCoin,
        testing::{chain, endpoint},
    },
    metrics::Metrics,
};

pub(crate) fn config(endpoints: Vec<EndpointConfig>) -> ChainConfig {
    ChainConfig {
        family: Family::Solana,
        caip2: caip2(cluster::GENESIS),
        chain_id: 0,
        native: NativeCoin {
            symbol: "SOL".to_owned(),
            name: "Solana".to_owned(),
            decimals: 9,
            slip44: 501,
        },
        endpoints,
        history: HistoryMethod::Signatures,
        ..chain("cluster")
    }
}

fn source(endpoints: Vec<EndpointConfig>) -> SolanaSource {
    SolanaSource::new(&config(endpoints), Metrics::new()).expect("a source")
}
