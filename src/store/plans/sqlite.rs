//! `EXPLAIN QUERY PLAN`, see <https://www.sqlite.org/eqp.html>.

use std::collections::BTreeSet;

use sqlx::{AssertSqlSafe, SqlitePool};

use super::{Access, BIG, recording::Statement};

pub(super) async fn plans(
    pool: &SqlitePool,
    statements: Vec<Statement>,
) -> Vec<(Statement, Vec<Access>)> {
    let mut plans = Vec::new();
    for statement in statements {
        let explain = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {}", statement.text));
        // Parameters that are not bound are NULL, which changes no plan.
        let rows: Vec<(i64, i64, i64, String)> = sqlx::query_as(explain)
            .fetch_all(pool)
            .await
            .unwrap_or_else(|error| panic!("{error}: {}", statement.text));
        // What a subquery gave is read from end to end, under its own name.
        let made: BTreeSet<&str> = rows
            .iter()
            .filter_map(|(_, _, _, detail)| {
                detail.strip_prefix("CO-ROUTINE ").or(detail.strip_prefix("MATERIALIZE "))
            })
            .collect();
        let accesses = rows
            .iter()
            .filter(|(_, _, _, detail)| !made.contains(detail.trim_start_matches("SCAN ")))
            .filter_map(|(_, _, _, detail)| access(detail, &statement.text))
            .collect();
        plans.push((statement, accesses));
    }
    plans
}

/// Reads `SEARCH w USING COVERING INDEX name (…)` and `SCAN w`.
fn access(detail: &str, text: &str) -> Option<Access> {
    let words: Vec<&str> = detail.split(' ').collect();
    let ["SCAN" | "SEARCH", name, ..] = words[..] else { return None };
    let index = words.iter().position(|word| *word == "INDEX").and_then(|at| words.get(at + 1));
    Some(Access {
        table: table(name, text),
        index: index.map(|index| (*index).to_owned()),
        whole: words[0] == "SCAN",
    })
}

/// The table behind a name in a plan, which may be an alias.
fn table(name: &str, text: &str) -> String {
    let words: Vec<&str> =
        text.split([' ', ',', '(', ')']).filter(|word| !word.is_empty() && *word != "AS").collect();
    let named = words.windows(2).find(|two| BIG.contains(&two[0]) && two[1] == name);
    named.map_or(name, |two| two[0]).to_owned()
}
