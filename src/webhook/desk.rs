//! What the loop and its sends do with the store: take leases, record outcomes, keep the backlog in order.

use std::{convert::Infallible, time::Duration};

use rand::Rng as _;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{
    decide::{Next, Outcome, Reason, decide},
    send::{Sender, Sent},
};
use crate::{
    clock::{Clock, Millis},
    config::WebhookConfig,
    event::{EventType, NewEvent},
    id::{EndpointId, Ids},
    metrics::Metrics,
    store::{
        Conn, Db, StoreError,
        delivery::{self, AttemptRow, Claimed, DueEndpoint, Lease, Standing},
        event,
    },
    wake::Wake,
};

/// How long the store is not looked at while nobody rings: other processes write deliveries too, and
/// leases run out.
const POLL: Duration = Duration::from_secs(1);
/// How much longer than a send may take its lease holds: for reading the letter and recording the outcome.
const LEASE_MARGIN: Duration = Duration::from_secs(5);
/// How often the backlog is tended to, at most.
const TEND: Duration = Duration::from_secs(5);
/// And for how small a share of the time.
const TEND_SHARE: u32 = 20;
/// How many closed endpoints are emptied in one transaction.
const CLOSED_AT_ONCE: i64 = 16;
/// How often a transaction is tried that collides with others.
const TRIES: u32 = 8;

/// What every send shares.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) db: Db,
    pub(super) ids: Ids,
    pub(super) clock: Clock,
    pub(super) wake: Wake,
    pub(super) metrics: Metrics,
    pub(super) config: WebhookConfig,
    pub(super) sender: Sender,
}

