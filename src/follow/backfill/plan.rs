//! Which old blocks are read next, decided over plain values.
//!
//! Requests of one lane (a tenant) that need the same block next are one *scan*: it goes down from the block at
//! which their watches opened to the lowest block that one of them asks for. A range is read once for all scans
//! that stand in it, whoever they belong to; afterwards they stand at the same block, and are one.
//!
//! Lanes take turns. A lane gives its turns alternately to
//! - its *sweep*, which goes all the way down before it begins again at the top, so that no stream of new
//!   requests can hold up an old one, and
//! - its highest scan, so that a short request does not wait for a long one.
//!
//! Requests that are there together are served by one pass over the blocks; one that comes during a pass is
//! complete, at the latest, with the next. Where a node lists what happened to an address, each request is looked
//! up by itself, and only the turns are shared.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use crate::{chain::BlockRef, model::ScanNo};

/// The first pause of a scan whose blocks could not be had; it doubles with every further failure.
const FIRST_REST: Duration = Duration::from_secs(15);
const LONGEST_REST: Duration = Duration::from_mins(10);

/// Requests of one lane that need the same block next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scan {
    /// Its number in the store.
    pub no: ScanNo,
    /// The block to be read next; what lies above it is done.
    pub next: BlockRef,
    /// The lowest block that one of the requests asks for.
    pub from: u64,
    /// Whether it is one request that is looked up by itself.
    pub alone: bool,
}

impl Scan {
    fn key(&self) -> Key {
        (self.next.number, self.next.hash.0, self.alone.then_some(self.no))
    }
}

/// The block that is read next, and whose request it is alone.
type Key = (u64, [u8; 32], Option<ScanNo>);

fn first(height: u64) -> Key {
    (height, [0; 32], None)
}

fn last(height: u64) -> Key {
    (height, [u8::MAX; 32], Some(ScanNo(i64::MAX)))
}

/// What to read: the blocks from `lo` to the scan's next, the highest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run<L> {
    /// Whose turn it is.
    pub lane: L,
    pub scan: Scan,
    pub lo: u64,
    /// How often in a row the scan could not be read.
    pub failures: u32,
}

/// Scans of one lane that a range moves on. Afterwards they are one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advance<L> {
    pub lane: L,
    /// The one that stays.
    pub scan: Scan,
    /// Those that it takes up.
    pub absorbs: Vec<Scan>,
}

impl<L: Eq> Advance<L> {
    /// Whether it is the run's own scan that moves.
    pub fn moves(&self, run: &Run<L>) -> bool {
        self.lane == run.lane && self.scan.no == run.scan.no && self.scan.key() == run.scan.key()
    }
}

/// All scans of a chain, and whose turn it is.
#[derive(Debug)]
pub struct Plan<L> {
    lanes: BTreeMap<L, Lane>,
    /// Every lane once, the next one first.
    turns: VecDeque<L>,
    /// How many scans could not be read when they were last tried.
    backing_off: usize,
}

#[derive(Debug, Default)]
struct Lane {
    scans: BTreeMap<Key, State>,
    /// How far down the sweep has come: what stands above it waits for the next one.
    sweep: u64,
    /// Whether the next turn is for the highest scan.
    highest_is_due: bool,
}

#[derive(Clone, Copy, Debug)]
struct State {
    scan: Scan,
    rest: Option<Rest>,
}

#[derive(Clone, Copy, Debug)]
struct Rest {
    until: Instant,
    failures: u32,
}

impl State {
    fn ready(&self, now: Instant) -> bool {
        self.rest.is_none_or(|rest| rest.until <= now)
    }
}

impl<L> Default for Plan<L> {
    fn default() -> Self {
        Self { lanes: BTreeMap::new(), turns: VecDeque::new(), backing_off: 0 }
    }
}

impl<L: Copy + Ord> Plan<L> {
    /// Takes the scans as they stand in the store. Whose turn it is, and which scans rest, stays.
    pub fn reload(&mut self, scans: impl IntoIterator<Item = (L, Scan)>) {
        let before = std::mem::take(&mut self.lanes);
        for (lane, scan) in scans {
            let known = before.get(&lane);
            let rest = known.and_then(|known| known.scans.get(&scan.key())?.rest);
            self.put(lane, State { scan, rest }, || known.map(Lane::emptied).unwrap_or_default());
        }
        let mut known: BTreeSet<L> = BTreeSet::new();
        self.turns.retain(|lane| self.lanes.contains_key(lane) && known.insert(*lane));
        self.count_backing_off();
    }

    /// How many scans could not be read when they were last tried.
    pub const fn backing_off(&self) -> usize {
        self.backing_off
    }

    fn count_backing_off(&mut self) {
        let scans = self.lanes.values().flat_map(|lane| lane.scans.values());
        self.backing_off = scans.filter(|state| state.rest.is_some()).count();
    }

    fn put(&mut self, lane: L, state: State, new: impl FnOnce() -> Lane) {
        let scans = self.lanes.entry(lane).or_insert_with(|| {
            self.turns.push_back(lane);
            new()
        });
        scans.insert(state);
    }

