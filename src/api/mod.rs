//! HTTP: one file per resource. Reads take a connection or a snapshot; writes are one transaction each
//! (`write`). Everything here is filtered by the caller's tenant, and nothing here knows a chain family.

mod asset;
mod auth;
mod balance;
mod cache;
mod chain;
mod delivery;
mod endpoint;
mod error;
mod event;
mod health;
pub mod key;
mod layer;
mod locator;
mod openapi;
mod ownership;
mod page;
mod request;
pub mod safe_deployment;
#[cfg(test)]
mod tests;
mod transfer;
pub mod wallet;
mod write;

use std::{collections::BTreeMap, io, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::DefaultBodyLimit,
    middleware,
    routing::{MethodRouter, get, post},
    serve::ListenerExt as _,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use self::error::{Code, FieldError, ProblemBody};
use self::{asset::AssetIndex, auth::Caller, cache::Cache, error::Problem};
use crate::{
    chain::ChainName,
    clock::{Clock, Millis},
    config::{ChainConfig, Config},
    id::{Ids, TenantId},
    metrics::Metrics,
    store::Db,
    wake::Wake,
};

/// How long a key that was found valid is believed: a revoked key works that much longer at most.
pub const KEY_LIFETIME: Duration = Duration::from_secs(5);
const KEYS: usize = 10_000;
/// Assets change when a daemon starts with another configuration.
const ASSETS_LIFETIME: Duration = Duration::from_secs(10);
/// Counting a tenant's watches reads an index range as long as they are many.
const COUNTS_LIFETIME: Duration = Duration::from_secs(30);
const COUNTS: usize = 10_000;
/// How long a stop waits for requests under way; whoever has not sent his whole request by then is cut off.
const GRACE: Duration = Duration::from_secs(5);

/// What the HTTP side of the daemon works with.
#[derive(Clone, Debug)]
pub struct Api {
    pub db: Db,
    pub ids: Ids,
    pub clock: Clock,
    pub wake: Wake,
    pub metrics: Metrics,
    pub config: Arc<Config>,
}

/// [`Api`] and what it remembers.
struct App {
    db: Db,
    ids: Ids,
    clock: Clock,
    wake: Wake,
    metrics: Metrics,
    config: Arc<Config>,
    callers: Cache<[u8; 32], Caller>,
    assets: Cache<(), Arc<AssetIndex>>,
    counts: Cache<TenantId, Arc<BTreeMap<ChainName, i64>>>,
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

    /// The clock's time before now by `Millis`, in seconds, for how far a chain lags.
    fn lag_seconds(&self, head_time: Millis) -> f64 {
        self.clock.now().since(head_time).as_secs_f64()
    }
}

/// Every route, once: the router and the test of the `OpenAPI` document both read this list.
fn routes() -> Vec<(&'static str, MethodRouter<Arc<App>>)> {
    vec![
        ("/v1/wallets", get(wallet::list).post(wallet::create)),
        ("/v1/wallets/{locator}", get(wallet::read).patch(wallet::update).delete(wallet::delete)),
        ("/v1/wallets/{locator}/balances", get(balance::read)),
        ("/v1/wallets/{locator}/transfers", get(transfer::list)),
        ("/v1/safe-deployments", get(safe_deployment::list).post(safe_deployment::create)),
        ("/v1/safe-deployments/{id}", get(safe_deployment::read)),
        ("/v1/ownership/challenges", post(ownership::create)),
        ("/v1/ownership/challenges/{id}/verify", post(ownership::verify)),
        ("/v1/assets", get(asset::list)),
        ("/v1/chains", get(chain::list)),
        ("/v1/events", get(event::list)),
        ("/v1/webhook-endpoints", get(endpoint::list).post(endpoint::create)),
        ("/v1/webhook-endpoints/{id}", get(endpoint::read).delete(endpoint::delete)),
        ("/v1/webhook-endpoints/{id}/deliveries", get(delivery::list)),
        ("/v1/webhook-endpoints/{id}/test", post(delivery::test)),
        ("/v1/webhook-endpoints/{id}/replay", post(delivery::replay)),
        ("/v1/webhook-endpoints/{id}/rotate-secret", post(endpoint::rotate_secret)),
        ("/healthz", get(health::healthz)),
        (health::READY, get(health::readyz)),
        ("/metrics", get(health::metrics)),
        ("/openapi.json", get(openapi::document)),
    ]
}

impl Api {
    pub fn router(self) -> Router {
        let max_body_bytes = self.config.server.max_body_bytes;
        let app = Arc::new(App {
            db: self.db,
            ids: self.ids,
            clock: self.clock,
            wake: self.wake,
            metrics: self.metrics,
            config: self.config,
            callers: Cache::new(KEYS, KEY_LIFETIME),
            assets: Cache::new(1, ASSETS_LIFETIME),
            counts: Cache::new(COUNTS, COUNTS_LIFETIME),
        });
        let router = routes()
            .into_iter()
            .fold(Router::new(), |router, (path, methods)| router.route(path, methods));
        router
            .fallback(async || {
                Problem::new(Code::NotFound, "There is nothing here; see /openapi.json.")
            })
            .layer(DefaultBodyLimit::max(max_body_bytes))
            .layer(middleware::from_fn_with_state(Arc::clone(&app), layer::around))
            .with_state(app)
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
        let serving = axum::serve(listener, self.router())
            .with_graceful_shutdown(async move { stop.cancelled().await });
        tokio::select! {
            done = async { serving.await } => done,
            () = async { shutdown.cancelled().await; tokio::time::sleep(GRACE).await } => Ok(()),
        }
    }
}
