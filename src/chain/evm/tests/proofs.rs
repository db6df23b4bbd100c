//! A balance is proven as the chain's state has it, or it is said why not.

use std::collections::BTreeMap;

use alloy::{
    hex,
    primitives::{Address as EvmAddress, B256, U256, keccak256},
    rlp,
};
use alloy_trie::TrieAccount;
use proptest::prelude::*;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::{
    config, empty_block, endpoint,
    node::{Node, Reply},
};
use crate::{
    amount::Amount,
    chain::{
        Address, AssetKey, BalanceProof, BalanceQuery, BlockHash, BlockRef, Family, Layout, Place,
        ProofSource as _, Proven, SourceError, StorageProof, Unprovable,
        evm::{EvmSource, json::Block, proof::trie, verify},
    },
    metrics::Metrics,
};

const TOKEN: EvmAddress = EvmAddress::repeat_byte(0x33);
const ALICE: EvmAddress = EvmAddress::repeat_byte(0xa1);
const BOB: EvmAddress = EvmAddress::repeat_byte(0xb0);
const NUMBER: u64 = 2;

/// How the token's contract makes a balance of the word in its storage.
type Reckon = fn(U256) -> U256;

/// A chain's state, and what its node tells of it.
#[derive(Clone)]
struct State {
    layout: Layout,
    slot: u64,
    words: BTreeMap<EvmAddress, U256>,
    coins: BTreeMap<EvmAddress, U256>,
    reckon: Reckon,
    /// Whether the node names the slots that a call reads, and lets a state be changed for a call.
    names: bool,
    changes: bool,
}

impl Default for State {
    fn default() -> Self {
        Self {
            layout: Layout::Solidity,
            slot: 9,
            words: BTreeMap::from([(ALICE, U256::from(1_500_000)), (BOB, U256::from(7))]),
            coins: BTreeMap::from([(ALICE, U256::from(10).pow(U256::from(18)))]),
            reckon: |word| word,
            names: true,
            changes: true,
        }
    }
}

fn key(layout: Layout, slot: u64, owner: EvmAddress) -> B256 {
    let (owner, slot) = (owner.into_word().to_vec(), U256::from(slot).to_be_bytes_vec());
    match layout {
        Layout::Solidity => keccak256([owner, slot].concat()),
        Layout::Vyper => keccak256([slot, owner].concat()),
        Layout::Solady => {
            let seed = hex::decode("000000000000000087a211a2").expect("hexadecimal");
            keccak256([owner[12..].to_vec(), seed].concat())
        }
    }
}

impl State {
    fn key(&self, owner: EvmAddress) -> B256 {
        key(self.layout, self.slot, owner)
    }

    fn storage(&self, key: B256) -> (B256, Vec<Vec<u8>>) {
        let mut words: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        for (owner, word) in &self.words {
            words.push((self.key(*owner).to_vec(), rlp::encode(word)));
        }
        // What else a token has.
        words.push((B256::with_last_byte(2).to_vec(), rlp::encode(U256::from(99_u64))));
        trie(&words, key.as_slice())
    }

    fn accounts(&self, whose: EvmAddress) -> (B256, Vec<Vec<u8>>) {
        let token = TrieAccount {
            nonce: 1,
            storage_root: self.storage(B256::ZERO).0,
            code_hash: B256::repeat_byte(5),
            ..TrieAccount::default()
        };
        let mut accounts = vec![(TOKEN.to_vec(), rlp::encode(token))];
        for (owner, coins) in &self.coins {
            let account = TrieAccount { balance: *coins, ..TrieAccount::default() };
            accounts.push((owner.to_vec(), rlp::encode(account)));
        }
        trie(&accounts, whose.as_slice())
    }

    fn block(&self) -> Value {
        let mut block = empty_block();
        block["stateRoot"] = json!(self.accounts(TOKEN).0);
        let told: Block<IgnoredAny> = serde_json::from_value(block.clone()).expect("a block");
        block["hash"] = json!(verify::hash_of(&told));
        block
    }

    fn at(&self) -> BlockRef {
        let hash: B256 =
            self.block()["hash"].as_str().and_then(|h| h.parse().ok()).expect("a hash");
        BlockRef { number: NUMBER, hash: BlockHash(hash.0) }
    }

