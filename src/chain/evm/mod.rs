//! EVM chains: JSON-RPC endpoints in, verified [`crate::chain::Block`]s out.
//!
//! | file | what it owns |
//! |---|---|
//! | `errors` | what an error of a node means |
//! | `json` | the fields that are read, and nothing else |
//! | `envelope` | transactions as they are hashed |
//! | `verify` | does what a node returned fit together? |
//! | `derived` | what is under no root, and follows from what is |
//! | `senders` | who has sent a transaction |
//! | `decode` | a verified block made into movements |
//! | `coin` | how each chain's native coin shows that it moves |
//! | `retryable` | what Arbitrum moves for tickets from L1 |
//! | `trace` | what moved of it inside transactions, as nodes trace it |
//! | `fetch` | blocks with their receipts from one endpoint |
//! | `logs` | blocks found by the index of logs of one endpoint |
//! | `state` | balances, nonces and transactions at a block |
//! | `multicall` | many balances by one call |
//! | `token` | what token contracts say of themselves |
//! | `proof` | balances proven against the header's state root |
//! | `safe` | Safes in receipts, and the proof from the chain's state |
//! | `ws` | announcements of new blocks |
//! | `source` | [`EvmSource`]: the above behind [`crate::chain::Source`] |
//! | `signature` | whose key signed something |
//! | `rules` | [`Evm`]: text forms, names and defaults, behind [`crate::chain::Rules`] |
//!
//! A node is believed no further than it can be checked, and a URL never leaves this folder: it may hold a
//! key, so errors, logs and metrics name an endpoint by its short name.

mod coin;
mod decode;
mod derived;
mod envelope;
mod errors;
mod fetch;
mod json;
mod logs;
mod multicall;
mod proof;
mod retryable;
mod rules;
mod safe;
mod senders;
mod signature;
mod source;
mod state;
mod token;
mod trace;
mod verify;
mod ws;

#[cfg(test)]
mod tests;

pub use rules::Evm;
#[cfg(test)]
pub(super) use source::DIALECT;
pub use source::EvmSource;

/// CAIP-2 of an EIP-155 chain id.
pub(super) fn caip2(id: u64) -> String {
    format!("eip155:{id}")
}
