//! Reads that a standby answers while it can, and else the primary.
//!
//! A standby shows the primary as it was a moment ago. What one statement or one snapshot reads there belongs together,
//! and is no older than the lag that is allowed. What was written since is not there yet, and a statement can be
//! ended by what is being replayed: so no failure there is ever told. Whatever cannot be read there, or is not
//! found, is read again at the primary.

mod lag;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use self::lag::Lag;
use super::{Db, ReadSession, StoreError, Tx, chain, wal};
use crate::metrics::Metrics;

/// How long a read waits for the standby before it is done at the primary.
const PATIENCE: Duration = Duration::from_secs(3);
/// Between two looks at the standby, and how long it is given for each answer.
const INTERVAL: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_secs(2);
/// So often in a row it has to be fit before it is read again: one that comes and goes is not read at all.
const FIT: u32 = 5;

/// Where the API reads: at the standby while it is fit for it, else at the primary. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Reads {
    primary: Db,
    replica: Option<Arc<Replica>>,
}

struct Replica {
    db: Db,
    lag_limit: Duration,
    /// Whether it is read.
    up: AtomicBool,
    metrics: Metrics,
}

impl std::fmt::Debug for Replica {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Replica")
    }
}

/// What a read fails with.
pub trait ReadError: From<StoreError> {
    /// How the store failed, if it did; not if it does not hold what was asked for, or was busy just now.
    fn outage(&self) -> Option<String>;
}

impl ReadError for StoreError {
    fn outage(&self) -> Option<String> {
        let failed = matches!(self, Self::Unavailable(_) | Self::Unusable(_) | Self::Corrupt(_));
        failed.then(|| self.to_string())
    }
}

impl Reads {
    /// Everything is read at the primary.
    #[must_use]
    pub fn new(primary: Db) -> Self {
        Self { primary, replica: None }
    }

    /// What can be is read at the standby at `url`, unless it is further behind than `lag_limit`. It is not asked
    /// before [`Self::watch`] runs, and its schema is never touched.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] if `url` is none of PostgreSQL.
    pub fn with_replica(
        primary: Db,
        url: &str,
        lag_limit: Duration,
        metrics: &Metrics,
    ) -> Result<Self, StoreError> {
        let db = Db::standby(url, metrics)?;
        let (up, metrics) = (AtomicBool::new(false), metrics.clone());
        metrics.replica_away.set(1);
        Ok(Self { primary, replica: Some(Arc::new(Replica { db, lag_limit, up, metrics })) })
    }

    /// Whether there is a standby to be watched.
    #[must_use]
    pub fn has_replica(&self) -> bool {
        self.replica.is_some()
    }

    /// Reads outside a transaction: each statement sees one state, two may see two. `work` is run again at the
    /// primary after any failure at the standby.
    ///
    /// # Errors
    /// What `work` fails with at the primary.
    pub async fn read<T, E, F, Fut>(&self, mut work: F) -> Result<T, E>
    where
        E: ReadError,
        F: FnMut(ReadSession) -> Fut,
        Fut: Future<Output = Result<T, E>> + Send,
    {
        if let Some(replica) = self.fit() {
            let read = async { work(replica.db.read().await?).await };
            if let Some(value) = replica.attempt(read).await {
                return Ok(value);
            }
        }
        work(self.primary.read().await?).await
    }

    /// Reads several things of one state, as [`Self::read`] does one.
    ///
    /// # Errors
    /// What `work` fails with at the primary.
    pub async fn snapshot<T, E, F, Fut>(&self, mut work: F) -> Result<T, E>
    where
        E: ReadError,
        F: FnMut(Tx) -> Fut,
        Fut: Future<Output = Result<T, E>> + Send,
    {
        if let Some(replica) = self.fit() {
            let read = async { work(replica.db.snapshot().await?).await };
            if let Some(value) = replica.attempt(read).await {
                return Ok(value);
            }
        }
        work(self.primary.snapshot().await?).await
    }

    fn fit(&self) -> Option<&Replica> {
        self.replica.as_deref().filter(|replica| replica.is_up())
    }

    /// Looks after the standby until `stop`: whether it answers, and how far it is behind.
    pub async fn watch(&self, stop: CancellationToken) {
        let Some(replica) = self.replica.as_deref() else { return };
        let mut lag = Lag::default();
        // At the start one look will do: it has not failed anybody yet.
        let mut fit = FIT;
        let mut told = false;
        while !stop.is_cancelled() {
            match replica.look(&self.primary, &mut lag).await {
                Ok(false) => {}
                Ok(true) if replica.is_up() => fit = 0,
                Ok(true) => {
                    fit = fit.saturating_add(1);
                    if fit >= FIT {
                        replica.back();
                        told = true;
                    }
                }
                Err(why) => {
                    fit = 0;
                    if told {
                        replica.away(&why);
                    } else {
                        Replica::tell(&why);
                        told = true;
                    }
                }
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(INTERVAL) => {}
            }
        }
        replica.db.close().await;
    }
}

impl Replica {
    fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    /// What a read at the standby gives; `None` if it is to be done at the primary.
    async fn attempt<T, E: ReadError>(
        &self,
        read: impl Future<Output = Result<T, E>>,
    ) -> Option<T> {
        let outcome = match tokio::time::timeout(PATIENCE, read).await {
            Ok(Ok(value)) => {
                self.metrics.replica_reads_total.with_label_values(&["answered"]).inc();
                return Some(value);
            }
            Ok(Err(error)) => error.outage(),
            Err(_) => Some(format!("no answer to a read within {} s", PATIENCE.as_secs())),
        };
        self.metrics.replica_reads_total.with_label_values(&["repeated"]).inc();
        if let Some(why) = outcome {
            self.away(&why);
        }
        None
    }

    /// Whether the standby can be read and is known to be no further behind than it may; else why not.
    async fn look(&self, primary: &Db, lag: &mut Lag) -> Result<bool, String> {
        // Before the standby is: it can only seem to be further behind than it is.
        let ahead = async { wal::position(&mut primary.read().await?.conn()).await };
        // A primary that is gone says nothing of the standby.
        if let Ok(position) = in_time(ahead).await {
            lag.primary_at(position, Instant::now());
        }
        let there = async { wal::position(&mut self.db.read().await?.conn()).await };
        let position = in_time(there).await?;
        let behind = lag.standby_at(position, Instant::now());
        self.metrics.replica_lag_seconds.set(behind.as_secs_f64());
        if behind > self.lag_limit {
            return Err(format!(
                "it is {} s behind, the limit is {} s",
                behind.as_secs(),
                self.lag_limit.as_secs()
            ));
        }
        if !lag.is_known() {
            return Ok(false);
        }
        // The tables are there as this version knows them.
        let read = async { chain::cursors(&mut self.db.read().await?.conn()).await };
        in_time(read).await.map(|_| true)
    }

    /// It is not read any more.
    fn away(&self, why: &str) {
        if self.up.swap(false, Ordering::Relaxed) {
            self.metrics.replica_away.set(1);
            Self::tell(why);
        }
    }

    fn tell(why: &str) {
        tracing::warn!(why, "the replica cannot be read: API reads go to the primary");
    }

    fn back(&self) {
        self.metrics.replica_away.set(0);
        self.up.store(true, Ordering::Relaxed);
        tracing::info!("the replica answers: API reads go to it");
    }
}

async fn in_time<T>(answer: impl Future<Output = Result<T, StoreError>>) -> Result<T, String> {
    match tokio::time::timeout(LOOK, answer).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", LOOK.as_secs())),
    }
}
