//! What one wallet holds of one asset on one chain.

use super::{AssetNo, Owner, TenantNo, WalletNo};
use crate::{
    amount::Amount,
    chain::{Address, AssetKey, BalanceQuery},
    id::WalletId,
};

/// Which balance: one wallet's, of one asset. Several wallets can have one address; each has its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BalanceRef {
    pub wallet: WalletNo,
    pub tenant: TenantNo,
    pub wallet_id: WalletId,
    pub address: Address,
    pub asset: AssetNo,
    pub key: AssetKey,
}

impl BalanceRef {
    #[must_use]
    pub const fn owner(&self) -> Owner {
        Owner {
            wallet: self.wallet,
            tenant: self.tenant,
            wallet_id: self.wallet_id,
            address: self.address,
        }
    }

    /// What the chain is asked for it; wallets of one address share it.
    #[must_use]
    pub const fn query(&self) -> BalanceQuery {
        BalanceQuery { address: self.address, asset: self.key }
    }
}

/// A balance split at the settled block, in base units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The balance at the settled block.
    pub settled: Amount,
    /// Sum of the deposits above the settled block.
    pub incoming: Amount,
    /// Sum of the withdrawals above the settled block.
    pub outgoing: Amount,
    /// What of `incoming` is available already, because it is small: see [`super::Tier`].
    pub early: Amount,
}

impl Position {
    /// A balance of which all has settled.
    #[must_use]
    pub fn of(settled: Amount) -> Self {
        Self { settled, ..Self::default() }
    }
}

/// What a user sees: `available + pending + frozen = total`, always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Buckets {
    pub available: Amount,
    pub pending: Amount,
    pub frozen: Amount,
    pub total: Amount,
}

/// A stored balance with what locks a part of it and what guards its next write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    pub position: Position,
    /// The sum of the open holds.
    pub held: Amount,
    /// What the asset's issuer has frozen, as last read from the chain.
    pub frozen: Amount,
    /// Counts writes; 0 while there is no row.
    pub version: i64,
}

impl Balance {
    /// What cannot be spent though it is there, by our holds or by the issuer. It is only compared with the
    /// settled part, so a sum past 256 bits may stay at the highest number.
    #[must_use]
    pub fn locked(&self) -> Amount {
        self.held.saturating_add(self.frozen)
    }
}
