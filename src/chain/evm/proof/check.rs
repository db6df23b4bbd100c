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
        AssetKey, BalanceProof, BlockHash, BlockRef, Layout, NoProof, Place, Proven, StorageProof,
        evm::state::evm,
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
            let Place { layout, slot, .. } = storage.place;
            // A slot where there is none would be shown as if it meant something.
            let is_named = layout != Layout::Solady || slot == [0; 32];
            if !is_named || storage.key != place::key(storage.place, owner).0 {
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
    place::balance(*place, word).ok_or(NoProof("no balance has so many bits"))
}

/// The steps of [`check`] in words, and what stays open.
pub(in crate::chain::evm) fn how_to_check(proof: &BalanceProof) -> Vec<String> {
    let mut steps = vec![
        "keccak256 of header is block.hash. Item 4 of its RLP list is the state root, items 9 and 12 are number and \
         time."
            .to_owned(),
        "accountProof leads from the state root along keccak256 of account to the RLP list of nonce, balance, storage \
         root and code hash (EIP-1186); where it ends before, there is no account and nothing is held."
            .to_owned(),
    ];
    match &proof.storage {
        None => steps.push("That balance is balance.raw.".to_owned()),
        Some(StorageProof { place, .. }) => {
            let made = match place.layout {
                Layout::Solidity => "the address and place.slot, 32 bytes each",
                Layout::Vyper => "place.slot and the address, 32 bytes each",
                Layout::Solady => "the address (20 bytes), 8 zero bytes and 0x87a211a2",
            };
            steps.push(format!("storageProof[0].key is keccak256 of {made}."));
            steps.push(
                "storageProof[0].proof leads from that storage root along keccak256 of the key to the RLP of value; \
                 where it ends before, the value is 0."
                    .to_owned(),
            );
            let bits = place.bits;
            steps.push(format!("The lowest {bits} bits of the value are balance.raw."));
            steps.push(
                "Not shown: that the contract keeps balances in that place. Look into its source code, or call \
                 balanceOf at that block."
                    .to_owned(),
            );
        }
    }
    steps.push(
        "Not shown: that the block is on the chain. Compare its hash with a source that you trust."
            .to_owned(),
    );
    steps
}
