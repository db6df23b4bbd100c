//! Stub.

use crate::cli::DevArgs;

#[expect(clippy::unused_async, reason = "the body that starts the local chain replaces this one")]
pub async fn run(_args: DevArgs) -> anyhow::Result<()> {
    anyhow::bail!("the local chain is not in this version yet")
}
