//! `tidemark dev`: the daemon beside a real local node, with a demo token (and, on an EVM chain, the real Safe
//! contracts), live traffic and a webhook receiver; and the building blocks of that, which the integration
//! tests use too.
//!
//! Nothing here is part of a daemon in production. Everything goes through the front door: the node's
//! JSON-RPC, the daemon's HTTP API, signed webhooks.

pub mod anvil;
pub mod contracts;
pub mod mint;
pub mod npm;
pub mod receiver;
pub mod solana;
pub mod validator;

mod client;
mod fleet;
mod folder;
mod local;
mod screen;
mod stage;

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context as _, bail};
use serde_json::Value;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::Instant,
};

use receiver::Received;
use stage::Stage;

use crate::chain::Family;

/// `--once` gives up after this long; on an idle machine everything has happened in a quarter of it.
const ONCE_TIMEOUT: Duration = Duration::from_secs(90);

/// Runs the demonstration until Ctrl-C or SIGTERM; with `once`, until everything has happened one time. `daemons` is
/// how many share the work: several do on EVM chains only.
///
/// # Errors
/// What is missing on the machine, what ended by itself, or, with `once`, what did not happen in time; with several
/// daemons, a balance that is wrong in the end.
pub async fn run(family: Family, daemons: u16, once: bool) -> anyhow::Result<()> {
    if daemons > 1 {
        return fleet::run(daemons, once).await;
    }
    let mut signals = Signals::new()?;
    let mut stage = tokio::select! {
        stage = Stage::build(family, once) => stage?,
        () = signals.next() => return Ok(()),
    };
    screen::introduce(&stage);
    let shown = tokio::select! {
        shown = show(&mut stage, once) => shown,
        () = signals.next() => Ok(()),
    };
    screen::say("stopping");
    // A second signal does not wait: what is dropped is killed.
    let stopped = tokio::select! {
        stopped = stage.stop() => stopped,
        () = signals.next() => bail!("aborted by a second signal"),
    };
    shown.and(stopped)
}

/// Ctrl-C and SIGTERM.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Makes things happen on the chain and prints what arrives.
async fn show(stage: &mut Stage, once: bool) -> anyhow::Result<()> {
    let deadline = Instant::now() + ONCE_TIMEOUT;
    let mut goals = Goals::new(stage.local.goals());
    let traffic = local::traffic(stage.local.as_ref(), &stage.customer);
    tokio::pin!(traffic);
    loop {
        let received = tokio::select! {
            received = stage.receiver.events.recv() => received.context("the receiver ended")?,
            ended = &mut stage.daemon => {
                stage.daemon_ended = true;
                ended.context("the daemon panicked")?.context("the daemon ended")?;
                bail!("the daemon ended by itself");
            }
            failed = &mut traffic => return failed,
            () = tokio::time::sleep_until(deadline), if once => {
                bail!(
                    "after {} seconds there was still no {}",
                    ONCE_TIMEOUT.as_secs(),
                    goals.missing().join(", no ")
                );
            }
        };
        match received {
            Received::Verified(event) => {
                screen::event(&event);
                goals.note(&event);
            }
            Received::Refused(reason) => bail!("a webhook could not be verified: {reason}"),
        }
        if once && goals.missing().is_empty() {
            screen::say("all of it happened once, and every webhook's signature was right");
            return Ok(());
        }
    }
}

/// What `--once` waits for. Each is seen in a webhook whose signature was right.
struct Goals {
    wanted: &'static [(&'static str, usize)],
    /// What each type of event was about, so that one that comes twice counts once.
    seen: BTreeSet<(String, String)>,
}

impl Goals {
    fn new(wanted: &'static [(&'static str, usize)]) -> Self {
        Self { wanted, seen: BTreeSet::new() }
    }

    fn note(&mut self, event: &Value) {
        let data = &event["data"];
        let subject = [&data["transfer"]["id"], &data["safeDeployment"]["address"]];
        let kind = event["type"].as_str().unwrap_or_default();
        self.seen.insert((kind.to_owned(), format!("{subject:?}")));
    }

    fn missing(&self) -> Vec<String> {
        let seen = |wanted: &str| self.seen.iter().filter(|(kind, _)| kind == wanted).count();
        let missing = self.wanted.iter().filter_map(|&(kind, count)| match seen(kind) {
            0 => Some(kind.to_owned()),
            some if some < count => Some(format!("further {kind}")),
            _ => None,
        });
        missing.collect()
    }
}

/// An HTTP client with limits. The TLS provider is named in case nobody has done so: `main` has, tests may not.
pub(crate) fn http_client() -> anyhow::Result<reqwest::Client> {
    // An error means that there is a provider already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Ok(reqwest::Client::builder()
        .connect_timeout(Duration::from_secs(5))
        .timeout(Duration::from_mins(1))
        .no_proxy()
        .build()?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn once_waits_for_each_thing_and_for_both_safes() {
        let mut goals = Goals::new(&[("deposit.available", 1), ("safe_deployment.completed", 2)]);
        assert_eq!(goals.missing(), ["deposit.available", "safe_deployment.completed"]);
        goals.note(&json!({"type": "deposit.pending"}));
        goals.note(&json!({"type": "deposit.available"}));
        let safe = |address: &str| json!({"type": "safe_deployment.completed", "data": {"safeDeployment": {"address": address}}});
        goals.note(&safe("0x1"));
        goals.note(&safe("0x1"));
        assert_eq!(goals.missing(), ["further safe_deployment.completed"]);
        goals.note(&safe("0x2"));
        assert!(goals.missing().is_empty());
    }
}