    /// What `balanceOf` says.
    fn figure(&self, call: &Value, changed: &Value) -> U256 {
        let data = call["data"].as_str().expect("data");
        let owner: EvmAddress = data[34..].parse().expect("an address");
        let word = self.words.get(&owner).copied().unwrap_or_default();
        let changed = &changed[format!("{TOKEN:?}")];
        if !self.changes || changed.is_null() {
            return (self.reckon)(word);
        }
        if changed["code"].is_string() {
            return U256::from(42);
        }
        let other = changed["stateDiff"][self.key(owner).to_string()].as_str();
        (self.reckon)(other.map_or(word, |word| word.parse().expect("a word")))
    }

    fn answer(&self, method: &str, params: &Value) -> Reply {
        let address = |value: &Value| -> EvmAddress {
            value.as_str().and_then(|text| text.parse().ok()).expect("an address")
        };
        Reply::Result(match method {
            "eth_chainId" => json!("0x7a69"),
            "eth_getBlockByHash" | "eth_getBlockByNumber" => self.block(),
            "eth_call" => {
                let figure = self.figure(&params[0], &params[2]);
                json!(B256::from(figure))
            }
            "eth_createAccessList" if self.names => {
                let data = params[0]["data"].as_str().expect("data");
                let read = self.key(data[34..].parse().expect("an address"));
                let list = json!([{"address": TOKEN, "storageKeys": [B256::ZERO, read]}]);
                json!({"accessList": list, "gasUsed": "0x1"})
            }
            "eth_getStorageAt" => {
                let key: B256 = params[1].as_str().and_then(|key| key.parse().ok()).expect("a key");
                let owner = self.words.iter().find(|(owner, _)| self.key(**owner) == key);
                json!(B256::from(owner.map(|(_, word)| *word).unwrap_or_default()))
            }
            "eth_getProof" => {
                assert_eq!(params[2], format!("{NUMBER:#x}"));
                let whose = address(&params[0]);
                let hexes = |nodes: Vec<Vec<u8>>| -> Vec<String> {
                    nodes.iter().map(hex::encode_prefixed).collect()
                };
                let mut storage = Vec::new();
                for key in params[1].as_array().expect("keys") {
                    let key: B256 = key.as_str().and_then(|key| key.parse().ok()).expect("a key");
                    let owner = self.words.iter().find(|(owner, _)| self.key(**owner) == key);
                    let word = owner.map(|(_, word)| *word).unwrap_or_default();
                    let proof = hexes(self.storage(key).1);
                    storage.push(json!({"key": key, "value": word, "proof": proof}));
                }
                let coins = self.coins.get(&whose).copied().unwrap_or_default();
                let is_token = whose == TOKEN;
                let root = if is_token { self.storage(B256::ZERO).0 } else { B256::ZERO };
                json!({
                    "address": whose, "balance": coins, "nonce": "0x0", "storageHash": root,
                    "codeHash": B256::ZERO, "accountProof": hexes(self.accounts(whose).1),
                    "storageProof": storage,
                })
            }
            _ => return Reply::error(-32601, "the method does not exist"),
        })
    }
}

fn query(owner: EvmAddress, asset: Option<EvmAddress>) -> BalanceQuery {
    let address = |of: EvmAddress| Address::from(of.into_array());
    let asset = asset.map_or(AssetKey::Native, |token| AssetKey::Token(address(token)));
    BalanceQuery { address: address(owner), asset }
}

fn source(nodes: &[&Node]) -> EvmSource {
    let endpoints = nodes.iter().enumerate().map(|(n, node)| {
        endpoint(&format!("node-{n}"), &node.url, u32::try_from(10 - n).expect("few"))
    });
    EvmSource::new(&config(endpoints.collect()), Metrics::new()).expect("a source")
}

async fn node(state: &State) -> Node {
    let state = state.clone();
    Node::start(move |method, params| state.answer(method, params)).await
}

type Proved = Result<Result<(BalanceProof, Proven), Unprovable>, SourceError>;

async fn proved(state: &State, owner: EvmAddress, asset: Option<EvmAddress>) -> Proved {
    let node = node(state).await;
    source(&[&node]).prove(state.at(), query(owner, asset), &[]).await
}

/// A proof of so much, which whoever checks it takes too.
fn is_of(answer: Proved, state: &State, amount: u64) -> BalanceProof {
    let (proof, proven) = answer.expect("an answer").expect("a proof");
    assert_eq!(proven.amount, Amount::from(amount));
    assert_eq!(proven.at, state.at());
    assert_eq!(Family::Evm.check_proof(&proof), Ok(proven));
    proof
}

