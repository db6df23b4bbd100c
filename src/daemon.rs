//! Wires the parts together; starts, watches and stops every long-lived task.
//!
//! A task that ends without being asked to, or panics, ends the process with an error: a supervisor starts
//! it again, and the store says where to go on.

mod identity;
mod start;

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use identity::Identity;

use tokio::{sync::oneshot, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    api::Api,
    chain::{ChainName, Provers, Source},
    clock::Clock,
    commit::Committer,
    config::{ChainConfig, Config},
    fleet::{Fleet, HeartbeatError},
    follow::Follower,
    id::Ids,
    metrics::Metrics,
    obstacle::Obstacles,
    random::Random,
    registry::Registry,
    retention::Retention,
    retry::StoreRetry,
    store::{Db, Reads, StoreError, delivery},
    wake::Wake,
    webhook::Dispatcher,
};

/// How long the tasks may take to finish what they have begun; a supervisor allows ten seconds.
const DRAIN: Duration = Duration::from_secs(8);
/// How long closing the store may take after that.
const CLOSE: Duration = Duration::from_secs(1);

/// Why the daemon ended, or never began.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Fleet(#[from] HeartbeatError),
    #[error("cannot listen on {address}: {error}. Set server.listen to a free address")]
    Listen { address: SocketAddr, error: std::io::Error },
    #[error("chain {chain}: {detail}")]
    Chain { chain: String, detail: String },
    #[error("the webhook client cannot be built: {0}")]
    Webhook(String),
    #[error("the task '{task}' ended by itself: {detail}")]
    Task { task: String, detail: String },
    #[error("signals cannot be received: {0}")]
    Signals(std::io::Error),
    #[error("the tasks did not finish within {} seconds", DRAIN.as_secs())]
    Drain,
}

/// Runs until SIGTERM or SIGINT; a second signal ends the process at once.
pub async fn run_until_signalled(config: Config) -> Result<(), DaemonError> {
    let shutdown = CancellationToken::new();
    let signals = stop_on_signals(shutdown.clone()).map_err(DaemonError::Signals)?;
    let mut signals = JoinSet::from_iter([signals]);
    let result = run(config, shutdown, None).await;
    signals.abort_all();
    result
}

/// Cancels `shutdown` at the first SIGTERM or SIGINT, and ends the process at the second.
pub fn stop_on_signals(
    shutdown: CancellationToken,
) -> std::io::Result<impl Future<Output = ()> + Send> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        let mut stopping = false;
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if stopping {
                tracing::warn!("second signal: ending at once");
                std::process::exit(130);
            }
            stopping = true;
            tracing::info!("stopping");
            shutdown.cancel();
        }
    })
}

