//! A lean HTTP client: one kept connection, one request at a time.

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

pub struct Answer<'a> {
    pub status: u16,
    pub body: &'a [u8],
}

impl Answer<'_> {
    pub fn contains(&self, text: &str) -> bool {
        self.body.windows(text.len()).any(|window| window == text.as_bytes())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(self.body).into_owned()
    }

    /// The body of a successful answer.
    pub fn json<'a, T: Deserialize<'a>>(&'a self) -> anyhow::Result<T> {
        ensure!((200..300).contains(&self.status), "{}: {}", self.status, self.text());
        serde_json::from_slice(self.body).with_context(|| self.text())
    }
}

/// A request as it goes over the wire.
pub fn get_request(path: &str, key: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nx-api-key: {key}\r\n\r\n")
}

/// A POST as it goes over the wire, with an idempotency key that nobody else has.
pub fn post_request(path: &str, key: &str, body: &str) -> String {
    let id = rand::random::<u64>();
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nx-api-key: {key}\r\nidempotency-key: {id}\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

impl Connection {
    pub async fn open(address: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(16 * 1024) })
    }

    pub async fn get(&mut self, path: &str, key: &str) -> anyhow::Result<Answer<'_>> {
        self.send(get_request(path, key).as_bytes()).await
    }

    pub async fn post(&mut self, path: &str, key: &str, body: &str) -> anyhow::Result<Answer<'_>> {
        self.send(post_request(path, key, body).as_bytes()).await
    }

    /// Sends a whole request and reads the whole answer, which must have a length.
    pub async fn send(&mut self, request: &[u8]) -> anyhow::Result<Answer<'_>> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        let (head, length) = loop {
            self.read().await?;
            if let Some(head) = position(&self.buffer, b"\r\n\r\n") {
                break (head + 4, content_length(&self.buffer[..head])?);
            }
        };
        while self.buffer.len() < head + length {
            self.read().await?;
        }
        let status = self.buffer.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok());
        let status = status.and_then(|digits| digits.parse().ok()).context("no status")?;
        Ok(Answer { status, body: &self.buffer[head..head + length] })
    }

    async fn read(&mut self) -> anyhow::Result<()> {
        let count = self.stream.read_buf(&mut self.buffer).await?;
        ensure!(count > 0, "the connection was closed");
        Ok(())
    }
}

/// Sends all requests over `connections` kept connections and hands each answer to `take` with its place.
pub async fn all<F>(
    address: &str,
    requests: Vec<String>,
    connections: usize,
    take: F,
) -> anyhow::Result<()>
where
    F: Fn(usize, &Answer<'_>) -> anyhow::Result<()> + Send + Sync + 'static,
{
    let (requests, take) = (Arc::new(requests), Arc::new(take));
    let mut senders = JoinSet::new();
    for first in 0..connections {
        let mut connection = Connection::open(address).await?;
        let (requests, take) = (Arc::clone(&requests), Arc::clone(&take));
        senders.spawn(async move {
            for index in (first..requests.len()).step_by(connections) {
                let answer = connection.send(requests[index].as_bytes()).await?;
                take(index, &answer)?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = senders.join_next().await {
        done??;
    }
    Ok(())
}

fn position(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

fn content_length(head: &[u8]) -> anyhow::Result<usize> {
    let head = std::str::from_utf8(head)?;
    head.split("\r\n")
        .filter_map(|line| line.split_once(": "))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.parse().ok())
        .with_context(|| format!("no content-length in {head}"))
}
