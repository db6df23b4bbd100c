//! Money comes and goes: pending when confirmed, available when finalized.

use alloy::primitives::U256;
use solana_commitment_config::CommitmentConfig;
use solana_keypair::Keypair;
use solana_pubkey::Pubkey;
use solana_signer::Signer as _;
use solana_system_interface::instruction as system;
use tidemark::dev::mint::memo;

use crate::harness::{
    Api, Receiver, on_both_stores,
    solana::{SOL, Solana, Witness, of_transaction},
};

/// What is told of the deposit `signature` by webhook, first when it is confirmed, then when it is final.
async fn told(chain: &Solana, receiver: &Receiver, signature: &str, slot: u64, raw: &str) {
    let event = receiver.event_of("hook", "deposit.pending", signature).await;
    let transfer = &event["data"]["transfer"];
    assert_eq!(transfer["status"], "pending");
    assert_eq!(transfer["block"]["number"], slot);
    assert_eq!(transfer["amount"]["raw"], raw);
    assert_eq!(event["data"]["balance"]["pending"]["raw"], raw);
    assert_eq!(event["data"]["balance"]["available"]["raw"], "0");
    let later = receiver.event_of("hook", "deposit.available", signature).await;
    assert_eq!(later["data"]["transfer"]["id"], transfer["id"], "the same deposit");
    assert_eq!(later["data"]["transfer"]["status"], "settled");
    assert_eq!(later["data"]["balance"]["pending"]["raw"], "0");
    assert_eq!(later["data"]["balance"]["available"]["raw"], raw);
    let finalized = chain.rpc.client().get_slot_with_commitment(CommitmentConfig::finalized());
    assert!(finalized.await.unwrap() >= slot, "no deposit is available before it is final");
}

async fn memos_of(api: &Api, wallet: Pubkey, signature: &str) -> Vec<(String, Option<String>)> {
    of_transaction(&api.transfers(wallet).await, signature)
        .iter()
        .map(|transfer| {
            (
                transfer["kind"].as_str().unwrap().to_owned(),
                transfer["memo"].as_str().map(str::to_owned),
            )
        })
        .collect()
}

