//! Blocks of a busy Solana cluster, decoded and matched on one core.
//!
//! The blocks are made up to the documented shape of `transactionDetails: "accounts"`: 1,500 transactions, two
//! thirds of them votes, the rest swaps, token transfers and payments. The node runs on a thread of its own;
//! everything else (HTTP, JSON, the checks, movements, matching against a million owners) on one other thread.

use std::{
    fmt::Write as _,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use axum::{Router, body::Bytes, extract::State, routing::post};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::index};
use serde::Deserialize;
use serde_json::value::RawValue;
use tidemark::{
    chain::{Address, ChainName, Family, Source as _, solana},
    config::Config,
    metrics::Metrics,
    registry::Registry,
};

use super::{Figure, Goal};

const BLOCKS: u64 = 60;
const TRANSACTIONS: usize = 1500;
const VOTES: usize = 1000;
const OWNERS: u64 = 1_000_000;
const MEASURED: Duration = Duration::from_secs(10);

const GENESIS: &str = "EtWTRABZaYq6iMfeYKouRu166VU2xqa1wcaWoxPkrZBG";
const VOTE: &str = "Vote111111111111111111111111111111111111111";
const SYSTEM: &str = "11111111111111111111111111111111";
const BUDGET: &str = "ComputeBudget111111111111111111111111111111";
const FEE: u64 = 5000;
const POOL: usize = 20_000;
const MINTS: usize = 40;

fn key(kind: u8, n: u64) -> [u8; 32] {
    alloy::primitives::keccak256([&[kind][..], &n.to_be_bytes()].concat()).0
}

fn text(key: [u8; 32]) -> String {
    Family::Solana.format_address(&Address::from(key))
}

/// The n-th registered owner.
fn owner(n: u64) -> [u8; 32] {
    key(b'o', n)
}

/// A system account or a token account, and what it has.
struct Account {
    key: String,
    lamports: u64,
    tokens: Option<(usize, String, u64)>,
}

struct Maker {
    random: StdRng,
    mints: Vec<String>,
    /// Payers and receivers.
    people: Vec<Account>,
    /// Token accounts, the n-th of the mint n % MINTS.
    tokens: Vec<Account>,
    /// Accounts that are only read.
    others: Vec<String>,
    signatures: u64,
}

/// One account of one transaction: its place in a pool, or a key that is only read.
enum Named<'a> {
    Person(usize),
    Token(usize),
    Read(&'a str),
}

impl Maker {
    fn new() -> Self {
        let person = |n: u64| Account {
            // Some of those who pay and are paid are registered.
            key: text(if n.is_multiple_of(100) { owner(n) } else { key(b'p', n) }),
            lamports: 1 << 40,
            tokens: None,
        };
        let token = |n: u64| {
            let who = if n.is_multiple_of(100) { owner(n) } else { key(b'q', n) };
            let mint = usize::try_from(n).unwrap_or_default() % MINTS;
            Account {
                key: text(key(b't', n)),
                lamports: 2_039_280,
                tokens: Some((mint, text(who), 1 << 40)),
            }
        };
        Self {
            random: StdRng::seed_from_u64(7),
            mints: (0..MINTS as u64).map(|n| text(key(b'm', n))).collect(),
            people: (0..POOL as u64).map(person).collect(),
            tokens: (0..POOL as u64).map(token).collect(),
            others: (0..400).map(|n| text(key(b'r', n))).collect(),
            signatures: 0,
        }
    }

