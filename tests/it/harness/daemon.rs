//! The real program in a process of its own, as an operator runs it.

use std::{
    fs,
    process::{Output, Stdio},
    time::Duration,
};

use tempfile::TempDir;
use tidemark::dev::anvil::terminate;
use tokio::process::{Child, Command};

use super::{Api, Node, Store, eventually, own_port};

/// The chain's name in every test's configuration.
pub const CHAIN: &str = "local";
/// What SIGTERM may take.
const DRAIN: Duration = Duration::from_secs(10);

/// What a daemon is told.
#[derive(Clone)]
pub struct Settings {
    pub listen: String,
    pub database_url: String,
    pub node_url: String,
    pub node_ws: Option<String>,
    /// Further nodes, which are asked after the first.
    pub more_nodes: Vec<String>,
    /// The lines that say which chain it is.
    pub identity: String,
    pub tokens: Vec<Token>,
    /// Further keys of each node's endpoint.
    pub endpoint: String,
    /// Further lines in the chain's table.
    pub chain: String,
    /// Further tables.
    pub more: String,
    pub environment: Vec<(String, String)>,
}

/// A token that the configuration calls money.
#[derive(Clone)]
pub struct Token {
    pub contract: String,
    pub symbol: &'static str,
    pub decimals: u8,
    /// Whether it wraps the native coin as WETH9 does.
    pub wraps: bool,
}

impl Settings {
    pub fn new(node: &Node, store: &Store) -> Self {
        let token = Token {
            contract: node.token.to_checksum(None),
            symbol: "DUSD",
            decimals: 6,
            wraps: false,
        };
        let identity = "family = \"evm\"\nchain_id = 31337".to_owned();
        Self::of_chain(identity, node.url().to_owned(), node.ws_url(), vec![token], store)
    }

    pub fn of_chain(
        identity: String,
        node_url: String,
        node_ws: String,
        tokens: Vec<Token>,
        store: &Store,
    ) -> Self {
        Self {
            listen: format!("127.0.0.1:{}", own_port()),
            database_url: store.url(),
            node_url,
            node_ws: Some(node_ws),
            more_nodes: Vec::new(),
            identity,
            tokens,
            endpoint: String::new(),
            chain: String::new(),
            more: String::new(),
            environment: Vec::new(),
        }
    }

