//! The past of watches, read beside the following of the chain.
//!
//! A watch begins with the balances of its first block, at once. Where more was asked for, old blocks are read
//! from there downwards, and every commit explains the opening balances a bit further: see
//! [`crate::ledger::backfill`]. [`plan`] says what is read next, and serves everybody who needs the same blocks
//! by one reading; [`descent`] reads; the follower commits what was read between two blocks, one piece in a turn: some
//! addresses' part of a batch. An opening is replaced once for a batch, so batches are large, and pieces small.
//!
//! How far everybody is stands in the store, in scans. Watches join one before a run begins, never while it is
//! read: what is read was chosen for those who had joined by then.

pub mod budget;
pub mod descent;
mod lookup;
pub mod plan;
mod proof;

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use budget::Budget;
use descent::{Batch, Descent, Reading, Step, Wanted, Way};
use lookup::{Found, Lookup};
use plan::{Advance, Plan, Run, Scan};
use proof::Proofs;

use super::{Follower, TurnError};
use crate::{
    chain::{Address, AssetKey, BlockRef, HistoryMethod, SourceError},
    commit::CommitError,
    ledger::{
        backfill::{Range, ScanMove, Side, piece, sides},
        changes::HistoryEnd,
    },
    model::{Cursor, TenantNo},
    store::{participant, scan as scan_store},
};

/// A commit of history takes about so long; a block that comes meanwhile waits for its end.
const COMMIT: Duration = Duration::from_millis(200);
/// Sides of movements in the first commit, before it is known how long it takes.
const FIRST_COMMIT: usize = 2_000;
/// Commits of a batch: in tests so few that there are many batches.
const PIECES: usize = if cfg!(test) { 2 } else { 32 };
/// Movements in a batch at most: two batches are in memory, of some 250 bytes for a movement.
const MAX_BATCH: usize = 65_536;
/// How many ranges a tenant's turn is long.
const RANGES_PER_TURN: u64 = 16;
/// Blocks of a turn where only those that an index names are read.
const BLOCKS_PER_SEARCH: u64 = 100_000;
/// Histories that begin to be looked for in one transaction: in tests so few that some always fill it.
const ENLISTED_AT_ONCE: i64 = if cfg!(test) { 2 } else { 2_000 };
/// Requests, or histories that are looked up, at a time.
const MAX_IN_FLIGHT: usize = 4;
/// How often it is told how far a long history is.
const REPORT: Duration = Duration::from_secs(10);

/// Whose turns are counted: a tenant's, by the way in which its histories are found.
type Lane = (TenantNo, HistoryMethod);

/// What the follower knows and does of histories.
pub(super) struct Backfill {
    plan: Plan<Lane>,
    /// Whose movements are wanted of the blocks that are read.
    wanted: Wanted,
    /// Whether the two are what the store has.
    loaded: bool,
    /// Whether watches may have opened whose history nobody looks for yet.
    opened: bool,
    proofs: Proofs,
    /// The blocks that are being read, for everybody who needs them.
    reading: Option<(Run<Lane>, Descent)>,
    /// Those of them that are being booked.
    batch: Option<Booking>,
    /// Histories that are being looked up, each by itself.
    lookups: Vec<(Run<Lane>, Lookup)>,
    /// What was found of one of them, and is being booked.
    booking: Option<(Run<Lane>, Found)>,
    budget: Budget,
    reported: Instant,
}

impl Backfill {
    pub(super) fn new() -> Self {
        Self {
            plan: Plan::default(),
            wanted: Wanted::default(),
            loaded: false,
            opened: true,
            proofs: Proofs::default(),
            reading: None,
            batch: None,
            lookups: Vec::new(),
            booking: None,
            budget: Budget::new(COMMIT, FIRST_COMMIT),
            reported: Instant::now(),
        }
    }

    /// Nothing is known any more but what the store has.
    pub(super) fn forget(&mut self) {
        self.loaded = false;
        self.opened = true;
        self.proofs = Proofs::default();
        self.reading = None;
        self.batch = None;
        self.lookups.clear();
        self.booking = None;
    }

    /// Watches opened, or wait to be opened anew.
    pub(super) fn look_again(&mut self) {
        self.opened = true;
    }

    /// Watches closed: their histories are wanted no more.
    pub(super) fn reload(&mut self) {
        self.loaded &= self.plan.is_empty();
    }

