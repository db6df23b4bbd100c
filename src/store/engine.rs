//! The two engines: connecting, migrating, and the macro that runs one text on both.

use std::{
    fmt,
    fs::{File, TryLockError},
    path::{Path, PathBuf},
    time::Duration,
};

use prometheus::HistogramVec;
use sqlx::{
    PgConnection, PgPool, SqliteConnection, SqlitePool,
    migrate::{MigrateError, Migrator},
    postgres::{PgConnectOptions, PgPoolOptions},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::{
    StoreError,
    reader::{Prepare, Reader, Readers},
};
use crate::metrics::Metrics;

static SQLITE_SCHEMA: Migrator = sqlx::migrate!("migrations/sqlite");
static POSTGRES_SCHEMA: Migrator = sqlx::migrate!("migrations/postgres");

/// The newest step of the schema that this program knows; both engines have the same steps.
pub(super) fn schema_version() -> i64 {
    POSTGRES_SCHEMA.iter().map(|step| step.version).max().unwrap_or_default()
}

/// Pages that a connection of SQLite keeps, in KiB: the writer's have to hold what one commit changes.
const WRITER_CACHE: &str = "-16384";
const READER_CACHE: &str = "-8192";
/// How long a statement waits for SQLite's write lock, which another process may hold for a moment.
const SQLITE_BUSY: Duration = Duration::from_secs(10);
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
/// Each has a thread of its own.
const SQLITE_READERS: usize = 4;
const SNAPSHOTS: u32 = 2;
/// One for each read that waits for the network.
const POSTGRES_READERS: usize = 16;
/// For transactions.
const POSTGRES_CONNECTIONS: u32 = 16;
/// Rows that a connection of SQLite reads ahead of who takes them: its thread is not waited for at every few.
const ROWS: usize = 1024;
/// Texts whose plans a connection remembers; more than it ever sees.
const STATEMENTS: usize = 256;

/// The store: SQLite in a file, or a PostgreSQL server. Cloning shares its connections.
#[derive(Clone)]
pub struct Db {
    pub(super) engine: Engine,
    /// How long write transactions took, by name.
    pub(super) durations: HistogramVec,
}

#[derive(Clone)]
pub(super) enum Engine {
    /// One connection writes, several read; WAL lets them work side by side.
    Sqlite {
        readers: Readers<SqliteConnection>,
        /// For reads of several statements.
        snapshots: SqlitePool,
        write: SqlitePool,
        path: PathBuf,
    },
    Postgres {
        readers: Readers<PgConnection>,
        pool: PgPool,
    },
}

impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Db")
    }
}

/// A borrowed connection, inside a transaction or not. What every store function takes.
pub enum Conn<'c> {
    Sqlite(&'c mut SqliteConnection),
    Postgres(&'c mut PgConnection),
}

/// A connection for reading outside a transaction: each statement sees one state, two may see two.
pub enum ReadSession {
    Sqlite(Reader<SqliteConnection>),
    Postgres(Reader<PgConnection>),
}

/// Runs one expression against the connection of either engine: `on!(conn, c => query.execute(c).await)`.
macro_rules! on {
    ($conn:expr, $c:ident => $body:expr) => {
        match $conn {
            $crate::store::Conn::Sqlite($c) => {
                let $c = &mut **$c;
                $body
            }
            $crate::store::Conn::Postgres($c) => {
                let $c = &mut **$c;
                $body
            }
        }
    };
}
pub(crate) use on;

impl ReadSession {
    pub fn conn(&mut self) -> Conn<'_> {
        match self {
            Self::Sqlite(reader) => Conn::Sqlite(reader.conn()),
            Self::Postgres(reader) => Conn::Postgres(reader.conn()),
        }
    }
}

/// Held while a daemon runs on a SQLite file, so that no second one follows the same chains beside it.
#[derive(Debug)]
pub struct ProcessLock {
    _file: File,
}

