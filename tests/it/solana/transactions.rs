//! Whatever a transaction is made of.

use alloy::primitives::U256;
use solana_keypair::Keypair;
use solana_signer::Signer as _;
use solana_system_interface::instruction as system;

use crate::harness::{
    on_both_stores,
    solana::{SOL, Solana, Witness, of_transaction},
};

on_both_stores! {
    async fn a_failed_transaction_costs_its_fee_and_moves_nothing_else(store) {
        let chain = Solana::shared().await;
        let (_daemon, api) = chain.daemon(&store).await;
        let key = chain.somebody(SOL).await;
        let (wallet, stranger) = (key.pubkey(), chain.somebody(SOL).await.pubkey());
        for owner in [wallet, stranger] {
            chain.issue(&chain.token, &owner, 100).await;
            api.watch(owner).await;
        }
        let witness = Witness::of(&chain, &chain.rpc, &[wallet, stranger]);
        let mint = chain.token;
        let (own, theirs) = (mint.account_of(&wallet), mint.account_of(&stranger));
        let instructions = [
            system::transfer(&wallet, &stranger, SOL / 2),
            mint.transfer(&wallet, &own, &theirs, 60),
            // More than is left: all three fail together.
            mint.transfer(&wallet, &own, &theirs, 60),
        ];
        let sent = chain.rpc.send(&instructions, &[&key]).await.unwrap();
        let failed = chain.rpc.landed(sent).await.unwrap();
        assert!(failed.error.is_some(), "it is in a block, as failed");
        witness.agrees(&api, failed.slot).await;
        let transfers = of_transaction(&api.transfers(wallet).await, &failed.signature);
        assert_eq!(transfers.len(), 1, "{transfers:#?}");
        assert_eq!((&transfers[0]["kind"], &transfers[0]["amount"]["raw"]), (&"fee".into(), &"5000".into()));
        assert!(of_transaction(&api.transfers(stranger).await, &failed.signature).is_empty());
        assert_eq!(api.balance(wallet, "SOL").await.available, U256::from(SOL - 5_000));
    }

    async fn several_transfers_in_one_transaction_are_all_counted(store) {
        let chain = Solana::shared().await;
        let (_daemon, api) = chain.daemon(&store).await;
        let (one, two) = (chain.somebody(SOL).await, chain.somebody(SOL).await);
        let (first, second, third) = (one.pubkey(), two.pubkey(), Keypair::new().pubkey());
        for owner in [first, second] {
            chain.issue(&chain.token, &owner, 1_000).await;
        }
        let wallets = [first, second, third];
        for owner in wallets {
            api.watch(owner).await;
        }
        let witness = Witness::of(&chain, &chain.rpc, &wallets);
        let mint = chain.token;
        let account = wallets.map(|owner| mint.account_of(&owner));
        let instructions = [
            mint.open(&first, &third),
            system::transfer(&first, &third, SOL / 10),
            system::transfer(&second, &third, SOL / 5),
            system::transfer(&first, &third, SOL / 10),
            mint.transfer(&first, &account[0], &account[2], 100),
            mint.transfer(&second, &account[1], &account[2], 200),
            mint.transfer(&second, &account[1], &account[0], 50),
        ];
        let landed = chain.rpc.run(&instructions, &[&one, &two]).await.unwrap();
        witness.agrees(&api, landed.slot).await;
        assert_eq!(api.balance(third, "SOL").await.available, U256::from(2 * SOL / 5));
        let tokens = [950, 750, 300].map(U256::from);
        for (owner, expected) in wallets.into_iter().zip(tokens) {
            assert_eq!(api.balance(owner, "DUSD").await.available, expected, "{owner}");
        }
    }

    async fn accounts_from_a_look_up_table_are_seen(store) {
        let chain = Solana::shared().await;
        let (_daemon, api) = chain.daemon(&store).await;
        let key = chain.somebody(SOL).await;
        let (payer, wallet) = (key.pubkey(), Keypair::new().pubkey());
        chain.issue(&chain.token, &payer, 1_000).await;
        api.watch(wallet).await;
        let witness = Witness::of(&chain, &chain.rpc, &[wallet]);
        let mint = chain.token;
        let (from, to) = (mint.account_of(&payer), mint.account_of(&wallet));
        // The wallet, its token account and the mint are named only in the table.
        let table = chain.rpc.look_up_table(&[mint.address, to, wallet]).await.unwrap();
        let instructions = [
            mint.open(&payer, &wallet),
            mint.transfer(&payer, &from, &to, 77),
            system::transfer(&payer, &wallet, SOL / 4),
        ];
        let sent = chain.rpc.send_with(&instructions, &[table], &[&key]).await.unwrap();
        let landed = chain.rpc.landed(sent).await.unwrap();
        assert_eq!(landed.error, None);
        witness.agrees(&api, landed.slot).await;
        assert_eq!(api.balance(wallet, "DUSD").await.available, U256::from(77));
        assert_eq!(api.balance(wallet, "SOL").await.available, U256::from(SOL / 4));
        let transfers = api.transfers(wallet).await;
        assert!(transfers.iter().all(|transfer| transfer["from"] == payer.to_string()), "{transfers:#?}");
    }

    async fn an_emptied_account_and_one_that_pays_no_fee_agree(store) {
        let chain = Solana::shared().await;
        let (_daemon, api) = chain.daemon(&store).await;
        let (key, sponsor) = (chain.somebody(SOL).await, chain.somebody(SOL).await);
        let (wallet, payer) = (key.pubkey(), sponsor.pubkey());
        chain.issue(&chain.token, &wallet, 10).await;
        api.watch(wallet).await;
        let witness = Witness::of(&chain, &chain.rpc, &[wallet]);
        let (mint, account) = (chain.token, chain.token.account_of(&wallet));
        // Somebody else pays; everything leaves: tokens, the account's rent, the last lamport.
        let instructions = [
            mint.burn(&wallet, &account, 10),
            mint.close(&wallet, &account, &wallet),
            system::transfer(&wallet, &payer, SOL),
        ];
        chain.rpc.run(&instructions, &[&sponsor, &key]).await.unwrap();
        let (rent, _) = chain.rpc.lamports(&wallet, solana_commitment_config::CommitmentConfig::confirmed()).await.unwrap();
        let landed = chain.rpc.run(&[system::transfer(&wallet, &payer, rent)], &[&sponsor, &key]).await.unwrap();
        witness.agrees(&api, landed.slot).await;
        assert_eq!(api.balance(wallet, "SOL").await.total, U256::ZERO);
        assert!(api.transfers(wallet).await.iter().all(|transfer| transfer["kind"] != "fee"));
    }
}
