//! What the dispatcher and its sends do with the store: take leases, record outcomes, keep the backlog in order.

use std::{convert::Infallible, time::Duration};

use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{
    decide::decide,
    send::{Sender, Sent},
};
use crate::{
    clock::{Clock, Millis},
    config::WebhookConfig,
    delivery::{Attempt, AttemptOutcome, DeliveryOutcome, DisabledReason, EndpointHealth},
    event::{EventType, NewEvent},
    id::{EndpointId, Ids},
    metrics::Metrics,
    random::Random,
    retry::{Backoff, StoreRetry},
    store::{
        Conn, Db, StoreError, TxError,
        delivery::{self, Claimed, DueEndpoint, Lease, WebhookRequest},
        endpoint, event,
        outage::Cause,
    },
    wake::Wake,
};

/// How long the store is not looked at without a wake-up: other processes write deliveries too, and
/// leases run out.
const POLL: Duration = Duration::from_secs(1);
/// How much longer than a send may take its lease holds: for reading the request and recording the outcome.
const LEASE_MARGIN: Duration = Duration::from_secs(5);
/// The shortest pause between two looks at the backlog.
const MAINTAIN: Duration = Duration::from_secs(5);
/// The pause is this many times as long as the look took.
const MAINTAIN_SHARE: u32 = 20;
/// How many closed endpoints are emptied in one transaction.
const CLOSED_AT_ONCE: i64 = 16;
/// The pauses between the tries of a store that does not answer.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_LONGEST: Duration = Duration::from_secs(1);

/// Why an outcome was not recorded.
#[derive(Debug, thiserror::Error)]
enum RecordError {
    #[error("the lease is another process's now")]
    LeaseLost,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl TxError for RecordError {
    fn is_collision(&self) -> bool {
        matches!(self, Self::Store(StoreError::Collision(_)))
    }

    fn outage(&self) -> Option<Cause> {
        match self {
            Self::Store(error) => error.outage(),
            Self::LeaseLost => None,
        }
    }
}

/// What every send shares.
#[derive(Debug)]
pub(super) struct DeliveryWorker {
    pub(super) db: Db,
    pub(super) ids: Ids,
    pub(super) random: Random,
    pub(super) clock: Clock,
    pub(super) wake: Wake,
    pub(super) metrics: Metrics,
    pub(super) config: WebhookConfig,
    pub(super) sender: Sender,
}

impl DeliveryWorker {
    /// Endpoints with something to claim, round from after `after`.
    pub(super) async fn due(
        &self,
        after: Option<EndpointId>,
        window: usize,
    ) -> Result<Vec<DueEndpoint>, StoreError> {
        let now = self.clock.now();
        let limit = i64::try_from(window).unwrap_or(i64::MAX);
        let mut session = self.db.read().await?;
        let mut conn = session.conn();
        let mut due = delivery::due_endpoints(&mut conn, now, after, limit).await?;
        if let Some(after) = after
            && due.len() < window
        {
            let again = delivery::due_endpoints(&mut conn, now, None, limit).await?;
            due.extend(again.into_iter().filter(|endpoint| endpoint.id <= after));
            due.truncate(window);
        }
        Ok(due)
    }

    /// Takes the leases, each endpoint's share, in one transaction.
    pub(super) async fn lease<'due>(
        &self,
        due: &'due [DueEndpoint],
        shares: &[usize],
    ) -> Result<Vec<(&'due DueEndpoint, Claimed)>, StoreError> {
        let now = self.clock.now();
        let until = now.plus(self.config.request_timeout).plus(LEASE_MARGIN);
        let lease = Lease { token: self.ids.next(), until };
        let taken = self.db.run_tx("webhook_claim", |mut tx| async move {
            let mut taken = Vec::new();
            for (endpoint, &share) in due.iter().zip(shares).filter(|&(_, &share)| share > 0) {
                let limit = i64::try_from(share).unwrap_or(i64::MAX);
                let claimed =
                    delivery::claim(&mut tx.conn(), endpoint.id, now, lease, limit).await?;
                taken.extend(claimed.into_iter().map(|claimed| (endpoint, claimed)));
            }
            Ok::<_, StoreError>((tx, taken))
        });
        taken.await
    }

