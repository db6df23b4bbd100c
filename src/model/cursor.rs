//! How far a chain is applied and settled.

use super::{ChainNo, JournalHead};
use crate::{
    chain::{BlockRef, ChainName, Family, Header},
    clock::Millis,
};

/// A block and its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockPoint {
    pub at: BlockRef,
    pub time: Millis,
}

impl From<&Header> for BlockPoint {
    fn from(header: &Header) -> Self {
        Self { at: header.at, time: Millis::from_seconds(header.time) }
    }
}

/// Where a chain stands in the store. A commit moves it only where it still is what the commit built upon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    pub no: ChainNo,
    pub chain: ChainName,
    pub family: Family,
    pub caip2: String,
    pub head: BlockPoint,
    pub settled: BlockPoint,
    /// Why the chain stands still until a person acts.
    pub halted: Option<String>,
    /// The fencing number of whoever follows the chain: a commit with an older one changes nothing.
    pub epoch: i64,
    /// How many transfers and assets were booked on this chain: what the next one's number is made of.
    pub transfers: u64,
    pub assets: u64,
    /// The newest commit that had entries: the next one's hash is made upon it.
    pub journal: JournalHead,
}
