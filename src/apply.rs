//! Stub.

use crate::{chain::ChainName, clock::Millis, store::Db};

/// Takes `chain` back so that `to` is the newest block applied.
#[expect(clippy::unused_async, reason = "the body that writes to the store replaces this one")]
pub async fn rewind(_db: &Db, _chain: &ChainName, _to: u64, _now: Millis) -> anyhow::Result<()> {
    anyhow::bail!("rewinding is not in this version yet")
}
