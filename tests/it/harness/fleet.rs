//! Several daemons on one PostgreSQL, which follow some chains between them.

use std::time::Duration;

use futures::future::join_all;
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use tidemark::dev::anvil::Options;

use super::{Api, CHAIN, Daemon, Node, Settings, Store, daemon::Token, eventually};

/// How long a holder that says nothing keeps its chains, here.
pub const LEASE: Duration = Duration::from_secs(2);
/// What more it may take until another one follows.
pub const SLACK: Duration = Duration::from_secs(2);
const NAMES: [&str; 4] = [CHAIN, "second", "third", "fourth"];

pub struct Chain {
    pub name: &'static str,
    pub node: Node,
}

pub struct Fleet {
    pub chains: Vec<Chain>,
    pub store: Store,
    pub daemons: Vec<Daemon>,
    /// The same customer at each.
    pub apis: Vec<Api>,
}

/// The shortest lease, and chains that are shared out again as soon as they can be.
const SETTINGS: &str = "
[fleet]
lease_seconds = 2
heartbeat_seconds = 1
rebalance_seconds = 2
";

/// A commit that moved a chain, as the database saw it.
#[derive(Debug, sqlx::FromRow)]
pub struct Moved {
    pub chain: String,
    /// Which daemon's connection it was.
    pub daemon: String,
    pub epoch: i64,
    pub head: i64,
}

/// The database writes down which daemon's connection moves which chain, in the order of the commits: whoever changes
/// a chain's row holds it until it commits.
const WITNESS: &str = "
    CREATE TABLE moved (
        no BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        chain_no BIGINT NOT NULL, daemon TEXT NOT NULL, epoch BIGINT NOT NULL, head BIGINT NOT NULL
    );
    CREATE FUNCTION write_down() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO moved (chain_no, daemon, epoch, head)
        VALUES (NEW.chain_no, current_setting('application_name'), NEW.fencing_epoch, NEW.head_number);
        RETURN NULL;
    END $$;
    CREATE TRIGGER write_down AFTER UPDATE ON chain_cursor FOR EACH ROW
        WHEN (OLD.head_number <> NEW.head_number OR OLD.head_hash <> NEW.head_hash)
        EXECUTE FUNCTION write_down()";

impl Fleet {
    /// That many daemons on so many chains; each says in its settings what is its own.
    pub async fn start(
        daemons: usize,
        chains: usize,
        own: impl Fn(usize, Settings) -> Settings,
    ) -> Self {
        let start = |(number, &name): (u64, &'static &'static str)| async move {
            let chain_id = Some(31337 + number);
            let options = Options { chain_id, slots_in_an_epoch: Some(2), ..Options::default() };
            Chain { name, node: Node::start_with(options).await }
        };
        let chains = join_all((0..).zip(&NAMES[..chains]).map(start)).await;
        let store = Store::postgres().await;
        let settings = |index: usize| {
            let mut settings = Settings::new(&chains[0].node, &store);
            // The database tells them apart by that.
            let name = format!("?application_name=daemon-{index}");
            settings.database_url.push_str(&name);
            settings.more += SETTINGS;
            for (chain, number) in chains.iter().zip(31337..).skip(1) {
                let (url, ws) = (chain.node.url(), chain.node.ws_url());
                let contract = chain.node.token.to_checksum(None);
                let token = Token { contract, symbol: "DUSD", decimals: 6, wraps: false };
                let identity = format!("family = \"evm\"\nchain_id = {number}");
                settings.more += &super::daemon::chain(
                    chain.name,
                    &identity,
                    &format!("{{ url = \"{url}\", ws = \"{ws}\" }}"),
                    &[token],
                );
            }
            own(index, settings)
        };
        let mut all = vec![Daemon::start_with(settings(0)).await];
        all.extend(join_all((1..daemons).map(|index| Daemon::start_with(settings(index)))).await);
        let key = all[0].customer("acme").await.key;
        let apis = all.iter().map(|daemon| Api::new(daemon.base(), key.clone())).collect();
        let mut connection = PgConnection::connect(&store.url()).await.unwrap();
        sqlx::raw_sql(WITNESS).execute(&mut connection).await.unwrap();
        Self { chains, store, daemons: all, apis }
    }

