//! For operators: is the process alive, is it ready, what does it measure.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{App, answer::Json};
use crate::{clock::Millis, config::ChainConfig, model::Cursor, store::chain};

pub(super) const READY: &str = "/readyz";
/// A store that answers later than this is not reachable.
const STORE_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug, Serialize, ToSchema)]
pub struct HealthView {
    #[schema(example = "ok")]
    pub status: &'static str,
}

/// Whether the daemon keeps up, and if not why.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReadyView {
    /// `ready` or `not_ready`.
    pub status: &'static str,
    /// `ok`, or why the store cannot be used.
    pub store: String,
    pub chains: Vec<ChainReadyView>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ChainReadyView {
    pub chain: String,
    pub ready: bool,
    pub reason: Option<String>,
}

/// The process is alive
#[utoipa::path(get, path = "/healthz", tag = "operation",
    responses((status = 200, body = HealthView)))]
pub(super) async fn healthz() -> Json<HealthView> {
    Json(HealthView { status: "ok" })
}

/// Why a chain is not ready; `None` if it is.
fn reason(config: &ChainConfig, cursor: Option<&Cursor>, now: Millis) -> Option<String> {
    let Some(cursor) = cursor else {
        return Some("no block was applied yet".to_owned());
    };
    if let Some(halted) = &cursor.halted {
        return Some(format!("halted: {halted}"));
    }
    let lag = now.since(cursor.head.time);
    (lag > config.lag_limit).then(|| {
        format!(
            "the newest applied block {} is {} s old, the limit is {} s",
            cursor.head.at.number,
            lag.as_secs(),
            config.lag_limit.as_secs()
        )
    })
}

/// The daemon keeps up
///
/// The store answers, and every configured chain goes on and lags no more than its limit.
#[utoipa::path(get, path = "/readyz", tag = "operation",
    responses((status = 200, body = ReadyView), (status = 503, body = ReadyView)))]
pub(super) async fn readyz(State(app): State<Arc<App>>) -> (StatusCode, Json<ReadyView>) {
    let read = async { chain::cursors(&mut app.db.read().await?.conn()).await };
    let (store, cursors) = match tokio::time::timeout(STORE_TIMEOUT, read).await {
        Ok(Ok(cursors)) => (None, cursors),
        // The reason may name hosts and files: it goes to the log of the daemon's own work, not out.
        Ok(Err(_)) => (Some("cannot be read".to_owned()), Vec::new()),
        Err(_) => (Some(format!("no answer within {} s", STORE_TIMEOUT.as_secs())), Vec::new()),
    };
    let now = app.clock.now();
    let chains: Vec<ChainReadyView> = app
        .config
        .chains
        .values()
        .map(|config| {
            let cursor = cursors.iter().find(|cursor| cursor.chain == config.name);
            let reason = match &store {
                Some(_) => Some("the store cannot be read".to_owned()),
                None => reason(config, cursor, now),
            };
            ChainReadyView { chain: config.name.to_string(), ready: reason.is_none(), reason }
        })
        .collect();
    let ready = store.is_none() && chains.iter().all(|chain| chain.ready);
    let (code, status) = if ready {
        (StatusCode::OK, "ready")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not_ready")
    };
    (code, Json(ReadyView { status, store: store.unwrap_or_else(|| "ok".to_owned()), chains }))
}

/// Metrics for Prometheus
#[utoipa::path(get, path = "/metrics", tag = "operation",
    responses((status = 200, body = String, content_type = "text/plain; version=0.0.4")))]
pub(super) async fn metrics(State(app): State<Arc<App>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], app.metrics.render())
}
