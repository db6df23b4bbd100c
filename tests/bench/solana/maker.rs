//! Made-up blocks of the documented shape of `transactionDetails: "accounts"`: 1,500 transactions, two thirds of
//! them votes, the rest swaps, token transfers and payments.
//!
//! A few dozen blocks are made and come again and again, each time with other hashes and signatures: what a
//! transaction moves is the difference of two balances, wherever they begin.

use std::{collections::HashMap, fmt::Write as _};

use anyhow::Context as _;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::index};
use tidemark::chain::{Address, Family, TxId, solana};

const BODIES: u64 = 50;
const TRANSACTIONS: usize = 1500;
const VOTES: usize = 1000;
/// The active owners.
pub const OWNERS: u64 = 1_000;
/// Every so many of those who do not vote is registered.
const EVERY: usize = 17;
pub const MINTS: usize = 40;
const POOL: usize = 20_000;
const _: () = assert!((POOL - 2 * TRANSACTIONS).div_ceil(EVERY) as u64 == OWNERS);
/// The last digits of a signature, which tell one coming of a block from another.
const DIGITS: usize = 8;
const BASE58: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";

const VOTE: &str = "Vote111111111111111111111111111111111111111";
const SYSTEM: &str = "11111111111111111111111111111111";
const BUDGET: &str = "ComputeBudget111111111111111111111111111111";
const FEE: u64 = 5000;

fn key(kind: u8, n: u64) -> [u8; 32] {
    alloy::primitives::keccak256([&[kind][..], &n.to_be_bytes()].concat()).0
}

pub fn text(key: [u8; 32]) -> String {
    Family::Solana.format_address(&Address::from(key))
}

/// The n-th active owner.
pub fn owner(n: u64) -> [u8; 32] {
    key(b'o', n)
}

/// Who has the n-th place in a pool, if it is an active owner.
fn active(place: usize) -> Option<u64> {
    let place = place.checked_sub(2 * TRANSACTIONS)?;
    place.is_multiple_of(EVERY).then_some((place / EVERY) as u64)
}

/// The place of an active owner in a pool.
fn place_of(owner: usize) -> usize {
    2 * TRANSACTIONS + EVERY * owner
}

/// The n-th mint.
pub fn mint(n: usize) -> String {
    text(key(b'm', n as u64))
}

/// A leader of the cluster.
pub fn leader(n: u64) -> String {
    text(key(b'l', n % 20))
}

/// The hash of the block at a place of the chain.
pub fn hash(n: u64) -> String {
    text(key(b'b', n))
}

/// The transactions of a block, as a list in JSON.
struct Body {
    text: String,
    /// Where the signatures have their last digits.
    places: Vec<usize>,
}

/// What an active owner has: lamports, and base units of its one mint.
type Held = (u64, u64);

/// The blocks, and what the active owners have after each.
pub struct Cluster {
    bodies: Vec<Body>,
    /// By the number of blocks so far, then by owner.
    held: Vec<Vec<Held>>,
    /// The active owners by their keys.
    owners: HashMap<String, usize>,
}

impl Cluster {
    pub fn record() -> Self {
        let mut maker = Maker::new();
        let mut held = vec![maker.held()];
        let mut bodies = Vec::new();
        for _ in 0..BODIES {
            bodies.push(maker.body());
            held.push(maker.held());
        }
        let owners = (0..OWNERS).map(|n| text(owner(n))).zip(0..).collect();
        Self { bodies, held, owners }
    }

    pub fn bytes(&self) -> u64 {
        self.bodies.iter().map(|body| body.text.len() as u64).sum()
    }

    pub fn bodies(&self) -> u64 {
        self.bodies.len() as u64
    }

    /// The transactions of the n-th block, from 1 on.
    pub fn transactions(&self, n: u64, out: &mut Vec<u8>) {
        let index = n.saturating_sub(1) % self.bodies();
        let Some(body) = self.bodies.get(usize::try_from(index).unwrap_or_default()) else {
            return;
        };
        let start = out.len();
        out.extend_from_slice(body.text.as_bytes());
        let mut rest = n;
        let digits: [u8; DIGITS] = std::array::from_fn(|_| {
            let digit = BASE58[usize::try_from(rest % 58).unwrap_or_default()];
            rest /= 58;
            digit
        });
        for place in &body.places {
            out[start + place..][..DIGITS].copy_from_slice(&digits);
        }
    }

    /// What an active owner has after so many blocks.
    pub fn holds(&self, owner: usize, blocks: u64) -> anyhow::Result<Held> {
        let (rounds, rest) = (blocks / self.bodies(), usize::try_from(blocks % self.bodies())?);
        let at = |count: usize| -> anyhow::Result<(i64, i64)> {
            let (lamports, units) = self.held[count][owner];
            Ok((lamports.try_into()?, units.try_into()?))
        };
        let (first, round, now) = (at(0)?, at(self.bodies.len())?, at(rest)?);
        let rounds = i64::try_from(rounds)?;
        let after = |first: i64, round: i64, now: i64| {
            u64::try_from(now + rounds * (round - first)).context("an owner is overdrawn")
        };
        Ok((after(first.0, round.0, now.0)?, after(first.1, round.1, now.1)?))
    }

    /// The owner of that key, if it is active; its token account and the number of its mint.
    pub fn find(&self, key: &str) -> Option<(usize, String, usize)> {
        let owner = *self.owners.get(key)?;
        let place = place_of(owner);
        Some((owner, text(self::key(b't', place as u64)), place % MINTS))
    }
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
    /// Where the block that is being made has the last digits of its signatures.
    places: Vec<usize>,
}

/// One account of one transaction: its place in a pool, or a key that is only read.
enum Named<'a> {
    Person(usize),
    Token(usize),
    Read(&'a str),
}

impl Maker {
    fn new() -> Self {
        let person = |n: usize| Account {
            key: text(active(n).map_or_else(|| key(b'p', n as u64), owner)),
            lamports: 1 << 40,
            tokens: None,
        };
        let token = |n: usize| {
            let who = active(n).map_or_else(|| key(b'q', n as u64), owner);
            Account {
                key: text(key(b't', n as u64)),
                lamports: 2_039_280,
                tokens: Some((n % MINTS, text(who), 1 << 40)),
            }
        };
        Self {
            random: StdRng::seed_from_u64(7),
            mints: (0..MINTS).map(mint).collect(),
            people: (0..POOL).map(person).collect(),
            tokens: (0..POOL).map(token).collect(),
            others: (0..400).map(|n| text(key(b'r', n))).collect(),
            signatures: 0,
            places: Vec::new(),
        }
    }

    /// What the active owners have.
    fn held(&self) -> Vec<Held> {
        let owners = usize::try_from(OWNERS).unwrap_or_default();
        let held = |owner: usize| {
            let place = place_of(owner);
            let units = self.tokens[place].tokens.as_ref().map_or(0, |(_, _, units)| *units);
            (self.people[place].lamports, units)
        };
        (0..owners).map(held).collect()
    }

    fn body(&mut self) -> Body {
        let mut out = String::with_capacity(6 << 20);
        out.push('[');
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
        out.push(']');
        out.shrink_to_fit();
        Body { text: out, places: std::mem::take(&mut self.places) }
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
        let signature = Family::Solana.format_tx(&TxId::from(signature));
        let _ = write!(out, r#"],"signatures":["{signature}"#);
        self.places.push(out.len() - DIGITS);
        out.push_str(r#""]},"version":0}"#);
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
