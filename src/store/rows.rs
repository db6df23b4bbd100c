//! Adding rows to a table, however many, in runs; while the engine takes one run, the next is made ready.
//!
//! SQLite takes a run as multi-row `VALUES`, in lengths that are powers of two, so that there are few texts.
//! PostgreSQL takes one array per column: one text for all lengths, which each connection parses and plans once.

use std::sync::{Arc, OnceLock};

use futures::future::join;
use sqlx::{
    Arguments, AssertSqlSafe, Encode, FromRow, Postgres, Sqlite, Type,
    encode::IsNull,
    error::BoxDynError,
    postgres::{PgArgumentBuffer, PgArguments, PgRow, PgTypeInfo, types::Oid},
    sqlite::{SqliteArguments, SqliteRow},
};

use super::{
    Conn, StoreError,
    set::{MOST_ROWS, runs},
};

/// Rows that PostgreSQL takes at once: enough that a round trip does not count.
const ROWS_OF_ARRAYS: usize = 2048;
/// How many lengths a run of SQLite can have.
const LENGTHS: usize = MOST_ROWS.ilog2() as usize + 1;

/// A table, the columns that are written, and what follows the rows in the statement.
pub(super) struct Table {
    name: &'static str,
    columns: &'static [&'static str],
    /// A column that SQLite does not write as it is given, and the expression for it, over the rows `added`.
    computed: Option<(&'static str, &'static str)>,
    tail: &'static str,
    /// The statements for runs of 1, 2, 4, … rows.
    sqlite: [OnceLock<Arc<str>>; LENGTHS],
    postgres: OnceLock<Arc<str>>,
}

/// The values of one row, in the order of the table's columns.
pub(super) struct Row<'a>(Values<'a>);

enum Values<'a> {
    Sqlite(&'a mut SqliteArguments),
    Postgres(std::slice::IterMut<'a, Array>),
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
            Values::Postgres(columns) => columns
                .next()
                .ok_or("a row has more values than the table has columns")?
                .push(value),
        }
    }
}

/// A column of a run, in the binary form of PostgreSQL's arrays (`array_recv` in its source): the number of
/// dimensions, whether there are nulls, the elements' type, their count, the first index, then each element
/// behind its length, which is -1 for null.
#[derive(Default)]
struct Array {
    elements: PgArgumentBuffer,
    count: i32,
    nulls: bool,
    element: Option<Oid>,
}

impl Array {
    fn push<'q, T: Encode<'q, Postgres> + Type<Postgres>>(
        &mut self,
        value: T,
    ) -> Result<(), BoxDynError> {
        self.element = T::type_info().oid();
        self.count += 1;
        let start = self.elements.len();
        self.elements.extend_from_slice(&(-1i32).to_be_bytes());
        match value.encode(&mut self.elements)? {
            IsNull::Yes => self.nulls = true,
            IsNull::No => {
                let length = i32::try_from(self.elements.len() - start - size_of::<i32>())?;
                self.elements[start..start + size_of::<i32>()]
                    .copy_from_slice(&length.to_be_bytes());
            }
        }
        Ok(())
    }

    /// The array type of an element's type, by the numbers in PostgreSQL's `pg_type.dat`.
    fn oid(&self) -> Result<Oid, BoxDynError> {
        let element = self.element.ok_or("a column of no type")?;
        Ok(Oid(match element.0 {
            16 => 1000,
            17 => 1001,
            20 => 1016,
            21 => 1005,
            25 => 1009,
            1700 => 1231,
            2950 => 2951,
            other => return Err(format!("columns of type {other} are not written in sets").into()),
        }))
    }
}

impl Type<Postgres> for Array {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_name("anyarray")
    }
}

impl Encode<'_, Postgres> for Array {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        let element = self.element.ok_or("a column of no type")?;
        for field in [1, i32::from(self.nulls)] {
            buffer.extend_from_slice(&field.to_be_bytes());
        }
        buffer.extend_from_slice(&element.0.to_be_bytes());
        for field in [self.count, 1] {
            buffer.extend_from_slice(&field.to_be_bytes());
        }
        buffer.extend_from_slice(&self.elements);
        Ok(IsNull::No)
    }

    fn produces(&self) -> Option<PgTypeInfo> {
        self.oid().ok().map(PgTypeInfo::with_oid)
    }
}

