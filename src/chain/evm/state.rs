//! Balances, nonces and transactions as one endpoint knows them at one block.

use std::{collections::HashSet, sync::Arc};

use alloy::primitives::{Address as EvmAddress, B256, U256, keccak256};
use parking_lot::Mutex;

use super::{
    decode::address,
    json::{Hex, Quantity, Receipt, Transaction},
    multicall::{Figure, Multicall, Told},
    safe, token,
    verify::{self, Checker},
};
use crate::{
    amount::Amount,
    chain::{
        Address, AssetKey, BalanceQuery, BlockHash, BlockRef, ChainBalance, ChainName,
        SafeRejection, SafeState, TokenFacts, TxId, TxLookup,
        rpc::{Answer, Answers, Call, Endpoint, Failure, Keep, Slim},
    },
};

pub(super) const BALANCE_OF: &str = "0x70a08231";
/// How many contracts are remembered as warned about.
const MAX_WARNED: usize = 1024;

/// What is remembered of a chain between two questions.
pub(super) struct Known {
    chain: ChainName,
    multicall: Multicall,
    /// The token contracts whose `balanceOf` gave no number, so that each is named once.
    unreadable: Mutex<HashSet<EvmAddress>>,
}

impl Known {
    pub fn new(chain: ChainName) -> Self {
        Self { chain, multicall: Multicall::default(), unreadable: Mutex::default() }
    }

    /// What contracts say of themselves as tokens.
    pub async fn token_facts(
        &self,
        endpoint: &Endpoint,
        tokens: &[Address],
    ) -> Result<Vec<TokenFacts>, Failure> {
        let tokens = tokens.iter().map(|token| evm(*token)).collect::<Result<Vec<_>, _>>()?;
        token::facts(endpoint, &self.multicall, &tokens).await
    }

    fn warn_unreadable(&self, contract: EvmAddress) {
        let mut seen = self.unreadable.lock();
        if seen.len() < MAX_WARNED && seen.insert(contract) {
            tracing::warn!(
                chain = %self.chain,
                contract = %contract,
                "balanceOf gave no number; nothing is held there as far as the chain can say"
            );
        }
    }
}

