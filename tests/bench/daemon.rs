//! The real program, in a process of its own.

use std::{
    fs,
    path::PathBuf,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;
use tempfile::TempDir;
use tidemark::dev::anvil::terminate;
use tokio::process::{Child, Command};

use super::{
    http::Connection,
    store::{Engine, Store},
};

pub const CHAIN: &str = "local";
pub const CHAIN_ID: u64 = 31337;
/// What SIGTERM may take.
const DRAIN: Duration = Duration::from_secs(20);

/// How an EVM chain is configured.
pub struct Evm<'a> {
    pub url: &'a str,
    /// Where the node announces blocks, if it does.
    pub ws: Option<&'a str>,
    pub token: String,
    pub verification: &'a str,
    pub poll_ms: u64,
    pub batch_blocks: u64,
    pub tracing: &'a str,
}

impl<'a> Evm<'a> {
    pub fn new(url: &'a str, token: String) -> Self {
        Self {
            url,
            ws: None,
            token,
            verification: "full",
            poll_ms: 1000,
            batch_blocks: 100,
            tracing: "none",
        }
    }

    fn toml(&self) -> String {
        let Self { url, token, verification, poll_ms, batch_blocks, tracing, .. } = self;
        let ws = self.ws.map_or_else(String::new, |ws| format!(", ws = \"{ws}\""));
        format!(
            r#"
[chains.{CHAIN}]
family = "evm"
chain_id = {CHAIN_ID}
settlement = "finalized"
verification = "{verification}"
poll_interval_ms = {poll_ms}
batch_blocks = {batch_blocks}
sweep_per_minute = 0
endpoints = [{{ name = "node", url = "{url}", tracing = "{tracing}"{ws} }}]

[[chains.{CHAIN}.tokens]]
contract = "{token}"
symbol = "DUSD"
name = "Demo Dollar"
decimals = 6
"#
        )
    }
}

/// A daemon's configuration, its store and a key for its API. It can be started more than once.
pub struct Installation {
    pub store: Store,
    pub key: String,
    address: String,
    folder: TempDir,
}

/// Killed when dropped.
pub struct Daemon {
    child: Child,
    pub address: String,
    pub key: String,
    /// When the process was started.
    pub started: Instant,
}

/// What a process has of the machine's memory, in bytes.
#[derive(Clone, Copy)]
pub struct Memory {
    pub now: u64,
    pub peak: u64,
}

impl Installation {
    pub async fn new(engine: &Engine, chain: &Evm<'_>) -> anyhow::Result<Self> {
        Self::with(engine, &chain.toml()).await
    }

    /// `chains`: their tables in the configuration.
    pub async fn with(engine: &Engine, chains: &str) -> anyhow::Result<Self> {
        // On the disk that the build is on: elsewhere a durable commit may cost nothing.
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        // Free now, and nobody else looks for one meanwhile.
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let store = Store::new(engine, folder.path()).await?;
        let address = format!("127.0.0.1:{port}");
        let text = format!(
            "[server]\nlisten = \"{address}\"\n\n[database]\nurl = \"{}\"\n{chains}",
            store.url
        );
        let mut installation = Self { store, key: String::new(), address, folder };
        fs::write(installation.file(), text)?;
        let output = installation
            .command()
            .args(["keys", "create", "--tenant", "bench", "--scopes", "admin"])
            .output()
            .await?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "no key was made: {said}");
        String::from_utf8(output.stdout)?.trim().clone_into(&mut installation.key);
        Ok(installation)
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("tidemark.toml")
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemark"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TIDEMARK_")) {
            command.env_remove(name);
        }
        command.arg("--config").arg(self.file()).stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// Starts the daemon and waits until it answers.
    pub async fn start(&self) -> anyhow::Result<Daemon> {
        let path = self.folder.path().join("log");
        let log = fs::File::create(&path)?;
        let started = Instant::now();
        let mut child = self
            .command()
            .arg("run")
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start the daemon")?;
        let (address, key) = (self.address.clone(), self.key.clone());
        while started.elapsed() < Duration::from_mins(5) {
            if let Ok(mut connection) = Connection::open(&address).await {
                let answer = connection.get("/healthz", &key).await?;
                ensure!(answer.status == 200, "the daemon is not healthy");
                return Ok(Daemon { child, address, key, started });
            }
            if let Some(status) = child.try_wait()? {
                bail!("the daemon ended ({status}): {}", fs::read_to_string(path)?);
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        bail!("the daemon does not listen")
    }
}

#[derive(Deserialize)]
struct Chains {
    data: Vec<ChainView>,
}

#[derive(Deserialize)]
struct ChainView {
    head: Option<BlockView>,
    settled: Option<BlockView>,
    halted: Option<String>,
}

#[derive(Deserialize)]
struct BlockView {
    number: u64,
}

impl Daemon {
    /// Waits until the daemon says that it has applied the one block and settled the other; asks every `probe`.
    pub async fn reached(
        &self,
        head: u64,
        settled: u64,
        probe: Duration,
    ) -> anyhow::Result<Instant> {
        let mut connection = Connection::open(&self.address).await?;
        loop {
            let answer = connection.get("/v1/chains", &self.key).await?;
            let chains: Chains = answer.json()?;
            let chain = chains.data.first().context("the chain")?;
            if let Some(reason) = &chain.halted {
                bail!("the chain halted: {reason}");
            }
            let at_least = |block: &Option<BlockView>, number| {
                block.as_ref().is_some_and(|block| block.number >= number)
            };
            if at_least(&chain.head, head) && at_least(&chain.settled, settled) {
                return Ok(Instant::now());
            }
            tokio::time::sleep(probe).await;
        }
    }

    /// The sum of a metric over those of its series whose labels contain `label`.
    pub async fn metric(&self, name: &str, label: &str) -> anyhow::Result<u64> {
        let mut connection = Connection::open(&self.address).await?;
        let text = connection.get("/metrics", &self.key).await?.text();
        let series = text
            .lines()
            .filter_map(|line| line.strip_prefix(name))
            .filter(|rest| rest.starts_with([' ', '{']) && rest.contains(label));
        let value = |rest: &str| rest.rsplit(' ').next().unwrap_or_default().parse::<u64>();
        Ok(series.map(value).sum::<Result<_, _>>()?)
    }

    pub fn memory(&self) -> anyhow::Result<Memory> {
        memory(self.child.id().context("the daemon has ended")?)
    }

    /// Ends the daemon in order.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        terminate(&self.child).await?;
        let status = tokio::time::timeout(DRAIN, self.child.wait()).await;
        let status = status.context("the daemon does not end")??;
        ensure!(status.success(), "the daemon ended with {status}");
        Ok(())
    }
}

/// Of any process of this machine.
pub fn memory(process: u32) -> anyhow::Result<Memory> {
    let text = fs::read_to_string(format!("/proc/{process}/status"))?;
    let field = |name: &str| -> anyhow::Result<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).context("no such line")?;
        let kilobytes = line.trim_start_matches(':').trim().trim_end_matches(" kB");
        Ok(kilobytes.parse::<u64>()? * 1024)
    };
    Ok(Memory { now: field("VmRSS")?, peak: field("VmHWM")? })
}
