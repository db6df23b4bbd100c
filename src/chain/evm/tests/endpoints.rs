use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{
    config, empty_block, endpoint, mixed_block, mixed_receipts,
    node::{Node, Reply, honest},
};
use crate::{
    amount::Amount,
    chain::{
        Address, AssetKey, BalanceQuery, BlockHash, BlockRef, ChainBalance, Family, Priority,
        SafeSource, SettlementTag, Source, SourceError, TxId, evm::EvmSource,
    },
    config::EndpointConfig,
    metrics::Metrics,
};

fn source(endpoints: Vec<EndpointConfig>) -> EvmSource {
    EvmSource::new(&config(endpoints), Metrics::new()).expect("a source")
}

fn only(node: &Node) -> EvmSource {
    source(vec![endpoint("one", &node.url, 1)])
}

fn hash(block: &Value) -> BlockHash {
    let text = block["hash"].as_str().expect("a hash");
    BlockHash::from_slice(&alloy::hex::decode(text).expect("hexadecimal")).expect("32 bytes")
}

fn mixed() -> BlockRef {
    BlockRef { number: 1, hash: hash(&mixed_block()) }
}

/// What an honest node says, but for the calls of one method.
fn except(
    method: &'static str,
    reply: impl Fn() -> Reply + Send + Sync + 'static,
) -> impl Fn(&str, &Value) -> Reply + Send + Sync + 'static {
    move |asked, params| if asked == method { reply() } else { honest(asked, params) }
}

