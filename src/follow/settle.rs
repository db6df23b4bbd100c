//! What has become irreversible, by the chain's policy.

use super::{
    Follower, TurnError,
    decide::{self, SettleStep},
};
use crate::{
    chain::{Block, Settlement},
    store::chain::{self as chain_store, BlockPoint, Cursor},
};

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
                match self.applied_at(target).await? {
                    Some(block) => block,
                    None => return Ok(()),
                }
            }
        };
        let ours = self.applied_at(said.at.number).await?;
        match decide::settle_step(&cursor.settled, &cursor.head, &said, ours.as_ref()) {
            SettleStep::Stay => Ok(()),
            SettleStep::Advance(point) => {
                self.contradictions = 0;
                self.connect(cursor, Vec::new(), point).await
            }
            SettleStep::OtherBranch => self.reorganize(cursor).await,
            SettleStep::Contradiction { number } => self.contradicted(format!(
                "the node calls another block {number} settled than the one that was settled here"
            )),
        }
    }

    pub(super) async fn applied_at(&self, number: u64) -> Result<Option<BlockPoint>, TurnError> {
        let mut session = self.applier.db.read().await?;
        Ok(chain_store::block_at_or_below(&mut session.conn(), &self.config.name, number).await?)
    }
}

/// How far a batch settles: up to the newest of its blocks that the node called settled when it began.
pub(super) fn settled_in(cursor: &Cursor, blocks: &[Block], said: Option<u64>) -> BlockPoint {
    let Some(said) = said else { return cursor.settled };
    blocks
        .iter()
        .rev()
        .map(|block| &block.header)
        .find(|header| header.at.number <= said)
        .map(BlockPoint::from)
        .filter(|point| point.at.number > cursor.settled.at.number)
        .unwrap_or(cursor.settled)
}
