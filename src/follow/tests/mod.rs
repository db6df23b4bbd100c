//! What a follower promises, on a scripted chain and on every store.

mod audit;
mod canary;
mod commit;
mod deployments;
mod descent;
mod doubts;
mod early;
mod finality;
mod history;
mod interrupted;
mod journal;
mod lease;
mod listing;
mod past;
mod priority;
mod proof;
mod quarantine;
mod quorum;
mod rewind;
mod safe_states;
mod safes;
mod scripted;
mod simulation;
mod solana;
mod sweep;
mod tokens;
mod traced_history;
mod watching;
mod worthless;

use std::collections::BTreeMap;

use scripted::{Payment, Scripted};

use futures::FutureExt as _;

use super::*;
use crate::{
    amount::Amount,
    chain::{Address, AssetKey, ChainName, Kind, Settlement, SettlementTag},
    config::{TokenConfig, testing::chain},
    id::{TenantId, WalletId},
    model::{ChainInfo, Tier},
    registry::Registry,
    store::testing::TestStore,
    wake::Wake,
};

fn who(number: u8) -> Address {
    Address::from([number; 20])
}

fn token() -> AssetKey {
    AssetKey::Token(Address::from([0xee; 20]))
}

/// Tokens whose contracts log whatever they like, and hold nothing.
fn hostile() -> [AssetKey; 2] {
    [0xe1, 0xe2].map(|byte| AssetKey::Token(Address::from([byte; 20])))
}

fn hostile_tokens() -> [TokenConfig; 2] {
    [0xe1, 0xe2].map(|byte| configured(byte, format!("EVIL{byte}"), 18))
}

/// A token whose contract has that byte everywhere.
fn configured(byte: u8, symbol: String, decimals: u8) -> TokenConfig {
    TokenConfig {
        contract: Address::from([byte; 20]),
        name: symbol.clone(),
        symbol,
        decimals,
        wraps_native: false,
        destroys_funds: false,
    }
}

fn chain_name() -> ChainName {
    ChainName::new("scripted")
}

fn config(settlement: Settlement) -> ChainConfig {
    ChainConfig { settlement, tokens: vec![configured(0xee, "USD".into(), 6)], ..chain("scripted") }
}

/// A chain, its follower and its store.
struct Rig {
    chain: Arc<Scripted>,
    follower: Box<Follower>,
    settlement: Settlement,
    tiers: Vec<Tier>,
}

impl Rig {
    fn new(store: &TestStore) -> Self {
        Self::with(store, Arc::new(Scripted::new()), Settlement::Tag(SettlementTag::Finalized))
    }

    fn with(store: &TestStore, chain: Arc<Scripted>, settlement: Settlement) -> Self {
        Self::made(store, chain, settlement, Vec::new())
    }

    fn made(
        store: &TestStore,
        chain: Arc<Scripted>,
        settlement: Settlement,
        tiers: Vec<Tier>,
    ) -> Self {
        let config = ChainConfig { tiers: tiers.clone(), ..config(settlement) };
        let metrics = Metrics::new();
        let clock = Clock::System;
        let wake = Wake::new([chain_name()]);
        let committer = Committer::new(
            store.db.clone(),
            store.ids.clone(),
            clock.clone(),
            metrics.clone(),
            wake.clone(),
            ChainInfo::from(&config),
        );
        let mut follower = Box::new(Follower::new(
            Arc::new(config),
            Arc::clone(&chain) as Arc<dyn Source>,
            committer,
            Registry::default().watchlist(&chain_name()),
            metrics,
            clock,
            wake.chain_wake_up(&chain_name()),
        ));
        follower.contradiction_pause = Duration::ZERO;
        Self { chain, follower, settlement, tiers }
    }

    /// A new process on the same store and chain.
    fn restart(&mut self, store: &TestStore) {
        *self = Self::made(store, Arc::clone(&self.chain), self.settlement, self.tiers.clone());
    }

