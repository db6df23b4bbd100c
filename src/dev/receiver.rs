//! A small consumer of webhooks: believes nothing whose signature the standard library does not verify.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use parking_lot::RwLock;
use serde_json::Value;
use standardwebhooks::Webhook;
use tokio::{net::TcpListener, sync::mpsc};
use tokio_util::sync::CancellationToken;

/// Events waiting to be printed; the sender is told to come again when they are too many.
const WAITING: usize = 1024;

/// What came in.
#[derive(Debug)]
pub enum Received {
    /// The signature is right; the event follows.
    Verified(Value),
    /// The signature is wrong, or the body is no event; the reason follows.
    Refused(String),
}

#[derive(Clone)]
struct Receiver {
    secret: Arc<RwLock<Option<Webhook>>>,
    events: mpsc::Sender<Received>,
}

/// The receiver's address and what it got; serves until the token is cancelled.
#[derive(Debug)]
pub struct Handle {
    pub url: String,
    pub events: mpsc::Receiver<Received>,
    secret: Secret,
    pub task: tokio::task::JoinHandle<std::io::Result<()>>,
}

#[derive(Clone)]
struct Secret(Arc<RwLock<Option<Webhook>>>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(secret)")
    }
}

impl Handle {
    /// Sets the secret that the endpoint's registration returned. Deliveries before that are refused and
    /// come again.
    ///
    /// # Errors
    /// If it is not `whsec_` and base64.
    pub fn set_secret(&self, secret: &str) -> anyhow::Result<()> {
        *self.secret.0.write() = Some(Webhook::new(secret)?);
        Ok(())
    }
}

/// Starts a receiver on a free port of the loopback interface.
///
/// # Errors
/// If there is no free port.
pub async fn start(shutdown: CancellationToken) -> anyhow::Result<Handle> {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    let url = format!("http://{}/hook", listener.local_addr()?);
    let (sender, events) = mpsc::channel(WAITING);
    let secret = Arc::new(RwLock::new(None));
    let state = Receiver { secret: Arc::clone(&secret), events: sender };
    let router = Router::new().route("/hook", post(receive)).with_state(state);
    let serve = axum::serve(listener, router)
        .with_graceful_shutdown(async move { shutdown.cancelled().await });
    let task = tokio::spawn(serve.into_future());
    Ok(Handle { url, events, secret: Secret(secret), task })
}

async fn receive(State(state): State<Receiver>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let verdict = match &*state.secret.read() {
        None => return StatusCode::SERVICE_UNAVAILABLE,
        Some(webhook) => webhook.verify(&body, &headers).map_err(|error| error.to_string()),
    };
    let received = verdict
        .and_then(|()| serde_json::from_slice(&body).map_err(|error| error.to_string()))
        .map_or_else(Received::Refused, Received::Verified);
    let answer = match received {
        Received::Verified(_) => StatusCode::NO_CONTENT,
        Received::Refused(_) => StatusCode::BAD_REQUEST,
    };
    match state.events.try_send(received) {
        Ok(()) => answer,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_what_is_signed_with_the_secret_is_believed() {
        let shutdown = CancellationToken::new();
        let mut handle = start(shutdown.clone()).await.expect("a port");
        let client = crate::dev::http_client().expect("a client");
        let body = r#"{"id":"evt_1","type":"test"}"#;
        let now = crate::clock::Clock::System.now().seconds();
        let webhook = Webhook::new("whsec_c2VjcmV0c2VjcmV0").expect("a secret");
        let signature = webhook.sign("evt_1", now, body.as_bytes()).expect("a signature");
        let send = |signature: String| {
            client
                .post(&handle.url)
                .header("webhook-id", "evt_1")
                .header("webhook-timestamp", now)
                .header("webhook-signature", signature)
                .body(body)
                .send()
        };
        let early = send(signature.clone()).await.expect("an answer");
        assert_eq!(early.status(), 503, "without a secret nothing is taken");
        handle.set_secret("whsec_c2VjcmV0c2VjcmV0").expect("a secret");
        assert_eq!(send(signature.clone()).await.expect("an answer").status(), 204);
        let forged = send(signature.replace("v1,", "v1,AAAA")).await.expect("an answer");
        assert_eq!(forged.status(), 400);
        assert!(matches!(handle.events.recv().await, Some(Received::Verified(_))));
        assert!(matches!(handle.events.recv().await, Some(Received::Refused(_))));
        shutdown.cancel();
        handle.task.await.expect("no panic").expect("served");
    }
}
