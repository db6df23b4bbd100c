//! Balances that anybody can check against the hash of a block, without a node and without us.

use std::{collections::BTreeMap, fmt, sync::Arc};

use async_trait::async_trait;

use super::{Address, AssetKey, BalanceQuery, BlockRef, ChainName, Source, SourceError};
use crate::{amount::Amount, string_enum::string_enum};

/// What leads from a block's hash to a balance. Whoever checks one takes nothing in it for true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BalanceProof {
    /// Whose balance.
    pub owner: Address,
    pub asset: AssetKey,
    /// The block's header as it is hashed.
    pub header: Vec<u8>,
    /// The nodes of the state's trie that lead to the account: the owner's, or the token's.
    pub account: Vec<Vec<u8>>,
    /// Where the token keeps the balance; `None` for the native coin, which the account has itself.
    pub storage: Option<StorageProof>,
}

/// A word of a contract's storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageProof {
    pub place: Place,
    /// The slot of the owner's balance: what `place` makes of his address.
    pub key: [u8; 32],
    /// What stands there.
    pub value: [u8; 32],
    /// The nodes of the contract's own trie that lead to it.
    pub nodes: Vec<Vec<u8>>,
}

/// Where a token keeps balances, whoever's they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    pub layout: Layout,
    /// The slot of the mapping; nothing for a layout that has none.
    pub slot: [u8; 32],
    /// So many of the word's lowest bits are the balance; above them may be something else.
    pub bits: u16,
}

string_enum! {
    /// How a slot is made of an address.
    Layout {
        /// keccak256 of the address and the mapping's slot, 32 bytes each.
        Solidity = "solidity",
        /// The same with the slot first.
        Vyper = "vyper",
        /// keccak256 of the address, 8 zero bytes and 0x87a211a2.
        Solady = "solady",
    }
}

/// What a proof shows, if its block is on the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proven {
    /// The block whose state it is, by the hash of its header.
    pub at: BlockRef,
    /// Its time, in Unix seconds.
    pub time: u64,
    pub amount: Amount,
}

/// Why something is no proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoProof(pub &'static str);

string_enum! {
    /// Why a balance has no proof.
    Unprovable {
        /// No node of the chain gives proofs that lead to the hashes of its blocks.
        NoNode = "no_node",
        /// No place in the token's storage was found that holds what its contract calls a balance.
        NoPlace = "no_place",
        /// The contract calls the balance something else than what stands in its storage.
        Differs = "differs",
    }
}

/// What a chain answers whose blocks commit to balances.
#[async_trait]
pub trait ProofSource: Send + Sync {
    /// Proves a balance after exactly the block `at`. `others` are likely to hold the asset as well: where no node lets
    /// a place in a token's storage be tried out, it is the one that holds all their balances.
    async fn prove(
        &self,
        at: BlockRef,
        query: BalanceQuery,
        others: &[Address],
    ) -> Result<Result<(BalanceProof, Proven), Unprovable>, SourceError>;

    /// The block at a height, as a node says; `None` if there is none.
    async fn block_at(&self, number: u64) -> Result<Option<BlockRef>, SourceError>;
}

/// Who proves balances, by chain: all that is asked of nodes by those who otherwise know the store only.
#[derive(Clone, Default)]
pub struct Provers(BTreeMap<ChainName, Arc<dyn Source>>);

impl Provers {
    #[must_use]
    pub fn new(sources: BTreeMap<ChainName, Arc<dyn Source>>) -> Self {
        Self(sources)
    }

    /// `None` if balances of the chain cannot be proven.
    #[must_use]
    pub fn of(&self, chain: &ChainName) -> Option<&dyn ProofSource> {
        self.0.get(chain)?.proofs()
    }
}

impl fmt::Debug for Provers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
