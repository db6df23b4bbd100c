//! Wallets registered over HTTP, as a customer does it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use serde::Deserialize;

use super::{
    daemon::{CHAIN, Daemon},
    http::{self, post_request},
};

/// Clients that register at the same time, one request in flight each.
pub const CLIENTS: usize = 32;
const PROBE: Duration = Duration::from_millis(5);

/// Wallets that were registered.
pub struct Registered {
    /// From the first request to the last answer.
    pub took: Duration,
    /// Their ids, in the order of the addresses.
    pub wallets: Vec<String>,
}

/// Registers addresses with so many clients; `from_block`: with their history.
pub async fn register(
    daemon: &Daemon,
    addresses: impl IntoIterator<Item = String>,
    from_block: Option<u64>,
    clients: usize,
) -> anyhow::Result<Registered> {
    let from = from_block
        .map_or_else(String::new, |block| format!(",\"fromBlock\":{{\"{CHAIN}\":{block}}}"));
    let requests: Vec<String> = addresses
        .into_iter()
        .map(|address| {
            let body = format!("{{\"address\":\"{address}\",\"chains\":[\"{CHAIN}\"]{from}}}");
            post_request("/v1/wallets", &daemon.key, &body)
        })
        .collect();
    let address = daemon.address.clone();
    on_a_thread(async move {
        let wallets = Arc::new(Mutex::new(vec![String::new(); requests.len()]));
        let answered = Arc::clone(&wallets);
        let begun = Instant::now();
        http::all(&address, requests, clients, move |index, answer| {
            answered.lock()[index] = answer.json::<Wallet>()?.id;
            Ok(())
        })
        .await?;
        let took = begun.elapsed();
        let wallets = std::mem::take(&mut *wallets.lock());
        Ok(Registered { took, wallets })
    })
    .await
}

#[derive(Deserialize)]
struct Wallet {
    id: String,
}

/// Waits until that many addresses are watched.
pub async fn watched(daemon: &Daemon, count: u64) -> anyhow::Result<()> {
    while daemon.metric("tidemark_registered_addresses", "").await? < count {
        tokio::time::sleep(PROBE).await;
    }
    Ok(())
}

/// One thread makes the load, so that the daemon keeps what it can get of the machine.
pub async fn on_a_thread<T: Send + 'static>(
    load: impl Future<Output = anyhow::Result<T>> + Send + 'static,
) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(load)
    })
    .await?
}
