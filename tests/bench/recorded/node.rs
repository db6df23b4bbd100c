//! The node: JSON-RPC over HTTP, in answers made of what was recorded.

use std::{
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use alloy::primitives::{Address, B256};
use anyhow::Context as _;
use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::header,
    response::{IntoResponse as _, Response},
    routing::post,
};
use futures::stream;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio_util::task::AbortOnDropHandle;

use super::{Block, Chain, OPENING_WEI, insider, json, token};
use crate::{daemon::CHAIN_ID, serve::serve};

/// The selector of `balanceOf(address)`.
const BALANCE_OF: &str = "0x70a08231";

/// How a node answers.
#[derive(Clone, Copy)]
pub struct Manner {
    /// The newest block at first; the others are shown later.
    pub shown: u64,
    /// How far below the newest the node calls blocks final.
    pub final_below: u64,
    /// Before each answer to a request, as if the node were elsewhere.
    pub latency: Duration,
    /// Whether it tells what addresses hold; else it can be told to later.
    pub has_state: bool,
}

impl Default for Manner {
    fn default() -> Self {
        Self { shown: 0, final_below: 64, latency: Duration::ZERO, has_state: true }
    }
}

/// The node, serving until it is dropped.
pub struct Node {
    pub url: String,
    serving: Arc<Serving>,
    _task: AbortOnDropHandle<()>,
}

struct Serving {
    chain: Arc<Chain>,
    manner: Manner,
    shown: AtomicU64,
    has_state: AtomicBool,
    /// When the first whole block was asked for since more were shown.
    begun: Mutex<Option<Instant>>,
}

#[derive(Deserialize)]
struct Call<'a> {
    #[serde(borrow)]
    id: &'a RawValue,
    method: &'a str,
    #[serde(borrow, default)]
    params: Vec<&'a RawValue>,
}

impl Node {
    pub async fn start(chain: &Arc<Chain>, manner: Manner) -> anyhow::Result<Self> {
        let serving = Arc::new(Serving {
            chain: Arc::clone(chain),
            manner,
            shown: AtomicU64::new(manner.shown),
            has_state: AtomicBool::new(manner.has_state),
            begun: Mutex::default(),
        });
        let router = Router::new().route("/", post(answer)).with_state(Arc::clone(&serving));
        let (url, task) = serve(router).await?;
        Ok(Self { url, serving, _task: task })
    }

    /// Makes this the newest block.
    pub fn show(&self, block: u64) {
        *self.serving.begun.lock() = None;
        self.serving.shown.store(block, Ordering::SeqCst);
    }

    /// From now on it tells what addresses hold.
    pub fn show_state(&self) {
        self.serving.has_state.store(true, Ordering::SeqCst);
    }

    /// The newest block that it calls final.
    pub fn settled(&self) -> u64 {
        self.serving.settled()
    }

    /// When the first whole block was asked for since [`Node::show`].
    pub fn begun(&self) -> anyhow::Result<Instant> {
        self.serving.begun.lock().context("no block was asked for")
    }
}

/// What is written for an answer, and what was recorded for it: nothing of that is copied.
#[derive(Default)]
struct Pieces {
    done: Vec<Bytes>,
    text: String,
    length: usize,
}

impl Pieces {
    fn recorded(&mut self, part: Bytes) {
        self.flush();
        self.length += part.len();
        self.done.push(part);
    }

    fn flush(&mut self) {
        if !self.text.is_empty() {
            self.length += self.text.len();
            self.done.push(std::mem::take(&mut self.text).into());
        }
    }

    fn into_response(mut self) -> Response {
        self.flush();
        let headers = [
            (header::CONTENT_TYPE, "application/json".to_owned()),
            (header::CONTENT_LENGTH, self.length.to_string()),
        ];
        let parts = self.done.into_iter().map(Ok::<_, std::convert::Infallible>);
        (headers, Body::from_stream(stream::iter(parts))).into_response()
    }
}

async fn answer(State(serving): State<Arc<Serving>>, body: Bytes) -> Response {
    let mut out = Pieces::default();
    if !serving.manner.latency.is_zero() {
        tokio::time::sleep(serving.manner.latency).await;
    }
    if let Ok(calls) = serde_json::from_slice::<Vec<Call<'_>>>(&body) {
        for (index, call) in calls.iter().enumerate() {
            out.text.push(if index == 0 { '[' } else { ',' });
            serving.write(call, &mut out);
        }
        out.text.push(']');
    } else if let Ok(call) = serde_json::from_slice(&body) {
        serving.write(&call, &mut out);
    }
    out.into_response()
}

