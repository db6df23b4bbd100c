//! Blocks of Arbitrum One in the shapes of its nodes, each on a scripted node.
//!
//! The first eight tests are the vectors TV-1 to TV-8 of Arbitrum's own checklist for exchanges ("Exchange integration
//! checklist", docs.arbitrum.io), each named after its promise. An address on the checklist is one that is watched.

use std::{sync::Arc, time::Duration};

use alloy::{
    consensus::TxEip1559,
    primitives::{Address as EvmAddress, B256, Bytes, U256, address as literal, keccak256},
    rlp::{Encodable, Header},
};
use serde_json::{Value, json};

use super::{
    config, endpoint,
    node::{Node, Reply},
    signing::{address, sealed, shown, sign},
};
use crate::{
    chain::{
        AssetKey, Block, BlockHash, BlockRef, Kind, Ordinal, Source as _, Traced,
        evm::{EvmSource, decode},
    },
    config::{ChainConfig, Tracing},
    metrics::Metrics,
};

pub(super) const ONE: u64 = 42_161;
/// Wei for a unit of gas in the recorded block, of which only the header's other fields are taken.
pub(super) const BASE_FEE: u64 = 1_000_000_000;
const ARBOS: EvmAddress = literal!("00000000000000000000000000000000000a4b05");
const USDC: EvmAddress = literal!("af88d065e77c8cC2239327C5EDb3A432268e5831");
const TRANSFER: &str = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef";

/// The hash of a transaction of Arbitrum's own.
pub(super) fn hash_of(kind: u8, fields: &[&dyn Encodable]) -> B256 {
    let mut payload = Vec::new();
    for field in fields {
        field.encode(&mut payload);
    }
    let mut out = vec![kind];
    Header { list: true, payload_length: payload.len() }.encode(&mut out);
    keccak256([out, payload].concat())
}

/// What every block begins with.
fn internal() -> (Value, Value) {
    let input = Bytes::from_static(&[0x6b, 0xf6, 0xa4, 0x2d]);
    let tx = json!({
        "type": "0x6a", "chainId": "0xa4b1", "from": ARBOS, "to": ARBOS, "value": "0x0", "gas": "0x0",
        "gasPrice": "0x0", "nonce": "0x0", "v": "0x0", "r": "0x0", "s": "0x0", "input": input,
        "hash": hash_of(0x6a, &[&ONE, &input]),
    });
    (tx, json!({ "gasUsed": "0x0" }))
}

/// A deposit from L1.
fn deposit(to: EvmAddress, wei: u64) -> (Value, Value) {
    let (request, from) = (B256::repeat_byte(3), address(7));
    let tx = json!({
        "type": "0x64", "chainId": "0xa4b1", "from": from, "to": to, "value": format!("{wei:#x}"), "gas": "0x0",
        "gasPrice": "0x0", "nonce": "0x0", "v": "0x0", "r": "0x0", "s": "0x0", "input": "0x", "requestId": request,
        "hash": hash_of(0x64, &[&ONE, &request, &from, &to, &wei]),
    });
    (tx, json!({ "gasUsed": "0x0" }))
}

/// What the first of those who sign sends.
pub(super) fn sent(to: EvmAddress, wei: u64, input: Vec<u8>, receipt: Value) -> (Value, Value) {
    let tx = TxEip1559 {
        chain_id: ONE,
        gas_limit: 300_000,
        max_fee_per_gas: u128::from(BASE_FEE) * 2,
        to: to.into(),
        value: U256::from(wei),
        input: input.into(),
        ..TxEip1559::default()
    };
    (shown(&sign(tx, 1), address(1)), receipt)
}