impl Db {
    /// Opens the store at `url` (`sqlite://path` or `postgres://…`) and brings its schema up to date,
    /// under a lock, so that several daemons may start at once. `metrics` tell how long its transactions take.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] with what to do: an unknown scheme, a folder that cannot be written, a
    /// database made by a version with another schema. [`StoreError::Unavailable`] if the server does not answer.
    pub async fn open(url: &str, metrics: &Metrics) -> Result<Self, StoreError> {
        let engine = if let Some(path) = url.strip_prefix("sqlite://") {
            Engine::open_sqlite(Path::new(path)).await?
        } else if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            Engine::open_postgres(url).await?
        } else {
            return Err(StoreError::Unusable(
                "database.url must begin with sqlite:// or postgres://".to_owned(),
            ));
        };
        let migrated = match &engine {
            Engine::Sqlite { write, .. } => SQLITE_SCHEMA.run(write).await,
            Engine::Postgres { pool, .. } => POSTGRES_SCHEMA.run(pool).await,
        };
        migrated.map_err(|error| match error {
            MigrateError::VersionMissing(version) => StoreError::Unusable(format!(
                "a newer version of tidemark has brought the database to schema {version}, this one knows {}: start \
                 that version",
                schema_version()
            )),
            // The hash of the text that made the database is stored in it.
            MigrateError::VersionMismatch(_) => StoreError::Unusable(
                "the database was made by another version of tidemark, with another schema, and there is no way from \
                 one to the other: start the version that made it, or point database.url at an empty database and \
                 register the wallets again"
                    .to_owned(),
            ),
            MigrateError::Dirty(version) => StoreError::Unusable(format!(
                "migration {version} was interrupted half-way: restore the database from a backup"
            )),
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
                StoreError::from(error)
            }
            other => StoreError::Unusable(format!("the schema cannot be brought up to date: {other}")),
        })?;
        Ok(Self { engine, durations: metrics.db_transaction_duration_seconds.clone() })
    }

    /// A standby of a PostgreSQL store, for reading. It is not asked for anything yet, and never migrated.
    pub(super) fn standby(url: &str, metrics: &Metrics) -> Result<Self, StoreError> {
        let options = postgres_options("database.read_url", url)?;
        let pool = postgres_pool().connect_lazy_with(options.clone());
        let readers = Readers::new(options, POSTGRES_READERS, ACQUIRE_TIMEOUT);
        let durations = metrics.db_transaction_duration_seconds.clone();
        Ok(Self { engine: Engine::Postgres { readers, pool }, durations })
    }

    /// Takes a connection for reading.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when no connection is to be had.
    pub async fn read(&self) -> Result<ReadSession, StoreError> {
        Ok(match &self.engine {
            Engine::Sqlite { readers, .. } => ReadSession::Sqlite(readers.lend().await?),
            Engine::Postgres { readers, .. } => ReadSession::Postgres(readers.lend().await?),
        })
    }

    /// Makes this process the only daemon on a SQLite file. PostgreSQL needs none.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] while another daemon runs on the same file.
    pub fn lock(&self) -> Result<Option<ProcessLock>, StoreError> {
        let Engine::Sqlite { path, .. } = &self.engine else { return Ok(None) };
        let mut name = path.as_os_str().to_owned();
        name.push(".lock");
        let path = PathBuf::from(name);
        let file = File::create(&path).map_err(|error| unwritable(&path, &error))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(ProcessLock { _file: file })),
            Err(TryLockError::WouldBlock) => Err(StoreError::Unusable(format!(
                "another tidemark daemon runs on this database ({} is locked): stop it first, or use \
                 PostgreSQL, which several daemons can share",
                path.display()
            ))),
            Err(TryLockError::Error(error)) => Err(unwritable(&path, &error)),
        }
    }

    /// A database of its own on a PostgreSQL server.
    #[cfg(test)]
    pub async fn create_for_test(server: &str, name: &str, metrics: &Metrics) -> Self {
        use sqlx::{AssertSqlSafe, Connection as _};
        let mut admin = PgConnection::connect(server).await.expect("the test server");
        let sql = format!("CREATE DATABASE {name}");
        sqlx::query(AssertSqlSafe(sql)).execute(&mut admin).await.expect("a database");
        let (server, _) = server.rsplit_once('/').expect("a URL with a database");
        Self::open(&format!("{server}/{name}"), metrics).await.expect("a store")
    }

    /// Ends what [`Db::create_for_test`] made, with its connections.
    #[cfg(test)]
    pub async fn drop_for_test(server: &str, name: &str) {
        use sqlx::{AssertSqlSafe, Connection as _};
        let mut admin = PgConnection::connect(server).await.expect("the test server");
        let sql = format!("DROP DATABASE {name} WITH (FORCE)");
        sqlx::query(AssertSqlSafe(sql)).execute(&mut admin).await.expect("it is dropped");
    }

    /// Closes the connections; what was committed stays.
    pub async fn close(&self) {
        match &self.engine {
            Engine::Sqlite { readers, snapshots, write, .. } => {
                readers.close().await;
                snapshots.close().await;
                write.close().await;
            }
            Engine::Postgres { readers, pool } => {
                readers.close().await;
                pool.close().await;
            }
        }
    }
}