    /// Turns until nothing more is to be done, as the loop does; gives what stopped the chain.
    async fn follow(&mut self) -> Result<(), String> {
        let mut announced = self.chain.announced();
        let mut last = String::new();
        for _ in 0..200 {
            match self.follower.round(&mut announced).await {
                Ok(Turn::Idle) if self.follower.wake_up.notified().now_or_never().is_none() => {
                    return Ok(());
                }
                Ok(_) => {}
                Err(TurnError::Source(error)) => last = error.to_string(),
                Err(TurnError::Retry(why)) => {
                    self.follower.cursor = None;
                    last = why;
                }
                Err(TurnError::Halt(reason)) => {
                    self.follower.halt(&reason).await.unwrap();
                    return Err(reason);
                }
                Err(error) => return Err(error.to_string()),
            }
        }
        Err(format!("it never came to rest: {last}"))
    }
}

fn pay(tx: u64, from: Option<Address>, to: Address, amount: u64) -> Payment {
    Payment { tx, from, to: Some(to), asset: AssetKey::Native, amount }
}

async fn assert_exact(store: &TestStore, rig: &Rig, wallets: &BTreeMap<Address, WalletId>) {
    journal::assert_sound(store).await;
    for (&address, &wallet) in wallets {
        let replayed = store.replayed(wallet, &chain_name()).await;
        for asset in [AssetKey::Native, token()] {
            let position = store.position(wallet, &chain_name(), asset).await;
            assert_eq!(
                position.total(),
                Ok(rig.chain.balance(address, asset)),
                "the ledger's total is the chain's own figure"
            );
            assert_eq!(
                replayed.get(&asset).copied().unwrap_or_default(),
                position,
                "the balance is the sum of its entries"
            );
        }
    }
}

fn types(events: &[(String, Option<i64>, serde_json::Value)]) -> Vec<&str> {
    events.iter().map(|(kind, ..)| kind.as_str()).collect()
}

async fn one_wallet(store: &TestStore, rig: &mut Rig) -> (TenantId, WalletId) {
    rig.follow().await.unwrap();
    let tenant = store.tenant().await;
    let wallet = store.register(tenant, &chain_name(), who(9)).await;
    rig.follow().await.unwrap();
    (tenant, wallet)
}

#[tokio::test]
async fn the_first_reorg_of_a_chain_that_tells_nothing_final_goes_back_to_the_fork_and_no_further()
{
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        for _ in 0..200 {
            rig.chain.mine(&[]);
        }
        rig.follow().await.unwrap();
        let tenant = store.tenant().await;
        let wallet = store.register(tenant, &chain_name(), who(9)).await;
        rig.follow().await.unwrap();
        rig.chain.cut(197);
        for tx in 0..4 {
            rig.chain.mine(&[pay(tx, None, who(9), 5)]);
        }
        rig.chain.read();
        rig.follow().await.unwrap();
        let lowest = rig.chain.read().into_iter().map(|(from, _)| from).min();
        assert!(lowest >= Some(198), "{lowest:?}");
        assert_exact(&store, &rig, &BTreeMap::from([(who(9), wallet)])).await;
        store.close().await;
    }
}

#[tokio::test]
async fn a_head_without_its_block_is_asked_for_with_growing_pauses_and_followed_when_it_is_there() {
    // The next block, and one further above.
    for blocks in [1, 3] {
        for store in TestStore::all().await {
            let mut rig = Rig::new(&store);
            let (_, wallet) = one_wallet(&store, &mut rig).await;
            let before = rig.chain.balance(who(9), AssetKey::Native);
            for tx in 0..blocks {
                rig.chain.mine(&[pay(100 * blocks + tx, None, who(9), 1)]);
            }
            rig.chain.withhold_head(true);
            let chain = Arc::clone(&rig.chain);
            let shutdown = CancellationToken::new();
            let running = tokio::spawn(rig.follower.run(shutdown.clone()));
            tokio::time::sleep(Duration::from_millis(1500)).await;
            let asked = chain.asked_for_head();
            assert!((2..20).contains(&asked), "asked {asked} times");
            chain.withhold_head(false);
            let all = before.checked_add(blocks.into()).unwrap();
            let there = async {
                while store.position(wallet, &chain_name(), AssetKey::Native).await.total()
                    != Ok(all)
                {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(10), there).await.expect("it is followed");
            shutdown.cancel();
            running.await.unwrap().unwrap();
            store.close().await;
        }
    }
}

#[tokio::test]
async fn what_is_too_large_is_asked_for_with_long_pauses_whatever_is_announced() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        rig.follow().await.unwrap();
        rig.chain.enlarge(true);
        let chain = Arc::clone(&rig.chain);
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(rig.follower.run(shutdown.clone()));
        for _ in 0..20 {
            chain.mine(&[]);
            chain.announce();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(chain.asked_for_large(), 1);
        shutdown.cancel();
        running.await.unwrap().unwrap();
        store.close().await;
    }
}

