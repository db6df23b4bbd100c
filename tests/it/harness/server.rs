//! A PostgreSQL server of a test's own, which it may stop and start, and standbys of it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::{Store, eventually, own_port};

pub struct Server {
    folder: TempDir,
    port: u16,
    options: Vec<String>,
    child: Option<Child>,
}

/// How a server is told to stop.
#[derive(Clone, Copy, Debug)]
pub enum Stop {
    /// It ends its sessions and writes everything down.
    Fast,
    /// It falls where it stands, and recovers when it starts.
    Immediate,
}

impl Server {
    /// A new server with nothing on it.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// The same with options such as `max_connections=40`.
    pub async fn start_with(options: &[&str]) -> Self {
        let mut server = Self::prepare();
        server.options = options.iter().map(|&option| option.to_owned()).collect();
        let initdb = ["-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync"];
        server.run("initdb", &initdb).await;
        server.begin().await;
        server
    }

    /// A streaming standby of this server.
    pub async fn standby(&self) -> Self {
        let mut standby = Self::prepare();
        let port = self.port.to_string();
        let source = ["-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-R", "-c", "fast"];
        standby.run("pg_basebackup", &source).await;
        assert!(standby.data().join("standby.signal").exists());
        standby.begin().await;
        standby
    }

    fn prepare() -> Self {
        let folder = tempfile::tempdir().unwrap();
        if let Some((uid, gid)) = unprivileged() {
            std::os::unix::fs::chown(folder.path(), Some(uid), Some(gid)).unwrap();
        }
        Self { folder, port: own_port(), options: Vec::new(), child: None }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn command(&self, program: &str) -> Command {
        let log = self.folder.path().join("log");
        let log = fs::File::options().create(true).append(true).open(log).unwrap();
        let mut command = Command::new(programs().join(program));
        command.arg("-D").arg(self.data()).current_dir(self.folder.path()).stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        if let Some((uid, gid)) = unprivileged() {
            command.uid(uid).gid(gid);
        }
        command
    }

    async fn run(&self, program: &str, arguments: &[&str]) {
        let status = self.command(program).args(arguments).status().await.unwrap();
        assert!(status.success(), "{program}: {}", self.log());
    }

    /// Starts it (again) and waits until it answers.
    pub async fn begin(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let child = self
            .command("postgres")
            .args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="])
            .args(["-c", &format!("port={}", self.port), "-c", "fsync=off"])
            .args(self.options.iter().flat_map(|option| ["-c", option.as_str()]))
            .spawn()
            .unwrap();
        self.child = Some(child);
        eventually(&format!("the server: {}", self.log()), || async {
            PgConnection::connect(&self.url("postgres")).await.ok()
        })
        .await;
    }

    /// It is gone without having told anybody.
    pub async fn kill(&mut self) {
        self.stop(Stop::Immediate).await;
    }

    pub async fn stop(&mut self, how: Stop) {
        let mut child = self.child.take().expect("it runs");
        signal(&child, how);
        child.wait().await.unwrap();
    }

    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// A new database.
    pub async fn store(&self, name: &str) -> Store {
        self.execute("postgres", &format!("CREATE DATABASE {name}")).await;
        Store::Postgres { url: self.url(name) }
    }

    pub async fn execute(&self, database: &str, sql: &str) {
        let mut connection = PgConnection::connect(&self.url(database)).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.unwrap();
    }

    /// The text that a statement gives.
    pub async fn text(&self, sql: &str) -> String {
        let mut connection = PgConnection::connect(&self.url("postgres")).await.unwrap();
        let asked = sqlx::query_scalar(AssertSqlSafe(sql.to_owned()));
        asked.fetch_one(&mut connection).await.unwrap()
    }

    /// What a statement gives that asks whether something is so.
    pub async fn is(&self, sql: &str) -> bool {
        let mut connection = PgConnection::connect(&self.url("postgres")).await.unwrap();
        let asked = sqlx::query_scalar(AssertSqlSafe(format!("SELECT {sql}")));
        asked.fetch_one(&mut connection).await.unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &self.child {
            signal(child, Stop::Immediate);
        }
    }
}

/// Its children go with it; SIGKILL would leave them behind for a moment.
fn signal(child: &Child, how: Stop) {
    let signal = match how {
        Stop::Fast => "-INT",
        Stop::Immediate => "-QUIT",
    };
    if let Some(pid) = child.id() {
        let sent = std::process::Command::new("kill").args([signal, &pid.to_string()]).status();
        assert!(sent.unwrap().success());
    }
}

/// The folder of the newest version's programs: where Debian and Red Hat put them, they are not in the PATH.
pub fn programs() -> PathBuf {
    let complete = |folder: &PathBuf| {
        ["initdb", "postgres", "pg_basebackup"].iter().all(|name| folder.join(name).is_file())
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let versions = (10..100).rev().flat_map(|version| {
        [format!("/usr/lib/postgresql/{version}/bin"), format!("/usr/pgsql-{version}/bin")]
    });
    let folders = std::env::split_paths(&path).chain(versions.map(PathBuf::from));
    folders.into_iter().find(complete).expect("PostgreSQL is not installed: run tests/run")
}

/// The user and the group `postgres`, if this is root, as whom the server does not run.
pub fn unprivileged() -> Option<(u32, u32)> {
    use std::os::unix::fs::MetadataExt as _;
    if fs::metadata(Path::new("/proc/self")).unwrap().uid() != 0 {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let user = users.lines().find_map(|line| {
        let mut fields = line.strip_prefix("postgres:")?.split(':').skip(1);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    });
    Some(user.expect("PostgreSQL does not run as root, and there is no user 'postgres'"))
}
