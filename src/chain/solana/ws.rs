//! Announcements of new slots over a websocket: wake-ups only.
//!
//! A slot is announced when it begins, about one slot before its block is confirmed, and may stay without a
//! block: only its number is passed on, and the follower asks for what there is.

use std::{convert::Infallible, time::Duration};

use futures::StreamExt as _;
use solana_client::nonblocking::pubsub_client::{PubsubClient, PubsubClientError};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use crate::{
    chain::{
        Announced, ChainName,
        rpc::{SetupError, ws_request},
    },
    config::{ChainConfig, EndpointConfig},
    metrics::Metrics,
    retry::Backoff,
};

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// After this long without a slot the subscription counts as lost; slots begin more than twice a second.
const QUIET: Duration = Duration::from_secs(20);

/// The endpoints of one chain that announce slots.
pub(super) struct Listener {
    chain: ChainName,
    /// By descending weight; the next one is tried when one fails.
    endpoints: Vec<EndpointConfig>,
    metrics: Metrics,
}

/// Why a connection ended; never with a URL in it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Lost(String);

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

impl Listener {
    /// `None` if no endpoint announces slots.
    pub fn new(config: &ChainConfig, metrics: &Metrics) -> Result<Option<Self>, SetupError> {
        let mut endpoints: Vec<_> =
            config.endpoints.iter().filter(|endpoint| endpoint.ws.is_some()).cloned().collect();
        if endpoints.is_empty() {
            return Ok(None);
        }
        endpoints.sort_by_key(|endpoint| std::cmp::Reverse(endpoint.weight));
        for endpoint in &endpoints {
            ws_request(endpoint)?;
        }
        Ok(Some(Self { chain: config.name.clone(), endpoints, metrics: metrics.clone() }))
    }

    /// Publishes announced slots until it is dropped.
    pub async fn run(&self, slots: &watch::Sender<Option<Announced>>) {
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        // A failure is said once, until a subscription has worked again: polling goes on meanwhile.
        let mut said = false;
        for endpoint in self.endpoints.iter().cycle() {
            let mut heard = false;
            let Lost(error) = match self.session(endpoint, slots, &mut heard).await {
                Err(lost) => lost,
                Ok(never) => match never {},
            };
            if heard {
                backoff.reset();
                said = false;
            }
            let endpoint = &endpoint.name;
            if said {
                tracing::debug!(chain = %self.chain, endpoint, error, "no announcements");
            } else {
                said = true;
                tracing::warn!(
                    chain = %self.chain,
                    endpoint,
                    error,
                    "the announcements of new slots broke off; the head is polled meanwhile"
                );
            }
            sleep(backoff.next_delay()).await;
        }
    }

    /// One connection, from its opening to its loss.
    async fn session(
        &self,
        endpoint: &EndpointConfig,
        slots: &watch::Sender<Option<Announced>>,
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
                    slots.send_replace(Some(Announced { number: slot.slot, hash: None }));
                }
                Ok(None) => return Err(Lost("the node closed the connection".to_owned())),
                Err(_) => return Err(Lost("the node went quiet".to_owned())),
            }
        }
    }

    async fn open(&self, endpoint: &EndpointConfig) -> Result<PubsubClient, Lost> {
        let request = ws_request(endpoint).map_err(|error| Lost(error.to_string()))?;
        let opening = timeout(endpoint.connect_timeout, PubsubClient::new(request));
        Ok(opening.await.map_err(|_| Lost("no connection in time".to_owned()))??)
    }
}
