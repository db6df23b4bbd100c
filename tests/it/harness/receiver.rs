//! A consumer of webhooks in another language, which verifies with the reference library from npm.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

use super::{Api, eventually, npm_folder, own_port};

pub struct Receiver {
    port: u16,
    client: reqwest::Client,
    child: Option<Child>,
}

impl Receiver {
    pub async fn start() -> Self {
        let mut receiver = Self { port: own_port(), client: super::api::client(), child: None };
        receiver.begin().await;
        receiver
    }

    /// Starts the process (again), at the same address; it remembers nothing of before.
    pub async fn begin(&mut self) {
        let mut child = Command::new("node")
            .arg(npm_folder().join("receiver.js"))
            .arg(self.port.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("node is installed");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("listening"));
        self.child = Some(child);
    }

    /// Nobody listens any more.
    pub async fn end(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().await.unwrap();
        }
    }

    pub fn url(&self, name: &str) -> String {
        format!("http://127.0.0.1:{}/hook/{name}", self.port)
    }

    /// Registers the hook `name` for these events and lets it verify with the secret; returns the endpoint.
    pub async fn subscribe(&self, api: &Api, name: &str, events: &[&str]) -> Value {
        let endpoint = api
            .post("/v1/webhook-endpoints", &json!({"url": self.url(name), "events": events}))
            .await
            .ok();
        self.control(name, &json!({"secret": endpoint["secret"]})).await;
        endpoint
    }

    /// Sets `secret`, `status` (what it answers), `delayMs` or `refuseEvery` (of so many one is answered with 503).
    pub async fn control(&self, name: &str, settings: &Value) {
        let url = format!("http://127.0.0.1:{}/control/{name}", self.port);
        let response = self.client.put(url).json(settings).send().await.unwrap();
        assert!(response.status().is_success());
    }

    /// All deliveries so far, verified or not.
    pub async fn seen(&self, name: &str) -> Vec<Value> {
        let url = format!("http://127.0.0.1:{}/seen/{name}", self.port);
        self.client.get(url).send().await.unwrap().json().await.unwrap()
    }

    /// The verified events so far, in the order of arrival. An unverified delivery fails the test.
    pub async fn events(&self, name: &str) -> Vec<Value> {
        let seen = self.seen(name).await;
        for delivery in &seen {
            assert!(delivery["error"].is_null(), "a signature was wrong: {delivery}");
        }
        seen.into_iter()
            .filter(|delivery| delivery["verified"] == true)
            .map(|delivery| delivery["event"].clone())
            .collect()
    }

    /// Waits for a verified event of a type.
    pub async fn event(&self, name: &str, kind: &str) -> Value {
        eventually(&format!("the webhook {kind}"), || async {
            self.events(name).await.into_iter().find(|event| event["type"] == kind)
        })
        .await
    }

    /// Waits for a verified event of a type about a transaction.
    pub async fn event_of(&self, name: &str, kind: &str, transaction: &str) -> Value {
        eventually(&format!("the webhook {kind} of {transaction}"), || async {
            let events = self.events(name).await;
            events.into_iter().find(|event| super::api::is_of(event, kind, transaction))
        })
        .await
    }
}
