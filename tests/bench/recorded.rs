//! A chain made up beforehand and a node that only hands it out: valid headers and receipts, so that the
//! daemon's full verification has to pass.

use std::{
    collections::HashMap,
    fmt::Write as _,
    sync::{Arc, OnceLock},
    time::Instant,
};

use alloy::{
    consensus::{Eip658Value, Header, Receipt, ReceiptEnvelope, proofs::calculate_receipt_root},
    primitives::{Address, B256, Bloom, Bytes, Log, LogData, U256, b256, hex, keccak256},
};
use axum::{Router, body::Bytes as Body, extract::State, http::header, routing::post};
use serde::Deserialize;
use serde_json::value::RawValue;
use tidemark::chain::{self, BlockHash, BlockRef};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use super::daemon::CHAIN_ID;

const TRANSFER: B256 = b256!("ddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef");
/// How far below the head the node calls blocks final.
const FINAL_BELOW: usize = 64;
const FIRST_TIME: u64 = 1_750_000_000;

/// An ERC-20 transfer.
pub struct Transfer {
    pub token: Address,
    pub from: Address,
    pub to: Address,
    pub value: U256,
}

/// One block as the node answers, in JSON.
struct Block {
    header: Header,
    hash: B256,
    /// With its transactions.
    full: String,
    /// Without.
    bare: String,
    receipts: String,
}

/// Block 0 and those after it.
pub struct Chain {
    blocks: Vec<Block>,
    by_hash: HashMap<B256, usize>,
}

impl Chain {
    pub fn new() -> Self {
        let mut chain = Self { blocks: Vec::new(), by_hash: HashMap::new() };
        chain.push(&[]);
        chain
    }

