//! What single chains have of their own, in the shapes of their nodes: the OP stack, Polygon and Avalanche.

use alloy::primitives::{Address as EvmAddress, B256, U256, address as literal, keccak256};
use serde_json::{Value, json};

use super::{
    arbitrum::{hash_of, moved},
    checker, config, empty_block, endpoint, mixed_block, mixed_receipts,
    node::{Node, Reply},
    read, read_as,
    signing::{address, block_of, sealed, shown, sign},
    told,
};
use crate::{
    amount::Amount,
    chain::{
        AssetKey, BalanceQuery, Block, BlockHash, BlockRef, Kind, Source as _, Traced, TxId,
        evm::{EvmSource, coin::Coin, decode, verify::is_what_its_hash_says},
    },
    config::{ChainConfig, Verification},
    metrics::Metrics,
};

const BASE_FEE: u64 = 1_000_000_000;

fn full(block: &Value, receipts: &Value) -> Block {
    read(&checker(Verification::Full), block, receipts).expect("a block")
}

/// Without what other chains would prove.
fn on(chain_id: u64, block: &Value, receipts: &Value) -> Block {
    let coin = Coin::new(&ChainConfig { chain_id, ..config(Vec::new()) });
    read_as(&coin, &checker(Verification::Links), block, receipts).expect("a block")
}

/// A deposit on the OP stack: `mint` is new, `value` goes from its sender to its recipient.
fn deposit(mint: u64, value: u64) -> Value {
    let (source, from, to) = (B256::repeat_byte(1), address(8), address(9));
    let empty: &[u8] = &[];
    let hash = hash_of(0x7e, &[&source, &from, &to, &mint, &value, &0_u64, &false, &empty]);
    json!({
        "type": "0x7e", "hash": hash, "sourceHash": source, "from": from, "to": to, "mint": format!("{mint:#x}"),
        "value": format!("{value:#x}"), "gas": "0x0", "gasPrice": "0x0", "isSystemTx": false, "input": "0x",
        "nonce": "0x3", "v": "0x0", "r": "0x0", "s": "0x0", "depositReceiptVersion": "0x1",
    })
}

fn of_deposit(status: &str) -> Value {
    json!({
        "status": status, "depositNonce": "0x3", "depositReceiptVersion": "0x1", "effectiveGasPrice": "0x0",
        "l1Fee": "0x0", "l1GasPrice": "0x5", "l1GasUsed": "0x0",
    })
}

#[test]
fn a_deposit_that_fails_leaves_its_mint_with_its_sender_and_moves_no_value() {
    let (block, receipts) = block_of(&[deposit(50, 30)], &[of_deposit("0x0")]);
    let minted = ("tx".to_owned(), Kind::Mint, AssetKey::Native, None, Some(address(8)), 50);
    assert_eq!(moved(&full(&block, &receipts)), [minted]);
    let (block, receipts) = block_of(&[deposit(0, 30)], &[of_deposit("0x0")]);
    assert_eq!(moved(&full(&block, &receipts)), [], "nothing was minted");
}

#[test]
fn a_deposit_mints_to_its_sender_or_to_whom_he_pays_and_without_a_mint_spends_what_he_has() {
    let read = |mint, value| {
        let (block, receipts) = block_of(&[deposit(mint, value)], &[of_deposit("0x1")]);
        moved(&full(&block, &receipts))
    };
    let one = |kind, from, to, wei| [("tx".to_owned(), kind, AssetKey::Native, from, to, wei)];
    let (from, to) = (Some(address(8)), Some(address(9)));
    assert_eq!(read(50, 0), one(Kind::Mint, None, from, 50));
    assert_eq!(read(50, 50), one(Kind::Mint, None, to, 50));
    assert_eq!(read(0, 30), one(Kind::Transfer, from, to, 30), "from what its sender has on L2");
}

/// A payment on the OP stack, behind a deposit that begins the block, and what its receipt says of other fees.
fn paid(fees: &Value) -> (Value, Value) {
    let tx = alloy::consensus::TxEip1559 {
        chain_id: 31_337,
        max_fee_per_gas: u128::from(BASE_FEE),
        to: address(9).into(),
        value: U256::from(5),
        ..alloy::consensus::TxEip1559::default()
    };
    let mut receipt = json!({ "effectiveGasPrice": format!("{BASE_FEE:#x}") });
    for (name, value) in fees.as_object().expect("an object") {
        receipt[name] = value.clone();
    }
    let txs = [deposit(0, 0), shown(&sign(tx, 1), address(1))];
    let (mut block, receipts) = block_of(&txs, &[of_deposit("0x1"), receipt]);
    // Since Jovian the footprint of the block's data stands where others have the gas of blobs.
    block["blobGasUsed"] = json!("0x7a120");
    sealed(block, receipts)
}

fn fee_of((block, receipts): &(Value, Value)) -> u64 {
    let block = full(block, receipts);
    let fees: Vec<u64> = moved(&block)
        .into_iter()
        .filter(|(_, kind, ..)| *kind == Kind::Fee)
        .map(|(.., wei)| wei)
        .collect();
    let [fee] = fees[..] else { panic!("one fee, for the payment: {fees:?}") };
    fee
}