impl Call<'_> {
    fn text(&self, place: usize) -> &str {
        self.params.get(place).map_or("", |param| param.get().trim_matches('"'))
    }

    /// Whether a block is asked for with its transactions.
    fn fetches(&self) -> bool {
        self.text(1) == "true"
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct At<'a> {
    block_hash: &'a str,
}

#[derive(Deserialize)]
struct Asking<'a> {
    to: Address,
    #[serde(alias = "input")]
    data: &'a str,
}

impl Serving {
    fn settled(&self) -> u64 {
        self.shown.load(Ordering::SeqCst).saturating_sub(self.manner.final_below)
    }

    /// The number of a block that is shown, by number, hash or tag.
    fn find(&self, which: &str) -> Option<u64> {
        let shown = self.shown.load(Ordering::SeqCst);
        let number = match which {
            "latest" => shown,
            "finalized" | "safe" => self.settled(),
            text if text.len() == 66 => {
                *self.chain.by_hash.get(&text.parse::<B256>().ok()?)? as u64
            }
            text => u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()?,
        };
        (number <= shown).then_some(number)
    }

    fn block(&self, which: &str) -> Option<(u64, &Block)> {
        let number = self.find(which)?;
        Some((number, self.chain.blocks.get(usize::try_from(number).ok()?)?))
    }

    fn write(&self, call: &Call<'_>, out: &mut Pieces) {
        let _ = write!(out.text, r#"{{"jsonrpc":"2.0","id":{},"#, call.id.get());
        match call.method {
            "eth_chainId" => {
                let _ = write!(out.text, r#""result":"{CHAIN_ID:#x}"}}"#);
            }
            "eth_getBlockByNumber" | "eth_getBlockByHash" => {
                out.text.push_str(r#""result":"#);
                match self.block(call.text(0)) {
                    None => out.text.push_str("null"),
                    Some((_, block)) if call.fetches() => {
                        self.begun.lock().get_or_insert_with(Instant::now);
                        out.recorded(block.full.clone());
                    }
                    Some((_, block)) => {
                        out.recorded(block.full.slice(..block.header));
                        for (index, hash) in block.transactions.iter().enumerate() {
                            let comma = if index > 0 { "," } else { "" };
                            let _ = write!(out.text, r#"{comma}"{hash}""#);
                        }
                        out.text.push_str("]}");
                    }
                }
                out.text.push('}');
            }
            "eth_getBlockReceipts" => {
                out.text.push_str(r#""result":"#);
                match self.block(call.text(0)) {
                    None => out.text.push_str("null"),
                    Some((_, block)) => out.recorded(block.receipts.clone()),
                }
                out.text.push('}');
            }
            "debug_traceBlockByHash" => {
                out.text.push_str(r#""result":"#);
                match self.block(call.text(0)) {
                    None => out.text.push_str("null"),
                    Some((_, block)) => out.recorded(block.trace.clone()),
                }
                out.text.push('}');
            }
            "debug_traceTransaction" => {
                let hash = call.text(0).parse::<B256>().unwrap_or_default();
                let calls =
                    self.chain.inside.get(&hash).map(|(_, contract)| json::calls(*contract));
                let calls = calls.unwrap_or_else(|| "null".to_owned());
                let _ = write!(out.text, r#""result":{calls}}}"#);
            }
            "eth_getCode" => out.text.push_str(r#""result":"0x"}"#),
            "eth_getBalance" | "eth_call" => match self.state(call) {
                Some(result) => {
                    let _ = write!(out.text, r#""result":"{result}"}}"#);
                }
                None => out.text.push_str(r#""error":{"code":-32001,"message":"no state"}}"#),
            },
            _ => out.text.push_str(r#""error":{"code":-32601,"message":"method not found"}}"#),
        }
    }

    /// What an address holds after a block.
    fn state(&self, call: &Call<'_>) -> Option<String> {
        if !self.has_state.load(Ordering::SeqCst) {
            return None;
        }
        let param = call.params.get(1)?.get();
        let at = serde_json::from_str::<At<'_>>(param);
        let number = self.find(at.map_or_else(|_| call.text(1), |at| at.block_hash))?;
        if call.method == "eth_getBalance" {
            let is_insider = call.text(0).parse() == Ok(insider());
            let inside = if is_insider { self.chain.inside(number) } else { 0 };
            return Some(format!("{:#x}", OPENING_WEI + inside));
        }
        let asking: Asking<'_> = serde_json::from_str(call.params.first()?.get()).ok()?;
        let owner = asking.data.strip_prefix(BALANCE_OF).filter(|_| asking.to == token(0));
        // There is no other contract, and the token has no other function.
        let Some(owner) = owner else { return Some("0x".to_owned()) };
        let owner = Address::from_word(owner.parse().ok()?);
        Some(format!("{:#066x}", self.chain.balance(owner, number)))
    }
}
