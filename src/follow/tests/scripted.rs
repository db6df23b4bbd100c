//! A chain that does as it is told: blocks, branches, settlement and faults by hand.

mod content;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use async_trait::async_trait;
pub(super) use content::Second;
use content::{ByHash, balances, block, branch, calls, shown};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{safes::Safes, tokens::Tokens};
use crate::{
    amount::Amount,
    chain::{
        Address, Announced, AssetKey, BalanceQuery, Block, BlockHash, BlockRef, Certainty,
        ChainBalance, Family, Header, Kind, LogIndex, Movement, Ordinal, Priority, SafeCandidate,
        SafeSource, SettlementTag, Source, SourceError, TokenSource, Traced, TxFact, TxId,
    },
};

/// A payment that a test wants in a block; its transaction id is its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Payment {
    pub tx: u64,
    pub from: Option<Address>,
    pub to: Option<Address>,
    pub asset: AssetKey,
    pub amount: u64,
}

pub(super) struct Scripted {
    state: Mutex<State>,
    announced: watch::Sender<Option<Announced>>,
    /// Answers about balances are held back.
    held: watch::Sender<bool>,
    /// Whether the node traces.
    traces: AtomicBool,
    pub safes: Safes,
    pub tokens: Tokens,
    salt: AtomicU64,
}

struct State {
    /// Every block that ever was, with the payments in it.
    all: HashMap<BlockHash, (Header, Vec<Payment>)>,
    /// The canonical chain, from block 0.
    chain: Vec<Header>,
    /// What blocks show beside their payments, and no balance knows of.
    logged: HashMap<BlockHash, Vec<Movement>>,
    /// Blocks whose payments are not shown.
    hidden: HashSet<BlockHash>,
    /// Blocks whose payments of the native coin only a trace shows.
    internal: HashSet<BlockHash>,
    /// The block whose trace shows more than any balance can hold, for whom.
    overflowing: Option<(BlockHash, Address)>,
    settled: u64,
    /// What the node calls settled instead, whatever its chain is.
    called_settled: Option<Header>,
    /// What a second endpoint has at every height; without one, no other endpoint answers.
    second: Option<Second>,
    by_hash: ByHash,
    /// Calls to fail before one succeeds.
    faults: u32,
    /// Whether balances at old blocks can be read.
    pruned: bool,
    /// How often the head's block was asked for, while the head is shown without it.
    withheld_head: Option<u32>,
    /// How sure its figures are.
    certainty: Certainty,
    /// The address of which the node tells nothing.
    refused: Option<Address>,
    /// False figures, told by one word.
    lies: HashMap<(Address, AssetKey), u64>,
    /// How often blocks were asked for, while every block is too large to be had.
    too_large: Option<u32>,
    /// Whether balances can be read at all.
    mute: bool,
    /// Whether the source has a bug in reading balances.
    panics: bool,
    /// What issuers have frozen, and assets that give no figure.
    frozen: HashMap<(Address, AssetKey), u64>,
    unreadable: HashSet<AssetKey>,
    /// Balances that were asked for, by question.
    asked: Vec<Vec<BalanceQuery>>,
    /// What was asked for, and as what.
    priorities: BTreeSet<(&'static str, Priority)>,
    /// Ranges of blocks that were read.
    read: Vec<(u64, u64)>,
    /// Heights whose blocks no node has any more.
    lost: BTreeSet<u64>,
    /// The node shows another branch below this height.
    other_below: u64,
    /// Blocks that the index of logs has forgotten.
    unindexed: BTreeSet<u64>,
}

impl State {
    fn new() -> Self {
        Self {
            all: HashMap::new(),
            chain: Vec::new(),
            logged: HashMap::new(),
            hidden: HashSet::new(),
            internal: HashSet::new(),
            overflowing: None,
            settled: 0,
            called_settled: None,
            second: None,
            by_hash: ByHash::default(),
            faults: 0,
            pruned: false,
            withheld_head: None,
            certainty: Certainty::Proven,
            refused: None,
            priorities: BTreeSet::new(),
            too_large: None,
            lies: HashMap::new(),
            mute: false,
            panics: false,
            frozen: HashMap::new(),
            unreadable: HashSet::new(),
            asked: Vec::new(),
            read: Vec::new(),
            lost: BTreeSet::new(),
            other_below: 0,
            unindexed: BTreeSet::new(),
        }
    }
}

impl Scripted {
    pub fn new() -> Self {
        let scripted = Self {
            state: Mutex::new(State::new()),
            announced: watch::channel(None).0,
            held: watch::channel(false).0,
            traces: AtomicBool::new(false),
            safes: Safes::default(),
            tokens: Tokens::default(),
            salt: AtomicU64::new(1),
        };
        scripted.mine(&[]);
        scripted
    }

