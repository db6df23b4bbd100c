//! Connecting blocks, one commit after the other: while one is written, the next is loaded and decided.

use std::sync::Arc;

use tokio::task::JoinHandle;

use super::{CommitError, Committed, Committer, Tries, hot::Hot};
use crate::{
    chain::BlockRef,
    ledger::{
        Changes, Decision,
        connect::{self, Blocks},
        known::{Figures, MatchedBlock},
    },
    model::{BlockPoint, Cursor},
    store::{
        StoreError,
        outage::{Cause, Outage},
    },
    task::joined,
};

impl Committer {
    /// Connects `blocks` (each the child of the one before, the first of `cursor.head`) and settles up to
    /// `settled`, one of them or the block that is settled already. What settles is compared with nothing:
    /// that is [`Committer::settle`].
    ///
    /// `figures` holds the chain's own balances for shortages that an earlier try returned. In the blocks `traced`,
    /// connected before, nothing more is to be booked: they count as traced.
    pub async fn connect(
        &self,
        cursor: &Cursor,
        blocks: &[MatchedBlock],
        settled: BlockPoint,
        figures: &Figures,
        traced: &[BlockRef],
    ) -> Result<Committed, CommitError> {
        let input = Blocks { blocks, settled, figures, traced };
        let mut tries = Tries::new("connect", "commit");
        let mut hot = self.hot.lock().await;
        let changes = self.decide(cursor, input, &mut hot, &mut tries).await?;
        drop(hot);
        self.write_connected(cursor, input, changes, tries).await
    }

    /// Loads what `input` needs, and decides. What is known afterwards counts on the changes.
    async fn decide(
        &self,
        cursor: &Cursor,
        input: Blocks<'_>,
        hot: &mut Hot,
        tries: &mut Tries,
    ) -> Result<Changes, CommitError> {
        let (safes, pending) = self.step().for_blocks(cursor, &input, hot).await?;
        tries.loaded(self);
        let now = *tries.now.get_or_insert_with(|| self.clock.now());
        let info = &*self.chain;
        let decision = connect::connect(info, cursor, &hot.known, safes, pending, input, now)?;
        tries.decided(self);
        match decision {
            Decision::Ask(short) => Err(CommitError::Short(short)),
            Decision::Commit(changes) => {
                hot.take_over(&changes);
                Ok(*changes)
            }
        }
    }

    /// Writes what was decided of `input`; decides again if something that was read has changed meanwhile.
    async fn write_connected(
        &self,
        cursor: &Cursor,
        input: Blocks<'_>,
        mut changes: Changes,
        mut tries: Tries,
    ) -> Result<Committed, CommitError> {
        loop {
            if let Some(committed) = self.write_taken_over(changes, &mut tries).await? {
                self.metrics
                    .blocks_applied_total
                    .with_label_values(&[self.chain.name.as_str()])
                    .inc_by(input.blocks.len() as u64);
                return Ok(committed);
            }
            let mut hot = self.hot.lock().await;
            changes = self.decide(cursor, input, &mut hot, &mut tries).await?;
        }
    }
}

/// Commits of one chain behind one another. At most one is being written, while the next is decided upon what
/// it will have left; that one is written only after it. Dropping a pipeline does not interrupt what is being written.
pub struct Pipeline {
    committer: Committer,
    writing: Option<Writing>,
    /// In order, until they are taken.
    written: Vec<Committed>,
}

struct Writing {
    task: JoinHandle<Result<Committed, CommitError>>,
    /// Whether the next can be decided before this is written.
    independent: bool,
}

impl Pipeline {
    #[must_use]
    pub fn new(committer: Committer) -> Self {
        Self { committer, writing: None, written: Vec::new() }
    }

    /// Decides as [`Committer::connect`], upon the cursor that the last call gave, and begins to write. Gives
    /// the cursor that this will have left.
    ///
    /// # Errors
    /// As [`Committer::connect`], of these blocks or of those before. These are not written then; of those
    /// before, [`Pipeline::written`] tells.
    pub async fn connect(
        &mut self,
        cursor: &Cursor,
        blocks: Arc<Vec<MatchedBlock>>,
        settled: BlockPoint,
    ) -> Result<Cursor, CommitError> {
        if self.writing.as_ref().is_some_and(|writing| !writing.independent) {
            self.finish().await?;
        }
        let committer = self.committer.clone();
        let mut tries = Tries::new("connect", "commit");
        let mut hot = committer.hot.lock().await;
        if self.writing.is_some() && !hot.continues(cursor) {
            // What is being written is not in memory any more: it has to be read.
            drop(hot);
            self.finish().await?;
            hot = committer.hot.lock().await;
        }
        let figures = Figures::new();
        let input = Blocks { blocks: &blocks, settled, figures: &figures, traced: &[] };
        let changes = committer.decide(cursor, input, &mut hot, &mut tries).await?;
        drop(hot);
        self.finish().await?;
        let next = changes.cursor.clone();
        let independent = is_independent(&changes);
        let (committer, from) = (self.committer.clone(), cursor.clone());
        let task = tokio::spawn(async move {
            let figures = Figures::new();
            let input = Blocks { blocks: &blocks, settled, figures: &figures, traced: &[] };
            committer.write_connected(&from, input, changes, tries).await
        });
        self.writing = Some(Writing { task, independent });
        Ok(next)
    }

    /// What is known to be written since the last time.
    pub fn written(&mut self) -> Vec<Committed> {
        std::mem::take(&mut self.written)
    }

    /// Waits until nothing is being written.
    ///
    /// # Errors
    /// Why the last one was not written; those before it are told by [`Pipeline::written`].
    pub async fn finish(&mut self) -> Result<(), CommitError> {
        let Some(writing) = self.writing.as_mut() else { return Ok(()) };
        let done = (&mut writing.task).await;
        self.writing = None;
        let committed = joined(done).ok_or_else(|| {
            let detail = "the task that commits was cancelled";
            StoreError::Unavailable(Outage::new(Cause::Closed, detail))
        })??;
        self.written.push(committed);
        Ok(())
    }
}

/// Whether all that the next commit reads in the store is the same before and after these changes: nothing of
/// them waits to settle, and no watch, Safe or earlier transfer changes. Balances and assets are known in memory.
fn is_independent(changes: &Changes) -> bool {
    let Changes { cursor, updates, watches, wallets, safes, deployments, .. } = changes;
    cursor.settled.at == cursor.head.at
        && updates.is_empty()
        && wallets.is_empty()
        && safes.is_empty()
        && deployments.is_empty()
        && watches.opened.is_empty()
        && watches.closed.is_empty()
        && watches.reopened.is_none()
}
