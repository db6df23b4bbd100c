//! The place where one token keeps balances, found by asking a node.
//!
//! A node names the slots that `balanceOf` reads; of these, those count that an address has by a known layout. Then
//! another word is put into each for one call: the place is the one that drives what `balanceOf` says. Where a node
//! lets nobody do that, the place must hold the balances of several holders. A token that reckons its balances, as
//! rebasing ones do, has no such place.

use std::collections::HashMap;

use alloy::primitives::{Address as EvmAddress, B256, U256};
use parking_lot::Mutex;
use serde::Deserialize;

use super::place;
use crate::chain::{
    BlockRef, Place,
    evm::state::{BALANCE_OF, at_block, token_balance},
    rpc::{Answer, Call, Endpoint, Failure},
};

/// Tokens that are remembered.
const MOST: usize = 1024;
/// A token without a place may have one that many blocks later.
const LOOK_AGAIN_BLOCKS: u64 = 1_000;
/// Slots that a call for a balance reads, if a node names them; what is beyond is not looked at.
const MOST_READ: usize = 64;
/// Holders whose balances a place must hold, and those who are asked about.
const AGREEING: usize = 2;
const MOST_HOLDERS: usize = 8;
/// Code that answers 42, and what it answers: shows whether a node changes a state for a call.
const CONTROL_CODE: &str = "0x602a60005260206000f3";
const CONTROL: U256 = U256::from_limbs([42, 0, 0, 0]);

/// The places that are known of one chain's tokens.
#[derive(Default)]
pub(in crate::chain::evm) struct Places(Mutex<HashMap<EvmAddress, Learnt>>);

#[derive(Clone, Copy, Debug)]
enum Learnt {
    At(Place),
    /// None was found at that block.
    Nowhere(u64),
}

impl Places {
    /// Where a token keeps its balances, as far as is known or can be found with the state after the block `at`.
    pub(super) async fn of(
        &self,
        endpoint: &Endpoint,
        at: BlockRef,
        contract: EvmAddress,
        owner: EvmAddress,
        others: &[EvmAddress],
    ) -> Result<Option<Place>, Failure> {
        let learnt = self.0.lock().get(&contract).copied();
        match learnt {
            Some(Learnt::At(place)) => return Ok(Some(place)),
            Some(Learnt::Nowhere(number))
                if at.number < number.saturating_add(LOOK_AGAIN_BLOCKS) =>
            {
                return Ok(None);
            }
            Some(Learnt::Nowhere(_)) | None => {}
        }
        let probe = Probe { endpoint, at, contract };
        let candidates = probe.candidates(owner).await?;
        match probe.tried_out(owner, &candidates).await? {
            Tried::Found(place) => {
                self.learn(contract, Learnt::At(place));
                Ok(Some(place))
            }
            Tried::NotFound => {
                self.learn(contract, Learnt::Nowhere(at.number));
                Ok(None)
            }
            Tried::NotAllowed => {
                let found = probe.agreed_on(owner, others, candidates).await?;
                // With other holders there may be one the next time.
                if let Some(place) = found {
                    self.learn(contract, Learnt::At(place));
                }
                Ok(found)
            }
        }
    }

    pub(super) fn forget(&self, contract: EvmAddress) {
        self.0.lock().remove(&contract);
    }

    fn learn(&self, contract: EvmAddress, learnt: Learnt) {
        let mut known = self.0.lock();
        if known.len() >= MOST && !known.contains_key(&contract) {
            known.clear();
        }
        known.insert(contract, learnt);
    }
}

