use alloy::primitives::{U256, keccak256};
use serde_json::{Value, json};

use super::{Coin, checker, coin, config, mixed_block, mixed_receipts, read, read_as};
use crate::{
    amount::Amount,
    chain::{Address, AssetKey, Block, Family, Kind, Movement, Ordinal, Traced, TxId},
    config::{ChainConfig, Verification},
};

fn who(text: &str) -> Address {
    Family::Evm.parse_address(text).expect("an address")
}

fn mixed() -> Block {
    read(&checker(Verification::Full), &mixed_block(), &mixed_receipts()).expect("a good block")
}

fn of(block: &Block, index: usize) -> Vec<&Movement> {
    let tx = block.transactions[index].tx;
    block.movements.iter().filter(|movement| movement.tx == tx).collect()
}

/// The recorded block, its first transaction and receipt changed; verification cannot pass any more.
fn changed(change: impl FnOnce(&mut Value, &mut Value)) -> Block {
    let (mut block, mut receipts) = (mixed_block(), mixed_receipts());
    change(&mut block["transactions"][0], &mut receipts[0]);
    read(&checker(Verification::Links), &block, &receipts).expect("a block that decodes")
}

#[test]
fn a_value_transfer_moves_its_value_and_pays_its_fee() {
    let block = mixed();
    let sender = who("0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266");
    let [value, fee] = of(&block, 0)[..] else { panic!("two movements") };
    assert_eq!(
        (&value.ordinal, value.kind, value.asset),
        (&Ordinal::Tx, Kind::Transfer, AssetKey::Native)
    );
    assert_eq!(value.from, Some(sender));
    assert_eq!(value.to, Some(who("0x70997970c51812dc3a010c7d01b50e0d17dc79c8")));
    assert_eq!(value.amount, Amount::new(U256::from(1_000_000_000_000_000_000_u64)));
    assert_eq!((&fee.ordinal, fee.kind, fee.to), (&Ordinal::Fee, Kind::Fee, None));
    assert_eq!(fee.amount, Amount::new(U256::from(0x5208_u64 * 0xb2d0_5e00_u64)));
    assert_eq!((block.transactions[0].sender, block.transactions[0].nonce), (sender, Some(0)));
}

#[test]
fn a_failed_transaction_pays_its_fee_and_moves_nothing() {
    let block = mixed();
    assert!(!block.transactions[3].success);
    let [fee] = of(&block, 3)[..] else { panic!("one movement") };
    assert_eq!(fee.kind, Kind::Fee);
    assert_eq!(fee.amount, Amount::new(U256::from(0x520e_u64 * 0x7735_9400_u64)));
}

#[test]
fn a_log_counts_inside_its_receipt_and_value_counts_beside_calldata() {
    let block = mixed();
    let [value, first, second, fee] = of(&block, 2)[..] else { panic!("four movements") };
    assert_eq!((&value.ordinal, value.amount), (&Ordinal::Tx, Amount::new(U256::from(5))));
    // In the block these are the third and the fourth log.
    assert_eq!(first.ordinal, Ordinal::Log(0));
    assert_eq!(second.ordinal, Ordinal::Log(1));
    assert_eq!(first.amount, Amount::new(U256::from(0x7b)));
    assert_eq!(first.kind, Kind::Transfer);
    assert_eq!(first.asset, AssetKey::Token(who("0x00000000000000000000000000000000000070c3")));
    assert_eq!(fee.kind, Kind::Fee);
}

#[test]
fn the_zero_address_is_nobody() {
    let block = mixed();
    let burn = of(&block, 1)[0];
    assert_eq!((burn.kind, burn.to), (Kind::Burn, None));
    let mint = changed(|_, receipt| {
        receipt["logs"] = json!([transfer(3, 32)]);
        receipt["logs"][0]["topics"][1] = json!(format!("0x{}", "0".repeat(64)));
    });
    assert_eq!((of(&mint, 0)[1].kind, of(&mint, 0)[1].from), (Kind::Mint, None));
}