impl Desk {
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
        let started = Instant::now();
        let now = self.clock.now();
        let until = now.plus(self.config.request_timeout).plus(LEASE_MARGIN);
        let lease = Lease { token: self.ids.next(), until };
        let mut taken = Vec::new();
        let mut tx = self.db.begin().await?;
        for (endpoint, &share) in due.iter().zip(shares).filter(|&(_, &share)| share > 0) {
            let limit = i64::try_from(share).unwrap_or(i64::MAX);
            let claimed = delivery::claim(&mut tx.conn(), endpoint.id, now, lease, limit).await?;
            taken.extend(claimed.into_iter().map(|claimed| (endpoint, claimed)));
        }
        tx.commit().await?;
        self.timed("webhook_claim", started);
        Ok(taken)
    }

    pub(super) async fn deliver(&self, claimed: Claimed) -> Result<(), StoreError> {
        let started_at = self.clock.now();
        let letter = {
            let mut session = self.db.read().await?;
            match delivery::letter(&mut session.conn(), &claimed, started_at).await {
                // Rare for a read, and the lease's end brings the delivery back.
                Err(StoreError::Collision(_)) => return Ok(()),
                other => other?,
            }
        };
        let sent = match letter {
            Some(letter) => self.sender.send(claimed.event, letter, started_at).await,
            None => Sent { outcome: Outcome::Withdrawn, latency: Duration::ZERO },
        };
        self.metrics.webhook_attempts_total.with_label_values(&[sent.outcome.label()]).inc();
        let jitter = rand::rng().random_range(0.0..=1.0);
        for tried in 1..=TRIES {
            match self.record(&claimed, &sent, started_at, jitter).await {
                Err(StoreError::Collision(_)) if tried < TRIES => {
                    let pause = rand::rng().random_range(5..=20 * u64::from(tried));
                    sleep(Duration::from_millis(pause)).await;
                }
                Err(StoreError::Collision(why)) => {
                    let delivery = tracing::field::display(&claimed.id);
                    tracing::warn!(
                        delivery,
                        why,
                        "what came of a webhook could not be recorded; it is sent again when its lease \
                         runs out"
                    );
                    break;
                }
                other => return other,
            }
        }
        Ok(())
    }

    async fn record(
        &self,
        claimed: &Claimed,
        sent: &Sent,
        started_at: Millis,
        jitter: f64,
    ) -> Result<(), StoreError> {
        let begun = Instant::now();
        let now = self.clock.now();
        let attempt = AttemptRow {
            started_at,
            latency_ms: i64::try_from(sent.latency.as_millis()).unwrap_or(i64::MAX),
            status_code: sent.outcome.status_code().map(i64::from),
            error: sent.outcome.error(),
        };
        let mut tx = self.db.begin().await?;
        let mut conn = tx.conn();
        let mut failing_since = None;
        let mut closed = false;
        if sent.outcome.is_success() {
            delivery::note_success(&mut conn, claimed.endpoint).await?;
        } else if sent.outcome != Outcome::Withdrawn {
            let health = delivery::note_failure(&mut conn, claimed.endpoint, now).await?;
            closed = health
                .is_none_or(|health| health.disabled_at.is_some() || health.deleted_at.is_some());
            failing_since = health.and_then(|health| health.failing_since);
        }
        let next = match decide(
            &sent.outcome,
            claimed.attempts,
            &self.config.retry_schedule,
            now,
            failing_since,
            self.config.disable_after,
            jitter,
        ) {
            // The endpoint was closed while this was under way.
            Next::Retry { .. } | Next::Disable(_) if closed => Next::Failed,
            next => next,
        };
        let standing = match next {
            Next::Delivered => Standing::Delivered,
            Next::Retry { at } => Standing::Again { at },
            Next::Failed | Next::Disable(_) => Standing::Failed,
        };
        if !delivery::record(&mut conn, claimed, &attempt, standing, now).await? {
            // Somebody else has the lease: dropping the transaction takes back what was noted above.
            let delivery = tracing::field::display(&claimed.id);
            tracing::debug!(delivery, "a webhook was answered after its lease had ended");
            return Ok(());
        }
        let disabled = match next {
            Next::Disable(reason) => self
                .disable(&mut conn, claimed, reason, failing_since, now)
                .await?
                .then_some(reason),
            _ => None,
        };
        tx.commit().await?;
        self.timed("webhook_record", begun);
        self.tell(claimed, sent, next, disabled, now);
        Ok(())
    }

    /// Disables an endpoint, ends what waits for it and appends the event that tells it; `false` if somebody
    /// else was first.
    async fn disable(
        &self,
        conn: &mut Conn<'_>,
        claimed: &Claimed,
        reason: Reason,
        failing_since: Option<Millis>,
        now: Millis,
    ) -> Result<bool, StoreError> {
        if !delivery::disable_endpoint(conn, claimed.endpoint, reason.as_str(), now).await? {
            return Ok(false);
        }
        delivery::fail_pending(conn, claimed.endpoint, now).await?;
        let told = NewEvent::new(
            claimed.tenant,
            None,
            EventType::EndpointDisabled,
            &json!({ "endpoint": {
                "id": claimed.endpoint,
                "reason": reason.as_str(),
                "failingSince": failing_since,
                "disabledAt": now,
            }}),
        );
        event::append(conn, &self.ids, now, &[told]).await?;
        Ok(true)
    }

    /// Tells metrics, log and bell what was committed.
    fn tell(
        &self,
        claimed: &Claimed,
        sent: &Sent,
        next: Next,
        disabled: Option<Reason>,
        now: Millis,
    ) {
        let endpoint = tracing::field::display(&claimed.endpoint);
        if next == Next::Delivered {
            let delay = now.since(claimed.created_at).as_secs_f64();
            self.metrics.webhook_delivery_delay_seconds.observe(delay);
        } else {
            let delivery = tracing::field::display(&claimed.id);
            tracing::debug!(
                endpoint,
                delivery,
                status_code = sent.outcome.status_code(),
                outcome = sent.outcome.label(),
                attempt = claimed.attempts + 1,
                "a webhook was not taken"
            );
        }
        if let Some(reason) = disabled {
            self.metrics
                .events_total
                .with_label_values(&[EventType::EndpointDisabled.as_str()])
                .inc();
            self.wake.deliveries();
            let reason = reason.as_str();
            tracing::warn!(endpoint, reason, "a webhook endpoint was disabled");
        }
    }

    /// How long nothing is due, if nobody rings.
    pub(super) async fn pause(&self) -> Result<Duration, StoreError> {
        let now = self.clock.now();
        let mut session = self.db.read().await?;
        match delivery::next_due(&mut session.conn(), now).await {
            // What is due already and was not claimed waits for a slot, an earlier one or a lease.
            Ok(next) => Ok(next.map_or(POLL, |at| at.since(now).min(POLL))),
            Err(StoreError::Collision(_)) => Ok(POLL),
            Err(error) => Err(error),
        }
    }

    /// Keeps the gauges true and the closed endpoints' queues empty, at a small share of the time however
    /// long the backlog.
    pub(super) async fn tend(&self) -> Result<Infallible, StoreError> {
        loop {
            let started = Instant::now();
            match self.tend_once().await {
                Ok(()) | Err(StoreError::Collision(_)) => {}
                Err(error) => return Err(error),
            }
            sleep((started.elapsed() * TEND_SHARE).max(TEND)).await;
        }
    }

    async fn tend_once(&self) -> Result<(), StoreError> {
        let now = self.clock.now();
        let mut session = self.db.read().await?;
        let closed =
            delivery::closed_with_pending(&mut session.conn(), now, CLOSED_AT_ONCE).await?;
        if !closed.is_empty() {
            let mut tx = self.db.begin().await?;
            for endpoint in closed {
                delivery::fail_pending(&mut tx.conn(), endpoint, now).await?;
            }
            tx.commit().await?;
        }
        let backlog = delivery::backlog(&mut session.conn()).await?;
        let age = backlog.oldest.map(|oldest| now.since(oldest)).unwrap_or_default();
        self.metrics.webhook_deliveries_pending.set(backlog.pending);
        self.metrics.webhook_oldest_pending_seconds.set(age.as_secs_f64());
        Ok(())
    }

    fn timed(&self, name: &str, started: Instant) {
        self.metrics
            .db_transaction_duration_seconds
            .with_label_values(&[name])
            .observe(started.elapsed().as_secs_f64());
    }
}