/// EIP-1898: the state after exactly that block, whichever chain it is on.
pub(super) fn at_block(at: BlockRef) -> String {
    format!(r#"{{"blockHash":"{}"}}"#, B256::from(at.hash.0))
}

/// An address of this family, which has 20 bytes.
pub(super) fn evm(address: Address) -> Result<EvmAddress, Failure> {
    EvmAddress::try_from(address.as_slice())
        .map_err(|_| Failure::Refused("an address of another family".to_owned()))
}

/// What the queries' addresses hold after exactly the block `at`.
pub(super) async fn balances(
    endpoint: &Endpoint,
    known: &Known,
    at: BlockRef,
    queries: &[BalanceQuery],
) -> Result<Vec<ChainBalance>, Failure> {
    let Told { mut figures, witness } = known.multicall.ask(endpoint, at, queries).await?;
    one_by_one(endpoint, at, queries, &mut figures).await?;
    if let Some((place, figure)) = witness {
        let same = figures[place] == Figure::Is(figure);
        known.multicall.coin_is(&known.chain, same);
        if !same {
            for (query, figure) in queries.iter().zip(&mut figures) {
                if query.asset == AssetKey::Native {
                    *figure = Figure::Unknown;
                }
            }
            one_by_one(endpoint, at, queries, &mut figures).await?;
        }
    }
    queries
        .iter()
        .zip(figures)
        .map(|(query, figure)| match (figure, query.asset) {
            (Figure::Is(units), _) => Ok(Amount::new(units).into()),
            (_, AssetKey::Token(contract)) => {
                known.warn_unreadable(evm(contract)?);
                Ok(ChainBalance { unreadable: true, ..ChainBalance::default() })
            }
            (_, AssetKey::Native) => Err(Failure::Invalid("a balance is missing".to_owned())),
        })
        .collect()
}

/// Asks for each of the figures that are unknown.
async fn one_by_one(
    endpoint: &Endpoint,
    at: BlockRef,
    queries: &[BalanceQuery],
    figures: &mut [Figure],
) -> Result<(), Failure> {
    let block = at_block(at);
    let asked: Vec<usize> = (0..queries.len()).filter(|&n| figures[n] == Figure::Unknown).collect();
    let calls = asked
        .iter()
        .map(|&n| {
            let owner = evm(queries[n].address)?;
            Ok(match queries[n].asset {
                AssetKey::Native => {
                    Call::new("eth_getBalance", format!(r#"["{owner:?}",{block}]"#))
                }
                AssetKey::Token(contract) => {
                    let contract = evm(contract)?;
                    let data = format!("{BALANCE_OF}{:x}", owner.into_word());
                    Call::new(
                        "eth_call",
                        format!(r#"[{{"to":"{contract:?}","data":"{data}"}},{block}]"#),
                    )
                }
            })
        })
        .collect::<Result<Vec<_>, Failure>>()?;
    for (n, answer) in asked.into_iter().zip(endpoint.batch(&calls).await?) {
        figures[n] = match queries[n].asset {
            AssetKey::Native => Figure::Is(answer?.parse::<U256>()?),
            AssetKey::Token(_) => token_balance(answer)?.map_or(Figure::None, Figure::Is),
        };
    }
    Ok(())
}

/// What `balanceOf` returned. A contract that is not deployed yet returns nothing and holds nothing; one that
/// reverts, or returns anything but one word, says no number: `None`.
pub(super) fn token_balance(answer: Result<Answer, Failure>) -> Result<Option<U256>, Failure> {
    match answer {
        Ok(answer) => Ok(answer.parse::<Hex<'_>>()?.to_array().map(U256::from_be_bytes::<32>)),
        Err(Failure::Reverted) => Ok(None),
        Err(failure) => Err(failure),
    }
}

pub(super) async fn next_nonce(
    endpoint: &Endpoint,
    sender: Address,
    at: BlockRef,
) -> Result<u64, Failure> {
    let params = format!(r#"["{:?}",{}]"#, evm(sender)?, at_block(at));
    let Quantity(nonce) =
        endpoint.call(Call::new("eth_getTransactionCount", params)).await?.parse()?;
    Ok(nonce)
}

pub(super) async fn safe_state(
    endpoint: &Endpoint,
    address: Address,
    at: BlockRef,
) -> Result<Result<SafeState, SafeRejection>, Failure> {
    let calls = safe::questions(evm(address)?, B256::from(at.hash.0));
    safe::judge(endpoint.batch(&calls).await?)
}

/// The address in slot 0 of a contract's storage; `None` if there is none.
pub(super) async fn singleton(
    endpoint: &Endpoint,
    address: Address,
    at: BlockRef,
) -> Result<Option<Address>, Failure> {
    let question = safe::slot(evm(address)?, B256::ZERO, &at_block(at));
    Ok(safe::plugged(safe::stored(endpoint.call(question).await)?))
}

/// The hash of the code at each address, read one by one: a contract is large.
pub(super) async fn code_hashes(
    endpoint: &Endpoint,
    addresses: &[Address],
    at: BlockRef,
) -> Result<Vec<Option<[u8; 32]>>, Failure> {
    let mut hashes = Vec::with_capacity(addresses.len());
    for address in addresses {
        let params = format!(r#"["{:?}",{}]"#, evm(*address)?, at_block(at));
        let code = endpoint.call(Call::new("eth_getCode", params)).await?;
        let code = code.parse::<Hex<'_>>()?.to_vec();
        let code = code.ok_or_else(|| Failure::Invalid("not hexadecimal".to_owned()))?;
        hashes.push((!code.is_empty()).then(|| keccak256(&code).0));
    }
    Ok(hashes)
}

/// A receipt and the block number that the block itself does not need to repeat.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Place {
    block_number: Quantity,
}

pub(super) async fn transaction(
    endpoint: &Endpoint,
    checker: &Checker,
    slim: &Arc<Slim>,
    tx: TxId,
) -> Result<TxLookup, Failure> {
    let hash = B256::try_from(tx.as_slice())
        .map_err(|_| Failure::Refused("a transaction of another family".to_owned()))?;
    let params = format!(r#"["{hash}"]"#);
    let calls = [
        Call::new("eth_getTransactionByHash", params.clone()),
        Call::new("eth_getTransactionReceipt", params),
    ];
    mined(checker, tx, endpoint.batch_keeping(&calls, Keep::AllOrRead(slim)).await?)
}

/// What the answers about a transaction, its own and its receipt's, say together.
pub(super) fn mined(checker: &Checker, tx: TxId, answers: Answers) -> Result<TxLookup, Failure> {
    let hash = B256::try_from(tx.as_slice())
        .map_err(|_| Failure::Refused("a transaction of another family".to_owned()))?;
    let Ok([found, receipt]) = <[_; 2]>::try_from(answers) else {
        return Err(Failure::Invalid("an answer is missing".to_owned()));
    };
    let found = found?;
    let found: Option<Transaction<'_>> = found.parse()?;
    // One endpoint may not have heard of it while another has.
    let found = found.ok_or_else(|| Failure::NotThere(format!("transaction {hash}")))?;
    let wrong = |detail: &str| Failure::untrusted("receipt_links", detail);
    if found.hash != hash {
        return Err(wrong("another transaction was returned"));
    }
    checker.transaction(&found)?;
    let receipt = match receipt {
        Ok(receipt) => receipt,
        Err(Failure::NotThere(_)) => return lookup(&found, None),
        // Whoever asks for it has chosen it: nobody else waits for it. Its block tells, if it can be read.
        Err(failure) if failure.is_size() => return lookup(&found, None),
        Err(failure) => return Err(failure),
    };
    let Some(mined) = receipt.parse::<Option<Receipt<'_>>>()? else {
        return lookup(&found, None);
    };
    if mined.transaction_hash != hash {
        return Err(wrong("the receipt of another transaction was returned"));
    }
    let success = mined.success().ok_or_else(|| {
        Failure::Invalid("a receipt does not say whether it succeeded".to_owned())
    })?;
    let Place { block_number: Quantity(number) } = receipt.parse()?;
    verify::height(number)?;
    let at = BlockRef { number, hash: BlockHash(mined.block_hash.0) };
    let mut safes = Vec::new();
    if success {
        safe::candidates(tx, &safe::early_owners(&found), &mined, &mut safes);
    }
    lookup(&found, Some((at, success, safes)))
}

fn lookup(
    tx: &Transaction<'_>,
    mined: Option<(BlockRef, bool, Vec<crate::chain::SafeCandidate>)>,
) -> Result<TxLookup, Failure> {
    let sender = address(tx.from.unwrap_or_default());
    Ok(TxLookup { sender, nonce: verify::nonce(tx.nonce)?, mined })
}
