//! What booking has to know of a chain.

use super::Tier;
use crate::chain::{AssetKey, ChainName, Family, Settlement};

#[derive(Clone, Debug)]
pub struct ChainInfo {
    pub name: ChainName,
    pub family: Family,
    pub caip2: String,
    /// The native coin's SLIP-44 coin type.
    pub slip44: u32,
    /// Safes found by one owner that become wallets.
    pub safes_per_owner: u64,
    /// When a block is called irreversible.
    pub settlement: Settlement,
    /// Which deposits are available before that; those of an asset by their confirmations, the fewest first.
    pub tiers: Vec<Tier>,
}

impl ChainInfo {
    /// An asset's CAIP-19 id.
    #[must_use]
    pub fn caip19(&self, asset: &AssetKey) -> String {
        self.family.caip19(&self.caip2, self.slip44, asset)
    }
}
