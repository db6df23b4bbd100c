//! The yardstick for fetching: a client that asks for the same batches as the daemon, with as many in flight,
//! parses them and stores nothing. It runs in a process of its own, as the daemon does.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use alloy::primitives::{Address, B256, U256, hex};
use anyhow::{Context as _, bail, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde::Deserialize;
use tokio::process::Command;

use super::{daemon::memory, recorded::TRANSFER};

/// The argument that makes this program the client: the URL and the last block follow.
pub const ARGUMENT: &str = "--as-client";
/// Blocks asked for in one batch, then their receipts in another: the daemon's `batch_blocks`.
const RANGE: u64 = 100;
/// Ranges that are fetched at the same time, as the daemon does.
const IN_FLIGHT: usize = 8;

/// What the client measured.
pub struct Fetched {
    pub took: Duration,
    /// Bytes.
    pub peak: u64,
}

/// Starts the client on the blocks from 1 on and waits for it.
pub async fn fetch(url: &str, last: u64, transfers: u64) -> anyhow::Result<Fetched> {
    let output = Command::new(std::env::current_exe()?)
        .args([ARGUMENT, url, &last.to_string()])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .output()
        .await?;
    ensure!(output.status.success(), "the client ended with {}", output.status);
    let text = String::from_utf8(output.stdout)?;
    let mut words = text.split_whitespace();
    let mut number = || -> anyhow::Result<u64> { Ok(words.next().context("a number")?.parse()?) };
    let (nanoseconds, peak, found) = (number()?, number()?, number()?);
    ensure!(found == transfers, "the client found {found} transfers instead of {transfers}");
    Ok(Fetched { took: Duration::from_nanos(nanoseconds), peak })
}

/// The client itself: prints how many nanoseconds it took, its peak memory and the transfers it saw.
pub async fn run(url: &str, last: &str) -> anyhow::Result<()> {
    let last: u64 = last.parse()?;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().build()?;
    let begun = Instant::now();
    let step = usize::try_from(RANGE)?;
    let transfers: u64 = stream::iter((1..=last).step_by(step))
        .map(|from| {
            let (client, url) = (client.clone(), url.to_owned());
            async move {
                tokio::spawn(async move { range(&client, &url, from, last).await }).await?
            }
        })
        .buffered(IN_FLIGHT)
        .try_fold(0, |sum, found| async move { anyhow::Ok(sum + found) })
        .await?;
    let took = begun.elapsed().as_nanos();
    println!("{took} {} {transfers}", memory(std::process::id())?.peak);
    Ok(())
}

#[derive(Deserialize)]
struct Answer<T> {
    result: T,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Block<'a> {
    hash: B256,
    parent_hash: B256,
    number: &'a str,
    timestamp: &'a str,
    #[serde(borrow)]
    transactions: Vec<Transaction<'a>>,
}

#[derive(Deserialize)]
struct Transaction<'a> {
    hash: B256,
    from: Address,
    to: Option<Address>,
    value: &'a str,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Receipt<'a> {
    transaction_hash: B256,
    status: &'a str,
    #[serde(borrow)]
    logs: Vec<Log<'a>>,
}

#[derive(Deserialize)]
struct Log<'a> {
    address: Address,
    topics: Vec<B256>,
    data: &'a str,
}

/// What a transfer says; nobody reads it, but it has been decoded.
struct Decoded {
    _token: Address,
    _from: Address,
    _to: Address,
    _value: U256,
}

/// Fetches and parses one range; gives the number of transfers in it.
async fn range(client: &reqwest::Client, url: &str, from: u64, last: u64) -> anyhow::Result<u64> {
    let numbers = from..=last.min(from + RANGE - 1);
    let calls = numbers.map(|number| ("eth_getBlockByNumber", format!(r#"["{number:#x}",true]"#)));
    let body = ask(client, url, calls).await?;
    let hashes = on_a_processor(move || {
        let blocks: Vec<Answer<Block<'_>>> = serde_json::from_slice(&body)?;
        let mut parent = None;
        for Answer { result: block } in &blocks {
            ensure!(parent.is_none_or(|hash| hash == block.parent_hash), "blocks do not link");
            parent = Some(block.hash);
            ensure!(block.number.len() > 2 && block.timestamp.len() > 2, "a block without fields");
            let mut empty = block.transactions.iter().filter(|tx| {
                tx.hash.is_zero() || tx.from.is_zero() || tx.to.is_none() || tx.value.is_empty()
            });
            ensure!(empty.next().is_none(), "a transaction without fields");
        }
        Ok(blocks.iter().map(|block| block.result.hash).collect::<Vec<_>>())
    })
    .await?;
    let calls = hashes.iter().map(|hash| ("eth_getBlockReceipts", format!(r#"["{hash}"]"#)));
    let body = ask(client, url, calls).await?;
    on_a_processor(move || {
        let receipts: Vec<Answer<Vec<Receipt<'_>>>> = serde_json::from_slice(&body)?;
        let mut decoded = Vec::new();
        for receipt in receipts.iter().flat_map(|answer| &answer.result) {
            ensure!(receipt.status == "0x1", "{} failed", receipt.transaction_hash);
            for log in receipt.logs.iter().filter(|log| log.topics.first() == Some(&TRANSFER)) {
                decoded.push(transfer(log)?);
            }
        }
        Ok(decoded.len() as u64)
    })
    .await
}

fn transfer(log: &Log<'_>) -> anyhow::Result<Decoded> {
    let [_, from, to] = log.topics[..] else { bail!("not an ERC-20 transfer") };
    let mut value = [0; 32];
    hex::decode_to_slice(log.data, &mut value)?;
    Ok(Decoded {
        _token: log.address,
        _from: Address::from_word(from),
        _to: Address::from_word(to),
        _value: U256::from_be_bytes(value),
    })
}

async fn ask(
    client: &reqwest::Client,
    url: &str,
    calls: impl Iterator<Item = (&'static str, String)>,
) -> anyhow::Result<axum::body::Bytes> {
    let calls: Vec<String> = calls
        .enumerate()
        .map(|(id, (method, params))| {
            format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#)
        })
        .collect();
    let body = format!("[{}]", calls.join(","));
    let request = client.post(url).header("content-type", "application/json").body(body);
    Ok(request.send().await?.error_for_status()?.bytes().await?)
}

async fn on_a_processor<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work).await?
}
