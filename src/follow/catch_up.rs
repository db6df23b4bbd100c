//! Far behind the head: ranges are fetched ahead, and committed in as large pieces as have come.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::FutureExt as _;

use super::{Follower, TurnError, decide, prefetch::Prefetch, settle};
use crate::{
    chain::{Block, Header, Settlement},
    ledger::known::MatchedBlock,
    model::Cursor,
};

/// What one commit takes at most while catching up, if it has come already: movements that somebody watches, and
/// blocks. More would be quicker still, and take memory.
const MOST_MOVEMENTS: usize = 10_000;
const MOST_BLOCKS: usize = 2_000;

impl Follower {
    /// Fetches ahead and commits in batches up to `head`.
    pub(super) async fn catch_up(
        &mut self,
        cursor: &Cursor,
        head: &Header,
    ) -> Result<(), TurnError> {
        let said = match self.config.settlement {
            Settlement::Tag(tag) => self.source.settled(tag).await?.map(|header| header.at.number),
            Settlement::Confirmations(depth) => Some(head.at.number.saturating_sub(depth)),
        };
        let mut cursor = cursor.clone();
        let mut prefetch = Prefetch::new(
            Arc::clone(&self.source),
            cursor.head.at.number + 1,
            head.at.number,
            self.config.batch_blocks,
        );
        let begun = (cursor.head.at.number, Instant::now());
        let mut reported = begun;
        let mut waiting = None;
        loop {
            let blocks = match waiting.take() {
                Some(blocks) => blocks,
                None => match prefetch.next().await? {
                    Some(blocks) => blocks,
                    None => return Ok(()),
                },
            };
            if let Err(index) =
                decide::links(&cursor.head.at, blocks.iter().map(|block| &block.header))
            {
                drop(prefetch);
                if index == 0 {
                    return self.reorganize(&cursor).await;
                }
                return Err(TurnError::Retry("the node changed branches while it was read".into()));
            }
            let mut matched = self.matched(blocks).await?;
            let more = self.take_more(&mut prefetch, &mut matched, head.at.number).await;
            let settled = settle::settled_in(&cursor, &matched, said, head.at.number);
            self.connect(&cursor, &matched, settled).await?;
            // What came of the rest counts only after what was good before it.
            waiting = more?;
            if self.wake_up.notified().now_or_never().is_some() {
                let at = self.current()?;
                self.registrations(&at).await?;
            }
            cursor = self.current()?;
            self.gauge_progress();
            if reported.1.elapsed() > Duration::from_secs(10) {
                let (from, since) = begun;
                let done = cursor.head.at.number - from;
                tracing::info!(
                    chain = %self.config.name,
                    block.number = cursor.head.at.number,
                    head.number = head.at.number,
                    blocks_per_second = done / since.elapsed().as_secs().max(1),
                    "catching up"
                );
                reported = (cursor.head.at.number, Instant::now());
            }
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
