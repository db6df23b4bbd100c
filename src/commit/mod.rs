//! The commit point: load what a step needs, let [`crate::ledger`] decide, write what it decided.
//!
//! One block, one batch, one rollback or one set of openings is one transaction. It writes only where the
//! chain's cursor still is what the step was decided upon, under the same epoch: either all of it is durable or
//! none. Loading and writing take a fixed number of statements each, however many rows. After any error the
//! caller reads the cursor again: it never assumes.

mod connect;
mod early;
mod hot;
mod load;
mod notes;
mod quarantine;
mod report;
mod rewind;
mod safes;
mod write;

use std::{collections::BTreeMap, sync::Arc, time::Instant};

pub use connect::Pipeline;
pub use early::Due;
use hot::Hot;
use tokio::sync::Mutex;
use write::Written;

use crate::{
    chain::{Address, AssetKey, BlockRef, ChainName, Header, HistoryMethod},
    clock::{Clock, Millis},
    config::ChainConfig,
    fleet::ChainLease,
    id::Ids,
    ledger::{
        Changes, Refused,
        backfill::{self, Range, ScanMove},
        changes::{HistoryEnd, NewBlock},
        known::{Known, MatchedBlock, Shortage},
        opening::{self, AssetPage, Opening},
        reconcile::{self, Drift, Figure, Outcome},
        rollback, settle, traced,
    },
    metrics::Metrics,
    model::{
        Asset, BlockPoint, ChainInfo, ChainNo, Cursor, HistoryStatus, JournalHead, ScanNo, Watch,
    },
    store::{Db, StoreError, Tx, chain, outage::Cause, scan, tx::TxError},
    wake::Wake,
};

/// How often a step is loaded and decided anew because something that it read has changed.
const TRIES: u32 = 4;

impl From<&ChainConfig> for ChainInfo {
    fn from(chain: &ChainConfig) -> Self {
        Self {
            name: chain.name.clone(),
            family: chain.family,
            caip2: chain.caip2.clone(),
            slip44: chain.native.slip44,
            safes_per_owner: chain.safes_per_owner,
            settlement: chain.settlement,
            tiers: chain.tiers.clone(),
        }
    }
}

/// Writes one chain's part of the ledger.
#[derive(Clone)]
pub struct Committer {
    pub(crate) db: Db,
    ids: Ids,
    clock: Clock,
    metrics: Metrics,
    wake: Wake,
    chain: Arc<ChainInfo>,
    lease: Arc<ChainLease>,
    hot: Arc<Mutex<Hot>>,
}

/// Why nothing was committed.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The cursor is not what the caller built upon: read it again.
    #[error("the cursor of {0} was moved by somebody else, or the chain is halted")]
    CursorMoved(ChainName),
    /// Money left that the ledger did not know of: ask the chain for these figures and try again.
    #[error("{} balances spend more than the ledger knows of", .0.len())]
    Short(BTreeMap<Shortage, BlockRef>),
    /// The chain's own figures differ, and nobody has confirmed it yet: ask for certainty and try again.
    #[error("{} balances differ from what a node says of them", .0.len())]
    Unconfirmed(Vec<Drift>),
    /// Booking would break an invariant. The chain must stop until a person has looked.
    #[error(transparent)]
    Refused(#[from] Refused),
}

/// Whether every difference in a step's figures was confirmed, or is left alone.
fn confirmed(changes: &Changes) -> Result<(), CommitError> {
    let open = |drift: &&Drift| drift.outcome == Outcome::Unconfirmed;
    let open: Vec<Drift> = changes.report.drifts.iter().filter(open).copied().collect();
    if open.is_empty() { Ok(()) } else { Err(CommitError::Unconfirmed(open)) }
}

impl TxError for CommitError {
    fn is_collision(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_collision())
    }

    fn outage(&self) -> Option<Cause> {
        match self {
            Self::Store(error) => error.outage(),
            _ => None,
        }
    }
}

