//! What the tests stand on: a real node, a real daemon process, both stores, a real consumer of webhooks.

mod api;
pub mod clock;
pub mod contracts;
mod daemon;
mod disk;
pub mod fleet;
mod gate;
mod liar;
mod node;
mod receiver;
pub mod safes;
mod server;
pub mod solana;
mod store;

use std::{
    future::Future,
    net::TcpListener,
    path::PathBuf,
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

pub use api::{Api, balance_in, client};
pub use daemon::{CHAIN, Daemon, Settings, Token, tidemark};
pub use disk::Disk;
pub use gate::Gate;
pub use liar::{Liar, Lie};
pub use node::Node;
pub use receiver::Receiver;
pub use server::{Server, Stop, programs, unprivileged};
pub use store::Store;

/// How long a test waits for what must happen; generous, because two builds may run beside it.
const PATIENCE: Duration = Duration::from_secs(30);
const PROBE_INTERVAL: Duration = Duration::from_millis(20);

/// Makes of `async fn name(store: Store)` one test on each store.
macro_rules! on_both_stores {
    ($($(#[$doc:meta])* async fn $name:ident($store:ident) $body:block)*) => { $(
        $(#[$doc])*
        mod $name {
            #[allow(unused_imports, reason = "one list serves all tests of the file")]
            use super::*;

            async fn check($store: $crate::harness::Store) $body

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                check($crate::harness::Store::sqlite()).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                check($crate::harness::Store::postgres().await).await;
            }
        }
    )* };
}
pub(crate) use on_both_stores;

/// Probes until the probe gives something.
pub async fn eventually<T, F, P>(what: &str, mut probe: P) -> T
where
    F: Future<Output = Option<T>>,
    P: FnMut() -> F,
{
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(tokio::time::Instant::now() < deadline, "in vain waited for {what}");
        tokio::time::sleep(PROBE_INTERVAL).await;
    }
}

/// A port that stays the same over a restart. Below the range from which the system gives ports to whoever
/// asks for any, so nobody takes it meanwhile; begins somewhere else in each process.
pub fn own_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 12_000;
    const COUNT: u16 = 20_000;
    let start = u16::try_from(std::process::id() * 97 % u32::from(COUNT)).unwrap();
    loop {
        let port = FIRST + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// The npm packages of the tests; `tests/run` installs them.
pub fn npm_folder() -> PathBuf {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/npm"));
    assert!(folder.join("node_modules").is_dir(), "npm packages are missing: run tests/run");
    folder
}
