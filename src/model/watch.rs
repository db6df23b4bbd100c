//! Which wallet's address is followed on which chain, and since which block.

use super::{TenantNo, WalletNo};
use crate::{
    chain::Address,
    id::{TenantId, WalletId},
    string_enum::string_enum,
};

string_enum! {
    /// How far the watch of an address has come.
    WatchStatus {
        Requested = "requested",
        Open = "open",
        /// The tenant deleted the wallet; the follower has yet to close the watch.
        Closing = "closing",
        Closed = "closed",
    }
}

string_enum! {
    /// How far the history of a watch from before it began is.
    HistoryStatus {
        /// Not yet looked up to its first block.
        Wanted = "wanted",
        /// All of it stands among the transfers.
        Complete = "complete",
        /// No node could prove all of it; an opening balance stands for the rest.
        Incomplete = "incomplete",
    }
}

/// The wallet whose side of a movement is booked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    pub wallet: WalletNo,
    pub tenant: TenantNo,
    pub wallet_id: WalletId,
    pub address: Address,
}

/// A watch with what booking needs to know of its wallet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    pub wallet: WalletNo,
    pub tenant: TenantNo,
    pub wallet_id: WalletId,
    pub tenant_id: TenantId,
    pub address: Address,
    /// Whether the wallet is an ordinary account, one that can own a Safe.
    pub is_eoa: bool,
    /// Whether `wallet.activated` was told already.
    pub activated: bool,
}

impl Watch {
    #[must_use]
    pub const fn owner(&self) -> Owner {
        Owner {
            wallet: self.wallet,
            tenant: self.tenant,
            wallet_id: self.wallet_id,
            address: self.address,
        }
    }
}
