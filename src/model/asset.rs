//! An asset on one chain.

use super::{AssetNo, WalletNo};
use crate::{
    chain::{AssetKey, ChainName},
    clock::Millis,
    string_enum::string_enum,
};

string_enum! {
    /// Why a token is set aside: what figures that its contract chose would have done to the ledger, or a person.
    QuarantineReason {
        /// A balance, or a sum of movements, would not fit in 256 bits.
        Overflow = "overflow",
        /// A balance would fall below zero.
        Shortfall = "shortfall",
        /// A person has set it aside.
        Operator = "operator",
    }
}

/// A token that is set aside: nothing of it is booked any more, and its balances stay as they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quarantine {
    pub since: Millis,
    /// The block that could not be booked; the newest one when a person set it aside.
    pub block: u64,
    pub reason: QuarantineReason,
}

/// A chain's native coin, or a token on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asset {
    pub no: AssetNo,
    pub chain: ChainName,
    pub key: AssetKey,
    pub caip19: String,
    pub symbol: Option<String>,
    pub name: Option<String>,
    pub decimals: Option<u8>,
    /// On the configured lists. Only verified assets are money; the others are only recorded.
    pub verified: bool,
    /// While it is set aside, whatever the configuration says: then it is not verified.
    pub quarantine: Option<Quarantine>,
    /// Counts what the configuration or a quarantine changed about it, from 0. An event names the version that it tells of.
    pub version: i64,
    /// How far it has been opened for the wallets that were there when it was listed; `None`: for all of them.
    pub listing: Option<Listing>,
}

/// An asset that begins to count on a chain with watches: wallet by wallet, each with an opening balance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The newest wallet when it was listed: those behind it begin with the asset.
    pub below: WalletNo,
    /// It counts for the wallets up to this one.
    pub opened_to: WalletNo,
}

impl Asset {
    /// Whether it is money in this wallet: listed, and opened for it.
    #[must_use]
    pub fn counts_for(&self, wallet: WalletNo) -> bool {
        let opened = |at: Listing| wallet <= at.opened_to || wallet > at.below;
        self.verified && self.listing.is_none_or(opened)
    }

    /// Whether the configuration says the same of both.
    #[must_use]
    pub fn same_facts(&self, other: &Self) -> bool {
        let facts = |asset: &Self| {
            let Self { caip19, symbol, name, decimals, verified, .. } = asset;
            (caip19.clone(), symbol.clone(), name.clone(), *decimals, *verified)
        };
        facts(self) == facts(other)
    }
}
