//! One HTTP exchange with a node: what is sent, and how much of what comes is taken in.

use std::{sync::Arc, time::Duration};

use alloy::primitives::bytes::Bytes;
use reqwest::{
    StatusCode,
    header::{CONTENT_TYPE, DATE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER},
};

use super::{Call, Dialect, Failure, slim::Slim, split};
use crate::{
    config::{EndpointConfig, Secret},
    retry,
};

/// How much longer than others an answer may take that is taken in as it streams.
const STREAM_PATIENCE: u32 = 4;

pub(super) struct Http {
    dialect: &'static Dialect,
    url: Secret,
    client: reqwest::Client,
    request_timeout: Duration,
    pub max_response_bytes: usize,
}

impl Http {
    /// What is wrong with the configuration is said without the URL.
    pub fn new(config: &EndpointConfig, dialect: &'static Dialect) -> Result<Self, String> {
        url::Url::parse(config.url.expose()).map_err(|_| "its URL is not valid")?;
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in &config.headers {
            let name =
                HeaderName::try_from(name.as_str()).map_err(|_| "a header's name is not valid")?;
            let mut value = HeaderValue::try_from(value.expose())
                .map_err(|_| "a header's value is not valid")?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        let client = reqwest::Client::builder()
            .default_headers(headers)
            .connect_timeout(config.connect_timeout)
            .timeout(config.request_timeout)
            // A redirect would carry the key of the URL's path to another host.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| error.without_url().to_string())?;
        Ok(Self {
            dialect,
            url: config.url.clone(),
            client,
            request_timeout: config.request_timeout,
            max_response_bytes: config.max_response_bytes,
        })
    }

    /// The body of the answer. With `slim` only what is read of it is kept.
    pub async fn exchange(
        &self,
        calls: &[Call],
        slim: Option<&Arc<Slim>>,
    ) -> Result<Bytes, Failure> {
        let mut request = self.client.post(self.url.expose()).body(write(calls));
        if slim.is_some() {
            request = request.timeout(self.request_timeout * STREAM_PATIENCE);
        }
        let response = request.send().await.map_err(transport)?;
        let status = response.status();
        match status {
            StatusCode::TOO_MANY_REQUESTS => {
                return Err(Failure::Limited {
                    detail: "HTTP 429".to_owned(),
                    retry_after: asked_pause(response.headers()),
                });
            }
            StatusCode::PAYLOAD_TOO_LARGE => {
                return Err(Failure::BatchTooLarge("HTTP 413".to_owned()));
            }
            _ if status.is_server_error() => {
                return Err(Failure::Down(format!("HTTP {}", status.as_u16())));
            }
            _ => {}
        }
        let body = match slim {
            Some(slim) if status.is_success() => {
                slim.take_in(response, self.max_response_bytes).await?
            }
            _ => self.read(response).await?,
        };
        if status.is_success() {
            return Ok(body);
        }
        // Some providers put a JSON-RPC error, which says more, under a 4xx status.
        match split(self.dialect, &body, calls.len()) {
            Ok(answers) if answers.iter().any(Result::is_err) => Ok(body),
            Err(Failure::Invalid(_)) | Ok(_) => {
                Err(Failure::Down(format!("HTTP {}", status.as_u16())))
            }
            Err(failure) => Err(failure),
        }
    }

    /// The body, never more of it in memory than allowed.
    async fn read(&self, mut response: reqwest::Response) -> Result<Bytes, Failure> {
        let max = self.max_response_bytes;
        let announced = response.content_length().unwrap_or(0);
        let too_large = |bytes| Err(Failure::oversized(bytes, max));
        let capacity = usize::try_from(announced).unwrap_or(usize::MAX);
        if capacity > max {
            return too_large(announced);
        }
        let mut body = Vec::with_capacity(capacity);
        while let Some(chunk) = response.chunk().await.map_err(transport)? {
            if chunk.len() > max - body.len() {
                return too_large(u64::try_from(max).unwrap_or(u64::MAX));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Bytes::from(body))
    }
}

/// How long the node asks to be left alone; until a date: by its own clock.
fn asked_pause(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name)?.to_str().ok();
    retry::retry_after(text(RETRY_AFTER)?, text(DATE).and_then(retry::http_date))
}

/// A single call goes without the brackets: not every endpoint takes batches.
fn write(calls: &[Call]) -> String {
    let mut out = String::with_capacity(calls.len() * 160);
    if let [call] = calls {
        call.write(0, &mut out);
        return out;
    }
    for (id, call) in calls.iter().enumerate() {
        out.push(if id == 0 { '[' } else { ',' });
        call.write(id, &mut out);
    }
    out.push(']');
    out
}

pub(super) fn transport(error: reqwest::Error) -> Failure {
    if error.is_timeout() {
        return Failure::Timeout;
    }
    let kind = if error.is_connect() {
        "cannot connect"
    } else if error.is_body() || error.is_decode() {
        "the answer broke off"
    } else {
        "the request failed"
    };
    let error = error.without_url();
    let mut cause: &dyn std::error::Error = &error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    Failure::Down(format!("{kind}: {cause}"))
}
