//! EVM chains: JSON-RPC endpoints in, verified [`crate::chain::Block`]s out.
//!
//! | file | what it owns |
//! |---|---|
//! | `errors` | what an error of a node means |
//! | `json` | the fields that are read, and nothing else |
//! | `verify` | does what a node returned fit together? |
//! | `decode` | a verified block made into movements |
//! | `fetch` | blocks with their receipts from one endpoint |
//! | `state` | balances, nonces and transactions at a block |
//! | `safe` | Safes in receipts, and the proof from the chain's state |
//! | `ws` | announcements of new blocks |
//! | `source` | [`EvmSource`]: the above behind [`crate::chain::Source`] |
//!
//! A node is believed no further than it can be checked, and a URL never leaves this folder: it may hold a
//! key, so errors, logs and metrics name an endpoint by its short name.

mod decode;
mod errors;
mod fetch;
mod json;
mod safe;
mod source;
mod state;
mod verify;
mod ws;

#[cfg(test)]
mod tests;

pub use source::EvmSource;
