//! The loop: claim what is due up to what is free, send it, and wait for the next reason to look.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{
    task::{Id as TaskId, JoinError, JoinSet},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    scheduler::{Candidate, Limits, shares},
    send::Sender,
    worker::DeliveryWorker,
};
use crate::{
    clock::Clock,
    config::WebhookConfig,
    delivery::AttemptResult,
    id::{EndpointId, Ids},
    metrics::Metrics,
    random::Random,
    retry::StoreRetry,
    store::{Db, StoreError, delivery::Claimed},
    wake::Wake,
};

/// How long sends in flight may go on after the shutdown began.
const GRACE: Duration = Duration::from_secs(5);

/// How long what is under way at the store may take after that, before and after those sends: a store that says
/// nothing does not hold the process.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The dispatcher cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error(
        "the HTTP client for webhooks cannot be made: {0}. Check that the system has trusted \
         certificates installed"
    )]
    Client(#[from] reqwest::Error),
}

/// Sends deliveries until told to stop.
#[derive(Debug)]
pub struct Dispatcher {
    worker: Arc<DeliveryWorker>,
}

/// The sends in flight, and where the round of endpoints has come to.
struct DispatchLoop {
    worker: Arc<DeliveryWorker>,
    tasks: JoinSet<Result<(), StoreError>>,
    in_flight: HashMap<TaskId, InFlight>,
    after: Option<EndpointId>,
}

struct InFlight {
    claimed: Claimed,
    /// The endpoint was failing when this was claimed.
    failing: bool,
}

/// When there is something to do again.
enum Pending {
    /// At once: there may be endpoints that were not looked at.
    More,
    /// After a pause, or a wake-up.
    At(Duration),
}

impl Dispatcher {
    /// # Errors
    /// When the HTTP client cannot be made.
    pub fn new(
        db: Db,
        ids: Ids,
        random: Random,
        clock: Clock,
        wake: Wake,
        metrics: Metrics,
        config: WebhookConfig,
    ) -> Result<Self, SetupError> {
        let sender = Sender::new(config.clone())?;
        for result in AttemptResult::ALL {
            // A series that begins at its first step would hide that step from `increase()`.
            metrics.webhook_attempts_total.with_label_values(&[result.as_str()]).inc_by(0);
        }
        Ok(Self {
            worker: Arc::new(DeliveryWorker {
                db,
                ids,
                random,
                clock,
                wake,
                metrics,
                config,
                sender,
            }),
        })
    }

    /// Runs until `shutdown`. Then nothing more is claimed, sends in flight get a few seconds, and what is
    /// not finished is given back.
    ///
    /// # Errors
    /// When the store cannot be used. One that does not answer is waited for. Leases that are held run out by
    /// themselves.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), StoreError> {
        let round = DispatchLoop {
            worker: Arc::clone(&self.worker),
            tasks: JoinSet::new(),
            in_flight: HashMap::new(),
            after: None,
        };
        tokio::select! {
            done = round.run(&shutdown) => done,
            broken = self.worker.maintain() => broken.map(|never| match never {}),
        }
    }
}

