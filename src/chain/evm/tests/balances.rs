//! Many balances cost few requests, and no other figures than when each is asked for by itself.

use alloy::{
    hex,
    primitives::{Address as EvmAddress, U256, keccak256},
    sol_types::SolCall as _,
};
use serde_json::{Value, json};

use super::{
    config, endpoint, mixed_block,
    node::{Node, Reply, honest},
};
use crate::{
    amount::Amount,
    chain::{
        Address, AssetKey, BalanceQuery, BlockHash, BlockRef, ChainBalance, Family, Source as _,
        SourceError,
        evm::{
            EvmSource,
            multicall::{CODE, Erc20, Figure, MULTICALL3, Multicall3, figures},
        },
        rpc::testing::answer_of,
    },
    metrics::Metrics,
};

/// The code of Multicall3 as it stands on every chain (github.com/mds1/multicall3, MIT).
const MULTICALL3_CODE: &str = include_str!("multicall3.hex");

/// A chain's state, as its nodes and the contract on it tell it.
#[derive(Clone)]
struct Chain {
    /// Multicall3's code, or whatever else is there.
    code: String,
    /// What the EVM divides native balances by.
    unit: u64,
    /// Balances that one call has the gas for; `None` for as many as are asked.
    gas: Option<usize>,
    /// The token that reverts, and takes all gas along.
    greedy: Option<EvmAddress>,
}

impl Default for Chain {
    fn default() -> Self {
        let code = MULTICALL3_CODE.trim().to_owned();
        Self { code, unit: 1, gas: None, greedy: None }
    }
}

/// Everybody has another balance of everything.
fn held(asset: &str, owner: EvmAddress) -> U256 {
    U256::from_be_slice(&keccak256([asset.as_bytes(), owner.as_slice()].concat())[20..])
        * U256::from(10_u64.pow(10))
}

impl Chain {
    fn token(&self, token: EvmAddress, data: &[u8]) -> Option<Vec<u8>> {
        let owner = Erc20::balanceOfCall::abi_decode(data).expect("balanceOf").owner;
        if self.greedy == Some(token) {
            return None;
        }
        // Nothing is deployed below this address, and nothing is returned there.
        if token < EvmAddress::repeat_byte(0x22) {
            return Some(Vec::new());
        }
        Some(held(&format!("{token:?}"), owner).to_be_bytes_vec())
    }

    fn aggregate(&self, data: &[u8]) -> Option<Vec<u8>> {
        let calls = Multicall3::aggregate3Call::abi_decode(data).expect("aggregate3").calls;
        if self.gas.is_some_and(|most| calls.len() > most) {
            return None;
        }
        let mut out_of_gas = false;
        let result = |call: Multicall3::Call3| {
            assert!(call.allowFailure);
            let returned = if call.target == MULTICALL3 {
                let who = Multicall3::getEthBalanceCall::abi_decode(&call.callData);
                let wei = held("native", who.expect("getEthBalance").addr);
                Some((wei / U256::from(self.unit)).to_be_bytes_vec())
            } else {
                self.token(call.target, &call.callData)
            };
            out_of_gas |= returned.is_none();
            Multicall3::Result {
                success: !out_of_gas,
                returnData: returned.filter(|_| !out_of_gas).unwrap_or_default().into(),
            }
        };
        let results: Vec<_> = calls.into_iter().map(result).collect();
        Some(Multicall3::aggregate3Call::abi_encode_returns(&results))
    }

    fn answer(&self, method: &str, params: &Value) -> Reply {
        let address = |value: &Value| -> EvmAddress {
            value.as_str().and_then(|text| text.parse().ok()).expect("an address")
        };
        if ["eth_getCode", "eth_getBalance", "eth_call"].contains(&method) {
            assert_eq!(params[1]["blockHash"], mixed_block()["hash"]);
        }
        match method {
            "eth_getCode" => {
                assert_eq!(address(&params[0]), MULTICALL3);
                Reply::Result(json!(self.code))
            }
            "eth_getBalance" => {
                Reply::Result(json!(format!("{:#x}", held("native", address(&params[0])))))
            }
            "eth_call" => {
                let (to, data) = (address(&params[0]["to"]), params[0]["data"].as_str());
                let data = hex::decode(data.expect("data")).expect("hexadecimal");
                let there = self.code == MULTICALL3_CODE.trim();
                let returned = match to {
                    MULTICALL3 if there => self.aggregate(&data),
                    MULTICALL3 => Some(Vec::new()),
                    token => self.token(token, &data),
                };
                match returned {
                    Some(data) => Reply::Result(json!(hex::encode_prefixed(data))),
                    None => Reply::error(-32000, "out of gas"),
                }
            }
            _ => honest(method, params),
        }
    }
}

