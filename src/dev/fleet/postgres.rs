//! A PostgreSQL of one's own, from what is installed on the machine.

use std::{
    cmp::Reverse,
    env,
    ffi::OsStr,
    fs,
    io::Write as _,
    net::TcpListener,
    os::unix::fs::{OpenOptionsExt as _, chown},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, bail};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStderr, Command},
};
use tokio_util::task::AbortOnDropHandle;

const START_TIMEOUT: Duration = Duration::from_secs(30);
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// Somebody else may take the port that was free.
const PORTS_TRIED: u32 = 5;
const READY: &str = "database system is ready to accept connections";
const MISSING: &str = "PostgreSQL is not installed, which several daemons share: install it (Debian: apt-get install \
                       postgresql), or have its initdb and postgres in the PATH";
const NO_USER: &str = "PostgreSQL does not run as root, and there is no user 'postgres' on this machine: start \
                       tidemark dev as another user";

/// A running server. Dropping it kills the process.
pub(super) struct Postgres {
    /// With the password.
    pub url: String,
    child: Child,
    /// Reads what the server prints, which would otherwise fill the pipe and stop it.
    _output: AbortOnDropHandle<()>,
}

/// Whom the server runs as, where that is somebody else.
#[derive(Clone, Copy)]
struct User {
    id: u32,
    group: u32,
}

impl Postgres {
    /// Makes a cluster in a new folder inside `folder`, and starts a server of it that listens on the loopback
    /// interface only.
    ///
    /// # Errors
    /// What must be installed; what the programs said.
    pub(super) async fn start(folder: &Path) -> anyhow::Result<Self> {
        let programs = programs(&env::var_os("PATH").unwrap_or_default(), Path::new("/"))?;
        let user = server_user().await?;
        let home = folder.join("postgres");
        fs::create_dir(&home)?;
        let password = format!("{:032x}", rand::random::<u128>());
        let password_file = home.join("password");
        let mut file =
            fs::File::options().write(true).create_new(true).mode(0o600).open(&password_file)?;
        file.write_all(password.as_bytes())?;
        if let Some(User { id, group }) = user {
            for path in [&home, &password_file] {
                chown(path, Some(id), Some(group))?;
            }
        }
        let data = home.join("data");
        let made = command(&programs.join("initdb"), user, &home)
            .arg("-D")
            .arg(&data)
            .args(["-U", "postgres", "-A", "scram-sha-256", "-E", "UTF8"])
            .args(["--locale=C", "--no-sync"])
            .arg(format!("--pwfile={}", password_file.display()))
            .output()
            .await
            .context("initdb cannot be started")?;
        if !made.status.success() {
            let said = String::from_utf8_lossy(&made.stderr);
            bail!("initdb failed ({}): {}", made.status, said.trim());
        }
        let mut last = None;
        for _ in 0..PORTS_TRIED {
            let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
            // What is in it is thrown away, so it need not outlast the machine.
            let mut child = command(&programs.join("postgres"), user, &home)
                .arg("-D")
                .arg(&data)
                .args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="])
                .args(["-c", "fsync=off", "-c", "full_page_writes=off"])
                .args(["-c", "max_connections=400", "-p", &port.to_string()])
                .spawn()
                .context("postgres cannot be started")?;
            let mut lines = BufReader::new(child.stderr.take().context("no output")?).lines();
            match tokio::time::timeout(START_TIMEOUT, ready(&mut lines)).await {
                Ok(Ok(())) => {
                    let output = AbortOnDropHandle::new(tokio::spawn(async move {
                        while let Ok(Some(_)) = lines.next_line().await {}
                    }));
                    let url = format!("postgres://postgres:{password}@127.0.0.1:{port}/postgres");
                    return Ok(Self { url, child, _output: output });
                }
                Ok(Err(error)) => last = Some(error),
                Err(_) => bail!("PostgreSQL did not start in time"),
            }
        }
        Err(last.unwrap_or_else(|| anyhow::anyhow!("PostgreSQL was not started")))
    }

