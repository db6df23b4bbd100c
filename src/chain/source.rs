//! What a chain family owes the follower: the [`Source`] trait and the values that cross it.

use std::{collections::HashSet, fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::sync::watch;

use super::{Address, AssetKey, BlockHash, Certainty, Family, TxId};
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
    /// Holdings that a transaction changed or may have changed in their terms (frozen, thawed) without
    /// moving anything.
    pub touched: Vec<BalanceQuery>,
    /// Transactions with a memo that the block itself does not show; [`Source::complete`] reads it.
    pub unread_memos: Vec<TxId>,
    pub traced: Traced,
    /// What [`Source::complete`] has to prove of senders.
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
            touched: Vec::new(),
            unread_memos: Vec::new(),
            traced: Traced::Whole,
            senders: Senders::default(),
        }
    }

    /// Drops the movements, touched holdings, memos, traces and signatures that concern no watched address. Transactions and
    /// Safes stay: those that matter are known by other means.
    pub fn retain_watched(&mut self, watched: impl Fn(&Address) -> bool) {
        self.movements.retain(|movement| movement.concerns(&watched));
        self.touched.retain(|query| watched(&query.address));
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
    /// proven: [`Source::complete`] reads how, and compares it with the chain's state.
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
    /// block is complete: see [`Source::complete`].
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

/// What a receipt claims about a Safe. Anyone can emit these logs: nothing is true before [`SafeState`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SafeCandidate {
    pub tx: TxId,
    pub address: Address,
    /// Who emitted `ProxyCreation` for it, if it is a factory on the list.
    pub factory: Option<Address>,
    /// The owners that `SafeSetup` was called with; empty without one.
    pub owners: Vec<Address>,
    /// Whether nothing but Safe's own code can have run in it until the end of its transaction, if a known
    /// factory made it: it began with a known singleton, and was set up once, without a delegate call to anything
    /// else. A setup that ran other code may have hidden a module where no reading of the state finds it.
    pub plain: bool,
}

/// What the chain's state says of a Safe at one block: proxy code, singleton, owners, threshold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SafeState {
    /// `1.4.1` and so on, by the singleton in slot 0.
    pub version: &'static str,
    pub singleton: Address,
    pub owners: Vec<Address>,
    pub threshold: u64,
    /// Whether nobody but its owners can move what it holds, as far as is known: no module, no guard, and no
    /// fallback handler but Safe's own.
    pub plain: bool,
}

impl SafeState {
    /// Safes of persons and firms have a few.
    pub const MOST_OWNERS: usize = 256;

    /// The same, with what the logs of its setup claim: it is plain only if these show that its owners now are
    /// those that it was set up with, and that no other code ever ran in it.
    #[must_use]
    pub fn set_up_as(mut self, candidate: &SafeCandidate) -> Self {
        let sorted = |owners: &[Address]| {
            let mut owners = owners.to_vec();
            owners.sort_unstable();
            owners
        };
        self.plain = self.plain
            && candidate.plain
            && candidate.factory.is_some()
            && sorted(&self.owners) == sorted(&candidate.owners);
        self
    }
}

string_enum! {
    /// Why an address is not a Safe at a block.
    SafeRejection {
        /// No code at the address.
        NoCode = "no_code",
        /// Code that no Safe factory makes.
        NotASafe = "not_a_safe",
        /// A Safe proxy whose slot 0 holds no known singleton.
        UnknownSingleton = "unknown_singleton",
        /// A Safe proxy that nobody has set up: anyone could claim it.
        NotSetUp = "not_set_up",
        /// A Safe proxy whose storage no setup of a Safe makes: its constructor wrote it.
        Malformed = "malformed",
    }
}

/// What a node knows of a transaction outside the blocks that were followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxLookup {
    pub sender: Address,
    pub nonce: Option<u64>,
    /// The block that holds it, whether it succeeded, and the Safes it claims to set up; `None` while
    /// it waits in the pool.
    pub mined: Option<(BlockRef, bool, Vec<SafeCandidate>)>,
}

/// Which balance is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BalanceQuery {
    pub address: Address,
    pub asset: AssetKey,
}

/// What the chain's state says of one balance, in base units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChainBalance {
    /// All of it, as after exactly the block that was asked for.
    pub total: Amount,
    /// The part in accounts that the asset's issuer has frozen, as the node's newest state has it.
    pub frozen: Amount,
    /// Whether the asset itself gave no figure. Nothing is held as far as the chain can say, but that
    /// proves nothing: an asset that fails for a while has not taken anybody's money.
    pub unreadable: bool,
}

