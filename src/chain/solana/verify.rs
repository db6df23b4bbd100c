//! Do the balances that a block states fit together?
//!
//! A block's hash covers its entries, which a node does not hand out; but every transaction states what each
//! of its accounts had before and after. A transaction that was doubled, altered, or left out between two
//! others of one of its accounts breaks that chain, and lamports must add up in each by itself. What this
//! cannot see, an account's first or last transaction of a block left out, is found when the ledger is
//! compared with the chain's state.

use std::{
    collections::{HashMap, HashSet},
    ops::Deref,
};

use super::{
    TOKEN, TOKEN_2022,
    json::{Block, Head, Meta, Reward, TokenBalance, Transaction},
};
use crate::{
    chain::{BlockRef, rpc::Failure},
    config::Verification,
};

/// What passed the checks that the chain's configuration asks for. Few they may be (`links`), but nothing is
/// decoded that went through none: only this module makes one of these.
#[derive(Debug)]
pub(super) struct Verified<T>(T);

impl<T> Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// A header and the slot that it was asked for by: it does not say its own.
#[derive(Debug)]
pub(super) struct SlotHead<'a> {
    pub slot: u64,
    pub head: Head<'a>,
}

/// A block, its transactions with what they state of balances.
#[derive(Debug)]
pub(super) struct SlotBlock<'a> {
    pub header: Verified<SlotHead<'a>>,
    pub transactions: Vec<Verified<Stated<'a>>>,
    pub rewards: &'a [Reward<'a>],
}

/// A transaction and what it states of its accounts' balances.
#[derive(Debug)]
pub(super) struct Stated<'a> {
    pub tx: &'a Transaction<'a>,
    pub meta: &'a Meta<'a>,
}

/// Whether a block can be the one of its slot.
pub(super) fn header(slot: u64, head: Head<'_>) -> Result<Verified<SlotHead<'_>>, Failure> {
    if slot > BlockRef::MAX_HEIGHT {
        return Err(Failure::untrusted("height", format!("{slot} is no slot of a block")));
    }
    // Only the first block of all is its own parent.
    if head.parent_slot >= slot && (slot, head.parent_slot) != (0, 0) {
        return Err(Failure::untrusted(
            "parent_slot",
            format!("the block of slot {slot} calls {} its parent", head.parent_slot),
        ));
    }
    Ok(Verified(SlotHead { slot, head }))
}

/// Accounts that a transaction names at most: each by a byte.
const MAX_ACCOUNTS: usize = 256;

/// Whether the transactions of a slot's block are whole and, with `full`, continue each other.
pub(super) fn block<'a>(
    slot: u64,
    block: &'a Block<'a>,
    verification: Verification,
) -> Result<Verified<SlotBlock<'a>>, Failure> {
    let header = header(slot, block.head())?;
    let transactions: Vec<Verified<Stated<'_>>> =
        block.transactions.iter().map(transaction).collect::<Result<_, _>>()?;
    if verification == Verification::Full {
        let mut continuity = Continuity::default();
        for stated in &transactions {
            continuity.follow(stated)?;
        }
    }
    let mut seen = HashSet::with_capacity(transactions.len());
    if !transactions.iter().all(|stated| seen.insert(stated.tx.transaction.signatures[0])) {
        return Err(Failure::untrusted("transaction_twice", "a transaction stands there twice"));
    }
    Ok(Verified(SlotBlock { header, transactions, rewards: &block.rewards }))
}

/// Whether a transaction has what it states of balances, for each of its accounts.
pub(super) fn transaction<'a>(tx: &'a Transaction<'a>) -> Result<Verified<Stated<'a>>, Failure> {
    let meta = tx.meta.as_ref().ok_or_else(|| {
        Failure::untrusted("transaction_meta", "a transaction without its balances")
    })?;
    shape(tx, meta)?;
    Ok(Verified(Stated { tx, meta }))
}

/// What a token account holds: mint and base units.
type Tokens<'a> = (&'a str, u64);

/// What the accounts of a block have after the transactions seen so far.
#[derive(Default)]
struct Continuity<'a> {
    lamports: HashMap<&'a str, u64>,
    tokens: HashMap<&'a str, Tokens<'a>>,
}

/// Whether a transaction's lists belong to each other.
fn shape(tx: &Transaction<'_>, meta: &Meta<'_>) -> Result<(), Failure> {
    let keys = tx.transaction.account_keys.len();
    if keys == 0 || tx.transaction.signatures.is_empty() {
        return Err(Failure::untrusted("transaction_shape", "a transaction without accounts"));
    }
    let tokens = [&meta.pre_token_balances, &meta.post_token_balances];
    let mut indexes = tokens.into_iter().flatten().flatten().map(|balance| balance.account_index);
    let too_many = tokens.into_iter().flatten().any(|balances| balances.len() > keys);
    if keys > MAX_ACCOUNTS
        || too_many
        || meta.pre_balances.len() != keys
        || meta.post_balances.len() != keys
        || indexes.any(|index| index >= keys)
    {
        return Err(Failure::untrusted(
            "balance_lists",
            format!(
                "{keys} accounts with {} balances before and {} after",
                meta.pre_balances.len(),
                meta.post_balances.len()
            ),
        ));
    }
    Ok(())
}

impl<'a> Continuity<'a> {
    /// Takes in the next transaction of the block; its shape is known to be good.
    fn follow(&mut self, stated: &Stated<'a>) -> Result<(), Failure> {
        let Stated { tx, meta } = stated;
        let sum = |list: &[u64]| list.iter().map(|&lamports| u128::from(lamports)).sum::<u128>();
        let (before, after) = (sum(&meta.pre_balances), sum(&meta.post_balances));
        if before != after + u128::from(meta.fee) {
            return Err(Failure::untrusted(
                "lamports_conserved",
                format!("{before} lamports before, {after} and a fee of {} after", meta.fee),
            ));
        }
        let keys = &tx.transaction.account_keys;
        for (index, key) in keys.iter().enumerate() {
            let (before, after) = (meta.pre_balances[index], meta.post_balances[index]);
            if !key.writable && before == after {
                continue;
            }
            if self.lamports.insert(key.pubkey, after).is_some_and(|known| known != before) {
                return Err(Failure::untrusted(
                    "lamports_continue",
                    format!("account {} does not begin with what it was left with", key.pubkey),
                ));
            }
        }
        // A token account changes only in transactions that name its program.
        if !keys.iter().any(|key| key.pubkey == TOKEN || key.pubkey == TOKEN_2022) {
            return Ok(());
        }
        let (Some(before), Some(after)) = (&meta.pre_token_balances, &meta.post_token_balances)
        else {
            return Ok(());
        };
        let at = |list: &[TokenBalance<'a>], index: usize| -> Option<Tokens<'a>> {
            let found = list.iter().find(|balance| balance.account_index == index)?;
            Some((found.mint, found.amount.amount))
        };
        for (index, key) in keys.iter().enumerate().filter(|(_, key)| key.writable) {
            // A validator leaves out an account whose mint was closed: what is not listed is unknown, and
            // contradicts nothing.
            let known = self.tokens.remove(key.pubkey);
            if let Some(after) = at(after, index) {
                self.tokens.insert(key.pubkey, after);
            }
            if let (Some(known), Some(before)) = (known, at(before, index))
                && known != before
            {
                return Err(Failure::untrusted(
                    "tokens_continue",
                    format!(
                        "token account {} does not begin with what it was left with",
                        key.pubkey
                    ),
                ));
            }
        }
        Ok(())
    }
}
