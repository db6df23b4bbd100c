//! The texts that a process runs: sqlx tells each one to the log.

use std::{
    collections::BTreeSet,
    env,
    fs::{self, OpenOptions},
    io::Write as _,
    path::Path,
    sync::Once,
    thread,
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    layer::{Context, Layer, SubscriberExt as _},
    registry::Registry,
    util::SubscriberInitExt as _,
};

/// Names the file in which a process of tests records its statements.
pub(super) const VARIABLE: &str = "TIDEMARK_TEST_STATEMENTS";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Engine {
    Sqlite,
    Postgres,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Statement {
    pub engine: Engine,
    /// With single spaces.
    pub text: String,
}

struct Recorder {
    file: Mutex<(fs::File, BTreeSet<Statement>)>,
}

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
        let text =
            super::source::single_spaced(if statement.is_empty() { &summary } else { &statement });
        // Each connection to SQLite has a thread of its own.
        let here = thread::current();
        let sqlite = here.name().is_some_and(|name| name.starts_with("sqlx-sqlite"));
        let statement =
            Statement { engine: if sqlite { Engine::Sqlite } else { Engine::Postgres }, text };
        let (file, seen) = &mut *self.file.lock();
        if !seen.contains(&statement) {
            writeln!(file, "{}", serde_json::to_string(&statement).unwrap()).unwrap();
            seen.insert(statement);
        }
    }
}

/// Records the statements of this process, if it was started for that.
pub(in crate::store) fn record_if_asked() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let Some(path) = env::var_os(VARIABLE) else { return };
        let file = OpenOptions::new().create(true).append(true).open(path).unwrap();
        let file = Mutex::new((file, BTreeSet::new()));
        Registry::default().with(Recorder { file }).try_init().unwrap();
    });
}

pub(super) fn read(path: &Path) -> BTreeSet<Statement> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
