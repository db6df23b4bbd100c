//! A local Solana cluster of one: the process of a `solana-test-validator`.

use std::{
    ffi::OsStr,
    fs::File,
    io,
    net::{Ipv4Addr, TcpListener, UdpSocket},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail};
use solana_keypair::Keypair;
use solana_signer::Signer as _;
use tokio::time::{Instant, sleep};

use super::{folder::Folder, npm, solana::Rpc};

const PROGRAM: &str = "solana-test-validator";
/// Where `tests/run` installs what it builds, in the cache folder.
const CACHED: &str = "agave-4.2.2";
/// A validator kept beside the sources.
const BESIDE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/bin/solana-test-validator");
/// In the validator's folder.
const LEDGER: &str = "ledger";
const START_TIMEOUT: Duration = Duration::from_mins(1);
const START_POLL: Duration = Duration::from_millis(20);
/// How often other ports are tried when a validator ends before it answers.
const ATTEMPTS: u32 = 3;
/// Above the ports that Linux gives to whoever asks for any.
const FIRST_PORT: u16 = 61_000;
const LAST_PORT: u16 = 65_500;
/// The ports of one validator: ours, RPC, WebSocket, faucet, gossip, and the rest for whatever else it opens.
const PORTS: u16 = 45;

/// How the validator is to be.
#[derive(Clone, Debug)]
pub struct Options {
    /// 64 make a slot of 400 milliseconds; a block is final 31 slots after it was confirmed.
    pub ticks_per_slot: u32,
    /// 8192 when `None`; 32 or more.
    pub slots_per_epoch: Option<u64>,
}

impl Default for Options {
    /// Slots of about 120 milliseconds: final after four seconds.
    fn default() -> Self {
        Self { ticks_per_slot: 16, slots_per_epoch: None }
    }
}

/// A validator and its ledger. Dropping it kills the process and removes the ledger.
#[derive(Debug)]
pub struct Validator {
    program: PathBuf,
    options: Options,
    ports: Ports,
    /// Has all the coins of the genesis block.
    bank: Keypair,
    /// `None` after [`Validator::kill_9`]. Not tokio's: the tests share one among their runtimes.
    child: Option<Child>,
    folder: Folder,
}

impl Validator {
    /// Starts the `solana-test-validator` that is found first, with a new ledger, and waits until it is healthy.
    ///
    /// # Errors
    /// If there is none, with what to do; or if it does not start, with what it printed.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        let program = program()?;
        let mut attempt = 1;
        loop {
            let mut validator = Self {
                program: program.clone(),
                options: options.clone(),
                ports: Ports::claim()?,
                bank: Keypair::new(),
                child: None,
                folder: Folder::create()?,
            };
            match validator.start_again().await {
                Ok(()) => return Ok(validator),
                // Somebody may have taken one of the ports in between.
                Err(_) if validator.child.is_none() && attempt < ATTEMPTS => attempt += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Starts it on its ledger and ports, after [`Validator::kill_9`].
    ///
    /// # Errors
    /// As [`Validator::start`].
    pub async fn start_again(&mut self) -> anyhow::Result<()> {
        anyhow::ensure!(self.child.is_none(), "the validator runs already");
        let output = File::options().create(true).append(true).open(self.log())?;
        let child = Command::new(&self.program)
            .args(self.arguments())
            .current_dir(&self.folder.0)
            // Nobody reads its log, which grows by megabytes a minute otherwise.
            .env("RUST_LOG", "error")
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            // Ctrl-C in the terminal is for us; we then stop the node when it is no longer needed.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        let child = self.child.insert(child);
        let rpc = Rpc::new(format!("http://127.0.0.1:{}", self.ports.rpc()), &self.bank);
        let deadline = Instant::now() + START_TIMEOUT;
        while !rpc.is_healthy().await {
            let ended = child.try_wait()?;
            if ended.is_some() || Instant::now() > deadline {
                let said = std::fs::read_to_string(self.log()).unwrap_or_default();
                if let Some(status) = ended {
                    self.child = None;
                    bail!("{PROGRAM} ended ({status}). It said:\n{}", said.trim());
                }
                bail!("{PROGRAM} was not healthy in time. It said:\n{}", said.trim());
            }
            sleep(START_POLL).await;
        }
        Ok(())
    }

    fn log(&self) -> PathBuf {
        self.folder.0.join("log")
    }

    /// Only what a stock validator understands, too.
    fn arguments(&self) -> Vec<String> {
        let ports = &self.ports;
        let epoch = self.options.slots_per_epoch;
        [
            ("--ledger", LEDGER.to_owned()),
            ("--bind-address", "127.0.0.1".to_owned()),
            ("--rpc-port", ports.rpc().to_string()),
            ("--faucet-port", ports.faucet().to_string()),
            ("--gossip-port", ports.gossip().to_string()),
            ("--dynamic-port-range", ports.others()),
            ("--ticks-per-slot", self.options.ticks_per_slot.to_string()),
            ("--mint", self.bank.pubkey().to_string()),
        ]
        .into_iter()
        .chain(epoch.map(|slots| ("--slots-per-epoch", slots.to_string())))
        .flat_map(|(name, value)| [name.to_owned(), value])
        .chain(["--quiet".to_owned()])
        .collect()
    }

    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.rpc())
    }

