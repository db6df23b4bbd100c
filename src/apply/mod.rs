//! The commit point: one block, one batch, one rollback or one set of openings is one transaction.
//!
//! Every function here begins a transaction, checks that the chain's cursor still is what the caller built
//! upon, books transfers, entries and balances, moves the cursor, appends the events and commits. Either all
//! of it is durable or none. After any error the caller reads the cursor again: it never assumes.

mod book;
mod deployments;
mod history;
mod proof;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use book::Book;
pub use deployments::{DeploymentChange, FoundSafe};

use crate::{
    amount::Amount,
    chain::{
        Address, AssetKey, BalanceQuery, BlockRef, ChainName, Family, Header, Holding, Movement,
        TxId,
    },
    clock::Clock,
    config::ChainConfig,
    id::Ids,
    ledger::LedgerError,
    metrics::Metrics,
    store::{
        Db, StoreError, Tx,
        chain::{self, AssetRow, BlockPoint, Cursor},
        event, transfer,
        watch::{self, WatchRow},
    },
    wake::Wake,
};

/// Blocks remembered below the settled one, for a node that shows an old branch.
const REMEMBERED_BELOW_SETTLED: u64 = 64;

/// What the commit point has to know of a chain.
#[derive(Clone, Debug)]
pub struct ChainInfo {
    pub name: ChainName,
    pub family: Family,
    pub caip2: String,
    /// The native coin's SLIP-44 coin type.
    pub slip44: u32,
}

impl From<&ChainConfig> for ChainInfo {
    fn from(chain: &ChainConfig) -> Self {
        Self {
            name: chain.name.clone(),
            family: chain.family,
            caip2: chain.caip2.clone(),
            slip44: chain.native.slip44,
        }
    }
}

impl ChainInfo {
    /// An asset's CAIP-19 id.
    #[must_use]
    pub fn caip19(&self, asset: &AssetKey) -> String {
        self.family.caip19(&self.caip2, self.slip44, asset)
    }
}

/// Writes one chain's part of the ledger.
#[derive(Clone)]
pub struct Applier {
    pub(crate) db: Db,
    ids: Ids,
    clock: Clock,
    metrics: Metrics,
    wake: Wake,
    chain: Arc<ChainInfo>,
}

/// A block reduced to what touches a watched address.
#[derive(Clone, Debug)]
pub struct MatchedBlock {
    pub header: Header,
    pub movements: Vec<Movement>,
    /// Deployments of this block that somebody tracks, with what the chain's state says of them.
    pub safes: Vec<FoundSafe>,
    /// Tracked transactions of this block.
    pub tracked: Vec<TxId>,
    /// Watched holdings whose terms may have changed without a movement, as the chain has them now.
    pub touched: Vec<(BalanceQuery, Holding)>,
}

/// The opening balances of one watch, read at the block where it begins.
#[derive(Clone, Debug)]
pub struct Opening {
    pub watch: WatchRow,
    /// Base units at that block, of which `settled` was there at the settled block already.
    pub balances: Vec<OpeningBalance>,
}

#[derive(Clone, Copy, Debug)]
pub struct OpeningBalance {
    pub asset: AssetKey,
    pub total: Amount,
    /// What of it the asset's issuer has frozen.
    pub frozen: Amount,
    pub settled: Amount,
}

/// A balance that the ledger cannot explain: more left at `block` than it knew of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shortage {
    pub number: u64,
    pub address: Address,
    pub asset: AssetKey,
}

/// The chain's own figures where the ledger was short; `None` where the node no longer has that state.
pub type Figures = BTreeMap<Shortage, Option<Amount>>;

/// Why nothing was committed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The cursor is not what the caller built upon: read it again.
    #[error("the cursor of {0} was moved by somebody else, or the chain is halted")]
    CursorMoved(ChainName),
    /// Money left that the ledger did not know of: ask the chain for these figures and try again.
    #[error("{} balances spend more than the ledger knows of", .0.len())]
    Short(BTreeMap<Shortage, BlockRef>),
    /// Booking would break an invariant. The chain must stop until a person has looked.
    #[error("{context}: {error}")]
    Ledger { context: String, error: LedgerError },
}