/// A block that begins as all do, with these in it.
pub(super) fn block_of(parts: Vec<(Value, Value)>) -> (Value, Value) {
    let mut block = super::mixed_block();
    let like = super::mixed_receipts()[0].clone();
    let number = |text: &Value| u64::from_str_radix(&text.as_str().unwrap()[2..], 16).unwrap();
    let (mut transactions, mut receipts, mut gas) = (Vec::new(), Vec::new(), 0);
    for (index, (tx, own)) in std::iter::once(internal()).chain(parts).enumerate() {
        let mut receipt = like.clone();
        for (name, value) in own.as_object().expect("an object") {
            receipt[name] = value.clone();
        }
        gas += number(&receipt["gasUsed"]);
        receipt["type"] = tx["type"].clone();
        receipt["transactionHash"] = tx["hash"].clone();
        receipt["transactionIndex"] = json!(format!("{index:#x}"));
        receipt["cumulativeGasUsed"] = json!(format!("{gas:#x}"));
        receipt["effectiveGasPrice"] = json!(format!("{BASE_FEE:#x}"));
        // Of the gas used, so much was for L1.
        receipt["gasUsedForL1"] = json!("0x10");
        receipt["l1BlockNumber"] = json!("0x11b3fb3");
        transactions.push(tx);
        receipts.push(receipt);
    }
    block["transactions"] = transactions.into();
    block["l1BlockNumber"] = json!("0x11b3fb3");
    block["sendCount"] = json!("0x1d3c1");
    block["sendRoot"] = json!(B256::repeat_byte(0x5e));
    sealed(block, receipts.into())
}

/// What a node tells of the last transaction of a block beside the block.
#[derive(Clone, Default)]
pub(super) struct Inside {
    /// As `prestateTracer` and `callTracer` tell it; neither without the first.
    pub diff: Option<Value>,
    pub calls: Value,
    /// Balances before and after the block.
    pub balances: Vec<(EvmAddress, u64, u64)>,
}

pub(super) struct Rollup {
    pub source: EvmSource,
    pub metrics: Metrics,
    at: BlockRef,
}

impl Rollup {
    pub async fn of((block, receipts): (Value, Value), inside: Inside) -> Self {
        let hash: B256 = block["hash"].as_str().expect("a hash").parse().expect("a hash");
        let script = Arc::new((block, receipts, inside));
        let node = Node::start(move |method, params| answer(&script, method, params)).await;
        let mut only = endpoint("one", &node.url, 1);
        only.tracing = Tracing::Debug;
        let chain =
            ChainConfig { caip2: "eip155:42161".to_owned(), chain_id: ONE, ..config(vec![only]) };
        let metrics = Metrics::new();
        let source = EvmSource::new(&chain, metrics.clone()).expect("a source");
        Self { source, metrics, at: BlockRef { number: 1, hash: BlockHash(hash.0) } }
    }

    /// The block as the ledger gets it.
    pub async fn read(&self, watched: &[EvmAddress]) -> Block {
        let block = self.source.block(self.at).await.expect("an answer").expect("a block");
        let mut blocks = [block];
        self.source.trace(&mut blocks, Duration::from_secs(2)).await;
        let [mut block] = blocks;
        let watched: Vec<_> = watched.iter().map(|one| decode::address(*one)).collect();
        let is_watched = |address: &crate::chain::Address| watched.contains(address);
        block.retain_watched(is_watched);
        self.source.complete(block, &is_watched).await.expect("a block")
    }
}

fn answer(
    (block, receipts, inside): &(Value, Value, Inside),
    method: &str,
    params: &Value,
) -> Reply {
    let last = block["transactions"].as_array().and_then(|all| all.last()).expect("one");
    match (method, &inside.diff) {
        ("eth_chainId", _) => Reply::Result(json!("0xa4b1")),
        ("eth_getBlockByHash", _) if params[0] == block["hash"] => Reply::Result(block.clone()),
        ("eth_getBlockReceipts", _) if params[0] == block["hash"] => {
            Reply::Result(receipts.clone())
        }
        ("eth_getBalance", _) => {
            let who: EvmAddress = params[0].as_str().expect("a text").parse().expect("it");
            let is_after = params[1]["blockHash"] == block["hash"];
            let balances = inside.balances.iter().find(|(one, ..)| *one == who);
            let (_, before, after) = balances.copied().unwrap_or((who, 0, 0));
            let now = if is_after { after } else { before };
            Reply::Result(json!(format!("{now:#x}")))
        }
        ("debug_traceBlockByHash", Some(diff)) => {
            let all = block["transactions"].as_array().expect("a list").iter();
            let none = json!({ "pre": {}, "post": {} });
            let told = all.map(|tx| {
                let result = if tx == last { diff } else { &none };
                json!({ "txHash": tx["hash"], "result": result })
            });
            Reply::Result(told.collect())
        }
        ("debug_traceTransaction", Some(_)) if params[0] == last["hash"] => {
            Reply::Result(inside.calls.clone())
        }
        _ => Reply::error(-32601, format!("the method {method} does not exist/is not available")),
    }
}

