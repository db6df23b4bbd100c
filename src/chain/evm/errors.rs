//! What an error of a node means.
//!
//! Nodes and providers share error codes for different things (-32005 is a rate limit here and a size limit
//! there), so an error is judged by its text first and by its code second.

use crate::chain::rpc::{Failure, says_limited, without_urls};

const BATCH: &[&str] = &["batch"];
const BATCH_LIMIT: &[&str] =
    &["too large", "too big", "too many", "limit", "exceed", "maximum", "size"];
const TOO_LARGE: &[&str] = &[
    "too large",
    "too big",
    "response size",
    "size exceeded",
    "query returned more than",
    "query exceeds max results",
    "exceeds limit",
    "block range",
    "range is too wide",
    "limited to a",
    "max range",
    "number of requested blocks",
    "requested too many blocks",
    "the range allowed for your plan",
    "limit the query to at most",
    "ranges over",
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
    if says_limited(message) || matches!(code, 429 | -32012 | -32055) {
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
