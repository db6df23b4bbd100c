//! The journal of a chain: its commits, each with a hash over the one before it and its own changes.

use std::fmt;

use super::Entry;
use crate::{
    chain::{BadValue, BlockRef},
    clock::Millis,
    string_enum::string_enum,
};

/// The hash of a commit; zeros before the first one.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct JournalHash(pub [u8; 32]);

impl JournalHash {
    /// Its first 48 bits, which every float can hold: the first 12 digits of its text.
    #[must_use]
    pub fn prefix(self) -> i64 {
        self.0[..6].iter().fold(0, |prefix, byte| prefix << 8 | i64::from(*byte))
    }
}

impl fmt::Display for JournalHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for JournalHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<Vec<u8>> for JournalHash {
    type Error = BadValue;

    fn try_from(bytes: Vec<u8>) -> Result<Self, BadValue> {
        bytes.try_into().map(Self).map_err(|_| BadValue("a journal hash"))
    }
}

/// The newest commit of a journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JournalHead {
    /// Its number: commits count from 1, so 0 while there is none.
    pub commit: u64,
    pub hash: JournalHash,
}

string_enum! {
    /// What a commit did.
    CommitKind {
        /// Blocks continued the chain, or what moved inside their transactions became known.
        Blocks = "blocks",
        Settlement = "settlement",
        /// Balances were compared with the chain's own figures.
        Comparison = "comparison",
        Reorg = "reorg",
        /// A person took the chain back.
        Rewind = "rewind",
        /// Watches began.
        Openings = "openings",
        /// Assets began to count.
        Assets = "assets",
        /// The past of watches was booked.
        History = "history",
        Safes = "safes",
    }
}

impl CommitKind {
    /// The number under which the store holds it.
    #[must_use]
    pub const fn code(self) -> i16 {
        match self {
            Self::Blocks => 1,
            Self::Settlement => 2,
            Self::Comparison => 3,
            Self::Reorg => 4,
            Self::Rewind => 5,
            Self::Openings => 6,
            Self::Assets => 7,
            Self::History => 8,
            Self::Safes => 9,
        }
    }

    #[must_use]
    pub fn from_code(code: i16) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.code() == code)
    }
}

/// A commit that has entries, or what a person has ordered (a rewind, a quarantine).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalCommit {
    /// Counts from 1 without gaps.
    pub number: u64,
    pub kind: CommitKind,
    /// The cursor that it left.
    pub head: BlockRef,
    pub settled: BlockRef,
    /// How many transfers the chain had had before. Those of this commit are numbered from there on, up to where
    /// those of the next one begin.
    pub transfers: u64,
    pub entries: u64,
    pub time: Millis,
    pub rewind: Option<Rewind>,
    pub hash: JournalHash,
}

/// Why a person took a chain back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewind {
    /// The block that was the head.
    pub from: u64,
    pub order: RewindOrder,
}

/// A person's order to take a chain back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RewindOrder {
    /// Whose it is, as far as that is known.
    pub by: Option<String>,
    pub reason: String,
}

/// An entry with what is stored beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BookedEntry {
    pub entry: Entry,
    /// The commit that booked it; 0 for one from before the journal.
    pub commit: u64,
    pub time: Millis,
}
