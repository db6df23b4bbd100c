//! Tidemark watches blockchains for registered addresses and keeps their balances.
//!
//! ```text
//!  node ──► chain::Source ──► Block { header, movements, Safe candidates }  chain-specific ends here
//!                                 │
//!             follow  one follower per chain: gap-free, parent-linked, reorg-aware, prefetching
//!                                 │  only what touches the registry
//!             commit  load what the step needs ──► ledger decides ──► write it: ONE transaction
//!                     per block, batch or rollback: transfers + entries + balances + deployments
//!                     + cursor + events + deliveries
//!                                 │
//!            ┌────────────────────┼────────────────────┐
//!         webhook              event feed           read API
//! ```
//!
//! The modules, in the order in which the data travels:
//!
//! | module | what it owns |
//! |---|---|
//! | [`config`] | the raw file made into checked types; the well-known chains |
//! | [`chain`] | where the head is and what is in a block: [`chain::Source`], and one folder per family |
//! | [`registry`] | which addresses are watched, in memory |
//! | [`follow`] | one follower per chain: connect this block, or go back to that fork point |
//! | [`model`] | the values that all of them share: transfer, entry, balance, cursor, watch, wallet, asset |
//! | [`ledger`] | every rule about money, pure and synchronous: from what is known to what is written |
//! | [`commit`] | the commit point: load, let the ledger decide, write in one transaction |
//! | [`fleet`] | this daemon among those that share a database: leases, a fair share of the chains, one clock |
//! | [`event`] | what happened, stored as facts, and its JSON |
//! | [`delivery`] | an event on its way to a webhook endpoint: its values |
//! | [`store`] | all SQL, in sets |
//! | [`webhook`] | events to the outside world: lease, sign, send, retry |
//! | [`retention`] | deletes what is past its time |
//! | [`view`] | the shapes that the API and the events share |
//! | [`api`] | HTTP, one file per resource |
//! | [`daemon`] | wires the parts; starts, watches and stops every task |
//! | [`dev`] | a local chain with live traffic, for a first look and for the tests |
//!
//! Rules of direction, kept by `tests/it/tidy`:
//! - `model`, `ledger`, `event` and the deciding parts of `follow` and `webhook` are pure: no I/O, no clock, no
//!   database. They import no store.
//! - `chain` knows no database; `store` knows no node. `follow`, `commit`, `webhook` and `api`
//!   know no chain family: what differs between families is behind [`chain::Source`] and [`chain::Family`].
//! - What `api` asks of nodes are proofs, by [`chain::Provers`], and nothing else.
//! - Nobody but `store` names `sqlx`. Store functions borrow a connection and never begin or commit.
//! - Only `commit`, `fleet`, `webhook`, `retention` and the API's own writes open write transactions, by [`store::Db::run_tx`];
//!   besides, `cli::keys` makes keys and `daemon` gives back leases as it starts.
//! - Only `daemon` starts long-lived tasks. Time and randomness are handed in ([`clock`], [`random`], [`id`]).
//! - What a stranger can choose (a block, a node's answer, a request) never becomes [`store::StoreError::Corrupt`],
//!   never ends a task, never holds a chain and never becomes money unproven. What cannot be understood is set aside,
//!   counted, shown and left behind.
//! - One answer of one node never changes settled money.

pub mod amount;
pub mod api;
pub mod chain;
pub mod cli;
pub mod clock;
pub mod commit;
pub mod config;
pub mod daemon;
pub mod delivery;
pub mod dev;
pub mod event;
pub mod fleet;
pub mod follow;
#[cfg(test)]
mod fuzz;
pub mod id;
pub mod ledger;
pub mod logging;
pub mod metrics;
pub mod model;
pub mod obstacle;
pub mod random;
pub mod registry;
pub mod retention;
pub mod retry;
#[cfg(test)]
mod seeds;
pub mod store;
mod string_enum;
mod task;
pub mod view;
pub mod wake;
pub mod webhook;
