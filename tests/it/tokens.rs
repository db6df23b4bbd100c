//! What the configuration says of a token, and what its contract says.

use alloy::{
    primitives::{Address, U256},
    sol_types::SolCall as _,
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tidemark::dev::{
    anvil::{Receipt, Request},
    contracts::{self, DEMO_DECIMALS, DEMO_SYMBOL},
};

use crate::harness::{
    Api, CHAIN, Daemon, Node, Settings, Store,
    contracts::{TETHER, Tether},
    eventually, on_both_stores,
};

/// A contract that moves balances as USDT on Ethereum does; its owner is the first account.
struct Usdt {
    node: Node,
    contract: Address,
}

impl Usdt {
    async fn start() -> Self {
        let node = Node::start().await;
        let contract = contracts::deploy(&node, node.accounts[0], TETHER).await.unwrap();
        Self { node, contract }
    }

    fn settings(&self, store: &Store) -> Settings {
        let mut settings = Settings::new(&self.node, store);
        // What two endpoints say is believed at once.
        settings.more_nodes.push(self.node.url().to_owned());
        settings.chain.push_str("sweep_per_minute = 0");
        let contract = self.contract.to_checksum(None);
        settings.more = format!(
            "[[chains.{CHAIN}.tokens]]\ncontract = \"{contract}\"\nsymbol = \"USDT\"\ndecimals = 6\n\
             destroys_funds = true\n"
        );
        settings
    }

    fn call(&self, from: Address, call: Vec<u8>) -> Request {
        Request::call(from, self.contract, call).with_gas(200_000)
    }

    fn transfer(&self, from: Address, to: Address, value: u64) -> Request {
        self.call(from, Tether::transferCall { to, value: U256::from(value) }.abi_encode())
    }

    async fn held(&self, who: Address) -> U256 {
        let asked = Tether::balanceOfCall { who }.abi_encode();
        U256::from_be_slice(&self.node.ask(self.contract, asked).await.unwrap())
    }
}

on_both_stores! {
    async fn what_usdts_issuer_destroys_is_booked_once_in_its_block_and_what_it_issues_when_it_settles(store) {
        let usdt = Usdt::start().await;
        let node = &usdt.node;
        let (owner, holders) = (node.accounts[0], &node.accounts[1..4]);
        let issue = Tether::issueCall { amount: U256::from(1_000_000) }.abi_encode();
        let mut first = vec![usdt.call(owner, issue)];
        first.extend(holders.iter().map(|&to| usdt.transfer(owner, to, 100_000)));
        node.block_with(&first).await;
        let daemon = Daemon::start_with(usdt.settings(&store)).await;
        let api = daemon.customer("acme").await;
        for &who in &node.accounts[..4] {
            api.watch(who).await;
        }
        let mut random = StdRng::seed_from_u64(6);
        let mut destroyed = vec![0; holders.len()];
        for _ in 0..20 {
            let mut requests = Vec::new();
            for _ in 0..random.random_range(1..4) {
                let n = random.random_range(0..holders.len());
                let amount = U256::from(random.random_range(1..1000));
                requests.push(match random.random_range(0..8) {
                    0 => {
                        destroyed[n] += 1;
                        usdt.call(owner, Tether::destroyBlackFundsCall { user: holders[n] }.abi_encode())
                    }
                    1 => usdt.call(owner, Tether::issueCall { amount }.abi_encode()),
                    2 => usdt.call(owner, Tether::redeemCall { amount }.abi_encode()),
                    3 => {
                        let points = U256::from(random.random_range(0..200));
                        usdt.call(owner, Tether::setFeeCall { points }.abi_encode())
                    }
                    4 => usdt.transfer(owner, holders[n], random.random_range(1..5000)),
                    // Nothing is left after it was destroyed: it fails.
                    _ => usdt.transfer(holders[n], holders[random.random_range(0..3)], 40),
                });
            }
            for request in &requests {
                node.call::<serde_json::Value>("eth_sendTransaction", serde_json::json!([request])).await.unwrap();
            }
            node.mine(1).await.unwrap();
            for &who in holders {
                let told = api.balance_at_head(who, "USDT", node).await.total;
                assert_eq!(told, usdt.held(who).await, "{who}");
            }
        }
        for (&who, times) in holders.iter().zip(destroyed) {
            let transfers = api.transfers(who).await;
            let burns = transfers.iter().filter(|one| {
                one["kind"] == "burn" && one["asset"]["symbol"] == "USDT"
            });
            assert!(burns.count() <= times, "never twice");
        }
        // The owner is touched by something that is seen, and compared.
        node.block_with(&[usdt.transfer(owner, holders[0], 1)]).await;
        node.settle().await;
        for &who in &node.accounts[..4] {
            let settled = api.balance_settled(who, "USDT", node).await;
            assert_eq!(settled.total, usdt.held(who).await, "{who}");
        }
        let (code, said) = daemon.outcome(&["audit"]).await;
        assert_eq!(code, 0, "{said}");
    }

    async fn a_token_with_other_decimals_than_its_contract_says_is_not_started_with(store) {
        let node = Node::start().await;
        let mut settings = Settings::new(&node, &store);
        settings.tokens[0].decimals = 18;
        let contract = settings.tokens[0].contract.clone();
        let mut daemon = Daemon::prepare(settings);
        daemon.begin().await;
        let api = daemon.customer("acme").await;
        let wallet = Node::stranger();
        let registered = api.register(wallet).await;
        assert_eq!(registered["status"], "pending");
        let words = [DEMO_SYMBOL, &contract, "18 decimals", "says 6", "start again"];
        let reason = eventually("the reason", || async {
            let (status, chain) = api.readiness(CHAIN).await;
            let reason = chain["reason"].as_str()?.to_owned();
            (status == 503 && reason.contains("decimals")).then_some(reason)
        })
        .await;
        for word in words {
            assert!(reason.contains(word), "{word:?} is not in {reason:?}");
            assert!(daemon.log().contains(word), "{word:?} is not in the log");
        }
        let receipts = node.block_with(&[node.minting(wallet, 5)]).await;
        assert!(receipts.iter().all(Receipt::succeeded));
        let shown = api.get(&format!("/v1/wallets/{wallet}")).await.ok();
        assert_eq!(shown["status"], "pending", "nothing is followed");
        daemon.terminate().await;

        let settings = Settings::new(&node, &store);
        assert_eq!(settings.tokens[0].decimals, DEMO_DECIMALS);
        let daemon = Daemon::start_with(settings).await;
        let api = Api::new(daemon.base(), api.key.clone());
        api.active(wallet).await;
        assert_eq!(api.balance_at_head(wallet, DEMO_SYMBOL, &node).await.total, U256::from(5));
    }
}
