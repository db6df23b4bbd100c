//! More wallets than HTTP brings in an acceptable time, written into a store directly. This is the only place of
//! the benches that names the schema.
//!
//! A wallet that the daemon registered and opened is the pattern: the rows that it has are written again and
//! again, alike in every column but those that tell one wallet from another.

use anyhow::{Context as _, ensure};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, SqliteConnection};

use super::store::{Direct, Store};

/// A table of which each wallet has one row, and what is its own in it: columns, and an expression of the
/// number `n` and of the pattern's row `p` for each engine.
struct Table {
    name: &'static str,
    own: &'static [Own],
}

struct Own {
    column: &'static str,
    sqlite: &'static str,
    postgres: &'static str,
}

/// Above every number that a daemon gave.
const NO: &str = "1000000000 + n";
/// A `UUIDv7` of the year 2020, one for each millisecond.
const ID: (&str, &str) = (
    "unhex(printf('%012x70008000000000000000', 1577836800000 + n))",
    "(lpad(to_hex(1577836800000 + n), 12, '0') || '70008000000000000000')::uuid",
);
/// Without any order, as addresses are.
const ADDRESS: (&str, &str) =
    ("randomblob(length(p.address))", "substr(sha256(int8send(n)), 1, length(p.address))");
/// The address of the wallet that the row belongs to.
const ITS_ADDRESS: (&str, &str) =
    ("(SELECT address FROM wallet WHERE no = 1000000000 + n)", ADDRESS.1);

const TABLES: &[Table] = &[
    Table {
        name: "wallet",
        own: &[
            Own { column: "no", sqlite: NO, postgres: NO },
            Own { column: "id", sqlite: ID.0, postgres: ID.1 },
            Own { column: "address", sqlite: ADDRESS.0, postgres: ADDRESS.1 },
        ],
    },
    Table {
        name: "watch",
        own: &[
            Own { column: "wallet_no", sqlite: NO, postgres: NO },
            Own { column: "address", sqlite: ITS_ADDRESS.0, postgres: ITS_ADDRESS.1 },
        ],
    },
];

/// What is counted of the watches.
const COUNT: &str = "DELETE FROM watch_count;
    INSERT INTO watch_count (tenant_no, chain_no, addresses)
    SELECT tenant_no, chain_no, COUNT(*) FROM watch WHERE status IN (0, 1) GROUP BY tenant_no, chain_no";

/// Adds the wallets `from` to `to` (not included), each a copy of one that is there. No daemon may run on the
/// store meanwhile.
pub async fn wallets(store: &Store, from: u64, to: u64) -> anyhow::Result<()> {
    match store.connect().await? {
        Direct::Sqlite(c) => sqlite(c, from, to).await,
        Direct::Postgres(c) => postgres(c, from, to).await,
    }
}

async fn sqlite(mut c: SqliteConnection, from: u64, to: u64) -> anyhow::Result<()> {
    // Only while this is written: the daemon opens the file in its own way again.
    c.execute("PRAGMA journal_mode = DELETE").await?;
    c.execute("PRAGMA journal_mode = OFF").await?;
    c.execute("PRAGMA synchronous = OFF").await?;
    c.execute("PRAGMA cache_size = -4000000").await?;
    c.execute("PRAGMA foreign_keys = OFF").await?;
    for Table { name, own } in TABLES {
        // Made anew when the rows are there, which takes a fraction of the time.
        let indexes: Vec<(String, String)> = sqlx::query_as(
            "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = ? AND sql IS NOT NULL",
        )
        .bind(name)
        .fetch_all(&mut c)
        .await?;
        let columns: Vec<String> =
            sqlx::query_scalar("SELECT name FROM pragma_table_info(?) ORDER BY cid")
                .bind(name)
                .fetch_all(&mut c)
                .await?;
        let values = values(&columns, own, |own| own.sqlite)?;
        let mut tx = c.begin().await?;
        for (index, _) in &indexes {
            tx.execute(AssertSqlSafe(format!("DROP INDEX {index}"))).await?;
        }
        let insert = format!(
            "WITH RECURSIVE numbers (n) AS (VALUES ({from}) UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < {to})
             INSERT INTO {name} ({}) SELECT {values} FROM (SELECT * FROM {name} LIMIT 1) p, numbers",
            columns.join(", ")
        );
        let written = tx.execute(AssertSqlSafe(insert)).await?.rows_affected();
        ensure!(written == to - from, "{written} rows in {name}");
        for (_, sql) in indexes {
            tx.execute(AssertSqlSafe(sql)).await?;
        }
        tx.commit().await?;
    }
    c.execute(COUNT).await?;
    Ok(c.close().await?)
}

