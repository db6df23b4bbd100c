//! Money that no transaction moves.

use serde_json::{Value, json};
use solana_client::rpc_request::RpcRequest;
use solana_signer::Signer as _;
use solana_system_interface::instruction as system;
use tidemark::dev::validator::Options;

use crate::harness::{
    Daemon, on_both_stores,
    solana::{Chain, SOL, Witness},
};

const STAKE: &str = "Stake11111111111111111111111111111111111111";

on_both_stores! {
    async fn votes_fees_and_staking_rewards_of_a_validator_are_booked(store) {
        let epoch = 64;
        let options = Options { slots_per_epoch: Some(epoch), ..Options::default() };
        let chain = Chain::start_with(options).await;
        let rpc = chain.validator.rpc();
        let daemon = Daemon::start_with(chain.settings(&store)).await;
        let api = daemon.customer("acme").await;
        let identity = rpc.client().get_identity().await.unwrap();
        // What it has staked; there is one such account from the start.
        let accounts: Value = rpc
            .client()
            .send(RpcRequest::GetProgramAccounts, json!([STAKE, {"encoding": "base64"}]))
            .await
            .unwrap();
        let stake = accounts[0]["pubkey"].as_str().unwrap().parse().unwrap();
        let wallets = [identity, stake];
        for wallet in wallets {
            api.watch(wallet).await;
        }
        let witness = Witness::of(&chain, &rpc, &wallets);
        let bank = rpc.bank();
        let mut slot = 0;
        while slot < 2 * epoch + 10 {
            let pay = system::transfer(&bank.pubkey(), &identity, SOL + slot);
            slot = rpc.run(&[pay], &[bank]).await.unwrap().slot;
        }
        witness.agrees_at_every_slot(&api, slot).await;
        for wallet in wallets {
            let transfers = api.transfers(wallet).await;
            let rewards = transfers.iter().filter(|transfer| transfer["kind"] == "reward").count();
            assert!(rewards > 0, "{wallet}: {transfers:#?}");
        }
    }
}
