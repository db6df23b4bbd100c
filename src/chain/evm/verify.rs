//! Does what a node returned fit together?
//!
//! Providers leave out logs, mix blocks and answer from behind. The header's hash covers everything else:
//! if it is the hash of the header's own fields, then the roots in it say exactly which transactions and receipts,
//! with which logs, the block has. Where a chain hashes its headers or receipts in a way of its own, the
//! logs' bloom still shows a log that is missing.

use std::{collections::HashSet, ops::Deref};

use alloy::{
    consensus::{EMPTY_ROOT_HASH, Header},
    eips::eip4895,
    primitives::{B256, Bloom, U256, keccak256},
    rlp::{self, BufMut as _, Encodable as _},
};
use alloy_trie::root::{ordered_trie_root, ordered_trie_root_encoded};

use super::{
    derived,
    envelope::{self, Form, Root, Transaction, Transactions, is_type},
    json::{self, Block, Log, Quantity, Receipt},
    senders,
};
use crate::{
    chain::{
        self, BlockRef, ChainName,
        rpc::{Failure, UNLINKED},
    },
    config::Verification,
    metrics::Metrics,
};

/// The last EIP-2718 type of Ethereum (EIP-7702). Rollups and sidechains have types of their own above it, some
/// with receipts of their own: such a chain is configured as `bloom`.
const LAST_COMMON_TYPE: u64 = 4;
/// EIP-2681 ends nonces at 2^64 − 1, and the store here: no account comes near either.
const MAX_NONCE: u64 = u64::MAX >> 1;

/// The chain ids of development networks: the one that Anvil and Hardhat have unless they are told another, and
/// some after it for those who start several. No real chain has one of them.
const DEVELOPMENT: std::ops::RangeInclusive<u64> = 31_337..=31_399;

/// Checks what one chain's endpoints return, and counts what does not fit.
#[derive(Clone)]
pub(super) struct Checker {
    pub chain: ChainName,
    pub chain_id: u64,
    pub verification: Verification,
    pub metrics: Metrics,
}

/// A block with its transactions.
pub(super) type FullBlock = Block<Transactions>;

/// What passed the checks that the chain's configuration asks for. Few they may be (`links`), but nothing is
/// decoded that went through none: only a [`Checker`] makes one of these.
#[derive(Debug)]
pub(super) struct Verified<T>(T);

impl<T> Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// A block and its receipts, one for each transaction.
#[derive(Debug)]
pub(super) struct BlockAndReceipts<'a> {
    pub block: &'a FullBlock,
    pub receipts: &'a [Receipt<'a>],
    /// Polygon's receipt without a transaction, where there is one.
    pub state_sync: Option<&'a Receipt<'a>>,
}

impl Checker {
    /// Whether a header is what its hash says.
    pub fn header<T>(&self, block: Block<T>) -> Result<Verified<Block<T>>, Failure> {
        self.counted(height(block.number.0))?;
        self.counted(linked(&block))?;
        if self.verification == Verification::Full {
            self.counted(header_hash(&block))?;
        }
        Ok(Verified(block))
    }

    /// A block as it was told; its transactions are hashed where their root is checked.
    pub fn told(&self, block: Block<Vec<json::Transaction<'_>>>) -> FullBlock {
        block.map(|transactions| match self.verification {
            Verification::Full => self.hashed(&transactions),
            Verification::Bloom | Verification::Links => Transactions::told(&transactions),
        })
    }