/// A `Transfer` log of so many topics and bytes of data.
fn transfer(topics: usize, data: usize) -> Value {
    let mut all = vec![json!("0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef")];
    all.resize(topics, json!(format!("0x{:0>64}", "abc")));
    json!({
        "address": "0x00000000000000000000000000000000000070c3",
        "topics": all,
        "data": format!("0x{}", "01".repeat(data)),
    })
}

#[test]
fn an_erc_721_token_is_not_an_amount_and_unknown_shapes_are_counted_not_guessed() {
    let (block, mut receipts) = (mixed_block(), mixed_receipts());
    receipts[0]["logs"] =
        json!(
            [transfer(4, 0), transfer(1, 96), transfer(2, 64), transfer(3, 64), transfer(3, 32),]
        );
    let checker = checker(Verification::Links);
    let block = read(&checker, &block, &receipts).expect("a block that decodes");
    let ordinals: Vec<_> = of(&block, 0).iter().map(|one| one.ordinal.clone()).collect();
    assert_eq!(ordinals, [Ordinal::Tx, Ordinal::Log(4), Ordinal::Fee]);
    let counted = checker
        .metrics
        .verification_failures_total
        .with_label_values(&["anvil", "unknown_transfer_shape"]);
    assert_eq!(counted.get(), 3);
}

/// A log by which a chain tells that its coin moved, from one word to another.
fn coin_log(from: &str, to: &str, wei: u64) -> Value {
    json!({
        "address": "0xfffffffffffffffffffffffffffffffffffffffe",
        "topics": [
            "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef",
            format!("0x{:0>64}", &from[2..]),
            format!("0x{:0>64}", &to[2..]),
        ],
        "data": format!("{:#066x}", wei),
    })
}

const SENDER: &str = "0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266";
const PAYEE: &str = "0x70997970c51812dc3a010c7d01b50e0d17dc79c8";
const OTHER: &str = "0x00000000000000000000000000000000000070c3";

#[test]
fn movements_of_the_coin_that_a_chain_logs_count_once() {
    let ether = 1_000_000_000_000_000_000;
    let block = changed(|_, receipt| {
        receipt["logs"] = json!([
            coin_log(SENDER, PAYEE, ether),
            coin_log(PAYEE, OTHER, 7),
            coin_log(SENDER, PAYEE, ether),
            coin_log(PAYEE, PAYEE, 5),
            coin_log(PAYEE, OTHER, 0),
        ]);
    });
    let [value, inner, again, _fee] = of(&block, 0)[..] else { panic!("four movements") };
    assert_eq!((value.kind, &value.ordinal), (Kind::Transfer, &Ordinal::Tx));
    assert_eq!((inner.kind, &inner.ordinal), (Kind::Internal, &Ordinal::Log(1)));
    assert_eq!((inner.asset, inner.amount), (AssetKey::Native, Amount::new(U256::from(7))));
    assert_eq!((inner.from, inner.to), (Some(who(PAYEE)), Some(who(OTHER))));
    // The same once more, from inside, is another movement.
    assert_eq!((again.kind, &again.ordinal), (Kind::Internal, &Ordinal::Log(2)));
    assert_eq!(block.traced, Traced::Whole, "nothing is left to be traced");
}

