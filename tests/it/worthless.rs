//! Transfers that are no money, as many as anybody likes, to a watched address, beside an honest deposit.

use alloy::{
    primitives::{Address, U256},
    sol_types::{SolCall as _, SolValue as _},
};
use serde_json::Value;
use tidemark::dev::{
    anvil::{Receipt, Request},
    contracts::{self, DemoToken},
};

use crate::{
    harness::{Api, Daemon, Node, Settings, on_both_stores},
    hostile::an_honest_deposit_is_available,
};

/// What a contract does with a call: it logs a transfer of 32 units from nobody to the first word, as often as the
/// second one says.
fn runtime() -> Vec<u8> {
    const TRANSFER: &str = "ddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef";
    let log = format!("600035 6000 7f{TRANSFER} 6020 6000 a3");
    let body = format!("6001 90 03 {log} 6008 56");
    let length = body.replace(' ', "").len() / 2;
    // mem[0] = 32; the count; loop at 8: if it is 0, stop; one less; log; again.
    let code = format!("6020 600052 6020 35 5b 80 15 60{:02x} 57 {body} 5b 00", 14 + length);
    hex::decode(code.replace(' ', "")).unwrap()
}

async fn spammer(node: &Node) -> Address {
    let runtime = runtime();
    let code = format!("60{:02x}80600b6000396000f3{}", runtime.len(), hex::encode(&runtime));
    contracts::deploy(node, node.accounts[0], &code).await.unwrap()
}

async fn unlisted(api: &Api, wallet: Address) -> Vec<Value> {
    let path = format!("/v1/wallets/{wallet}/transfers?limit=100&includeUnverified=true");
    let page = api.get(&path).await.ok();
    let mut all = page["data"].as_array().unwrap().clone();
    all.retain(|transfer| transfer["asset"]["verified"] == false);
    all
}

on_both_stores! {
    async fn thousands_of_worthless_transfers_are_a_few_rows_and_a_count_beside_every_real_one(store) {
        let node = Node::start().await;
        let spammer = spammer(&node).await;
        let mut settings = Settings::new(&node, &store);
        settings.chain.push_str("worthless_transfers = 3");
        let daemon = Daemon::start_with(settings).await;
        let api = daemon.customer("acme").await;
        let (wallet, from) = (Node::stranger(), node.accounts[0]);
        api.watch(wallet).await;
        let spam = Request::call(from, spammer, (wallet, U256::from(5_000)).abi_encode());
        let payout = DemoToken::transferManyCall { to: vec![wallet; 40], value: U256::from(2) };
        let payout = Request::call(from, node.token, payout.abi_encode());
        let receipts = node
            .block_with(&[node.minting(from, 1_000), payout.with_gas(5_000_000), spam.with_gas(20_000_000)])
            .await;
        assert!(receipts.iter().all(Receipt::succeeded));
        assert_eq!(api.balance_at_head(wallet, "DUSD", &node).await.total, U256::from(80));
        let recorded = unlisted(&api, wallet).await;
        assert_eq!(recorded.len(), 3);
        let said: Vec<&Value> =
            recorded.iter().map(|one| &one["omitted"]).filter(|one| !one.is_null()).collect();
        assert_eq!(said, [4_997]);
        assert_eq!(api.transfers(wallet).await.len(), 40, "every real one");
        an_honest_deposit_is_available(&api, &node).await;
    }
}