    /// One more block: each transaction is the logs that it left.
    pub fn push(&mut self, transactions: &[Vec<Transfer>]) {
        let number = self.blocks.len() as u64;
        let mut gas = 0;
        let receipts: Vec<ReceiptEnvelope> = transactions
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
        let header = Header {
            parent_hash: self.blocks.last().map(|parent| parent.hash).unwrap_or_default(),
            number,
            state_root: keccak256(number.to_be_bytes()),
            transactions_root: if transactions.is_empty() {
                alloy::consensus::EMPTY_ROOT_HASH
            } else {
                // It cannot be checked without the signatures, so nobody does.
                keccak256(number.to_le_bytes())
            },
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
        let (full, bare) = block_json(&header, hash, transactions);
        let receipts = receipts_json(number, hash, transactions, &receipts);
        self.by_hash.insert(hash, self.blocks.len());
        self.blocks.push(Block { header, hash, full, bare, receipts });
    }

    pub fn head(&self) -> u64 {
        self.blocks.len() as u64 - 1
    }

    /// Block 0, as the daemon would read it.
    pub fn genesis(&self) -> chain::Header {
        let block = &self.blocks[0];
        let at = |hash: B256| BlockRef { number: 0, hash: BlockHash(hash.0) };
        chain::Header {
            at: at(block.hash),
            parent: at(block.header.parent_hash),
            time: block.header.timestamp,
        }
    }

    fn find(&self, which: &str) -> Option<&Block> {
        let number = match which {
            "latest" => self.blocks.len() - 1,
            "finalized" | "safe" => (self.blocks.len() - 1).saturating_sub(FINAL_BELOW),
            text if text.len() == 66 => *self.by_hash.get(&text.parse::<B256>().ok()?)?,
            text => usize::from_str_radix(text.strip_prefix("0x")?, 16).ok()?,
        };
        self.blocks.get(number)
    }
}

fn gas_used(transfers: &[Transfer]) -> u64 {
    21_000 + 30_000 * transfers.len() as u64
}

impl Transfer {
    fn log(&self) -> Log {
        let topics = vec![TRANSFER, self.from.into_word(), self.to.into_word()];
        let data = Bytes::from(self.value.to_be_bytes::<32>());
        Log { address: self.token, data: LogData::new_unchecked(topics, data) }
    }
}

fn tx_hash(number: u64, index: usize) -> B256 {
    keccak256([number.to_be_bytes(), (index as u64).to_be_bytes()].concat())
}

/// Who sends the n-th transaction: nobody who is registered.
fn sender(index: usize) -> Address {
    Address::left_padding_from(&(0x5e4d_0000 + index as u64).to_be_bytes())
}

fn block_json(header: &Header, hash: B256, transactions: &[Vec<Transfer>]) -> (String, String) {
    let number = header.number;
    let mut head = String::new();
    // Writing to a String does not fail.
    let _ = write!(
        head,
        r#"{{"hash":"{hash}","parentHash":"{}","sha3Uncles":"{}","miner":"{}","stateRoot":"{}","transactionsRoot":"{}","receiptsRoot":"{}","logsBloom":"{}","difficulty":"0x0","number":"{number:#x}","gasLimit":"{:#x}","gasUsed":"{:#x}","timestamp":"{:#x}","extraData":"{}","mixHash":"{}","nonce":"0x0000000000000000","baseFeePerGas":"{:#x}","size":"0x523","uncles":[],"#,
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
    let full: Vec<String> = transactions
        .iter()
        .enumerate()
        .map(|(index, transfers)| {
            let to = transfers.first().map_or_else(|| sender(index + 1), |transfer| transfer.token);
            let value = if transfers.is_empty() { "0xde0b6b3a7640000" } else { "0x0" };
            let input = if transfers.is_empty() {
                "0x".to_owned()
            } else {
                format!("0xa9059cbb{index:0>128x}")
            };
            let word = tx_hash(number, index + 1_000_000);
            format!(
                r#"{{"type":"0x2","chainId":"{CHAIN_ID:#x}","nonce":"{number:#x}","gas":"0x30d40","maxFeePerGas":"0xb2d05e00","maxPriorityFeePerGas":"0x1","gasPrice":"0x3b9aca01","to":"{}","value":"{value}","accessList":[],"input":"{input}","r":"{word}","s":"{word}","yParity":"0x0","v":"0x0","hash":"{}","blockHash":"{hash}","blockNumber":"{number:#x}","transactionIndex":"{index:#x}","from":"{}"}}"#,
                hex::encode_prefixed(to),
                tx_hash(number, index),
                hex::encode_prefixed(sender(index)),
            )
        })
        .collect();
    let bare: Vec<String> =
        (0..transactions.len()).map(|index| format!("\"{}\"", tx_hash(number, index))).collect();
    (
        format!("{head}\"transactions\":[{}]}}", full.join(",")),
        format!("{head}\"transactions\":[{}]}}", bare.join(",")),
    )
}

fn receipts_json(
    number: u64,
    hash: B256,
    transactions: &[Vec<Transfer>],
    receipts: &[ReceiptEnvelope],
) -> String {
    let mut log_index = 0;
    let mut out = String::from("[");
    for (index, (transfers, receipt)) in transactions.iter().zip(receipts).enumerate() {
        let tx = tx_hash(number, index);
        let logs: Vec<String> = receipt
            .logs()
            .iter()
            .map(|log| {
                let topics: Vec<String> =
                    log.topics().iter().map(|topic| format!("\"{topic}\"")).collect();
                let text = format!(
                    r#"{{"address":"{}","topics":[{}],"data":"{}","blockHash":"{hash}","blockNumber":"{number:#x}","blockTimestamp":"0x684f0000","transactionHash":"{tx}","transactionIndex":"{index:#x}","logIndex":"{log_index:#x}","removed":false}}"#,
                    hex::encode_prefixed(log.address),
                    topics.join(","),
                    log.data.data,
                );
                log_index += 1;
                text
            })
            .collect();
        if index > 0 {
            out.push(',');
        }
        let to = transfers.first().map_or_else(|| sender(index + 1), |transfer| transfer.token);
        let _ = write!(
            out,
            r#"{{"type":"0x2","status":"0x1","cumulativeGasUsed":"{:#x}","logs":[{}],"logsBloom":"{}","transactionHash":"{tx}","transactionIndex":"{index:#x}","blockHash":"{hash}","blockNumber":"{number:#x}","gasUsed":"{:#x}","effectiveGasPrice":"0x3b9aca01","from":"{}","to":"{}","contractAddress":null}}"#,
            receipt.cumulative_gas_used(),
            logs.join(","),
            receipt.logs_bloom(),
            gas_used(transfers),
            hex::encode_prefixed(sender(index)),
            hex::encode_prefixed(to),
        );
    }
    out.push(']');
    out
}

/// The node, serving until it is dropped.
pub struct Node {
    pub url: String,
    state: Arc<Serving>,
    _task: AbortOnDropHandle<()>,
}

struct Serving {
    chain: Chain,
    /// When the first whole block was asked for.
    begun: OnceLock<Instant>,
}

#[derive(Deserialize)]
struct Call<'a> {
    #[serde(borrow)]
    id: &'a RawValue,
    method: &'a str,
    #[serde(borrow)]
    params: Vec<&'a RawValue>,
}

impl Node {
    pub async fn start(chain: Chain) -> anyhow::Result<Self> {
        let state = Arc::new(Serving { chain, begun: OnceLock::new() });
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let router = Router::new().route("/", post(answer)).with_state(Arc::clone(&state));
        let task = tokio::spawn(async move {
            // It ends with the measurement.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { url, state, _task: AbortOnDropHandle::new(task) })
    }

    pub fn begun(&self) -> Option<Instant> {
        self.state.begun.get().copied()
    }
}

async fn answer(
    State(state): State<Arc<Serving>>,
    body: Body,
) -> ([(header::HeaderName, &'static str); 1], String) {
    let mut out = String::new();
    if let Ok(calls) = serde_json::from_slice::<Vec<Call<'_>>>(&body) {
        for (index, call) in calls.iter().enumerate() {
            out.push(if index == 0 { '[' } else { ',' });
            state.write(call, &mut out);
        }
        out.push(']');
    } else if let Ok(call) = serde_json::from_slice(&body) {
        state.write(&call, &mut out);
    }
    ([(header::CONTENT_TYPE, "application/json")], out)
}

impl Serving {
    fn write(&self, call: &Call<'_>, out: &mut String) {
        let first = call.params.first().map_or("", |param| param.get().trim_matches('"'));
        let result = match call.method {
            "eth_chainId" => {
                let _ = write!(
                    out,
                    r#"{{"jsonrpc":"2.0","id":{},"result":"{CHAIN_ID:#x}"}}"#,
                    call.id.get()
                );
                return;
            }
            "eth_getBlockByNumber" | "eth_getBlockByHash" => {
                let full = call.params.get(1).is_some_and(|param| param.get() == "true");
                if full {
                    self.begun.get_or_init(Instant::now);
                }
                self.chain.find(first).map(|b| if full { &b.full } else { &b.bare })
            }
            // Blocks were recorded, no states: nothing can be compared with them.
            "eth_getBalance" | "eth_call" => {
                let _ = write!(
                    out,
                    r#"{{"jsonrpc":"2.0","id":{},"error":{{"code":-32001,"message":"no state"}}}}"#,
                    call.id.get()
                );
                return;
            }
            "eth_getBlockReceipts" => self.chain.find(first).map(|block| &block.receipts),
            _ => None,
        };
        let result = result.map_or("null", String::as_str);
        out.reserve(result.len() + 64);
        out.push_str(r#"{"jsonrpc":"2.0","id":"#);
        out.push_str(call.id.get());
        out.push_str(r#","result":"#);
        out.push_str(result);
        out.push('}');
    }
}
