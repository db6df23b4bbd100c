//! A verified block made into movements.
//!
//! A transaction states the balances of all its accounts before and after itself. What an owner gained or
//! lost is the difference, whatever instructions caused it: so rent, accounts opened and closed on the way,
//! fees withheld by a mint and accounts that changed hands need no rules of their own. Lamports belong to
//! the account itself; tokens to the owner that their account names on each side.
//!
//! Who paid whom is told where it can be: with one side of one account, and sums that fit. Elsewhere the two
//! sides stand as movements of their own, with the other side unknown.

use super::{
    MEMO, TOKEN_2022, WRAPPED_SOL,
    json::TokenBalance,
    verify::{SlotBlock, SlotHead, Stated, Verified},
};
use crate::{
    amount::Amount,
    chain::{
        Address, AssetKey, BalanceQuery, Block, BlockHash, BlockRef, Header, Kind, Movement,
        Ordinal, TxFact, TxId, base58, rpc::Failure,
    },
};

/// 32 bytes in base58.
pub(super) fn key(text: &str) -> Result<[u8; 32], Failure> {
    base58::decode_32(text)
        .ok_or_else(|| Failure::Invalid(format!("{text:.60} is not 32 bytes in base58")))
}

fn address(text: &str) -> Result<Address, Failure> {
    key(text).map(Address::from)
}

fn signature(text: &str) -> Result<TxId, Failure> {
    let bytes = base58::decode_64(text)
        .ok_or_else(|| Failure::Invalid(format!("{text:.100} is not 64 bytes in base58")))?;
    Ok(TxId::from(bytes))
}

pub(super) fn header(verified: &Verified<SlotHead<'_>>) -> Result<Header, Failure> {
    let SlotHead { slot, ref head } = **verified;
    let parent =
        BlockRef { number: head.parent_slot, hash: BlockHash(key(head.previous_blockhash)?) };
    let at = BlockRef { number: slot, hash: BlockHash(key(head.hash)?) };
    let time = head.time.and_then(|time| u64::try_from(time).ok()).unwrap_or_default();
    Ok(Header { at, parent, time })
}

/// Decodes the block of a slot.
pub(super) fn block(verified: &Verified<SlotBlock<'_>>) -> Result<Block, Failure> {
    let SlotBlock { header: head, transactions, rewards } = &**verified;
    let header = header(head)?;
    let mut out = Block {
        movements: Vec::with_capacity(2 * transactions.len()),
        transactions: Vec::with_capacity(transactions.len()),
        ..Block::empty(header)
    };
    for stated in transactions {
        transaction(stated, &mut out)?;
    }
    for (index, reward) in rewards.iter().enumerate() {
        if reward.lamports == 0 {
            continue;
        }
        let who = Some(address(reward.pubkey)?);
        let gained = reward.lamports > 0;
        out.movements.push(Movement {
            tx: TxId::from(header.at.hash.0),
            ordinal: Ordinal::Reward(place(index)?),
            kind: if gained { Kind::Reward } else { Kind::Fee },
            asset: AssetKey::Native,
            from: if gained { None } else { who },
            to: if gained { who } else { None },
            amount: Amount::from(reward.lamports.unsigned_abs()),
            memo: None,
        });
    }
    Ok(out)
}

/// What one address gained or lost of one asset in one transaction.
#[derive(Clone, Copy, Debug)]
struct Flow<'a> {
    who: &'a str,
    /// Base units; both balances are below 2^64, and sums of a few hundred of them below 2^127.
    change: i128,
    /// The place among the transaction's accounts, or the rank among a token's owners: nobody else's.
    index: u32,
}

fn place(index: usize) -> Result<u32, Failure> {
    u32::try_from(index).map_err(|_| Failure::Invalid("too many accounts".to_owned()))
}

/// Decodes one transaction, of a block or by itself.
pub(super) fn transaction(verified: &Verified<Stated<'_>>, out: &mut Block) -> Result<(), Failure> {
    let Stated { tx, meta } = **verified;
    let keys = &tx.transaction.account_keys;
    let id = signature(tx.transaction.signatures[0])?;
    // The first account signs and pays, of a failed transaction too.
    let payer = address(keys[0].pubkey)?;
    out.transactions.push(TxFact { tx: id, sender: payer, nonce: None, success: !meta.failed });
    if keys.iter().any(|key| MEMO.contains(&key.pubkey)) {
        out.unread_memos.push(id);
    }
    let mut book = Bookkeeper { tx: id, out: &mut out.movements };
    if meta.fee > 0 {
        book.push(Ordinal::Fee, Kind::Fee, AssetKey::Native, Some(payer), None, meta.fee.into());
    }
    let mut flows = Vec::new();
    for (index, key) in keys.iter().enumerate() {
        let fee = if index == 0 { meta.fee } else { 0 };
        let change = i128::from(meta.post_balances[index]) - i128::from(meta.pre_balances[index])
            + i128::from(fee);
        if change != 0 {
            flows.push(Flow { who: key.pubkey, change, index: place(index)? });
        }
    }
    book.settle(
        AssetKey::Native,
        &flows,
        Ordinal::Account,
        Rest { lost: Kind::Transfer, gained: Kind::Transfer },
    )?;

    let before = meta.pre_token_balances.as_deref().unwrap_or_default();
    let after = meta.post_token_balances.as_deref().unwrap_or_default();
    if before.is_empty() && after.is_empty() {
        return Ok(());
    }
    for (mint, program, flows) in by_mint(before, after)? {
        let rest = if mint == WRAPPED_SOL {
            Rest { lost: Kind::Unwrap, gained: Kind::Wrap }
        } else {
            Rest { lost: Kind::Burn, gained: Kind::Mint }
        };
        let asset = AssetKey::Token(address(mint)?);
        // What a mint of Token-2022 withholds stays in the receiving account, out of its amount.
        let withheld = program == TOKEN_2022 && flows.iter().any(|flow| flow.change > 0);
        let rest = if withheld { Rest { lost: Kind::Fee, ..rest } } else { rest };
        book.settle(asset, &flows, Ordinal::Owner, rest)?;
    }
    // A freeze names the account, writable, and the mint, and moves nothing.
    for held in before {
        let index = held.account_index;
        let same = |other: &TokenBalance<'_>| {
            other.account_index == index
                && other.owner == held.owner
                && other.amount.amount == held.amount.amount
        };
        if keys[index].writable
            && held.amount.amount > 0
            && after.iter().any(same)
            && keys.iter().any(|key| key.pubkey == held.mint)
        {
            let asset = AssetKey::Token(address(held.mint)?);
            out.touched.push(BalanceQuery { address: address(held.owner)?, asset });
        }
    }
    Ok(())
}

