//! What moves inside transactions, where no receipt shows it: seen in its block where a node traces, else found when it
//! settles.

use alloy::{
    primitives::{Address, U256},
    sol_types::SolCall as _,
};
use serde_json::{Value, json};
use tidemark::dev::{anvil::Request, contracts};

use crate::harness::{
    Api, CHAIN, Daemon, Liar, Lie, Node, Settings, Store, Token, balance_in,
    contracts::{MOVER, Mover},
    eventually, on_both_stores,
};

const GAS: u64 = 1_000_000;
const FEW: u64 = 1_000_000_000;

/// A node with a contract on it that moves the coin, and has some.
struct Moving {
    node: Node,
    mover: Address,
}

impl Moving {
    async fn start() -> Self {
        let node = Node::start().await;
        let mover = contracts::deploy(&node, node.accounts[0], MOVER).await.unwrap();
        node.pay(node.accounts[0], mover, 1_000 * FEW).await;
        Self { node, mover }
    }

    fn call(
        &self,
        from: Address,
        value: u64,
        call: impl Into<alloy::primitives::Bytes>,
    ) -> Request {
        Request { value: U256::from(value), ..Request::call(from, self.mover, call).with_gas(GAS) }
    }

    /// One block with these in it, whether or not they succeed.
    async fn block(&self, transactions: &[Request]) {
        for transaction in transactions {
            self.node.call::<Value>("eth_sendTransaction", json!([transaction])).await.unwrap();
        }
        self.node.mine(1).await.unwrap();
    }

    async fn wrapped(&self, who: Address) -> U256 {
        let asked = Mover::balanceOfCall { who }.abi_encode();
        U256::from_be_slice(&self.node.ask(self.mover, asked).await.unwrap())
    }

    /// A daemon whose node traces in that way; the mover is its wrapped coin.
    fn settings(&self, store: &Store, tracing: &str) -> Settings {
        let mut settings = Settings::new(&self.node, store);
        settings.chain.push_str("sweep_per_minute = 0");
        settings.endpoint = format!(", tracing = \"{tracing}\"");
        let contract = self.mover.to_checksum(None);
        settings.tokens.push(Token { contract, symbol: "WETH", decimals: 18, wraps: true });
        settings
    }

    /// The daemon's totals at the node's head become the node's own figures there: a block is taken in before its
    /// trace.
    async fn agrees(&self, api: &Api, addresses: &[Address]) {
        for &address in addresses {
            let coins = self.node.balance(address).await.unwrap();
            let wrapped = self.wrapped(address).await;
            eventually(&format!("{coins} ETH and {wrapped} WETH of {address}"), || async {
                let balances = api.balances_at_head(address, &self.node).await;
                let told = |symbol| balance_in(&balances, symbol).total;
                (told("ETH") == coins && told("WETH") == wrapped).then_some(())
            })
            .await;
        }
    }
}

