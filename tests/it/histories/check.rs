//! The daemon's figures against the chain's own.

use std::collections::BTreeMap;

use alloy::primitives::{Address, U256};
use parking_lot::Mutex;
use rand::{Rng as _, rngs::StdRng};
use serde_json::{Value, json};

use super::world::World;
use crate::harness::{Api, balance_in, eventually, safes::plan};

/// How the daemon's node tells what moves inside transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tracing {
    Debug,
    Flat,
    None,
}

impl Tracing {
    pub fn name(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Flat => "trace",
            Self::None => "none",
        }
    }
}

/// What a registered address has of each asset.
type Figures = Vec<(&'static str, U256)>;

/// Blocks more that may settle until what two nodes say of money that is gone is believed.
const MORE: usize = 8;
/// Past balances that are looked at after each settlement.
const PAST: usize = 6;

/// The registered addresses, with the block from which on each is known.
pub struct Checked {
    api: Api,
    pub tracing: Tracing,
    since: BTreeMap<Address, u64>,
}

impl Checked {
    /// Some addresses are registered as they are, some as Safes that nobody has deployed.
    pub async fn register(api: Api, world: &World, tracing: Tracing) -> Self {
        let mut checked = Self { api, tracing, since: BTreeMap::new() };
        for safe in &world.safes {
            if safe.planned {
                let body = json!({"chains": ["local"], "safe": plan(&safe.contracts, &safe.setup)});
                let answer = checked.api.post("/v1/wallets", &body).await.ok();
                assert_eq!(answer["address"], safe.address.to_checksum(None));
            } else {
                checked.api.register(safe.address).await;
            }
        }
        for &address in &world.first {
            checked.api.register(address).await;
        }
        let safes = world.safes.iter().map(|safe| safe.address);
        for address in safes.chain(world.first.iter().copied()).collect::<Vec<_>>() {
            checked.active(address, world).await;
        }
        checked
    }

    pub async fn watch(&mut self, address: Address, world: &World) {
        self.api.register(address).await;
        self.active(address, world).await;
    }

    async fn active(&mut self, address: Address, world: &World) {
        self.api.active(address).await;
        self.since.insert(address, world.node.head().await.unwrap().number.to());
    }

    pub fn addresses(&self) -> Vec<Address> {
        self.since.keys().copied().collect()
    }

    /// What the daemon knows of in its block.
    fn seen(&self) -> Vec<&'static str> {
        match self.tracing {
            Tracing::Debug | Tracing::Flat => vec!["ETH", "WETH", "DUSD", "USDT"],
            Tracing::None => vec!["WETH", "DUSD", "USDT"],
        }
    }

    /// The totals at the node's head become the chain's own: a block is taken in before its trace.
    pub async fn at_head(&self, world: &World, differs: &Mutex<String>) {
        let head = world.node.head_hash().await;
        let assets = self.seen();
        for &address in self.since.keys() {
            let figures = world.figures(head, address, &assets).await;
            eventually("the chain's own figures", || async {
                let balances = self.api.balances(address).await;
                self.same(&balances, address, &figures, differs)
                    .then_some(())
                    .filter(|()| balances["asOf"][0]["head"]["hash"] == json!(head))
            })
            .await;
        }
    }

    /// The totals of everything, after all of it has settled.
    pub async fn settled(&self, world: &World, differs: &Mutex<String>) {
        let assets = ["ETH", "WETH", "DUSD", "USDT", "ELA"];
        for more in 0..=MORE {
            let head = world.node.head_hash().await;
            let mut same = true;
            for &address in self.since.keys() {
                let figures = world.figures(head, address, &assets).await;
                let balances = self.api.balances_settled(address, &world.node).await;
                same &= self.same(&balances, address, &figures, differs);
            }
            if same {
                return;
            }
            assert!(more < MORE, "it has settled, and differs: {}", differs.lock());
            world.node.mine(1).await.unwrap();
        }
    }

    /// Some balances of the past, where nothing is adjusted later.
    pub async fn past(&self, world: &World, random: &mut StdRng, differs: &Mutex<String>) {
        let head: u64 = world.node.head().await.unwrap().number.to();
        let assets: Vec<&str> = self.seen();
        for _ in 0..PAST {
            let which = random.random_range(0..self.since.len());
            let (&address, &since) = self.since.iter().nth(which).unwrap();
            let number = random.random_range(since.max(head.saturating_sub(30))..=head);
            let block = world.node.block(format!("{number:#x}")).await.unwrap().unwrap();
            let figures = world.figures(block.hash, address, &assets).await;
            let path = format!("/v1/wallets/{address}/balances?at={number}");
            let past = self.api.get(&path).await.ok();
            let same = self.same(&past, address, &figures, differs);
            assert!(same, "after block {number}: {}", differs.lock());
        }
    }

    fn same(
        &self,
        balances: &Value,
        address: Address,
        figures: &Figures,
        differs: &Mutex<String>,
    ) -> bool {
        for (symbol, chain) in figures {
            let told = balance_in(balances, symbol).total;
            if told != *chain {
                let tracing = self.tracing.name();
                *differs.lock() = format!(
                    "{address} has {chain} {symbol} on the chain and {told} in the ledger (tracing: {tracing})"
                );
                return false;
            }
        }
        true
    }
}
