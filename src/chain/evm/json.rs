//! The fields of blocks, transactions and receipts that are read. Unknown fields are skipped, and what some
//! chains leave out is optional: a transaction type nobody has heard of must not stop a follower.
//!
//! Transactions and receipts borrow their hex from the response's body: calldata and log data are decoded only
//! where they are hashed or read.

use std::fmt;

use alloy::primitives::{Address, B64, B256, Bloom, Bytes, U256};
use serde::{
    Deserialize, Deserializer,
    de::{Error, Visitor},
};
use serde_json::value::RawValue;

/// A JSON-RPC quantity that fits in 64 bits: `"0x1b4"`; leading zeros and plain numbers pass too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Quantity(pub u64);

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = Quantity;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a quantity of at most 64 bits")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Quantity, E> {
                text.strip_prefix("0x")
                    .and_then(|digits| u64::from_str_radix(digits, 16).ok())
                    .map(Quantity)
                    .ok_or_else(|| E::custom("not a quantity of at most 64 bits"))
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Quantity, E> {
                Ok(Quantity(number))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

/// A block; `T` is [`serde::de::IgnoredAny`] for its header alone, or its transactions.
///
/// Whatever only the header's hash needs may be missing: then the hash does not fit, which is for the
/// verification to say.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Block<T> {
    pub number: Quantity,
    pub hash: B256,
    pub parent_hash: B256,
    pub timestamp: Quantity,
    #[serde(default, rename = "sha3Uncles")]
    pub ommers_hash: B256,
    #[serde(default)]
    pub miner: Address,
    #[serde(default)]
    pub state_root: B256,
    #[serde(default)]
    pub transactions_root: B256,
    #[serde(default)]
    pub receipts_root: B256,
    #[serde(default)]
    pub logs_bloom: Bloom,
    #[serde(default)]
    pub difficulty: U256,
    #[serde(default)]
    pub gas_limit: Quantity,
    #[serde(default)]
    pub gas_used: Quantity,
    #[serde(default)]
    pub extra_data: Bytes,
    #[serde(default)]
    pub mix_hash: B256,
    #[serde(default)]
    pub nonce: Option<B64>,
    pub base_fee_per_gas: Option<Quantity>,
    pub withdrawals_root: Option<B256>,
    pub blob_gas_used: Option<Quantity>,
    pub excess_blob_gas: Option<Quantity>,
    pub parent_beacon_block_root: Option<B256>,
    pub requests_hash: Option<B256>,
    /// EIP-7928.
    #[serde(rename = "blockAccessListHash")]
    pub access_list_hash: Option<B256>,
    pub slot_number: Option<Quantity>,
    #[serde(default)]
    pub transactions: T,
    pub withdrawals: Option<Vec<Withdrawal>>,
}

impl<T> Block<T> {
    /// The same block with something else for its transactions.
    pub fn map<U>(self, transactions: impl FnOnce(T) -> U) -> Block<U> {
        Block {
            number: self.number,
            hash: self.hash,
            parent_hash: self.parent_hash,
            timestamp: self.timestamp,
            ommers_hash: self.ommers_hash,
            miner: self.miner,
            state_root: self.state_root,
            transactions_root: self.transactions_root,
            receipts_root: self.receipts_root,
            logs_bloom: self.logs_bloom,
            difficulty: self.difficulty,
            gas_limit: self.gas_limit,
            gas_used: self.gas_used,
            extra_data: self.extra_data,
            mix_hash: self.mix_hash,
            nonce: self.nonce,
            base_fee_per_gas: self.base_fee_per_gas,
            withdrawals_root: self.withdrawals_root,
            blob_gas_used: self.blob_gas_used,
            excess_blob_gas: self.excess_blob_gas,
            parent_beacon_block_root: self.parent_beacon_block_root,
            requests_hash: self.requests_hash,
            access_list_hash: self.access_list_hash,
            slot_number: self.slot_number,
            transactions: transactions(self.transactions),
            withdrawals: self.withdrawals,
        }
    }
}

/// An EIP-4895 withdrawal.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Withdrawal {
    pub index: Quantity,
    pub validator_index: Quantity,
    pub address: Address,
    /// In Gwei.
    pub amount: Quantity,
}

/// A transaction. What is read of it on every chain has its type here; the rest is only for its hash.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Transaction<'a> {
    pub hash: B256,
    #[serde(default)]
    pub block_hash: Option<B256>,
    pub from: Option<Address>,
    pub to: Option<Address>,
    pub value: Option<U256>,
    pub nonce: Option<Quantity>,
    #[serde(rename = "type")]
    pub kind: Option<Quantity>,
    pub gas_price: Option<U256>,
    /// What an OP-stack deposit credits to its sender, whether or not it succeeds.
    pub mint: Option<U256>,
    #[serde(borrow)]
    pub chain_id: Option<Raw<'a>>,
    pub gas: Option<Raw<'a>>,
    pub max_fee_per_gas: Option<Raw<'a>>,
    pub max_priority_fee_per_gas: Option<Raw<'a>>,
    pub input: Option<Raw<'a>>,
    /// EIP-2930.
    pub access_list: Option<Raw<'a>>,
    /// EIP-4844.
    pub max_fee_per_blob_gas: Option<Raw<'a>>,
    pub blob_versioned_hashes: Option<Raw<'a>>,
    /// EIP-7702.
    pub authorization_list: Option<Raw<'a>>,
    pub v: Option<Raw<'a>>,
    pub y_parity: Option<Raw<'a>>,
    pub r: Option<Raw<'a>>,
    pub s: Option<Raw<'a>>,
    /// OP stack.
    pub source_hash: Option<Raw<'a>>,
    pub is_system_tx: Option<Raw<'a>>,
    /// Arbitrum.
    pub request_id: Option<Raw<'a>>,
    pub ticket_id: Option<Raw<'a>>,
    pub refund_to: Option<Raw<'a>>,
    pub max_refund: Option<Raw<'a>>,
    pub submission_fee_refund: Option<Raw<'a>>,
    pub l1_base_fee: Option<Raw<'a>>,
    pub deposit_value: Option<Raw<'a>>,
    pub retry_to: Option<Raw<'a>>,
    pub retry_value: Option<Raw<'a>>,
    pub retry_data: Option<Raw<'a>>,
    pub beneficiary: Option<Raw<'a>>,
    pub max_submission_fee: Option<Raw<'a>>,
    /// Celo.
    pub fee_currency: Option<Raw<'a>>,
    pub gateway_fee_recipient: Option<Raw<'a>>,
    pub gateway_fee: Option<Raw<'a>>,
}

