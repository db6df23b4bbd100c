//! Tokens of every kind, in every account.

use alloy::primitives::U256;
use solana_keypair::Keypair;
use solana_signer::Signer as _;
use solana_system_interface::instruction as system;
use tidemark::dev::mint::{Mint, WRAPPED};

use crate::harness::{
    on_both_stores,
    solana::{SOL, Solana, Witness, of_transaction},
};

on_both_stores! {
    async fn a_token_with_a_transfer_fee_is_credited_net_and_debited_in_full(store) {
        let chain = Solana::shared().await;
        let (_daemon, api) = chain.daemon(&store).await;
        let (key, other) = (chain.somebody(SOL).await, chain.somebody(SOL).await);
        let (wallet, stranger) = (key.pubkey(), other.pubkey());
        for owner in [wallet, stranger] {
            api.watch(owner).await;
        }
        let witness = Witness::of(&chain, &chain.rpc, &[wallet, stranger]);
        let mint = chain.fee_token;
        chain.issue(&mint, &stranger, 10_000_000).await;
        let (own, theirs) = (mint.account_of(&wallet), mint.account_of(&stranger));
        let deposit = [mint.open(&stranger, &wallet), mint.transfer(&stranger, &theirs, &own, 1_000_000)];
        let deposit = chain.rpc.run(&deposit, &[&other]).await.unwrap();
        let event = api.event_of("deposit.available", &deposit.signature).await;
        assert_eq!(event["data"]["transfer"]["amount"]["raw"], "990000", "one percent is withheld");
        let withdrawal = chain.rpc.run(&[mint.transfer(&wallet, &own, &theirs, 500_000)], &[&key]).await.unwrap();
        witness.agrees(&api, withdrawal.slot).await;
        assert_eq!(api.balance(wallet, "FEE").await.available, U256::from(490_000));
        let transfers = of_transaction(&api.transfers(wallet).await, &withdrawal.signature);
        let lost: u64 = transfers
            .iter()
            .filter(|transfer| transfer["asset"]["symbol"] == "FEE")
            .map(|transfer| transfer["amount"]["raw"].as_str().unwrap().parse::<u64>().unwrap())
            .sum();
        assert_eq!(lost, 500_000, "what arrives and what is withheld: {transfers:#?}");
    }

    async fn wrapped_sol_is_a_token_of_its_owner(store) {
        let chain = Solana::shared().await;
        let (_daemon, api) = chain.daemon(&store).await;
        let key = chain.somebody(3 * SOL).await;
        let wallet = key.pubkey();
        api.watch(wallet).await;
        let witness = Witness::of(&chain, &chain.rpc, &[wallet]);
        let account = WRAPPED.account_of(&wallet);
        let wrap = [
            WRAPPED.open(&wallet, &wallet),
            system::transfer(&wallet, &account, SOL),
            WRAPPED.sync_native(&account),
        ];
        let wrapped = chain.rpc.run(&wrap, &[&key]).await.unwrap();
        let event = api.event_of("deposit.pending", &wrapped.signature).await;
        assert_eq!(event["data"]["transfer"]["kind"], "wrap");
        assert_eq!(event["data"]["transfer"]["asset"]["symbol"], "WSOL");
        assert_eq!(event["data"]["transfer"]["amount"]["raw"], SOL.to_string());
        let unwrapped = chain.rpc.run(&[WRAPPED.close(&wallet, &account, &wallet)], &[&key]).await.unwrap();
        witness.agrees(&api, unwrapped.slot).await;
        assert_eq!(api.balance(wallet, "WSOL").await.total, U256::ZERO);
        let left = api.balance(wallet, "SOL").await.available;
        assert_eq!(left, U256::from(3 * SOL - 2 * 5_000), "all but the fees came back");
        let unwrap = of_transaction(&api.transfers(wallet).await, &unwrapped.signature);
        assert!(unwrap.iter().any(|transfer| transfer["kind"] == "unwrap"), "{unwrap:#?}");
    }

    async fn minting_and_burning_are_told_as_such(store) {
        let chain = Solana::shared().await;
        let (_daemon, api) = chain.daemon(&store).await;
        let key = chain.somebody(SOL).await;
        let wallet = key.pubkey();
        api.watch(wallet).await;
        let witness = Witness::of(&chain, &chain.rpc, &[wallet]);
        let mint = chain.token;
        let issued = chain.issue(&mint, &wallet, 1_000).await;
        let burnt = chain.rpc.run(&[mint.burn(&wallet, &mint.account_of(&wallet), 400)], &[&key]).await.unwrap();
        witness.agrees(&api, burnt.slot).await;
        assert_eq!(api.balance(wallet, "DUSD").await.available, U256::from(600));
        let transfers = api.transfers(wallet).await;
        for (landed, kind) in [(&issued, "mint"), (&burnt, "burn")] {
            let all = of_transaction(&transfers, &landed.signature);
            let token = all.iter().find(|transfer| transfer["asset"]["symbol"] == "DUSD").unwrap();
            assert_eq!(token["kind"], kind, "{token:#}");
        }
    }

    async fn tokens_count_in_whichever_account_their_owner_keeps_them(store) {
        let chain = Solana::shared().await;
        let (_daemon, api) = chain.daemon(&store).await;
        let (key, other) = (chain.somebody(SOL).await, chain.somebody(SOL).await);
        let (wallet, stranger) = (key.pubkey(), other.pubkey());
        for owner in [wallet, stranger] {
            api.watch(owner).await;
        }
        let witness = Witness::of(&chain, &chain.rpc, &[wallet, stranger]);
        let mut last = 0;
        for (mint, received) in [(chain.token, 1_000), (chain.fee_token, 990)] {
            chain.issue(&mint, &stranger, 10_000).await;
            chain.issue(&mint, &wallet, 5).await;
            let (theirs, extra) = (mint.account_of(&stranger), Keypair::new());
            let mut deposit = mint
                .open_at(&chain.rpc, &stranger, &extra.pubkey(), &wallet)
                .await
                .unwrap()
                .to_vec();
            deposit.push(mint.transfer(&stranger, &theirs, &extra.pubkey(), 1_000));
            let landed = chain.rpc.run(&deposit, &[&other, &extra]).await.unwrap();
            let event = api.event_of("deposit.pending", &landed.signature).await;
            let symbol = event["data"]["transfer"]["asset"]["symbol"].as_str().unwrap();
            assert_eq!(event["data"]["transfer"]["amount"]["raw"], received.to_string());
            assert_eq!(event["data"]["balance"]["total"]["raw"], (received + 5).to_string(), "{symbol}");

            // From one account of an owner to another: nothing comes and nothing goes, but what is withheld.
            let inside = mint.transfer(&wallet, &extra.pubkey(), &mint.account_of(&wallet), 100);
            chain.rpc.run(&[inside], &[&key]).await.unwrap();

            // The account itself changes hands, with what is in it.
            let given = chain.rpc.run(&[mint.hand_over(&wallet, &extra.pubkey(), &stranger)], &[&key]).await.unwrap();
            let event = api.event_of("withdrawal.pending", &given.signature).await;
            assert_eq!(event["data"]["transfer"]["amount"]["raw"], (received - 100).to_string());
            assert_eq!(event["data"]["transfer"]["to"], stranger.to_string());
            last = given.slot;
        }
        witness.agrees(&api, last).await;
    }

    async fn an_account_opened_and_closed_in_one_transaction_leaves_no_trace(store) {
        let chain = Solana::shared().await;
        let (_daemon, api) = chain.daemon(&store).await;
        let key = chain.somebody(SOL).await;
        let wallet = key.pubkey();
        chain.issue(&chain.token, &wallet, 1_000).await;
        api.watch(wallet).await;
        let witness = Witness::of(&chain, &chain.rpc, &[wallet]);
        let (mint, extra) = (chain.token, Keypair::new());
        let (account, extra_account) = (mint.account_of(&wallet), extra.pubkey());
        let mut instructions =
            mint.open_at(&chain.rpc, &wallet, &extra_account, &wallet).await.unwrap().to_vec();
        instructions.extend([
            mint.transfer(&wallet, &account, &extra_account, 600),
            mint.transfer(&wallet, &extra_account, &account, 600),
            mint.close(&wallet, &extra_account, &wallet),
        ]);
        let landed = chain.rpc.run(&instructions, &[&key, &extra]).await.unwrap();
        // The same with wrapped SOL, as exchanges do it: in, through, and out again.
        let wrapped = WRAPPED.account_of(&wallet);
        let through = [
            WRAPPED.open(&wallet, &wallet),
            system::transfer(&wallet, &wrapped, SOL / 2),
            WRAPPED.sync_native(&wrapped),
            WRAPPED.close(&wallet, &wrapped, &wallet),
        ];
        let through = chain.rpc.run(&through, &[&key]).await.unwrap();
        witness.agrees(&api, through.slot).await;
        let transfers = api.transfers(wallet).await;
        for signature in [&landed.signature, &through.signature] {
            let all = of_transaction(&transfers, signature);
            assert!(all.iter().all(|transfer| transfer["kind"] == "fee"), "{all:#?}");
            assert_eq!(all.len(), 1);
        }
    }

    async fn a_token_that_nobody_configured_is_shown_but_is_no_money(store) {
        let chain = Solana::shared().await;
        let (_daemon, api) = chain.daemon(&store).await;
        let wallet = Keypair::new().pubkey();
        api.watch(wallet).await;
        let junk = Mint::create(&chain.rpc, 0).await.unwrap();
        chain.issue(&junk, &wallet, 1_000_000).await;
        let real = chain.issue(&chain.token, &wallet, 1).await;
        api.event_of("deposit.pending", &real.signature).await;
        let balances = api.balances(wallet).await;
        let symbols: Vec<_> = balances["balances"].as_array().unwrap().iter().map(|b| &b["asset"]["symbol"]).collect();
        assert_eq!(symbols, ["DUSD"], "{balances:#}");
        let path = format!("/v1/wallets/{wallet}/transfers?includeUnverified=true");
        let all = api.get(&path).await.ok();
        let shown = all["data"].as_array().unwrap().iter().any(|transfer| {
            transfer["asset"]["verified"] == false && transfer["amount"]["raw"] == "1000000"
        });
        assert!(shown, "{all:#}");
    }
}
