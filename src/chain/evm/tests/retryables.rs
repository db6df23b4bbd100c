//! Tickets from L1 to Arbitrum: their submission (0x69) and their tries (0x68), in the shapes of its nodes.

use alloy::primitives::{Address as EvmAddress, B256, Bytes, U256, U512, keccak256};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    arbitrum::{BASE_FEE, Inside, ONE, Rollup, block_of, call, hash_of, moved},
    signing::address,
};
use crate::chain::{
    AssetKey, Kind, Traced,
    evm::{
        json as told,
        retryable::{Submission, Ticket},
    },
};

/// What a try costs at most, and what it uses.
const GAS: u64 = 100_000;
const USED: u64 = 60_000;
/// What the ticket is worth.
const VALUE: u64 = 700;
/// L1's base fee, and what 4 bytes of calldata cost by it: (1,400 + 6 · 4) · 10.
const L1_BASE_FEE: u64 = 10;
const SUBMISSION_FEE: u64 = 14_240;
const MOST_FOR_SUBMISSION: u64 = 20_000;
/// What was offered for each unit of gas.
const OFFERED: u64 = 2 * BASE_FEE;
const DEPOSIT: u64 = VALUE + MOST_FOR_SUBMISSION + GAS * OFFERED;

/// Who sent it on L1, as L2 calls him; who gets what is left; whom it is for.
fn sender() -> EvmAddress {
    address(2)
}

fn refunded() -> EvmAddress {
    address(3)
}

fn target() -> EvmAddress {
    address(4)
}

fn everybody() -> [EvmAddress; 4] {
    [sender(), refunded(), target(), escrow(&submission(DEPOSIT))]
}

fn hex(number: u64) -> Value {
    json!(format!("{number:#x}"))
}

/// A ticket for [`target`], worth [`VALUE`].
fn submission(deposit: u64) -> Value {
    let (request, beneficiary) = (B256::repeat_byte(1), address(6));
    let (from, to, refund) = (sender(), target(), refunded());
    let data = Bytes::from_static(&[1, 2, 3, 4]);
    let hash = hash_of(
        0x69,
        &[
            &ONE,
            &request,
            &from,
            &L1_BASE_FEE,
            &deposit,
            &OFFERED,
            &GAS,
            &to,
            &VALUE,
            &beneficiary,
            &MOST_FOR_SUBMISSION,
            &refund,
            &data,
        ],
    );
    json!({
        "type": "0x69", "hash": hash, "chainId": "0xa4b1", "from": from, "nonce": "0x0", "value": "0x0",
        "to": "0x000000000000000000000000000000000000006e", "gas": hex(GAS), "gasPrice": hex(OFFERED),
        "input": "0xc9f95d32", "v": "0x0", "r": "0x0", "s": "0x0", "requestId": request, "refundTo": refund,
        "l1BaseFee": hex(L1_BASE_FEE), "depositValue": hex(deposit), "retryTo": to, "retryValue": hex(VALUE),
        "retryData": data, "beneficiary": beneficiary, "maxSubmissionFee": hex(MOST_FOR_SUBMISSION),
    })
}

/// Where the value of that ticket waits.
fn escrow(submission: &Value) -> EvmAddress {
    let ticket: B256 = submission["hash"].as_str().expect("a hash").parse().expect("a hash");
    EvmAddress::from_word(keccak256([b"retryable escrow", ticket.as_slice()].concat()))
}

/// A try of it.
fn retry() -> Value {
    let ticket: B256 =
        submission(DEPOSIT)["hash"].as_str().expect("a hash").parse().expect("a hash");
    let (from, to, refund) = (sender(), target(), refunded());
    let data = Bytes::from_static(&[1, 2, 3, 4]);
    let most = DEPOSIT - VALUE;
    let hash = hash_of(
        0x68,
        &[
            &ONE,
            &0_u64,
            &from,
            &BASE_FEE,
            &GAS,
            &to,
            &VALUE,
            &data,
            &ticket,
            &refund,
            &most,
            &SUBMISSION_FEE,
        ],
    );
    json!({
        "type": "0x68", "hash": hash, "chainId": "0xa4b1", "from": from, "to": to, "nonce": "0x0",
        "value": hex(VALUE), "gas": hex(GAS), "gasPrice": hex(BASE_FEE), "maxFeePerGas": hex(BASE_FEE),
        "input": data, "v": "0x0", "r": "0x0", "s": "0x0", "ticketId": ticket, "refundTo": refund,
        "maxRefund": hex(most), "submissionFeeRefund": hex(SUBMISSION_FEE),
    })
}

