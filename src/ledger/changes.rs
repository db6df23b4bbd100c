//! What a step decided: everything that one transaction writes.

use std::collections::BTreeMap;

use super::{LedgerError, known::Shortage, reconcile::Drift};
use crate::{
    amount::Amount,
    chain::{Address, BlockRef, ChainName, Header, Kind},
    clock::Millis,
    event::NewEvent,
    id::{SafeDeploymentId, WalletId},
    model::{
        Asset, AssetNo, Balance, Cursor, Deployment, DeploymentStatus, Entry, HistoryStatus,
        JournalCommit, NewWallet, QuarantineReason, Reason, SafeLook, SafeOnChain, ScanNo,
        SettledBy, TenantNo, Transfer, TransferNo, WaitingSafe, WalletNo,
    },
    string_enum::string_enum,
};

/// What to do next.
#[derive(Debug)]
pub enum Decision {
    /// Write this.
    Commit(Box<Changes>),
    /// Ask the chain for these figures first, each after its block, and decide again.
    Ask(BTreeMap<Shortage, BlockRef>),
}

/// Why nothing can be decided. Where a token is the cause, the token can be set aside; else the chain must stop
/// until a person has looked.
#[derive(Debug, thiserror::Error)]
#[error("{context}: {error}")]
pub struct Refused {
    pub context: String,
    pub error: LedgerError,
    /// The token whose contract chose the figures that cannot be booked.
    pub culprit: Option<Culprit>,
}

/// A token with figures that cannot be booked, and the block that has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Culprit {
    pub token: AssetNo,
    pub block: u64,
    pub reason: QuarantineReason,
}

impl Refused {
    /// What no token is the cause of.
    #[must_use]
    pub fn new(context: impl Into<String>, error: LedgerError) -> Self {
        Self { context: context.into(), error, culprit: None }
    }

    /// The same, where `transfer` is of a token: what its figures did, its contract chose. An entry that is
    /// booked twice or missing is nobody's choice.
    #[must_use]
    pub fn by_token(mut self, transfer: &Transfer) -> Self {
        let reason = match self.error {
            LedgerError::Overflow => QuarantineReason::Overflow,
            LedgerError::Shortfall { .. } => QuarantineReason::Shortfall,
            LedgerError::Inconsistent => return self,
        };
        self.culprit =
            Some(Culprit { token: transfer.asset, block: transfer.block.number, reason });
        self
    }
}

/// All that one transaction writes, in whatever order suits the store.
#[derive(Clone, Debug)]
pub struct Changes {
    /// The cursor that this was decided upon: the transaction writes nothing if it has moved.
    pub from: Cursor,
    pub cursor: Cursor,
    pub now: Millis,
    pub assets: Vec<AssetChange>,
    pub asset_openings: Vec<AssetOpening>,
    pub transfers: Vec<Transfer>,
    /// Transfers known before that stand otherwise now.
    pub updates: Vec<TransferUpdate>,
    pub entries: Vec<Entry>,
    /// What the entries are in the chain's journal; none without entries.
    pub journal: Option<JournalCommit>,
    /// Each as it is afterwards, with the version that it was read with.
    pub balances: Vec<BalanceChange>,
    pub blocks: BlockChanges,
    pub watches: WatchChanges,
    pub wallets: Vec<NewWallet>,
    pub safes: Vec<SafeProof>,
    pub safe_states: SafeStateChanges,
    pub deployments: Vec<DeploymentChange>,
    pub looks: LookChanges,
    pub events: Vec<NewEvent>,
    pub report: Report,
}

impl BlockChanges {
    /// Forgets what is below a height.
    pub fn forget_below(&mut self, floor: u64) {
        self.forgotten = floor.checked_sub(1).map(|last| (0, last));
    }
}

