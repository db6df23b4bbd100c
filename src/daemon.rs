//! Stub.

use crate::config::Config;

#[expect(clippy::unused_async, reason = "the body that starts the tasks replaces this one")]
pub async fn run(_config: Config) -> anyhow::Result<()> {
    anyhow::bail!("the daemon is not in this version yet")
}