/// Asks what a contract calls an address's balance after the block `at`, with something else in its state if wanted.
pub(super) fn asking_balance(
    contract: EvmAddress,
    owner: EvmAddress,
    at: BlockRef,
    changed: Option<String>,
) -> Call {
    let changed =
        changed.map_or_else(String::new, |change| format!(r#",{{"{contract:?}":{change}}}"#));
    let call = balance_call(contract, owner);
    Call::new("eth_call", format!("[{call},{}{changed}]", at_block(at)))
}

fn balance_call(contract: EvmAddress, owner: EvmAddress) -> String {
    let data = format!("{BALANCE_OF}{:x}", owner.into_word());
    format!(r#"{{"to":"{contract:?}","data":"{data}"}}"#)
}

/// What a call read, as `eth_createAccessList` tells it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Read {
    access_list: Vec<ReadOf>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReadOf {
    address: EvmAddress,
    storage_keys: Vec<B256>,
}

/// What came of putting another word into each of the places that may be it.
enum Tried {
    /// This one drives what the contract says.
    Found(Place),
    /// None does.
    NotFound,
    /// The node lets nobody change a state for a call.
    NotAllowed,
}

/// One search.
struct Probe<'a> {
    endpoint: &'a Endpoint,
    at: BlockRef,
    contract: EvmAddress,
}

impl Probe<'_> {
    /// The places that may be it.
    async fn candidates(&self, owner: EvmAddress) -> Result<Vec<Place>, Failure> {
        let Self { endpoint, at, contract } = *self;
        let params = format!("[{},{}]", balance_call(contract, owner), at_block(at));
        let told = match endpoint.call(Call::new("eth_createAccessList", params)).await {
            Err(failure @ Failure::NotThere(_)) => return Err(failure),
            told => told.and_then(|told| told.parse::<Read>()),
        };
        let own = |read: Read| -> Vec<B256> {
            let own = read.access_list.into_iter().filter(|read| read.address == contract);
            own.flat_map(|read| read.storage_keys).take(MOST_READ).collect()
        };
        // Not all nodes tell, and some of those that do tell nothing.
        let keys = told.map(own).unwrap_or_default();
        Ok(if keys.is_empty() { place::usual() } else { place::named(owner, &keys) })
    }

    /// Looks for the place that drives what the contract says.
    async fn tried_out(&self, owner: EvmAddress, candidates: &[Place]) -> Result<Tried, Failure> {
        let Self { endpoint, at, contract } = *self;
        let trial = |place: &Place| place::trial(place::key(*place, owner));
        let control = Some(format!(r#"{{"code":"{CONTROL_CODE}"}}"#));
        let mut calls = vec![asking_balance(contract, owner, at, control)];
        calls.extend(candidates.iter().map(|place| {
            let (key, word) = (place::key(*place, owner), B256::from(trial(place)));
            let change = format!(r#"{{"stateDiff":{{"{key}":"{word}"}}}}"#);
            asking_balance(contract, owner, at, Some(change))
        }));
        let mut answers = endpoint.batch(&calls).await?.into_iter();
        let figure = |answer: Option<Result<Answer, Failure>>| match answer {
            Some(Err(failure @ Failure::NotThere(_))) => Err(failure),
            // Whatever else it says to that, it is no figure.
            Some(answer) => Ok(token_balance(answer).unwrap_or_default()),
            None => Ok(None),
        };
        if figure(answers.next())? != Some(CONTROL) {
            return Ok(Tried::NotAllowed);
        }
        for place in candidates {
            let found = figure(answers.next())?;
            if let Some(bits) = found.and_then(|found| place::bits_of(found, trial(place))) {
                return Ok(Tried::Found(Place { bits, ..*place }));
            }
        }
        Ok(Tried::NotFound)
    }

    /// The one place that holds the balances of several holders, each another one.
    async fn agreed_on(
        &self,
        owner: EvmAddress,
        others: &[EvmAddress],
        mut candidates: Vec<Place>,
    ) -> Result<Option<Place>, Failure> {
        let Self { endpoint, at, contract } = *self;
        let people: Vec<EvmAddress> =
            std::iter::once(owner).chain(others.iter().copied()).take(MOST_HOLDERS).collect();
        let calls: Vec<Call> =
            people.iter().map(|one| asking_balance(contract, *one, at, None)).collect();
        let mut holders: Vec<(EvmAddress, U256)> = Vec::new();
        for (one, answer) in people.into_iter().zip(endpoint.batch(&calls).await?) {
            let Some(figure) = token_balance(answer)? else { continue };
            if !figure.is_zero() && holders.iter().all(|(_, other)| *other != figure) {
                holders.push((one, figure));
            }
        }
        if holders.len() < AGREEING {
            return Ok(None);
        }
        for (holder, figure) in holders.into_iter().take(AGREEING) {
            let calls: Vec<Call> = candidates
                .iter()
                .map(|place| {
                    let key = place::key(*place, holder);
                    let params = format!(r#"["{contract:?}","{key}",{}]"#, at_block(at));
                    Call::new("eth_getStorageAt", params)
                })
                .collect();
            let words = endpoint.batch(&calls).await?;
            let mut holding = Vec::new();
            for (place, word) in candidates.into_iter().zip(words) {
                if token_balance(word)? == Some(figure) {
                    holding.push(place);
                }
            }
            candidates = holding;
        }
        // Two that hold the same are none that is known.
        Ok(<[Place; 1]>::try_from(candidates).ok().map(|[place]| place))
    }
}
