//! An asset on one chain.

use super::AssetNo;
use crate::chain::{AssetKey, ChainName};

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
    /// Counts what the configuration changed about it, from 0. An event names the version that it tells of.
    pub version: i64,
}

impl Asset {
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
