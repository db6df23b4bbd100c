//! Events to the outside world: lease, sign, send, retry.
//!
//! [`Dispatcher`] claims deliveries that are due and commits the lease, sends them without a transaction,
//! and records what came of each only if its lease still holds. So a delivery is sent at least once, and a
//! crash at any point only sends it again. It must not: follow a redirect, connect to an address that is not
//! public, wait for a receiver past the deadline, or let one endpoint's trouble become another's.

mod decide;
mod desk;
mod dispatch;
mod guard;
mod plan;
mod send;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use dispatch::{Dispatcher, SetupError};
pub use guard::url_allowed;
