//! Announcements of new blocks over a websocket: wake-ups only.
//!
//! A subscription loses what happens while it reconnects, so nothing is read from it but that there is
//! something to ask for.

use std::{convert::Infallible, time::Duration};

use alloy::primitives::B256;
use async_trait::async_trait;
use futures::{SinkExt as _, StreamExt as _};
use serde::Deserialize;
use tokio::{net::TcpStream, sync::watch, time::timeout};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async_with_config,
    tungstenite::{self, Bytes, Message, Utf8Bytes, protocol::WebSocketConfig},
};

use super::{caip2, json::Quantity};
use crate::{
    chain::{
        Announced, BlockHash, ChainName,
        rpc::{Lost, Session, wrong_chain, ws_request},
    },
    config::{ChainConfig, EndpointConfig},
    metrics::Metrics,
};

/// After this long without a word the node is asked whether it is still there.
const QUIET: Duration = Duration::from_secs(20);
/// How long an answer to that, or to a subscription, may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// After this many pings without a block between them the subscription counts as lost.
const MAX_PINGS: u32 = 6;
/// A header is about two kilobytes.
const MAX_MESSAGE_BYTES: usize = 1 << 20;

const CHAIN_ID: &str = r#"{"jsonrpc":"2.0","id":1,"method":"eth_chainId","params":[]}"#;
const SUBSCRIBE: &str =
    r#"{"jsonrpc":"2.0","id":2,"method":"eth_subscribe","params":["newHeads"]}"#;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Subscribes at one endpoint of a chain.
pub(super) struct Subscription {
    chain: ChainName,
    caip2: String,
    metrics: Metrics,
}

#[derive(Deserialize)]
struct Reply {
    id: Option<u64>,
    result: Option<serde_json::Value>,
    params: Option<Params>,
}

#[derive(Deserialize)]
struct Params {
    result: Head,
}

#[derive(Deserialize)]
struct Head {
    number: Quantity,
    hash: B256,
}

#[async_trait]
impl Session for Subscription {
    async fn session(
        &self,
        endpoint: &EndpointConfig,
        heads: &watch::Sender<Option<Announced>>,
        heard: &mut bool,
    ) -> Result<Infallible, Lost> {
        let opened = self.open(endpoint).await;
        let outcome = if opened.is_ok() { "ok" } else { "error" };
        self.metrics
            .rpc_requests_total
            .with_label_values(&[self.chain.as_str(), &endpoint.name, "eth_subscribe", outcome])
            .inc();
        let mut socket = opened?;
        let mut pings = 0;
        let mut waits_for_pong = false;
        loop {
            let patience = if waits_for_pong { PATIENCE } else { QUIET };
            let Ok(message) = timeout(patience, next(&mut socket)).await else {
                if waits_for_pong || pings == MAX_PINGS {
                    return Err(Lost("the node went quiet".to_owned()));
                }
                pings += 1;
                waits_for_pong = true;
                send(&mut socket, Message::Ping(Bytes::new())).await?;
                continue;
            };
            waits_for_pong = false;
            let Some(text) = message? else { continue };
            if let Some(announced) = announced(&text)? {
                pings = 0;
                *heard = true;
                heads.send_replace(Some(announced));
            }
        }
    }
}

impl Subscription {
    pub fn new(config: &ChainConfig, metrics: &Metrics) -> Self {
        Self { chain: config.name.clone(), caip2: config.caip2.clone(), metrics: metrics.clone() }
    }

    /// Connects, makes sure of the chain, and subscribes.
    async fn open(&self, endpoint: &EndpointConfig) -> Result<Socket, Lost> {
        let limits = WebSocketConfig::default()
            .max_message_size(Some(MAX_MESSAGE_BYTES))
            .max_frame_size(Some(MAX_MESSAGE_BYTES));
        let request = ws_request(endpoint).map_err(|error| Lost(error.to_string()))?;
        let connecting = connect_async_with_config(request, Some(limits), true);
        let (mut socket, _) = timeout(endpoint.connect_timeout, connecting)
            .await
            .map_err(|_| Lost("no connection in time".to_owned()))?
            .map_err(|error| lost(&error))?;
        let id = ask(&mut socket, 1, CHAIN_ID).await?;
        let id = serde_json::from_value::<Quantity>(id)
            .map_err(|_| Lost("eth_chainId gave no number".to_owned()))?;
        let found = caip2(id.0);
        if found != self.caip2 {
            return Err(Lost(wrong_chain(&endpoint.name, &found, &self.caip2)));
        }
        ask(&mut socket, 2, SUBSCRIBE).await?;
        Ok(socket)
    }
}

fn reply(text: &str) -> Result<Reply, Lost> {
    serde_json::from_str(text).map_err(|error| Lost(format!("an unexpected message: {error}")))
}

/// The block that a message announces, if it does.
pub(super) fn announced(text: &str) -> Result<Option<Announced>, Lost> {
    let head = reply(text)?.params.map(|Params { result }| result);
    Ok(head.map(|Head { number: Quantity(number), hash }| Announced {
        number,
        hash: Some(BlockHash(hash.0)),
    }))
}

/// Sends a call and waits for its result; whatever else comes before it is not needed.
async fn ask(socket: &mut Socket, id: u64, call: &str) -> Result<serde_json::Value, Lost> {
    send(socket, Message::Text(call.into())).await?;
    let answer = async {
        loop {
            let Some(text) = next(socket).await? else { continue };
            let reply = reply(&text)?;
            if reply.id == Some(id) {
                return reply.result.ok_or_else(|| Lost("the node refused".to_owned()));
            }
        }
    };
    timeout(PATIENCE, answer).await.map_err(|_| Lost("no answer in time".to_owned()))?
}

async fn send(socket: &mut Socket, message: Message) -> Result<(), Lost> {
    timeout(PATIENCE, socket.send(message))
        .await
        .map_err(|_| Lost("the node does not read".to_owned()))?
        .map_err(|error| lost(&error))
}

/// The next message; `None` for one without text, such as a pong.
async fn next(socket: &mut Socket) -> Result<Option<Utf8Bytes>, Lost> {
    match socket.next().await {
        Some(Ok(Message::Text(text))) => Ok(Some(text)),
        Some(Ok(Message::Close(_))) | None => {
            Err(Lost("the node closed the connection".to_owned()))
        }
        Some(Ok(_)) => Ok(None),
        Some(Err(error)) => Err(lost(&error)),
    }
}

/// The library's errors about URLs, and about answers to the opening, quote what they are about.
fn lost(error: &tungstenite::Error) -> Lost {
    Lost(match error {
        tungstenite::Error::Url(_) => "cannot connect".to_owned(),
        tungstenite::Error::Http(response) => format!("HTTP {}", response.status().as_u16()),
        error => error.to_string(),
    })
}
