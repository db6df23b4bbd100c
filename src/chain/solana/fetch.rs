//! Blocks by slot, from one endpoint, checked and decoded.
//!
//! A slot without a block is told by `getBlocks`, which lists the slots that have one, and proven by the
//! next block's parent. Everything in between that is neither listed nor jumped over by a parent is missing
//! data, and another endpoint is asked.

use std::{sync::atomic::Ordering, time::Duration};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio::time::sleep;

use super::{decode, errors, json, source::Inner, state::MAX_AHEAD, verify};
use crate::chain::{
    Block, BlockRef, Header,
    rpc::{Answer, Call, Endpoint, Failure},
};

/// Blocks asked for at the same time within one range.
const AT_ONCE: usize = 4;
/// A block is listed, or called the newest, a moment before it can be read.
const NOT_YET: [Duration; 3] =
    [Duration::from_millis(20), Duration::from_millis(60), Duration::from_millis(150)];
/// How far below the slot that a node calls the newest its newest block is looked for.
const LOOK_BACK: u64 = 64;

/// How sure a block is, in the words of Solana.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Commitment {
    /// Voted for by two thirds of the stake.
    Confirmed,
    /// Rooted.
    Finalized,
}

impl Commitment {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::Finalized => "finalized",
        }
    }
}

/// What of a block is asked for.
#[derive(Clone, Copy)]
enum Details {
    None,
    Accounts,
}

