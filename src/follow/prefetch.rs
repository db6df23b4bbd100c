//! Fetching ahead: several ranges in flight, handed out in order.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio_util::task::AbortOnDropHandle;

use super::decide::Window;
use crate::{
    chain::{Block, Priority, Source, SourceError},
    task::joined,
};

/// Ranges in flight at most; together they bound the memory that fetched blocks take.
const MAX_IN_FLIGHT: usize = 6;

/// How long a block waits for its trace, where many wait together.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

type Fetched = (Result<Vec<Block>, SourceError>, Duration);

/// Blocks from one number to another, a range at a time. Dropping it stops what is in flight.
pub(super) struct Prefetch {
    source: Arc<dyn Source>,
    /// The first number not asked for yet.
    next: u64,
    last: u64,
    range: u64,
    /// Up to this block they are traced as well.
    traced_to: u64,
    window: Window,
    in_flight: VecDeque<(u64, AbortOnDropHandle<Fetched>)>,
}

impl Prefetch {
    pub(super) fn new(
        source: Arc<dyn Source>,
        first: u64,
        last: u64,
        range: u64,
        traced_to: u64,
    ) -> Self {
        let window = Window::new(MAX_IN_FLIGHT);
        let in_flight = VecDeque::new();
        Self { source, next: first, last, range: range.max(1), traced_to, window, in_flight }
    }

    /// The next range's blocks; `None` when all were handed out. Decoding runs on the runtime's other
    /// threads while the caller commits.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<Block>>, SourceError> {
        loop {
            self.fill();
            let Some((to, handle)) = self.in_flight.pop_front() else { return Ok(None) };
            let (result, took) = joined(handle.await).ok_or_else(|| SourceError::Unavailable {
                detail: "the task that fetches blocks was cancelled".to_owned(),
                retry_after: None,
            })?;
            match result {
                Ok(blocks) => {
                    if self.in_flight.iter().filter(|(_, handle)| handle.is_finished()).count() > 1
                    {
                        self.window.unneeded();
                    } else {
                        self.window.answered(took);
                    }
                    let short = blocks.last().is_none_or(|block| block.header.at.number < to);
                    if short && !self.source.family().skips_heights() {
                        // The chain ends here, as far as this node knows, or the next block is for the next turn.
                        self.in_flight.clear();
                        self.next = self.last + 1;
                    }
                    if blocks.is_empty() {
                        continue;
                    }
                    self.fill();
                    return Ok(Some(blocks));
                }
                Err(error) => {
                    self.window.failed();
                    return Err(error);
                }
            }
        }
    }

    /// The next range's blocks, if they have come already.
    pub(super) async fn ready(&mut self) -> Result<Option<Vec<Block>>, SourceError> {
        if self.in_flight.front().is_some_and(|(_, handle)| handle.is_finished()) {
            self.next().await
        } else {
            Ok(None)
        }
    }

    fn fill(&mut self) {
        while self.in_flight.len() < self.window.size() && self.next <= self.last {
            let from = self.next;
            let to = self.last.min(from.saturating_add(self.range - 1));
            self.next = to + 1;
            let (source, traced_to) = (Arc::clone(&self.source), self.traced_to);
            let task = tokio::spawn(Priority::current().scope(async move {
                let started = Instant::now();
                let mut blocks = source.blocks(from, to).await;
                if let Ok(blocks) = &mut blocks {
                    let settle = |block: &Block| block.header.at.number <= traced_to;
                    let settle = blocks.partition_point(settle);
                    source.trace(&mut blocks[..settle], PATIENCE).await;
                }
                (blocks, started.elapsed())
            }));
            self.in_flight.push_back((to, AbortOnDropHandle::new(task)));
        }
    }
}