/// A source of that chain that has been asked for nothing but its head, and its node.
async fn source(chain: Chain) -> (EvmSource, Node) {
    let node = Node::start(move |method, params| chain.answer(method, params)).await;
    let mut one = endpoint("one", &node.url, 1);
    one.max_batch = usize::try_from(Family::Evm.defaults().max_batch).expect("small");
    let source = EvmSource::new(&config(vec![one]), Metrics::new()).expect("a source");
    source.head().await.expect("a head");
    (source, node)
}

fn block() -> BlockRef {
    let hash = mixed_block()["hash"].as_str().map(hex::decode).expect("a hash");
    let hash = BlockHash::from_slice(&hash.expect("hexadecimal")).expect("32 bytes");
    BlockRef { number: 1, hash }
}

/// A settlement's questions: of each of `people` the native coin and three tokens, one of them nowhere.
fn queries(people: usize) -> Vec<BalanceQuery> {
    let token = |byte| AssetKey::Token(Address::from([byte; 20]));
    let assets = [AssetKey::Native, token(0x33), token(0x44), token(0x11)];
    (0..people)
        .flat_map(|n| {
            let mut bytes = [0x99; 20];
            bytes[..8].copy_from_slice(&(n as u64).to_be_bytes());
            let address = Address::from(bytes);
            assets.map(|asset| BalanceQuery { address, asset })
        })
        .collect()
}

fn expected(query: &BalanceQuery) -> ChainBalance {
    let owner = EvmAddress::from_slice(query.address.as_slice());
    let asset = match query.asset {
        AssetKey::Native => "native".to_owned(),
        AssetKey::Token(token) if token == Address::from([0x11; 20]) => {
            return ChainBalance { unreadable: true, ..ChainBalance::default() };
        }
        AssetKey::Token(token) => format!("{:?}", EvmAddress::from_slice(token.as_slice())),
    };
    Amount::new(held(&asset, owner)).into()
}

/// Asks, compares every figure, and tells how many requests it took.
async fn settle(source: &EvmSource, node: &Node, queries: &[BalanceQuery]) -> usize {
    let before = node.requests().len();
    let held = source.balances_at(block(), queries).await.expect("balances");
    for (query, held) in queries.iter().zip(held) {
        assert_eq!(held, expected(query), "{query:?}");
    }
    node.requests().len() - before
}

#[test]
fn the_recorded_code_is_the_one_that_is_looked_for() {
    let code = hex::decode(MULTICALL3_CODE.trim()).expect("hexadecimal");
    assert_eq!(keccak256(code), CODE);
}

#[tokio::test]
async fn five_hundred_balances_settle_by_two_requests_where_there_is_multicall3() {
    let (source, node) = source(Chain::default()).await;
    node.limit_batches(2);
    assert_eq!(settle(&source, &node, &queries(125)).await, 2, "the first time");
    assert_eq!(node.times("eth_getBalance"), 1, "to compare the unit");
    assert_eq!(settle(&source, &node, &queries(125)).await, 1, "from then on");
    assert_eq!(node.times("eth_getCode"), 1);
}

#[tokio::test]
async fn five_hundred_balances_settle_by_two_requests_where_the_node_takes_batches() {
    let (source, node) = source(Chain { code: "0x".to_owned(), ..Chain::default() }).await;
    assert_eq!(settle(&source, &node, &queries(125)).await, 2, "the first time");
    assert_eq!(settle(&source, &node, &queries(125)).await, 1, "from then on");
    assert_eq!(node.times("eth_getCode"), 1);
}