    /// Whether a history may be looked up beside those that are. A tenant leaves one place to the others.
    fn may_look_up(&self, lane: Lane, scan: &Scan, at_once: usize) -> bool {
        let looked_up = self.lookups.iter().map(|(run, _)| run);
        let busy = looked_up.chain(self.booking.iter().map(|(run, _)| run));
        let (mut all, mut own) = (0, 0);
        for run in busy {
            if run.scan.no == scan.no {
                return false;
            }
            all += 1;
            own += usize::from(run.lane == lane);
        }
        all < at_once && (own + 1 < at_once || at_once == 1)
    }

    #[cfg(test)]
    pub(super) fn limit(&mut self, budget: Budget) {
        self.budget = budget;
    }
}

/// A batch that is booked, some addresses after others.
struct Booking {
    batch: Batch,
    /// What moved in it, by address.
    sides: Vec<Side>,
    /// How many of them are booked.
    booked: usize,
}

impl Booking {
    /// What the next commit books: about so many sides.
    fn range(&self, most: usize) -> Range<'_> {
        let Self { batch: Batch { blocks, below, .. }, sides, booked } = self;
        let left = &sides[*booked..];
        let piece = piece(left, most);
        let lower = piece.blocks.and_then(|above| Some((&blocks[..above], blocks.get(above)?)));
        let (blocks, below) =
            lower.map_or((blocks.as_slice(), below), |(above, past)| (above, &past.header));
        let (sides, is_last) = (&left[..piece.sides], piece.sides == left.len());
        Range { blocks, below: below.into(), sides, is_last }
    }
}

impl Follower {
    /// Commits what was read of the past, one piece at most, and goes on reading.
    pub(super) async fn backfill(&mut self, cursor: &Cursor) -> Result<(), TurnError> {
        let done = self.backfill_step(cursor).await;
        self.gauge_backing_off(self.backfill.plan.backing_off());
        done
    }

    async fn backfill_step(&mut self, cursor: &Cursor) -> Result<(), TurnError> {
        if self.prove_ends(cursor).await?
            || self.book_lookups(cursor).await?
            || self.book_reading(cursor).await?
        {
            // Whatever comes next, a block may come first.
            self.wake_up.notify_one();
            return Ok(());
        }
        while self.begin_run(cursor).await? {}
        Ok(())
    }

    /// Whether something was done.
    async fn book_lookups(&mut self, cursor: &Cursor) -> Result<bool, TurnError> {
        if let Some((run, found)) = self.backfill.booking.take() {
            self.backfill.booking = self.book_piece(cursor, run, found).await?;
            return Ok(true);
        }
        let over = self.backfill.lookups.iter().position(|(_, lookup)| lookup.is_over());
        let Some(over) = over else { return Ok(false) };
        let (run, lookup) = self.backfill.lookups.remove(over);
        let found = self.end_lookup(cursor, &run, lookup).await?;
        self.backfill.booking = found.map(|found| (run, found));
        Ok(true)
    }

    /// Whether something was done.
    async fn book_reading(&mut self, cursor: &Cursor) -> Result<bool, TurnError> {
        let Some((run, mut descent)) = self.backfill.reading.take() else { return Ok(false) };
        let batch = match self.backfill.batch.take() {
            Some(batch) => batch,
            None => match descent.step().await {
                Step::Batch(batch) => self.sorted(&run, batch),
                Step::Reading => {
                    self.backfill.reading = Some((run, descent));
                    return Ok(false);
                }
                Step::Over => {
                    if run.scan.next.number >= run.lo {
                        let detail = "the task that reads old blocks ended early".to_owned();
                        let error = SourceError::Unavailable { detail, retry_after: None };
                        self.cannot_be_read(&run, &error);
                    }
                    return Ok(false);
                }
                Step::Failed(error) => {
                    self.cannot_be_read(&run, &error);
                    return Ok(false);
                }
            },
        };
        let run = self.book_batch(cursor, run, batch).await?;
        self.backfill.reading = run.map(|run| (run, descent));
        Ok(true)
    }

    /// Makes a batch ready to be booked.
    fn sorted(&self, run: &Run<Lane>, batch: Batch) -> Booking {
        let (_, method) = run.lane;
        let assets = match method {
            HistoryMethod::Logs => self.tokens().into_iter().map(AssetKey::Token).collect(),
            HistoryMethod::Blocks | HistoryMethod::Signatures => self.config.assets(),
        };
        let wanted = self.backfill.wanted.read();
        let sides = sides(&batch.blocks, &assets, |address| wanted.contains(address));
        Booking { batch, sides, booked: 0 }
    }