#[tokio::test]
async fn a_reorg_returns_money_once_and_a_remined_transaction_is_the_same_deposit() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let (tenant, wallet) = one_wallet(&store, &mut rig).await;
        rig.chain.mine(&[pay(1, None, who(9), 50)]);
        rig.follow().await.unwrap();
        rig.chain.cut(0);
        rig.chain.mine(&[]);
        rig.chain.mine(&[pay(1, None, who(9), 50)]);
        rig.follow().await.unwrap();
        let position = store.position(wallet, &chain_name(), AssetKey::Native).await;
        assert_eq!(position.incoming, 50.into());
        let events = store.events(tenant).await;
        assert_eq!(
            types(&events),
            ["wallet.activated", "deposit.pending", "deposit.orphaned", "deposit.pending"]
        );
        let id = |index: usize| events[index].2["data"]["transfer"]["id"].clone();
        assert_eq!(id(1), id(3), "the same transfer, in another block");
        assert_eq!(store.transfers(wallet).await.len(), 1);
        store.close().await;
    }
}

#[tokio::test]
async fn a_branch_that_comes_and_goes_and_comes_again_credits_once() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let (_, wallet) = one_wallet(&store, &mut rig).await;
        let wallets = BTreeMap::from([(who(9), wallet)]);
        rig.chain.mine(&[]);
        rig.chain.mine(&[pay(1, None, who(9), 50)]);
        rig.follow().await.unwrap();
        for _ in 0..3 {
            let a = rig.chain.cut(1);
            rig.chain.mine(&[pay(2, None, who(9), 7)]);
            rig.follow().await.unwrap();
            assert_exact(&store, &rig, &wallets).await;
            rig.chain.cut(1);
            rig.chain.put_back(&a);
            rig.follow().await.unwrap();
            assert_exact(&store, &rig, &wallets).await;
        }
        assert_eq!(
            store.position(wallet, &chain_name(), AssetKey::Native).await.incoming,
            50.into()
        );
        store.close().await;
    }
}

#[tokio::test]
async fn a_reorg_while_the_process_is_down_is_undone_at_the_next_start() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let (_, wallet) = one_wallet(&store, &mut rig).await;
        for tx in 1..6 {
            rig.chain.mine(&[pay(tx, None, who(9), tx)]);
        }
        rig.follow().await.unwrap();
        rig.chain.cut(2);
        for tx in 10..19 {
            rig.chain.mine(&[pay(tx, None, who(9), tx)]);
        }
        rig.restart(&store);
        rig.follow().await.unwrap();
        assert_exact(&store, &rig, &BTreeMap::from([(who(9), wallet)])).await;
        store.close().await;
    }
}

#[tokio::test]
async fn a_reorg_below_the_settled_block_halts_and_rewind_is_the_way_out() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let (_, wallet) = one_wallet(&store, &mut rig).await;
        for tx in 1..6 {
            rig.chain.mine(&[pay(tx, None, who(9), tx)]);
        }
        rig.chain.settle(3);
        rig.follow().await.unwrap();
        let before = store.position(wallet, &chain_name(), AssetKey::Native).await;
        rig.chain.cut(1);
        rig.chain.mine(&[]);
        for tx in 10..15 {
            rig.chain.mine(&[pay(tx, None, who(9), tx)]);
        }
        assert!(rig.follow().await.unwrap_err().contains("settled block"));
        assert!(store.cursor(&chain_name()).await.unwrap().halted.is_some());
        let halted = store.position(wallet, &chain_name(), AssetKey::Native).await;
        assert_eq!(halted, before, "settled money is never rewritten silently");
        assert!(rig.follow().await.unwrap_err().contains("halted"), "it stays halted");
        let target = rig.chain.header_at(1).await.unwrap().unwrap();
        rig.follower.committer.rewind(&target, &journal::order()).await.unwrap();
        rig.follow().await.unwrap();
        assert_exact(&store, &rig, &BTreeMap::from([(who(9), wallet)])).await;
        store.close().await;
    }
}

