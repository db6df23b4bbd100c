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
use crate::{
    clock::Millis,
    config::{ChainConfig, Config},
    model::Cursor,
    store::{StoreError, chain, outage::Cause},
};

pub(super) const READY: &str = "/readyz";
/// A store that answers later than this is not reachable.
const STORE_TIMEOUT: Duration = Duration::from_secs(2);
const UNREAD: &str = "the store cannot be read";

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
    /// `ok`, or why the store cannot be read or written.
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
fn reason(
    config: &ChainConfig,
    cursor: Option<&Cursor>,
    obstacle: Option<String>,
    now: Millis,
) -> Option<String> {
    if obstacle.is_some() {
        return obstacle;
    }
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
/// The store can be read and written, and every configured chain goes on and lags no more than its limit. A chain whose
/// endpoints serve another one, or whose tokens have other decimals than configured, is not ready at once.
#[utoipa::path(get, path = "/readyz", tag = "operation",
    responses((status = 200, body = ReadyView), (status = 503, body = ReadyView)))]
pub(super) async fn readyz(State(app): State<Arc<App>>) -> (StatusCode, Json<ReadyView>) {
    let read = async {
        let trouble = app.db.trouble().await?;
        Ok::<_, StoreError>((trouble, chain::cursors(&mut app.db.read().await?.conn()).await?))
    };
    // The details may name hosts and files: they go to the log of the daemon's own work, not out.
    let (store, cursors) = match tokio::time::timeout(STORE_TIMEOUT, read).await {
        Ok(Ok((trouble, cursors))) => (trouble.map(Cause::as_str), Some(cursors)),
        Ok(Err(error)) => (Some(error.outage().unwrap_or(Cause::Other).as_str()), None),
        Err(_) => (Some(Cause::Silent.as_str()), None),
    };
    let now = app.clock.now();
    let chains: Vec<ChainReadyView> = app
        .config
        .chains
        .values()
        .map(|config| {
            let reason = match &cursors {
                Some(cursors) => {
                    let cursor = cursors.iter().find(|cursor| cursor.chain == config.name);
                    reason(config, cursor, app.obstacles.of(&config.name), now)
                }
                None => Some(UNREAD.to_owned()),
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
    (code, Json(ReadyView { status, store: store.unwrap_or("ok").to_owned(), chains }))
}

impl ReadyView {
    /// Before the store was ever reached.
    pub(super) fn waiting(config: &Config, cause: Cause) -> Self {
        let chain = |chain: &ChainConfig| ChainReadyView {
            chain: chain.name.to_string(),
            ready: false,
            reason: Some(UNREAD.to_owned()),
        };
        let chains = config.chains.values().map(chain).collect();
        Self { status: "not_ready", store: cause.as_str().to_owned(), chains }
    }
}

/// Metrics for Prometheus
#[utoipa::path(get, path = "/metrics", tag = "operation",
    responses((status = 200, body = String, content_type = "text/plain; version=0.0.4")))]
pub(super) async fn metrics(State(app): State<Arc<App>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], app.metrics.render())
}
