//! No statement reads a big table from end to end, and no index is kept for nothing.
//!
//! The statements are those that the other tests run: this test runs them in a process of their own that records
//! every text, per engine. So a new statement is looked at as soon as any test of the folders below runs it, and
//! a text of `src/store` that none of them runs fails this test.
//!
//! `SQLite` plans by the text alone. `PostgreSQL` gets tables with some thousand rows, and plans for any
//! parameters.

mod others;
mod postgres;
mod recording;
mod source;
mod sqlite;

use std::{collections::BTreeSet, process::Command};

pub(super) use recording::record_if_asked;
use recording::{Engine, Statement};

use super::testing::TestStore;

/// The tests whose statements are looked at.
const TESTS: &[&str] = &[
    "api::tests",
    "cli::",
    "commit::",
    "daemon::",
    "follow::tests::audit",
    "follow::tests::commit",
    "follow::tests::history",
    "follow::tests::proof",
    "follow::tests::solana",
    "follow::tests::sweep",
    "follow::tests::a",
    "retention::",
    "store::",
    "webhook::",
];

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
    (
        "UPDATE watch SET status = 1, opened_number = 1, opened_hash = $1 WHERE status = 0",
        "a test's own, which begins as one of ours does",
    ),
];

/// Texts that no test runs, and why.
const NOT_RUN: &[(&str, &str)] = &[
    ("step.absorbed = watch.scan_no", "scans that meet: the simulation alone runs it"),
    ("WITH step (absorbed, by_no) AS (", "as above"),
    ("WHERE scan_no IN (SELECT absorbed FROM step)", "as above"),
];

/// Indexes of tables that nothing reads yet.
const NOT_READ_YET: &[&str] = &["watched_transaction_open"];

/// How a statement reaches a table.
#[derive(Debug, PartialEq, Eq)]
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
    words
        .windows(3)
        .filter_map(|three| match three {
            ["CREATE", "INDEX", name] => Some((*name).to_owned()),
            _ => None,
        })
        .collect()
}

/// Those that hold a part of the rows.
fn partial_indexes(schema: &str) -> BTreeSet<String> {
    let statements =
        schema.split(';').filter(|text| text.contains(" INDEX ") && text.contains("WHERE"));
    statements.flat_map(indexes).collect()
}

fn check(
    engine: Engine,
    plans: &[(Statement, Vec<Access>)],
    schema: &str,
    failures: &mut Vec<String>,
) {
    let partial = partial_indexes(schema);
    let mut used = BTreeSet::new();
    for (Statement { text, .. }, accesses) in plans {
        for Access { table, index, whole } in accesses {
            used.extend(index.clone());
            let small = index.as_ref().is_some_and(|index| partial.contains(index));
            let excused = MAY_SCAN.iter().any(|(part, _)| text.contains(part));
            if *whole && !small && !excused && BIG.contains(&table.as_str()) {
                failures.push(format!("{engine:?} reads all of {table} ({index:?}) for: {text}"));
            }
        }
    }
    for index in indexes(schema) {
        if !used.contains(&index) && !NOT_READ_YET.contains(&index.as_str()) {
            failures.push(format!("{engine:?} uses {index} for nothing"));
        }
    }
}

#[test]
fn every_statement_on_a_big_table_uses_an_index_and_every_index_is_used_by_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("statements");
    let done = Command::new(std::env::current_exe().unwrap())
        .args(TESTS)
        .args(["--skip", "every_statement_on_a_big_table"])
        .env(recording::VARIABLE, &file)
        .output();
    // Whether those tests pass is told elsewhere.
    done.unwrap();
    let recorded = recording::read(&file);
    let ours = source::texts();
    let mut failures: Vec<String> = ours
        .iter()
        .filter(|text| !NOT_RUN.iter().any(|(part, _)| text.whole.contains(part)))
        .filter(|text| !recorded.iter().any(|statement| text.is_in(&statement.text)))
        .map(|text| format!("no test runs {}: {}", text.place, text.whole))
        .collect();
    // What tests themselves look up may read all they like.
    let looked_at: Vec<Statement> =
        recorded.into_iter().filter(|s| ours.iter().any(|text| text.is_of(&s.text))).collect();
    let of = |engine| looked_at.iter().filter(move |s| s.engine == engine).cloned().collect();

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for store in TestStore::all().await {
            match &store.db.engine {
                super::engine::Engine::Sqlite { write, .. } => {
                    let plans = sqlite::plans(write, of(Engine::Sqlite)).await;
                    let schema = include_str!("../../migrations/sqlite/0001_initial.sql");
                    check(Engine::Sqlite, &plans, schema, &mut failures);
                }
                super::engine::Engine::Postgres { pool, .. } => {
                    let plans = postgres::plans(pool, of(Engine::Postgres)).await;
                    let schema = include_str!("../../migrations/postgres/0001_initial.sql");
                    check(Engine::Postgres, &plans, schema, &mut failures);
                }
            }
            store.close().await;
        }
    });
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}
