//! What has become irreversible, by the chain's policy, and whether the chain itself says the same of it.

use super::{
    Follower, TurnError,
    decide::{self, SettleStep},
    figures,
};
use crate::{
    chain::{ChainBalance, Settlement},
    ledger::known::MatchedBlock,
    model::{BalanceRef, BlockPoint, Cursor},
    store::{chain as chain_store, transfer},
};

/// Balances compared at one settlement; what is beyond, after a long stall of finality, the sweep finds.
const PROVEN_AT_ONCE: i64 = 5_000;
/// How often a settlement waits for a node that does not tell its balances.
const PROOF_TRIES: u32 = 5;

impl Follower {
    /// Settles what the chain's policy calls irreversible by now.
    pub(super) async fn settle(&mut self, cursor: &Cursor) -> Result<(), TurnError> {
        if cursor.settled.at == cursor.head.at {
            return Ok(());
        }
        let said: BlockPoint = match self.config.settlement {
            Settlement::Tag(tag) => match self.source.settled(tag).await? {
                Some(header) => (&header).into(),
                None => return Ok(()),
            },
            Settlement::Confirmations(depth) => {
                let target = cursor.head.at.number.saturating_sub(depth);
                match self.applied_at(cursor, target).await? {
                    Some(block) => block,
                    None => return Ok(()),
                }
            }
        };
        let ours = self.applied_at(cursor, said.at.number).await?;
        match decide::settle_step(&cursor.settled, &cursor.head, &said, ours.as_ref()) {
            SettleStep::Stay => Ok(()),
            SettleStep::Advance(point) => {
                self.contradictions = 0;
                let figures = self.figures(cursor, point).await?;
                let committed = self.committer.settle(cursor, point, &figures).await?;
                self.committed(&committed);
                Ok(())
            }
            SettleStep::OtherBranch => self.reorganize(cursor).await,
            SettleStep::Contradiction { number } => self.contradicted(format!(
                "the node calls another block {number} settled than the one that was settled here"
            )),
        }
    }

    /// What the chain has of the balances that settle with a block, after exactly that block. Nothing where
    /// the node no longer has that state, or tells no balances at all: money must not stay pending for that.
    async fn figures(
        &mut self,
        cursor: &Cursor,
        point: BlockPoint,
    ) -> Result<Vec<(BalanceRef, ChainBalance)>, TurnError> {
        let mut session = self.committer.db.read().await?;
        let conn = &mut session.conn();
        let balances = transfer::settling(conn, cursor.no, point.at.number, PROVEN_AT_ONCE).await?;
        drop(session);
        if balances.is_empty() {
            return Ok(Vec::new());
        }
        match figures::read(self.source.as_ref(), point.at, &balances).await {
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
