//! Transactions that somebody has signed, and blocks that hold them.

use alloy::{
    consensus::{SignableTransaction, Signed, TxEnvelope},
    primitives::{Address as EvmAddress, B256, Signature, U256, keccak256},
};
use alloy_trie::root::ordered_trie_root_encoded;
use k256::ecdsa::SigningKey;
use serde_json::{Value, json};

use super::{checker, mixed_block, mixed_receipts, told};
use crate::{
    chain::evm::{envelope::Root, json::Receipt, verify},
    config::Verification,
};

/// The n-th of those who sign.
pub(super) fn key(n: u64) -> SigningKey {
    SigningKey::from_slice(keccak256(n.to_le_bytes()).as_slice()).expect("a key")
}

pub(super) fn address(n: u64) -> EvmAddress {
    let point = key(n).verifying_key().to_encoded_point(false);
    EvmAddress::from_raw_public_key(&point.as_bytes()[1..])
}

pub(super) fn signature(hash: B256, n: u64) -> Signature {
    let (signature, id) = key(n).sign_prehash_recoverable(hash.as_slice()).expect("a signature");
    let (r, s) = signature.split_bytes();
    let [r, s] = [r, s].map(|scalar| U256::from_be_slice(&scalar));
    Signature::new(r, s, id.is_y_odd())
}

/// Signed by the n-th of them.
pub(super) fn sign<T>(tx: T, n: u64) -> TxEnvelope
where
    T: SignableTransaction<Signature>,
    Signed<T>: Into<TxEnvelope>,
{
    let signature = signature(tx.signature_hash(), n);
    tx.into_signed(signature).into()
}

/// As a node shows it.
pub(super) fn shown(tx: &TxEnvelope, from: EvmAddress) -> Value {
    let mut shown = serde_json::to_value(tx).expect("JSON");
    shown["from"] = json!(from);
    shown
}

/// A block of these transactions, and what their receipts say beside what is the same in all: each uses 21,000 gas,
/// succeeds and logs nothing.
pub(super) fn block_of(transactions: &[Value], receipts: &[Value]) -> (Value, Value) {
    let (mut block, like) = (mixed_block(), mixed_receipts()[0].clone());
    block["transactions"] = json!(transactions);
    let receipts: Vec<Value> = (1_u64..)
        .zip(transactions.iter().zip(receipts))
        .map(|(n, (tx, receipt))| {
            let mut whole = like.clone();
            for (name, value) in receipt.as_object().expect("an object") {
                whole[name] = value.clone();
            }
            whole["type"] = tx["type"].clone();
            whole["transactionHash"] = tx["hash"].clone();
            whole["transactionIndex"] = json!(format!("{:#x}", n - 1));
            whole["cumulativeGasUsed"] = json!(format!("{:#x}", 21_000 * n));
            whole
        })
        .collect();
    sealed(block, json!(receipts))
}

/// The same block with roots and a hash that fit its contents, as far as they can be hashed.
pub(super) fn sealed(mut block: Value, mut receipts: Value) -> (Value, Value) {
    let text = receipts.to_string();
    let parsed: Vec<Receipt<'_>> = serde_json::from_str(&text).expect("receipts");
    let encoded: Vec<Vec<u8>> =
        parsed.iter().map(|receipt| verify::encode(receipt).expect("an encoding")).collect();
    block["receiptsRoot"] = json!(ordered_trie_root_encoded(&encoded));
    if let Some(Root::Is(root)) = told(&checker(Verification::Full), &block).transactions.root {
        block["transactionsRoot"] = json!(root);
    }
    let hash = json!(verify::hash_of(&told(&checker(Verification::Full), &block)));
    for part in block["transactions"].as_array_mut().expect("a list") {
        part["blockHash"] = hash.clone();
    }
    for part in receipts.as_array_mut().expect("a list") {
        part["blockHash"] = hash.clone();
    }
    block["hash"] = hash;
    (block, receipts)
}
