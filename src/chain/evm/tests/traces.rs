//! Traces as nodes write them, and what is made of them.

use alloy::primitives::{Address, U256};
use proptest::prelude::*;
use serde_json::{Value, json, value::RawValue};

use crate::chain::evm::trace::testing::{Moved, flat, nested};
use crate::chain::rpc::Failure;

fn who(byte: u8) -> Address {
    Address::repeat_byte(byte)
}

fn call(kind: &str, from: u8, to: u8, value: u64, calls: impl Into<Value>) -> Value {
    let calls: Value = calls.into();
    json!({
        "type": kind, "from": who(from), "to": who(to), "value": format!("{value:#x}"),
        "gas": "0x0", "gasUsed": "0x0", "input": "0x", "calls": calls,
    })
}

fn failed(mut call: Value) -> Value {
    call["error"] = json!("execution reverted");
    call
}

fn read(trace: &Value) -> Result<Vec<Moved>, Failure> {
    nested(&RawValue::from_string(trace.to_string()).expect("JSON"))
}

fn moved(trace: &Value) -> Vec<(Vec<u32>, u8, u8, u64)> {
    let moved = read(trace).expect("a trace").into_iter();
    moved.map(|one| (one.path, one.from[0], one.to[0], one.wei.to::<u64>())).collect()
}

#[test]
fn only_calls_creations_and_destructions_move_value() {
    let kinds =
        ["CALL", "DELEGATECALL", "CALLCODE", "STATICCALL", "CREATE", "CREATE2", "SELFDESTRUCT"];
    let calls = kinds.iter().zip(10u8..).map(|(kind, to)| call(kind, 2, to, 5, json!([])));
    let found = moved(&call("CALL", 1, 2, 9, calls.collect::<Vec<_>>()));
    let expected = [(0, 10), (4, 14), (5, 15), (6, 16)];
    assert_eq!(found, expected.map(|(place, to)| (vec![place], 2, to, 5)));
}

#[test]
fn what_fails_takes_everything_inside_it_back() {
    let inner = call("CALL", 3, 4, 7, vec![call("CALL", 4, 5, 6, json!([]))]);
    let trace = call("CALL", 1, 2, 0, vec![failed(inner), call("CALL", 2, 6, 1, json!([]))]);
    assert_eq!(moved(&trace), [(vec![1], 2, 6, 1)], "and the others keep their places");
    assert_eq!(moved(&failed(trace)), []);
}

#[test]
fn calls_of_built_in_contracts_do_not_move_the_places_of_the_others() {
    let mut built_in = call("STATICCALL", 2, 0, 0, json!([]));
    built_in["to"] = json!("0x0000000000000000000000000000000000000001");
    let mut paid = built_in.clone();
    paid["type"] = json!("CALL");
    paid["value"] = json!("0x3");
    let trace = call("CALL", 1, 2, 0, vec![built_in, paid, call("CALL", 2, 6, 1, json!([]))]);
    assert_eq!(moved(&trace), [(vec![0], 2, 0, 3), (vec![1], 2, 6, 1)]);
}

#[test]
fn calls_that_are_nested_a_hundred_deep_are_read() {
    let mut trace = call("CALL", 8, 9, 3, json!([]));
    for _ in 0..100 {
        trace = call("CALL", 2, 8, 0, vec![trace]);
    }
    assert_eq!(moved(&trace), [(vec![0; 100], 8, 9, 3)]);
}

#[test]
fn a_trace_of_endless_nesting_is_refused_and_not_worked_on() {
    let (open, close) = (r#"{"type":"CALL","calls":["#, "]}");
    let text = format!("{}{}{}", open.repeat(20_000), r#"{"type":"CALL"}"#, close.repeat(20_000));
    let read = nested(&RawValue::from_string(text).expect("JSON"));
    assert!(matches!(read, Err(Failure::TooLarge(_))), "{read:?}");
}

/// The same calls as a flat trace tells them.
fn flattened(trace: &Value, path: &[u32], out: &mut Vec<Value>) {
    let action = json!({
        "from": trace["from"], "to": trace["to"], "value": trace["value"],
        "callType": trace["type"].as_str().unwrap_or_default().to_lowercase(),
    });
    let mut one = json!({ "action": action, "traceAddress": path, "type": "call", "result": {} });
    if trace["type"] == "SELFDESTRUCT" {
        one["type"] = json!("suicide");
        one["action"] = json!({
            "address": trace["from"], "refundAddress": trace["to"], "balance": trace["value"],
        });
    } else if trace["type"] == "CREATE" {
        one["type"] = json!("create");
        one["result"] = json!({ "address": trace["to"] });
    }
    if let Some(error) = trace.get("error") {
        one["error"] = error.clone();
        one["result"] = Value::Null;
    }
    out.push(one);
    for (index, call) in (0u32..).zip(trace["calls"].as_array().into_iter().flatten()) {
        let inner: Vec<u32> = path.iter().copied().chain([index]).collect();
        flattened(call, &inner, out);
    }
}

fn any_call() -> impl Strategy<Value = Value> {
    let kinds = ["CALL", "DELEGATECALL", "CALLCODE", "STATICCALL", "CREATE", "SELFDESTRUCT"];
    let leaf = (0..kinds.len(), 1..9u8, 1..9u8, 0..4u64, any::<u8>());
    let made = move |(kind, from, to, value, fails): (usize, u8, u8, u64, u8),
                     calls: Vec<Value>| {
        let one = call(kinds[kind], from, to, value, calls);
        if fails < 40 { failed(one) } else { one }
    };
    let alone = leaf.clone().prop_map(move |leaf| made(leaf, Vec::new()));
    alone.prop_recursive(5, 40, 5, move |inner| {
        let made = made;
        (leaf.clone(), prop::collection::vec(inner, 0..5))
            .prop_map(move |(leaf, calls)| made(leaf, calls))
    })
}

proptest! {
    #[test]
    fn both_shapes_of_one_trace_give_the_same_movements(trace in any_call(), seed in any::<u64>()) {
        let mut calls = Vec::new();
        flattened(&trace, &[], &mut calls);
        // Whatever the order in which a node tells them.
        let len = calls.len();
        calls.rotate_left(usize::try_from(seed % 97).unwrap_or(0) % len);
        let flat = flat(&Value::Array(calls).to_string()).expect("a trace");
        prop_assert_eq!(read(&trace).expect("a trace"), flat);
    }

    #[test]
    fn no_text_that_is_no_trace_is_believed_or_panics(text in ".{0,200}") {
        if let Ok(raw) = RawValue::from_string(text.clone()) {
            let _ = nested(&raw);
        }
        let _ = flat(&text);
    }
}

#[test]
fn amounts_are_exact_to_the_last_of_256_bits() {
    let mut whole = call("CALL", 2, 3, 0, json!([]));
    whole["value"] = json!(U256::MAX);
    let found = read(&call("CALL", 1, 2, 0, vec![whole])).expect("a trace");
    assert_eq!(found[0].wei, U256::MAX);
}
