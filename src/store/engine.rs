//! The two engines: connecting, migrating, and the macro that runs one text on both.

use std::{
    fmt,
    fs::{File, TryLockError},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::FutureExt as _;
use prometheus::HistogramVec;
use sqlx::{
    SqliteConnection,
    migrate::{MigrateError, Migrator},
    postgres::PgConnectOptions,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};

use super::{
    StoreError,
    file_session::{BUSY, FileSession},
    outage::{Cause, Health},
    pool::{self, Lent, Pool, Pooled as _},
    session::{Session, SessionOptions},
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
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
/// Each has a thread of its own.
const SQLITE_READERS: usize = 4;
const SNAPSHOTS: usize = 2;
/// One for each read that waits for the network.
const POSTGRES_READERS: usize = 16;
/// For transactions.
const POSTGRES_CONNECTIONS: usize = 16;
/// As for leases, though nobody holds one at a standby: a read that does nothing for long is ended there.
const STANDBY: Duration = Duration::from_secs(10);
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
    /// What came of them.
    pub(super) health: Arc<Health>,
}

#[derive(Clone)]
pub(super) enum Engine {
    /// One connection writes, several read; WAL lets them work side by side.
    Sqlite {
        readers: Pool<FileSession>,
        /// For reads of several statements.
        snapshots: Pool<FileSession>,
        write: Pool<FileSession>,
        path: PathBuf,
    },
    Postgres {
        readers: Pool<Session>,
        pool: Pool<Session>,
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
    Postgres(&'c mut Session),
}

/// A connection for reading outside a transaction: each statement sees one state, two may see two.
pub enum ReadSession {
    Sqlite(Lent<FileSession>),
    Postgres(Lent<Session>),
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
            Self::Sqlite(reader) => Conn::Sqlite(reader.conn().connection()),
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
    /// For a command, which may take its time; [`Db::open_for_daemon`] is for what never stops.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] with what to do: an unknown scheme, a folder that cannot be written, a
    /// database made by a version with another schema. [`StoreError::Unavailable`] if the server does not answer.
    pub async fn open(url: &str, metrics: &Metrics) -> Result<Self, StoreError> {
        Self::open_within(url, metrics, None).await
    }

    /// The same for a daemon whose leases last so long: the server ends a statement of its after five minutes, the wait
    /// for a lock after 5 s, and a transaction in which nothing happens before a lease has run out.
    ///
    /// # Errors
    /// As [`Db::open`].
    pub async fn open_for_daemon(
        url: &str,
        lease: Duration,
        metrics: &Metrics,
    ) -> Result<Self, StoreError> {
        Self::open_within(url, metrics, Some(lease)).await
    }

    async fn open_within(
        url: &str,
        metrics: &Metrics,
        lease: Option<Duration>,
    ) -> Result<Self, StoreError> {
        let engine = if let Some(path) = url.strip_prefix("sqlite://") {
            Engine::open_sqlite(Path::new(path)).await?
        } else if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            Engine::postgres("database.url", url, lease)?
        } else {
            return Err(StoreError::Unusable(
                "database.url must begin with sqlite:// or postgres://".to_owned(),
            ));
        };
        engine.migrate().await?;
        let durations = metrics.db_transaction_duration_seconds.clone();
        Ok(Self { engine, durations, health: Arc::default() })
    }

    /// Why nothing can be written, as far as that is known: by what came of the last writes, and by what the server
    /// says of itself. `None` if nothing speaks against it.
    ///
    /// # Errors
    /// [`StoreError`] of the engine.
    pub async fn trouble(&self) -> Result<Option<Cause>, StoreError> {
        if let Engine::Postgres { pool, .. } = &self.engine {
            let sql = "SHOW transaction_read_only";
            let read_only: String =
                sqlx::query_scalar(sql).fetch_one(pool.lend().await?.conn()).await?;
            if read_only == "on" {
                return Ok(Some(Cause::ReadOnly));
            }
        }
        Ok(self.health.trouble(Instant::now()))
    }

    /// A standby of a PostgreSQL store, for reading. It is not asked for anything yet, and never migrated.
    pub(super) fn standby(url: &str, metrics: &Metrics) -> Result<Self, StoreError> {
        let engine = Engine::postgres("database.read_url", url, Some(STANDBY))?;
        let durations = metrics.db_transaction_duration_seconds.clone();
        Ok(Self { engine, durations, health: Arc::default() })
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
        use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
        let mut admin = PgConnection::connect(server).await.expect("the test server");
        let sql = format!("CREATE DATABASE {name}");
        sqlx::query(AssertSqlSafe(sql)).execute(&mut admin).await.expect("a database");
        let (server, _) = server.rsplit_once('/').expect("a URL with a database");
        Self::open(&format!("{server}/{name}"), metrics).await.expect("a store")
    }

    /// Ends what [`Db::create_for_test`] made, with its connections.
    #[cfg(test)]
    pub async fn drop_for_test(server: &str, name: &str) {
        use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
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
                pool.options().close().await;
            }
        }
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
            .busy_timeout(BUSY)
            .statement_cache_capacity(STATEMENTS)
            .row_buffer_size(ROWS)
            .pragma("cache_size", WRITER_CACHE)
            .pragma("wal_autocheckpoint", "4000");
        let write: Pool<FileSession> = Pool::new(options.clone(), 1, ACQUIRE_TIMEOUT);
        let mut writer = write.lend().await.map_err(|error| match error {
            error @ StoreError::Unusable(_) => error,
            error => StoreError::Unusable(format!(
                "the database {} cannot be opened: {error}. Check that its folder exists and can be written",
                path.display()
            )),
        })?;
        // SQLite opens a read-only file without a word; writing tells.
        let written = sqlx::query("PRAGMA user_version = 1").execute(writer.conn().connection());
        written.await.map_err(|error| {
            StoreError::Unusable(format!(
                "the database {} cannot be written: {error}. Make the file and its folder writable for this user, or point database.url elsewhere",
                path.display()
            ))
        })?;
        drop(writer);
        let options =
            options.read_only(true).create_if_missing(false).pragma("cache_size", READER_CACHE);
        let snapshots = Pool::new(options.clone(), SNAPSHOTS, ACQUIRE_TIMEOUT);
        let readers = Pool::new(options, SQLITE_READERS, ACQUIRE_TIMEOUT);
        Ok(Self::Sqlite { readers, snapshots, write, path: path.to_owned() })
    }

    fn postgres(key: &str, url: &str, lease: Option<Duration>) -> Result<Self, StoreError> {
        let options: PgConnectOptions = url.parse().map_err(|error: sqlx::Error| {
            StoreError::Unusable(format!("{key} is not a PostgreSQL URL: {error}"))
        })?;
        let options = SessionOptions::new(options.statement_cache_capacity(STATEMENTS), lease);
        let readers = Pool::new(options.clone(), POSTGRES_READERS, ACQUIRE_TIMEOUT);
        let pool = Pool::new(options, POSTGRES_CONNECTIONS, ACQUIRE_TIMEOUT);
        Ok(Self::Postgres { readers, pool })
    }

    pub(super) async fn migrate(&self) -> Result<(), StoreError> {
        let migrated = match self {
            Self::Sqlite { write, .. } => {
                let mut session = write.lend().await?;
                SQLITE_SCHEMA.run_direct(None, session.conn().connection(), false).await
            }
            Self::Postgres { pool, .. } => {
                let mut session: Session = pool::open(&pool.options().unlimited()).await?;
                let migrated = session
                    .run(|conn| {
                        async move { Ok(POSTGRES_SCHEMA.run_direct(None, conn, false).await) }
                            .boxed()
                    })
                    .await?;
                session.close().await;
                migrated
            }
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
        })
    }
}

fn unwritable(path: &Path, error: &std::io::Error) -> StoreError {
    StoreError::Unusable(format!(
        "{} cannot be written: {error}. Make it writable for this user, or point database.url elsewhere",
        path.display()
    ))
}