on_both_stores! {
    async fn a_deposit_is_pending_when_confirmed_and_available_when_finalized(store) {
        let chain = Solana::shared().await;
        let (_daemon, api) = chain.daemon(&store).await;
        let receiver = Receiver::start().await;
        receiver.subscribe(&api, "hook", &["deposit.*"]).await;
        let wallet = Keypair::new().pubkey();
        api.watch(wallet).await;
        let witness = Witness::of(&chain, &chain.rpc, &[wallet]);
        let coins = chain.rpc.fund(&wallet, SOL).await.unwrap();
        let tokens = chain.issue(&chain.token, &wallet, 1_500_000).await;
        told(&chain, &receiver, &coins.signature, coins.slot, "1000000000").await;
        told(&chain, &receiver, &tokens.signature, tokens.slot, "1500000").await;
        witness.agrees(&api, tokens.slot).await;
        let balance = api.balance(wallet, "DUSD").await;
        assert_eq!((balance.available, balance.pending), (U256::from(1_500_000), U256::ZERO));
    }

    async fn a_withdrawal_and_its_fee_lower_available_at_once(store) {
        let chain = Solana::shared().await;
        let (_daemon, api) = chain.daemon(&store).await;
        let key = chain.somebody(3 * SOL).await;
        let (wallet, stranger) = (key.pubkey(), Keypair::new().pubkey());
        let issued = chain.issue(&chain.token, &wallet, 1_000_000).await;
        chain.rpc.finalized(issued.slot).await.unwrap();
        api.watch(wallet).await;
        let witness = Witness::of(&chain, &chain.rpc, &[wallet]);

        let sent = chain.rpc.run(&[system::transfer(&wallet, &stranger, SOL)], &[&key]).await.unwrap();
        let event = api.event_of("withdrawal.pending", &sent.signature).await;
        let balance = &event["data"]["balance"];
        assert_eq!(balance["available"]["raw"], (2 * SOL - 5_000).to_string(), "{event:#}");
        assert_eq!(event["data"]["transfer"]["to"], stranger.to_string());

        let mint = chain.token;
        let (from, to) = (mint.account_of(&wallet), mint.account_of(&stranger));
        let instructions = [mint.open(&wallet, &stranger), mint.transfer(&wallet, &from, &to, 300_000)];
        let sent = chain.rpc.run(&instructions, &[&key]).await.unwrap();
        let event = api.event_of("withdrawal.pending", &sent.signature).await;
        let transfers = of_transaction(&api.transfers(wallet).await, &sent.signature);
        let kinds: Vec<_> = transfers
            .iter()
            .map(|transfer| (transfer["asset"]["symbol"].as_str().unwrap(), transfer["kind"].as_str().unwrap()))
            .collect();
        for leg in [("SOL", "fee"), ("SOL", "transfer"), ("DUSD", "transfer")] {
            assert!(kinds.contains(&leg), "the fee, the new account's rent and the tokens: {kinds:?}");
        }
        assert_eq!(transfers.len(), 3, "{event:#}");
        api.event_of("withdrawal.settled", &sent.signature).await;
        witness.agrees(&api, sent.slot).await;
        assert_eq!(api.balance(wallet, "DUSD").await.available, U256::from(700_000));
    }

    async fn a_memo_is_shown_on_the_transfers_it_came_with(store) {
        let chain = Solana::shared().await;
        let (_daemon, api) = chain.daemon(&store).await;
        let key = chain.somebody(SOL).await;
        let (wallet, payer) = (Keypair::new().pubkey(), key.pubkey());
        api.watch(wallet).await;
        let pay = |lamports| system::transfer(&payer, &wallet, SOL / 10 + lamports);
        let rpc = &chain.rpc;
        let one = rpc.run(&[memo("order 4711 – ÄÖ"), pay(1)], &[&key]).await.unwrap();
        let two = rpc.run(&[pay(2), memo("first"), memo("second")], &[&key]).await.unwrap();
        let none = rpc.run(&[pay(3)], &[&key]).await.unwrap();
        let table = rpc.look_up_table(&[wallet]).await.unwrap();
        let sent = rpc.send_with(&[pay(4), memo("by table")], &[table], &[&key]).await.unwrap();
        let by_table = rpc.landed(sent).await.unwrap();
        assert_eq!(by_table.error, None);
        api.event_of("deposit.pending", &by_table.signature).await;
        for (landed, expected) in [
            (&one, Some("order 4711 – ÄÖ")),
            (&two, Some("first\nsecond")),
            (&none, None),
            (&by_table, Some("by table")),
        ] {
            let memos = memos_of(&api, wallet, &landed.signature).await;
            assert_eq!(memos, [("transfer".to_owned(), expected.map(str::to_owned))]);
        }
        let event = api.event_of("deposit.pending", &one.signature).await;
        assert_eq!(event["data"]["transfer"]["memo"], "order 4711 – ÄÖ");
    }

    async fn a_watch_begins_with_what_the_address_already_holds(store) {
        let chain = Solana::shared().await;
        let (_daemon, api) = chain.daemon(&store).await;
        let key = chain.somebody(2 * SOL).await;
        let wallet = key.pubkey();
        chain.issue(&chain.token, &wallet, 5_000_000).await;
        let old = chain.issue(&chain.fee_token, &wallet, 7_000_000).await;
        chain.rpc.finalized(old.slot).await.unwrap();
        // These are confirmed, but not final yet.
        let young = chain.issue(&chain.token, &wallet, 11).await;
        let young = young.slot.max(chain.rpc.fund(&wallet, 13).await.unwrap().slot);
        api.followed_to(young).await;
        api.watch(wallet).await;
        let witness = Witness::of(&chain, &chain.rpc, &[wallet]);
        let balance = api.balance(wallet, "DUSD").await;
        assert_eq!(balance.total, U256::from(5_000_011));
        assert_eq!(api.balance(wallet, "SOL").await.total, U256::from(2 * SOL + 13));
        assert_eq!(api.balance(wallet, "FEE").await.available, U256::from(7_000_000));
        let openings = api.transfers(wallet).await;
        assert!(openings.iter().all(|transfer| transfer["kind"] == "opening"), "{openings:#?}");
        let spent = chain.rpc.run(&[system::transfer(&wallet, &chain.rpc.bank().pubkey(), 17)], &[&key]).await.unwrap();
        witness.agrees(&api, young.max(spent.slot)).await;
    }

    async fn a_deposit_during_registration_counts_exactly_once(store) {
        let chain = Solana::shared().await;
        let (_daemon, api) = chain.daemon(&store).await;
        let wallets: Vec<Pubkey> = (0..12).map(|_| Keypair::new().pubkey()).collect();
        let witness = Witness::of(&chain, &chain.rpc, &wallets);
        let mut last = 0;
        for &wallet in &wallets {
            let (_, landed) = tokio::join!(api.register(wallet), chain.rpc.fund(&wallet, SOL + 7));
            last = landed.unwrap().slot;
        }
        for &wallet in &wallets {
            api.active(wallet).await;
        }
        witness.agrees(&api, last).await;
        for &wallet in &wallets {
            assert_eq!(api.balance(wallet, "SOL").await.available, U256::from(SOL + 7), "{wallet}");
        }
    }
}
