//! The nodes of a chain: raw endpoints made into checked ones.

use std::collections::BTreeMap;

use axum::http::{HeaderName, HeaderValue};
use url::Url;

use super::{
    ConfigError, EndpointConfig, Secret, Tracing,
    check::{MEBIBYTE, seconds, secret, short_name, size, whole},
    raw::{RawEndpoint, Whole},
};

const MAX_ENDPOINTS: usize = 32;
const CONNECT_TIMEOUT_SECONDS: u64 = 5;
const REQUEST_TIMEOUT_SECONDS: u64 = 30;
/// A hundred thousand in each second.
const MAX_REQUESTS_PER_DAY: u64 = 100_000 * 86_400;
const MAX_RESPONSE_BYTES: u64 = 64 * MEBIBYTE;

pub(super) fn endpoints(
    key: &str,
    raw: Vec<RawEndpoint>,
    max_batch: u64,
) -> Result<Vec<EndpointConfig>, ConfigError> {
    if raw.is_empty() || raw.len() > MAX_ENDPOINTS {
        return Err(ConfigError::invalid(
            key,
            format!("{} endpoints are configured", raw.len()),
            format!("Name from 1 to {MAX_ENDPOINTS}: endpoints = [{{ url = \"https://...\" }}]"),
        ));
    }
    let mut endpoints: Vec<EndpointConfig> = Vec::with_capacity(raw.len());
    for (index, raw) in raw.into_iter().enumerate() {
        let key = format!("{key}[{index}]");
        let endpoint = endpoint(&key, index, raw, max_batch)?;
        if endpoints.iter().any(|other| other.name == endpoint.name) {
            return Err(ConfigError::invalid(
                format!("{key}.name"),
                format!("another endpoint of this chain is called {:?}", endpoint.name),
                "Give each its own name: logs and metrics tell them apart by it",
            ));
        }
        endpoints.push(endpoint);
    }
    Ok(endpoints)
}

/// How many of the endpoints must agree on what settles.
pub(super) fn quorum(
    key: &str,
    raw: Option<Whole>,
    endpoints: &[EndpointConfig],
) -> Result<u64, ConfigError> {
    let quorum = whole(key, raw.unwrap_or(Whole(1)), 1..=2)?;
    if quorum > 1 && endpoints.len() < 2 {
        return Err(ConfigError::invalid(
            key,
            "two endpoints must agree before anything settles, and one is configured",
            "Add an endpoint of another provider, or remove quorum",
        ));
    }
    Ok(quorum)
}

fn endpoint(
    key: &str,
    index: usize,
    raw: RawEndpoint,
    max_batch: u64,
) -> Result<EndpointConfig, ConfigError> {
    let name = match raw.name {
        Some(name) => {
            short_name(&format!("{key}.name"), &name)?;
            name
        }
        // Never the URL, which may hold a token.
        None => format!("endpoint-{}", index + 1),
    };
    let url = secret(key, "url", raw.url, raw.url_file.as_deref())?.ok_or_else(|| {
        ConfigError::invalid(key, "has neither url nor url_file", "Give one of the two")
    })?;
    node_url(&format!("{key}.url"), &url, &["http", "https"])?;
    let ws = secret(key, "ws", raw.ws, raw.ws_file.as_deref())?;
    if let Some(ws) = &ws {
        node_url(&format!("{key}.ws"), ws, &["ws", "wss"])?;
    }
    let mut headers = BTreeMap::new();
    for (header, value) in raw.headers {
        let good = header.parse::<HeaderName>().is_ok() && value.parse::<HeaderValue>().is_ok();
        if !good {
            return Err(ConfigError::invalid(
                format!("{key}.headers.{header}"),
                "is not an HTTP header",
                "Use letters, digits and - in its name, and one line of printable text as its value",
            ));
        }
        headers.insert(header, Secret::new(value));
    }
    let number = |field: &str, value: Option<Whole>, default: u64, range| {
        whole(&format!("{key}.{field}"), value.unwrap_or(Whole(default)), range)
    };
    let rate = raw
        .max_requests_per_second
        .map(|rate| number("max_requests_per_second", Some(rate), 0, 1..=100_000))
        .transpose()?;
    let per_day = raw
        .max_requests_per_day
        .map(|calls| number("max_requests_per_day", Some(calls), 0, 1..=MAX_REQUESTS_PER_DAY))
        .transpose()?;
    let max_response = raw.max_response_bytes.unwrap_or(Whole(MAX_RESPONSE_BYTES));
    let max_batch = raw.max_batch.unwrap_or(Whole(max_batch));
    let connect = raw.connect_timeout_seconds.unwrap_or(Whole(CONNECT_TIMEOUT_SECONDS));
    let request = raw.request_timeout_seconds.unwrap_or(Whole(REQUEST_TIMEOUT_SECONDS));
    let weight = number("weight", raw.weight, 1, 0..=1_000_000)?;
    let tracing = raw.tracing.map_or(Ok(Tracing::Auto), |written| tracing(key, &written))?;
    Ok(EndpointConfig {
        weight: u32::try_from(weight).unwrap_or(u32::MAX),
        max_requests_per_second: rate.and_then(|rate| u32::try_from(rate).ok()),
        max_requests_per_day: per_day,
        headers,
        connect_timeout: seconds(&format!("{key}.connect_timeout_seconds"), connect)?,
        request_timeout: seconds(&format!("{key}.request_timeout_seconds"), request)?,
        max_response_bytes: size(
            &format!("{key}.max_response_bytes"),
            max_response,
            1024..=1024 * MEBIBYTE,
        )?,
        max_batch: size(&format!("{key}.max_batch"), max_batch, 1..=10_000)?,
        tracing,
        name,
        url,
        ws,
    })
}

fn tracing(key: &str, written: &str) -> Result<Tracing, ConfigError> {
    Tracing::parse(written).ok_or_else(|| {
        ConfigError::invalid(
            format!("{key}.tracing"),
            format!("{written:?} is no way of tracing"),
            "Write auto, debug, trace or none",
        )
    })
}

fn node_url(key: &str, url: &Secret, schemes: &[&str]) -> Result<(), ConfigError> {
    let advice = format!("Begin it with {}://", schemes.join(":// or "));
    let problem = match Url::parse(url.expose()) {
        Err(error) => format!("is not a URL ({error})"),
        Ok(url) if url.host_str().is_none_or(str::is_empty) => "has no host".to_owned(),
        Ok(url) if schemes.contains(&url.scheme()) => return Ok(()),
        Ok(url) if matches!(url.scheme(), "ws" | "wss") => {
            return Err(ConfigError::invalid(
                key,
                "is a WebSocket URL where an HTTP URL is needed",
                "Put it under ws, and the node's http:// or https:// URL under url",
            ));
        }
        Ok(_) => "has a scheme that is not supported here".to_owned(),
    };
    Err(ConfigError::invalid(key, problem, advice))
}
