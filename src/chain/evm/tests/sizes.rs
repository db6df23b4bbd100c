//! Blocks and receipts that are larger than an answer may be.

use serde_json::{Value, json};

use super::{
    config, empty_block, endpoint, mixed_block,
    node::{Node, Reply, honest},
};
use crate::{
    chain::{
        Block, BlockHash, BlockRef, LogIndex as _, Source as _, SourceError,
        evm::EvmSource,
        rpc::{Call, Failure, Keep, Slim},
    },
    config::EndpointConfig,
    metrics::Metrics,
};

/// Bytes that anybody can add to a receipt or a transaction, and nobody reads.
const PADDING: usize = 20_000;
/// The recorded block and its receipts, padded or not, do not come whole.
const MAX: usize = 2_500;

fn at(block: &Value) -> BlockRef {
    let text = block["hash"].as_str().expect("a hash");
    let hash = alloy::hex::decode(text).expect("hexadecimal");
    let number = if *block == mixed_block() { 1 } else { 2 };
    BlockRef { number, hash: BlockHash::from_slice(&hash).expect("32 bytes") }
}

fn small(node: &Node, name: &str, weight: u32, max: usize) -> EndpointConfig {
    EndpointConfig { max_response_bytes: max, ..endpoint(name, &node.url, weight) }
}

struct World {
    source: EvmSource,
    metrics: Metrics,
}

impl World {
    fn new(endpoints: Vec<EndpointConfig>) -> Self {
        let metrics = Metrics::new();
        let source = EvmSource::new(&config(endpoints), metrics.clone()).expect("a source");
        Self { source, metrics }
    }

    /// How many answers were given up for their size, and how large the last was.
    fn given_up(&self, endpoint: &str) -> (u64, i64) {
        let labels = ["anvil", endpoint];
        let metrics = &self.metrics;
        (
            metrics.oversized_answers_total.with_label_values(&labels).get(),
            metrics.oversized_answer_bytes.with_label_values(&labels).get(),
        )
    }

    fn healthy(&self, endpoint: &str) -> bool {
        self.metrics.rpc_endpoint_healthy.with_label_values(&["anvil", endpoint]).get() == 1
    }

    /// The recorded block in each way in which blocks are asked for.
    async fn every_way(&self) -> Vec<Result<Block, SourceError>> {
        let mixed = at(&mixed_block());
        let first = |blocks: Vec<Block>| blocks.into_iter().next().expect("a block");
        vec![
            self.source.block(mixed).await.map(|block| block.expect("it is there")),
            self.source.blocks(1, 2).await.map(first),
            self.source.blocks_of(&[mixed, at(&empty_block())]).await.map(first),
        ]
    }

    async fn reads_the_recorded_block(&self) {
        let usual = Node::start(honest).await;
        let usual = World::new(vec![endpoint("usual", &usual.url, 1)]);
        let expected = usual.source.block(at(&mixed_block())).await.expect("an answer");
        let expected = format!("{:?}", expected.expect("a block"));
        for block in self.every_way().await {
            assert_eq!(format!("{:?}", block.expect("a block")), expected);
        }
    }
}

/// Adds what nobody reads to everything in an answer that anybody can make large.
fn pad(mut answer: Value) -> Value {
    let padding = json!("ff".repeat(PADDING / 20));
    let objects = match &mut answer {
        Value::Array(all) => all.iter_mut().collect(),
        one if one.get("transactions").is_some() => {
            one["transactions"].as_array_mut().expect("a list").iter_mut().collect()
        }
        one => vec![one],
    };
    for object in objects.into_iter().filter(|object| object.is_object()) {
        object["nobodyReads"] = padding.clone();
        for log in object["logs"].as_array_mut().into_iter().flatten() {
            log["blockTimestamp"] = padding.clone();
        }
    }
    answer
}