impl Table {
    /// A table whose rows are only added.
    pub const fn new(name: &'static str, columns: &'static [&'static str]) -> Self {
        Self::upsert(name, columns, "")
    }

    /// A table whose rows are only added, on SQLite with `column` as `expression` makes it of the row, which is
    /// called `added`, and of other tables.
    pub const fn computed(
        name: &'static str,
        columns: &'static [&'static str],
        column: &'static str,
        expression: &'static str,
    ) -> Self {
        let mut table = Self::new(name, columns);
        table.computed = Some((column, expression));
        table
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
            computed: None,
            tail,
            sqlite: [const { OnceLock::new() }; LENGTHS],
            postgres: OnceLock::new(),
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
        // The same for both engines, whose types have no common trait for it.
        macro_rules! run_all {
            ($c:expr, $runs:expr) => {{
                let mut runs = $runs;
                let mut next = runs.next().transpose()?;
                while let Some((sql, arguments)) = next {
                    let query = sqlx::query_with(AssertSqlSafe(sql), arguments);
                    let (done, ready) =
                        join(query.execute(&mut **$c), async { runs.next().transpose() }).await;
                    written += done?.rows_affected();
                    next = ready?;
                }
            }};
        }
        match conn {
            Conn::Sqlite(c) => run_all!(c, runs(rows).map(|run| self.sqlite(run, &fill))),
            Conn::Postgres(c) => {
                run_all!(c, rows.chunks(ROWS_OF_ARRAYS).map(|run| self.postgres(run, &fill)));
            }
        }
        Ok(written)
    }

    /// Writes `rows`, and gives what the tail's `RETURNING` names, in no order.
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
        match conn {
            Conn::Sqlite(c) => {
                for run in runs(rows) {
                    let (sql, arguments) = self.sqlite(run, &fill)?;
                    let query = sqlx::query_as_with(AssertSqlSafe(sql), arguments);
                    returned.append(&mut query.fetch_all(&mut **c).await?);
                }
            }
            Conn::Postgres(c) => {
                for run in rows.chunks(ROWS_OF_ARRAYS) {
                    let (sql, arguments) = self.postgres(run, &fill)?;
                    let query = sqlx::query_as_with(AssertSqlSafe(sql), arguments);
                    returned.append(&mut query.fetch_all(&mut **c).await?);
                }
            }
        }
        Ok(returned)
    }

    /// What is selected of the rows `added`, if not all of it as it is.
    fn select(&self) -> Option<String> {
        let (computed, expression) = self.computed?;
        let column = |column: &&'static str| if *column == computed { expression } else { column };
        Some(self.columns.iter().map(column).collect::<Vec<_>>().join(", "))
    }

    fn sqlite<T>(
        &self,
        run: &[T],
        fill: impl Fn(&mut Row<'_>, &T) -> Result<(), BoxDynError>,
    ) -> Result<(Arc<str>, SqliteArguments), StoreError> {
        let mut arguments = SqliteArguments::default();
        arguments.reserve(run.len() * self.columns.len(), 0);
        for row in run {
            fill(&mut Row(Values::Sqlite(&mut arguments)), row).map_err(sqlx::Error::Encode)?;
        }
        let length = run.len().checked_ilog2().map_or(0, |log| log as usize);
        let text = self.sqlite[length].get_or_init(|| {
            // OR FAIL: whoever meets an error undoes the whole transaction, so SQLite need not be able to undo
            // the statement alone, which costs a copy of each page.
            let insert = if self.tail.is_empty() { "INSERT OR FAIL" } else { "INSERT" };
            let row = format!("({})", vec!["?"; self.columns.len()].join(","));
            let rows = vec![row; run.len()].join(",");
            let (name, columns, tail) = (self.name, self.columns.join(", "), self.tail);
            match self.select() {
                None => format!("{insert} INTO {name} ({columns}) VALUES {rows} {tail}").into(),
                Some(select) => format!(
                    "WITH added ({columns}) AS (VALUES {rows})
                     {insert} INTO {name} ({columns}) SELECT {select} FROM added"
                )
                .into(),
            }
        });
        Ok((Arc::clone(text), arguments))
    }

    fn postgres<T>(
        &self,
        run: &[T],
        fill: impl Fn(&mut Row<'_>, &T) -> Result<(), BoxDynError>,
    ) -> Result<(Arc<str>, PgArguments), StoreError> {
        let mut columns: Vec<Array> = Vec::new();
        columns.resize_with(self.columns.len(), Array::default);
        for row in run {
            fill(&mut Row(Values::Postgres(columns.iter_mut())), row)
                .map_err(sqlx::Error::Encode)?;
        }
        let mut arguments = PgArguments::default();
        for column in columns {
            column.oid().map_err(sqlx::Error::Encode)?;
            arguments.add(column).map_err(sqlx::Error::Encode)?;
        }
        let text = self.postgres.get_or_init(|| {
            let places: Vec<String> =
                (1..=self.columns.len()).map(|number| format!("${number}")).collect();
            let (name, columns, tail) = (self.name, self.columns.join(", "), self.tail);
            let places = places.join(", ");
            format!("INSERT INTO {name} ({columns}) SELECT * FROM unnest({places}) {tail}").into()
        });
        Ok((Arc::clone(text), arguments))
    }
}
