//! Requests against the real router on a real store: SQLite in a temporary folder, or PostgreSQL where
//! `TIDEMARK_TEST_POSTGRES_URL` names a server.

mod balances;
mod fuzz;
mod isolation;
mod operation;
mod ownership;
mod past;
mod proofs;
pub(crate) mod reading;
mod registration;
mod repeating;
mod safes;
mod webhooks;

use std::{collections::BTreeMap, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Request, StatusCode},
};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tower::ServiceExt as _;

use super::{
    Api,
    key::{self, Scope},
};
use crate::{
    chain::{Address, AssetKey, BlockHash, BlockRef, ChainName, Family, Provers},
    clock::{Clock, Millis},
    config::{
        ChainConfig, Config, FleetConfig, RetentionConfig, Secret, ServerConfig, WebhookConfig,
        testing,
    },
    id::Ids,
    ledger::changes::AssetChange,
    metrics::Metrics,
    model::{Asset, AssetNo, BlockPoint, Cursor, JournalHead},
    obstacle::Obstacles,
    random::Random,
    store::{
        Db, Reads, asset,
        chain::{ensure, insert_cursor},
    },
    wake::Wake,
};

const NOW: Millis = Millis(1_768_469_400_000);
const ALICE: &str = "0x742D35CC6634C0532925a3B844Bc9E7595F2bD18";
const BOB: &str = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed";
const USDC: [u8; 20] = [0x83; 20];

/// A store that goes away with it.
struct TestDb {
    db: Db,
    /// The server and the name of a database to drop.
    server: Option<(String, String)>,
    _folder: tempfile::TempDir,
}

impl Drop for TestDb {
    fn drop(&mut self) {
        let Some((server, name)) = self.server.take() else { return };
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(Db::drop_for_test(&server, &name));
        });
        let _ = dropping.join();
    }
}

async fn test_db(metrics: &Metrics) -> TestDb {
    let folder = tempfile::tempdir().expect("a folder");
    if let Ok(server) = std::env::var("TIDEMARK_TEST_POSTGRES_URL") {
        let unique: crate::id::RequestId = Ids::new(Clock::System).next();
        let name = format!("tidemark_api_test_{}", unique.0.simple());
        let db = Db::create_for_test(&server, &name, metrics).await;
        return TestDb { db, server: Some((server, name)), _folder: folder };
    }
    let path = folder.path().join("t.db");
    let db = Db::open(&format!("sqlite://{}", path.display()), metrics).await.expect("a store");
    TestDb { db, server: None, _folder: folder }
}

fn chain(name: &str, chain_id: u64, family: Family) -> (ChainName, ChainConfig) {
    let caip2 = format!("eip155:{chain_id}");
    let config = ChainConfig { family, caip2, chain_id, ..testing::chain(name) };
    (config.name.clone(), config)
}

fn config() -> Config {
    Config {
        server: ServerConfig {
            listen: ([127, 0, 0, 1], 0).into(),
            max_body_bytes: 2 * 1024 * 1024,
            request_timeout: Duration::from_secs(20),
        },
        database_url: Secret::new("unused"),
        replica: None,
        chains: BTreeMap::from([
            chain("base", 8453, Family::Evm),
            chain("ethereum", 1, Family::Evm),
            chain("solana", 0, Family::Solana),
        ]),
        fleet: FleetConfig::default(),
        webhooks: WebhookConfig {
            allow_http: false,
            allow_private_addresses: false,
            retry_schedule: Vec::new(),
            request_timeout: Duration::from_secs(5),
            max_in_flight: 10,
            max_in_flight_per_endpoint: 2,
            disable_after: Duration::from_hours(1),
        },
        retention: RetentionConfig::for_ever(Duration::from_hours(24)),
    }
}

/// An API with two tenants: `acme` and `other`.
pub(super) struct World {
    router: Router,
    pub api: Api,
    pub acme: String,
    other: String,
    _store: TestDb,
    _writing: JoinSet<Infallible>,
}

struct Reply {
    status: StatusCode,
    headers: axum::http::HeaderMap,
    body: Value,
}

impl Reply {
    /// Checks that it is the problem that API.md describes.
    #[track_caller]
    fn is_problem(&self, status: u16, code: &str) -> &Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.body);
        assert_eq!(self.body["code"], code, "{}", self.body);
        assert_eq!(self.body["status"], status);
        assert_eq!(self.body["type"], format!("https://tidemark.dev/errors/{code}"));
        assert_eq!(self.headers["content-type"], "application/problem+json");
        assert_eq!(self.body["requestId"], self.headers["x-request-id"].to_str().expect("ascii"));
        assert!(self.body["instance"].as_str().expect("a path").starts_with('/'));
        assert!(!self.body["title"].as_str().expect("a title").is_empty());
        assert!(!self.body["detail"].as_str().expect("a detail").is_empty());
        &self.body
    }

    /// Checks that a field is named, and gives what is said of it.
    #[track_caller]
    fn field(&self, field: &str) -> String {
        let errors = self.body["errors"].as_array().cloned().unwrap_or_default();
        let error = errors.iter().find(|error| error["field"] == field);
        let error = error.unwrap_or_else(|| panic!("no error of {field} in {}", self.body));
        error["message"].as_str().expect("a message").to_owned()
    }

    #[track_caller]
    fn ok(self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.body);
        self.body
    }
}

