//! What no transfer shows is found by comparison with the chain: by the daemon, and on demand.

use alloy::primitives::{Address, U256};
use serde_json::json;
use tidemark::dev::anvil::Request;

use crate::harness::{
    Api, CHAIN, Daemon, Liar, Lie, Node, Settings, Store, eventually, on_both_stores,
};

/// A daemon whose first node lies when it is told to; the second is the node itself.
async fn behind_a_liar(node: &Node, store: &Store, second: bool) -> (Daemon, Api, Liar) {
    let liar = Liar::before(node.url()).await;
    let mut settings = Settings::new(node, store);
    settings.node_url = liar.url();
    settings.chain.push_str("sweep_per_minute = 6000");
    if second {
        settings.more_nodes.push(node.url().to_owned());
    }
    let daemon = Daemon::start_with(settings).await;
    let api = daemon.customer("acme").await;
    (daemon, api, liar)
}

/// Waits until the sweep has come round once more.
async fn swept(daemon: &Daemon) {
    let count = || async {
        let metrics = daemon.metrics().await;
        let line = metrics.lines().find(|line| line.starts_with("tidemark_swept_addresses_total"));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).unwrap_or(0)
    };
    let before = count().await;
    eventually("the sweep", || async { (count().await >= before + 2).then_some(()) }).await;
}

/// Money that comes from nowhere, as an internal call does without a tracer.
async fn conjure(node: &Node, to: Address, balance: u64) {
    let _: serde_json::Value =
        node.call("anvil_setBalance", json!([to, U256::from(balance)])).await.unwrap();
    node.mine(1).await.unwrap();
}

/// A daemon that lets two balances differ at once, and whose one endpoint may lie.
async fn wave(node: &Node, store: &Store) -> (Daemon, Api, Liar) {
    let liar = Liar::before(node.url()).await;
    let mut settings = Settings::new(node, store);
    settings.node_url = liar.url();
    settings.chain.push_str("sweep_per_minute = 0\nmax_differences = 2");
    let daemon = Daemon::start_with(settings).await;
    let api = daemon.customer("acme").await;
    (daemon, api, liar)
}

/// Three wallets that get 500 from nowhere, and then 1 each in one block, which settles.
async fn conjured(node: &Node, api: &Api) -> Vec<Address> {
    let wallets: Vec<Address> = (0..3).map(|_| Node::stranger()).collect();
    for &wallet in &wallets {
        api.watch(wallet).await;
    }
    for &wallet in &wallets {
        conjure(node, wallet, 500).await;
    }
    let pay = |wallet: &Address| Request::pay(node.accounts[0], *wallet, U256::from(1));
    let pays: Vec<Request> = wallets.iter().map(pay).collect();
    node.block_with(&pays).await;
    node.settle().await;
    wallets
}

async fn all_have(api: &Api, wallets: &[Address], units: u64) {
    for &wallet in wallets {
        eventually("the settlement", || async {
            let balance = api.balance(wallet, "ETH").await;
            (balance.available == U256::from(units)).then_some(())
        })
        .await;
    }
}

