//! Where a daemon under measurement keeps its rows: a SQLite file, or a database of a PostgreSQL server that
//! runs for the benches alone. Both durable: nothing is asked to forget fsync.

use std::{
    fs,
    os::unix::{fs::chown, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use sqlx::{Connection as _, Executor as _, PgConnection, SqliteConnection};
use tempfile::TempDir;

/// Which engine a store is to be made on.
#[derive(Clone)]
pub enum Engine {
    Sqlite,
    Postgres(Arc<Postgres>),
}

impl Engine {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Sqlite => "SQLite",
            Self::Postgres(_) => "PostgreSQL",
        }
    }

    pub fn is_sqlite(&self) -> bool {
        matches!(self, Self::Sqlite)
    }

    /// This one's goal, where the engines have different ones.
    pub fn goal(&self, sqlite: f64, postgres: f64) -> f64 {
        if self.is_sqlite() { sqlite } else { postgres }
    }
}

/// A connection for what the benches do to a store beside the daemon.
pub enum Direct {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

/// One daemon's store.
pub struct Store {
    pub url: String,
    /// Keeps the server alive.
    _engine: Engine,
}

impl Store {
    /// An empty one; a SQLite file lies in `folder`.
    pub async fn new(engine: &Engine, folder: &Path) -> anyhow::Result<Self> {
        let url = match engine {
            Engine::Sqlite => format!("sqlite://{}", folder.join("tidemark.db").display()),
            Engine::Postgres(server) => server.database().await?,
        };
        Ok(Self { url, _engine: engine.clone() })
    }

    pub async fn connect(&self) -> anyhow::Result<Direct> {
        Ok(if self.url.starts_with("sqlite:") {
            Direct::Sqlite(SqliteConnection::connect(&self.url).await?)
        } else {
            Direct::Postgres(PgConnection::connect(&self.url).await?)
        })
    }

    /// Bytes of all tables and indexes: of the SQLite file as it is once its log is checkpointed.
    pub async fn size(&self) -> anyhow::Result<u64> {
        let bytes: i64 = match self.connect().await? {
            Direct::Sqlite(mut c) => {
                sqlx::query_scalar(
                    "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size",
                )
                .fetch_one(&mut c)
                .await?
            }
            Direct::Postgres(mut c) => {
                sqlx::query_scalar(
                    "SELECT sum(pg_total_relation_size(oid))::bigint FROM pg_class
                     WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace",
                )
                .fetch_one(&mut c)
                .await?
            }
        };
        Ok(bytes.unsigned_abs())
    }
}

/// A server of its own: default settings, fsync on. Killed when dropped.
pub struct Postgres {
    server: Child,
    port: u16,
    databases: AtomicU32,
    _folder: TempDir,
}

impl Postgres {
    /// `None` if PostgreSQL is not installed.
    pub async fn start() -> anyhow::Result<Option<Arc<Self>>> {
        let Some(bin) = installed() else { return Ok(None) };
        let user = unprivileged()?;
        // On the disk that the build is on, if the server's user may go there: elsewhere a durable commit
        // may cost nothing.
        let places = [PathBuf::from(env!("CARGO_TARGET_TMPDIR")), std::env::temp_dir()];
        let mut refused = String::new();
        for place in places {
            match Self::start_in(&bin, user, &place).await {
                Ok(server) => return Ok(Some(Arc::new(server))),
                Err(error) => refused = format!("{refused}\n{}: {error:#}", place.display()),
            }
        }
        bail!("PostgreSQL does not start:{refused}")
    }

    async fn start_in(bin: &Path, user: Option<(u32, u32)>, place: &Path) -> anyhow::Result<Self> {
        let folder = TempDir::with_prefix_in("postgres-", place)?;
        if let Some((uid, gid)) = user {
            chown(folder.path(), Some(uid), Some(gid))?;
        }
        let data = folder.path().join("data");
        let log = fs::File::create(folder.path().join("log"))?;
        let command = |program: &str| -> anyhow::Result<Command> {
            let mut command = Command::new(bin.join(program));
            command.arg("-D").arg(&data).current_dir(folder.path()).stdin(Stdio::null());
            command.stdout(log.try_clone()?).stderr(log.try_clone()?);
            if let Some((uid, gid)) = user {
                command.uid(uid).gid(gid);
            }
            Ok(command)
        };
        let said = || fs::read_to_string(folder.path().join("log")).unwrap_or_default();
        let made = command("initdb")?
            .args(["-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C"])
            .status()?;
        ensure!(made.success(), "initdb: {}", said());
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut child = command("postgres")?
            .args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="])
            .args(["-c", &format!("port={port}")])
            .spawn()?;
        for _ in 0..500 {
            if let Some(status) = child.try_wait()? {
                bail!("the server ended ({status}): {}", said());
            }
            if PgConnection::connect(&url(port, "postgres")).await.is_ok() {
                let databases = AtomicU32::new(0);
                return Ok(Self { server: child, port, databases, _folder: folder });
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        child.kill()?;
        bail!("the server does not listen: {}", said())
    }

    /// Makes a database and gives its URL. The one before is not needed any more.
    async fn database(&self) -> anyhow::Result<String> {
        let mut c = PgConnection::connect(&url(self.port, "postgres")).await?;
        let number = self.databases.fetch_add(1, Ordering::Relaxed);
        if let Some(former) = number.checked_sub(1) {
            let drop = format!("DROP DATABASE bench_{former} WITH (FORCE)");
            c.execute(sqlx::AssertSqlSafe(drop)).await?;
        }
        let create = format!("CREATE DATABASE bench_{number}");
        c.execute(sqlx::AssertSqlSafe(create)).await?;
        Ok(url(self.port, &format!("bench_{number}")))
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Its children go with it; SIGKILL would leave them behind.
        let pid = self.server.id().to_string();
        let _ = Command::new("sh").args(["-c", "kill -QUIT $0", &pid]).status();
        let _ = self.server.wait();
    }
}

fn url(port: u16, database: &str) -> String {
    format!("postgres://postgres@127.0.0.1:{port}/{database}")
}

/// The folder of the newest installed version's programs.
fn installed() -> Option<PathBuf> {
    let complete = |folder: &PathBuf| {
        ["initdb", "postgres"].iter().all(|program| folder.join(program).is_file())
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    if let Some(folder) = std::env::split_paths(&path).find(complete) {
        return Some(folder);
    }
    // Where Debian and Red Hat put them, out of the PATH.
    let versions = (10..100).rev().flat_map(|version| {
        [format!("/usr/lib/postgresql/{version}/bin"), format!("/usr/pgsql-{version}/bin")]
    });
    versions.map(PathBuf::from).find(complete)
}

/// The user `postgres`, if this is root, as whom the server does not run.
fn unprivileged() -> anyhow::Result<Option<(u32, u32)>> {
    let id = |arguments: &[&str]| -> anyhow::Result<u32> {
        let output = Command::new("id").args(arguments).output()?;
        String::from_utf8(output.stdout)?.trim().parse().with_context(|| {
            "PostgreSQL does not run as root, and there is no user 'postgres'".to_owned()
        })
    };
    if id(&["-u"])? != 0 {
        return Ok(None);
    }
    Ok(Some((id(&["-u", "postgres"])?, id(&["-g", "postgres"])?)))
}
