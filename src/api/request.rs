//! Reading requests: path, query and body, each with an error that names the field.

use std::{error::Error as _, fmt::Display, str::FromStr, sync::Arc};

use axum::{
    Json,
    body::{Body, Bytes},
    extract::{FromRequest, FromRequestParts, Path, Query, Request, rejection::JsonRejection},
    http::{HeaderMap, header, request::Parts},
};
use futures::StreamExt as _;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

use super::{
    App,
    error::{Code, FieldError, Problem},
};
use crate::clock::Millis;

/// How much of a body that is too large is read all the same.
const MOST_DISCARDED: usize = 16 * 1024 * 1024;

/// A path's one parameter, or several.
pub(super) struct Named<T = String>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<Arc<App>> for Named<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let Path(name) = Path::from_request_parts(parts, app)
            .await
            .map_err(|error| Problem::invalid(error.body_text()))?;
        Ok(Self(name))
    }
}

/// A query string. Its fields are texts; [`Fields`] reads them, so that all that is wrong is told at once.
pub(super) struct Params<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<Arc<App>> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Self, Problem> {
        match Query::try_from_uri(&parts.uri) {
            Ok(Query(params)) => Ok(Self(params)),
            Err(error) => {
                let text = error.source().map_or_else(|| error.body_text(), ToString::to_string);
                Err(Problem::fields(vec![located(&text, "query")]))
            }
        }
    }
}

/// A body, and what makes its request the same as another one.
pub(super) struct Payload {
    bytes: Bytes,
    /// SHA-256 over method, path and body.
    pub hash: [u8; 32],
    idempotency_key: Option<String>,
}

impl FromRequest<Arc<App>> for Payload {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Problem> {
        let is_json = content_is_json(request.headers());
        let idempotency_key = idempotency_key(request.headers())?;
        let mut digest = Sha256::new();
        for part in [request.method().as_str(), request.uri().path()] {
            digest.update(part);
            digest.update([0]);
        }
        let bytes = read(request.into_body(), app.config.server.max_body_bytes).await?;
        if !is_json && !bytes.is_empty() {
            return Err(Problem::new(
                Code::UnsupportedMediaType,
                "Send the body as JSON with the header content-type: application/json.",
            ));
        }
        digest.update(&bytes);
        Ok(Self { bytes, hash: digest.finalize().into(), idempotency_key })
    }
}

/// A body within the limit. One that is too large is read on for a while and thrown away: a client that is
/// still sending when the connection closes never sees the answer.
async fn read(body: Body, most: usize) -> Result<Bytes, Problem> {
    let mut stream = body.into_data_stream();
    let (mut bytes, mut length) = (Vec::new(), 0usize);
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|_| Problem::invalid("The body ended early. Send it again."))?;
        length = length.saturating_add(chunk.len());
        if length <= most {
            bytes.extend_from_slice(&chunk);
        } else if length > most.saturating_add(MOST_DISCARDED) {
            break;
        }
    }
    if length > most {
        let detail = format!("A body may have {most} bytes at most.");
        return Err(Problem::new(Code::PayloadTooLarge, detail));
    }
    Ok(bytes.into())
}

impl Payload {
    /// # Errors
    /// 400 that tells where the JSON ends to be JSON, or which field is wrong.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        // serde would take an array for an object's fields in their order.
        let first = self.bytes.iter().find(|byte| !byte.is_ascii_whitespace());
        if first.is_some_and(|byte| *byte != b'{') {
            return Err(Problem::field(Code::InvalidRequest, "body", "must be a JSON object"));
        }
        Json::from_bytes(&self.bytes).map(|Json(value)| value).map_err(|error| {
            let text = error.source().map_or_else(|| error.body_text(), ToString::to_string);
            match error {
                JsonRejection::JsonDataError(_) => Problem::fields(vec![located(&text, "body")]),
                _ => Problem::invalid(format!("The body is not JSON: {text}")),
            }
        })
    }

    /// An empty body stands for `{}`.
    pub fn parse_or_default<T: DeserializeOwned + Default>(&self) -> Result<T, Problem> {
        if self.bytes.is_empty() { Ok(T::default()) } else { self.parse() }
    }

    /// # Errors
    /// 400 without a key: a write could otherwise not be repeated safely.
    pub fn idempotency_key(&self) -> Result<&str, Problem> {
        self.idempotency_key.as_deref().ok_or_else(|| {
            Problem::new(
                Code::IdempotencyKeyRequired,
                "Send an Idempotency-Key header, a new one for each new request and the same one when you \
                 repeat it: 1 to 128 of the characters A-Z a-z 0-9 _ . : -",
            )
        })
    }
}

