//! Wallets registered over HTTP, while the chain's follower opens their watches.

use std::{sync::Arc, time::Instant};

use super::{
    Bench,
    catch_up::{Plan, ready},
    dense::account,
    figure::{Figure, per_second},
    recorded::Chain,
    register::{CLIENTS, Registered, register, watched},
};

const WALLETS: u64 = 20_000;
/// Of them, so many by a single client.
const ALONE: u64 = 1_000;

pub async fn measure(bench: &mut Bench) -> anyhow::Result<()> {
    let chain = Arc::new(Chain::new());
    for engine in bench.engines().await? {
        let ready = ready(&chain, &engine, Plan::default(), []).await?;
        let daemon = &ready.daemon;
        let addresses = |from, to| (from..to).map(|n| account(n).to_string());
        let alone = register(daemon, addresses(0, ALONE), None, 1).await?.took;
        let begun = Instant::now();
        let Registered { took, .. } =
            register(daemon, addresses(ALONE, WALLETS), None, CLIENTS).await?;
        watched(daemon, WALLETS).await?;
        let opened = begun.elapsed();
        let what = |detail: &str| format!("registrations, {}: {detail}", engine.name());
        let (many, goal) = (WALLETS - ALONE, engine.goal(3000.0, 2000.0));
        bench.figures([
            Figure::new(what("one client"), per_second(ALONE, alone), "wallets/s"),
            Figure::new(what(&format!("{CLIENTS} clients")), per_second(many, took), "wallets/s")
                .at_least(goal),
            Figure::new(what("until all are watched"), per_second(many, opened), "wallets/s"),
        ]);
    }
    Ok(())
}
