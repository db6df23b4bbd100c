//! What a chain family owes the follower: the [`Source`] trait and the values that cross it.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::sync::watch;

use super::{
    Address, AssetKey, Block, BlockHash, BlockRef, Certainty, Family, Header, Movement,
    ProofSource, TxId,
};
use crate::{amount::Amount, string_enum::string_enum};

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
    pub plugs: SafePlugs,
    /// Whether nobody but its owners can move what it holds, as far as is known: no module, no guard, and no
    /// fallback handler but Safe's own.
    pub plain: bool,
}

/// What is plugged into a Safe, as its state shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SafePlugs {
    /// The first ones of the list; `None` where the Safe does not tell them (1.0.0).
    pub modules: Option<Vec<Address>>,
    pub guard: Option<Address>,
    /// Since 1.5.0.
    pub module_guard: Option<Address>,
    pub fallback_handler: Option<Address>,
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
    /// Whether nobody told what moved inside its transactions.
    pub untraced: bool,
}

impl HistoryBlock {
    /// A block in which nothing moved for them.
    #[must_use]
    pub const fn empty(header: Header) -> Self {
        Self { header, movements: Vec::new(), untraced: false }
    }
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

/// What a chain says of a token. What it does not say is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenFacts {
    pub decimals: Option<u8>,
    pub symbol: Option<String>,
    pub name: Option<String>,
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

string_enum! {
    /// What an endpoint traces with.
    TraceAbility {
        /// `debug_traceBlockByHash` with `prestateTracer`, and `callTracer`.
        Debug = "debug",
        /// `trace_block` and `trace_transaction`, as `OpenEthereum` had them.
        Trace = "trace",
        /// Nothing, or it is asked for no traces.
        None = "none",
        /// Nobody has asked it yet.
        Unknown = "unknown",
    }
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

    /// As [`Source::settled`], of each of several endpoints that answer.
    async fn settled_by_each(&self, tag: SettlementTag) -> Result<Vec<Header>, SourceError> {
        Ok(self.settled(tag).await?.into_iter().collect())
    }

    /// As [`Source::header_at`], of each of several endpoints that answer.
    async fn header_by_each(&self, number: u64) -> Result<Vec<Option<Header>>, SourceError> {
        Ok(vec![self.header_at(number).await?])
    }

    /// The block of the node's chain at that height; `None` if there is none (not yet, or skipped).
    async fn header_at(&self, number: u64) -> Result<Option<Header>, SourceError>;

    /// All blocks with `from <= number <= to`, ascending. Heights without a block are left out by
    /// families that skip slots; others give fewer blocks only at the end: where the chain ends, or where those
    /// that there are take much memory.
    async fn blocks(&self, from: u64, to: u64) -> Result<Vec<Block>, SourceError>;

    /// The block of that hash, with everything in it; `None` if the node does not have it.
    async fn block(&self, at: BlockRef) -> Result<Option<Block>, SourceError>;

    /// Notes in those of the blocks that nobody has traced what a node tells of them: see [`super::Traced`]. A block
    /// that no node traces within `patience` for each of them stays as it is.
    async fn trace(&self, _blocks: &mut [Block], _patience: Duration) {}

    /// Whether a node is there that can be asked for traces now, as far as is known.
    fn traces(&self) -> bool {
        false
    }

    /// What each endpoint traces with, in the order of the configuration, as far as was learnt by asking it.
    fn tracing(&self) -> Vec<TraceAbility> {
        Vec::new()
    }

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

    /// What the nodes say does not fit to what they have said: each is asked which chain it serves before it is asked
    /// anything else.
    fn ask_identity_again(&self) {}

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

    /// Balances that others can check, where blocks commit to them.
    fn proofs(&self) -> Option<&dyn ProofSource> {
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

    /// The address in slot 0 of a contract's storage after the block `at`, where a proxy has its singleton.
    async fn singleton(
        &self,
        address: Address,
        at: BlockRef,
    ) -> Result<Option<Address>, SourceError>;

    /// The hash of the code at each address after the block `at`; `None` where there is none.
    async fn code_hashes(
        &self,
        addresses: &[Address],
        at: BlockRef,
    ) -> Result<Vec<Option<[u8; 32]>>, SourceError>;
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
    /// What one endpoint says of tokens, in order.
    async fn token_facts(&self, tokens: &[Address]) -> Result<Vec<TokenFacts>, SourceError>;

    /// What each of several endpoints says of a token.
    async fn opinions_of(&self, token: Address) -> Result<Vec<TokenFacts>, SourceError>;
}