    pub fn head(&self) -> Header {
        *self.state.lock().chain.last().unwrap()
    }

    pub fn mine(&self, payments: &[Payment]) -> BlockRef {
        let mut state = self.state.lock();
        let salt = self.salt.fetch_add(1, Ordering::Relaxed);
        let number = state.chain.len() as u64;
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&number.to_be_bytes());
        hash[8..16].copy_from_slice(&salt.to_be_bytes());
        let at = BlockRef { number, hash: BlockHash(hash) };
        let parent = state.chain.last().map_or(at, |parent| parent.at);
        let header = Header { at, parent, time: 1_700_000_000 + number };
        state.all.insert(at.hash, (header, payments.to_vec()));
        state.chain.push(header);
        at
    }

    /// A block that sets up a Safe.
    pub fn mine_safe(&self, payments: &[Payment], claim: &SafeCandidate) -> BlockRef {
        let at = self.mine(payments);
        self.safes.add(at, claim.clone());
        at
    }

    /// The newest block's payments happen, but no movement shows them, as an untraced call does.
    pub fn hide_last(&self) {
        let mut state = self.state.lock();
        let hash = state.chain.last().unwrap().at.hash;
        state.hidden.insert(hash);
    }

    /// The newest block's payments of the native coin are made by calls: only a trace shows them.
    pub fn call_in_last(&self) {
        let mut state = self.state.lock();
        let hash = state.chain.last().unwrap().at.hash;
        state.internal.insert(hash);
    }

    /// Whether the chain has that block.
    pub fn has(&self, at: BlockRef) -> bool {
        self.state.lock().chain.iter().any(|header| header.at == at)
    }

    /// The newest block's trace shows more than any balance can hold.
    pub fn overflow_in_last(&self, to: Address) {
        self.call_in_last();
        let mut state = self.state.lock();
        let hash = state.chain.last().unwrap().at.hash;
        state.overflowing = Some((hash, to));
    }

    /// From now on the node traces, or not.
    pub fn have_traced(&self, traces: bool) {
        self.traces.store(traces, Ordering::Relaxed);
    }

    /// The newest block shows movements of a token that no balance knows of, each of so much.
    pub fn log_in_last(&self, token: AssetKey, logged: &[(Option<Address>, Address, Amount)]) {
        let tx = TxId::from(self.head().at.hash.0);
        self.log_in_last_by(tx, token, logged);
    }

    /// The same, by a transaction that other blocks may hold as well.
    pub fn log_in_last_by(
        &self,
        tx: TxId,
        token: AssetKey,
        logged: &[(Option<Address>, Address, Amount)],
    ) {
        let mut state = self.state.lock();
        let hash = state.chain.last().unwrap().at.hash;
        let logged_in = state.logged.entry(hash).or_default();
        for (from, to, amount) in logged.iter().copied() {
            let index = u32::try_from(logged_in.len()).unwrap();
            logged_in.push(Movement {
                tx,
                ordinal: Ordinal::Log(index),
                kind: Kind::Transfer,
                asset: token,
                from,
                to: Some(to),
                amount,
                memo: None,
            });
        }
    }

    pub fn announce(&self) {
        let BlockRef { number, hash } = self.head().at;
        self.announced.send_replace(Some(Announced { number, hash: Some(hash) }));
    }

