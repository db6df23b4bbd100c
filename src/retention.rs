//! Deletes what is past the time that the configuration gives it, so that no table only grows.
//!
//! A delivery that waits is never deleted, nor the event that it needs. Every batch is a transaction of its
//! own that leaves nothing half deleted: attempts go before their delivery, and a feed is cut from its
//! beginning, with the place of the cut written beside it. So a process can end between any two of them.
//! Batches are small and pauses are long, because SQLite has one writer and a follower waits for it.

use std::{convert::Infallible, time::Duration};

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    clock::{Clock, Millis},
    config::RetentionConfig,
    fleet::NamedLease,
    id::{DeliveryId, TenantId},
    metrics::Metrics,
    retry::StoreRetry,
    store::{
        Db, StoreError,
        retention::{self, Batch, Expiring, FeedPage, Table},
    },
};

#[cfg(test)]
mod tests;

/// The pause between two runs: nothing is kept for less than an hour.
const EVERY: Duration = Duration::from_mins(10);
/// How long the daemon that does it for all keeps it: two runs and what they take. Two at once would do no harm.
const LEASE: Duration = Duration::from_mins(30);
const GIVE_BACK: Duration = Duration::from_secs(2);
/// How long a batch should take at most.
const TARGET: Duration = Duration::from_millis(20);
const FIRST_BATCH: i64 = 100;
const SMALLEST_BATCH: i64 = 10;
const LARGEST_BATCH: i64 = 1000;
/// The pause after a batch is this many times as long as the batch took.
const PAUSE: u32 = 4;
/// The name of a batch's transaction in the metrics.
const TRANSACTION: &str = "retention";
/// How many tenants are looked up at once.
const TENANTS: i64 = 100;

/// Deletes what is past its time until told to stop.
#[derive(Debug)]
pub struct Retention {
    db: Db,
    clock: Clock,
    metrics: Metrics,
    config: RetentionConfig,
    /// `None` where no other daemon can be.
    lease: Option<NamedLease>,
}

/// What one rule deletes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Attempts,
    Deliveries,
    Expired(Expiring),
    Events,
}

/// A rule, as it is at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rule {
    kind: Kind,
    /// What ended before is deleted.
    before: Millis,
}

/// The rules that are set, in the order in which they are followed. Nothing is kept longer than what it
/// belongs to: an attempt than its delivery, a delivery than its event.
fn rules(config: &RetentionConfig, now: Millis) -> Vec<Rule> {
    let shorter = |a: Option<Duration>, b: Option<Duration>| match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, other) => one.or(other),
    };
    let deliveries = shorter(config.deliveries, config.events);
    let attempts = shorter(config.delivery_attempts, deliveries);
    [
        (Kind::Attempts, attempts),
        (Kind::Deliveries, deliveries),
        (Kind::Expired(Expiring::IdempotencyKeys), Some(config.idempotency_keys)),
        (Kind::Expired(Expiring::Secrets), config.expired_secrets),
        (Kind::Expired(Expiring::Challenges), config.expired_challenges),
        (Kind::Expired(Expiring::WorthlessTransfers), config.worthless_transfers),
        (Kind::Events, config.events),
    ]
    .into_iter()
    .filter_map(|(kind, keep)| Some(Rule { kind, before: now.minus(keep?) }))
    .collect()
}

/// The size of the next batch: half if the last one took too long, twice if it was quick.
fn next_size(size: i64, took: Duration) -> i64 {
    let next = if took > TARGET {
        size / 2
    } else if took < TARGET / 2 {
        size * 2
    } else {
        size
    };
    next.clamp(SMALLEST_BATCH, LARGEST_BATCH)
}

/// Up to which position a feed can be cut: every event up to there is from before `before`, and no delivery
/// waits for one of them.
fn cut(page: &FeedPage, before: Millis) -> Option<i64> {
    let needed = page.waiting.unwrap_or(i64::MAX);
    page.events
        .iter()
        .take_while(|&&(position, at)| position < needed && at < before)
        .last()
        .map(|&(position, _)| position)
}

impl Retention {
    #[must_use]
    pub fn new(db: Db, clock: Clock, metrics: Metrics, config: RetentionConfig) -> Self {
        for table in Table::ALL {
            // A series that begins at its first step would hide that step from `increase()`.
            metrics.retention_deleted_total.with_label_values(&[table.as_str()]).inc_by(0);
        }
        // Until the first run is over, so that the start of a process does not look like years without one.
        metrics.retention_last_run_timestamp_seconds.set(clock.now().as_seconds());
        Self { db, clock, metrics, config, lease: None }
    }

    /// The same where one daemon does it for all.
    #[must_use]
    pub fn held_by(self, lease: NamedLease) -> Self {
        Self { lease: Some(lease), ..self }
    }

