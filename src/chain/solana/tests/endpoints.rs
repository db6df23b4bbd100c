//! Blocks from nodes that skip slots, lose them, lag, limit, err and lie.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    cluster::{Cluster, Op, Tx, key},
    config, endpoint, source,
};
use crate::{
    chain::{
        Address, Block, Source as _, SourceError,
        rpc::testing::{Node, Reply},
        solana::SolanaSource,
    },
    metrics::Metrics,
};

/// Slots 0, 1, 2, 5, 6, 9, with a payment in each.
fn cluster() -> Cluster {
    let cluster = Cluster::new(&[key(1)]);
    let pay = || Tx::new(key(1), vec![Op::Pay { from: key(1), to: key(9), lamports: 5 }]);
    for skipped in [0, 0, 2, 0, 2] {
        cluster.mine_after(skipped, &[pay()], &[]);
    }
    cluster
}

fn only(node: &Node) -> SolanaSource {
    source(vec![endpoint("only", &node.url, 1)])
}

fn numbers(blocks: &[Block]) -> Vec<u64> {
    blocks.iter().map(|block| block.header.at.number).collect()
}

/// A node that answers one method, or one slot of it, in its own way.
async fn except(
    cluster: &Cluster,
    own: impl Fn(&str, &Value) -> Option<Reply> + Send + Sync + 'static,
) -> Node {
    let cluster = cluster.clone();
    Node::start(move |method, params| {
        own(method, params).unwrap_or_else(|| cluster.honest(method, params))
    })
    .await
}

#[tokio::test]
async fn blocks_come_in_order_and_skipped_slots_are_left_out() {
    let cluster = cluster();
    let node = cluster.node().await;
    let source = only(&node);
    let blocks = source.blocks(1, 9).await.expect("blocks");
    assert_eq!(numbers(&blocks), [1, 2, 5, 6, 9]);
    assert!(blocks.windows(2).all(|pair| pair[1].header.parent == pair[0].header.at));
    // A range without a block, one that ends in skipped slots, and one beyond the end.
    assert_eq!(numbers(&source.blocks(3, 4).await.expect("none")), [] as [u64; 0]);
    assert_eq!(numbers(&source.blocks(2, 4).await.expect("one")), [2]);
    assert_eq!(numbers(&source.blocks(8, 20).await.expect("one")), [9]);
    assert_eq!(source.head().await.expect("a head").at, cluster.head().at);
}

#[tokio::test]
async fn a_skipped_slot_is_proven_by_the_next_block_and_not_by_an_error_code() {
    let cluster = cluster();
    let node = except(&cluster, |method, params| {
        // What nodes say of slots that they lost is what they say of skipped ones.
        (method == "getBlock" && params[0] == 3)
            .then(|| Reply::error(-32007, "Slot 3 was skipped, or missing due to ledger jump"))
    })
    .await;
    let source = only(&node);
    assert_eq!(source.header_at(3).await.expect("an answer"), None);
    assert_eq!(source.header_at(10).await.expect("an answer"), None, "not there yet");
    let five = source.header_at(5).await.expect("an answer").expect("a block");
    assert_eq!((five.at.number, five.parent.number), (5, 2));
}

/// A node that has lost slot 5, and does not list it.
async fn lossy(cluster: &Cluster) -> Node {
    let honest = cluster.clone();
    except(cluster, move |method, params| match method {
        "getBlocks" | "getBlocksWithLimit" => {
            let (method, params) = match method {
                "getBlocksWithLimit" => {
                    (method, json!([params[0], params[1].as_u64().expect("a limit") + 1]))
                }
                _ => (method, params.clone()),
            };
            let Reply::Result(Value::Array(mut slots)) = honest.honest(method, &params) else {
                return None;
            };
            slots.retain(|slot| *slot != 5);
            if method == "getBlocksWithLimit" {
                slots.truncate(1);
            }
            Some(Reply::Result(slots.into()))
        }
        "getBlock" if params[0] == 5 => {
            Some(Reply::error(-32007, "Slot 5 was skipped, or missing due to ledger jump"))
        }
        _ => None,
    })
    .await
}

