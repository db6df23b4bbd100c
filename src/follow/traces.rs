//! What moves inside transactions is learnt beside the follower: no block waits for its trace.
//!
//! A block whose receipts do not show it is taken in as untraced, and completed by a commit of its own once a node
//! has told. Only settlement waits a moment: what nobody has told by then, the comparison with the chain's own
//! balances finds without its cause.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::FutureExt as _;
use tokio_util::task::AbortOnDropHandle;

use super::{Follower, TurnError};
use crate::{
    chain::{
        Address, AssetKey, Block, BlockRef, Movement, Ordinal, Priority, Source, SourceError,
        TraceAbility, Traced,
    },
    commit::CommitError,
    ledger::{known::MatchedBlock, worthless::Worthless},
    model::{BlockPoint, Cursor},
    registry::Watchlist,
    store::chain as chain_store,
    task::joined,
};

/// How long a node may take to trace one block.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a block that could settle waits for its trace, from when it was taken in.
const SETTLES_AFTER: Duration = Duration::from_secs(5);
/// Blocks that are traced at the same time by a node that is quick with it; by another one they come one by one.
const AT_ONCE: usize = 4;
const QUICK: Duration = Duration::from_secs(1);
/// Untraced blocks that are kept as they were read; the others are read again.
const KEPT: usize = 32;
/// After the first failure a block is traced again after so long, then after twice that, and so on.
const AGAIN: Duration = Duration::from_millis(500);
const LONGEST: u32 = 7;

/// The blocks that were taken in untraced and have not settled.
#[derive(Default)]
pub(super) struct Traces {
    open: BTreeMap<u64, Open>,
    /// Those that were kept as they were read, in the order in which they were.
    kept: VecDeque<u64>,
    running: BTreeMap<u64, AbortOnDropHandle<Answer>>,
    /// Whether the last answer came quickly.
    quick: bool,
    /// Traced, with nothing in them that somebody watches. The next commit of a block writes it down.
    done: Vec<BlockRef>,
    /// What the store says that the endpoints trace with.
    told: Vec<TraceAbility>,
}

/// A block that is to be traced.
struct Open {
    at: BlockRef,
    block: Option<Block>,
    since: Instant,
    tries: u32,
    again: Option<Instant>,
}

/// What came of asking, and how long it took.
type Answer = (Result<Told, SourceError>, Duration);

/// What became of a block that was to be traced.
enum Told {
    /// What moved inside its transactions from and to watched addresses.
    Moved(Block),
    /// Nobody told, or what was told does not fit to it. The block as it was read.
    Nothing(Block),
    /// No node has it any more.
    Gone,
}

impl Traces {
    fn add(&mut self, at: BlockRef) {
        let open = Open { at, block: None, since: Instant::now(), tries: 0, again: None };
        self.open.insert(at.number, open);
    }

    /// Keeps an open block as it was read, and lets go of the one that was kept first if they are too many.
    fn keep(&mut self, block: Block) {
        let at = block.header.at;
        let Some(open) = self.open.get_mut(&at.number).filter(|open| open.at == at) else { return };
        open.block = Some(block);
        if !self.kept.contains(&at.number) {
            self.kept.push_back(at.number);
        }
        if self.kept.len() > KEPT
            && let Some(first) = self.kept.pop_front()
            && let Some(open) = self.open.get_mut(&first)
        {
            open.block = None;
        }
    }

    /// The store's untraced blocks are these.
    fn load(&mut self, blocks: Vec<BlockRef>) {
        self.done.retain(|at| blocks.contains(at));
        let mut known = std::mem::take(&mut self.open);
        self.running
            .retain(|number, _| known.get(number).is_some_and(|open| blocks.contains(&open.at)));
        for at in blocks {
            if self.done.contains(&at) {
                continue;
            }
            match known.remove(&at.number).filter(|open| open.at == at) {
                Some(open) => {
                    self.open.insert(at.number, open);
                }
                None => self.add(at),
            }
        }
    }

    /// Forgets the blocks above `fork`.
    pub(super) fn forget_above(&mut self, fork: u64) {
        self.open.retain(|number, _| *number <= fork);
        self.running.retain(|number, _| *number <= fork);
        self.done.retain(|at| at.number <= fork);
    }

    /// Gives up the blocks that have settled; tells how many were not traced.
    fn forget_settled(&mut self, settled: u64) -> usize {
        let left = self.open.split_off(&(settled + 1));
        let given_up = std::mem::replace(&mut self.open, left);
        self.running.retain(|number, _| *number > settled);
        self.done.retain(|at| at.number > settled);
        given_up.len()
    }

