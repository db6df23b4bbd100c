//! Stub.

/// Stub: the daemon's own branch has it.
#[expect(clippy::unused_async, reason = "a stub of an asynchronous function")]
pub async fn run(
    _config: crate::config::Config,
    _shutdown: tokio_util::sync::CancellationToken,
    _ready: Option<tokio::sync::oneshot::Sender<std::net::SocketAddr>>,
) -> anyhow::Result<()> {
    anyhow::bail!("not built yet")
}
