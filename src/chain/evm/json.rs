//! The fields of blocks, transactions and receipts that are read. Unknown fields are skipped, and what some
//! chains leave out is optional: a transaction type nobody has heard of must not stop a follower.
//!
//! Receipts borrow their hex from the response's body: log data is decoded only where it is hashed or read.

use std::fmt;

use alloy::primitives::{Address, B64, B256, Bloom, Bytes, U256};
use serde::{
    Deserialize, Deserializer,
    de::{Error, Visitor},
};

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

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Transaction {
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
}

impl Transaction {
    /// The EIP-2718 type; what has none is a legacy transaction.
    pub fn kind(&self) -> u64 {
        self.kind.unwrap_or_default().0
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
