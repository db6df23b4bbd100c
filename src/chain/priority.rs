//! Whose questions go first where an endpoint's budget does not last for all.

use tokio::{task::futures::TaskLocalFuture, task_local};

task_local! {
    static CURRENT: Priority;
}

/// What a question is for; the first goes before the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Following the chain.
    Head,
    /// What a settlement waits for.
    Settlement,
    /// What can wait: openings, histories, the sweep.
    Background,
}

impl Priority {
    /// What is asked while `work` runs has this priority. A task that it spawns begins anew: there, what is spawned
    /// is to be put into the [`Priority::current`] one.
    pub fn scope<F: Future>(self, work: F) -> TaskLocalFuture<Self, F> {
        CURRENT.scope(self, work)
    }

    /// The priority of whatever runs now; the head's where none was given.
    #[must_use]
    pub fn current() -> Self {
        CURRENT.try_with(|priority| *priority).unwrap_or(Self::Head)
    }
}