    fn block(&mut self, number: u64) -> String {
        let mut out = String::with_capacity(6 << 20);
        let hash = |n: u64| text(key(b'b', n));
        // Writing to a String does not fail.
        let _ = write!(
            out,
            r#"{{"blockHeight":{number},"blockTime":{},"blockhash":"{}","parentSlot":{},"previousBlockhash":"{}","rewards":[{{"commission":null,"lamports":12500000,"postBalance":99000000000,"pubkey":"{}","rewardType":"Fee"}}],"transactions":["#,
            1_790_000_000 + number,
            hash(number),
            number - 1,
            hash(number - 1),
            text(key(b'l', number % 20)),
        );
        for index in 0..TRANSACTIONS {
            if index > 0 {
                out.push(',');
            }
            // Votes lie between the others, as they do there.
            if index * VOTES % TRANSACTIONS < VOTES {
                self.vote(index, &mut out);
            } else {
                match self.random.random_range(0..100) {
                    0..45 => self.swap(&mut out),
                    45..75 => self.token_transfer(&mut out),
                    _ => self.payment(&mut out),
                }
            }
        }
        out.push_str("]}");
        out
    }

    fn vote(&mut self, index: usize, out: &mut String) {
        // The first validators' identities pay; their vote accounts follow.
        let (payer, voter) = (2 * index, 2 * index + 1);
        let before = self.people[payer].lamports;
        self.people[payer].lamports -= FEE;
        let lamports = [
            (before, before - FEE),
            (self.people[voter].lamports, self.people[voter].lamports),
            (1, 1),
        ];
        let accounts = [Named::Person(payer), Named::Person(voter), Named::Read(VOTE)];
        self.write(&accounts, &lamports, &[], 2, out);
    }

    fn payment(&mut self, out: &mut String) {
        let [from, to] = self.two_people();
        let before = (self.people[from].lamports, self.people[to].lamports);
        let paid = self.random.random_range(1..1_000_000);
        self.people[from].lamports -= paid + FEE;
        self.people[to].lamports += paid;
        let lamports = [
            (before.0, self.people[from].lamports),
            (before.1, self.people[to].lamports),
            (1, 1),
            (1, 1),
        ];
        let accounts =
            [Named::Person(from), Named::Person(to), Named::Read(SYSTEM), Named::Read(BUDGET)];
        self.write(&accounts, &lamports, &[], 2, out);
    }

    fn token_transfer(&mut self, out: &mut String) {
        let [payer, _] = self.two_people();
        let mint = self.random.random_range(0..MINTS);
        let (from, to) = self.two_of_mint(mint);
        self.tokens_move(payer, &[(from, to)], 0, out);
    }

    fn swap(&mut self, out: &mut String) {
        let [payer, _] = self.two_people();
        let hops = self.random.random_range(2..5);
        let mints = index::sample(&mut self.random, MINTS, hops).into_vec();
        let pairs: Vec<_> = mints.into_iter().map(|mint| self.two_of_mint(mint)).collect();
        let read = self.random.random_range(8..16);
        self.tokens_move(payer, &pairs, read, out);
    }

    fn two_people(&mut self) -> [usize; 2] {
        // Not those who vote.
        let drawn = index::sample(&mut self.random, POOL - 2 * TRANSACTIONS, 2);
        [2 * TRANSACTIONS + drawn.index(0), 2 * TRANSACTIONS + drawn.index(1)]
    }

    fn two_of_mint(&mut self, mint: usize) -> (usize, usize) {
        let drawn = index::sample(&mut self.random, POOL / MINTS, 2);
        (drawn.index(0) * MINTS + mint, drawn.index(1) * MINTS + mint)
    }