/// What a commit did, beside the cursor.
#[derive(Clone, Debug, Default)]
pub struct Committed {
    /// Addresses whose watch is open from now on.
    pub opened: Vec<Address>,
    /// Addresses that may no longer be watched by anyone.
    pub closed: Vec<Address>,
    /// Whether a wish was written that the follower should look at soon.
    pub wishes: bool,
}

impl Applier {
    #[must_use]
    pub fn new(
        db: Db,
        ids: Ids,
        clock: Clock,
        metrics: Metrics,
        wake: Wake,
        chain: ChainInfo,
    ) -> Self {
        Self { db, ids, clock, metrics, wake, chain: Arc::new(chain) }
    }

    #[must_use]
    pub fn chain(&self) -> &ChainInfo {
        &self.chain
    }

    /// Where the chain stands in the store.
    pub async fn cursor(&self) -> Result<Option<Cursor>, StoreError> {
        let mut session = self.db.read().await?;
        chain::cursor(&mut session.conn(), &self.chain.name).await
    }

    /// Begins a chain that has no cursor: from now on, nothing of it is missed.
    pub async fn begin(&self, head: &Header, settled: &Header) -> Result<Cursor, ApplyError> {
        let cursor = Cursor {
            chain: self.chain.name.clone(),
            family: self.chain.family,
            caip2: self.chain.caip2.clone(),
            head: head.into(),
            settled: settled.into(),
            halted: None,
        };
        let now = self.clock.now();
        let mut tx = self.db.begin().await?;
        let mut conn = tx.conn();
        if !chain::insert_cursor(&mut conn, &cursor, now).await? {
            return Err(ApplyError::CursorMoved(self.chain.name.clone()));
        }
        chain::insert_block(&mut conn, &self.chain.name, settled).await?;
        if settled.at != head.at {
            chain::insert_block(&mut conn, &self.chain.name, head).await?;
        }
        tx.commit().await?;
        Ok(cursor)
    }

    /// Connects `blocks` (each the child of the one before, the first of `cursor.head`) and settles up to
    /// `settled`, one of them or the block that is settled already. What settles is compared with nothing:
    /// that is [`Applier::settle`].
    ///
    /// `figures` holds the chain's own balances for shortages that an earlier try returned.
    pub async fn connect(
        &self,
        cursor: &Cursor,
        blocks: &[MatchedBlock],
        settled: BlockPoint,
        figures: &Figures,
    ) -> Result<(Cursor, Committed), ApplyError> {
        let started = Instant::now();
        let head = blocks.last().map_or(cursor.head, |block| (&block.header).into());
        let mut next = cursor.clone();
        next.head = head;
        next.settled = settled;
        let mut work = self.work(cursor, &next).await?;
        let mut committed = Committed::default();
        // Rows of settled blocks are of no use to a reorg; while catching up that is nearly all of them.
        let keep_from = settled.at.number;
        let mut short = BTreeMap::new();
        for block in blocks {
            if block.header.at.number >= keep_from {
                chain::insert_block(&mut work.tx.conn(), &self.chain.name, &block.header).await?;
            }
            let found = work.book.connect(&mut work.tx.conn(), block, figures).await?;
            short.extend(found.into_iter().map(|shortage| (shortage, block.header.at)));
            if short.is_empty() {
                committed.wishes |= work.book.deployments_seen(&mut work.tx.conn(), block).await?;
            }
        }
        if !short.is_empty() {
            return Err(ApplyError::Short(short));
        }
        if settled.at.number > cursor.settled.at.number {
            // A settled block between two batches keeps its row: the next reorg search ends there.
            let below = if settled == head { 0 } else { REMEMBERED_BELOW_SETTLED };
            self.settle_in(&mut work, settled, below).await?;
        }
        self.finish(work, "connect").await?;
        self.observe("commit", started);
        self.metrics
            .blocks_applied_total
            .with_label_values(&[self.chain.name.as_str()])
            .inc_by(blocks.len() as u64);
        Ok((next, committed))
    }