#[test]
fn a_payment_on_the_op_stack_pays_for_its_data_on_l1_and_the_operator() {
    let gas = 21_000 * BASE_FEE;
    assert_eq!(fee_of(&paid(&json!({}))), gas);
    let l1 = json!({
        "l1Fee": "0x3e8", "l1GasPrice": "0x5", "l1GasUsed": "0x640", "l1BaseFeeScalar": "0x8dd",
        "l1BlobBaseFee": "0x1", "l1BlobBaseFeeScalar": "0x101c12",
    });
    assert_eq!(fee_of(&paid(&l1)), gas + 1_000, "Ecotone");
    let isthmus =
        json!({ "l1Fee": "0x3e8", "operatorFeeScalar": "0x1e8480", "operatorFeeConstant": "0x9" });
    assert_eq!(fee_of(&paid(&isthmus)), gas + 1_000 + 2 * 21_000 + 9);
    let jovian = json!({
        "l1Fee": "0x3e8", "operatorFeeScalar": "0x2", "operatorFeeConstant": "0x9", "daFootprintGasScalar": "0x190",
        "blobGasUsed": "0x7a120",
    });
    assert_eq!(fee_of(&paid(&jovian)), gas + 1_000 + 2 * 100 * 21_000 + 9);
}

#[test]
fn the_footprint_that_jovian_calls_blob_gas_is_no_fee() {
    let footprint =
        json!({ "blobGasUsed": "0x7a120", "blobGasPrice": "0x1", "daFootprintGasScalar": "0x190" });
    assert_eq!(fee_of(&paid(&footprint)), 21_000 * BASE_FEE);
}

#[test]
fn where_nobody_is_paid_the_tips_of_a_block_its_beneficiary_earns_nothing() {
    let mut block = mixed_block();
    block["miner"] = json!(address(7));
    block["baseFeePerGas"] = json!("0x0");
    let earns = |chain_id| {
        let block = on(chain_id, &block, &mixed_receipts());
        block.movements.iter().any(|movement| movement.kind == Kind::Reward)
    };
    assert!(earns(1) && earns(11_155_111));
    // The OP stack's vaults, BNB's validators, Polygon, Avalanche, Arbitrum, Sei: found by the comparison, if at all.
    for chain_id in [10, 8453, 56, 137, 43_114, 42_161, 1329] {
        assert!(!earns(chain_id), "{chain_id}");
    }
}

const POLYGON: EvmAddress = literal!("0000000000000000000000000000000000001010");
/// `LogTransfer` and `LogFeeTransfer`, both with the same four topics and five words.
const LOG_TRANSFER: &str =
    "LogTransfer(address,address,address,uint256,uint256,uint256,uint256,uint256)";
const LOG_FEE: &str =
    "LogFeeTransfer(address,address,address,uint256,uint256,uint256,uint256,uint256)";

/// Polygon's log of a movement of its coin.
fn coin_log(event: &str, from: EvmAddress, to: EvmAddress, wei: u64) -> Value {
    let words: String =
        [wei, 100, 200, 100 - wei, 200 + wei].map(|word| format!("{word:064x}")).concat();
    json!({
        "address": POLYGON, "data": format!("0x{words}"),
        "topics": [keccak256(event), POLYGON.into_word(), from.into_word(), to.into_word()],
    })
}

/// The recorded block, its first transaction a call with value 5 that logs this.
fn logging(logs: Value) -> (Value, Value) {
    let (mut block, mut receipts) = (mixed_block(), mixed_receipts());
    for list in [&mut block["transactions"], &mut receipts] {
        list.as_array_mut().expect("a list").truncate(1);
    }
    block["transactions"][0]["value"] = json!("0x5");
    receipts[0]["logs"] = logs;
    receipts[0]["gasUsed"] = json!("0xc350");
    (block, receipts)
}

fn sides(block: &Value) -> [EvmAddress; 2] {
    let side = |name: &str| block["transactions"][0][name].as_str().expect("a text").parse();
    [side("from").expect("it"), side("to").expect("it")]
}

#[test]
fn on_polygon_the_coins_own_log_tells_what_calls_move_and_counts_no_value_twice() {
    let [from, to] = sides(&mixed_block());
    let (block, receipts) = logging(json!([
        coin_log(LOG_TRANSFER, from, to, 5),
        coin_log(LOG_TRANSFER, to, address(9), 3),
        coin_log(LOG_FEE, from, address(7), 40),
    ]));
    let read = on(137, &block, &receipts);
    let (native, fee) = (AssetKey::Native, 50_000 * 0xb2d0_5e00);
    assert_eq!(
        moved(&read),
        [
            ("tx".to_owned(), Kind::Transfer, native, Some(from), Some(to), 5),
            ("log:1".to_owned(), Kind::Internal, native, Some(to), Some(address(9)), 3),
            ("fee".to_owned(), Kind::Fee, native, Some(from), None, fee),
        ]
    );
    assert_eq!(read.traced, Traced::Whole, "there is nothing left to be traced");
    // Elsewhere it is some contract's log.
    let elsewhere = on(1, &block, &receipts);
    assert_eq!((elsewhere.movements.len(), elsewhere.traced), (2, Traced::Not));
    // And elsewhere's log is nothing here.
    let mut foreign = coin_log(LOG_TRANSFER, to, address(9), 3);
    foreign["address"] = json!(address(6));
    let (block, receipts) = logging(json!([foreign]));
    assert_eq!(on(137, &block, &receipts).movements.len(), 2);
}