async fn postgres(mut c: PgConnection, from: u64, to: u64) -> anyhow::Result<()> {
    c.execute("SET synchronous_commit = off").await?;
    c.execute("SET maintenance_work_mem = '1GB'").await?;
    // Foreign keys are not looked up for each row.
    c.execute("SET session_replication_role = replica").await?;
    for Table { name, own } in TABLES {
        let columns: Vec<String> = sqlx::query_scalar(
            "SELECT column_name::text FROM information_schema.columns
             WHERE table_schema = 'public' AND table_name = $1 AND is_generated = 'NEVER'
             ORDER BY ordinal_position",
        )
        .bind(name)
        .fetch_all(&mut c)
        .await?;
        // Made anew when the rows are there, which takes a fraction of the time.
        let indexes: Vec<(String, String)> = sqlx::query_as(
            "SELECT 'DROP INDEX ' || indexname, indexdef FROM pg_indexes
             WHERE tablename = $1 AND indexname NOT IN (SELECT conname FROM pg_constraint)
             UNION ALL
             SELECT format('ALTER TABLE %I DROP CONSTRAINT %I', $1, conname),
                    format('ALTER TABLE %I ADD CONSTRAINT %I %s', $1, conname, pg_get_constraintdef(oid))
             FROM pg_constraint one
             WHERE conrelid = $1::regclass AND contype IN ('p', 'u') AND NOT EXISTS
                (SELECT FROM pg_constraint WHERE confrelid = one.conrelid AND contype = 'f')",
        )
        .bind(name)
        .fetch_all(&mut c)
        .await?;
        let values = values(&columns, own, |own| own.postgres)?;
        let mut tx = c.begin().await?;
        for (drop, _) in &indexes {
            tx.execute(AssertSqlSafe(drop.clone())).await?;
        }
        let insert = format!(
            "INSERT INTO {name} ({}) OVERRIDING SYSTEM VALUE SELECT {values}
             FROM (SELECT * FROM {name} LIMIT 1) p, generate_series({from}::bigint, {to}::bigint - 1) n",
            columns.join(", ")
        );
        let written = tx.execute(AssertSqlSafe(insert)).await?.rows_affected();
        ensure!(written == to - from, "{written} rows in {name}");
        for (_, make) in indexes {
            tx.execute(AssertSqlSafe(make)).await?;
        }
        tx.commit().await?;
        // As the server would by itself, a moment later.
        c.execute(AssertSqlSafe(format!("VACUUM ANALYZE {name}"))).await?;
    }
    c.execute(COUNT).await?;
    c.execute("CHECKPOINT").await?;
    Ok(c.close().await?)
}

/// What is selected for each column: its own value, or the pattern's.
fn values(
    columns: &[String],
    own: &[Own],
    engine: impl Fn(&Own) -> &'static str,
) -> anyhow::Result<String> {
    for Own { column, .. } in own {
        columns
            .iter()
            .find(|name| name == column)
            .with_context(|| format!("no column {column}"))?;
    }
    let value = |column: &String| {
        let own = own.iter().find(|own| own.column == column);
        own.map_or_else(|| format!("p.{column}"), |own| engine(own).to_owned())
    };
    Ok(columns.iter().map(value).collect::<Vec<_>>().join(", "))
}
