//! What is under no root, of types that the recorded block does not have.

use alloy::{
    consensus::{TxEip1559, TxEip4844},
    primitives::{B256, U256},
};
use serde_json::{Value, json};

use super::{
    checker, empty_block, read,
    signing::{address, block_of, sealed, shown, sign},
};
use crate::{
    chain::{Block, Kind, evm::verify::Checker, rpc::Failure},
    config::Verification,
};

/// Wei for a unit of gas in the recorded block, whatever is done.
const BASE_FEE: u64 = 1_000_000_000;

/// Which check fails, if any.
fn fails((block, receipts): &(Value, Value)) -> Option<&'static str> {
    outcome(&checker(Verification::Full), block, receipts).err()
}

fn outcome(checker: &Checker, block: &Value, receipts: &Value) -> Result<Block, &'static str> {
    read(checker, block, receipts).map_err(|failure| match failure {
        Failure::Untrusted { check, .. } => check,
        failure => panic!("{}", failure.detail()),
    })
}

/// A payment with a tip of one wei.
fn payment() -> Value {
    let tx = TxEip1559 {
        chain_id: 31_337,
        max_fee_per_gas: 3_000_000_000,
        max_priority_fee_per_gas: 1,
        to: address(2).into(),
        value: U256::from(5),
        ..TxEip1559::default()
    };
    shown(&sign(tx, 1), address(1))
}

fn priced(price: u64) -> Value {
    json!({ "effectiveGasPrice": format!("{price:#x}") })
}

/// A transaction that a chain itself has made.
fn own(kind: &str, more: &Value) -> Value {
    let mut tx = json!({
        "type": kind, "chainId": "0x7a69", "from": address(8), "to": address(9), "value": "0x0", "gas": "0x0",
        "input": "0x", "hash": B256::ZERO,
    });
    for (name, value) in more.as_object().expect("an object") {
        tx[name] = value.clone();
    }
    hash_it(tx)
}

/// Gives a transaction the hash that it has.
fn hash_it(mut tx: Value) -> Value {
    use alloy::rlp::Encodable as _;
    let mut payload = Vec::new();
    let word = |name: &str| tx[name].as_str().expect("a text").parse::<B256>().expect("a word");
    let number =
        |name: &str| tx[name].as_str().map_or(U256::ZERO, |text| text.parse().expect("a number"));
    match tx["type"].as_str().expect("a type") {
        "0x6a" => {
            number("chainId").encode(&mut payload);
            "".encode(&mut payload);
        }
        "0x7e" => {
            word("sourceHash").encode(&mut payload);
            address(8).encode(&mut payload);
            if tx["to"].is_null() {
                "".encode(&mut payload);
            } else {
                address(9).encode(&mut payload);
            }
            number("mint").encode(&mut payload);
            number("value").encode(&mut payload);
            U256::ZERO.encode(&mut payload);
            false.encode(&mut payload);
            "".encode(&mut payload);
        }
        other => panic!("no encoding of {other}"),
    }
    let kind = u8::from_str_radix(&tx["type"].as_str().expect("a type")[2..], 16).expect("a byte");
    let mut out = vec![kind];
    alloy::rlp::Header { list: true, payload_length: payload.len() }.encode(&mut out);
    out.extend(payload);
    tx["hash"] = json!(alloy::primitives::keccak256(out));
    tx
}

#[test]
fn a_sealed_block_of_any_type_passes() {
    assert_eq!(fails(&block_of(&[payment()], &[priced(BASE_FEE + 1)])), None);
    assert_eq!(fails(&block_of(&[payment()], &[priced(BASE_FEE)])), Some("gas_price"));
}

#[test]
fn the_fee_for_blobs_is_for_as_many_as_there_are_and_no_more_than_was_offered() {
    let blobs = |n: u8| {
        let tx = TxEip4844 {
            chain_id: 31_337,
            max_fee_per_gas: u128::from(BASE_FEE),
            max_fee_per_blob_gas: 10,
            to: address(2),
            blob_versioned_hashes: (0..n).map(B256::repeat_byte).collect(),
            ..TxEip4844::default()
        };
        shown(&sign(tx, 1), address(1))
    };
    let receipt = |gas: u64, price: u64| {
        let mut receipt = priced(BASE_FEE);
        receipt["blobGasUsed"] = json!(format!("{gas:#x}"));
        receipt["blobGasPrice"] = json!(format!("{price:#x}"));
        receipt
    };
    let of = |all: &[(u8, u64, u64)]| {
        let txs: Vec<Value> = all.iter().map(|(n, ..)| blobs(*n)).collect();
        let receipts: Vec<Value> =
            all.iter().map(|(_, gas, price)| receipt(*gas, *price)).collect();
        fails(&block_of(&txs, &receipts))
    };
    assert_eq!(of(&[(2, 0x40000, 10), (1, 0x20000, 10)]), None);
    let lies: [&[(u8, u64, u64)]; 4] = [
        &[(2, 0x60000, 10)],
        &[(2, 0, 10)],
        &[(2, 0x40000, 11)],
        &[(2, 0x40000, 10), (1, 0x20000, 9)],
    ];
    for lie in lies {
        assert_eq!(of(lie), Some("blob_gas"), "{lie:?}");
    }
    let mut receipts = priced(BASE_FEE);
    receipts["blobGasPrice"] = json!("0xa");
    receipts["blobGasUsed"] = Value::Null;
    assert_eq!(fails(&block_of(&[blobs(1)], &[receipts])), Some("blob_gas"));
}

