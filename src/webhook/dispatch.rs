//! The loop: claim what is due up to what is free, send it, and wait for the next reason to look.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{
    task::{Id as TaskId, JoinError, JoinSet},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use super::{
    desk::Desk,
    plan::{Candidate, Limits, shares},
    send::Sender,
};
use crate::{
    clock::Clock,
    config::WebhookConfig,
    id::{EndpointId, Ids},
    metrics::Metrics,
    store::{
        Db, StoreError,
        delivery::{self, Claimed},
    },
    wake::Wake,
};

/// How long sends in flight may go on after the word to stop.
const GRACE: Duration = Duration::from_secs(5);

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
    desk: Arc<Desk>,
}

/// The sends in flight, and where the round of endpoints has come to.
struct Round {
    desk: Arc<Desk>,
    tasks: JoinSet<Result<(), StoreError>>,
    flying: HashMap<TaskId, Flight>,
    after: Option<EndpointId>,
}

struct Flight {
    claimed: Claimed,
    /// The endpoint was failing when this was claimed.
    failing: bool,
}

/// What a look for work found.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    /// All that can go out now is going out.
    Done,
    /// There may be endpoints that were not looked at.
    More,
}

impl Dispatcher {
    /// # Errors
    /// When the HTTP client cannot be made.
    pub fn new(
        db: Db,
        ids: Ids,
        clock: Clock,
        wake: Wake,
        metrics: Metrics,
        config: WebhookConfig,
    ) -> Result<Self, SetupError> {
        let sender = Sender::new(config.clone())?;
        Ok(Self { desk: Arc::new(Desk { db, ids, clock, wake, metrics, config, sender }) })
    }

    /// Runs until `shutdown`. Then nothing more is claimed, sends in flight get a few seconds, and what is
    /// not finished is given back.
    ///
    /// # Errors
    /// When the store fails. Leases that are held then run out by themselves.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), StoreError> {
        let round = Round {
            desk: Arc::clone(&self.desk),
            tasks: JoinSet::new(),
            flying: HashMap::new(),
            after: None,
        };
        tokio::select! {
            done = round.run(&shutdown) => done,
            broken = self.desk.tend() => broken.map(|never| match never {}),
        }
    }
}

impl Round {
    async fn run(mut self, shutdown: &CancellationToken) -> Result<(), StoreError> {
        let bell = self.desk.wake.deliveries_bell();
        loop {
            while let Some(ended) = self.tasks.try_join_next_with_id() {
                self.land(ended)?;
            }
            if shutdown.is_cancelled() {
                break;
            }
            let look = match self.claim().await {
                Err(StoreError::Collision(why)) => {
                    tracing::debug!(why, "claiming webhooks collided, next time again");
                    Look::Done
                }
                other => other?,
            };
            if look == Look::More {
                continue;
            }
            let pause = self.desk.pause().await?;
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some(ended) = self.tasks.join_next_with_id() => self.land(ended)?,
                () = bell.notified() => {}
                () = sleep(pause) => {}
            }
        }
        self.finish().await
    }

    /// Claims what is due, up to what is free, and sets it going.
    async fn claim(&mut self) -> Result<Look, StoreError> {
        let limits = Limits {
            total: self.desk.config.max_in_flight,
            per_endpoint: self.desk.config.max_in_flight_per_endpoint,
        };
        if self.flying.len() >= limits.total {
            return Ok(Look::Done);
        }
        // Of so many at least half have nothing in flight, so that full ones never hide the others.
        let window = limits.total.saturating_mul(2).max(64);
        let due = self.desk.due(self.after, window).await?;
        let mut in_flight: HashMap<EndpointId, usize> = HashMap::new();
        for flight in self.flying.values() {
            *in_flight.entry(flight.claimed.endpoint).or_default() += 1;
        }
        let candidates: Vec<Candidate> = due
            .iter()
            .map(|endpoint| Candidate {
                failing: endpoint.failing_since.is_some(),
                in_flight: in_flight.get(&endpoint.id).copied().unwrap_or_default(),
            })
            .collect();
        let failing = self.flying.values().filter(|flight| flight.failing).count();
        let shares = shares(&candidates, self.flying.len(), failing, limits);
        let wanted: usize = shares.iter().sum();
        // The next look begins after the last endpoint served, or seen if there was room for all.
        let full = self.flying.len() + wanted >= limits.total;
        let last = if full { shares.iter().rposition(|&share| share > 0) } else { None };
        self.after = last.or(due.len().checked_sub(1)).map(|index| due[index].id);
        if wanted == 0 {
            return Ok(Look::Done);
        }
        let claimed = self.desk.lease(&due, &shares).await?;
        for (endpoint, claimed) in claimed {
            let desk = Arc::clone(&self.desk);
            let flight =
                Flight { claimed: claimed.clone(), failing: endpoint.failing_since.is_some() };
            let task = self.tasks.spawn(async move { desk.deliver(claimed).await });
            self.flying.insert(task.id(), flight);
        }
        Ok(if due.len() >= window && !full { Look::More } else { Look::Done })
    }

    fn land(
        &mut self,
        ended: Result<(TaskId, Result<(), StoreError>), JoinError>,
    ) -> Result<(), StoreError> {
        match ended {
            Ok((task, result)) => {
                self.flying.remove(&task);
                result
            }
            Err(error) => {
                if let Some(flight) = self.flying.remove(&error.id()) {
                    self.desk.metrics.task_failures_total.inc();
                    let delivery = tracing::field::display(&flight.claimed.id);
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
                    Some(ended) => self.land(ended)?,
                    None => return Ok(()),
                },
                () = &mut deadline => break,
            }
        }
        self.tasks.abort_all();
        while let Some(ended) = self.tasks.join_next_with_id().await {
            if let Ok((task, result)) = ended {
                self.flying.remove(&task);
                result?;
            }
        }
        let mut tx = self.desk.db.begin().await?;
        for flight in self.flying.values() {
            delivery::release(&mut tx.conn(), &flight.claimed).await?;
        }
        tx.commit().await
    }
}
