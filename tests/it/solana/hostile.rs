//! What anybody can put into a block or answer, beside an honest deposit that must be there in time.

use std::collections::BTreeSet;

use alloy::primitives::U256;
use serde_json::{Value, json};
use solana_client::rpc_request::RpcRequest;
use solana_keypair::Keypair;
use solana_signer::Signer as _;
use tidemark::dev::mint::{Mint, memo};

use crate::harness::{
    Api, Daemon, Liar, Lie, on_both_stores,
    solana::{SOL, Solana},
};

/// How often the three transactions are sent until one block holds them, in their order.
const TRIES: usize = 40;

/// An honest deposit comes, and is available in time.
async fn an_honest_deposit_is_available(api: &Api, chain: &Solana) {
    let wallet = Keypair::new().pubkey();
    api.watch(wallet).await;
    let deposit = chain.issue(&chain.token, &wallet, 77).await;
    api.event_of("deposit.available", &deposit.signature).await;
    assert_eq!(api.balance(wallet, "DUSD").await.available, U256::from(77));
}

/// Uses a token account, closes its mint and uses the account again, all in one block, in which the validator
/// then lists a balance of the account once and then no more; gives the slot.
async fn close_a_mint_in_use(chain: &Solana) -> u64 {
    let key = chain.somebody(SOL).await;
    let owner = key.pubkey();
    for _ in 0..TRIES {
        let mint = Mint::create_closable(&chain.rpc, 6, &owner).await.unwrap();
        let account = mint.account_of(&owner);
        chain.rpc.run(&[mint.open(&owner, &owner)], &[&key]).await.unwrap();
        let steps = [
            mint.approve(&owner, &account, &chain.rpc.bank().pubkey(), 1),
            mint.close_mint(&owner),
            mint.revoke(&owner, &account),
        ];
        let mut sent = Vec::new();
        for step in steps {
            sent.push(chain.rpc.send(&[step], &[&key]).await.unwrap());
        }
        let mut slots = BTreeSet::new();
        let mut signatures = Vec::new();
        for signature in sent {
            let landed = chain.rpc.landed(signature).await.unwrap();
            slots.insert(landed.slot);
            signatures.push(landed.signature);
        }
        let slot = *slots.first().unwrap();
        if slots.len() == 1 && lists(chain, slot, &signatures).await == [true, false, false] {
            return slot;
        }
    }
    panic!("no block held all three in their order");
}

/// Whether a block lists a token balance before each of these transactions.
async fn lists(chain: &Solana, slot: u64, signatures: &[String]) -> Vec<bool> {
    let details = json!({
        "encoding": "json", "transactionDetails": "accounts", "rewards": false,
        "commitment": "confirmed", "maxSupportedTransactionVersion": 1,
    });
    let block: Value =
        chain.rpc.client().send(RpcRequest::GetBlock, json!([slot, details])).await.unwrap();
    let transactions = block["transactions"].as_array().unwrap();
    let listed = |signature: &String| {
        let found = transactions.iter().find(|tx| tx["transaction"]["signatures"][0] == *signature);
        let balances = found.unwrap()["meta"]["preTokenBalances"].as_array();
        balances.is_some_and(|balances| !balances.is_empty())
    };
    signatures.iter().map(listed).collect()
}

on_both_stores! {
    async fn a_mint_that_is_closed_while_its_account_is_in_use_holds_nobody_up(store) {
        let chain = Solana::shared().await;
        let (mut daemon, api) = chain.daemon(&store).await;
        an_honest_deposit_is_available(&api, &chain).await;
        close_a_mint_in_use(&chain).await;
        an_honest_deposit_is_available(&api, &chain).await;
        // The same block again, from the node's history, and others like it.
        daemon.kill_9().await;
        close_a_mint_in_use(&chain).await;
        daemon.begin().await;
        daemon.ready().await;
        an_honest_deposit_is_available(&api, &chain).await;
    }

    async fn all_the_tokens_there_can_be_of_no_worth_and_a_memo_of_nothing_hold_nobody_up(store) {
        let chain = Solana::shared().await;
        let (_daemon, api) = chain.daemon(&store).await;
        let wallet = Keypair::new().pubkey();
        api.watch(wallet).await;
        for _ in 0..2 {
            let junk = Mint::create(&chain.rpc, 255).await.unwrap();
            chain.issue(&junk, &wallet, u64::MAX).await;
        }
        let bank = chain.rpc.bank();
        let pay = solana_system_interface::instruction::transfer(&bank.pubkey(), &wallet, SOL);
        let paid = chain.rpc.run(&[memo("\0"), pay, memo("\u{202e}\0\\u0000")], &[bank]).await.unwrap();
        an_honest_deposit_is_available(&api, &chain).await;
        api.event_of("deposit.available", &paid.signature).await;
        assert_eq!(api.balance(wallet, "SOL").await.available, U256::from(SOL));
    }

    async fn a_mint_that_the_node_denies_after_a_restart_takes_nothing_and_holds_nothing_up(store) {
        let chain = Solana::shared().await;
        let liar = Liar::before(&chain.validator.url()).await;
        let mut settings = chain.settings(&store);
        settings.node_url = liar.url();
        let mut daemon = Daemon::start_with(settings).await;
        let api = daemon.customer("acme").await;
        let wallet = Keypair::new().pubkey();
        api.watch(wallet).await;
        let first = chain.issue(&chain.token, &wallet, 500).await;
        api.event_of("deposit.available", &first.signature).await;
        // What was learnt of the mint was in memory only.
        daemon.terminate().await;
        let nothing = json!({"context": {"slot": first.slot}, "value": null});
        liar.lie("getAccountInfo", Lie::Result(nothing));
        daemon.begin().await;
        daemon.ready().await;
        let second = chain.issue(&chain.token, &wallet, 77).await;
        api.event_of("deposit.available", &second.signature).await;
        an_honest_deposit_is_available(&api, &chain).await;
        let balance = api.balance(wallet, "DUSD").await;
        assert_eq!((balance.total, balance.available), (U256::from(577), U256::from(577)));
        let transfers = api.transfers(wallet).await;
        assert_eq!(transfers.len(), 2, "nothing was booked besides: {transfers:#?}");
    }
}