    #[must_use]
    pub fn ws_url(&self) -> String {
        format!("ws://127.0.0.1:{}", self.ports.rpc() + 1)
    }

    /// What one can ask of it. Each runtime needs one of its own: connections end with their runtime.
    #[must_use]
    pub fn rpc(&self) -> Rpc {
        Rpc::new(self.url(), &self.bank)
    }

    /// The folder with its chain, to be copied while it does not run.
    #[must_use]
    pub fn ledger(&self) -> PathBuf {
        self.folder.0.join(LEDGER)
    }

    /// No warning, no cleaning up; the ledger stays for [`Validator::start_again`].
    ///
    /// # Errors
    /// If it does not run.
    pub fn kill_9(&mut self) -> anyhow::Result<()> {
        let mut child = self.child.take().context("the validator does not run")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }
}

impl Drop for Validator {
    fn drop(&mut self) {
        if self.child.is_some()
            && let Err(error) = self.kill_9()
        {
            tracing::warn!(%error, "a validator was left behind");
        }
    }
}

/// Ports in a row that no other validator of ours uses.
#[derive(Debug)]
struct Ports {
    first: u16,
    /// On the first of them: whoever listens there has the others.
    _claim: TcpListener,
}

impl Ports {
    fn claim() -> anyhow::Result<Self> {
        let count = (LAST_PORT - FIRST_PORT) / PORTS;
        let start = rand::random::<u16>() % count;
        for offset in 0..count {
            let first = FIRST_PORT + (start + offset) % count * PORTS;
            let Ok(claim) = TcpListener::bind((Ipv4Addr::LOCALHOST, first)) else { continue };
            if (first + 1..first + PORTS).all(is_free) {
                return Ok(Self { first, _claim: claim });
            }
        }
        bail!("there are no {PORTS} free ports in a row between {FIRST_PORT} and {LAST_PORT}")
    }

    fn rpc(&self) -> u16 {
        self.first + 1
    }

    /// After RPC comes the WebSocket.
    fn faucet(&self) -> u16 {
        self.first + 3
    }

    fn gossip(&self) -> u16 {
        self.first + 4
    }

    fn others(&self) -> String {
        format!("{}-{}", self.first + 5, self.first + PORTS)
    }
}

/// On all interfaces: some versions listen there whatever they are told.
fn is_free(port: u16) -> bool {
    let address = (Ipv4Addr::UNSPECIFIED, port);
    TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok()
}

/// From the `PATH`, else from beside the sources, else from the cache.
fn program() -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    find(&path, Path::new(BESIDE), &npm::cache_folder())
}

fn find(path: &OsStr, beside: &Path, cache: &Path) -> anyhow::Result<PathBuf> {
    let root = cache.join(CACHED);
    let cached = root.join("bin").join(PROGRAM);
    let found = std::env::split_paths(path)
        .map(|folder| folder.join(PROGRAM))
        .chain([beside.to_owned(), cached.clone()])
        .find(|program| is_program(program));
    found.with_context(|| {
        format!(
            "{PROGRAM} is needed, and is neither in the PATH nor at {}. Install Solana's tools, or let \
             tests/run build it (half an hour, once), or build it as that does: cargo install \
             agave-validator --version 4.2.2 --locked --bin {PROGRAM} --root {} (on Debian after apt-get \
             install clang libclang-dev protobuf-compiler)",
            cached.display(),
            root.display()
        )
    })
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    let known: io::Result<_> = std::fs::metadata(path);
    known.is_ok_and(|known| known.is_file() && known.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_validator_is_found_in_the_path_then_beside_the_sources_then_in_the_cache() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, cache) = (folder.path().join("bin"), folder.path().join("cache"));
        let beside = folder.path().join("shared").join(PROGRAM);
        let look = || find(path.as_os_str(), &beside, &cache);
        let missing = format!("{:#}", look().expect_err("there is none yet"));
        for hint in ["tests/run", "cargo install agave-validator --version 4.2.2", "clang"] {
            assert!(missing.contains(hint), "{missing}");
        }
        let places =
            [cache.join(CACHED).join("bin").join(PROGRAM), beside.clone(), path.join(PROGRAM)];
        for place in places {
            std::fs::create_dir_all(place.parent().expect("a folder")).expect("a folder");
            std::fs::write(&place, "").expect("a file");
            assert_ne!(look().ok(), Some(place.clone()), "it cannot be run");
            std::fs::set_permissions(&place, std::fs::Permissions::from_mode(0o755))
                .expect("the right to run it");
            assert_eq!(look().expect("a validator"), place);
        }
    }
}