on_both_stores! {
    async fn who_earns_the_fees_of_several_blocks_before_they_settle_has_all_of_them(store) {
        let node = Node::start().await;
        let daemon = Daemon::start(&node, &store).await;
        let api = daemon.customer("acme").await;
        let producer = Node::stranger();
        let _: Value = node.call("anvil_setCoinbase", json!([producer])).await.unwrap();
        api.watch(producer).await;
        for _ in 0..3 {
            node.pay(node.accounts[0], node.accounts[1], 1).await;
        }
        let earned = node.balance(producer).await.unwrap();
        assert_eq!(api.balance_at_head(producer, "ETH", &node).await.total, earned);
        let other = [(Request::pay(node.accounts[2], producer, U256::from(5)).with_gas(GAS), 1)];
        node.reorg(2, &other).await.unwrap();
        let earned = node.balance(producer).await.unwrap();
        assert_eq!(api.balance_at_head(producer, "ETH", &node).await.total, earned);
        node.settle().await;
        assert_eq!(api.balance_settled(producer, "ETH", &node).await.available, earned);
        let kinds: Vec<Value> =
            api.transfers(producer).await.iter().map(|transfer| transfer["kind"].clone()).collect();
        assert!(!kinds.contains(&json!("adjustment")), "{kinds:?}");
    }

    async fn what_a_contract_loses_as_it_ends_where_it_was_made_is_found_when_it_settles(store) {
        let moving = Moving::start().await;
        let node = &moving.node;
        let daemon = Daemon::start_with(moving.settings(&store, "debug")).await;
        let api = daemon.customer("acme").await;
        let salt = U256::from(7);
        let place = node.ask(moving.mover, Mover::placeCall { salt }.abi_encode()).await.unwrap();
        let (place, wallet) = (Address::from_slice(&place[12..]), Node::stranger());
        for address in [place, wallet] {
            api.watch(address).await;
        }
        node.pay(node.accounts[0], place, 50).await;
        moving.agrees(&api, &[place]).await;
        // It ends in its own favour, and is paid afterwards: no call says that all of it is lost.
        let [amount, wasted] = [5, 3].map(U256::from);
        let end = Mover::flashAtCall { to: place, amount, salt, wasted };
        let pay = Mover::payCall { to: vec![wallet], amount };
        moving
            .block(&[
                moving.call(node.accounts[0], 8, end.abi_encode()),
                moving.call(node.accounts[1], 5, pay.abi_encode()),
            ])
            .await;
        assert_eq!(node.balance(place).await.unwrap(), U256::ZERO);
        assert_eq!(node.balance(wallet).await.unwrap(), U256::from(5));
        // Whoever gets the coin from inside only is not touched by anything that is seen.
        let pays = [place, wallet].map(|to| Request::pay(node.accounts[5], to, U256::from(1)));
        moving.block(&pays).await;
        node.settle().await;
        for address in [place, wallet] {
            api.balances_settled(address, node).await;
        }
        moving.agrees(&api, &[place, wallet]).await;
        daemon.audit().await;
    }

    async fn a_trace_that_the_chains_balances_do_not_bear_out_is_no_money(store) {
        let moving = Moving::start().await;
        let liar = Liar::before(moving.node.url()).await;
        let mut settings = moving.settings(&store, "debug");
        settings.node_url = liar.url();
        let daemon = Daemon::start_with(settings).await;
        let api = daemon.customer("acme").await;
        let wallet = Node::stranger();
        api.watch(wallet).await;
        // The node makes up that the wallet got a share of what was paid to somebody else, in both of its traces.
        let victim = format!("{:?}", moving.node.accounts[7]);
        for method in ["debug_traceBlockByHash", "debug_traceTransaction"] {
            liar.lie(method, Lie::Instead(victim.clone(), format!("{wallet:?}")));
        }
        let pay = Mover::payCall { to: vec![moving.node.accounts[7]], amount: U256::from(FEW) };
        moving.block(&[moving.call(moving.node.accounts[0], FEW, pay.abi_encode())]).await;
        assert_eq!(api.balance_at_head(wallet, "ETH", &moving.node).await.total, U256::ZERO);
        moving.node.settle().await;
        assert_eq!(api.balance_settled(wallet, "ETH", &moving.node).await.total, U256::ZERO);
        let none = "tidemark_trace_mismatches_total{chain=\"local\"} 0\n";
        assert!(!daemon.metrics().await.contains(none));
    }

    async fn a_block_that_one_node_could_not_trace_is_completed_by_one_that_can(store) {
        let moving = Moving::start().await;
        let mut daemon = Daemon::start_with(moving.settings(&store, "none")).await;
        let api = daemon.customer("acme").await;
        let wallet = Node::stranger();
        api.watch(wallet).await;
        let pay = Mover::payCall { to: vec![wallet], amount: U256::from(7) };
        moving.block(&[moving.call(moving.node.accounts[0], FEW, pay.abi_encode())]).await;
        assert_eq!(api.balance_at_head(wallet, "ETH", &moving.node).await.total, U256::ZERO);
        let chains = api.get("/v1/chains").await.ok();
        assert_eq!(chains["data"][0]["tracing"], json!(["none"]));
        daemon.terminate().await;
        let daemon = Daemon::start_with(moving.settings(&store, "auto")).await;
        let api = Api::new(daemon.base(), api.key);
        moving.agrees(&api, &[wallet]).await;
        eventually("what the endpoint traces with", || async {
            let chains = api.get("/v1/chains").await.ok();
            (chains["data"][0]["tracing"] == json!(["debug"])).then_some(())
        })
        .await;
        moving.node.settle().await;
        api.balances_settled(wallet, &moving.node).await;
        let kinds: Vec<Value> =
            api.transfers(wallet).await.iter().map(|transfer| transfer["kind"].clone()).collect();
        assert_eq!(kinds, [json!("internal")], "and nothing is left to be adjusted");
        daemon.audit().await;
    }

    async fn a_daemon_that_dies_before_a_trace_has_come_has_it_told_again(store) {
        let moving = Moving::start().await;
        let liar = Liar::before(moving.node.url()).await;
        let mut settings = moving.settings(&store, "debug");
        settings.node_url = liar.url();
        let mut daemon = Daemon::start_with(settings).await;
        let api = daemon.customer("acme").await;
        let wallet = Node::stranger();
        api.watch(wallet).await;
        liar.lie("debug_traceBlockByHash", Lie::Error(-32000, "too busy"));
        let pay = Mover::payCall { to: vec![wallet], amount: U256::from(7) };
        moving.block(&[moving.call(moving.node.accounts[0], FEW, pay.abi_encode())]).await;
        assert_eq!(api.balance_at_head(wallet, "ETH", &moving.node).await.total, U256::ZERO);
        daemon.kill_9().await;
        liar.tell_the_truth();
        daemon.begin().await;
        moving.agrees(&api, &[wallet]).await;
        daemon.audit().await;
    }

    async fn a_history_has_what_moved_inside_transactions_where_a_node_traces_and_says_from_where(store) {
        let moving = Moving::start().await;
        let wallets = [Node::stranger(), Node::stranger(), Node::stranger()];
        let since = moving.node.head().await.unwrap().number.to::<u64>() + 1;
        for _ in 0..3 {
            let pay = Mover::payCall { to: wallets.to_vec(), amount: U256::from(7) };
            moving.block(&[moving.call(moving.node.accounts[0], FEW, pay.abi_encode())]).await;
            moving.node.mine(1).await.unwrap();
        }
        let last = since + 4;
        moving.node.settle().await;
        let cases = [("debug", since, 3), ("trace", since, 3), ("none", last + 1, 0)];
        for (wallet, (tracing, from, internal)) in wallets.into_iter().zip(cases) {
            let mut daemon = Daemon::start_with(moving.settings(&store, tracing)).await;
            let api = daemon.customer(tracing).await;
            let body = json!({"address": wallet, "chains": [CHAIN], "fromBlock": {CHAIN: since}});
            api.post("/v1/wallets", &body).await.ok();
            api.active(wallet).await;
            moving.node.settle().await;
            let chain = eventually("the history", || async {
                let shown = api.get(&format!("/v1/wallets/{wallet}")).await.ok();
                let chain = shown["chains"][0].clone();
                (chain["history"] == "complete").then_some(chain)
            })
            .await;
            assert_eq!(chain["coveredFrom"], since, "{chain}");
            assert_eq!(chain["internalFrom"], from, "{tracing}: {chain}");
            let transfers = api.transfers(wallet).await;
            let of = |kind: &str| {
                let is_one = |one: &&Value| one["kind"] == kind && one["status"] == "settled";
                transfers.iter().filter(is_one).count()
            };
            assert_eq!(of("internal"), internal, "{transfers:?}");
            assert_eq!(of("opening"), usize::from(internal == 0), "{transfers:?}");
            moving.agrees(&api, &[wallet]).await;
            daemon.audit().await;
            daemon.terminate().await;
        }
    }
}
