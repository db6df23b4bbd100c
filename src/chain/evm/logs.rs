//! Blocks found by the node's index of logs, instead of by reading all of them.
//!
//! An index can be incomplete without a word, and nothing in an answer shows it: what is found here is only where
//! to look. The blocks themselves are fetched and verified like any others.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
};

use alloy::primitives::{Address as EvmAddress, B256};
use parking_lot::Mutex;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{
    decode::TRANSFER,
    json::{Block, Quantity},
    state::evm,
};
use crate::chain::{
    Address, BlockHash, BlockRef,
    rpc::{Answer, Answers, Call, Endpoint, Failure},
};

/// Blocks that one question covers at first. Providers allow from a few to this many, and say so only when
/// asked for more.
const FIRST_SPAN: u64 = 10_000;
const LONGEST_SPAN: u64 = 100_000;
/// After so many answers in a row a question covers twice as many blocks.
const ANSWERS_TO_GROW: u32 = 8;
/// Addresses in one question.
const ADDRESSES: usize = 500;

/// How many blocks a question to each endpoint can cover, learnt from its refusals.
#[derive(Default)]
pub(super) struct Spans(Mutex<HashMap<String, Span>>);

#[derive(Clone, Copy)]
struct Span {
    blocks: u64,
    answers: u32,
}

impl Spans {
    fn of(&self, endpoint: &str) -> u64 {
        self.0.lock().get(endpoint).map_or(FIRST_SPAN, |span| span.blocks)
    }

    fn answered(&self, endpoint: &str) {
        let mut spans = self.0.lock();
        let span =
            spans.entry(endpoint.to_owned()).or_insert(Span { blocks: FIRST_SPAN, answers: 0 });
        span.answers += 1;
        if span.answers >= ANSWERS_TO_GROW {
            *span = Span { blocks: (span.blocks * 2).min(LONGEST_SPAN), answers: 0 };
        }
    }

    fn refused(&self, endpoint: &str, blocks: u64) {
        let blocks = (blocks / 2).max(1);
        self.0.lock().insert(endpoint.to_owned(), Span { blocks, answers: 0 });
    }
}

/// The place of a log.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Place {
    address: EvmAddress,
    block_number: Quantity,
    block_hash: B256,
}

/// The blocks from `from` to `to` in which one of `tokens` moved from or to one of `addresses`, as the endpoint's
/// index has it; the highest first.
pub(super) async fn find(
    endpoint: &Endpoint,
    spans: &Spans,
    tokens: &[Address],
    addresses: &[Address],
    from: u64,
    to: u64,
) -> Result<Vec<BlockRef>, Failure> {
    // Without a contract, or without an address, the question would be for all logs there are.
    if tokens.is_empty() || addresses.is_empty() {
        return Ok(Vec::new());
    }
    let contracts = tokens.iter().map(|token| evm(*token)).collect::<Result<Vec<_>, _>>()?;
    let mut found = BTreeMap::new();
    let mut left = (from <= to).then_some(to);
    while let Some(hi) = left {
        let lo = from.max((hi + 1).saturating_sub(spans.of(&endpoint.name)));
        match ask(endpoint, &contracts, addresses, lo, hi, &mut found).await {
            Ok(()) => spans.answered(&endpoint.name),
            Err(failure) if failure.is_size() && lo < hi => {
                spans.refused(&endpoint.name, hi - lo + 1);
                continue;
            }
            // The logs of one block are too many for an answer: it is looked at as a whole.
            Err(failure) if failure.is_size() => {
                let block = header(&endpoint.call(by_number(hi)).await?, hi)?;
                found.insert(hi, block);
            }
            Err(failure) => return Err(failure),
        }
        left = (lo > from).then(|| lo - 1);
    }
    Ok(found
        .into_iter()
        .rev()
        .map(|(number, hash)| BlockRef { number, hash: BlockHash(hash.0) })
        .collect())
}

async fn ask(
    endpoint: &Endpoint,
    contracts: &[EvmAddress],
    addresses: &[Address],
    lo: u64,
    hi: u64,
    found: &mut BTreeMap<u64, B256>,
) -> Result<(), Failure> {
    // A node that is behind has no logs of blocks that it does not have, and does not say so.
    let mut calls = vec![by_number(hi)];
    for some in addresses.chunks(ADDRESSES) {
        calls.extend(questions(contracts, some, lo, hi)?);
    }
    found.append(&mut places(endpoint.batch(&calls).await?, contracts, lo, hi)?);
    Ok(())
}

/// The blocks of the logs in the answers, the first of which is the header of block `hi`.
pub(super) fn places(
    answers: Answers,
    contracts: &[EvmAddress],
    lo: u64,
    hi: u64,
) -> Result<BTreeMap<u64, B256>, Failure> {
    let mut answers = answers.into_iter();
    let top = answers.next().unwrap_or_else(|| Err(Failure::Invalid("no answer".to_owned())))?;
    let top = header(&top, hi)?;
    let mut places = BTreeMap::from([(hi, top)]);
    let mut some = BTreeMap::new();
    for answer in answers {
        for Place { address, block_number: Quantity(number), block_hash } in
            answer?.parse::<Vec<Place>>()?
        {
            if !(lo..=hi).contains(&number) || !contracts.contains(&address) {
                return Err(Failure::Invalid("a log that was not asked for".to_owned()));
            }
            if *places.entry(number).or_insert(block_hash) != block_hash {
                return Err(Failure::Moved(format!("two blocks {number}")));
            }
            some.insert(number, block_hash);
        }
    }
    Ok(some)
}

/// Two questions: transfers from the addresses, and transfers to them.
fn questions(
    contracts: &[EvmAddress],
    addresses: &[Address],
    lo: u64,
    hi: u64,
) -> Result<[Call; 2], Failure> {
    let list = |words: &mut dyn Iterator<Item = String>| {
        let words: Vec<String> = words.map(|word| format!("\"{word}\"")).collect();
        format!("[{}]", words.join(","))
    };
    let contracts = list(&mut contracts.iter().map(|contract| format!("{contract:?}")));
    let owners = addresses
        .iter()
        .map(|address| Ok(evm(*address)?.into_word()))
        .collect::<Result<Vec<B256>, Failure>>()?;
    let owners = list(&mut owners.iter().map(ToString::to_string));
    Ok(["", "null,"].map(|skipped| {
        let mut params = String::new();
        // Writing to a String does not fail.
        let _ = write!(
            params,
            r#"[{{"fromBlock":"{lo:#x}","toBlock":"{hi:#x}","address":{contracts},"topics":["{TRANSFER}",{skipped}{owners}]}}]"#
        );
        Call::new("eth_getLogs", params)
    }))
}

fn by_number(number: u64) -> Call {
    Call::new("eth_getBlockByNumber", format!(r#"["{number:#x}",false]"#))
}

fn header(answer: &Answer, number: u64) -> Result<B256, Failure> {
    let block = answer
        .parse::<Option<Block<IgnoredAny>>>()?
        .ok_or_else(|| Failure::NotThere(format!("block {number}")))?;
    if block.number.0 != number {
        return Err(Failure::Invalid(format!("asked for block {number}, got another")));
    }
    Ok(block.hash)
}
