//! Where the head of a chain is and what is in its blocks, in words that fit every family.
//!
//! A chain family is a folder here with one [`Source`]. It owns everything that differs: transport,
//! decoding, verification, addresses as text. Whoever calls a source sees only the types of this module.
//! Nothing here knows the registry or the database: a block carries *all* its movements, and the follower
//! picks what touches a watched address at the moment it connects the block, so that blocks fetched ahead
//! stay right while registrations come and go.

mod address;
mod base58;
mod block;
mod certainty;
pub mod evm;
mod family;
mod name;
mod priority;
mod proof;
pub(crate) mod rpc;
mod safe_plan;
pub mod sign_in;
mod signature;
pub mod solana;
mod source;
#[cfg(test)]
mod testing;

pub use address::{Address, AddressError, BadValue, BlockHash, PackedAddresses, TxId};
pub use block::{
    Beside, Block, BlockRef, Excess, Header, Kind, Movement, Ordinal, Senders, Signature, Traced,
    TxFact,
};
pub use certainty::Certainty;
pub use family::{Defaults, Family, Identity, Rules};
pub use name::{AssetKey, ChainName};
pub use priority::Priority;
pub use proof::{
    BalanceProof, Layout, NoProof, Place, ProofSource, Proven, Provers, StorageProof, Unprovable,
};
pub use rpc::SetupError;
pub use safe_plan::{
    PlanError, PlannedSafe, SafeContract, SafeLayer, SafePlan, SafeRelease, SafeRole,
};
pub use signature::SignatureError;
pub use source::{
    AddressIndex, Announced, BalanceQuery, ChainBalance, DailyUse, HistoryBlock, HistoryMethod,
    LogIndex, SafeCandidate, SafePlugs, SafeRejection, SafeSource, SafeState, Settlement,
    SettlementTag, Source, SourceError, TokenFacts, TokenSource, TraceAbility, TxLookup, Watching,
};