on_both_stores! {
    async fn an_untraced_credit_is_adjusted_when_the_address_is_next_touched(store) {
        let node = Node::start().await;
        let mut settings = Settings::new(&node, &store);
        settings.chain.push_str("sweep_per_minute = 0");
        let daemon = Daemon::start_with(settings).await;
        let api = daemon.customer("acme").await;
        let wallet = Node::stranger();
        api.watch(wallet).await;
        node.pay(node.accounts[0], wallet, 10).await;
        conjure(&node, wallet, 510).await;
        node.pay(node.accounts[0], wallet, 1).await;
        node.settle().await;
        let settled = api.balance_settled(wallet, "ETH", &node).await;
        assert_eq!(settled.available, U256::from(511));
        let told = api.event("balance.adjusted").await;
        let transfer = &told["data"]["transfer"];
        assert_eq!(transfer["kind"], "adjustment");
        assert_eq!(transfer["reason"], "untraced_credit");
        assert_eq!(transfer["amount"]["raw"], "500");
        assert_eq!(transfer["status"], "settled");
        assert!(daemon.metrics().await.contains("tidemark_balance_drift_total{chain=\"local\"} 1"));
    }

    async fn the_sweep_finds_what_nothing_touches(store) {
        let node = Node::start().await;
        let mut settings = Settings::new(&node, &store);
        settings.chain.push_str("sweep_per_minute = 6000");
        let daemon = Daemon::start_with(settings).await;
        let api = daemon.customer("acme").await;
        let wallet = Node::stranger();
        api.watch(wallet).await;
        node.pay(node.accounts[0], wallet, 10).await;
        node.settle().await;
        conjure(&node, wallet, 7).await;
        node.settle().await;
        let told = api.event("balance.adjusted").await;
        assert_eq!(told["data"]["transfer"]["reason"], "untraced_debit");
        assert_eq!(told["data"]["transfer"]["amount"]["raw"], "3");
        assert_eq!(api.balance(wallet, "ETH").await.available, U256::from(7));
    }

    async fn an_audit_answers_with_its_exit_code(store) {
        let node = Node::start().await;
        let mut settings = Settings::new(&node, &store);
        settings.chain.push_str("sweep_per_minute = 0");
        let daemon = Daemon::start_with(settings).await;
        let api = daemon.customer("acme").await;
        let wallet = Node::stranger();
        let id = api.watch(wallet).await["id"].as_str().unwrap().to_owned();
        node.pay(node.accounts[0], wallet, 10).await;
        node.mint(wallet, 3).await;
        node.settle().await;
        api.balance_settled(wallet, "ETH", &node).await;

        // Beside the running daemon.
        let (code, said) = daemon.outcome(&["audit"]).await;
        assert_eq!(code, 0, "{said}");
        assert!(said.contains("local: 1 wallets, 2 balances recomputed, 2 figures"), "{said}");

        conjure(&node, wallet, 510).await;
        node.settle().await;
        api.balance_settled(wallet, "ETH", &node).await;
        let (code, said) = daemon.outcome(&["audit", "--chain", CHAIN]).await;
        assert_eq!(code, 1, "{said}");
        let line = said.lines().find(|line| line.contains(&id)).unwrap_or_default();
        for word in [&wallet.to_checksum(None), "eip155:31337/slip44:60", "ledger 10, chain 510"] {
            assert!(line.contains(word), "{word} in {said}");
        }
        assert_eq!(api.balance(wallet, "ETH").await.total, U256::from(10), "nothing is booked");

        node.stop().await;
        let (code, said) = daemon.outcome(&["audit"]).await;
        assert_eq!(code, 3, "{said}");
    }

    async fn one_false_balance_of_one_endpoint_takes_nothing_from_settled_money(store) {
        let node = Node::start().await;
        for second in [false, true] {
            let (daemon, api, liar) = behind_a_liar(&node, &store, second).await;
            let wallet = Node::stranger();
            api.watch(wallet).await;
            node.pay(node.accounts[0], wallet, 10_000).await;
            node.settle().await;
            api.balance_settled(wallet, "ETH", &node).await;
            if second {
                // Without a proof to be had, the honest endpoint's word stands against the liar's.
                liar.lie("eth_getProof", Lie::Error(-32601, "the method does not exist"));
            }
            for figure in ["0x0", "0xffffffff"] {
                liar.lie("eth_getBalance", Lie::Result(json!(figure)));
                swept(&daemon).await;
                node.settle().await;
                swept(&daemon).await;
                let balance = api.balance(wallet, "ETH").await;
                assert_eq!(balance.available, U256::from(10_000), "{figure}");
            }
            liar.tell_the_truth();
            node.settle().await;
            swept(&daemon).await;
            assert_eq!(api.balance(wallet, "ETH").await.available, U256::from(10_000));
            let drift = "tidemark_balance_drift_total{chain=\"local\"} 0\n";
            assert!(daemon.metrics().await.contains(drift), "nothing was adjusted");
        }
    }

    async fn a_true_difference_is_believed_for_its_proof_though_another_endpoint_denies_it(store) {
        let node = Node::start().await;
        let (daemon, api, liar) = behind_a_liar(&node, &store, true).await;
        let wallet = Node::stranger();
        api.watch(wallet).await;
        node.pay(node.accounts[0], wallet, 10).await;
        node.settle().await;
        api.balance_settled(wallet, "ETH", &node).await;
        conjure(&node, wallet, 7).await;
        liar.lie("eth_getBalance", Lie::Result(json!("0x5")));
        node.settle().await;
        let told = api.event("balance.adjusted").await;
        assert_eq!(told["data"]["transfer"]["reason"], "untraced_debit");
        assert_eq!(told["data"]["transfer"]["amount"]["raw"], "3", "what the proof says");
        assert_eq!(api.balance(wallet, "ETH").await.available, U256::from(7));
        drop(daemon);
    }

    async fn a_wave_of_differences_stops_settlement_until_a_person_accepts_it(store) {
        let node = Node::start().await;
        let (daemon, api, liar) = wave(&node, &store).await;
        // No proof is to be had: the endpoint's word is all there is.
        liar.lie("eth_getProof", Lie::Error(-32601, "the method does not exist"));
        let wallets = conjured(&node, &api).await;
        let stopped = "tidemark_settlement_stopped{chain=\"local\"} 1";
        eventually("the stop", || async {
            daemon.metrics().await.contains(stopped).then_some(())
        })
        .await;
        for &wallet in &wallets {
            assert_eq!(api.balance(wallet, "ETH").await.available, U256::ZERO);
        }
        let said = daemon.command(&["accept-differences", "--chain", CHAIN]).await;
        assert!(said.contains("local"), "{said}");
        all_have(&api, &wallets, 501).await;
        assert!(!daemon.metrics().await.contains(stopped));
    }

    async fn money_that_a_stranger_sends_to_many_in_ways_that_no_log_shows_stops_nothing(store) {
        let node = Node::start().await;
        let (daemon, api, _liar) = wave(&node, &store).await;
        let wallets = conjured(&node, &api).await;
        all_have(&api, &wallets, 501).await;
        let stopped = "tidemark_settlement_stopped{chain=\"local\"} 1";
        assert!(!daemon.metrics().await.contains(stopped));
    }
}