#[tokio::test]
async fn another_contract_at_that_address_is_not_believed() {
    let (source, node) = source(Chain { code: "0x6001".to_owned(), ..Chain::default() }).await;
    assert_eq!(settle(&source, &node, &queries(20)).await, 2);
}

#[tokio::test]
async fn what_fails_after_a_token_that_takes_all_gas_is_asked_for_by_itself() {
    let greedy = EvmAddress::repeat_byte(0x55);
    let (source, node) = source(Chain { greedy: Some(greedy), ..Chain::default() }).await;
    let mut queries = queries(20);
    let asset = AssetKey::Token(Address::from(greedy.into_array()));
    queries.insert(40, BalanceQuery { asset, ..queries[0] });
    let held = source.balances_at(block(), &queries).await.expect("balances");
    for (n, (query, held)) in queries.iter().zip(held).enumerate() {
        let unknown = ChainBalance { unreadable: true, ..ChainBalance::default() };
        assert_eq!(held, if n == 40 { unknown } else { expected(query) }, "{n}: {query:?}");
    }
    assert_eq!(node.requests()[2..], [2, 1 + 41], "all from the greedy one on, and one to compare");
}

#[tokio::test]
async fn a_coin_that_the_evm_counts_in_another_unit_is_asked_for_by_itself() {
    let (source, node) = source(Chain { unit: 10_000_000_000, ..Chain::default() }).await;
    assert_eq!(settle(&source, &node, &queries(50)).await, 3, "the first time");
    assert_eq!(settle(&source, &node, &queries(50)).await, 2, "tokens by the contract");
    assert_eq!(node.times("eth_getBalance"), 1 + 50 + 50);
}

#[tokio::test]
async fn a_call_that_is_too_much_for_the_node_is_made_smaller_the_next_time() {
    let (source, node) = source(Chain { gas: Some(130), ..Chain::default() }).await;
    assert_eq!(settle(&source, &node, &queries(125)).await, 2);
    assert_eq!(settle(&source, &node, &queries(125)).await, 2, "of 250 each");
    assert_eq!(settle(&source, &node, &queries(125)).await, 2, "of 125 each, and one to compare");
    assert_eq!(settle(&source, &node, &queries(125)).await, 1, "of 125 each");
    assert_eq!(node.requests().last(), Some(&4));
}

#[tokio::test]
async fn a_batch_is_cut_to_the_usual_limit_before_it_is_halved() {
    let (source, node) = source(Chain { code: "0x".to_owned(), ..Chain::default() }).await;
    node.limit_batches(100);
    assert_eq!(settle(&source, &node, &queries(125)).await, 1 + 1 + 5);
    assert_eq!(node.requests()[2..], [2, 500, 100, 100, 100, 100, 100]);
    assert_eq!(settle(&source, &node, &queries(125)).await, 5);
    node.limit_batches(60);
    settle(&source, &node, &queries(125)).await;
    assert_eq!(node.requests()[14..16], [100, 50]);
}

#[tokio::test]
async fn a_state_that_is_gone_is_not_there_whoever_is_asked() {
    let node = Node::start(|method, params| match method {
        "eth_getCode" | "eth_call" | "eth_getBalance" => {
            Reply::error(-32000, "missing trie node 12ab (path )")
        }
        _ => honest(method, params),
    })
    .await;
    let source = EvmSource::new(&config(vec![endpoint("one", &node.url, 1)]), Metrics::new());
    let error = source.expect("a source").balances_at(block(), &queries(20)).await;
    let error = error.expect_err("no state");
    assert!(matches!(error, SourceError::NotThere(_)), "{error}");
}

#[test]
fn results_that_share_their_bytes_cost_no_more_than_they_are_long() {
    let word = |number: usize| format!("{number:064x}");
    let (count, length) = (20_000, 500_000);
    let result = [word(1), word(64), word(length), "ab".repeat(length)].concat();
    let places = word(32 * count).repeat(count);
    let answer = format!(r#""0x{}{}{places}{result}""#, word(32), word(count));
    // Ten gigabytes if each had bytes of its own.
    let read = figures(&answer_of(answer.as_bytes()), count).expect("figures");
    assert!(read.len() == count && read.iter().all(|figure| *figure == Figure::None));
}