/// What a commit did.
#[derive(Clone, Debug)]
pub struct Committed {
    pub cursor: Cursor,
    /// Addresses whose watch is open from now on.
    pub opened: Vec<Address>,
    /// Addresses that may no longer be watched by anyone.
    pub closed: Vec<Address>,
    /// Whether a request was written that the follower should look at soon.
    pub requests: bool,
    /// Whether histories ended before all of them was found.
    pub histories_ended: bool,
    /// Scans in which nobody takes part any more.
    pub scans_over: Vec<ScanNo>,
}

impl Committed {
    fn of(changes: Changes, written: Written) -> Self {
        let watches = changes.watches;
        let address = |(_, address)| address;
        let reopened = watches.reopened.into_iter().flat_map(|(_, places)| places);
        Self {
            requests: changes.blocks.above.is_some()
                || !changes.wallets.is_empty()
                || !changes.looks.waiting.is_empty()
                || !changes.safe_states.ran.is_empty()
                || !changes.safe_states.begun.is_empty(),
            cursor: changes.cursor,
            opened: watches.opened.into_iter().map(address).collect(),
            closed: watches.closed.into_iter().chain(reopened).map(address).collect(),
            histories_ended: !watches.ended.is_empty(),
            scans_over: written.histories.over,
        }
    }
}

impl Committer {
    #[must_use]
    pub fn new(
        db: Db,
        ids: Ids,
        clock: Clock,
        metrics: Metrics,
        wake: Wake,
        chain: ChainInfo,
    ) -> Self {
        Self {
            lease: Arc::new(ChainLease::alone(db.clone(), chain.name.clone(), &metrics)),
            db,
            ids,
            clock,
            metrics,
            wake,
            chain: Arc::new(chain),
            hot: Arc::default(),
        }
    }

    /// The same under a lease that other daemons can win.
    #[must_use]
    pub fn held_by(self, lease: Arc<ChainLease>) -> Self {
        Self { lease, ..self }
    }