fn padded(method: &str, params: &Value) -> Reply {
    match honest(method, params) {
        Reply::Result(answer) => Reply::Result(pad(answer)),
        other => other,
    }
}

/// A node that refuses one method in its own words.
fn refusing(
    method: &'static str,
    code: i64,
    words: &'static str,
) -> impl Fn(&str, &Value) -> Reply + Send + Sync + 'static {
    move |asked, params| {
        if asked == method { Reply::error(code, words) } else { honest(asked, params) }
    }
}

#[tokio::test]
async fn a_block_that_is_too_large_for_an_answer_is_read_as_it_streams_and_verified() {
    let node = Node::start(padded).await;
    let world = World::new(vec![small(&node, "one", 1, MAX)]);
    world.reads_the_recorded_block().await;
    assert_eq!(node.times("eth_getTransactionReceipt"), 0, "all at once, but for what is not read");
    assert_eq!(world.given_up("one"), (0, 0));
    assert!(world.healthy("one"));
}

#[tokio::test]
async fn receipts_that_a_node_calls_too_large_come_one_by_one() {
    for (code, words) in [
        (-32003, "response too large"),
        (-32008, "Response is too big"),
        (-32600, "Response size is larger than 150MB limit"),
    ] {
        let node = Node::start(refusing("eth_getBlockReceipts", code, words)).await;
        let world = World::new(vec![endpoint("one", &node.url, 1)]);
        world.reads_the_recorded_block().await;
        assert_eq!(node.times("eth_getTransactionReceipt"), 15, "{words}");
        assert_eq!(world.given_up("one"), (0, 0));
    }
}

#[tokio::test]
async fn one_by_one_only_what_is_read_of_each_receipt_is_kept() {
    let node = Node::start(|method, params| match method {
        "eth_getBlockReceipts" => Reply::error(-32601, "method not found"),
        _ => padded(method, params),
    })
    .await;
    let world = World::new(vec![small(&node, "one", 1, MAX)]);
    world.reads_the_recorded_block().await;
    assert_eq!(world.given_up("one"), (0, 0));
}

#[tokio::test]
async fn what_was_left_out_of_a_streamed_answer_is_noticed() {
    let node = Node::start(|method, params| match (method, padded(method, params)) {
        ("eth_getBlockReceipts", Reply::Result(mut receipts)) => {
            receipts[1]["logs"].as_array_mut().expect("logs").pop();
            Reply::Result(receipts)
        }
        (_, reply) => reply,
    })
    .await;
    let world = World::new(vec![small(&node, "one", 1, MAX)]);
    for block in world.every_way().await {
        let error = block.expect_err("a log is missing");
        assert!(matches!(error, SourceError::Untrusted(_)), "{error}");
    }
}

#[tokio::test]
async fn a_block_that_cannot_be_had_for_its_size_says_so_and_no_endpoint_is_ill() {
    // The node refuses even single receipts; or its answers are larger than is kept of them.
    let refuses = |method: &str, params: &Value| match method {
        "eth_getBlockReceipts" | "eth_getTransactionReceipt" => {
            Reply::error(-32008, "Response is too big")
        }
        _ => honest(method, params),
    };
    let refusing = Node::start(refuses).await;
    let world = World::new(vec![endpoint("one", &refusing.url, 1)]);
    for block in world.every_way().await {
        let error = block.expect_err("it cannot be had");
        assert!(matches!(error, SourceError::TooLarge(_)), "{error}");
        assert!(error.to_string().contains("Response is too big"), "{error}");
    }
    assert_eq!(world.given_up("one"), (3, 0), "the node does not say how large");
    world.source.head().await.expect("the endpoint is asked for other things");
    assert!(world.healthy("one"));

    let large = Node::start(honest).await;
    let world = World::new(vec![small(&large, "one", 1, 700)]);
    for block in world.every_way().await {
        let error = block.expect_err("it cannot be had");
        assert!(matches!(error, SourceError::TooLarge(_)), "{error}");
        let text = error.to_string();
        assert!(text.contains("max_response_bytes") && text.contains("over 700 bytes"), "{text}");
    }
    let (times, bytes) = world.given_up("one");
    assert!(times == 3 && bytes > 2_800, "{times}, {bytes}");

    // Another endpoint gives it.
    let both =
        World::new(vec![endpoint("small", &refusing.url, 2), endpoint("large", &large.url, 1)]);
    both.reads_the_recorded_block().await;
    assert_eq!(both.given_up("large"), (0, 0));
}

