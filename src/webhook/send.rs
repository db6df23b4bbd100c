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

use super::ssrf::{PublicResolver, ResolveError, url_allowed};
use crate::{
    clock::Millis,
    config::WebhookConfig,
    delivery::{AttemptOutcome, ConnectionStep},
    retry::retry_after,
    store::delivery::WebhookRequest,
};

const USER_AGENT: &str = concat!("tidemark/", env!("CARGO_PKG_VERSION"));
/// How much of an answer's body is read, only to keep the connection usable.
const MAX_BODY: usize = 4096;
/// How long an answer's body is waited for: the head has said everything.
const MAX_BODY_WAIT: Duration = Duration::from_secs(1);
/// After how long an unused connection is closed.
const IDLE: Duration = Duration::from_mins(1);

/// Posts webhook requests.
#[derive(Debug)]
pub struct Sender {
    client: Client,
    config: WebhookConfig,
}

/// What came of a request, and how long that took.
#[derive(Debug)]
pub struct Sent {
    pub outcome: AttemptOutcome,
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

    /// Sends one request; takes no longer than the configured deadline.
    pub async fn send(&self, request: WebhookRequest, now: Millis) -> Sent {
        let started = Instant::now();
        let outcome = self.outcome(request, now, started).await;
        Sent { outcome, latency: started.elapsed() }
    }

    async fn outcome(
        &self,
        request: WebhookRequest,
        now: Millis,
        started: Instant,
    ) -> AttemptOutcome {
        let Ok(url) = Url::parse(&request.url) else {
            return AttemptOutcome::Refused("the URL cannot be read".to_owned());
        };
        if let Err(why) = url_allowed(&url, &self.config) {
            return AttemptOutcome::Refused(why);
        }
        let id = request.event.to_string();
        let signature = signatures(&request, &id, now);
        if signature.is_empty() {
            return AttemptOutcome::Refused("the endpoint has no usable secret".to_owned());
        }
        let deadline = started + self.config.request_timeout;
        let request = self
            .client
            .post(url)
            .header(CONTENT_TYPE, "application/json")
            .header(HEADER_WEBHOOK_ID, id)
            .header(HEADER_WEBHOOK_TIMESTAMP, now.seconds().to_string())
            .header(HEADER_WEBHOOK_SIGNATURE, signature)
            .body(request.body);
        let response = match timeout_at(deadline, request.send()).await {
            Err(_) => return AttemptOutcome::TimedOut,
            Ok(Err(error)) => return failure(&error),
            Ok(Ok(response)) => response,
        };
        let status = response.status().as_u16();
        let header = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = header.and_then(|header| retry_after(header, Some(now)));
        let _ = timeout_at(deadline.min(Instant::now() + MAX_BODY_WAIT), drain(response)).await;
        AttemptOutcome::Answered { status, retry_after }
    }
}

/// One signature per secret that can be used, separated by spaces.
pub(super) fn signatures(request: &WebhookRequest, id: &str, now: Millis) -> String {
    let sign = |secret: &String| {
        Webhook::new(secret).ok()?.sign(id, now.seconds(), request.body.as_bytes()).ok()
    };
    request.secrets.iter().filter_map(sign).collect::<Vec<_>>().join(" ")
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
fn failure(error: &reqwest::Error) -> AttemptOutcome {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(found) = cause {
        match found.downcast_ref::<ResolveError>() {
            Some(ResolveError::NotPublic) => {
                return AttemptOutcome::Refused("the name leads to no public address".to_owned());
            }
            Some(ResolveError::Unknown(_)) => {
                return AttemptOutcome::Unreachable(ConnectionStep::Dns);
            }
            None => {}
        }
        if found.is::<rustls::Error>() {
            return AttemptOutcome::Unreachable(ConnectionStep::Tls);
        }
        // An I/O error names as its source not what it wraps, but that one's source.
        let wrapped = found.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        cause = match wrapped {
            Some(wrapped) => Some(wrapped),
            None => found.source(),
        };
    }
    if error.is_timeout() {
        AttemptOutcome::TimedOut
    } else if error.is_connect() {
        AttemptOutcome::Unreachable(ConnectionStep::Connect)
    } else {
        AttemptOutcome::Unreachable(ConnectionStep::Closed)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncWriteExt as _, net::TcpListener, time::sleep};

    use super::*;
    use crate::{
        clock::Clock,
        delivery::AttemptResult,
        id::Ids,
        webhook::testing::{Receiver, SECRET, config, raw_server},
    };

    fn request(url: &str, secrets: &[&str]) -> WebhookRequest {
        WebhookRequest {
            event: Ids::new(Clock::System).next(),
            url: url.to_owned(),
            body: r#"{"text":"é"}"#.to_owned(),
            secrets: secrets.iter().map(|&secret| secret.to_owned()).collect(),
        }
    }

    async fn send_with(config: WebhookConfig, request: WebhookRequest) -> (String, Sent) {
        let id = request.event.to_string();
        let sender = Sender::new(config).unwrap();
        (id, sender.send(request, Clock::System.now()).await)
    }

    async fn send(url: &str) -> Sent {
        send_with(config(), request(url, &[SECRET])).await.1
    }

    fn answered(status: u16) -> AttemptOutcome {
        AttemptOutcome::Answered { status, retry_after: None }
    }

    #[tokio::test]
    async fn a_receiver_can_verify_each_valid_secrets_signature() {
        let other = "whsec_c2Vjb25kIHNlY3JldCBvZiB0aGUgZW5kcG9pbnQ=";
        let receiver = Receiver::answering(204).await;
        let (id, sent) = send_with(config(), request(&receiver.url, &[SECRET, other])).await;
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
            let (_, sent) = send_with(config(), request(&receiver.url, secrets)).await;
            assert_eq!(sent.outcome.result(), AttemptResult::Refused);
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
            let (_, sent) = send_with(strict.clone(), request(&url, &[SECRET])).await;
            assert_eq!(sent.outcome.result(), AttemptResult::Refused, "{host}");
        }
        // A name that only the connector's own look-up shows to lead inside.
        let mut sender = Sender::new(strict).unwrap();
        sender.config.allow_private_addresses = true;
        let url = format!("http://localhost:{port}/");
        let sent = sender.send(request(&url, &[SECRET]), Clock::System.now()).await;
        let why = "the name leads to no public address".to_owned();
        assert_eq!(sent.outcome, AttemptOutcome::Refused(why));
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
        assert_eq!(sent.outcome, AttemptOutcome::TimedOut);
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
        assert_eq!(sent.outcome, AttemptOutcome::Unreachable(ConnectionStep::Connect));
        let sent = send("http://nowhere.invalid/?key=secret").await;
        assert_eq!(sent.outcome, AttemptOutcome::Unreachable(ConnectionStep::Dns));
        let plain = Receiver::answering(200).await;
        let sent = send(&plain.url.replace("http://", "https://")).await;
        assert_eq!(sent.outcome, AttemptOutcome::Unreachable(ConnectionStep::Tls));
        let closing = raw_server(|stream| async move {
            drop(stream);
            Ok(())
        })
        .await;
        assert_eq!(
            send(&closing).await.outcome,
            AttemptOutcome::Unreachable(ConnectionStep::Closed)
        );
    }
}
