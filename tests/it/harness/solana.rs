//! A real Solana validator, which all tests that run at the same time share.

use std::{
    collections::BTreeMap,
    ops::Deref,
    sync::{Arc, Weak},
    time::Duration,
};

use serde_json::Value;
use solana_commitment_config::CommitmentConfig;
use solana_keypair::Keypair;
use solana_pubkey::Pubkey;
use solana_signer::Signer as _;
use tidemark::dev::{
    mint::{Mint, WRAPPED},
    solana::{Landed, Rpc},
    validator::{Options, Validator},
};
use tokio::{sync::Mutex, time::sleep};
use tokio_util::task::AbortOnDropHandle;

use super::{Api, Daemon, Settings, Store, balance_in, daemon::Token, eventually};

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
    /// A chain of one's own, for those who kill it or need another one.
    pub async fn start(options: Options) -> Self {
        let validator = Validator::start(options).await.unwrap();
        let rpc = validator.rpc();
        let (genesis, token, fee_token) = tokio::join!(
            rpc.genesis_hash(),
            Mint::create(&rpc, 6),
            Mint::create_with_fee(&rpc, 6, 100)
        );
        let (genesis, token) = (genesis.unwrap(), token.unwrap());
        Self { validator, genesis, token, fee_token: fee_token.unwrap() }
    }

    /// What is money in these tests; `None` is SOL.
    pub fn assets(&self) -> [(&'static str, Option<Mint>); 4] {
        [
            ("SOL", None),
            ("DUSD", Some(self.token)),
            ("FEE", Some(self.fee_token)),
            ("WSOL", Some(WRAPPED)),
        ]
    }

    pub fn settings(&self, store: &Store) -> Settings {
        let mints = self.assets().into_iter().filter_map(|(symbol, mint)| Some((symbol, mint?)));
        let tokens = mints.map(|(symbol, mint)| Token {
            contract: mint.address.to_string(),
            symbol,
            decimals: mint.decimals,
            wraps: false,
        });
        let identity = format!("family = \"solana\"\ngenesis = \"{}\"", self.genesis);
        let (url, ws) = (self.validator.url(), self.validator.ws_url());
        Settings::of_chain(identity, url, ws, tokens.collect(), store)
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
            None => Arc::new(Chain::start(Options::default()).await),
        };
        *shared = Arc::downgrade(&chain);
        drop(shared);
        let rpc = chain.validator.rpc();
        Self { chain, rpc }
    }

    /// A daemon that follows the chain, and a customer of it.
    pub async fn daemon(&self, store: &Store) -> (Daemon, Api) {
        let daemon = Daemon::start_with(self.settings(store)).await;
        let api = daemon.customer("acme").await;
        (daemon, api)
    }

    /// Somebody with this many lamports.
    pub async fn somebody(&self, lamports: u64) -> Keypair {
        let key = Keypair::new();
        self.rpc.fund(&key.pubkey(), lamports).await.unwrap();
        key
    }

    /// New tokens for an owner, in the associated account, which is opened if it must be.
    pub async fn issue(&self, mint: &Mint, owner: &Pubkey, amount: u64) -> Landed {
        let bank = self.rpc.bank();
        let issue = mint.issue(&bank.pubkey(), &mint.account_of(owner), amount);
        let instructions = [mint.open(&bank.pubkey(), owner), issue];
        self.rpc.run(&instructions, &[bank]).await.unwrap()
    }
}

/// How often the validator is asked; its slots are a little longer.
const READING_PAUSE: Duration = Duration::from_millis(100);

/// What the validator itself said that a wallet has, as of which slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reading {
    slot: u64,
    symbol: &'static str,
    amount: u64,
}