    /// Sends one delivery and records what came of it. While the store does not answer it is asked again, as
    /// long as the lease allows; then the lease's end brings the delivery back.
    pub(super) async fn deliver(&self, claimed: Claimed) -> Result<(), StoreError> {
        // A send that begins later could outlast the lease.
        let begin_until = claimed.lease.until.minus(self.config.request_timeout);
        let request = self.retry_until(begin_until, || self.request(&claimed)).await?;
        let Some(request) = request else {
            let delivery = tracing::field::display(&claimed.id);
            tracing::debug!(delivery, "a webhook could not be read in time; it is tried again");
            return Ok(());
        };
        let started_at = self.clock.now();
        let sent = match request {
            Some(request) => self.sender.send(request, started_at).await,
            None => Sent { outcome: AttemptOutcome::Withdrawn, latency: Duration::ZERO },
        };
        self.metrics
            .webhook_attempts_total
            .with_label_values(&[sent.outcome.result().as_str()])
            .inc();
        let attempt = Attempt {
            number: claimed.attempts + 1,
            started_at,
            latency_ms: i64::try_from(sent.latency.as_millis()).unwrap_or(i64::MAX),
            status_code: sent.outcome.status_code().map(i64::from),
            error: sent.outcome.error(),
        };
        let jitter = self.random.fraction();
        let record = || self.record(&claimed, &attempt, &sent.outcome, jitter);
        if self.retry_until(claimed.lease.until, record).await?.is_none() {
            let delivery = tracing::field::display(&claimed.id);
            tracing::warn!(
                delivery,
                "the outcome of a webhook could not be recorded; it is sent again when its lease runs out"
            );
        }
        Ok(())
    }

