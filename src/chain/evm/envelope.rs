//! Transactions as they are hashed (EIP-2718): what a block's transactions hash to, and what each sender signed.
//!
//! An encoding is the list of a type's fields, in the order of the specification beside it in [`form`], written
//! straight from the node's text. What a node leaves out is hashed as empty: nobody but the root has to say
//! whether it is.

use std::ops::{Deref, Range};

use alloy::{
    eips::{eip2930::AccessList, eip7702::SignedAuthorization},
    primitives::{Address, B256, U256, keccak256},
    rlp::{BufMut as _, EMPTY_STRING_CODE, Encodable, Header},
};
use alloy_trie::root::ordered_trie_root_encoded;

use super::{
    json::{self, Quantity, Raw},
    retryable::Ticket,
    safe,
};

/// Before a payload: the type, and the longest head of a list.
const ROOM: usize = 10;
/// EIP-2718 has no types above it.
const LAST_TYPE: u64 = 0x7f;
/// Arbitrum's first transaction of each block, by which its own software begins it.
pub(super) const ARBITRUM_INTERNAL: u64 = 0x6a;
/// Arbitrum's deposit from L1: its sender pays on the other chain.
pub(super) const ARBITRUM_DEPOSIT: u64 = 0x64;
/// A try of a ticket, and its submission: see [`Ticket`].
pub(super) const RETRY: u64 = 0x68;
pub(super) const SUBMISSION: u64 = 0x69;
/// EIP-4844.
pub(super) const BLOB: u64 = 3;
/// CIP-64: the fee may be paid in a token.
pub(super) const CELO: u64 = 0x7b;
/// CIP-42, the one before it.
const CELO_LEGACY: u64 = 0x7c;
/// The OP stack's deposit from L1: it pays no fee here.
pub(super) const OP_DEPOSIT: u64 = 0x7e;

