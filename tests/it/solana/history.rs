//! What happened before a registration, and the audit of what happened since.

use alloy::primitives::U256;
use serde_json::{Value, json};
use solana_keypair::Keypair;
use solana_signer::Signer as _;
use solana_system_interface::instruction as system;
use tidemark::dev::mint::memo;

use crate::harness::{
    CHAIN, eventually, on_both_stores,
    solana::{SOL, Solana, Witness, of_transaction},
};

on_both_stores! {
    async fn the_transfers_since_a_slot_explain_the_opening_balance(store) {
        let chain = Solana::shared().await;
        let key = chain.somebody(3 * SOL).await;
        let other = chain.somebody(SOL).await;
        let (wallet, stranger) = (key.pubkey(), other.pubkey());
        let mint = chain.token;
        // Tokens for an account that is closed by now, and for one that is not the associated one.
        let issued = chain.issue(&mint, &wallet, 700).await;
        chain.issue(&mint, &stranger, 10_000).await;
        let extra = Keypair::new();
        let mut deposit =
            mint.open_at(&chain.rpc, &stranger, &extra.pubkey(), &wallet).await.unwrap().to_vec();
        deposit.push(mint.transfer(&stranger, &mint.account_of(&stranger), &extra.pubkey(), 50));
        deposit.push(memo("for the flat"));
        let to_extra = chain.rpc.run(&deposit, &[&other, &extra]).await.unwrap();
        let associated = mint.account_of(&wallet);
        let out = [
            mint.transfer(&wallet, &associated, &extra.pubkey(), 700),
            mint.close(&wallet, &associated, &wallet),
            system::transfer(&wallet, &stranger, SOL),
        ];
        let moved = chain.rpc.run(&out, &[&key]).await.unwrap();

        let (daemon, api) = chain.daemon(&store).await;
        let body = json!({
            "address": wallet.to_string(), "chains": [CHAIN], "fromBlock": {CHAIN: issued.slot},
        });
        api.post("/v1/wallets", &body).await.ok();
        api.active(wallet).await;
        assert_eq!(api.balance(wallet, "DUSD").await.total, U256::from(750), "at once");
        let decided = eventually("the history", || async {
            let told = api.get(&format!("/v1/wallets/{wallet}")).await.ok();
            (told["chains"][0]["history"] != "wanted").then_some(told)
        });
        assert_eq!(decided.await["chains"][0]["history"], "complete");
        let transfers = api.transfers(wallet).await;
        let of = |signature: &str, symbol: &str| -> Vec<Value> {
            of_transaction(&transfers, signature)
                .into_iter()
                .filter(|transfer| transfer["asset"]["symbol"] == symbol)
                .collect()
        };
        let deposit = of(&to_extra.signature, "DUSD");
        assert_eq!(deposit.len(), 1, "{transfers:#?}");
        assert_eq!(deposit[0]["amount"]["raw"], "50");
        assert_eq!(deposit[0]["status"], "settled");
        assert_eq!(deposit[0]["memo"], "for the flat");
        assert_eq!(deposit[0]["block"]["number"], to_extra.slot);
        assert_eq!(of(&issued.signature, "DUSD")[0]["amount"]["raw"], "700");
        assert!(of(&moved.signature, "DUSD").is_empty(), "from one of its accounts to another");
        assert_eq!(of(&moved.signature, "SOL").len(), 2, "the fee, and the SOL less the rent that came back");

        // The seam: what comes now counts once, beside what came before.
        let witness = Witness::of(&chain, &chain.rpc, &[wallet]);
        let young = chain.rpc.run(&[system::transfer(&stranger, &wallet, 13)], &[&other]).await.unwrap();
        witness.agrees(&api, young.slot).await;
        let said = daemon.command(&["audit", "--chain", CHAIN]).await;
        assert!(said.contains("1 wallets"), "{said}");
    }
}