/// Runs until `shutdown`. `ready` is told the API's address once requests are answered.
pub async fn run(
    config: Config,
    shutdown: CancellationToken,
    ready: Option<oneshot::Sender<SocketAddr>>,
) -> Result<(), DaemonError> {
    let metrics = Metrics::new();
    metrics.build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    let wake = Wake::new(config.chains.keys().cloned());
    let opened = Box::pin(start::open(&config, &metrics, &shutdown)).await?;
    let Some((db, listener)) = opened else { return Ok(()) };
    let api_reads = api_reads(&config, &db, &metrics)?;
    let lock = db.lock()?;
    let clock = if lock.is_some() { Clock::System } else { Clock::shared() };
    let ids = Ids::new(clock.clone());
    let identity = Identity::of(&config.data_folder(), &ids);
    if lock.is_some() {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            given_back = give_leases_back(&db, &clock) => given_back?,
        }
    }
    let address = config.server.listen;
    let listener = match listener {
        Some(listener) => listener,
        None => start::listen(address).await?,
    };
    let local = listener.local_addr().map_err(|error| DaemonError::Listen { address, error })?;

    let fleet = lock.is_none().then(|| {
        let (id, config) = (identity.name().to_owned(), config.fleet.clone());
        Fleet::new(db.clone(), id, config, clock.clone(), metrics.clone(), wake.clone())
    });
    let sources = sources(&config, &metrics, fleet.as_ref())?;
    let obstacles = Obstacles::default();
    let parts = Parts {
        db: &db,
        ids: &ids,
        clock: &clock,
        metrics: &metrics,
        wake: &wake,
        obstacles: &obstacles,
    };
    let followers = parts.followers(&config, fleet.as_ref(), &sources);
    let mut tasks = Tasks { set: JoinSet::new(), shutdown: shutdown.clone() };
    if let Some(fleet) = fleet.clone() {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            entered = fleet.enter() => entered?,
        }
        tasks.begin("fleet".to_owned(), |stop| fleet.run(stop));
    }
    for (chain, follower) in followers {
        tasks.begin(format!("follower of {chain}"), |stop| Box::pin(follower.run(stop)));
    }
    let dispatcher = Dispatcher::new(
        db.clone(),
        ids.clone(),
        Random::System,
        clock.clone(),
        wake.clone(),
        metrics.clone(),
        config.webhooks.clone(),
    )
    .map_err(|error| DaemonError::Webhook(error.to_string()))?;
    tasks.begin("webhook dispatcher".to_owned(), |stop| dispatcher.run(stop));
    let retention =
        Retention::new(db.clone(), clock.clone(), metrics.clone(), config.retention.clone());
    let retention = match &fleet {
        Some(fleet) => retention.held_by(fleet.work("retention")),
        None => retention,
    };
    tasks.begin("retention".to_owned(), |stop| retention.run(stop));
    if api_reads.has_replica() {
        let watched = api_reads.clone();
        tasks.begin("replica".to_owned(), |stop| async move {
            watched.watch(stop).await;
            Ok::<_, StoreError>(())
        });
    }
    let api = Api {
        db: db.clone(),
        reads: api_reads,
        provers: Provers::new(sources),
        ids,
        random: Random::System,
        clock,
        wake,
        obstacles,
        metrics: metrics.clone(),
        config: Arc::new(config),
    };
    tasks.begin("api".to_owned(), |stop| api.serve(listener, stop));
    tracing::info!(address = %local, "listening");
    if let Some(ready) = ready {
        // Nobody waits any more if the receiver is gone.
        let _ = ready.send(local);
    }
    let result = supervise(tasks.set, &shutdown, &metrics, DRAIN).await;
    if tokio::time::timeout(CLOSE, db.close()).await.is_err() {
        tracing::warn!("the store did not answer to the last: its connections are cut off");
    }
    drop((lock, identity));
    result
}

/// The long-lived tasks, each with its name.
struct Tasks {
    set: JoinSet<(String, Result<(), String>)>,
    shutdown: CancellationToken,
}

impl Tasks {
    fn begin<E, F>(&mut self, name: String, task: impl FnOnce(CancellationToken) -> F)
    where
        E: ToString,
        F: Future<Output = Result<(), E>> + Send + 'static,
    {
        let running = task(self.shutdown.clone());
        self.set.spawn(async move { (name, running.await.map_err(|error| error.to_string())) });
    }
}

/// Where the API reads.
fn api_reads(config: &Config, db: &Db, metrics: &Metrics) -> Result<Reads, StoreError> {
    match &config.replica {
        Some(replica) => {
            let url = replica.url.expose();
            Reads::with_replica(db.clone(), url, replica.lag_limit, metrics)
        }
        None => Ok(Reads::new(db.clone())),
    }
}

/// What the followers share.
struct Parts<'a> {
    db: &'a Db,
    ids: &'a Ids,
    clock: &'a Clock,
    metrics: &'a Metrics,
    wake: &'a Wake,
    obstacles: &'a Obstacles,
}

impl Parts<'_> {
    /// A follower for each chain that this daemon may follow.
    fn followers(
        &self,
        config: &Config,
        fleet: Option<&Fleet>,
        sources: &Sources,
    ) -> Vec<(ChainName, Follower)> {
        let Self { db, ids, clock, metrics, wake, obstacles } = *self;
        let registry = Registry::default();
        let mut followers = Vec::new();
        for chain in config.chains.values().filter(|chain| config.fleet.follows(&chain.name)) {
            let Some(source) = sources.get(&chain.name) else { continue };
            let (db, ids, clock) = (db.clone(), ids.clone(), clock.clone());
            let committer =
                Committer::new(db, ids, clock, metrics.clone(), wake.clone(), chain.into());
            let committer = match fleet {
                Some(fleet) => committer.held_by(fleet.chain(&chain.name)),
                None => committer,
            };
            let follower = Follower::new(
                Arc::new(chain.clone()),
                Arc::clone(source),
                committer,
                registry.watchlist(&chain.name),
                metrics.clone(),
                self.clock.clone(),
                wake.chain_wake_up(&chain.name),
            );
            followers.push((chain.name.clone(), follower.telling(obstacles.clone())));
        }
        if followers.is_empty() {
            tracing::warn!("this daemon follows no chain: only the API and the webhooks run");
        }
        followers
    }
}

