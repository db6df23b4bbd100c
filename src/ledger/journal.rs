//! The hash of a commit: over the hash of the one before it, the cursor that it left, its entries, and the balances
//! after it. Whoever has the tables can compute it anew, and whoever keeps a hash elsewhere knows that nothing up
//! to its commit was changed since.
//!
//! It is SHA-256 over what follows, one behind the other. A *number* is unsigned LEB128 (seven bits a byte, the lowest
//! first, in as few bytes as it takes). A *string* is the number of its bytes and then these: raw bytes as the store has
//! them, words and texts in UTF-8, an amount big endian without leading zeros. An *optional* is the number 0 if there is
//! nothing, else 1 and then itself. So two different commits never give the same bytes, whatever a stranger puts in a
//! memo.
//!
//! ```text
//! string    "tidemark journal 1"
//! string    the hash of the commit before, 32 bytes; zeros for the first one
//! string    the chain's CAIP-2
//! number    the commit, from 1
//! string    its kind, a word of CommitKind
//! number, string    head block: number, hash
//! number, string    settled block: number, hash
//! number    transfers that the chain had had before
//! number    time, in milliseconds: that of the commit and of each of its entries
//! optional  of a rewind by hand: number (the head before), optional string (by whom), string (the reason)
//! number    how many entries follow, by the numbers of their transfers and then by kind; of each:
//!     number    transfer.no
//!     number    entry.kind, as the store has it
//!     string    amount, which is the transfer's
//!     optional  the transfer, where the entry connects it:
//!         string    id, 16 bytes
//!         number    connection
//!         number, string, string    wallet: number, id (16 bytes), address
//!         number    the number of the wallet's tenant
//!         number, string    asset: number, contract or mint (no bytes for the native coin)
//!         string    direction, a word of Direction
//!         string    kind, a word of Kind
//!         optional string    counterparty
//!         string    transaction
//!         string    place inside it (transfer.ordinal)
//!         number, string, number    block: number, hash, time in milliseconds
//!         optional string    memo
//! number    how many balances follow: those that the entries are of, by wallet and then by asset; of each:
//!     number    wallet
//!     number    asset
//!     string, string, string    settled, incoming, outgoing
//! ```
//!
//! What of `incoming` is available early is the sum of its `early` and `early_over` entries, and not said again.
//! A transfer's status, its reason, its rule and its times change, and are told by entries; a transfer that is no money has
//! none and is not hashed. A block in which nothing is booked makes no commit here: the cursor that it leaves is
//! covered by the next commit that has entries.

use sha2::{Digest as _, Sha256};

use crate::{
    amount::Amount,
    chain::AssetKey,
    model::{
        AssetNo, Entry, JournalCommit, JournalHash, Owner, Position, Transfer, WalletNo,
        ordinal_bytes,
    },
};

pub mod walk;

const DOMAIN: &[u8] = b"tidemark journal 1";
/// Bytes that are hashed at once.
const BUFFER: usize = 8 * 1024;

/// An entry as it is hashed.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    pub entry: Entry,
    pub connected: Option<Connected<'a>>,
}

impl Line<'_> {
    /// Lines are hashed in this order.
    fn place(&self) -> (i64, i16) {
        (self.entry.transfer.0, self.entry.kind.code())
    }
}

/// A transfer that an entry connects.
#[derive(Clone, Copy, Debug)]
pub struct Connected<'a> {
    pub transfer: &'a Transfer,
    pub owner: Owner,
    pub asset: AssetKey,
}

/// A balance after a commit.
pub type Left = (WalletNo, AssetNo, Position);

