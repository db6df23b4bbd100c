//! A store of its own for each test.

use alloy::primitives::hex;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tempfile::TempDir;

/// Where a daemon keeps what it knows; outlives the daemon.
pub enum Store {
    Sqlite { folder: TempDir },
    Postgres { url: String },
}

impl Store {
    pub fn sqlite() -> Self {
        Self::Sqlite { folder: tempfile::tempdir().unwrap() }
    }

    /// A new database on the server that `tests/run` started.
    pub async fn postgres() -> Self {
        let server = std::env::var("TIDEMARK_TEST_POSTGRES_URL")
            .expect("TIDEMARK_TEST_POSTGRES_URL is not set: run tests/run");
        let name = format!("it_{}", hex::encode(rand::random::<[u8; 8]>()));
        let mut connection = PgConnection::connect(&server).await.unwrap();
        sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}")))
            .execute(&mut connection)
            .await
            .unwrap();
        let mut url = url::Url::parse(&server).unwrap();
        url.set_path(&name);
        Self::Postgres { url: url.into() }
    }

    /// A new one of the same kind.
    pub async fn another(&self) -> Self {
        match self {
            Self::Sqlite { .. } => Self::sqlite(),
            Self::Postgres { .. } => Self::postgres().await,
        }
    }

    pub fn url(&self) -> String {
        match self {
            Self::Sqlite { folder } => {
                format!("sqlite://{}", folder.path().join("tidemark.db").display())
            }
            Self::Postgres { url } => url.clone(),
        }
    }
}
