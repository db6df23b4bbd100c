//! JSON-RPC over HTTP: how a call is written, how an answer is taken apart, and which endpoint is asked.
//!
//! | file | what it owns |
//! |---|---|
//! | `budget` | how many calls an endpoint's plan allows, and who goes first |
//! | `decoder` | taking answers apart, and what a panic in that is |
//! | `endpoint` | one node: its limits, batches, whether it can be asked |
//! | `http` | one exchange with it |
//! | `pace` | so many calls in a second |
//! | `patience` | how long one endpoint is waited for, and who is slow |
//! | `pool` | which endpoint is asked, and which one next |
//! | `slim` | answers that are too large to be kept as they are |
//! | `websocket` | announcements: how a connection is opened, and that another follows |
//!
//! What an error means, and how a node says which chain it serves, is the family's own: [`Dialect`].

mod budget;
mod decoder;
mod endpoint;
#[cfg(test)]
mod fuzz;
mod http;
mod pace;
mod patience;
mod pool;
mod slim;
#[cfg(test)]
pub(crate) mod testing;
mod websocket;

use std::time::Duration;

use alloy::primitives::bytes::Bytes;
pub(super) use decoder::Decoder;
pub use endpoint::SetupError;
pub(super) use endpoint::{Endpoint, Keep, wrong_chain};
pub(super) use pool::Pool;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
pub(super) use slim::{Slim, fields_of};
pub(super) use websocket::{Listener, Lost, Session, ws_request};

/// The check that a block fails which does not name its parent.
pub(super) const UNLINKED: &str = "parent_hash";

/// What a family says differently over JSON-RPC.
#[derive(Debug)]
pub(super) struct Dialect {
    /// The method, without parameters, that tells which chain a node serves.
    pub identity: &'static str,
    /// Its answer as a CAIP-2 id.
    pub caip2: fn(&Answer) -> Result<String, Failure>,
    /// What an error is, by its code and its message.
    pub classify: fn(i64, &str) -> Failure,
}

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
    /// The endpoint's budget for the day has no more for this: nothing was asked.
    Spent(String),
    /// The node calls its answer, or the question, too large: ask for less.
    TooLarge(String),
    /// The answer has so many bytes, or more, and is larger than `max_response_bytes` lets in.
    Oversized { bytes: u64, max: usize },
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
    /// Our own code panicked on the answer; it was told. No endpoint is to blame.
    Bug(String),
}

impl Failure {
    pub fn untrusted(check: &'static str, detail: impl Into<String>) -> Self {
        Self::Untrusted { check, detail: detail.into() }
    }

    pub fn oversized(bytes: u64, max: usize) -> Self {
        Self::Oversized { bytes, max }
    }

    /// Whether asking for less may do.
    pub fn is_size(&self) -> bool {
        matches!(self, Self::TooLarge(_) | Self::Oversized { .. })
    }

    /// The metrics' word for it.
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Limited { .. }
            | Self::TooLarge(_)
            | Self::Oversized { .. }
            | Self::BatchTooLarge(_) => "limited",
            Self::Invalid(_) => "invalid",
            _ => "error",
        }
    }

    pub fn detail(&self) -> String {
        match self {
            Self::Down(detail)
            | Self::Spent(detail)
            | Self::Invalid(detail)
            | Self::NotThere(detail)
            | Self::WrongChain(detail)
            | Self::Moved(detail) => detail.clone(),
            Self::Timeout => "no answer in time".to_owned(),
            Self::Limited { detail, .. } => format!("limited: {detail}"),
            Self::TooLarge(detail) | Self::BatchTooLarge(detail) => format!("too large: {detail}"),
            Self::Oversized { bytes, max } => format!(
                "too large: the answer is over {max} bytes, the endpoint's max_response_bytes: it has {bytes} or \
                 more"
            ),
            Self::Unsupported(detail) => format!("unsupported: {detail}"),
            Self::Reverted => "execution reverted".to_owned(),
            Self::Refused(detail) => format!("refused: {detail}"),
            Self::Bug(detail) => format!("our decoder failed: {detail}"),
            Self::Untrusted { check, detail } => format!("{check}: {detail}"),
        }
    }
}

/// The result of one call: its JSON, still inside the body that it came in.
#[derive(Clone, Debug)]
pub(super) struct Answer(Bytes);

impl Answer {
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn is_null(&self) -> bool {
        self.0.as_ref() == b"null"
    }

    /// `null` is `None` for an `Option`.
    pub fn parse<'a, T: Deserialize<'a>>(&'a self) -> Result<T, Failure> {
        serde_json::from_slice(&self.0)
            .map_err(|error| Failure::Invalid(format!("unexpected result: {}", told(&error))))
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
pub(super) fn split(dialect: &Dialect, body: &Bytes, calls: usize) -> Result<Answers, Failure> {
    let invalid =
        |error: serde_json::Error| Failure::Invalid(format!("not JSON-RPC: {}", told(&error)));
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    let envelopes: Vec<Envelope<'_>> = if first == Some(&b'[') {
        serde_json::from_slice(body).map_err(invalid)?
    } else {
        let one: Envelope<'_> = serde_json::from_slice(body).map_err(invalid)?;
        if calls > 1 || one.id.is_none() {
            // A batch that is answered as a whole was refused as a whole.
            let error =
                one.error.as_ref().map(|error| (dialect.classify)(error.code, &error.message));
            return Err(error.unwrap_or_else(|| Failure::Invalid("not an answer".to_owned())));
        }
        vec![one]
    };
    let mut answers: Vec<Option<Result<Answer, Failure>>> = vec![None; calls];
    for envelope in envelopes {
        let answer = match (envelope.error, envelope.result) {
            (Some(error), _) => Err((dialect.classify)(error.code, &error.message)),
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

/// The words with which nodes and providers refuse to be asked so often, whatever code they put beside them.
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
/// Whether an error's text means that too much was asked in too short a time.
pub(super) fn says_limited(message: &str) -> bool {
    let text = message.to_ascii_lowercase();
    LIMITED.iter().any(|sign| text.contains(sign))
}

/// What serde says of a text of a node. It may quote the text.
fn told(error: &serde_json::Error) -> String {
    without_urls(&error.to_string())
}

/// A node's text made fit for our logs: short, and without anything that could hold a key.
pub(super) fn without_urls(text: &str) -> String {
    let short: String = text.chars().take(200).collect();
    short
        .split_whitespace()
        .map(|word| if word.contains("://") { "(url)" } else { word })
        .collect::<Vec<_>>()
        .join(" ")
}
