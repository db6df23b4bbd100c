//! One attempt: sign, post, and see what comes back within the deadline.

use std::{error::Error as StdError, io, time::Duration};

use reqwest::{
    Client, Response, Url,
    header::{CONTENT_TYPE, RETRY_AFTER},
    redirect,
};
use standardwebhooks::{
    HEADER_WEBHOOK_ID, HEADER_WEBHOOK_SIGNATURE, HEADER_WEBHOOK_TIMESTAMP, Webhook,
};
use tokio::time::{Instant, timeout_at};

use super::{
    decide::{Outcome, retry_after},
    guard::{PublicResolver, ResolveError, url_allowed},
};
use crate::{clock::Millis, config::WebhookConfig, id::EventId, store::delivery::Letter};

const USER_AGENT: &str = concat!("tidemark/", env!("CARGO_PKG_VERSION"));
/// Of an answer's body, which nobody reads, so much is taken to keep the connection usable.
const MAX_BODY: usize = 4096;
/// And so long it is waited for: the answer's head has said everything.
const MAX_BODY_WAIT: Duration = Duration::from_secs(1);
/// A connection that nobody used for so long is closed.
const IDLE: Duration = Duration::from_secs(60);

/// Posts letters.
#[derive(Debug)]
pub struct Sender {
    client: Client,
    config: WebhookConfig,
}

/// What came of a letter, and how long that took.
#[derive(Debug)]
pub struct Sent {
    pub outcome: Outcome,
    pub latency: Duration,
}

impl Sender {
    /// # Errors
    /// When the HTTP client cannot be made: no trusted certificates, no TLS provider.
    pub fn new(config: WebhookConfig) -> Result<Self, reqwest::Error> {
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            // Losing a race against another installer leaves its provider, which is as good.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let client = Client::builder()
            .user_agent(USER_AGENT)
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .no_gzip()
            .referer(false)
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(config.max_in_flight_per_endpoint)
            .dns_resolver(PublicResolver {
                allow_private_addresses: config.allow_private_addresses,
            })
            .build()?;
        Ok(Self { client, config })
    }

    /// Sends one letter; takes no longer than the configured deadline.
    pub async fn send(&self, event: EventId, letter: Letter, now: Millis) -> Sent {
        let started = Instant::now();
        let outcome = self.outcome(event, letter, now, started).await;
        Sent { outcome, latency: started.elapsed() }
    }

    async fn outcome(
        &self,
        event: EventId,
        letter: Letter,
        now: Millis,
        started: Instant,
    ) -> Outcome {
        let Ok(url) = Url::parse(&letter.url) else {
            return Outcome::Refused("the URL cannot be read".to_owned());
        };
        if let Err(why) = url_allowed(&url, &self.config) {
            return Outcome::Refused(why);
        }
        let id = event.to_string();
        let signature = signatures(&letter, &id, now);
        if signature.is_empty() {
            return Outcome::Refused("the endpoint has no usable secret".to_owned());
        }
        let deadline = started + self.config.request_timeout;
        let request = self
            .client
            .post(url)
            .header(CONTENT_TYPE, "application/json")
            .header(HEADER_WEBHOOK_ID, id)
            .header(HEADER_WEBHOOK_TIMESTAMP, now.seconds().to_string())
            .header(HEADER_WEBHOOK_SIGNATURE, signature)
            .body(letter.body);
        let response = match timeout_at(deadline, request.send()).await {
            Err(_) => return Outcome::TimedOut,
            Ok(Err(error)) => return failure(&error),
            Ok(Ok(response)) => response,
        };
        let status = response.status().as_u16();
        let wish = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = wish.and_then(|wish| retry_after(wish, now));
        let _ = timeout_at(deadline.min(Instant::now() + MAX_BODY_WAIT), drain(response)).await;
        Outcome::Answered { status, retry_after }
    }
}

/// One signature per secret that can be used, separated by spaces.
fn signatures(letter: &Letter, id: &str, now: Millis) -> String {
    let sign = |secret: &String| {
        Webhook::new(secret).ok()?.sign(id, now.seconds(), letter.body.as_bytes()).ok()
    };
    letter.secrets.iter().filter_map(sign).collect::<Vec<_>>().join(" ")
}

async fn drain(mut response: Response) {
    let mut left = MAX_BODY;
    while let Ok(Some(chunk)) = response.chunk().await {
        left = left.saturating_sub(chunk.len());
        if left == 0 {
            return;
        }
    }
}

/// What an error of the client means, found in the chain of its causes. Its text is never passed on, for it
/// may hold the URL.
fn failure(error: &reqwest::Error) -> Outcome {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(found) = cause {
        match found.downcast_ref::<ResolveError>() {
            Some(ResolveError::NotPublic) => {
                return Outcome::Refused("the name leads to no public address".to_owned());
            }
            Some(ResolveError::Unknown(_)) => return Outcome::Unreachable("dns"),
            None => {}
        }
        let io = found.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if found.is::<rustls::Error>() || io.is_some_and(|inner| inner.is::<rustls::Error>()) {
            return Outcome::Unreachable("tls");
        }
        cause = found.source();
    }
    if error.is_timeout() {
        Outcome::TimedOut
    } else if error.is_connect() {
        Outcome::Unreachable("connect")
    } else {
        Outcome::Unreachable("closed")
    }
}
