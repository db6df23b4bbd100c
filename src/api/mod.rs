//! HTTP: one file per resource. What a tenant reads of its wallets and their chains may come from a replica
//! (`reads`); keys, assets, settings and webhooks are read at the primary. A write is one transaction (`write`), or
//! shares one with others of its kind (`batch`). Everything here is filtered by the caller's tenant, and nothing
//! here knows a chain family. Of nodes only proofs are asked.

mod answer;
mod asset;
mod auth;
mod balance;
mod batch;
mod cache;
mod chain;
mod delivery;
mod endpoint;
mod error;
mod event;
mod explain;
mod health;
pub mod key;
mod layer;
mod locator;
mod openapi;
mod ownership;
mod page;
mod past;
mod proof;
mod request;
pub mod safe_config;
pub mod safe_deployment;
mod setting;
#[cfg(test)]
pub(crate) mod tests;
mod transfer;
pub mod waiting;
pub mod wallet;
mod write;

use std::{
    convert::Infallible,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{Router, extract::DefaultBodyLimit, middleware, serve::ListenerExt as _};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use utoipa_axum::{router::OpenApiRouter, routes};

pub use self::error::{Code, FieldError, ProblemBody};
use self::{asset::AssetIndex, auth::Caller, cache::Cache, error::Problem, proof::Proving};
use crate::{
    chain::{ChainName, Provers},
    clock::{Clock, Millis},
    config::{ChainConfig, Config},
    id::Ids,
    metrics::Metrics,
    obstacle::Obstacles,
    random::Random,
    store::{Db, Reads},
    wake::Wake,
};

/// How long a key that was found valid is believed: a revoked key works that much longer at most.
pub const KEY_LIFETIME: Duration = Duration::from_secs(5);
const KEYS: usize = 10_000;
/// Assets change when a daemon starts with another configuration.
const ASSETS_LIFETIME: Duration = Duration::from_secs(5);
/// How often the log tells of requests that fail because the store does.
const SAID_AGAIN: Duration = Duration::from_mins(1);
/// How long a stop waits for requests under way; whoever has not sent a whole request by then is cut off.
const GRACE: Duration = Duration::from_secs(5);

/// What the HTTP side of the daemon works with.
#[derive(Clone, Debug)]
pub struct Api {
    pub db: Db,
    /// For what may lag: what a tenant reads of its wallets and their chains.
    pub reads: Reads,
    /// All that is asked of nodes here.
    pub provers: Provers,
    pub ids: Ids,
    pub random: Random,
    pub clock: Clock,
    pub wake: Wake,
    pub obstacles: Obstacles,
    pub metrics: Metrics,
    pub config: Arc<Config>,
}

/// [`Api`] and what it remembers.
struct App {
    db: Db,
    reads: Reads,
    proving: Proving,
    ids: Ids,
    random: Random,
    clock: Clock,
    wake: Wake,
    obstacles: Obstacles,
    metrics: Metrics,
    config: Arc<Config>,
    callers: Cache<[u8; 32], Caller>,
    assets: Cache<(), Arc<AssetIndex>>,
    registrations: batch::Queue<wallet::Register>,
    /// When it was last said that requests fail because the store does.
    said: Mutex<Option<Instant>>,
}

impl App {
    /// # Errors
    /// 400 that lists the chains there are.
    fn chain(&self, field: &str, name: &str) -> Result<&ChainConfig, Problem> {
        self.config.chains.get(name).ok_or_else(|| {
            let names: Vec<&str> = self.config.chains.keys().map(ChainName::as_str).collect();
            Problem::field(
                Code::UnknownChain,
                field,
                format!(
                    "names the chain '{name}', which is not configured: use {}",
                    names.join(", ")
                ),
            )
        })
    }

    /// Whether it is time to say again that requests fail because the store does: a line for each would be a flood.
    fn says(&self) -> bool {
        let mut said = self.said.lock();
        let says = said.is_none_or(|at| at.elapsed() >= SAID_AGAIN);
        if says {
            *said = Some(Instant::now());
        }
        says
    }

    /// Idempotency keys that were taken before this are free.
    fn key_cutoff(&self, now: Millis) -> Millis {
        now.minus(self.config.retention.idempotency_keys)
    }

    /// The clock's time before now by `Millis`, in seconds, for how far a chain lags.
    fn lag_seconds(&self, head_time: Millis) -> f64 {
        self.clock.now().since(head_time).as_secs_f64()
    }
}

/// Every route, once: what is served is what `/openapi.json` describes.
fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::with_openapi(openapi::outline())
        .routes(routes!(wallet::list, wallet::create))
        .routes(routes!(wallet::read, wallet::update, wallet::delete))
        .routes(routes!(balance::read))
        .routes(routes!(explain::read))
        .routes(routes!(proof::read))
        .routes(routes!(transfer::list))
        .routes(routes!(safe_deployment::list, safe_deployment::create))
        .routes(routes!(safe_deployment::read))
        .routes(routes!(setting::read, setting::update))
        .routes(routes!(ownership::create))
        .routes(routes!(ownership::verify))
        .routes(routes!(asset::list))
        .routes(routes!(chain::list))
        .routes(routes!(safe_config::read))
        .routes(routes!(event::list))
        .routes(routes!(endpoint::list, endpoint::create))
        .routes(routes!(endpoint::read, endpoint::delete))
        .routes(routes!(delivery::list))
        .routes(routes!(delivery::test))
        .routes(routes!(delivery::replay))
        .routes(routes!(endpoint::rotate_secret))
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(health::metrics))
        .routes(routes!(openapi::document))
}

impl Api {
    /// What the requests are served by, and what does the writes that they queue.
    fn parts(self) -> (Router, impl Future<Output = Infallible> + Send + 'static) {
        let max_body_bytes = self.config.server.max_body_bytes;
        let (app, registering) = self.app();
        let router = routes()
            .split_for_parts()
            .0
            .fallback(async || {
                Problem::new(Code::NotFound, "There is nothing here; see /openapi.json.")
            })
            .layer(DefaultBodyLimit::max(max_body_bytes))
            .layer(middleware::from_fn_with_state(Arc::clone(&app), layer::around))
            .with_state(Arc::clone(&app));
        (router, registering.run(app))
    }

    fn app(self) -> (Arc<App>, batch::Worker<wallet::Register>) {
        let (registrations, registering) = batch::queue();
        let app = App {
            db: self.db,
            reads: self.reads,
            proving: Proving::new(self.provers),
            ids: self.ids,
            random: self.random,
            clock: self.clock,
            wake: self.wake,
            obstacles: self.obstacles,
            metrics: self.metrics,
            config: self.config,
            callers: Cache::new(KEYS, KEY_LIFETIME),
            assets: Cache::new(1, ASSETS_LIFETIME),
            registrations,
            said: Mutex::default(),
        };
        (Arc::new(app), registering)
    }

    /// Serves until `shutdown`; then the requests in flight finish, each within its own deadline, and
    /// nothing new is taken.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn serve(self, listener: TcpListener, shutdown: CancellationToken) -> io::Result<()> {
        let listener = listener.tap_io(|stream| {
            // Small answers must not wait for more to come. Without it they are only later.
            let _ = stream.set_nodelay(true);
        });
        let stop = shutdown.clone();
        let (router, writing) = self.parts();
        let serving = axum::serve(listener, router)
            .with_graceful_shutdown(async move { stop.cancelled().await });
        tokio::select! {
            done = async { serving.await } => done,
            never = writing => match never {},
            () = async { shutdown.cancelled().await; tokio::time::sleep(GRACE).await } => Ok(()),
        }
    }
}
