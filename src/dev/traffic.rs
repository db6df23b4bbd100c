//! What happens on the local chain, every two seconds one thing.

use std::time::Duration;

use alloy::primitives::{U256, utils::parse_ether};
use anyhow::{Context as _, ensure};
use serde_json::json;

use super::{
    anvil::Request,
    contracts::{self, SafeSetup},
    screen,
    stage::{CHAIN, Scene},
};

const PAUSE: Duration = Duration::from_secs(2);
/// After so many things it begins again.
const ROUND: u64 = 20;

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

/// Goes on until it is dropped.
///
/// # Errors
/// When the node or the daemon refuses something.
pub(super) async fn run(scene: &Scene) -> anyhow::Result<()> {
    let mut ticks = tokio::time::interval(PAUSE);
    for step in 0.. {
        ticks.tick().await;
        perform(scene, act(step), step).await?;
    }
    Ok(())
}

async fn perform(scene: &Scene, act: Act, step: u64) -> anyhow::Result<()> {
    let rpc = &scene.rpc;
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
            let tracked = scene
                .customer
                .post("/v1/safe-deployments", &format!("dev-safe-{step}"), &body)
                .await?;
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