/// The hash of a commit, whatever `commit.hash` says. Lines and balances may be in any order.
#[must_use]
pub fn hash(
    caip2: &str,
    previous: JournalHash,
    commit: &JournalCommit,
    lines: &mut [Line<'_>],
    balances: &mut [Left],
) -> JournalHash {
    let mut bytes = Bytes::default();
    bytes.string(DOMAIN).string(&previous.0).string(caip2.as_bytes());
    bytes.number(commit.number).string(commit.kind.as_str().as_bytes());
    for block in [commit.head, commit.settled] {
        bytes.number(block.number).string(&block.hash.0);
    }
    bytes.number(commit.transfers).row(commit.time.0);
    bytes.optional(commit.rewind.as_ref(), |bytes, rewind| {
        bytes.number(rewind.from);
        bytes.optional(rewind.order.by.as_ref(), |bytes, by| {
            bytes.string(by.as_bytes());
        });
        bytes.string(rewind.order.reason.as_bytes());
    });
    lines.sort_unstable_by_key(Line::place);
    bytes.count(lines.len());
    for line in &*lines {
        bytes.line(line);
    }
    balances.sort_unstable_by_key(|(wallet, asset, _)| (*wallet, *asset));
    bytes.count(balances.len());
    for (wallet, asset, position) in &*balances {
        bytes.row(wallet.0).row(asset.0);
        bytes.amount(position.settled).amount(position.incoming).amount(position.outgoing);
    }
    bytes.hash()
}

/// What is hashed: each part says how long it is.
#[derive(Debug, Default)]
struct Bytes {
    hasher: Sha256,
    buffer: Vec<u8>,
}

impl Bytes {
    fn number(&mut self, mut number: u64) -> &mut Self {
        while number > 0x7f {
            self.buffer.push(number.to_le_bytes()[0] | 0x80);
            number >>= 7;
        }
        self.buffer.push(number.to_le_bytes()[0]);
        self
    }

    /// A row's number or a time: neither is ever negative.
    fn row(&mut self, number: i64) -> &mut Self {
        self.number(number.cast_unsigned())
    }

    fn count(&mut self, count: usize) -> &mut Self {
        self.number(u64::try_from(count).unwrap_or(u64::MAX))
    }

    fn string(&mut self, bytes: &[u8]) -> &mut Self {
        self.count(bytes.len());
        self.buffer.extend_from_slice(bytes);
        self
    }

    fn amount(&mut self, amount: Amount) -> &mut Self {
        let bytes: [u8; 32] = amount.get().to_be_bytes();
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        self.string(&bytes[zeros..])
    }

    fn optional<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) -> &mut Self {
        match value {
            None => self.number(0),
            Some(value) => {
                self.number(1);
                write(self, value);
                self
            }
        }
    }

    fn line(&mut self, line: &Line<'_>) {
        let Line { entry, connected } = line;
        self.row(entry.transfer.0).row(entry.kind.code().into()).amount(entry.amount);
        self.optional(connected.as_ref(), Self::connected);
        if self.buffer.len() >= BUFFER {
            self.hasher.update(&self.buffer);
            self.buffer.clear();
        }
    }

    fn connected(&mut self, connected: &Connected<'_>) {
        let Connected { transfer, owner, asset } = connected;
        self.string(transfer.id.0.as_bytes()).number(transfer.connection.into());
        self.row(owner.wallet.0).string(owner.wallet_id.0.as_bytes());
        self.string(owner.address.as_slice()).row(owner.tenant.0);
        self.row(transfer.asset.0).string(asset.as_bytes());
        self.string(transfer.direction.as_str().as_bytes());
        self.string(transfer.kind.as_str().as_bytes());
        self.optional(transfer.counterparty.as_ref(), |bytes, address| {
            bytes.string(address.as_slice());
        });
        self.string(transfer.tx.as_slice()).string(&ordinal_bytes(&transfer.ordinal));
        self.number(transfer.block.number).string(&transfer.block.hash.0);
        self.row(transfer.block_time.0);
        self.optional(transfer.memo.as_ref(), |bytes, memo| {
            bytes.string(memo.as_bytes());
        });
    }

    fn hash(mut self) -> JournalHash {
        self.hasher.update(&self.buffer);
        JournalHash(self.hasher.finalize().into())
    }
}

#[cfg(test)]
mod tests;
