//! One movement as one wallet sees it, and the entries that explain a balance.

use std::fmt;

use super::{AssetNo, TenantNo, TransferNo, WalletNo};
use crate::{
    amount::Amount,
    chain::{Address, BlockRef, Kind, Ordinal, Settlement, TxId},
    clock::Millis,
    id::TransferId,
    string_enum::string_enum,
};

string_enum! {
    /// Whether money comes to the wallet or leaves it.
    Direction {
        In = "in",
        Out = "out",
    }
}

string_enum! {
    /// Where a transfer stands.
    Status {
        /// In a block that could still vanish.
        Pending = "pending",
        /// In a block that this chain's policy calls irreversible.
        Settled = "settled",
        /// Its block vanished, and no other holds it so far.
        Orphaned = "orphaned",
    }
}

string_enum! {
    /// Why something was booked, or taken back, that no movement on the chain shows.
    Reason {
        /// The chain had more than the ledger: the difference came in.
        UntracedCredit = "untraced_credit",
        /// More was spent than was known of, and no node has the figure: at least that much came in.
        UntracedCreditAtLeast = "untraced_credit_at_least",
        /// The chain had less than the ledger: the difference left.
        UntracedDebit = "untraced_debit",
        /// An opening balance that older movements explain by now.
        ExplainedByHistory = "explained_by_history",
        /// A correction that movements inside an earlier block's transactions explain by now.
        ExplainedByTrace = "explained_by_trace",
    }
}

/// One connection of a movement to one wallet: what it moves never changes afterwards, only how it stands. A
/// movement that comes back in another block is another row with the same id and the next `connection`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    pub no: TransferNo,
    pub id: TransferId,
    pub wallet: WalletNo,
    pub tenant: TenantNo,
    /// The transaction; the block's hash for what belongs to no transaction.
    pub tx: TxId,
    pub ordinal: Ordinal,
    pub direction: Direction,
    pub asset: AssetNo,
    pub kind: Kind,
    pub status: Status,
    pub amount: Amount,
    /// The other side, where the chain names one.
    pub counterparty: Option<Address>,
    /// Whether it is in the balances: a verified asset and more than nothing.
    pub counted: bool,
    pub block: BlockRef,
    pub block_time: Millis,
    /// How many times the movement was connected, with this one.
    pub connection: u32,
    pub reason: Option<Reason>,
    pub memo: Option<String>,
    /// How many transfers of its transaction to and from its wallet, that are no money either, are not recorded
    /// beside it.
    pub omitted: Option<u32>,
    /// When its first connection was booked.
    pub seen_at: Millis,
    /// By which rule it became available; of one that is pending: before its block settled.
    pub settled_by: Option<SettledBy>,
    pub settled_at: Option<Millis>,
    pub orphaned_at: Option<Millis>,
}

impl Transfer {
    /// Whether `tx` is a transaction rather than a block.
    #[must_use]
    pub fn has_transaction(&self) -> bool {
        !matches!(self.kind, Kind::Opening | Kind::Adjustment | Kind::Reward)
            && !matches!(self.ordinal, Ordinal::Withdrawal(_) | Ordinal::Reward(_))
    }

    /// Whether it is available though its block has not settled.
    #[must_use]
    pub fn is_early(&self) -> bool {
        self.status == Status::Pending && self.settled_by.is_some()
    }

    /// Whether the chain's state at a settled block proved it, so that it never was pending.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        matches!((self.kind, &self.ordinal), (Kind::Adjustment, Ordinal::Proof(..)))
    }
}

/// The rule by which money became available.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettledBy {
    /// The chain's policy calls its block irreversible.
    Policy(Settlement),
    /// It is small, and its block lies so far below the head: see [`super::Tier`].
    Tier(u64),
}

impl fmt::Display for SettledBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Policy(Settlement::Tag(tag)) => f.write_str(tag.as_str()),
            Self::Policy(Settlement::Confirmations(count)) => write!(f, "confirmations:{count}"),
            Self::Tier(count) => write!(f, "tier:{count}"),
        }
    }
}

string_enum! {
    /// What an entry does to a balance.
    EntryKind {
        /// A block with the transfer was connected.
        Connect = "connect",
        /// That block settled.
        Settle = "settle",
        /// Both in one commit: the block was settled already when it was connected.
        ConnectSettled = "connect_settled",
        /// The block was disconnected again: the opposite of `Connect`.
        Disconnect = "disconnect",
        /// A settled transfer was taken back: an opening whose watch begins anew, or a rewind by hand.
        DisconnectSettled = "disconnect_settled",
        /// A deposit became available before its block settled.
        Early = "early",
        /// The opposite of `Early`: its block settles or is disconnected in the same commit.
        EarlyOver = "early_over",
    }
}

impl EntryKind {
    /// The number under which the store holds it.
    #[must_use]
    pub const fn code(self) -> i16 {
        match self {
            Self::Connect => 1,
            Self::Settle => 2,
            Self::ConnectSettled => 3,
            Self::Disconnect => 4,
            Self::DisconnectSettled => 5,
            Self::Early => 6,
            Self::EarlyOver => 7,
        }
    }

    /// Those of one transfer happen in this order.
    #[must_use]
    pub const fn place(self) -> u8 {
        match self {
            Self::Connect | Self::ConnectSettled => 0,
            Self::Early => 1,
            Self::EarlyOver => 2,
            Self::Settle => 3,
            Self::Disconnect | Self::DisconnectSettled => 4,
        }
    }

    #[must_use]
    pub fn from_code(code: i16) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.code() == code)
    }
}

/// One line of the ledger, only ever added: the balance of a wallet is the sum of its entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub transfer: TransferNo,
    pub kind: EntryKind,
    pub amount: Amount,
}