fn content_is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()) else {
        return false;
    };
    let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"))
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let text = value.to_str().unwrap_or_default();
    let valid = (1..=128).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.:-".contains(&b));
    if valid {
        Ok(Some(text.to_owned()))
    } else {
        Err(Problem::field(
            Code::InvalidRequest,
            "Idempotency-Key",
            "must be 1 to 128 of the characters A-Z a-z 0-9 _ . : -",
        ))
    }
}

/// Takes a serde message apart: the path before the colon if there is one, else the field it quotes.
fn located(text: &str, whole: &str) -> FieldError {
    let (path, message) = match text.split_once(": ") {
        Some((path, rest)) if !path.contains([' ', '`']) => (path, rest),
        _ => ("", text),
    };
    let quoted = message
        .strip_prefix("unknown field `")
        .or_else(|| message.strip_prefix("missing field `"))
        .and_then(|rest| rest.split('`').next());
    let field = match (path.trim_end_matches(['.', '?']), quoted) {
        ("", Some(name)) => name.to_owned(),
        ("", None) => whole.to_owned(),
        (path, Some(name)) if path != name && !path.ends_with(&format!(".{name}")) => {
            format!("{path}.{name}")
        }
        (path, _) => path.to_owned(),
    };
    let message = match quoted {
        Some(_) if message.starts_with("missing") => "is missing".to_owned(),
        Some(name) => {
            let rest = message.trim_start_matches(&format!("unknown field `{name}`"));
            format!("is not known{rest}")
        }
        None => format!("is wrong: {message}"),
    };
    // serde_json adds where it stood, which says nothing to who built the JSON with a library.
    let message = message.split(" at line ").next().unwrap_or_default().to_owned();
    FieldError { field, message }
}

/// Collects what is wrong with a request's fields.
#[derive(Debug, Default)]
pub(super) struct Fields(Vec<FieldError>);

impl Fields {
    pub fn refuse(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.0.push(FieldError::new(field, message));
    }

    /// Reads an optional text; what it cannot be is told, with the error's own words.
    pub fn read<T: FromStr<Err: Display>>(&mut self, field: &str, text: Option<&str>) -> Option<T> {
        match text?.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.refuse(field, format!("is wrong: {error}"));
                None
            }
        }
    }

    /// Reads one of a closed list of words.
    pub fn word<T: Copy>(
        &mut self,
        field: &str,
        text: Option<&str>,
        all: &[T],
        as_str: fn(T) -> &'static str,
    ) -> Option<T> {
        let text = text?;
        let found = all.iter().copied().find(|&word| as_str(word) == text);
        if found.is_none() {
            let words: Vec<&str> = all.iter().map(|&word| as_str(word)).collect();
            self.refuse(field, format!("must be one of {}", words.join(", ")));
        }
        found
    }

    pub fn time(&mut self, field: &str, text: Option<&str>) -> Option<Millis> {
        let time = text?.parse::<jiff::Timestamp>().ok();
        if time.is_none() {
            self.refuse(field, "must be a time such as 2026-01-15T09:30:00Z");
        }
        time.map(|time| Millis(time.as_millisecond()))
    }

    /// A text that is kept and shown again: not empty, not long, no control characters.
    pub fn text(&mut self, field: &str, text: Option<&str>, longest: usize) {
        let Some(text) = text else { return };
        if text.is_empty() || text.chars().count() > longest || text.chars().any(char::is_control) {
            self.refuse(
                field,
                format!("must have 1 to {longest} characters and no control characters"),
            );
        }
    }

    /// # Errors
    /// 400 if anything was wrong.
    pub fn finish(self) -> Result<(), Problem> {
        if self.0.is_empty() { Ok(()) } else { Err(Problem::fields(self.0)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serde_message_names_its_field() {
        let case = |text| {
            let FieldError { field, message } = located(text, "body");
            (field, message)
        };
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(
            case("missing field `address` at line 1 column 2"),
            pair("address", "is missing")
        );
        assert_eq!(
            case("account: missing field `externalId` at line 1 column 20"),
            pair("account.externalId", "is missing")
        );
        assert_eq!(
            case("account.foo: unknown field `foo`, expected `externalId` at line 1 column 9"),
            pair("account.foo", "is not known, expected `externalId`")
        );
        assert_eq!(
            case("chains[1]: invalid type: integer `1`, expected a string at line 3 column 2"),
            pair("chains[1]", "is wrong: invalid type: integer `1`, expected a string")
        );
    }
}
