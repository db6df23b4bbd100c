//! A local Ethereum node: the process, and what one can ask of it.

use std::{
    path::PathBuf,
    process::Stdio,
    sync::Arc,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use alloy::primitives::{Address, B256, Bytes, U64, U256};
use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    process::{Child, Command},
};
use tokio_util::task::AbortOnDropHandle;

use super::npm::Packages;

const START_TIMEOUT: Duration = Duration::from_secs(20);
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
const RECEIPT_TIMEOUT: Duration = Duration::from_secs(10);

/// When the node makes blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mining {
    /// One block for each transaction.
    #[default]
    Automatic,
    /// Only when [`Rpc::mine`] is called.
    Manual,
    /// At this interval.
    Every(Duration),
}

/// How the node is to be.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// 31337 when `None`.
    pub chain_id: Option<u64>,
    pub mining: Mining,
    /// `safe` is this many blocks below the head and `finalized` twice as many; 32 when `None`.
    pub slots_in_an_epoch: Option<u64>,
    /// The node's newest when `None`.
    pub hardfork: Option<&'static str>,
    /// Keep the state of this many blocks only; reorgs and historical reads reach no deeper.
    pub prune_history: Option<u64>,
    /// A free one when `None`.
    pub port: Option<u16>,
    /// Loaded at the start and saved by [`Anvil::stop`].
    pub state: Option<PathBuf>,
    /// Further arguments.
    pub arguments: Vec<String>,
}

/// A running node. Dropping it kills the process.
#[derive(Debug)]
pub struct Anvil {
    /// What one can ask of it.
    pub rpc: Rpc,
    child: Child,
    /// Reads what the node prints, which would otherwise fill the pipe and stop it.
    _output: AbortOnDropHandle<()>,
}

impl Anvil {
    /// Starts the `anvil` of the `PATH`, else the one from npm, and waits until it listens.
    ///
    /// # Errors
    /// If it cannot be installed or does not start; with what it printed.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        let arguments = arguments(&options);
        let spawn = |program: PathBuf| {
            Command::new(program)
                .args(&arguments)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                // Ctrl-C in the terminal is for us; we then stop the node when it is no longer needed.
                .process_group(0)
                .kill_on_drop(true)
                .spawn()
        };
        let mut child = match spawn("anvil".into()) {
            Ok(child) => child,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let binary = Packages::install().await?.anvil()?;
                spawn(binary.clone())
                    .with_context(|| format!("cannot start {}", binary.display()))?
            }
            Err(error) => return Err(error).context("cannot start anvil"),
        };
        let mut lines = BufReader::new(child.stdout.take().context("no output")?).lines();
        let mut errors = child.stderr.take().context("no output")?;
        let listening = async {
            let mut seen = String::new();
            while let Some(line) = lines.next_line().await? {
                if let Some(address) = line.strip_prefix("Listening on ") {
                    return Ok(address.trim().to_owned());
                }
                seen.push_str(&line);
                seen.push('\n');
            }
            errors.read_to_string(&mut seen).await?;
            bail!("anvil ended before it listened. It said:\n{}", seen.trim())
        };
        let address = tokio::time::timeout(START_TIMEOUT, listening)
            .await
            .context("anvil did not listen in time")??;
        let output = AbortOnDropHandle::new(tokio::spawn(async move {
            let mut sink = tokio::io::sink();
            let rest = async { while let Ok(Some(_)) = lines.next_line().await {} };
            let _ = tokio::join!(rest, tokio::io::copy(&mut errors, &mut sink));
        }));
        Ok(Self { rpc: Rpc::new(format!("http://{address}"))?, child, _output: output })
    }

    /// Ends the process in order (it saves its state if it was told where) and waits for it.
    ///
    /// # Errors
    /// If the process cannot be signalled; it is killed then.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        terminate(&self.child).await?;
        if tokio::time::timeout(STOP_TIMEOUT, self.child.wait()).await.is_err() {
            self.child.kill().await?;
        }
        Ok(())
    }
}

/// Sends SIGTERM to a child process, through the shell: there is no safe call for it in `std`.
///
/// # Errors
/// If there is no shell.
pub async fn terminate(child: &Child) -> anyhow::Result<()> {
    let Some(pid) = child.id() else { return Ok(()) };
    Command::new("sh")
        .args(["-c", &format!("kill -TERM {pid}")])
        .stdin(Stdio::null())
        .status()
        .await
        .context("cannot start sh")?;
    Ok(())
}

