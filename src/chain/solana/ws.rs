//! Announcements of new slots over a websocket: wake-ups only.
//!
//! A slot is announced when it begins, about one slot before its block is confirmed, and may stay without a
//! block: only its number is passed on, and the follower asks for what there is.

use std::{convert::Infallible, time::Duration};

use async_trait::async_trait;
use futures::StreamExt as _;
use solana_client::nonblocking::pubsub_client::{PubsubClient, PubsubClientError};
use tokio::{sync::watch, time::timeout};

use crate::{
    chain::{
        Announced, ChainName,
        rpc::{Lost, Session, ws_request},
    },
    config::{ChainConfig, EndpointConfig},
    metrics::Metrics,
};

/// After this long without a slot the subscription counts as lost; slots begin more than twice a second.
const QUIET: Duration = Duration::from_secs(20);

/// Subscribes at one endpoint of a chain.
pub(super) struct Subscription {
    chain: ChainName,
    metrics: Metrics,
}

impl From<PubsubClientError> for Lost {
    fn from(error: PubsubClientError) -> Self {
        // What the library says of URLs and of answers to the opening quotes what they are about.
        Self(match error {
            PubsubClientError::ConnectionError(_) | PubsubClientError::UrlParseError(_) => {
                "cannot connect".to_owned()
            }
            PubsubClientError::SubscribeFailed { .. } => "the node refused".to_owned(),
            _ => "the connection broke off".to_owned(),
        })
    }
}

#[async_trait]
impl Session for Subscription {
    async fn session(
        &self,
        endpoint: &EndpointConfig,
        heads: &watch::Sender<Option<Announced>>,
        heard: &mut bool,
    ) -> Result<Infallible, Lost> {
        let client = self.open(endpoint).await;
        let outcome = if client.is_ok() { "ok" } else { "error" };
        self.metrics
            .rpc_requests_total
            .with_label_values(&[self.chain.as_str(), &endpoint.name, "slotSubscribe", outcome])
            .inc();
        let client = client?;
        let (mut news, _unsubscribe) = timeout(QUIET, client.slot_subscribe())
            .await
            .map_err(|_| Lost("no answer in time".to_owned()))??;
        loop {
            match timeout(QUIET, news.next()).await {
                Ok(Some(slot)) => {
                    *heard = true;
                    heads.send_replace(Some(Announced { number: slot.slot, hash: None }));
                }
                Ok(None) => return Err(Lost("the node closed the connection".to_owned())),
                Err(_) => return Err(Lost("the node went quiet".to_owned())),
            }
        }
    }
}

impl Subscription {
    pub fn new(config: &ChainConfig, metrics: &Metrics) -> Self {
        Self { chain: config.name.clone(), metrics: metrics.clone() }
    }

    async fn open(&self, endpoint: &EndpointConfig) -> Result<PubsubClient, Lost> {
        let request = ws_request(endpoint).map_err(|error| Lost(error.to_string()))?;
        let opening = timeout(endpoint.connect_timeout, PubsubClient::new(request));
        Ok(opening.await.map_err(|_| Lost("no connection in time".to_owned()))??)
    }
}