/// How a type of transaction is hashed.
#[derive(Clone, Copy)]
pub(super) enum Form {
    /// These fields, and the sender's signature of them.
    Signed(&'static [Field]),
    /// These fields: the protocol has made it, and its sender, if it has one, is among them.
    Unsigned(&'static [Field]),
    /// Not here.
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    ChainId,
    Nonce,
    GasPrice,
    MaxPriorityFeePerGas,
    MaxFeePerGas,
    Gas,
    From,
    To,
    Value,
    Input,
    AccessList,
    MaxFeePerBlobGas,
    BlobVersionedHashes,
    AuthorizationList,
    SourceHash,
    Mint,
    IsSystemTx,
    RequestId,
    TicketId,
    RefundTo,
    MaxRefund,
    SubmissionFeeRefund,
    L1BaseFee,
    DepositValue,
    RetryTo,
    RetryValue,
    RetryData,
    Beneficiary,
    MaxSubmissionFee,
    FeeCurrency,
    GatewayFeeRecipient,
    GatewayFee,
    /// Of a legacy transaction; the others have one bit in its place.
    V,
    R,
    S,
}

/// The table of all types that can be hashed. The hash of each is that of its encoding.
pub(super) fn form(kind: u64) -> Form {
    use Field as F;
    match kind {
        // The legacy transaction; EIP-155 adds the chain's id to what is signed.
        0 => Form::Signed(&[F::Nonce, F::GasPrice, F::Gas, F::To, F::Value, F::Input]),
        // EIP-2930.
        1 => Form::Signed(&[
            F::ChainId,
            F::Nonce,
            F::GasPrice,
            F::Gas,
            F::To,
            F::Value,
            F::Input,
            F::AccessList,
        ]),
        // EIP-1559.
        2 => Form::Signed(&[
            F::ChainId,
            F::Nonce,
            F::MaxPriorityFeePerGas,
            F::MaxFeePerGas,
            F::Gas,
            F::To,
            F::Value,
            F::Input,
            F::AccessList,
        ]),
        // EIP-4844; the blobs themselves are in no block.
        BLOB => Form::Signed(&[
            F::ChainId,
            F::Nonce,
            F::MaxPriorityFeePerGas,
            F::MaxFeePerGas,
            F::Gas,
            F::To,
            F::Value,
            F::Input,
            F::AccessList,
            F::MaxFeePerBlobGas,
            F::BlobVersionedHashes,
        ]),
        // EIP-7702.
        4 => Form::Signed(&[
            F::ChainId,
            F::Nonce,
            F::MaxPriorityFeePerGas,
            F::MaxFeePerGas,
            F::Gas,
            F::To,
            F::Value,
            F::Input,
            F::AccessList,
            F::AuthorizationList,
        ]),
        ARBITRUM_DEPOSIT..=ARBITRUM_INTERNAL => arbitrum(kind),
        // CIP-64.
        CELO => Form::Signed(&[
            F::ChainId,
            F::Nonce,
            F::MaxPriorityFeePerGas,
            F::MaxFeePerGas,
            F::Gas,
            F::To,
            F::Value,
            F::Input,
            F::AccessList,
            F::FeeCurrency,
        ]),
        // CIP-42.
        CELO_LEGACY => Form::Signed(&[
            F::ChainId,
            F::Nonce,
            F::MaxPriorityFeePerGas,
            F::MaxFeePerGas,
            F::Gas,
            F::FeeCurrency,
            F::GatewayFeeRecipient,
            F::GatewayFee,
            F::To,
            F::Value,
            F::Input,
            F::AccessList,
        ]),
        // "Deposits" in the OP stack's specification.
        OP_DEPOSIT => Form::Unsigned(&[
            F::SourceHash,
            F::From,
            F::To,
            F::Mint,
            F::Value,
            F::Gas,
            F::IsSystemTx,
            F::Input,
        ]),
        // Among the others are Polygon's state sync (0x7f, PIP-74), of which nodes do not show what is hashed, and
        // what Arbitrum has of the time before Nitro (0x78), whose hash is not that of its encoding.
        _ => Form::Unknown,
    }
}

/// Arbitrum's, by `core/types/arb_types.go` of OffchainLabs/go-ethereum. Its nodes show the fee cap as the price.
fn arbitrum(kind: u64) -> Form {
    use Field as F;
    match kind {
        ARBITRUM_DEPOSIT => Form::Unsigned(&[F::ChainId, F::RequestId, F::From, F::To, F::Value]),
        0x65 => Form::Unsigned(&[
            F::ChainId,
            F::From,
            F::Nonce,
            F::GasPrice,
            F::Gas,
            F::To,
            F::Value,
            F::Input,
        ]),
        0x66 => Form::Unsigned(&[
            F::ChainId,
            F::RequestId,
            F::From,
            F::GasPrice,
            F::Gas,
            F::To,
            F::Value,
            F::Input,
        ]),
        RETRY => Form::Unsigned(&[
            F::ChainId,
            F::Nonce,
            F::From,
            F::GasPrice,
            F::Gas,
            F::To,
            F::Value,
            F::Input,
            F::TicketId,
            F::RefundTo,
            F::MaxRefund,
            F::SubmissionFeeRefund,
        ]),
        SUBMISSION => Form::Unsigned(&[
            F::ChainId,
            F::RequestId,
            F::From,
            F::L1BaseFee,
            F::DepositValue,
            F::GasPrice,
            F::Gas,
            F::RetryTo,
            F::RetryValue,
            F::Beneficiary,
            F::MaxSubmissionFee,
            F::RefundTo,
            F::RetryData,
        ]),
        ARBITRUM_INTERNAL => Form::Unsigned(&[F::ChainId, F::Input]),
        _ => Form::Unknown,
    }
}

/// A signature, and what was signed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Signed {
    pub digest: B256,
    pub r: [u8; 32],
    pub s: [u8; 32],
    pub odd: bool,
}

/// What a sender is ready to pay for gas: at most, and beyond the block's base fee.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Offer {
    pub most: U256,
    pub tip: U256,
    pub most_per_blob_gas: U256,
    pub blobs: u64,
}

/// What is kept of a transaction.
#[derive(Debug)]
pub(super) struct Transaction {
    pub hash: B256,
    pub block_hash: Option<B256>,
    pub from: Option<Address>,
    pub to: Option<Address>,
    pub value: Option<U256>,
    pub nonce: Option<Quantity>,
    pub kind: u64,
    pub gas_price: Option<U256>,
    pub mint: Option<U256>,
    pub ticket: Option<Box<Ticket>>,
    /// Whether its fee is paid in a token.
    pub pays_in_token: bool,
    /// The owners of a Safe from before 1.3.0 that its call makes.
    pub early_owners: Vec<Address>,
    /// Known of what was hashed.
    pub offer: Offer,
    /// Of what was hashed and has a signature.
    pub signed: Option<Signed>,
}

