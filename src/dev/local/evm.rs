//! An Ethereum chain with the real Safe and a demo token.

use std::time::Duration;

use alloy::primitives::{Address, U256, keccak256, utils::parse_ether};
use anyhow::{Context as _, ensure};
use async_trait::async_trait;
use serde_json::json;

use super::{Facts, Identity, Local};
use crate::{
    chain::{self, Family},
    config::{ChainConfig, NativeCoin},
    dev::{
        anvil::{Anvil, Mining, Options, Request, Rpc},
        client::Customer,
        contracts::{self, SafeContracts, SafeSetup},
        npm::Packages,
        screen,
    },
};

const CHAIN: &str = "local";
const CHAIN_ID: u64 = 31337;
const BLOCK_TIME: Duration = Duration::from_secs(1);
/// Blocks are final this many below the head: twice the slots of an epoch.
const SLOTS_IN_AN_EPOCH: u64 = 1;
/// After so many things it begins again.
const ROUND: u64 = 20;

pub(super) struct Ethereum {
    node: Anvil,
    /// The node's own rich accounts.
    accounts: Vec<Address>,
    token: Address,
    safe: SafeContracts,
    /// The registered address. Nobody has its key: the node sends for it all the same.
    wallet: Address,
}

impl Ethereum {
    pub(super) async fn start() -> anyhow::Result<Self> {
        let packages = Packages::install().await?;
        screen::say("starting Anvil and deploying Safe 1.4.1 and a demo token");
        let node = Anvil::start(Options {
            chain_id: Some(CHAIN_ID),
            mining: Mining::Every(BLOCK_TIME),
            slots_in_an_epoch: Some(SLOTS_IN_AN_EPOCH),
            ..Options::default()
        })
        .await?;
        let rpc = &node.rpc;
        let accounts = rpc.accounts().await?;
        let deployer = *accounts.first().context("Anvil has no accounts")?;
        let safe = contracts::deploy_safe_1_4_1(rpc, deployer, &packages.modules()).await?;
        let token = contracts::deploy_demo_token(rpc, deployer).await?;
        let wallet = Address::from_word(keccak256("a customer of tidemark dev"));
        rpc.impersonate(wallet).await?;
        Ok(Self { node, accounts, token, safe, wallet })
    }

    fn rpc(&self) -> &Rpc {
        &self.node.rpc
    }
}

#[async_trait]
impl Local for Ethereum {
    fn config(&self) -> ChainConfig {
        Identity {
            name: CHAIN,
            family: Family::Evm,
            caip2: format!("eip155:{CHAIN_ID}"),
            chain_id: CHAIN_ID,
            native: NativeCoin {
                symbol: "ETH".to_owned(),
                name: "Ether".to_owned(),
                decimals: 18,
                slip44: 60,
            },
            url: self.rpc().url().to_owned(),
            ws: self.rpc().ws_url(),
            token: chain::Address::from(self.token.into_array()),
            batch_blocks: 100,
        }
        .config()
    }

    fn wallet(&self) -> String {
        self.wallet.to_checksum(None)
    }

    fn facts(&self, customer: &Customer) -> Facts {
        let (base, key) = (customer.base(), customer.key());
        Facts {
            node: format!("{} (Anvil, a block every second)", self.rpc().url()),
            token: self.token.to_checksum(None),
            other: self.accounts.get(2).copied().unwrap_or_default().to_checksum(None),
            command: format!("curl -s -H 'X-API-Key: {key}' {base}/v1/safe-deployments"),
        }
    }

    /// Of the two Safes one is found by its owner and one tracked by its transaction.
    fn goals(&self) -> &'static [(&'static str, usize)] {
        &[("deposit.pending", 1), ("deposit.available", 1), ("safe_deployment.completed", 2)]
    }

    async fn act(&self, step: u64, customer: &Customer) -> anyhow::Result<()> {
        perform(self, customer, act(step), step).await
    }

    async fn stop(self: Box<Self>) -> anyhow::Result<()> {
        self.node.stop().await
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    TokenDeposit,
    CoinDeposit,
    TokenWithdrawal,
    SafeOfOwner,
    SafeByTransaction,
}

/// The Safes come early, so that the first minute shows everything; then money comes and goes.
fn act(step: u64) -> Act {
    match step % ROUND {
        1 => Act::SafeOfOwner,
        3 => Act::SafeByTransaction,
        step if step % 5 == 4 => Act::TokenWithdrawal,
        step if step % 2 == 0 => Act::TokenDeposit,
        _ => Act::CoinDeposit,
    }
}

async fn perform(scene: &Ethereum, customer: &Customer, act: Act, step: u64) -> anyhow::Result<()> {
    let rpc = scene.rpc();
    let [rich, stranger, ..] = scene.accounts[..] else {
        anyhow::bail!("Anvil has too few accounts")
    };
    match act {
        Act::TokenDeposit => {
            let amount = U256::from(25_500_000);
            let sent = rpc
                .send(&contracts::token_mint(scene.token, rich, scene.wallet, amount))
                .await
                .context("a deposit of the demo token")?;
            screen::chain(&format!("sending 25.5 DUSD to the wallet in {sent}"));
        }
        Act::CoinDeposit => {
            let sent = rpc
                .send(&Request::pay(rich, scene.wallet, parse_ether("0.75")?))
                .await
                .context("a deposit of the coin")?;
            screen::chain(&format!("sending 0.75 ETH to the wallet in {sent}"));
        }
        Act::TokenWithdrawal => {
            let amount = U256::from(10_000_000);
            // The wallet pays the fee with coins that it may not have yet.
            if rpc.balance(scene.wallet).await?.is_zero()
                || contracts::token_balance(rpc, scene.token, scene.wallet).await? < amount
            {
                return Ok(());
            }
            let sent = rpc
                .send(&contracts::token_transfer(scene.token, scene.wallet, stranger, amount))
                .await
                .context("a withdrawal")?;
            screen::chain(&format!("the wallet sends 10 DUSD away in {sent}"));
        }
        Act::SafeOfOwner => {
            let setup = SafeSetup { owners: vec![scene.wallet], threshold: 1, salt_nonce: step };
            let deployment = scene.safe.deployment(rpc, rich, &setup).await?;
            rpc.send(&deployment.request).await.context("a Safe of the wallet")?;
            screen::chain(&format!(
                "deploying the Safe {}, whose owner is the wallet; the daemon is not told",
                deployment.address
            ));
        }
        Act::SafeByTransaction => {
            let setup = SafeSetup { owners: vec![rich, stranger], threshold: 2, salt_nonce: step };
            let deployment = scene.safe.deployment(rpc, rich, &setup).await?;
            let sent = rpc.send(&deployment.request).await.context("a Safe of strangers")?;
            screen::chain(&format!(
                "deploying the Safe {} in {sent}; the daemon is told the transaction",
                deployment.address
            ));
            let body = json!({"chain": CHAIN, "txHash": sent});
            let tracked =
                customer.post("/v1/safe-deployments", &format!("dev-safe-{step}"), &body).await?;
            ensure!(tracked["id"].is_string(), "a tracked deployment has no id: {tracked}");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_ten_seconds_show_everything() {
        let first: Vec<Act> = (0..6).map(act).collect();
        for needed in [
            Act::TokenDeposit,
            Act::SafeOfOwner,
            Act::SafeByTransaction,
            Act::TokenWithdrawal,
            Act::CoinDeposit,
        ] {
            assert!(first.contains(&needed), "{needed:?}");
        }
    }
}