#[test]
fn polygons_own_contract_tells_each_movement_of_the_coin_and_none_of_a_token() {
    let ether = 1_000_000_000_000_000_000;
    let log = |from: &str, to: &str, wei: u64| {
        let word = |address: &str| format!("0x{:0>64}", &address[2..]);
        let contract = "0x0000000000000000000000000000000000001010";
        let topic = keccak256(
            "LogTransfer(address,address,address,uint256,uint256,uint256,uint256,uint256)",
        );
        json!({
            "address": contract,
            "topics": [topic.to_string(), word(contract), word(from), word(to)],
            "data": format!("0x{wei:064x}{}", "f".repeat(256)),
        })
    };
    let (block, mut receipts) = (mixed_block(), mixed_receipts());
    receipts[0]["logs"] = json!([log(SENDER, PAYEE, ether), log(PAYEE, OTHER, 7)]);
    let polygon = Coin::new(&ChainConfig { chain_id: 137, ..config(Vec::new()) });
    let checker = checker(Verification::Links);
    let on_polygon = read_as(&polygon, &checker, &block, &receipts).expect("a block");
    let [value, inner, _fee] = of(&on_polygon, 0)[..] else { panic!("three movements") };
    assert_eq!((value.kind, &value.ordinal), (Kind::Transfer, &Ordinal::Tx));
    assert_eq!((inner.kind, &inner.ordinal), (Kind::Internal, &Ordinal::Log(1)));
    assert_eq!((inner.asset, inner.amount.get()), (AssetKey::Native, U256::from(7)));
    assert_eq!((inner.from, inner.to), (Some(who(PAYEE)), Some(who(OTHER))));
    assert_eq!(on_polygon.traced, Traced::Whole, "nothing is left to be traced");
    let elsewhere = read(&checker, &block, &receipts).expect("a block");
    assert_eq!(of(&elsewhere, 0).len(), 2, "its value and its fee");
}

#[test]
fn a_payment_to_nobody_or_of_new_money_that_the_chain_logs_counts_once() {
    let zero = "0x0000000000000000000000000000000000000000";
    let burnt = changed(|tx, receipt| {
        tx["to"] = json!(zero);
        receipt["logs"] = json!([coin_log(SENDER, zero, 1_000_000_000_000_000_000)]);
    });
    assert_eq!(of(&burnt, 0).len(), 2, "its value and its fee");
    let deposited = changed(|tx, receipt| {
        tx["type"] = json!("0x7e");
        receipt["type"] = json!("0x7e");
        tx["mint"] = tx["value"].clone();
        receipt["logs"] = json!([coin_log(SENDER, PAYEE, 1_000_000_000_000_000_000)]);
    });
    let [minted] = of(&deposited, 0)[..] else { panic!("one movement") };
    assert_eq!((minted.kind, minted.to), (Kind::Mint, Some(who(PAYEE))));
}

#[test]
fn a_block_in_which_no_code_ran_needs_no_trace() {
    let mut plain = mixed_block();
    let mut receipts = mixed_receipts();
    let only = |value: &mut Value| value.as_array_mut().expect("a list").truncate(1);
    only(&mut plain["transactions"]);
    only(&mut receipts);
    let checker = checker(Verification::Links);
    assert_eq!(read(&checker, &plain, &receipts).expect("a block").traced, Traced::Whole);
    receipts[0]["gasUsed"] = json!("0x5209");
    assert_eq!(read(&checker, &plain, &receipts).expect("a block").traced, Traced::Not);
}

#[test]
fn the_fee_recipient_earns_what_is_paid_above_the_base_fee() {
    let mut block = mixed_block();
    block["miner"] = json!(OTHER);
    block["baseFeePerGas"] = json!("0x0");
    let read = read(&checker(Verification::Links), &block, &mixed_receipts()).expect("a block");
    let fees = read.movements.iter().filter(|one| one.kind == Kind::Fee);
    let paid = fees.fold(U256::ZERO, |sum, fee| sum + fee.amount.get());
    let rewards: Vec<_> = read.movements.iter().filter(|one| one.kind == Kind::Reward).collect();
    let [reward] = rewards[..] else { panic!("one reward of the block") };
    assert_eq!((reward.from, reward.to), (None, Some(who(OTHER))));
    assert_eq!((&reward.ordinal, reward.amount.get()), (&Ordinal::Reward(0), paid));
    assert_eq!(reward.tx, TxId::from(read.header.at.hash.0), "the next block's is not the same");
}

