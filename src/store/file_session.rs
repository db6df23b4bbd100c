//! A connection to a SQLite file, and the transaction on it.
//!
//! sqlx counts transactions by itself. When SQLite has ended one (no space is left, the disk fails), sqlx's own
//! rollback finds none, counts it as open for ever, and begins no other on that connection. So they are begun and
//! ended here, and a connection on which that fails is opened anew.

use std::time::Duration;

use sqlx::{Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};

use super::pool::Pooled;

/// How long a statement waits for SQLite's write lock, which another process may hold for a moment.
pub(super) const BUSY: Duration = Duration::from_secs(10);

pub struct FileSession {
    connection: SqliteConnection,
    /// A transaction was begun, and its end not seen.
    open: bool,
}

impl FileSession {
    pub fn connection(&mut self) -> &mut SqliteConnection {
        &mut self.connection
    }

    pub async fn begin(&mut self, begin: &'static str) -> Result<(), sqlx::Error> {
        self.open = true;
        sqlx::query(begin).execute(&mut self.connection).await.map(|_| ())
    }

    pub async fn commit(&mut self) -> Result<(), sqlx::Error> {
        sqlx::query("COMMIT").execute(&mut self.connection).await?;
        self.open = false;
        Ok(())
    }
}

impl Pooled for FileSession {
    type Options = SqliteConnectOptions;

    /// After a crash the first one reads the whole log.
    const OPENING: Duration = Duration::from_mins(1);
    /// A statement that nobody waits for any more may wait for the lock.
    const CLEANING: Duration = BUSY.saturating_add(Duration::from_secs(1));

    async fn open(options: &SqliteConnectOptions) -> Result<Self, sqlx::Error> {
        Ok(Self { connection: SqliteConnection::connect_with(options).await?, open: false })
    }

    fn is_clean(&self) -> bool {
        !self.open
    }

    async fn clean(&mut self) -> Result<(), sqlx::Error> {
        if self.open {
            sqlx::query("ROLLBACK").execute(&mut self.connection).await?;
            self.open = false;
            return Ok(());
        }
        self.connection.ping().await
    }

    async fn close(self) {
        // It is gone either way.
        let _ = self.connection.close().await;
    }
}
