//! Money comes and goes: pending, available, and always what the chain itself says.

use alloy::primitives::{Address, U256};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tidemark::dev::anvil::Request;

use crate::harness::{Api, Daemon, Node, Store, on_both_stores};

const GAS: u64 = 100_000;

/// A block's worth of anything that may happen between these addresses, failures included.
fn anything(random: &mut StdRng, node: &Node, addresses: &[Address]) -> Vec<Request> {
    (0..random.random_range(0..6))
        .map(|_| {
            let from = addresses[random.random_range(0..addresses.len())];
            let to = addresses[random.random_range(0..addresses.len())];
            let value = random.random_range(0..1_000_000);
            match random.random_range(0..5) {
                0 => node.minting(to, value),
                // Often more than there is: it fails and costs a fee all the same.
                1 | 2 => node.token_transfer(from, to, value),
                3 => Request::pay(from, to, U256::from(value)).with_gas(GAS),
                _ => Request {
                    // With calldata that a plain address ignores.
                    data: vec![1, 2, 3, 4].into(),
                    ..Request::pay(from, to, U256::from(value)).with_gas(GAS)
                },
            }
        })
        .collect()
}

async fn send(node: &Node, transactions: &[Request]) {
    for transaction in transactions {
        node.call::<serde_json::Value>("eth_sendTransaction", serde_json::json!([transaction]))
            .await
            .unwrap();
    }
    node.mine(1).await.unwrap();
}

/// The daemon's totals at the node's head are the node's own figures there.
async fn agrees(api: &Api, node: &Node, addresses: &[Address]) {
    for &address in addresses {
        let balances = api.balances_at_head(address, node).await;
        let told = |symbol| crate::harness::balance_in(&balances, symbol).total;
        assert_eq!(told("ETH"), node.balance(address).await.unwrap(), "ETH of {address}");
        assert_eq!(told("DUSD"), node.token_balance(address).await, "DUSD of {address}");
    }
}

on_both_stores! {
    async fn a_deposit_is_pending_then_available(store) {
        let node = Node::start().await;
        let daemon = Daemon::start(&node, &store).await;
        let api = daemon.customer("acme").await;
        let wallet = Node::stranger();
        api.watch(wallet).await;

        let receipt = node.mint(wallet, 1_500_000).await;
        let seen = api.balance_at_head(wallet, "DUSD", &node).await;
        assert_eq!((seen.pending, seen.available), (U256::from(1_500_000), U256::ZERO));
        let event = api.event("deposit.pending").await;
        let transfer = &event["data"]["transfer"];
        assert_eq!(transfer["txHash"], receipt.transaction_hash.to_string());
        assert_eq!(transfer["amount"]["raw"], "1500000");
        assert_eq!(transfer["amount"]["amount"], "1.5");
        assert_eq!(transfer["status"], "pending");
        assert_eq!(event["data"]["balance"]["pending"]["raw"], "1500000");

        node.settle().await;
        let settled = api.balance_settled(wallet, "DUSD", &node).await;
        assert_eq!((settled.pending, settled.available), (U256::ZERO, U256::from(1_500_000)));
        let event = api.event("deposit.available").await;
        assert_eq!(event["data"]["transfer"]["id"], transfer["id"], "the same deposit");
        assert_eq!(event["data"]["transfer"]["status"], "settled");
        assert_eq!(event["data"]["balance"]["available"]["raw"], "1500000");
    }

    async fn an_outgoing_transfer_and_its_fee_lower_available_at_once(store) {
        let node = Node::start().await;
        let daemon = Daemon::start(&node, &store).await;
        let api = daemon.customer("acme").await;
        let wallet = node.accounts[1];
        node.settle().await;
        api.watch(wallet).await;
        let opening = api.balance_settled(wallet, "ETH", &node).await;
        assert_eq!(opening.available, node.balance(wallet).await.unwrap(), "all of it is settled");
        node.pay(wallet, Node::stranger(), 1000).await;
        let after = api.balance_at_head(wallet, "ETH", &node).await;
        assert_eq!(after.available, node.balance(wallet).await.unwrap());
        assert_eq!(after.pending, U256::ZERO);
        let kinds: Vec<_> = api.transfers(wallet).await;
        assert!(kinds.iter().any(|transfer| transfer["kind"] == "fee"), "{kinds:?}");
    }

    async fn balances_equal_the_nodes_own_at_every_block(store) {
        let seed = rand::random();
        eprintln!("seed {seed}");
        let mut random = StdRng::seed_from_u64(seed);
        let node = Node::start().await;
        let daemon = Daemon::start(&node, &store).await;
        let api = daemon.customer("acme").await;
        let addresses = node.accounts[..4].to_vec();
        for &address in &addresses {
            api.watch(address).await;
        }
        for _ in 0..25 {
            let block = anything(&mut random, &node, &addresses);
            send(&node, &block).await;
            agrees(&api, &node, &addresses).await;
        }
        node.settle().await;
        for &address in &addresses {
            let balance = api.balance_settled(address, "DUSD", &node).await;
            assert_eq!(balance.pending, U256::ZERO, "everything is settled");
        }
        agrees(&api, &node, &addresses).await;
    }

    async fn catching_up_after_downtime_gives_what_never_being_down_gives(store) {
        let seed = rand::random();
        eprintln!("seed {seed}");
        let mut random = StdRng::seed_from_u64(seed);
        let node = Node::start().await;
        let addresses = node.accounts[..3].to_vec();
        let other_store = Store::sqlite();
        let steady = Daemon::start(&node, &other_store).await;
        let mut sleepy = Daemon::start(&node, &store).await;
        let (steady_api, sleepy_api) = (steady.customer("acme").await, sleepy.customer("acme").await);
        for &address in &addresses {
            steady_api.watch(address).await;
            sleepy_api.watch(address).await;
        }
        sleepy.terminate().await;
        for _ in 0..40 {
            let block = anything(&mut random, &node, &addresses);
            send(&node, &block).await;
        }
        sleepy.begin().await;
        sleepy.ready().await;
        agrees(&sleepy_api, &node, &addresses).await;
        let what = |transfers: Vec<serde_json::Value>| -> Vec<_> {
            let mut all: Vec<_> = transfers
                .iter()
                .filter(|transfer| transfer["kind"] != "opening")
                .map(|t| {
                    [&t["txHash"], &t["ordinal"], &t["direction"], &t["amount"]["raw"], &t["status"], &t["block"]["hash"]]
                        .map(ToString::to_string)
                })
                .collect();
            all.sort();
            all
        };
        for &address in &addresses {
            steady_api.balances_settled(address, &node).await;
            sleepy_api.balances_settled(address, &node).await;
            assert_eq!(
                what(sleepy_api.transfers(address).await),
                what(steady_api.transfers(address).await),
                "{address}"
            );
        }
    }

    async fn a_deposit_during_registration_counts_exactly_once(store) {
        let node = Node::start().await;
        let daemon = Daemon::start(&node, &store).await;
        let api = daemon.customer("acme").await;
        let wallets: Vec<Address> = (0..20).map(|_| Node::stranger()).collect();
        for &wallet in &wallets {
            let (_, _) = tokio::join!(api.register(wallet), node.mint(wallet, 7));
        }
        node.settle().await;
        for &wallet in &wallets {
            api.active(wallet).await;
            let balance = api.balance_at_head(wallet, "DUSD", &node).await;
            assert_eq!(balance.total, U256::from(7), "{wallet}");
        }
    }
}
