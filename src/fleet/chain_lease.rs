//! The lease of one chain, as the chain's follower sees it.

use std::{
    fmt,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use prometheus::{IntCounter, IntGauge};
use tokio::sync::watch;

use super::Fleet;
use crate::{
    chain::ChainName,
    metrics::Metrics,
    model::ChainNo,
    store::{Db, StoreError, lease},
};

/// Whether this daemon follows the chain.
pub struct ChainLease {
    db: Db,
    chain: ChainName,
    holder: String,
    length: Duration,
    /// `None` where no other can be: it is simply taken.
    fleet: Option<Fleet>,
    state: Mutex<State>,
    held: watch::Sender<bool>,
    leader: IntGauge,
    losses: IntCounter,
    fenced: IntCounter,
}

#[derive(Debug)]
struct State {
    held: Option<Held>,
    /// Another one should follow the chain, for a fair share.
    to_leave: bool,
    /// The chain's nodes answer this daemon.
    able: bool,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    no: ChainNo,
    epoch: i64,
    /// Another one has won.
    lost: bool,
    /// By this clock the lease has not run out yet.
    until: Instant,
}

impl fmt::Debug for ChainLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ChainLease").field(&self.chain).finish()
    }
}

impl ChainLease {
    pub(super) fn new(
        db: Db,
        chain: ChainName,
        holder: String,
        length: Duration,
        metrics: &Metrics,
    ) -> Self {
        let label = [chain.as_str()];
        let leader = metrics.chain_leader.with_label_values(&label);
        // That nobody follows is to be seen as well.
        leader.set(0);
        Self {
            leader,
            losses: metrics.lease_losses_total.with_label_values(&label),
            fenced: metrics.fenced_commits_total.with_label_values(&label),
            db,
            chain,
            holder,
            length,
            fleet: None,
            state: Mutex::new(State { held: None, to_leave: false, able: true }),
            held: watch::Sender::new(false),
        }
    }

    /// Of the only daemon of its database, or of a command.
    #[must_use]
    pub fn alone(db: Db, chain: ChainName, metrics: &Metrics) -> Self {
        Self::named(db, chain, "alone", metrics)
    }

    /// The same under another name.
    #[must_use]
    pub fn named(db: Db, chain: ChainName, holder: &str, metrics: &Metrics) -> Self {
        Self::new(db, chain, holder.to_owned(), Duration::from_secs(10), metrics)
    }

    pub(super) fn among(self, fleet: Fleet) -> Self {
        Self { fleet: Some(fleet), ..self }
    }

    /// How long it lasts after a sign of life.
    #[must_use]
    pub fn length(&self) -> Duration {
        self.length
    }

    /// The epoch that commits name, while this daemon follows the chain as far as it knows.
    #[must_use]
    pub fn epoch(&self) -> Option<i64> {
        self.state.lock().held.map(|held| held.epoch)
    }

