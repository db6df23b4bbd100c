//! What must stand before several daemons are shown, and its orderly end.

use anyhow::Context as _;
use futures::future::try_join_all;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{
    super::{
        folder::Folder,
        receiver, screen,
        stage::{USUAL_PORT, create_key, text},
    },
    chain::LocalChain,
    member::Member,
    postgres::Postgres,
};

/// How many chains they share.
const CHAINS: u64 = 3;
/// What is the same for all daemons. The chains are shared out sooner than usual: it is to be seen.
const CONFIGURATION: &str = "\
[fleet]
rebalance_seconds = 3

[webhooks]
allow_http = true
allow_private_addresses = true
request_timeout_seconds = 5
retry_schedule_seconds = [1, 2, 5, 10, 30]
";

pub(super) struct Stage {
    pub members: Vec<Member>,
    pub chains: Vec<LocalChain>,
    pub receiver: receiver::Handle,
    pub key: String,
    receiver_shutdown: CancellationToken,
    postgres: Postgres,
    /// Of this show only. Last, so that everything in it has ended before.
    folder: Folder,
}

impl Stage {
    /// With `once`, on any free ports: nobody will ask for the usual ones.
    pub(super) async fn build(daemons: u16, once: bool) -> anyhow::Result<Self> {
        let folder = Folder::create()?;
        screen::say("starting PostgreSQL");
        let postgres = Postgres::start(&folder.0).await?;
        screen::say(&format!("starting {CHAINS} local chains, each with a demo token"));
        // One after the other: the first may have to install the node.
        let first = LocalChain::start(0).await?;
        let mut chains = vec![first];
        chains.extend(try_join_all((1..CHAINS).map(LocalChain::start)).await?);
        let receiver_shutdown = CancellationToken::new();
        let receiver = receiver::start(receiver_shutdown.clone()).await?;
        let key = create_key(&postgres.url).await?;
        let tables: Vec<String> = chains.iter().map(LocalChain::configuration).collect();
        let configuration = CONFIGURATION.to_owned() + &tables.concat();
        screen::say(&format!("starting {daemons} daemons"));
        let mut members = Vec::new();
        for number in 0..daemons {
            let port = (!once).then_some(USUAL_PORT + number);
            let home = folder.0.join(format!("daemon-{}", number + 1));
            let mut member = Member::prepare(home, &configuration, port, &postgres.url, &key)?;
            member.start().await?;
            members.push(member);
        }
        let customer = &members.first().context("no daemon")?.customer;
        let endpoint = json!({"url": receiver.url, "events": ["*"], "description": "tidemark dev"});
        let endpoint = customer.post("/v1/webhook-endpoints", "dev-endpoint", &endpoint).await?;
        receiver.set_secret(text(&endpoint, "secret")?)?;
        Ok(Self { members, chains, receiver, key, receiver_shutdown, postgres, folder })
    }

    /// Where the database listens, without its password.
    pub(super) fn database(&self) -> &str {
        self.postgres.url.rsplit('@').next().unwrap_or_default()
    }

    /// Ends the daemons, then what they used.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        let mut stopped = Ok(());
        for member in &mut self.members {
            stopped = stopped.and(member.stop().await);
        }
        self.receiver_shutdown.cancel();
        self.receiver.task.await.context("the receiver panicked")??;
        for chain in self.chains {
            chain.stop().await?;
        }
        self.postgres.stop().await?;
        drop(self.folder);
        stopped
    }
}
