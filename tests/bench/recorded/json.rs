//! Blocks and receipts as a node writes them.

use std::fmt::Write as _;

use alloy::{
    consensus::{Header, ReceiptEnvelope},
    primitives::{B256, hex, keccak256},
};

use super::{Transfer, gas_used, sender};
use crate::daemon::CHAIN_ID;

pub(super) fn tx_hash(number: u64, index: usize) -> B256 {
    keccak256([number.to_be_bytes(), (index as u64).to_be_bytes()].concat())
}

/// With the transactions; and how much of it stands before the first one.
pub(super) fn block(
    header: &Header,
    hash: B256,
    transactions: &[Vec<Transfer>],
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
    for (index, transfers) in transactions.iter().enumerate() {
        let to = transfers.first().map_or_else(|| sender(index + 1), |transfer| transfer.token);
        let value = if transfers.is_empty() { "0xde0b6b3a7640000" } else { "0x0" };
        let input = if transfers.is_empty() {
            "0x".to_owned()
        } else {
            format!("0xa9059cbb{index:0>128x}")
        };
        let word = tx_hash(number, index + 1_000_000);
        let _ = write!(
            out,
            r#"{}{{"type":"0x2","chainId":"{CHAIN_ID:#x}","nonce":"{number:#x}","gas":"0x30d40","maxFeePerGas":"0xb2d05e00","maxPriorityFeePerGas":"0x1","gasPrice":"0x3b9aca01","to":"{}","value":"{value}","accessList":[],"input":"{input}","r":"{word}","s":"{word}","yParity":"0x0","v":"0x0","hash":"{}","blockHash":"{hash}","blockNumber":"{number:#x}","transactionIndex":"{index:#x}","from":"{}"}}"#,
            if index > 0 { "," } else { "" },
            hex::encode_prefixed(to),
            tx_hash(number, index),
            hex::encode_prefixed(sender(index)),
        );
    }
    out.push_str("]}");
    out.shrink_to_fit();
    (out, length)
}

pub(super) fn receipts(
    number: u64,
    hash: B256,
    transactions: &[Vec<Transfer>],
    receipts: &[ReceiptEnvelope],
) -> String {
    let mut log_index = 0;
    let mut out = String::from("[");
    for (index, (transfers, receipt)) in transactions.iter().zip(receipts).enumerate() {
        let tx = tx_hash(number, index);
        let to = transfers.first().map_or_else(|| sender(index + 1), |transfer| transfer.token);
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
            hex::encode_prefixed(sender(index)),
            hex::encode_prefixed(to),
        );
    }
    out.push(']');
    out.shrink_to_fit();
    out
}