    /// Does `work` again while the store does not answer; `None` if it did not succeed by `end`.
    async fn retry_until<T, F: Future<Output = Result<T, StoreError>>>(
        &self,
        end: Millis,
        mut work: impl FnMut() -> F,
    ) -> Result<Option<T>, StoreError> {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_LONGEST);
        loop {
            match work().await {
                Err(error) if error.is_transient() => {
                    let pause = backoff.next_delay();
                    if self.clock.now().plus(pause) >= end {
                        return Ok(None);
                    }
                    sleep(pause).await;
                }
                done => return done.map(Some),
            }
        }
    }

    async fn request(&self, claimed: &Claimed) -> Result<Option<WebhookRequest>, StoreError> {
        let mut session = self.db.read().await?;
        delivery::request(&mut session.conn(), claimed, self.clock.now()).await
    }

    async fn record(
        &self,
        claimed: &Claimed,
        attempt: &Attempt,
        outcome: &AttemptOutcome,
        jitter: f64,
    ) -> Result<(), StoreError> {
        let now = self.clock.now();
        let written = self.db.run_tx("webhook_record", |mut tx| async move {
            let mut conn = tx.conn();
            let written = self.write(&mut conn, claimed, attempt, outcome, jitter, now).await?;
            Ok::<_, RecordError>((tx, written))
        });
        match written.await {
            Ok((delivery, disabled)) => {
                self.report(claimed, attempt, outcome, delivery, disabled, now);
                Ok(())
            }
            Err(RecordError::LeaseLost) => {
                let delivery = tracing::field::display(&claimed.id);
                tracing::debug!(delivery, "a webhook was answered after its lease had ended");
                Ok(())
            }
            Err(RecordError::Store(error)) => Err(error),
        }
    }

    /// Decides what follows from an attempt and writes it: the delivery's outcome, and why its endpoint is
    /// disabled if it is.
    async fn write(
        &self,
        conn: &mut Conn<'_>,
        claimed: &Claimed,
        attempt: &Attempt,
        outcome: &AttemptOutcome,
        jitter: f64,
        now: Millis,
    ) -> Result<(DeliveryOutcome, Option<DisabledReason>), RecordError> {
        let health = match outcome {
            AttemptOutcome::Withdrawn => EndpointHealth::default(),
            _ if outcome.is_success() => {
                endpoint::note_success(conn, claimed.endpoint).await?;
                EndpointHealth::default()
            }
            _ => endpoint::note_failure(conn, claimed.endpoint, now)
                .await?
                .unwrap_or(EndpointHealth { failing_since: None, closed: true }),
        };
        let decision = decide(outcome, claimed.attempts, health, &self.config, now, jitter);
        if !delivery::record(conn, claimed, attempt, decision.delivery, now).await? {
            // The error takes back what was noted above.
            return Err(RecordError::LeaseLost);
        }
        let mut disabled = None;
        if let Some(reason) = decision.disable
            && self.disable(conn, claimed, reason, health.failing_since, now).await?
        {
            disabled = Some(reason);
        }
        Ok((decision.delivery, disabled))
    }

    /// Disables an endpoint, ends what waits for it and appends the event that says so; `false` if another
    /// attempt was first.
    async fn disable(
        &self,
        conn: &mut Conn<'_>,
        claimed: &Claimed,
        reason: DisabledReason,
        failing_since: Option<Millis>,
        now: Millis,
    ) -> Result<bool, StoreError> {
        if !endpoint::disable(conn, claimed.endpoint, reason, now).await? {
            return Ok(false);
        }
        delivery::fail_pending(conn, claimed.endpoint, now).await?;
        let no = event::tenant_no(conn, claimed.tenant).await?;
        let event = NewEvent::data(
            no,
            None,
            EventType::EndpointDisabled,
            &[claimed.endpoint.0.as_bytes(), &now.0.to_be_bytes()],
            now,
            &json!({ "endpoint": {
                "id": claimed.endpoint,
                "reason": reason,
                "failingSince": failing_since,
                "disabledAt": now,
            }}),
        );
        let event = event.map_err(StoreError::corrupt)?;
        event::append(conn, &self.ids, now, &[event]).await?;
        Ok(true)
    }

    /// Tells metrics, log and the dispatcher what was committed.
    fn report(
        &self,
        claimed: &Claimed,
        attempt: &Attempt,
        outcome: &AttemptOutcome,
        delivery: DeliveryOutcome,
        disabled: Option<DisabledReason>,
        now: Millis,
    ) {
        let endpoint = tracing::field::display(&claimed.endpoint);
        if delivery == DeliveryOutcome::Delivered {
            let delay = now.since(claimed.created_at).as_secs_f64();
            self.metrics.webhook_delivery_delay_seconds.observe(delay);
        } else {
            let delivery = tracing::field::display(&claimed.id);
            tracing::debug!(
                endpoint,
                delivery,
                status_code = outcome.status_code(),
                outcome = outcome.result().as_str(),
                attempt = attempt.number,
                "a webhook was not delivered"
            );
        }
        if let Some(reason) = disabled {
            self.metrics
                .events_total
                .with_label_values(&[EventType::EndpointDisabled.as_str()])
                .inc();
            self.wake.deliveries();
            tracing::warn!(endpoint, reason = reason.as_str(), "a webhook endpoint was disabled");
        }
    }

    /// How long nothing is due, without a wake-up.
    pub(super) async fn pause(&self) -> Result<Duration, StoreError> {
        let now = self.clock.now();
        let mut session = self.db.read().await?;
        // What is due already and was not claimed waits for a slot, an earlier one or a lease.
        let next = delivery::next_due(&mut session.conn(), now).await?;
        Ok(next.map_or(POLL, |at| at.since(now).min(POLL)))
    }

    /// Keeps the gauges true and the closed endpoints' queues empty, in a small share of the time however long
    /// the backlog.
    pub(super) async fn maintain(&self) -> Result<Infallible, StoreError> {
        let mut retry = StoreRetry::new("webhook maintenance");
        loop {
            let started = Instant::now();
            let pause = match self.maintain_once().await {
                Ok(()) => {
                    retry.succeeded();
                    (started.elapsed() * MAINTAIN_SHARE).max(MAINTAIN)
                }
                Err(error) => retry.pause_after(error)?,
            };
            sleep(pause).await;
        }
    }

    async fn maintain_once(&self) -> Result<(), StoreError> {
        let now = self.clock.now();
        let mut session = self.db.read().await?;
        let closed =
            &delivery::closed_with_pending(&mut session.conn(), now, CLOSED_AT_ONCE).await?;
        if !closed.is_empty() {
            let ended = self.db.run_tx("webhook_close", |mut tx| async move {
                for &endpoint in closed {
                    delivery::fail_pending(&mut tx.conn(), endpoint, now).await?;
                }
                Ok::<_, StoreError>((tx, ()))
            });
            ended.await?;
        }
        let backlog = delivery::backlog(&mut session.conn()).await?;
        let age = backlog.oldest.map(|oldest| now.since(oldest)).unwrap_or_default();
        self.metrics.webhook_deliveries_pending.set(backlog.pending);
        self.metrics.webhook_oldest_pending_seconds.set(age.as_secs_f64());
        Ok(())
    }

    /// Gives back what was claimed and is not sent.
    pub(super) async fn release(&self, claimed: &[Claimed]) -> Result<(), StoreError> {
        let released = self.db.run_tx("webhook_release", |mut tx| async move {
            for claimed in claimed {
                delivery::release(&mut tx.conn(), claimed).await?;
            }
            Ok::<_, StoreError>((tx, ()))
        });
        released.await
    }
}
