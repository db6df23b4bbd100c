//! Where the store is, and the standby that may answer for it.

use std::time::Duration;

use super::{
    ConfigError, ReplicaConfig, Secret,
    check::{seconds, secret},
    raw::RawDatabase,
};

const DEFAULT: &str = "sqlite://data/tidemark.db";
const POSTGRES: [&str; 2] = ["postgres://", "postgresql://"];

fn is_postgres(url: &Secret) -> bool {
    POSTGRES.iter().any(|scheme| url.expose().starts_with(scheme))
}

pub(super) fn database(raw: &RawDatabase) -> Result<Secret, ConfigError> {
    let written = Some(&raw.url).filter(|url| raw.url_file.is_none() || *url != DEFAULT);
    let url = secret("database", "url", written.cloned(), raw.url_file.as_deref())?;
    let url = url.unwrap_or_else(|| Secret::new(DEFAULT));
    if url.expose().starts_with("sqlite://") || is_postgres(&url) {
        return Ok(url);
    }
    Err(ConfigError::invalid(
        "database.url",
        "is neither a SQLite nor a PostgreSQL URL",
        "Begin it with sqlite:// or postgres://",
    ))
}

/// The standby of the database at `primary` that is named for reads.
pub(super) fn replica(
    raw: RawDatabase,
    primary: &Secret,
) -> Result<Option<ReplicaConfig>, ConfigError> {
    const KEY: &str = "database.read_url";
    let lag_limit: Duration =
        seconds("database.read_lag_limit_seconds", raw.read_lag_limit_seconds)?;
    let Some(url) = secret("database", "read_url", raw.read_url, raw.read_url_file.as_deref())?
    else {
        return Ok(None);
    };
    if !is_postgres(&url) {
        return Err(ConfigError::invalid(
            KEY,
            "is not a PostgreSQL URL",
            "Name a streaming standby of the database, as postgres://user:password@host/name",
        ));
    }
    if !is_postgres(primary) {
        return Err(ConfigError::invalid(
            KEY,
            "is given, but database.url is not a PostgreSQL URL, and SQLite has no standby",
            "Leave read_url out, or let database.url name the PostgreSQL whose standby it is",
        ));
    }
    Ok(Some(ReplicaConfig { url, lag_limit }))
}
