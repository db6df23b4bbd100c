//! A real node that makes blocks only when told to, with the demo token on it.

use std::{ops::Deref, path::PathBuf};

use alloy::primitives::{Address, B256, U256};
use tidemark::dev::{
    anvil::{Anvil, Mining, Options, Receipt, Request, Rpc},
    contracts,
    npm::Packages,
};

pub struct Node {
    anvil: Anvil,
    /// Rich accounts that the node signs for.
    pub accounts: Vec<Address>,
    pub token: Address,
}

/// The node's JSON-RPC.
impl Deref for Node {
    type Target = Rpc;

    fn deref(&self) -> &Rpc {
        &self.anvil.rpc
    }
}

impl Node {
    /// Blocks are final four below the head.
    pub async fn start() -> Self {
        Self::start_with(Options { slots_in_an_epoch: Some(2), ..Options::default() }).await
    }

    pub async fn start_with(options: Options) -> Self {
        let anvil = Anvil::start(Options { mining: Mining::Manual, ..options }).await.unwrap();
        let accounts = anvil.rpc.accounts().await.unwrap();
        let token = contracts::deploy_demo_token(&anvil.rpc, accounts[9]).await.unwrap();
        Self { anvil, accounts, token }
    }

    /// A second node with the same history, which then goes its own way.
    pub async fn twin(&self) -> Self {
        let anvil = Anvil::start(Options {
            mining: Mining::Manual,
            slots_in_an_epoch: Some(2),
            ..Options::default()
        })
        .await
        .unwrap();
        let state: String = self.call("anvil_dumpState", serde_json::json!([true])).await.unwrap();
        let loaded: bool =
            anvil.rpc.call("anvil_loadState", serde_json::json!([state])).await.unwrap();
        assert!(loaded, "the twin takes the state");
        let (mine, twins) = (self.head().await.unwrap(), anvil.rpc.head().await.unwrap());
        assert_eq!(mine, twins, "the twin has the same head");
        Self { anvil, accounts: self.accounts.clone(), token: self.token }
    }

    /// An address that never was on the chain.
    pub fn stranger() -> Address {
        Address::from(rand::random::<[u8; 20]>())
    }

    /// One block with these transactions in it, which must all succeed.
    pub async fn block_with(&self, transactions: &[Request]) -> Vec<Receipt> {
        self.send_all(transactions).await.unwrap()
    }

    /// One block with a payment of the native coin.
    pub async fn pay(&self, from: Address, to: Address, value: u64) -> Receipt {
        self.block_with(&[Request::pay(from, to, U256::from(value))]).await.remove(0)
    }

    /// One block with new demo tokens.
    pub async fn mint(&self, to: Address, value: u64) -> Receipt {
        self.block_with(&[self.minting(to, value)]).await.remove(0)
    }

    pub fn minting(&self, to: Address, value: u64) -> Request {
        contracts::token_mint(self.token, self.accounts[9], to, U256::from(value)).with_gas(100_000)
    }

    pub fn token_transfer(&self, from: Address, to: Address, value: u64) -> Request {
        contracts::token_transfer(self.token, from, to, U256::from(value)).with_gas(100_000)
    }

    /// Enough empty blocks to make everything so far final.
    pub async fn settle(&self) {
        self.mine(4).await.unwrap();
    }

    pub async fn token_balance(&self, owner: Address) -> U256 {
        contracts::token_balance(self, self.token, owner).await.unwrap()
    }

    pub async fn head_hash(&self) -> B256 {
        self.head().await.unwrap().hash
    }

    /// The real Safe 1.4.1.
    pub async fn deploy_safe_1_4_1(&self) -> contracts::SafeContracts {
        let modules = Packages::install().await.unwrap().modules();
        contracts::deploy_safe_1_4_1(self, self.accounts[9], &modules).await.unwrap()
    }

    /// The real Safe 1.3.0.
    pub async fn deploy_safe_1_3_0(&self) -> contracts::SafeContracts {
        let modules: PathBuf = super::npm_folder().join("node_modules");
        contracts::deploy_safe_1_3_0(self, self.accounts[9], &modules).await.unwrap()
    }

    pub async fn stop(self) {
        self.anvil.stop().await.unwrap();
    }
}
