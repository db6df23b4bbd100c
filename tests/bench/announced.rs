//! New heads as a node announces them, and when.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use futures::{SinkExt as _, StreamExt as _};
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

const PATIENCE: Duration = Duration::from_secs(20);

/// A subscription beside the daemon's own.
pub struct Heads(WebSocketStream<MaybeTlsStream<TcpStream>>);

#[derive(Deserialize)]
struct Notice {
    params: Params,
}

#[derive(Deserialize)]
struct Params {
    result: Header,
}

#[derive(Deserialize)]
struct Header {
    number: String,
}

impl Heads {
    pub async fn subscribe(url: &str) -> anyhow::Result<Self> {
        let (mut socket, _) = connect_async(url).await?;
        let ask = r#"{"jsonrpc":"2.0","id":1,"method":"eth_subscribe","params":["newHeads"]}"#;
        socket.send(Message::text(ask)).await?;
        socket.next().await.context("no answer to the subscription")??;
        Ok(Self(socket))
    }

    /// When this block was announced.
    pub async fn announced(&mut self, number: u64) -> anyhow::Result<Instant> {
        let waiting = async {
            while let Some(message) = self.0.next().await {
                let Message::Text(text) = message? else { continue };
                let at = Instant::now();
                let Ok(notice) = serde_json::from_str::<Notice>(&text) else { continue };
                if notice.params.result.number == format!("{number:#x}") {
                    return Ok(at);
                }
            }
            bail!("the node ended the subscription")
        };
        tokio::time::timeout(PATIENCE, waiting)
            .await
            .with_context(|| format!("block {number} was not announced"))?
    }
}