#[tokio::test]
async fn a_run_of_blocks_ends_where_the_chain_ends() {
    let node = Node::start(honest).await;
    let source = only(&node);
    let blocks = source.blocks(1, 9).await.expect("blocks");
    assert_eq!(blocks.iter().map(|block| block.header.at.number).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(blocks[1].header.parent, blocks[0].header.at);
    assert_eq!(blocks[0].transactions.len(), 5);
    assert_eq!(node.times("eth_getBlockReceipts"), 1, "none for an empty block");
    assert_eq!(source.head().await.expect("a head").at, blocks[1].header.at);
    assert_eq!(source.header_at(1).await.expect("a header"), Some(blocks[0].header));
    assert_eq!(source.header_at(3).await.expect("no header"), None);
}

#[tokio::test]
async fn a_block_comes_in_one_round_trip() {
    let node = Node::start(honest).await;
    let source = only(&node);
    let block = source.block(mixed()).await.expect("an answer").expect("a block");
    assert_eq!(block.header.at, mixed());
    assert_eq!(node.requests(), [1, 2], "the chain id, then all at once");
    let unknown = BlockRef { number: 1, hash: BlockHash([7; 32]) };
    assert!(source.block(unknown).await.expect("an answer").is_none());
}

#[tokio::test]
async fn a_node_without_block_receipts_is_asked_for_each() {
    let reply =
        || Reply::error(-32601, "the method eth_getBlockReceipts does not exist/is not available");
    let node = Node::start(except("eth_getBlockReceipts", reply)).await;
    let source = only(&node);
    assert_eq!(source.blocks(1, 2).await.expect("blocks").len(), 2);
    assert!(source.block(mixed()).await.expect("an answer").is_some());
    assert_eq!(node.times("eth_getTransactionReceipt"), 10);
    assert_eq!(node.times("eth_getBlockReceipts"), 1, "asked once, then known");
}

#[tokio::test]
async fn when_the_first_endpoint_lies_the_second_is_asked() {
    let lie = || {
        let mut receipts = mixed_receipts();
        receipts[1]["logs"].as_array_mut().expect("logs").pop();
        Reply::Result(receipts)
    };
    let liar = Node::start(except("eth_getBlockReceipts", lie)).await;
    let good = Node::start(honest).await;
    let both = source(vec![endpoint("good", &good.url, 1), endpoint("liar", &liar.url, 2)]);
    let block = both.block(mixed()).await.expect("an answer").expect("a block");
    assert_eq!(block.transactions.len(), 5);
    assert_eq!((liar.times("eth_getBlockByHash"), good.times("eth_getBlockByHash")), (1, 1));
    // The liar is asked last from now on.
    both.block(mixed()).await.expect("an answer");
    assert_eq!((liar.times("eth_getBlockByHash"), good.times("eth_getBlockByHash")), (1, 2));
    // Alone it is not believed, however often.
    let alone = only(&liar);
    for _ in 0..2 {
        let error = alone.blocks(1, 2).await.expect_err("a lie");
        assert!(matches!(error, SourceError::Untrusted(_)), "{error}");
    }
}

#[tokio::test]
async fn when_the_first_endpoint_fails_the_second_is_asked() {
    let failures: [fn() -> Reply; 6] = [
        || Reply::Http(429, String::new()),
        || Reply::Http(503, "try later".to_owned()),
        || Reply::Http(200, r#"{"jsonrpc":"2.0","id":0,"resu"#.to_owned()),
        || Reply::Http(200, r#"{"jsonrpc":"2.0","id":0}"#.to_owned()),
        || Reply::error(-32000, "something is wrong"),
        || Reply::Result(Value::Null),
    ];
    for (index, failure) in failures.into_iter().enumerate() {
        let bad = Node::start(except("eth_getBlockByNumber", failure)).await;
        let good = Node::start(honest).await;
        let both = source(vec![endpoint("bad", &bad.url, 2), endpoint("good", &good.url, 1)]);
        let head = both.head().await.unwrap_or_else(|error| panic!("failure {index}: {error}"));
        assert_eq!(head.at.number, 2);
        let error = only(&bad).head().await.expect_err("alone it cannot answer");
        assert!(matches!(error, SourceError::Unavailable { .. }), "{index}: {error}");
    }
}

#[tokio::test]
async fn an_endpoint_that_failed_rests_and_nothing_is_said_of_its_url() {
    let node = Node::start(except("eth_getBlockByNumber", || {
        Reply::error(-32005, "daily request count exceeded, see https://example.org/secret-key")
    }))
    .await;
    let source = only(&node);
    for _ in 0..3 {
        let error = source.head().await.expect_err("a limit");
        let SourceError::Unavailable { detail, retry_after } = error else { panic!("{error}") };
        assert!(!detail.contains("secret"), "{detail}");
        // Half a second, spread by half.
        assert!(retry_after.expect("a pause") <= Duration::from_millis(750));
    }
    assert_eq!(node.times("eth_getBlockByNumber"), 1, "it was left alone");
    tokio::time::sleep(Duration::from_millis(800)).await;
    node.change(honest);
    source.head().await.expect("a head");
    assert_eq!(node.times("eth_chainId"), 2, "asked again after the pause");

    let gone = source_of_nothing();
    let error = gone.head().await.expect_err("nobody is there").to_string();
    assert!(!error.contains("secret") && error.contains("gone"), "{error}");
}

/// An endpoint where nobody listens.
fn source_of_nothing() -> EvmSource {
    source(vec![endpoint("gone", "http://127.0.0.1:9/secret-key", 1)])
}

#[tokio::test]
async fn an_endpoint_of_another_chain_is_not_asked_further() {
    let node = Node::start(except("eth_chainId", || Reply::Result(json!("0x1")))).await;
    let error = only(&node).blocks(1, 2).await.expect_err("another chain");
    assert!(matches!(error, SourceError::WrongChain(_)));
    let text = error.to_string();
    assert!(
        text.contains("one") && text.contains("eip155:1,") && text.contains("eip155:31337"),
        "{text}"
    );
    assert_eq!(node.times("eth_getBlockByNumber"), 0);

    let good = Node::start(honest).await;
    let doubted = only(&good);
    for asked in [1, 1, 2] {
        doubted.head().await.expect("a head");
        assert_eq!(good.times("eth_chainId"), asked);
        if good.times("eth_getBlockByNumber") == 2 {
            doubted.ask_identity_again();
        }
    }
    let endpoints = || vec![endpoint("bad", &node.url, 2), endpoint("good", &good.url, 1)];
    assert_eq!(source(endpoints()).blocks(1, 2).await.expect("blocks").len(), 2);
    // Where no other one serves the chain, that is the verdict, whatever ails the other one.
    good.change(except("eth_getBlockByNumber", || Reply::Http(503, String::new())));
    let error = source(endpoints()).head().await.expect_err("nobody is left");
    assert!(matches!(error, SourceError::WrongChain(_)), "{error}");
    // One that answers, but not this, serves it.
    good.change(except("eth_getBlockByNumber", || Reply::error(-32000, "something is wrong")));
    let error = source(endpoints()).head().await.expect_err("not this");
    assert!(matches!(error, SourceError::Unavailable { .. }), "{error}");
}

#[tokio::test]
async fn no_more_of_an_answer_is_read_than_allowed() {
    let node = Node::start(honest).await;
    let mut small = endpoint("small", &node.url, 1);
    // Either block fits; the two of them in one answer do not.
    small.max_response_bytes = 9_000;
    let source = source(vec![small]);
    assert_eq!(source.blocks(1, 9).await.expect("blocks").len(), 2);

    let mut tiny = endpoint("tiny", &node.url, 1);
    tiny.max_response_bytes = 500;
    let error = EvmSource::new(&config(vec![tiny]), Metrics::new())
        .expect("a source")
        .blocks(1, 2)
        .await
        .expect_err("too large");
    assert!(error.to_string().contains("over 500 bytes"), "{error}");
}

#[tokio::test]
async fn a_batch_that_is_too_large_is_halved_and_the_limit_remembered() {
    let node = Node::start(honest).await;
    let mut limited = endpoint("one", &node.url, 1);
    limited.max_batch = 4;
    let source = source(vec![limited]);
    source.blocks(1, 9).await.expect("blocks");
    assert_eq!(node.requests(), [1, 4, 4, 1, 1]);

    let count = std::sync::atomic::AtomicUsize::new(0);
    node.change(move |method, params| {
        let seen = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        if seen == 0 { Reply::Http(413, String::new()) } else { honest(method, params) }
    });
    source.blocks(1, 4).await.expect("blocks");
    assert_eq!(node.requests()[5..], [4, 2, 2, 1]);
    source.blocks(1, 4).await.expect("blocks");
    assert_eq!(node.requests()[9..], [2, 2, 1]);
}

#[tokio::test]
async fn a_batch_that_takes_too_long_is_halved_only_while_the_endpoint_answers_at_all() {
    let node = Node::start(honest).await;
    let mut one = endpoint("one", &node.url, 1);
    one.request_timeout = Duration::from_millis(300);
    let source = source(vec![one]);
    source.blocks(1, 4).await.expect("blocks");
    let before = node.requests().len();
    // It answers small questions, and no others.
    node.silence_above(3);
    source.blocks(1, 4).await.expect("blocks");
    assert_eq!(node.requests()[before..], [4, 1, 2, 2, 1]);
    let before = node.requests().len();
    node.silence_above(0);
    source.blocks(1, 4).await.expect_err("silence");
    assert_eq!(node.requests()[before..], [4, 1]);
}

#[tokio::test]
async fn who_waits_for_an_endpoint_to_say_its_chain_does_not_wait_for_one_failure_after_the_other()
{
    let node = Node::start(except("eth_chainId", || Reply::Silence)).await;
    let mut silent = endpoint("silent", &node.url, 1);
    silent.request_timeout = Duration::from_millis(500);
    let source = source(vec![silent]);
    let started = Instant::now();
    let asked = futures::future::join_all((0..8).map(|_| source.head())).await;
    assert!(asked.iter().all(Result::is_err));
    assert_eq!(node.times("eth_chainId"), 1);
    assert!(started.elapsed() < Duration::from_millis(1_500), "{:?}", started.elapsed());
}

#[tokio::test]
async fn an_answer_that_never_comes_is_given_up() {
    let node = Node::start(except("eth_getBlockByNumber", || Reply::Silence)).await;
    let mut slow = endpoint("slow", &node.url, 1);
    slow.request_timeout = Duration::from_millis(200);
    let error = source(vec![slow]).head().await.expect_err("silence");
    assert!(error.to_string().contains("no answer in time"), "{error}");
}

/// An endpoint that has a long time for its answers.
fn patient(name: &str, node: &Node, weight: u32) -> EndpointConfig {
    let request_timeout = Duration::from_secs(20);
    EndpointConfig { request_timeout, ..endpoint(name, &node.url, weight) }
}

#[tokio::test]
async fn a_slow_endpoint_of_greater_weight_is_left_for_a_quick_one_until_it_is_quick_again() {
    let (heavy, quick) = (Node::start(honest).await, Node::start(honest).await);
    let endpoints = vec![patient("heavy", &heavy, 2), patient("quick", &quick, 1)];
    let metrics = Metrics::new();
    let both = EvmSource::new(&config(endpoints), metrics.clone()).expect("a source");
    both.block(mixed()).await.expect("an answer");
    assert_eq!(quick.requests().len(), 0);
    heavy.delay(Duration::from_secs(8));
    let started = tokio::time::Instant::now();
    for _ in 0..4 {
        both.block(mixed()).await.expect("an answer").expect("a block");
    }
    let took = started.elapsed();
    assert!(took < Duration::from_secs(5), "four blocks took {took:?}");
    assert!(quick.times("eth_getBlockByHash") >= 4);
    // Nothing else is kept waiting either, and nobody finds out at its cost.
    let started = tokio::time::Instant::now();
    Priority::Background.scope(both.block(mixed())).await.expect("an answer");
    assert!(started.elapsed() < Duration::from_secs(1));

    let slow = metrics.rpc_endpoint_slow.with_label_values(&["anvil", "heavy"]);
    assert_eq!(slow.get(), 1);

    heavy.delay(Duration::ZERO);
    let before = quick.requests().len();
    let again = async {
        loop {
            let asked = (heavy.requests().len(), quick.requests().len());
            both.block(mixed()).await.expect("an answer");
            if quick.requests().len() == asked.1 && heavy.requests().len() > asked.0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(8), again).await.expect("it gets work again");
    assert!(quick.requests().len() > before, "not at once");
    let quick_before = quick.requests().len();
    Priority::Background.scope(both.block(mixed())).await.expect("an answer");
    assert_eq!(quick.requests().len(), quick_before, "and all of it");
    assert_eq!(slow.get(), 0);
}

#[tokio::test]
async fn where_the_other_one_fails_or_is_as_slow_the_first_one_is_waited_for() {
    let (heavy, other) = (Node::start(honest).await, Node::start(honest).await);
    let both = source(vec![patient("heavy", &heavy, 2), patient("other", &other, 1)]);
    both.head().await.expect("a head");
    heavy.delay(Duration::from_secs(3));
    other.change(except("eth_getBlockByHash", || Reply::Http(503, String::new())));
    assert!(both.block(mixed()).await.expect("an answer").is_some(), "the other one fails");
    assert_eq!(other.times("eth_getBlockByHash"), 1);
    heavy.delay(Duration::ZERO);
    both.block(mixed()).await.expect("an answer");
    assert_eq!(other.times("eth_getBlockByHash"), 1, "the first one is not slower than nobody");
}

#[tokio::test]
async fn the_pace_is_kept_by_calls_not_by_requests() {
    let node = Node::start(honest).await;
    let mut paced = endpoint("one", &node.url, 1);
    paced.max_requests_per_second = Some(20);
    let source = source(vec![paced]);
    let started = tokio::time::Instant::now();
    // One for the chain id, four in a batch, and one more.
    source.blocks(2, 5).await.expect("blocks");
    source.head().await.expect("a head");
    assert!(started.elapsed() >= Duration::from_millis(250));
}

#[tokio::test]
async fn a_run_that_does_not_link_is_asked_for_again() {
    let node = Node::start(|method, params| match (method, honest(method, params)) {
        ("eth_getBlockByNumber", Reply::Result(mut block)) if block["number"] == "0x2" => {
            block["parentHash"] = block["stateRoot"].clone();
            Reply::Result(block)
        }
        (_, reply) => reply,
    })
    .await;
    let error = only(&node).blocks(1, 2).await.expect_err("no run");
    assert!(matches!(error, SourceError::Unavailable { retry_after: None, .. }), "{error}");
}

#[tokio::test]
async fn nothing_settled_yet_is_not_a_failure() {
    let mut genesis = empty_block();
    genesis["number"] = json!("0x0");
    let answers: [Box<dyn Fn() -> Reply + Send + Sync>; 3] = [
        Box::new(|| Reply::Result(Value::Null)),
        Box::new(|| Reply::error(-32000, "finalized block not found")),
        Box::new(move || Reply::Result(genesis.clone())),
    ];
    for answer in answers {
        let node = Node::start(except("eth_getBlockByNumber", answer)).await;
        let mut chain = config(vec![endpoint("one", &node.url, 1)]);
        chain.verification = crate::config::Verification::Bloom;
        let source = EvmSource::new(&chain, Metrics::new()).expect("a source");
        assert_eq!(source.settled(SettlementTag::Finalized).await.expect("an answer"), None);
    }
}

fn query(token: bool) -> BalanceQuery {
    let address = Address::from([0x11; 20]);
    let asset = if token { AssetKey::Token(Address::from([0x22; 20])) } else { AssetKey::Native };
    BalanceQuery { address, asset }
}

#[tokio::test]
async fn balances_are_of_exactly_that_block_and_a_token_without_an_answer_is_unreadable() {
    let word = format!("0x{:0>64}", "ff");
    let tokens = [
        (Reply::Result(json!(word)), Some(255_u64)),
        (Reply::Result(json!("0x")), None),
        (Reply::error(3, "execution reverted: no"), None),
        (Reply::Result(json!("0x01")), None),
    ];
    for (reply, expected) in tokens {
        let reply = std::sync::Mutex::new(Some(reply));
        let node = Node::start(move |method, params| match method {
            "eth_getBalance" => {
                assert_eq!(params[1]["blockHash"], mixed_block()["hash"]);
                Reply::Result(json!("0x7"))
            }
            "eth_call" => {
                let owner = format!("{:0>64}", "11".repeat(20));
                assert_eq!(params[0]["data"], format!("0x70a08231{owner}"));
                reply.lock().expect("a lock").take().expect("asked once")
            }
            _ => honest(method, params),
        })
        .await;
        let balances =
            only(&node).balances_at(mixed(), &[query(true), query(false)]).await.expect("both");
        let token = ChainBalance::from(Amount::from(expected.unwrap_or_default()));
        let token = ChainBalance { unreadable: expected.is_none(), ..token };
        assert_eq!(balances, [token, Amount::from(7).into()]);
    }
}

#[tokio::test]
async fn a_state_that_a_node_no_longer_keeps_is_not_there() {
    for (code, text) in [
        (-32001, "Resource not found"),
        (-32000, "header not found"),
        (-32000, "missing trie node 12ab (path )"),
        (-32602, "BlockOutOfRangeError: block height is 8 but requested was 9"),
    ] {
        let node = Node::start(except("eth_getBalance", move || Reply::error(code, text))).await;
        let error = only(&node).balances_at(mixed(), &[query(false)]).await.expect_err(text);
        assert!(matches!(error, SourceError::NotThere(_)), "{error}");
    }
}

#[tokio::test]
async fn a_transaction_is_looked_up_with_its_block() {
    let node = Node::start(honest).await;
    let source = only(&node);
    let text = mixed_block()["transactions"][3]["hash"].as_str().expect("a hash").to_owned();
    let tx = Family::Evm.parse_tx(&text).expect("a transaction id");
    let found = source.transaction(tx).await.expect("an answer").expect("a transaction");
    assert_eq!(found.mined, Some((mixed(), false, Vec::new())));
    assert_eq!(source.transaction(TxId::from([9; 32])).await.expect("an answer"), None);
}

#[tokio::test]
async fn a_transaction_at_a_height_or_with_a_nonce_that_nobody_has_is_not_believed() {
    let text = mixed_block()["transactions"][3]["hash"].as_str().expect("a hash").to_owned();
    let tx = Family::Evm.parse_tx(&text).expect("a transaction id");
    for (method, field) in
        [("eth_getTransactionReceipt", "blockNumber"), ("eth_getTransactionByHash", "nonce")]
    {
        let node = Node::start(move |asked, params| match honest(asked, params) {
            Reply::Result(mut answer) if asked == method => {
                answer[field] = json!("0x8000000000000000");
                Reply::Result(answer)
            }
            reply => reply,
        })
        .await;
        let error = only(&node).transaction(tx).await.expect_err("no such figure");
        assert!(matches!(error, SourceError::Untrusted(_)), "{error}");
    }
}
