//! What providers say instead of an answer, in their own words: the tables of what is known of them.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    config, endpoint, mixed_block, mixed_receipts,
    node::{Node, Reply, honest},
};
use crate::{
    chain::{
        BlockHash, BlockRef, Source as _, SourceError,
        evm::{EvmSource, errors::classify},
        rpc::Failure,
    },
    metrics::Metrics,
};

/// Providers, and the codes and texts of their refusals.
type Refusals = &'static [(&'static str, i64, &'static str)];

/// Refusals to answer so often.
const RATES: Refusals = &[
    ("many", 429, "slow down"),
    ("Infura", -32005, "daily request count exceeded, request rate limited"),
    ("Alchemy", -32016, "Your app has exceeded its rate limit"),
    ("QuickNode", -32012, "credits limited to 200/sec"),
    (
        "QuickNode",
        -32007,
        "100/second request limit reached - reduce calls per second or upgrade your account",
    ),
    ("Cloudflare", -32055, "try again"),
    ("any", -32000, "rate limit"),
    ("any", -32000, "rate exceeded"),
    ("any", -32000, "Too Many Requests"),
    ("any", -32000, "credits limited"),
    ("any", -32000, "request limit"),
    ("any", -32000, "maximum number of concurrent requests"),
    ("any", -32000, "exceeded capacity"),
    ("Base", -32011, "no backend is currently healthy to serve traffic"),
];

/// Refusals of a range or an answer of that size.
const SIZES: Refusals = &[
    (
        "Alchemy",
        -32602,
        "Log response size exceeded. Based on your parameters, this block range should work: [0x1, 0x2]",
    ),
    (
        "Infura",
        -32005,
        "query returned more than 10000 results. Try with this block range [0x1,0x2].",
    ),
    ("QuickNode", -32614, "eth_getLogs is limited to a 10,000 range"),
    ("Ankr", -32600, "block range is too wide"),
    ("Cloudflare", -32000, "Max range: 800"),
    ("thirdweb", -32000, "Maximum allowed number of requested blocks is 1000"),
    ("Avalanche", -32000, "requested too many blocks from 1 to 9000, maximum is set to 2048"),
    ("BlockPI", -32000, "eth_getLogs is limited to 1024 block range"),
    ("Blast", -32000, "exceeds the range allowed for your plan (9000 > 500)"),
    ("Chainstack", -32000, "Block range limit exceeded."),
    ("Coinbase", -32000, "please limit the query to at most 1000 blocks"),
    ("Base", -32000, "block range too large"),
    ("OP", -32000, "Block range is too large"),
    ("OP", -32020, "backend response too large"),
    ("publicnode", -32701, "maximum block range: 50000"),
    ("merkle", -32000, "eth_getLogs range is too large, max is 1k blocks"),
    ("drpc", 35, "ranges over 10000 blocks are not supported on freetier"),
    ("llamarpc", -32000, "query exceeds max results 20000"),
    ("1rpc", -32000, "response size should not greater than 10000000 bytes"),
    ("Arbitrum", -32000, "logs matched by query exceeds limit of 10000"),
    ("Sei", -32000, "block range too large (9000), maximum allowed is 2000 blocks"),
    ("Tron", -32600, "exceed max block range: 5000"),
    ("reth", -32008, "Response is too big"),
];

/// What another node, or this one later, may have.
const ELSEWHERE: Refusals = &[
    ("geth", -32000, "header not found"),
    ("geth", -32000, "block not found"),
    ("geth", -32000, "unknown block"),
    ("geth", -32000, "missing trie node 12ab (path )"),
    ("BNB", -32000, "finalized block not found"),
    ("BNB", -32000, "safe block not found"),
    ("Avalanche", -32000, "cannot query unfinalized data"),
];

/// What it will never have.
const NEVER: Refusals = &[
    ("geth", -32601, "the method eth_getBlockReceipts does not exist/is not available"),
    ("Sei", -32601, "legacy_sei_deprecated"),
    ("any", -32602, "invalid argument 0"),
];

#[test]
fn what_a_provider_refuses_is_told_apart_by_its_words_where_codes_clash() {
    type Is = fn(&Failure) -> bool;
    let tables: [(Refusals, Is); 4] = [
        (RATES, |failure| matches!(failure, Failure::Limited { .. })),
        (SIZES, |failure| matches!(failure, Failure::TooLarge(_))),
        (ELSEWHERE, |failure| matches!(failure, Failure::NotThere(_))),
        (NEVER, |failure| matches!(failure, Failure::Unsupported(_))),
    ];
    for (table, is) in tables {
        for (provider, code, text) in table {
            let failure = classify(*code, text);
            assert!(is(&failure), "{provider}: {code} {text}: {failure:?}");
            let failure = classify(*code, &text.to_uppercase());
            assert!(is(&failure), "{provider}, in capitals: {failure:?}");
        }
    }
}

fn of(nodes: &[&Node]) -> EvmSource {
    let endpoints = nodes.iter().zip(["first", "second"]).zip([2, 1]);
    let endpoints = endpoints.map(|((node, name), weight)| endpoint(name, &node.url, weight));
    EvmSource::new(&config(endpoints.collect()), Metrics::new()).expect("a source")
}

type Headers = &'static [(&'static str, &'static str)];

