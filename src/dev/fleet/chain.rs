//! A local chain of the show, with a demo token and wallets.

use std::{fmt::Write as _, time::Duration};

use alloy::primitives::{Address, U256, keccak256};
use anyhow::{Context as _, ensure};
use serde_json::json;

use super::super::{
    anvil::{Anvil, Mining, Options, Rpc},
    client::Customer,
    contracts,
};

/// The chains are numbered from here on.
const FIRST_ID: u64 = 31337;
const BLOCK_TIME: Duration = Duration::from_secs(1);
/// Blocks are final twice so many below the head.
const SLOTS_IN_AN_EPOCH: u64 = 1;

pub(super) struct LocalChain {
    pub name: String,
    pub wallets: Vec<Wallet>,
    id: u64,
    node: Anvil,
    token: Address,
    rich: Address,
}

pub(super) struct Wallet {
    pub address: Address,
    /// Whether it is watched: what it is paid from then on is told.
    pub active: bool,
}

impl LocalChain {
    pub(super) async fn start(number: u64) -> anyhow::Result<Self> {
        let id = FIRST_ID + number;
        let node = Anvil::start(Options {
            chain_id: Some(id),
            mining: Mining::Every(BLOCK_TIME),
            slots_in_an_epoch: Some(SLOTS_IN_AN_EPOCH),
            ..Options::default()
        })
        .await?;
        let accounts = node.rpc.accounts().await?;
        let rich = *accounts.first().context("Anvil has no accounts")?;
        let token = contracts::deploy_demo_token(&node.rpc, rich).await?;
        let name = format!("local-{}", number + 1);
        Ok(Self { name, wallets: Vec::new(), id, node, token, rich })
    }

    pub(super) fn rpc(&self) -> &Rpc {
        &self.node.rpc
    }

    /// The chain's tables in a daemon's configuration.
    pub(super) fn configuration(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            r#"
[chains.{name}]
family = "evm"
chain_id = {id}
settlement = "finalized"
poll_interval_ms = 250
lag_limit_seconds = 30
endpoints = [{{ name = "local-node", url = "{url}", ws = "{ws}" }}]

[[chains.{name}.tokens]]
contract = "{token}"
symbol = "{symbol}"
name = "{token_name}"
decimals = {decimals}
"#,
            name = self.name,
            id = self.id,
            url = self.rpc().url(),
            ws = self.rpc().ws_url(),
            token = self.token.to_checksum(None),
            symbol = contracts::DEMO_SYMBOL,
            token_name = contracts::DEMO_NAME,
            decimals = contracts::DEMO_DECIMALS,
        );
        text
    }

    /// Registers one more wallet; its address.
    pub(super) async fn register(&mut self, customer: &Customer) -> anyhow::Result<Address> {
        let number = self.wallets.len() + 1;
        let address = Address::from_word(keccak256(format!("customer {number} of {}", self.name)));
        let body = json!({"address": address, "chains": [self.name]});
        let key = format!("dev-{}-{number}", self.name);
        customer.post("/v1/wallets", &key, &body).await?;
        self.wallets.push(Wallet { address, active: false });
        Ok(address)
    }

    /// Asks whether the newest wallets are watched by now.
    pub(super) async fn look(&mut self, customer: &Customer) -> anyhow::Result<()> {
        for wallet in self.wallets.iter_mut().filter(|wallet| !wallet.active) {
            let path = format!("/v1/wallets/{}", wallet.address);
            wallet.active = customer.get(&path).await?["status"] == "active";
        }
        Ok(())
    }

    /// New tokens for one of the wallets, as a step has it; to whom they went.
    pub(super) async fn pay(&self, step: usize) -> anyhow::Result<Option<(Address, u64)>> {
        let active: Vec<Address> =
            self.wallets.iter().filter(|wallet| wallet.active).map(|w| w.address).collect();
        if active.is_empty() {
            return Ok(None);
        }
        let (to, amount) = (active[step % active.len()], 1 + u64::try_from(step)? % 40);
        let units = U256::from(amount) * U256::from(1_000_000);
        let mint = contracts::token_mint(self.token, self.rich, to, units);
        self.rpc().send(&mint).await.with_context(|| format!("a deposit on {}", self.name))?;
        Ok(Some((to, amount)))
    }

    /// What the chain itself says that a wallet has.
    pub(super) async fn balance(&self, wallet: Address) -> anyhow::Result<U256> {
        contracts::token_balance(self.rpc(), self.token, wallet).await
    }

    /// Whether a daemon has settled everything up to a block.
    pub(super) async fn is_settled(&self, customer: &Customer, block: u64) -> anyhow::Result<bool> {
        let chains = customer.get("/v1/chains").await?;
        let chains = chains["data"].as_array().context("no list of chains")?;
        let own = chains.iter().find(|chain| chain["name"] == *self.name);
        let settled = own.and_then(|chain| chain["settled"]["number"].as_u64());
        Ok(settled.is_some_and(|settled| settled >= block))
    }

    /// Compares what the ledger says of each wallet with the chain, and with what was told; how many there are.
    pub(super) async fn compare(
        &self,
        customer: &Customer,
        told: impl Fn(Address) -> U256,
    ) -> anyhow::Result<usize> {
        for &Wallet { address, .. } in &self.wallets {
            let balances = customer.get(&format!("/v1/wallets/{address}/balances")).await?;
            let all = balances["balances"].as_array().context("no balances")?;
            let own = all.iter().find(|one| one["asset"]["symbol"] == contracts::DEMO_SYMBOL);
            let available = own.and_then(|one| one["available"]["raw"].as_str()).unwrap_or("0");
            let available = U256::from_str_radix(available, 10)?;
            let (on_chain, told) = (self.balance(address).await?, told(address));
            ensure!(
                available == on_chain && told == on_chain,
                "{address} on {}: the chain says {on_chain}, the ledger {available}, and the events {told}",
                self.name
            );
        }
        Ok(self.wallets.len())
    }

    pub(super) async fn stop(self) -> anyhow::Result<()> {
        self.node.stop().await
    }
}