    /// Whether this daemon follows the chain.
    #[must_use]
    pub fn lease(&self) -> &Arc<ChainLease> {
        &self.lease
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
    /// `between` are ancestors of the head above the settled block, the lowest first.
    pub async fn begin(
        &self,
        head: &Header,
        settled: &Header,
        between: &[Header],
    ) -> Result<Cursor, CommitError> {
        self.db.run_tx("begin", |tx| self.begin_in(tx, head, settled, between)).await
    }

    async fn begin_in(
        &self,
        mut tx: Tx,
        head: &Header,
        settled: &Header,
        between: &[Header],
    ) -> Result<(Tx, Cursor), CommitError> {
        let info = &self.chain;
        let mut conn = tx.conn();
        let cursor = Cursor {
            no: chain::ensure(&mut conn, &info.name).await?,
            chain: info.name.clone(),
            family: info.family,
            caip2: info.caip2.clone(),
            head: head.into(),
            settled: settled.into(),
            halted: None,
            epoch: 0,
            transfers: 0,
            assets: 0,
            journal: JournalHead::default(),
        };
        if !chain::insert_cursor(&mut conn, &cursor, self.clock.now()).await? {
            return Err(CommitError::CursorMoved(info.name.clone()));
        }
        let first = (settled.at != head.at).then_some(*settled);
        let all = first.into_iter().chain(between.iter().copied()).chain([*head]);
        // All that had moved in them is in the balances with which watches begin.
        let blocks: Vec<NewBlock> =
            all.map(|header| NewBlock { header, untraced: false }).collect();
        chain::insert_blocks(&mut conn, cursor.no, &blocks).await?;
        Ok((tx, cursor))
    }

    /// Settles up to `settled`, a block at or below the cursor's head, and takes over what the chain itself
    /// says after exactly that block of the balances that settle.
    ///
    /// # Errors
    /// [`CommitError::Unconfirmed`] before anything is written, if a figure differs that is one node's word.
    pub async fn settle(
        &self,
        cursor: &Cursor,
        settled: BlockPoint,
        figures: &[Figure],
    ) -> Result<Committed, CommitError> {
        let mut tries = Tries::new("settle", "settle");
        loop {
            let mut hot = self.hot.lock().await;
            let pending = self.step().for_settling(cursor, settled, figures, &mut hot).await?;
            let known = &mut hot.known;
            let proofs = self.step().for_figures(cursor, known, settled, figures).await?;
            let compared = settle::Compared { figures, proofs: &proofs };
            let (info, now) = (&*self.chain, self.clock.now());
            let changes = settle::settle(info, cursor, known, pending, settled, compared, now)?;
            drop(hot);
            confirmed(&changes)?;
            if let Some(committed) = self.write(changes, &mut tries).await? {
                return Ok(committed);
            }
        }
    }

    /// Takes over what the chain itself says of balances after exactly the cursor's settled block.
    ///
    /// # Errors
    /// As [`Committer::settle`].
    pub async fn reconcile(
        &self,
        cursor: &Cursor,
        figures: &[Figure],
    ) -> Result<Committed, CommitError> {
        let mut tries = Tries::new("reconcile", "reconcile");
        loop {
            let mut known = self.step().for_balances(cursor, figures).await?;
            let settled = cursor.settled;
            let proofs = self.step().for_figures(cursor, &mut known, settled, figures).await?;
            let now = self.clock.now();
            let changes = reconcile::reconcile(&self.chain, cursor, &known, figures, &proofs, now)?;
            confirmed(&changes)?;
            if let Some(committed) = self.write(changes, &mut tries).await? {
                return Ok(committed);
            }
        }
    }

    /// Accepts more differences from the chain's own figures than are believed by themselves, until the next block
    /// settles.
    ///
    /// # Errors
    /// [`CommitError::CursorMoved`] for a chain that was never followed.
    pub async fn accept_differences(&self) -> Result<(), CommitError> {
        self.db
            .run_tx("accept_differences", |mut tx| async move {
                let conn = &mut tx.conn();
                let no = chain::ensure(conn, &self.chain.name).await?;
                if !chain::accept_differences(conn, no).await? {
                    return Err(CommitError::CursorMoved(self.chain.name.clone()));
                }
                Ok((tx, ()))
            })
            .await
    }

    /// Books what moved inside the transactions of a block that was connected without it and has not settled.
    pub async fn complete(
        &self,
        cursor: &Cursor,
        block: &MatchedBlock,
    ) -> Result<Committed, CommitError> {
        let mut tries = Tries::new("traced", "traced");
        loop {
            let (known, pending) = self.step().for_traced(cursor, block).await?;
            let (info, now) = (&*self.chain, self.clock.now());
            let changes = traced::complete(info, cursor, &known, &pending, block, now)?;
            if let Some(committed) = self.write(changes, &mut tries).await? {
                return Ok(committed);
            }
        }
    }

    /// Goes back to `fork`: adds the opposite entries, orphans the transfers, takes back what was opened or
    /// deployed above it, and moves the cursor.
    pub async fn rollback(
        &self,
        cursor: &Cursor,
        fork: BlockPoint,
    ) -> Result<Committed, CommitError> {
        let mut tries = Tries::new("rollback", "rollback");
        loop {
            let (known, gone) = self.step().for_rollback(cursor, fork.at.number, false).await?;
            let now = self.clock.now();
            let changes = rollback::rollback(&self.chain, cursor, &known, gone, fork, now)?;
            if let Some(committed) = self.write(changes, &mut tries).await? {
                return Ok(committed);
            }
        }
    }

    /// Opens watches at the cursor's head, with the balances read at exactly that block, and closes those
    /// that were asked to close. A request that was withdrawn meanwhile makes all of it [`StoreError::Stale`].
    pub async fn open(
        &self,
        cursor: &Cursor,
        openings: &[Opening],
        closings: &[Watch],
    ) -> Result<Committed, CommitError> {
        let mut tries = Tries::new("open", "open");
        loop {
            let known = self.step().for_openings(cursor, openings).await?;
            let now = self.clock.now();
            let changes = opening::open(&self.chain, cursor, &known, openings, closings, now)?;
            if let Some(committed) = self.write(changes, &mut tries).await? {
                return Ok(committed);
            }
        }
    }

    /// Makes assets money: what the configuration says of them.
    pub async fn list_assets(
        &self,
        cursor: &Cursor,
        assets: &[Asset],
    ) -> Result<Committed, CommitError> {
        let mut tries = Tries::new("assets", "open");
        let keys: Vec<AssetKey> = assets.iter().map(|asset| asset.key).collect();
        loop {
            let mut known = Known::default();
            self.step().assets(cursor, &mut known, &keys).await?;
            let (info, now) = (&*self.chain, self.clock.now());
            let changes = opening::list_assets(info, cursor, &known, assets, now)?;
            if let Some(committed) = self.write(changes, &mut tries).await? {
                return Ok(committed);
            }
        }
    }

    /// Assets begin to count for some more wallets, with the balances read at exactly the cursor's head.
    pub async fn open_assets(
        &self,
        cursor: &Cursor,
        page: AssetPage<'_>,
    ) -> Result<Committed, CommitError> {
        let mut tries = Tries::new("assets", "open");
        loop {
            let known = self.step().for_openings(cursor, page.openings).await?;
            let (info, now) = (&*self.chain, self.clock.now());
            let changes = opening::open_assets(info, cursor, known, page, now)?;
            if let Some(committed) = self.write(changes, &mut tries).await? {
                return Ok(committed);
            }
        }
    }

    /// Books a range of the past for all who take part in some scans, and moves these on to the block below it.
    pub async fn backfill(
        &self,
        cursor: &Cursor,
        scans: &[ScanMove],
        range: Range<'_>,
    ) -> Result<Committed, CommitError> {
        let mut tries = Tries::new("history", "history");
        loop {
            let mut hot = self.hot.lock().await;
            let participants = self.step().for_backfill(cursor, scans, range, &mut hot).await?;
            tries.loaded(self);
            let (info, known, now) = (&*self.chain, &hot.known, self.clock.now());
            let changes =
                backfill::backfill(info, cursor, known, &participants, scans, range, now)?;
            drop(hot);
            tries.decided(self);
            if let Some(committed) = self.write(changes, &mut tries).await? {
                return Ok(committed);
            }
        }
    }

    /// Lets watches whose history nobody looks for yet take part in scans from the blocks at which they opened;
    /// gives their addresses, at most `limit`.
    pub async fn enlist(
        &self,
        cursor: &Cursor,
        method: HistoryMethod,
        limit: i64,
    ) -> Result<Vec<Address>, CommitError> {
        let now = self.clock.now();
        let enlisted = self
            .db
            .run_tx("history", |mut tx| async move {
                let conn = &mut tx.conn();
                if !chain::move_cursor(conn, cursor, cursor, now, self.lease.length()).await? {
                    return Err(CommitError::CursorMoved(cursor.chain.clone()));
                }
                let enlisted = scan::enlist(conn, cursor.no, method, limit, now).await?;
                Ok((tx, enlisted))
            })
            .await?;
        self.histories(HistoryStatus::Complete, enlisted.complete);
        Ok(enlisted.addresses)
    }

    /// Deletes the scans in which nobody takes part any more.
    pub async fn delete_empty_scans(&self, cursor: &Cursor) -> Result<(), CommitError> {
        let now = self.clock.now();
        self.db
            .run_tx("history", |mut tx| async move {
                let conn = &mut tx.conn();
                if !chain::move_cursor(conn, cursor, cursor, now, self.lease.length()).await? {
                    return Err(CommitError::CursorMoved(cursor.chain.clone()));
                }
                scan::delete_empty(conn, cursor.no).await?;
                Ok((tx, ()))
            })
            .await
    }

    /// Ends histories without booking anything.
    pub async fn end_histories(
        &self,
        cursor: &Cursor,
        ended: &[HistoryEnd],
    ) -> Result<Committed, CommitError> {
        let mut tries = Tries::new("history", "history");
        loop {
            let changes = backfill::end(cursor, ended.to_vec(), self.clock.now());
            if let Some(committed) = self.write(changes, &mut tries).await? {
                return Ok(committed);
            }
        }
    }

    /// Stops the chain until [`Committer::rewind`]; the reason is shown by the API and the log. `false` if
    /// somebody else follows the chain by now: then it is theirs to decide.
    pub async fn halt(&self, chain: ChainNo, epoch: i64, reason: &str) -> Result<bool, StoreError> {
        let now = self.clock.now();
        self.db
            .run_tx("halt", |mut tx| async move {
                let halted = chain::halt(&mut tx.conn(), chain, epoch, reason, now).await?;
                Ok((tx, halted))
            })
            .await
    }

    fn step(&self) -> load::Step<'_> {
        load::Step::new(&self.db, &self.chain)
    }

