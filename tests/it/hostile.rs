//! What anybody can put into a block, beside an honest deposit that must be there in time.

use alloy::{
    primitives::{Address, B256, U256, b256, keccak256},
    sol_types::SolValue as _,
};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tidemark::dev::{
    anvil::{Options, Request},
    contracts::SafeSetup,
};

use crate::harness::{
    Api, CHAIN, Daemon, Gate, Liar, Lie, Node, Settings, Store, eventually, on_both_stores,
};

/// `SafeSetup(address indexed,address[],uint256,address,address)`.
const SAFE_SETUP: B256 = b256!("141df868a6331af528e38c83b7aa03edc19be66e37ae67f9285bf4f8e3c6a1a8");

/// A contract that was never a Safe, with a Safe's code: what its constructor writes and tells, and returns.
struct Forged {
    storage: Vec<(B256, B256)>,
    /// The data of a `SafeSetup` that it emits.
    told: Vec<u8>,
    runtime: Vec<u8>,
}

impl Forged {
    /// A Safe of 1.4.1 by its code, its singleton and its owner, with any threshold.
    fn safe(runtime: Vec<u8>, singleton: Address, owner: Address, threshold: U256) -> Self {
        let sentinel = B256::with_last_byte(1);
        let owner_of = |key: B256| keccak256((key, B256::with_last_byte(2)).abi_encode());
        let storage = vec![
            (B256::ZERO, singleton.into_word()),
            (owner_of(sentinel), owner.into_word()),
            (owner_of(owner.into_word()), sentinel),
            (B256::with_last_byte(3), B256::with_last_byte(1)),
            (B256::with_last_byte(4), B256::from(threshold)),
        ];
        let told = (vec![owner], threshold, Address::ZERO, Address::ZERO).abi_encode_params();
        Self { storage, told, runtime }
    }

    fn init_code(&self) -> Vec<u8> {
        const PUSH2: u8 = 0x61;
        const PUSH32: u8 = 0x7f;
        let size = |bytes: &[u8]| u16::try_from(bytes.len()).unwrap().to_be_bytes();
        let mut code = Vec::new();
        let push = |code: &mut Vec<u8>, word: &[u8]| {
            code.push(if word.len() == 2 { PUSH2 } else { PUSH32 });
            code.extend_from_slice(word);
        };
        for (slot, value) in &self.storage {
            push(&mut code, value.as_slice());
            push(&mut code, slot.as_slice());
            code.push(0x55); // SSTORE
        }
        for (index, word) in self.told.chunks(32).enumerate() {
            push(&mut code, word);
            push(&mut code, &u16::try_from(32 * index).unwrap().to_be_bytes());
            code.push(0x52); // MSTORE
        }
        push(&mut code, B256::ZERO.as_slice());
        push(&mut code, SAFE_SETUP.as_slice());
        push(&mut code, &size(&self.told));
        push(&mut code, &[0, 0]);
        code.push(0xa2); // LOG2
        let length = size(&self.runtime);
        let end = u16::try_from(code.len() + 17).unwrap().to_be_bytes();
        push(&mut code, &length);
        push(&mut code, &end);
        push(&mut code, &[0, 0]);
        code.push(0x39); // CODECOPY
        push(&mut code, &length);
        push(&mut code, &[0, 0]);
        code.push(0xf3); // RETURN
        code.extend_from_slice(&self.runtime);
        code
    }

    fn creation(&self, from: Address) -> Request {
        Request::create(from, self.init_code()).with_gas(3_000_000)
    }
}

/// An honest deposit comes, and is available in time.
pub async fn an_honest_deposit_is_available(api: &Api, node: &Node) {
    let wallet = Node::stranger();
    api.watch(wallet).await;
    node.mint(wallet, 77).await;
    node.settle().await;
    eventually("the honest deposit", || async {
        let balance = api.balance_at_head(wallet, "DUSD", node).await;
        (balance.available == U256::from(77)).then_some(())
    })
    .await;
}

/// A daemon whose first endpoint lies when it is told to; the second is the node itself.
async fn behind_a_liar(node: &Node, store: &Store) -> (Daemon, Liar) {
    let liar = Liar::before(node.url()).await;
    let mut settings = Settings::new(node, store);
    settings.node_url = liar.url();
    settings.more_nodes.push(node.url().to_owned());
    // What the sweep would find is to be right before it looks.
    settings.chain.push_str("sweep_per_minute = 0");
    (Daemon::start_with(settings).await, liar)
}

