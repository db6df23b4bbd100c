//! Blocks and receipts as a node writes them.

use std::{collections::HashMap, fmt::Write as _};

use alloy::{
    consensus::{Header, ReceiptEnvelope, Signed, TxEip1559},
    primitives::{Address, B256, U256, hex},
};

use super::{OPENING_WEI, Transfer, gas_used, insider, signer};
use crate::daemon::CHAIN_ID;

/// With the transactions; and how much of it stands before the first one.
pub(super) fn block(
    header: &Header,
    hash: B256,
    transactions: &[Signed<TxEip1559>],
) -> (String, usize) {
    let number = header.number;
    let mut out = String::with_capacity(1600 + 900 * transactions.len());
    // Writing to a String does not fail.
    let _ = write!(
        out,
        r#"{{"hash":"{hash}","parentHash":"{}","sha3Uncles":"{}","miner":"{}","stateRoot":"{}","transactionsRoot":"{}","receiptsRoot":"{}","logsBloom":"{}","difficulty":"0x0","number":"{number:#x}","gasLimit":"{:#x}","gasUsed":"{:#x}","timestamp":"{:#x}","extraData":"{}","mixHash":"{}","nonce":"0x0000000000000000","baseFeePerGas":"{:#x}","size":"0x523","uncles":[],"transactions":["#,
        header.parent_hash,
        header.ommers_hash,
        hex::encode_prefixed(header.beneficiary),
        header.state_root,
        header.transactions_root,
        header.receipts_root,
        header.logs_bloom,
        header.gas_limit,
        header.gas_used,
        header.timestamp,
        header.extra_data,
        header.mix_hash,
        header.base_fee_per_gas.unwrap_or_default(),
    );
    let length = out.len();
    for (index, signed) in transactions.iter().enumerate() {
        let (tx, signature) = (signed.tx(), signed.signature());
        let parity = u8::from(signature.v());
        let _ = write!(
            out,
            r#"{}{{"type":"0x2","chainId":"{CHAIN_ID:#x}","nonce":"{:#x}","gas":"{:#x}","maxFeePerGas":"{:#x}","maxPriorityFeePerGas":"{:#x}","gasPrice":"0x3b9aca01","to":"{}","value":"{:#x}","accessList":[],"input":"{}","r":"{:#x}","s":"{:#x}","yParity":"{parity:#x}","v":"{parity:#x}","hash":"{}","blockHash":"{hash}","blockNumber":"{number:#x}","transactionIndex":"{index:#x}","from":"{}"}}"#,
            if index > 0 { "," } else { "" },
            tx.nonce,
            tx.gas_limit,
            tx.max_fee_per_gas,
            tx.max_priority_fee_per_gas,
            hex::encode_prefixed(tx.to.to().copied().unwrap_or_default()),
            tx.value,
            tx.input,
            signature.r(),
            signature.s(),
            signed.hash(),
            hex::encode_prefixed(signer(index).address),
        );
    }
    out.push_str("]}");
    out.shrink_to_fit();
    (out, length)
}

pub(super) fn receipts(
    number: u64,
    hash: B256,
    transactions: &[Signed<TxEip1559>],
    transfers: &[Vec<Transfer>],
    receipts: &[ReceiptEnvelope],
) -> String {
    let mut log_index = 0;
    let mut out = String::from("[");
    let all = transactions.iter().zip(transfers).zip(receipts);
    for (index, ((signed, transfers), receipt)) in all.enumerate() {
        let tx = signed.hash();
        let to = signed.tx().to.to().copied().unwrap_or_default();
        let _ = write!(
            out,
            r#"{}{{"type":"0x2","status":"0x1","cumulativeGasUsed":"{:#x}","logs":["#,
            if index > 0 { "," } else { "" },
            receipt.cumulative_gas_used(),
        );
        for (place, log) in receipt.logs().iter().enumerate() {
            let _ = write!(
                out,
                r#"{}{{"address":"{}","topics":["#,
                if place > 0 { "," } else { "" },
                hex::encode_prefixed(log.address),
            );
            for (place, topic) in log.topics().iter().enumerate() {
                let _ = write!(out, r#"{}"{topic}""#, if place > 0 { "," } else { "" });
            }
            let _ = write!(
                out,
                r#"],"data":"{}","blockHash":"{hash}","blockNumber":"{number:#x}","blockTimestamp":"0x684f0000","transactionHash":"{tx}","transactionIndex":"{index:#x}","logIndex":"{log_index:#x}","removed":false}}"#,
                log.data.data,
            );
            log_index += 1;
        }
        let _ = write!(
            out,
            r#"],"logsBloom":"{}","transactionHash":"{tx}","transactionIndex":"{index:#x}","blockHash":"{hash}","blockNumber":"{number:#x}","gasUsed":"{:#x}","effectiveGasPrice":"0x3b9aca01","from":"{}","to":"{}","contractAddress":null}}"#,
            receipt.logs_bloom(),
            gas_used(transfers),
            hex::encode_prefixed(signer(index).address),
            hex::encode_prefixed(to),
        );
    }
    out.push(']');
    out.shrink_to_fit();
    out
}

/// What each transaction changes of whose balance (`prestateTracer`, `diffMode`): its sender's, a payee's, the block
/// producer's; and of a contract and the insider, where it sends something on.
pub(super) fn trace(
    transactions: &[Signed<TxEip1559>],
    transfers: &[Vec<Transfer>],
    inside: &HashMap<B256, (u64, Address)>,
) -> String {
    let much = U256::from(OPENING_WEI) * U256::from(1_000_000);
    let mut out = String::from("[");
    for (index, (signed, transfers)) in transactions.iter().zip(transfers).enumerate() {
        let (tx, gas) = (signed.tx(), U256::from(gas_used(transfers)));
        let fee = gas * U256::from(1_000_000_001);
        let mut changes = vec![
            (signer(index).address, much, much - fee - tx.value),
            (Address::ZERO, much, much + gas),
        ];
        if let Some(to) = tx.to.to().filter(|_| !tx.value.is_zero()) {
            changes.push((*to, much, much + tx.value));
        }
        if let Some((_, contract)) = inside.get(signed.hash()) {
            changes.push((*contract, much, much - U256::from(1)));
            changes.push((insider(), much, much + U256::from(1)));
        }
        let side = |after: bool| {
            let mut side = String::new();
            for (place, (who, before, then)) in changes.iter().enumerate() {
                let comma = if place > 0 { "," } else { "" };
                let balance = if after { then } else { before };
                let _ = write!(side, r#"{comma}"{who:#x}":{{"balance":"{balance:#x}","nonce":1}}"#);
            }
            side
        };
        let comma = if index > 0 { "," } else { "" };
        let (hash, before, after) = (signed.hash(), side(false), side(true));
        let _ = write!(
            out,
            r#"{comma}{{"txHash":"{hash}","result":{{"post":{{{after}}},"pre":{{{before}}}}}}}"#
        );
    }
    out.push(']');
    out.shrink_to_fit();
    out
}

/// The calls of a transaction that sends the insider something (`callTracer`).
pub(super) fn calls(contract: Address) -> String {
    let call = |from, to, value, calls| {
        format!(
            r#"{{"type":"CALL","from":"{from:#x}","to":"{to:#x}","value":"{value:#x}","gas":"0x30d40","gasUsed":"0x5208","input":"0x"{calls}}}"#
        )
    };
    let inner = format!(r#","calls":[{}]"#, call(contract, insider(), 1, String::new()));
    call(signer(0).address, contract, 0, inner)
}
