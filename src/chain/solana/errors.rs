//! What an error of a node means, by the codes of `solana_client::rpc_custom_error`.
//!
//! Providers use some of the codes for limits of their own (-32007 and -32016 among them), so the text is
//! looked at first.

use solana_client::rpc_custom_error::{
    JSON_RPC_SERVER_ERROR_BLOCK_CLEANED_UP, JSON_RPC_SERVER_ERROR_BLOCK_NOT_AVAILABLE,
    JSON_RPC_SERVER_ERROR_BLOCK_STATUS_NOT_AVAILABLE_YET,
    JSON_RPC_SERVER_ERROR_LONG_TERM_STORAGE_SLOT_SKIPPED,
    JSON_RPC_SERVER_ERROR_LONG_TERM_STORAGE_UNREACHABLE,
    JSON_RPC_SERVER_ERROR_MIN_CONTEXT_SLOT_NOT_REACHED, JSON_RPC_SERVER_ERROR_NODE_UNHEALTHY,
    JSON_RPC_SERVER_ERROR_SLOT_SKIPPED, JSON_RPC_SERVER_ERROR_TRANSACTION_HISTORY_NOT_AVAILABLE,
    JSON_RPC_SERVER_ERROR_UNSUPPORTED_TRANSACTION_VERSION,
};

use crate::chain::rpc::{Failure, says_limited, without_urls};

const METHOD_NOT_FOUND: i64 = -32601;
const INVALID_PARAMS: i64 = -32602;

/// What an error is. Whether a slot was skipped is never taken from here.
pub(super) fn classify(code: i64, message: &str) -> Failure {
    let detail = without_urls(message);
    if says_limited(message) || matches!(code, 429 | -32012) {
        return Failure::Limited { detail, retry_after: None };
    }
    match code {
        JSON_RPC_SERVER_ERROR_BLOCK_CLEANED_UP
        | JSON_RPC_SERVER_ERROR_BLOCK_NOT_AVAILABLE
        | JSON_RPC_SERVER_ERROR_BLOCK_STATUS_NOT_AVAILABLE_YET
        | JSON_RPC_SERVER_ERROR_SLOT_SKIPPED
        | JSON_RPC_SERVER_ERROR_LONG_TERM_STORAGE_SLOT_SKIPPED => {
            Failure::NotThere(format!("error {code}: {detail}"))
        }
        // The node is behind the cluster: another one knows more.
        JSON_RPC_SERVER_ERROR_NODE_UNHEALTHY => Failure::Down(detail),
        JSON_RPC_SERVER_ERROR_TRANSACTION_HISTORY_NOT_AVAILABLE
        | JSON_RPC_SERVER_ERROR_UNSUPPORTED_TRANSACTION_VERSION
        | METHOD_NOT_FOUND
        | INVALID_PARAMS => Failure::Unsupported(detail),
        JSON_RPC_SERVER_ERROR_MIN_CONTEXT_SLOT_NOT_REACHED => {
            Failure::Refused("the node has not reached the block yet".to_owned())
        }
        JSON_RPC_SERVER_ERROR_LONG_TERM_STORAGE_UNREACHABLE => Failure::Refused(detail),
        _ => Failure::Refused(format!("error {code}: {detail}")),
    }
}

/// The version of transactions that a node wants to be told is understood, from its refusal.
pub(super) fn wanted_version(failure: &Failure) -> Option<u8> {
    let Failure::Unsupported(text) = failure else { return None };
    let (_, rest) = text.split_once("Transaction version (")?;
    rest.split_once(')')?.0.parse().ok()
}