type MintFlows<'a> = (&'a str, &'a str, Vec<Flow<'a>>);

/// What each owner gained or lost of each mint, over all their accounts.
fn by_mint<'a>(
    before: &[TokenBalance<'a>],
    after: &[TokenBalance<'a>],
) -> Result<Vec<MintFlows<'a>>, Failure> {
    let mut mints: Vec<MintFlows<'a>> = Vec::new();
    let sides = before.iter().map(|held| (held, -1)).chain(after.iter().map(|held| (held, 1)));
    for (held, sign) in sides {
        let index = place(held.account_index)?;
        let change = sign * i128::from(held.amount.amount);
        let found = mints.iter().position(|(mint, _, _)| *mint == held.mint);
        let at = found.unwrap_or_else(|| {
            mints.push((held.mint, held.program_id, Vec::new()));
            mints.len() - 1
        });
        let flows = &mut mints[at].2;
        match flows.iter_mut().find(|flow| flow.who == held.owner) {
            Some(flow) => {
                flow.change += change;
                flow.index = flow.index.min(index);
            }
            None => flows.push(Flow { who: held.owner, change, index }),
        }
    }
    for (_, _, flows) in &mut mints {
        flows.retain(|flow| flow.change != 0);
        // An account that changed hands is the first one of both its owners: the rank tells them apart.
        flows.sort_unstable_by_key(|flow| (flow.index, flow.who));
        for (rank, flow) in flows.iter_mut().enumerate() {
            flow.index = place(rank)?;
        }
    }
    Ok(mints)
}

/// What it is called when something is lost to nobody or gained from nobody.
#[derive(Clone, Copy)]
struct Rest {
    lost: Kind,
    gained: Kind,
}

/// Writes the movements of one transaction.
struct Bookkeeper<'a> {
    tx: TxId,
    out: &'a mut Vec<Movement>,
}

impl Bookkeeper<'_> {
    fn push(
        &mut self,
        ordinal: Ordinal,
        kind: Kind,
        asset: AssetKey,
        from: Option<Address>,
        to: Option<Address>,
        amount: Amount,
    ) {
        let tx = self.tx;
        self.out.push(Movement { tx, ordinal, kind, asset, from, to, amount, memo: None });
    }

    /// One asset's gains and losses as movements: their sums per address are exactly the changes.
    fn settle(
        &mut self,
        asset: AssetKey,
        flows: &[Flow<'_>],
        ordinal: fn(u32) -> Ordinal,
        rest: Rest,
    ) -> Result<(), Failure> {
        let (losers, gainers): (Vec<&Flow<'_>>, Vec<&Flow<'_>>) =
            flows.iter().partition(|flow| flow.change < 0);
        let sum = |flows: &[&Flow<'_>]| flows.iter().map(|flow| flow.change).sum::<i128>();
        // What is lost beyond what others gain; below zero if more is gained than lost.
        let excess = -(sum(&losers) + sum(&gainers));
        match (&losers[..], &gainers[..]) {
            ([loser], [_, ..]) if excess >= 0 => {
                let from = address(loser.who)?;
                for flow in &gainers {
                    let to = address(flow.who)?;
                    let at = ordinal(flow.index);
                    self.push(at, Kind::Transfer, asset, Some(from), Some(to), flow.amount());
                }
                if excess > 0 {
                    let at = Ordinal::Rest(loser.index);
                    self.push(at, rest.lost, asset, Some(from), None, base_units(excess));
                }
            }
            ([_, ..], [gainer]) if excess == 0 => {
                let to = address(gainer.who)?;
                for flow in &losers {
                    let from = address(flow.who)?;
                    let at = ordinal(flow.index);
                    self.push(at, Kind::Transfer, asset, Some(from), Some(to), flow.amount());
                }
            }
            _ => {
                let one_sided = losers.is_empty() || gainers.is_empty();
                for flow in losers {
                    let kind = if one_sided { rest.lost } else { Kind::Transfer };
                    let at = ordinal(flow.index);
                    self.push(at, kind, asset, Some(address(flow.who)?), None, flow.amount());
                }
                for flow in gainers {
                    let kind = if one_sided { rest.gained } else { Kind::Transfer };
                    let at = ordinal(flow.index);
                    self.push(at, kind, asset, None, Some(address(flow.who)?), flow.amount());
                }
            }
        }
        Ok(())
    }
}

impl Flow<'_> {
    fn amount(&self) -> Amount {
        base_units(self.change)
    }
}

fn base_units(change: i128) -> Amount {
    Amount::new(alloy::primitives::U256::from(change.unsigned_abs()))
}