impl From<Amount> for ChainBalance {
    fn from(total: Amount) -> Self {
        Self { total, ..Self::default() }
    }
}

/// What moved for an address in one block.
#[derive(Clone, Debug)]
pub struct HistoryBlock {
    pub header: Header,
    pub movements: Vec<Movement>,
}

string_enum! {
    /// How histories are looked for.
    HistoryMethod {
        /// Every block is read, once for all who need it.
        Blocks = "blocks",
        /// Only the blocks that the nodes' index of logs names: transfers of the configured tokens, not of the
        /// native coin.
        Logs = "logs",
        /// The transactions that the nodes list for an address.
        Signatures = "signatures",
    }
}

/// What a chain says of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenFacts {
    pub decimals: u8,
}

/// A block that a node announced. Its hash is missing where the node only tells heights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announced {
    pub number: u64,
    pub hash: Option<BlockHash>,
}

/// When a block is called irreversible on a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// By the node's own word.
    Tag(SettlementTag),
    /// This many blocks below the head; 0 settles at once.
    Confirmations(u64),
}

string_enum! {
    /// The node's own words for blocks that will stay.
    SettlementTag {
        Safe = "safe",
        Finalized = "finalized",
    }
}

impl fmt::Display for Settlement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => f.write_str(tag.as_str()),
            Self::Confirmations(count) => write!(f, "{count} confirmations"),
        }
    }
}

/// Why a source could not answer, by what the caller can do about it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SourceError {
    /// Try again; every endpoint was asked and none answered well.
    #[error("no endpoint answered: {detail}")]
    Unavailable { detail: String, retry_after: Option<Duration> },
    /// An answer is larger than its endpoint may give, or than is taken in: it will be tomorrow. A person can
    /// raise the limit, or name another endpoint.
    #[error("an answer is too large: {0}")]
    TooLarge(String),
    /// The node does not have it: an unknown block, or a state that it no longer keeps. Another block,
    /// or a later try, may do.
    #[error("the node does not have it: {0}")]
    NotThere(String),
    /// Every endpoint returned data that contradicts itself ({0} says which check failed).
    #[error("verification failed: {0}")]
    Untrusted(String),
    /// What an endpoint has said of a block is not true. Others are asked before it from now on: read the block again.
    #[error("what was said of a block is not true: {0}")]
    Refuted(String),
    /// Every endpoint's blocks leave out their parents, so that nothing shows that one continues the other. A
    /// person must act: name an endpoint that tells them, or do without the chain.
    #[error("the blocks of this chain cannot be linked to each other: {0}")]
    Unlinked(String),
    /// Our own code panicked on what a node said, which was told. Try again later: nobody else can.
    #[error("{0}")]
    Bug(String),
    /// The endpoints serve another chain than the configuration says. A person must act.
    #[error("wrong chain: {0}")]
    WrongChain(String),
}

/// A budget for a day (UTC) of an endpoint, for those who share it.
pub trait DailyUse: Send + Sync {
    /// The endpoint's name.
    fn endpoint(&self) -> &str;

    /// Takes what the others were not told yet: the day (since the Unix epoch), and so many calls.
    fn untold(&self) -> (i64, u64);

    /// They could not be told.
    fn put_back(&self, day: i64, calls: u64);

    /// What was used on a day by all of them together, as far as was told.
    fn told(&self, day: i64, calls: u64);
}

/// Whether an address is watched.
pub type Watching<'a> = &'a (dyn Fn(&Address) -> bool + Send + Sync);

