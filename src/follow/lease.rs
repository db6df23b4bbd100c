//! Whether this daemon follows the chain: one does at a time, by a lease in the store ([`crate::fleet`]).
//!
//! The lease only keeps the others away. What keeps money right is its epoch: every commit names it, so one who has
//! lost the lease without knowing (it slept, or was cut off) changes nothing, whatever its clock says.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Follower, TurnError, doubts::Doubts};
use crate::{
    chain::{Header, Source, SourceError},
    fleet::ChainLease,
    model::Cursor,
};

/// How often one who waits looks whether the chain is free.
pub(super) const LOOK: Duration = Duration::from_millis(250);
/// How often one whose nodes did not answer asks them again.
const PROBE: Duration = Duration::from_secs(5);
/// How long giving it back may take.
const GIVE_BACK: Duration = Duration::from_secs(2);

/// Takes what the chain's nodes announce while this daemon follows the chain: one who waits for it asks them nothing.
pub(super) async fn listen(source: &dyn Source, lease: &ChainLease) -> Infallible {
    loop {
        lease.until(true).await;
        let listening = async {
            source.listen().await;
            std::future::pending::<Infallible>().await
        };
        tokio::select! {
            never = listening => return never,
            () = lease.until(false) => {}
        }
    }
}

/// Whether the chain's nodes answer when they are asked for their head.
#[derive(Debug)]
pub(super) struct Silence {
    answered: Instant,
    /// The last question failed, at every node.
    failing: bool,
    probed: Option<Instant>,
}

impl Silence {
    pub fn new() -> Self {
        Self { answered: Instant::now(), failing: false, probed: None }
    }
}

impl Follower {
    /// Where the chain stands, once this daemon holds its lease.
    pub(super) async fn leased(&mut self) -> Result<Cursor, TurnError> {
        let lease = Arc::clone(self.committer.lease());
        let known = self.committer.cursor().await?;
        if let Some(epoch) = lease.epoch() {
            match known {
                Some(cursor) if cursor.epoch == epoch => return Ok(cursor),
                _ => {
                    tracing::warn!(chain = %self.config.name, "another daemon has taken this chain over");
                    lease.lose();
                    self.drop_all();
                }
            }
        }
        if !lease.is_able() {
            self.probe().await?;
        }
        if !lease.may_take().await? {
            return Err(TurnError::Elsewhere);
        }
        let cursor = match self.committer.cursor().await? {
            Some(cursor) => cursor,
            None => self.begin().await?,
        };
        let Some(epoch) = lease.win(cursor.no).await? else { return Err(TurnError::Elsewhere) };
        self.silence = Silence::new();
        match self.committer.cursor().await? {
            Some(cursor) if cursor.epoch == epoch => Ok(cursor),
            _ => Err(TurnError::Elsewhere),
        }
    }

    /// Another daemon follows: how long until the next look.
    pub(super) fn stand_by(&self, news: bool) -> Duration {
        if news {
            tracing::info!(chain = %self.config.name, "standing by: another daemon follows this chain");
        }
        LOOK
    }

    /// Asks the nodes that did not answer whether they do now.
    async fn probe(&mut self) -> Result<(), TurnError> {
        if self.silence.probed.is_some_and(|at| at.elapsed() < PROBE) {
            return Err(TurnError::Elsewhere);
        }
        self.silence.probed = Some(Instant::now());
        // Why was told when the chain was left: not again at each try.
        if self.head().await.is_err() {
            return Err(TurnError::Elsewhere);
        }
        tracing::info!(chain = %self.config.name, "the nodes answer again: this daemon can follow the chain");
        self.committer.lease().enable().await;
        Ok(())
    }

    /// The node's head.
    pub(super) async fn head(&mut self) -> Result<Header, SourceError> {
        let head = self.source.head().await;
        self.silence.failing = head.is_err();
        if head.is_ok() {
            self.silence.answered = Instant::now();
        }
        head
    }

    /// Leaves the chain to another daemon when that is asked for; `true` if it did.
    pub(super) async fn leave(&mut self) -> bool {
        if !self.committer.lease().is_to_leave() {
            return false;
        }
        self.give_back().await;
        self.drop_all();
        true
    }

    /// After a failure: if no node has told its head for a lease and another daemon could follow, the chain is left to
    /// it; `true` if it was.
    pub(super) async fn leave_for_silence(&mut self) -> bool {
        let lease = Arc::clone(self.committer.lease());
        if !self.silence.failing
            || self.silence.answered.elapsed() < lease.length()
            || lease.epoch().is_none()
            || !lease.has_another().await.unwrap_or(false)
        {
            return false;
        }
        tracing::warn!(
            chain = %self.config.name,
            "no node of this chain answers: leaving it to another daemon until one does"
        );
        lease.disable().await;
        self.give_back().await;
        self.drop_all();
        true
    }

    /// Another daemon follows, or will: nothing that is remembered of the store need stay true.
    fn drop_all(&mut self) {
        self.cursor = None;
        self.watched = super::Watched::default();
        self.watchlist.clear();
        self.gauge_registered();
        self.reading = None;
        self.traces = super::traces::Traces::default();
        self.early.give_up();
        self.quorum.give_up();
        self.sweep.give_up();
        self.backfill.forget();
        self.tracked.forget();
        self.lookups = super::deployments::Lookups::default();
        self.judging = None;
        self.opener = super::registrations::Opener::default();
        self.doubts =
            Doubts::new(usize::try_from(self.config.differences.count).unwrap_or(usize::MAX));
        self.stopped = super::confirm::Stopped::default();
        self.owed.clear();
        self.contradictions = 0;
        // What is wrong with the chain is for the other one to show.
        self.obstacles.gone(&self.config.name);
        self.gauge_halted(0);
        self.gauge_stopped(0);
        self.gauge_doubts();
        for asset in std::mem::take(&mut self.quarantined) {
            self.gauge_quarantined(&asset).set(0);
        }
    }

    /// Lets another daemon follow at once.
    pub(super) async fn give_back(&mut self) {
        let lease = self.committer.lease();
        let given = tokio::time::timeout(GIVE_BACK, lease.give_back()).await;
        if !matches!(given, Ok(Ok(()))) {
            tracing::warn!(chain = %self.config.name, "the chain could not be given back: its lease runs out");
        }
    }
}
