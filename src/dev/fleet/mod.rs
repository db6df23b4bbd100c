//! `tidemark dev --daemons 3`: several daemons on one PostgreSQL share some chains. One of those that follow is killed,
//! another takes over, and in the end every balance is compared with the chain's.
//!
//! The daemons are processes of this very program: nothing less can be killed.

mod chain;
mod member;
mod postgres;
mod stage;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use alloy::primitives::{Address, U256};
use anyhow::{Context as _, bail, ensure};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use self::stage::Stage;
use super::{Signals, client::Customer, receiver::Received, screen};

/// Between two looks at everything.
const TICK: Duration = Duration::from_millis(250);
/// A deposit each so many looks, and a new wallet each so many.
const PAID_EVERY: usize = 3;
const REGISTERED_EVERY: usize = 24;
/// How long all is well between two kills; with `--once`, before the only one.
const QUIET: Duration = Duration::from_secs(20);
const QUIET_ONCE: Duration = Duration::from_secs(4);
/// How much longer it may take until the chains are shared out evenly.
const SHARED_OUT: Duration = Duration::from_secs(20);
/// What must have happened after a kill.
const REPLACED_WITHIN: Duration = Duration::from_secs(30);
/// What may be left to settle and to tell in the end.
const SETTLED_WITHIN: Duration = Duration::from_mins(1);

/// Runs until Ctrl-C or SIGTERM; with `once`, until one daemon was killed, replaced and started again. Then compares.
pub(super) async fn run(daemons: u16, once: bool) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    let stage = tokio::select! {
        stage = Box::pin(Stage::build(daemons, once)) => stage?,
        () = signals.next() => return Ok(()),
    };
    introduce(&stage);
    let mut show = Show::of(stage);
    let shown = tokio::select! {
        shown = show.go_on(once) => shown,
        () = signals.next() => Ok(()),
    };
    // A second signal does not wait: what is dropped is killed.
    let compared = if shown.is_ok() {
        tokio::select! {
            compared = show.compare() => compared,
            () = signals.next() => bail!("aborted by a second signal"),
        }
    } else {
        Ok(())
    };
    screen::say("stopping");
    let stopped = tokio::select! {
        stopped = show.stage.stop() => stopped,
        () = signals.next() => bail!("aborted by a further signal"),
    };
    shown.and(compared).and(stopped)
}

fn introduce(stage: &Stage) {
    let mut lines = vec![String::from("ready")];
    for (number, member) in (1..).zip(&stage.members) {
        lines.push(format!("   daemon {number}  {}", member.customer.base()));
    }
    for chain in &stage.chains {
        let (name, url) = (&chain.name, chain.rpc().url());
        lines.push(format!("   {name}   {url} (Anvil, a block every second)"));
    }
    lines.push(format!("   store     PostgreSQL at {}", stage.database()));
    lines.push(format!("   API key   {}", stage.key));
    if let Some(member) = stage.members.first() {
        let base = member.customer.base();
        lines.push(format!(
            "\n   In another terminal, of any daemon:\n   \
             curl -s -H 'X-API-Key: {key}' {base}/v1/chains\n   \
             curl -s -H 'X-API-Key: {key}' '{base}/v1/events?limit=5'\n   \
             curl -s {base}/metrics\n\n   Ctrl-C ends it.\n",
            key = stage.key,
        ));
    }
    screen::say(&lines.join("\n"));
}

