//! No statement reads a big table from end to end, or all of a chain or a tenant, whether the planner has
//! statistics or not and however small the tables were when it made the plan; and no index is kept for nothing.
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

/// The text of the migrations of an engine that have big tables.
macro_rules! schema {
    ($engine:literal) => {
        concat!(
            include_str!(concat!("../../migrations/", $engine, "/0001_initial.sql")),
            include_str!(concat!("../../migrations/", $engine, "/0004_journal.sql")),
            include_str!(concat!("../../migrations/", $engine, "/0008_safe_state.sql")),
            include_str!(concat!("../../migrations/", $engine, "/0009_settlement.sql")),
        )
    };
}

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
    "journal",
    "ownership_challenge",
    "safe_candidate",
    "safe_deployment",
    "safe_state",
    "transfer",
    "wallet",
    "wallet_past",
    "wallet_sequence",
    "watch",
];

/// Statements that may read all of a big table, or all of it that is a chain's or a tenant's, by what their text
/// contains, and why.
const MAY_READ_MUCH: &[(&str, &str)] = &[
    (
        "FROM transfer WHERE chain_no = $1 AND status = 0 AND block_number > $2 ORDER BY",
        "a rewind by hand takes back what has settled",
    ),
    (
        "FROM transfer WHERE chain_no = $1 AND status IN (0, 1) AND block_number <= $2 ORDER BY",
        "a rewind by hand",
    ),
    ("SELECT DISTINCT t.no FROM balance b", "a token is quarantined: whoever holds it is told"),
    ("SELECT COUNT(*) FROM watch WHERE chain_no", "the audit's progress"),
    ("SELECT tenant_no, 0, COUNT(*) FROM watch", "the audit counts"),
    ("SELECT MAX(e.time) FROM event e WHERE e.tenant_no = t.no", "the end of an index"),
    ("SELECT MAX(no) FROM wallet", "the end of the table"),
];

/// Indexes of tables that nothing reads yet.
const NOT_READ_YET: &[&str] = &["watched_transaction_open"];

/// A statement, with single spaces, and how the engine runs it.
struct Plan {
    text: String,
    accesses: Vec<Access>,
}

/// What the planner knows of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// They are filled, and it has statistics.
    Analysed,
    /// They are filled, and it has none: the first minutes of a PostgreSQL, all the life of a SQLite.
    Filled,
    /// They are empty: a plan that is kept from then on is run when they are not.
    Empty,
}

/// How a statement reaches a table.
struct Access {
    table: String,
    /// The index that is used, if one is.
    index: Option<String>,
    /// From end to end.
    whole: bool,
    /// In its order, no further than a limit.
    limited: bool,
    /// Whether its conditions name few rows: more than whose they are, of which chain or of which status.
    narrow: bool,
}

/// Columns by which many rows are the same.
const WIDE: &[&str] = &["tenant_id", "tenant_no", "chain_no", "status", "kind", "family", "method"];

fn is_narrow<'a>(columns: impl IntoIterator<Item = &'a str>) -> bool {
    columns.into_iter().any(|column| !WIDE.contains(&column))
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

/// Partial ones that hold most rows all the same.
const LARGE: &[&str] = &[
    "safe_deployment_of_wallet",
    "wallet_by_reference",
    "wallet_of_account",
    "watch_once_per_tenant",
    "watch_opened",
];

/// Those that hold a small part of the rows.
fn partial_indexes(schema: &str) -> BTreeSet<String> {
    let statements =
        schema.split(';').filter(|text| text.contains(" INDEX ") && text.contains("WHERE"));
    statements.flat_map(indexes).filter(|index| !LARGE.contains(&index.as_str())).collect()
}

/// Whether a statement may do what is else a fault.
fn is_excused(text: &str) -> bool {
    MAY_READ_MUCH.iter().any(|(part, _)| text.contains(part))
}

/// Statements that read more of a table than they need.
fn reading_too_much(plans: &[Plan], partial: &BTreeSet<String>) -> Vec<String> {
    let mut faults = Vec::new();
    for Plan { text, accesses } in plans.iter().filter(|plan| !is_excused(&plan.text)) {
        for Access { table, index, whole, limited, narrow } in accesses {
            let small = index.as_ref().is_some_and(|index| partial.contains(index));
            if !BIG.contains(&table.as_str()) {
                continue;
            }
            if *whole && !small {
                faults.push(format!("all of {table} is read ({index:?}) for: {text}"));
            } else if !narrow && !limited {
                faults.push(format!("much of {table} is read ({index:?}) for: {text}"));
            }
        }
    }
    faults
}

/// Statements that reach a big table in a way that depends on what the planner knows. That they choose between
/// two indexes of which each leads to few rows is none of their faults.
fn undecided(states: &[(State, Vec<Plan>)]) -> Vec<String> {
    let ways = |plan: &Plan| -> BTreeSet<(String, Option<String>, bool)> {
        let big = plan.accesses.iter().filter(|access| BIG.contains(&access.table.as_str()));
        big.map(|access| (access.table.clone(), access.index.clone(), access.narrow)).collect()
    };
    let ((first, plans), others) = states.split_first().unwrap();
    let mut faults = Vec::new();
    for (state, others) in others {
        for (plan, other) in plans.iter().zip(others).filter(|(plan, _)| !is_excused(&plan.text)) {
            assert_eq!(plan.text, other.text);
            let (one, two) = (ways(plan), ways(other));
            let differing: Vec<_> = one.symmetric_difference(&two).collect();
            if differing.iter().any(|(.., narrow)| !narrow) {
                let text = &plan.text;
                faults.push(format!("{first:?} {one:?} but {state:?} {two:?} for: {text}"));
            }
        }
    }
    faults
}

/// What is wrong with an engine's plans.
fn faults(states: &[(State, Vec<Plan>)], schema: &str) -> Vec<String> {
    let partial = partial_indexes(schema);
    let mut faults = undecided(states);
    for (state, plans) in states {
        let found = reading_too_much(plans, &partial).into_iter();
        faults.extend(found.map(|fault| format!("{state:?}: {fault}")));
    }
    let accesses = states.iter().flat_map(|(_, plans)| plans).flat_map(|plan| &plan.accesses);
    let used: BTreeSet<&String> = accesses.filter_map(|access| access.index.as_ref()).collect();
    let unused = indexes(schema).into_iter().filter(|index| !used.contains(index));
    let unused = unused.filter(|index| !NOT_READ_YET.contains(&index.as_str()));
    faults.extend(unused.map(|index| format!("{index} is used for nothing")));
    faults
}

#[tokio::test]
async fn every_statement_reads_a_bounded_part_of_a_big_table_whatever_the_planner_knows() {
    let texts = source::texts();
    // What one engine alone is told, the other does not run.
    let mut told = Vec::new();
    let mut engines = 0;
    let mut faults_found = Vec::new();
    for store in TestStore::all().await {
        let (name, states, schema) = match &store.db.engine {
            Engine::Sqlite { path, .. } => ("SQLite", sqlite::plans(path).await, schema!("sqlite")),
            Engine::Postgres { pool, .. } => {
                ("PostgreSQL", postgres::plans(&pool.options().connect).await, schema!("postgres"))
            }
        };
        let found = faults(&states, schema).into_iter().map(|fault| format!("{name}: {fault}"));
        faults_found.extend(found);
        told.extend(states.into_iter().flat_map(|(_, plans)| plans).map(|plan| plan.text));
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
