//! What several nodes say of one slot: by this a cluster with `quorum = 2` settles.

use std::time::{Duration, Instant};

use super::{
    cluster::{Cluster, Op, Tx, key},
    config, endpoint,
};
use crate::{
    chain::{
        BlockRef, SettlementTag, Source as _, SourceError,
        rpc::testing::{Node, Reply},
        solana::SolanaSource,
    },
    metrics::Metrics,
};

/// How long a silent node is waited for.
const PATIENCE: Duration = Duration::from_millis(500);

/// Slots 0, 1, 2, 5 with a payment in each, all of them final.
fn cluster() -> Cluster {
    let cluster = Cluster::new(&[key(1)]);
    let pay = || Tx::new(key(1), vec![Op::Pay { from: key(1), to: key(9), lamports: 5 }]);
    for skipped in [0, 0, 2] {
        cluster.mine_after(skipped, &[pay()], &[]);
    }
    cluster.finalize(5);
    cluster
}

/// The same cluster as somebody shows it who has another block in slot 5.
fn forked() -> Cluster {
    let cluster = cluster();
    cluster.cut(2);
    cluster.mine_after(2, &[], &[]);
    cluster
}

fn of(nodes: &[&Node]) -> SolanaSource {
    let names = ["first", "second", "third"];
    let endpoints = nodes.iter().zip(names).zip([3, 2, 1]).map(|((node, name), weight)| {
        let mut endpoint = endpoint(name, &node.url, weight);
        endpoint.request_timeout = PATIENCE;
        endpoint
    });
    SolanaSource::new(&config(endpoints.collect()), Metrics::new()).expect("a source")
}

/// What each says is settled, and what each has in slot 5.
async fn told(nodes: &[&Node]) -> [Vec<BlockRef>; 2] {
    let settled = of(nodes).settled_by_each(SettlementTag::Finalized).await.expect("an answer");
    let there = of(nodes).header_by_each(5).await.expect("an answer");
    [
        settled.into_iter().map(|header| header.at).collect(),
        there.into_iter().flatten().map(|header| header.at).collect(),
    ]
}

#[tokio::test]
async fn each_of_several_nodes_is_heard_whether_they_agree_or_not() {
    let (ours, theirs) = (cluster(), forked());
    let (one, two) = (ours.head().at, theirs.head().at);
    assert!(one != two && one.number == two.number);
    let (first, same, other) = (ours.node().await, ours.node().await, theirs.node().await);
    assert_eq!(told(&[&first, &same]).await, [vec![one, one], vec![one, one]]);
    assert_eq!(told(&[&first, &other]).await, [vec![one, two], vec![one, two]]);
    assert_eq!(told(&[&other, &first, &same]).await, [vec![two, one, one], vec![two, one, one]]);
    // One that is behind names a lower slot.
    let behind = cluster();
    behind.finalize(2);
    let behind = behind.node().await;
    let settled = of(&[&first, &behind]).settled_by_each(SettlementTag::Finalized).await;
    let slots: Vec<u64> = settled.expect("two").iter().map(|header| header.at.number).collect();
    assert_eq!(slots, [5, 2]);
}

type Failing = fn() -> Reply;

const FAILURES: &[(&str, Failing)] = &[
    ("silence", || Reply::Silence),
    ("a failing server", || Reply::Http(503, "try later".to_owned())),
    ("too many requests", || Reply::Limited(&[])),
    ("a truncated answer", || Reply::Http(200, r#"{"jsonrpc":"2.0","id":0,"resu"#.to_owned())),
    ("an error", || Reply::error(-32005, "Node is behind by 150 slots")),
];

#[tokio::test]
async fn who_is_silent_or_fails_has_no_opinion_and_keeps_nobody_from_theirs() {
    let cluster = cluster();
    let one = cluster.head().at;
    for (failure, reply) in FAILURES {
        let good = cluster.node().await;
        let honest = cluster.clone();
        let bad = Node::start(move |method, params| match method {
            "getGenesisHash" => honest.honest(method, params),
            _ => reply(),
        })
        .await;
        for nodes in [[&bad, &good], [&good, &bad]] {
            let started = Instant::now();
            assert_eq!(told(&nodes).await, [vec![one], vec![one]], "{failure}");
            assert!(started.elapsed() < 8 * PATIENCE, "{failure}: {:?}", started.elapsed());
        }
        assert_eq!(told(&[&bad, &good, &good]).await, [vec![one, one], vec![one, one]]);
        for error in [
            of(&[&bad, &bad]).settled_by_each(SettlementTag::Finalized).await.map(drop),
            of(&[&bad, &bad]).header_by_each(5).await.map(drop),
        ] {
            let error = error.expect_err("nobody has an opinion");
            assert!(matches!(error, SourceError::Unavailable { .. }), "{failure}: {error}");
        }
    }
}

#[tokio::test]
async fn of_a_slot_that_was_skipped_or_is_not_there_yet_each_says_just_that() {
    let ours = cluster();
    let short = cluster();
    short.cut(2);
    let (node, behind) = (ours.node().await, short.node().await);
    let there = async |nodes: &[&Node], slot| {
        let told = of(nodes).header_by_each(slot).await.expect("an answer");
        told.iter().map(Option::is_some).collect::<Vec<_>>()
    };
    assert_eq!(there(&[&node, &node], 4).await, [false, false], "skipped");
    assert_eq!(there(&[&behind, &node], 5).await, [false, true], "not there yet");
}
