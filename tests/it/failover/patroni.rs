//! Two PostgreSQL kept by Patroni, with etcd to agree on who leads and `HAProxy` to lead to whoever does.

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    time::{sleep, timeout},
};

use crate::harness::{client, own_port, programs, unprivileged};

const NAMES: [&str; 2] = ["one", "two"];
/// What an election, a rejoining or a start may take.
const PATIENCE: Duration = Duration::from_mins(2);

pub struct Cluster {
    folder: TempDir,
    client: reqwest::Client,
    members: Vec<Member>,
    primary_port: u16,
    standby_port: u16,
    etcd: Option<Child>,
    haproxy: Option<Child>,
    synchronous: bool,
}

struct Member {
    name: &'static str,
    port: u16,
    rest: u16,
    patroni: Option<Child>,
}

/// A port that nobody listens on now.
fn port() -> u16 {
    let port = own_port();
    drop(TcpListener::bind(("127.0.0.1", port)).unwrap());
    port
}

impl Cluster {
    /// A leader, and a standby that follows it, synchronous or not.
    pub async fn start(synchronous: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        own(folder.path());
        let member = |name| Member { name, port: port(), rest: port(), patroni: None };
        let mut cluster = Self {
            folder,
            client: client(),
            members: NAMES.map(member).into(),
            primary_port: port(),
            standby_port: port(),
            etcd: None,
            haproxy: None,
            synchronous,
        };
        let (clients, peers) = (port(), port());
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let mut etcd = cluster.command("etcd", "etcd");
        etcd.args(["--name", "etcd", "--data-dir", "etcd-data"])
            .args(["--listen-client-urls", &url(clients), "--advertise-client-urls", &url(clients)])
            .args(["--listen-peer-urls", &url(peers), "--initial-advertise-peer-urls", &url(peers)])
            .args(["--initial-cluster", &format!("etcd={}", url(peers))]);
        cluster.etcd = Some(etcd.spawn().expect("etcd is not installed: run tests/failover"));
        for member in &cluster.members {
            let settings = cluster.settings(member, clients);
            let file = cluster.folder.path().join(format!("{}.yml", member.name));
            // JSON is YAML.
            fs::write(&file, settings.to_string()).unwrap();
            own(&file);
        }
        fs::write(cluster.folder.path().join("haproxy.cfg"), cluster.doors()).unwrap();
        let mut haproxy = cluster.command("haproxy", "/usr/sbin/haproxy");
        haproxy.args(["-db", "-f", "haproxy.cfg"]);
        cluster.haproxy =
            Some(haproxy.spawn().expect("haproxy is not installed: run tests/failover"));
        cluster.begin(0);
        cluster.leader().await;
        cluster.begin(1);
        cluster.is_whole().await;
        cluster
    }

    fn settings(&self, member: &Member, etcd: u16) -> Value {
        let Member { name, port, rest, .. } = member;
        let user = |name: &str| json!({"username": name, "password": "unused"});
        json!({
            "scope": "tidemark",
            "name": name,
            "restapi": {
                "listen": format!("127.0.0.1:{rest}"),
                "connect_address": format!("127.0.0.1:{rest}"),
            },
            "etcd3": {"host": format!("127.0.0.1:{etcd}")},
            "bootstrap": {
                "dcs": {
                    // The shortest that Patroni takes.
                    "ttl": 20, "loop_wait": 1, "retry_timeout": 3,
                    "maximum_lag_on_failover": 16 * 1024 * 1024,
                    "synchronous_mode": self.synchronous,
                    "postgresql": {"use_pg_rewind": true, "parameters": {"max_connections": 200}},
                },
                "initdb": [{"encoding": "UTF8"}, {"locale": "C"}, {"auth": "trust"}, "data-checksums"],
                "pg_hba": ["host all all 127.0.0.1/32 trust", "host replication all 127.0.0.1/32 trust"],
            },
            "postgresql": {
                "listen": format!("127.0.0.1:{port}"),
                "connect_address": format!("127.0.0.1:{port}"),
                "data_dir": self.folder.path().join(name),
                "bin_dir": programs(),
                "pgpass": self.folder.path().join(format!("{name}.pgpass")),
                "authentication": {
                    "superuser": user("postgres"), "replication": user("replicator"), "rewind": user("rewinder"),
                },
                "parameters": {"unix_socket_directories": self.folder.path()},
                // What a lost leader has that nobody else has is thrown away.
                "remove_data_directory_on_rewind_failure": true,
                "remove_data_directory_on_diverged_timelines": true,
            },
            "watchdog": {"mode": "off"},
        })
    }

