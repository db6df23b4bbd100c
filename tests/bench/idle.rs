//! What a daemon with nothing to do takes of the machine.

use std::{sync::Arc, time::Duration};

use super::{
    Bench,
    catch_up::{Plan, ready},
    figure::{Figure, megabytes},
    recorded::Chain,
};

/// Long enough for what the start needed to be given back.
const SETTLING: Duration = Duration::from_secs(10);

pub async fn measure(bench: &mut Bench) -> anyhow::Result<()> {
    let chain = Arc::new(Chain::new());
    for engine in bench.engines().await? {
        let ready = ready(&chain, &engine, Plan::default(), []).await?;
        tokio::time::sleep(SETTLING).await;
        let memory = ready.daemon.memory()?;
        let what =
            |detail: &str| format!("idle, one chain, no wallets, {}: {detail}", engine.name());
        bench.figures([
            Figure::new(what("memory"), megabytes(memory.now), "MB").at_most(30.0),
            Figure::new(what("at its peak"), megabytes(memory.peak), "MB"),
        ]);
    }
    Ok(())
}
