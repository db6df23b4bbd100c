//! Many balances by one call: Multicall3, where a chain has it.
//!
//! One `eth_call` sees the state after one block, as all the calls of a batch do. Two things can still differ
//! from asking for each balance by itself:
//! - A token that uses up all gas makes those after it fail. So what failed inside is asked for by itself.
//! - A chain can count its coin in another unit inside its EVM than its nodes do (Hedera does). So the first
//!   figure that is not zero is compared with the node's own word.

use alloy::{
    hex,
    primitives::{Address as EvmAddress, B256, U256, address, b256, keccak256},
    sol,
    sol_types::SolCall as _,
};
use parking_lot::Mutex;

use super::{
    json::Hex,
    state::{at_block, evm},
};
use crate::chain::{
    AssetKey, BalanceQuery, BlockRef, ChainName,
    rpc::{Answer, Call, Endpoint, Failure},
};

/// The same on every chain.
pub(super) const MULTICALL3: EvmAddress = address!("cA11bde05977b3631167028862bE2a173976CA11");
/// keccak256 of its code: nothing else at that address is asked.
pub(super) const CODE: B256 =
    b256!("d5c15df687b16f2ff992fc8d767b4216323184a2bbc6ee2f9c398c318e770891");

/// Bytes of a word of the ABI.
pub(super) const WORD: usize = 32;
/// What is kept of one answer that may be of any length.
const MOST_RETURNED: usize = 1024;
/// The newest block: for what no block changes.
pub(super) const LATEST: &str = r#""latest""#;
/// Fewer balances are asked for one by one, in one batch.
const WORTH_IT: usize = 8;
/// Balances by one call at most. A token's `balanceOf` costs from 3,000 to 60,000 gas, and nodes allow a call
/// from 30 million on.
const AT_ONCE: usize = 500;
/// Where even so few are too many for a call, the gas is not the matter.
const AT_ONCE_AT_LEAST: usize = 25;
/// A chain that did not have it may have it that many blocks later.
const LOOK_AGAIN_BLOCKS: u64 = 10_000;

sol! {
    interface Multicall3 {
        struct Call3 {
            address target;
            bool allowFailure;
            bytes callData;
        }

        struct Result {
            bool success;
            bytes returnData;
        }

        function aggregate3(Call3[] calldata calls) external payable returns (Result[] memory returnData);
        function getEthBalance(address addr) external view returns (uint256 balance);
    }

    interface Erc20 {
        function balanceOf(address owner) external view returns (uint256);
    }
}

/// What was asked of one balance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Figure {
    /// Not asked, or not answered: it is to be asked for by itself.
    Unknown,
    /// The token gave no number.
    None,
    Is(U256),
}

/// The answers to a list of queries, in order.
pub(super) struct Told {
    pub figures: Vec<Figure>,
    /// The place and the figure of a native balance that is [`Figure::Unknown`] so that it is asked for by
    /// itself and compared: see [`Multicall::coin_is`].
    pub witness: Option<(usize, U256)>,
}

/// What is learnt of one chain's Multicall3.
pub(super) struct Multicall(Mutex<Learnt>);

