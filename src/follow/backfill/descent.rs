//! Reading old blocks downwards, and handing them on in batches of one commit's size.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use parking_lot::RwLock;
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};
use tokio_util::task::AbortOnDropHandle;

use super::super::{decide::Window, prefetch::PATIENCE};
use crate::{
    chain::{
        Address, AssetKey, Block, BlockRef, Header, HistoryBlock, Movement, Priority, Source,
        SourceError, Traced,
    },
    task::joined,
};

/// A batch that is not full is handed on after this time, so that a slow node's work is kept, too.
const FULL_ENOUGH_AFTER: Duration = Duration::from_secs(5);

/// The addresses whose movements are wanted. Some may be in it that no longer are; whose history begins while
/// a range is read is not served by that range.
pub type Wanted = Arc<RwLock<HashSet<Address>>>;

/// Blocks of a run, and what moved in them for the wanted addresses.
#[derive(Debug)]
pub struct Batch {
    /// The heights that it covers.
    pub lo: u64,
    pub hi: u64,
    /// The highest first: all blocks of the range, or, where only some are looked up, those and the anchors.
    pub blocks: Vec<HistoryBlock>,
    /// The block that follows downwards.
    pub below: Header,
}

impl Batch {
    /// Whether that block is one of those that were read.
    pub fn holds(&self, at: BlockRef) -> bool {
        self.blocks
            .binary_search_by(|past| at.number.cmp(&past.header.at.number))
            .is_ok_and(|index| self.blocks[index].header.at == at)
    }
}

/// How the blocks are come by.
#[derive(Clone, Debug)]
pub enum Way {
    /// All blocks are read, each the parent of the one before.
    Blocks,
    /// Only those in which the nodes' index of logs shows that one of `tokens` moved, and of them only these
    /// movements. `anchors` are blocks at which scans stand: they come along if the node has them.
    Logs { tokens: Vec<Address>, anchors: Vec<BlockRef> },
}

/// What a run reads.
#[derive(Clone)]
pub struct Reading {
    pub source: Arc<dyn Source>,
    pub way: Way,
    /// At least 1: what a chain began with is nobody's movement.
    pub lo: u64,
    pub hi: u64,
    pub wanted: Wanted,
    /// Blocks per request.
    pub range: u64,
    /// Requests in flight at most.
    pub in_flight: usize,
    /// A batch ends with the block that brings it to this number of movements.
    pub movements: usize,
    /// For every batch, and at the end.
    pub wake_up: Arc<Notify>,
}

/// A run that is being read. Dropping it stops what is in flight.
pub struct Descent {
    batches: mpsc::Receiver<Result<Batch, SourceError>>,
    task: AbortOnDropHandle<()>,
}

/// What there is of a run by now.
#[derive(Debug)]
pub enum Step {
    /// The next batch is still being read.
    Reading,
    Batch(Batch),
    /// The rest of the run could not be read.
    Failed(SourceError),
    /// All of it was handed out.
    Over,
}

impl Descent {
    pub fn begin(reading: Reading) -> Self {
        // One batch is booked; one waits here, or is being put together.
        let (out, batches) = mpsc::channel(1);
        let task = tokio::spawn(Priority::Background.scope(async move {
            let mut assembly = Assembly::new(&reading, out);
            let end = match &reading.way {
                Way::Blocks => all_blocks(&reading, &mut assembly).await,
                Way::Logs { tokens, anchors } => {
                    found_blocks(&reading, tokens, anchors, &mut assembly).await
                }
            };
            assembly.finish(end).await;
        }));
        Self { batches, task: AbortOnDropHandle::new(task) }
    }

    pub async fn step(&mut self) -> Step {
        match self.batches.try_recv() {
            Ok(Ok(batch)) => Step::Batch(batch),
            Ok(Err(error)) => Step::Failed(error),
            Err(mpsc::error::TryRecvError::Empty) => Step::Reading,
            Err(mpsc::error::TryRecvError::Disconnected) => {
                // Whoever filled the channel is at its end, or panicked.
                joined((&mut self.task).await);
                Step::Over
            }
        }
    }
}

/// Why no more is read.
enum End {
    Failed(SourceError),
    /// Nobody takes the batches any more.
    Dropped,
}

impl From<SourceError> for End {
    fn from(error: SourceError) -> Self {
        Self::Failed(error)
    }
}

async fn all_blocks(reading: &Reading, assembly: &mut Assembly<'_>) -> Result<(), End> {
    let mut reader = Reader::new(reading);
    while let Some(range) = reader.next().await? {
        for past in range {
            assembly.add(past).await?;
        }
        assembly.keep_moving().await?;
    }
    Ok(())
}