    /// Runs until `shutdown`. A batch under way is then undone.
    ///
    /// # Errors
    /// When the store cannot be used. One that does not answer is waited for.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), StoreError> {
        let done = tokio::select! {
            () = shutdown.cancelled() => Ok(()),
            broken = self.run_on() => broken.map(|never| match never {}),
        };
        if let Some(lease) = &self.lease {
            // It runs out by itself.
            let _ = tokio::time::timeout(GIVE_BACK, lease.give_back()).await;
        }
        done
    }

    async fn run_on(&self) -> Result<Infallible, StoreError> {
        let mut retry = StoreRetry::new("retention");
        loop {
            let pause = match self.run_if_ours().await {
                Ok(()) => {
                    retry.succeeded();
                    EVERY
                }
                Err(error) => retry.pause_after(error)?,
            };
            sleep(pause).await;
        }
    }

    /// One run, unless another daemon does it.
    async fn run_if_ours(&self) -> Result<(), StoreError> {
        match &self.lease {
            Some(lease) if !lease.win(LEASE).await? => Ok(()),
            _ => self.run_once().await,
        }
    }

    /// Follows every rule until nothing is left to delete.
    pub(crate) async fn run_once(&self) -> Result<(), StoreError> {
        let started = Instant::now();
        for rule in rules(&self.config, self.clock.now()) {
            let deleted = match rule.kind {
                Kind::Attempts => self.attempts(rule.before).await?,
                Kind::Deliveries => self.deliveries(rule.before).await?,
                Kind::Expired(rows) => self.expired(rows, rule.before).await?,
                Kind::Events => self.events(rule.before).await?,
            };
            if deleted > 0 {
                tracing::info!(kind = ?rule.kind, deleted, "deleted what is past its time");
            }
        }
        self.metrics.retention_run_duration_seconds.observe(started.elapsed().as_secs_f64());
        self.metrics.retention_last_run_timestamp_seconds.set(self.clock.now().as_seconds());
        Ok(())
    }

    async fn attempts(&self, before: Millis) -> Result<u64, StoreError> {
        let start = DeliveryId(Uuid::nil());
        self.batches(Table::DeliveryAttempt, start, |after, size| {
            self.db.run_tx(TRANSACTION, move |mut tx| async move {
                let mut conn = tx.conn();
                let batch = retention::delete_attempts(&mut conn, after, before, size).await?;
                Ok::<_, StoreError>((tx, batch))
            })
        })
        .await
    }

    async fn deliveries(&self, before: Millis) -> Result<u64, StoreError> {
        let start = DeliveryId(Uuid::nil());
        self.batches(Table::Delivery, start, |after, size| {
            self.db.run_tx(TRANSACTION, move |mut tx| async move {
                let mut conn = tx.conn();
                let batch = retention::delete_deliveries(&mut conn, after, before, size).await?;
                Ok::<_, StoreError>((tx, batch))
            })
        })
        .await
    }

    async fn expired(&self, rows: Expiring, before: Millis) -> Result<u64, StoreError> {
        self.batches(rows.table(), Millis(i64::MIN), |after, size| {
            self.db.run_tx(TRANSACTION, move |mut tx| async move {
                let mut conn = tx.conn();
                let batch = retention::delete_expired(&mut conn, rows, after, before, size).await?;
                Ok::<_, StoreError>((tx, batch))
            })
        })
        .await
    }

    async fn events(&self, before: Millis) -> Result<u64, StoreError> {
        let mut deleted = 0;
        let mut after = TenantId(Uuid::nil());
        loop {
            let mut session = self.db.read().await?;
            let tenants =
                retention::tenants_with_events(&mut session.conn(), after, before, TENANTS).await?;
            drop(session);
            let Some(&last) = tenants.last() else { return Ok(deleted) };
            after = last;
            for tenant in tenants {
                deleted += self.feed(tenant, before).await?;
            }
        }
    }

    /// Cuts one tenant's feed.
    async fn feed(&self, tenant: TenantId, before: Millis) -> Result<u64, StoreError> {
        self.batches(Table::Event, (), |(), size| {
            self.db.run_tx(TRANSACTION, move |mut tx| async move {
                let mut conn = tx.conn();
                let page = retention::feed_page(&mut conn, tenant, size).await?;
                let batch = match cut(&page, before) {
                    Some(through) => {
                        let deleted = retention::cut_feed(&mut conn, tenant, through).await?;
                        Batch { deleted, next: Some(()) }
                    }
                    None => Batch { deleted: 0, next: None },
                };
                Ok::<_, StoreError>((tx, batch))
            })
        })
        .await
    }

    /// Does `batch` again and again, each from where the last one ended, with pauses between.
    async fn batches<P, F>(
        &self,
        table: Table,
        start: P,
        mut batch: impl FnMut(P, i64) -> F,
    ) -> Result<u64, StoreError>
    where
        F: Future<Output = Result<Batch<P>, StoreError>>,
    {
        let total = self.metrics.retention_deleted_total.with_label_values(&[table.as_str()]);
        let mut deleted = 0;
        let mut size = FIRST_BATCH;
        let mut place = start;
        loop {
            let started = Instant::now();
            let done = batch(place, size).await?;
            let took = started.elapsed();
            total.inc_by(done.deleted);
            deleted += done.deleted;
            let Some(next) = done.next else { return Ok(deleted) };
            place = next;
            size = next_size(size, took);
            sleep(took * PAUSE).await;
        }
    }
}
