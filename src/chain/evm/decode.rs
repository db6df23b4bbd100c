//! A verified block made into movements.
//!
//! What moves money here: the top-level value of a successful transaction, ERC-20 `Transfer` logs, fees
//! (a failed transaction pays too), deposits of OP-stack chains and EIP-4895 withdrawals. Internal calls
//! leave no trace in receipts: the comparison with the chain's own balances finds those.

use alloy::primitives::{Address as EvmAddress, B256, U256, address, b256};

use super::{
    json::{self, Log, Quantity, Receipt, Transaction},
    safe,
    verify::{BlockAndReceipts, Verified},
};
use crate::{
    amount::Amount,
    chain::{
        Address, AssetKey, Block, BlockHash, BlockRef, Header, Kind, Movement, Ordinal, TxFact,
        TxId, rpc::Failure,
    },
};

/// `Transfer(address,address,uint256)`, of ERC-20 and ERC-721 alike.
pub(super) const TRANSFER: B256 =
    b256!("ddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef");
/// Where EIP-7708 logs native transfers in the shape of a token's: the native value is counted already.
const NATIVE_LOGS: EvmAddress = address!("fffffffffffffffffffffffffffffffffffffffe");
/// EIP-4844.
const BLOB: u64 = 3;
/// Arbitrum's deposit from L1: its sender pays on the other chain.
const ARBITRUM_DEPOSIT: u64 = 0x64;
/// The OP stack's deposit from L1: it pays no fee here.
const OP_DEPOSIT: u64 = 0x7e;
const WEI_PER_GWEI: u64 = 1_000_000_000;

/// A decoded block, and how many `Transfer` logs in it have a shape that nobody knows.
#[derive(Debug)]
pub(super) struct Decoded {
    pub block: Block,
    pub unknown_transfers: u64,
}

pub(super) fn address(address: EvmAddress) -> Address {
    Address::from(address.into_array())
}

/// Nobody has the zero address: tokens are minted from it and burnt to it.
fn somebody(who: EvmAddress) -> Option<Address> {
    (!who.is_zero()).then(|| address(who))
}

pub(super) fn header<T>(block: &Verified<json::Block<T>>) -> Header {
    header_of(block)
}

fn header_of<T>(block: &json::Block<T>) -> Header {
    let number = block.number.0;
    Header {
        at: place(block),
        parent: BlockRef { number: number.saturating_sub(1), hash: BlockHash(block.parent_hash.0) },
        time: block.timestamp.0,
    }
}

/// What a node calls a block; nothing of it is verified.
pub(super) fn place<T>(block: &json::Block<T>) -> BlockRef {
    BlockRef { number: block.number.0, hash: BlockHash(block.hash.0) }
}

/// Decodes a block whose receipts are known to be its own.
pub(super) fn block(verified: &Verified<BlockAndReceipts<'_>>) -> Result<Decoded, Failure> {
    let BlockAndReceipts { block, receipts, state_sync } = **verified;
    let logs: usize = receipts.iter().map(|receipt| receipt.logs.len()).sum();
    let mut out = Decoded {
        block: Block {
            movements: Vec::with_capacity(logs + 2 * receipts.len()),
            transactions: Vec::with_capacity(receipts.len()),
            ..Block::empty(header_of(block))
        },
        unknown_transfers: 0,
    };
    for (tx, receipt) in block.transactions.iter().zip(receipts) {
        transaction(tx, receipt, &mut out)?;
    }
    if let Some(receipt) = state_sync.filter(|receipt| receipt.success() == Some(true)) {
        logs_of(TxId::from(receipt.transaction_hash.0), receipt, &mut out)?;
    }
    for withdrawal in block.withdrawals.iter().flatten() {
        let wei = U256::from(withdrawal.amount.0).checked_mul(U256::from(WEI_PER_GWEI));
        out.block.movements.push(Movement {
            // A withdrawal has a number of its own on its chain, and no transaction.
            tx: TxId::from([0; 32]),
            ordinal: Ordinal::Withdrawal(withdrawal.index.0),
            kind: Kind::Withdrawal,
            asset: AssetKey::Native,
            from: None,
            to: somebody(withdrawal.address),
            amount: amount(wei)?,
            memo: None,
        });
    }
    Ok(out)
}

fn transaction(tx: &Transaction, receipt: &Receipt<'_>, out: &mut Decoded) -> Result<(), Failure> {
    let id = TxId::from(tx.hash.0);
    let sender = tx.from.unwrap_or_default();
    let success = receipt.success().ok_or_else(|| {
        Failure::Invalid("a receipt does not say whether it succeeded".to_owned())
    })?;
    out.block.transactions.push(TxFact {
        tx: id,
        sender: address(sender),
        nonce: tx.nonce.map(|nonce| nonce.0),
        success,
    });
    if let Some((from, to, kind, wei)) = value(tx, receipt, sender, success) {
        out.block.movements.push(Movement {
            tx: id,
            ordinal: Ordinal::Tx,
            kind,
            asset: AssetKey::Native,
            from,
            to,
            amount: Amount::new(wei),
            memo: None,
        });
    }
    if success {
        logs_of(id, receipt, out)?;
        safe::candidates(id, receipt, &mut out.block.safes);
    }
    let fee = fee(tx, receipt)?;
    if !fee.is_zero() {
        out.block.movements.push(Movement {
            tx: id,
            ordinal: Ordinal::Fee,
            kind: Kind::Fee,
            asset: AssetKey::Native,
            from: Some(address(sender)),
            to: None,
            amount: fee,
            memo: None,
        });
    }
    Ok(())
}