    /// Whether a block, its transactions and their receipts belong together.
    pub fn block<'a>(
        &self,
        block: &'a FullBlock,
        receipts: &'a [Receipt<'a>],
    ) -> Result<Verified<BlockAndReceipts<'a>>, Failure> {
        let (receipts, state_sync) = without_state_sync(block, receipts);
        self.counted(self.check(block, receipts))?;
        if block.transactions.root == Some(Root::Unknown) {
            self.count_unhashed(&block.transactions);
        }
        Ok(Verified(BlockAndReceipts { block, receipts, state_sync }))
    }

    /// Whether a transaction by itself is what its hash says, and its sender who has signed it.
    pub fn transaction(&self, told: &json::Transaction<'_>) -> Result<(), Failure> {
        if self.verification != Verification::Full {
            return Ok(());
        }
        self.counted(by_itself(&self.hashed(std::slice::from_ref(told))))
    }

    fn hashed(&self, told: &[json::Transaction<'_>]) -> Transactions {
        Transactions::hashed(told, DEVELOPMENT.contains(&self.chain_id))
    }

    /// Whether the senders that are still a node's word are those who signed.
    pub fn senders(&self, block: &chain::Block) -> Result<(), Failure> {
        self.counted(senders::prove(block))
    }

    /// One more answer that did not pass a check.
    pub fn count(&self, check: &'static str) {
        self.metrics
            .verification_failures_total
            .with_label_values(&[self.chain.as_str(), check])
            .inc();
    }

    /// The receipts' root has shown these types to be the chain's own, so that they are few.
    fn count_unhashed(&self, transactions: &[Transaction]) {
        let unknown = |tx: &&Transaction| matches!(envelope::form(tx.kind), Form::Unknown);
        for tx in transactions.iter().filter(unknown) {
            let kind = format!("{:#04x}", tx.kind);
            self.metrics
                .unhashed_transactions_total
                .with_label_values(&[self.chain.as_str(), &kind])
                .inc();
        }
    }

    fn counted(&self, result: Result<(), Failure>) -> Result<(), Failure> {
        if let Err(Failure::Untrusted { check, .. }) = &result {
            self.count(check);
        }
        result
    }

    fn check(&self, block: &FullBlock, receipts: &[Receipt<'_>]) -> Result<(), Failure> {
        height(block.number.0)?;
        linked(block)?;
        links(block, receipts)?;
        match self.verification {
            Verification::Links => Ok(()),
            Verification::Bloom => logs_bloom(block, receipts),
            Verification::Full => {
                header_hash(block)?;
                bodies(block)?;
                // Whatever types the node names: else a name would spare it the root.
                receipts_root(block, receipts)?;
                types(block, receipts)?;
                transactions_root(block)?;
                derived::check(block, receipts)
            }
        }
    }
}

/// Before its Madhugiri fork Polygon appended a receipt for the state sync, under a hash made from the
/// block's, that no transaction, receipts' root or bloom knows of.
fn without_state_sync<'a>(
    block: &FullBlock,
    receipts: &'a [Receipt<'a>],
) -> (&'a [Receipt<'a>], Option<&'a Receipt<'a>>) {
    if receipts.len() == block.transactions.len() + 1
        && let Some((last, rest)) = receipts.split_last()
    {
        let mut name = b"matic-bor-receipt-".to_vec();
        name.extend(block.number.0.to_be_bytes());
        name.extend(block.hash);
        if last.transaction_hash == keccak256(name) && last.block_hash == block.hash {
            return (rest, Some(last));
        }
    }
    (receipts, None)
}

/// The height is one that a chain can have, and the store.
pub(super) fn height(number: u64) -> Result<(), Failure> {
    if number <= BlockRef::MAX_HEIGHT {
        return Ok(());
    }
    Err(Failure::untrusted("height", format!("{number} is no height of a block")))
}

/// The nonce of a transaction is one that an account can have, and the store.
pub(super) fn nonce(told: Option<Quantity>) -> Result<Option<u64>, Failure> {
    match told {
        Some(Quantity(nonce)) if nonce > MAX_NONCE => {
            Err(Failure::untrusted("nonce", format!("{nonce} is no nonce of a transaction")))
        }
        nonce => Ok(nonce.map(|nonce| nonce.0)),
    }
}

