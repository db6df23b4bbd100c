//! A node that answers by a script.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderValue, Response, StatusCode},
};
use parking_lot::Mutex;
use serde_json::{Value, json};

/// The result of a call, as if it had been in an answer.
pub(in crate::chain) fn answer_of(json: &[u8]) -> super::Answer {
    super::Answer(json.to_vec().into())
}

/// What the script says to one call.
pub(crate) enum Reply {
    Result(Value),
    Error(i64, String),
    /// The whole HTTP answer, whatever else was asked in the same batch.
    Http(u16, String),
    /// Too many requests, with these headers.
    Limited(&'static [(&'static str, &'static str)]),
    /// No answer at all.
    Silence,
}

impl Reply {
    pub fn error(code: i64, message: impl Into<String>) -> Self {
        Self::Error(code, message.into())
    }
}

type Script = dyn Fn(&str, &Value) -> Reply + Send + Sync;

#[derive(Clone)]
pub(crate) struct Node {
    pub url: String,
    /// The methods that were called.
    asked: Arc<Mutex<Vec<String>>>,
    /// The calls in each request.
    requests: Arc<Mutex<Vec<usize>>>,
    /// Calls that a request may have.
    max_batch: Arc<AtomicUsize>,
    /// Calls of a request that is answered at all.
    silent_above: Arc<AtomicUsize>,
    script: Arc<Mutex<Arc<Script>>>,
    /// How long each answer takes.
    delay: Arc<Mutex<Duration>>,
}

impl Node {
    pub async fn start(script: impl Fn(&str, &Value) -> Reply + Send + Sync + 'static) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let node = Self {
            url: format!("http://{}/secret-key", listener.local_addr().expect("an address")),
            asked: Arc::default(),
            requests: Arc::default(),
            max_batch: Arc::new(AtomicUsize::new(usize::MAX)),
            silent_above: Arc::new(AtomicUsize::new(usize::MAX)),
            script: Arc::new(Mutex::new(Arc::new(script))),
            delay: Arc::default(),
        };
        let app = Router::new().fallback(answer).with_state(node.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        node
    }

    pub fn change(&self, script: impl Fn(&str, &Value) -> Reply + Send + Sync + 'static) {
        *self.script.lock() = Arc::new(script);
    }

    /// Each request is answered after so long, from now on.
    pub fn delay(&self, delay: Duration) {
        *self.delay.lock() = delay;
    }

    /// Requests with more calls are refused as a whole, as geth does it.
    pub fn limit_batches(&self, calls: usize) {
        self.max_batch.store(calls, Ordering::Relaxed);
    }

    /// Requests with more calls are not answered, from now on.
    pub fn silence_above(&self, calls: usize) {
        self.silent_above.store(calls, Ordering::Relaxed);
    }

    pub fn times(&self, method: &str) -> usize {
        self.asked.lock().iter().filter(|asked| *asked == method).count()
    }

    pub fn requests(&self) -> Vec<usize> {
        self.requests.lock().clone()
    }
}

async fn answer(State(node): State<Node>, body: String) -> Response<Body> {
    let request: Value = serde_json::from_str(&body).expect("a JSON request");
    let calls = match &request {
        Value::Array(calls) => calls.clone(),
        call => vec![call.clone()],
    };
    node.requests.lock().push(calls.len());
    let delay = *node.delay.lock();
    tokio::time::sleep(delay).await;
    if calls.len() > node.silent_above.load(Ordering::Relaxed) {
        std::future::pending::<()>().await;
    }
    if calls.len() > node.max_batch.load(Ordering::Relaxed) {
        let error = json!({"code": -32600, "message": "batch too large"});
        return http(200, json!({"jsonrpc": "2.0", "id": null, "error": error}).to_string());
    }
    let script = node.script.lock().clone();
    let mut answers = Vec::new();
    for call in &calls {
        let method = call["method"].as_str().expect("a method");
        node.asked.lock().push(method.to_owned());
        match script(method, &call["params"]) {
            Reply::Result(result) => {
                answers.push(json!({"jsonrpc": "2.0", "id": call["id"], "result": result}));
            }
            Reply::Error(code, message) => answers.push(json!({
                "jsonrpc": "2.0", "id": call["id"], "error": {"code": code, "message": message},
            })),
            Reply::Http(status, body) => return http(status, body),
            Reply::Limited(headers) => {
                let mut response = http(429, String::new());
                for (name, value) in headers {
                    response.headers_mut().insert(*name, HeaderValue::from_static(value));
                }
                return response;
            }
            Reply::Silence => std::future::pending().await,
        }
    }
    // The order of a batch's answers is the node's own affair.
    answers.reverse();
    let body = if request.is_array() { Value::Array(answers) } else { answers.remove(0) };
    http(200, body.to_string())
}

fn http(status: u16, body: String) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    response
}
