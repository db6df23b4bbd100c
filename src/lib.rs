//! Tidemark watches blockchains for registered addresses and keeps their balances.
//!
//! ```text
//!  node ──► chain::Source ──► Block { header, movements, safe sightings }   chain-specific ends here
//!                                 │
//!             follow  one follower per chain: gap-free, parent-linked, reorg-aware, prefetching
//!                                 │  only what touches the registry
//!             apply   ONE transaction per block, batch or rollback:
//!                     transfers + entries + balances + deployments + cursor + events + deliveries
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
//! | [`ledger`] | buckets and entries: pure arithmetic |
//! | [`proof`] | the ledger against the chain's own state: what is asked, what a difference means |
//! | [`apply`] | the commit point: one block, one batch or one rollback is one transaction |
//! | [`event`] | what happened, as versioned JSON |
//! | [`store`] | all SQL |
//! | [`webhook`] | events to the outside world: lease, sign, send, retry |
//! | [`api`] | HTTP, one file per resource |
//! | [`daemon`] | wires the parts; starts, watches and stops every task |
//! | [`dev`] | a local chain with live traffic, for a first look and for the tests |
//!
//! Rules of direction:
//! - `ledger` and the deciding parts of `follow` and `webhook` are pure: no I/O, no clock, no database.
//! - `chain` knows no database; `store` knows no node. `follow`, `apply`, `webhook` and `api`
//!   know no chain family: what differs between families is behind [`chain::Source`] and [`chain::Family`].
//! - Nobody but `store` names `sqlx`. Store functions borrow a connection and never begin or commit.
//! - Only `apply`, `webhook` and the API's own writes open write transactions.
//! - Only `daemon` starts long-lived tasks. Time and randomness are handed in ([`clock`], [`id`]).

pub mod amount;
pub mod api;
pub mod apply;
pub mod chain;
pub mod cli;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod dev;
pub mod event;
pub mod follow;
pub mod id;
pub mod ledger;
pub mod logging;
pub mod metrics;
pub mod proof;
pub mod registry;
pub mod retry;
pub mod store;
pub mod view;
pub mod wake;
pub mod webhook;