/// Gives back what a process before was sending. While the store does not answer it is asked again.
async fn give_leases_back(db: &Db, clock: &Clock) -> Result<(), StoreError> {
    let mut retry = StoreRetry::new("webhook leases");
    loop {
        let now = clock.now();
        let done = db.run_tx("webhook_release", |mut tx| async move {
            delivery::release_all(&mut tx.conn(), now).await?;
            Ok::<_, StoreError>((tx, ()))
        });
        match done.await {
            Ok(()) => return Ok(()),
            Err(error) => tokio::time::sleep(retry.pause_after(error)?).await,
        }
    }
}

/// Waits for the shutdown, then for the tasks. The first task that ends unasked stops the others.
async fn supervise(
    mut tasks: JoinSet<(String, Result<(), String>)>,
    shutdown: &CancellationToken,
    metrics: &Metrics,
    drain: Duration,
) -> Result<(), DaemonError> {
    let mut failure = None;
    while !shutdown.is_cancelled() {
        tokio::select! {
            () = shutdown.cancelled() => {}
            ended = tasks.join_next() => {
                let Some(ended) = ended else { break };
                // The shutdown and the end of a task may be seen in either order.
                if !shutdown.is_cancelled() {
                    metrics.task_failures_total.inc();
                    let error = unasked(ended);
                    tracing::error!(error = %error, "ending the process");
                    failure = Some(error);
                    shutdown.cancel();
                }
            }
        }
    }
    let drained = tokio::time::timeout(drain, async {
        let mut failed = None;
        while let Some(ended) = tasks.join_next().await {
            if !matches!(ended, Ok((_, Ok(())))) {
                failed = failed.or(Some(unasked(ended)));
            }
        }
        failed
    })
    .await;
    match (failure, drained) {
        (Some(error), _) | (None, Ok(Some(error))) => Err(error),
        (None, Ok(None)) => Ok(()),
        (None, Err(_)) => Err(DaemonError::Drain),
    }
}

fn unasked(ended: Result<(String, Result<(), String>), tokio::task::JoinError>) -> DaemonError {
    match ended {
        Ok((task, Ok(()))) => DaemonError::Task { task, detail: "it returned".to_owned() },
        Ok((task, Err(detail))) => DaemonError::Task { task, detail },
        Err(error) => DaemonError::Task { task: "unknown".to_owned(), detail: format!("{error}") },
    }
}

type Sources = BTreeMap<ChainName, Arc<dyn Source>>;

/// The sources of all chains: of those that others follow, the API has balances proven all the same.
fn sources(
    config: &Config,
    metrics: &Metrics,
    fleet: Option<&Fleet>,
) -> Result<Sources, DaemonError> {
    let mut sources = BTreeMap::new();
    for chain in config.chains.values() {
        let source = source(config, chain, metrics)?;
        if let Some(fleet) = fleet {
            fleet.share(&chain.name, source.daily_use());
        }
        sources.insert(chain.name.clone(), source);
    }
    Ok(sources)
}

/// The source of a chain.
pub fn source(
    config: &Config,
    chain: &ChainConfig,
    metrics: &Metrics,
) -> Result<Arc<dyn Source>, DaemonError> {
    chain.family.source(chain, metrics, &config.data_folder()).map_err(|error| DaemonError::Chain {
        chain: chain.name.to_string(),
        detail: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(50);

    fn tasks() -> JoinSet<(String, Result<(), String>)> {
        let mut tasks = JoinSet::new();
        tasks.spawn(async {
            std::future::pending::<()>().await;
            ("patient".to_owned(), Ok(()))
        });
        tasks
    }

    #[tokio::test]
    async fn a_panicked_task_ends_the_process_with_an_error() {
        let mut tasks = tasks();
        tasks.spawn(async { panic!("a bug") });
        let ended = supervise(tasks, &CancellationToken::new(), &Metrics::new(), SHORT).await;
        assert!(matches!(ended, Err(DaemonError::Task { .. })), "{ended:?}");
    }

    #[tokio::test]
    async fn a_task_that_returns_unasked_ends_the_process_with_an_error() {
        let mut tasks = tasks();
        tasks.spawn(async { ("quitter".to_owned(), Ok(())) });
        let ended = supervise(tasks, &CancellationToken::new(), &Metrics::new(), SHORT).await;
        assert!(matches!(ended, Err(DaemonError::Task { task, .. }) if task == "quitter"));
    }

    #[tokio::test]
    async fn a_task_that_will_not_stop_does_not_hold_the_process() {
        let shutdown = CancellationToken::new();
        shutdown.cancel();
        let ended = supervise(tasks(), &shutdown, &Metrics::new(), SHORT).await;
        assert!(matches!(ended, Err(DaemonError::Drain)));
    }
}