impl From<&json::Transaction<'_>> for Transaction {
    fn from(told: &json::Transaction<'_>) -> Self {
        Self {
            hash: told.hash,
            block_hash: told.block_hash,
            from: told.from,
            to: told.to,
            value: told.value,
            nonce: told.nonce,
            kind: told.kind(),
            gas_price: told.gas_price,
            mint: told.mint,
            ticket: Ticket::of(told),
            pays_in_token: matches!(told.kind(), CELO | CELO_LEGACY) && told.fee_currency.is_some(),
            early_owners: safe::early_owners(told),
            offer: Offer::default(),
            signed: None,
        }
    }
}

/// What came of hashing a block's transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Root {
    Is(B256),
    /// Nobody here knows how to hash some type among them.
    Unknown,
    /// A field of the transaction at that place is not what it has to be.
    Bad(usize, Field),
}

/// The transactions of a block.
#[derive(Debug, Default)]
pub(super) struct Transactions {
    list: Vec<Transaction>,
    /// `None` where nobody asks.
    pub root: Option<Root>,
    /// The first that is hashed to something else than its hash, or is told to move what is not in its encoding.
    pub other: Option<usize>,
}

impl Deref for Transactions {
    type Target = [Transaction];

    fn deref(&self) -> &[Transaction] {
        &self.list
    }
}