#[test]
fn wrapping_and_unwrapping_move_the_wrapped_token_of_the_configured_contract_only() {
    let log = |topic: &str, address: &str| {
        json!({
            "address": address,
            "topics": [topic, format!("0x{:0>64}", &SENDER[2..])],
            "data": format!("{:#066x}", 9),
        })
    };
    let deposit = "0xe1fffcc4923d04b559f4d29a8bfc6cda04eb5b0d3c460751c2402c5c5cc9109c";
    let withdrawal = "0x7fcf532c15f0a6db0bd6d0e038bea71d30d808c7d98cb3bf7268a95bf5081b65";
    let (mut block, mut receipts) = (mixed_block(), mixed_receipts());
    receipts[0]["logs"] = json!([log(deposit, OTHER), log(withdrawal, OTHER), log(deposit, PAYEE)]);
    block["transactions"][0]["value"] = json!("0x0");
    let mut coin = coin();
    coin.wrapping.insert(OTHER.parse().expect("an address"));
    let block = read_as(&coin, &checker(Verification::Links), &block, &receipts).expect("a block");
    let [wrap, unwrap, _fee] = of(&block, 0)[..] else { panic!("three movements") };
    assert_eq!((wrap.kind, wrap.from, wrap.to), (Kind::Wrap, None, Some(who(SENDER))));
    assert_eq!((unwrap.kind, unwrap.from, unwrap.to), (Kind::Unwrap, Some(who(SENDER)), None));
    for one in [wrap, unwrap] {
        assert_eq!(one.amount.get(), U256::from(9));
        assert_eq!(one.asset, AssetKey::Token(who(OTHER)));
    }
}

#[test]
fn funds_that_an_issuer_destroys_are_burnt_by_the_configured_contract_only_and_in_the_known_shape_only()
 {
    let destroyed = keccak256("DestroyedBlackFunds(address,uint256)").to_string();
    let indexed = format!("0x{:0>64}", &SENDER[2..]);
    let log = |address: &str, topics: &[&str], data: &str| json!({"address": address, "topics": topics, "data": data});
    let data = format!("0x{:0>64}{:064x}", &SENDER[2..], 9);
    let dirty = format!("0x{:f>64}{:064x}", &SENDER[2..], 9);
    let (mut block, mut receipts) = (mixed_block(), mixed_receipts());
    receipts[0]["logs"] = json!([
        log(OTHER, &[&destroyed], &data),
        log(PAYEE, &[&destroyed], &data),
        log(OTHER, &[&destroyed, &indexed], &format!("{:#066x}", 9)),
        log(OTHER, &[&destroyed], &dirty),
        log(OTHER, &[&keccak256("Issue(uint256)").to_string()], &format!("{:#066x}", 9)),
        log(OTHER, &[&keccak256("Redeem(uint256)").to_string()], &format!("{:#066x}", 9)),
    ]);
    block["transactions"][0]["value"] = json!("0x0");
    let mut coin = coin();
    coin.destroying.insert(OTHER.parse().expect("an address"));
    let decoded =
        read_as(&coin, &checker(Verification::Links), &block, &receipts).expect("a block");
    let [burn, _fee] = of(&decoded, 0)[..] else { panic!("two movements") };
    assert_eq!((burn.kind, burn.from, burn.to), (Kind::Burn, Some(who(SENDER)), None));
    assert_eq!((burn.amount.get(), burn.asset), (U256::from(9), AssetKey::Token(who(OTHER))));
}

#[test]
fn a_user_operation_is_paid_for_by_its_bundler_and_its_event_moves_nothing() {
    let word = |address: &str| format!("0x{:0>64}", &address[2..]);
    let name = "UserOperationEvent(bytes32,address,address,uint256,bool,uint256,uint256)";
    // Its account pays out of its deposit at the entry point: that is a call, or was one long ago.
    let block = changed(|_, receipt| {
        receipt["logs"] = json!([{
            "address": "0x0000000071727de22e5e9d8baf0edac6f37da032",
            "topics": [keccak256(name).to_string(), word("0x01"), word(OTHER), word("0x00")],
            "data": format!("0x{:064x}{:064x}{:064x}{:064x}", 7, 0, 1_000_000, 21_000),
        }]);
    });
    let [_value, fee] = of(&block, 0)[..] else { panic!("two movements") };
    assert_eq!((fee.kind, fee.from), (Kind::Fee, Some(who(SENDER))));
}