#[tokio::test]
async fn a_lagging_node_changes_nothing() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let (_, wallet) = one_wallet(&store, &mut rig).await;
        for tx in 1..4 {
            rig.chain.mine(&[pay(tx, None, who(9), tx)]);
        }
        rig.follow().await.unwrap();
        let ahead = rig.chain.cut(1);
        rig.follow().await.unwrap();
        let cursor = store.cursor(&chain_name()).await.unwrap();
        assert_eq!(cursor.head.at, ahead.last().unwrap().at, "what was applied stays");
        rig.chain.put_back(&ahead);
        rig.follow().await.unwrap();
        assert_exact(&store, &rig, &BTreeMap::from([(who(9), wallet)])).await;
        store.close().await;
    }
}

#[tokio::test]
async fn an_opening_counts_what_is_settled_as_available_and_the_rest_as_pending() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        rig.follow().await.unwrap();
        rig.chain.mine(&[pay(1, None, who(9), 100)]);
        rig.chain.settle(1);
        rig.chain.mine(&[pay(2, None, who(9), 11)]);
        rig.follow().await.unwrap();
        let tenant = store.tenant().await;
        let wallet = store.register(tenant, &chain_name(), who(9)).await;
        rig.follow().await.unwrap();
        let opened = store.position(wallet, &chain_name(), AssetKey::Native).await;
        assert_eq!((opened.settled, opened.incoming), (100.into(), 11.into()));
        // The block it began at vanishes; the deposit comes back in another one and is told as one.
        rig.chain.cut(1);
        rig.chain.mine(&[]);
        rig.chain.mine(&[pay(2, None, who(9), 11)]);
        rig.follow().await.unwrap();
        let reopened = store.position(wallet, &chain_name(), AssetKey::Native).await;
        assert_eq!((reopened.settled, reopened.incoming), (100.into(), 11.into()));
        rig.chain.settle(3);
        rig.follow().await.unwrap();
        assert_exact(&store, &rig, &BTreeMap::from([(who(9), wallet)])).await;
        let events = store.events(tenant).await;
        assert_eq!(
            types(&events),
            ["wallet.activated", "deposit.pending", "deposit.available"],
            "activated once"
        );
        store.close().await;
    }
}

#[tokio::test]
async fn a_registration_waits_while_the_node_has_no_state_for_its_block() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        rig.follow().await.unwrap();
        rig.chain.mine(&[pay(1, None, who(9), 5)]);
        rig.follow().await.unwrap();
        let tenant = store.tenant().await;
        let wallet = store.register(tenant, &chain_name(), who(9)).await;
        rig.chain.prune(true);
        rig.chain.fail(3);
        rig.follow().await.unwrap();
        rig.chain.mine(&[pay(2, None, who(9), 6)]);
        rig.follow().await.unwrap();
        assert_exact(&store, &rig, &BTreeMap::from([(who(9), wallet)])).await;
        store.close().await;
    }
}

#[tokio::test]
async fn spending_what_was_never_seen_is_covered_by_the_chains_own_figure() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let (tenant, wallet) = one_wallet(&store, &mut rig).await;
        // An internal credit that no movement shows: the scripted chain hides it behind a token of its own.
        rig.chain.mine(&[Payment {
            tx: 1,
            from: None,
            to: Some(who(9)),
            asset: AssetKey::Native,
            amount: 40,
        }]);
        rig.chain.hide_last();
        rig.chain.mine(&[pay(2, Some(who(9)), who(8), 30)]);
        rig.follow().await.unwrap();
        assert_exact(&store, &rig, &BTreeMap::from([(who(9), wallet)])).await;
        let kinds: Vec<Kind> =
            store.transfers(wallet).await.into_iter().map(|row| row.kind).collect();
        assert!(kinds.contains(&Kind::Adjustment));
        assert!(types(&store.events(tenant).await).contains(&"balance.adjusted"));
        store.close().await;
    }
}

