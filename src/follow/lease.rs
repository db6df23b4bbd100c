//! Whether this daemon follows the chain: one does at a time, by a lease in the store.
//!
//! The lease only keeps the others away. What keeps money right is its number: every commit names it, so one who has
//! lost the lease without knowing (it slept, or was cut off) changes nothing, whatever its clock says.

use std::time::Duration;

use tokio_util::task::AbortOnDropHandle;

use super::{Follower, TurnError, doubts::Doubts};
use crate::{
    commit::Committer,
    model::{ChainNo, Cursor},
};

/// Between two signs of life, a third of a lease.
const HEARTBEAT: Duration = Duration::from_secs(3);
/// How often one who waits looks whether the chain is free.
pub(super) const LOOK: Duration = Duration::from_millis(500);
/// How long giving it back may take.
const GIVE_BACK: Duration = Duration::from_secs(2);

/// The lease, while this daemon has it.
#[derive(Debug, Default)]
pub(super) struct Lease(Option<Held>);

#[derive(Debug)]
struct Held {
    chain: ChainNo,
    epoch: i64,
    /// Ends when another one has won.
    heartbeat: Option<AbortOnDropHandle<()>>,
}

impl Lease {
    pub fn epoch(&self) -> Option<i64> {
        self.0.as_ref().map(|held| held.epoch)
    }

    /// Whether it is known that another one has won.
    pub fn is_lost(&self) -> bool {
        let heartbeat = self.0.as_ref().and_then(|held| held.heartbeat.as_ref());
        heartbeat.is_some_and(AbortOnDropHandle::is_finished)
    }
}

impl Follower {
    /// Where the chain stands, once this daemon holds its lease.
    pub(super) async fn leased(&mut self) -> Result<Cursor, TurnError> {
        let cursor = match self.committer.cursor().await? {
            Some(cursor) => cursor,
            None => self.begin().await?,
        };
        if self.lease.epoch() == Some(cursor.epoch) {
            return Ok(cursor);
        }
        if self.lease.0.take().is_some() {
            self.drop_all();
        }
        let won = self.committer.win(cursor.no).await?;
        let Some(epoch) = won else { return Err(TurnError::Elsewhere) };
        let heartbeat = self.committer.holder().is_shared.then(|| {
            let beat = beat(self.committer.clone(), cursor.no, epoch);
            AbortOnDropHandle::new(tokio::spawn(beat))
        });
        self.lease.0 = Some(Held { chain: cursor.no, epoch, heartbeat });
        self.gauge_leader(1);
        match self.committer.cursor().await? {
            Some(cursor) if cursor.epoch == epoch => Ok(cursor),
            _ => Err(TurnError::Elsewhere),
        }
    }

    /// Another daemon has followed meanwhile: nothing that is remembered of the store need be true.
    fn drop_all(&mut self) {
        tracing::warn!(chain = %self.config.name, "another daemon has taken this chain over");
        self.gauge_leader(0);
        self.cursor = None;
        self.watched = super::Watched::default();
        self.reading = None;
        self.sweep.give_up();
        self.backfill.forget();
        self.tracked.forget();
        self.lookups = super::deployments::Lookups::default();
        self.judging = None;
        self.assets_ready = false;
        self.opener = super::registrations::Opener::default();
        self.doubts =
            Doubts::new(usize::try_from(self.config.differences.count).unwrap_or(usize::MAX));
        self.stopped = super::confirm::Stopped::default();
        self.owed.clear();
        self.contradictions = 0;
        // What is wrong with the chain is for the other one to show.
        self.gauge_halted(0);
        self.gauge_stopped(0);
        self.gauge_doubts();
    }

    /// Lets another daemon follow at once.
    pub(super) async fn give_back(&mut self) {
        let Some(Held { chain, epoch, .. }) = self.lease.0.take() else { return };
        let given = tokio::time::timeout(GIVE_BACK, self.committer.give_back(chain, epoch)).await;
        if !matches!(given, Ok(Ok(()))) {
            tracing::warn!(chain = %self.config.name, "the chain could not be given back: its lease runs out");
        }
    }

    fn gauge_leader(&self, leader: i64) {
        let gauge = &self.metrics.chain_leader;
        gauge.with_label_values(&[self.config.name.as_str()]).set(leader);
    }
}

/// Signs of life, until another one has won.
async fn beat(committer: Committer, chain: ChainNo, epoch: i64) {
    let mut failing = false;
    loop {
        tokio::time::sleep(HEARTBEAT).await;
        match committer.renew(chain, epoch).await {
            Ok(true) => failing = false,
            Ok(false) => return,
            Err(error) if !failing => {
                failing = true;
                tracing::warn!(chain = %committer.chain().name, %error, "the lease could not be renewed, trying again");
            }
            Err(_) => {}
        }
    }
}
