//! Arbitrum's retryable tickets: what its own software moves beside a transaction's value.
//!
//! A ticket comes from L1 by a transaction of type 0x69: what was deposited there is minted to the sender, who pays for
//! the submission and for the gas of a first try, gets back what was offered beyond that, and leaves the ticket's value
//! in an escrow of its own. Each try is a transaction of type 0x68: its value comes out of the escrow, and its gas was
//! paid before it, so that its sender pays nothing.
//!
//! All that is said here follows from fields that are hashed and from the receipt, by `arbos/tx_processor.go` of
//! OffchainLabs/nitro. Two things do not, and no block shows them: what a submission that failed gives back to whom, and
//! what a try gives back of its gas, which comes from the network's account and only if that has enough. Those are
//! traced, or found by the comparison with the chain's balances.

use alloy::primitives::{Address, B256, U256, keccak256};

use super::{
    envelope::{RETRY, SUBMISSION},
    json::{self, Raw},
};

/// What a submission costs: so much of L1's base fee, and more for each byte of the ticket's calldata.
const SUBMISSION_GAS: u64 = 1_400;
const SUBMISSION_GAS_PER_BYTE: u64 = 6;

/// What a transaction says of a ticket.
#[derive(Debug)]
pub(super) enum Ticket {
    Submitted(Submission),
    /// A try: where its value comes from.
    Tried {
        escrow: Address,
    },
}

#[derive(Debug)]
pub(super) struct Submission {
    /// What was deposited for it on L1.
    pub deposit: U256,
    /// What each try moves.
    pub value: U256,
    pub escrow: Address,
    /// Who gets back what is not needed.
    pub refund_to: Address,
    /// What it costs, and what was offered for that.
    pub fee: U256,
    most: U256,
    /// What was offered for the gas of the first try.
    most_for_gas: U256,
}

impl Ticket {
    /// Whatever is missing or is no number counts as nothing, as it is hashed.
    pub fn of(tx: &json::Transaction<'_>) -> Option<Box<Self>> {
        let ticket = match tx.kind() {
            SUBMISSION => {
                let data = tx.retry_data.and_then(Raw::hex).map_or(0, json::Hex::len);
                let per_byte = U256::from(data).saturating_mul(U256::from(SUBMISSION_GAS_PER_BYTE));
                let gas = per_byte.saturating_add(U256::from(SUBMISSION_GAS));
                Self::Submitted(Submission {
                    deposit: number(tx.deposit_value),
                    value: number(tx.retry_value),
                    escrow: escrow(tx.hash),
                    refund_to: Address::from(fixed(tx.refund_to)),
                    fee: number(tx.l1_base_fee).saturating_mul(gas),
                    most: number(tx.max_submission_fee),
                    most_for_gas: number(tx.gas).saturating_mul(tx.gas_price.unwrap_or_default()),
                })
            }
            RETRY => Self::Tried { escrow: escrow(B256::from(fixed(tx.ticket_id))) },
            _ => return None,
        };
        Some(Box::new(ticket))
    }
}

impl Submission {
    /// What its sender passes on, if it succeeded: to whom, and how much. `gas` is what was paid for the gas of the
    /// first try: nothing, if there is none.
    pub fn passed_on(&self, gas: U256) -> [(Address, U256); 2] {
        [(self.escrow, self.value), (self.refund_to, self.refund(gas))]
    }

    /// What was offered and is not needed, as far as the deposit goes once all else is paid from it.
    fn refund(&self, gas: U256) -> U256 {
        let left = self.deposit.saturating_sub(self.value).saturating_sub(self.fee);
        let of_fee = left.min(self.most.saturating_sub(self.fee));
        let left = left.saturating_sub(of_fee).saturating_sub(gas);
        let of_gas = left.min(self.most_for_gas.saturating_sub(gas));
        of_fee.saturating_add(of_gas)
    }
}

/// Where the value of a ticket waits.
fn escrow(ticket: B256) -> Address {
    Address::from_word(keccak256([b"retryable escrow", ticket.as_slice()].concat()))
}

fn number(raw: Option<Raw<'_>>) -> U256 {
    raw.and_then(Raw::word).map(U256::from_be_bytes::<32>).unwrap_or_default()
}

fn fixed<const N: usize>(raw: Option<Raw<'_>>) -> [u8; N] {
    raw.and_then(Raw::hex).and_then(json::Hex::to_array).unwrap_or([0; N])
}
