use serde_json::{Value, json};

use super::{checker, empty_block, mixed_block, mixed_receipts, read};
use crate::{chain::rpc::Failure, config::Verification};

/// Which check a block and its receipts fail, if any; and that the metric counts it.
fn fails(verification: Verification, block: &Value, receipts: &Value) -> Option<&'static str> {
    let checker = checker(verification);
    match read(&checker, block, receipts) {
        Ok(_) => None,
        Err(Failure::Untrusted { check, .. }) => {
            let counted =
                checker.metrics.verification_failures_total.with_label_values(&["anvil", check]);
            assert_eq!(counted.get(), 1);
            Some(check)
        }
        Err(failure) => panic!("{}", failure.detail()),
    }
}

const ALL: [Verification; 3] = [Verification::Full, Verification::Bloom, Verification::Links];

#[test]
fn honest_blocks_pass_every_check() {
    for verification in ALL {
        assert_eq!(fails(verification, &mixed_block(), &mixed_receipts()), None);
        assert_eq!(fails(verification, &empty_block(), &json!([])), None);
    }
}

#[test]
fn a_log_that_was_left_out_is_noticed() {
    let mut receipts = mixed_receipts();
    receipts[2]["logs"] = json!([]);
    assert_eq!(fails(Verification::Full, &mixed_block(), &receipts), Some("receipts_root"));
    // This burn's receiver is in no other log.
    let mut receipts = mixed_receipts();
    receipts[1]["logs"] = json!([]);
    assert_eq!(fails(Verification::Bloom, &mixed_block(), &receipts), Some("logs_bloom"));
    // The same log stands twice in the receipt: only the root sees that one is missing.
    let mut receipts = mixed_receipts();
    receipts[1]["logs"].as_array_mut().expect("logs").pop();
    assert_eq!(fails(Verification::Full, &mixed_block(), &receipts), Some("receipts_root"));
}

#[test]
fn a_changed_amount_or_status_is_noticed() {
    let mut receipts = mixed_receipts();
    receipts[1]["logs"][0]["data"] = json!(format!("0x{:0>64}", "ffff"));
    assert_eq!(fails(Verification::Full, &mixed_block(), &receipts), Some("receipts_root"));
    let mut receipts = mixed_receipts();
    receipts[3]["status"] = json!("0x1");
    assert_eq!(fails(Verification::Full, &mixed_block(), &receipts), Some("receipts_root"));
}

#[test]
fn a_height_that_no_chain_has_is_noticed_before_it_reaches_the_store() {
    for verification in ALL {
        for number in ["0x20000000000001", "0x8000000000000000", "0xffffffffffffffff"] {
            let mut block = mixed_block();
            block["number"] = json!(number);
            assert_eq!(fails(verification, &block, &mixed_receipts()), Some("height"));
        }
    }
}

#[test]
fn a_block_that_names_no_parent_is_noticed_and_a_chains_first_is_not() {
    let zero = json!(format!("0x{}", "0".repeat(64)));
    for verification in ALL {
        let mut block = mixed_block();
        block["parentHash"] = zero.clone();
        assert_eq!(fails(verification, &block, &mixed_receipts()), Some("parent_hash"));
    }
    let mut first = empty_block();
    first["parentHash"] = zero;
    first["number"] = json!("0x0");
    assert_eq!(fails(Verification::Links, &first, &json!([])), None);
}

#[test]
fn an_empty_list_of_receipts_is_noticed() {
    for verification in ALL {
        assert_eq!(fails(verification, &mixed_block(), &json!([])), Some("receipt_links"));
    }
}

#[test]
fn transactions_and_receipts_left_out_together_are_noticed() {
    let mut block = mixed_block();
    block["transactions"] = json!([]);
    assert_eq!(fails(Verification::Full, &block, &json!([])), Some("transactions_root"));
    assert_eq!(fails(Verification::Bloom, &block, &json!([])), Some("logs_bloom"));
}

#[test]
fn a_tampered_header_is_noticed() {
    for (field, value) in [
        ("receiptsRoot", json!(format!("0x{}", "11".repeat(32)))),
        ("timestamp", json!("0x1")),
        ("parentHash", json!(format!("0x{}", "22".repeat(32)))),
        ("extraData", json!("0x01")),
    ] {
        let mut block = mixed_block();
        block[field] = value;
        assert_eq!(fails(Verification::Full, &block, &mixed_receipts()), Some("header_hash"));
    }
}

#[test]
fn receipts_of_another_block_or_order_are_noticed() {
    for verification in ALL {
        let mut receipts = mixed_receipts();
        receipts[0]["blockHash"] = empty_block()["hash"].clone();
        assert_eq!(fails(verification, &mixed_block(), &receipts), Some("receipt_links"));
        let mut receipts = mixed_receipts();
        receipts[0]["transactionHash"] = json!(format!("0x{}", "0".repeat(64)));
        assert_eq!(fails(verification, &mixed_block(), &receipts), Some("receipt_links"));
        let mut receipts = mixed_receipts();
        receipts.as_array_mut().expect("a list").swap(0, 1);
        assert_eq!(fails(verification, &mixed_block(), &receipts), Some("receipt_links"));
        let mut receipts = mixed_receipts();
        receipts[1]["logs"].as_array_mut().expect("logs").reverse();
        assert_eq!(fails(verification, &mixed_block(), &receipts), Some("receipt_links"));
    }
}

#[test]
fn a_type_that_a_node_makes_up_spares_it_no_check() {
    let (mut block, mut receipts) = (mixed_block(), mixed_receipts());
    block["transactions"][0]["type"] = json!("0x7e");
    let two_types = Some("transaction_type");
    assert_eq!(fails(Verification::Full, &block, &receipts), two_types, "it would mint money");
    receipts[0]["type"] = json!("0x7e");
    assert_eq!(fails(Verification::Full, &block, &receipts), Some("receipts_root"));
    assert_eq!(fails(Verification::Bloom, &block, &receipts), None, "for chains that have such");
    receipts[1]["logs"] = json!([]);
    assert_eq!(fails(Verification::Bloom, &block, &receipts), Some("logs_bloom"));
}

#[test]
fn what_stands_twice_in_a_block_is_noticed_before_it_is_booked_at_one_place() {
    for verification in [Verification::Bloom, Verification::Links] {
        let (mut block, mut receipts) = (mixed_block(), mixed_receipts());
        let transactions = block["transactions"].as_array_mut().expect("a list");
        transactions.push(transactions[0].clone());
        let mut receipt = receipts[0].clone();
        receipt["transactionIndex"] = json!("0x5");
        receipts.as_array_mut().expect("a list").push(receipt);
        assert_eq!(fails(verification, &block, &receipts), Some("receipt_links"));
        let mut block = empty_block();
        let one = json!({"index": "0x7", "validatorIndex": "0x1", "amount": "0x1",
            "address": "0x1111111111111111111111111111111111111111"});
        block["withdrawals"] = json!([one, one]);
        assert_eq!(fails(verification, &block, &json!([])), Some("receipt_links"));
    }
}

#[test]
fn a_nonce_that_no_account_has_is_noticed_before_it_reaches_the_store() {
    for verification in ALL {
        let mut block = mixed_block();
        block["transactions"][0]["nonce"] = json!("0x8000000000000000");
        assert_eq!(fails(verification, &block, &mixed_receipts()), Some("nonce"));
    }
}
