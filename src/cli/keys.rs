//! `tidemark keys`: creating, listing and revoking API keys.

use crate::config::Config;

use super::KeysCommand;

#[expect(clippy::unused_async, reason = "the body that opens the store replaces this one")]
pub async fn run(_config: &Config, _command: KeysCommand) -> anyhow::Result<()> {
    anyhow::bail!("API keys are not in this version yet")
}
