//! The real program, in a process of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use tempfile::TempDir;
use tidemark::{
    api::key::{self, Scope},
    chain::ChainName,
    clock::Clock,
    config::{ChainConfig, Config},
    id::{Ids, TenantId},
    store::Db,
};
use tokio::process::{Child, Command};

use super::http::Connection;

pub const CHAIN: &str = "local";
pub const CHAIN_ID: u64 = 31337;

/// A daemon about to be started: its folder, its store and a key for its API.
pub struct Prepared {
    folder: TempDir,
    pub config: Config,
    pub db: Db,
    pub ids: Ids,
    pub tenant: TenantId,
    pub key: String,
}

/// Killed when dropped: nothing it has is needed any more.
pub struct Daemon {
    _child: Child,
    _folder: TempDir,
    pub address: String,
    pub key: String,
}

impl Prepared {
    /// With one chain, whose node is at `url`; `announcing`: over a websocket, too.
    pub async fn new(url: &str, announcing: bool, token: &str) -> anyhow::Result<Self> {
        // On the disk that the build is on: elsewhere a durable commit may cost nothing.
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        // Free now, and nobody else looks for one meanwhile.
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let ws = if announcing {
            format!(", ws = \"{}\"", url.replacen("http://", "ws://", 1))
        } else {
            String::new()
        };
        let text = format!(
            r#"
[server]
listen = "127.0.0.1:{port}"

[database]
url = "sqlite://{database}"

[chains.{CHAIN}]
family = "evm"
chain_id = {CHAIN_ID}
settlement = "finalized"
poll_interval_ms = 1000
sweep_per_minute = 0
endpoints = [{{ name = "node", url = "{url}"{ws} }}]

[[chains.{CHAIN}.tokens]]
contract = "{token}"
symbol = "DUSD"
name = "Demo Dollar"
decimals = 6
"#,
            database = folder.path().join("tidemark.db").display(),
        );
        fs::write(file(folder.path()), &text)?;
        let config = Config::from_toml(&text)?;
        let db = Db::open(config.database_url.expose()).await?;
        let clock = Clock::System;
        let ids = Ids::new(clock.clone());
        let (_, key) = key::create(&db, &ids, clock.now(), "bench", &[Scope::Admin]).await?;
        let mut session = db.read().await?;
        let row = tidemark::store::key::valid_key(&mut session.conn(), &key::hash(&key)).await?;
        let tenant = row.context("the key just made")?.tenant_id;
        drop(session);
        Ok(Self { folder, config, db, ids, tenant, key })
    }

    pub fn chain(&self) -> anyhow::Result<&ChainConfig> {
        self.config.chains.get(&ChainName::new(CHAIN)).context("the chain in the configuration")
    }

    /// Starts the daemon and waits until it answers.
    pub async fn start(self) -> anyhow::Result<Daemon> {
        self.db.close().await;
        let folder = self.folder.path();
        let log = fs::File::create(folder.join("log"))?;
        let mut child = Command::new(env!("CARGO_BIN_EXE_tidemark"))
            .arg("--config")
            .arg(file(folder))
            .arg("run")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("cannot start the daemon")?;
        let address = self.config.server.listen.to_string();
        for _ in 0..1000 {
            if let Ok(mut connection) = Connection::open(&address).await {
                let answer = connection.get("/healthz", &self.key).await?;
                ensure!(answer.status == 200, "the daemon is not healthy");
                return Ok(Daemon { _child: child, _folder: self.folder, address, key: self.key });
            }
            if let Some(status) = child.try_wait()? {
                bail!("the daemon ended ({status}): {}", fs::read_to_string(folder.join("log"))?);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        bail!("the daemon does not listen")
    }
}

fn file(folder: &Path) -> PathBuf {
    folder.join("tidemark.toml")
}
