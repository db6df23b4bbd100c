//! A busy chain: 4,000 blocks, 241,016 token transfers between 20,000 accounts, the same in every run. And
//! whether a daemon that followed it tells what it holds.

use std::{collections::HashSet, sync::Arc};

use alloy::primitives::Address;
use anyhow::ensure;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde::Deserialize;

use super::{
    answer::{Balances, Raw},
    daemon::Daemon,
    http::{self, Answer, get_request},
    recorded::{Chain, Moved, OPENING, Transfer, address, token},
};

pub const BLOCKS: u64 = 4_000;
pub const TRANSFERS: u64 = 241_016;
pub const ACCOUNTS: u64 = 20_000;
/// What one transfer moves at most: nobody's opening balance is ever used up.
const MOST: u64 = 1_000_000;
const READERS: usize = 8;
/// Wallets whose transfers are all listed after a run.
const LISTED: u64 = 100;

/// The n-th account of the chain; from [`ACCOUNTS`] on they have no part in it.
pub fn account(n: u64) -> Address {
    address(n)
}

/// The chain, and each of its transfers with its block.
pub struct Dense {
    pub chain: Arc<Chain>,
    transfers: Vec<(u64, Transfer)>,
}

impl Dense {
    pub fn record() -> Self {
        let mut random = StdRng::seed_from_u64(7);
        let counts = counts(&mut random);
        let accounts: Vec<Address> = (0..ACCOUNTS).map(account).collect();
        let mut chain = Chain::new();
        let mut transfers = Vec::new();
        for (block, count) in (1..).zip(counts) {
            let mut transactions: Vec<Vec<Transfer>> = Vec::new();
            let mut left = count;
            while left > 0 {
                // A payment, a swap, a payroll.
                let logs = random.random_range(1..=5).min(left);
                left -= logs;
                transactions.push((0..logs).map(|_| transfer(&accounts, &mut random)).collect());
            }
            transfers.extend(transactions.iter().flatten().map(|transfer| (block, *transfer)));
            chain.push(&transactions);
        }
        Self { chain: Arc::new(chain), transfers }
    }

    /// How many transactions it has.
    pub fn transactions(&self) -> u64 {
        self.chain.transactions()
    }

    /// Its transfers, block by block from block 1 on.
    pub fn by_block(&self) -> Vec<Vec<Transfer>> {
        let blocks = self.transfers.chunk_by(|(a, _), (b, _)| a == b);
        blocks.map(|block| block.iter().map(|(_, transfer)| *transfer).collect()).collect()
    }

    /// How many sides of transfers of something the first `accounts` have, up to a block.
    pub fn sides(&self, accounts: u64, block: u64) -> u64 {
        let watched: HashSet<Address> = (0..accounts).map(account).collect();
        let below = self.transfers.iter().take_while(|(at, _)| *at <= block);
        below
            .filter(|(_, transfer)| transfer.value > 0)
            .flat_map(|(_, Transfer { from, to, .. })| [from, to])
            .map(|side| u64::from(watched.contains(side)))
            .sum()
    }

    /// Fails unless the daemon, which is at the head, has of each of these accounts the balance that the chain
    /// has, and of some of them all transfers.
    pub async fn check(&self, daemon: &Daemon, accounts: u64, settled: u64) -> anyhow::Result<()> {
        let head = self.chain.head();
        let requests = (0..accounts)
            .map(|n| get_request(&format!("/v1/wallets/{}/balances", account(n)), &daemon.key));
        let chain = Arc::clone(&self.chain);
        http::all(&daemon.address, requests.collect(), READERS, move |n, answer| {
            let expected = Expected::new(&chain, account(n as u64), head, settled);
            let found = token_balance(answer)?;
            ensure!(found == expected, "account {n}: {found:?} instead of {expected:?}");
            Ok(())
        })
        .await?;
        for n in (0..accounts).step_by(usize::try_from((accounts / LISTED).max(1))?) {
            self.check_transfers(daemon, account(n)).await?;
        }
        Ok(())
    }