#[test]
fn a_log_belongs_to_the_receipt_in_which_it_stands_whatever_it_says_of_itself() {
    let mut receipts = mixed_receipts();
    for log in receipts[2]["logs"].as_array_mut().expect("logs") {
        log["transactionHash"] = json!(format!("0x{}", "0".repeat(64)));
        log["transactionIndex"] = json!("0x0");
        log["blockHash"] = Value::Null;
    }
    let block = read(&checker(Verification::Full), &mixed_block(), &receipts).expect("a block");
    assert_eq!(block.movements, mixed().movements);
}

#[test]
fn a_zero_amount_is_shown_as_it_is() {
    let block = changed(|tx, receipt| {
        tx["value"] = json!("0x0");
        receipt["logs"] = json!([transfer(3, 32)]);
        receipt["logs"][0]["data"] = json!(format!("0x{}", "00".repeat(32)));
    });
    let [log, _fee] = of(&block, 0)[..] else { panic!("two movements") };
    assert!(log.amount.is_zero());
}

#[test]
fn a_creation_pays_its_value_to_the_new_contract() {
    let block = changed(|tx, receipt| {
        tx["to"] = Value::Null;
        receipt["contractAddress"] = json!("0x057ef64e23666f000b34ae31332854acbd1c8544");
    });
    assert_eq!(of(&block, 0)[0].to, Some(who("0x057ef64e23666f000b34ae31332854acbd1c8544")));
}

#[test]
fn transactions_of_unknown_types_decode() {
    for kind in ["0x64", "0x65", "0x66", "0x68", "0x69", "0x6a", "0x7e", "0x7f", "0xc5"] {
        let block = changed(|tx, receipt| {
            tx["type"] = json!(kind);
            receipt["type"] = json!(kind);
            let fields = tx.as_object_mut().expect("an object");
            for gone in ["nonce", "gasPrice", "r", "s", "v", "chainId"] {
                fields.remove(gone);
            }
            receipt.as_object_mut().expect("an object").remove("effectiveGasPrice");
        });
        assert_eq!(block.transactions[0].nonce, None);
        // The value of a ticket from L1 is moved by its tries.
        if kind == "0x69" {
            assert!(of(&block, 0).is_empty());
            continue;
        }
        let [value] = of(&block, 0)[..] else { panic!("value and no fee, type {kind}") };
        // Arbitrum's deposit is new money there; whoever retries a ticket spends what it was sent with.
        let minted = kind == "0x64";
        let expected = if minted { Kind::Mint } else { Kind::Transfer };
        assert_eq!((value.kind, value.from.is_none()), (expected, minted), "type {kind}");
    }
}

#[test]
fn a_deposit_from_l1_is_new_money_and_pays_no_fee() {
    let deposit = |mint: &str, status: &str| {
        changed(|tx, receipt| {
            tx["type"] = json!("0x7e");
            tx["mint"] = json!(mint);
            receipt["status"] = json!(status);
            receipt["l1Fee"] = json!("0x5");
        })
    };
    let good = deposit("0xde0b6b3a7640000", "0x1");
    let [money] = of(&good, 0)[..] else { panic!("one movement") };
    assert_eq!((money.kind, money.from), (Kind::Mint, None));
    assert_eq!(money.to, Some(who("0x70997970c51812dc3a010c7d01b50e0d17dc79c8")));
    // If it fails, the sender has what was minted to it.
    let failed = deposit("0x7", "0x0");
    let [money] = of(&failed, 0)[..] else { panic!("one movement") };
    assert_eq!(money.to, Some(who("0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266")));
    assert_eq!(money.amount, Amount::new(U256::from(7)));
}