    /// One port leads to the leader, the other to a standby: whoever Patroni says it is.
    fn doors(&self) -> String {
        let door = |name: &str, port: u16, role: &str| {
            let servers = self.members.iter().map(|Member { name, port, rest, .. }| {
                format!("  server {name} 127.0.0.1:{port} check port {rest}\n")
            });
            format!(
                "listen {name}\n  bind 127.0.0.1:{port}\n  option httpchk\n  http-check send meth GET uri {role}\n  \
                 http-check expect status 200\n  \
                 default-server inter 300ms fastinter 300ms fall 2 rise 1 on-marked-down shutdown-sessions\n{}",
                servers.collect::<String>()
            )
        };
        format!(
            "defaults\n  mode tcp\n  timeout connect 2s\n  timeout client 1h\n  timeout server 1h\n  timeout check 2s\n{}{}",
            door("primary", self.primary_port, "/primary"),
            door("standby", self.standby_port, "/replica"),
        )
    }

    /// Its output goes to a log of that name.
    fn command(&self, log: &str, program: &str) -> Command {
        let log = self.folder.path().join(format!("{log}.log"));
        let log = fs::File::options().create(true).append(true).open(log).unwrap();
        let mut command = Command::new(program);
        command.current_dir(self.folder.path()).stdin(Stdio::null()).kill_on_drop(true);
        command.stdout(log.try_clone().unwrap()).stderr(log).env("HOME", self.folder.path());
        if let Some((uid, gid)) = unprivileged() {
            command.uid(uid).gid(gid);
        }
        command
    }

    fn begin(&mut self, index: usize) {
        let name = self.members[index].name;
        let mut patroni = self.command(name, "patroni");
        patroni.arg(format!("{name}.yml"));
        let child = patroni.spawn().expect("patroni is not installed: run tests/failover");
        self.members[index].patroni = Some(child);
    }