impl Transaction<'_> {
    /// The EIP-2718 type; what has none is a legacy transaction.
    pub fn kind(&self) -> u64 {
        self.kind.unwrap_or_default().0
    }
}

/// The fields of an entry of an EIP-2930 access list, and of an EIP-7702 authorization list.
pub(super) const ACCESS: &[&str] = &["address", "storageKeys"];
pub(super) const AUTHORIZATION: &[&str] =
    &["chainId", "address", "nonce", "yParity", "v", "r", "s"];

/// A value that is taken apart only where it is hashed: whatever a chain writes there stops nobody else.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(transparent)]
pub(super) struct Raw<'a>(#[serde(borrow)] &'a RawValue);

impl<'a> Raw<'a> {
    pub fn parse<T: Deserialize<'a>>(self) -> Option<T> {
        serde_json::from_str(self.0.get()).ok()
    }

    /// The text, if it is one and nothing in it is escaped.
    pub fn hex(self) -> Option<Hex<'a>> {
        Some(Hex(self.0.get().strip_prefix('"')?.strip_suffix('"')?))
    }

    /// A number of at most 256 bits, as its bytes from the highest on.
    pub fn word(self) -> Option<[u8; 32]> {
        let digits = self.hex()?.0.strip_prefix("0x")?.trim_start_matches('0');
        let mut padded = [b'0'; 64];
        padded[64_usize.checked_sub(digits.len())?..].copy_from_slice(digits.as_bytes());
        let mut word = [0; 32];
        alloy::hex::decode_to_slice(padded, &mut word).ok()?;
        Some(word)
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Receipt<'a> {
    pub transaction_hash: B256,
    pub transaction_index: Option<Quantity>,
    pub block_hash: B256,
    pub status: Option<Quantity>,
    #[serde(rename = "type")]
    pub kind: Option<Quantity>,
    pub contract_address: Option<Address>,
    pub gas_used: Quantity,
    #[serde(default)]
    pub cumulative_gas_used: Quantity,
    pub effective_gas_price: Option<U256>,
    pub blob_gas_used: Option<Quantity>,
    pub blob_gas_price: Option<U256>,
    /// OP stack: the fee for the data on L1, in wei.
    pub l1_fee: Option<U256>,
    pub operator_fee_scalar: Option<U256>,
    pub operator_fee_constant: Option<U256>,
    /// OP stack since Jovian, where it also tells how the operator's fee is reckoned.
    pub da_footprint_gas_scalar: Option<Quantity>,
    /// OP stack, of deposits: since Canyon both are hashed.
    pub deposit_nonce: Option<Quantity>,
    pub deposit_receipt_version: Option<Quantity>,
    /// Celo, where a fee is paid in a token: in units of it. It is hashed.
    #[serde(borrow)]
    pub base_fee: Option<Raw<'a>>,
    #[serde(borrow)]
    pub logs_bloom: Option<Hex<'a>>,
    #[serde(borrow)]
    pub logs: Vec<Log<'a>>,
}

impl Receipt<'_> {
    pub fn kind(&self) -> u64 {
        self.kind.unwrap_or_default().0
    }

    /// `None` before Byzantium, where a receipt does not say.
    pub fn success(&self) -> Option<bool> {
        self.status.map(|status| status.0 == 1)
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Log<'a> {
    pub address: Address,
    pub topics: Vec<B256>,
    #[serde(borrow)]
    pub data: Hex<'a>,
    /// Its place in the block.
    #[serde(rename = "logIndex")]
    pub index: Option<Quantity>,
}

/// `0x` and hexadecimal digits, not decoded yet.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(transparent)]
pub(super) struct Hex<'a>(&'a str);

impl<'a> Hex<'a> {
    fn digits(self) -> Option<&'a str> {
        self.0.strip_prefix("0x").filter(|digits| digits.len().is_multiple_of(2))
    }

    /// How many bytes the digits are for.
    pub fn len(self) -> usize {
        self.digits().map_or(0, |digits| digits.len() / 2)
    }

    /// Appends the bytes; `None`, with `out` as it was, if the text is not hexadecimal.
    pub fn append_to(self, out: &mut Vec<u8>) -> Option<()> {
        let digits = self.digits()?;
        let start = out.len();
        out.resize(start + digits.len() / 2, 0);
        if alloy::hex::decode_to_slice(digits, &mut out[start..]).is_err() {
            out.truncate(start);
            return None;
        }
        Some(())
    }

    pub fn to_vec(self) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        self.append_to(&mut out)?;
        Some(out)
    }

    /// The bytes if there are exactly `N` of them.
    pub fn to_array<const N: usize>(self) -> Option<[u8; N]> {
        let mut out = [0; N];
        alloy::hex::decode_to_slice(self.digits()?, &mut out).ok()?;
        Some(out)
    }
}