#[tokio::test]
async fn a_tokens_balance_is_proven_wherever_its_contract_keeps_it() {
    for (layout, slot) in [
        (Layout::Solidity, 0),
        (Layout::Solidity, 51),
        (Layout::Solidity, 301),
        (Layout::Vyper, 3),
        (Layout::Solady, 0),
    ] {
        let state = State { layout, slot, ..State::default() };
        let proof = is_of(proved(&state, ALICE, Some(TOKEN)).await, &state, 1_500_000);
        let place = proof.storage.expect("a place").place;
        assert_eq!((place.layout, place.bits), (layout, 256));
        let nobody = EvmAddress::repeat_byte(0x77);
        is_of(proved(&state, nobody, Some(TOKEN)).await, &state, 0);
        // A node that names no slots has the usual ones tried out.
        let state = State { names: false, ..state };
        let found = proved(&state, nobody, Some(TOKEN)).await.expect("an answer");
        assert_eq!(found.is_ok(), slot < 64, "{layout} {slot}");
    }
}

#[tokio::test]
async fn the_native_coin_is_proven_there_or_not_there() {
    let state = State { coins: BTreeMap::from([(ALICE, U256::from(5))]), ..State::default() };
    is_of(proved(&state, ALICE, None).await, &state, 5);
    is_of(proved(&state, BOB, None).await, &state, 0);
}

#[tokio::test]
async fn what_stands_above_a_balance_in_its_word_is_no_money() {
    let mark = U256::ONE << 255;
    let reckon: Reckon = |word| word & ((U256::ONE << 255) - U256::ONE);
    let mut state = State { reckon, ..State::default() };
    state.words.insert(BOB, mark | U256::from(7));
    let proof = is_of(proved(&state, BOB, Some(TOKEN)).await, &state, 7);
    assert_eq!(proof.storage.map(|storage| storage.place.bits), Some(255));
}

#[tokio::test]
async fn a_token_that_reckons_its_balances_is_not_proven() {
    for reckon in [|word| word * U256::from(3), |word: U256| word >> 1, |_| U256::from(1)] {
        let state = State { reckon, ..State::default() };
        let node = node(&state).await;
        let source = source(&[&node]);
        for _ in 0..3 {
            let proved = source.prove(state.at(), query(ALICE, Some(TOKEN)), &[]).await;
            assert_eq!(proved.expect("an answer").expect_err("no proof"), Unprovable::NoPlace);
        }
        assert_eq!(node.times("eth_createAccessList"), 1, "that is remembered");
    }
}

#[tokio::test]
async fn without_changed_states_a_place_must_hold_the_balances_of_two_holders() {
    for names in [true, false] {
        let state = State { changes: false, names, ..State::default() };
        let node = node(&state).await;
        let source = source(&[&node]);
        let ask = async |others: &[EvmAddress]| {
            let others: Vec<_> =
                others.iter().map(|other| Address::from(other.into_array())).collect();
            source.prove(state.at(), query(ALICE, Some(TOKEN)), &others).await
        };
        let nobody = EvmAddress::repeat_byte(0x77);
        for others in [&[][..], &[nobody], &[ALICE]] {
            let proved = ask(others).await.expect("an answer");
            assert_eq!(proved.expect_err("one holder"), Unprovable::NoPlace);
        }
        is_of(ask(&[nobody, BOB]).await, &state, 1_500_000);
        let before = node.times("eth_getStorageAt");
        is_of(ask(&[]).await, &state, 1_500_000);
        assert_eq!(node.times("eth_getStorageAt"), before, "the place is remembered");
    }
}

#[tokio::test]
async fn what_the_contract_calls_another_balance_is_no_proof() {
    let state = State::default();
    let node = node(&state).await;
    let source = source(&[&node]);
    is_of(source.prove(state.at(), query(ALICE, Some(TOKEN)), &[]).await, &state, 1_500_000);
    // From now on the contract lies of balances as they are, and still reads the same slot.
    let lying = state.clone();
    node.change(move |method, params| match (method, params[2].is_null()) {
        ("eth_call", true) => Reply::Result(json!(B256::from(U256::from(8)))),
        _ => lying.answer(method, params),
    });
    let proved = source.prove(state.at(), query(ALICE, Some(TOKEN)), &[]).await;
    assert_eq!(proved.expect("an answer").expect_err("no proof"), Unprovable::Differs);
}