/// How long an endpoint that answers so is left alone.
async fn pause_after(headers: Headers) -> Duration {
    let node = Node::start(move |method, params| match method {
        "eth_getBlockByNumber" => Reply::Limited(headers),
        _ => honest(method, params),
    })
    .await;
    let source = of(&[&node]);
    let error = source.head().await.expect_err("a limit");
    let SourceError::Unavailable { retry_after, .. } = error else { panic!("{error}") };
    source.head().await.expect_err("it is left alone");
    assert_eq!(node.times("eth_getBlockByNumber"), 1, "{headers:?}");
    retry_after.expect("a pause")
}

#[tokio::test]
async fn an_endpoint_with_too_much_to_do_is_left_alone_for_as_long_as_it_asks() {
    // What it says, and for how many seconds that is. Dates are by its own clock.
    const TABLE: &[(Headers, u64)] = &[
        (&[], 0),
        (&[("retry-after", "soon")], 0),
        (&[("retry-after", "40")], 40),
        (&[("retry-after", "86400")], 300),
        (&[("retry-after", "99999999999999999999999")], 300),
        (
            &[
                ("date", "Thu, 15 Jan 2026 09:30:00 GMT"),
                ("retry-after", "Thu, 15 Jan 2026 09:31:10 GMT"),
            ],
            70,
        ),
        (
            &[
                ("date", "Thu, 15 Jan 2026 09:30:00 GMT"),
                ("retry-after", "Thu, 15 Jan 2026 09:29:00 GMT"),
            ],
            0,
        ),
        (
            &[
                ("date", "Thu, 15 Jan 2026 09:30:00 GMT"),
                ("retry-after", "Thu, 15 Jan 2099 09:30:00 GMT"),
            ],
            300,
        ),
    ];
    for (headers, seconds) in TABLE {
        let (pause, asked) = (pause_after(headers).await, Duration::from_secs(*seconds));
        // Else it is left alone for as long as any that failed.
        assert!(pause <= asked.max(Duration::from_millis(750)), "{headers:?}: {pause:?}");
        assert!(pause + Duration::from_secs(5) > asked, "{headers:?}: {pause:?}");
    }
}

type Refused = fn() -> Reply;

/// Answers that are none.
const NO_ANSWERS: &[(&str, Refused)] = &[
    ("null", || Reply::Result(Value::Null)),
    ("an empty list", || Reply::Result(json!([]))),
    ("a list of nulls", || Reply::Result(json!([null, null, null, null, null]))),
    ("a null among them", || {
        let mut receipts = mixed_receipts();
        receipts[2] = Value::Null;
        Reply::Result(receipts)
    }),
    ("one too few", || {
        let mut receipts = mixed_receipts();
        receipts.as_array_mut().expect("a list").pop();
        Reply::Result(receipts)
    }),
    ("an error under HTTP 200", || Reply::error(-32000, "internal error")),
    ("an error without a code", || Reply::Http(200, r#"{"error":"unknown"}"#.to_owned())),
    ("an error and no id", || {
        let error = json!({ "code": -32000, "message": "internal error" });
        Reply::Http(200, json!({ "jsonrpc": "2.0", "id": null, "error": error }).to_string())
    }),
    ("nothing", || Reply::Http(200, String::new())),
    ("a page", || Reply::Http(200, "<html><body>502 Bad Gateway</body></html>".to_owned())),
    ("another's text", || Reply::Http(200, "OK".to_owned())),
    ("too many requests", || Reply::Limited(&[])),
    ("a failing server", || Reply::Http(502, String::new())),
    ("a bill", || Reply::Http(402, "payment required".to_owned())),
    ("a blocked key", || Reply::Http(403, "forbidden".to_owned())),
];

fn mixed() -> BlockRef {
    let text = mixed_block()["hash"].as_str().expect("a hash").to_owned();
    let bytes = alloy::hex::decode(text).expect("hexadecimal");
    BlockRef { number: 1, hash: BlockHash::from_slice(&bytes).expect("32 bytes") }
}

/// A block is read from the honest one of two, and is no empty block where the other one is alone.
async fn is_no_answer(what: &str, bad: &Node) {
    let good = Node::start(honest).await;
    let block = of(&[bad, &good]).block(mixed()).await;
    let block = block.unwrap_or_else(|error| panic!("{what}: {error}")).expect(what);
    assert_eq!(block.transactions.len(), 5, "{what}");
    if let Ok(Some(block)) = of(&[bad]).block(mixed()).await {
        panic!("{what}: believed, with {} movements", block.movements.len());
    }
    if let Ok(blocks) = of(&[bad]).blocks(1, 1).await {
        assert!(blocks.is_empty(), "{what}: a run that was believed");
    }
}

#[tokio::test]
async fn what_is_no_answer_is_never_taken_for_a_block_in_which_nothing_moved() {
    for (what, reply) in NO_ANSWERS {
        let bad = Node::start(move |method, params| match method {
            "eth_getBlockReceipts" => reply(),
            _ => honest(method, params),
        })
        .await;
        is_no_answer(what, &bad).await;
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_anywhere_is_no_answer() {
    let whole = |block: &Value, receipts: &Value| {
        let one = |id: u8, result: &Value| json!({ "jsonrpc": "2.0", "id": id, "result": result });
        json!([one(0, block), one(1, receipts)]).to_string()
    };
    let text = whole(&mixed_block(), &mixed_receipts());
    for tenth in 1..10 {
        let part = text[..text.len() * tenth / 10].to_owned();
        let bad = Node::start(move |method, params| match method {
            "eth_chainId" => honest(method, params),
            _ => Reply::Http(200, part.clone()),
        })
        .await;
        is_no_answer(&format!("{tenth} tenths"), &bad).await;
    }
}
