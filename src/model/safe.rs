//! Safes that are found because one of their owners is registered.

use crate::{
    chain::{Address, SafeCandidate, SafeState},
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

impl From<&SafeState> for ShownSafe {
    fn from(state: &SafeState) -> Self {
        let threshold = i64::try_from(state.threshold).unwrap_or(i64::MAX);
        Self { owners: state.owners.clone(), threshold }
    }
}