async fn found_blocks(
    reading: &Reading,
    tokens: &[Address],
    anchors: &[BlockRef],
    assembly: &mut Assembly<'_>,
) -> Result<(), End> {
    let Reading { source, wanted, lo, hi, .. } = reading;
    let Some(index) = source.log_index() else {
        return Err(End::Failed(SourceError::NotThere("an index of logs".to_owned())));
    };
    let mut headers = BTreeMap::new();
    for anchor in anchors {
        // Where the node has another block, no scan moves: that is seen when the batch is booked.
        let header = source.header_at(anchor.number).await?;
        headers.extend(header.filter(|header| header.at == *anchor).map(|it| (anchor.number, it)));
    }
    let addresses: Vec<Address> = wanted.read().iter().copied().collect();
    let found = index.blocks_with_transfers(tokens, &addresses, *lo, *hi).await?;
    let is_one_of = |movement: &Movement| match movement.asset {
        AssetKey::Native => false,
        AssetKey::Token(token) => tokens.contains(&token),
    };
    // What is found is little: it is read without haste.
    let piece = usize::try_from(reading.range).unwrap_or(usize::MAX).max(1);
    for piece in found.chunks(piece) {
        for block in index.blocks_of(piece).await? {
            let mut past = wanted_of(source.as_ref(), block, wanted).await?;
            past.movements.retain(is_one_of);
            // Of the native coin nothing is looked for.
            past.untraced = false;
            while let Some(anchor) = headers.last_entry()
                && *anchor.key() >= past.header.at.number
            {
                let header = anchor.remove();
                if header.at.number > past.header.at.number {
                    assembly.add(HistoryBlock::empty(header)).await?;
                }
            }
            assembly.add(past).await?;
        }
        assembly.keep_moving().await?;
    }
    for header in headers.into_values().rev() {
        assembly.add(HistoryBlock::empty(header)).await?;
    }
    Ok(())
}

/// The header of a block that the node's chain must have.
async fn block_at(source: &dyn Source, at: BlockRef) -> Result<Header, SourceError> {
    let header = source.header_at(at.number).await?;
    header
        .filter(|header| header.at == at)
        .ok_or_else(|| SourceError::NotThere(format!("block {} as it is known here", at.number)))
}

/// A block, and of its movements those of wanted addresses.
async fn wanted_of(
    source: &dyn Source,
    mut block: Block,
    wanted: &Wanted,
) -> Result<HistoryBlock, SourceError> {
    {
        let wanted = wanted.read();
        block.retain_watched(|who| wanted.contains(who));
    }
    let watched = |who: &Address| wanted.read().contains(who);
    let Block { header, mut movements, traced, .. } = source.completed(block, &watched).await?;
    // Most blocks keep little of what they had.
    movements.shrink_to_fit();
    Ok(HistoryBlock { header, movements, untraced: traced == Traced::Not })
}

/// Puts batches together from what was read.
struct Assembly<'a> {
    reading: &'a Reading,
    out: mpsc::Sender<Result<Batch, SourceError>>,
    /// From where the next batch covers.
    hi: u64,
    blocks: Vec<HistoryBlock>,
    movements: usize,
    since: Instant,
}

impl<'a> Assembly<'a> {
    fn new(reading: &'a Reading, out: mpsc::Sender<Result<Batch, SourceError>>) -> Self {
        let (hi, since) = (reading.hi, Instant::now());
        Self { reading, out, hi, blocks: Vec::new(), movements: 0, since }
    }

    /// Takes the block that follows downwards.
    async fn add(&mut self, past: HistoryBlock) -> Result<(), End> {
        self.movements += past.movements.len();
        self.blocks.push(past);
        if self.movements >= self.reading.movements { self.hand_on().await } else { Ok(()) }
    }

    /// Hands on what there is if it has been a while.
    async fn keep_moving(&mut self) -> Result<(), End> {
        if self.since.elapsed() >= FULL_ENOUGH_AFTER { self.hand_on().await } else { Ok(()) }
    }

    /// Hands on a batch down to the last block taken.
    async fn hand_on(&mut self) -> Result<(), End> {
        let Some(lowest) = self.blocks.last() else { return Ok(()) };
        let (lo, parent) = (lowest.header.at.number, lowest.header.parent);
        let below = block_at(self.reading.source.as_ref(), parent).await?;
        self.send(lo, below).await
    }

    async fn send(&mut self, lo: u64, below: Header) -> Result<(), End> {
        let blocks = std::mem::take(&mut self.blocks);
        let batch = Batch { lo, hi: self.hi, blocks, below };
        self.hi = below.at.number;
        self.movements = 0;
        self.out.send(Ok(batch)).await.map_err(|_| End::Dropped)?;
        self.reading.wake_up.notify_one();
        // The next one waits until this one is taken, so that there are two in memory, not three.
        let taken = self.out.reserve().await.map(drop);
        self.since = Instant::now();
        taken.map_err(|_| End::Dropped)
    }

