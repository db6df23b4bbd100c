//! Announcements over a websocket: how a connection is opened, and that another follows when it is lost.

use std::{convert::Infallible, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::{sync::watch, time::sleep};
use tokio_tungstenite::tungstenite::{
    client::IntoClientRequest as _,
    handshake::client::Request,
    http::{HeaderName, HeaderValue},
};

use super::{Decoder, SetupError};
use crate::{
    chain::{Announced, ChainName},
    config::{ChainConfig, EndpointConfig},
    retry::Backoff,
};

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Why a connection ended; never with a URL in it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(in crate::chain) struct Lost(pub String);

/// How a family subscribes.
#[async_trait]
pub(in crate::chain) trait Session: Send + Sync {
    /// One connection, from its opening to its loss. `heard` is set once it has announced something.
    async fn session(
        &self,
        endpoint: &EndpointConfig,
        heads: &watch::Sender<Option<Announced>>,
        heard: &mut bool,
    ) -> Result<Infallible, Lost>;
}

/// The endpoints of one chain that announce blocks.
pub(in crate::chain) struct Listener<S> {
    chain: ChainName,
    /// By descending weight; the next one is tried when one fails.
    endpoints: Vec<EndpointConfig>,
    session: S,
    decoder: Arc<Decoder>,
}

impl<S: Session> Listener<S> {
    /// `None` if no endpoint announces blocks.
    pub fn new(
        config: &ChainConfig,
        session: S,
        decoder: &Arc<Decoder>,
    ) -> Result<Option<Self>, SetupError> {
        let mut endpoints: Vec<_> =
            config.endpoints.iter().filter(|endpoint| endpoint.ws.is_some()).cloned().collect();
        if endpoints.is_empty() {
            return Ok(None);
        }
        endpoints.sort_by_key(|endpoint| std::cmp::Reverse(endpoint.weight));
        for endpoint in &endpoints {
            ws_request(endpoint)?;
        }
        let (chain, decoder) = (config.name.clone(), Arc::clone(decoder));
        Ok(Some(Self { chain, endpoints, session, decoder }))
    }

    /// Publishes announced blocks until it is dropped.
    pub async fn run(&self, heads: &watch::Sender<Option<Announced>>) {
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        // A failure is said once, until a subscription has worked again: polling goes on meanwhile.
        let mut said = false;
        for endpoint in self.endpoints.iter().cycle() {
            let mut heard = false;
            let session = self.session.session(endpoint, heads, &mut heard);
            let Lost(error) = match self.decoder.guarded("an announcement", session).await {
                Ok(Err(lost)) => lost,
                Ok(Ok(never)) => match never {},
                Err(failure) => Lost(failure.detail()),
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
                    "the announcements of new blocks broke off; the head is polled meanwhile"
                );
            }
            sleep(backoff.next_delay()).await;
        }
    }
}

/// The request that opens the socket, with the endpoint's headers.
///
/// # Errors
/// Without a URL, or with a URL or header that cannot be used; neither is repeated in the error.
pub(in crate::chain) fn ws_request(endpoint: &EndpointConfig) -> Result<Request, SetupError> {
    let wrong = |what: &str| SetupError::Endpoint {
        endpoint: endpoint.name.clone(),
        detail: format!("{what} of the websocket is not valid"),
    };
    let url = endpoint.ws.as_ref().ok_or_else(|| wrong("the URL"))?;
    let mut request = url.expose().into_client_request().map_err(|_| wrong("the URL"))?;
    for (name, value) in &endpoint.headers {
        let name = HeaderName::try_from(name.as_str()).map_err(|_| wrong("a header's name"))?;
        let value = HeaderValue::try_from(value.expose()).map_err(|_| wrong("a header's value"))?;
        request.headers_mut().insert(name, value);
    }
    Ok(request)
}
