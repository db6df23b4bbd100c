//! What several endpoints say of one thing: by this a chain with `quorum = 2` settles.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{
    config, empty_block, endpoint, mixed_block, mixed_receipts,
    node::{Node, Reply, honest},
    signing::sealed,
};
use crate::{
    chain::{BlockHash, BlockRef, Header, SettlementTag, Source as _, SourceError, evm::EvmSource},
    metrics::Metrics,
};

/// How long a silent node is waited for.
const PATIENCE: Duration = Duration::from_millis(500);

/// A node that says this of the finalized block, and of the one at height 1.
async fn saying(reply: impl Fn() -> Reply + Send + Sync + 'static) -> Node {
    Node::start(move |method, params| match (method, params[0].as_str()) {
        ("eth_getBlockByNumber", Some("finalized" | "0x1")) => reply(),
        _ => honest(method, params),
    })
    .await
}

fn of(nodes: &[&Node]) -> EvmSource {
    let names = ["first", "second", "third"];
    let endpoints = nodes.iter().zip(names).zip([3, 2, 1]).map(|((node, name), weight)| {
        let mut endpoint = endpoint(name, &node.url, weight);
        endpoint.request_timeout = PATIENCE;
        endpoint
    });
    EvmSource::new(&config(endpoints.collect()), Metrics::new()).expect("a source")
}

/// What each says is settled, and what each has at height 1.
async fn told(nodes: &[&Node]) -> [Vec<BlockRef>; 2] {
    let source = of(nodes);
    let settled = source.settled_by_each(SettlementTag::Finalized).await.expect("an answer");
    let there = of(nodes).header_by_each(1).await.expect("an answer");
    let at = |header: Header| header.at;
    [settled.into_iter().map(at).collect(), there.into_iter().flatten().map(at).collect()]
}

fn place(block: &Value) -> BlockRef {
    let text = block["hash"].as_str().expect("a hash");
    let bytes = alloy::hex::decode(text).expect("hexadecimal");
    let number = u64::from_str_radix(&block["number"].as_str().expect("a text")[2..], 16);
    let hash = BlockHash::from_slice(&bytes).expect("32 bytes");
    BlockRef { number: number.expect("a number"), hash }
}

/// Another block of the same height, sealed as honestly.
fn another() -> Value {
    let mut block = mixed_block();
    block["timestamp"] = json!("0x6b013d62");
    sealed(block, mixed_receipts()).0
}

#[tokio::test]
async fn each_of_several_endpoints_is_heard_whether_they_agree_or_not() {
    let ours = saying(|| Reply::Result(mixed_block())).await;
    let same = saying(|| Reply::Result(mixed_block())).await;
    let other = saying(|| Reply::Result(another())).await;
    let (one, two) = (place(&mixed_block()), place(&another()));
    assert_ne!(one, two);
    assert_eq!(told(&[&ours, &same]).await, [vec![one, one], vec![one, one]]);
    assert_eq!(told(&[&ours, &other]).await, [vec![one, two], vec![one, two]]);
    assert_eq!(told(&[&other, &ours, &same]).await, [vec![two, one, one], vec![two, one, one]]);
    // One that is behind names a lower block: who counts decides what that is worth.
    let ahead = saying(|| Reply::Result(empty_block())).await;
    let settled = of(&[&ours, &ahead]).settled_by_each(SettlementTag::Finalized).await;
    let heights: Vec<u64> =
        settled.expect("answers").iter().map(|header| header.at.number).collect();
    assert_eq!(heights, [1, 2]);
}

type Failing = fn() -> Reply;

/// How an endpoint can have no opinion.
const FAILURES: &[(&str, Failing)] = &[
    ("silence", || Reply::Silence),
    ("a failing server", || Reply::Http(503, "try later".to_owned())),
    ("too many requests", || Reply::Limited(&[])),
    ("a truncated answer", || Reply::Http(200, r#"{"jsonrpc":"2.0","id":0,"resu"#.to_owned())),
    ("an error", || Reply::error(-32000, "something is wrong")),
    ("a header that its hash is not of", || {
        let mut block = mixed_block();
        block["timestamp"] = json!("0x1");
        Reply::Result(block)
    }),
    ("a block without a parent", || {
        let mut block = mixed_block();
        block["parentHash"] = json!(format!("0x{}", "0".repeat(64)));
        Reply::Result(sealed(block, mixed_receipts()).0)
    }),
];

#[tokio::test]
async fn who_is_silent_fails_or_lies_has_no_opinion_and_keeps_nobody_from_theirs() {
    let one = place(&mixed_block());
    for (failure, reply) in FAILURES {
        let good = saying(|| Reply::Result(mixed_block())).await;
        let bad = saying(*reply).await;
        for nodes in [[&bad, &good], [&good, &bad]] {
            let started = Instant::now();
            assert_eq!(told(&nodes).await, [vec![one], vec![one]], "{failure}");
            assert!(started.elapsed() < 8 * PATIENCE, "{failure}: {:?}", started.elapsed());
        }
        // Two that agree do so whatever the third does.
        assert_eq!(told(&[&bad, &good, &good]).await, [vec![one, one], vec![one, one]]);
        for error in [
            of(&[&bad, &bad]).settled_by_each(SettlementTag::Finalized).await.map(drop),
            of(&[&bad, &bad]).header_by_each(1).await.map(drop),
        ] {
            let error = error.expect_err("nobody has an opinion");
            let expected = matches!(
                error,
                SourceError::Unavailable { .. }
                    | SourceError::Untrusted(_)
                    | SourceError::Unlinked(_)
            );
            assert!(expected, "{failure}: {error}");
        }
    }
}

#[tokio::test]
async fn an_endpoint_of_another_chain_has_no_opinion() {
    let good = saying(|| Reply::Result(mixed_block())).await;
    let other = Node::start(|method, params| match method {
        "eth_chainId" => Reply::Result(json!("0x1")),
        "eth_getBlockByNumber" => Reply::Result(another()),
        _ => honest(method, params),
    })
    .await;
    let one = place(&mixed_block());
    assert_eq!(told(&[&other, &good]).await, [vec![one], vec![one]]);
    assert_eq!(other.times("eth_getBlockByNumber"), 0, "it is not even asked");
}

#[tokio::test]
async fn who_has_nothing_settled_yet_or_not_that_block_says_just_that() {
    let mut first = empty_block();
    first["number"] = json!("0x0");
    let first = sealed(first, json!([])).0;
    let nothing: [Box<dyn Fn() -> Reply + Send + Sync>; 3] = [
        Box::new(|| Reply::Result(Value::Null)),
        Box::new(|| Reply::error(-32000, "finalized block not found")),
        Box::new(move || Reply::Result(first.clone())),
    ];
    for (case, reply) in nothing.into_iter().enumerate() {
        let good = saying(|| Reply::Result(mixed_block())).await;
        let behind = saying(reply).await;
        let settled = async |nodes: &[&Node]| {
            let told = of(nodes).settled_by_each(SettlementTag::Finalized).await;
            told.unwrap_or_else(|error| panic!("{case}: {error}")).len()
        };
        assert_eq!(settled(&[&behind, &good]).await, 1, "{case}");
        assert_eq!(settled(&[&behind, &behind]).await, 0, "{case}: and that is no failure");
        let both = of(&[&behind, &good]);
        let there = both.header_by_each(1).await.expect("an answer");
        // At height 1 the first block is an answer to another question.
        let expected: &[bool] = if case == 2 { &[true] } else { &[false, true] };
        assert_eq!(there.iter().map(Option::is_some).collect::<Vec<_>>(), expected, "{case}");
    }
}
