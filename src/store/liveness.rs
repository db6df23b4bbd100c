//! Whether a connection that says nothing still lives.
//!
//! A peer that is gone without a word (a machine that lost its power, a firewall that forgot) answers nothing, and
//! TCP takes a quarter of an hour to notice. How long a statement may take says little of it: a short bound would
//! end statements that a busy server is working on, again and again. So whoever hears nothing for a while asks the
//! server, by another connection, whether the session works on something.

use std::{
    io,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};

use sqlx::{ConnectOptions as _, PgConnection, postgres::PgConnectOptions};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep, timeout},
};

/// A statement that takes no longer is never asked about.
const QUIET: Duration = Duration::from_secs(1);
/// Between two looks at a session.
const BETWEEN: Duration = Duration::from_millis(250);
/// How long a look may take.
const LOOK: Duration = Duration::from_secs(2);
/// One that has not been heard for so long may be as dead as what it is asked about.
const BELIEVED: Duration = Duration::from_secs(1);
/// A session that has had nothing to do for so long has not heard what it was asked, or was not heard: in that time
/// a slow network brings a few megabytes.
const UNHEARD: Duration = Duration::from_secs(2);
/// How long a server that nobody can reach is waited for, before others are told of it.
const UNREACHABLE: Duration = Duration::from_secs(8);

/// How long a server is waited for that answers, but not to this: it has no connection free.
const UNKNOWN: Duration = Duration::from_secs(30);

/// Between two times that all connections to a server that takes no writes are opened anew.
const LEAVE: Duration = Duration::from_secs(2);

/// Asks the server about its sessions.
#[derive(Debug)]
pub(super) struct Liveness {
    server: PgConnectOptions,
    failures: AtomicU32,
    /// How often a server was found that takes no writes, and when last.
    left: parking_lot::Mutex<(u32, Option<Instant>)>,
    /// Whoever looks waits for the one who does: one connection is enough for all. And when it was last heard.
    looking: Mutex<Option<(PgConnection, Instant)>>,
}

/// A session as the server knows it. After a failover another one may have its number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Backend {
    pub pid: i32,
    /// Microseconds since the Unix epoch.
    pub since: i64,
}

/// What the server says of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Working,
    /// It waits to be asked, or to be heard.
    Waiting,
    Gone,
    /// The server answers, but not to this.
    Unknown,
    Unreachable,
}

impl Liveness {
    pub fn new(server: PgConnectOptions) -> Self {
        Self {
            server,
            failures: AtomicU32::new(0),
            left: parking_lot::Mutex::default(),
            looking: Mutex::new(None),
        }
    }

    /// Waits for an answer of a session, as long as that works on it.
    ///
    /// # Errors
    /// Those of `answer`, and [`io::ErrorKind::TimedOut`] when there will be none: the connection is of no use any more.
    pub async fn answer<T>(
        &self,
        backend: Backend,
        answer: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, sqlx::Error> {
        tokio::select! {
            biased;
            done = answer => done,
            error = self.silence(backend) => Err(error),
        }
    }

    /// Ends when a session will not answer what it is asked now.
    pub async fn silence(&self, backend: Backend) -> sqlx::Error {
        let asked = Instant::now();
        sleep(QUIET).await;
        let (mut unheard, mut unreachable, mut unknown) = (None, None, None);
        loop {
            let seen = self.look(backend).await;
            let now = Instant::now();
            let since = |begun: &mut Option<Instant>, holds: bool| {
                *begun = holds.then(|| begun.unwrap_or(now));
                begun.map_or(Duration::ZERO, |begun| now - begun)
            };
            if since(&mut unheard, matches!(seen, Seen::Waiting | Seen::Gone)) >= UNHEARD
                || since(&mut unreachable, seen == Seen::Unreachable) >= UNREACHABLE
                || since(&mut unknown, seen == Seen::Unknown) >= UNKNOWN
            {
                let text = format!("no answer for {} s", (now - asked).as_secs());
                return io::Error::new(io::ErrorKind::TimedOut, text).into();
            }
            sleep(BETWEEN).await;
        }
    }

    /// How often a connection has failed: whoever has known another number asks its own for a sign of life.
    pub fn failures(&self) -> u32 {
        self.failures.load(Relaxed)
    }

    /// A connection has failed, so the others may have.
    pub fn failed(&self) {
        self.failures.fetch_add(1, Relaxed);
    }

    /// How often the server was left: whoever has known another number opens its connection anew.
    pub fn left(&self) -> u32 {
        self.left.lock().0
    }

    /// The server takes no writes. The name may lead to another one by now, while connections stay where they were
    /// opened.
    pub fn leave(&self) {
        let mut left = self.left.lock();
        if left.1.is_none_or(|at| at.elapsed() >= LEAVE) {
            *left = (left.0.wrapping_add(1), Some(Instant::now()));
        }
    }

    async fn look(&self, backend: Backend) -> Seen {
        let looked = async {
            let mut looking = self.looking.lock().await;
            // Taken out, so that one who gives up leaves none that has been asked already.
            let mut connection = match looking.take() {
                Some((connection, heard)) if heard.elapsed() < BELIEVED => connection,
                _ => self.server.connect().await?,
            };
            let session: Option<(Option<String>, Option<String>)> = sqlx::query_as(SESSION)
                .bind(backend.pid)
                .bind(backend.since)
                .fetch_optional(&mut connection)
                .await?;
            *looking = Some((connection, Instant::now()));
            Ok(session)
        };
        match timeout(LOOK, looked).await {
            Ok(Ok(Some((Some(state), waits)))) => {
                if state.starts_with("idle") || waits.as_deref() == Some("Client") {
                    Seen::Waiting
                } else {
                    Seen::Working
                }
            }
            Ok(Ok(Some((None, _))) | Err(sqlx::Error::Database(_))) => Seen::Unknown,
            Ok(Ok(None)) => Seen::Gone,
            Ok(Err(_)) | Err(_) => Seen::Unreachable,
        }
    }

    /// Closes what it asked with.
    pub async fn close(&self) {
        self.looking.lock().await.take();
    }
}

/// What a session does: every role sees its own.
const SESSION: &str = "
    SELECT state, wait_event_type FROM pg_stat_activity
    WHERE pid = $1 AND CAST(EXTRACT(EPOCH FROM backend_start) * 1000000 AS BIGINT) = $2";