impl World {
    pub async fn new() -> Self {
        Self::with(config()).await
    }

    async fn with(config: Config) -> Self {
        let metrics = Metrics::new();
        let store = test_db(&metrics).await;
        let clock = Clock::manual(NOW);
        let api = Api {
            db: store.db.clone(),
            reads: Reads::new(store.db.clone()),
            provers: Provers::default(),
            ids: Ids::new(clock.clone()),
            random: Random::seeded(1),
            wake: Wake::new(config.chains.keys().cloned()),
            obstacles: Obstacles::default(),
            clock,
            metrics,
            config: Arc::new(config),
        };
        let key = async |tenant: &str| {
            key::create(&api.db, &api.ids, &api.random, NOW, tenant, &[Scope::Admin])
                .await
                .expect("a key")
                .1
        };
        let (acme, other) = (key("acme").await, key("other").await);
        let (router, writing) = api.clone().parts();
        Self { router, acme, other, api, _store: store, _writing: JoinSet::from_iter([writing]) }
    }

    async fn send(&self, request: Request<Body>) -> Reply {
        let response = self.router.clone().oneshot(request).await.expect("an answer");
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, usize::MAX).await.expect("a body");
        let text = || Value::String(String::from_utf8_lossy(&bytes).into_owned());
        let body = if bytes.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&bytes).unwrap_or_else(|_| text())
        };
        Reply { status: parts.status, headers: parts.headers, body }
    }

    fn request(method: &str, path: &str, key: &str) -> axum::http::request::Builder {
        Request::builder().method(method).uri(path).header("x-api-key", key)
    }

    async fn get(&self, path: &str) -> Reply {
        self.get_as(&self.acme, path).await
    }

    async fn get_as(&self, key: &str, path: &str) -> Reply {
        self.send(Self::request("GET", path, key).body(Body::empty()).expect("a request")).await
    }

    async fn write_as(&self, key: &str, method: &str, path: &str, body: &Value) -> Reply {
        let idempotency: crate::id::RequestId = self.api.ids.next();
        self.repeat(key, method, path, body, &idempotency.to_string()).await
    }

    async fn repeat(
        &self,
        key: &str,
        method: &str,
        path: &str,
        body: &Value,
        idempotency: &str,
    ) -> Reply {
        let request = Self::request(method, path, key)
            .header("content-type", "application/json")
            .header("idempotency-key", idempotency)
            .body(Body::from(body.to_string()))
            .expect("a request");
        self.send(request).await
    }

    async fn post(&self, path: &str, body: Value) -> Reply {
        self.write_as(&self.acme, "POST", path, &body).await
    }

    /// Registers an address on base and gives the wallet.
    async fn wallet(&self, address: &str) -> Value {
        let body = json!({ "address": address, "chains": ["base"] });
        self.post("/v1/wallets", body).await.ok(201)
    }

    /// Lets the chain stand at a block, with its coin and USDC.
    async fn begin_chain(&self, name: &str, number: u64, time: Millis) {
        let name = ChainName::new(name);
        let point = |number| BlockPoint {
            at: BlockRef { number, hash: BlockHash([u8::try_from(number % 256).unwrap_or(0); 32]) },
            time,
        };
        let config = &self.api.config.chains[&name];
        let mut tx = self.api.db.begin().await.expect("a transaction");
        let mut conn = tx.conn();
        let cursor = Cursor {
            no: ensure(&mut conn, &name).await.expect("a chain"),
            chain: name.clone(),
            family: config.family,
            caip2: config.caip2.clone(),
            head: point(number),
            settled: point(number.saturating_sub(10)),
            halted: None,
            epoch: 0,
            transfers: 0,
            assets: 2,
            journal: JournalHead::default(),
        };
        let new = |n: u64, key: AssetKey, symbol: &str, decimals| Asset {
            no: AssetNo::nth(cursor.no, n).expect("a number"),
            listing: None,
            version: 0,
            chain: name.clone(),
            caip19: match key {
                AssetKey::Native => format!("{}/slip44:60", config.caip2),
                AssetKey::Token(address) => {
                    format!("{}/erc20:{}", config.caip2, config.family.format_address(&address))
                }
            },
            key,
            symbol: Some(symbol.to_owned()),
            name: Some(symbol.to_owned()),
            decimals: Some(decimals),
            verified: true,
            quarantine: None,
        };
        insert_cursor(&mut conn, &cursor, NOW).await.expect("a cursor");
        let assets = [
            new(0, AssetKey::Native, "ETH", 18),
            new(1, AssetKey::Token(Address::from(USDC)), "USDC", 6),
        ];
        let assets = assets.map(AssetChange::New);
        asset::write(&mut conn, cursor.no, &assets, NOW).await.expect("assets");
        tx.commit().await.expect("a commit");
    }

    /// Follows `nextCursor` to the end and gives the ids.
    async fn all(&self, path: &str) -> Vec<String> {
        let mut ids = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = self.get(&format!("{path}{cursor}")).await.ok(200);
            let data = page["data"].as_array().expect("data");
            ids.extend(data.iter().map(|item| item["id"].as_str().expect("an id").to_owned()));
            match page["nextCursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return ids,
            }
            assert!(ids.len() < 10_000, "paging does not end");
        }
    }
}

fn address(n: u32) -> String {
    format!("0x{n:040x}")
}
