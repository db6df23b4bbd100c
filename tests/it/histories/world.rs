//! A chain on which everything can happen that the histories are made of.

use alloy::{
    hex,
    primitives::{Address, B256, U256},
    sol_types::SolCall as _,
};
use rand::{Rng as _, rngs::StdRng};
use serde_json::{Value, json};
use tidemark::dev::{
    anvil::Request,
    contracts::{self, SafeContracts, SafeSetup},
};

use crate::harness::{
    CHAIN, Node, Settings, Store, Token,
    contracts::{ELASTIC, Elastic, MOVER, Mover, TETHER, Tether},
    safes::{ALL_SAFES, SAFE_1_3_0_EIP155, SAFE_1_4_1, SAFE_1_5_0},
};

/// Enough for any of the calls.
pub const GAS: u64 = 1_000_000;
pub const FEW: u64 = 1_000_000_000;

pub struct World {
    pub node: Node,
    /// It is the wrapped coin as well.
    pub mover: Address,
    pub tether: Address,
    pub elastic: Address,
    /// Runs the mover's code on its own account.
    pub proxy: Address,
    /// Where the mover makes contracts that it may destroy again.
    pub places: Vec<Address>,
    pub safes: Vec<Safe>,
    /// Those that are registered before anything happens.
    pub first: Vec<Address>,
    /// Those that are registered later.
    pub later: Vec<Address>,
    /// All of them, who may be paid at any time.
    pub everybody: Vec<Address>,
}

/// A Safe that is not deployed yet, or is.
pub struct Safe {
    pub contracts: SafeContracts,
    pub setup: SafeSetup,
    pub address: Address,
    pub deployment: Request,
    /// Registered by its owners, threshold and salt.
    pub planned: bool,
}

impl World {
    pub async fn start(random: &mut StdRng) -> Self {
        let node = Node::start().await;
        let rich = node.accounts[0];
        let mover = contracts::deploy(&node, rich, MOVER).await.unwrap();
        let tether = contracts::deploy(&node, rich, TETHER).await.unwrap();
        let elastic = contracts::deploy(&node, rich, ELASTIC).await.unwrap();
        let proxy = contracts::deploy(&node, rich, &proxy_of(mover)).await.unwrap();
        let mut places = Vec::new();
        for salt in 0..3 {
            let question = Mover::placeCall { salt: U256::from(salt) }.abi_encode();
            let answer = node.ask(mover, question).await.unwrap();
            places.push(Address::from_slice(&answer[12..]));
        }
        let mut safes = Vec::new();
        for contracts in ALL_SAFES {
            node.place_safe(&contracts).await;
            let owners = vec![node.accounts[1]];
            let setup = SafeSetup { owners, threshold: 1, salt_nonce: random.random() };
            let deployment = node.safe_deployment(&contracts, &setup).await;
            let planned = [SAFE_1_3_0_EIP155, SAFE_1_4_1, SAFE_1_5_0]
                .iter()
                .any(|release| release.singleton == contracts.singleton);
            let request = deployment.request.with_gas(GAS);
            let address = deployment.address;
            safes.push(Safe { contracts, setup, address, deployment: request, planned });
        }
        let mut strangers = (0..4).map(|_| Address::from(random.random::<[u8; 20]>()));
        let producer = strangers.next().unwrap();
        let _: Value = node.call("anvil_setCoinbase", json!([producer])).await.unwrap();
        let mut first = node.accounts[1..5].to_vec();
        first.extend([mover, proxy, producer, places[0], places[1]]);
        first.extend(strangers.by_ref().take(2));
        let later = vec![node.accounts[6], strangers.next().unwrap(), places[2]];
        let everybody = first.iter().chain(&later).copied();
        let everybody = everybody.chain(safes.iter().map(|safe| safe.address)).collect();
        let world =
            Self { node, mover, tether, elastic, proxy, places, safes, first, later, everybody };
        world.endow().await;
        world
    }

