//! What is asked for and added when wallets are registered.

use super::{ChainNo, LocatorKind, NewWallet};
use crate::{
    chain::{Address, Family},
    id::{AccountId, TenantId, WalletId},
    model::TenantNo,
};

/// An address that a tenant watches on a chain.
pub type WatchKey = (TenantNo, ChainNo, Address);
/// An account by its external id.
pub type AccountKey = (TenantId, String);
/// An account by what names it besides its external id.
pub type LocatorKey = (TenantId, LocatorKind, String);

/// The request to watch a wallet's address on a chain, with the history since `from_block` if one is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewWatch {
    pub key: WatchKey,
    pub wallet: WalletId,
    pub from_block: Option<u64>,
}

/// What registrations add. Every key of it must be new.
#[derive(Clone, Debug, Default)]
pub struct Registrations {
    pub accounts: Vec<(AccountKey, AccountId)>,
    pub locators: Vec<(LocatorKey, AccountId)>,
    pub wallets: Vec<NewWallet>,
    pub watches: Vec<NewWatch>,
    /// Accounts that exist already and get another primary wallet of a family: those before are demoted.
    pub primaries: Vec<(AccountId, Family)>,
}