/// Every block but a chain's first names its parent: without it nothing shows that a block continues the one below.
pub(super) fn linked<T>(block: &Block<T>) -> Result<(), Failure> {
    if block.number.0 == 0 || !block.parent_hash.is_zero() {
        return Ok(());
    }
    Err(Failure::untrusted(
        UNLINKED,
        format!("block {} names no parent: its parent hash is zero", block.number.0),
    ))
}

/// Every transaction stands once and has its receipt, in order, and every receipt names this block.
fn links(block: &FullBlock, receipts: &[Receipt<'_>]) -> Result<(), Failure> {
    let wrong = |detail: String| Err(Failure::untrusted("receipt_links", detail));
    let number = block.number.0;
    if receipts.len() != block.transactions.len() {
        return wrong(format!(
            "block {number} has {} transactions and {} receipts",
            block.transactions.len(),
            receipts.len()
        ));
    }
    let mut last_log = None;
    let mut seen = HashSet::with_capacity(receipts.len());
    for (index, (tx, receipt)) in block.transactions.iter().zip(receipts).enumerate() {
        if receipt.transaction_hash != tx.hash
            || receipt.block_hash != block.hash
            || tx.block_hash.is_some_and(|hash| hash != block.hash)
            || receipt.transaction_index.is_some_and(|at| usize::try_from(at.0) != Ok(index))
        {
            return wrong(format!(
                "receipt {index} is not of transaction {index} of block {number}"
            ));
        }
        if !seen.insert(tx.hash) {
            return wrong(format!("transaction {index} of block {number} stands there twice"));
        }
        nonce(tx.nonce)?;
        for log in &receipt.logs {
            // The place of a log in its receipt names a movement for ever: it must not be a matter of
            // how a node sorts.
            if let Some(at) = log.index {
                if last_log.is_some_and(|last| at.0 <= last) {
                    return wrong(format!("the logs of block {number} are out of order"));
                }
                last_log = Some(at.0);
            }
        }
    }
    let mut seen = HashSet::new();
    let mut withdrawals = block.withdrawals.iter().flatten();
    if withdrawals.any(|withdrawal| !seen.insert(withdrawal.index.0)) {
        return wrong(format!("a withdrawal of block {number} stands there twice"));
    }
    Ok(())
}

/// Whether a block's hash is that of its header's fields; chains that hash in a way of their own never pass.
pub(super) fn is_what_its_hash_says<T>(block: &Block<T>) -> bool {
    hash_of(block) == block.hash
}

/// The hash of a header's fields.
pub(super) fn hash_of<T>(block: &Block<T>) -> B256 {
    header(block).hash_slow()
}

fn header_hash<T>(block: &Block<T>) -> Result<(), Failure> {
    let found = hash_of(block);
    if found == block.hash {
        return Ok(());
    }
    Err(Failure::untrusted(
        "header_hash",
        format!(
            "block {} is called {} and its header hashes to {found}",
            block.number.0, block.hash
        ),
    ))
}

/// The header as it is hashed; fields of later forks are part of it where the node shows them.
pub(super) fn header<T>(block: &Block<T>) -> Header {
    Header {
        parent_hash: block.parent_hash,
        ommers_hash: block.ommers_hash,
        beneficiary: block.miner,
        state_root: block.state_root,
        transactions_root: block.transactions_root,
        receipts_root: block.receipts_root,
        logs_bloom: block.logs_bloom,
        difficulty: block.difficulty,
        number: block.number.0,
        gas_limit: block.gas_limit.0,
        gas_used: block.gas_used.0,
        timestamp: block.timestamp.0,
        extra_data: block.extra_data.clone(),
        mix_hash: block.mix_hash,
        nonce: block.nonce.unwrap_or_default(),
        base_fee_per_gas: block.base_fee_per_gas.map(|fee| fee.0),
        withdrawals_root: block.withdrawals_root,
        blob_gas_used: block.blob_gas_used.map(|gas| gas.0),
        excess_blob_gas: block.excess_blob_gas.map(|gas| gas.0),
        parent_beacon_block_root: block.parent_beacon_block_root,
        requests_hash: block.requests_hash,
        block_access_list_hash: block.access_list_hash,
        slot_number: block.slot_number.map(|slot| slot.0),
    }
}

/// The parts of the body that have nothing to do with receipts.
fn bodies(block: &FullBlock) -> Result<(), Failure> {
    if block.transactions.is_empty() && block.transactions_root != EMPTY_ROOT_HASH {
        return Err(Failure::untrusted(
            "transactions_root",
            format!("the transactions of block {} are missing", block.number.0),
        ));
    }
    let told = block.withdrawals.as_deref().unwrap_or_default();
    // OP-stack chains keep another root under this name and have no withdrawals. Their blocks begin with a deposit,
    // but for the first.
    let first = block.transactions.first().map(|tx| tx.kind);
    let elsewhere = block.number.0 == 0 || first == Some(envelope::OP_DEPOSIT);
    if told.is_empty() && elsewhere {
        return Ok(());
    }
    let encoded: Vec<_> = told
        .iter()
        .map(|withdrawal| eip4895::Withdrawal {
            index: withdrawal.index.0,
            validator_index: withdrawal.validator_index.0,
            address: withdrawal.address,
            amount: withdrawal.amount.0,
        })
        .collect();
    if ordered_trie_root(&encoded) == block.withdrawals_root.unwrap_or(EMPTY_ROOT_HASH) {
        return Ok(());
    }
    Err(Failure::untrusted(
        "withdrawals_root",
        format!("the withdrawals of block {} are not those of its header", block.number.0),
    ))
}

/// The transactions are those of the header. A type that nobody here can hash leaves them to the node's word: the
/// receipts' root has shown that it is not the node who made it up.
fn transactions_root(block: &FullBlock) -> Result<(), Failure> {
    let number = block.number.0;
    let untrusted = |check, detail| Err(Failure::untrusted(check, detail));
    match block.transactions.root {
        Some(Root::Is(found)) if found != block.transactions_root => {
            return untrusted(
                "transactions_root",
                format!(
                    "the transactions of block {number} hash to {found}, its header says {}",
                    block.transactions_root
                ),
            );
        }
        Some(Root::Bad(index, field)) => {
            let detail = format!("transaction {index} of block {number} has a bad {field:?}");
            return Err(Failure::Invalid(detail));
        }
        Some(Root::Is(_) | Root::Unknown) | None => {}
    }
    match block.transactions.other {
        Some(index) => untrusted(
            "transaction_hash",
            format!("transaction {index} of block {number} is not what its hash says"),
        ),
        None => Ok(()),
    }
}

/// The same for a transaction of no block: what its hash was asked for is all that there is of it.
fn by_itself(transactions: &Transactions) -> Result<(), Failure> {
    if let Some(Root::Bad(_, field)) = transactions.root {
        return Err(Failure::Invalid(format!("a transaction has a bad {field:?}")));
    }
    if transactions.other.is_some() {
        let detail = "a transaction is not what its hash says".to_owned();
        return Err(Failure::untrusted("transaction_hash", detail));
    }
    transactions.iter().try_for_each(senders::prove_one)
}

/// A type says what a transaction's value means. That of the receipt is under the receipts' root.
fn types(block: &FullBlock, receipts: &[Receipt<'_>]) -> Result<(), Failure> {
    let mut pairs = block.transactions.iter().zip(receipts);
    if pairs.all(|(tx, receipt)| tx.kind == receipt.kind()) {
        return Ok(());
    }
    let detail = format!("a transaction of block {} has two types", block.number.0);
    Err(Failure::untrusted("transaction_type", detail))
}

fn receipts_root(block: &FullBlock, receipts: &[Receipt<'_>]) -> Result<(), Failure> {
    let number = block.number.0;
    let encoded = receipts
        .iter()
        .map(|receipt| {
            encode(receipt).ok_or_else(|| {
                Failure::Invalid(format!("a receipt of block {number} has bad or missing fields"))
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    let found: B256 = ordered_trie_root_encoded(&encoded);
    if found == block.receipts_root {
        return Ok(());
    }
    Err(Failure::untrusted(
        "receipts_root",
        format!(
            "the receipts of block {number} hash to {found}, its header says {}{}",
            block.receipts_root,
            if receipts.iter().all(|receipt| receipt.kind() <= LAST_COMMON_TYPE) {
                ""
            } else {
                "; a chain with types of its own needs verification = \"bloom\""
            },
        ),
    ))
}

/// A receipt as it is hashed (EIP-2718, EIP-658): the type, then the status, the gas used so far, the bloom
/// and the logs; after them, what the OP stack and Celo add to types of theirs. A receipt from before Byzantium has
/// a state root for its status and does not pass.
pub(super) fn encode(receipt: &Receipt<'_>) -> Option<Vec<u8>> {
    let status = receipt.success()?;
    let gas = receipt.cumulative_gas_used.0;
    // Covered by the root, so that the node's word is enough.
    let bloom = Bloom::from(receipt.logs_bloom?.to_array::<256>()?);
    let logs: usize = receipt.logs.iter().map(|log| list_length(log_length(log))).sum();
    let added = added(receipt);
    let payload_length =
        status.length() + gas.length() + bloom.length() + list_length(logs) + added.len();
    let mut out = Vec::with_capacity(1 + list_length(payload_length));
    if receipt.kind() > 0 {
        out.put_u8(u8::try_from(receipt.kind()).ok().filter(|_| is_type(receipt.kind()))?);
    }
    rlp::Header { list: true, payload_length }.encode(&mut out);
    status.encode(&mut out);
    gas.encode(&mut out);
    bloom.encode(&mut out);
    rlp::Header { list: true, payload_length: logs }.encode(&mut out);
    let mut data = Vec::new();
    for log in &receipt.logs {
        rlp::Header { list: true, payload_length: log_length(log) }.encode(&mut out);
        log.address.encode(&mut out);
        log.topics.encode(&mut out);
        data.clear();
        log.data.append_to(&mut data)?;
        data.as_slice().encode(&mut out);
    }
    out.extend(added);
    Some(out)
}

/// What some types have after the logs, encoded.
fn added(receipt: &Receipt<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    match (receipt.kind(), receipt.deposit_receipt_version, receipt.base_fee) {
        // Since Canyon.
        (envelope::OP_DEPOSIT, Some(version), _) => {
            receipt.deposit_nonce.unwrap_or_default().0.encode(&mut out);
            version.0.encode(&mut out);
        }
        (envelope::CELO, _, Some(base_fee)) => {
            base_fee.word().map(U256::from_be_bytes::<32>).unwrap_or_default().encode(&mut out);
        }
        _ => {}
    }
    out
}

fn list_length(payload: usize) -> usize {
    payload + rlp::length_of_length(payload)
}

fn log_length(log: &Log<'_>) -> usize {
    let data = log.data.len();
    // One byte below 0x80 is its own encoding.
    let data = if data == 1 {
        log.data.to_array::<1>().map_or(1, |byte| byte.as_slice().length())
    } else {
        list_length(data)
    };
    log.address.length() + log.topics.length() + data
}

fn logs_bloom(block: &FullBlock, receipts: &[Receipt<'_>]) -> Result<(), Failure> {
    let mut bloom = Bloom::ZERO;
    for log in receipts.iter().flat_map(|receipt| &receipt.logs) {
        bloom.accrue_raw_log(log.address, &log.topics);
    }
    if bloom == block.logs_bloom {
        return Ok(());
    }
    Err(Failure::untrusted(
        "logs_bloom",
        format!("the logs of block {} are not those of its header's bloom", block.number.0),
    ))
}
