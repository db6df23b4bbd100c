//! The daemon's HTTP API as a customer sees it.

use std::fmt::Display;

use alloy::primitives::U256;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Node, eventually};

/// One tenant's key.
#[derive(Clone)]
pub struct Api {
    client: reqwest::Client,
    pub base: String,
    pub key: String,
}

/// What came back, whatever it was.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub body: Value,
}

/// One asset of one wallet, in base units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    pub available: U256,
    pub pending: U256,
    pub frozen: U256,
    pub total: U256,
}

pub fn client() -> reqwest::Client {
    // There may be a provider already, of another test.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().timeout(super::PATIENCE).build().unwrap()
}

impl Answer {
    /// The body of an answer that must be a success.
    #[track_caller]
    pub fn ok(self) -> Value {
        assert!(self.status.is_success(), "{}: {}", self.status, self.body);
        self.body
    }

    /// An error of this status and code, as RFC 9457 has it.
    #[track_caller]
    pub fn is_error(&self, status: u16, code: &str) {
        assert_eq!(
            (self.status.as_u16(), &self.body["code"]),
            (status, &json!(code)),
            "{}",
            self.body
        );
        assert!(self.body["detail"].as_str().is_some_and(|detail| !detail.is_empty()));
    }
}

impl Api {
    pub fn new(base: String, key: String) -> Self {
        Self { client: client(), base, key }
    }