impl DispatchLoop {
    async fn run(mut self, shutdown: &CancellationToken) -> Result<(), StoreError> {
        let wake_up = self.worker.wake.deliveries_wake_up();
        let mut retry = StoreRetry::new("webhook dispatcher");
        loop {
            while let Some(ended) = self.tasks.try_join_next_with_id() {
                self.ended(ended)?;
            }
            if shutdown.is_cancelled() {
                break;
            }
            let looked = tokio::select! {
                biased;
                looked = self.send_due() => looked,
                () = async { shutdown.cancelled().await; sleep(LAST_WORDS).await } => break,
            };
            let pause = match looked {
                Ok(Pending::More) => {
                    retry.succeeded();
                    continue;
                }
                Ok(Pending::At(pause)) => {
                    retry.succeeded();
                    pause
                }
                Err(error) => retry.pause_after(error)?,
            };
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some(ended) = self.tasks.join_next_with_id() => self.ended(ended)?,
                () = wake_up.notified() => {}
                () = sleep(pause) => {}
            }
        }
        self.finish().await
    }

    async fn send_due(&mut self) -> Result<Pending, StoreError> {
        if self.claim().await? {
            return Ok(Pending::More);
        }
        Ok(Pending::At(self.worker.pause().await?))
    }

    /// Claims what is due, up to what is free, and sets it going; `true` if there may be endpoints that were
    /// not looked at.
    async fn claim(&mut self) -> Result<bool, StoreError> {
        let limits = Limits {
            total: self.worker.config.max_in_flight,
            per_endpoint: self.worker.config.max_in_flight_per_endpoint,
        };
        if self.in_flight.len() >= limits.total {
            return Ok(false);
        }
        // Of so many at least half have nothing in flight, so that full ones never hide the others.
        let window = limits.total.saturating_mul(2).max(64);
        let due = self.worker.due(self.after, window).await?;
        let mut in_flight: HashMap<EndpointId, usize> = HashMap::new();
        for sending in self.in_flight.values() {
            *in_flight.entry(sending.claimed.endpoint).or_default() += 1;
        }
        let candidates: Vec<Candidate> = due
            .iter()
            .map(|endpoint| Candidate {
                failing: endpoint.failing_since.is_some(),
                in_flight: in_flight.get(&endpoint.id).copied().unwrap_or_default(),
            })
            .collect();
        let failing = self.in_flight.values().filter(|sending| sending.failing).count();
        let shares = shares(&candidates, self.in_flight.len(), failing, limits);
        let wanted: usize = shares.iter().sum();
        // The next look begins after the last endpoint served, or seen if there was room for all.
        let full = self.in_flight.len() + wanted >= limits.total;
        let last = if full { shares.iter().rposition(|&share| share > 0) } else { None };
        self.after = last.or(due.len().checked_sub(1)).map(|index| due[index].id);
        if wanted == 0 {
            return Ok(false);
        }
        let claimed = self.worker.lease(&due, &shares).await?;
        for (endpoint, claimed) in claimed {
            let worker = Arc::clone(&self.worker);
            let sending =
                InFlight { claimed: claimed.clone(), failing: endpoint.failing_since.is_some() };
            let task = self.tasks.spawn(async move { worker.deliver(claimed).await });
            self.in_flight.insert(task.id(), sending);
        }
        Ok(due.len() >= window && !full)
    }

    fn ended(
        &mut self,
        ended: Result<(TaskId, Result<(), StoreError>), JoinError>,
    ) -> Result<(), StoreError> {
        match ended {
            Ok((task, result)) => {
                self.in_flight.remove(&task);
                result
            }
            Err(error) => {
                if let Some(sending) = self.in_flight.remove(&error.id()) {
                    self.worker.metrics.task_failures_total.inc();
                    let delivery = tracing::field::display(&sending.claimed.id);
                    tracing::error!(
                        delivery,
                        "sending a webhook ended without being asked to; it is sent again when its lease \
                         runs out: {error}"
                    );
                }
                Ok(())
            }
        }
    }

    /// Lets what is in flight end, up to a limit, and gives the rest back.
    async fn finish(mut self) -> Result<(), StoreError> {
        let deadline = sleep(GRACE);
        tokio::pin!(deadline);
        loop {
            tokio::select! {
                ended = self.tasks.join_next_with_id() => match ended {
                    Some(ended) => self.ended(ended)?,
                    None => return Ok(()),
                },
                () = &mut deadline => break,
            }
        }
        self.tasks.abort_all();
        while let Some(ended) = self.tasks.join_next_with_id().await {
            if let Ok((task, result)) = ended {
                self.in_flight.remove(&task);
                result?;
            }
        }
        let claimed: Vec<Claimed> = self.in_flight.into_values().map(|one| one.claimed).collect();
        match timeout(LAST_WORDS, self.worker.release(&claimed)).await {
            Ok(Err(error)) if !error.is_transient() => Err(error),
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => {
                tracing::warn!("webhooks in flight could not be given back: their leases run out");
                Ok(())
            }
        }
    }
}
