//! The daemon's HTTP API, as a customer uses it.

use anyhow::{Context as _, bail};
use serde_json::Value;

/// A customer with a key.
#[derive(Clone, Debug)]
pub(super) struct Customer {
    client: reqwest::Client,
    base: String,
    key: String,
}

impl Customer {
    pub(super) fn new(base: String, key: String) -> anyhow::Result<Self> {
        Ok(Self { client: super::http_client()?, base, key })
    }

    pub(super) fn base(&self) -> &str {
        &self.base
    }

    pub(super) fn key(&self) -> &str {
        &self.key
    }

    /// Posts with an idempotency key and returns the answer, which must be a success.
    pub(super) async fn post(
        &self,
        path: &str,
        idempotency_key: &str,
        body: &Value,
    ) -> anyhow::Result<Value> {
        let request = self.client.post(format!("{}{path}", self.base)).json(body);
        self.send(path, request.header("Idempotency-Key", idempotency_key)).await
    }

    pub(super) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.send(path, self.client.get(format!("{}{path}", self.base))).await
    }

    async fn send(&self, path: &str, request: reqwest::RequestBuilder) -> anyhow::Result<Value> {
        let response = request
            .header("X-API-Key", &self.key)
            .send()
            .await
            .with_context(|| format!("{path}: the daemon does not answer"))?;
        let status = response.status();
        let body = response.text().await?;
        if !status.is_success() {
            bail!("{path}: {status}: {body}");
        }
        serde_json::from_str(&body).with_context(|| format!("{path}: not JSON: {body}"))
    }
}
