//! Far behind the head: ranges are fetched ahead, and committed in as large pieces as have come, one written while
//! the next is decided.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::FutureExt as _;

use super::{Follower, TurnError, decide, prefetch::Prefetch, settle};
use crate::{
    chain::{Block, Header, Priority, Settlement},
    commit::{CommitError, Committed, Pipeline},
    ledger::known::MatchedBlock,
    model::{BlockPoint, Cursor},
};

/// What one commit takes at most while catching up, if it has come already: movements that somebody watches, and
/// blocks. More would be quicker still, and take memory.
const MOST_MOVEMENTS: usize = 6_000;
const MOST_BLOCKS: usize = 2_000;

/// How catching up ended.
enum End {
    /// At the head that was aimed for, or where the node had no more.
    Reached,
    /// The next block is not the child of the newest one.
    OtherBranch,
}

impl Follower {
    /// Fetches ahead and commits in batches up to `head`.
    pub(super) async fn catch_up(&mut self, head: &Header) -> Result<(), TurnError> {
        let mut pipeline = Pipeline::new(self.committer.clone());
        let ended = self.catch_up_in(&mut pipeline, head).await;
        // Whatever ended it: what is being written counts, and what was decided upon it only with it.
        self.finish(&mut pipeline).await?;
        match ended? {
            End::Reached => Ok(()),
            End::OtherBranch => {
                let cursor = self.current()?;
                self.reorganize(&cursor).await
            }
        }
    }

    async fn catch_up_in(
        &mut self,
        pipeline: &mut Pipeline,
        head: &Header,
    ) -> Result<End, TurnError> {
        // What the commits so far will have left, with the one that is being written.
        let mut cursor = self.current()?;
        let said = match self.config.settlement {
            // What it has stopped for is compared before anything settles; two endpoints agree once, at the end.
            _ if self.stopped.is_stopped() || self.needs_quorum() => None,
            Settlement::Tag(tag) => self.source.settled(tag).await?.map(|header| header.at.number),
            Settlement::Confirmations(depth) => Some(head.at.number.saturating_sub(depth)),
        };
        let mut prefetch = Prefetch::new(
            Arc::clone(&self.source),
            cursor.head.at.number + 1,
            head.at.number,
            self.config.batch_blocks,
            said.unwrap_or(0),
        );
        let begun = (cursor.head.at.number, Instant::now());
        let mut reported = Instant::now();
        let mut waiting = None;
        loop {
            let blocks = match waiting.take() {
                Some(blocks) => blocks,
                None => match prefetch.next().await? {
                    Some(blocks) => blocks,
                    None => return Ok(End::Reached),
                },
            };
            if let Err(index) =
                decide::links(&cursor.head.at, blocks.iter().map(|block| &block.header))
            {
                if index == 0 {
                    return Ok(End::OtherBranch);
                }
                return Err(TurnError::Retry("the node changed branches while it was read".into()));
            }
            let kept = self.kept(&blocks, said.unwrap_or(0));
            let mut matched = self.matched(blocks).await?;
            let more = self.take_more(&mut prefetch, &mut matched, head.at.number).await;
            let upto = self.settles(said);
            let settled = settle::settled_in(&cursor, &matched, upto, head.at.number);
            let matched = Arc::new(matched);
            cursor = self.connect_in(pipeline, &cursor, Arc::clone(&matched), settled).await?;
            self.connected(&matched, kept, cursor.settled.at.number);
            // What came of the rest counts only after what was good before it.
            waiting = more?;
            if self.wake_up.notified().now_or_never().is_some() {
                self.finish(pipeline).await?;
                let at = self.current()?;
                Priority::Background.scope(Box::pin(self.registrations(&at))).await?;
                cursor = self.current()?;
            }
            self.gauge_progress();
            if reported.elapsed() > Duration::from_secs(10) {
                let (from, since) = begun;
                let done = cursor.head.at.number - from;
                tracing::info!(
                    chain = %self.config.name,
                    block.number = cursor.head.at.number,
                    head.number = head.at.number,
                    blocks_per_second = done / since.elapsed().as_secs().max(1),
                    "catching up"
                );
                reported = Instant::now();
            }
        }
    }

    /// Begins to commit what continues `cursor`; gives the cursor that this will have left.
    async fn connect_in(
        &mut self,
        pipeline: &mut Pipeline,
        cursor: &Cursor,
        matched: Arc<Vec<MatchedBlock>>,
        settled: BlockPoint,
    ) -> Result<Cursor, TurnError> {
        match pipeline.connect(cursor, Arc::clone(&matched), settled).await {
            Ok(next) => {
                self.take_over(&pipeline.written());
                Ok(next)
            }
            Err(CommitError::Short(_)) => {
                // The chain is to be asked, block by block.
                self.finish(pipeline).await?;
                self.connect(cursor, &matched, settled).await?;
                self.current()
            }
            Err(error) => {
                self.take_over(&pipeline.written());
                Err(error.into())
            }
        }
    }

    /// Waits until nothing is being written, and takes it over.
    async fn finish(&mut self, pipeline: &mut Pipeline) -> Result<(), TurnError> {
        let finished = pipeline.finish().await;
        self.take_over(&pipeline.written());
        Ok(finished?)
    }

    fn take_over(&mut self, written: &[Committed]) {
        for committed in written {
            self.committed(committed);
        }
    }

    /// Adds ranges that have come already to what is committed next: the rows of one commit are written
    /// together, and a balance that changes in each of its blocks is written once. Gives a range that has to
    /// wait: one that does not link, and the last one, which settles by itself.
    async fn take_more(
        &self,
        prefetch: &mut Prefetch,
        matched: &mut Vec<MatchedBlock>,
        head: u64,
    ) -> Result<Option<Vec<Block>>, TurnError> {
        loop {
            let movements: usize = matched.iter().map(|block| block.movements.len()).sum();
            let Some(tip) = matched.last().map(|block| block.header.at) else { return Ok(None) };
            if movements >= MOST_MOVEMENTS || matched.len() >= MOST_BLOCKS || tip.number >= head {
                return Ok(None);
            }
            let Some(blocks) = prefetch.ready().await? else { return Ok(None) };
            let last = blocks.last().is_none_or(|block| block.header.at.number >= head);
            let headers = blocks.iter().map(|block| &block.header);
            if last || decide::links(&tip, headers).is_err() {
                return Ok(Some(blocks));
            }
            matched.extend(self.matched(blocks).await?);
        }
    }
}