#[tokio::test]
async fn a_contract_that_keeps_its_balances_elsewhere_by_now_is_looked_at_anew() {
    let before = State::default();
    let node = node(&before).await;
    let source = source(&[&node]);
    is_of(source.prove(before.at(), query(ALICE, Some(TOKEN)), &[]).await, &before, 1_500_000);
    let now = State { slot: 51, ..before };
    let upgraded = now.clone();
    node.change(move |method, params| upgraded.answer(method, params));
    let proof = source.prove(now.at(), query(ALICE, Some(TOKEN)), &[]).await;
    let place = is_of(proof, &now, 1_500_000).storage.expect("a place").place;
    assert_eq!(U256::from_be_bytes(place.slot), U256::from(51));
}

#[tokio::test]
async fn a_false_proof_is_nobodys_and_another_endpoint_is_asked() {
    let state = State::default();
    let rich = State { words: BTreeMap::from([(ALICE, U256::MAX)]), ..state.clone() };
    let honest = node(&state).await;
    let (of_rich, block) = (rich, state.clone());
    let liar = Node::start(move |method, params| match method {
        "eth_getBlockByHash" => block.answer(method, params),
        _ => of_rich.answer(method, params),
    })
    .await;
    let asked = query(ALICE, Some(TOKEN));
    let both = source(&[&liar, &honest]).prove(state.at(), asked, &[]).await;
    is_of(both, &state, 1_500_000);
    assert!(liar.times("eth_getProof") > 0, "it was asked first");
    let alone = source(&[&liar]).prove(state.at(), asked, &[]).await;
    assert!(matches!(alone, Err(SourceError::Untrusted(_))), "{alone:?}");
}

#[tokio::test]
async fn a_node_without_proofs_or_without_the_state_says_so() {
    let state = State::default();
    for (code, text, gone) in [
        (-32601, "the method eth_getProof does not exist", false),
        (-32000, "missing trie node 12ab (path )", true),
        (-32000, "distance to target block exceeds maximum proof window", true),
    ] {
        let told = state.clone();
        let node = Node::start(move |method, params| match method {
            "eth_getProof" => Reply::error(code, text),
            _ => told.answer(method, params),
        })
        .await;
        for asset in [None, Some(TOKEN)] {
            let proved = source(&[&node]).prove(state.at(), query(ALICE, asset), &[]).await;
            match proved {
                Err(SourceError::NotThere(_)) => assert!(gone, "{text}"),
                Ok(Err(Unprovable::NoNode)) => assert!(!gone, "{text}"),
                other => panic!("{text}: {other:?}"),
            }
        }
    }
    // A chain that hashes its headers in a way of its own.
    let mut block = state.block();
    block["gasLimit"] = json!("0x1");
    let told = state.clone();
    let node = Node::start(move |method, params| match method {
        "eth_getBlockByHash" => Reply::Result(block.clone()),
        _ => told.answer(method, params),
    })
    .await;
    let proved = source(&[&node]).prove(state.at(), query(ALICE, None), &[]).await;
    assert_eq!(proved.expect("an answer").expect_err("no proof"), Unprovable::NoNode);
}

/// A proof of Alice's tokens, and one of her coins.
fn proofs() -> [BalanceProof; 2] {
    let state = State::default();
    let told: Block<IgnoredAny> = serde_json::from_value(state.block()).expect("a block");
    let header = rlp::encode(verify::header(&told));
    let key = state.key(ALICE);
    let storage = StorageProof {
        place: Place {
            layout: state.layout,
            slot: U256::from(state.slot).to_be_bytes(),
            bits: 256,
        },
        key: key.0,
        value: state.words[&ALICE].to_be_bytes(),
        nodes: state.storage(key).1,
    };
    let proof = |of: EvmAddress, asset: Option<EvmAddress>, storage| {
        let BalanceQuery { address: owner, asset } = query(ALICE, asset);
        BalanceProof {
            owner,
            asset,
            header: header.clone(),
            account: state.accounts(of).1,
            storage,
        }
    };
    [proof(TOKEN, Some(TOKEN), Some(storage)), proof(ALICE, None, None)]
}

