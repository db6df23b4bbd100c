//! What Tidemark promises, checked against real nodes, real stores and real processes. Run with `tests/run`.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail loudly")]

mod harness;

mod contracts;
mod dashboards;
mod deposits;
mod dev;
#[cfg_attr(not(feature = "failover"), expect(dead_code, reason = "only tests/failover runs it"))]
mod failover;
mod fleet;
mod found_safes;
mod histories;
mod history;
mod hostile;
mod internal;
mod lifecycle;
mod listing;
mod multicall;
mod outage;
mod oversized;
mod past;
mod planned_safes;
mod proof;
mod proven;
mod quarantine;
mod refusals;
mod reorgs;
mod replica;
mod safe_changes;
mod safe_versions;
mod safes;
mod solana;
mod tenants;
mod tidy;
mod tiers;
mod tokens;
mod user_operations;
mod webhooks;
mod worthless;