impl Changes {
    /// Nothing yet but the move of the cursor.
    #[must_use]
    pub fn new(from: &Cursor, cursor: Cursor, now: Millis) -> Self {
        Self {
            from: from.clone(),
            cursor,
            now,
            assets: Vec::new(),
            asset_openings: Vec::new(),
            transfers: Vec::new(),
            updates: Vec::new(),
            entries: Vec::new(),
            journal: None,
            balances: Vec::new(),
            blocks: BlockChanges::default(),
            watches: WatchChanges::default(),
            wallets: Vec::new(),
            safes: Vec::new(),
            safe_states: SafeStateChanges::default(),
            deployments: Vec::new(),
            looks: LookChanges::default(),
            events: Vec::new(),
            report: Report::default(),
        }
    }

    /// The chain whose follower decided this.
    #[must_use]
    pub fn chain(&self) -> &ChainName {
        &self.cursor.chain
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AssetChange {
    New(Asset),
    /// Other facts under the same number, as the next version; the old ones are kept for old events.
    Changed {
        before: Asset,
        after: Asset,
    },
    /// It counts for more wallets, or for fewer after a rollback; its facts are the same.
    Opened(Asset),
}

/// Wallets for which assets began to count, by opening balances at one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AssetOpening {
    pub asset: AssetNo,
    /// Those behind `from`, up to `to`.
    pub from: WalletNo,
    pub to: WalletNo,
    pub block: u64,
    pub time: Millis,
}

impl AssetOpening {
    /// Whether it opened this asset for this wallet.
    #[must_use]
    pub fn holds(&self, asset: AssetNo, wallet: WalletNo) -> bool {
        self.asset == asset && self.from < wallet && wallet <= self.to
    }
}

impl AssetChange {
    /// As it is afterwards.
    #[must_use]
    pub fn now(&self) -> &Asset {
        let (Self::New(now) | Self::Changed { after: now, .. } | Self::Opened(now)) = self;
        now
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransferUpdate {
    Settled(TransferNo, SettledBy),
    /// Available before its block settled.
    Early(TransferNo, SettledBy),
    /// Taken back. `mark` is what it is found by if a block holds it again.
    Orphaned {
        no: TransferNo,
        mark: i64,
        reason: Option<Reason>,
    },
    /// Another connection of the same movement stands for it from now on.
    Replaced(TransferNo),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BalanceChange {
    pub wallet: WalletNo,
    pub asset: AssetNo,
    pub balance: Balance,
    /// The block after which it is that.
    pub block: u64,
    pub proof: ProofChange,
}

/// What becomes of the newest figure of the chain's own that a balance agreed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProofChange {
    /// It stays.
    Kept,
    /// The settled part is, after that block, what the chain's state says.
    Agreed { block: u64, figure: Amount },
    /// The settled block that it is of may never have been.
    Gone,
}

/// A block that is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewBlock {
    pub header: Header,
    /// Whether nobody has told yet what moved inside its transactions.
    pub untraced: bool,
}

/// The blocks that are remembered, for the next reorg.
#[derive(Clone, Debug, Default)]
pub struct BlockChanges {
    pub connected: Vec<NewBlock>,
    /// What moved inside their transactions is known from now on.
    pub traced: Vec<BlockRef>,
    /// Forget what is above.
    pub above: Option<u64>,
    /// Forget these heights, both ends included.
    pub forgotten: Option<(u64, u64)>,
}

#[derive(Clone, Debug, Default)]
pub struct WatchChanges {
    /// Begin at the cursor's head.
    pub opened: Vec<(WalletNo, Address)>,
    pub closed: Vec<(WalletNo, Address)>,
    /// Were opened above this block, and wait to be opened anew.
    pub reopened: Option<(u64, Vec<(WalletNo, Address)>)>,
    /// The block that scans need next, and these scans: what their histories asked for above it is there.
    pub scans: Option<(BlockRef, Vec<ScanChange>)>,
    /// The height that histories of these wallets need next, ahead of their scans.
    pub ahead: Option<(u64, Vec<WalletNo>)>,
    pub ended: Vec<HistoryEnd>,
    /// Blocks of which nobody told what moved inside their transactions: the highest one for the histories of each of these
    /// scans.
    pub untraced: BTreeMap<u64, Vec<ScanNo>>,
}

/// A scan that moves on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanChange {
    pub no: ScanNo,
    /// The block that it needed next when this was decided.
    pub seen: BlockRef,
    /// Scans that need the same block from now on, and are this one.
    pub absorbs: Vec<ScanNo>,
}

/// A history is not looked for any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryEnd {
    pub wallet: WalletNo,
    pub address: Address,
    pub status: HistoryStatus,
    /// The first block from which on its transfers are all there, if that was not known before.
    pub covered_from: Option<u64>,
}

