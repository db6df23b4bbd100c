//! A delivery is one event on its way to one webhook endpoint. The values that the store, the dispatcher and
//! the API share.

use std::time::Duration;

use crate::{clock::Millis, string_enum::string_enum};

string_enum! {
    /// Whether a delivery still waits for an attempt, and how it ended if not.
    DeliveryStatus {
        Pending = "pending",
        Delivered = "delivered",
        Failed = "failed",
    }
}

string_enum! {
    /// Whether an endpoint gets events.
    EndpointStatus {
        Enabled = "enabled",
        Disabled = "disabled",
    }
}

string_enum! {
    /// Why an endpoint is disabled.
    DisabledReason {
        /// It answered 410 (Gone).
        Gone = "gone",
        /// It has failed for too long without a success.
        Failing = "failing",
    }
}

string_enum! {
    /// The kinds of [`AttemptOutcome`]: the label of the metric.
    AttemptResult {
        Delivered = "delivered",
        Rejected = "rejected",
        Timeout = "timeout",
        Unreachable = "unreachable",
        Refused = "refused",
    }
}

string_enum! {
    /// At which step a connection failed.
    ConnectionStep {
        Dns = "dns",
        Connect = "connect",
        Tls = "tls",
        /// It was there, and broke before the answer.
        Closed = "closed",
    }
}

/// What came of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttemptOutcome {
    /// The receiver answered. `retry_after` is what its `Retry-After` header asks for.
    Answered { status: u16, retry_after: Option<Duration> },
    /// No answer within the deadline.
    TimedOut,
    /// No connection, or one that broke.
    Unreachable(ConnectionStep),
    /// Not sent, because of how the endpoint is set up; the text says why.
    Refused(String),
    /// Not sent, because the endpoint was closed or the event is gone.
    Withdrawn,
}

impl AttemptOutcome {
    /// Only a status of 200 to 299 is a delivery.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.result() == AttemptResult::Delivered
    }

    #[must_use]
    pub fn result(&self) -> AttemptResult {
        match self {
            Self::Answered { status: 200..=299, .. } => AttemptResult::Delivered,
            Self::Answered { .. } => AttemptResult::Rejected,
            Self::TimedOut => AttemptResult::Timeout,
            Self::Unreachable(_) => AttemptResult::Unreachable,
            Self::Refused(_) | Self::Withdrawn => AttemptResult::Refused,
        }
    }

    #[must_use]
    pub fn status_code(&self) -> Option<u16> {
        match self {
            Self::Answered { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// What the tenant reads beside the attempt, without secrets or addresses; nothing for a success.
    #[must_use]
    pub fn error(&self) -> Option<String> {
        match self {
            Self::Answered { status: 200..=299, .. } => None,
            Self::Answered { .. } | Self::TimedOut => Some(self.result().to_string()),
            Self::Unreachable(step) => Some(format!("{}: {step}", self.result())),
            Self::Refused(why) => Some(format!("{}: {why}", self.result())),
            Self::Withdrawn => Some("withdrawn".to_owned()),
        }
    }
}

/// One attempt, as it is recorded and listed to the tenant.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Counts the attempts of a delivery from 1.
    pub number: i64,
    pub started_at: Millis,
    pub latency_ms: i64,
    /// Nothing where no answer came.
    pub status_code: Option<i64>,
    /// See [`AttemptOutcome::error`].
    pub error: Option<String>,
}

/// What follows from an attempt for its delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryOutcome {
    Delivered,
    /// It is not tried again, but can be replayed.
    Failed,
    Retry {
        at: Millis,
    },
}

impl DeliveryOutcome {
    #[must_use]
    pub fn status(self) -> DeliveryStatus {
        match self {
            Self::Delivered => DeliveryStatus::Delivered,
            Self::Failed => DeliveryStatus::Failed,
            Self::Retry { .. } => DeliveryStatus::Pending,
        }
    }
}

/// How an endpoint fares, a failed attempt included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndpointHealth {
    /// Since when every attempt has failed.
    pub failing_since: Option<Millis>,
    /// Disabled or deleted: nothing more is sent to it.
    pub closed: bool,
}