#[test]
fn on_arbitrum_the_tip_may_stay_with_the_sender() {
    let first = own("0x6a", &json!({}));
    let of = |price| block_of(&[first.clone(), payment()], &[json!({}), priced(price)]);
    for (price, expected) in [
        (BASE_FEE, None),
        (BASE_FEE + 1, None),
        (BASE_FEE + 2, Some("gas_price")),
        (0, Some("gas_price")),
    ] {
        let (mut block, mut receipts) = of(price);
        // What Arbitrum begins a block with uses no gas.
        for (receipt, so_far) in
            receipts.as_array_mut().expect("a list").iter_mut().zip([0, 21_000])
        {
            receipt["gasUsed"] = json!(format!("{so_far:#x}"));
            receipt["cumulativeGasUsed"] = json!(format!("{so_far:#x}"));
        }
        (block, receipts) = sealed(block, receipts);
        assert_eq!(fails(&(block, receipts)), expected, "{price}");
    }
}

#[test]
fn a_deposit_of_the_op_stack_is_proven_with_its_receipt_and_only_its_chains_charge_for_l1() {
    let deposit = own(
        "0x7e",
        &json!({ "sourceHash": B256::repeat_byte(1), "mint": "0x7", "value": "0x7", "nonce": "0x3" }),
    );
    let canyon = json!({ "depositNonce": "0x3", "depositReceiptVersion": "0x1" });
    let mut paid = priced(BASE_FEE + 1);
    paid["l1Fee"] = json!("0x5");
    let honest = block_of(&[deposit.clone(), payment()], &[canyon.clone(), paid.clone()]);
    let block = outcome(&checker(Verification::Full), &honest.0, &honest.1).expect("a block");
    assert_eq!(
        (block.movements[0].kind, block.movements[0].amount.get()),
        (Kind::Mint, U256::from(7))
    );
    // Under the receipts' root since Canyon.
    let (block, mut receipts) = honest.clone();
    receipts[0]["depositNonce"] = json!("0x4");
    assert_eq!(fails(&(block, receipts)), Some("receipts_root"));
    let (mut block, receipts) = honest.clone();
    block["transactions"][0]["mint"] = json!("0xffff");
    assert_eq!(fails(&(block, receipts)), Some("transactions_root"));
    assert_eq!(
        fails(&block_of(&[deposit, payment()], &[json!({}), priced(BASE_FEE + 1)])),
        None,
        "before it"
    );
    assert_eq!(fails(&block_of(&[payment()], &[paid])), Some("l1_fee"));
    // Another root stands there, and nothing is withdrawn.
    let (mut block, receipts) = honest;
    block["withdrawalsRoot"] = json!(B256::repeat_byte(5));
    let (mut block, receipts) = sealed(block, receipts);
    assert_eq!(fails(&(block.clone(), receipts.clone())), None);
    block["withdrawals"] = json!([{ "index": "0x1", "validatorIndex": "0x1", "amount": "0x1", "address": address(1) }]);
    assert_eq!(fails(&(block, receipts)), Some("withdrawals_root"));
}

#[test]
fn a_creation_by_a_deposit_is_at_its_own_nonce() {
    let of = |told: Value| {
        let deposit =
            json!({ "sourceHash": B256::repeat_byte(1), "value": "0x7", "to": Value::Null });
        let receipt = json!({ "depositNonce": "0x3", "depositReceiptVersion": "0x1", "contractAddress": told });
        fails(&block_of(&[own("0x7e", &deposit)], &[receipt]))
    };
    assert_eq!(of(json!(address(8).create(3))), None);
    for lie in [json!(address(8).create(4)), json!(address(1)), Value::Null] {
        assert_eq!(of(lie), Some("contract_address"));
    }
}

#[test]
fn withdrawals_that_were_left_out_or_made_up_are_noticed() {
    let mut block = empty_block();
    let withdrawal =
        json!({ "index": "0x1", "validatorIndex": "0x1", "amount": "0x1", "address": address(1) });
    // A header from before Shanghai has no root at all.
    block.as_object_mut().expect("an object").remove("withdrawalsRoot");
    block["withdrawals"] = json!([withdrawal]);
    let sealed_one = sealed(block, json!([]));
    assert_eq!(fails(&sealed_one), Some("withdrawals_root"), "made up");
    let mut block = empty_block();
    block["withdrawalsRoot"] = json!(B256::repeat_byte(1));
    for none in [json!([]), Value::Null] {
        block["withdrawals"] = none;
        assert_eq!(fails(&sealed(block.clone(), json!([]))), Some("withdrawals_root"), "left out");
    }
}

#[test]
fn a_type_that_nobody_can_hash_is_counted_and_leaves_its_block_to_the_nodes_word() {
    let mut strange = payment();
    strange["type"] = json!("0x7f");
    strange["hash"] = json!(B256::repeat_byte(1));
    let (block, receipts) = block_of(&[payment(), strange], &[priced(BASE_FEE + 1), json!({})]);
    let checker = checker(Verification::Full);
    let read = outcome(&checker, &block, &receipts).expect("a block");
    assert_eq!(read.transactions.len(), 2);
    let counted = |kind| {
        checker.metrics.unhashed_transactions_total.with_label_values(&["anvil", kind]).get()
    };
    assert_eq!((counted("0x7f"), counted("0x02")), (1, 0));
    // What can be hashed is what its own hash says all the same, and signed.
    for (field, check) in [("value", "transaction_hash"), ("from", "sender")] {
        let mut lie = block.clone();
        lie["transactions"][0][field] =
            if field == "value" { json!("0x6") } else { json!(address(5)) };
        assert_eq!(fails(&(lie, receipts.clone())), Some(check));
    }
}