    /// What the next commit of a block writes down.
    pub(super) fn done(&self) -> &[BlockRef] {
        &self.done
    }

    /// It is written down.
    pub(super) fn written(&mut self) {
        self.done.clear();
    }

    /// Whether all that was taken in is traced.
    #[cfg(test)]
    pub(super) fn is_done(&self) -> bool {
        self.open.is_empty()
    }

    /// The lowest block whose trace is worth to wait for.
    fn awaited(&self) -> Option<u64> {
        let young = |open: &&Open| open.since.elapsed() < SETTLES_AFTER;
        self.open.values().find(young).map(|open| open.at.number)
    }

    /// A trace that has come.
    fn came(&mut self) -> Option<(BlockRef, Result<Told, SourceError>)> {
        let (&number, _) = self.running.iter().find(|(_, task)| task.is_finished())?;
        let task = self.running.remove(&number)?;
        let (told, took) = joined(task.now_or_never()?).unwrap_or_else(|| {
            let detail = "the task that traces was cancelled".to_owned();
            (Err(SourceError::Unavailable { detail, retry_after: None }), Duration::MAX)
        });
        self.quick = took < QUICK;
        Some((self.open.get(&number)?.at, told))
    }

    /// The block is traced again later.
    fn again(&mut self, number: u64, block: Option<Block>) {
        let Some(open) = self.open.get_mut(&number) else { return };
        open.again = Some(Instant::now() + AGAIN * 2u32.pow(open.tries.min(LONGEST)));
        open.tries = open.tries.saturating_add(1);
        if let Some(block) = block {
            self.keep(block);
        }
    }
}

impl Follower {
    /// Reads which blocks are untraced.
    pub(super) async fn load_traces(&mut self, cursor: &Cursor) -> Result<(), TurnError> {
        let mut session = self.committer.db.read().await?;
        let conn = &mut session.conn();
        let settled = cursor.settled.at.number;
        let blocks = chain_store::untraced_blocks(conn, cursor.no, settled).await?;
        drop(session);
        self.traces.load(blocks);
        Ok(())
    }

    /// Those of the blocks above `settled` that are to be traced, as they are kept until then: none of many, which are
    /// read again.
    pub(super) fn kept(&self, blocks: &[Block], settled: u64) -> Vec<Block> {
        if blocks.len() > KEPT || !self.source.traces() {
            return Vec::new();
        }
        let coins = |movement: &&Movement| movement.asset == AssetKey::Native;
        let open = |block: &&Block| block.traced == Traced::Not && block.header.at.number > settled;
        let kept = |block: &Block| Block {
            movements: block.movements.iter().filter(coins).cloned().collect(),
            transactions: block.transactions.clone(),
            traced: Traced::Not,
            ..Block::empty(block.header)
        };
        blocks.iter().filter(open).map(kept).collect()
    }

    /// Blocks were taken in, and settled up to `settled`; `kept` are some of them.
    pub(super) fn connected(&mut self, matched: &[MatchedBlock], kept: Vec<Block>, settled: u64) {
        let mut given_up = 0;
        for block in matched.iter().filter(|block| block.untraced) {
            if block.header.at.number > settled {
                self.traces.add(block.header.at);
            } else {
                given_up += 1;
            }
        }
        self.count_untraced(given_up);
        for block in kept {
            self.traces.keep(block);
        }
    }

    /// Books what was told of blocks since, and has the next ones traced.
    pub(super) async fn trace(&mut self) -> Result<(), TurnError> {
        self.give_up_settled(self.current()?.settled);
        while let Some((at, told)) = self.traces.came() {
            match told {
                Ok(Told::Moved(block)) if block.header.at == at => self.complete(block).await?,
                Ok(Told::Nothing(block)) => self.traces.again(at.number, Some(block)),
                Ok(Told::Moved(_) | Told::Gone) => self.traces.again(at.number, None),
                Err(error) => {
                    tracing::debug!(
                        chain = %self.config.name,
                        block.number = at.number,
                        error = %error,
                        "a block could not be traced"
                    );
                    self.traces.again(at.number, None);
                }
            }
        }
        self.trace_next();
        let abilities = self.source.tracing();
        if abilities != self.traces.told {
            self.committer.tell_tracing(&self.current()?, &abilities).await?;
            self.traces.told = abilities;
        }
        Ok(())
    }

