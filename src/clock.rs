//! Time, handed in: nothing else in the crate asks the operating system what time it is.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

/// Milliseconds since the Unix epoch, UTC: the only form in which time is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Deserialize)]
pub struct Millis(pub i64);

impl Millis {
    /// The time of a block, which chains give in whole seconds.
    #[must_use]
    pub fn from_seconds(seconds: u64) -> Self {
        Self(i64::try_from(seconds).unwrap_or(i64::MAX / 1000).saturating_mul(1000))
    }

    #[must_use]
    pub fn plus(self, duration: std::time::Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    #[must_use]
    pub fn minus(self, duration: std::time::Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// How long after `earlier` this is; zero when it is not after.
    #[must_use]
    pub fn since(self, earlier: Self) -> std::time::Duration {
        let millis = u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0);
        std::time::Duration::from_millis(millis)
    }

    /// Unix seconds, for a gauge.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "exact for any time near ours")]
    pub fn as_seconds(self) -> f64 {
        self.0 as f64 / 1000.0
    }

    /// Whole seconds since the Unix epoch.
    #[must_use]
    pub fn seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }
}

/// RFC 3339 in UTC with milliseconds, as every time on the wire is written.
impl std::fmt::Display for Millis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(time) => write!(f, "{time:.3}"),
            Err(_) => write!(f, "{}ms", self.0),
        }
    }
}

impl serde::Serialize for Millis {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Where the time comes from: the system or the database in the daemon, a hand-set value in tests.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    #[default]
    System,
    /// The database's, which several daemons share: the system's and so many milliseconds.
    Shared(Arc<AtomicI64>),
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// A clock that stands still until [`Clock::set`] moves it.
    #[must_use]
    pub fn manual(start: Millis) -> Self {
        Self::Manual(Arc::new(AtomicI64::new(start.0)))
    }

    /// A clock that is the system's until [`Clock::follow`] says how far that is from the shared one.
    #[must_use]
    pub fn shared() -> Self {
        Self::Shared(Arc::default())
    }

    /// Sets how many milliseconds a shared clock is ahead of the system's; others stay as they are.
    pub fn follow(&self, offset: i64) {
        if let Self::Shared(cell) = self {
            cell.store(offset, Ordering::SeqCst);
        }
    }

    /// How many milliseconds a shared clock is ahead of the system's.
    #[must_use]
    pub fn offset(&self) -> i64 {
        match self {
            Self::Shared(cell) => cell.load(Ordering::SeqCst),
            Self::System | Self::Manual(_) => 0,
        }
    }

    /// Moves a manual clock; a system clock stays as it is.
    pub fn set(&self, now: Millis) {
        if let Self::Manual(cell) = self {
            cell.store(now.0, Ordering::SeqCst);
        }
    }

    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one place that asks the system")]
    pub fn now(&self) -> Millis {
        match self {
            Self::System => Millis(jiff::Timestamp::now().as_millisecond()),
            Self::Shared(offset) => {
                let now = jiff::Timestamp::now().as_millisecond();
                Millis(now.saturating_add(offset.load(Ordering::SeqCst)))
            }
            Self::Manual(cell) => Millis(cell.load(Ordering::SeqCst)),
        }
    }
}