    /// Whether it is known that another one has won.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.state.lock().held.is_some_and(|held| held.lost)
    }

    /// Whether another one should follow the chain, for a fair share.
    #[must_use]
    pub fn is_to_leave(&self) -> bool {
        self.state.lock().to_leave
    }

    /// Whether the chain's nodes answer this daemon, as far as it knows.
    #[must_use]
    pub fn is_able(&self) -> bool {
        self.state.lock().able
    }

    /// The chain's nodes answer again: this daemon can follow it.
    pub async fn enable(&self) {
        self.state.lock().able = true;
        self.tell().await;
    }

    /// Whether this daemon should try to [`ChainLease::win`].
    ///
    /// # Errors
    /// [`StoreError`] of the engine.
    pub async fn may_take(&self) -> Result<bool, StoreError> {
        match &self.fleet {
            Some(fleet) => fleet.may_take(&self.chain).await,
            None => Ok(true),
        }
    }

    /// Whether another daemon could follow the chain in this one's place.
    ///
    /// # Errors
    /// [`StoreError`] of the engine.
    pub async fn has_another(&self) -> Result<bool, StoreError> {
        match &self.fleet {
            Some(fleet) => fleet.has_another(&self.chain).await,
            None => Ok(false),
        }
    }

    /// The epoch under which this daemon follows the chain from now on; `None` while another one does.
    ///
    /// # Errors
    /// [`StoreError`] of the engine.
    pub async fn win(&self, no: ChainNo) -> Result<Option<i64>, StoreError> {
        let until = Instant::now() + self.length;
        let won = self
            .db
            .run_tx("lease_win", |mut tx| async move {
                let won = lease::win(&mut tx.conn(), no, &self.holder, self.length).await?;
                Ok::<_, StoreError>((tx, won))
            })
            .await?;
        if let Some(fleet) = &self.fleet {
            fleet.look_again().await;
        }
        let Some(epoch) = won else { return Ok(None) };
        let mut state = self.state.lock();
        state.held = Some(Held { no, epoch, lost: false, until });
        state.to_leave = false;
        drop(state);
        self.leader.set(1);
        self.held.send_replace(true);
        Ok(Some(epoch))
    }

    /// Another one has won: nothing is followed any more.
    pub fn lose(&self) {
        if self.drop_held().is_some() {
            self.losses.inc();
        }
    }

    /// Lets another one win at once.
    ///
    /// # Errors
    /// [`StoreError`] of the engine; then the lease runs out by itself.
    pub async fn give_back(&self) -> Result<(), StoreError> {
        let Some(Held { no, epoch, .. }) = self.drop_held() else { return Ok(()) };
        let given_back = self.db.run_tx("lease_give_back", |mut tx| async move {
            lease::give_back(&mut tx.conn(), no, epoch).await?;
            Ok::<_, StoreError>((tx, ()))
        });
        given_back.await?;
        if let Some(fleet) = &self.fleet {
            fleet.look_again().await;
        }
        Ok(())
    }

    /// The chain's nodes do not answer this daemon: it is not one of those that can follow it, until
    /// [`ChainLease::enable`].
    pub async fn disable(&self) {
        self.state.lock().able = false;
        self.tell().await;
    }

    /// A commit was refused because another one follows.
    pub(crate) fn fenced(&self) {
        self.fenced.inc();
    }

    /// Waits until this daemon follows the chain, or does not.
    pub async fn until(&self, held: bool) {
        // The sender lives as long as this does.
        let _ = self.held.subscribe().wait_for(|now| *now == held).await;
    }

    fn drop_held(&self) -> Option<Held> {
        let mut state = self.state.lock();
        state.to_leave = false;
        let held = state.held.take();
        drop(state);
        self.leader.set(0);
        self.held.send_replace(false);
        held
    }

    async fn tell(&self) {
        if let Some(fleet) = &self.fleet {
            fleet.shared.news.notify_one();
            fleet.look_again().await;
        }
    }

    // --- for the heartbeat ------------------------------------------------------------------------------

    pub(super) fn held_no(&self) -> Option<ChainNo> {
        self.state.lock().held.filter(|held| !held.lost).map(|held| held.no)
    }

    /// Takes over what the store says: who holds the chain, and that the lease lasts until then.
    pub(super) fn seen(&self, holder: Option<(&str, i64)>, until: Instant) {
        let mut state = self.state.lock();
        let Some(held) = state.held.as_mut() else { return };
        match holder {
            Some((id, epoch)) if id == self.holder && epoch == held.epoch => {
                held.until = held.until.max(until);
            }
            // Won anew since that was read.
            Some((_, epoch)) if epoch < held.epoch => {}
            Some(_) => held.lost = true,
            // It ran out, and nobody has come: the next commit or sign of life goes on with it.
            None => {}
        }
        let leads = !held.lost && Instant::now() < held.until;
        drop(state);
        self.leader.set(i64::from(leads));
    }

    /// The store was not reached: by this clock the lease may have run out.
    pub(super) fn unseen(&self) {
        let state = self.state.lock();
        if state.held.is_some_and(|held| Instant::now() >= held.until) {
            self.leader.set(0);
        }
    }

    pub(super) fn leave(&self) {
        let mut state = self.state.lock();
        state.to_leave = state.held.is_some();
    }
}
