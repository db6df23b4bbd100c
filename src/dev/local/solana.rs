//! A Solana cluster of one, with a demo token.

use anyhow::Context as _;
use async_trait::async_trait;
use solana_commitment_config::CommitmentConfig;
use solana_keypair::Keypair;
use solana_pubkey::Pubkey;
use solana_signer::Signer as _;
use solana_system_interface::instruction as system;

use super::{Facts, Identity, Local};
use crate::{
    chain::{self, Family},
    config::{ChainConfig, NativeCoin},
    dev::{
        client::Customer,
        contracts,
        mint::{Mint, memo},
        screen,
        solana::Rpc,
        validator::{Options, Validator},
    },
};

const CHAIN: &str = "solana-local";
/// Blocks here are small.
const BATCH_BLOCKS: u64 = 8;
/// Base units of the demo token that there are to give away.
const SUPPLY: u64 = 1_000_000_000_000;
const TOKEN_DEPOSIT: u64 = 25_500_000;
const TOKEN_WITHDRAWAL: u64 = 10_000_000;
const COIN_DEPOSIT: u64 = 750_000_000;

pub(super) struct Solana {
    validator: Validator,
    rpc: Rpc,
    genesis: String,
    token: Mint,
    wallet: Keypair,
    stranger: Pubkey,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    TokenDeposit,
    CoinDeposit,
    TokenWithdrawal,
}

fn act(step: u64) -> Act {
    match step {
        step if step % 5 == 4 => Act::TokenWithdrawal,
        step if step % 2 == 0 => Act::CoinDeposit,
        _ => Act::TokenDeposit,
    }
}

impl Solana {
    pub(super) async fn start() -> anyhow::Result<Self> {
        screen::say("starting solana-test-validator and making a demo token");
        let validator = Validator::start(Options::default()).await?;
        let rpc = validator.rpc();
        let genesis = rpc.genesis_hash().await?;
        let token = Mint::create(&rpc, contracts::DEMO_DECIMALS).await?;
        let bank = rpc.bank().pubkey();
        let supply =
            [token.open(&bank, &bank), token.issue(&bank, &token.account_of(&bank), SUPPLY)];
        rpc.run(&supply, &[rpc.bank()]).await?;
        let (wallet, stranger) = (Keypair::new(), Keypair::new().pubkey());
        Ok(Self { validator, rpc, genesis, token, wallet, stranger })
    }

    async fn perform(&self, act: Act, step: u64) -> anyhow::Result<()> {
        let (bank, wallet) = (self.rpc.bank().pubkey(), self.wallet.pubkey());
        let (token, rpc) = (&self.token, &self.rpc);
        let order = format!("order {}", 4711 + step);
        match act {
            Act::CoinDeposit => {
                let pay = [system::transfer(&bank, &wallet, COIN_DEPOSIT), memo(&order)];
                let sent = rpc.run(&pay, &[rpc.bank()]).await.context("a deposit of the coin")?;
                let said = format!("sent 0.75 SOL ({order}) to the wallet in {}", sent.signature);
                screen::chain(&said);
            }
            Act::TokenDeposit => {
                let (from, to) = (token.account_of(&bank), token.account_of(&wallet));
                let pay = [
                    token.open(&bank, &wallet),
                    token.transfer(&bank, &from, &to, TOKEN_DEPOSIT),
                    memo(&order),
                ];
                let sent = rpc.run(&pay, &[rpc.bank()]).await.context("a deposit of the token")?;
                let said = format!("sent 25.5 DUSD ({order}) to the wallet in {}", sent.signature);
                screen::chain(&said);
            }
            Act::TokenWithdrawal => {
                let sure = CommitmentConfig::confirmed();
                let (held, _) = rpc.tokens(&wallet, &token.address, sure).await?;
                // The wallet pays the fee, and the stranger's account, with coins that it may not have yet.
                if held < TOKEN_WITHDRAWAL || rpc.lamports(&wallet, sure).await?.0 < COIN_DEPOSIT {
                    return Ok(());
                }
                let (from, to) = (token.account_of(&wallet), token.account_of(&self.stranger));
                let pay = [
                    token.open(&wallet, &self.stranger),
                    token.transfer(&wallet, &from, &to, TOKEN_WITHDRAWAL),
                ];
                let sent = rpc.run(&pay, &[&self.wallet]).await.context("a withdrawal")?;
                screen::chain(&format!("the wallet sent 10 DUSD away in {}", sent.signature));
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Local for Solana {
    fn config(&self) -> ChainConfig {
        Identity {
            name: CHAIN,
            family: Family::Solana,
            caip2: chain::solana::caip2(&self.genesis),
            chain_id: 0,
            native: NativeCoin {
                symbol: "SOL".to_owned(),
                name: "Solana".to_owned(),
                decimals: 9,
                slip44: 501,
            },
            url: self.validator.url(),
            ws: self.validator.ws_url(),
            token: chain::Address::from(self.token.address.to_bytes()),
            batch_blocks: BATCH_BLOCKS,
        }
        .config()
    }

    fn wallet(&self) -> String {
        self.wallet.pubkey().to_string()
    }

    fn facts(&self, _: &Customer) -> Facts {
        let (url, wallet) = (self.validator.url(), self.wallet());
        Facts {
            node: format!("{url} (solana-test-validator, a block every 120 milliseconds)"),
            token: self.token.address.to_string(),
            other: self.stranger.to_string(),
            command: format!(
                "curl -s {url} -H 'Content-Type: application/json' \\\n     -d \
                 '{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"requestAirdrop\",\"params\":[\"{wallet}\",1000000000]}}'"
            ),
        }
    }

    fn goals(&self) -> &'static [(&'static str, usize)] {
        &[("deposit.pending", 2), ("deposit.available", 2), ("withdrawal.settled", 1)]
    }

    async fn act(&self, step: u64, _: &Customer) -> anyhow::Result<()> {
        self.perform(act(step), step).await
    }

    /// Its chain is of no use to anyone afterwards: it is killed.
    async fn stop(self: Box<Self>) -> anyhow::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_ten_seconds_show_everything() {
        let first: Vec<Act> = (0..5).map(act).collect();
        for needed in [Act::CoinDeposit, Act::TokenDeposit, Act::TokenWithdrawal] {
            assert!(first.contains(&needed), "{needed:?}");
        }
    }
}
