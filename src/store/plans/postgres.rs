//! `EXPLAIN` of a prepared statement's generic plan, on tables that have some thousand rows.

use std::collections::BTreeSet;

use serde_json::Value;
use sqlx::{AssertSqlSafe, PgConnection, PgPool};

use super::{Access, recording::Statement};

const ROWS: &str = include_str!("rows.sql");

pub(super) async fn plans(
    pool: &PgPool,
    statements: Vec<Statement>,
) -> Vec<(Statement, Vec<Access>)> {
    let mut conn = pool.acquire().await.unwrap();
    sqlx::raw_sql(ROWS).execute(&mut *conn).await.unwrap();
    sqlx::raw_sql("SET plan_cache_mode = force_generic_plan").execute(&mut *conn).await.unwrap();
    // Of small tables all is read even where an index serves. Priced like this only where none does.
    sqlx::raw_sql("SET enable_seqscan = off").execute(&mut *conn).await.unwrap();
    let mut plans = Vec::new();
    for statement in statements {
        // Rows to add are in arrays: no table is read.
        if !statement.text.contains(" FROM unnest($1, ") {
            let plan = explain(&mut conn, &statement.text).await;
            let mut accesses = Vec::new();
            read(&plan[0]["Plan"], None, false, &mut accesses);
            plans.push((statement, accesses));
        }
    }
    plans
}

async fn explain(conn: &mut PgConnection, text: &str) -> Value {
    let (kinds, nulls) = parameters(text);
    let prepare = AssertSqlSafe(format!("PREPARE looked_at{kinds} AS {}", typed(text)));
    let explain = AssertSqlSafe(format!("EXPLAIN (FORMAT JSON) EXECUTE looked_at{nulls}"));
    let plan: Result<Value, sqlx::Error> = async {
        sqlx::raw_sql(prepare).execute(&mut *conn).await?;
        let plan = sqlx::query_scalar(explain).persistent(false).fetch_one(&mut *conn).await?;
        sqlx::raw_sql("DEALLOCATE looked_at").execute(&mut *conn).await?;
        Ok(plan)
    }
    .await;
    plan.unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The types of a text's parameters where the server cannot tell them, and as many nulls: those that the text does not
/// use, and those that it asks for null before anything else (`$2 IS NULL OR id < $2`).
fn parameters(text: &str) -> (String, String) {
    let numbers = text.split('$').skip(1).filter_map(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        rest[..end].parse::<usize>().ok()
    });
    let used: BTreeSet<usize> = numbers.collect();
    let Some(&last) = used.last() else { return (String::new(), String::new()) };
    let kind = |number: usize| {
        if text.contains(&format!("::uuid FROM unnest(${number}) AS b")) {
            return "bytea[]";
        }
        let asked = format!("${number} IS NULL OR ");
        match text.split_once(asked.as_str()) {
            Some((_, rest)) if rest.starts_with("id ") => "uuid",
            None if used.contains(&number) => "unknown",
            _ => "text",
        }
    };
    let kinds: Vec<&str> = (1..=last).map(kind).collect();
    (format!("({})", kinds.join(", ")), format!("({})", vec!["NULL"; last].join(", ")))
}

/// The text, with the types that sqlx gives to the parameters of a list: `WITH asked (id) AS (VALUES ($1), …`.
fn typed(text: &str) -> String {
    let Some((head, rest)) = text.split_once(") AS (VALUES (") else { return text.to_owned() };
    let Some((name, columns)) = head.split_once('(') else { return text.to_owned() };
    let (first, rest) = rest.split_once(')').unwrap_or((rest, ""));
    let places: Vec<String> = first
        .split(',')
        .zip(columns.split(','))
        .map(|(place, column)| format!("CAST({place} AS {})", kind(column.trim())))
        .collect();
    format!("{name}({columns}) AS (VALUES ({}){rest}", places.join(", "))
}

/// The type of a column by its name.
fn kind(column: &str) -> &'static str {
    match column {
        "id" | "tenant_id" | "account_id" => "uuid",
        "address" | "seen_hash" => "bytea",
        "no" | "mark" | "absorbed" | "covered_from" | "seen_number" => "bigint",
        "status" => "int",
        name if name.ends_with("_no") => "bigint",
        _ => "text",
    }
}

/// All nodes of a plan that read a table.
fn read(node: &Value, table: Option<&str>, limited: bool, accesses: &mut Vec<Access>) {
    let word = |key: &str| node[key].as_str();
    let table = word("Relation Name").or(table);
    let kind = word("Node Type").unwrap();
    let limited = limited || kind == "Limit";
    let index = word("Index Name").map(str::to_owned);
    if kind == "Seq Scan" || index.is_some() {
        // An index without a condition may be read in its order, up to a limit.
        let whole = kind == "Seq Scan" || (word("Index Cond").is_none() && !limited);
        accesses.push(Access { table: table.unwrap_or_default().to_owned(), index, whole });
    }
    for child in node["Plans"].as_array().into_iter().flatten() {
        read(child, table, limited, accesses);
    }
}
