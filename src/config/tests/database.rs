use std::io::Write as _;

use super::*;

#[test]
fn the_database_url_may_stand_in_a_file() {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(b"postgres://u:p@h/d\n").expect("room for it");
    let path = file.path().display();
    let config = good(&format!("[database]\nurl_file = \"{path}\""));
    assert_eq!(config.database_url.expose(), "postgres://u:p@h/d");
    let both = format!("[database]\nurl = \"postgres://a/b\"\nurl_file = \"{path}\"");
    refused(&both, "database.url", &["both url and url_file"]);
}

#[test]
fn a_standby_for_reads_is_one_of_a_postgresql_and_a_secret() {
    let of = |more: &str| format!("[database]\nurl = \"postgres://a/b\"\n{more}\n");
    assert!(good(&of("")).replica.is_none());
    let config = good(&of("read_url = \"postgres://u:hunter2@standby/d\""));
    assert!(!format!("{config:?}").contains("hunter2"), "{config:?}");
    let replica = config.replica.expect("a standby");
    assert_eq!(replica.url.expose(), "postgres://u:hunter2@standby/d");
    assert_eq!(replica.lag_limit, Duration::from_mins(1));

    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(b"postgresql://u:p@standby/d\n").expect("room for it");
    let in_file =
        format!("read_url_file = \"{}\"\nread_lag_limit_seconds = 5", file.path().display());
    let replica = good(&of(&in_file)).replica.expect("a standby");
    assert_eq!(replica.url.expose(), "postgresql://u:p@standby/d");
    assert_eq!(replica.lag_limit, Duration::from_secs(5));

    let both = of(&format!("read_url = \"postgres://a/b\"\n{in_file}"));
    refused(&both, "database.read_url", &["both read_url and read_url_file"]);
    refused(&of("read_url = \"hunter2\""), "database.read_url", &["PostgreSQL", "standby"]);
    refused(&of("read_lag_limit_seconds = 0"), "database.read_lag_limit_seconds", &["from 1"]);
    refused("[database]\nread_url = \"postgres://a/b\"", "database.read_url", &["SQLite"]);
}