    fn toml(&self) -> String {
        let ws = self.node_ws.as_ref().map_or_else(String::new, |ws| format!(", ws = \"{ws}\""));
        let further =
            |url: &String| format!(r#", {{ url = "{url}", weight = 1{} }}"#, self.endpoint);
        let further: Vec<String> = self.more_nodes.iter().map(further).collect();
        let endpoints = format!(
            r#"{{ name = "local-node", url = "{node}"{ws}{endpoint} }}{further}"#,
            node = self.node_url,
            endpoint = self.endpoint,
            further = further.concat(),
        );
        let identity = format!("{}\n{}", self.identity, self.chain);
        format!(
            r#"
[server]
listen = "{listen}"

[database]
url = "{database}"

[webhooks]
allow_http = true
allow_private_addresses = true
request_timeout_seconds = 5
retry_schedule_seconds = [1, 1, 1, 1, 2, 2, 2, 5, 5, 5, 10, 10, 10]

{chain}
{more}
"#,
            listen = self.listen,
            database = self.database_url,
            chain = chain(CHAIN, &identity, &endpoints, &self.tokens),
            more = self.more,
        )
    }
}

/// A chain's tables: it is settled where its node says so, and asked for its head often.
pub fn chain(name: &str, identity: &str, endpoints: &str, tokens: &[Token]) -> String {
    let token = |Token { contract, symbol, decimals, wraps }: &Token| {
        format!(
            r#"
[[chains.{name}.tokens]]
contract = "{contract}"
symbol = "{symbol}"
name = "Demo Dollar"
decimals = {decimals}
wraps_native = {wraps}
"#
        )
    };
    let tokens: Vec<String> = tokens.iter().map(token).collect();
    format!(
        r#"
[chains.{name}]
{identity}
settlement = "finalized"
poll_interval_ms = 100
lag_limit_seconds = 3600
endpoints = [{endpoints}]
{tokens}
"#,
        tokens = tokens.concat(),
    )
}

/// The program, with nothing of this process's environment that could change what it does.
pub fn tidemark() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemark"));
    for (name, _) in std::env::vars() {
        if name.starts_with("TIDEMARK_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

pub struct Daemon {
    settings: Settings,
    folder: TempDir,
    child: Option<Child>,
    client: reqwest::Client,
}

impl Daemon {
    /// A daemon on this node and store, ready.
    pub async fn start(node: &Node, store: &Store) -> Self {
        Self::start_with(Settings::new(node, store)).await
    }

    pub async fn start_with(settings: Settings) -> Self {
        let mut daemon = Self::prepare(settings);
        daemon.begin().await;
        daemon.ready().await;
        daemon
    }

    /// Written down, not yet started.
    pub fn prepare(settings: Settings) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("tidemark.toml"), settings.toml()).unwrap();
        Self { settings, folder, child: None, client: super::api::client() }
    }

    /// Sets a variable of the environment for the next start.
    pub fn set(&mut self, name: &str, value: &str) {
        self.settings.environment.retain(|(other, _)| other != name);
        self.settings.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Starts the process (again), on the same store and port, and waits until it answers at all.
    pub async fn begin(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join("log"))
            .unwrap();
        let child = tidemark()
            .current_dir(self.folder.path())
            .args(["--config", "tidemark.toml", "run"])
            .envs(self.settings.environment.iter().cloned())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        self.answers("/healthz").await;
    }

    /// Waits until `/readyz` says so.
    pub async fn ready(&mut self) {
        self.answers("/readyz").await;
    }

    async fn answers(&mut self, path: &str) {
        let url = self.base() + path;
        let (client, log) = (self.client.clone(), self.log_path());
        let child = parking_lot::Mutex::new(self.child.as_mut().expect("it runs"));
        eventually(&format!("{path} (log: {})", log.display()), || async {
            if let Some(status) = child.lock().try_wait().unwrap() {
                panic!("the daemon ended with {status}:\n{}", fs::read_to_string(&log).unwrap());
            }
            let response = client.get(&url).send().await.ok()?;
            response.status().is_success().then_some(())
        })
        .await;
    }

    fn log_path(&self) -> std::path::PathBuf {
        self.folder.path().join("log")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().and_then(Child::id).expect("it runs")
    }

    /// Whether it was begun, and neither ended nor killed.
    pub fn runs(&self) -> bool {
        self.child.is_some()
    }

    pub fn base(&self) -> String {
        format!("http://{}", self.settings.listen)
    }

    /// The status of `/readyz`.
    pub async fn readiness(&self) -> u16 {
        self.client.get(self.base() + "/readyz").send().await.unwrap().status().as_u16()
    }

    pub async fn metrics(&self) -> String {
        let response = self.client.get(self.base() + "/metrics").send().await.unwrap();
        response.text().await.unwrap()
    }

    /// A customer with all the rights of a tenant.
    pub async fn customer(&self, tenant: &str) -> Api {
        self.customer_with(tenant, "wallets:read,wallets:write,webhooks:write").await
    }

    pub async fn customer_with(&self, tenant: &str, scopes: &str) -> Api {
        let said = self.command(&["keys", "create", "--tenant", tenant, "--scopes", scopes]).await;
        let key = said
            .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-'))
            .find(|word| word.starts_with("tmk_"))
            .unwrap_or_else(|| panic!("no key in: {said}"));
        Api::new(self.base(), key.to_owned())
    }

    /// What a command of the program prints, with this daemon's configuration. It must succeed.
    pub async fn command(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments).await;
        let (out, err) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {}\n{out}{err}", output.status);
        out.into_owned()
    }

    /// The exit code of a command, and all that it says.
    pub async fn outcome(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.output(arguments).await;
        let (out, err) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.code().unwrap(), format!("{out}{err}"))
    }

    /// The ledger agrees with its own entries, with the chains and with its journals.
    pub async fn audit(&self) {
        for command in ["audit", "verify-journal"] {
            let (code, said) = self.outcome(&[command]).await;
            assert_eq!(code, 0, "{said}");
        }
    }

    async fn output(&self, arguments: &[&str]) -> Output {
        tidemark()
            .current_dir(self.folder.path())
            .args(["--config", "tidemark.toml"])
            .args(arguments)
            .output()
            .await
            .unwrap()
    }

    /// It does nothing more until [`Daemon::wake`], and knows nothing of it afterwards.
    pub async fn sleep(&self) {
        self.signal("-STOP").await;
    }

    pub async fn wake(&self) {
        self.signal("-CONT").await;
    }

    async fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.pid().to_string()]).status().await;
        assert!(sent.unwrap().success());
    }

    /// No warning, no cleaning up.
    pub async fn kill_9(&mut self) {
        self.child.take().expect("it runs").kill().await.unwrap();
    }

    /// SIGTERM: it must end with 0, in time.
    pub async fn terminate(&mut self) {
        let mut child = self.child.take().expect("it runs");
        terminate(&child).await.unwrap();
        let status = tokio::time::timeout(DRAIN, child.wait())
            .await
            .unwrap_or_else(|_| panic!("SIGTERM took more than {DRAIN:?}:\n{}", self.log()))
            .unwrap();
        assert!(status.success(), "ended with {status}:\n{}", self.log());
    }
}

impl Drop for Daemon {
    /// A failed test shows what the daemon said.
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the daemon's log\n{}", self.log());
        }
    }
}