/// A deployment as it is now.
#[derive(Clone, Debug)]
pub struct DeploymentChange {
    /// The revision it was read with; `None` for a new one.
    pub seen: Option<i64>,
    pub now: Deployment,
}

/// What the chain's state said of a wallet that is a Safe.
#[derive(Clone, Debug)]
pub struct SafeProof {
    pub wallet: WalletId,
    pub tenant: TenantNo,
    pub state: SafeOnChain,
    /// Whether the wallet is made for it, because one of its owners is registered.
    pub found_by_owner: bool,
}

/// What is known of watched Safes on this chain, and which of them are to be read.
#[derive(Clone, Debug, Default)]
pub struct SafeStateChanges {
    /// They have run, or may be others by now: they are read at once.
    pub ran: Vec<Address>,
    /// Those that are known from now on; of those that were known before, nothing changes but that they are read.
    pub begun: Vec<(Address, SafeOnChain)>,
    /// Those that were read.
    pub read: Vec<SafeRead>,
}

/// A Safe that was read: it is as `now` from now on, and no Safe without it. It is still read at once if it has run
/// meanwhile.
#[derive(Clone, Debug)]
pub struct SafeRead {
    pub before: SafeLook,
    pub now: Option<SafeLook>,
}

string_enum! {
    /// What of a Safe has changed.
    SafeChange {
        /// Its owners or its threshold.
        Owners = "owners",
        /// A module, a guard or the fallback handler.
        Plugs = "plugs",
        /// It runs another version of Safe's own code.
        Singleton = "singleton",
        /// It is no Safe any more, by all that can be proven.
        Untrusted = "untrusted",
    }
}

/// What nodes are to be asked for, or need not be any more.
#[derive(Clone, Debug, Default)]
pub struct LookChanges {
    /// New ones.
    pub waiting: Vec<WaitingSafe>,
    /// Those that were judged: each must still be there.
    pub judged: Vec<WaitingSafe>,
    /// Those that no node could judge, with when to ask again.
    pub put_off: Vec<WaitingSafe>,
    /// Deployments that nothing new is known of: the revision that was read, when to ask again, and how often it
    /// was in vain.
    pub deployments: Vec<(SafeDeploymentId, i64, Millis, u32)>,
}

/// For metrics and the log, once the transaction is durable.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub connected: Vec<(Kind, AssetClass)>,
    /// Block times of what settled.
    pub settled: Vec<Millis>,
    /// Balances compared with the chain's own.
    pub compared: u64,
    /// Transfers that settled in a batch, where balances are not compared.
    pub uncompared: usize,
    pub drifts: Vec<Drift>,
    pub deployments: Vec<DeploymentStatus>,
    /// Watched Safes that have changed.
    pub safe_changes: Vec<(Address, SafeChange)>,
    /// Safes that were left out because their owner has led to too many.
    pub omitted_safes: u64,
    /// Histories that contradict the ledger.
    pub contradictions: Vec<(WalletNo, AssetNo)>,
    /// Wallets whose histories no balance can hold.
    pub unbookable: Vec<WalletNo>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AssetClass {
    Native,
    Token,
    Unverified,
}

impl AssetClass {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Token => "token",
            Self::Unverified => "unverified",
        }
    }
}