/// A movement: its place, kind, asset, two sides and amount.
pub(super) type Row = (String, Kind, AssetKey, Option<EvmAddress>, Option<EvmAddress>, u64);

pub(super) fn moved(block: &Block) -> Vec<Row> {
    let side = |side: Option<crate::chain::Address>| {
        side.map(|side| EvmAddress::from_slice(side.as_slice()))
    };
    let one = |one: &crate::chain::Movement| {
        let (from, to) = (side(one.from), side(one.to));
        (one.ordinal.to_string(), one.kind, one.asset, from, to, one.amount.get().to::<u64>())
    };
    block.movements.iter().map(one).collect()
}

/// A `Transfer` of a token.
fn transfer(token: EvmAddress, from: EvmAddress, to: EvmAddress, units: u64) -> Value {
    json!({
        "address": token, "topics": [TRANSFER, from.into_word(), to.into_word()],
        "data": format!("{units:#066x}"), "logIndex": "0x0",
    })
}

/// The calldata of `transfer(to, units)`.
fn calling(to: EvmAddress, units: u64) -> Vec<u8> {
    let mut input = vec![0xa9, 0x05, 0x9c, 0xbb];
    input.extend(to.into_word());
    input.extend(U256::from(units).to_be_bytes::<32>());
    input
}

fn usdc() -> AssetKey {
    AssetKey::Token(decode::address(USDC))
}

/// Whose address is watched.
fn user() -> EvmAddress {
    address(5)
}

async fn read(parts: Vec<(Value, Value)>) -> Block {
    Rollup::of(block_of(parts), Inside::default()).await.read(&[user()]).await
}

#[tokio::test]
async fn tv_1_a_payment_in_ether_is_credited_with_its_value() {
    let block = read(vec![sent(user(), 5_000, Vec::new(), json!({}))]).await;
    let paid = ("tx".to_owned(), Kind::Transfer, AssetKey::Native);
    assert_eq!(moved(&block), [(paid.0, paid.1, paid.2, Some(address(1)), Some(user()), 5_000)]);
}

#[tokio::test]
async fn tv_2_a_transfer_of_a_token_is_credited_with_what_its_log_says() {
    let receipt = json!({ "gasUsed": "0xc350", "logs": [transfer(USDC, address(1), user(), 77)] });
    let block = read(vec![sent(USDC, 0, calling(user(), 77), receipt)]).await;
    let place = "log:0".to_owned();
    let expected = (place, Kind::Transfer, usdc(), Some(address(1)), Some(user()), 77);
    assert_eq!(moved(&block), [expected]);
}

#[tokio::test]
async fn tv_3_a_transfer_of_a_token_that_reverts_credits_nothing() {
    let receipt = json!({ "gasUsed": "0xc350", "status": "0x0" });
    let parts = vec![sent(USDC, 0, calling(user(), 77), receipt)];
    assert_eq!(moved(&read(parts.clone()).await), []);
    let sender = Rollup::of(block_of(parts), Inside::default()).await.read(&[address(1)]).await;
    let fee = 50_000 * BASE_FEE;
    let expected = ("fee".to_owned(), Kind::Fee, AssetKey::Native, Some(address(1)), None, fee);
    assert_eq!(moved(&sender), [expected], "it is paid for all the same");
}

#[tokio::test]
async fn tv_4_a_token_that_a_call_inside_a_transaction_moves_is_credited_by_its_log() {
    let (router, pool) = (address(8), address(9));
    let logs = json!([transfer(USDC, address(1), pool, 500), transfer(USDC, pool, user(), 499)]);
    let mut receipt = json!({ "gasUsed": "0x1d4c0", "logs": logs });
    receipt["logs"][1]["logIndex"] = json!("0x1");
    let block = read(vec![sent(router, 0, vec![0x12, 0x34, 0x56, 0x78], receipt)]).await;
    let expected = ("log:1".to_owned(), Kind::Transfer, usdc(), Some(pool), Some(user()), 499);
    assert_eq!(moved(&block), [expected]);
}

