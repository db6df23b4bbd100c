//! Receivers on loopback for the tests, and a dispatcher that runs.

use std::{io, sync::Arc, time::Duration};

use axum::{Router, body::Bytes, http::HeaderMap, response::IntoResponse, routing::post};
use parking_lot::Mutex;
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::Dispatcher;
use crate::{
    clock::Clock,
    config::WebhookConfig,
    delivery::AttemptResult,
    metrics::Metrics,
    random::Random,
    store::{StoreError, delivery::testing::TestStore},
    wake::Wake,
};

pub(super) const SECRET: &str = "whsec_Zmlyc3Qgc2VjcmV0IG9mIHRoZSBlbmRwb2ludA==";

pub(super) fn config() -> WebhookConfig {
    WebhookConfig {
        allow_http: true,
        allow_private_addresses: true,
        retry_schedule: vec![Duration::from_millis(100); 100],
        request_timeout: Duration::from_secs(2),
        max_in_flight: 32,
        max_in_flight_per_endpoint: 8,
        disable_after: Duration::from_hours(24),
    }
}

#[derive(Clone, Debug)]
pub(super) struct Got {
    pub headers: HeaderMap,
    pub body: String,
}

impl Got {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// A server that keeps what it got.
pub(super) struct Receiver {
    pub url: String,
    got: Arc<Mutex<Vec<Got>>>,
    server: JoinHandle<()>,
}

impl Receiver {
    pub async fn answering(status: u16) -> Self {
        let status = axum::http::StatusCode::from_u16(status).unwrap();
        Self::start(move |_| async move { status }).await
    }

    pub async fn start<F, A, R>(answer: F) -> Self
    where
        F: Fn(Got) -> A + Clone + Send + Sync + 'static,
        A: Future<Output = R> + Send,
        R: IntoResponse,
    {
        Self::at("127.0.0.1:0", answer).await
    }

    pub async fn at<F, A, R>(address: &str, answer: F) -> Self
    where
        F: Fn(Got) -> A + Clone + Send + Sync + 'static,
        A: Future<Output = R> + Send,
        R: IntoResponse,
    {
        let listener = TcpListener::bind(address).await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let got: Arc<Mutex<Vec<Got>>> = Arc::default();
        let kept = Arc::clone(&got);
        let handler = move |headers: HeaderMap, body: Bytes| {
            let body = String::from_utf8(body.to_vec()).unwrap();
            let one = Got { headers, body };
            kept.lock().push(one.clone());
            let answer = answer.clone();
            async move { answer(one).await.into_response() }
        };
        let router = Router::new().route("/hook", post(handler));
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, got, server }
    }

    pub fn got(&self) -> Vec<Got> {
        self.got.lock().clone()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// A server that does with a connection whatever it likes, once the request's first bytes are there.
pub(super) async fn raw_server<F, A>(serve: F) -> String
where
    F: Fn(TcpStream) -> A + Send + 'static,
    A: Future<Output = io::Result<()>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await;
            tokio::spawn(serve(stream));
        }
    });
    url
}

pub(super) struct Running {
    pub metrics: Metrics,
    pub wake: Wake,
    stop: CancellationToken,
    task: JoinHandle<Result<(), StoreError>>,
}

impl Running {
    pub fn start(store: &TestStore, clock: Clock, config: WebhookConfig) -> Self {
        let (metrics, wake) = (Metrics::new(), Wake::default());
        let (db, ids) = (store.db.clone(), store.ids.clone());
        let dispatcher = Dispatcher::new(
            db,
            ids,
            Random::seeded(1),
            clock,
            wake.clone(),
            metrics.clone(),
            config,
        )
        .unwrap();
        let stop = CancellationToken::new();
        let task = tokio::spawn(dispatcher.run(stop.clone()));
        Self { metrics, wake, stop, task }
    }

    pub fn attempts(&self, result: AttemptResult) -> u64 {
        self.metrics.webhook_attempts_total.with_label_values(&[result.as_str()]).get()
    }

    /// Stops it as the daemon does; gives how long that took.
    pub async fn stop(self) -> Duration {
        let started = Instant::now();
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
        started.elapsed()
    }
}

/// Waits until a promise is kept, within a limit.
pub(super) async fn eventually<A: Future<Output = bool>>(what: &str, mut check: impl FnMut() -> A) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !check().await {
        assert!(Instant::now() < deadline, "never: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}