impl Transactions {
    /// As they were told.
    pub fn told(told: &[json::Transaction<'_>]) -> Self {
        Self { list: told.iter().map(Transaction::from).collect(), root: None, other: None }
    }

    /// As they were told, and what they hash to. `is_development` says whether a development node may send for
    /// whomever it likes.
    pub fn hashed(told: &[json::Transaction<'_>], is_development: bool) -> Self {
        let mut out = Self::told(told);
        let mut encoder = Encoder::default();
        let mut places = Vec::with_capacity(told.len());
        let mut root = None;
        for (index, (tx, kept)) in told.iter().zip(&mut out.list).enumerate() {
            if is_development && tx.kind() == BLOB {
                // Anvil's root is not that of such a transaction without its blobs.
                root = Some(Root::Unknown);
            }
            match encoder.add(tx, kept) {
                Ok(Some(place)) => {
                    let written = &encoder.out[place.clone()];
                    let hash = if is_development && is_impersonated(tx) {
                        impersonated(tx, written)
                    } else {
                        keccak256(written)
                    };
                    if hash != tx.hash || moves_unproven(tx) {
                        out.other.get_or_insert(index);
                    }
                    places.push(place);
                }
                Ok(None) => root = Some(Root::Unknown),
                Err(field) => {
                    root = Some(Root::Bad(index, field));
                    break;
                }
            }
        }
        out.root = Some(root.unwrap_or_else(|| {
            let each: Vec<&[u8]> = places.into_iter().map(|place| &encoder.out[place]).collect();
            Root::Is(ordered_trie_root_encoded(&each))
        }));
        out
    }
}

/// Whether it is signed with nothing at all: as some chains' own transactions are, and what Anvil sends for somebody
/// whose key it does not have.
fn is_unsigned(tx: &json::Transaction<'_>) -> bool {
    [tx.r, tx.s].iter().all(|part| part.and_then(Raw::word) == Some([0; 32]))
}

fn is_impersonated(tx: &json::Transaction<'_>) -> bool {
    matches!(form(tx.kind()), Form::Signed(_)) && is_unsigned(tx)
}

/// Anvil's hash of such a transaction: the sender is appended, so that two of them with the same content differ.
fn impersonated(tx: &json::Transaction<'_>, encoded: &[u8]) -> B256 {
    let mut out = Vec::with_capacity(encoded.len() + 2 * ROOM + Address::len_bytes());
    if tx.kind() == 0 {
        out.extend_from_slice(encoded);
    } else {
        encoded.encode(&mut out);
    }
    out.extend(tx.from.unwrap_or_default());
    keccak256(out)
}

/// Whether a node says that a transaction moves something of which nothing is in its encoding.
fn moves_unproven(tx: &json::Transaction<'_>) -> bool {
    let fields = match form(tx.kind()) {
        Form::Signed(fields) | Form::Unsigned(fields) => fields,
        Form::Unknown => return false,
    };
    !fields.contains(&Field::Value) && tx.value.is_some_and(|value| !value.is_zero())
}

/// Whether a number can be a transaction's type.
pub(super) fn is_type(kind: u64) -> bool {
    kind <= LAST_TYPE
}

/// Encodings, one after the other.
#[derive(Default)]
struct Encoder {
    out: Vec<u8>,
}

impl Encoder {
    /// Where the encoding is, if there is one; what it shows is written into `kept`.
    fn add(
        &mut self,
        tx: &json::Transaction<'_>,
        kept: &mut Transaction,
    ) -> Result<Option<Range<usize>>, Field> {
        let kind = tx.kind();
        let (fields, is_signed) = match form(kind) {
            Form::Signed(fields) => (fields, true),
            Form::Unsigned(fields) => (fields, false),
            Form::Unknown => return Ok(None),
        };
        let start = self.out.len() + ROOM;
        self.out.resize(start, 0);
        for &field in fields {
            append(field, tx, &mut self.out).ok_or(field)?;
        }
        if is_signed {
            kept.nonce = Some(tx.nonce.unwrap_or_default());
            kept.offer = offer(tx);
            kept.signed = self.signed(tx, start);
            for field in [Field::V, Field::R, Field::S] {
                append(field, tx, &mut self.out).ok_or(field)?;
            }
        }
        Ok(Some(self.list(kind, start)))
    }

    /// Puts the type and the head of a list before all that is written from `start` on.
    fn list(&mut self, kind: u64, start: usize) -> Range<usize> {
        let mut head = [0; ROOM];
        let mut rest = &mut head[..];
        if let Ok(kind @ 1..) = u8::try_from(kind) {
            rest.put_u8(kind);
        }
        Header { list: true, payload_length: self.out.len() - start }.encode(&mut rest);
        let length = ROOM - rest.len();
        let at = start - length;
        self.out[at..start].copy_from_slice(&head[..length]);
        at..self.out.len()
    }

    /// The signature of what is written from `start` on, if somebody has signed it.
    fn signed(&mut self, tx: &json::Transaction<'_>, start: usize) -> Option<Signed> {
        let [r, s] = [tx.r?.word()?, tx.s?.word()?];
        if is_unsigned(tx) {
            return None;
        }
        let v = U256::from_be_bytes(parity(tx)?.word()?);
        let end = self.out.len();
        let odd = match (tx.kind(), u128::try_from(v).ok()?) {
            (0, v @ (27 | 28)) => v == 28,
            (0, v @ 35..) => {
                // EIP-155: the chain's id, and two zeros.
                ((v - 35) / 2).encode(&mut self.out);
                self.out.extend([EMPTY_STRING_CODE; 2]);
                (v - 35) % 2 == 1
            }
            (1.., v @ (0 | 1)) => v == 1,
            _ => return None,
        };
        let place = self.list(tx.kind(), start);
        let digest = keccak256(&self.out[place]);
        self.out.truncate(end);
        Some(Signed { digest, r, s, odd })
    }
}

/// `v` of a legacy transaction, and the bit that the others have in its place. Older nodes call it `v` there, too.
fn parity<'a>(tx: &json::Transaction<'a>) -> Option<Raw<'a>> {
    if tx.kind() == 0 { tx.v } else { tx.y_parity.or(tx.v) }
}

fn offer(tx: &json::Transaction<'_>) -> Offer {
    let read = |raw: Option<Raw<'_>>| {
        raw.and_then(Raw::word).map(U256::from_be_bytes::<32>).unwrap_or_default()
    };
    if tx.kind() < 2 {
        let price = tx.gas_price.unwrap_or_default();
        return Offer { most: price, tip: price, ..Offer::default() };
    }
    let blobs = tx.blob_versioned_hashes.and_then(Raw::parse::<Vec<B256>>);
    Offer {
        most: read(tx.max_fee_per_gas),
        tip: read(tx.max_priority_fee_per_gas),
        most_per_blob_gas: read(tx.max_fee_per_blob_gas),
        blobs: blobs.map_or(0, |blobs| blobs.len() as u64),
    }
}

