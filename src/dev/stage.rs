//! Everything that must stand before the show begins, and its orderly end.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use alloy::primitives::{Address, keccak256};
use anyhow::Context as _;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    anvil::{Anvil, Mining, Options, Rpc},
    client::Customer,
    contracts::{self, SafeContracts},
    folder::Folder,
    npm::Packages,
    receiver, screen,
};
use crate::{
    api::key::{self, Scope},
    chain::{self, ChainName, Family, Settlement, SettlementTag},
    clock::Clock,
    config::{
        ChainConfig, Config, EndpointConfig, NativeCoin, Secret, ServerConfig, TokenConfig,
        Verification, WebhookConfig,
    },
    id::Ids,
    store::Db,
};

pub(super) const CHAIN: &str = "local";
const CHAIN_ID: u64 = 31337;
const BLOCK_TIME: Duration = Duration::from_secs(1);
/// Blocks are final this many below the head: twice the slots of an epoch.
const SLOTS_IN_AN_EPOCH: u64 = 1;
/// Where the API listens if nobody else does.
const USUAL_PORT: u16 = 8080;
const ACTIVATION_TIMEOUT: Duration = Duration::from_secs(30);
const DRAIN_TIMEOUT: Duration = Duration::from_secs(12);
const SCOPES: [Scope; 3] = [Scope::WalletsRead, Scope::WalletsWrite, Scope::WebhooksWrite];

/// What the traffic needs to know.
#[derive(Debug)]
pub(super) struct Scene {
    pub rpc: Rpc,
    /// The node's own rich accounts.
    pub accounts: Vec<Address>,
    pub token: Address,
    pub safe: SafeContracts,
    pub customer: Customer,
    /// The registered address. Nobody has its key: the node sends for it all the same.
    pub wallet: Address,
    pub wallet_id: String,
}

pub(super) struct Stage {
    pub scene: Scene,
    pub receiver: receiver::Handle,
    pub daemon: AbortOnDropHandle<anyhow::Result<()>>,
    /// Set by whoever awaited `daemon` to its end: it must not be awaited again.
    pub daemon_ended: bool,
    daemon_shutdown: CancellationToken,
    receiver_shutdown: CancellationToken,
    node: Anvil,
    /// Of this show only: the next one has another chain and needs another store.
    pub folder: Folder,
}

impl Stage {
    /// With `once`, on any free port: nobody will ask for the usual one.
    pub(super) async fn build(once: bool) -> anyhow::Result<Self> {
        let packages = Packages::install().await?;
        screen::say("starting Anvil and deploying Safe 1.4.1 and a demo token");
        let node = Anvil::start(Options {
            chain_id: Some(CHAIN_ID),
            mining: Mining::Every(BLOCK_TIME),
            slots_in_an_epoch: Some(SLOTS_IN_AN_EPOCH),
            ..Options::default()
        })
        .await?;
        let rpc = node.rpc.clone();
        let accounts = rpc.accounts().await?;
        let deployer = *accounts.first().context("Anvil has no accounts")?;
        let safe = contracts::deploy_safe_1_4_1(&rpc, deployer, &packages.modules()).await?;
        let token = contracts::deploy_demo_token(&rpc, deployer).await?;

        let folder = Folder::create()?;
        let receiver_shutdown = CancellationToken::new();
        let receiver = receiver::start(receiver_shutdown.clone()).await?;
        let listen = if once { any_port() } else { usual_port() };
        let database_url = format!("sqlite://{}", folder.0.join("tidemark.db").display());
        let config = config(&database_url, &rpc, token, listen);
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
        let (wallet, wallet_id) = register(&customer, &receiver).await?;
        rpc.impersonate(wallet).await?;
        let scene = Scene { rpc, accounts, token, safe, customer, wallet, wallet_id };
        Ok(Self {
            scene,
            receiver,
            daemon,
            daemon_ended: false,
            daemon_shutdown,
            receiver_shutdown,
            node,
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
        self.node.stop().await?;
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

fn config(database_url: &str, rpc: &Rpc, token: Address, listen: SocketAddr) -> Config {
    let chain = ChainName::new(CHAIN);
    let endpoint = EndpointConfig {
        name: "anvil".to_owned(),
        url: Secret::new(rpc.url()),
        ws: Some(Secret::new(rpc.ws_url())),
        weight: 1,
        max_requests_per_second: None,
        headers: BTreeMap::new(),
        connect_timeout: Duration::from_secs(5),
        request_timeout: Duration::from_secs(30),
        max_response_bytes: 64 * 1024 * 1024,
        max_batch: 100,
    };
    let chain_config = ChainConfig {
        name: chain.clone(),
        family: Family::Evm,
        caip2: format!("eip155:{CHAIN_ID}"),
        chain_id: CHAIN_ID,
        native: NativeCoin {
            symbol: "ETH".to_owned(),
            name: "Ether".to_owned(),
            decimals: 18,
            slip44: 60,
        },
        settlement: Settlement::Tag(SettlementTag::Finalized),
        endpoints: vec![endpoint],
        tokens: vec![TokenConfig {
            contract: chain::Address::from(token.into_array()),
            symbol: contracts::DEMO_SYMBOL.to_owned(),
            name: contracts::DEMO_NAME.to_owned(),
            decimals: contracts::DEMO_DECIMALS,
        }],
        verification: Verification::Full,
        poll_interval: Duration::from_millis(250),
        lag_limit: Duration::from_secs(30),
        batch_blocks: 100,
        start_block: None,
        dropped_after: Duration::from_mins(10),
        sweep_per_minute: 600,
    };
    Config {
        server: ServerConfig {
            listen,
            max_body_bytes: 1024 * 1024,
            request_timeout: Duration::from_secs(30),
        },
        database_url: Secret::new(database_url),
        chains: BTreeMap::from([(chain, chain_config)]),
        webhooks: WebhookConfig {
            allow_http: true,
            allow_private_addresses: true,
            retry_schedule: [1, 2, 5, 10, 30].map(Duration::from_secs).to_vec(),
            request_timeout: Duration::from_secs(5),
            max_in_flight: 16,
            max_in_flight_per_endpoint: 4,
            disable_after: Duration::from_hours(1),
        },
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
async fn create_key(database_url: &str) -> anyhow::Result<String> {
    let clock = Clock::default();
    let ids = Ids::new(clock.clone());
    let db = Db::open(database_url).await?;
    let created = key::create(&db, &ids, clock.now(), "dev", &SCOPES).await;
    db.close().await;
    let (_, secret) = created.context("the API key could not be stored")?;
    Ok(secret)
}

/// Registers the receiver and the wallet, and waits until the wallet is watched.
async fn register(
    customer: &Customer,
    receiver: &receiver::Handle,
) -> anyhow::Result<(Address, String)> {
    let endpoint = json!({"url": receiver.url, "events": ["*"], "description": "tidemark dev"});
    let endpoint = customer.post("/v1/webhook-endpoints", "dev-endpoint", &endpoint).await?;
    receiver.set_secret(text(&endpoint, "secret")?)?;

    let wallet = Address::from_word(keccak256("a customer of tidemark dev"));
    let body = json!({
        "address": wallet.to_checksum(None),
        "chains": [CHAIN],
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
    Ok((wallet, id))
}

fn text<'a>(answer: &'a Value, field: &str) -> anyhow::Result<&'a str> {
    answer[field].as_str().with_context(|| format!("the answer has no {field}: {answer}"))
}