#[derive(Clone, Copy, Debug)]
struct Learnt {
    contract: Contract,
    coin: Coin,
    at_once: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Contract {
    Unknown,
    /// It was not there at that block.
    Absent(u64),
    Present,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coin {
    Unknown,
    Same,
    /// The EVM and the nodes count in different units.
    Other,
}

impl Default for Multicall {
    fn default() -> Self {
        let contract = Contract::Unknown;
        Self(Mutex::new(Learnt { contract, coin: Coin::Unknown, at_once: AT_ONCE }))
    }
}

impl Multicall {
    /// What Multicall3 says of balances after exactly the block `at`.
    pub async fn ask(
        &self,
        endpoint: &Endpoint,
        at: BlockRef,
        queries: &[BalanceQuery],
    ) -> Result<Told, Failure> {
        let mut told = Told { figures: vec![Figure::Unknown; queries.len()], witness: None };
        let learnt = *self.0.lock();
        let look = match learnt.contract {
            Contract::Unknown => true,
            Contract::Absent(number) => at.number >= number.saturating_add(LOOK_AGAIN_BLOCKS),
            Contract::Present => false,
        };
        let asked: Vec<usize> = (0..queries.len())
            .filter(|&n| learnt.coin != Coin::Other || queries[n].asset != AssetKey::Native)
            .collect();
        if asked.len() < WORTH_IT || !(look || learnt.contract == Contract::Present) {
            return Ok(told);
        }
        let chunks: Vec<&[usize]> = asked.chunks(learnt.at_once).collect();
        let block = at_block(at);
        let mut calls = Vec::with_capacity(chunks.len() + 1);
        if look {
            calls.push(Call::new("eth_getCode", format!(r#"["{MULTICALL3:?}",{block}]"#)));
        }
        for chunk in &chunks {
            let inner =
                chunk.iter().map(|&n| asking(&queries[n])).collect::<Result<_, Failure>>()?;
            calls.push(aggregate(inner, &block));
        }
        let answers = endpoint.batch(&calls).await.inspect_err(|failure| {
            if *failure == Failure::Timeout {
                self.ask_for_less(learnt.at_once);
            }
        })?;
        let mut answers = answers.into_iter();
        if look && !self.is_there(at, answers.next())? {
            return Ok(told);
        }
        for (chunk, answer) in chunks.into_iter().zip(answers) {
            match answer {
                Ok(answer) => {
                    for (&n, figure) in chunk.iter().zip(figures(&answer, chunk.len())?) {
                        told.figures[n] = figure;
                    }
                }
                // More than the node lets one call do.
                Err(
                    Failure::Reverted
                    | Failure::TooLarge(_)
                    | Failure::Oversized { .. }
                    | Failure::Refused(_)
                    | Failure::Unsupported(_),
                ) => self.ask_for_less(learnt.at_once),
                Err(failure) => return Err(failure),
            }
        }
        if learnt.coin == Coin::Unknown {
            told.witness = queries.iter().zip(&told.figures).enumerate().find_map(
                |(n, (query, figure))| match (query.asset, figure) {
                    (AssetKey::Native, Figure::Is(wei)) if !wei.is_zero() => Some((n, *wei)),
                    _ => None,
                },
            );
            if let Some((n, _)) = told.witness {
                told.figures[n] = Figure::Unknown;
            }
        }
        Ok(told)
    }

    /// What calls of any contracts return by the newest state: `None` for one that failed. Nothing of any of them
    /// where there is no Multicall3, or where they are too much for one call.
    pub async fn returned(
        &self,
        endpoint: &Endpoint,
        calls: &[(EvmAddress, Vec<u8>)],
    ) -> Result<Vec<Option<Vec<u8>>>, Failure> {
        let nothing = || vec![None; calls.len()];
        let look = self.0.lock().contract != Contract::Present;
        if calls.len() < WORTH_IT || calls.len() > AT_ONCE {
            return Ok(nothing());
        }
        let inner = calls.iter().map(|(target, data)| (*target, data.clone())).collect();
        let mut asked = vec![aggregate(inner, LATEST)];
        if look {
            asked.push(Call::new("eth_getCode", format!(r#"["{MULTICALL3:?}",{LATEST}]"#)));
        }
        let mut answers = endpoint.batch(&asked).await?.into_iter();
        let answer = answers.next();
        if look {
            let Some(Ok(code)) = answers.next() else { return Ok(nothing()) };
            let code = code.parse::<Hex<'_>>()?.to_vec();
            if code.is_none_or(|code| keccak256(code) != CODE) {
                return Ok(nothing());
            }
        }
        let Some(Ok(answer)) = answer else { return Ok(nothing()) };
        let read = |success: bool, returned: &[u8]| success.then(|| returned.to_vec());
        results(&answer, calls.len(), MOST_RETURNED, read)
    }

    /// Whether the contract's figure of a native balance is the node's own. If not, no native balance is to
    /// be taken from the contract.
    pub fn coin_is(&self, chain: &ChainName, same: bool) {
        if !same {
            tracing::warn!(
                %chain,
                "Multicall3 has another figure of a native balance than eth_getBalance: native balances are \
                 asked for one by one"
            );
        }
        self.0.lock().coin = if same { Coin::Same } else { Coin::Other };
    }

    fn is_there(
        &self,
        at: BlockRef,
        code: Option<Result<Answer, Failure>>,
    ) -> Result<bool, Failure> {
        let code = match code {
            Some(Ok(code)) => code.parse::<Hex<'_>>()?.to_vec(),
            Some(Err(failure @ Failure::NotThere(_))) => return Err(failure),
            Some(Err(_)) | None => None,
        };
        let there = code.is_some_and(|code| keccak256(code) == CODE);
        self.0.lock().contract =
            if there { Contract::Present } else { Contract::Absent(at.number) };
        Ok(there)
    }

    /// After a call for so many balances was too much.
    fn ask_for_less(&self, than: usize) {
        let mut learnt = self.0.lock();
        learnt.at_once = learnt.at_once.min((than / 2).max(AT_ONCE_AT_LEAST));
    }
}

/// The contract that tells a balance, and how it is asked.
fn asking(query: &BalanceQuery) -> Result<(EvmAddress, Vec<u8>), Failure> {
    let owner = evm(query.address)?;
    Ok(match query.asset {
        AssetKey::Native => {
            (MULTICALL3, Multicall3::getEthBalanceCall { addr: owner }.abi_encode())
        }
        AssetKey::Token(contract) => (evm(contract)?, Erc20::balanceOfCall { owner }.abi_encode()),
    })
}

/// One call for all of these.
fn aggregate(calls: Vec<(EvmAddress, Vec<u8>)>, block: &str) -> Call {
    let calls = calls.into_iter().map(|(target, data)| Multicall3::Call3 {
        target,
        allowFailure: true,
        callData: data.into(),
    });
    let calls = Multicall3::aggregate3Call { calls: calls.collect() };
    let data = hex::encode_prefixed(calls.abi_encode());
    Call::new("eth_call", format!(r#"[{{"to":"{MULTICALL3:?}","data":"{data}"}},{block}]"#))
}

/// What one call returned of so many balances.
pub(super) fn figures(answer: &Answer, count: usize) -> Result<Vec<Figure>, Failure> {
    results(answer, count, usize::MAX, |success, returned| match <[u8; WORD]>::try_from(returned) {
        _ if !success => Figure::Unknown,
        Ok(word) => Figure::Is(U256::from_be_bytes(word)),
        Err(_) => Figure::None,
    })
}

/// What `read` makes of each of so many results: whether the call succeeded, and what it returned, at most so many
/// bytes of it. Results that share their bytes are read where they stand: they would take the square of the answer's
/// length if each had its own.
fn results<T>(
    answer: &Answer,
    count: usize,
    most: usize,
    read: impl Fn(bool, &[u8]) -> T,
) -> Result<Vec<T>, Failure> {
    let wrong = || Failure::Invalid("Multicall3 returned something else".to_owned());
    let data = answer.parse::<Hex<'_>>()?.to_vec().ok_or_else(wrong)?;
    let results = place(&data, 0).and_then(|at| data.get(at..)).ok_or_else(wrong)?;
    if place(results, 0) != Some(count) {
        return Err(wrong());
    }
    let heads = &results[WORD..];
    let one = |n: usize| {
        let (success, returned) = result(heads, n * WORD).ok_or_else(wrong)?;
        Ok(read(success, &returned[..returned.len().min(most)]))
    };
    (0..count).map(one).collect()
}

/// The result whose place stands at `at`: whether the call succeeded, and what it returned.
fn result(results: &[u8], at: usize) -> Option<(bool, &[u8])> {
    let result = results.get(place(results, at)?..)?;
    let success = place(result, 0)? != 0;
    let returned = result.get(place(result, WORD)?..)?;
    let length = place(returned, 0)?;
    Some((success, returned.get(WORD..WORD.checked_add(length)?)?))
}

/// The word that begins there, as a place or a length.
pub(super) fn place(data: &[u8], at: usize) -> Option<usize> {
    let word = data.get(at..at.checked_add(WORD)?)?;
    U256::from_be_slice(word).try_into().ok()
}
