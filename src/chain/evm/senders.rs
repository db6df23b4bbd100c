//! Who has sent a transaction: its root shows what was signed, and the signature shows by whom.
//!
//! To recover a key costs more than all else that is done with a transaction. Of a block that is read by itself,
//! and of few blocks, every sender is proven when they are read; of many, the senders of what concerns a watched
//! address are, when it is known which these are.

use super::{
    decode,
    envelope::{Signed, Transaction},
    signature,
};
use crate::chain::{Block, Signature, rpc::Failure};

/// Whether the senders that are still a node's word are those who signed.
pub(super) fn prove(block: &Block) -> Result<(), Failure> {
    for Signature { place, digest, r, s, odd } in &block.senders.signed {
        let Some(fact) = block.transactions.get(*place) else { continue };
        if signature::signer(digest, r, s, *odd) != Some(fact.sender) {
            let number = block.header.at.number;
            let detail = format!("transaction {place} of block {number} was signed by another");
            return Err(Failure::untrusted("sender", detail));
        }
    }
    Ok(())
}

/// The same for a transaction of no block.
pub(super) fn prove_one(tx: &Transaction) -> Result<(), Failure> {
    let Some(Signed { digest, r, s, odd }) = tx.signed else { return Ok(()) };
    if signature::signer(&digest.0, &r, &s, odd) == tx.from.map(decode::address) {
        return Ok(());
    }
    Err(Failure::untrusted("sender", "a transaction was signed by another"))
}