    /// Cuts the canonical chain back to `number` blocks above the genesis; gives what was cut.
    pub fn cut(&self, number: u64) -> Vec<Header> {
        let mut state = self.state.lock();
        state.chain.split_off(usize::try_from(number).unwrap() + 1)
    }

    /// Puts blocks back that were cut from exactly here.
    pub fn put_back(&self, blocks: &[Header]) {
        let mut state = self.state.lock();
        assert_eq!(state.chain.last().unwrap().at, blocks[0].parent);
        state.chain.extend_from_slice(blocks);
    }

    pub fn payments(&self, hash: BlockHash) -> Vec<Payment> {
        self.state.lock().all[&hash].1.clone()
    }

    pub fn settle(&self, number: u64) {
        self.state.lock().settled = number;
    }

    /// The node calls this block settled, whatever its chain is.
    pub fn call_settled(&self, header: Option<Header>) {
        self.state.lock().called_settled = header;
    }

    /// What a second endpoint says from now on.
    pub fn second(&self, second: Option<Second>) {
        self.state.lock().second = second;
    }

    pub fn by_hash<R>(&self, with: impl FnOnce(&mut ByHash) -> R) -> R {
        with(&mut self.state.lock().by_hash)
    }

    pub fn settled_number(&self) -> u64 {
        self.state.lock().settled
    }

    pub fn fail(&self, calls: u32) {
        self.state.lock().faults = calls;
    }

    pub fn prune(&self, pruned: bool) {
        self.state.lock().pruned = pruned;
    }

    /// How sure the nodes are of figures when they are asked for certainty.
    pub fn certainty(&self, certainty: Certainty) {
        self.state.lock().certainty = certainty;
    }

    /// The node says this of a balance, whatever is true; `None` ends the lie.
    pub fn lie(&self, address: Address, asset: AssetKey, figure: Option<u64>) {
        let mut state = self.state.lock();
        match figure {
            Some(figure) => state.lies.insert((address, asset), figure),
            None => state.lies.remove(&(address, asset)),
        };
    }

    /// No question about this address is answered.
    pub fn refuse(&self, address: Option<Address>) {
        self.state.lock().refused = address;
    }

    /// No question about balances is answered.
    pub fn mute(&self, mute: bool) {
        self.state.lock().mute = mute;
    }

    /// The head is shown, and its block is not there.
    pub fn withhold_head(&self, withheld: bool) {
        self.state.lock().withheld_head = withheld.then_some(0);
    }

    /// How often the withheld block was asked for.
    pub fn asked_for_head(&self) -> u32 {
        self.state.lock().withheld_head.unwrap_or(0)
    }

    /// No block can be had any more for its size.
    pub fn enlarge(&self, large: bool) {
        self.state.lock().too_large = large.then_some(0);
    }

    /// How often a block was asked for that is too large.
    pub fn asked_for_large(&self) -> u32 {
        self.state.lock().too_large.unwrap_or(0)
    }

    /// As what blocks and balances were asked for since this was last called.
    pub fn priorities(&self) -> Vec<(&'static str, Priority)> {
        std::mem::take(&mut self.state.lock().priorities).into_iter().collect()
    }

    /// The source panics when it is asked for balances.
    pub fn panic(&self) {
        self.state.lock().panics = true;
    }

    /// Every question about balances waits for its answer until this is over.
    pub fn hold_balances(&self, held: bool) {
        self.held.send_replace(held);
    }

    pub fn freeze(&self, address: Address, asset: AssetKey, amount: u64) {
        self.state.lock().frozen.insert((address, asset), amount);
    }

    /// An asset gives no figure, as a paused token does.
    pub fn unreadable(&self, asset: AssetKey) {
        self.state.lock().unreadable.insert(asset);
    }

    /// The questions about balances since this was last called.
    pub fn asked(&self) -> Vec<Vec<BalanceQuery>> {
        std::mem::take(&mut self.state.lock().asked)
    }

    /// The ranges of blocks that were read since this was last called.
    pub fn read(&self) -> Vec<(u64, u64)> {
        std::mem::take(&mut self.state.lock().read)
    }

    /// No node has these blocks any more; an empty list brings them back.
    pub fn lose(&self, heights: impl IntoIterator<Item = u64>) {
        self.state.lock().lost = heights.into_iter().collect();
    }

