//! Why the store cannot work now, and what the last writes say of it.

use std::{
    fmt,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// A failure that nobody has repeated for so long is over: every task that fails tries again within this time.
const FORGOTTEN: Duration = Duration::from_secs(5);
/// One write that succeeds says nothing of another one that fails, which comes back within this time.
const REPEATED: Duration = Duration::from_millis(1500);

/// Why the store cannot work now, as an operator tells it apart. Its words name no host, no file and no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    NoConnection,
    /// A connection that says nothing any more.
    Silent,
    /// The server starts or stops.
    Restarting,
    /// The server takes no more connections.
    Connections,
    /// All connections of this process are in use.
    Busy,
    ReadOnly,
    DiskFull,
    Memory,
    /// Another session holds a lock.
    Locked,
    /// A statement or a transaction took longer than is allowed.
    Slow,
    /// User, password, database or encryption are not what the server wants.
    Refused,
    /// The disk, or a file on it.
    Disk,
    /// The process ends.
    Closed,
    Other,
}

impl Cause {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoConnection => "no connection",
            Self::Silent => "no answer",
            Self::Restarting => "the server is starting or stopping",
            Self::Connections => "out of connections: the server takes no more",
            Self::Busy => "all connections are busy",
            Self::ReadOnly => "read-only: it takes no writes, as a standby does",
            Self::DiskFull => "disk full",
            Self::Memory => "out of memory",
            Self::Locked => "another session holds a lock",
            Self::Slow => "too slow: a statement took longer than is allowed",
            Self::Refused => "the login was refused",
            Self::Disk => "the disk cannot be read or written",
            Self::Closed => "closed",
            Self::Other => "it cannot work now",
        }
    }

    /// Whether waiting helps, when it was never otherwise: what the configuration says may be wrong.
    #[must_use]
    pub const fn passes(self) -> bool {
        !matches!(self, Self::Refused)
    }

    /// By SQLSTATE; `None` if it is no outage. By class: no connection (08), a transaction that the server ended
    /// or that cannot write, as after a failover (25), a login or a database that is not there (28, 3D), a
    /// transaction whose end is unknown (40), no resources (53), a lock that was waited for in vain (55P03), an
    /// operator who stops it (57) and trouble of its system (58).
    /// See <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
    pub(super) fn of_sqlstate(state: &str) -> Option<Self> {
        Some(match state {
            "25006" => Self::ReadOnly,
            "25P03" | "25P04" | "57014" => Self::Slow,
            "53100" => Self::DiskFull,
            "53200" => Self::Memory,
            "53300" => Self::Connections,
            "55P03" => Self::Locked,
            "57P01" | "57P02" | "57P03" => Self::Restarting,
            _ => match state.get(..2)? {
                "08" => Self::NoConnection,
                "28" | "3D" => Self::Refused,
                "58" => Self::Disk,
                "25" | "40" | "53" | "57" => Self::Other,
                _ => return None,
            },
        })
    }

    /// By SQLite's primary result code; `None` if it is no outage.
    pub(super) const fn of_sqlite(code: i32) -> Option<Self> {
        Some(match code {
            7 => Self::Memory,
            8 => Self::ReadOnly,
            // An I/O error, a file that does not open.
            10 | 14 => Self::Disk,
            13 => Self::DiskFull,
            // Interrupted, a lock that is in the way.
            9 | 15 => Self::Other,
            _ => return None,
        })
    }

    /// Of what is not an answer of the database.
    pub(super) fn of_connection(error: &sqlx::Error) -> Self {
        match error {
            sqlx::Error::Io(error) if error.kind() == std::io::ErrorKind::TimedOut => Self::Silent,
            sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::BeginFailed => {
                Self::NoConnection
            }
            sqlx::Error::Tls(_) | sqlx::Error::Configuration(_) => Self::Refused,
            sqlx::Error::PoolTimedOut => Self::Busy,
            sqlx::Error::PoolClosed => Self::Closed,
            _ => Self::Other,
        }
    }
}

/// A time in which the store does not work.
#[derive(Clone, Debug)]
pub struct Outage {
    pub cause: Cause,
    /// For the log.
    detail: String,
}

impl Outage {
    pub fn new(cause: Cause, detail: impl fmt::Display) -> Self {
        Self { cause, detail: detail.to_string() }
    }
}

impl fmt::Display for Outage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

/// What came of the last write transactions.
#[derive(Debug, Default)]
pub(super) struct Health(Mutex<Writes>);

#[derive(Debug, Default)]
struct Writes {
    failed: Option<(Instant, Cause)>,
    succeeded: Option<Instant>,
}

impl Health {
    pub fn failed(&self, now: Instant, cause: Cause) {
        self.0.lock().failed = Some((now, cause));
    }

    pub fn succeeded(&self, now: Instant) {
        let mut writes = self.0.lock();
        if writes.failed.is_some() {
            writes.succeeded = Some(now);
        }
    }

    /// Why writes fail; `None` if nothing says so.
    pub fn trouble(&self, now: Instant) -> Option<Cause> {
        let Writes { failed, succeeded } = *self.0.lock();
        let (at, cause) = failed?;
        let age = now.saturating_duration_since(at);
        let over = succeeded.is_some_and(|success| success > at) && age > REPEATED;
        (age < FORGOTTEN && !over).then_some(cause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_counts_until_a_write_has_succeeded_and_no_other_one_fails() {
        let begun = Instant::now();
        let after = |millis| begun + Duration::from_millis(millis);
        let health = Health::default();
        health.succeeded(begun);
        assert_eq!(health.trouble(begun), None);
        health.failed(after(100), Cause::DiskFull);
        health.succeeded(after(200));
        assert_eq!(health.trouble(after(300)), Some(Cause::DiskFull), "another one may still fail");
        health.failed(after(1000), Cause::ReadOnly);
        assert_eq!(health.trouble(after(4000)), Some(Cause::ReadOnly));
        health.succeeded(after(4000));
        assert_eq!(health.trouble(after(4001)), None);
    }

    #[test]
    fn a_failure_that_nobody_repeats_is_forgotten() {
        let begun = Instant::now();
        let health = Health::default();
        health.failed(begun, Cause::NoConnection);
        assert_eq!(health.trouble(begun + FORGOTTEN / 2), Some(Cause::NoConnection));
        assert_eq!(health.trouble(begun + FORGOTTEN), None);
    }
}
