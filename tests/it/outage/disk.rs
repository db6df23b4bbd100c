//! A disk that is full, or takes no writes any more.

use std::process::Command;

use super::survives;
use crate::harness::{Daemon, Disk, Node, Server, Settings, Store};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_of_the_server_is_waited_for() {
    let disk = Disk::of_megabytes(48);
    let server = Server::start().await;
    let place = disk.folder_of_a_server();
    let made = format!("CREATE TABLESPACE small LOCATION '{}'", place.display());
    server.execute("postgres", &made).await;
    server.execute("postgres", "CREATE DATABASE tidemark TABLESPACE small").await;
    let store = Store::Postgres { url: server.url("tidemark") };
    let node = Node::start().await;
    let daemon = Daemon::start(&node, &store).await;
    survives(daemon, &node, "disk full", async || disk.fill(), async || disk.make_room()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_under_sqlite_is_waited_for() {
    let disk = Disk::of_megabytes(48);
    let node = Node::start().await;
    let mut settings = Settings::new(&node, &Store::sqlite());
    settings.database_url = format!("sqlite://{}", disk.path().join("tidemark.db").display());
    let daemon = Daemon::start_with(settings).await;
    survives(daemon, &node, "disk full", async || disk.fill(), async || disk.make_room()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sqlite_file_that_takes_no_writes_any_more_is_waited_for() {
    let store = Store::sqlite();
    let node = Node::start().await;
    let daemon = Daemon::start(&node, &store).await;
    let path = store.url().trim_start_matches("sqlite://").to_owned();
    let log = format!("{path}-wal");
    let set = |flag: &str| {
        let set = Command::new("chattr").args([flag, &path, &log]).status().unwrap();
        assert!(set.success(), "chattr needs root, and a file system that knows it");
    };
    survives(daemon, &node, "read-only", async || set("+i"), async || set("-i")).await;
}
