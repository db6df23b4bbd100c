//! A node of the cluster that was made up: JSON-RPC over HTTP.

use std::{
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use anyhow::Context as _;
use axum::{Router, body::Bytes, extract::State, routing::post};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use tidemark::chain::solana::TOKEN;
use tokio_util::task::AbortOnDropHandle;

use super::maker::{self, Cluster};
use crate::serve::serve;

pub const GENESIS: &str = "EtWTRABZaYq6iMfeYKouRu166VU2xqa1wcaWoxPkrZBG";
/// The slot of the first block, which is empty; every slot after it has a block.
pub const BASE: u64 = 400_000_000;
/// How far below the newest a block is finalized.
const FINAL_BELOW: u64 = 32;
const FIRST_TIME: u64 = 1_790_000_000;

/// Serves until it is dropped.
pub struct Node {
    pub url: String,
    serving: Arc<Serving>,
    _task: AbortOnDropHandle<()>,
}

struct Serving {
    cluster: Arc<Cluster>,
    /// The newest slot.
    shown: AtomicU64,
    /// When the first whole block was asked for.
    begun: Mutex<Option<Instant>>,
}

#[derive(Deserialize)]
struct Call<'a> {
    #[serde(borrow)]
    id: &'a RawValue,
    method: &'a str,
    #[serde(default)]
    params: Vec<Value>,
}

impl Node {
    pub async fn start(cluster: &Arc<Cluster>) -> anyhow::Result<Self> {
        let serving = Arc::new(Serving {
            cluster: Arc::clone(cluster),
            shown: AtomicU64::new(BASE),
            begun: Mutex::default(),
        });
        let router = Router::new().route("/", post(answer)).with_state(Arc::clone(&serving));
        let (url, task) = serve(router).await?;
        Ok(Self { url, serving, _task: task })
    }

    /// Makes this the newest slot.
    pub fn show(&self, slot: u64) {
        *self.serving.begun.lock() = None;
        self.serving.shown.store(slot, Ordering::SeqCst);
    }

    pub fn settled(&self) -> u64 {
        self.serving.settled()
    }

    /// When the first whole block was asked for since [`Node::show`].
    pub fn begun(&self) -> anyhow::Result<Instant> {
        self.serving.begun.lock().context("no block was asked for")
    }
}

async fn answer(State(serving): State<Arc<Serving>>, body: Bytes) -> Vec<u8> {
    let mut out = Vec::new();
    if let Ok(calls) = serde_json::from_slice::<Vec<Call<'_>>>(&body) {
        for (index, call) in calls.iter().enumerate() {
            out.push(if index == 0 { b'[' } else { b',' });
            serving.write(call, &mut out);
        }
        out.push(b']');
    } else if let Ok(call) = serde_json::from_slice(&body) {
        serving.write(&call, &mut out);
    }
    out
}

impl Serving {
    fn shown(&self) -> u64 {
        self.shown.load(Ordering::SeqCst)
    }

    fn settled(&self) -> u64 {
        self.shown().saturating_sub(FINAL_BELOW).max(BASE)
    }

    fn write(&self, call: &Call<'_>, out: &mut Vec<u8>) {
        out.extend(br#"{"jsonrpc":"2.0","id":"#);
        out.extend(call.id.get().as_bytes());
        out.extend(br#","result":"#);
        if call.method == "getBlock" {
            self.block(call, out);
        } else {
            let result = self.result(call).unwrap_or_default();
            out.extend(result.to_string().as_bytes());
        }
        out.push(b'}');
    }

    fn block(&self, call: &Call<'_>, out: &mut Vec<u8>) {
        let slot = call.params.first().and_then(Value::as_u64).unwrap_or_default();
        if !(BASE..=self.shown()).contains(&slot) {
            out.extend(b"null");
            return;
        }
        let n = slot - BASE;
        let mut text = String::with_capacity(512);
        // Writing to a String does not fail.
        let _ = write!(
            text,
            r#"{{"blockHeight":{slot},"blockTime":{},"blockhash":"{}","parentSlot":{},"previousBlockhash":"{}""#,
            FIRST_TIME + n / 3,
            maker::hash(slot),
            slot - 1,
            maker::hash(slot - 1),
        );
        out.extend(text.as_bytes());
        if call.params.get(1).is_some_and(|how| how["transactionDetails"] == "accounts") {
            let reward = json!([{
                "commission": null, "lamports": 12_500_000, "postBalance": 99_000_000_000_u64,
                "pubkey": maker::leader(n), "rewardType": "Fee"
            }]);
            out.extend(format!(r#","rewards":{reward},"transactions":"#).as_bytes());
            if n == 0 {
                out.extend(b"[]");
            } else {
                self.begun.lock().get_or_insert_with(Instant::now);
                self.cluster.transactions(n, out);
            }
        }
        out.push(b'}');
    }

    fn result(&self, call: &Call<'_>) -> Option<Value> {
        let shown = self.shown();
        let param = |place: usize| call.params.get(place);
        let slot = |place: usize| param(place)?.as_u64();
        let listed =
            |from: u64, to: u64| json!((from.max(BASE)..=to.min(shown)).collect::<Vec<_>>());
        let now = |value: Value| json!({"context": {"slot": shown}, "value": value});
        Some(match call.method {
            "getGenesisHash" => json!(GENESIS),
            "getSlot" => match param(0)?["commitment"].as_str()? {
                "finalized" => json!(self.settled()),
                _ => json!(shown),
            },
            "getBlocks" => listed(slot(0)?, slot(1)?),
            "getBlocksWithLimit" => {
                let from = slot(0)?.max(BASE);
                listed(from, from + slot(1)? - 1)
            }
            "getMultipleAccounts" => {
                let keys = param(0)?.as_array()?;
                now(keys.iter().map(|key| self.lamports(key.as_str()?)).collect())
            }
            "getTokenAccountsByOwner" => {
                now(self.token_accounts(param(0)?.as_str()?, &param(1)?["programId"]))
            }
            "getAccountInfo" => now(mint()),
            _ => return None,
        })
    }

    /// An account as `getMultipleAccounts` tells it, without its data.
    fn lamports(&self, key: &str) -> Option<Value> {
        let (owner, ..) = self.cluster.find(key)?;
        let (lamports, _) = self.cluster.holds(owner, self.shown() - BASE).ok()?;
        Some(json!({"lamports": lamports, "data": ["", "base64"], "executable": false}))
    }

    fn token_accounts(&self, key: &str, program: &Value) -> Value {
        let found = self.cluster.find(key).filter(|_| *program == TOKEN);
        let Some((owner, account, mint)) = found else { return json!([]) };
        let Ok((_, units)) = self.cluster.holds(owner, self.shown() - BASE) else {
            return json!([]);
        };
        let amount = json!({"amount": units.to_string(), "decimals": 6});
        let info = json!({
            "mint": maker::mint(mint), "owner": key, "state": "initialized", "tokenAmount": amount
        });
        let parsed = json!({"info": info, "type": "account"});
        let data = json!({"parsed": parsed, "program": "spl-token", "space": 165});
        json!([{"pubkey": account, "account": {"owner": TOKEN, "data": data}}])
    }
}

/// Every mint is alike.
fn mint() -> Value {
    let parsed = json!({"info": {"decimals": 6}, "type": "mint"});
    json!({"owner": TOKEN, "data": {"parsed": parsed, "program": "spl-token", "space": 82}})
}
