//! The values that the whole daemon shares: what a wallet holds, what moved, and how far a chain is.
//!
//! Plain data: no I/O, no clock, no SQL. The rules about them live in [`crate::ledger`]; [`crate::store`]
//! maps rows to them and back.

mod account;
mod asset;
mod balance;
mod chain;
mod cursor;
mod deployment;
mod journal;
mod number;
mod ordinal;
mod registration;
mod safe;
mod tier;
mod transfer;
mod wallet;
mod watch;

pub use account::LocatorKind;
pub use asset::{Asset, Listing, Quarantine, QuarantineReason};
pub use balance::{Balance, BalanceRef, Buckets, Position};
pub use chain::ChainInfo;
pub use cursor::{BlockPoint, Cursor};
pub use deployment::{Deployment, DeploymentStatus};
pub use journal::{
    BookedEntry, CommitKind, JournalCommit, JournalHash, JournalHead, Rewind, RewindOrder,
};
pub use number::{AssetNo, ChainNo, ScanNo, TenantNo, TransferNo, WalletNo};
pub use ordinal::{ordinal_bytes, read_ordinal};
pub use registration::{AccountKey, LocatorKey, NewWatch, Registrations, WatchKey};
pub use safe::{AdoptSafes, SafeLook, SafeOnChain, ShownSafe, WaitingSafe};
pub use tier::Tier;
pub use transfer::{Direction, Entry, EntryKind, Reason, SettledBy, Status, Transfer};
pub use wallet::{NewWallet, SafeFacts, Wallet, WalletChain, WalletKind, WalletRef, WalletStatus};
pub use watch::{HistoryStatus, Owner, Watch, WatchStatus};