    fn tokens_move(
        &mut self,
        payer: usize,
        pairs: &[(usize, usize)],
        read: usize,
        out: &mut String,
    ) {
        let before = self.people[payer].lamports;
        self.people[payer].lamports -= FEE;
        let mut accounts = vec![Named::Person(payer)];
        let mut lamports = vec![(before, before - FEE)];
        let mut changes = Vec::new();
        for &(from, to) in pairs {
            let amount = self.random.random_range(1..1_000_000);
            for (account, gained) in [(from, false), (to, true)] {
                let rent = self.tokens[account].lamports;
                let Some((_, _, held)) = &mut self.tokens[account].tokens else { continue };
                let had = *held;
                *held = if gained { had + amount } else { had - amount };
                changes.push((accounts.len(), account, had, *held));
                accounts.push(Named::Token(account));
                lamports.push((rent, rent));
            }
        }
        let others: Vec<String> = index::sample(&mut self.random, self.others.len(), read)
            .into_iter()
            .map(|n| self.others[n].clone())
            .collect();
        let mut named: Vec<&str> = others.iter().map(String::as_str).collect();
        named.extend([solana::TOKEN, BUDGET, SYSTEM]);
        for key in named {
            accounts.push(Named::Read(key));
            lamports.push((1_461_600, 1_461_600));
        }
        let writable = 1 + 2 * pairs.len();
        self.write(&accounts, &lamports, &changes, writable, out);
    }

