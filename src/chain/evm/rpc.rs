//! JSON-RPC: how a call is written, how an answer is taken apart, and what an error means.
//!
//! Nodes and providers share error codes for different things (-32005 is a rate limit here and a size limit
//! there), so an error is judged by its text first and by its code second.

use std::time::Duration;

use alloy::primitives::bytes::Bytes;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// One call, its parameters already JSON.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub method: &'static str,
    pub params: String,
}

impl Call {
    pub fn new(method: &'static str, params: String) -> Self {
        Self { method, params }
    }

    /// The request object, with its place in the batch as its id.
    pub fn write(&self, id: usize, out: &mut String) {
        use std::fmt::Write as _;
        let Self { method, params } = self;
        // Writing to a String does not fail.
        let _ =
            write!(out, r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#);
    }
}

/// Why one call, or a whole request, brought nothing. What is said in it never contains a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// No connection, a broken one, or a server error.
    Down(String),
    /// No answer in time.
    Timeout,
    /// Too many requests; the node may say when to come back.
    Limited { detail: String, retry_after: Option<Duration> },
    /// The answer, or the question, is bigger than one side allows: ask for less.
    TooLarge(String),
    /// The question has too many calls in it.
    BatchTooLarge(String),
    /// Not JSON-RPC, or not the shape that was asked for.
    Invalid(String),
    /// The node does not know the block or transaction, or has no state for it.
    NotThere(String),
    /// The node does not know the method, or not with these parameters.
    Unsupported(String),
    /// The call ran and was reverted.
    Reverted,
    /// Any other error that the node returned.
    Refused(String),
    /// The endpoint serves another chain.
    WrongChain(String),
    /// The answer contradicts itself.
    Untrusted { check: &'static str, detail: String },
    /// The chain moved between two questions: ask again, whoever is asked.
    Moved(String),
}

impl Failure {
    pub fn untrusted(check: &'static str, detail: impl Into<String>) -> Self {
        Self::Untrusted { check, detail: detail.into() }
    }

    /// The metrics' word for it.
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Limited { .. } | Self::TooLarge(_) | Self::BatchTooLarge(_) => "limited",
            Self::Invalid(_) => "invalid",
            _ => "error",
        }
    }

    pub fn detail(&self) -> String {
        match self {
            Self::Down(detail)
            | Self::Invalid(detail)
            | Self::NotThere(detail)
            | Self::WrongChain(detail)
            | Self::Moved(detail) => detail.clone(),
            Self::Timeout => "no answer in time".to_owned(),
            Self::Limited { detail, .. } => format!("limited: {detail}"),
            Self::TooLarge(detail) | Self::BatchTooLarge(detail) => format!("too large: {detail}"),
            Self::Unsupported(detail) => format!("unsupported: {detail}"),
            Self::Reverted => "execution reverted".to_owned(),
            Self::Refused(detail) => format!("refused: {detail}"),
            Self::Untrusted { check, detail } => format!("{check}: {detail}"),
        }
    }
}

/// The result of one call: its JSON, still inside the body that it came in.
#[derive(Clone, Debug)]
pub(super) struct Answer(Bytes);

impl Answer {
    /// `null` is `None` for an `Option`.
    pub fn parse<'a, T: Deserialize<'a>>(&'a self) -> Result<T, Failure> {
        serde_json::from_slice(&self.0)
            .map_err(|error| Failure::Invalid(format!("unexpected result: {error}")))
    }
}

/// The answers of a batch, in the order of the calls.
pub(super) type Answers = Vec<Result<Answer, Failure>>;

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(default)]
    id: Option<u64>,
    #[serde(borrow, default, deserialize_with = "present")]
    result: Option<&'a RawValue>,
    #[serde(default)]
    error: Option<ErrorObject>,
}

/// Tells `"result": null` from no result at all.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

#[derive(Deserialize)]
struct ErrorObject {
    #[serde(default)]
    code: i64,
    #[serde(default)]
    message: String,
}

