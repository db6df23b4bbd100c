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
    "response exceeds",
    "exceeds the maximum size",
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
    "no state available",
    "world state unavailable",
    "due to pruning",
    "with state pruning",
    "trie is not available",
    "pruned history unavailable",
    "archive state",
    "archive request",
    "archive, debug and trace requests",
    "state already discarded",
    "has been pruned",
    "is pruned",
    "exceeds maximum proof window",
    "requested block is too old",
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
/// How a revert's text begins where a reason follows.
const REVERTED_WITH_REASON: &[&str] =
    &["execution reverted", "vm execution error", "reverted", "revert"];
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
    // The reason in a revert is the contract's own text: it is not looked at for anything else.
    if code == 3 || REVERTED_WITH_REASON.iter().any(|sign| text.starts_with(sign)) {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What clients and providers say of a state or a block that they do not have (any more).
    const GONE: &[(i64, &str)] = &[
        // geth
        (
            -32000,
            "missing trie node d74423b54378a6d4 (path ) state 0xd74423b54378a6d4 is not available",
        ),
        (-32000, "header not found"),
        (-32000, "required historical state unavailable (reexec=128)"),
        (-32000, "historical state 5a6b0f7b is not available"),
        (4444, "pruned history unavailable"),
        // Nethermind
        (-32002, "No state available for block 19000000 (0x5a6b0f7b)"),
        // Erigon
        (-32000, "old data not available due to pruning"),
        // Besu
        (-32000, "World state unavailable"),
        (-32000, "Block not found"),
        // Reth
        (-32603, "State at block #3 is pruned"),
        (-32602, "distance to target block exceeds maximum proof window"),
        // Erigon, of proofs
        (
            -32000,
            "requested block is too old, block must be within 100000 blocks of the head block number",
        ),
        // OpenEthereum
        (
            -32000,
            "This request is not supported because your node is running with state pruning. Run with --pruning=archive.",
        ),
        // Anvil
        (-32602, "BlockOutOfRangeError: block height is 5 but requested was 7"),
        // Infura, Chainstack
        (-32000, "project ID does not have access to archive state"),
        (-32002, "Archive, Debug and Trace requests are not available on your current plan"),
    ];

    #[test]
    fn a_state_that_is_gone_is_told_apart_in_every_clients_words() {
        for (code, text) in GONE {
            let failure = classify(*code, text);
            assert!(matches!(failure, Failure::NotThere(_)), "{text}: {failure:?}");
        }
    }

    /// What clients and providers say where the answer is larger than they give.
    const LARGE: &[(i64, &str)] = &[
        // geth, Arbitrum
        (-32003, "response too large"),
        // Reth and whatever else is made with jsonrpsee
        (-32008, "Response is too big"),
        // Alchemy
        (-32600, "Response size is larger than 150MB limit"),
        (-32000, "Response size exceeded"),
        // 1RPC
        (-32602, "response size should not greater than 10000000 bytes"),
        // Proxies in front of a node
        (-32000, "response body too large"),
        (-32603, "the response exceeds the maximum size"),
        (-32005, "response size limit exceeded"),
    ];

    #[test]
    fn an_answer_that_is_too_large_is_told_apart_in_every_clients_words() {
        for (code, text) in LARGE {
            let failure = classify(*code, text);
            assert!(matches!(failure, Failure::TooLarge(_)), "{text}: {failure:?}");
        }
        // A batch that is too large is made smaller.
        let failure = classify(-32011, "The batch response was too large");
        assert!(matches!(failure, Failure::BatchTooLarge(_)), "{failure:?}");
    }

    #[test]
    fn what_a_contract_says_as_it_reverts_is_never_taken_for_the_nodes_own_words() {
        let said = GONE.iter().map(|(_, text)| *text);
        for reason in said.chain(["batch too large", "rate limit", "method not found"]) {
            for (code, text) in [
                (3, format!("execution reverted: {reason}")),
                (-32000, format!("execution reverted: {reason}")),
                (-32015, format!("VM execution error. Reverted {reason}")),
                (-32015, format!("revert: {reason}")),
            ] {
                let failure = classify(code, &text);
                assert!(matches!(failure, Failure::Reverted), "{text}: {failure:?}");
            }
        }
    }
}