/// Asks the validator for the balances of wallets while a test goes on: the confirmed ones, because of these
/// alone it says exactly which slot they are of. Whatever is confirmed here is final a little later.
pub struct Witness {
    rpc: Rpc,
    assets: [(&'static str, Option<Mint>); 4],
    wallets: Vec<Pubkey>,
    readings: Arc<parking_lot::Mutex<BTreeMap<Pubkey, Vec<Reading>>>>,
    _task: AbortOnDropHandle<()>,
}

impl Witness {
    pub fn of(chain: &Chain, rpc: &Rpc, wallets: &[Pubkey]) -> Self {
        let readings: Arc<parking_lot::Mutex<BTreeMap<Pubkey, Vec<Reading>>>> = Arc::default();
        let (rpc, assets, wallets) = (rpc.clone(), chain.assets(), wallets.to_vec());
        let task = tokio::spawn({
            let (rpc, wallets, readings) = (rpc.clone(), wallets.clone(), Arc::clone(&readings));
            async move {
                loop {
                    for &wallet in &wallets {
                        // The validator may be down just now.
                        let sure = CommitmentConfig::confirmed();
                        let Some(read) = read(&rpc, &assets, &wallet, sure).await else { continue };
                        readings.lock().entry(wallet).or_default().extend(read);
                    }
                    sleep(READING_PAUSE).await;
                }
            }
        });
        Self { rpc, assets, wallets, readings, _task: AbortOnDropHandle::new(task) }
    }

    /// Waits until everything up to `slot` is final for the validator and settled for the daemon, and compares
    /// the ledger with all that the validator said of every slot at which it was asked, and with what it says
    /// now: nothing may have moved since `slot`.
    pub async fn agrees(&self, api: &Api, slot: u64) {
        self.agrees_at_every_slot(api, slot).await;
        for &wallet in &self.wallets {
            let balances = api.balances(wallet).await;
            let now = read(&self.rpc, &self.assets, &wallet, CommitmentConfig::finalized()).await;
            for Reading { symbol, amount, .. } in now.expect("an answer") {
                let balance = balance_in(&balances, symbol);
                assert_eq!(balance.total.to::<u64>(), amount, "{symbol} of {wallet}: {balances:#}");
                assert!(balance.pending.is_zero(), "{symbol} of {wallet}: {balances:#}");
            }
        }
    }

    /// The same for wallets that are never at rest.
    pub async fn agrees_at_every_slot(&self, api: &Api, slot: u64) {
        self.rpc.finalized(slot).await.unwrap();
        let events = api.events().await;
        for &wallet in &self.wallets {
            let balances = eventually("the final slot in the ledger", || async {
                let balances = api.balances(wallet).await;
                (balances["asOf"][0]["settled"]["number"].as_u64()? >= slot).then_some(balances)
            })
            .await;
            let transfers = api.transfers(wallet).await;
            let readings = self.readings.lock().get(&wallet).cloned().unwrap_or_default();
            let head = balances["asOf"][0]["head"]["number"].as_u64().unwrap();
            let activated = events.iter().find(|event| {
                event["type"] == "wallet.activated"
                    && event["data"]["wallet"]["address"] == wallet.to_string()
            });
            let begun = activated.unwrap()["data"]["block"]["number"].as_u64().unwrap();
            let explained = transfers.iter().all(|transfer| transfer["kind"] != "adjustment");
            assert!(explained, "something of {wallet} was not seen to move: {transfers:#?}");
            let covered = readings.iter().filter(|reading| (begun..=head).contains(&reading.slot));
            let mut compared = 0;
            for reading in covered {
                assert_eq!(
                    booked(&transfers, reading.symbol, reading.slot),
                    i128::from(reading.amount),
                    "{} of {wallet} at slot {}: {transfers:#?}",
                    reading.symbol,
                    reading.slot
                );
                compared += 1;
            }
            assert!(compared > 0, "nothing was compared");
        }
    }
}

async fn read(
    rpc: &Rpc,
    assets: &[(&'static str, Option<Mint>)],
    wallet: &Pubkey,
    sure: CommitmentConfig,
) -> Option<Vec<Reading>> {
    let mut readings = Vec::with_capacity(assets.len());
    for &(symbol, mint) in assets {
        let (amount, slot) = match mint {
            None => rpc.lamports(wallet, sure).await.ok()?,
            Some(mint) => rpc.tokens(wallet, &mint.address, sure).await.ok()?,
        };
        readings.push(Reading { slot, symbol, amount });
    }
    Some(readings)
}

/// What the ledger has of an asset after a slot.
fn booked(transfers: &[Value], symbol: &str, slot: u64) -> i128 {
    let counted = transfers.iter().filter(|transfer| {
        transfer["asset"]["symbol"] == symbol
            && transfer["status"] != "orphaned"
            && transfer["block"]["number"].as_u64().unwrap() <= slot
    });
    counted
        .map(|transfer| {
            let amount: i128 = transfer["amount"]["raw"].as_str().unwrap().parse().unwrap();
            if transfer["direction"] == "in" { amount } else { -amount }
        })
        .sum()
}

/// The transfers of one transaction.
pub fn of_transaction(transfers: &[Value], signature: &str) -> Vec<Value> {
    transfers.iter().filter(|transfer| transfer["txHash"] == signature).cloned().collect()
}