/// Takes an answer apart: one result per call, matched by id. An error for the request as a whole is `Err`.
pub(super) fn split(body: &Bytes, calls: usize) -> Result<Answers, Failure> {
    let invalid = |error: serde_json::Error| Failure::Invalid(format!("not JSON-RPC: {error}"));
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    let envelopes: Vec<Envelope<'_>> = if first == Some(&b'[') {
        serde_json::from_slice(body).map_err(invalid)?
    } else {
        let one: Envelope<'_> = serde_json::from_slice(body).map_err(invalid)?;
        if calls > 1 || one.id.is_none() {
            // A batch that is answered as a whole was refused as a whole.
            let error = one.error.as_ref().map(|error| classify(error.code, &error.message));
            return Err(error.unwrap_or_else(|| Failure::Invalid("not an answer".to_owned())));
        }
        vec![one]
    };
    let mut answers: Vec<Option<Result<Answer, Failure>>> = vec![None; calls];
    for envelope in envelopes {
        let answer = match (envelope.error, envelope.result) {
            (Some(error), _) => Err(classify(error.code, &error.message)),
            (None, Some(raw)) => Ok(Answer(body.slice_ref(raw.get().as_bytes()))),
            (None, None) => Err(Failure::Invalid("neither result nor error".to_owned())),
        };
        let Some(id) = envelope.id else {
            return Err(answer.err().unwrap_or_else(|| Failure::Invalid("no id".to_owned())));
        };
        match usize::try_from(id).ok().and_then(|id| answers.get_mut(id)) {
            Some(slot @ None) => *slot = Some(answer),
            _ => return Err(Failure::Invalid("an answer to nothing that was asked".to_owned())),
        }
    }
    answers
        .into_iter()
        .map(|answer| answer.ok_or_else(|| Failure::Invalid("an answer is missing".to_owned())))
        .collect()
}

const BATCH: &[&str] = &["batch"];
const BATCH_LIMIT: &[&str] =
    &["too large", "too big", "too many", "limit", "exceed", "maximum", "size"];
const LIMITED: &[&str] = &[
    "rate limit",
    "rate exceeded",
    "rate-limit",
    "too many requests",
    "credits",
    "request limit",
    "requests limit",
    "request count exceeded",
    "concurrent requests",
    "exceeded capacity",
    "capacity exceeded",
    "compute units",
    "throttled",
    "no backend is currently healthy",
];
const TOO_LARGE: &[&str] = &[
    "too large",
    "too big",
    "response size",
    "size exceeded",
    "query returned more than",
    "query exceeds max results",
    "exceeds limit",
    "block range",
];
const NOT_THERE: &[&str] = &[
    "header not found",
    "block not found",
    "unknown block",
    "block does not exist",
    "could not find block",
    "missing trie node",
    "resource not found",
    "blockoutofrange",
    "state not available",
    "state is not available",
    "state unavailable",
    "historical state",
    "state already discarded",
    "has been pruned",
    "is pruned",
    "cannot query unfinalized data",
    "requested data is not available",
    "transaction not found",
];
const UNSUPPORTED: &[&str] = &[
    "does not exist/is not available",
    "method not found",
    "method is not supported",
    "unsupported method",
    "not implemented",
];
const REVERTED: &[&str] = &[
    "execution reverted",
    "vm execution error",
    "revert",
    "invalid opcode",
    "out of gas",
    "invalid jump",
    "stack underflow",
    "stack overflow",
];

/// What an error is, by its text where codes clash.
pub(super) fn classify(code: i64, message: &str) -> Failure {
    let text = message.to_ascii_lowercase();
    let says = |signs: &[&str]| signs.iter().any(|sign| text.contains(sign));
    let detail = without_urls(message);
    if code == 3 {
        return Failure::Reverted;
    }
    if says(BATCH) && says(BATCH_LIMIT) {
        return Failure::BatchTooLarge(detail);
    }
    if says(LIMITED) || matches!(code, 429 | -32012 | -32055) {
        return Failure::Limited { detail, retry_after: None };
    }
    if says(NOT_THERE) {
        return Failure::NotThere(detail);
    }
    if says(TOO_LARGE) {
        return Failure::TooLarge(detail);
    }
    if says(UNSUPPORTED) {
        return Failure::Unsupported(detail);
    }
    if says(REVERTED) || code == -32015 {
        return Failure::Reverted;
    }
    match code {
        -32001 => Failure::NotThere(detail),
        -32601 | -32602 => Failure::Unsupported(detail),
        -32005 => Failure::Limited { detail, retry_after: None },
        _ => Failure::Refused(format!("error {code}: {detail}")),
    }
}

/// A node's text made fit for our logs: short, and without anything that could hold a key.
fn without_urls(text: &str) -> String {
    let short: String = text.chars().take(200).collect();
    short
        .split_whitespace()
        .map(|word| if word.contains("://") { "(url)" } else { word })
        .collect::<Vec<_>>()
        .join(" ")
}