#[test]
fn polygons_state_sync_moves_tokens_by_its_logs_and_costs_nobody() {
    let (mut block, mut receipts) = logging(json!([]));
    let zero = EvmAddress::ZERO;
    // PIP-74: the last of its block; its node shows nothing of what is hashed.
    let sync = json!({
        "type": "0x7f", "hash": B256::repeat_byte(9), "blockHash": block["hash"], "from": zero, "to": zero,
        "value": "0x0", "gas": "0x0", "gasPrice": "0x0", "nonce": "0x0", "input": "0x", "v": "0x0", "r": "0x0", "s": "0x0",
        "transactionIndex": "0x1",
    });
    let committed = json!({
        "address": "0x0000000000000000000000000000000000001001", "data": format!("{:#066x}", 1),
        "topics": [
            "0x5a22725590b0a51c923940223f7458512164b1113359a735e86e7f27f44791ee", format!("{:#066x}", 7),
        ],
    });
    let transfer = json!({
        "address": address(3), "data": format!("{:#066x}", 90),
        "topics": [
            "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef", B256::ZERO, address(9).into_word(),
        ],
    });
    let mut receipt = receipts[0].clone();
    for (name, value) in [
        ("type", json!("0x7f")),
        ("transactionHash", sync["hash"].clone()),
        ("transactionIndex", json!("0x1")),
        ("gasUsed", json!("0x0")),
        ("effectiveGasPrice", json!("0x0")),
        ("logs", json!([transfer, committed])),
    ] {
        receipt[name] = value;
    }
    block["transactions"].as_array_mut().expect("a list").push(sync);
    receipts.as_array_mut().expect("a list").push(receipt);
    let read = on(137, &block, &receipts);
    let of_sync = read.movements.iter().filter(|one| one.tx == TxId::from([9; 32]));
    let rows: Vec<_> = of_sync.map(|one| (one.kind, one.asset, one.from, one.to)).collect();
    let token = AssetKey::Token(decode::address(address(3)));
    assert_eq!(rows, [(Kind::Mint, token, None, Some(decode::address(address(9))))]);
    // What it mints of the coin itself is in no log: the block is not whole.
    assert_eq!(read.traced, Traced::Not);
}

/// A block of Avalanche's C-Chain that imports something and holds nothing else.
fn importing() -> Value {
    let mut block = empty_block();
    for (name, value) in [
        (
            "blockExtraData",
            json!("0x000000000000000000010427d4b22a2a78bcddd456742caf91b56badbff985ee19aef1"),
        ),
        ("extDataHash", json!(B256::repeat_byte(0x37))),
        ("extDataGasUsed", json!("0x2c61")),
        ("blockGasCost", json!("0x0")),
        ("timestampMilliseconds", json!("0x19a8f4d3a00")),
        ("miner", json!("0x0100000000000000000000000000000000000000")),
    ] {
        block[name] = value;
    }
    block
}

#[tokio::test]
async fn an_import_on_avalanche_is_in_no_transaction_and_is_left_to_the_comparison_of_balances() {
    let block = importing();
    assert!(!is_what_its_hash_says(&told(&checker(Verification::Links), &block)));
    let text = block["hash"].as_str().expect("a hash").to_owned();
    let hash: B256 = text.parse().expect("a hash");
    let at = BlockRef { number: 2, hash: BlockHash(hash.0) };
    let node = Node::start(move |method, params| match method {
        "eth_chainId" => Reply::Result(json!("0xa86a")),
        "eth_getBlockByHash" => Reply::Result(block.clone()),
        "eth_getBlockReceipts" => Reply::Result(json!([])),
        "eth_getBalance" => {
            let is_after = params[1]["blockHash"] == text.as_str();
            Reply::Result(json!(if is_after { "0x64" } else { "0xa" }))
        }
        _ => Reply::error(-32601, "the method does not exist/is not available"),
    })
    .await;
    let chain = ChainConfig {
        caip2: "eip155:43114".to_owned(),
        chain_id: 43_114,
        verification: Verification::Links,
        ..config(vec![endpoint("one", &node.url, 1)])
    };
    let source = EvmSource::new(&chain, Metrics::new()).expect("a source");
    let read = source.block(at).await.expect("an answer").expect("a block");
    assert_eq!(moved(&read), [], "nothing in the block is made into money");
    let user = BalanceQuery { address: decode::address(address(5)), asset: AssetKey::Native };
    let mut held = Vec::new();
    for at in [read.header.parent, read.header.at] {
        held.push(source.balances_at(at, &[user]).await.expect("balances")[0].total);
    }
    assert_eq!(held, [Amount::from(10), Amount::from(100)], "the chain's state has it");
}