#[tokio::test]
async fn a_run_of_blocks_ends_before_one_that_cannot_be_had_for_its_size() {
    // The second block holds what the first does, as far as size matters.
    let node = Node::start(|method, params| match (method, &params[0]) {
        ("eth_getBlockByNumber", at) if at == "0x2" => Reply::error(-32008, "Response is too big"),
        _ => honest(method, params),
    })
    .await;
    let world = World::new(vec![endpoint("one", &node.url, 1)]);
    let blocks = world.source.blocks(1, 2).await.expect("the first");
    assert_eq!(blocks.iter().map(|block| block.header.at.number).collect::<Vec<_>>(), [1]);
    let error = world.source.blocks(2, 2).await.expect_err("the second");
    assert!(matches!(error, SourceError::TooLarge(_)), "{error}");
}

#[tokio::test]
async fn answers_that_take_much_memory_together_come_in_pieces() {
    let text = json!("ff".repeat(500));
    let node = Node::start(move |method, params| match method {
        "eth_call" if params[0] == 3 => Reply::error(-32003, "response too large"),
        "eth_call" => Reply::Result(text.clone()),
        _ => honest(method, params),
    })
    .await;
    let world = World::new(vec![small(&node, "one", 1, 2_500)]);
    let slim = Slim::new(world.source.pool.decoder(), &[], &[]);
    let slim = std::sync::Arc::new(slim);
    let calls: Vec<Call> = (0..20).map(|n| Call::new("eth_call", format!("[{n}]"))).collect();
    let (calls, slim) = (&calls, &slim);
    let ask = |keep: bool| {
        world.source.pool.ask(move |endpoint| async move {
            let keep = if keep { Keep::AllOrRead(slim) } else { Keep::All };
            endpoint.batch_keeping(calls, keep).await
        })
    };
    let all = ask(false).await.expect("answers");
    assert_eq!(all.len(), 20);
    assert!(matches!(all[3], Err(Failure::TooLarge(_))), "it fails alone");
    assert!(all.iter().enumerate().all(|(n, answer)| n == 3 || answer.is_ok()));
    let some = ask(true).await.expect("answers").len();
    assert!((10..13).contains(&some), "ten thousand bytes, and {some} answers");
}

#[tokio::test]
async fn blocks_without_parents_are_refused_with_words_of_their_own() {
    let node = Node::start(|method, params| match honest(method, params) {
        Reply::Result(mut block) if block.get("parentHash").is_some() => {
            block["parentHash"] = json!(format!("0x{}", "0".repeat(64)));
            Reply::Result(block)
        }
        other => other,
    })
    .await;
    let world = World::new(vec![endpoint("one", &node.url, 1)]);
    let head = world.source.head().await.map(drop);
    let blocks = world.source.blocks(1, 1).await.map(drop);
    let run = world.source.blocks(1, 2).await.map(drop);
    for refused in [head, blocks, run] {
        let error = refused.expect_err("no parent");
        assert!(matches!(error, SourceError::Unlinked(_)), "{error}");
        assert!(error.to_string().contains("parent hash is zero"), "{error}");
    }
    // One such endpoint beside an honest one is not believed.
    let good = Node::start(honest).await;
    let both = World::new(vec![endpoint("bad", &node.url, 2), endpoint("good", &good.url, 1)]);
    assert_eq!(both.source.head().await.expect("a head").at.number, 2);
}
