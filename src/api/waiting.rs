//! What is answered while the daemon waits for its store to be there for the first time.

use std::{io, sync::Arc, time::Duration};

use axum::{
    Router,
    http::{HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse as _, Response},
    routing::get,
};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{
    answer::Json,
    error::{Code, Problem},
    health::{READY, ReadyView, healthz},
};
use crate::{
    config::Config,
    id::{Ids, RequestId},
    store::outage::Cause,
};

/// How long a request under way may take when the store is there.
const GRACE: Duration = Duration::from_secs(1);

/// Answers that the process lives, and for what it waits, until `shutdown`.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    config: Arc<Config>,
    ids: Ids,
    cause: Arc<Mutex<Cause>>,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let readyz = async move || {
        (StatusCode::SERVICE_UNAVAILABLE, Json(ReadyView::waiting(&config, *cause.lock())))
    };
    let router = Router::new()
        .route("/healthz", get(healthz))
        .route(READY, get(readyz))
        .fallback(async move |uri: Uri| unavailable(uri.path(), &ids));
    let stop = shutdown.clone();
    let serving =
        axum::serve(listener, router).with_graceful_shutdown(async move { stop.cancelled().await });
    tokio::select! {
        done = async { serving.await } => done,
        () = async { shutdown.cancelled().await; tokio::time::sleep(GRACE).await } => Ok(()),
    }
}

fn unavailable(path: &str, ids: &Ids) -> Response {
    let problem = Problem::new(
        Code::Unavailable,
        "The store cannot answer now. Try again in a moment, with the same Idempotency-Key if the request has one.",
    );
    let id: RequestId = ids.next();
    let body = serde_json::to_vec(&problem.body(path, &id.to_string())).unwrap_or_default();
    let mut response = (problem.status, body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}
