//! Safes: which of them join an account, and what is known of them on a chain.

use crate::{
    chain::{Address, BlockRef, SafeCandidate, SafePlugs, SafeState},
    clock::Millis,
    model::BlockPoint,
    string_enum::string_enum,
};

string_enum! {
    /// Which Safes join the account of the registered owner that led to them; the others get a wallet without an
    /// account.
    AdoptSafes {
        Never = "never",
        /// Only those that their one owner alone disposes of.
        SoleOwner = "sole_owner",
        /// Every proven one, whoever else disposes of it.
        Any = "any",
    }
}

impl AdoptSafes {
    #[must_use]
    pub fn adopts(self, safe: &SafeState) -> bool {
        match self {
            Self::Never => false,
            Self::SoleOwner => safe.plain && safe.owners.len() == 1 && safe.threshold == 1,
            Self::Any => true,
        }
    }
}

/// A Safe that a known factory made and that somebody waits for, until the chain's state is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingSafe {
    pub block: BlockPoint,
    /// Its place among those of its block; with the block it names it.
    pub place: u32,
    pub claim: SafeCandidate,
    /// How often a node was asked for it in vain.
    pub looks: u32,
    /// When a node is asked next.
    pub look_at: Millis,
}

/// The owners and the threshold of a Safe that was found by its owner, as events show them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownSafe {
    pub owners: Vec<Address>,
    pub threshold: i64,
}

impl From<&SafeOnChain> for ShownSafe {
    fn from(safe: &SafeOnChain) -> Self {
        Self { owners: safe.owners.clone(), threshold: safe.threshold }
    }
}

/// What is known of a Safe on one chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SafeOnChain {
    pub version: String,
    /// What is in its slot 0.
    pub singleton: Address,
    /// Whether it is a Safe still, by its code, its singleton and its storage. If not, nothing but its singleton is
    /// known any more: the rest is as it was last proven.
    pub trusted: bool,
    pub owners: Vec<Address>,
    pub threshold: i64,
    pub plugs: SafePlugs,
    /// The block after which it was that.
    pub at: BlockRef,
}

impl SafeOnChain {
    #[must_use]
    pub fn new(state: &SafeState, at: BlockRef) -> Self {
        Self {
            version: state.version.to_owned(),
            singleton: state.singleton,
            trusted: true,
            owners: state.owners.clone(),
            threshold: i64::try_from(state.threshold).unwrap_or(i64::MAX),
            plugs: state.plugs.clone(),
            at,
        }
    }
}

/// A Safe that is watched, and when its state is read next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SafeLook {
    pub address: Address,
    /// As it was last read; `None` before the first time.
    pub known: Option<SafeOnChain>,
    /// The block after which it was first known; `None` again once that block is gone.
    pub since: Option<u64>,
    /// Counts writes of its state: its events are named by it.
    pub revision: i64,
    pub look_at: Millis,
    /// How often in a row a node was asked in vain.
    pub looks: u32,
}
