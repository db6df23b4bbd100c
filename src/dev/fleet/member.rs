//! One of several daemons: a process of this very program, so that it can be killed as a power cut would.

use std::{
    env, fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use tokio::{
    process::{Child, Command},
    time::Instant,
};

use super::super::{anvil::terminate, client::Customer, http_client};

const START_TIMEOUT: Duration = Duration::from_secs(20);
const DRAIN_TIMEOUT: Duration = Duration::from_secs(12);
const POLL: Duration = Duration::from_millis(50);
/// How much of a log is shown when a daemon has failed.
const LINES: usize = 20;

pub(super) struct Member {
    pub address: SocketAddr,
    pub customer: Customer,
    folder: PathBuf,
    database_url: String,
    client: reqwest::Client,
    child: Option<Child>,
}

impl Member {
    /// A daemon in a folder of its own, not yet started. `configuration` is for all of them.
    pub(super) fn prepare(
        folder: PathBuf,
        configuration: &str,
        port: Option<u16>,
        database_url: &str,
        key: &str,
    ) -> anyhow::Result<Self> {
        let address = free(port)?;
        fs::create_dir(&folder)?;
        let text = format!("[server]\nlisten = \"{address}\"\n\n{configuration}");
        fs::write(folder.join("tidemark.toml"), text)?;
        let customer = Customer::new(format!("http://{address}"), key.to_owned())?;
        let (client, database_url) = (http_client()?, database_url.to_owned());
        Ok(Self { address, customer, folder, database_url, client, child: None })
    }

    pub(super) fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// A command of the program, with this daemon's configuration and nothing of our own environment's.
    fn command(&self, arguments: &[&str]) -> anyhow::Result<Command> {
        let mut command = Command::new(env::current_exe().context("which program this is")?);
        for (name, _) in env::vars_os() {
            if name.to_string_lossy().starts_with("TIDEMARK__") {
                command.env_remove(name);
            }
        }
        command
            .args(["--config", "tidemark.toml", "--log-format", "text"])
            .args(arguments)
            .current_dir(&self.folder)
            // Not in the file: the password is in it.
            .env("TIDEMARK__DATABASE__URL", &self.database_url)
            .stdin(Stdio::null())
            // Ctrl-C in the terminal is for us.
            .process_group(0)
            .kill_on_drop(true);
        Ok(command)
    }

    /// Starts the daemon (again) and waits until it is ready.
    pub(super) async fn start(&mut self) -> anyhow::Result<()> {
        let log = fs::File::options().create(true).append(true).open(self.log_path())?;
        let child = self
            .command(&["run"])?
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("the daemon cannot be started")?;
        self.child = Some(child);
        let deadline = Instant::now() + START_TIMEOUT;
        let url = format!("{}/readyz", self.customer.base());
        loop {
            self.check()?;
            let answer = self.client.get(&url).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "not ready in time. Its log:\n{}", self.log());
            tokio::time::sleep(POLL).await;
        }
    }

    /// # Errors
    /// If it has ended by itself.
    pub(super) fn check(&mut self) -> anyhow::Result<()> {
        if let Some(child) = &mut self.child
            && let Some(status) = child.try_wait()?
        {
            bail!("the daemon at {} ended with {status}. Its log:\n{}", self.address, self.log());
        }
        Ok(())
    }

    /// `kill -9`.
    pub(super) async fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().await?;
        }
        Ok(())
    }

    /// SIGTERM: it must end in order.
    pub(super) async fn stop(&mut self) -> anyhow::Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        terminate(&child).await?;
        let Ok(status) = tokio::time::timeout(DRAIN_TIMEOUT, child.wait()).await else {
            child.kill().await?;
            bail!("the daemon at {} did not stop in time", self.address);
        };
        let status = status?;
        ensure!(status.success(), "it ended with {status}. Its log:\n{}", self.log());
        Ok(())
    }

    /// Which chains it says it follows; none while it does not run.
    pub(super) async fn follows(&self) -> anyhow::Result<Vec<String>> {
        if !self.runs() {
            return Ok(Vec::new());
        }
        let url = format!("{}/metrics", self.customer.base());
        Ok(followed(&self.client.get(url).send().await?.text().await?))
    }

    /// What `tidemark audit` says when all is well.
    pub(super) async fn audit(&self) -> anyhow::Result<String> {
        let output = self.command(&["audit"])?.output().await?;
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "audit: {}\n{said}\n{errors}", output.status);
        Ok(said)
    }

    fn log_path(&self) -> PathBuf {
        self.folder.join("log")
    }

    fn log(&self) -> String {
        last_lines(&self.log_path())
    }
}

fn last_lines(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

/// An address to be used soon: with that port if nobody has it.
fn free(port: Option<u16>) -> anyhow::Result<SocketAddr> {
    let usual = port.and_then(|port| TcpListener::bind(("127.0.0.1", port)).ok());
    let listener = match usual {
        Some(listener) => listener,
        None => TcpListener::bind(("127.0.0.1", 0))?,
    };
    Ok(listener.local_addr()?)
}

/// The chains with `tidemark_chain_leader` at 1.
fn followed(metrics: &str) -> Vec<String> {
    let leads = |line: &str| {
        let name = line.strip_prefix("tidemark_chain_leader{chain=\"")?;
        Some(name.strip_suffix("\"} 1")?.to_owned())
    };
    metrics.lines().filter_map(leads).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_follows_what_is_read_off_the_metrics() {
        let metrics = "# TYPE tidemark_chain_leader gauge\n\
                       tidemark_chain_leader{chain=\"a\"} 1\n\
                       tidemark_chain_leader{chain=\"b\"} 0\n\
                       tidemark_chain_head{chain=\"c\"} 1\n";
        assert_eq!(followed(metrics), ["a"]);
    }
}