    /// Goes back to `fork`: adds the opposite entries, orphans the transfers, takes back what was opened or
    /// deployed above it, and moves the cursor.
    pub async fn rollback(
        &self,
        cursor: &Cursor,
        fork: BlockPoint,
    ) -> Result<(Cursor, Committed), ApplyError> {
        let mut next = cursor.clone();
        next.head = fork;
        let mut work = self.work(cursor, &next).await?;
        let closed = self.undo(&mut work, fork, false).await?;
        self.finish(work, "rollback").await?;
        Ok((next, Committed { closed, wishes: true, ..Committed::default() }))
    }

    /// The way out of a halt: rolls back to `target`, a block of the node's chain, even below the settled
    /// block, and lets the chain go on. Settled money above it is taken back, with events that say so.
    pub async fn rewind(&self, target: &Header) -> Result<Cursor, ApplyError> {
        let cursor =
            self.cursor().await?.ok_or_else(|| ApplyError::CursorMoved(self.chain.name.clone()))?;
        let point = BlockPoint::from(target);
        if point.at.number > cursor.head.at.number {
            return Err(StoreError::Unusable(format!(
                "the chain stands at block {}: name a block at or below it",
                cursor.head.at.number
            ))
            .into());
        }
        let mut next = cursor.clone();
        next.head = point;
        if next.settled.at.number > point.at.number {
            next.settled = point;
        }
        let now = self.clock.now();
        let mut tx = self.db.begin().await?;
        chain::set_halted(&mut tx.conn(), &self.chain.name, None, now).await?;
        let mut work = self.work_in(tx, &cursor, &next).await?;
        self.undo(&mut work, point, true).await?;
        chain::delete_blocks_below(&mut work.tx.conn(), &self.chain.name, point.at.number + 1)
            .await?;
        chain::insert_block(&mut work.tx.conn(), &self.chain.name, target).await?;
        self.finish(work, "rewind").await?;
        Ok(Cursor { halted: None, ..next })
    }

    /// `below_settled`: also what has settled above `fork`.
    async fn undo(
        &self,
        work: &mut Work,
        fork: BlockPoint,
        below_settled: bool,
    ) -> Result<Vec<Address>, ApplyError> {
        let name = &self.chain.name;
        let reset =
            watch::reopen_above(&mut work.tx.conn(), name, fork.at.number, work.book.now).await?;
        let mut gone = transfer::pending_above(&mut work.tx.conn(), name, fork.at.number).await?;
        if below_settled {
            let settled =
                transfer::settled_above(&mut work.tx.conn(), name, fork.at.number).await?;
            let anew: BTreeSet<_> = reset.iter().map(|(wallet, _)| *wallet).collect();
            gone.extend(settled.into_iter().filter(|row| !anew.contains(&row.wallet_id)));
        }
        // A watch that begins anew begins with nothing: neither the sure part of its opening stays, nor
        // what explains it from before.
        for (wallet, _) in &reset {
            gone.extend(transfer::settled_of(&mut work.tx.conn(), *wallet, name).await?);
        }
        work.book.disconnect(&mut work.tx.conn(), gone).await?;
        work.book.deployments_gone(&mut work.tx.conn(), fork.at.number).await?;
        chain::delete_blocks_above(&mut work.tx.conn(), name, fork.at.number).await?;
        Ok(reset.into_iter().map(|(_, address)| address).collect())
    }

