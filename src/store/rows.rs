//! Adding rows to a table, however many: in runs whose lengths are powers of two. While the engine takes one run, the
//! next is made ready.

use std::sync::{Arc, OnceLock};

use futures::future::join;
use sqlx::{
    Arguments, AssertSqlSafe, Encode, FromRow, Postgres, Sqlite, Type,
    error::BoxDynError,
    postgres::{PgArguments, PgRow},
    sqlite::{SqliteArguments, SqliteRow},
};

use super::{
    Conn, StoreError,
    set::{MOST_ROWS, runs},
};

/// How many lengths a run can have.
const LENGTHS: usize = MOST_ROWS.ilog2() as usize + 1;

/// A table, the columns that are written, and what follows the rows in the statement.
pub(super) struct Table {
    name: &'static str,
    columns: &'static [&'static str],
    tail: &'static str,
    /// The statements for runs of 1, 2, 4, … rows.
    sqlite: [OnceLock<Arc<str>>; LENGTHS],
    postgres: [OnceLock<Arc<str>>; LENGTHS],
}

/// The values of one row, in the order of the table's columns.
pub(super) struct Row<'a>(Values<'a>);

enum Values<'a> {
    Sqlite(&'a mut SqliteArguments),
    Postgres(&'a mut PgArguments),
}

/// What both engines can store.
pub(super) trait Value<'q>:
    Encode<'q, Sqlite> + Type<Sqlite> + Encode<'q, Postgres> + Type<Postgres>
{
}

impl<'q, T> Value<'q> for T where
    T: Encode<'q, Sqlite> + Type<Sqlite> + Encode<'q, Postgres> + Type<Postgres>
{
}

impl Row<'_> {
    /// The next column's value.
    ///
    /// # Errors
    /// When it cannot be written down.
    pub fn push<'q>(&mut self, value: impl Value<'q>) -> Result<(), BoxDynError> {
        match &mut self.0 {
            Values::Sqlite(arguments) => Arguments::add(*arguments, value),
            Values::Postgres(arguments) => Arguments::add(*arguments, value),
        }
    }
}

impl Table {
    /// A table whose rows are only added.
    pub const fn new(name: &'static str, columns: &'static [&'static str]) -> Self {
        Self::upsert(name, columns, "")
    }

    /// A table whose rows are added or changed, as `tail` says (`ON CONFLICT …`).
    pub const fn upsert(
        name: &'static str,
        columns: &'static [&'static str],
        tail: &'static str,
    ) -> Self {
        Self {
            name,
            columns,
            tail,
            sqlite: [const { OnceLock::new() }; LENGTHS],
            postgres: [const { OnceLock::new() }; LENGTHS],
        }
    }

    /// Writes `rows`; gives how many were added or changed. After an error the transaction must be undone.
    ///
    /// # Errors
    /// [`StoreError`] of the engine.
    pub async fn write<T: Sync>(
        &self,
        conn: &mut Conn<'_>,
        rows: &[T],
        fill: impl Fn(&mut Row<'_>, &T) -> Result<(), BoxDynError> + Send + Sync,
    ) -> Result<u64, StoreError> {
        let mut written = 0;
        match conn {
            Conn::Sqlite(c) => {
                let mut runs = runs(rows).map(|run| self.sqlite(run, &fill));
                let mut next = runs.next().transpose()?;
                while let Some((sql, arguments)) = next {
                    let query = sqlx::query_with(AssertSqlSafe(sql), arguments);
                    let (done, ready) =
                        join(query.execute(&mut **c), async { runs.next().transpose() }).await;
                    written += done?.rows_affected();
                    next = ready?;
                }
            }
            Conn::Postgres(c) => {
                let mut runs = runs(rows).map(|run| self.postgres(run, &fill));
                let mut next = runs.next().transpose()?;
                while let Some((sql, arguments)) = next {
                    let query = sqlx::query_with(AssertSqlSafe(sql), arguments);
                    let (done, ready) =
                        join(query.execute(&mut **c), async { runs.next().transpose() }).await;
                    written += done?.rows_affected();
                    next = ready?;
                }
            }
        }
        Ok(written)
    }

    /// Writes `rows`, and gives what the tail's `RETURNING` names.
    ///
    /// # Errors
    /// [`StoreError`] of the engine.
    pub async fn write_returning<T: Sync, R>(
        &self,
        conn: &mut Conn<'_>,
        rows: &[T],
        fill: impl Fn(&mut Row<'_>, &T) -> Result<(), BoxDynError> + Send + Sync,
    ) -> Result<Vec<R>, StoreError>
    where
        R: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        let mut returned = Vec::with_capacity(rows.len());
        for run in runs(rows) {
            returned.extend(match conn {
                Conn::Sqlite(c) => {
                    let (sql, arguments) = self.sqlite(run, &fill)?;
                    sqlx::query_as_with(AssertSqlSafe(sql), arguments).fetch_all(&mut **c).await?
                }
                Conn::Postgres(c) => {
                    let (sql, arguments) = self.postgres(run, &fill)?;
                    sqlx::query_as_with(AssertSqlSafe(sql), arguments).fetch_all(&mut **c).await?
                }
            });
        }
        Ok(returned)
    }

    fn sqlite<T>(
        &self,
        run: &[T],
        fill: impl Fn(&mut Row<'_>, &T) -> Result<(), BoxDynError>,
    ) -> Result<(Arc<str>, SqliteArguments), StoreError> {
        // OR FAIL: whoever meets an error undoes the whole transaction, so SQLite need not be able to undo the
        // statement alone, which costs a copy of each page.
        let insert = if self.tail.is_empty() { "INSERT OR FAIL INTO" } else { "INSERT INTO" };
        let mut arguments = SqliteArguments::default();
        arguments.reserve(run.len() * self.columns.len(), 0);
        for row in run {
            fill(&mut Row(Values::Sqlite(&mut arguments)), row).map_err(sqlx::Error::Encode)?;
        }
        let text =
            self.sqlite[log2(run)].get_or_init(|| self.text(insert, run.len(), |_| "?".into()));
        Ok((Arc::clone(text), arguments))
    }

    fn postgres<T>(
        &self,
        run: &[T],
        fill: impl Fn(&mut Row<'_>, &T) -> Result<(), BoxDynError>,
    ) -> Result<(Arc<str>, PgArguments), StoreError> {
        let mut arguments = PgArguments::default();
        arguments.reserve(run.len() * self.columns.len(), 0);
        for row in run {
            fill(&mut Row(Values::Postgres(&mut arguments)), row).map_err(sqlx::Error::Encode)?;
        }
        let text = self.postgres[log2(run)]
            .get_or_init(|| self.text("INSERT INTO", run.len(), |number| format!("${number}")));
        Ok((Arc::clone(text), arguments))
    }

    fn text(&self, insert: &str, rows: usize, place: impl Fn(usize) -> String) -> Arc<str> {
        let width = self.columns.len();
        let row = |index: usize| {
            let places: Vec<String> = (1..=width).map(|n| place(index * width + n)).collect();
            format!("({})", places.join(","))
        };
        let rows: Vec<String> = (0..rows).map(row).collect();
        let (name, columns) = (self.name, self.columns.join(", "));
        format!("{insert} {name} ({columns}) VALUES {} {}", rows.join(","), self.tail).into()
    }
}

fn log2<T>(run: &[T]) -> usize {
    run.len().checked_ilog2().map_or(0, |log| log as usize)
}
