//! What a node that traces says of a block: of the one that was asked for and of all its transactions, or nothing.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    config, endpoint, mixed_block,
    node::{Node, Reply, honest},
};
use crate::{
    chain::{BlockHash, BlockRef, Priority, Source as _, Traced, evm::EvmSource},
    config::Tracing,
    metrics::Metrics,
};

const PATIENCE: Duration = Duration::from_secs(5);

fn mixed() -> BlockRef {
    let text = mixed_block()["hash"].as_str().expect("a hash").to_owned();
    let hash = alloy::hex::decode(text).expect("hexadecimal");
    BlockRef { number: 1, hash: BlockHash::from_slice(&hash).expect("32 bytes") }
}

/// As `prestateTracer` tells the recorded block: that no balance has changed.
fn changes() -> Value {
    let transactions = mixed_block()["transactions"].as_array().expect("a list").clone();
    let of = |tx: &Value| json!({ "txHash": tx["hash"], "result": { "pre": {}, "post": {} } });
    transactions.iter().map(of).collect()
}

/// As `trace_block` tells it: the call that each transaction is.
fn calls() -> Value {
    let of = |position: u32| {
        json!({
            "action": { "callType": "call", "value": "0x0" }, "result": {}, "type": "call",
            "traceAddress": [], "transactionPosition": position, "blockHash": mixed_block()["hash"],
        })
    };
    (0..5).map(of).collect()
}

/// What becomes of the recorded block when this is said of it, and how often that did not fit.
async fn traced(tracing: Tracing, said: Value) -> (Traced, u64) {
    let node = Node::start(move |method, params| match method {
        // By its hash: at a height another branch may stand by now.
        "debug_traceBlockByHash" if params[0] == mixed_block()["hash"] => {
            Reply::Result(said.clone())
        }
        "trace_block" if params[0] == "0x1" => Reply::Result(said.clone()),
        _ => honest(method, params),
    })
    .await;
    let mut one = endpoint("one", &node.url, 1);
    one.tracing = tracing;
    let metrics = Metrics::new();
    let source = EvmSource::new(&config(vec![one]), metrics.clone()).expect("a source");
    let block = source.block(mixed()).await.expect("an answer").expect("a block");
    assert_eq!(block.traced, Traced::Not, "code ran in it");
    let mut blocks = [block];
    source.trace(&mut blocks, PATIENCE).await;
    let [block] = blocks;
    (block.traced, metrics.trace_mismatches_total.with_label_values(&["anvil"]).get())
}

type Lie = (&'static str, fn(&mut Value), u64);

fn list(told: &mut Value) -> &mut Vec<Value> {
    told.as_array_mut().expect("a list")
}

fn stranger() -> Value {
    json!(format!("0x{}", "77".repeat(32)))
}

#[tokio::test]
async fn a_block_is_traced_with_every_transaction_of_it_or_not_at_all() {
    let (honest, mismatches) = traced(Tracing::Debug, changes()).await;
    assert!(matches!(honest, Traced::Beside(_)) && mismatches == 0, "{honest:?}");
    let (honest, mismatches) = traced(Tracing::Trace, calls()).await;
    assert_eq!((honest, mismatches), (Traced::Whole, 0));
    let of_changes: [Lie; 7] = [
        ("a transaction left out", |told| drop(list(told).remove(2)), 1),
        ("the last one left out", |told| drop(list(told).pop()), 1),
        ("none at all", |told| list(told).clear(), 1),
        (
            "two more",
            |told| {
                list(told).extend([
                    json!({"result": {"pre": {}, "post": {}}}),
                    json!({"result": {"pre": {}, "post": {}}}),
                ]);
            },
            1,
        ),
        ("another transaction", |told| told[1]["txHash"] = stranger(), 1),
        (
            "one that was not traced to its end",
            |told| {
                told[3] = json!({ "txHash": told[3]["txHash"], "error": "execution timeout" });
            },
            0,
        ),
        ("nothing", |told| *told = Value::Null, 0),
    ];
    for (lie, change, mismatches) in of_changes {
        let mut told = changes();
        change(&mut told);
        assert_eq!(traced(Tracing::Debug, told).await, (Traced::Not, mismatches), "{lie}");
    }
    let of_calls: [Lie; 3] = [
        ("another block of that height", |told| told[0]["blockHash"] = stranger(), 0),
        ("more transactions", |told| told[4]["transactionPosition"] = json!(5), 1),
        ("nothing", |told| *told = Value::Null, 0),
    ];
    for (lie, change, mismatches) in of_calls {
        let mut told = calls();
        change(&mut told);
        assert_eq!(traced(Tracing::Trace, told).await, (Traced::Not, mismatches), "{lie}");
    }
}

#[tokio::test]
async fn the_newest_block_does_not_wait_for_the_traces_of_old_ones() {
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let node = Node::start(move |method, params| match method {
        "debug_traceBlockByHash" => {
            let before = asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            if before < 2 { Reply::Silence } else { Reply::Result(changes()) }
        }
        _ => honest(method, params),
    })
    .await;
    let mut one = endpoint("one", &node.url, 1);
    one.tracing = Tracing::Debug;
    let source = EvmSource::new(&config(vec![one]), Metrics::new()).expect("a source");
    let block = source.block(mixed()).await.expect("an answer").expect("a block");
    let trace = || async {
        let mut blocks = [block.clone()];
        source.trace(&mut blocks, PATIENCE).await;
        blocks[0].traced.clone()
    };
    let old = Priority::Background.scope(async { tokio::join!(trace(), trace()) });
    let new = async {
        while node.times("debug_traceBlockByHash") < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::timeout(Duration::from_secs(1), trace()).await
    };
    let (_, new) = tokio::join!(old, new);
    assert_ne!(new.expect("at once"), Traced::Not);
}
