//! Balances proven against the state root of the block's own header (EIP-1186, `eth_getProof`).
//!
//! A node can withhold a proof, but not forge one: the header hashes to the block's hash, its state root commits
//! to every account. Only the native coin is proven: where a token keeps its balances no standard says.

use alloy::{
    consensus::constants::KECCAK_EMPTY,
    primitives::{Address as EvmAddress, B256, Bytes, U256, keccak256},
    rlp,
};
use alloy_trie::{EMPTY_ROOT_HASH, Nibbles, TrieAccount, proof::verify_proof};
use serde::{Deserialize, de::IgnoredAny};

use super::{
    json::{Block, Quantity},
    state::evm,
    verify,
};
use crate::chain::{
    Address, BlockRef,
    rpc::{Call, Endpoint, Failure},
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

/// The native balances of addresses after exactly the block `at`, one each; `None` for one without a proof.
///
/// # Errors
/// Without the block's header, or where it is not what its hash says: nothing can be proven then.
pub(super) async fn balances(
    endpoint: &Endpoint,
    at: BlockRef,
    addresses: &[Address],
) -> Result<Vec<Option<U256>>, Failure> {
    let root = state_root(endpoint, at).await?;
    // By number: nodes that know no EIP-1898 have proofs all the same, and another branch's does not verify.
    let number = format!("{:#x}", at.number);
    let owners = addresses.iter().map(|address| evm(*address)).collect::<Result<Vec<_>, _>>()?;
    let calls: Vec<Call> = owners
        .iter()
        .map(|owner| Call::new("eth_getProof", format!(r#"["{owner:?}",[],"{number}"]"#)))
        .collect();
    let answers = endpoint.batch(&calls).await?;
    Ok(owners
        .into_iter()
        .zip(answers)
        .map(|(owner, answer)| proven(root, owner, &answer.ok()?.parse().ok()?))
        .collect())
}

async fn state_root(endpoint: &Endpoint, at: BlockRef) -> Result<B256, Failure> {
    let hash = B256::from(at.hash.0);
    let answer = endpoint.call(Call::new("eth_getBlockByHash", format!(r#"["{hash}",false]"#)));
    let block: Option<Block<IgnoredAny>> = answer.await?.parse()?;
    let block = block.ok_or_else(|| Failure::NotThere(format!("block {hash}")))?;
    if block.hash != hash || !verify::is_what_its_hash_says(&block) {
        return Err(Failure::Unsupported("the header's hash is not that of its fields".to_owned()));
    }
    Ok(block.state_root)
}

/// The balance, if the proof leads from the root to it.
pub(super) fn proven(root: B256, owner: EvmAddress, account: &Account) -> Option<U256> {
    let Account { nodes, balance, nonce, storage_hash, code_hash } = account;
    let value = TrieAccount {
        nonce: nonce.0,
        balance: *balance,
        storage_root: *storage_hash,
        code_hash: *code_hash,
    };
    // Nodes show an account that is not there as an empty one, or with zeros for its hashes.
    let empty = balance.is_zero()
        && nonce.0 == 0
        && [EMPTY_ROOT_HASH, B256::ZERO].contains(storage_hash)
        && [KECCAK_EMPTY, B256::ZERO].contains(code_hash);
    let key = || Nibbles::unpack(keccak256(owner));
    let there = verify_proof(root, key(), Some(rlp::encode(value)), nodes).is_ok();
    let absent = || empty && verify_proof(root, key(), None, nodes).is_ok();
    (there || absent()).then_some(*balance)
}