    /// The database behind the leader's door.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/tidemark", self.primary_port)
    }

    /// The same behind the standby's door.
    pub fn read_url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/tidemark", self.standby_port)
    }

    pub async fn execute(&self, database: &str, sql: &str) {
        let url = format!("postgres://postgres@127.0.0.1:{}/{database}", self.primary_port);
        let started = Instant::now();
        // The door may still be shut.
        let mut connection = loop {
            match PgConnection::connect(&url).await {
                Ok(connection) => break connection,
                Err(error) => assert!(started.elapsed() < PATIENCE, "{error}\n{}", self.logs()),
            }
            sleep(Duration::from_millis(100)).await;
        };
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.unwrap();
    }

    async fn roles(&self) -> Vec<(usize, String, String)> {
        for member in &self.members {
            let url = format!("http://127.0.0.1:{}/cluster", member.rest);
            let Ok(answer) = self.client.get(url).send().await else { continue };
            let Ok(cluster) = answer.json::<Value>().await else { continue };
            let members = cluster["members"].as_array().cloned().unwrap_or_default();
            return members
                .iter()
                .filter_map(|member| {
                    let text = |key: &str| member[key].as_str().map(str::to_owned);
                    let index = NAMES.iter().position(|name| *name == member["name"])?;
                    Some((index, text("role")?, text("state")?))
                })
                .collect();
        }
        Vec::new()
    }

    /// Waits until there is a leader, and says who it is.
    pub async fn leader(&self) -> usize {
        self.until("a leader", |roles| {
            let leads = |(_, role, state): &&(usize, String, String)| {
                role == "leader" && state == "running"
            };
            roles.iter().find(leads).map(|(index, ..)| *index)
        })
        .await
    }

    /// Waits until the standby follows, as it should.
    pub async fn is_whole(&self) {
        let wanted = if self.synchronous { "sync_standby" } else { "replica" };
        self.until("a standby that follows", |roles| {
            let leads = roles.iter().any(|(_, role, _)| role == "leader");
            let follows = roles.iter().any(|(_, role, state)| {
                role == wanted && ["running", "streaming"].contains(&state.as_str())
            });
            (leads && follows).then_some(())
        })
        .await;
    }

    async fn until<T>(
        &self,
        what: &str,
        found: impl Fn(&[(usize, String, String)]) -> Option<T>,
    ) -> T {
        let started = Instant::now();
        loop {
            let roles = self.roles().await;
            if let Some(found) = found(&roles) {
                return found;
            }
            assert!(
                started.elapsed() < PATIENCE,
                "in vain waited for {what}: {roles:?}\n{}",
                self.logs()
            );
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// The standby takes over in good order.
    pub async fn switch_over(&self) {
        let leader = self.leader().await;
        let url = format!("http://127.0.0.1:{}/switchover", self.members[leader].rest);
        let wish = json!({"leader": NAMES[leader], "candidate": NAMES[1 - leader]});
        let answer = self.client.post(url).json(&wish).send().await.unwrap();
        let (status, said) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{status}: {said}\n{}", self.logs());
    }

    /// The leader's machine is gone: its server, and Patroni, which would say so. Without a synchronous standby, what
    /// it commits meanwhile does not get to the other one for as long as `cut_off` takes. Waits for a new leader.
    pub async fn kill_leader(&mut self, cut_off: impl Future<Output = ()>) {
        let leader = self.leader().await;
        let pid = fs::read_to_string(self.folder.path().join(NAMES[leader]).join("postmaster.pid"));
        let pid = pid.unwrap().lines().next().unwrap().to_owned();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        let senders = children.split(' ').filter(|child| {
            let title = fs::read_to_string(format!("/proc/{child}/cmdline")).unwrap_or_default();
            title.contains("walsender")
        });
        let senders: Vec<&str> = senders.collect();
        assert!(!senders.is_empty(), "nobody follows the leader");
        if !self.synchronous {
            signal("-STOP", &senders);
            cut_off.await;
        }
        let mut patroni = self.members[leader].patroni.take().expect("it runs");
        patroni.kill().await.unwrap();
        let mut all: Vec<&str> = children.split_whitespace().collect();
        all.push(&pid);
        signal("-KILL", &all);
        // The old one stays the leader until its time is up.
        while self.leader().await == leader {
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// The machine of the member that is gone is there again.
    pub async fn bring_back(&mut self) {
        let gone = self.members.iter().position(|member| member.patroni.is_none()).unwrap();
        self.begin(gone);
        self.is_whole().await;
    }

    fn logs(&self) -> String {
        let log = |name: &str| {
            let text = fs::read_to_string(self.folder.path().join(format!("{name}.log")));
            let text = text.unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            format!("--- {name}\n{}\n", lines[lines.len().saturating_sub(15)..].join("\n"))
        };
        ["etcd", "haproxy", "one", "two"].map(log).concat()
    }
}

/// Whether the database at `url` commits.
pub async fn commits(url: &str) -> bool {
    let commit = async {
        let mut connection = PgConnection::connect(url).await?;
        sqlx::raw_sql("INSERT INTO probe DEFAULT VALUES").execute(&mut connection).await
    };
    matches!(timeout(Duration::from_secs(1), commit).await, Ok(Ok(_)))
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        // Patroni would start a server again, so it goes first.
        for member in &mut self.members {
            if let Some(patroni) = member.patroni.as_mut() {
                let _ = patroni.start_kill();
            }
        }
        for name in NAMES {
            let pid = fs::read_to_string(self.folder.path().join(name).join("postmaster.pid"));
            if let Some(pid) = pid.ok().as_deref().and_then(|text| text.lines().next()) {
                // One that is gone already has left its file.
                signal("-QUIT", &[pid]);
            }
        }
    }
}

fn own(path: &Path) {
    if let Some((uid, gid)) = unprivileged() {
        std::os::unix::fs::chown(path, Some(uid), Some(gid)).unwrap();
    }
}

/// To processes of which some may be gone by now.
fn signal(signal: &str, pids: &[&str]) {
    for pid in pids {
        let mut kill = std::process::Command::new("kill");
        let _ = kill.args([signal, pid]).stderr(Stdio::null()).status();
    }
}
