//! `EXPLAIN` of a prepared statement's generic plan, on tables that have some thousand rows.
//!
//! Which statements ran is told by the server: sqlx prepares each one, and the session keeps them.

use serde_json::Value;
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, postgres::PgConnectOptions,
};

use super::{Access, Plan, calls, source::single_spaced};
use crate::store::Conn;

const FUNCTIONS: &str = "
    CREATE FUNCTION u(n BIGINT) RETURNS UUID LANGUAGE sql IMMUTABLE
        AS $$ SELECT lpad(to_hex(n), 32, '0')::uuid $$;
    CREATE FUNCTION b(n BIGINT, length INT) RETURNS BYTEA LANGUAGE sql IMMUTABLE
        AS $$ SELECT decode(lpad(to_hex(n), 2 * length, '0'), 'hex') $$;
    CREATE FUNCTION m(n BIGINT) RETURNS NUMERIC LANGUAGE sql IMMUTABLE AS $$ SELECT n::numeric $$;";

/// New rows get numbers that are free.
const NUMBERS: &str = "
    SELECT setval(pg_get_serial_sequence(name, 'no'), 10000)
    FROM (VALUES ('tenant'), ('chain'), ('wallet')) AS numbered (name)";

/// Of small tables all is read even where an index serves. Priced like this, only where none does.
const SETTINGS: &str =
    "ANALYZE; SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off";

/// The plans of all statements of the store.
pub(super) async fn plans(options: &PgConnectOptions) -> Vec<Plan> {
    // None is forgotten.
    let options = options.clone().statement_cache_capacity(10_000);
    let mut conn = options.connect().await.unwrap();
    sqlx::raw_sql(FUNCTIONS).execute(&mut conn).await.unwrap();
    sqlx::raw_sql(super::ROWS).execute(&mut conn).await.unwrap();
    sqlx::raw_sql(NUMBERS).execute(&mut conn).await.unwrap();
    calls::run(&mut Conn::Postgres(&mut conn)).await;
    sqlx::raw_sql(SETTINGS).execute(&mut conn).await.unwrap();
    let prepared: Vec<(String, String, i32)> = sqlx::query_as(
        "SELECT name, statement, cardinality(parameter_types) FROM pg_prepared_statements ORDER BY name",
    )
    .persistent(false)
    .fetch_all(&mut conn)
    .await
    .unwrap();
    let mut plans = Vec::new();
    for (name, text, parameters) in prepared.into_iter().filter(|(name, ..)| !name.is_empty()) {
        let mut accesses = Vec::new();
        let plan = explain(&mut conn, &name, parameters, &text).await;
        read(&plan[0]["Plan"], None, false, &mut accesses);
        plans.push(Plan { text: single_spaced(&text), accesses });
    }
    conn.close().await.unwrap();
    plans
}

async fn explain(conn: &mut PgConnection, name: &str, parameters: i32, text: &str) -> Value {
    let nulls = vec!["NULL"; usize::try_from(parameters).unwrap()].join(", ");
    let nulls = if nulls.is_empty() { nulls } else { format!("({nulls})") };
    let sql = AssertSqlSafe(format!("EXPLAIN (FORMAT JSON) EXECUTE {name}{nulls}"));
    let plan = sqlx::query_scalar(sql).persistent(false).fetch_one(conn).await;
    plan.unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// All nodes of a plan that read a table.
fn read(node: &Value, table: Option<&str>, limited: bool, accesses: &mut Vec<Access>) {
    let word = |key: &str| node[key].as_str();
    let table = word("Relation Name").or(table);
    let kind = word("Node Type").unwrap();
    let index = word("Index Name").map(str::to_owned);
    if kind == "Seq Scan" || index.is_some() {
        // An index without a condition may be read in its order, up to a limit.
        let whole = kind == "Seq Scan" || (word("Index Cond").is_none() && !limited);
        accesses.push(Access { table: table.unwrap_or_default().to_owned(), index, whole });
    }
    // What is merged, hashed or sorted under a limit is read from end to end all the same.
    let limited = kind == "Limit" || (limited && ["Nested Loop", "Subquery Scan"].contains(&kind));
    for child in node["Plans"].as_array().into_iter().flatten() {
        read(child, table, limited, accesses);
    }
}