fn arguments(options: &Options) -> Vec<String> {
    let mut arguments: Vec<String> = vec![
        "--host".into(),
        "127.0.0.1".into(),
        "--port".into(),
        options.port.unwrap_or(0).to_string(),
    ];
    let mut add = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            arguments.extend([format!("--{name}"), value]);
        }
    };
    add("chain-id", options.chain_id.map(|id| id.to_string()));
    add("slots-in-an-epoch", options.slots_in_an_epoch.map(|slots| slots.to_string()));
    add("hardfork", options.hardfork.map(str::to_owned));
    add("prune-history", options.prune_history.map(|blocks| blocks.to_string()));
    add("state", options.state.as_ref().map(|path| path.display().to_string()));
    match options.mining {
        Mining::Automatic => {}
        Mining::Manual => arguments.push("--no-mining".into()),
        Mining::Every(interval) => {
            arguments.extend(["--block-time".into(), interval.as_secs_f64().to_string()]);
        }
    }
    arguments.extend(options.arguments.iter().cloned());
    arguments
}

/// A transaction as one asks the node to send it. The node signs for its own accounts, and for those that
/// [`Rpc::impersonate`] named.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    pub from: Address,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Address>,
    #[serde(skip_serializing_if = "U256::is_zero")]
    pub value: U256,
    #[serde(skip_serializing_if = "no_bytes")]
    pub data: Bytes,
    /// Estimated by the node when `None`, which refuses what would fail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gas: Option<U64>,
}

fn no_bytes(bytes: &Bytes) -> bool {
    bytes.is_empty()
}

impl Request {
    /// A transfer of the native coin.
    #[must_use]
    pub fn pay(from: Address, to: Address, value: U256) -> Self {
        Self { from, to: Some(to), value, data: Bytes::new(), gas: None }
    }

    /// A call of a contract.
    #[must_use]
    pub fn call(from: Address, to: Address, data: impl Into<Bytes>) -> Self {
        Self { from, to: Some(to), value: U256::ZERO, data: data.into(), gas: None }
    }

    /// A deployment of creation code.
    #[must_use]
    pub fn create(from: Address, code: impl Into<Bytes>) -> Self {
        Self { from, to: None, value: U256::ZERO, data: code.into(), gas: None }
    }

    /// Sent even if it will fail.
    #[must_use]
    pub fn with_gas(self, gas: u64) -> Self {
        Self { gas: Some(U64::from(gas)), ..self }
    }
}

/// What became of a transaction.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Receipt {
    pub transaction_hash: B256,
    pub block_hash: B256,
    pub block_number: U64,
    pub status: U64,
    pub contract_address: Option<Address>,
    pub gas_used: U256,
    pub effective_gas_price: U256,
}

impl Receipt {
    #[must_use]
    pub fn succeeded(&self) -> bool {
        self.status == U64::from(1)
    }
}

/// A block's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Head {
    pub number: U64,
    pub hash: B256,
}

/// JSON-RPC to a node; cloning shares the connections.
#[derive(Clone, Debug)]
pub struct Rpc {
    client: reqwest::Client,
    url: Arc<str>,
    next_id: Arc<AtomicU64>,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    result: Value,
    error: Option<Value>,
}

impl Rpc {
    /// # Errors
    /// If no HTTP client can be made.
    pub fn new(url: impl Into<Arc<str>>) -> anyhow::Result<Self> {
        Ok(Self { client: super::http_client()?, url: url.into(), next_id: Arc::default() })
    }

    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The same node's WebSocket.
    #[must_use]
    pub fn ws_url(&self) -> String {
        self.url.replacen("http://", "ws://", 1)
    }