type Value = (Option<Address>, Option<Address>, Kind, U256);

/// What the transaction itself moves, and whether that is new money on this chain.
fn value(
    tx: &Transaction,
    receipt: &Receipt<'_>,
    sender: EvmAddress,
    success: bool,
) -> Option<Value> {
    let wei = tx.value.unwrap_or_default();
    let mint = tx.mint.unwrap_or_default();
    if !success {
        // An OP-stack deposit is credited to its sender even if its call fails.
        return (tx.kind() == OP_DEPOSIT && !mint.is_zero())
            .then(|| (None, Some(address(sender)), Kind::Mint, mint));
    }
    if wei.is_zero() {
        // A deposit that only credits its sender.
        return (tx.kind() == OP_DEPOSIT && !mint.is_zero())
            .then(|| (None, Some(address(sender)), Kind::Mint, mint));
    }
    let to = tx.to.or(receipt.contract_address).map(address);
    // The sender of a deposit spends what was minted to it for just that. Where the two differ, the rest is
    // found by the comparison with the chain's own balances.
    let minted = match tx.kind() {
        OP_DEPOSIT => mint >= wei,
        ARBITRUM_DEPOSIT => true,
        _ => false,
    };
    Some(if minted {
        (None, to, Kind::Mint, wei)
    } else {
        (Some(address(sender)), to, Kind::Transfer, wei)
    })
}

/// ERC-20 transfers, each named by its place inside the receipt.
fn logs_of(tx: TxId, receipt: &Receipt<'_>, out: &mut Decoded) -> Result<(), Failure> {
    for (index, log) in receipt.logs.iter().enumerate() {
        if log.topics.first() != Some(&TRANSFER) || log.address == NATIVE_LOGS {
            continue;
        }
        match transfer(log) {
            Shape::Erc20 { from, to, wei } => {
                let index = u32::try_from(index)
                    .map_err(|_| Failure::Invalid("a receipt has too many logs".to_owned()))?;
                let kind = match (&from, &to) {
                    (None, _) => Kind::Mint,
                    (Some(_), None) => Kind::Burn,
                    (Some(_), Some(_)) => Kind::Transfer,
                };
                out.block.movements.push(Movement {
                    tx,
                    ordinal: Ordinal::Log(index),
                    kind,
                    asset: AssetKey::Token(address(log.address)),
                    from,
                    to,
                    amount: Amount::new(wei),
                    memo: None,
                });
            }
            Shape::NotAnAmount => {}
            Shape::Unknown => out.unknown_transfers += 1,
        }
    }
    Ok(())
}

enum Shape {
    Erc20 {
        from: Option<Address>,
        to: Option<Address>,
        wei: U256,
    },
    /// ERC-721: the fourth topic is a token's number.
    NotAnAmount,
    /// Arguments indexed in another way: what they mean is not guessed.
    Unknown,
}

fn transfer(log: &Log<'_>) -> Shape {
    match log.topics.as_slice() {
        [_, from, to] => match log.data.to_array::<32>() {
            Some(data) => Shape::Erc20 {
                from: somebody(EvmAddress::from_word(*from)),
                to: somebody(EvmAddress::from_word(*to)),
                wei: U256::from_be_bytes(data),
            },
            None => Shape::Unknown,
        },
        [_, _, _, _] => Shape::NotAnAmount,
        _ => Shape::Unknown,
    }
}

/// What the sender paid: execution, blobs, and on the OP stack the data on L1 and the operator.
fn fee(tx: &Transaction, receipt: &Receipt<'_>) -> Result<Amount, Failure> {
    if tx.kind() == OP_DEPOSIT {
        return Ok(Amount::ZERO);
    }
    let price = receipt.effective_gas_price.or(tx.gas_price).unwrap_or_default();
    let gas = U256::from(receipt.gas_used.0);
    let mut total = gas.checked_mul(price);
    let mut add = |part: Option<U256>| {
        total = total.zip(part).and_then(|(total, part)| total.checked_add(part));
    };
    // Elsewhere the OP stack's `blobGasUsed` is a footprint, not something to pay for.
    if tx.kind() == BLOB {
        let blobs = U256::from(receipt.blob_gas_used.unwrap_or_default().0);
        add(blobs.checked_mul(receipt.blob_gas_price.unwrap_or_default()));
    }
    if let Some(l1_fee) = receipt.l1_fee {
        add(Some(l1_fee));
    }
    if receipt.operator_fee_scalar.is_some() || receipt.operator_fee_constant.is_some() {
        add(operator_fee(receipt, gas));
    }
    amount(total)
}

/// Isthmus charges `gas · scalar / 10⁶ + constant`, Jovian `gas · scalar · 100 + constant`; a receipt since
/// Jovian shows the scalar of the data footprint.
fn operator_fee(receipt: &Receipt<'_>, gas: U256) -> Option<U256> {
    let scaled = gas.checked_mul(receipt.operator_fee_scalar.unwrap_or_default())?;
    let scaled = match receipt.da_footprint_gas_scalar {
        Some(Quantity(_)) => scaled.checked_mul(U256::from(100))?,
        None => scaled / U256::from(1_000_000),
    };
    scaled.checked_add(receipt.operator_fee_constant.unwrap_or_default())
}

fn amount(wei: Option<U256>) -> Result<Amount, Failure> {
    wei.map(Amount::new)
        .ok_or_else(|| Failure::untrusted("amount_overflow", "an amount is over 256 bits"))
}