/// A chain as its follower sees it. One implementation per family: the first methods are what every family
/// must have, the others what some families have.
///
/// Every call asks one endpoint to the end, so that its answer is of one piece; two calls may be answered
/// by different endpoints, which is why the caller links blocks by parent hash and never trusts a number.
#[async_trait]
pub trait Source: Send + Sync + 'static {
    fn family(&self) -> Family;

    /// The newest block.
    async fn head(&self) -> Result<Header, SourceError>;

    /// The newest block that the node calls settled by `tag`; `None` if there is none yet.
    async fn settled(&self, tag: SettlementTag) -> Result<Option<Header>, SourceError>;

    /// The block of the node's chain at that height; `None` if there is none (not yet, or skipped).
    async fn header_at(&self, number: u64) -> Result<Option<Header>, SourceError>;

    /// All blocks with `from <= number <= to`, ascending. Heights without a block are left out by
    /// families that skip slots; others give fewer blocks only at the end: where the chain ends, or where those
    /// that there are take much memory.
    async fn blocks(&self, from: u64, to: u64) -> Result<Vec<Block>, SourceError>;

    /// The block of that hash, with everything in it; `None` if the node does not have it.
    async fn block(&self, at: BlockRef) -> Result<Option<Block>, SourceError>;

    /// What is held in the state after exactly the block `at`, one per query, in order.
    async fn balances_at(
        &self,
        at: BlockRef,
        queries: &[BalanceQuery],
    ) -> Result<Vec<ChainBalance>, SourceError>;

    /// As [`Source::balances_at`], as surely as the nodes can tell it: proven where they have proofs, else by
    /// asking several of them.
    async fn balances_for_sure(
        &self,
        at: BlockRef,
        queries: &[BalanceQuery],
    ) -> Result<Vec<(ChainBalance, Certainty)>, SourceError>;

    /// Reads what a block does not show of what is left in it, after [`Block::retain_watched`] with the same
    /// addresses, and proves who sent it. Both are done when the block is connected, not when it is fetched: blocks are
    /// fetched ahead while registrations come and go.
    async fn complete(&self, block: Block, _watched: Watching<'_>) -> Result<Block, SourceError> {
        Ok(block)
    }

    /// As [`Source::complete`]. Of a block that was refuted, another endpoint says what is in it: it is read again, by
    /// itself.
    async fn completed(&self, block: Block, watched: Watching<'_>) -> Result<Block, SourceError> {
        let at = block.header.at;
        match self.complete(block, watched).await {
            Err(SourceError::Refuted(_)) => {}
            done => return done,
        }
        let missing = || SourceError::NotThere(format!("block {}", at.number));
        let mut block = self.block(at).await?.ok_or_else(missing)?;
        block.retain_watched(watched);
        self.complete(block, watched).await
    }

    /// Blocks announced by the node, where it can announce: wake-ups only, some may be missing.
    fn announced(&self) -> watch::Receiver<Option<Announced>> {
        watch::Sender::new(None).subscribe()
    }

    /// Keeps the announcements coming until it is dropped; returns at once where there are none to have.
    async fn listen(&self) {}

    /// The budgets for a day of its endpoints.
    fn daily_use(&self) -> Vec<Arc<dyn DailyUse>> {
        Vec::new()
    }

    /// The nodes' index of token transfers.
    fn log_index(&self) -> Option<&dyn LogIndex> {
        None
    }

    /// Safes on this chain.
    fn safes(&self) -> Option<&dyn SafeSource> {
        None
    }

    /// What nodes can tell of one address without every block being read.
    fn address_index(&self) -> Option<&dyn AddressIndex> {
        None
    }

    /// What the chain itself says of tokens, where it is cheap to ask.
    fn tokens(&self) -> Option<&dyn TokenSource> {
        None
    }
}

/// What nodes with an index of logs answer from it.
#[async_trait]
pub trait LogIndex: Send + Sync {
    /// The blocks from `from` to `to` in which one of `tokens` moved from or to one of `addresses`, the highest
    /// first. It is a node's word: nothing in it shows whether one is missing.
    async fn blocks_with_transfers(
        &self,
        tokens: &[Address],
        addresses: &[Address],
        from: u64,
        to: u64,
    ) -> Result<Vec<BlockRef>, SourceError>;

    /// Those blocks with everything in them, in order, verified like any others.
    async fn blocks_of(&self, at: &[BlockRef]) -> Result<Vec<Block>, SourceError>;
}

/// What a chain with Safes answers of them.
#[async_trait]
pub trait SafeSource: Send + Sync {
    /// What the node knows of a transaction; `None` if nothing.
    async fn transaction(&self, tx: TxId) -> Result<Option<TxLookup>, SourceError>;

    /// How many transactions `sender` has had included by the block `at` (its next nonce).
    async fn next_nonce(&self, sender: Address, at: BlockRef) -> Result<u64, SourceError>;

    /// Whether the state after the block `at` holds a Safe at `address`.
    async fn safe_state(
        &self,
        address: Address,
        at: BlockRef,
    ) -> Result<Result<SafeState, SafeRejection>, SourceError>;
}

/// What a family answers whose nodes list the transactions of an address.
#[async_trait]
pub trait AddressIndex: Send + Sync {
    /// What moved for one address in the blocks from `from` to `to`, oldest first. `tokens` are those that
    /// matter; movements of others may be among them.
    async fn history(
        &self,
        address: Address,
        tokens: &[Address],
        from: u64,
        to: BlockRef,
    ) -> Result<Vec<HistoryBlock>, SourceError>;
}

/// What a chain answers of its tokens.
#[async_trait]
pub trait TokenSource: Send + Sync {
    /// `None` if there is no such token.
    async fn token_facts(&self, token: Address) -> Result<Option<TokenFacts>, SourceError>;
}
