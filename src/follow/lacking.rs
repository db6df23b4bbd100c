//! A head without its block, as it is for a moment behind a balancer, or for long at a node that lacks receipts.

use std::time::{Duration, Instant};

use crate::{config::ChainConfig, retry::Backoff};

/// Since when a node does not have the block that it shows as its head.
pub(super) struct Lacking {
    since: Instant,
    backoff: Backoff,
    told: bool,
}

impl Lacking {
    /// Behind a balancer that is nothing yet.
    const USUAL: Duration = Duration::from_secs(5);

    pub fn new() -> Self {
        let backoff = Backoff::new(Duration::from_millis(25), Duration::from_secs(2));
        Self { since: Instant::now(), backoff, told: false }
    }

    /// How long to wait before it is asked again.
    pub fn pause(&mut self, config: &ChainConfig) -> Duration {
        if !self.told && self.since.elapsed() >= Self::USUAL {
            self.told = true;
            tracing::warn!(
                chain = %config.name,
                "the node shows a head whose block or receipts it does not have: asking again and again; another \
                 endpoint may have them"
            );
        }
        self.backoff.next_delay()
    }
}