/// The methods that give whole blocks.
const BLOCKS: [&str; 2] = ["eth_getBlockByHash", "eth_getBlockByNumber"];
/// The second of the rich accounts that Anvil always has.
const SECOND: &str = "0x70997970c51812dc3a010c7d01b50e0d17dc79c8";

fn transactions(block: &mut Value) -> impl Iterator<Item = &mut Value> {
    block["transactions"].as_array_mut().into_iter().flatten().filter(|tx| tx.is_object())
}

fn doubled(block: &mut Value) {
    for tx in transactions(block) {
        let value: U256 = tx["value"].as_str().unwrap().parse().unwrap();
        tx["value"] = json!(value + value);
    }
}

fn sent_by_the_second(block: &mut Value) {
    transactions(block).for_each(|tx| tx["from"] = json!(SECOND));
}

/// How many answers did not pass a check.
async fn failed(daemon: &Daemon, check: &str) -> u64 {
    let metrics = daemon.metrics().await;
    let series =
        format!("tidemark_verification_failures_total{{chain=\"{CHAIN}\",check=\"{check}\"}} ");
    let value = metrics.lines().find_map(|line| line.strip_prefix(&series));
    value.map_or(0, |value| value.parse().unwrap())
}

on_both_stores! {
    async fn a_doubled_value_in_an_honest_looking_block_is_caught_and_the_next_endpoint_is_asked(store) {
        let node = Node::start().await;
        let (daemon, liar) = behind_a_liar(&node, &store).await;
        let api = daemon.customer("acme").await;
        let wallet = Node::stranger();
        api.watch(wallet).await;
        for method in BLOCKS {
            liar.lie(method, Lie::Change(doubled));
        }
        node.pay(node.accounts[0], wallet, 33).await;
        node.settle().await;
        eventually("the deposit", || async {
            let available = api.balance(wallet, "ETH").await.available;
            assert!([U256::ZERO, U256::from(33)].contains(&available), "{available}");
            (available == U256::from(33)).then_some(())
        })
        .await;
        assert!(failed(&daemon, "transactions_root").await > 0);
        assert_eq!(api.event("deposit.available").await["data"]["transfer"]["amount"]["raw"], "33");
    }

    async fn a_wrong_sender_among_blocks_that_were_missed_is_refuted_and_charged_nothing(store) {
        let node = Node::start().await;
        let (mut daemon, liar) = behind_a_liar(&node, &store).await;
        let api = daemon.customer("acme").await;
        let (wallet, second): (Address, Address) = (Node::stranger(), SECOND.parse().unwrap());
        api.watch(wallet).await;
        api.watch(second).await;
        let before = api.balance(second, "ETH").await.total;
        daemon.terminate().await;
        for _ in 0..20 {
            node.pay(node.accounts[0], wallet, 1).await;
        }
        node.settle().await;
        for method in BLOCKS {
            liar.lie(method, Lie::Change(sent_by_the_second));
        }
        daemon.begin().await;
        daemon.ready().await;
        let balance = api.balance_settled(wallet, "ETH", &node).await;
        assert_eq!(balance.available, U256::from(20));
        assert_eq!(api.balance(second, "ETH").await.total, before, "it has paid for nothing");
        assert!(failed(&daemon, "sender").await > 0);
        assert_eq!(failed(&daemon, "transactions_root").await, 0);
    }

    async fn payments_of_all_types_without_blobs_are_proven_by_what_a_real_node_says_of_them(store) {
        let node = Node::start().await;
        let daemon = Daemon::start(&node, &store).await;
        let api = daemon.customer("acme").await;
        let wallet = Node::stranger();
        api.watch(wallet).await;
        let more = [
            json!({ "type": "0x0", "gasPrice": "0xb2d05e00" }),
            json!({ "type": "0x1", "gasPrice": "0xb2d05e00", "accessList": [
                { "address": node.token, "storageKeys": [B256::ZERO, B256::with_last_byte(1)] },
            ]}),
            json!({ "type": "0x2", "maxFeePerGas": "0xb2d05e00", "maxPriorityFeePerGas": "0x7" }),
            json!({ "type": "0x4", "authorizationList": [{ "chainId": "0x7a69", "address": node.token,
                "nonce": "0x0", "yParity": "0x1", "r": "0x1234", "s": "0x5678" }] }),
        ];
        for (from, more) in node.accounts.iter().zip(&more) {
            let mut request = json!({ "from": from, "to": wallet, "value": "0x21", "gas": "0x30d40" });
            request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let _: B256 = node.call("eth_sendTransaction", json!([request])).await.unwrap();
        }
        node.mine(1).await.unwrap();
        let block: Value = node.call("eth_getBlockByNumber", json!(["latest", true])).await.unwrap();
        let mut types: Vec<&str> =
            block["transactions"].as_array().unwrap().iter().map(|tx| tx["type"].as_str().unwrap()).collect();
        types.sort_unstable();
        assert_eq!(types, ["0x0", "0x1", "0x2", "0x4"]);
        let balance = api.balance_at_head(wallet, "ETH", &node).await;
        assert_eq!(balance.total, U256::from(4 * 33));
        let metrics = daemon.metrics().await;
        assert!(!metrics.contains("tidemark_verification_failures_total{"), "{metrics}");
    }

    async fn a_forged_safe_neither_ends_the_daemon_nor_holds_the_chain_nor_becomes_a_wallet(store) {
        let node = Node::start().await;
        let safe = node.deploy_safe_1_4_1().await;
        let setup = SafeSetup { owners: vec![node.accounts[3]], threshold: 1, salt_nonce: 1 };
        let real = safe.deployment(&node, node.accounts[0], &setup).await.unwrap();
        node.block_with(std::slice::from_ref(&real.request)).await;
        let runtime = node.code(real.address).await.unwrap().to_vec();
        let mut daemon = Daemon::start(&node, &store).await;
        let api = daemon.customer("acme").await;
        let owner = node.accounts[1];
        api.watch(owner).await;
        let thresholds = [U256::from(1), U256::from(2), U256::from(1_u64 << 63), U256::ONE << 64, U256::MAX];
        for threshold in thresholds {
            let forged = Forged::safe(runtime.clone(), safe.singleton, owner, threshold);
            let receipts = node.block_with(&[forged.creation(node.accounts[4])]).await;
            assert!(receipts[0].succeeded());
        }
        an_honest_deposit_is_available(&api, &node).await;
        daemon.terminate().await;
        daemon.begin().await;
        daemon.ready().await;
        an_honest_deposit_is_available(&api, &node).await;
        let wallets = api.get("/v1/wallets?kind=safe").await.ok();
        assert_eq!(wallets["data"], json!([]), "no factory made them");
    }

    async fn a_ghost_safe_with_a_hidden_module_becomes_no_wallet(store) {
        let node = Node::start().await;
        let safe = node.deploy_safe_1_4_1().await;
        let setup = SafeSetup { owners: vec![node.accounts[3]], threshold: 1, salt_nonce: 1 };
        let real = safe.deployment(&node, node.accounts[0], &setup).await.unwrap();
        node.block_with(std::slice::from_ref(&real.request)).await;
        let runtime = node.code(real.address).await.unwrap().to_vec();
        let daemon = Daemon::start(&node, &store).await;
        let api = daemon.customer("acme").await;
        let owner = node.accounts[1];
        api.watch(owner).await;
        let mut ghost = Forged::safe(runtime, safe.singleton, owner, U256::from(1));
        let module = keccak256((node.accounts[5], U256::from(1)).abi_encode());
        ghost.storage.push((module, B256::with_last_byte(1)));
        let receipts = node.block_with(&[ghost.creation(node.accounts[4])]).await;
        let address = receipts[0].contract_address.unwrap();
        // The transaction is known to its victim, too.
        let body = json!({"chain": CHAIN, "txHash": receipts[0].transaction_hash.to_string()});
        let tracked = api.post("/v1/safe-deployments", &body).await.ok();
        an_honest_deposit_is_available(&api, &node).await;
        let path = format!("/v1/safe-deployments/{}", tracked["id"].as_str().unwrap());
        let failed = eventually("the judgement of the ghost", || async {
            let now = api.get(&path).await.ok();
            (now["status"] == "failed").then_some(now)
        })
        .await;
        assert_eq!(failed["reason"], "not_a_safe");
        api.get(&format!("/v1/wallets/{address}")).await.is_error(404, "wallet_not_found");
    }

    async fn hundreds_of_safes_of_a_registered_owner_delay_no_deposit(store) {
        const SAFES: u64 = 300;
        let arguments = vec!["--gas-limit".to_owned(), "1000000000".to_owned()];
        let options = Options { slots_in_an_epoch: Some(2), arguments, ..Options::default() };
        let node = Node::start_with(options).await;
        let safe = node.deploy_safe_1_4_1().await;
        let gate = Gate::to(node.url()).await;
        let mut settings = Settings { node_url: gate.url(), ..Settings::new(&node, &store) };
        // For each transaction that Anvil traces it executes those before it again, and answers nothing else meanwhile.
        settings.endpoint.push_str(", tracing = \"none\"");
        let daemon = Daemon::start_with(settings).await;
        let api = daemon.customer("acme").await;
        let (owner, wallet) = (node.accounts[1], Node::stranger());
        api.watch(owner).await;
        api.watch(wallet).await;
        gate.delay(Duration::from_millis(50));
        let mut block = Vec::new();
        for salt_nonce in 0..SAFES {
            let setup = SafeSetup { owners: vec![owner, node.accounts[2]], threshold: 1, salt_nonce };
            let planned = safe.deployment(&node, node.accounts[4], &setup).await.unwrap();
            block.push(planned.request.with_gas(400_000));
        }
        block.push(node.minting(wallet, 77));
        node.block_with(&block).await;
        let mined = Instant::now();
        api.balance_becomes(wallet, "DUSD", "the deposit of the same block", |balance| {
            balance.pending == U256::from(77)
        })
        .await;
        let took = mined.elapsed();
        assert!(took < Duration::from_secs(5), "the block was {took:?} late");
        an_honest_deposit_is_available(&api, &node).await;
        api.event("safe_deployment.processing").await;
    }

    async fn a_thousand_made_up_transactions_leave_the_follower_at_the_head(store) {
        let node = Node::start().await;
        let safe = node.deploy_safe_1_4_1().await;
        let gate = Gate::to(node.url()).await;
        let settings = Settings { node_url: gate.url(), ..Settings::new(&node, &store) };
        let daemon = Daemon::start_with(settings).await;
        let flooding = daemon.customer("flooding").await;
        let api = daemon.customer("acme").await;
        for _ in 0..50 {
            let made_up = futures::future::join_all((0..20).map(|_| {
                let hash = B256::from(rand::random::<[u8; 32]>());
                let flooding = flooding.clone();
                async move {
                    let body = json!({"chain": CHAIN, "txHash": hash.to_string()});
                    flooding.post("/v1/safe-deployments", &body).await.status
                }
            }))
            .await;
            assert!(made_up.iter().all(|status| *status == 202), "{made_up:?}");
        }
        gate.delay(Duration::from_millis(20));
        let wallet = Node::stranger();
        api.watch(wallet).await;
        for _ in 0..5 {
            let before = api.balance(wallet, "DUSD").await.total;
            node.mint(wallet, 7).await;
            let mined = Instant::now();
            api.balance_becomes(wallet, "DUSD", "the deposit at the head", |balance| {
                balance.total == before + U256::from(7)
            })
            .await;
            let took = mined.elapsed();
            assert!(took < Duration::from_secs(3), "the head is {took:?} late");
        }
        // What another tenant tracks is not behind them.
        let setup = SafeSetup { owners: vec![node.accounts[3]], threshold: 1, salt_nonce: 1 };
        let real = safe.deployment(&node, node.accounts[0], &setup).await.unwrap();
        let receipt = node.block_with(std::slice::from_ref(&real.request)).await.remove(0);
        let body = json!({"chain": CHAIN, "txHash": receipt.transaction_hash.to_string()});
        api.post("/v1/safe-deployments", &body).await.ok();
        let asked = Instant::now();
        node.settle().await;
        api.event("safe_deployment.completed").await;
        assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
        an_honest_deposit_is_available(&api, &node).await;
    }
}