    pub(super) fn trace_next(&mut self) {
        let Traces { open, running, quick, .. } = &mut self.traces;
        let room = if *quick { AT_ONCE } else { 1 }.saturating_sub(running.len());
        if room == 0 || open.is_empty() || !self.source.traces() {
            return;
        }
        let now = Instant::now();
        let due = |open: &&mut Open| {
            !running.contains_key(&open.at.number) && open.again.is_none_or(|again| again <= now)
        };
        let due: Vec<&mut Open> = open.values_mut().filter(due).take(room).collect();
        for open in due {
            let (source, watchlist) = (Arc::clone(&self.source), self.watchlist.clone());
            let (at, kept) = (open.at, open.block.take());
            let wake_up = Arc::clone(&self.wake_up);
            let task = tokio::spawn(Priority::Settlement.scope(async move {
                let started = Instant::now();
                let told = told_of(source.as_ref(), at, kept, &watchlist).await;
                wake_up.notify_one();
                (told, started.elapsed())
            }));
            running.insert(at.number, AbortOnDropHandle::new(task));
        }
    }

    /// Books what moved inside the transactions of a block.
    async fn complete(&mut self, block: Block) -> Result<(), TurnError> {
        let Block { header, mut movements, .. } = block;
        movements.retain(|movement| matches!(movement.ordinal, Ordinal::Trace(_)));
        if movements.is_empty() {
            self.traces.open.remove(&header.at.number);
            self.traces.done.push(header.at);
            return Ok(());
        }
        let cursor = self.current()?;
        let matched = MatchedBlock {
            header,
            movements,
            worthless: Worthless::default(),
            safes: Vec::new(),
            ran: Vec::new(),
            tracked: Vec::new(),
            touched: Vec::new(),
            untraced: false,
        };
        match self.committer.complete(&cursor, &matched).await {
            Ok(committed) => {
                self.traces.open.remove(&header.at.number);
                self.committed(&committed);
                Ok(())
            }
            // The chain goes on without it: what it moved is compared with the chain's own figures at settlement.
            Err(CommitError::Refused(refused)) => {
                self.metrics
                    .trace_mismatches_total
                    .with_label_values(&[self.config.name.as_str()])
                    .inc();
                tracing::error!(
                    chain = %self.config.name,
                    block.number = header.at.number,
                    error = %refused,
                    "the ledger refuses what was traced of a block: it is left out until the block settles; please report it"
                );
                self.traces.again(header.at.number, None);
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn give_up_settled(&mut self, settled: BlockPoint) {
        let untraced = self.traces.forget_settled(settled.at.number);
        self.count_untraced(untraced);
    }

    fn count_untraced(&self, blocks: usize) {
        if blocks > 0 {
            self.metrics
                .traced_blocks_total
                .with_label_values(&[self.config.name.as_str(), "untraced"])
                .inc_by(u64::try_from(blocks).unwrap_or(u64::MAX));
        }
    }

    /// How far blocks settle on the way to `point`, where none waits for its trace; `None` if not at all.
    pub(super) async fn traced_up_to(
        &self,
        cursor: &Cursor,
        point: BlockPoint,
    ) -> Result<Option<BlockPoint>, TurnError> {
        let awaited = self.traces.awaited().filter(|number| *number <= point.at.number);
        let Some(number) = awaited.filter(|_| self.source.traces()) else { return Ok(Some(point)) };
        let below = self.applied_at(cursor, number.saturating_sub(1)).await?;
        Ok(below.filter(|below| below.at.number > cursor.settled.at.number))
    }

    /// How far blocks settle that are not compared with the chain: not up to those whose traces are awaited.
    pub(super) fn settles(&self, said: Option<u64>) -> Option<u64> {
        let awaited = self.traces.awaited().filter(|_| self.source.traces());
        match (said, awaited) {
            (Some(said), Some(awaited)) => Some(said.min(awaited.saturating_sub(1))),
            (said, _) => said,
        }
    }
}

/// Has a block traced: what moved inside its transactions from and to watched addresses.
async fn told_of(
    source: &dyn Source,
    at: BlockRef,
    kept: Option<Block>,
    watchlist: &Watchlist,
) -> Result<Told, SourceError> {
    let mut block = match kept {
        Some(block) => block,
        None => match source.block(at).await? {
            Some(block) => block,
            None => return Ok(Told::Gone),
        },
    };
    source.trace(std::slice::from_mut(&mut block), PATIENCE).await;
    if block.traced == Traced::Not {
        return Ok(Told::Nothing(block));
    }
    let whole = block.clone();
    {
        let watched = watchlist.read();
        block.retain_watched(|address| watched.contains(address));
    }
    let watched = |address: &Address| watchlist.read().contains(address);
    let block = source.completed(block, &watched).await?;
    Ok(match block.traced {
        Traced::Not => Told::Nothing(Block { traced: Traced::Not, ..whole }),
        _ => Told::Moved(block),
    })
}