    fn write(
        &mut self,
        accounts: &[Named<'_>],
        lamports: &[(u64, u64)],
        tokens: &[(usize, usize, u64, u64)],
        writable: usize,
        out: &mut String,
    ) {
        self.signatures += 1;
        let list = |out: &mut String, numbers: &mut dyn Iterator<Item = u64>| {
            for (n, number) in numbers.enumerate() {
                let _ = write!(out, "{}{number}", if n > 0 { "," } else { "" });
            }
        };
        let _ = write!(out, r#"{{"meta":{{"err":null,"fee":{FEE},"postBalances":["#);
        list(out, &mut lamports.iter().map(|(_, after)| *after));
        out.push_str(r#"],"postTokenBalances":["#);
        self.token_balances(tokens.iter().map(|&(place, n, _, after)| (place, n, after)), out);
        out.push_str(r#"],"preBalances":["#);
        list(out, &mut lamports.iter().map(|(before, _)| *before));
        out.push_str(r#"],"preTokenBalances":["#);
        self.token_balances(tokens.iter().map(|&(place, n, before, _)| (place, n, before)), out);
        out.push_str(r#"],"status":{"Ok":null}},"transaction":{"accountKeys":["#);
        for (index, account) in accounts.iter().enumerate() {
            let key = match account {
                Named::Person(n) => &self.people[*n].key,
                Named::Token(n) => &self.tokens[*n].key,
                Named::Read(key) => *key,
            };
            let _ = write!(
                out,
                r#"{}{{"pubkey":"{key}","signer":{},"source":"transaction","writable":{}}}"#,
                if index > 0 { "," } else { "" },
                index == 0,
                index < writable,
            );
        }
        let mut signature = [0x5a; 64];
        signature[..32].copy_from_slice(&key(b's', self.signatures));
        let signature = Family::Solana.format_tx(&tidemark::chain::TxId::from(signature));
        let _ = write!(out, r#"],"signatures":["{signature}"]}},"version":0}}"#);
    }

    fn token_balances(&self, tokens: impl Iterator<Item = (usize, usize, u64)>, out: &mut String) {
        for (n, (place, account, amount)) in tokens.enumerate() {
            let Some((mint, owner, _)) = &self.tokens[account].tokens else { continue };
            let _ = write!(
                out,
                r#"{}{{"accountIndex":{place},"mint":"{}","owner":"{owner}","programId":"{}","uiTokenAmount":{{"amount":"{amount}","decimals":6,"uiAmount":{}.{:06},"uiAmountString":"{}.{:06}"}}}}"#,
                if n > 0 { "," } else { "" },
                self.mints[*mint],
                solana::TOKEN,
                amount / 1_000_000,
                amount % 1_000_000,
                amount / 1_000_000,
                amount % 1_000_000,
            );
        }
    }
}

#[derive(Deserialize)]
struct Call<'a> {
    #[serde(borrow)]
    id: &'a RawValue,
    method: &'a str,
    #[serde(borrow)]
    params: Vec<&'a RawValue>,
}

/// The blocks of the slots from 1 on.
struct Recorded(Vec<String>);

async fn answer(State(blocks): State<Arc<Recorded>>, body: Bytes) -> String {
    let Ok(call) = serde_json::from_slice::<Call<'_>>(&body) else { return String::new() };
    let number = |n: usize| call.params.get(n).and_then(|param| param.get().parse::<u64>().ok());
    let head = blocks.0.len() as u64;
    let block = |slot: u64| usize::try_from(slot - 1).ok().and_then(|index| blocks.0.get(index));
    let slots = |from: u64, to: u64| {
        let listed: Vec<String> = (from.max(1)..=to.min(head)).map(|n| n.to_string()).collect();
        format!("[{}]", listed.join(","))
    };
    let result = match call.method {
        "getGenesisHash" => format!("\"{GENESIS}\""),
        "getSlot" => head.to_string(),
        "getBlocks" => slots(number(0).unwrap_or_default(), number(1).unwrap_or_default()),
        "getBlocksWithLimit" => {
            let from = number(0).unwrap_or_default();
            slots(from, from)
        }
        "getBlock" => number(0).and_then(block).cloned().unwrap_or_else(|| "null".to_owned()),
        _ => "null".to_owned(),
    };
    format!(r#"{{"jsonrpc":"2.0","id":{},"result":{result}}}"#, call.id.get())
}

/// Serves on a thread of its own until the process ends; gives the URL.
fn serve(blocks: Recorded) -> anyhow::Result<String> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let url = format!("http://{}", listener.local_addr()?);
    std::thread::spawn(move || -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let router = Router::new().route("/", post(answer)).with_state(Arc::new(blocks));
            Ok(axum::serve(listener, router).await?)
        })
    });
    Ok(url)
}

pub async fn measure() -> anyhow::Result<Vec<Figure>> {
    let measured = tokio::task::spawn_blocking(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(on_one_thread())
    });
    measured.await?
}

async fn on_one_thread() -> anyhow::Result<Vec<Figure>> {
    let mut maker = Maker::new();
    let blocks: Vec<String> = (1..=BLOCKS).map(|number| maker.block(number)).collect();
    let bytes: usize = blocks.iter().map(String::len).sum();
    let url = serve(Recorded(blocks))?;
    let config = Config::from_toml(&format!(
        "[chains.cluster]\nfamily = \"solana\"\ngenesis = \"{GENESIS}\"\nendpoints = [{{ url = \"{url}\" }}]"
    ))?;
    let name = ChainName::new("cluster");
    let chain = config.chains.get(&name).context("the chain just configured")?;
    let source = solana::SolanaSource::new(chain, Metrics::new())?;
    let watchlist = Registry::default().watchlist(&name);
    watchlist.insert((0..OWNERS).map(|n| Address::from(owner(n))));
    ensure!(watchlist.len() as u64 == OWNERS, "all owners are watched");

    let (mut done, mut movements, mut matched) = (0_u64, 0_usize, 0_usize);
    let begun = Instant::now();
    while begun.elapsed() < MEASURED {
        let from = done % BLOCKS + 1;
        let to = (from + chain.batch_blocks - 1).min(BLOCKS);
        for block in source.blocks(from, to).await? {
            movements += block.movements.len();
            matched += block
                .movements
                .iter()
                .filter(|movement| {
                    [movement.from, movement.to]
                        .iter()
                        .flatten()
                        .any(|address| watchlist.contains(address))
                })
                .count();
            done += 1;
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    ensure!(matched > 0, "nobody was matched");
    #[expect(clippy::cast_precision_loss, reason = "counts of blocks and bytes")]
    let (rate, size) = (done as f64 / seconds, bytes as f64 / BLOCKS as f64 / 1e6);
    let what = format!(
        "solana: blocks of {TRANSACTIONS} transactions, {size:.1} MB, {} movements, {} of {OWNERS} owners",
        movements as u64 / done,
        matched as u64 / done,
    );
    Ok(vec![Figure::new(what, rate, "blocks/s").with_goal(Goal::AtLeast(20.0))])
}
