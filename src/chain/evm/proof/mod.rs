//! Balances proven against the state root of the block's own header (EIP-1186, `eth_getProof`).
//!
//! A node can withhold a proof, but not forge one: the header hashes to the block's hash, its state root commits
//! to every account, and an account to its storage. What a word of a token's storage means, only its contract can
//! say, and that is a node's word: so a proof shows a token's balance to whoever knows the contract, but never
//! decides here about money. A proof of the native coin does.
//!
//! | file | what it owns |
//! |---|---|
//! | `trie` | what a trie has under a key |
//! | `place` | where tokens keep balances |
//! | `probe` | the place of one token, found by asking a node |
//! | `check` | whether a proof holds, without a node |

mod check;
mod place;
mod probe;
mod trie;

use alloy::{
    consensus::constants::KECCAK_EMPTY,
    primitives::{Address as EvmAddress, B256, Bytes, U256},
    rlp::{self, Decodable as _},
};
use alloy_trie::{EMPTY_ROOT_HASH, TrieAccount};
use serde::{Deserialize, de::IgnoredAny};

pub(super) use check::{check, how_to_check};
pub(super) use probe::Places;
#[cfg(test)]
pub(super) use trie::tests::trie;

use super::{
    json::{Block, Quantity},
    state::{evm, token_balance},
    verify,
};
use crate::chain::{
    Address, AssetKey, BalanceProof, BalanceQuery, BlockRef, Proven, StorageProof, Unprovable,
    rpc::{Answer, Call, Endpoint, Failure},
};

/// The part of an EIP-1186 answer that concerns the account itself.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Account {
    #[serde(rename = "accountProof")]
    nodes: Vec<Bytes>,
    balance: U256,
    nonce: Quantity,
    storage_hash: B256,
    code_hash: B256,
}

/// The part that concerns its storage.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Storage {
    storage_proof: Vec<Word>,
}

#[derive(Debug, Deserialize)]
struct Word {
    value: U256,
    proof: Vec<Bytes>,
}

/// The native balances of addresses after exactly the block `at`, one each; `None` for one without a proof.
///
/// # Errors
/// Without the block's header, or where it is not what its hash says: nothing can be proven then.
pub(super) async fn balances(
    endpoint: &Endpoint,
    at: BlockRef,
    addresses: &[Address],
) -> Result<Vec<Option<U256>>, Failure> {
    let header = header(&endpoint.call(asking_header(at)).await?, at)?;
    let owners = addresses.iter().map(|address| evm(*address)).collect::<Result<Vec<_>, _>>()?;
    let calls: Vec<Call> = owners.iter().map(|owner| asking_proof(*owner, None, at)).collect();
    let answers = endpoint.batch(&calls).await?;
    Ok(owners
        .into_iter()
        .zip(answers)
        .map(|(owner, answer)| proven(header.state_root, owner, &answer.ok()?.parse().ok()?))
        .collect())
}

