//! The chain changes its mind: the way back to the common ancestor, and when there is none.

use std::time::Instant;

use super::{CONTRADICTIONS_TO_HALT, Follower, TurnError};
use crate::{
    chain::{Header, Priority},
    model::{BlockPoint, Cursor},
    store::{chain as chain_store, settling},
};

/// Transfers that one commit takes back at most, if a block does not hold more: a deep reorg goes in pieces.
#[cfg(not(test))]
const TAKEN_BACK_AT_ONCE: i64 = 5_000;
#[cfg(test)]
const TAKEN_BACK_AT_ONCE: i64 = 20;

impl Follower {
    /// Whether the node's head, at or below ours, is on another branch than what we applied.
    pub(super) async fn on_another_branch(
        &self,
        cursor: &Cursor,
        head: &Header,
    ) -> Result<bool, TurnError> {
        let mut session = self.committer.db.read().await?;
        let ours =
            chain_store::block_at_or_below(&mut session.conn(), cursor.no, head.at.number).await?;
        let Some(ours) = ours.filter(|ours| ours.at != head.at) else { return Ok(false) };
        // Above the settled block every applied block is known: a height that stayed empty here and holds
        // a block there is another branch, too.
        Ok(ours.at.number == head.at.number || head.at.number > cursor.settled.at.number)
    }

    /// Goes back to the newest applied block that the node still has. Never below the settled block.
    pub(super) async fn reorganize(&mut self, cursor: &Cursor) -> Result<(), TurnError> {
        let mut session = self.committer.db.read().await?;
        let ours =
            chain_store::blocks_from(&mut session.conn(), cursor.no, cursor.settled.at.number)
                .await?;
        drop(session);
        // A node of another chain has no block of ours either: that is no reorg.
        self.source.ask_identity_again();
        let head = self.source.head().await?.at.number;
        if head < cursor.settled.at.number {
            return Err(TurnError::Retry(format!(
                "the node is at block {head}, below the settled block {}",
                cursor.settled.at.number
            )));
        }
        // The other branch may be shorter so far: our blocks above its head are not on it.
        for block in ours.iter().rev().filter(|block| block.at.number <= head) {
            let theirs = self.source.header_at(block.at.number).await?;
            if theirs.is_some_and(|header| header.at == block.at) {
                self.contradictions = 0;
                if block.at == cursor.head.at {
                    // The node contradicted itself; the next turn asks again.
                    return Err(TurnError::Retry("the node's branches do not fit together".into()));
                }
                return self.roll_back(cursor, *block).await;
            }
            if theirs.is_none() && !self.config.family.skips_heights() {
                return Err(TurnError::Retry(format!(
                    "the node does not have block {} that lies below its head",
                    block.at.number
                )));
            }
        }
        self.contradicted(format!(
            "the node's chain does not contain the settled block {} ({:?}): a reorg deeper than \
             settlement, or a node on another chain",
            cursor.settled.at.number, cursor.settled.at.hash
        ))
    }

    pub(super) async fn roll_back(
        &mut self,
        cursor: &Cursor,
        fork: BlockPoint,
    ) -> Result<(), TurnError> {
        let depth = cursor.head.at.number - fork.at.number;
        self.reading = None;
        self.tracked.forget();
        self.traces.forget_above(fork.at.number);
        let mut cursor = cursor.clone();
        while cursor.head.at != fork.at {
            let to = self.piece_above(&cursor, fork).await?;
            let committed = self.committer.rollback(&cursor, to).await?;
            self.committed(&committed);
            self.forget().await?;
            cursor = committed.cursor;
        }
        tracing::warn!(
            chain = %self.config.name,
            fork.number = fork.at.number,
            depth_blocks = depth,
            "reorg: went back to the common ancestor"
        );
        let name = self.config.name.as_str();
        self.metrics.reorgs_total.with_label_values(&[name]).inc();
        #[expect(clippy::cast_precision_loss, reason = "a depth in blocks, for a histogram")]
        self.metrics.reorg_depth_blocks.with_label_values(&[name]).observe(depth as f64);
        self.backfill.look_again();
        self.opener.look_again();
        // What was opened above the fork opens again at the fork, before the new branch is followed.
        Priority::Background.scope(Box::pin(self.registrations(&cursor))).await?;
        Ok(())
    }

    /// How far one commit goes back on the way to `fork`: blocks of [`TAKEN_BACK_AT_ONCE`] transfers, or one block
    /// that has more.
    async fn piece_above(
        &self,
        cursor: &Cursor,
        fork: BlockPoint,
    ) -> Result<BlockPoint, TurnError> {
        let mut session = self.committer.db.read().await?;
        let conn = &mut session.conn();
        let (no, above) = (cursor.no, fork.at.number);
        let before = settling::block_before(conn, no, above, TAKEN_BACK_AT_ONCE).await?;
        let Some(before) = before else { return Ok(fork) };
        for height in [before, before.saturating_sub(1)] {
            let block = chain_store::block_at_or_below(conn, no, height).await?;
            let between = |block: &BlockPoint| {
                block.at.number > above && block.at.number < cursor.head.at.number
            };
            if let Some(block) = block.filter(between) {
                return Ok(block);
            }
        }
        Ok(fork)
    }

    /// A contradiction to settled blocks, seen once more; halts when it stands.
    pub(super) fn contradicted(&mut self, reason: String) -> Result<(), TurnError> {
        self.source.ask_identity_again();
        let pause = self.contradiction_pause;
        if self.contradicted_at.is_some_and(|last| last.elapsed() < pause) {
            return Err(TurnError::Retry(reason));
        }
        self.contradicted_at = Some(Instant::now());
        self.contradictions += 1;
        if self.contradictions >= CONTRADICTIONS_TO_HALT {
            self.contradictions = 0;
            return Err(TurnError::Halt(reason));
        }
        Err(TurnError::Retry(reason))
    }
}
