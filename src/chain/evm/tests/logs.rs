//! Blocks found by a node's index of logs.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{
    config, empty_block, endpoint, mixed_block, mixed_receipts,
    node::{Node, Reply, honest},
};
use crate::{
    chain::{Address, BlockHash, BlockRef, LogIndex, SourceError, evm::EvmSource},
    metrics::Metrics,
};

fn address(byte: u8) -> Address {
    Address::from([byte; 20])
}

fn only(node: &Node) -> EvmSource {
    EvmSource::new(&config(vec![endpoint("one", &node.url, 1)]), Metrics::new()).expect("a source")
}

fn number(value: &Value) -> u64 {
    let text = value.as_str().expect("a text").trim_start_matches("0x");
    u64::from_str_radix(text, 16).expect("a quantity")
}

fn hash(number: u64) -> String {
    format!("0x{number:064x}")
}

fn at(number: u64) -> BlockRef {
    let mut bytes = [0; 32];
    bytes[24..].copy_from_slice(&number.to_be_bytes());
    BlockRef { number, hash: BlockHash(bytes) }
}

/// A question for logs.
#[derive(Clone, Debug)]
struct Asked {
    from: u64,
    to: u64,
    filter: Value,
}

/// A node with a long chain and an index of what happened in some of its blocks.
#[derive(Clone, Default)]
struct Index {
    /// Blocks with a transfer of the token 0xee… from the address 0x11…, and with one to it.
    sent: Arc<[u64]>,
    received: Arc<[u64]>,
    /// The most blocks in one question.
    limit: Arc<AtomicU64>,
    refusal: Arc<Mutex<Option<(i64, &'static str)>>>,
    /// Questions that were answered.
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Index {
    fn new(sent: &[u64], received: &[u64]) -> Self {
        let limit = Arc::new(AtomicU64::new(u64::MAX));
        Self { sent: sent.into(), received: received.into(), limit, ..Self::default() }
    }

    fn limited(self, blocks: u64, code: i64, text: &'static str) -> Self {
        self.limit.store(blocks, Ordering::Relaxed);
        *self.refusal.lock() = Some((code, text));
        self
    }

    fn answer(&self, method: &str, params: &Value) -> Reply {
        match method {
            "eth_getBlockByNumber" => {
                let number = number(&params[0]);
                let mut block = empty_block();
                block["number"] = params[0].clone();
                block["hash"] = hash(number).into();
                Reply::Result(block)
            }
            "eth_getLogs" => self.logs(&params[0]),
            _ => honest(method, params),
        }
    }

    fn logs(&self, filter: &Value) -> Reply {
        let (from, to) = (number(&filter["fromBlock"]), number(&filter["toBlock"]));
        if to - from >= self.limit.load(Ordering::Relaxed)
            && let Some((code, text)) = *self.refusal.lock()
        {
            return Reply::error(code, text);
        }
        self.asked.lock().push(Asked { from, to, filter: filter.clone() });
        let senders = filter["topics"][1].is_array();
        let hits = if senders { &self.sent } else { &self.received };
        let log = |number: &u64| {
            json!({
                "address": filter["address"][0], "topics": [], "data": "0x",
                "blockNumber": format!("{number:#x}"), "blockHash": hash(*number),
                "logIndex": "0x0", "removed": false,
            })
        };
        let hits = hits.iter().filter(|number| (from..=to).contains(*number));
        Reply::Result(hits.map(log).collect())
    }

    async fn serve(&self) -> Node {
        let index = self.clone();
        Node::start(move |method, params| index.answer(method, params)).await
    }

    /// The ranges of the questions for senders.
    fn ranges(&self) -> Vec<(u64, u64)> {
        let asked = self.asked.lock();
        let senders = asked.iter().filter(|asked| asked.filter["topics"][1].is_array());
        senders.map(|asked| (asked.from, asked.to)).collect()
    }
}

async fn find(source: &EvmSource, from: u64, to: u64) -> Result<Vec<BlockRef>, SourceError> {
    source.blocks_with_transfers(&[address(0xee)], &[address(0x11)], from, to).await
}

#[tokio::test]
async fn blocks_are_found_from_both_sides_of_a_transfer_the_highest_first() {
    let index = Index::new(&[7, 12_000, 25_000], &[12_000, 12_001, 3]);
    let node = index.serve().await;
    let found = find(&only(&node), 5, 25_000).await.expect("blocks");
    assert_eq!(found, [at(25_000), at(12_001), at(12_000), at(7)]);
    assert_eq!(index.ranges(), [(15_001, 25_000), (5_001, 15_000), (5, 5_000)]);
    let asked = index.asked.lock();
    let owner = format!("0x{:0>64}", "11".repeat(20));
    let transfer = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef";
    let token = format!("0x{}", "ee".repeat(20));
    for (asked, topics) in
        asked.iter().zip([json!([transfer, [owner]]), json!([transfer, null, [owner]])])
    {
        assert_eq!(asked.filter["topics"], topics);
        assert_eq!(asked.filter["address"], json!([token]));
    }
}

#[tokio::test]
async fn without_a_token_or_an_address_nothing_is_asked() {
    let node = Index::new(&[1], &[1]).serve().await;
    let source = only(&node);
    let some = [address(1)];
    assert!(source.blocks_with_transfers(&[], &some, 0, 9).await.expect("none").is_empty());
    assert!(source.blocks_with_transfers(&some, &[], 0, 9).await.expect("none").is_empty());
    assert_eq!(node.times("eth_getLogs"), 0, "an empty list means everything");
}

#[tokio::test]
async fn many_addresses_are_asked_for_in_several_questions() {
    let index = Index::new(&[4], &[]);
    let node = index.serve().await;
    let addresses: Vec<Address> = (0..1_200_u64)
        .map(|n| {
            let mut bytes = [0; 20];
            bytes[..8].copy_from_slice(&n.to_be_bytes());
            Address::from(bytes)
        })
        .collect();
    let source = only(&node);
    let found = source.blocks_with_transfers(&[address(0xee)], &addresses, 0, 9).await;
    assert_eq!(found.expect("blocks"), [at(4)]);
    let asked = index.asked.lock();
    let lengths: Vec<usize> = asked
        .iter()
        .filter_map(|asked| Some(asked.filter["topics"][1].as_array()?.len()))
        .collect();
    assert_eq!(lengths, [500, 500, 200]);
}

#[tokio::test]
async fn a_range_that_a_provider_refuses_is_halved_and_the_limit_remembered() {
    let refusals = [
        (
            -32602,
            "Log response size exceeded. You can make eth_getLogs requests with up to a 2K block range",
        ),
        (-32005, "query returned more than 10000 results. Try with this block range [0x1, 0x2]."),
        (-32614, "eth_getLogs is limited to a 10,000 range"),
        (-32600, "block range is too wide"),
        (-32000, "Max range: 2000"),
        (-32000, "Maximum allowed number of requested blocks is 2000"),
        (-32000, "requested too many blocks from 1 to 10000, maximum is set to 2048"),
        (-32000, "eth_getLogs is limited to 1024 block range"),
        (-32000, "exceeds the range allowed for your plan (10000 > 2000)"),
        (-32000, "Block range limit exceeded."),
        (-32000, "please limit the query to at most 1000 blocks"),
        (-32000, "block range too large"),
        (-32701, "exceed maximum block range: 2000"),
        (-32000, "eth_getLogs range is too large, max is 1k blocks"),
        (35, "ranges over 2000 blocks are not supported on freetier"),
        (-32000, "query exceeds max results 20000, retry with the range 1-2"),
        (-32000, "response size should not greater than 10000000 bytes"),
        (-32000, "logs matched by query exceeds limit of 10000"),
        (-32008, "Response is too big"),
    ];
    for (code, text) in refusals {
        let index = Index::new(&[1, 4_000], &[]).limited(2_000, code, text);
        let node = index.serve().await;
        let source = only(&node);
        let found = find(&source, 1, 4_000).await.unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(found, [at(4_000), at(1)]);
        assert_eq!(index.ranges(), [(2_001, 4_000), (1, 2_000)], "{text}");
        index.asked.lock().clear();
        let refused = node.times("eth_getLogs");
        find(&source, 1, 4_000).await.expect("blocks");
        assert_eq!(node.times("eth_getLogs"), refused + 4, "what was learnt is not asked again");
    }
}

#[tokio::test]
async fn a_range_grows_again_where_there_is_little_to_be_found() {
    let text = "query returned more than 10000 results";
    let index = Index::new(&[], &[]).limited(1_000, -32005, text);
    let node = index.serve().await;
    let source = only(&node);
    find(&source, 1, 10_000).await.expect("nothing");
    index.limit.store(u64::MAX, Ordering::Relaxed);
    find(&source, 1, 100_000).await.expect("nothing");
    let ranges = index.ranges();
    let lengths: Vec<u64> = ranges.iter().map(|(from, to)| to - from + 1).collect();
    assert!(*lengths.iter().max().expect("some") >= 10_000, "{lengths:?}");
}

#[tokio::test]
async fn a_block_with_too_many_logs_for_an_answer_is_looked_at_as_a_whole() {
    let index = Index::new(&[], &[]);
    let node = index.serve().await;
    node.change(move |method, params| match method {
        "eth_getLogs"
            if (number(&params[0]["fromBlock"])..=number(&params[0]["toBlock"])).contains(&3) =>
        {
            Reply::error(-32005, "query returned more than 10000 results")
        }
        _ => index.answer(method, params),
    });
    assert_eq!(find(&only(&node), 1, 9).await.expect("blocks"), [at(3)]);
}

#[tokio::test]
async fn the_silence_of_a_node_that_is_behind_is_not_believed() {
    let index = Index::new(&[], &[]);
    let node = index.serve().await;
    node.change(move |method, params| match method {
        "eth_getBlockByNumber" => Reply::Result(Value::Null),
        _ => index.answer(method, params),
    });
    let error = find(&only(&node), 1, 9).await.expect_err("it has no block 9");
    assert!(matches!(error, SourceError::NotThere(_)), "{error}");
}

#[tokio::test]
async fn a_log_that_was_not_asked_for_is_refused() {
    let other: [fn(&mut Value); 3] = [
        |log| log["blockNumber"] = json!("0xa"),
        |log| log["address"] = json!(format!("0x{}", "ab".repeat(20))),
        |log| log["blockHash"] = json!(hash(77)),
    ];
    for (case, change) in other.into_iter().enumerate() {
        let index = Index::new(&[8, 9], &[8, 9]);
        let node = index.serve().await;
        node.change(move |method, params| match (method, index.answer(method, params)) {
            ("eth_getLogs", Reply::Result(mut logs)) => {
                change(&mut logs[1]);
                Reply::Result(logs)
            }
            (_, reply) => reply,
        });
        let error = find(&only(&node), 1, 9).await.expect_err("a lie");
        assert!(matches!(error, SourceError::Unavailable { .. }), "{case}: {error}");
    }
}

fn hash_of(block: &Value) -> BlockHash {
    let text = block["hash"].as_str().expect("a hash");
    BlockHash::from_slice(&alloy::hex::decode(text).expect("hexadecimal")).expect("32 bytes")
}

#[tokio::test]
async fn the_blocks_that_were_found_are_verified_like_any_others() {
    let node = Node::start(honest).await;
    let source = only(&node);
    let both = [(2, empty_block()), (1, mixed_block())]
        .map(|(number, block)| BlockRef { number, hash: hash_of(&block) });
    let blocks = source.blocks_of(&both).await.expect("blocks");
    assert_eq!(blocks.iter().map(|block| block.header.at).collect::<Vec<_>>(), both);
    assert_eq!(blocks[1].transactions.len(), 5);
    let unknown = BlockRef { number: 3, hash: BlockHash([9; 32]) };
    let error = source.blocks_of(&[both[0], unknown]).await.expect_err("one is missing");
    assert!(matches!(error, SourceError::NotThere(_)), "{error}");
    let elsewhere = BlockRef { number: 5, ..both[0] };
    source.blocks_of(&[elsewhere]).await.expect_err("it is not at that height");
    let liar = Node::start(|method, params| match method {
        "eth_getBlockReceipts" => {
            let mut receipts = mixed_receipts();
            receipts[1]["logs"].as_array_mut().expect("logs").pop();
            Reply::Result(receipts)
        }
        _ => honest(method, params),
    })
    .await;
    let error = only(&liar).blocks_of(&both).await.expect_err("a lie");
    assert!(matches!(error, SourceError::Untrusted(_)), "{error}");
}
