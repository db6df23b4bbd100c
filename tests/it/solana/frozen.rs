//! What an issuer has frozen.

use alloy::primitives::U256;
use solana_keypair::Keypair;
use solana_signer::Signer as _;

use crate::harness::{
    on_both_stores,
    solana::{SOL, Solana, Witness},
};

on_both_stores! {
    async fn tokens_in_a_frozen_account_are_frozen_until_it_is_thawed(store) {
        let chain = Solana::shared().await;
        let (_daemon, api) = chain.daemon(&store).await;
        let key = chain.somebody(SOL).await;
        let wallet = key.pubkey();
        let (mint, bank) = (chain.token, chain.rpc.bank());
        api.watch(wallet).await;
        let witness = Witness::of(&chain, &chain.rpc, &[wallet]);
        // Two accounts, of which one is frozen.
        chain.issue(&mint, &wallet, 1_000).await;
        let extra = Keypair::new();
        let mut instructions =
            mint.open_at(&chain.rpc, &bank.pubkey(), &extra.pubkey(), &wallet).await.unwrap().to_vec();
        instructions.push(mint.issue(&bank.pubkey(), &extra.pubkey(), 300));
        chain.rpc.run(&instructions, &[bank, &extra]).await.unwrap();
        api.balance_becomes(wallet, "DUSD", "settlement", |b| b.available == U256::from(1_300)).await;
        let freeze = mint.freeze(&bank.pubkey(), &extra.pubkey());
        let frozen = chain.rpc.run(&[freeze], &[bank]).await.unwrap();
        let balance = api
            .balance_becomes(wallet, "DUSD", "the frozen part", |balance| !balance.frozen.is_zero())
            .await;
        assert_eq!((balance.frozen, balance.available), (U256::from(300), U256::from(1_000)));
        witness.agrees(&api, frozen.slot).await;
        let thawed = chain.rpc.run(&[mint.thaw(&bank.pubkey(), &extra.pubkey())], &[bank]).await.unwrap();
        let balance = api
            .balance_becomes(wallet, "DUSD", "the end of it", |balance| balance.frozen.is_zero())
            .await;
        assert_eq!(balance.available, U256::from(1_300));
        witness.agrees(&api, thawed.slot).await;
    }

    async fn what_is_frozen_when_a_watch_begins_is_frozen_from_the_start(store) {
        let chain = Solana::shared().await;
        let (_daemon, api) = chain.daemon(&store).await;
        let wallet = Keypair::new().pubkey();
        let (mint, bank) = (chain.token, chain.rpc.bank());
        chain.issue(&mint, &wallet, 1_000).await;
        let freeze = mint.freeze(&bank.pubkey(), &mint.account_of(&wallet));
        let frozen = chain.rpc.run(&[freeze], &[bank]).await.unwrap();
        chain.rpc.finalized(frozen.slot).await.unwrap();
        api.watch(wallet).await;
        let balance = api
            .balance_becomes(wallet, "DUSD", "settlement", |balance| balance.pending.is_zero())
            .await;
        assert_eq!((balance.frozen, balance.available), (U256::from(1_000), U256::ZERO));
    }
}
