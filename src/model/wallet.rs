//! A wallet with its watches, as its tenant sees it.

use super::{HistoryStatus, SafeOnChain, ShownSafe, TenantNo, WalletNo, WatchStatus};
use crate::{
    chain::{Address, ChainName, Family, HistoryMethod},
    clock::Millis,
    id::{AccountId, TenantId, WalletId},
    string_enum::string_enum,
};

string_enum! {
    /// What an address is.
    WalletKind {
        Eoa = "eoa",
        Safe = "safe",
        Contract = "contract",
    }
}

string_enum! {
    /// Where a wallet stands as a whole.
    WalletStatus {
        /// No watch has begun.
        Pending = "pending",
        Active = "active",
        Disabled = "disabled",
    }
}

/// The facts of a Safe as last proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SafeFacts {
    /// Whether it became a wallet because one of its owners is registered.
    pub found_by_owner: bool,
    pub version: Option<String>,
    pub singleton: Option<Address>,
    pub owners: Vec<Address>,
    pub threshold: Option<i64>,
}

/// One chain of a wallet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalletChain {
    pub chain: ChainName,
    pub status: WatchStatus,
    pub from_block: Option<u64>,
    pub history: Option<HistoryStatus>,
    /// How the history is found, once somebody has begun.
    pub history_method: Option<HistoryMethod>,
    /// The block with whose balances the watch began, once it has, and its time where that was kept.
    pub opened: Option<u64>,
    pub opened_time: Option<Millis>,
    /// The first block from which on the transfers are all there, once the watch has begun.
    pub covered_from: Option<u64>,
    /// The highest block of the history of which nobody told what moved inside its transactions, if there is one.
    pub untraced: Option<u64>,
    /// The newest applied block, if the chain has begun.
    pub head: Option<u64>,
    /// How far a Safe's deployment there has come: the one that has come farthest, of these the newest.
    pub deployment: Option<String>,
    /// What is known of the Safe there.
    pub safe: Option<SafeOnChain>,
}

impl WalletChain {
    /// The first block from which on internal transfers are in the history; `None` where none was asked for, and where
    /// it is found by logs: no log shows the native coin.
    #[must_use]
    pub fn internal_from(&self) -> Option<u64> {
        let method = self.history_method?;
        let covered = self.covered_from.filter(|_| method != HistoryMethod::Logs)?;
        Some(self.untraced.map_or(covered, |untraced| covered.max(untraced + 1)))
    }
}

/// A wallet and its watches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wallet {
    pub no: WalletNo,
    pub id: WalletId,
    pub tenant_id: TenantId,
    pub account_id: Option<AccountId>,
    pub family: Family,
    pub address: Address,
    pub kind: WalletKind,
    pub client_reference_id: Option<String>,
    pub nickname: Option<String>,
    pub is_primary: bool,
    pub disabled_at: Option<Millis>,
    pub rotated_at: Option<Millis>,
    pub replaced_by: Option<WalletId>,
    pub safe: Option<SafeFacts>,
    pub created_at: Millis,
    pub updated_at: Millis,
    /// By name.
    pub chains: Vec<WalletChain>,
}

impl Wallet {
    #[must_use]
    pub fn status(&self) -> WalletStatus {
        let open = self.chains.iter().any(|on| on.status == WatchStatus::Open);
        match (self.disabled_at, open) {
            (Some(_), _) => WalletStatus::Disabled,
            (None, true) => WalletStatus::Active,
            (None, false) => WalletStatus::Pending,
        }
    }
}

/// What of a wallet events name it by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalletRef {
    pub id: WalletId,
    pub family: Family,
    pub address: Address,
    pub account_id: Option<AccountId>,
    pub client_reference_id: Option<String>,
    /// For a Safe that was found by its owner.
    pub safe: Option<ShownSafe>,
}

/// A wallet about to be registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewWallet {
    pub id: WalletId,
    pub tenant: TenantNo,
    pub tenant_id: TenantId,
    pub account_id: Option<AccountId>,
    pub family: Family,
    pub address: Address,
    pub kind: WalletKind,
    /// What is known of a Safe, deployed or not.
    pub safe: Option<SafeFacts>,
    pub client_reference_id: Option<String>,
    pub nickname: Option<String>,
    pub is_primary: bool,
}

impl NewWallet {
    /// The wallet as it stands once it is made, with the request to watch it on `chains`.
    #[must_use]
    pub fn requested(&self, chains: Vec<WalletChain>, now: Millis) -> Wallet {
        Wallet {
            no: WalletNo::default(),
            id: self.id,
            tenant_id: self.tenant_id,
            account_id: self.account_id,
            family: self.family,
            address: self.address,
            kind: self.kind,
            client_reference_id: self.client_reference_id.clone(),
            nickname: self.nickname.clone(),
            is_primary: self.is_primary,
            disabled_at: None,
            rotated_at: None,
            replaced_by: None,
            safe: self.safe.clone(),
            created_at: now,
            updated_at: now,
            chains,
        }
    }
}
