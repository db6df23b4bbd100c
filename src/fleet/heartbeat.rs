//! Signs of life, while the daemon runs; and what other daemons ask of its chains.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use super::{Fleet, Picture, Shared};
use crate::{
    chain::ChainName,
    clock::Clock,
    model::ChainNo,
    retry::StoreRetry,
    store::{
        StoreError, daemon,
        lease::{self, Requests},
        outage::{Cause, Outage},
    },
};

/// How often it looks whether something was asked of its chains through another daemon.
const POLL: Duration = Duration::from_millis(500);
/// How long leaving may take.
const LEAVE: Duration = Duration::from_secs(2);
/// A clock that differs by more from the database's is worth a word.
const CLOCK_DIFFERS: i64 = 2000;

/// Why the daemon cannot be one of the fleet any more.
#[derive(Debug, thiserror::Error)]
pub enum HeartbeatError {
    #[error(
        "a newer version of tidemark has brought the database to a newer schema: start that version in place of this one"
    )]
    Superseded,
    #[error(
        "another daemon has entered under this one's id ({0}): give each a data folder of its own, without a copy of \
         the file daemon-id"
    )]
    Twin(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Fleet {
    /// Enters the fleet: from then on the clock is the database's. A store that does not answer is waited for.
    ///
    /// # Errors
    /// [`HeartbeatError`].
    pub async fn enter(&self) -> Result<(), HeartbeatError> {
        let mut retry = StoreRetry::new("fleet");
        loop {
            let entered = async {
                self.forget().await?;
                self.shared.entered_at.store(0, Ordering::Relaxed);
                self.beat().await
            };
            match entered.await {
                Err(HeartbeatError::Store(error)) => {
                    tokio::time::sleep(retry.pause_after(error)?).await;
                }
                done => return done,
            }
        }
    }

    /// Shows signs of life until `shutdown`, then leaves.
    ///
    /// # Errors
    /// [`HeartbeatError`].
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), HeartbeatError> {
        tokio::select! {
            () = shutdown.cancelled() => {}
            never = self.beat_on() => match never? {},
            never = self.poll() => match never {},
        }
        // Whoever does not know it yet waits until its last sign of life is old.
        let _ = tokio::time::timeout(LEAVE, self.forget()).await;
        Ok(())
    }

    async fn beat_on(&self) -> Result<Infallible, HeartbeatError> {
        let mut retry = StoreRetry::new("fleet");
        let mut left_at = Instant::now();
        loop {
            let beaten = tokio::time::timeout(self.patience(), self.beat_and_look()).await;
            let unanswered = || Outage::new(Cause::Silent, "no answer to a sign of life");
            let pause = match beaten
                .unwrap_or_else(|_| Err(StoreError::Unavailable(unanswered()).into()))
            {
                Ok(picture) => {
                    retry.succeeded();
                    if left_at.elapsed() >= self.shared.config.rebalance && self.leave_one(&picture)
                    {
                        left_at = Instant::now();
                    }
                    self.shared.config.heartbeat
                }
                Err(HeartbeatError::Store(error)) => {
                    self.shared.leases.lock().values().for_each(|lease| lease.unseen());
                    retry.pause_after(error)?
                }
                Err(error) => return Err(error),
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.shared.news.notified() => {}
            }
        }
    }

    /// How long a sign of life may take before it is tried again.
    fn patience(&self) -> Duration {
        self.shared.config.lease / 2
    }

    pub(super) async fn beat_and_look(&self) -> Result<Arc<Picture>, HeartbeatError> {
        let asked = Instant::now();
        self.beat().await?;
        self.share_budgets().await?;
        self.look_again().await;
        let picture = self.recent().await?;
        let until = asked + self.shared.config.lease;
        for (chain, lease) in &*self.shared.leases.lock() {
            let holder = picture.held.get(chain).map(|(id, epoch)| (id.as_str(), *epoch));
            lease.seen(holder, until);
        }
        Ok(picture)
    }

    /// Shows one sign of life for the daemon, and one for each of its chains.
    async fn beat(&self) -> Result<(), HeartbeatError> {
        let Shared { db, id, config, clock, metrics, leases, .. } = &*self.shared;
        let able = &self.able();
        let asked = Clock::System.now();
        let begun = Instant::now();
        let (sign, superseded) = db
            .run_tx("fleet_beat", |mut tx| async move {
                let conn = &mut tx.conn();
                let superseded = daemon::is_superseded(conn).await?;
                let sign = daemon::beat(conn, id, env!("CARGO_PKG_VERSION"), able).await?;
                Ok::<_, StoreError>((tx, (sign, superseded)))
            })
            .await?;
        if superseded {
            return Err(HeartbeatError::Superseded);
        }
        let entered = self.shared.entered_at.swap(sign.started_at.0, Ordering::Relaxed);
        if entered != 0 && entered != sign.started_at.0 {
            return Err(HeartbeatError::Twin(id.clone()));
        }
        let took = i64::try_from(begun.elapsed().as_millis()).unwrap_or(i64::MAX);
        let offset = sign.seen_at.0.saturating_sub(asked.0.saturating_add(took / 2));
        let differed = clock.offset();
        if offset.abs_diff(differed) > took.unsigned_abs() + 1 {
            clock.follow(offset);
            if (offset - differed).abs() > CLOCK_DIFFERS {
                tracing::warn!(
                    milliseconds = offset,
                    "this machine's clock differs from the database's, which counts for all daemons: keep both right \
                     (NTP)"
                );
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "a gauge of a difference in milliseconds")]
        metrics.clock_offset_seconds.set(clock.offset() as f64 / 1000.0);
        let held: Vec<ChainNo> =
            leases.lock().values().filter_map(|lease| lease.held_no()).collect();
        if !held.is_empty() {
            let held = &held;
            db.run_tx("fleet_renew", |mut tx| async move {
                lease::renew(&mut tx.conn(), held, id, config.lease).await?;
                Ok::<_, StoreError>((tx, ()))
            })
            .await?;
        }
        Ok(())
    }

    /// Tells the others what was used of budgets for a day, and learns what they have used.
    async fn share_budgets(&self) -> Result<(), StoreError> {
        let budgets = self.shared.budgets.lock().clone();
        for (chain, budget) in &budgets {
            let (day, calls) = budget.untold();
            let new = i64::try_from(calls).unwrap_or(i64::MAX);
            let counted = self.shared.db.run_tx("fleet_budget", |mut tx| async move {
                let conn = &mut tx.conn();
                let all = daemon::count_calls(conn, chain, budget.endpoint(), day, new).await?;
                Ok::<_, StoreError>((tx, all))
            });
            match counted.await {
                Ok(all) => {
                    let all = all.and_then(|all| u64::try_from(all).ok());
                    budget.told(day, all.unwrap_or_default());
                }
                Err(error) => {
                    budget.put_back(day, calls);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    async fn forget(&self) -> Result<(), HeartbeatError> {
        let Shared { db, id, .. } = &*self.shared;
        db.run_tx("fleet_leave", |mut tx| async move {
            daemon::leave(&mut tx.conn(), id).await?;
            Ok::<_, StoreError>((tx, ()))
        })
        .await?;
        Ok(())
    }

    /// Asks the follower of one chain to leave it to the daemon that should follow it; `false` if all is even.
    pub(super) fn leave_one(&self, picture: &Picture) -> bool {
        let id = &self.shared.id;
        let ours = picture.held.iter().filter(|(_, (holder, _))| holder == id);
        let mut others = ours.filter_map(|(chain, _)| {
            let planned = picture.plan.get(chain)?;
            (planned != id && picture.settled_in.contains(planned)).then_some((chain, planned))
        });
        let Some((chain, planned)) = others.next() else { return false };
        let leases = self.shared.leases.lock();
        let Some(lease) = leases.get(chain) else { return false };
        tracing::info!(%chain, daemon = planned, "another daemon has fewer chains: leaving this one to it");
        lease.leave();
        true
    }

    /// Wakes followers for what was asked through other daemons.
    async fn poll(&self) -> Infallible {
        let mut seen: BTreeMap<ChainName, Requests> = BTreeMap::new();
        loop {
            tokio::time::sleep(POLL).await;
            let holds = self.shared.leases.lock().values().any(|lease| lease.held_no().is_some());
            // What is asked of this one wakes its followers without.
            if !holds || !self.shared.has_others.load(Ordering::Relaxed) {
                continue;
            }
            // A store that does not answer is told of by the others.
            let Ok(Ok(all)) = tokio::time::timeout(self.patience(), self.requests()).await else {
                continue;
            };
            for requests in all {
                if seen.get(&requests.name).is_none_or(|before| requests.has_more_than(before)) {
                    self.shared.wake.chain(&requests.name);
                }
                seen.insert(requests.name.clone(), requests);
            }
        }
    }

    async fn requests(&self) -> Result<Vec<Requests>, StoreError> {
        let mut session = self.shared.db.read().await?;
        lease::requests(&mut session.conn(), &self.shared.id).await
    }
}
