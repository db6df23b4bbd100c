//! Watched Safes whose state is read, beside the follower: after each block in which they ran, when they begin to be
//! watched, after a reorg, and once a day. No block waits for it.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt as _, stream};
use tokio_util::task::AbortOnDropHandle;

use super::{Follower, TurnError, safe_contracts::Contracts};
use crate::{
    chain::{Source, SourceError},
    ledger::safes::{Looked, Reading},
    model::{BlockPoint, Cursor, SafeLook},
    store::safe_state,
    task::joined,
};

/// Safes that are read in one round.
const AT_ONCE: i64 = 32;
/// Of these at the same time.
const CONCURRENTLY: usize = 8;
/// How long a round waits for one Safe.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is being read of Safes.
#[derive(Default)]
pub(super) struct Looking {
    pub task: Option<AbortOnDropHandle<Vec<Looked>>>,
    /// Beside them, of Safe's own contracts.
    pub contracts: Contracts,
}

impl Follower {
    /// Takes in what was read, and has more read. Nothing here waits for a node.
    pub(super) async fn look_at_safes(&mut self, cursor: &Cursor) -> Result<(), TurnError> {
        if let Some(task) = &mut self.looking.task {
            if !task.is_finished() {
                return Ok(());
            }
            let mut looked = joined(task.await).unwrap_or_default();
            self.looking.task = None;
            for looked in &mut looked {
                // What a node says of a block that is not ours (any more) counts for nothing.
                if self.applied_at(cursor, looked.at.at.number).await? != Some(looked.at) {
                    looked.reading = Reading::Unknown;
                }
            }
            let committed = self.committer.looked(cursor, &looked).await?;
            self.committed(&committed);
        }
        let cursor = self.current()?;
        let mut session = self.committer.db.read().await?;
        let conn = &mut session.conn();
        let due = safe_state::due(conn, cursor.no, self.clock.now(), AT_ONCE).await?;
        drop(session);
        if due.is_empty() {
            return Ok(());
        }
        let (source, wake_up) = (Arc::clone(&self.source), Arc::clone(&self.wake_up));
        let at = cursor.head;
        self.looking.task = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            let source = source.as_ref();
            let look = |safe| look(source, safe, at);
            let looked = stream::iter(due).map(look).buffer_unordered(CONCURRENTLY);
            let looked = looked.collect().await;
            wake_up.notify_one();
            looked
        })));
        Ok(())
    }
}

async fn look(source: &dyn Source, before: SafeLook, at: BlockPoint) -> Looked {
    let reading = match tokio::time::timeout(PATIENCE, read(source, &before, at)).await {
        Ok(Ok(reading)) => reading,
        Ok(Err(_)) | Err(_) => Reading::Unknown,
    };
    Looked { before, at, reading }
}

async fn read(
    source: &dyn Source,
    safe: &SafeLook,
    at: BlockPoint,
) -> Result<Reading, SourceError> {
    let Some(safes) = source.safes() else { return Ok(Reading::Unknown) };
    Ok(match safes.safe_state(safe.address, at.at).await? {
        Ok(state) => Reading::Safe(state),
        Err(why) => Reading::NoSafe(why, safes.singleton(safe.address, at.at).await?),
    })
}
