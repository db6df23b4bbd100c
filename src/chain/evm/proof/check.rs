//! Whether a proof holds. Nothing is asked of anybody, and all of it may be a stranger's.

use alloy::{
    consensus::Header,
    primitives::{B256, U256, keccak256},
    rlp::{self, Decodable as _},
};
use alloy_trie::EMPTY_ROOT_HASH;

use super::{account_at, place, word_at};
use crate::{
    amount::Amount,
    chain::{
        AssetKey, BalanceProof, BlockHash, BlockRef, NoProof, Proven, StorageProof, evm::state::evm,
    },
};

/// What a proof shows, if its block is on the chain.
///
/// # Errors
/// What in it does not hold.
pub(in crate::chain::evm) fn check(proof: &BalanceProof) -> Result<Proven, NoProof> {
    let BalanceProof { owner, asset, header: encoded, account, storage } = proof;
    let owner = evm(*owner).map_err(|_| NoProof("the address is not one of an EVM chain"))?;
    let header = header(encoded)?;
    let at = BlockRef { number: header.number, hash: BlockHash(keccak256(encoded).0) };
    let whose = match asset {
        AssetKey::Native => owner,
        AssetKey::Token(contract) => {
            evm(*contract).map_err(|_| NoProof("the token is not one of an EVM chain"))?
        }
    };
    let account = account_at(header.state_root, whose, account)
        .map_err(|_| NoProof("the account proof does not lead from the header's state root"))?;
    let amount = match (asset, storage) {
        (AssetKey::Native, None) => account.map_or(U256::ZERO, |account| account.balance),
        (AssetKey::Token(_), Some(storage)) => {
            if storage.key != place::key(storage.place, owner).0 {
                return Err(NoProof("the storage slot is not that of the address's balance"));
            }
            let root = account.map_or(EMPTY_ROOT_HASH, |account| account.storage_root);
            stored(root, storage)?
        }
        (AssetKey::Native, Some(_)) => {
            return Err(NoProof("a storage proof shows nothing of the native coin"));
        }
        (AssetKey::Token(_), None) => return Err(NoProof("a storage proof is missing")),
    };
    Ok(Proven { at, time: header.timestamp, amount: Amount::new(amount) })
}

fn header(encoded: &[u8]) -> Result<Header, NoProof> {
    const BAD: NoProof = NoProof("the header is none");
    let mut rest = encoded;
    let header = Header::decode(&mut rest).map_err(|_| BAD)?;
    // Two headers must not be read from one hash, nor one from two.
    let is_it = rest.is_empty() && rlp::encode(&header) == encoded;
    if is_it && header.number <= BlockRef::MAX_HEIGHT { Ok(header) } else { Err(BAD) }
}

/// The balance in a word of the storage with that root.
fn stored(root: B256, storage: &StorageProof) -> Result<U256, NoProof> {
    let StorageProof { place, key, value, nodes } = storage;
    let word = word_at(root, B256::from(*key), nodes)
        .map_err(|_| NoProof("the storage proof does not lead from the account's storage root"))?;
    if word != U256::from_be_bytes(*value) {
        return Err(NoProof("another value stands in the storage slot"));
    }
    place::balance(*place, word).ok_or(NoProof("a word has no such bits"))
}
