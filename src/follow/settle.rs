//! What has become irreversible, by the chain's policy, and whether the chain itself says the same of it.
//!
//! The balances that settle are compared with the chain's own figures in two steps beside the follower: one node's
//! word first; where it differs from the ledger, proofs and other nodes (see [`super::doubts`]).

use std::sync::Arc;

use tokio::task::JoinError;
use tokio_util::task::AbortOnDropHandle;

use super::{
    Announcements, Follower, Turn, TurnError, announcement,
    decide::{self, SettleStep},
    figures::{self, Sure, Told},
    quorum::Gate,
};
use crate::{
    chain::{Priority, Settlement, SourceError},
    commit::{CommitError, Committed},
    ledger::{
        known::MatchedBlock,
        reconcile::{Drift, Figure},
    },
    model::{BalanceRef, BlockPoint, Cursor},
    store::{chain as chain_store, settling},
    task::joined,
};

/// Transfers that one commit settles at most, if a block does not hold more: after a long stall of finality it
/// goes in pieces.
#[cfg(not(test))]
const SETTLED_AT_ONCE: i64 = 5_000;
#[cfg(test)]
const SETTLED_AT_ONCE: i64 = 20;
/// Balances compared at one settlement; what is beyond, the sweep finds.
const PROVEN_AT_ONCE: usize = 5_000;
/// How often a settlement waits for a node that does not tell its balances.
const PROOF_TRIES: u32 = 5;

/// The chain's own balances for what settles next, on their way from the nodes. The head is followed meanwhile.
pub(super) struct Reading {
    /// What settles with them.
    point: BlockPoint,
    /// What had settled before.
    since: BlockPoint,
    step: Step,
}

enum Step {
    /// One node's word of all of them.
    Read { asked: usize, task: AbortOnDropHandle<Result<Option<Vec<Told>>, SourceError>> },
    /// More than that of those that differ.
    Confirm { told: Vec<Told>, drifts: Vec<Drift>, task: AbortOnDropHandle<Sure> },
}

/// What a step came to.
enum Came {
    Read(usize, Result<Result<Option<Vec<Told>>, SourceError>, JoinError>),
    Sure(Result<Sure, JoinError>),
}

impl Step {
    async fn wait(&mut self) -> Came {
        match self {
            Self::Read { asked, task } => Came::Read(*asked, task.await),
            Self::Confirm { task, .. } => Came::Sure(task.await),
        }
    }
}

impl Follower {
    /// Settles what the chain's policy calls irreversible by now. [`Turn::More`] if there is more to settle, or if
    /// something came before the balances that it waits for: the next turn goes on.
    pub(super) async fn settle(
        &mut self,
        cursor: &Cursor,
        announced: &mut Announcements,
    ) -> Result<Turn, TurnError> {
        if cursor.settled.at == cursor.head.at || self.stopped.waits() {
            return Ok(Turn::Idle);
        }
        if self.reading.as_ref().is_some_and(|reading| reading.since != cursor.settled) {
            self.reading = None;
        }
        if self.reading.is_none() {
            let Some(said) = self.settles_next(cursor).await? else { return Ok(Turn::Idle) };
            let said = match self.quorum(cursor, said, announced).await? {
                Gate::Open(said) => said,
                Gate::Closed(turn) => return Ok(turn),
            };
            // What settlement has stopped for is in the first piece already: no piece goes uncompared then.
            let point =
                if self.stopped.is_stopped() { said } else { self.piece(cursor, said).await? };
            let balances = self.settling(cursor, point).await?;
            if point != said || balances.is_empty() {
                self.settle_at(cursor, point, &[]).await?;
                self.owe(balances);
                return Ok(if point == said { Turn::Idle } else { Turn::More });
            }
            let (source, asked) = (Arc::clone(&self.source), balances.len());
            let read = async move { figures::read(source.as_ref(), point.at, &balances).await };
            let read = Priority::Settlement.scope(read);
            let task = AbortOnDropHandle::new(tokio::spawn(read));
            let step = Step::Read { asked, task };
            self.reading = Some(Reading { point, since: cursor.settled, step });
        }
        let Some(reading) = self.reading.as_mut() else { return Ok(Turn::Idle) };
        let came = tokio::select! {
            biased;
            came = reading.step.wait() => came,
            () = announcement(announced) => return Ok(Turn::More),
            () = self.wake_up.notified() => return Ok(Turn::More),
            () = tokio::time::sleep(self.config.poll_interval) => return Ok(Turn::More),
        };
        let Some(Reading { point, step, .. }) = self.reading.take() else { return Ok(Turn::Idle) };
        let told = match came {
            Came::Read(asked, read) => {
                let read = joined(read).unwrap_or_else(|| {
                    let detail = "the task that reads balances was cancelled".to_owned();
                    Err(SourceError::Unavailable { detail, retry_after: None })
                });
                self.told(point, asked, read)?
            }
            Came::Sure(sure) => {
                let Step::Confirm { told, drifts, .. } = step else { return Ok(Turn::More) };
                let sure = joined(sure).unwrap_or_default();
                return self.settle_confirmed(cursor, point, told, &drifts, &sure).await;
            }
        };
        if self.applied_at(cursor, point.at.number).await? != Some(point) {
            return Ok(Turn::More);
        }
        // What no node tells any more does not show that the figures agree.
        if told.is_empty() && self.stopped.is_stopped() && !self.accepted(cursor).await? {
            self.stop(&[]);
            return Ok(Turn::Idle);
        }
        let figures: Vec<Figure> = told.iter().map(Told::unconfirmed).collect();
        match self.settle_at(cursor, point, &figures).await {
            Err(CommitError::Unconfirmed(drifts)) => {
                let step = self.confirm(point, told, drifts);
                self.reading = Some(Reading { point, since: cursor.settled, step });
                Ok(Turn::More)
            }
            outcome => {
                outcome?;
                self.owed.clear();
                self.doubts.resolved(told.iter().map(|told| &told.balance));
                self.gauge_doubts();
                Ok(Turn::Idle)
            }
        }
    }

