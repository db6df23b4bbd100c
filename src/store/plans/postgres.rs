//! `EXPLAIN` of a prepared statement's generic plan, on tables that have some thousand rows.
//!
//! Which statements ran is told by the server: sqlx prepares each one, and the session keeps them.

use serde_json::Value;
use sqlx::{AssertSqlSafe, PgConnection, postgres::PgConnectOptions};

use super::{Access, Plan, State, calls, is_narrow, source::single_spaced};
use crate::store::{
    Conn,
    pool::Pooled as _,
    session::{Session, SessionOptions},
};

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

/// Statistics come when the test says so.
const NO_STATISTICS: &str = "
    DO $$ DECLARE name TEXT; BEGIN
        FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' LOOP
            EXECUTE format('ALTER TABLE %I SET (autovacuum_enabled = off)', name);
        END LOOP;
    END $$";

/// A database as it is right after it was made.
const EMPTY: &str = "
    DO $$ BEGIN
        EXECUTE (SELECT 'TRUNCATE ' || string_agg(format('%I', tablename), ', ') || ' CASCADE'
                 FROM pg_tables WHERE schemaname = 'public');
    END $$;
    DROP TABLE count";

/// The plans of all statements of the store.
pub(super) async fn plans(options: &PgConnectOptions) -> Vec<(State, Vec<Plan>)> {
    // None is forgotten.
    let options = options.clone().statement_cache_capacity(10_000);
    let mut session = Session::open(&SessionOptions::new(options, None)).await.unwrap();
    let conn = session.connection();
    sqlx::raw_sql(FUNCTIONS).execute(&mut *conn).await.unwrap();
    sqlx::raw_sql(NO_STATISTICS).execute(&mut *conn).await.unwrap();
    fill(conn).await;
    calls::run(&mut Conn::Postgres(&mut session)).await;
    let conn = session.connection();
    let filled = explain_all(conn).await;
    sqlx::raw_sql(EMPTY).execute(&mut *conn).await.unwrap();
    let empty = explain_all(conn).await;
    fill(conn).await;
    sqlx::raw_sql("ANALYZE").execute(&mut *conn).await.unwrap();
    let analysed = explain_all(conn).await;
    session.close().await;
    vec![(State::Analysed, analysed), (State::Filled, filled), (State::Empty, empty)]
}

async fn fill(conn: &mut PgConnection) {
    sqlx::raw_sql(super::ROWS).execute(&mut *conn).await.unwrap();
    sqlx::raw_sql(NUMBERS).execute(conn).await.unwrap();
}

async fn explain_all(conn: &mut PgConnection) -> Vec<Plan> {
    sqlx::raw_sql("DISCARD PLANS").execute(&mut *conn).await.unwrap();
    let prepared: Vec<(String, String, i32)> = sqlx::query_as(
        "SELECT name, statement, cardinality(parameter_types) FROM pg_prepared_statements ORDER BY name",
    )
    .persistent(false)
    .fetch_all(&mut *conn)
    .await
    .unwrap();
    let mut plans = Vec::new();
    for (name, text, parameters) in prepared.into_iter().filter(|(name, ..)| !name.is_empty()) {
        let mut accesses = Vec::new();
        let plan = explain(conn, &name, parameters, &text).await;
        read(&plan[0]["Plan"], None, false, &mut accesses);
        plans.push(Plan { text: single_spaced(&text), accesses });
    }
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
        let condition = word("Index Cond");
        // An index without a condition may be read in its order up to a limit, if every row counts for it.
        let whole =
            kind == "Seq Scan" || (condition.is_none() && !(limited && word("Filter").is_none()));
        let table = table.unwrap_or_default().to_owned();
        let columns = condition.map(columns).unwrap_or_default();
        accesses.push(Access { table, index, whole, limited, narrow: is_narrow(columns) });
    }
    // What is merged, hashed or sorted under a limit is read from end to end all the same.
    let limited = kind == "Limit" || (limited && ["Nested Loop", "Subquery Scan"].contains(&kind));
    for child in node["Plans"].as_array().into_iter().flatten() {
        read(child, table, limited, accesses);
    }
}

/// The columns of an index that its conditions name, each on the left: `((a = $1) AND (ROW(b, c) > ROW($2, $3)))`.
fn columns(condition: &str) -> Vec<&str> {
    let sides = condition.split(" AND ").filter_map(|one| one.split([' ', '=', '<', '>']).next());
    let rows = condition.split("ROW(").skip(1).filter_map(|row| row.split(')').next());
    let names = sides.chain(rows.flat_map(|row| row.split(", ")));
    names.map(|name| name.trim_matches(['(', ')'])).filter(|name| !name.is_empty()).collect()
}