    /// Whoever sends has some of everything.
    async fn endow(&self) {
        let accounts = &self.node.accounts;
        let issue = Tether::issueCall { amount: U256::from(FEW) }.abi_encode();
        let mut requests = vec![
            Request::pay(accounts[0], self.mover, U256::from(1000 * FEW)),
            Request::pay(accounts[0], self.proxy, U256::from(1000 * FEW)),
            Request::call(accounts[0], self.tether, issue),
        ];
        for &to in &accounts[1..8] {
            let value = U256::from(10_000_000);
            let tether = Tether::transferCall { to, value }.abi_encode();
            let elastic = Elastic::mintCall { to, value }.abi_encode();
            let wrap = Request::call(to, self.mover, Mover::depositCall {}.abi_encode());
            requests.extend([
                Request::call(accounts[0], self.tether, tether),
                Request::call(accounts[0], self.elastic, elastic),
                self.node.minting(to, 10_000_000),
                Request { value, ..wrap },
            ]);
        }
        let requests: Vec<Request> =
            requests.into_iter().map(|request| request.with_gas(200_000)).collect();
        self.node.block_with(&requests).await;
        // No branch takes that back.
        self.node.settle().await;
    }

    /// A daemon that believes what two endpoints say, and is not stopped by a token that rebases.
    pub fn settings(&self, store: &Store, tracing: &str) -> Settings {
        let mut settings = Settings::new(&self.node, store);
        settings.more_nodes.push(self.node.url().to_owned());
        settings.endpoint = format!(", tracing = \"{tracing}\"");
        settings.chain.push_str(
            "sweep_per_minute = 0\nmax_differences = 1000\nmax_differences_percent = 100",
        );
        let token = |contract: Address, symbol, decimals, wraps| Token {
            contract: contract.to_checksum(None),
            symbol,
            decimals,
            wraps,
        };
        settings.tokens.push(token(self.mover, "WETH", 18, true));
        settings.tokens.push(token(self.elastic, "ELA", 6, false));
        let contract = self.tether.to_checksum(None);
        settings.more = format!(
            "[[chains.{CHAIN}.tokens]]\ncontract = \"{contract}\"\nsymbol = \"USDT\"\ndecimals = 6\n\
             destroys_funds = true\n"
        );
        settings
    }

    /// What the chain says of an address after the block of that hash.
    pub async fn figures(
        &self,
        at: B256,
        address: Address,
        assets: &[&'static str],
    ) -> Vec<(&'static str, U256)> {
        let block = json!({"blockHash": at});
        let mut figures = Vec::with_capacity(assets.len());
        for &asset in assets {
            let contract = match asset {
                "ETH" => None,
                "WETH" => Some(self.mover),
                "DUSD" => Some(self.node.token),
                "USDT" => Some(self.tether),
                _ => Some(self.elastic),
            };
            let figure = match contract {
                None => self.node.call("eth_getBalance", json!([address, block])).await,
                Some(contract) => {
                    let data = Elastic::balanceOfCall { who: address }.abi_encode();
                    let data = hex::encode_prefixed(data);
                    let question = json!({"to": contract, "data": data});
                    self.node.call("eth_call", json!([question, block])).await
                }
            };
            figures.push((asset, figure.unwrap()));
        }
        figures
    }

    /// One block in which each of them is paid by transactions that everybody sees: what settles with it is compared.
    pub async fn touch(&self, addresses: &[Address]) {
        let from = self.node.accounts[7];
        let mut requests = Vec::new();
        for &to in addresses {
            let elastic = Elastic::transferCall { to, value: U256::from(1) }.abi_encode();
            requests.push(Request::pay(from, to, U256::from(1)).with_gas(100_000));
            requests.push(Request::call(from, self.elastic, elastic).with_gas(200_000));
        }
        self.node.block_with(&requests).await;
    }

    pub async fn send(&self, request: &Value) {
        self.node.call::<Value>("eth_sendTransaction", json!([request])).await.unwrap();
    }
}

/// EIP-1167: a contract that delegates whatever it is called with.
fn proxy_of(code: Address) -> String {
    format!("3d602d80600a3d3981f3363d3d373d3d3d363d73{code:x}5af43d82803e903d91602b57fd5bf3")
}
