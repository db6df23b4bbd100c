//! Everything that must stand before the show begins, and its orderly end.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use anyhow::Context as _;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    client::Customer,
    folder::Folder,
    local::{self, Local},
    receiver,
};
use crate::{
    api::key::{self, Scope},
    chain::Family,
    clock::Clock,
    config::{
        ChainConfig, Config, FleetConfig, RetentionConfig, Secret, ServerConfig, WebhookConfig,
    },
    id::Ids,
    metrics::Metrics,
    random::Random,
    store::Db,
};

/// Where the API listens if nobody else does.
pub(super) const USUAL_PORT: u16 = 8080;
const ACTIVATION_TIMEOUT: Duration = Duration::from_secs(30);
const DRAIN_TIMEOUT: Duration = Duration::from_secs(12);
const SCOPES: [Scope; 3] = [Scope::WalletsRead, Scope::WalletsWrite, Scope::WebhooksWrite];

pub(super) struct Stage {
    pub local: Box<dyn Local>,
    pub customer: Customer,
    pub wallet_id: String,
    pub receiver: receiver::Handle,
    pub daemon: AbortOnDropHandle<anyhow::Result<()>>,
    /// Set by whoever awaited `daemon` to its end: it must not be awaited again.
    pub daemon_ended: bool,
    daemon_shutdown: CancellationToken,
    receiver_shutdown: CancellationToken,
    /// Of this show only: the next one has another chain and needs another store.
    pub folder: Folder,
}

impl Stage {
    /// With `once`, on any free port: nobody will ask for the usual one.
    pub(super) async fn build(family: Family, once: bool) -> anyhow::Result<Self> {
        let local = local::start(family).await?;
        let folder = Folder::create()?;
        let receiver_shutdown = CancellationToken::new();
        let receiver = receiver::start(receiver_shutdown.clone()).await?;
        let listen = if once { any_port() } else { usual_port() };
        let database_url = format!("sqlite://{}", folder.0.join("tidemark.db").display());
        let config = config(&database_url, local.config(), listen);
        let daemon_shutdown = CancellationToken::new();
        let (ready, is_ready) = oneshot::channel();
        let stop = daemon_shutdown.clone();
        let mut daemon = AbortOnDropHandle::new(tokio::spawn(async move {
            Ok(crate::daemon::run(config, stop, Some(ready)).await?)
        }));
        let address = tokio::select! {
            address = is_ready => match address {
                Ok(address) => address,
                Err(_) => return Err(ended(daemon.await)),
            },
            ended_early = &mut daemon => return Err(ended(ended_early)),
        };
        let key = create_key(&database_url).await?;
        let customer = Customer::new(format!("http://{address}"), key)?;
        let wallet_id = register(&customer, local.as_ref(), &receiver).await?;
        Ok(Self {
            local,
            customer,
            wallet_id,
            receiver,
            daemon,
            daemon_ended: false,
            daemon_shutdown,
            receiver_shutdown,
            folder,
        })
    }

    /// Ends the daemon, then the receiver (the daemon may still be delivering), then the node.
    pub(super) async fn stop(self) -> anyhow::Result<()> {
        self.daemon_shutdown.cancel();
        let drained = if self.daemon_ended {
            Ok(())
        } else {
            match tokio::time::timeout(DRAIN_TIMEOUT, self.daemon).await {
                Ok(ended) => ended.context("the daemon panicked").and_then(|result| result),
                Err(_) => Err(anyhow::anyhow!("the daemon did not stop in time")),
            }
        };
        self.receiver_shutdown.cancel();
        self.receiver.task.await.context("the receiver panicked")??;
        self.local.stop().await?;
        drained
    }
}

fn ended(result: Result<anyhow::Result<()>, tokio::task::JoinError>) -> anyhow::Error {
    match result {
        Ok(Ok(())) => anyhow::anyhow!("the daemon ended before it was ready"),
        Ok(Err(error)) => error.context("the daemon could not start"),
        Err(error) => anyhow::Error::from(error).context("the daemon panicked"),
    }
}

fn config(database_url: &str, chain: ChainConfig, listen: SocketAddr) -> Config {
    Config {
        server: ServerConfig {
            listen,
            max_body_bytes: 1024 * 1024,
            request_timeout: Duration::from_secs(30),
        },
        database_url: Secret::new(database_url),
        replica: None,
        chains: BTreeMap::from([(chain.name.clone(), chain)]),
        fleet: FleetConfig::default(),
        webhooks: WebhookConfig {
            allow_http: true,
            allow_private_addresses: true,
            retry_schedule: [1, 2, 5, 10, 30].map(Duration::from_secs).to_vec(),
            request_timeout: Duration::from_secs(5),
            max_in_flight: 16,
            max_in_flight_per_endpoint: 4,
            disable_after: Duration::from_hours(1),
        },
        retention: RetentionConfig::for_ever(Duration::from_hours(24)),
    }
}

/// The usual port, or any other when that is taken.
fn usual_port() -> SocketAddr {
    let usual = SocketAddr::from(([127, 0, 0, 1], USUAL_PORT));
    match TcpListener::bind(usual) {
        Ok(_) => usual,
        Err(_) => any_port(),
    }
}

fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// A key for the demo tenant, made as `tidemark keys create` makes it.
pub(super) async fn create_key(database_url: &str) -> anyhow::Result<String> {
    let clock = Clock::default();
    let ids = Ids::new(clock.clone());
    let db = Db::open(database_url, &Metrics::new()).await?;
    let created = key::create(&db, &ids, &Random::System, clock.now(), "dev", &SCOPES).await;
    db.close().await;
    let (_, secret) = created.context("the API key could not be stored")?;
    Ok(secret)
}

/// Registers the receiver and the wallet, and waits until the wallet is watched.
async fn register(
    customer: &Customer,
    local: &dyn Local,
    receiver: &receiver::Handle,
) -> anyhow::Result<String> {
    let endpoint = json!({"url": receiver.url, "events": ["*"], "description": "tidemark dev"});
    let endpoint = customer.post("/v1/webhook-endpoints", "dev-endpoint", &endpoint).await?;
    receiver.set_secret(text(&endpoint, "secret")?)?;

    let body = json!({
        "address": local.wallet(),
        "chains": [local.config().name],
        "account": {"externalId": "player-1"},
        "nickname": "demo",
    });
    let registered = customer.post("/v1/wallets", "dev-wallet", &body).await?;
    let id = text(&registered, "id")?.to_owned();
    let path = format!("/v1/wallets/{id}");
    let active = async {
        while customer.get(&path).await?["status"] != "active" {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(ACTIVATION_TIMEOUT, active)
        .await
        .context("the wallet's watch did not begin in time")??;
    Ok(id)
}

pub(super) fn text<'a>(answer: &'a Value, field: &str) -> anyhow::Result<&'a str> {
    answer[field].as_str().with_context(|| format!("the answer has no {field}: {answer}"))
}