    pub async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let response = request.header("X-API-Key", &self.key).send().await.expect("an answer");
        let status = response.status();
        let text = response.text().await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Answer { status, body }
    }

    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base))
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    /// With an idempotency key that nobody used before.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_as(&format!("{:032x}", rand::random::<u128>()), path, body).await
    }

    pub async fn post_as(&self, idempotency_key: &str, path: &str, body: &Value) -> Answer {
        let request = self.request(Method::POST, path).header("Idempotency-Key", idempotency_key);
        self.send(request.json(body)).await
    }

    /// What `/readyz` says of a chain: whether it is ready, and why not.
    pub async fn readiness(&self, chain: &str) -> (u16, Value) {
        let answer = self.get("/readyz").await;
        let chains = answer.body["chains"].as_array().expect("chains").clone();
        let of_it = chains.into_iter().find(|entry| entry["chain"] == chain).expect("the chain");
        (answer.status.as_u16(), of_it)
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send(self.request(Method::DELETE, path)).await
    }

    /// Registers an address; it may still be pending.
    pub async fn register(&self, address: impl Display + Copy) -> Value {
        let body = json!({"address": address.to_string(), "chains": [super::CHAIN]});
        self.post("/v1/wallets", &body).await.ok()
    }

    /// Registers an address and waits until it is watched.
    pub async fn watch(&self, address: impl Display + Copy) -> Value {
        let wallet = self.register(address).await;
        self.active(address).await;
        wallet
    }

    pub async fn active(&self, address: impl Display + Copy) {
        eventually("the wallet's watch", || async {
            let wallet = self.get(&format!("/v1/wallets/{address}")).await.ok();
            (wallet["status"] == "active").then_some(())
        })
        .await;
    }

    pub async fn balances(&self, address: impl Display + Copy) -> Value {
        self.get(&format!("/v1/wallets/{address}/balances")).await.ok()
    }

    /// What the daemon says of an asset; zero where it says nothing.
    pub async fn balance(&self, address: impl Display + Copy, symbol: &str) -> Balance {
        balance_in(&self.balances(address).await, symbol)
    }

    /// Waits until the daemon has applied the node's head, and returns the balances there.
    pub async fn balances_at_head(&self, address: impl Display + Copy, node: &Node) -> Value {
        let head = node.head_hash().await;
        eventually("the node's head in the ledger", || async {
            let balances = self.balances(address).await;
            (balances["asOf"][0]["head"]["hash"] == json!(head)).then_some(balances)
        })
        .await
    }

    /// Waits until the daemon has applied the block of that height, or the slot.
    pub async fn followed_to(&self, number: u64) {
        eventually("the block in the ledger", || async {
            let chains = self.get("/v1/chains").await.ok();
            let head = chains["data"][0]["head"]["number"].as_u64();
            head.is_some_and(|head| head >= number).then_some(())
        })
        .await;
    }

    /// Waits until the daemon has settled what the node calls final, too: a step of its own after the head.
    pub async fn balances_settled(&self, address: impl Display + Copy, node: &Node) -> Value {
        let settled = node.block("finalized").await.unwrap().expect("a final block").hash;
        eventually("the node's final block in the ledger", || async {
            let balances = self.balances_at_head(address, node).await;
            (balances["asOf"][0]["settled"]["hash"] == json!(settled)).then_some(balances)
        })
        .await
    }

    /// The same for one asset.
    pub async fn balance_settled(
        &self,
        address: impl Display + Copy,
        symbol: &str,
        node: &Node,
    ) -> Balance {
        balance_in(&self.balances_settled(address, node).await, symbol)
    }

    /// What [`Api::balances_at_head`] says of one asset.
    pub async fn balance_at_head(
        &self,
        address: impl Display + Copy,
        symbol: &str,
        node: &Node,
    ) -> Balance {
        balance_in(&self.balances_at_head(address, node).await, symbol)
    }

    /// Waits until what the daemon says of an asset is so.
    pub async fn balance_becomes(
        &self,
        address: impl Display + Copy,
        symbol: &str,
        what: &str,
        test: impl Fn(&Balance) -> bool,
    ) -> Balance {
        eventually(what, || async {
            let balance = self.balance(address, symbol).await;
            test(&balance).then_some(balance)
        })
        .await
    }

    /// All transfers of a wallet, newest first as the API gives them, over all pages.
    pub async fn transfers(&self, address: impl Display + Copy) -> Vec<Value> {
        self.pages(&format!("/v1/wallets/{address}/transfers?limit=100"), "cursor").await
    }

    /// The tenant's whole event feed, oldest first.
    pub async fn events(&self) -> Vec<Value> {
        self.pages("/v1/events?limit=100", "after").await
    }

    async fn pages(&self, path: &str, parameter: &str) -> Vec<Value> {
        let mut all = Vec::new();
        let mut next = path.to_owned();
        loop {
            let page = self.get(&next).await.ok();
            let data = page["data"].as_array().expect("a page").clone();
            let empty = data.is_empty();
            all.extend(data);
            match page["nextCursor"].as_str() {
                Some(cursor) if !empty => next = format!("{path}&{parameter}={cursor}"),
                _ => return all,
            }
        }
    }

    /// Waits for an event of a type in the feed.
    pub async fn event(&self, kind: &str) -> Value {
        eventually(&format!("the event {kind}"), || async {
            self.events().await.into_iter().find(|event| event["type"] == kind)
        })
        .await
    }

    /// Waits for an event of a type about a transaction.
    pub async fn event_of(&self, kind: &str, transaction: &str) -> Value {
        eventually(&format!("the event {kind} of {transaction}"), || async {
            self.events().await.into_iter().find(|event| is_of(event, kind, transaction))
        })
        .await
    }
}

/// Whether an event of that type is about that transaction.
pub fn is_of(event: &Value, kind: &str, transaction: &str) -> bool {
    event["type"] == kind && event["data"]["transfer"]["txHash"] == transaction
}

/// An asset in an answer of the balances' route.
pub fn balance_in(balances: &Value, symbol: &str) -> Balance {
    let all = balances["balances"].as_array().expect("balances");
    let Some(entry) = all.iter().find(|entry| entry["asset"]["symbol"] == symbol) else {
        return Balance::default();
    };
    let raw = |bucket: &str| {
        let text = entry[bucket]["raw"].as_str().expect("an amount");
        U256::from_str_radix(text, 10).expect("decimal digits")
    };
    let balance = Balance {
        available: raw("available"),
        pending: raw("pending"),
        frozen: raw("frozen"),
        total: raw("total"),
    };
    assert_eq!(balance.available + balance.pending + balance.frozen, balance.total);
    balance
}
