//! A verified block made into movements.
//!
//! What moves money here: the top-level value of a successful transaction, ERC-20 `Transfer` logs, `Deposit` and
//! `Withdrawal` of tokens that wrap the native coin, `DestroyedBlackFunds` of tokens that have it, fees (a failed transaction pays too) and who earns them,
//! deposits of rollups and EIP-4895 withdrawals. Internal calls leave no trace in receipts, unless the chain
//! logs what they move: see [`super::trace`].

use alloy::primitives::{Address as EvmAddress, B256, U256, b256};

use super::{
    coin::{Coin, NativeLogs},
    envelope::{ARBITRUM_DEPOSIT, BLOB, OP_DEPOSIT, Signed, Transaction},
    json::{self, Log, Quantity, Receipt},
    retryable::Ticket,
    safe,
    verify::{BlockAndReceipts, Verified},
};
use crate::{
    amount::Amount,
    chain::{
        Address, AssetKey, Block, BlockHash, BlockRef, Header, Kind, Movement, Ordinal, Signature,
        Traced, TxFact, TxId, rpc::Failure,
    },
};

/// `Transfer(address,address,uint256)`, of ERC-20 and ERC-721 alike.
pub(super) const TRANSFER: B256 =
    b256!("ddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef");
/// `Deposit(address,uint256)` of WETH9.
const DEPOSIT: B256 = b256!("e1fffcc4923d04b559f4d29a8bfc6cda04eb5b0d3c460751c2402c5c5cc9109c");
/// `Withdrawal(address,uint256)` of WETH9.
const WITHDRAWAL: B256 = b256!("7fcf532c15f0a6db0bd6d0e038bea71d30d808c7d98cb3bf7268a95bf5081b65");
/// `DestroyedBlackFunds(address,uint256)` of USDT on Ethereum.
const DESTROYED: B256 = b256!("61e6e66b0d6339b2980aecc6ccc0039736791f0ccde9ed512e789a7fbdd698c6");
/// What a transaction costs that runs no code. To send value from inside costs 6,700 more at the least, to destroy a
/// contract 5,000, and a refund that would bring that down again (EIP-3529: a fifth of it) takes another 5,000 to earn.
const PLAIN_GAS: u64 = 21_000;
/// The last EIP-2718 type of Ethereum (EIP-7702).
const LAST_COMMON_TYPE: u64 = 4;
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
pub(super) fn block(
    coin: &Coin,
    verified: &Verified<BlockAndReceipts<'_>>,
) -> Result<Decoded, Failure> {
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
    let mut seen = Seen::default();
    for (tx, receipt) in block.transactions.iter().zip(receipts) {
        transaction(coin, tx, receipt, &mut seen, &mut out)?;
        if coin.pays_beneficiary {
            seen.earned = earned(tx, receipt, block.base_fee_per_gas)
                .and_then(|wei| seen.earned.checked_add(wei))
                .ok_or_else(overflow)?;
        }
    }
    if seen.ran_code && !seen.native_logs {
        out.block.traced = Traced::Not;
    }
    if let Some(receipt) = state_sync.filter(|receipt| receipt.success() == Some(true)) {
        let tx = TxId::from(receipt.transaction_hash.0);
        logs_of(coin, tx, receipt, None, &mut seen, &mut out)?;
    }
    if !seen.earned.is_zero()
        && let Some(beneficiary) = somebody(block.miner)
    {
        out.block.movements.push(Movement {
            // All that its transactions pay is one reward of the block, and another block's is another one.
            tx: TxId::from(block.hash.0),
            ordinal: Ordinal::Reward(0),
            kind: Kind::Reward,
            asset: AssetKey::Native,
            from: None,
            to: Some(beneficiary),
            amount: Amount::new(seen.earned),
            memo: None,
        });
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

/// What was seen of a block's transactions.
#[derive(Default)]
struct Seen {
    /// Code ran that can have moved the native coin.
    ran_code: bool,
    /// The chain logs each movement of it.
    native_logs: bool,
    /// What the block's beneficiary is paid.
    earned: U256,
}

/// Whether code can have run in a transaction that can have moved the native coin.
fn runs_code(coin: &Coin, tx: &Transaction, receipt: &Receipt<'_>) -> bool {
    let is_system = tx.kind == OP_DEPOSIT && tx.to == Some(coin.l1_attributes);
    // Rollups have deposits that move more than their value for no gas.
    let is_own = tx.kind > LAST_COMMON_TYPE && tx.kind != OP_DEPOSIT;
    !is_system && (is_own || receipt.gas_used.0 > PLAIN_GAS)
}

/// What a transaction pays to the block's beneficiary: all above the base fee.
fn earned(tx: &Transaction, receipt: &Receipt<'_>, base_fee: Option<Quantity>) -> Option<U256> {
    let base = U256::from(base_fee.unwrap_or_default().0);
    let above = gas_price(tx, receipt).saturating_sub(base);
    above.checked_mul(U256::from(receipt.gas_used.0))
}

fn transaction(
    coin: &Coin,
    tx: &Transaction,
    receipt: &Receipt<'_>,
    seen: &mut Seen,
    out: &mut Decoded,
) -> Result<(), Failure> {
    let id = TxId::from(tx.hash.0);
    let sender = tx.from.unwrap_or_default();
    let success = receipt.success().ok_or_else(|| {
        Failure::Invalid("a receipt does not say whether it succeeded".to_owned())
    })?;
    if let Some(Signed { digest, r, s, odd }) = tx.signed {
        let place = out.block.transactions.len();
        out.block.senders.signed.push(Signature { place, digest: digest.0, r, s, odd });
    }
    out.block.transactions.push(TxFact {
        tx: id,
        sender: address(sender),
        nonce: tx.nonce.map(|nonce| nonce.0),
        success,
    });
    let value = value(tx, receipt, sender, success);
    seen.ran_code |= success && runs_code(coin, tx, receipt);
    if let Some((from, to, kind, wei)) = value {
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
        let to = tx.to.or(receipt.contract_address).unwrap_or_default();
        let own = value.map(|(.., wei)| (sender, to, wei));
        logs_of(coin, id, receipt, own, seen, out)?;
        safe::candidates(id, &tx.early_owners, receipt, &mut out.block.safes);
        out.block.ran.extend(safe::ran(receipt));
        passed_on(tx, receipt, sender, out)?;
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

/// What the sender of a ticket from L1 passes on.
fn passed_on(
    tx: &Transaction,
    receipt: &Receipt<'_>,
    sender: EvmAddress,
    out: &mut Decoded,
) -> Result<(), Failure> {
    let Some(Ticket::Submitted(submission)) = tx.ticket.as_deref() else { return Ok(()) };
    let parts = submission.passed_on(gas_cost(tx, receipt).ok_or_else(overflow)?);
    for (place, (to, wei)) in (0..).zip(parts) {
        if wei.is_zero() || to == sender {
            continue;
        }
        out.block.movements.push(Movement {
            tx: TxId::from(tx.hash.0),
            ordinal: Ordinal::Own(place),
            kind: Kind::Transfer,
            asset: AssetKey::Native,
            from: Some(address(sender)),
            to: somebody(to),
            amount: Amount::new(wei),
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
    if let Some(Ticket::Submitted(submission)) = tx.ticket.as_deref() {
        // Who has what of a submission that failed, nothing in the block shows.
        let deposit = submission.deposit;
        return (success && !deposit.is_zero())
            .then(|| (None, Some(address(sender)), Kind::Mint, deposit));
    }
    if !success {
        // An OP-stack deposit is credited to its sender even if its call fails.
        return (tx.kind == OP_DEPOSIT && !mint.is_zero())
            .then(|| (None, Some(address(sender)), Kind::Mint, mint));
    }
    if wei.is_zero() {
        // A deposit that only credits its sender.
        return (tx.kind == OP_DEPOSIT && !mint.is_zero())
            .then(|| (None, Some(address(sender)), Kind::Mint, mint));
    }
    let to = tx.to.or(receipt.contract_address).map(address);
    // The sender of a deposit spends what was minted to it for just that. Where the two differ, the rest is
    // found by the comparison with the chain's own balances.
    let minted = match tx.kind {
        OP_DEPOSIT => mint >= wei,
        ARBITRUM_DEPOSIT => true,
        _ => false,
    };
    Some(match tx.ticket.as_deref() {
        _ if minted => (None, to, Kind::Mint, wei),
        Some(Ticket::Tried { escrow }) => (Some(address(*escrow)), to, Kind::Transfer, wei),
        _ => (Some(address(sender)), to, Kind::Transfer, wei),
    })
}

/// What the logs of a successful transaction say, each movement named by its place inside the receipt. `own` is what
/// the transaction itself moved, from whom to whom, which the chain may log as well.
fn logs_of(
    coin: &Coin,
    tx: TxId,
    receipt: &Receipt<'_>,
    mut own: Option<(EvmAddress, EvmAddress, U256)>,
    seen: &mut Seen,
    out: &mut Decoded,
) -> Result<(), Failure> {
    for (index, log) in receipt.logs.iter().enumerate() {
        let place = || {
            u32::try_from(index)
                .map(Ordinal::Log)
                .map_err(|_| Failure::Invalid("a receipt has too many logs".to_owned()))
        };
        let (asset, kind, from, to, wei) = match log.topics.first() {
            Some(topic) if *topic == coin.logs.topic && log.address == coin.logs.address => {
                let Some((from, to, wei)) = native(&coin.logs, log) else {
                    out.unknown_transfers += 1;
                    continue;
                };
                seen.native_logs = true;
                if own == Some((from, to, wei)) {
                    own = None;
                    continue;
                }
                if wei.is_zero() || from == to {
                    continue;
                }
                (AssetKey::Native, Kind::Internal, somebody(from), somebody(to), wei)
            }
            Some(&TRANSFER) => match transfer(log) {
                Shape::Erc20 { from, to, wei } => {
                    let kind = match (&from, &to) {
                        (None, _) => Kind::Mint,
                        (Some(_), None) => Kind::Burn,
                        (Some(_), Some(_)) => Kind::Transfer,
                    };
                    (AssetKey::Token(address(log.address)), kind, from, to, wei)
                }
                Shape::NotAnAmount => continue,
                Shape::Unknown => {
                    out.unknown_transfers += 1;
                    continue;
                }
            },
            Some(topic @ (&DEPOSIT | &WITHDRAWAL)) if coin.wrapping.contains(&log.address) => {
                let Some((who, wei)) = wrapped(log) else {
                    out.unknown_transfers += 1;
                    continue;
                };
                let token = AssetKey::Token(address(log.address));
                if *topic == DEPOSIT {
                    (token, Kind::Wrap, None, who, wei)
                } else {
                    (token, Kind::Unwrap, who, None, wei)
                }
            }
            Some(&DESTROYED) if coin.destroying.contains(&log.address) => {
                let Some((who, wei)) = destroyed(log) else {
                    out.unknown_transfers += 1;
                    continue;
                };
                (AssetKey::Token(address(log.address)), Kind::Burn, who, None, wei)
            }
            _ => continue,
        };
        let amount = Amount::new(wei);
        out.block.movements.push(Movement {
            tx,
            ordinal: place()?,
            kind,
            asset,
            from,
            to,
            amount,
            memo: None,
        });
    }
    Ok(())
}

/// A movement of the native coin that the chain itself logs.
fn native(logs: &NativeLogs, log: &Log<'_>) -> Option<(EvmAddress, EvmAddress, U256)> {
    let side = |place: usize| Some(EvmAddress::from_word(*log.topics.get(place)?));
    let data = log.data.to_vec()?;
    let word = data.get(32 * logs.word..32 * (logs.word + 1))?;
    Some((side(logs.sides.0)?, side(logs.sides.1)?, U256::from_be_slice(word)))
}

/// Who wrapped or unwrapped how much: `Deposit(address indexed,uint256)`, `Withdrawal(address indexed,uint256)`.
fn wrapped(log: &Log<'_>) -> Option<(Option<Address>, U256)> {
    let [_, who] = log.topics.as_slice() else { return None };
    let wei = U256::from_be_bytes(log.data.to_array::<32>()?);
    Some((somebody(EvmAddress::from_word(*who)), wei))
}

/// Whose tokens were destroyed, and how many: nothing is indexed.
fn destroyed(log: &Log<'_>) -> Option<(Option<Address>, U256)> {
    let [_] = log.topics.as_slice() else { return None };
    let data = log.data.to_array::<64>()?;
    let (who, units) = data.split_at(32);
    let who = who.strip_prefix(&[0; 12])?;
    Some((somebody(EvmAddress::from_slice(who)), U256::from_be_slice(units)))
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

/// What the sender paid for each unit of gas.
pub(super) fn gas_price(tx: &Transaction, receipt: &Receipt<'_>) -> U256 {
    receipt.effective_gas_price.or(tx.gas_price).unwrap_or_default()
}

/// What is paid for execution.
fn gas_cost(tx: &Transaction, receipt: &Receipt<'_>) -> Option<U256> {
    U256::from(receipt.gas_used.0).checked_mul(gas_price(tx, receipt))
}

/// What the sender paid: execution, blobs, on the OP stack the data on L1 and the operator, on Arbitrum the submission
/// of a ticket.
fn fee(tx: &Transaction, receipt: &Receipt<'_>) -> Result<Amount, Failure> {
    let is_prepaid = matches!(tx.ticket.as_deref(), Some(Ticket::Tried { .. }));
    if tx.kind == OP_DEPOSIT || tx.pays_in_token || is_prepaid {
        return Ok(Amount::ZERO);
    }
    let gas = U256::from(receipt.gas_used.0);
    let mut total = gas_cost(tx, receipt);
    let mut add = |part: Option<U256>| {
        total = total.zip(part).and_then(|(total, part)| total.checked_add(part));
    };
    // Elsewhere the OP stack's `blobGasUsed` is a footprint, not something to pay for.
    if tx.kind == BLOB {
        let blobs = U256::from(receipt.blob_gas_used.unwrap_or_default().0);
        add(blobs.checked_mul(receipt.blob_gas_price.unwrap_or_default()));
    }
    if let Some(l1_fee) = receipt.l1_fee {
        add(Some(l1_fee));
    }
    if let (Some(Ticket::Submitted(submission)), Some(true)) =
        (tx.ticket.as_deref(), receipt.success())
    {
        add(Some(submission.fee));
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
    wei.map(Amount::new).ok_or_else(overflow)
}

fn overflow() -> Failure {
    Failure::untrusted("amount_overflow", "an amount is over 256 bits")
}