/// A call as Arbitrum's nodes tell it.
pub(super) fn call(kind: &str, from: EvmAddress, to: EvmAddress, wei: u64, calls: &Value) -> Value {
    json!({
        "type": kind, "from": from, "to": to, "value": format!("{wei:#x}"), "gas": "0x493e0", "gasUsed": "0x1d4c0",
        "input": "0x", "output": "0x", "calls": calls,
    })
}

#[tokio::test]
async fn tv_5_ether_that_a_call_inside_a_transaction_moves_is_credited_by_its_trace() {
    let router = address(8);
    let mut failed = call("CALL", router, user(), 1_000, &json!([]));
    failed["error"] = json!("execution reverted");
    let calls = json!([
        failed,
        call("DELEGATECALL", router, user(), 900, &json!([])),
        call("CALL", router, user(), 42, &json!([])),
    ]);
    let mut top = call("CALL", address(1), router, 0, &calls);
    // Beside the calls, Arbitrum tells how the gas was paid.
    let fee = json!({ "purpose": "feePayment", "from": address(1), "to": null, "value": "0x110d9316ec000" });
    top["beforeEVMTransfers"] = json!([fee]);
    top["afterEVMTransfers"] = json!([{ "purpose": "gasRefund", "from": null, "to": address(1), "value": "0xaa87bee538000" }]);
    let has = |wei: &str| json!({ user().to_string(): { "balance": wei } });
    let inside = Inside {
        diff: Some(json!({ "pre": has("0x64"), "post": has("0x8e") })),
        calls: top,
        balances: vec![(user(), 100, 142)],
    };
    let receipt = json!({ "gasUsed": "0x1d4c0" });
    let block = block_of(vec![sent(router, 0, vec![0x12, 0x34, 0x56, 0x78], receipt)]);
    let rollup = Rollup::of(block.clone(), inside.clone()).await;
    let read = rollup.read(&[user()]).await;
    let (place, kind) = ("trace:2".to_owned(), Kind::Internal);
    assert_eq!(moved(&read), [(place, kind, AssetKey::Native, Some(router), Some(user()), 42)]);
    assert_eq!(read.traced, Traced::Whole);
    // What the chain's own balances do not bear out is not credited.
    let inside = Inside { balances: vec![(user(), 100, 141)], ..inside };
    let read = Rollup::of(block, inside).await.read(&[user()]).await;
    assert_eq!((moved(&read), read.traced), (Vec::new(), Traced::Not));
}

#[tokio::test]
async fn tv_6_a_deposit_from_l1_is_credited_to_whom_it_is_for_and_costs_nobody() {
    let parts = vec![deposit(user(), 9_000)];
    let rollup = Rollup::of(block_of(parts), Inside::default()).await;
    let block = rollup.read(&[user(), address(7)]).await;
    let expected = ("tx".to_owned(), Kind::Mint, AssetKey::Native, None, Some(user()), 9_000);
    assert_eq!(moved(&block), [expected], "not taken from whoever sent it on L1");
}

#[tokio::test]
async fn tv_7_what_arbitrums_own_software_runs_credits_nobody() {
    let rollup = Rollup::of(block_of(Vec::new()), Inside::default()).await;
    let block = rollup.read(&[ARBOS, user()]).await;
    assert_eq!((moved(&block), block.transactions.len()), (Vec::new(), 1));
    // Nothing of its value or its recipient is hashed: a node that tells one is not believed.
    let (mut block, receipts) = block_of(Vec::new());
    block["transactions"][0]["value"] = json!("0x5");
    block["transactions"][0]["to"] = json!(user());
    let liar = Rollup::of((block, receipts), Inside::default()).await;
    liar.source.block(liar.at).await.expect_err("a value from nowhere");
}

#[tokio::test]
async fn tv_8_a_transfer_event_of_another_contract_is_never_the_listed_token() {
    let fake = address(9);
    let log = transfer(fake, address(1), user(), 1_000_000);
    // It goes to the listed one and names it, too.
    let receipt = json!({ "gasUsed": "0xc350", "logs": [log] });
    let block = read(vec![sent(USDC, 0, calling(user(), 1_000_000), receipt)]).await;
    let [(_, _, asset, ..)] = &moved(&block)[..] else { panic!("one") };
    assert_eq!(*asset, AssetKey::Token(decode::address(fake)), "it is on no list: no money");
    assert_eq!(block.movements[0].ordinal, Ordinal::Log(0));
}