    /// What is read below this height is of another branch.
    pub fn branch_below(&self, height: u64) {
        self.state.lock().other_below = height;
    }

    /// The index of logs has nothing of these blocks.
    pub fn unindex(&self, heights: impl IntoIterator<Item = u64>) {
        self.state.lock().unindexed = heights.into_iter().collect();
    }

    /// The chain's own figure after its head.
    pub fn balance(&self, address: Address, asset: AssetKey) -> Amount {
        let state = self.state.lock();
        balances(&state, state.chain.last().unwrap().at, &[BalanceQuery { address, asset }])[0]
    }

    /// The chain's own figure after a block.
    pub fn balance_at(&self, number: u64, address: Address, asset: AssetKey) -> Amount {
        let state = self.state.lock();
        let at = state.chain[usize::try_from(number).unwrap()].at;
        balances(&state, at, &[BalanceQuery { address, asset }])[0]
    }

    fn call(&self) -> Result<parking_lot::MutexGuard<'_, State>, SourceError> {
        let mut state = self.state.lock();
        if state.faults > 0 {
            state.faults -= 1;
            return Err(SourceError::Unavailable {
                detail: "told to fail".into(),
                retry_after: None,
            });
        }
        Ok(state)
    }
}

impl State {
    fn refuse_large(&mut self) -> Result<(), SourceError> {
        let Some(asked) = &mut self.too_large else { return Ok(()) };
        *asked += 1;
        Err(SourceError::TooLarge("told to be".into()))
    }
}

#[async_trait]
impl Source for Scripted {
    fn family(&self) -> Family {
        Family::Evm
    }

    async fn head(&self) -> Result<Header, SourceError> {
        Ok(*self.call()?.chain.last().unwrap())
    }

    async fn settled(&self, _tag: SettlementTag) -> Result<Option<Header>, SourceError> {
        let state = self.call()?;
        let own = state.chain.get(usize::try_from(state.settled).unwrap());
        Ok(state.called_settled.or(own.copied()))
    }

    async fn settled_by_each(&self, tag: SettlementTag) -> Result<Vec<Header>, SourceError> {
        let first = self.settled(tag).await?;
        let state = self.call()?;
        let behind = match state.second {
            None => return Ok(first.into_iter().collect()),
            Some(Second::Behind(blocks)) => blocks,
            Some(Second::Same | Second::OtherBranch) => 0,
        };
        let number = usize::try_from(state.settled.saturating_sub(behind)).unwrap();
        Ok(first.into_iter().chain(state.chain.get(number).copied()).collect())
    }

    async fn header_by_each(&self, number: u64) -> Result<Vec<Option<Header>>, SourceError> {
        let first = self.header_at(number).await?;
        let other = |mut header: Header| {
            header.at.hash.0[30] ^= 1;
            header
        };
        Ok(match self.state.lock().second {
            None => vec![first],
            Some(Second::OtherBranch) => vec![first, first.map(other)],
            Some(Second::Same | Second::Behind(_)) => vec![first, first],
        })
    }

    async fn header_at(&self, number: u64) -> Result<Option<Header>, SourceError> {
        Ok(self.call()?.chain.get(usize::try_from(number).unwrap()).copied())
    }

    async fn blocks(&self, from: u64, to: u64) -> Result<Vec<Block>, SourceError> {
        let mut state = self.call()?;
        state.refuse_large()?;
        state.priorities.insert(("blocks", Priority::current()));
        state.read.push((from, to));
        let head = state.chain.last().unwrap().at.number;
        let to = match &mut state.withheld_head {
            Some(asked) if to == head => {
                *asked += 1;
                to - 1
            }
            _ => to,
        };
        if state.lost.range(from..=to).next().is_some() {
            return Err(SourceError::NotThere("lost".into()));
        }
        Ok(state
            .chain
            .iter()
            .filter(|header| (from..=to).contains(&header.at.number))
            .map(|header| {
                let hash = &header.at.hash;
                let payments = shown(&state, hash, &state.all[hash].1);
                let other = branch(*header, state.other_below);
                self.safes.show(block(&state, hash, other, payments))
            })
            .collect())
    }

