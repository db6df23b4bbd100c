//! Solana: whatever a transaction does, the ledger says what the validator says.

use solana_signer::Signer as _;

use crate::harness::{
    Daemon, on_both_stores,
    solana::{SOL, Solana},
};

on_both_stores! {
    async fn a_deposit_of_sol_is_pending_when_confirmed_and_available_when_finalized(store) {
        let chain = Solana::shared().await;
        let daemon = Daemon::start_with(chain.settings(&store)).await;
        let api = daemon.customer("acme").await;
        let wallet = solana_keypair::Keypair::new().pubkey();
        api.watch(wallet).await;
        let landed = chain.rpc.fund(&wallet, SOL).await.unwrap();
        let event = api.event("deposit.pending").await;
        assert_eq!(event["data"]["transfer"]["txHash"], landed.signature);
        let event = api.event("deposit.available").await;
        eprintln!("{event:#}");
        eprintln!("{}", daemon.log());
    }
}
