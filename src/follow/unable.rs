//! What no endpoint can give until a person has changed something. It is asked for all the same: nodes get mended.

use std::time::Duration;

use super::Follower;
use crate::chain::SourceError;

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
}