    /// Writes what was decided. `None` if something that was read has changed meanwhile: load and decide again.
    async fn write(
        &self,
        changes: Changes,
        tries: &mut Tries,
    ) -> Result<Option<Committed>, CommitError> {
        self.hot.lock().await.take_over(&changes);
        self.write_taken_over(changes, tries).await
    }

    /// As [`Committer::write`], where later decisions count on these changes already.
    async fn write_taken_over(
        &self,
        changes: Changes,
        tries: &mut Tries,
    ) -> Result<Option<Committed>, CommitError> {
        let written = self.db.run_tx(tries.transaction, |tx| self.write_in(tx, &changes)).await;
        if written.is_err() {
            self.hot.lock().await.forget();
        }
        match written {
            Err(CommitError::Store(StoreError::Stale(why))) if tries.left > 0 => {
                tracing::debug!(chain = %self.chain.name, why, "deciding again");
                tries.left -= 1;
                Ok(None)
            }
            Err(error) => {
                self.note_fenced(&error, &changes.from).await;
                Err(error)
            }
            Ok(written) => {
                self.report(&changes, &written);
                self.observe(tries.step, tries.started);
                Ok(Some(Committed::of(changes, written)))
            }
        }
    }

    /// Counts a commit that was refused because another daemon follows the chain by now.
    async fn note_fenced(&self, error: &CommitError, from: &Cursor) {
        if !matches!(error, CommitError::CursorMoved(_)) {
            return;
        }
        if let Ok(Some(cursor)) = self.cursor().await
            && cursor.epoch != from.epoch
        {
            self.lease.fenced();
        }
    }

    fn observe(&self, step: &str, started: Instant) {
        self.metrics
            .apply_duration_seconds
            .with_label_values(&[self.chain.name.as_str(), step])
            .observe(started.elapsed().as_secs_f64());
    }
}

/// How often a step is loaded and decided anew because something that it read has changed, and how long it takes.
struct Tries {
    /// The name of its transaction, for the metrics.
    transaction: &'static str,
    /// The name of the step, for the metrics.
    step: &'static str,
    started: Instant,
    lap: Instant,
    left: u32,
    /// The time of the commit: the same in every try, so that its hash is the one that the next was decided upon.
    now: Option<Millis>,
}

impl Tries {
    fn new(transaction: &'static str, step: &'static str) -> Self {
        let started = Instant::now();
        Self { transaction, step, started, lap: started, left: TRIES, now: None }
    }

    fn loaded(&mut self, committer: &Committer) {
        committer.observe("load", self.lap);
        self.lap = Instant::now();
    }

    fn decided(&mut self, committer: &Committer) {
        committer.observe("decide", self.lap);
        self.lap = Instant::now();
    }
}