#[tokio::test]
async fn a_closed_watch_counts_no_more_and_another_tenants_goes_on() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let (_, first) = one_wallet(&store, &mut rig).await;
        let other = store.tenant().await;
        let second = store.register(other, &chain_name(), who(9)).await;
        rig.follow().await.unwrap();
        store.ask_to_close(first).await;
        rig.follow().await.unwrap();
        rig.chain.mine(&[pay(1, None, who(9), 5)]);
        rig.follow().await.unwrap();
        assert!(store.transfers(first).await.is_empty());
        assert_eq!(store.transfers(second).await.len(), 1);
        store.close().await;
    }
}

#[tokio::test]
async fn an_asset_configured_later_begins_with_what_the_wallets_have_of_it() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        rig.follower.config =
            Arc::new(ChainConfig { tokens: Vec::new(), ..config(rig.settlement) });
        let (_, wallet) = one_wallet(&store, &mut rig).await;
        let deposit = Payment { asset: token(), ..pay(1, None, who(9), 77) };
        rig.chain.mine(&[deposit]);
        rig.follow().await.unwrap();
        assert_eq!(
            store.position(wallet, &chain_name(), token()).await.total(),
            Ok(Amount::ZERO),
            "an unverified token is no money"
        );
        assert!(!store.transfers(wallet).await[0].counted);
        rig.restart(&store);
        rig.follow().await.unwrap();
        assert_exact(&store, &rig, &BTreeMap::from([(who(9), wallet)])).await;
        store.close().await;
    }
}

#[tokio::test]
async fn more_registrations_than_one_commit_takes_are_all_opened_at_the_same_block() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        rig.follow().await.unwrap();
        let tenant = store.tenant().await;
        let mut wallets = BTreeMap::new();
        for number in 0..1_100u64 {
            let mut bytes = [0x55; 20];
            bytes[..8].copy_from_slice(&number.to_be_bytes());
            let address = Address::from(bytes);
            wallets.insert(address, store.register(tenant, &chain_name(), address).await);
        }
        let payments: Vec<Payment> = wallets
            .keys()
            .zip(1..)
            .filter(|(_, tx)| tx % 100 == 0)
            .map(|(&address, tx)| pay(tx, None, address, tx))
            .collect();
        rig.chain.mine(&payments);
        rig.follow().await.unwrap();
        rig.chain
            .mine(&payments.iter().map(|p| Payment { tx: p.tx + 5_000, ..*p }).collect::<Vec<_>>());
        rig.follow().await.unwrap();
        assert_eq!(rig.follower.watchlist.len(), wallets.len());
        let paid = payments.iter().filter_map(|p| Some((p.to?, wallets[&p.to?]))).collect();
        assert_exact(&store, &rig, &paid).await;
        store.close().await;
    }
}

#[tokio::test]
async fn of_two_writers_on_one_cursor_the_second_commits_nothing() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let (_, wallet) = one_wallet(&store, &mut rig).await;
        let stale = store.cursor(&chain_name()).await.unwrap();
        rig.chain.mine(&[pay(1, None, who(9), 50)]);
        rig.follow().await.unwrap();
        let block = MatchedBlock {
            header: rig.chain.head(),
            movements: Vec::new(),
            worthless: crate::ledger::worthless::Worthless::default(),
            safes: Vec::new(),
            ran: Vec::new(),
            tracked: Vec::new(),
            touched: Vec::new(),
            untraced: false,
        };
        let committer = &rig.follower.committer;
        let late = committer.connect(&stale, &[block], stale.settled, &Figures::new(), &[]).await;
        assert!(matches!(late, Err(CommitError::CursorMoved(_))), "{late:?}");
        assert_exact(&store, &rig, &BTreeMap::from([(who(9), wallet)])).await;
        store.close().await;
    }
}
