//! Lists to look up by, in one statement.
//!
//! A list is one bound value, so that a statement has one text however long the list is: PostgreSQL takes an
//! array, SQLite a JSON array that it unpacks by itself. In a text, `IN ints($2)`, `IN blobs($2)` and
//! `watches($1, $2)` stand for what the engine needs. Lists of several columns go in by multi-row `VALUES`, in runs of a power of two, so
//! that there are few texts to prepare. [`super::rows`] adds rows.

use std::fmt::Write as _;

use sqlx::{
    AssertSqlSafe, Encode, Postgres, Sqlite, Type,
    encode::IsNull,
    error::BoxDynError,
    postgres::{PgArgumentBuffer, PgTypeInfo},
    sqlite::{SqliteArgumentsBuffer, SqliteTypeInfo},
};

use super::Conn;

/// Rows in one statement at most. More are not quicker, and a statement's text grows with them.
pub(super) const MOST_ROWS: usize = 256;

/// A list of numbers for `IN ints($n)`.
pub(super) struct Ints(pub Vec<i64>);

/// A list of byte strings for `IN blobs($n)`.
pub(super) struct Blobs(pub Vec<Vec<u8>>);

impl Ints {
    pub fn of(numbers: impl IntoIterator<Item = i64>) -> Self {
        let mut all: Vec<i64> = numbers.into_iter().collect();
        all.sort_unstable();
        all.dedup();
        Self(all)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Blobs {
    pub fn of<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut all: Vec<Vec<u8>> = values.into_iter().map(<[u8]>::to_vec).collect();
        all.sort_unstable();
        all.dedup();
        Self(all)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Type<Sqlite> for Ints {
    fn type_info() -> SqliteTypeInfo {
        <String as Type<Sqlite>>::type_info()
    }
}

impl Encode<'_, Sqlite> for Ints {
    fn encode_by_ref(&self, buffer: &mut SqliteArgumentsBuffer) -> Result<IsNull, BoxDynError> {
        let mut json = String::with_capacity(8 * self.0.len() + 2);
        json.push('[');
        for (index, number) in self.0.iter().enumerate() {
            if index > 0 {
                json.push(',');
            }
            write!(json, "{number}")?;
        }
        json.push(']');
        Encode::<Sqlite>::encode(json, buffer)
    }
}

impl Type<Postgres> for Ints {
    fn type_info() -> PgTypeInfo {
        <Vec<i64> as Type<Postgres>>::type_info()
    }
}

impl Encode<'_, Postgres> for Ints {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        Encode::<Postgres>::encode_by_ref(&self.0, buffer)
    }
}

impl Type<Sqlite> for Blobs {
    fn type_info() -> SqliteTypeInfo {
        <String as Type<Sqlite>>::type_info()
    }
}

impl Encode<'_, Sqlite> for Blobs {
    fn encode_by_ref(&self, buffer: &mut SqliteArgumentsBuffer) -> Result<IsNull, BoxDynError> {
        let mut json = String::with_capacity(48 * self.0.len() + 2);
        json.push('[');
        for (index, bytes) in self.0.iter().enumerate() {
            json.push_str(if index > 0 { ",\"" } else { "\"" });
            json.push_str(&hex::encode(bytes));
            json.push('"');
        }
        json.push(']');
        Encode::<Sqlite>::encode(json, buffer)
    }
}

impl Type<Postgres> for Blobs {
    fn type_info() -> PgTypeInfo {
        <Vec<Vec<u8>> as Type<Postgres>>::type_info()
    }
}

impl Encode<'_, Postgres> for Blobs {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        Encode::<Postgres>::encode_by_ref(&self.0, buffer)
    }
}

/// The text for this engine, with what its words stand for. `watches($n, $m)` are the watches of chain `$n` with the
/// addresses `$m`, each looked up by itself: of a list, PostgreSQL would read all of a chain's as long as they seem to
/// be few, and `OFFSET` keeps it from making a join of it, whose order it could choose. It is a text of this program, with nothing of a user's in it.
pub(super) fn sets(conn: &Conn<'_>, sql: &str) -> AssertSqlSafe<String> {
    const WORDS: [&str; 3] = ["IN ints(", "IN blobs(", "watches("];
    let mut out = String::with_capacity(sql.len() + 128);
    let mut rest = sql;
    let next = |rest: &str| {
        let found = WORDS.iter().filter_map(|word| Some((rest.find(word)?, *word)));
        found.min()
    };
    while let Some((at, word)) = next(rest) {
        out.push_str(&rest[..at]);
        let tail = &rest[at + word.len()..];
        let (arguments, after) = tail.split_once(')').unwrap_or((tail, ""));
        let arguments: Vec<&str> = arguments.split(", ").collect();
        out.push_str(&meaning(conn, word, &arguments));
        rest = after;
    }
    out.push_str(rest);
    AssertSqlSafe(out)
}

/// What one of the words with its arguments stands for.
fn meaning(conn: &Conn<'_>, word: &str, arguments: &[&str]) -> String {
    match (conn, word, arguments) {
        (Conn::Sqlite(_), "IN ints(", [list]) => format!("IN (SELECT value FROM json_each({list}))"),
        (Conn::Sqlite(_), "IN blobs(", [list]) => {
            format!("IN (SELECT unhex(value) FROM json_each({list}))")
        }
        (Conn::Postgres(_), "IN ints(" | "IN blobs(", [list]) => format!("= ANY({list})"),
        (Conn::Sqlite(_), _, [chain, list]) => format!(
            "(SELECT * FROM watch
              WHERE chain_no = {chain} AND address IN (SELECT unhex(value) FROM json_each({list})))"
        ),
        (Conn::Postgres(_), _, [chain, list]) => format!(
            "(SELECT found.* FROM unnest({list}) AS asked (place) CROSS JOIN LATERAL (
                  SELECT * FROM watch WHERE chain_no = {chain} AND address = asked.place OFFSET 0) AS found)"
        ),
        // Not one of these words after all.
        _ => format!("{word}{})", arguments.join(", ")),
    }
}

/// Cuts rows into runs whose lengths are powers of two.
pub(super) fn runs<T>(rows: &[T]) -> impl Iterator<Item = &[T]> {
    let mut rest = rows;
    std::iter::from_fn(move || {
        let most = rest.len().min(MOST_ROWS);
        let length = 1usize << most.checked_ilog2()?;
        let (run, left) = rest.split_at(length);
        rest = left;
        Some(run)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_go_in_runs_of_powers_of_two_and_none_is_left_out() {
        let rows: Vec<u32> = (0..700).collect();
        let lengths: Vec<usize> = runs(&rows).map(<[u32]>::len).collect();
        assert_eq!(lengths, [256, 256, 128, 32, 16, 8, 4]);
        assert_eq!(runs(&rows).flatten().copied().collect::<Vec<_>>(), rows);
        assert_eq!(runs::<u32>(&[]).count(), 0);
    }
}