    /// Any method.
    ///
    /// # Errors
    /// If the node does not answer, answers with an error, or with another shape than asked for.
    pub async fn call<T: DeserializeOwned>(
        &self,
        method: &str,
        params: Value,
    ) -> anyhow::Result<T> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let body = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        let answer: Answer = self
            .client
            .post(&*self.url)
            .json(&body)
            .send()
            .await
            .with_context(|| format!("{method}: the node does not answer"))?
            .json()
            .await
            .with_context(|| format!("{method}: not an answer"))?;
        if let Some(error) = answer.error {
            bail!("{method}: {error}");
        }
        serde_json::from_value(answer.result)
            .with_context(|| format!("{method}: unexpected answer"))
    }

    /// Makes `count` blocks.
    ///
    /// # Errors
    /// See [`Rpc::call`], here and below.
    pub async fn mine(&self, count: u64) -> anyhow::Result<()> {
        self.call("anvil_mine", json!([U64::from(count)])).await
    }

    /// Replaces the newest `depth` blocks by new ones at the same heights. The old transactions vanish; the
    /// given ones are in the new blocks, each at its offset from the first.
    pub async fn reorg(&self, depth: u64, transactions: &[(Request, u64)]) -> anyhow::Result<()> {
        self.call("anvil_reorg", json!([depth, transactions])).await
    }

    /// Removes the newest `depth` blocks without replacing them; the node announces nothing.
    pub async fn rollback(&self, depth: u64) -> anyhow::Result<()> {
        self.call("anvil_rollback", json!([depth])).await
    }

    /// The accounts the node signs for, with 10,000 coins each.
    pub async fn accounts(&self) -> anyhow::Result<Vec<Address>> {
        self.call("eth_accounts", json!([])).await
    }

    /// Lets the node send for an account of which it has no key.
    pub async fn impersonate(&self, account: Address) -> anyhow::Result<()> {
        self.call("anvil_impersonateAccount", json!([account])).await
    }

    pub async fn set_balance(&self, account: Address, amount: U256) -> anyhow::Result<()> {
        self.call("anvil_setBalance", json!([account, amount])).await
    }

    pub async fn set_code(&self, account: Address, code: &Bytes) -> anyhow::Result<()> {
        self.call("anvil_setCode", json!([account, code])).await
    }

    pub async fn code(&self, account: Address) -> anyhow::Result<Bytes> {
        self.call("eth_getCode", json!([account, "latest"])).await
    }

    /// The newest block.
    pub async fn head(&self) -> anyhow::Result<Head> {
        self.call("eth_getBlockByNumber", json!(["latest", false])).await
    }

    /// The block at a height, or at a tag.
    pub async fn block(&self, at: impl Into<Value>) -> anyhow::Result<Option<Head>> {
        self.call("eth_getBlockByNumber", json!([at.into(), false])).await
    }

    /// The native balance after the newest block.
    pub async fn balance(&self, account: Address) -> anyhow::Result<U256> {
        self.call("eth_getBalance", json!([account, "latest"])).await
    }

    /// Asks a contract, in the state after the newest block.
    pub async fn ask(&self, contract: Address, data: impl Into<Bytes>) -> anyhow::Result<Bytes> {
        let data: Bytes = data.into();
        self.call("eth_call", json!([{"to": contract, "data": data}, "latest"])).await
    }

    /// Hands a transaction to the node and returns its hash; it may wait for a block.
    pub async fn send(&self, transaction: &Request) -> anyhow::Result<B256> {
        self.call("eth_sendTransaction", json!([transaction])).await
    }

    /// The receipt, waited for: even a node that mines at once answers before the block is there.
    pub async fn receipt(&self, hash: B256) -> anyhow::Result<Receipt> {
        let poll = async {
            loop {
                match self.call("eth_getTransactionReceipt", json!([hash])).await? {
                    Some(receipt) => return anyhow::Ok(receipt),
                    None => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        };
        tokio::time::timeout(RECEIPT_TIMEOUT, poll)
            .await
            .with_context(|| format!("no block took in the transaction {hash}"))?
    }

    /// Sends transactions, makes a block at once however the node mines, and demands that all succeeded.
    pub async fn send_all(&self, transactions: &[Request]) -> anyhow::Result<Vec<Receipt>> {
        let mut hashes = Vec::with_capacity(transactions.len());
        for transaction in transactions {
            hashes.push(self.send(transaction).await?);
        }
        if !self.call::<bool>("anvil_getAutomine", json!([])).await? {
            self.mine(1).await?;
        }
        let mut receipts = Vec::with_capacity(hashes.len());
        for hash in hashes {
            let receipt = self.receipt(hash).await?;
            if !receipt.succeeded() {
                bail!("the transaction {hash} failed");
            }
            receipts.push(receipt);
        }
        Ok(receipts)
    }
}