    pub fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    /// What is read next, nothing of it above `settled`; `None` if nothing is to be read now. `most` says how many
    /// blocks may be read for a scan, and of which nothing may be read now.
    pub fn next(
        &mut self,
        settled: u64,
        now: Instant,
        most: impl Fn(L, &Scan) -> Option<u64>,
    ) -> Option<Run<L>> {
        for _ in 0..self.turns.len() {
            let lane = self.turns.pop_front()?;
            self.turns.push_back(lane);
            let scans = self.lanes.get_mut(&lane)?;
            let ready = |state: &State| state.ready(now) && most(lane, &state.scan).is_some();
            if let Some(State { scan, rest }) = scans.turn(settled, ready) {
                let hi = scan.next.number;
                let most = most(lane, &scan).unwrap_or(1);
                let lowest = (hi + 1).saturating_sub(most.max(1));
                let failures = rest.map_or(0, |rest| rest.failures);
                return Some(Run { lane, scan, lo: lowest.max(scan.from).min(hi), failures });
            }
        }
        None
    }

    /// What it means for all scans that the blocks from `lo` to `hi` were read, so that `to` is next. `read` tells
    /// whether a lane's next block was among them: a scan that stands at a block of another hash is not moved.
    pub fn advances(
        &self,
        lo: u64,
        hi: u64,
        to: BlockRef,
        read: impl Fn(L, BlockRef) -> bool,
    ) -> Vec<Advance<L>> {
        let mut advances = Vec::new();
        for (lane, scans) in &self.lanes {
            let range = scans.scans.range(first(lo)..=last(hi)).rev();
            let mut moved = range
                .map(|(_, state)| state.scan)
                .filter(|scan| !scan.alone && read(*lane, scan.next));
            let Some(scan) = moved.next() else { continue };
            let there = scans.scans.get(&(to.number, to.hash.0, None)).map(|state| state.scan);
            advances.push(Advance { lane: *lane, scan, absorbs: moved.chain(there).collect() });
        }
        advances
    }

    /// Whether a scan is still there, at the same block.
    pub fn has(&self, lane: L, scan: &Scan) -> bool {
        let state = self.lanes.get(&lane).and_then(|lane| lane.scans.get(&scan.key()));
        state.is_some_and(|state| state.scan.no == scan.no)
    }

    /// Scans were moved on: `next` is needed next. They end when that is below all that they ask for, or when
    /// they are `over` because nobody takes part any more.
    pub fn advanced(&mut self, advance: &Advance<L>, next: BlockRef, over: bool) {
        let Advance { lane, scan, absorbs } = advance;
        let Some(scans) = self.lanes.get_mut(lane) else { return };
        let mut from = None;
        for scan in absorbs.iter().chain([scan]) {
            if let Some(state) = scans.scans.remove(&scan.key()) {
                from = Some(from.unwrap_or(u64::MAX).min(state.scan.from));
            }
            if scan.next.number == scans.sweep {
                scans.sweep = next.number;
            }
        }
        if let Some(from) = from.filter(|from| !over && *from <= next.number) {
            scans.insert(State { scan: Scan { next, from, ..*scan }, rest: None });
        }
        if scans.scans.is_empty() {
            self.lanes.remove(lane);
            self.turns.retain(|turn| turn != lane);
        }
        if self.backing_off > 0 {
            self.count_backing_off();
        }
    }

    /// Leaves a scan alone for a while: what it needs could not be had.
    pub fn rest(&mut self, lane: L, scan: &Scan, now: Instant) {
        let scans = self.lanes.get_mut(&lane);
        if let Some(state) = scans.and_then(|scans| scans.scans.get_mut(&scan.key())) {
            let failures = state.rest.map_or(0, |rest| rest.failures);
            let pause = FIRST_REST.saturating_mul(1_u32.checked_shl(failures).unwrap_or(u32::MAX));
            let until = now + pause.min(LONGEST_REST);
            state.rest = Some(Rest { until, failures: failures.saturating_add(1) });
        }
        self.count_backing_off();
    }
}

impl Lane {
    fn emptied(&self) -> Self {
        Self { scans: BTreeMap::new(), ..*self }
    }

    fn insert(&mut self, state: State) {
        self.scans
            .entry(state.scan.key())
            .and_modify(|known| {
                known.scan.from = known.scan.from.min(state.scan.from);
                known.rest = known.rest.and(state.rest);
            })
            .or_insert(state);
    }

    /// The scan that this turn is for.
    fn turn(&mut self, settled: u64, ready: impl Fn(&State) -> bool) -> Option<State> {
        let highest_below = |limit: u64| {
            let mut below = self.scans.range(..=last(limit)).rev();
            below.find(|(_, state)| ready(state)).map(|(_, state)| *state)
        };
        let highest = highest_below(settled)?;
        let swept = highest_below(settled.min(self.sweep)).unwrap_or(highest);
        let for_highest = self.highest_is_due;
        self.highest_is_due = !for_highest;
        if for_highest {
            return Some(highest);
        }
        self.sweep = swept.scan.next.number;
        Some(swept)
    }
}

#[cfg(test)]
mod tests;
