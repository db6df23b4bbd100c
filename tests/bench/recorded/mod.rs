//! A chain made up beforehand and a node that only hands it out: valid headers and receipts, so that the
//! daemon's full verification has to pass, and what each address holds after each block.

mod json;
mod node;

use std::collections::HashMap;

use alloy::{
    consensus::{Eip658Value, Header, Receipt, ReceiptEnvelope, proofs::calculate_receipt_root},
    primitives::{Address, B256, Bloom, Bytes, Log, LogData, U256, b256, keccak256},
};
use axum::body::Bytes as Body;
pub use node::{Manner, Node};

pub const TRANSFER: B256 =
    b256!("ddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef");
const FIRST_TIME: u64 = 1_750_000_000;
/// Of every address before the first block: base units of the token, and wei.
pub const OPENING: u64 = 1_000_000_000_000;
pub const OPENING_WEI: u64 = 1_000_000_000_000_000_000;

/// The contract of the n-th token; the first is the configured one, whose balances are known.
pub fn token(n: u8) -> Address {
    Address::repeat_byte(0xa0 + n)
}

/// The n-th of the addresses that nobody else has.
pub fn address(n: u64) -> Address {
    Address::from_word(keccak256(n.to_be_bytes()))
}

/// An ERC-20 transfer.
#[derive(Clone, Copy)]
pub struct Transfer {
    pub token: Address,
    pub from: Address,
    pub to: Address,
    pub value: u64,
}

impl Transfer {
    fn log(&self) -> Log {
        let topics = vec![TRANSFER, self.from.into_word(), self.to.into_word()];
        let data = Bytes::from(U256::from(self.value).to_be_bytes::<32>());
        Log { address: self.token, data: LogData::new_unchecked(topics, data) }
    }
}

/// One block as the node answers, in JSON that is recorded once and shared by all answers.
struct Block {
    hash: B256,
    /// With its transactions.
    full: Body,
    /// How much of `full` stands before the first transaction.
    header: usize,
    transactions: usize,
    receipts: Body,
}

/// What an address has received and sent of the token, all in all, after the block.
#[derive(Clone, Copy, Default)]
pub struct Moved {
    block: usize,
    pub received: u64,
    pub sent: u64,
}

/// Block 0 and those after it.
pub struct Chain {
    blocks: Vec<Block>,
    by_hash: HashMap<B256, usize>,
    moved: HashMap<Address, Vec<Moved>>,
}

impl Chain {
    pub fn new() -> Self {
        let mut chain = Self { blocks: Vec::new(), by_hash: HashMap::new(), moved: HashMap::new() };
        chain.push(&[]);
        chain
    }

    /// One more block: each transaction is the logs that it left.
    pub fn push(&mut self, transactions: &[Vec<Transfer>]) {
        let number = self.blocks.len();
        for transfer in transactions.iter().flatten().filter(|log| log.token == token(0)) {
            self.moved_at(number, transfer.from).sent += transfer.value;
            self.moved_at(number, transfer.to).received += transfer.value;
        }
        let mut gas = 0;
        let receipts: Vec<ReceiptEnvelope> = transactions
            .iter()
            .map(|transfers| {
                gas += gas_used(transfers);
                let logs = transfers.iter().map(Transfer::log).collect();
                let receipt =
                    Receipt { status: Eip658Value::Eip658(true), cumulative_gas_used: gas, logs };
                ReceiptEnvelope::Eip1559(receipt.into())
            })
            .collect();
        let mut logs_bloom = Bloom::ZERO;
        for receipt in &receipts {
            logs_bloom |= *receipt.logs_bloom();
        }
        let number = number as u64;
        let header = Header {
            parent_hash: self.blocks.last().map(|parent| parent.hash).unwrap_or_default(),
            number,
            state_root: keccak256(number.to_be_bytes()),
            transactions_root: if transactions.is_empty() {
                alloy::consensus::EMPTY_ROOT_HASH
            } else {
                // It cannot be checked without the signatures, so nobody does.
                keccak256(number.to_le_bytes())
            },
            receipts_root: calculate_receipt_root(&receipts),
            logs_bloom,
            gas_limit: 60_000_000,
            gas_used: gas,
            timestamp: FIRST_TIME + 2 * number,
            extra_data: Bytes::from_static(b"recorded"),
            base_fee_per_gas: Some(1_000_000_000),
            ..Header::default()
        };
        let hash = header.hash_slow();
        let (full, length) = json::block(&header, hash, transactions);
        self.by_hash.insert(hash, self.blocks.len());
        self.blocks.push(Block {
            hash,
            full: full.into(),
            header: length,
            transactions: transactions.len(),
            receipts: json::receipts(number, hash, transactions, &receipts).into(),
        });
    }

    fn moved_at(&mut self, block: usize, who: Address) -> &mut Moved {
        let moved = self.moved.entry(who).or_default();
        let last = moved.last().copied().unwrap_or_default();
        if moved.is_empty() || last.block < block {
            moved.push(Moved { block, ..last });
        }
        let index = moved.len() - 1;
        &mut moved[index]
    }

    pub fn head(&self) -> u64 {
        self.blocks.len() as u64 - 1
    }

    /// What an address has received and sent of the token up to a block.
    pub fn moved(&self, who: Address, block: u64) -> Moved {
        let Some(moved) = self.moved.get(&who) else { return Moved::default() };
        let after = moved.partition_point(|moved| moved.block as u64 <= block);
        after.checked_sub(1).map_or_else(Moved::default, |index| moved[index])
    }

    /// What an address has of the token after a block.
    pub fn balance(&self, who: Address, block: u64) -> u64 {
        let Moved { received, sent, .. } = self.moved(who, block);
        OPENING + received - sent
    }

    /// The size of what the node hands out, in bytes.
    pub fn bytes(&self) -> u64 {
        self.blocks.iter().map(|block| (block.full.len() + block.receipts.len()) as u64).sum()
    }
}

fn gas_used(transfers: &[Transfer]) -> u64 {
    21_000 + 30_000 * transfers.len() as u64
}

/// Who sends the n-th transaction: nobody who is registered.
fn sender(index: usize) -> Address {
    Address::left_padding_from(&(0x5e4d_0000 + index as u64).to_be_bytes())
}
