//! A door in front of a node that counts what goes through it.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::post,
};
use tokio_util::task::AbortOnDropHandle;

use crate::serve::serve;

/// The methods that ask about the chain's state.
const ABOUT_STATE: &[&str] = &["eth_call", "eth_getBalance", "eth_getProof", "eth_getStorageAt"];

pub struct Proxy {
    pub url: String,
    door: Arc<Door>,
    _task: AbortOnDropHandle<()>,
}

struct Door {
    client: reqwest::Client,
    node: String,
    about_state: AtomicU64,
}

impl Proxy {
    pub async fn start(node: &str) -> anyhow::Result<Self> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().build()?;
        let about_state = AtomicU64::new(0);
        let door = Arc::new(Door { client, node: node.to_owned(), about_state });
        let router = Router::new().route("/", post(pass)).with_state(Arc::clone(&door));
        let (url, task) = serve(router).await?;
        Ok(Self { url, door, _task: task })
    }

    /// HTTP requests with at least one call about the chain's state in them.
    pub fn about_state(&self) -> u64 {
        self.door.about_state.load(Ordering::SeqCst)
    }
}

async fn pass(State(door): State<Arc<Door>>, body: Bytes) -> Response {
    let text = String::from_utf8_lossy(&body);
    if ABOUT_STATE.iter().any(|method| text.contains(&format!("\"{method}\""))) {
        door.about_state.fetch_add(1, Ordering::SeqCst);
    }
    match door.forward(&body).await {
        Ok(answer) => ([(header::CONTENT_TYPE, "application/json")], answer).into_response(),
        Err(_) => StatusCode::BAD_GATEWAY.into_response(),
    }
}

impl Door {
    async fn forward(&self, body: &Bytes) -> reqwest::Result<Bytes> {
        let request = self.client.post(&self.node).header("content-type", "application/json");
        request.body(body.clone()).send().await?.bytes().await
    }
}