fn asking_header(at: BlockRef) -> Call {
    Call::new("eth_getBlockByHash", format!(r#"["{}",false]"#, B256::from(at.hash.0)))
}

/// By number: nodes that know no EIP-1898 have proofs all the same, and another branch's does not verify.
fn asking_proof(of: EvmAddress, key: Option<B256>, at: BlockRef) -> Call {
    let keys = key.map_or_else(String::new, |key| format!(r#""{key}""#));
    Call::new("eth_getProof", format!(r#"["{of:?}",[{keys}],"{:#x}"]"#, at.number))
}

/// The header of the block `at`, if it is what its hash says.
fn header(answer: &Answer, at: BlockRef) -> Result<alloy::consensus::Header, Failure> {
    let hash = B256::from(at.hash.0);
    let block: Option<Block<IgnoredAny>> = answer.parse()?;
    let block = block.ok_or_else(|| Failure::NotThere(format!("block {hash}")))?;
    if block.hash != hash || !verify::is_what_its_hash_says(&block) {
        return Err(Failure::Unsupported("the header's hash is not that of its fields".to_owned()));
    }
    Ok(verify::header(&block))
}

/// The balance, if the proof leads from the root to it.
pub(super) fn proven(root: B256, owner: EvmAddress, account: &Account) -> Option<U256> {
    let Account { nodes, balance, nonce, storage_hash, code_hash } = account;
    let told = TrieAccount {
        nonce: nonce.0,
        balance: *balance,
        storage_root: *storage_hash,
        code_hash: *code_hash,
    };
    // Nodes show an account that is not there as an empty one, or with zeros for its hashes.
    let is_empty = balance.is_zero()
        && nonce.0 == 0
        && [EMPTY_ROOT_HASH, B256::ZERO].contains(storage_hash)
        && [KECCAK_EMPTY, B256::ZERO].contains(code_hash);
    let found = account_at(root, owner, nodes).ok()?;
    found.map_or(is_empty, |found| found == told).then_some(*balance)
}

/// The account that a state root has for an address; `None` if it has none.
fn account_at<N: AsRef<[u8]>>(
    root: B256,
    address: EvmAddress,
    nodes: &[N],
) -> Result<Option<TrieAccount>, trie::Broken> {
    let decode = |mut value: &[u8]| {
        let account = TrieAccount::decode(&mut value).map_err(|_| trie::Broken)?;
        if value.is_empty() { Ok(account) } else { Err(trie::Broken) }
    };
    trie::find(root, address.as_slice(), nodes)?.as_deref().map(decode).transpose()
}

/// The word that an account's storage has in a slot; zero if nothing is there.
fn word_at<N: AsRef<[u8]>>(root: B256, key: B256, nodes: &[N]) -> Result<U256, trie::Broken> {
    let Some(value) = trie::find(root, key.as_slice(), nodes)? else { return Ok(U256::ZERO) };
    let mut rest = value.as_slice();
    let word = U256::decode(&mut rest).map_err(|_| trie::Broken)?;
    if rest.is_empty() { Ok(word) } else { Err(trie::Broken) }
}

/// A proof of one balance after exactly the block `at`, as one endpoint gives it.
///
/// # Errors
/// Also [`Failure::Untrusted`] where what it gives proves nothing.
pub(super) async fn prove(
    endpoint: &Endpoint,
    places: &Places,
    at: BlockRef,
    query: BalanceQuery,
    others: &[Address],
) -> Result<Result<(BalanceProof, Proven), Unprovable>, Failure> {
    let owner = evm(query.address)?;
    let AssetKey::Token(contract) = query.asset else {
        let calls = [asking_header(at), asking_proof(owner, None, at)];
        let [header_told, account] = answers(endpoint, &calls).await?;
        let header = rlp::encode(header(&header_told?, at)?);
        let Account { nodes, .. } = account?.parse()?;
        return checked(at, query, header, nodes, None).map(Ok);
    };
    let contract = evm(contract)?;
    let others = others.iter().map(|address| evm(*address)).collect::<Result<Vec<_>, _>>()?;
    // What was found once is found again if the contract keeps its balances elsewhere by now.
    for is_again in [false, true] {
        if is_again {
            places.forget(contract);
        }
        let place = places.of(endpoint, at, contract, owner, &others).await?;
        let Some(place) = place else { return Ok(Err(Unprovable::NoPlace)) };
        let key = place::key(place, owner);
        let asked = probe::asking_balance(contract, owner, at, None);
        let calls = [asking_header(at), asking_proof(contract, Some(key), at), asked];
        let [header_told, account, figure] = answers(endpoint, &calls).await?;
        let header = rlp::encode(header(&header_told?, at)?);
        let account = account?;
        let Account { nodes, .. } = account.parse()?;
        let Storage { storage_proof } = account.parse()?;
        let Ok([Word { value, proof }]) = <[Word; 1]>::try_from(storage_proof) else {
            return Err(Failure::Invalid("a storage proof is missing".to_owned()));
        };
        let value = value.to_be_bytes();
        let storage = StorageProof { place, key: key.0, value, nodes: bytes(proof) };
        let found = checked(at, query, header, nodes, Some(storage))?;
        if token_balance(figure)? == Some(found.1.amount.get()) {
            return Ok(Ok(found));
        }
    }
    Ok(Err(Unprovable::Differs))
}

/// What is given away is what whoever checks it takes.
fn checked(
    at: BlockRef,
    query: BalanceQuery,
    header: Vec<u8>,
    account: Vec<Bytes>,
    storage: Option<StorageProof>,
) -> Result<(BalanceProof, Proven), Failure> {
    let BalanceQuery { address: owner, asset } = query;
    let proof = BalanceProof { owner, asset, header, account: bytes(account), storage };
    match check(&proof) {
        Ok(proven) if proven.at == at => Ok((proof, proven)),
        Ok(_) => Err(Failure::untrusted("balance_proof", "the proof is of another block")),
        Err(error) => Err(Failure::untrusted("balance_proof", error.to_string())),
    }
}

fn bytes(nodes: Vec<Bytes>) -> Vec<Vec<u8>> {
    nodes.into_iter().map(|node| node.to_vec()).collect()
}

/// One answer for each of the calls.
async fn answers<const N: usize>(
    endpoint: &Endpoint,
    calls: &[Call; N],
) -> Result<[Result<Answer, Failure>; N], Failure> {
    let answers = endpoint.batch(calls).await?;
    answers.try_into().map_err(|_| Failure::Invalid("an answer is missing".to_owned()))
}
