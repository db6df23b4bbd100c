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
const IDLE: Duration = Duration::from_mins(1);

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
        if found.is::<rustls::Error>() {
            return Outcome::Unreachable("tls");
        }
        // An I/O error names as its source not what it wraps, but that one's source.
        let wrapped = found.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        cause = match wrapped {
            Some(wrapped) => Some(wrapped),
            None => found.source(),
        };
    }
    if error.is_timeout() {
        Outcome::TimedOut
    } else if error.is_connect() {
        Outcome::Unreachable("connect")
    } else {
        Outcome::Unreachable("closed")
    }
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncWriteExt as _, net::TcpListener, time::sleep};

    use super::*;
    use crate::{
        clock::Clock,
        id::Ids,
        webhook::testing::{Receiver, SECRET, config, raw_server},
    };

    fn letter(url: &str, secrets: &[&str]) -> Letter {
        Letter {
            url: url.to_owned(),
            body: r#"{"text":"é"}"#.to_owned(),
            secrets: secrets.iter().map(|&secret| secret.to_owned()).collect(),
        }
    }

    async fn send_with(config: WebhookConfig, letter: Letter) -> (String, Sent) {
        let id: EventId = Ids::new(Clock::System).next();
        let sender = Sender::new(config).unwrap();
        (id.to_string(), sender.send(id, letter, Clock::System.now()).await)
    }

    async fn send(url: &str) -> Sent {
        send_with(config(), letter(url, &[SECRET])).await.1
    }

    fn answered(status: u16) -> Outcome {
        Outcome::Answered { status, retry_after: None }
    }

    #[tokio::test]
    async fn a_receiver_can_verify_each_valid_secrets_signature() {
        let other = "whsec_c2Vjb25kIHNlY3JldCBvZiB0aGUgZW5kcG9pbnQ=";
        let receiver = Receiver::answering(204).await;
        let (id, sent) = send_with(config(), letter(&receiver.url, &[SECRET, other])).await;
        assert_eq!(sent.outcome, answered(204));
        let got = receiver.got().remove(0);
        assert_eq!(got.body, r#"{"text":"é"}"#);
        assert_eq!(got.headers[HEADER_WEBHOOK_ID], id.as_str());
        assert_eq!(got.headers["content-type"], "application/json");
        let version = concat!("tidemark/", env!("CARGO_PKG_VERSION"));
        assert_eq!(got.headers["user-agent"], version);
        let signatures = got.headers[HEADER_WEBHOOK_SIGNATURE].to_str().unwrap();
        assert_eq!(signatures.split(' ').filter(|one| one.starts_with("v1,")).count(), 2);
        for secret in [SECRET, other] {
            let webhook = Webhook::new(secret).unwrap();
            webhook.verify(got.body.as_bytes(), &got.headers).unwrap();
            assert!(webhook.verify(b"{}", &got.headers).is_err(), "the body is signed");
        }
    }

    #[tokio::test]
    async fn nothing_is_sent_unsigned() {
        let receiver = Receiver::answering(200).await;
        for secrets in [&[][..], &["whsec_not base64"][..]] {
            let (_, sent) = send_with(config(), letter(&receiver.url, secrets)).await;
            assert_eq!(sent.outcome.label(), "refused");
        }
        assert!(receiver.got().is_empty());
    }

    #[tokio::test]
    async fn redirects_are_not_followed() {
        let inside = Receiver::answering(200).await;
        let target = inside.url.clone();
        let door = Receiver::start(move |_| {
            let target = target.clone();
            async move {
                (axum::http::StatusCode::TEMPORARY_REDIRECT, [("location", target)], String::new())
            }
        })
        .await;
        assert_eq!(send(&door.url).await.outcome, answered(307));
        assert!(inside.got().is_empty());
    }

    #[tokio::test]
    async fn an_address_inside_is_never_connected_to() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let strict = WebhookConfig { allow_private_addresses: false, ..config() };
        for host in ["localhost", "127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "0"] {
            let url = format!("http://{host}:{port}/");
            let (_, sent) = send_with(strict.clone(), letter(&url, &[SECRET])).await;
            assert_eq!(sent.outcome.label(), "refused", "{host}");
        }
        // A name that only the connector's own look-up shows to lead inside.
        let mut sender = Sender::new(strict).unwrap();
        sender.config.allow_private_addresses = true;
        let url = format!("http://localhost:{port}/");
        let id = Ids::new(Clock::System).next();
        let sent = sender.send(id, letter(&url, &[SECRET]), Clock::System.now()).await;
        let why = "the name leads to no public address".to_owned();
        assert_eq!(sent.outcome, Outcome::Refused(why));
        let connection = tokio::time::timeout(Duration::from_millis(100), listener.accept()).await;
        assert!(connection.is_err(), "nobody connected");
    }

    #[tokio::test]
    async fn a_head_that_never_ends_is_held_by_the_deadline() {
        let url = raw_server(|mut stream| async move {
            stream.write_all(b"HTTP/1.1 200 OK\r\n").await?;
            loop {
                stream.write_all(b"x: y\r\n").await?;
                sleep(Duration::from_millis(200)).await;
            }
        })
        .await;
        let sent = send(&url).await;
        assert_eq!(sent.outcome, Outcome::TimedOut);
        assert!(sent.latency < config().request_timeout + Duration::from_secs(1));
    }

    #[tokio::test]
    async fn a_body_that_never_ends_is_not_read() {
        let fast = raw_server(|mut stream| async move {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000000\r\n\r\n").await?;
            loop {
                stream.write_all(&[b'x'; 1024]).await?;
            }
        })
        .await;
        let slow = raw_server(|mut stream| async move {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n").await?;
            loop {
                stream.write_all(b"x").await?;
                sleep(Duration::from_millis(100)).await;
            }
        })
        .await;
        for url in [fast, slow] {
            let sent = send(&url).await;
            assert_eq!(sent.outcome, answered(200));
            assert!(sent.latency < MAX_BODY_WAIT + Duration::from_secs(1));
        }
    }

    #[tokio::test]
    async fn what_went_wrong_is_said_in_a_word_without_the_url() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let sent = send(&format!("http://127.0.0.1:{port}/?key=secret")).await;
        assert_eq!(sent.outcome, Outcome::Unreachable("connect"));
        let sent = send("http://nowhere.invalid/?key=secret").await;
        assert_eq!(sent.outcome, Outcome::Unreachable("dns"));
        let plain = Receiver::answering(200).await;
        let sent = send(&plain.url.replace("http://", "https://")).await;
        assert_eq!(sent.outcome, Outcome::Unreachable("tls"));
        let closing = raw_server(|stream| async move {
            drop(stream);
            Ok(())
        })
        .await;
        assert_eq!(send(&closing).await.outcome, Outcome::Unreachable("closed"));
    }
}