type Row = (&'static str, Kind, Option<EvmAddress>, Option<EvmAddress>, u64);

/// What these of everybody are told to have moved.
async fn rows(tx: Value, receipt: Value) -> Vec<Row> {
    let rollup = Rollup::of(block_of(vec![(tx, receipt)]), Inside::default()).await;
    of(&rollup.read(&everybody()).await)
}

fn of(block: &crate::chain::Block) -> Vec<Row> {
    let known = ["tx", "own:0", "own:1", "fee", "trace:4294967295.0", "trace:4294967295.1"];
    let row = |(place, kind, asset, from, to, wei): (String, _, _, _, _, _)| {
        assert_eq!(asset, AssetKey::Native);
        let place = known.into_iter().find(|known| *known == place).expect("a known place");
        (place, kind, from, to, wei)
    };
    moved(block).into_iter().map(row).collect()
}

#[tokio::test]
async fn a_ticket_from_l1_mints_its_deposit_pays_for_itself_and_gives_the_rest_back() {
    let (tx, gas) = (submission(DEPOSIT), GAS * BASE_FEE);
    let escrow = escrow(&tx);
    let rows = rows(tx, json!({ "gasUsed": hex(GAS) })).await;
    let (from, rest) = (Some(sender()), MOST_FOR_SUBMISSION - SUBMISSION_FEE + gas);
    let fee = SUBMISSION_FEE + gas;
    assert_eq!(
        rows,
        [
            ("tx", Kind::Mint, None, from, DEPOSIT),
            ("own:0", Kind::Transfer, from, Some(escrow), VALUE),
            ("own:1", Kind::Transfer, from, Some(refunded()), rest),
            ("fee", Kind::Fee, from, None, fee),
        ]
    );
    assert_eq!(DEPOSIT, VALUE + rest + fee, "all of it has gone somewhere");
}

#[tokio::test]
async fn a_ticket_that_is_not_tried_at_once_gives_back_all_that_was_for_gas() {
    // Nothing was paid for gas: it was too little, or too little was offered for it.
    let tx = submission(DEPOSIT);
    let escrow = escrow(&tx);
    let rows = rows(tx, json!({ "gasUsed": "0x0" })).await;
    let (from, rest) = (Some(sender()), DEPOSIT - VALUE - SUBMISSION_FEE);
    assert_eq!(
        rows,
        [
            ("tx", Kind::Mint, None, from, DEPOSIT),
            ("own:0", Kind::Transfer, from, Some(escrow), VALUE),
            ("own:1", Kind::Transfer, from, Some(refunded()), rest),
            ("fee", Kind::Fee, from, None, SUBMISSION_FEE),
        ]
    );
}

#[tokio::test]
async fn a_ticket_gives_back_no_more_than_was_deposited_for_it() {
    // The sender had the rest on L2 already.
    let tx = submission(VALUE + SUBMISSION_FEE + 5);
    let rows = rows(tx, json!({ "gasUsed": "0x0" })).await;
    let back: Vec<u64> = rows.iter().filter(|row| row.0 == "own:1").map(|row| row.4).collect();
    assert_eq!(back, [5]);
}

#[tokio::test]
async fn of_a_submission_that_fails_nothing_is_believed_before_the_balances_are_compared() {
    assert_eq!(rows(submission(1), json!({ "gasUsed": "0x0", "status": "0x0" })).await, []);
}

#[tokio::test]
async fn a_try_of_a_ticket_is_paid_out_of_its_escrow_and_costs_its_sender_nothing() {
    let escrow = escrow(&submission(DEPOSIT));
    let rows = rows(retry(), json!({ "gasUsed": hex(USED) })).await;
    assert_eq!(rows, [("tx", Kind::Transfer, Some(escrow), Some(target()), VALUE)]);
}

#[tokio::test]
async fn a_try_that_fails_leaves_the_ticket_in_escrow() {
    assert_eq!(rows(retry(), json!({ "gasUsed": hex(USED), "status": "0x0" })).await, []);
}

/// What a node tells of a try beside its block.
fn inside(back: u64, after: u64) -> Inside {
    let network = address(9);
    let of = |purpose: &str, from: Option<EvmAddress>, to: Option<EvmAddress>, wei: u64| json!({ "purpose": purpose, "from": from, "to": to, "value": hex(wei) });
    let (from, held) = (Some(sender()), Some(escrow(&submission(DEPOSIT))));
    let mut calls = call("CALL", sender(), target(), VALUE, &json!([]));
    calls["beforeEVMTransfers"] = json!([
        of("escrow", held, from, VALUE),
        of("prepaid", None, from, GAS * BASE_FEE),
        of("feePayment", from, None, GAS * BASE_FEE),
    ]);
    calls["afterEVMTransfers"] = json!([
        of("gasRefund", None, from, (GAS - USED) * BASE_FEE),
        of("undoRefund", from, None, (GAS - USED) * BASE_FEE),
        of("refund", Some(network), Some(refunded()), back),
        of("refund", Some(network), from, 0),
    ]);
    let has = |wei: u64| json!({ "balance": hex(wei) });
    let name = |who: EvmAddress| who.to_string();
    let diff = json!({
        "pre": { name(refunded()): has(50), name(target()): has(0), name(held.unwrap()): has(VALUE) },
        "post": { name(refunded()): has(50 + back), name(target()): has(VALUE), name(held.unwrap()): has(0) },
    });
    Inside {
        diff: Some(diff),
        calls,
        balances: vec![(refunded(), 50, after), (target(), 0, VALUE)],
    }
}

#[tokio::test]
async fn what_a_try_gives_back_is_credited_where_a_node_traces_it_and_the_balances_bear_it_out() {
    let back = SUBMISSION_FEE + (GAS - USED) * BASE_FEE;
    let block = block_of(vec![(retry(), json!({ "gasUsed": hex(USED) }))]);
    let watched = [refunded(), target()];
    let rollup = Rollup::of(block.clone(), inside(back, 50 + back)).await;
    let read = rollup.read(&watched).await;
    let escrow = Some(escrow(&submission(DEPOSIT)));
    let value = ("tx", Kind::Transfer, escrow, Some(target()), VALUE);
    let refund = ("trace:4294967295.0", Kind::Internal, Some(address(9)), Some(refunded()), back);
    assert_eq!((of(&read), read.traced), (vec![value, refund], Traced::Whole));
    let mismatches =
        |rollup: &Rollup| rollup.metrics.trace_mismatches_total.with_label_values(&["anvil"]).get();
    assert_eq!(mismatches(&rollup), 0);
    // The network's account had too little, and gave nothing back.
    let rollup = Rollup::of(block, inside(back, 50)).await;
    let read = rollup.read(&watched).await;
    assert_eq!((of(&read), read.traced), (vec![value], Traced::Not));
    assert_eq!(mismatches(&rollup), 1);
}

#[tokio::test]
async fn a_try_that_fails_gives_its_gas_back_and_its_value_to_nobody_but_the_escrow() {
    let back = (GAS - USED) * BASE_FEE;
    let mut inside = inside(back, 50 + back);
    inside.calls["error"] = json!("execution reverted");
    let held = json!({
        "purpose": "escrow", "from": sender(), "to": escrow(&submission(DEPOSIT)), "value": hex(VALUE),
    });
    inside.calls["afterEVMTransfers"].as_array_mut().expect("a list").push(held);
    let only = |wei: u64| json!({ refunded().to_string(): { "balance": hex(wei) } });
    inside.diff = Some(json!({ "pre": only(50), "post": only(50 + back) }));
    let block = block_of(vec![(retry(), json!({ "gasUsed": hex(USED), "status": "0x0" }))]);
    let read = Rollup::of(block, inside).await.read(&[refunded(), sender()]).await;
    let refund = ("trace:4294967295.0", Kind::Internal, Some(address(9)), Some(refunded()), back);
    assert_eq!((of(&read), read.traced), (vec![refund], Traced::Whole));
}

fn number() -> impl Strategy<Value = U256> {
    (any::<[u64; 4]>(), 0..256_usize).prop_map(|(limbs, shift)| U256::from_limbs(limbs) >> shift)
}

/// What Arbitrum's software gives back, step by step as it reckons.
fn given_back(deposit: U256, value: U256, fee: U256, most: U256, gas: U512, offered: U512) -> U512 {
    let wide = |number: U256| U512::from(number);
    let take = |pool: &mut U512, most: U512| {
        let taken = most.min(*pool);
        *pool -= taken;
        taken
    };
    let mut pool = wide(deposit);
    take(&mut pool, wide(value));
    take(&mut pool, wide(fee));
    let of_fee = take(&mut pool, wide(most) - wide(fee));
    take(&mut pool, gas);
    of_fee + take(&mut pool, offered - gas)
}

fn ticket(tx: &Value) -> Submission {
    let text = tx.to_string();
    let tx: told::Transaction<'_> = serde_json::from_str(&text).expect("a transaction");
    match *Ticket::of(&tx).expect("a ticket") {
        Ticket::Submitted(submission) => submission,
        Ticket::Tried { .. } => panic!("a submission"),
    }
}

proptest! {
    #[test]
    fn whatever_is_asked_of_a_ticket_it_gives_back_what_arbitrum_gives_back(
        deposit in number(), value in number(), more in number(), price in number(), base in number(),
        gas in any::<u64>(), bytes in 0..40_usize, l1_base_fee in any::<u64>(), is_tried in any::<bool>(),
    ) {
        let mut tx = submission(0);
        let fee = U256::from(l1_base_fee) * U256::from(1_400 + 6 * bytes);
        // Of one that succeeded, the fee was no more than was offered.
        let most = fee.saturating_add(more);
        for (name, number) in [
            ("depositValue", deposit), ("retryValue", value), ("maxSubmissionFee", most), ("gasPrice", price),
            ("l1BaseFee", U256::from(l1_base_fee)), ("gas", U256::from(gas)),
        ] {
            tx[name] = json!(format!("{number:#x}"));
        }
        tx["retryData"] = json!(format!("0x{}", "7f".repeat(bytes)));
        let offered = U512::from(price) * U512::from(gas);
        // What was paid for gas, the sender had.
        let paid = U512::from(base.min(price)) * U512::from(gas);
        let paid = if is_tried && paid <= U512::from(U256::MAX) { U256::from(paid) } else { U256::ZERO };
        let submission = ticket(&tx);
        prop_assert_eq!(submission.fee, fee);
        let [(_, kept), (_, back)] = submission.passed_on(paid);
        prop_assert_eq!(kept, value);
        let expected = given_back(deposit, value, fee, most, U512::from(paid), offered);
        prop_assert_eq!(U512::from(back), expected);
        prop_assert!(back <= deposit);
    }
}
