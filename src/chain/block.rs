//! A block of any chain, and what moved in it.

use std::{collections::HashSet, fmt, sync::Arc};

use super::{Address, AssetKey, BalanceQuery, BlockHash, SafeCandidate, TxId};
use crate::{amount::Amount, string_enum::string_enum};

/// A block's place: its height (slot on Solana) and its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlockRef {
    pub number: u64,
    pub hash: BlockHash,
}

impl BlockRef {
    /// No chain comes near this height, and every store and JSON can hold it: above it a node lies.
    pub const MAX_HEIGHT: u64 = 1 << 53;
}

/// A block without its contents. `parent.number` is below `at.number`, by more than one where slots
/// were skipped; equal to it only for a chain's very first block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub at: BlockRef,
    pub parent: BlockRef,
    /// Seconds since the Unix epoch, as the block says.
    pub time: u64,
}

/// One block with everything in it that could concern a watched address.
#[derive(Clone, Debug)]
pub struct Block {
    pub header: Header,
    /// All movements of the block in chain order, watched or not.
    pub movements: Vec<Movement>,
    /// All transactions of the block, watched or not.
    pub transactions: Vec<TxFact>,
    /// Everything that looks like a Safe being set up; nothing of it is proven yet.
    pub safes: Vec<SafeCandidate>,
    /// Whose logs say that they are Safes which have executed something or changed. Anyone can log that.
    pub ran: Vec<Address>,
    /// Holdings that a transaction changed or may have changed in their terms (frozen, thawed) without
    /// moving anything.
    pub touched: Vec<BalanceQuery>,
    /// Transactions with a memo that the block itself does not show; [`super::Source::complete`] reads it.
    pub unread_memos: Vec<TxId>,
    pub traced: Traced,
    /// What [`super::Source::complete`] has to prove of senders.
    pub senders: Senders,
}

/// Senders of transactions that are a node's word so far, and what proves them.
#[derive(Clone, Debug, Default)]
pub struct Senders {
    /// The endpoint whose word it is.
    pub told_by: Arc<str>,
    pub signed: Vec<Signature>,
}

/// A sender's signature of a transaction.
#[derive(Clone, Copy, Debug)]
pub struct Signature {
    /// Of the transaction among those of its block.
    pub place: usize,
    /// The hash of what was signed.
    pub digest: [u8; 32],
    pub r: [u8; 32],
    pub s: [u8; 32],
    pub odd: bool,
}

impl Block {
    /// A block with nothing in it yet.
    #[must_use]
    pub fn empty(header: Header) -> Self {
        Self {
            header,
            movements: Vec::new(),
            transactions: Vec::new(),
            safes: Vec::new(),
            ran: Vec::new(),
            touched: Vec::new(),
            unread_memos: Vec::new(),
            traced: Traced::Whole,
            senders: Senders::default(),
        }
    }

    /// Drops the movements, touched holdings, Safes that ran, memos, traces and signatures that concern no watched address.
    /// Transactions and Safes that were set up stay: those that matter are known by other means.
    pub fn retain_watched(&mut self, watched: impl Fn(&Address) -> bool) {
        self.movements.retain(|movement| movement.concerns(&watched));
        self.touched.retain(|query| watched(&query.address));
        self.ran.retain(&watched);
        self.ran.sort_unstable();
        self.ran.dedup();
        if let Traced::Beside(beside) = &mut self.traced {
            beside.retain(|beside| watched(&beside.address));
            if beside.is_empty() {
                self.traced = Traced::Whole;
            }
        }
        if !self.unread_memos.is_empty() {
            let kept: HashSet<TxId> = self
                .movements
                .iter()
                .filter(|movement| movement.carries_memo())
                .map(|movement| movement.tx)
                .collect();
            self.unread_memos.retain(|tx| kept.contains(tx));
        }
        if self.senders.signed.is_empty() {
            return;
        }
        // A log does not depend on who has sent its transaction.
        let depend = |movement: &&Movement| matches!(movement.ordinal, Ordinal::Tx | Ordinal::Fee);
        let kept: HashSet<TxId> =
            self.movements.iter().filter(depend).map(|movement| movement.tx).collect();
        let Self { transactions, senders, .. } = self;
        senders.signed.retain(|signature| {
            transactions.get(signature.place).is_some_and(|fact| kept.contains(&fact.tx))
        });
    }
}

/// What is known of the native coin that moved inside a block's transactions, where no receipt shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Traced {
    /// All of it is among the movements, as far as it concerns whoever is asked about.
    Whole,
    /// A node says that these balances changed by more or by less than the movements explain. Nothing of that is
    /// proven: [`super::Source::complete`] reads how, and compares it with the chain's state.
    Beside(Vec<Beside>),
    /// No node has looked.
    Not,
}

