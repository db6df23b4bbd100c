//! What has become irreversible, by the chain's policy, and whether the chain itself says the same of it.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::{
    Follower, Turn, TurnError, announcement,
    decide::{self, SettleStep},
    figures,
};
use crate::{
    chain::{Announced, ChainBalance, Settlement, SourceError},
    ledger::known::MatchedBlock,
    model::{BalanceRef, BlockPoint, Cursor},
    store::{chain as chain_store, transfer},
    task::joined,
};

/// Balances compared at one settlement; what is beyond, after a long stall of finality, the sweep finds.
const PROVEN_AT_ONCE: i64 = 5_000;
/// How often a settlement waits for a node that does not tell its balances.
const PROOF_TRIES: u32 = 5;

/// The chain's own balances for what settles next, on their way from the node. The head is followed meanwhile.
pub(super) struct Reading {
    /// What settles with them.
    point: BlockPoint,
    /// What had settled before.
    since: BlockPoint,
    task: AbortOnDropHandle<Result<Option<Vec<Figure>>, SourceError>>,
}

type Figure = (BalanceRef, ChainBalance);

impl Follower {
    /// Settles what the chain's policy calls irreversible by now. [`Turn::More`] if something came before the
    /// balances that it waits for: the next turn waits on.
    pub(super) async fn settle(
        &mut self,
        cursor: &Cursor,
        announced: &mut watch::Receiver<Option<Announced>>,
    ) -> Result<Turn, TurnError> {
        if cursor.settled.at == cursor.head.at {
            return Ok(Turn::Idle);
        }
        if self.reading.as_ref().is_some_and(|reading| reading.since != cursor.settled) {
            self.reading = None;
        }
        if self.reading.is_none() {
            let Some(point) = self.settles_next(cursor).await? else { return Ok(Turn::Idle) };
            let balances = self.settling(cursor, point).await?;
            if balances.is_empty() {
                self.settle_at(cursor, point, &[]).await?;
                return Ok(Turn::Idle);
            }
            let source = Arc::clone(&self.source);
            let task = AbortOnDropHandle::new(tokio::spawn(async move {
                figures::read(source.as_ref(), point.at, &balances).await
            }));
            self.reading = Some(Reading { point, since: cursor.settled, task });
        }
        let Some(reading) = self.reading.as_mut() else { return Ok(Turn::Idle) };
        let point = reading.point;
        let read = tokio::select! {
            biased;
            read = &mut reading.task => read,
            () = announcement(announced) => return Ok(Turn::More),
            () = self.wake_up.notified() => return Ok(Turn::More),
            () = tokio::time::sleep(self.config.poll_interval) => return Ok(Turn::More),
        };
        self.reading = None;
        let read = joined(read).unwrap_or_else(|| {
            let detail = "the task that reads balances was cancelled".to_owned();
            Err(SourceError::Unavailable { detail, retry_after: None })
        });
        let figures = self.believed(point, read)?;
        if self.applied_at(cursor, point.at.number).await? == Some(point) {
            self.settle_at(cursor, point, &figures).await?;
        }
        Ok(Turn::Idle)
    }

    /// The newest of our blocks that is irreversible, if it has not settled yet.
    async fn settles_next(&mut self, cursor: &Cursor) -> Result<Option<BlockPoint>, TurnError> {
        let said: BlockPoint = match self.config.settlement {
            Settlement::Tag(tag) => match self.source.settled(tag).await? {
                Some(header) => (&header).into(),
                None => return Ok(None),
            },
            Settlement::Confirmations(depth) => {
                let target = cursor.head.at.number.saturating_sub(depth);
                match self.applied_at(cursor, target).await? {
                    Some(block) => block,
                    None => return Ok(None),
                }
            }
        };
        let ours = self.applied_at(cursor, said.at.number).await?;
        match decide::settle_step(&cursor.settled, &cursor.head, &said, ours.as_ref()) {
            SettleStep::Stay => Ok(None),
            SettleStep::Advance(point) => {
                self.contradictions = 0;
                Ok(Some(point))
            }
            SettleStep::OtherBranch => {
                self.reorganize(cursor).await?;
                Ok(None)
            }
            SettleStep::Contradiction { number } => {
                self.contradicted(format!(
                    "the node calls another block {number} settled than the one that was settled here"
                ))?;
                Ok(None)
            }
        }
    }

    async fn settle_at(
        &mut self,
        cursor: &Cursor,
        point: BlockPoint,
        figures: &[Figure],
    ) -> Result<(), TurnError> {
        let committed = self.committer.settle(cursor, point, figures).await?;
        self.committed(&committed);
        Ok(())
    }

    /// The balances that settle with a block.
    async fn settling(
        &self,
        cursor: &Cursor,
        point: BlockPoint,
    ) -> Result<Vec<BalanceRef>, TurnError> {
        let mut session = self.committer.db.read().await?;
        let conn = &mut session.conn();
        Ok(transfer::settling(conn, cursor.no, point.at.number, PROVEN_AT_ONCE).await?)
    }

    /// What the chain has of the balances that settle with a block, after exactly that block. Nothing where
    /// the node no longer has that state, or tells no balances at all: money must not stay pending for that.
    fn believed(
        &mut self,
        point: BlockPoint,
        read: Result<Option<Vec<Figure>>, SourceError>,
    ) -> Result<Vec<Figure>, TurnError> {
        match read {
            Ok(Some(figures)) => {
                self.unproven = 0;
                Ok(figures)
            }
            Ok(None) => {
                tracing::debug!(
                    chain = %self.config.name,
                    block.number = point.at.number,
                    "the node has no state for this block: it settles without being compared"
                );
                Ok(Vec::new())
            }
            Err(error) if self.unproven >= PROOF_TRIES => {
                // Told once: the sweep's silence is what an operator is alerted of.
                if self.unproven == PROOF_TRIES {
                    self.unproven += 1;
                    tracing::warn!(
                        chain = %self.config.name,
                        block.number = point.at.number,
                        error = %error,
                        "the node tells no balances: blocks settle without being compared"
                    );
                }
                Ok(Vec::new())
            }
            Err(error) => {
                self.unproven += 1;
                Err(error.into())
            }
        }
    }

    pub(super) async fn applied_at(
        &self,
        cursor: &Cursor,
        number: u64,
    ) -> Result<Option<BlockPoint>, TurnError> {
        let mut session = self.committer.db.read().await?;
        Ok(chain_store::block_at_or_below(&mut session.conn(), cursor.no, number).await?)
    }
}

/// How far a batch settles on the way to `head`: up to the newest of its blocks that the node called settled
/// when it began. The last batch leaves it to [`Follower::settle`], which has the node's states to compare with.
pub(super) fn settled_in(
    cursor: &Cursor,
    blocks: &[MatchedBlock],
    said: Option<u64>,
    head: u64,
) -> BlockPoint {
    let last = blocks.last().is_none_or(|block| block.header.at.number >= head);
    let Some(said) = said.filter(|_| !last) else { return cursor.settled };
    blocks
        .iter()
        .rev()
        .map(|block| &block.header)
        .find(|header| header.at.number <= said)
        .map(BlockPoint::from)
        .filter(|point| point.at.number > cursor.settled.at.number)
        .unwrap_or(cursor.settled)
}
