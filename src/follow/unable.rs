//! What does not go on until a person has changed something. It is tried again all the same: nodes get mended.

use std::time::Duration;

use super::{Follower, TurnError};
use crate::{chain::SourceError, store::StoreError};

/// Until it is asked for again: what is too large can be a gigabyte each time.
pub(super) const PAUSE: Duration = Duration::from_secs(30);

pub(super) fn needs_a_person(error: &SourceError) -> bool {
    matches!(error, SourceError::TooLarge(_) | SourceError::Unlinked(_))
}

impl Follower {
    /// Says what has to be done.
    pub(super) fn ask_a_person(&self, error: &SourceError) {
        let chain = &self.config.name;
        if matches!(error, SourceError::Unlinked(_)) {
            self.gauge_halted(1);
            tracing::error!(
                %chain,
                %error,
                "this chain cannot be followed: name endpoints that tell the parent of each block, or remove the \
                 chain from the configuration (Sei's blocks have no parents under Autobahn)"
            );
        } else {
            tracing::error!(
                %chain,
                %error,
                "this chain waits for an answer that is too large: raise max_response_bytes of an endpoint, or add an \
                 endpoint that gives larger answers, and start again"
            );
        }
    }

    /// Shows at once what would be seen late, by the age of the newest block.
    pub(super) fn tell_obstacle(&self, error: &TurnError) {
        let what = match error {
            TurnError::Misconfigured(what) => what.clone(),
            TurnError::Source(error @ (SourceError::WrongChain(_) | SourceError::Unlinked(_))) => {
                error.to_string()
            }
            _ => return,
        };
        self.obstacles.found(&self.config.name, what);
    }

    pub(super) async fn halt(&mut self, reason: &str) -> Result<(), StoreError> {
        tracing::error!(
            chain = %self.config.name,
            reason,
            "halting this chain; the way out is: tidemark rewind --chain {} --to <block below the disputed one> --reason <why>",
            self.config.name
        );
        self.gauge_halted(1);
        // Without a cursor there is nothing to halt: the next turn reads it and finds the same again.
        let Some(cursor) = self.committer.cursor().await? else { return Ok(()) };
        let epoch = self.committer.lease().epoch().unwrap_or(cursor.epoch);
        if !self.committer.halt(cursor.no, epoch, reason).await? {
            tracing::warn!(chain = %self.config.name, "somebody else follows this chain by now");
        }
        Ok(())
    }

    pub(super) fn say_halted(&self, reason: &str) {
        self.gauge_halted(1);
        tracing::error!(
            chain = %self.config.name,
            reason,
            "this chain stands still; the way out is: tidemark rewind --chain {} --to <block below the disputed one> --reason <why>",
            self.config.name
        );
    }

    pub(super) fn say_misconfigured(&self, what: &str, news: bool) {
        self.gauge_halted(1);
        if news {
            tracing::error!(chain = %self.config.name, error = what, "this chain does not begin");
        }
    }
}
