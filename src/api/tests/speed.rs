//! A measurement, not a test: `cargo test --release --lib balance_reads -- --ignored --nocapture`.

use std::time::Instant;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::CancellationToken;

use super::*;

const WALLETS: u32 = 1000;
const CONNECTIONS: u32 = 32;
const REQUESTS: u32 = 2000;

/// Asks on one connection, one request after the other.
async fn ask(at: std::net::SocketAddr, key: String, ids: Arc<Vec<String>>, first: u32) {
    let mut stream = TcpStream::connect(at).await.expect("a connection");
    stream.set_nodelay(true).expect("an option");
    let mut buffer = vec![0; 16 * 1024];
    for n in 0..REQUESTS {
        let id = &ids[((first * 31 + n * 7) % WALLETS) as usize];
        let request = format!(
            "GET /v1/wallets/{id}/balances HTTP/1.1\r\nhost: a\r\nx-api-key: {key}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.expect("a request");
        let mut have = 0;
        loop {
            have += stream.read(&mut buffer[have..]).await.expect("an answer");
            let text = std::str::from_utf8(&buffer[..have]).expect("text");
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            assert!(head.starts_with("HTTP/1.1 200"), "{text}");
            let length = head.split("content-length: ").nth(1).expect("a length");
            let length = length.lines().next().and_then(|l| l.parse().ok()).unwrap_or(0);
            if body.len() >= length {
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it measures"]
async fn balance_reads_per_second() {
    let world = World::new().await;
    world.begin_chain("base", 100, NOW).await;
    let mut ids = Vec::new();
    for n in 1..=WALLETS {
        let wallet = world.wallet(&address(n)).await;
        let id = balances::open(&world, &wallet, "base").await;
        let row = balances::some(u64::from(n));
        balances::hold(&world, id, balances::usdc(), row).await;
        balances::hold(&world, id, AssetKey::Native, row).await;
        ids.push(id.to_string());
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let at = listener.local_addr().expect("an address");
    let stop = CancellationToken::new();
    let serving = tokio::spawn(world.api.clone().serve(listener, stop.clone()));
    let ids = Arc::new(ids);
    let started = Instant::now();
    let mut asking = tokio::task::JoinSet::new();
    for first in 0..CONNECTIONS {
        asking.spawn(ask(at, world.acme.clone(), Arc::clone(&ids), first));
    }
    while let Some(done) = asking.join_next().await {
        done.expect("no panic");
    }
    let took = started.elapsed().as_secs_f64();
    println!("{:.0} balance reads per second", f64::from(CONNECTIONS * REQUESTS) / took);
    stop.cancel();
    serving.await.expect("no panic").expect("a clean end");
}