    async fn check_transfers(&self, daemon: &Daemon, who: Address) -> anyhow::Result<()> {
        let mut connection = http::Connection::open(&daemon.address).await?;
        let mut found: Vec<(u64, bool, u64)> = Vec::new();
        let mut cursor = String::new();
        loop {
            let path = format!("/v1/wallets/{who}/transfers?asset=dusd&limit=200{cursor}");
            let answer = connection.get(&path, &daemon.key).await?;
            let page: Transfers = answer.json()?;
            let some = page.data.iter().filter(|transfer| transfer.kind == "transfer");
            for TransferView { direction, amount, block, .. } in some {
                found.push((block.number, direction == "in", amount.raw.parse()?));
            }
            let Some(next) = page.next_cursor else { break };
            cursor = format!("&cursor={next}");
        }
        let mut expected = Vec::new();
        for &(block, Transfer { from, to, value, .. }) in &self.transfers {
            let sides = [(from, false), (to, true)].into_iter();
            let own = sides.filter(|(side, _)| *side == who && value > 0);
            expected.extend(own.map(|(_, is_in)| (block, is_in, value)));
        }
        found.sort_unstable();
        expected.sort_unstable();
        ensure!(
            found == expected,
            "{who} has {} transfers, {} are listed, or others",
            expected.len(),
            found.len()
        );
        Ok(())
    }
}

/// How many transfers each block has: about sixty, some more and some fewer.
fn counts(random: &mut StdRng) -> Vec<u64> {
    let mut counts: Vec<u64> = (0..BLOCKS).map(|_| random.random_range(40..=80)).collect();
    let mut sum: u64 = counts.iter().sum();
    while sum != TRANSFERS {
        let index = random.random_range(0..counts.len());
        let count = &mut counts[index];
        if sum < TRANSFERS {
            *count += 1;
            sum += 1;
        } else {
            *count -= 1;
            sum -= 1;
        }
    }
    counts
}

/// One in a hundred moves nothing, one in two hundred comes back to its sender.
fn transfer(accounts: &[Address], random: &mut StdRng) -> Transfer {
    let mut anybody = || accounts[random.random_range(0..accounts.len())];
    let (from, to) = (anybody(), anybody());
    let to = if random.random_range(0..200) == 0 { from } else { to };
    let value = if random.random_range(0..100) == 0 { 0 } else { random.random_range(1..=MOST) };
    Transfer { token: token(0), from, to, value }
}

/// What is to be read of an account's token.
#[derive(Debug, PartialEq, Eq)]
pub struct Expected {
    pub available: u64,
    pub pending: u64,
    pub total: u64,
}

impl Expected {
    pub fn new(chain: &Chain, who: Address, head: u64, settled: u64) -> Self {
        let (then, now) = (chain.moved(who, settled), chain.moved(who, head));
        let Moved { received, sent, .. } = then;
        let (sure, outgoing) = (OPENING + received - sent, now.sent - sent);
        let total = sure + (now.received - received) - outgoing;
        let available = sure.saturating_sub(outgoing);
        Self { available, pending: total - available, total }
    }
}

/// The balance of the configured token in an answer.
pub fn token_balance(answer: &Answer<'_>) -> anyhow::Result<Expected> {
    let Balances { balances } = answer.json()?;
    let mut tokens = balances.iter().filter(|balance| !balance.asset.native);
    let (Some(token), None) = (tokens.next(), tokens.next()) else {
        anyhow::bail!("not one token: {}", answer.text());
    };
    Ok(Expected {
        available: token.available.raw.parse()?,
        pending: token.pending.raw.parse()?,
        total: token.total.raw.parse()?,
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Transfers {
    data: Vec<TransferView>,
    next_cursor: Option<String>,
}

#[derive(Deserialize)]
struct TransferView {
    direction: String,
    kind: String,
    amount: Raw,
    block: At,
}

#[derive(Deserialize)]
struct At {
    number: u64,
}
