//! `EXPLAIN QUERY PLAN`, see <https://www.sqlite.org/eqp.html>. Without statistics, as in every store of ours,
//! SQLite plans by the text alone.
//!
//! Which statements ran is told by sqlx's log. Each connection has a thread of its own; a commit on this one's
//! lets it log to a subscriber of its own. The thread has ended when all that it logged is read.

use std::{cell::RefCell, collections::BTreeSet, path::Path, sync::Arc};

use parking_lot::Mutex;
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, SqliteConnection,
    sqlite::SqliteConnectOptions,
};
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    subscriber::{self, DefaultGuard},
};
use tracing_subscriber::{
    layer::{Context, Layer, SubscriberExt as _},
    registry::Registry,
};

use super::{Access, BIG, Plan, State, calls, is_narrow, source::single_spaced};
use crate::store::Conn;

thread_local! {
    static RECORDING: RefCell<Option<DefaultGuard>> = const { RefCell::new(None) };
}

#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<BTreeSet<String>>>);

/// What sqlx logs of a statement: its first words, and all of it if that is more.
#[derive(Default)]
struct Logged {
    summary: String,
    statement: String,
}

impl Visit for Logged {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "summary" => value.clone_into(&mut self.summary),
            "db.statement" => value.clone_into(&mut self.statement),
            _ => {}
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

impl<S: Subscriber> Layer<S> for Recorder {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        metadata.target() == "sqlx::query"
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut logged = Logged::default();
        event.record(&mut logged);
        let Logged { summary, statement } = logged;
        let text = single_spaced(if statement.is_empty() { &summary } else { &statement });
        if !["BEGIN", "SAVEPOINT", "ROLLBACK"].iter().any(|word| text.starts_with(word)) {
            self.0.lock().insert(text);
        }
    }
}

/// The rows in this engine's words.
fn rows() -> String {
    let mut sql = super::ROWS.replace("OVERRIDING SYSTEM VALUE", "");
    for function in ["u(", "b(", "m("] {
        while let Some(at) = sql.find(function) {
            let begin = at + function.len();
            let mut depth = 1;
            let end = begin
                + sql[begin..]
                    .find(|c| {
                        depth += i32::from(c == '(') - i32::from(c == ')');
                        depth == 0
                    })
                    .unwrap();
            let (value, length) = match function {
                "b(" => sql[begin..end].rsplit_once(", ").unwrap(),
                "m(" => (&sql[begin..end], "32"),
                _ => (&sql[begin..end], "16"),
            };
            let digits = 2 * length.parse::<u8>().unwrap();
            let bytes = format!("unhex(printf('%0{digits}x', {value}))");
            sql.replace_range(at..=end, &bytes);
        }
    }
    sql
}

/// The plans of all statements of the store.
pub(super) async fn plans(path: &Path) -> Vec<(State, Vec<Plan>)> {
    let options = SqliteConnectOptions::new().filename(path).foreign_keys(true);
    let mut conn = options.connect().await.unwrap();
    let recorder = Recorder::default();
    // While there is one subscriber only, tracing asks that of the thread that logs first, which may be another
    // test's, and so none, whether anybody wants what sqlx logs.
    let _second = tracing::Dispatch::new(Registry::default());
    conn.lock_handle().await.unwrap().set_commit_hook({
        let recorder = recorder.clone();
        move || {
            RECORDING.with_borrow_mut(|recording| {
                recording.get_or_insert_with(|| {
                    subscriber::set_default(Registry::default().with(recorder.clone()))
                });
            });
            true
        }
    });
    sqlx::raw_sql(AssertSqlSafe(rows())).execute(&mut conn).await.unwrap();
    tracing::callsite::rebuild_interest_cache();
    recorder.0.lock().clear();
    calls::run(&mut Conn::Sqlite(&mut conn)).await;
    conn.close().await.unwrap();
    let texts = std::mem::take(&mut *recorder.0.lock());

    let mut plans = Vec::new();
    let mut conn = options.foreign_keys(false).connect().await.unwrap();
    for state in [State::Filled, State::Empty] {
        if state == State::Empty {
            let tables: Vec<String> =
                sqlx::query_scalar("SELECT name FROM sqlite_schema WHERE type = 'table'")
                    .fetch_all(&mut conn)
                    .await
                    .unwrap();
            for table in tables {
                let delete = AssertSqlSafe(format!("DELETE FROM {table}"));
                sqlx::raw_sql(delete).execute(&mut conn).await.unwrap();
            }
        }
        let mut of_state = Vec::new();
        for text in &texts {
            let accesses = explain(&mut conn, text).await;
            of_state.push(Plan { text: text.clone(), accesses });
        }
        plans.push((state, of_state));
    }
    conn.close().await.unwrap();
    plans
}

async fn explain(conn: &mut SqliteConnection, text: &str) -> Vec<Access> {
    // Parameters that are not bound are NULL, which changes no plan.
    let sql = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {text}"));
    let rows: Vec<(i64, i64, i64, String)> =
        sqlx::query_as(sql).fetch_all(conn).await.unwrap_or_else(|error| panic!("{error}: {text}"));
    // What a subquery gave is read from end to end, under its own name.
    let made: BTreeSet<&str> = rows
        .iter()
        .filter_map(|(_, _, _, detail)| {
            detail.strip_prefix("CO-ROUTINE ").or(detail.strip_prefix("MATERIALIZE "))
        })
        .collect();
    rows.iter()
        .filter(|(_, _, _, detail)| !made.contains(detail.trim_start_matches("SCAN ")))
        .filter_map(|(_, _, _, detail)| access(detail, text))
        .collect()
}

/// Reads `SEARCH w USING COVERING INDEX name (…)` and `SCAN w`.
fn access(detail: &str, text: &str) -> Option<Access> {
    let words: Vec<&str> = detail.split(' ').collect();
    let ["SCAN" | "SEARCH", name, ..] = words[..] else { return None };
    let index = words.iter().position(|word| *word == "INDEX").and_then(|at| words.get(at + 1));
    // Behind the index's name: `(chain_no=? AND (address,wallet_no)>(?,?))`.
    let columns = detail.split_once(" (").map_or("", |(_, conditions)| conditions);
    let columns = columns.split(" AND ").flat_map(|one| {
        let left = one.split(['=', '<', '>']).next().unwrap_or_default();
        left.trim_matches(['(', ')']).split(',')
    });
    Some(Access {
        table: table(name, text),
        index: index.map(|index| (*index).to_owned()),
        whole: words[0] == "SCAN",
        // It is not told.
        limited: text.contains(" LIMIT "),
        narrow: is_narrow(columns.filter(|name| !name.is_empty())),
    })
}

/// The table behind a name in a plan, which may be an alias.
fn table(name: &str, text: &str) -> String {
    let words: Vec<&str> =
        text.split([' ', ',', '(', ')']).filter(|word| !word.is_empty() && *word != "AS").collect();
    let named = words.windows(2).find(|two| BIG.contains(&two[0]) && two[1] == name);
    named.map_or(name, |two| two[0]).to_owned()
}
