//! Solana: slots in, [`crate::chain::Block`]s out, exact from the balances that every transaction states
//! before and after itself.
//!
//! | file | what it owns |
//! |---|---|
//! | `errors` | what an error of a node means |
//! | `json` | the fields that are read, and nothing else |
//! | `verify` | do the balances that a block states fit together? |
//! | `decode` | a block made into movements |
//! | `fetch` | blocks by slot, and the proof that a slot was skipped |
//! | `state` | balances as after one block, from a node that only knows its newest state |
//! | `history` | what moved for one owner in the past |
//! | `memo` | the text beside a payment |
//! | `ws` | announcements of new slots |
//! | `source` | [`SolanaSource`]: the above behind [`crate::chain::Source`] |
//! | `signature` | proofs that somebody controls an address |
//! | `rules` | [`Solana`]: text forms, names and defaults, behind [`crate::chain::Rules`] |
//!
//! A block's number is its slot. Slots can stay without a block, and no error code proves that one did: only
//! the next block does, whose parent lies before it. A node's block cannot be recomputed from its hash
//! without all of its entries, so what is checked is that blocks link, and that within a block every account
//! begins each transaction with what the one before left it.

mod decode;
mod errors;
mod fetch;
mod history;
mod json;
mod memo;
mod rules;
mod signature;
mod source;
mod state;
mod verify;
mod ws;

#[cfg(test)]
pub(crate) mod tests;

pub use rules::Solana;
#[cfg(test)]
pub(super) use source::DIALECT;
pub use source::SolanaSource;

/// The Token program.
pub const TOKEN: &str = "TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA";
/// Token-2022.
pub const TOKEN_2022: &str = "TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb";
/// The mint of wrapped SOL, whose tokens are lamports of their token account.
pub const WRAPPED_SOL: &str = "So11111111111111111111111111111111111111112";
/// Versions 1 and 2 of the Memo program.
pub const MEMO: [&str; 2] =
    ["Memo1UhkJRfHyvLMcVucJwxXeuD728EqVDDwQDxFMNo", "MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr"];

/// CAIP-30: a chain is named by the first 32 characters of its genesis hash.
#[must_use]
pub fn caip2(genesis: &str) -> String {
    let reference: String = genesis.chars().take(32).collect();
    format!("solana:{reference}")
}
