//! What token contracts say of themselves is read in a few requests, and harms nothing.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use alloy::{
    hex,
    primitives::{Address as EvmAddress, U256},
    sol_types::{SolCall as _, SolValue as _},
};
use serde_json::{Value, json};

use super::{
    config, endpoint,
    node::{Node, Reply, honest},
};
use crate::{
    chain::{
        Address, TokenFacts, TokenSource as _,
        evm::{
            EvmSource,
            multicall::{MULTICALL3, Multicall3},
        },
    },
    metrics::Metrics,
};

const MULTICALL3_CODE: &str = include_str!("multicall3.hex");

fn token(byte: u8) -> Address {
    Address::from([byte; 20])
}

/// What the contract of so many equal bytes returns; `None` for one that reverts, and takes all gas along.
fn returned(contract: EvmAddress, selector: &[u8]) -> Option<Vec<u8>> {
    let text = |text: &str| Some(text.to_owned().abi_encode());
    let word = |number: u8| Some(U256::from(number).to_be_bytes_vec());
    let old = |text: &[u8]| {
        let mut word = vec![0; 32];
        word[..text.len()].copy_from_slice(text);
        Some(word)
    };
    match (contract[0], selector) {
        (0x11, [0x31, ..]) => word(6),
        (0x11, [0x95, ..]) => text("USDC"),
        (0x11, _) => text("USD Coin"),
        (0x22, [0x31, ..]) => word(18),
        (0x22, [0x95, ..]) => old(b"MKR"),
        (0x22, _) => old(b"Maker"),
        (0x33, _) => None,
        (0x44, [0x95, ..]) => text(&"\u{1b}]0;x\u{7}".repeat(20_000)),
        (0x44, _) => Some(vec![0xff; 200]),
        _ => Some(Vec::new()),
    }
}

fn answer(has_multicall: bool, method: &str, params: &Value) -> Reply {
    let address = |value: &Value| -> EvmAddress {
        value.as_str().and_then(|text| text.parse().ok()).expect("an address")
    };
    match method {
        "eth_getCode" if has_multicall => Reply::Result(json!(MULTICALL3_CODE.trim())),
        "eth_getCode" => Reply::Result(json!("0x")),
        "eth_call" => {
            assert_eq!(params[1], "latest");
            let data = hex::decode(params[0]["data"].as_str().expect("data")).expect("digits");
            let returned = match address(&params[0]["to"]) {
                MULTICALL3 if has_multicall => {
                    let calls = Multicall3::aggregate3Call::abi_decode(&data).expect("calls").calls;
                    let mut no_gas = false;
                    let result = |call: Multicall3::Call3| {
                        let returned = returned(call.target, &call.callData);
                        no_gas |= returned.is_none();
                        Multicall3::Result {
                            success: !no_gas,
                            returnData: returned.filter(|_| !no_gas).unwrap_or_default().into(),
                        }
                    };
                    let results: Vec<_> = calls.into_iter().map(result).collect();
                    Some(Multicall3::aggregate3Call::abi_encode_returns(&results))
                }
                MULTICALL3 => Some(Vec::new()),
                token => returned(token, &data),
            };
            match returned {
                Some(data) => Reply::Result(json!(hex::encode_prefixed(data))),
                None => Reply::error(-32000, "out of gas"),
            }
        }
        _ => honest(method, params),
    }
}

async fn source(has_multicall: bool) -> (EvmSource, Node) {
    let node = Node::start(move |method, params| answer(has_multicall, method, params)).await;
    let config = config(vec![endpoint("one", &node.url, 1)]);
    (EvmSource::new(&config, Metrics::new()).expect("a source"), node)
}

fn facts(decimals: Option<u8>, symbol: Option<&str>, name: Option<&str>) -> TokenFacts {
    let owned = |text: Option<&str>| text.map(str::to_owned);
    TokenFacts { decimals, symbol: owned(symbol), name: owned(name) }
}

#[tokio::test]
async fn what_tokens_say_of_themselves_is_the_same_with_and_without_multicall3() {
    for has_multicall in [true, false] {
        let (source, node) = source(has_multicall).await;
        let asked = [0x11, 0x22, 0x55, 0x33, 0x44].map(token);
        let told = source.token_facts(&asked).await.expect("an answer");
        assert_eq!(told[0], facts(Some(6), Some("USDC"), Some("USD Coin")));
        assert_eq!(told[1], facts(Some(18), Some("MKR"), Some("Maker")));
        assert_eq!(told[2], TokenFacts::default(), "no code");
        assert_eq!(told[3], TokenFacts::default(), "it reverts");
        // Without Multicall3 all of it is read, else what comes first of it.
        let shown = told[4].symbol.clone().unwrap_or_default();
        assert_eq!(told[4].decimals, None);
        assert!(shown.starts_with("]0;x]0;x") && shown.chars().count() <= 40, "{shown:?}");
        let calls = node.times("eth_call");
        assert_eq!(calls, if has_multicall { 1 + 2 * 3 } else { 1 + 5 * 3 });
    }
}

#[tokio::test]
async fn many_tokens_are_one_call_where_there_is_multicall3() {
    let (source, node) = source(true).await;
    let told = source.token_facts(&[token(0x11); 30]).await.expect("an answer");
    assert_eq!(told, vec![facts(Some(6), Some("USDC"), Some("USD Coin")); 30]);
    assert_eq!(node.requests(), [1, 2], "the chain id, then one call beside the contract's code");
}

#[tokio::test]
async fn each_endpoint_is_asked_before_one_of_them_stops_a_start() {
    let asked = Arc::new(AtomicUsize::new(0));
    let liar = Node::start({
        let asked = Arc::clone(&asked);
        move |method, params| {
            if method == "eth_call" {
                asked.fetch_add(1, Ordering::Relaxed);
                return Reply::Result(json!(format!("{:#066x}", 9)));
            }
            answer(false, method, params)
        }
    })
    .await;
    let good = Node::start(|method, params| answer(false, method, params)).await;
    let endpoints = vec![endpoint("liar", &liar.url, 2), endpoint("good", &good.url, 1)];
    let source = EvmSource::new(&config(endpoints), Metrics::new()).expect("a source");
    let decimals =
        |told: Vec<TokenFacts>| told.iter().map(|told| told.decimals).collect::<Vec<_>>();
    let told = source.token_facts(&[token(0x11)]).await.expect("an answer");
    assert_eq!(decimals(told), [Some(9)]);
    let told = source.opinions_of(token(0x11)).await.expect("an answer");
    assert_eq!(decimals(told), [Some(9), Some(6)]);
    assert_eq!(asked.load(Ordering::Relaxed), 6);
}