/// Appends one field; `None` if its text is not what it has to be.
fn append(field: Field, tx: &json::Transaction<'_>, out: &mut Vec<u8>) -> Option<()> {
    match field {
        Field::Nonce => tx.nonce.unwrap_or_default().0.encode(out),
        Field::GasPrice => tx.gas_price.unwrap_or_default().encode(out),
        Field::Value => tx.value.unwrap_or_default().encode(out),
        Field::Mint => tx.mint.unwrap_or_default().encode(out),
        Field::From => tx.from.unwrap_or_default().encode(out),
        Field::To => match tx.to {
            Some(to) => to.encode(out),
            None => out.push(EMPTY_STRING_CODE),
        },
        Field::IsSystemTx => {
            tx.is_system_tx.map_or(Some(false), Raw::parse::<bool>)?.encode(out);
        }
        Field::AccessList => {
            tx.access_list.map_or(Some(AccessList::default()), Raw::parse)?.encode(out);
        }
        Field::BlobVersionedHashes => list::<B256>(tx.blob_versioned_hashes)?.encode(out),
        Field::AuthorizationList => {
            list::<SignedAuthorization>(tx.authorization_list)?.encode(out);
        }
        Field::ChainId => number(tx.chain_id, out)?,
        Field::MaxPriorityFeePerGas => number(tx.max_priority_fee_per_gas, out)?,
        Field::MaxFeePerGas => number(tx.max_fee_per_gas, out)?,
        Field::Gas => number(tx.gas, out)?,
        Field::MaxFeePerBlobGas => number(tx.max_fee_per_blob_gas, out)?,
        Field::MaxRefund => number(tx.max_refund, out)?,
        Field::SubmissionFeeRefund => number(tx.submission_fee_refund, out)?,
        Field::L1BaseFee => number(tx.l1_base_fee, out)?,
        Field::DepositValue => number(tx.deposit_value, out)?,
        Field::RetryValue => number(tx.retry_value, out)?,
        Field::MaxSubmissionFee => number(tx.max_submission_fee, out)?,
        Field::GatewayFee => number(tx.gateway_fee, out)?,
        Field::V => number(parity(tx), out)?,
        Field::R => number(tx.r, out)?,
        Field::S => number(tx.s, out)?,
        Field::Input => bytes(tx.input, out)?,
        Field::SourceHash => bytes(tx.source_hash, out)?,
        Field::RequestId => bytes(tx.request_id, out)?,
        Field::TicketId => bytes(tx.ticket_id, out)?,
        Field::RefundTo => bytes(tx.refund_to, out)?,
        Field::RetryTo => bytes(tx.retry_to, out)?,
        Field::RetryData => bytes(tx.retry_data, out)?,
        Field::Beneficiary => bytes(tx.beneficiary, out)?,
        Field::FeeCurrency => bytes(tx.fee_currency, out)?,
        Field::GatewayFeeRecipient => bytes(tx.gateway_fee_recipient, out)?,
    }
    Some(())
}

fn list<'a, T: serde::Deserialize<'a>>(raw: Option<Raw<'a>>) -> Option<Vec<T>> {
    raw.map_or(Some(Vec::new()), Raw::parse)
}

/// A number without the zeros before it.
fn number(raw: Option<Raw<'_>>, out: &mut Vec<u8>) -> Option<()> {
    let word = raw.map_or(Some([0; 32]), Raw::word)?;
    let zeros = word.iter().take_while(|byte| **byte == 0).count();
    word[zeros..].encode(out);
    Some(())
}

/// Bytes, decoded to where they are hashed.
fn bytes(raw: Option<Raw<'_>>, out: &mut Vec<u8>) -> Option<()> {
    let Some(raw) = raw else {
        out.push(EMPTY_STRING_CODE);
        return Some(());
    };
    let hex = raw.hex()?;
    // One byte below 0x80 is its own encoding.
    if hex.to_array::<1>().is_none_or(|[byte]| byte >= EMPTY_STRING_CODE) {
        Header { list: false, payload_length: hex.len() }.encode(out);
    }
    hex.append_to(out)
}