    /// Opens watches at the cursor's head, with the balances read at exactly that block, and closes those
    /// that were asked to close.
    pub async fn open(
        &self,
        cursor: &Cursor,
        openings: &[Opening],
        closings: &[WatchRow],
    ) -> Result<Committed, ApplyError> {
        let mut work = self.work(cursor, cursor).await?;
        let mut committed = Committed::default();
        for opening in openings {
            let watch = &opening.watch;
            let at = &cursor.head.at;
            if !watch::open(&mut work.tx.conn(), &self.chain.name, watch, at, work.book.now).await?
            {
                continue;
            }
            work.book.opening(&mut work.tx.conn(), opening, cursor).await?;
            committed.opened.push(watch.address);
        }
        for watch in closings {
            watch::close(&mut work.tx.conn(), &self.chain.name, watch, work.book.now).await?;
            committed.closed.push(watch.address);
        }
        self.finish(work, "open").await?;
        Ok(committed)
    }

    /// Makes assets money: what the configuration says of them, and the balances that the open watches
    /// have of the new ones, read at the cursor's head.
    pub async fn verify_assets(
        &self,
        cursor: &Cursor,
        assets: &[AssetRow],
        openings: &[Opening],
    ) -> Result<(), ApplyError> {
        if assets.is_empty() {
            return Ok(());
        }
        let mut work = self.work(cursor, cursor).await?;
        for asset in assets {
            chain::upsert_asset(&mut work.tx.conn(), asset, work.book.now).await?;
        }
        for opening in openings {
            work.book.opening(&mut work.tx.conn(), opening, cursor).await?;
        }
        self.finish(work, "assets").await
    }

    /// Writes what was learned of tracked deployments since they were read.
    pub async fn deployments(
        &self,
        cursor: &Cursor,
        changes: Vec<DeploymentChange>,
    ) -> Result<Committed, ApplyError> {
        let mut work = self.work(cursor, cursor).await?;
        let wishes = work.book.deployments_changed(&mut work.tx.conn(), changes).await?;
        self.finish(work, "deployments").await?;
        Ok(Committed { wishes, ..Committed::default() })
    }

    /// Stops the chain until [`Applier::rewind`]; the reason is shown by the API and the log.
    pub async fn halt(&self, reason: &str) -> Result<(), StoreError> {
        let mut tx = self.db.begin().await?;
        let now = self.clock.now();
        chain::set_halted(&mut tx.conn(), &self.chain.name, Some(reason), now).await?;
        tx.commit().await
    }

    async fn work(&self, cursor: &Cursor, next: &Cursor) -> Result<Work, ApplyError> {
        let tx = self.db.begin().await?;
        self.work_in(tx, cursor, next).await
    }

    /// The cursor moves first: whoever holds its row is the only writer of this chain until commit.
    async fn work_in(&self, tx: Tx, cursor: &Cursor, next: &Cursor) -> Result<Work, ApplyError> {
        let mut tx = tx;
        let now = self.clock.now();
        if !chain::move_cursor(&mut tx.conn(), cursor, next, now).await? {
            return Err(ApplyError::CursorMoved(self.chain.name.clone()));
        }
        let book = Book::new(Arc::clone(&self.chain), self.ids.clone(), now, next.head.at.number);
        Ok(Work { tx, book, started: Instant::now() })
    }

    async fn finish(&self, work: Work, name: &'static str) -> Result<(), ApplyError> {
        let Work { mut tx, mut book, started } = work;
        let events = book.finish(&mut tx.conn()).await?;
        event::append(&mut tx.conn(), &self.ids, book.now, &events).await?;
        tx.commit().await?;
        let elapsed = started.elapsed().as_secs_f64();
        self.metrics.db_transaction_duration_seconds.with_label_values(&[name]).observe(elapsed);
        for event in &events {
            self.metrics.events_total.with_label_values(&[event.kind.as_str()]).inc();
        }
        book.report(&self.metrics);
        if !events.is_empty() {
            self.wake.deliveries();
        }
        Ok(())
    }

    fn observe(&self, step: &str, started: Instant) {
        self.metrics
            .apply_duration_seconds
            .with_label_values(&[self.chain.name.as_str(), step])
            .observe(started.elapsed().as_secs_f64());
    }
}

/// A transaction in progress.
struct Work {
    tx: Tx,
    book: Book,
    started: Instant,
}