    /// Asks for certainty about what differs.
    fn confirm(&self, point: BlockPoint, told: Vec<Told>, drifts: Vec<Drift>) -> Step {
        let source = Arc::clone(&self.source);
        let asked: Vec<BalanceRef> = drifts.iter().map(|drift| drift.balance).collect();
        let sure = async move { figures::for_sure(source.as_ref(), point.at, &asked).await };
        let sure = Priority::Settlement.scope(sure);
        let task = AbortOnDropHandle::new(tokio::spawn(sure));
        Step::Confirm { told, drifts, task }
    }

    /// Settles with what is sure of the differences; nothing if they are too many.
    async fn settle_confirmed(
        &mut self,
        cursor: &Cursor,
        point: BlockPoint,
        told: Vec<Told>,
        drifts: &[Drift],
        sure: &Sure,
    ) -> Result<Turn, TurnError> {
        if self.applied_at(cursor, point.at.number).await? != Some(point) {
            return Ok(Turn::More);
        }
        let weighed = figures::weighed(told, drifts, sure);
        let too_many = self.too_many(&weighed);
        if too_many && !self.accepted(cursor).await? {
            self.stop(&weighed);
            return Ok(Turn::Idle);
        }
        let figures = self.beliefs(&weighed, point.at.number, too_many);
        self.settle_at(cursor, point, &figures).await?;
        self.owed.clear();
        Ok(Turn::Idle)
    }

    /// The newest of our blocks that is irreversible, if it has not settled yet.
    async fn settles_next(&mut self, cursor: &Cursor) -> Result<Option<BlockPoint>, TurnError> {
        let said: BlockPoint = match self.config.settlement {
            Settlement::Tag(tag) => match self.called_settled(tag).await? {
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
                self.traced_up_to(cursor, point).await
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

    /// How far one commit settles on the way to `said`.
    async fn piece(&self, cursor: &Cursor, said: BlockPoint) -> Result<BlockPoint, TurnError> {
        let mut session = self.committer.db.read().await?;
        let conn = &mut session.conn();
        let behind =
            settling::block_behind(conn, cursor.no, said.at.number, SETTLED_AT_ONCE).await?;
        let Some(behind) = behind else { return Ok(said) };
        // All before the block in which the next piece begins; a block that is larger than a piece settles whole.
        for height in [behind.saturating_sub(1), behind] {
            let block = chain_store::block_at_or_below(conn, cursor.no, height).await?;
            if let Some(block) = block.filter(|block| block.at.number > cursor.settled.at.number) {
                return Ok(block);
            }
        }
        Ok(said)
    }

    async fn settle_at(
        &mut self,
        cursor: &Cursor,
        point: BlockPoint,
        figures: &[Figure],
    ) -> Result<Committed, CommitError> {
        let committed = self.committer.settle(cursor, point, figures).await?;
        self.committed(&committed);
        self.goes_on();
        Ok(committed)
    }

    /// The balances that are compared when a block settles: those that it changes, those of pieces before it, and
    /// those in doubt.
    pub(super) async fn settling(
        &self,
        cursor: &Cursor,
        point: BlockPoint,
    ) -> Result<Vec<BalanceRef>, TurnError> {
        let mut session = self.committer.db.read().await?;
        let conn = &mut session.conn();
        let most = i64::try_from(PROVEN_AT_ONCE).unwrap_or(i64::MAX);
        let mut balances = settling::balances(conn, cursor.no, point.at.number, most).await?;
        drop(session);
        balances.extend_from_slice(&self.owed);
        balances.extend(self.doubts.balances());
        // What was set aside since stays as it was last booked.
        balances.retain(|balance| self.money.contains(&balance.key));
        one_of_each(&mut balances);
        Ok(balances)
    }

    /// Leaves balances to the next settlement that compares.
    pub(super) fn owe(&mut self, balances: impl IntoIterator<Item = BalanceRef>) {
        self.owed.extend(balances);
        one_of_each(&mut self.owed);
        self.count_uncompared("too_many", self.owed.len().saturating_sub(PROVEN_AT_ONCE));
        self.owed.truncate(PROVEN_AT_ONCE);
    }

    fn count_uncompared(&self, reason: &str, balances: usize) {
        if balances > 0 {
            self.metrics
                .settled_uncompared_total
                .with_label_values(&[self.config.name.as_str(), reason])
                .inc_by(u64::try_from(balances).unwrap_or(u64::MAX));
        }
    }

    /// What the chain has of the balances that settle with a block, after exactly that block. Nothing where
    /// no node has that state any more, or tells balances at all: money must not stay pending for that.
    fn told(
        &mut self,
        point: BlockPoint,
        asked: usize,
        read: Result<Option<Vec<Told>>, SourceError>,
    ) -> Result<Vec<Told>, TurnError> {
        match read {
            Ok(Some(told)) => {
                self.unproven = 0;
                Ok(told)
            }
            Ok(None) => {
                self.count_uncompared("no_state", asked);
                tracing::debug!(
                    chain = %self.config.name,
                    block.number = point.at.number,
                    "the node has no state for this block: it settles without being compared"
                );
                Ok(Vec::new())
            }
            Err(error) if self.unproven >= PROOF_TRIES => {
                self.count_uncompared("no_answer", asked);
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

/// In the order of their addresses.
fn one_of_each(balances: &mut Vec<BalanceRef>) {
    balances.sort_by_key(|balance| (balance.address, balance.wallet, balance.asset));
    balances.dedup();
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