    /// Which daemon says that it follows a chain, once exactly one does.
    pub async fn leader(&self, chain: &str) -> usize {
        eventually(&format!("one that follows {chain}"), || async {
            let mut leaders = Vec::new();
            for (index, daemon) in self.daemons.iter().enumerate() {
                if daemon.runs() && leads(daemon, chain).await {
                    leaders.push(index);
                }
            }
            let [leader] = leaders[..] else { return None };
            Some(leader)
        })
        .await
    }

    /// Waits until a daemon has what every node calls final.
    pub async fn settled(&self, api: &Api) {
        for Chain { name, node } in &self.chains {
            let head = node.head_hash().await;
            let final_block = node.block("finalized").await.unwrap().expect("a final block").hash;
            eventually(&format!("the final block of {name} in the ledger"), || async {
                let chains = api.get("/v1/chains").await.ok();
                let all = chains["data"].as_array()?;
                let one = all.iter().find(|chain| chain["name"] == *name)?;
                let is_there = one["head"]["hash"] == json!(head)
                    && one["settled"]["hash"] == json!(final_block);
                is_there.then_some(())
            })
            .await;
        }
    }

    /// What the database wrote down, in the order of the commits.
    pub async fn moved(&self) -> Vec<Moved> {
        let mut connection = PgConnection::connect(&self.store.url()).await.unwrap();
        sqlx::query_as(
            "SELECT c.name AS chain, m.daemon, m.epoch, m.head FROM moved m
             JOIN chain c ON c.no = m.chain_no ORDER BY m.no",
        )
        .fetch_all(&mut connection)
        .await
        .unwrap()
    }

    /// Each chain had one follower at a time, whatever several of them believed: under one number one daemon alone
    /// committed, nobody did under an older number once a newer one had, and every block was connected once. Only
    /// for chains without reorgs.
    pub async fn one_followed_at_a_time(&self) {
        let moved = self.moved().await;
        for Chain { name, .. } in &self.chains {
            let of_chain: Vec<&Moved> = moved.iter().filter(|moved| moved.chain == *name).collect();
            assert!(!of_chain.is_empty(), "nobody followed {name}");
            for pair in of_chain.windows(2) {
                let (before, after) = (pair[0], pair[1]);
                assert!(before.head < after.head, "connected twice: {before:?}, {after:?}");
                assert!(before.epoch <= after.epoch, "not fenced: {before:?}, {after:?}");
                let same = before.daemon == after.daemon;
                assert!(same || before.epoch < after.epoch, "two at once: {before:?}, {after:?}");
            }
        }
        let mut connection = PgConnection::connect(&self.store.url()).await.unwrap();
        let twice: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM transfer WHERE connection <> 1 OR orphaned_at IS NOT NULL",
        )
        .fetch_one(&mut connection)
        .await
        .unwrap();
        assert_eq!(twice, 0, "a transfer was connected twice or taken back");
    }

    /// The feed, which is the same at every daemon; each wallet's events are counted in it without a gap.
    pub async fn history(&self) -> Vec<Value> {
        let feed = self.apis[0].events().await;
        for api in &self.apis[1..] {
            assert!(api.events().await == feed, "two daemons tell two histories");
        }
        let mut ids: Vec<&str> = feed.iter().map(|event| event["id"].as_str().unwrap()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), feed.len(), "an event is there twice");
        let mut counted = std::collections::BTreeMap::<&str, u64>::new();
        for event in &feed {
            let Some(wallet) = event["data"]["wallet"]["id"].as_str() else { continue };
            let count = counted.entry(wallet).or_default();
            *count += 1;
            assert_eq!(event["sequence"], json!(*count), "a gap before {event:#}");
        }
        feed
    }

    /// The ledger agrees with its own entries, with the chains and with its journals.
    pub async fn audit(&self) {
        self.daemons[0].audit().await;
    }
}

/// Whether a daemon says that it follows a chain.
pub async fn leads(daemon: &Daemon, chain: &str) -> bool {
    daemon.metrics().await.contains(&format!("tidemark_chain_leader{{chain=\"{chain}\"}} 1"))
}