    /// Hands on the last batch, down to the lowest height of the run.
    async fn rest(&mut self) -> Result<(), End> {
        let Reading { source, lo, .. } = self.reading;
        if self.hi < *lo {
            return Ok(());
        }
        let parent = self.blocks.last().map(|lowest| &lowest.header);
        let below = match parent.filter(|lowest| lowest.at.number <= *lo) {
            Some(lowest) => block_at(source.as_ref(), lowest.parent).await?,
            None => source
                .header_at(lo - 1)
                .await?
                .ok_or_else(|| End::Failed(SourceError::NotThere(format!("block {}", lo - 1))))?,
        };
        self.send(*lo, below).await
    }

    /// What was read before a failure is not lost.
    async fn finish(mut self, read: Result<(), End>) {
        let end = match read {
            Ok(()) => self.rest().await,
            Err(End::Failed(error)) => self.hand_on().await.and(Err(End::Failed(error))),
            Err(End::Dropped) => return,
        };
        if let Err(End::Failed(error)) = end {
            let _ = self.out.send(Err(error)).await;
        }
        let Self { out, reading, .. } = self;
        // The end is seen by the closed channel.
        drop(out);
        reading.wake_up.notify_one();
    }
}

type Fetched = (Result<Vec<HistoryBlock>, SourceError>, Duration);

/// Fetches the ranges of a run ahead of their turn.
struct Reader<'a> {
    reading: &'a Reading,
    /// The lowest and the highest height not asked for yet.
    left: Option<(u64, u64)>,
    window: Window,
    in_flight: VecDeque<AbortOnDropHandle<Fetched>>,
    /// The block that must come next.
    parent: Option<BlockRef>,
}

impl<'a> Reader<'a> {
    fn new(reading: &'a Reading) -> Self {
        Self {
            reading,
            left: (reading.lo <= reading.hi).then_some((reading.lo, reading.hi)),
            window: Window::new(reading.in_flight),
            in_flight: VecDeque::new(),
            parent: None,
        }
    }

    /// The next range's blocks, the highest first; `None` when all were handed out.
    async fn next(&mut self) -> Result<Option<Vec<HistoryBlock>>, SourceError> {
        self.fill();
        let Some(handle) = self.in_flight.pop_front() else { return Ok(None) };
        let (result, took) = joined(handle.await).ok_or_else(|| SourceError::Unavailable {
            detail: "the task that fetches old blocks was cancelled".to_owned(),
            retry_after: None,
        })?;
        let history_blocks = result?;
        self.window.answered(took);
        self.fill();
        for HistoryBlock { header, .. } in &history_blocks {
            if self.parent.is_some_and(|parent| parent != header.at) {
                return Err(SourceError::Unavailable {
                    detail: format!("block {} is not the parent of the next", header.at.number),
                    retry_after: None,
                });
            }
            self.parent = Some(header.parent);
        }
        Ok(Some(history_blocks))
    }

    fn fill(&mut self) {
        while self.in_flight.len() < self.window.size()
            && let Some((lo, hi)) = self.left
        {
            let from = lo.max((hi + 1).saturating_sub(self.reading.range.max(1)));
            self.left = (from > lo).then(|| (lo, from - 1));
            let source = Arc::clone(&self.reading.source);
            let wanted = Arc::clone(&self.reading.wanted);
            let fetched = Priority::Background.scope(async move {
                let started = Instant::now();
                (fetch(source.as_ref(), &wanted, from, hi).await, started.elapsed())
            });
            self.in_flight.push_back(AbortOnDropHandle::new(tokio::spawn(fetched)));
        }
    }
}

/// All blocks of a range, the highest first, with what is wanted of their movements.
async fn fetch(
    source: &dyn Source,
    wanted: &Wanted,
    from: u64,
    to: u64,
) -> Result<Vec<HistoryBlock>, SourceError> {
    let skips = source.family().skips_heights();
    let mut history_blocks = Vec::new();
    let mut next = from;
    while next <= to {
        let mut blocks = source.blocks(next, to).await?;
        source.trace(&mut blocks, PATIENCE).await;
        let end = next.saturating_add(u64::try_from(blocks.len()).unwrap_or(u64::MAX));
        if !skips {
            let found = blocks.iter().map(|block| block.header.at.number);
            if blocks.is_empty() || !found.eq(next..end) {
                let missing = format!("some of the blocks from {from} to {to}");
                return Err(SourceError::NotThere(missing));
            }
        }
        for block in blocks {
            history_blocks.push(wanted_of(source, block, wanted).await?);
        }
        // Large blocks come in several pieces.
        next = if skips { to.saturating_add(1) } else { end };
    }
    history_blocks.reverse();
    Ok(history_blocks)
}