    /// Ends the server, whoever is connected.
    ///
    /// # Errors
    /// If it cannot be signalled.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        if let Some(pid) = self.child.id() {
            Command::new("sh").args(["-c", &format!("kill -INT {pid}")]).status().await?;
        }
        if tokio::time::timeout(STOP_TIMEOUT, self.child.wait()).await.is_err() {
            self.child.kill().await?;
        }
        Ok(())
    }
}

fn command(program: &Path, user: Option<User>, home: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .current_dir(home)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        // Ctrl-C in the terminal is for us.
        .process_group(0)
        .kill_on_drop(true);
    if let Some(User { id, group }) = user {
        command.uid(id).gid(group);
    }
    command
}

async fn ready(lines: &mut Lines<BufReader<ChildStderr>>) -> anyhow::Result<()> {
    let mut said = String::new();
    while let Some(line) = lines.next_line().await? {
        if line.contains(READY) {
            return Ok(());
        }
        said.push_str(&line);
        said.push('\n');
    }
    bail!("PostgreSQL ended before it was ready. It said:\n{}", said.trim())
}

/// `None` is whoever we are: anybody but root.
async fn server_user() -> anyhow::Result<Option<User>> {
    if id(&["-u"]).await? != Some(0) {
        return Ok(None);
    }
    let (id, group) = (id(&["-u", "postgres"]).await?, id(&["-g", "postgres"]).await?);
    match (id, group) {
        (Some(id), Some(group)) => Ok(Some(User { id, group })),
        _ => bail!(NO_USER),
    }
}

/// A number that the program `id` says; `None` where there is nobody of that name.
async fn id(arguments: &[&str]) -> anyhow::Result<Option<u32>> {
    let output = Command::new("id").args(arguments).output().await.context("no program 'id'")?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().parse().ok())
}

/// The folder of `initdb` and `postgres`: in the `PATH`, else where Debian or Red Hat put them, the newest version.
fn programs(path: &OsStr, root: &Path) -> anyhow::Result<PathBuf> {
    let debian = versions(&root.join("usr/lib/postgresql"), "");
    let red_hat = versions(&root.join("usr"), "pgsql-");
    let installed = debian.into_iter().chain(red_hat).map(|folder| folder.join("bin"));
    env::split_paths(path)
        .chain(installed)
        .find(|folder| ["initdb", "postgres"].iter().all(|name| folder.join(name).is_file()))
        .context(MISSING)
}

/// Folders that are named after a version behind `prefix`, the newest first.
fn versions(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let version = |path: &Path| -> Option<u32> {
        path.file_name()?.to_str()?.strip_prefix(prefix)?.parse().ok()
    };
    let mut found: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            Some((version(&path)?, path))
        })
        .collect();
    found.sort_by_key(|(version, _)| Reverse(*version));
    found.into_iter().map(|(_, path)| path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn install(folder: &Path) {
        fs::create_dir_all(folder).unwrap();
        for name in ["initdb", "postgres"] {
            fs::write(folder.join(name), "").unwrap();
        }
    }

    #[test]
    fn the_newest_server_is_found_unless_the_path_names_another_one() {
        let root = tempfile::tempdir().unwrap();
        let found = |path: &str| programs(OsStr::new(path), root.path());
        let said = found("/nowhere").unwrap_err().to_string();
        assert!(said.contains("apt-get install postgresql"), "{said}");
        // Its client alone is no server.
        fs::create_dir_all(root.path().join("usr/lib/postgresql/18/bin")).unwrap();
        for version in ["9", "17", "15"] {
            install(&root.path().join("usr/lib/postgresql").join(version).join("bin"));
        }
        install(&root.path().join("usr/pgsql-19/bin"));
        assert_eq!(found("").unwrap(), root.path().join("usr/lib/postgresql/17/bin"));
        let own = root.path().join("own");
        install(&own);
        assert_eq!(found(own.to_str().unwrap()).unwrap(), own);
    }
}