/// A balance in the native coin that a transaction changed beside its own movements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beside {
    /// The place of the transaction among those of its block.
    pub tx: u32,
    pub address: Address,
    pub excess: Excess,
}

/// By how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excess {
    Gained(Amount),
    Lost(Amount),
}

/// One movement of one asset at one exact place on the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Movement {
    pub tx: TxId,
    pub ordinal: Ordinal,
    pub kind: Kind,
    pub asset: AssetKey,
    /// `None` where money comes from nowhere (a mint, a reward).
    pub from: Option<Address>,
    /// `None` where money goes to nobody who could be watched (a fee, a burn).
    pub to: Option<Address>,
    pub amount: Amount,
    /// What the sender wrote beside a payment, for families whose transactions carry text. Known once the
    /// block is complete: see [`super::Source::complete`].
    pub memo: Option<String>,
}

impl Movement {
    /// Whether it comes from or goes to one of those addresses.
    pub fn concerns(&self, addresses: impl Fn(&Address) -> bool) -> bool {
        let is_one = |address: &Option<Address>| address.as_ref().is_some_and(&addresses);
        is_one(&self.from) || is_one(&self.to)
    }

    /// Whether a memo of the transaction belongs to this movement: to every payment, and to no fee.
    #[must_use]
    pub fn carries_memo(&self) -> bool {
        self.kind != Kind::Fee
    }
}

/// The place inside a transaction. With chain and transaction it names a movement for ever, whichever
/// block holds it: a log counts inside its receipt, never inside the block.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ordinal {
    /// The transaction's own top-level value.
    Tx,
    /// The n-th log of the receipt, from 0.
    Log(u32),
    /// The path of an internal call.
    Trace(Vec<u32>),
    /// What the sender paid for execution.
    Fee,
    /// The n-th movement that a chain's own software makes in a transaction of its own kind, from 0.
    Own(u32),
    /// The index of an account among a transaction's accounts: what it gained or lost in the whole
    /// transaction, where a family states balances before and after.
    Account(u32),
    /// The rank among those who gained or lost of one token in a transaction, in the order of their first
    /// accounts: one owner can have several of these, and one account several owners.
    Owner(u32),
    /// The same rank, for what its owner lost to nobody: burnt, or withheld as a token's own fee.
    Rest(u32),
    /// An EIP-4895 withdrawal's index; it belongs to no transaction.
    Withdrawal(u64),
    /// The index among a block's rewards; it belongs to no transaction.
    Reward(u32),
    /// The balance at the block where a watch begins: what was irreversible then, and what was not yet.
    OpeningSettled(u64),
    OpeningUnsettled(u64),
    /// What must have come in before that block, because more left in it than was known of.
    Adjustment(u64),
    /// What the chain's state proves at that settled block and no movement explains; the second number
    /// counts the proofs of one balance at one block, from 1.
    Proof(u64, u32),
}

impl fmt::Display for Ordinal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tx => f.write_str("tx"),
            Self::Log(index) => write!(f, "log:{index}"),
            Self::Trace(path) => {
                f.write_str("trace:")?;
                for (depth, step) in path.iter().enumerate() {
                    if depth > 0 {
                        f.write_str(".")?;
                    }
                    write!(f, "{step}")?;
                }
                Ok(())
            }
            Self::Fee => f.write_str("fee"),
            Self::Own(index) => write!(f, "own:{index}"),
            Self::Account(index) => write!(f, "account:{index}"),
            Self::Owner(rank) => write!(f, "owner:{rank}"),
            Self::Rest(index) => write!(f, "rest:{index}"),
            Self::Withdrawal(index) => write!(f, "withdrawal:{index}"),
            Self::Reward(index) => write!(f, "reward:{index}"),
            Self::OpeningSettled(number) => write!(f, "opening:{number}:settled"),
            Self::OpeningUnsettled(number) => write!(f, "opening:{number}:unsettled"),
            Self::Adjustment(number) => write!(f, "adjustment:{number}"),
            Self::Proof(number, 1) => write!(f, "proof:{number}"),
            Self::Proof(number, count) => write!(f, "proof:{number}:{count}"),
        }
    }
}

string_enum! {
    /// What a movement is.
    Kind {
        Transfer = "transfer",
        Internal = "internal",
        Fee = "fee",
        Withdrawal = "withdrawal",
        Mint = "mint",
        Burn = "burn",
        Wrap = "wrap",
        Unwrap = "unwrap",
        Reward = "reward",
        Opening = "opening",
        Adjustment = "adjustment",
    }
}

/// What a block says of one of its transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxFact {
    pub tx: TxId,
    /// Whose `nonce` this transaction used up, where the family has nonces.
    pub sender: Address,
    pub nonce: Option<u64>,
    pub success: bool,
}
