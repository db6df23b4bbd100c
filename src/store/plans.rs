//! No statement reads a big table from end to end, and no index is kept for nothing.
//!
//! `calls` runs every statement of the store on a connection that remembers them; a text of `src/store` that it
//! does not run fails this test. Each statement's plan is read then.

mod calls;
mod postgres;
mod source;
mod sqlite;

use std::collections::BTreeSet;

use super::{engine::Engine, testing::TestStore};

/// What the stores hold.
const ROWS: &str = include_str!("plans/rows.sql");

/// Tables that grow with users, blocks or time.
const BIG: &[&str] = &[
    "account",
    "account_locator",
    "balance",
    "delivery",
    "delivery_attempt",
    "entry",
    "event",
    "idempotency_key",
    "ownership_challenge",
    "safe_deployment",
    "transfer",
    "wallet",
    "wallet_past",
    "wallet_sequence",
    "watch",
];

/// Statements that may read all of a big table, by what their text contains, and why.
const MAY_SCAN: &[(&str, &str)] = &[
    (
        "FROM transfer WHERE chain_no = $1 AND status = 0 AND block_number > $2 ORDER BY",
        "a rewind by hand takes back what has settled",
    ),
    (
        "FROM transfer WHERE chain_no = $1 AND status IN (0, 1) AND block_number <= $2 ORDER BY",
        "a rewind by hand",
    ),
    (
        "WHERE w.chain_no = $1 AND w.status = 1 ORDER BY w.wallet_no",
        "an asset begins to count: every open watch may hold it",
    ),
    ("SELECT COUNT(*) FROM watch WHERE chain_no", "the audit's progress"),
    ("SELECT tenant_no, 0, COUNT(*) FROM watch", "the audit counts"),
    (
        "EXISTS (SELECT 1 FROM watch o WHERE o.wallet_no = w.no",
        "a tenant filters its wallets by what their watches are",
    ),
];

/// Indexes of tables that nothing reads yet.
const NOT_READ_YET: &[&str] = &["watched_transaction_open"];

/// A statement, with single spaces, and how the engine runs it.
struct Plan {
    text: String,
    accesses: Vec<Access>,
}

/// How a statement reaches a table.
struct Access {
    table: String,
    /// The index that is used, if one is.
    index: Option<String>,
    /// From end to end.
    whole: bool,
}

/// Those that are there to look rows up; unique ones guard.
fn indexes(schema: &str) -> BTreeSet<String> {
    let words: Vec<&str> = schema.split_whitespace().collect();
    let names = words.windows(3).filter_map(|three| match three {
        ["CREATE", "INDEX", name] => Some((*name).to_owned()),
        _ => None,
    });
    names.collect()
}

/// Those that hold a part of the rows.
fn partial_indexes(schema: &str) -> BTreeSet<String> {
    let statements =
        schema.split(';').filter(|text| text.contains(" INDEX ") && text.contains("WHERE"));
    statements.flat_map(indexes).collect()
}

/// What is wrong with an engine's plans.
fn faults(plans: &[Plan], schema: &str) -> Vec<String> {
    let partial = partial_indexes(schema);
    let mut faults = Vec::new();
    let mut used = BTreeSet::new();
    for Plan { text, accesses } in plans {
        for Access { table, index, whole } in accesses {
            used.extend(index.clone());
            let small = index.as_ref().is_some_and(|index| partial.contains(index));
            let excused = MAY_SCAN.iter().any(|(part, _)| text.contains(part));
            if *whole && !small && !excused && BIG.contains(&table.as_str()) {
                faults.push(format!("all of {table} is read ({index:?}) for: {text}"));
            }
        }
    }
    let unused = indexes(schema).into_iter().filter(|index| !used.contains(index));
    let unused = unused.filter(|index| !NOT_READ_YET.contains(&index.as_str()));
    faults.extend(unused.map(|index| format!("{index} is used for nothing")));
    faults
}

#[tokio::test]
async fn every_statement_on_a_big_table_uses_an_index_and_every_index_is_used_by_one() {
    let texts = source::texts();
    // What one engine alone is told, the other does not run.
    let mut told = Vec::new();
    let mut engines = 0;
    let mut faults_found = Vec::new();
    for store in TestStore::all().await {
        let (name, plans, schema) = match &store.db.engine {
            Engine::Sqlite { path, .. } => (
                "SQLite",
                sqlite::plans(path).await,
                include_str!("../../migrations/sqlite/0001_initial.sql"),
            ),
            Engine::Postgres { pool, .. } => (
                "PostgreSQL",
                postgres::plans(&pool.connect_options()).await,
                include_str!("../../migrations/postgres/0001_initial.sql"),
            ),
        };
        let found = faults(&plans, schema).into_iter().map(|fault| format!("{name}: {fault}"));
        faults_found.extend(found);
        told.extend(plans.into_iter().map(|plan| plan.text));
        engines += 1;
        store.close().await;
    }
    // With one engine, what is only for the other cannot be known.
    if engines == 2 {
        let untold = texts.iter().filter(|text| !told.iter().any(|told| text.is_in(told)));
        faults_found.extend(untold.map(|text| format!("plans/calls.rs does not run {text}")));
    }
    assert!(faults_found.is_empty(), "{} faults:\n{}", faults_found.len(), faults_found.join("\n"));
}
