//! A panic in our own code is told as one, and holds up nobody but the block that it is in.

use std::{fs, path::Path};

use serde_json::Value;

use super::{
    config, endpoint, mixed_block, mixed_receipts,
    node::{Node, honest},
};
use crate::{
    chain::{BlockHash, BlockRef, Source as _, SourceError, evm::EvmSource},
    config::EndpointConfig,
    metrics::Metrics,
};

struct World {
    source: EvmSource,
    metrics: Metrics,
    data: tempfile::TempDir,
}

impl World {
    fn new(endpoints: Vec<EndpointConfig>) -> Self {
        let metrics = Metrics::new();
        let source = EvmSource::new(&config(endpoints), metrics.clone()).expect("a source");
        let data = tempfile::tempdir().expect("a folder");
        source.keep_in(data.path());
        Self { source, metrics, data }
    }

    fn panics(&self) -> u64 {
        self.metrics.decoder_panics_total.with_label_values(&["anvil"]).get()
    }

    fn healthy(&self, endpoint: &str) -> i64 {
        self.metrics.rpc_endpoint_healthy.with_label_values(&["anvil", endpoint]).get()
    }
}

/// What was kept for the bug report.
fn kept(data: &Path) -> Vec<Value> {
    let files = fs::read_dir(data.join("decoder-panics")).expect("a folder");
    files
        .map(|file| {
            let text = fs::read_to_string(file.expect("a file").path()).expect("a text");
            serde_json::from_str(&text).expect("JSON")
        })
        .collect()
}

fn is_ours<T: std::fmt::Debug>(result: Result<T, SourceError>) {
    let error = result.expect_err("it panicked");
    assert!(matches!(error, SourceError::Bug(_)), "{error}");
    assert!(error.to_string().contains("our decoder failed"), "{error}");
}

#[tokio::test]
async fn a_panic_cools_no_endpoint_and_what_the_node_said_is_kept() {
    let node = Node::start(honest).await;
    let world = World::new(vec![endpoint("one", &node.url, 1)]);
    let first = world.source.header_at(1).await.expect("an answer").expect("a block").at;
    world.source.pool.decoder().break_at("block 1", 3);
    for n in 1..=3 {
        is_ours(world.source.block(first).await);
        assert_eq!(node.times("eth_getBlockByHash"), n, "the endpoint is asked every time");
        assert_eq!((world.panics(), world.healthy("one")), (n as u64, 1));
    }
    let kept = kept(world.data.path());
    assert_eq!(kept.len(), 1);
    assert_eq!((&kept[0]["chain"], &kept[0]["what"]), (&"anvil".into(), &"block 1".into()));
    assert_eq!(kept[0]["answers"], serde_json::json!([mixed_block(), mixed_receipts()]));
    assert!(world.source.block(first).await.expect("an answer").is_some(), "it goes on at once");
}

#[tokio::test]
async fn the_blocks_before_the_one_that_panics_are_read() {
    let node = Node::start(honest).await;
    let world = World::new(vec![endpoint("one", &node.url, 1)]);
    world.source.pool.decoder().break_at("block 2", 3);
    let blocks = world.source.blocks(1, 9).await.expect("blocks");
    assert_eq!(blocks.iter().map(|block| block.header.at.number).collect::<Vec<_>>(), [1]);
    assert_eq!(world.panics(), 0, "the next question is of the block itself");
    is_ours(world.source.blocks(2, 9).await);
    assert_eq!(world.panics(), 1);
    assert_eq!(kept(world.data.path())[0]["what"], "block 2");
}

#[tokio::test]
async fn where_we_panic_on_one_endpoints_answer_the_next_one_is_asked() {
    let (first, second) = (Node::start(honest).await, Node::start(honest).await);
    let world =
        World::new(vec![endpoint("first", &first.url, 2), endpoint("second", &second.url, 1)]);
    let at = world.source.header_at(1).await.expect("an answer").expect("a block").at;
    world.source.pool.decoder().break_at("block 1", 1);
    assert!(world.source.block(at).await.expect("an answer").is_some());
    assert_eq!((world.panics(), world.healthy("first")), (1, 1));
    world.source.block(at).await.expect("an answer");
    assert_eq!((first.times("eth_getBlockByHash"), second.times("eth_getBlockByHash")), (2, 1));
}

#[tokio::test]
async fn a_panic_outside_of_blocks_ends_no_task() {
    let node = Node::start(honest).await;
    let world = World::new(vec![endpoint("one", &node.url, 1)]);
    let question = world.source.pool.ask(|endpoint| async move {
        let digits = endpoint.name.as_bytes();
        if digits[digits.len() - 1] == b'e' { panic!("a bug") } else { Ok(()) }
    });
    is_ours(question.await);
    assert_eq!(world.panics(), 1);
    let at = BlockRef { number: 1, hash: BlockHash([7; 32]) };
    assert!(world.source.block(at).await.expect("an answer").is_none());
}
