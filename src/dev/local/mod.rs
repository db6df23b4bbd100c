//! What is shown: a local chain with a wallet on it, and what happens there, every two seconds one thing.
//!
//! One file per family; the stage around it is the same for all.

mod evm;
mod solana;

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;

use super::client::Customer;
use crate::{
    chain::{Address, ChainName, Family, Settlement, SettlementTag},
    config::{
        ChainConfig, DifferenceLimits, EndpointConfig, NativeCoin, Secret, TokenConfig, Tracing,
        Verification,
    },
};

const PAUSE: Duration = Duration::from_secs(2);

/// A local chain, ready for the show.
#[async_trait]
pub(super) trait Local: Send + Sync {
    /// What the daemon is told of it.
    fn config(&self) -> ChainConfig;

    /// The address to be registered.
    fn wallet(&self) -> String;

    fn facts(&self, customer: &Customer) -> Facts;

    /// How often, in webhooks whose signature was right, each type of event must have come before everything
    /// has happened once.
    fn goals(&self) -> &'static [(&'static str, usize)];

    /// Makes the thing happen that is due at a step, from 0 on.
    async fn act(&self, step: u64, customer: &Customer) -> anyhow::Result<()>;

    async fn stop(self: Box<Self>) -> anyhow::Result<()>;
}

/// What the introduction says of a chain.
pub(super) struct Facts {
    pub node: String,
    pub token: String,
    /// Another address, for the user's first registration.
    pub other: String,
    /// A command that only this family has.
    pub command: String,
}

/// Starts a local chain of a family.
///
/// # Errors
/// What is missing on the machine, with what to do.
pub(super) async fn start(family: Family) -> anyhow::Result<Box<dyn Local>> {
    Ok(match family {
        Family::Evm => Box::new(evm::Ethereum::start().await?),
        Family::Solana => Box::new(solana::Solana::start().await?),
    })
}

/// Goes on until it is dropped.
///
/// # Errors
/// When the node or the daemon refuses something.
pub(super) async fn traffic(local: &dyn Local, customer: &Customer) -> anyhow::Result<()> {
    let mut ticks = tokio::time::interval(PAUSE);
    for step in 0.. {
        ticks.tick().await;
        local.act(step, customer).await?;
    }
    Ok(())
}

/// What differs between the configurations of local chains.
struct Identity {
    name: &'static str,
    family: Family,
    caip2: String,
    chain_id: u64,
    native: NativeCoin,
    url: String,
    ws: String,
    token: Address,
    batch_blocks: u64,
}

impl Identity {
    /// With the demo token as money, settled when the node calls it final.
    fn config(self) -> ChainConfig {
        let endpoint = EndpointConfig {
            name: "local-node".to_owned(),
            url: Secret::new(self.url),
            ws: Some(Secret::new(self.ws)),
            weight: 1,
            max_requests_per_second: None,
            max_requests_per_day: None,
            headers: BTreeMap::new(),
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            max_response_bytes: 64 * 1024 * 1024,
            max_batch: 100,
            tracing: Tracing::None,
        };
        ChainConfig {
            name: ChainName::new(self.name),
            family: self.family,
            caip2: self.caip2,
            chain_id: self.chain_id,
            native: self.native,
            settlement: Settlement::Tag(SettlementTag::Finalized),
            quorum: 1,
            tiers: Vec::new(),
            endpoints: vec![endpoint],
            tokens: vec![TokenConfig {
                contract: self.token,
                symbol: super::contracts::DEMO_SYMBOL.to_owned(),
                name: super::contracts::DEMO_NAME.to_owned(),
                decimals: super::contracts::DEMO_DECIMALS,
                wraps_native: false,
                destroys_funds: false,
            }],
            verification: Verification::Full,
            history: self.family.history_methods()[0],
            poll_interval: Duration::from_millis(250),
            lag_limit: Duration::from_secs(30),
            settlement_limit: Duration::from_hours(1),
            batch_blocks: self.batch_blocks,
            start_block: None,
            dropped_after: Duration::from_mins(10),
            sweep_per_minute: 600,
            differences: DifferenceLimits { count: 100, percent: 25 },
            worthless_transfers: 10,
            safes_per_owner: 1_000,
        }
    }
}