    /// Begins with what is to be done next; `false` if there is nothing, or no room for it.
    async fn begin_run(&mut self, cursor: &Cursor) -> Result<bool, TurnError> {
        if self.backfill.reading.is_some() || !self.load_scans(cursor).await? {
            return Ok(false);
        }
        let (range, at_once) = (self.config.batch_blocks, MAX_IN_FLIGHT);
        let mut plan = std::mem::take(&mut self.backfill.plan);
        let most = |lane: Lane, scan: &Scan| match lane.1 {
            HistoryMethod::Blocks => Some(range * RANGES_PER_TURN),
            HistoryMethod::Logs => Some(BLOCKS_PER_SEARCH),
            HistoryMethod::Signatures => {
                self.backfill.may_look_up(lane, scan, at_once).then_some(u64::MAX)
            }
        };
        let run = plan.next(cursor.settled.at.number, Instant::now(), most);
        self.backfill.plan = plan;
        let Some(run) = run else {
            if self.backfill.plan.is_empty() {
                *self.backfill.wanted.write() = HashSet::new();
            }
            return Ok(false);
        };
        let hi = run.scan.next.number;
        let way = match run.lane.1 {
            HistoryMethod::Signatures => {
                if let Some(lookup) = self.begin_lookup(&run).await? {
                    self.backfill.lookups.push((run, lookup));
                }
                return Ok(true);
            }
            HistoryMethod::Blocks => Way::Blocks,
            HistoryMethod::Logs => {
                let standing = self
                    .backfill
                    .plan
                    .advances(run.lo, hi, run.scan.next, |lane, _| lane.1 == HistoryMethod::Logs);
                let mut anchors: Vec<BlockRef> = standing
                    .iter()
                    .flat_map(|advance| advance.absorbs.iter().chain([&advance.scan]))
                    .map(|scan| scan.next)
                    .collect();
                anchors.sort_unstable_by_key(|anchor| anchor.number);
                anchors.dedup();
                Way::Logs { tokens: self.tokens(), anchors }
            }
        };
        let reading = Reading {
            source: Arc::clone(&self.source),
            way,
            lo: run.lo,
            hi,
            wanted: Arc::clone(&self.backfill.wanted),
            // After a failure in smaller steps, down to what cannot be read.
            range: range.checked_shr(run.failures).unwrap_or(0).max(1),
            in_flight: at_once,
            movements: (self.backfill.budget.sides() * PIECES).min(MAX_BATCH),
            wake_up: Arc::clone(&self.wake_up),
        };
        self.backfill.reading = Some((run, Descent::begin(reading)));
        Ok(true)
    }

    /// Lets watches that opened join scans, and reads what the store has; `false` if more of them are to join
    /// before anything is read.
    async fn load_scans(&mut self, cursor: &Cursor) -> Result<bool, TurnError> {
        if self.backfill.loaded {
            if !self.backfill.opened {
                return Ok(true);
            }
            let mut session = self.committer.db.read().await?;
            if !scan_store::is_one_missing(&mut session.conn(), cursor.no).await? {
                self.backfill.opened = false;
                return Ok(true);
            }
        }
        if self.backfill.opened {
            let method = self.config.history;
            let new = self.committer.enlist(cursor, method, ENLISTED_AT_ONCE).await?;
            self.backfill.opened =
                i64::try_from(new.len()).is_ok_and(|count| count >= ENLISTED_AT_ONCE);
            self.backfill.wanted.write().extend(new);
            if self.backfill.opened {
                // Whether or not more of them follow, the scans are others than those that are known.
                self.backfill.loaded = false;
                self.wake_up.notify_one();
                return Ok(false);
            }
        }
        if !self.backfill.loaded {
            self.committer.delete_empty_scans(cursor).await?;
        }
        let mut session = self.committer.db.read().await?;
        let conn = &mut session.conn();
        let scans = scan_store::all(conn, cursor.no).await?;
        if !self.backfill.loaded {
            let wanted = participant::addresses(conn, cursor.no).await?;
            *self.backfill.wanted.write() = wanted.into_iter().collect();
        }
        drop(session);
        self.backfill.plan.reload(scans.into_iter().map(|scan| {
            let lane = (scan.tenant, scan.method);
            let from = scan.from.max(1);
            (lane, Scan { no: scan.no, next: scan.next, from, alone: scan.wallet.is_some() })
        }));
        self.backfill.loaded = true;
        Ok(true)
    }

