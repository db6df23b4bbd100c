//! What every request passes: its id, its deadline, its metrics, and the writing of problems.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Instant};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use futures::FutureExt as _;
use tracing::{debug, error, warn};

use super::{
    App,
    error::{Code, Problem},
};
use crate::id::RequestId;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const LONGEST_REQUEST_ID: usize = 128;
/// The label of requests that match no route.
const NO_ROUTE: &str = "none";

/// The client's own id if it has a harmless form, else a new one.
fn request_id(app: &App, headers: &HeaderMap) -> String {
    let harmless = |text: &&str| {
        (1..=LONGEST_REQUEST_ID).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.:-".contains(&b))
    };
    let given = headers.get(&REQUEST_ID).and_then(|value| value.to_str().ok()).filter(harmless);
    given.map_or_else(|| app.ids.next::<RequestId>().to_string(), ToOwned::to_owned)
}

pub(super) async fn around(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = request_id(&app, request.headers());
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or(NO_ROUTE, MatchedPath::as_str);
    let instance = request.uri().path().to_owned();

    let limit = app.config.server.request_timeout;
    let served = AssertUnwindSafe(next.run(request)).catch_unwind();
    let mut response = match tokio::time::timeout(limit, served).await {
        Ok(Ok(response)) => response,
        Ok(Err(panic)) => Problem::internal(panic_text(&*panic)).into_response(),
        Err(_) => Problem {
            cause: Some(format!("no answer within {} s", limit.as_secs_f64())),
            ..Problem::new(
                Code::Timeout,
                "The request was given up. Try again in a moment, with the same Idempotency-Key if the \
                 request has one.",
            )
        }
        .into_response(),
    };
    if response.status().is_client_error() || response.status().is_server_error() {
        response = write_problem(&app, response, &instance, route, &id);
    }
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    let metrics = &app.metrics;
    metrics.api_requests_total.with_label_values(&[route, response.status().as_str()]).inc();
    metrics
        .api_request_duration_seconds
        .with_label_values(&[route])
        .observe(started.elapsed().as_secs_f64());
    response
}

pub(super) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("the handler panicked: {}", text.unwrap_or("no message"))
}

/// Gives a failure its body. One that no handler made (of the HTTP library) gets a problem by its status.
fn write_problem(
    app: &App,
    response: Response,
    instance: &str,
    route: &str,
    request_id: &str,
) -> Response {
    let (mut parts, body) = response.into_parts();
    let is_report = parts.headers.contains_key(header::CONTENT_TYPE);
    let problem = match parts.extensions.remove::<Box<Problem>>() {
        Some(problem) => *problem,
        // An answer that says for itself what is wrong (readiness).
        None if is_report && route == super::health::READY => {
            return Response::from_parts(parts, body);
        }
        None => by_status(parts.status),
    };
    match (&problem.cause, problem.code) {
        (Some(cause), Code::Internal) => {
            error!(route, request_id, cause, "a request failed on our side");
        }
        (Some(cause), _) if problem.outage.is_some() && !app.says() => {
            debug!(route, request_id, cause, "a request could not be served now");
        }
        (Some(cause), _) => warn!(route, request_id, cause, "a request could not be served now"),
        (None, _) => {}
    }
    parts.status = problem.status;
    let headers = &mut parts.headers;
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    if problem.status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    if problem.status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    let body = serde_json::to_vec(&problem.body(instance, request_id)).unwrap_or_default();
    Response::from_parts(parts, body.into())
}

fn by_status(status: StatusCode) -> Problem {
    let (code, detail) = match status {
        StatusCode::NOT_FOUND => (Code::NotFound, "There is nothing here; see /openapi.json."),
        StatusCode::METHOD_NOT_ALLOWED => {
            (Code::MethodNotAllowed, "The header Allow lists the methods that this path takes.")
        }
        StatusCode::PAYLOAD_TOO_LARGE => (Code::PayloadTooLarge, "Send a smaller body."),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => {
            (Code::UnsupportedMediaType, "Send JSON with content-type: application/json.")
        }
        _ if status.is_server_error() => {
            return Problem {
                status,
                ..Problem::internal(format!("an answer of status {status}"))
            };
        }
        _ => (Code::InvalidRequest, "The request could not be read; see /openapi.json."),
    };
    Problem { status, ..Problem::new(code, detail) }
}
