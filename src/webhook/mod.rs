//! Events to the outside world: lease, sign, send, retry.
//!
//! [`Dispatcher`] claims deliveries that are due and commits the lease. It sends them without a transaction
//! and records the outcome of each only if its lease still holds. So a delivery is sent at least once, and a
//! crash at any point only sends it again. It must not: follow a redirect, connect to an address that is not
//! public, wait for a receiver past the deadline, or let one endpoint's trouble delay another.

mod decide;
mod dispatch;
mod scheduler;
mod send;
mod ssrf;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod worker;

pub use dispatch::{Dispatcher, SetupError};
pub use ssrf::url_allowed;