#[test]
fn fees_include_blobs_the_data_on_l1_and_the_operator() {
    let execution = U256::from(0x5208_u64 * 0xb2d0_5e00_u64);
    let fee = |change: fn(&mut Value, &mut Value)| {
        let block = changed(change);
        of(&block, 0)[1].amount.get() - execution
    };
    let blobs = fee(|tx, receipt| {
        tx["type"] = json!("0x3");
        receipt["blobGasUsed"] = json!("0x20000");
        receipt["blobGasPrice"] = json!("0x3");
    });
    assert_eq!(blobs, U256::from(0x20000 * 3));
    // The same fields of another type are a footprint.
    let footprint = fee(|_, receipt| {
        receipt["blobGasUsed"] = json!("0x20000");
        receipt["blobGasPrice"] = json!("0x3");
    });
    assert_eq!(footprint, U256::ZERO);
    let isthmus = fee(|_, receipt| {
        receipt["l1Fee"] = json!("0x64");
        receipt["operatorFeeScalar"] = json!("0x1e8480");
        receipt["operatorFeeConstant"] = json!("0x9");
    });
    assert_eq!(isthmus, U256::from(100 + 2 * 0x5208 + 9));
    let jovian = fee(|_, receipt| {
        receipt["daFootprintGasScalar"] = json!("0x190");
        receipt["operatorFeeScalar"] = json!("0x2");
        receipt["operatorFeeConstant"] = json!("0x9");
    });
    assert_eq!(jovian, U256::from(2 * 100 * 0x5208 + 9));
}

#[test]
fn an_amount_that_overflows_is_not_believed() {
    let (block, mut receipts) = (mixed_block(), mixed_receipts());
    receipts[0]["effectiveGasPrice"] = json!(format!("{:#x}", U256::MAX));
    let failure = read(&checker(Verification::Links), &block, &receipts).expect_err("an overflow");
    assert_eq!(failure.outcome(), "error");
    assert!(failure.detail().starts_with("amount_overflow"));
}

#[test]
fn a_withdrawal_credits_gwei() {
    let mut block = mixed_block();
    block["withdrawals"] = json!([{
        "index": "0x1f", "validatorIndex": "0x2", "amount": "0x3",
        "address": "0x70997970c51812dc3a010c7d01b50e0d17dc79c8",
    }]);
    let block = read(&checker(Verification::Links), &block, &mixed_receipts()).expect("a block");
    let last = block.movements.last().expect("movements");
    assert_eq!((&last.ordinal, last.kind), (&Ordinal::Withdrawal(31), Kind::Withdrawal));
    assert_eq!(
        (last.tx, last.amount),
        (TxId::from([0; 32]), Amount::new(U256::from(3_000_000_000_u64)))
    );
}

#[test]
fn polygons_receipt_without_a_transaction_still_moves_tokens() {
    let (block, mut receipts) = (mixed_block(), mixed_receipts());
    let hash = block["hash"].as_str().expect("a hash");
    let mut name = b"matic-bor-receipt-".to_vec();
    name.extend(1_u64.to_be_bytes());
    name.extend(alloy::hex::decode(hash).expect("hexadecimal"));
    let sync = alloy::primitives::keccak256(name);
    let mut extra = receipts[0].clone();
    extra["transactionHash"] = json!(sync.to_string());
    extra["transactionIndex"] = json!("0x5");
    extra["logs"] = json!([transfer(3, 32)]);
    receipts.as_array_mut().expect("a list").push(extra);
    let block = read(&checker(Verification::Full), &block, &receipts).expect("a block");
    assert_eq!(block.transactions.len(), 5);
    let last = block.movements.last().expect("movements");
    assert_eq!((last.tx, &last.ordinal), (TxId::from(sync.0), &Ordinal::Log(0)));
}