#[tokio::test]
async fn a_slot_that_a_node_has_lost_is_never_taken_for_skipped() {
    let cluster = cluster();
    let node = lossy(&cluster).await;
    let source = only(&node);
    for (from, to) in [(1, 9), (3, 6), (5, 5), (3, 5), (4, 9), (6, 9)] {
        let result = source.blocks(from, to).await;
        if from == 6 {
            assert_eq!(numbers(&result.expect("nothing is missing here")), [6, 9]);
        } else {
            let error = result.expect_err("slot 5 is missing");
            assert!(matches!(error, SourceError::Untrusted(_)), "{from}..{to}: {error}");
        }
    }
    let error = source.header_at(5).await.expect_err("slot 5 is missing");
    assert!(matches!(error, SourceError::Untrusted(_)), "{error}");

    let good = cluster.node().await;
    let both = super::source(vec![endpoint("lossy", &node.url, 2), endpoint("good", &good.url, 1)]);
    assert_eq!(numbers(&both.blocks(1, 9).await.expect("blocks")), [1, 2, 5, 6, 9]);
    assert_eq!(both.header_at(5).await.expect("an answer").expect("a block").at.number, 5);
}

#[tokio::test]
async fn a_block_listed_a_moment_too_early_is_waited_for() {
    let cluster = cluster();
    for code in [-32004, -32014] {
        let early = std::sync::atomic::AtomicU32::new(0);
        let node = except(&cluster, move |method, params| {
            let refuse = method == "getBlock"
                && params[0] == 9
                && early.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < 2;
            refuse.then(|| Reply::error(code, "Block not available for slot 9"))
        })
        .await;
        assert_eq!(numbers(&only(&node).blocks(9, 9).await.expect("a block")), [9]);
    }
    // A head that cannot be read yet is not the head yet.
    let node = except(&cluster, |method, params| {
        (method == "getBlock" && params[0] == 9).then_some(Reply::Result(Value::Null))
    })
    .await;
    assert_eq!(only(&node).head().await.expect("a head").at.number, 6);
}

#[tokio::test]
async fn each_error_code_leads_to_another_endpoint() {
    let cluster = cluster();
    let good = cluster.node().await;
    for (code, text) in [
        (-32001, "Block 5 cleaned up, does not exist on node. First available block: 7"),
        (-32004, "Block not available for slot 5"),
        (-32005, "Node is behind by 60 slots"),
        (-32007, "Slot 5 was skipped, or missing due to ledger jump to recent snapshot"),
        (-32007, "100/second request limit reached - reduce calls per second or upgrade"),
        (-32009, "Slot 5 was skipped, or missing in long-term storage"),
        (-32011, "Transaction history is not available from this node"),
        (-32014, "Block status not yet available for slot 5"),
        (-32016, "Minimum context slot has not been reached"),
        (-32016, "rate limit"),
        (-32019, "Failed to query long-term storage; please try again"),
        (-32603, "Internal error"),
    ] {
        let bad = except(&cluster, move |method, params| {
            (method == "getBlock" && params[0] == 5).then(|| Reply::error(code, text))
        })
        .await;
        let alone = only(&bad).blocks(1, 9).await.expect_err(text);
        assert!(
            matches!(alone, SourceError::NotThere(_) | SourceError::Unavailable { .. }),
            "{code}: {alone}"
        );
        let both = source(vec![endpoint("bad", &bad.url, 2), endpoint("good", &good.url, 1)]);
        let blocks = both.blocks(1, 9).await.expect(text);
        assert_eq!(numbers(&blocks), [1, 2, 5, 6, 9], "{code}");
    }
}

#[tokio::test]
async fn a_node_that_wants_a_newer_transaction_version_named_gets_it() {
    let cluster = cluster();
    let node = except(&cluster, |method, params| {
        let version = params[1]["maxSupportedTransactionVersion"].as_u64();
        (method == "getBlock" && version.is_some_and(|version| version < 3)).then(|| {
            Reply::error(
                -32015,
                "Transaction version (3) is not supported by the requesting client. Please try the \
                 request again with the following configuration parameter: \
                 \"maxSupportedTransactionVersion\": 3",
            )
        })
    })
    .await;
    let source = only(&node);
    assert_eq!(source.blocks(1, 9).await.expect("blocks").len(), 5);
    let asked = node.times("getBlock");
    source.blocks(1, 9).await.expect("blocks");
    assert_eq!(node.times("getBlock"), asked + 5, "it is remembered");
}