    async fn block(&self, at: BlockRef) -> Result<Option<Block>, SourceError> {
        let mut state = self.call()?;
        state.refuse_large()?;
        state.priorities.insert(("blocks", Priority::current()));
        if state.chain.last().is_some_and(|head| head.at == at)
            && let Some(asked) = &mut state.withheld_head
        {
            *asked += 1;
            return Ok(None);
        }
        state.by_hash.asked += 1;
        if state.by_hash.refused {
            let detail = "told to refuse hashes".into();
            return Err(SourceError::Unavailable { detail, retry_after: None });
        }
        Ok(state.all.get(&at.hash).map(|(header, payments)| {
            let payments = shown(&state, &header.at.hash, payments);
            let block = self.safes.show(block(&state, &at.hash, *header, payments));
            state.by_hash.alter(block)
        }))
    }

    async fn trace(&self, blocks: &mut [Block], _patience: Duration) {
        let Ok(state) = self.call() else { return };
        if !self.traces() {
            return;
        }
        for block in blocks.iter_mut().filter(|block| block.traced == Traced::Not) {
            block.movements.extend(calls(&state, &block.header.at.hash));
            block.traced = Traced::Whole;
        }
    }

    fn traces(&self) -> bool {
        self.traces.load(Ordering::Relaxed)
    }

    async fn balances_at(
        &self,
        at: BlockRef,
        queries: &[BalanceQuery],
    ) -> Result<Vec<ChainBalance>, SourceError> {
        let _ = self.held.subscribe().wait_for(|held| !held).await;
        let mut state = self.call()?;
        state.asked.push(queries.to_vec());
        state.priorities.insert(("balances", Priority::current()));
        assert!(!state.panics, "a bug of the source");
        if state.mute {
            let detail = "told to be mute".into();
            return Err(SourceError::Unavailable { detail, retry_after: None });
        }
        if queries.iter().any(|query| state.refused == Some(query.address)) {
            let detail = "told to refuse an address".into();
            return Err(SourceError::Unavailable { detail, retry_after: None });
        }
        let canonical = state.chain.iter().any(|header| header.at == at);
        if !canonical || (state.pruned && at != state.chain.last().unwrap().at) {
            return Err(SourceError::NotThere("no state".into()));
        }
        let holding = |(query, total): (&BalanceQuery, Amount)| {
            if state.unreadable.contains(&query.asset) {
                return ChainBalance { unreadable: true, ..ChainBalance::default() };
            }
            let lie = state.lies.get(&(query.address, query.asset));
            let total = lie.map_or(total, |lie| Amount::from(*lie));
            let frozen = state.frozen.get(&(query.address, query.asset)).copied();
            ChainBalance { frozen: frozen.unwrap_or_default().into(), ..ChainBalance::from(total) }
        };
        Ok(queries.iter().zip(balances(&state, at, queries)).map(holding).collect())
    }

    async fn balances_for_sure(
        &self,
        at: BlockRef,
        queries: &[BalanceQuery],
    ) -> Result<Vec<(ChainBalance, Certainty)>, SourceError> {
        let certainty = self.state.lock().certainty;
        // A lie is one node's: neither a proof nor another node bears it out.
        let lies =
            (certainty >= Certainty::Agreed).then(|| std::mem::take(&mut self.state.lock().lies));
        let figures = self.balances_at(at, queries).await;
        if let Some(lies) = lies {
            self.state.lock().lies = lies;
        }
        let figures = figures?;
        Ok(figures.into_iter().map(|figure| (figure, certainty)).collect())
    }

    fn safes(&self) -> Option<&dyn SafeSource> {
        Some(&self.safes)
    }

    fn tokens(&self) -> Option<&dyn TokenSource> {
        Some(&self.tokens)
    }

    fn log_index(&self) -> Option<&dyn LogIndex> {
        Some(self)
    }

    fn announced(&self) -> watch::Receiver<Option<Announced>> {
        self.announced.subscribe()
    }

    async fn listen(&self) {}
}
