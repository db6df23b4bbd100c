//! A chain made up beforehand and a node that only hands it out: valid headers, signed transactions and receipts, so
//! that the daemon's full verification has to pass, and what each address holds after each block.

mod json;
mod node;

use std::{collections::HashMap, sync::LazyLock};

use alloy::{
    consensus::{
        Eip658Value, Header, Receipt, ReceiptEnvelope, SignableTransaction as _, Signed, TxEip1559,
        TxEnvelope,
        proofs::{calculate_receipt_root, calculate_transaction_root},
    },
    primitives::{Address, B256, Bloom, Bytes, Log, LogData, Signature, U256, b256, keccak256},
};
use axum::body::Bytes as Body;
use k256::ecdsa::SigningKey;
pub use node::{Manner, Node};

use crate::daemon::CHAIN_ID;

pub const TRANSFER: B256 =
    b256!("ddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef");
const FIRST_TIME: u64 = 1_750_000_000;
/// Those who send, one after the other, in each block.
const SIGNERS: u64 = 100;
/// Of every address before the first block: base units of the token, and wei.
pub const OPENING: u64 = 1_000_000_000_000;
pub const OPENING_WEI: u64 = 1_000_000_000_000_000_000;

/// Of so many transactions, one sends somebody a wei that only a trace shows.
const INSIDE: usize = 1_000;

/// Who gets what only traces show: none of the accounts that move tokens.
pub fn insider() -> Address {
    address(u64::MAX)
}

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
    /// Their hashes.
    transactions: Vec<B256>,
    receipts: Body,
    /// Whose balances each of its transactions changed.
    trace: Body,
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
    transactions: usize,
    /// The transactions that send something to the insider, with their blocks and contracts.
    inside: HashMap<B256, (u64, Address)>,
}

impl Chain {
    pub fn new() -> Self {
        let mut chain = Self {
            blocks: Vec::new(),
            by_hash: HashMap::new(),
            moved: HashMap::new(),
            transactions: 0,
            inside: HashMap::new(),
        };
        chain.push(&[]);
        chain
    }

    /// One more block: each transaction is the logs that it left.
    pub fn push(&mut self, transfers: &[Vec<Transfer>]) {
        let number = self.blocks.len();
        for transfer in transfers.iter().flatten().filter(|log| log.token == token(0)) {
            self.moved_at(number, transfer.from).sent += transfer.value;
            self.moved_at(number, transfer.to).received += transfer.value;
        }
        let mut gas = 0;
        let receipts: Vec<ReceiptEnvelope> = transfers
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
        let transactions: Vec<Signed<TxEip1559>> =
            transfers.iter().enumerate().map(|(n, logs)| transaction(number, n, logs)).collect();
        let envelopes: Vec<TxEnvelope> = transactions.iter().cloned().map(Into::into).collect();
        let header = Header {
            parent_hash: self.blocks.last().map(|parent| parent.hash).unwrap_or_default(),
            number,
            state_root: keccak256(number.to_be_bytes()),
            transactions_root: calculate_transaction_root(&envelopes),
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
        for (signed, transfers) in transactions.iter().zip(transfers) {
            self.transactions += 1;
            if let Some(first) =
                transfers.first().filter(|_| self.transactions.is_multiple_of(INSIDE))
            {
                self.inside.insert(*signed.hash(), (number, first.token));
            }
        }
        let (full, length) = json::block(&header, hash, &transactions);
        self.by_hash.insert(hash, self.blocks.len());
        self.blocks.push(Block {
            hash,
            full: full.into(),
            header: length,
            receipts: json::receipts(number, hash, &transactions, transfers, &receipts).into(),
            trace: json::trace(&transactions, transfers, &self.inside).into(),
            transactions: transactions.iter().map(|signed| *signed.hash()).collect(),
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

    /// What traces show that the insider has got up to a block, in wei.
    pub fn inside(&self, block: u64) -> u64 {
        self.inside.values().map(|(at, _)| u64::from(*at <= block)).sum()
    }

    /// How many transactions it has.
    pub fn transactions(&self) -> u64 {
        self.transactions as u64
    }

    /// The size of what the node hands out, in bytes.
    pub fn bytes(&self) -> u64 {
        self.blocks.iter().map(|block| (block.full.len() + block.receipts.len()) as u64).sum()
    }
}

fn gas_used(transfers: &[Transfer]) -> u64 {
    21_000 + 30_000 * transfers.len() as u64
}

/// What leaves these logs in the block, or a payment if there are none.
fn transaction(number: u64, index: usize, transfers: &[Transfer]) -> Signed<TxEip1559> {
    let transfer = [0xa9, 0x05, 0x9c, 0xbb];
    let tx = TxEip1559 {
        chain_id: CHAIN_ID,
        nonce: number,
        gas_limit: 200_000,
        max_fee_per_gas: 3_000_000_000,
        max_priority_fee_per_gas: 1,
        to: transfers.first().map_or(signer(index + 1).address, |logs| logs.token).into(),
        value: U256::from(if transfers.is_empty() { OPENING_WEI } else { 0 }),
        input: match transfers {
            [] => Bytes::new(),
            _ => [&transfer[..], &[0; 56], &(index as u64).to_be_bytes()].concat().into(),
        },
        ..TxEip1559::default()
    };
    let hash = tx.signature_hash();
    let key = &signer(index).key;
    let signed = key.sign_prehash_recoverable(hash.as_slice());
    let (signature, id) = signed.unwrap_or_else(|error| unreachable!("no signature: {error}"));
    let (r, s) = signature.split_bytes();
    let [r, s] = [r, s].map(|scalar| U256::from_be_slice(&scalar));
    tx.into_signed(Signature::new(r, s, id.is_y_odd()))
}

/// Somebody who is not registered.
struct Signer {
    key: SigningKey,
    address: Address,
}

/// Who sends the n-th transaction of each block.
fn signer(index: usize) -> &'static Signer {
    static SIGNERS_OF_ALL: LazyLock<Vec<Signer>> = LazyLock::new(|| {
        let signer = |n: u64| {
            let key = SigningKey::from_slice(keccak256(n.to_le_bytes()).as_slice())
                .unwrap_or_else(|error| unreachable!("no key: {error}"));
            let point = key.verifying_key().to_encoded_point(false);
            Signer { address: Address::from_raw_public_key(&point.as_bytes()[1..]), key }
        };
        (0..SIGNERS).map(signer).collect()
    });
    &SIGNERS_OF_ALL[index % SIGNERS_OF_ALL.len()]
}