fn listed(names: &BTreeSet<String>) -> String {
    names.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// What comes next of the kill.
#[derive(Debug)]
enum Phase {
    Quiet {
        until: Instant,
    },
    /// Until others follow what it followed.
    Killed {
        member: usize,
        since: Instant,
        left: BTreeSet<String>,
    },
}

struct Show {
    stage: Stage,
    /// Which daemon follows which chain, as it was last seen.
    followers: BTreeMap<String, usize>,
    phase: Phase,
    /// What each wallet was told to have got, by the transfers' ids: a webhook may come twice.
    told: BTreeMap<Address, BTreeMap<String, U256>>,
    paid: usize,
    /// The next one to be asked to register a wallet.
    registrar: usize,
    kills: usize,
}

impl Show {
    fn of(stage: Stage) -> Self {
        Self {
            stage,
            followers: BTreeMap::new(),
            phase: Phase::Quiet { until: Instant::now() + QUIET_ONCE },
            told: BTreeMap::new(),
            paid: 0,
            registrar: 0,
            kills: 0,
        }
    }

    async fn go_on(&mut self, once: bool) -> anyhow::Result<()> {
        for tick in 0.. {
            for member in &mut self.stage.members {
                member.check()?;
            }
            self.look_who_follows().await?;
            self.receive()?;
            if tick == 0 {
                for at in 0..self.stage.chains.len() {
                    self.register(at).await?;
                }
            } else if tick % REGISTERED_EVERY == 0 {
                self.register(tick / REGISTERED_EVERY).await?;
            }
            if tick % PAID_EVERY == 0 {
                self.pay(tick / PAID_EVERY).await?;
            }
            self.kill_and_start_again().await?;
            if once && self.kills > 0 && matches!(self.phase, Phase::Quiet { .. }) {
                return Ok(());
            }
            sleep(TICK).await;
        }
        Ok(())
    }

    /// Says who follows what when that has changed.
    async fn look_who_follows(&mut self) -> anyhow::Result<()> {
        for (at, member) in self.stage.members.iter().enumerate() {
            for chain in member.follows().await? {
                if self.followers.insert(chain.clone(), at) != Some(at) {
                    screen::fleet(&format!("daemon {} follows {chain}", at + 1));
                }
            }
        }
        Ok(())
    }

    fn receive(&mut self) -> anyhow::Result<()> {
        while let Ok(received) = self.stage.receiver.events.try_recv() {
            match received {
                Received::Verified(event) => {
                    screen::event(&event);
                    self.note(&event)?;
                }
                Received::Refused(reason) => bail!("a webhook could not be verified: {reason}"),
            }
        }
        Ok(())
    }

    /// Remembers what became available.
    fn note(&mut self, event: &Value) -> anyhow::Result<()> {
        if event["type"] != "deposit.available" {
            return Ok(());
        }
        let transfer = &event["data"]["transfer"];
        let wallet = event["data"]["wallet"]["address"].as_str().context("no address")?;
        let id = transfer["id"].as_str().context("no id")?.to_owned();
        let amount = transfer["amount"]["raw"].as_str().context("no amount")?;
        let amount = U256::from_str_radix(amount, 10)?;
        self.told.entry(wallet.parse()?).or_default().insert(id, amount);
        Ok(())
    }

    /// Any daemon that runs.
    fn customer(&self) -> anyhow::Result<&Customer> {
        let running = self.stage.members.iter().find(|member| member.runs());
        Ok(&running.context("no daemon runs")?.customer)
    }

    /// One more wallet, at the daemon whose turn it is.
    async fn register(&mut self, number: usize) -> anyhow::Result<()> {
        let Stage { members, chains, .. } = &mut self.stage;
        let (at, count) = (number % chains.len(), members.len());
        let mut turn = (self.registrar..self.registrar + count).map(|turn| turn % count);
        let registrar = turn.find(|&turn| members[turn].runs());
        let registrar = registrar.context("no daemon runs")?;
        self.registrar = registrar + 1;
        let address = chains[at].register(&members[registrar].customer).await?;
        let name = &chains[at].name;
        screen::fleet(&format!("{address} on {name} is registered at daemon {}", registrar + 1));
        Ok(())
    }

    async fn pay(&mut self, step: usize) -> anyhow::Result<()> {
        let customer = self.customer()?.clone();
        let count = self.stage.chains.len();
        let chain = &mut self.stage.chains[step % count];
        chain.look(&customer).await?;
        if let Some((to, amount)) = chain.pay(step / count).await? {
            self.paid += 1;
            screen::chain(&format!("sending {amount} DUSD to {to} on {}", chain.name));
        }
        Ok(())
    }

    async fn kill_and_start_again(&mut self) -> anyhow::Result<()> {
        match &mut self.phase {
            Phase::Quiet { until } => {
                let following: BTreeSet<usize> = self.followers.values().copied().collect();
                let (chains, now) = (self.stage.chains.len(), Instant::now());
                let even = following.len() >= self.stage.members.len().min(chains);
                let all = self.followers.len() == chains;
                if now < *until || !all || (!even && now < *until + SHARED_OUT) {
                    return Ok(());
                }
                // In turn, of those that follow something.
                let next = following.iter().nth(self.kills % following.len());
                let member = *next.context("nobody follows")?;
                let left: BTreeSet<String> = self
                    .followers
                    .iter()
                    .filter(|&(_, &at)| at == member)
                    .map(|(chain, _)| chain.clone())
                    .collect();
                let names = listed(&left);
                screen::fleet(&format!("kill -9 of daemon {}, which follows {names}", member + 1));
                self.stage.members[member].kill().await?;
                self.kills += 1;
                self.phase = Phase::Killed { member, since: Instant::now(), left };
            }
            Phase::Killed { member, since, left } => {
                let (member, took) = (*member, since.elapsed());
                left.retain(|chain| self.followers.get(chain) == Some(&member));
                if left.is_empty() {
                    let seconds = took.as_secs_f64();
                    screen::fleet(&format!("all chains are followed again after {seconds:.1} s"));
                    screen::fleet(&format!("starting daemon {} again", member + 1));
                    self.stage.members[member].start().await?;
                    self.phase = Phase::Quiet { until: Instant::now() + QUIET };
                } else {
                    let names = listed(left);
                    ensure!(took < REPLACED_WITHIN, "nobody follows {names} after {took:?}");
                }
            }
        }
        Ok(())
    }

    /// Once everything has settled and was told: every balance against the chain and the events, and an audit.
    async fn compare(&mut self) -> anyhow::Result<()> {
        screen::say("no more deposits; waiting until all of them have settled");
        for member in &mut self.stage.members {
            if !member.runs() {
                member.start().await?;
            }
        }
        let deadline = Instant::now() + SETTLED_WITHIN;
        let mut last = Vec::new();
        for chain in &self.stage.chains {
            last.push(chain.rpc().head().await?.number.to::<u64>() + 1);
        }
        loop {
            self.receive()?;
            let compared = self.compare_at(&last).await;
            match compared {
                Ok((wallets, said)) => {
                    let (paid, kills) = (self.paid, self.kills);
                    screen::say(&format!(
                        "every balance is exact: {wallets} wallets, {paid} deposits, daemons killed: {kills}; \
                         tidemark audit says:\n{said}"
                    ));
                    return Ok(());
                }
                Err(error) if Instant::now() >= deadline => return Err(error),
                Err(_) => sleep(TICK).await,
            }
        }
    }

    async fn compare_at(&self, last: &[u64]) -> anyhow::Result<(usize, String)> {
        let customer = self.customer()?;
        let mut wallets = 0;
        for (chain, &block) in self.stage.chains.iter().zip(last) {
            let settled = chain.is_settled(customer, block).await?;
            ensure!(settled, "{} has not settled block {block}", chain.name);
            let told = |wallet: Address| {
                let told = self.told.get(&wallet).into_iter().flat_map(BTreeMap::values);
                told.fold(U256::ZERO, |sum, &amount| sum.saturating_add(amount))
            };
            wallets += chain.compare(customer, told).await?;
        }
        let first = self.stage.members.first().context("no daemon")?;
        Ok((wallets, first.audit().await?))
    }
}
