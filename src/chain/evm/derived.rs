//! What a node says of a transaction under none of the block's roots, but that follows from what is.
//!
//! | field | follows from |
//! |---|---|
//! | `gasUsed` | the gas used so far, of this receipt and the one before it |
//! | `effectiveGasPrice` | what the sender offers, and the block's base fee; on Arbitrum the tip may stay with him |
//! | `blobGasUsed` | the number of blobs (EIP-4844) |
//! | `blobGasPrice` | nothing without the parameters of the chain's forks: it is the same for the whole block, and no more than the sender offers |
//! | `contractAddress` | the sender and his nonce |
//! | `l1Fee`, `operatorFee…` | nothing, on the OP stack: the node's word, until the balances are compared. Elsewhere there is none |
//!
//! Of a type that cannot be hashed none of it but `gasUsed` follows; nor the price of gas in a token, on Celo.

use alloy::primitives::U256;

use super::{
    decode,
    envelope::{self, Form, Transaction},
    json::Receipt,
    verify::FullBlock,
};
use crate::chain::rpc::Failure;

/// EIP-4844.
const GAS_PER_BLOB: u64 = 1 << 17;

/// Whether all of it follows.
pub(super) fn check(block: &FullBlock, receipts: &[Receipt<'_>]) -> Result<(), Failure> {
    let first = block.transactions.first().map(|tx| tx.kind);
    let base_fee = U256::from(block.base_fee_per_gas.unwrap_or_default().0);
    let price = Price { base_fee, is_arbitrum: first == Some(envelope::ARBITRUM_INTERNAL) };
    // Each of its blocks begins with a deposit.
    let is_op_stack = first == Some(envelope::OP_DEPOSIT);
    let (mut before, mut blob_price) = (0, None);
    for (index, (tx, receipt)) in block.transactions.iter().zip(receipts).enumerate() {
        let wrong = |check, what: &str| {
            let number = block.number.0;
            let detail = format!("{what} of transaction {index} of block {number} does not follow");
            Err(Failure::untrusted(check, detail))
        };
        let so_far = receipt.cumulative_gas_used.0;
        if so_far.checked_sub(before) != Some(receipt.gas_used.0) {
            return wrong("gas_used", "gasUsed");
        }
        before = so_far;
        // What costs no gas costs nothing at any price.
        if receipt.gas_used.0 > 0 && !price.follows(tx, decode::gas_price(tx, receipt)) {
            return wrong("gas_price", "effectiveGasPrice");
        }
        if !is_op_stack && pays_rollup(receipt) {
            return wrong("l1_fee", "l1Fee or an operator's fee");
        }
        if tx.kind == envelope::BLOB {
            let used = receipt.blob_gas_used.map(|gas| gas.0);
            let asked = receipt.blob_gas_price.unwrap_or_default();
            if used != tx.offer.blobs.checked_mul(GAS_PER_BLOB)
                || asked > tx.offer.most_per_blob_gas
                || *blob_price.get_or_insert(asked) != asked
            {
                return wrong("blob_gas", "blobGasUsed or blobGasPrice");
            }
        }
        if tx.to.is_none() && !creates(tx, receipt) {
            return wrong("contract_address", "contractAddress");
        }
    }
    Ok(())
}

fn pays_rollup(receipt: &Receipt<'_>) -> bool {
    let Receipt { l1_fee, operator_fee_scalar, operator_fee_constant, .. } = receipt;
    let mut fees = [l1_fee, operator_fee_scalar, operator_fee_constant].into_iter().flatten();
    fees.any(|fee| !fee.is_zero())
}

struct Price {
    base_fee: U256,
    /// Each of its blocks begins with a transaction of a type that no other chain has.
    is_arbitrum: bool,
}

impl Price {
    fn follows(&self, tx: &Transaction, told: U256) -> bool {
        match envelope::form(tx.kind) {
            Form::Signed(_) if tx.pays_in_token => true,
            Form::Signed(_) => {
                let offered = self.base_fee.saturating_add(tx.offer.tip).min(tx.offer.most);
                told == offered || self.is_arbitrum && told == self.base_fee
            }
            // Nothing is paid for it.
            Form::Unsigned(_) if tx.kind == envelope::OP_DEPOSIT => true,
            Form::Unsigned(_) => told == self.base_fee,
            Form::Unknown => true,
        }
    }
}

/// Whether what is said to be created is what the sender creates with his nonce. Of what the protocol itself has
/// made, the nonce is not in the encoding; a deposit's is in its receipt.
fn creates(tx: &Transaction, receipt: &Receipt<'_>) -> bool {
    let nonce = match envelope::form(tx.kind) {
        Form::Signed(_) => tx.nonce,
        Form::Unsigned(_) if receipt.deposit_receipt_version.is_some() => receipt.deposit_nonce,
        Form::Unsigned(_) | Form::Unknown => return true,
    };
    let created = tx.from.unwrap_or_default().create(nonce.unwrap_or_default().0);
    // Nothing was, where it failed.
    receipt.contract_address.map_or(receipt.success() == Some(false), |told| told == created)
}
