//! A real Solana validator, which all tests that run at the same time share.

use std::{
    ops::Deref,
    sync::{Arc, Weak},
};

use solana_keypair::Keypair;
use solana_pubkey::Pubkey;
use solana_signer::Signer as _;
use tidemark::dev::{
    mint::{Mint, WRAPPED},
    solana::{Landed, Rpc},
    validator::{Options, Validator},
};
use tokio::sync::Mutex;

use super::{Settings, Store, daemon::Token};

/// A whole SOL, in lamports.
pub const SOL: u64 = 1_000_000_000;

/// What the tests find on the chain.
pub struct Chain {
    pub validator: Validator,
    genesis: String,
    /// Of the Token program.
    pub token: Mint,
    /// Of Token-2022; it withholds one percent of each transfer.
    pub fee_token: Mint,
}

impl Chain {
    /// A chain of one's own, for those who kill it.
    pub async fn start() -> Self {
        let validator = Validator::start(Options::default()).await.unwrap();
        let rpc = validator.rpc();
        let (genesis, token, fee_token) = tokio::join!(
            rpc.genesis_hash(),
            Mint::create(&rpc, 6),
            Mint::create_with_fee(&rpc, 6, 100)
        );
        let (genesis, token) = (genesis.unwrap(), token.unwrap());
        Self { validator, genesis, token, fee_token: fee_token.unwrap() }
    }

    pub fn settings(&self, store: &Store) -> Settings {
        let token = |mint: &Mint, symbol| Token {
            contract: mint.address.to_string(),
            symbol,
            decimals: mint.decimals,
        };
        let tokens = vec![
            token(&self.token, "DUSD"),
            token(&self.fee_token, "FEE"),
            token(&WRAPPED, "WSOL"),
        ];
        let identity = format!("family = \"solana\"\ngenesis = \"{}\"", self.genesis);
        let (url, ws) = (self.validator.url(), self.validator.ws_url());
        Settings::of_chain(identity, url, ws, tokens, store)
    }
}

/// The shared chain, with connections of this test's own.
pub struct Solana {
    chain: Arc<Chain>,
    pub rpc: Rpc,
}

impl Deref for Solana {
    type Target = Chain;

    fn deref(&self) -> &Chain {
        &self.chain
    }
}

impl Solana {
    /// Begun by the first test that needs it, ended by the last one.
    pub async fn shared() -> Self {
        static SHARED: Mutex<Weak<Chain>> = Mutex::const_new(Weak::new());
        let mut shared = SHARED.lock().await;
        let chain = match shared.upgrade() {
            Some(chain) => chain,
            None => Arc::new(Chain::start().await),
        };
        *shared = Arc::downgrade(&chain);
        drop(shared);
        let rpc = chain.validator.rpc();
        Self { chain, rpc }
    }

    /// Somebody with this many lamports.
    pub async fn somebody(&self, lamports: u64) -> Keypair {
        let key = Keypair::new();
        self.rpc.fund(&key.pubkey(), lamports).await.unwrap();
        key
    }

    /// New tokens for an owner, in his associated account, which is opened for him if it must be.
    pub async fn issue(&self, mint: &Mint, owner: &Pubkey, amount: u64) -> Landed {
        let bank = self.rpc.bank();
        let account = mint.account_of(owner);
        let mut instructions = vec![mint.issue(&bank.pubkey(), &account, amount)];
        if self.rpc.client().get_account(&account).await.is_err() {
            instructions.insert(0, mint.open(&bank.pubkey(), owner));
        }
        self.rpc.run(&instructions, &[bank]).await.unwrap()
    }
}