#[tokio::test]
async fn version_1_transactions_are_asked_for_from_the_start_and_read() {
    let cluster = cluster();
    cluster.alter(5, |block| block["transactions"][0]["version"] = json!(1));
    let node = except(&cluster, |method, params| {
        let understood = params[1]["maxSupportedTransactionVersion"].as_u64() >= Some(1);
        (method == "getBlock" && !understood).then(|| Reply::error(-32015, "no"))
    })
    .await;
    let blocks = only(&node).blocks(5, 5).await.expect("a block");
    assert_eq!(blocks[0].movements.len(), 2);
}

#[tokio::test]
async fn truncated_and_foreign_answers_are_refused() {
    let cluster = cluster();
    let broken: Vec<(&str, Value)> = vec![
        ("getBlocks", json!([5, 2])),
        ("getBlocks", json!([1, 1, 2])),
        ("getBlocks", json!([1, 2, 50])),
        ("getBlocks", Value::Null),
        ("getBlock", json!({"blockhash": "abc"})),
        ("getBlock", json!({})),
        ("getBlock", json!([])),
    ];
    for (method, answer) in broken {
        let shown = answer.clone();
        let node = except(&cluster, move |asked, _| {
            (asked == method).then(|| Reply::Result(shown.clone()))
        })
        .await;
        let error = only(&node).blocks(1, 9).await.expect_err("nonsense");
        assert!(matches!(error, SourceError::Unavailable { .. }), "{method} {answer}: {error}");
    }
    let node = except(&cluster, |method, _| {
        (method == "getBlock")
            .then(|| Reply::Http(200, r#"{"jsonrpc":"2.0","id":0,"resu"#.to_owned()))
    })
    .await;
    assert!(only(&node).blocks(1, 9).await.is_err());
    // Without rewards or transactions a block is not whole.
    for field in ["rewards", "transactions"] {
        let cluster = super::cluster::Cluster::clone(&cluster);
        let copy = cluster.clone();
        let node = except(&cluster, move |method, params| {
            if method != "getBlock" || params[1]["transactionDetails"] == "none" {
                return None;
            }
            let Reply::Result(mut block) = copy.honest(method, params) else { return None };
            block.as_object_mut().expect("a block").remove(field);
            Some(Reply::Result(block))
        })
        .await;
        assert!(only(&node).blocks(1, 9).await.is_err(), "{field}");
    }
}

#[tokio::test]
async fn another_cluster_behind_the_url_is_not_followed() {
    let cluster = cluster();
    let node = except(&cluster, |method, _| {
        (method == "getGenesisHash")
            .then(|| Reply::Result(json!("5eykt4UsFv8P8NJdTREpY1vzqKqZKvdpKuc147dw2N9d")))
    })
    .await;
    let error = only(&node).head().await.expect_err("another cluster");
    assert!(matches!(error, SourceError::WrongChain(_)), "{error}");
    assert_eq!(node.times("getSlot"), 0);
}

#[tokio::test]
async fn of_two_blocks_of_one_slot_only_the_one_asked_for_is_given() {
    let cluster = cluster();
    let node = cluster.node().await;
    let source = only(&node);
    let gone = cluster.head().at;
    cluster.cut(6);
    let other = cluster.mine_after(2, &[], &[]);
    assert_eq!(gone.number, other.number);
    assert!(source.block(gone).await.expect("an answer").is_none());
    assert_eq!(source.block(other).await.expect("an answer").expect("a block").header.at, other);
}

#[tokio::test]
async fn an_endpoint_that_stands_still_does_not_hold_the_chain_back() {
    let cluster = cluster();
    let old = Cluster::new(&[key(1)]);
    old.mine(&[]);
    let (stale, fresh) = (old.node().await, cluster.node().await);
    let source = SolanaSource::new(
        &config(vec![endpoint("stale", &stale.url, 2), endpoint("fresh", &fresh.url, 1)]),
        Metrics::new(),
    )
    .expect("a source");
    assert_eq!(source.head().await.expect("a head").at.number, 1);
    // Twenty polls of ten milliseconds.
    tokio::time::sleep(Duration::from_millis(250)).await;
    assert_eq!(source.head().await.expect("a head").at.number, 9);
}

/// What a block says beside the payments to `watched`, once it is complete.
async fn memos(source: &SolanaSource, block: &Block, watched: u8) -> Vec<Option<String>> {
    let watched = Address::from(key(watched));
    let mut block = block.clone();
    block.retain_watched(|address| *address == watched);
    let block = source.complete(block, &|_| true).await.expect("a block");
    assert!(block.unread_memos.is_empty(), "a complete block has nothing unread");
    assert!(
        block.movements.iter().all(|m| m.from == Some(watched) || m.to == Some(watched)),
        "what concerns nobody is dropped"
    );
    block.movements.into_iter().map(|movement| movement.memo).collect()
}

#[tokio::test]
async fn a_complete_block_has_the_memos_in_order_wherever_they_were_called_and_a_fee_has_none() {
    let cluster = cluster();
    let pay = Op::Pay { from: key(1), to: key(9), lamports: 5 };
    let ops = vec![Op::Memo("invoice 12"), pay.clone(), Op::Memo("thank you")];
    let at = cluster.mine(&[Tx::new(key(1), ops), Tx::new(key(1), vec![pay])]);
    let node = cluster.node().await;
    let source = only(&node);
    let block = source.block(at).await.expect("an answer").expect("a block");
    let text = Some("invoice 12\nthank you".to_owned());
    assert_eq!(memos(&source, &block, 9).await, [text.clone(), None]);
    assert_eq!(memos(&source, &block, 1).await, [None, text, None, None]);
}

#[tokio::test]
async fn memos_are_asked_for_those_who_are_watched_when_the_block_is_connected() {
    let cluster = cluster();
    let pay = |to| Op::Pay { from: key(1), to: key(to), lamports: 5 };
    let noted = |to| Tx::new(key(1), vec![Op::Memo("rent"), pay(to)]);
    let at = cluster.mine(&[noted(8), noted(9), Tx::new(key(1), vec![pay(7)])]);
    let node = cluster.node().await;
    let source = only(&node);
    let block = source.block(at).await.expect("an answer").expect("a block");
    assert_eq!(memos(&source, &block, 7).await, [None]);
    assert_eq!(memos(&source, &block, 2).await, []);
    assert_eq!(node.times("getTransaction"), 0, "nobody is watched who was sent a memo");
    assert_eq!(memos(&source, &block, 9).await, [Some("rent".to_owned())]);
    assert_eq!(node.times("getTransaction"), 1, "of the other memo nothing is asked");
}

#[tokio::test]
async fn a_memo_that_no_node_has_is_an_error_and_not_left_out() {
    let cluster = cluster();
    let pay = Op::Pay { from: key(1), to: key(9), lamports: 5 };
    let at = cluster.mine(&[Tx::new(key(1), vec![Op::Memo("rent"), pay])]);
    let node = except(&cluster, |method, _| {
        (method == "getTransaction").then_some(Reply::Result(Value::Null))
    })
    .await;
    let source = only(&node);
    let block = source.block(at).await.expect("an answer").expect("a block");
    let error = source.complete(block, &|_| true).await.expect_err("no such transaction");
    assert!(matches!(error, SourceError::NotThere(_)), "{error}");
}

#[tokio::test]
async fn a_panic_in_our_own_code_cools_no_endpoint_and_what_the_node_said_is_kept() {
    let cluster = cluster();
    let node = cluster.node().await;
    let source = only(&node);
    let data = tempfile::tempdir().expect("a folder");
    source.keep_in(data.path());
    source.pool.decoder().break_at("block 5", 2);
    for _ in 0..2 {
        let error = source.blocks(1, 9).await.expect_err("it panicked");
        assert!(matches!(error, SourceError::Bug(_)), "{error}");
    }
    let files: Vec<_> =
        std::fs::read_dir(data.path().join("decoder-panics")).expect("a folder").collect();
    assert_eq!(files.len(), 1);
    let text = std::fs::read_to_string(files[0].as_ref().expect("a file").path()).expect("a text");
    let kept: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(kept["answers"][0]["blockHeight"], 5);
    assert_eq!(numbers(&source.blocks(1, 9).await.expect("blocks")), [1, 2, 5, 6, 9]);
}
