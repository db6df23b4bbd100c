//! The way out of a halt: a person takes a chain back.

use super::{CommitError, Committer, Tries};
use crate::{
    chain::Header,
    ledger::{
        Changes,
        rollback::{self, TakenBack},
    },
    model::{Cursor, RewindOrder},
    store::StoreError,
};

/// A rewind that was written.
#[derive(Clone, Debug)]
pub struct Rewound {
    pub cursor: Cursor,
    pub taken: TakenBack,
}

impl Committer {
    /// What [`Committer::rewind`] would take back now. Nothing is written.
    ///
    /// # Errors
    /// As [`Committer::rewind`].
    pub async fn would_rewind(&self, target: &Header) -> Result<TakenBack, CommitError> {
        let nobody = RewindOrder { by: None, reason: String::new() };
        let (_, taken) = self.decide_rewind(target, &nobody).await?;
        Ok(taken)
    }

    /// Rolls back to `target`, a block of the node's chain, even below the settled block, and lets the chain go on.
    /// Settled money above it is taken back, with events that say so. The order stays in the journal.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] for a block above the head, [`CommitError::CursorMoved`] for a chain that was never
    /// followed.
    pub async fn rewind(
        &self,
        target: &Header,
        order: &RewindOrder,
    ) -> Result<Rewound, CommitError> {
        let mut tries = Tries::new("rewind", "rollback");
        loop {
            let (changes, taken) = self.decide_rewind(target, order).await?;
            if let Some(committed) = self.write(changes, &mut tries).await? {
                return Ok(Rewound { cursor: committed.cursor, taken });
            }
        }
    }

    async fn decide_rewind(
        &self,
        target: &Header,
        order: &RewindOrder,
    ) -> Result<(Changes, TakenBack), CommitError> {
        let moved = || CommitError::CursorMoved(self.chain.name.clone());
        let cursor = self.cursor().await?.ok_or_else(moved)?;
        if target.at.number > cursor.head.at.number {
            return Err(StoreError::Unusable(format!(
                "the chain stands at block {}: name a block at or below it",
                cursor.head.at.number
            ))
            .into());
        }
        let (known, gone) = self.step().for_rollback(&cursor, target.at.number, true).await?;
        let (info, now) = (&*self.chain, self.clock.now());
        Ok(rollback::rewind(info, &cursor, &known, gone, target, order.clone(), now)?)
    }
}