impl Inner {
    /// The newest slot of that commitment.
    pub async fn slot(&self, node: &Endpoint, sure: Commitment) -> Result<u64, Failure> {
        let params = format!(r#"[{{"commitment":"{}"}}]"#, sure.as_str());
        node.call(Call::new("getSlot", params)).await?.parse()
    }

    /// The newest block of that commitment.
    pub async fn newest(&self, node: &Endpoint, sure: Commitment) -> Result<Header, Failure> {
        let slot = self.slot(node, sure).await?;
        self.newest.fetch_max(slot, Ordering::Relaxed);
        match self.header(node, slot).await {
            Err(Failure::NotThere(_)) => {}
            known => return known,
        }
        // Not readable yet, or the node's word is of a slot without a block.
        let slots = self.slots(node, slot.saturating_sub(LOOK_BACK), slot).await?;
        let below = slots.into_iter().rev().find(|&listed| listed < slot);
        let below = below.ok_or_else(|| Failure::NotThere(format!("no block near slot {slot}")))?;
        self.header(node, below).await
    }

    /// The slots from `from` to `to` that have a block, by the node's word.
    async fn slots(&self, node: &Endpoint, from: u64, to: u64) -> Result<Vec<u64>, Failure> {
        let params = format!(r#"[{from},{to},{{"commitment":"confirmed"}}]"#);
        let slots: Vec<u64> = node.call(Call::new("getBlocks", params)).await?.parse()?;
        ascending(&slots, from, to)?;
        Ok(slots)
    }

    /// The first slot at or above `from` with a block, by the node's word.
    async fn first_slot(&self, node: &Endpoint, from: u64) -> Result<Option<u64>, Failure> {
        let params = format!(r#"[{from},1,{{"commitment":"confirmed"}}]"#);
        let slots: Vec<u64> = node.call(Call::new("getBlocksWithLimit", params)).await?.parse()?;
        ascending(&slots, from, u64::MAX)?;
        Ok(slots.first().copied())
    }

    /// The answer for one slot, waiting a moment where the node is not ready yet.
    async fn get(&self, node: &Endpoint, slot: u64, details: Details) -> Result<Answer, Failure> {
        let (details, rewards) = match details {
            Details::None => ("none", false),
            Details::Accounts => ("accounts", true),
        };
        let mut pauses = NOT_YET.iter();
        loop {
            let version = self.version.load(Ordering::Relaxed);
            let params = format!(
                r#"[{slot},{{"encoding":"json","transactionDetails":"{details}","rewards":{rewards},"commitment":"confirmed","maxSupportedTransactionVersion":{version}}}]"#
            );
            let failure = match node.call(Call::new("getBlock", params)).await {
                Ok(answer) if answer.is_null() => {
                    Failure::NotThere(format!("the node has no block of slot {slot}"))
                }
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            if let Some(wanted) = errors::wanted_version(&failure)
                && wanted > version
            {
                // The accounts and balances that are read here are the same in every version.
                self.version.fetch_max(wanted, Ordering::Relaxed);
                continue;
            }
            match (&failure, pauses.next()) {
                (Failure::NotThere(_), Some(&pause)) => sleep(pause).await,
                _ => return Err(failure),
            }
        }
    }

    /// The header of a slot that has a block.
    pub async fn header(&self, node: &Endpoint, slot: u64) -> Result<Header, Failure> {
        let answer = self.get(node, slot, Details::None).await?;
        let head = self.counted(verify::header(slot, answer.parse::<json::Head<'_>>()?))?;
        decode::header(&head)
    }

    /// The block of a slot that has one.
    async fn full(&self, node: &Endpoint, slot: u64) -> Result<Block, Failure> {
        let answer = self.get(node, slot, Details::Accounts).await?;
        let verification = self.verification;
        let read = move |given: &[Answer]| {
            let block: json::Block<'_> = given[0].parse()?;
            decode::block(&verify::block(slot, &block, verification)?)
        };
        let block = self.decoder.run(format!("block {slot}"), vec![answer], read).await;
        let block = self.counted(block)?;
        if slot.saturating_add(MAX_AHEAD) >= self.newest.load(Ordering::Relaxed) {
            self.remember(&block)?;
        }
        Ok(block)
    }

    /// The header at a height; `None` if the slot is proven to be skipped, or is above the newest block.
    pub async fn header_at(&self, node: &Endpoint, slot: u64) -> Result<Option<Header>, Failure> {
        let Some(first) = self.first_slot(node, slot).await? else { return Ok(None) };
        let header = self.header(node, first).await?;
        if first == slot {
            return Ok(Some(header));
        }
        if header.parent.number < slot {
            return Ok(None);
        }
        Err(self.missing(format!(
            "no block is listed from {slot} to {first}, whose parent is {}",
            header.parent.number
        )))
    }

    /// That very block; [`Failure::NotThere`] if the node's block of that slot is another one.
    pub async fn block(&self, node: &Endpoint, at: BlockRef) -> Result<Block, Failure> {
        let block = self.full(node, at.number).await?;
        if block.header.at != at {
            return Err(Failure::NotThere(format!("slot {} holds another block", at.number)));
        }
        Ok(block)
    }

    /// All blocks of the slots from `from` to `to`, or as many as there are yet; linked to each other, and
    /// with nothing left out before, between or behind them.
    pub async fn blocks(&self, node: &Endpoint, from: u64, to: u64) -> Result<Vec<Block>, Failure> {
        let slots = self.slots(node, from, to).await?;
        let blocks: Vec<Block> = stream::iter(slots)
            .map(|slot| self.full(node, slot))
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        let mut last: Option<BlockRef> = None;
        for block in &blocks {
            self.follows(last, from, &block.header)?;
            last = Some(block.header.at);
        }
        if last.is_none_or(|last| last.number < to)
            && let Some(next) = self.first_slot(node, to.saturating_add(1)).await?
        {
            self.follows(last, from, &self.header(node, next).await?)?;
        }
        Ok(blocks)
    }

    /// Whether a block is the child of `last`, or jumps over everything from `from` on without it.
    fn follows(&self, last: Option<BlockRef>, from: u64, header: &Header) -> Result<(), Failure> {
        let parent = header.parent;
        let linked = match last {
            Some(last) => parent == last,
            None => parent.number < from || header.at.number == 0,
        };
        if linked {
            return Ok(());
        }
        if last.is_some_and(|last| last.number == parent.number) {
            return Err(Failure::Moved(format!(
                "the block of slot {} changed while it was read",
                parent.number
            )));
        }
        Err(self.missing(format!(
            "slot {} has the parent {}, which is not among the blocks listed from {from} on",
            header.at.number, parent.number
        )))
    }

    fn missing(&self, detail: String) -> Failure {
        self.count("missing_slot");
        Failure::untrusted("missing_slot", detail)
    }
}

fn ascending(slots: &[u64], from: u64, to: u64) -> Result<(), Failure> {
    let inside = slots.iter().all(|slot| (from..=to).contains(slot));
    if inside && slots.is_sorted_by(|a, b| a < b) {
        Ok(())
    } else {
        Err(Failure::Invalid("a list of slots that was not asked for".to_owned()))
    }
}