/// Every byte of a proof that anybody could change.
fn bytes_of(proof: &mut BalanceProof) -> Vec<&mut u8> {
    let mut bytes: Vec<&mut u8> = proof.header.iter_mut().collect();
    bytes.extend(proof.account.iter_mut().flatten());
    if let Some(storage) = &mut proof.storage {
        bytes.extend(storage.place.slot.iter_mut());
        bytes.extend(storage.key.iter_mut());
        bytes.extend(storage.value.iter_mut());
        bytes.extend(storage.nodes.iter_mut().flatten());
    }
    bytes
}

#[test]
fn no_byte_of_a_proof_can_be_another_one() {
    for proof in proofs() {
        let proven = Family::Evm.check_proof(&proof).expect("a proof");
        for n in 0..bytes_of(&mut proof.clone()).len() {
            for flip in [1, 0x80, 0xff] {
                let mut changed = proof.clone();
                *bytes_of(&mut changed).remove(n) ^= flip;
                match Family::Evm.check_proof(&changed) {
                    Err(_) => {}
                    // Another header may well have the same state: it is another block.
                    Ok(other) => assert_ne!(other.at.hash, proven.at.hash, "byte {n}"),
                }
            }
        }
    }
}

#[test]
fn a_proof_is_of_one_address_one_asset_and_one_place() {
    let [token, coin] = proofs();
    let check = |proof: &BalanceProof| Family::Evm.check_proof(proof);
    let bob = query(BOB, None).address;
    for proof in [&token, &coin] {
        check(proof).expect("a proof");
        check(&BalanceProof { owner: bob, ..proof.clone() }).expect_err("another owner");
        let asset = AssetKey::Token(bob);
        check(&BalanceProof { asset, ..proof.clone() }).expect_err("another asset");
        let account = Vec::new();
        check(&BalanceProof { account, ..proof.clone() }).expect_err("no account");
        let mut header = proof.header.clone();
        header.push(0);
        check(&BalanceProof { header, ..proof.clone() }).expect_err("a longer header");
    }
    check(&BalanceProof { asset: AssetKey::Native, ..token.clone() }).expect_err("no coin");
    check(&BalanceProof { storage: None, ..token.clone() }).expect_err("no storage");
    let with = |change: fn(&mut StorageProof)| {
        let mut storage = token.storage.clone().expect("a storage");
        change(&mut storage);
        check(&BalanceProof { storage: Some(storage), ..token.clone() })
    };
    with(|storage| storage.place.layout = Layout::Vyper).expect_err("another layout");
    for bits in [0, 1, 8, 64, 254, 257, u16::MAX] {
        let mut storage = token.storage.clone().expect("a storage");
        storage.place.bits = bits;
        let storage = Some(storage);
        check(&BalanceProof { storage, ..token.clone() }).expect_err("no balance's bits");
    }
    with(|storage| storage.nodes.clear()).expect_err("no nodes");
    with(|_| ()).expect("a proof");
}

proptest! {
    #[test]
    fn a_proof_shows_what_the_state_has_and_nothing_else(
        words in proptest::collection::vec((any::<[u8; 20]>(), any::<[u8; 32]>()), 1..30),
        slot in 0_u64..50,
        who: prop::sample::Index,
    ) {
        let owner = EvmAddress::from(words[who.index(words.len())].0);
        let words: BTreeMap<EvmAddress, U256> = words
            .into_iter()
            .map(|(owner, word)| (owner.into(), U256::from_be_bytes(word)))
            .filter(|(_, word)| !word.is_zero())
            .collect();
        let state = State { slot, words, ..State::default() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let answer = runtime.expect("a runtime").block_on(proved(&state, owner, Some(TOKEN)));
        let (proof, proven) = answer.expect("an answer").expect("a proof");
        let held = state.words.get(&owner).copied().unwrap_or_default();
        prop_assert_eq!(proven.amount, Amount::new(held));
        prop_assert_eq!(Family::Evm.check_proof(&proof), Ok(proven));
    }
}

#[tokio::test]
async fn a_place_that_is_known_costs_one_request() {
    let state = State::default();
    let node = node(&state).await;
    let source = source(&[&node]);
    let ask = async || source.prove(state.at(), query(ALICE, Some(TOKEN)), &[]).await;
    is_of(ask().await, &state, 1_500_000);
    let before = node.requests().len();
    is_of(ask().await, &state, 1_500_000);
    assert_eq!(node.requests()[before..], [3]);
}