/// What each connection to PostgreSQL is told first: to plan by the text of a statement and by its indexes.
///
/// Every statement of the store is written for an index on each side (a test reads their plans). A database that
/// is new has no statistics, and a plan that was made then, with tables that seemed to hold nothing, is kept and
/// run when they hold millions: reading a table or an index from end to end, sorting what an index has in order,
/// or hashing all of a table for a join, must not look cheap at any time, nor does an index that leads to more rows because they lie side by side. One plan per statement, whatever its values: the one that the test has read. And without
/// `jit`: what cannot do without such a step is priced so high that PostgreSQL would compile it first.
const POSTGRES_SESSION: &str = "
    SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off;
    SET random_page_cost = 1; SET plan_cache_mode = force_generic_plan; SET jit = off";

impl Prepare for PgConnection {
    async fn prepare(&mut self) -> Result<(), sqlx::Error> {
        sqlx::raw_sql(POSTGRES_SESSION).execute(self).await.map(|_| ())
    }
}

impl Prepare for SqliteConnection {
    /// All that it needs stands in its options. It never has statistics.
    async fn prepare(&mut self) -> Result<(), sqlx::Error> {
        Ok(())
    }
}

impl Engine {
    async fn open_sqlite(path: &Path) -> Result<Self, StoreError> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        if let Some(folder) = folder {
            std::fs::create_dir_all(folder).map_err(|error| unwritable(folder, &error))?;
        }
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(SQLITE_BUSY)
            .statement_cache_capacity(STATEMENTS)
            .row_buffer_size(ROWS)
            .pragma("cache_size", WRITER_CACHE)
            .pragma("wal_autocheckpoint", "4000");
        let open = |error: sqlx::Error| match error {
            sqlx::Error::Database(_) => StoreError::Unusable(format!(
                "the database {} cannot be opened: {error}. Check that its folder exists and can be written",
                path.display()
            )),
            other => StoreError::from(other),
        };
        let write = SqlitePoolOptions::new()
            .max_connections(1)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(options.clone())
            .await
            .map_err(open)?;
        // SQLite opens a read-only file without a word; writing tells.
        sqlx::query("PRAGMA user_version = 1").execute(&write).await.map_err(|error| {
            StoreError::Unusable(format!(
                "the database {} cannot be written: {error}. Make the file and its folder writable for this user, or point database.url elsewhere",
                path.display()
            ))
        })?;
        let options =
            options.read_only(true).create_if_missing(false).pragma("cache_size", READER_CACHE);
        let snapshots = SqlitePoolOptions::new()
            .max_connections(SNAPSHOTS)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .connect_with(options.clone())
            .await
            .map_err(open)?;
        let readers = Readers::new(options, SQLITE_READERS, ACQUIRE_TIMEOUT);
        Ok(Self::Sqlite { readers, snapshots, write, path: path.to_owned() })
    }

    async fn open_postgres(url: &str) -> Result<Self, StoreError> {
        let options = postgres_options("database.url", url)?;
        let pool = postgres_pool().connect_with(options.clone()).await?;
        let readers = Readers::new(options, POSTGRES_READERS, ACQUIRE_TIMEOUT);
        Ok(Self::Postgres { readers, pool })
    }
}

fn postgres_options(key: &str, url: &str) -> Result<PgConnectOptions, StoreError> {
    let options: PgConnectOptions = url.parse().map_err(|error: sqlx::Error| {
        StoreError::Unusable(format!("{key} is not a PostgreSQL URL: {error}"))
    })?;
    Ok(options.statement_cache_capacity(STATEMENTS))
}

fn postgres_pool() -> PgPoolOptions {
    PgPoolOptions::new()
        .max_connections(POSTGRES_CONNECTIONS)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .after_connect(|conn, _| Box::pin(conn.prepare()))
}

fn unwritable(path: &Path, error: &std::io::Error) -> StoreError {
    StoreError::Unusable(format!(
        "{} cannot be written: {error}. Make it writable for this user, or point database.url elsewhere",
        path.display()
    ))
}