    /// Commits a piece of a batch; gives the run as it goes on, or `None` if the rest of it is of no use.
    async fn book_batch(
        &mut self,
        cursor: &Cursor,
        mut run: Run<Lane>,
        mut booking: Booking,
    ) -> Result<Option<Run<Lane>>, TurnError> {
        let (_, method) = run.lane;
        let batch = &booking.batch;
        let rides = |lane: Lane, next: BlockRef| lane.1 == method && batch.holds(next);
        let advances = self.backfill.plan.advances(batch.lo, batch.hi, batch.below.at, rides);
        if !advances.iter().any(|advance| advance.moves(&run)) {
            let number = run.scan.next.number;
            let why = format!("the node has another block {number} than the one that has settled");
            self.cannot_be_read(&run, &SourceError::NotThere(why));
            return Ok(None);
        }
        let range = booking.range(self.backfill.budget.sides());
        let started = Instant::now();
        if !self.book_range(cursor, &run, &advances, range).await? {
            return Ok(None);
        }
        let Range { sides, is_last, .. } = range;
        self.backfill.budget.took(sides.len(), started.elapsed());
        if !is_last {
            booking.booked += sides.len();
            self.backfill.batch = Some(booking);
            return Ok(Some(run));
        }
        self.backfill.proofs.look_again(method);
        run.scan.next = batch.below.at;
        self.tell_progress(batch);
        Ok(Some(run).filter(|run| self.backfill.plan.has(run.lane, &run.scan)))
    }

    /// Books a range for all who need it, and moves their scans on if it is the last of its blocks. `false` if the ledger refuses it: then it
    /// waits like what cannot be read.
    async fn book_range(
        &mut self,
        cursor: &Cursor,
        run: &Run<Lane>,
        advances: &[Advance<Lane>],
        range: Range<'_>,
    ) -> Result<bool, TurnError> {
        let scans: Vec<ScanMove> = advances.iter().map(scan_move).collect();
        match self.committer.backfill(cursor, &scans, range).await {
            Ok(committed) => {
                self.committed(&committed);
                for advance in advances.iter().filter(|_| range.is_last) {
                    let over = committed.scans_over.contains(&advance.scan.no);
                    self.backfill.plan.advanced(advance, range.below.at, over);
                }
                // What is left of a scan may no longer reach as deep.
                self.backfill.loaded &= !committed.histories_ended;
                Ok(true)
            }
            Err(CommitError::Refused(refused)) if refused.culprit.is_none() => {
                tracing::error!(
                    chain = %self.config.name,
                    block.number = range.below.at.number,
                    error = %refused,
                    "the ledger refuses old blocks: these histories wait"
                );
                self.backfill.plan.rest(run.lane, &run.scan, Instant::now());
                Ok(false)
            }
            Err(error) => {
                self.backfill.forget();
                Err(error.into())
            }
        }
    }

    async fn end_histories(
        &mut self,
        cursor: &Cursor,
        ended: &[HistoryEnd],
    ) -> Result<(), TurnError> {
        match self.committer.end_histories(cursor, ended).await {
            Ok(committed) => {
                self.committed(&committed);
                Ok(())
            }
            Err(error) => {
                self.backfill.forget();
                Err(error.into())
            }
        }
    }

    /// Leaves a scan alone for a while. Blocks, and other scans, do not wait for it.
    fn cannot_be_read(&mut self, run: &Run<Lane>, error: &SourceError) {
        tracing::warn!(
            chain = %self.config.name,
            block.number = run.scan.next.number,
            error = %error,
            "old blocks could not be read yet, trying again"
        );
        self.backfill.plan.rest(run.lane, &run.scan, Instant::now());
    }

    fn tell_progress(&mut self, batch: &Batch) {
        self.metrics
            .history_blocks_total
            .with_label_values(&[self.config.name.as_str()])
            .inc_by(batch.blocks.len() as u64);
        if self.backfill.reported.elapsed() >= REPORT {
            self.backfill.reported = Instant::now();
            tracing::info!(
                chain = %self.config.name,
                block.number = batch.lo,
                "histories are read down to this block"
            );
        }
    }

    /// The configured tokens.
    fn tokens(&self) -> Vec<Address> {
        self.config.tokens.iter().map(|token| token.contract).collect()
    }
}

fn scan_move(advance: &Advance<Lane>) -> ScanMove {
    let Advance { scan, absorbs, .. } = advance;
    ScanMove {
        no: scan.no,
        seen: scan.next,
        absorbs: absorbs.iter().map(|scan| (scan.no, scan.next.number)).collect(),
    }
}
