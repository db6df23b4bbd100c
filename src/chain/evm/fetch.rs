//! Blocks with their receipts, from one endpoint, verified and decoded.
//!
//! Receipts are asked for by block hash only: a number may mean another block a moment later. Anybody can make
//! them large: where all of a block's are too much for one answer, they come one by one, and only what is read of
//! them is kept.

use std::sync::{Arc, atomic::Ordering};

use alloy::primitives::B256;

use super::{
    coin::Coin,
    decode,
    envelope::Transaction,
    json::{self, Receipt},
    verify::{self, Checker, FullBlock},
};
use crate::chain::{
    Block, BlockRef, Senders,
    rpc::{Answer, Answers, Call, Decoder, Endpoint, Failure, Keep, Slim},
};

/// So many blocks are as good as one: every sender in them is proven at once.
const FEW: usize = 8;

/// Where the receipts of one block are.
enum Receipts {
    /// The block has no transactions.
    None,
    /// The answer to one `eth_getBlockReceipts`.
    Block(Answer),
    /// One answer per transaction.
    Each(Vec<Answer>),
    /// The endpoint has the block and not, or not yet, its receipts.
    Missing,
    /// They are more than can be had, however they are asked for.
    TooLarge(Failure),
}

impl Receipts {
    fn answers(&self) -> impl Iterator<Item = &Answer> {
        match self {
            Self::None | Self::Missing | Self::TooLarge(_) => [].iter(),
            Self::Block(answer) => std::slice::from_ref(answer).iter(),
            Self::Each(answers) => answers.iter(),
        }
    }
}

/// Reads the blocks of one chain.
#[derive(Clone)]
pub(super) struct Reader {
    pub checker: Arc<Checker>,
    pub coin: Arc<Coin>,
    pub decoder: Arc<Decoder>,
    /// What is read of blocks and receipts.
    pub slim: Arc<Slim>,
}

impl Reader {
    /// The blocks from `from` to `to`, or as many of them as there are.
    pub async fn blocks(
        &self,
        endpoint: &Endpoint,
        from: u64,
        to: u64,
    ) -> Result<Vec<Block>, Failure> {
        let calls: Vec<Call> = (from..=to)
            .map(|number| Call::new("eth_getBlockByNumber", format!(r#"["{number:#x}",true]"#)))
            .collect();
        let answers = endpoint.batch_keeping(&calls, Keep::AllOrRead(&self.slim)).await?;
        let given = answers.iter().filter_map(|answer| answer.as_ref().ok().cloned()).collect();
        let what = format!("blocks {from} to {to}");
        let reader = self.clone();
        let blocks =
            self.decoder.run(what.clone(), given, move |_| reader.chain_of(answers, from)).await?;
        match self.assembled(endpoint, what, blocks).await? {
            Assembled { unreadable: Some(at), blocks } if blocks.is_empty() => {
                // Read by itself, so that what the node says of this block is kept.
                self.block(endpoint, at).await.map(|block| vec![block])
            }
            Assembled { blocks, .. } => Ok(blocks),
        }
    }

    /// The block of that hash with everything in it, in one round trip where the endpoint allows it.
    pub async fn block(&self, endpoint: &Endpoint, at: BlockRef) -> Result<Block, Failure> {
        let hash = B256::from(at.hash.0);
        let mut calls = vec![Call::new("eth_getBlockByHash", format!(r#"["{hash}",true]"#))];
        if !endpoint.limited.load(Ordering::Relaxed) {
            calls.push(block_receipts(hash));
        }
        let keep = Keep::AllOrRead(&self.slim);
        let mut answers = endpoint.batch_keeping(&calls, keep).await?.into_iter();
        let answer = answers.next().ok_or_else(|| missing(hash))??;
        let what = format!("block {}", at.number);
        let reader = self.clone();
        let receipts = match answers.next() {
            Some(Ok(receipts)) => {
                let read = move |given: &[Answer]| {
                    let [block, receipts] = given else { return Err(missing(hash)) };
                    let receipts = Receipts::Block(receipts.clone());
                    reader.one(&reader.block_of(block, at)?, &receipts, true)
                };
                return self.decoder.run(what, vec![answer, receipts], read).await;
            }
            other => other,
        };
        let given = vec![answer.clone()];
        let parse = {
            let reader = reader.clone();
            move |given: &[Answer]| reader.block_of(&given[0], at)
        };
        let blocks = [self.decoder.run(what.clone(), given, parse).await?];
        let receipts = match receipts {
            _ if blocks[0].transactions.is_empty() => Receipts::None,
            Some(Err(Failure::Unsupported(_))) | None => {
                endpoint.limited.store(true, Ordering::Relaxed);
                self.receipts_of(endpoint, &blocks).await?.pop().ok_or_else(|| missing(hash))?
            }
            Some(Err(failure)) if failure.is_size() => {
                self.one_by_one(endpoint, &blocks[0]).await?
            }
            Some(Err(failure)) => return Err(failure),
            Some(Ok(_)) => return Err(missing(hash)),
        };
        let [block] = blocks;
        let given = std::iter::once(answer).chain(receipts.answers().cloned()).collect();
        self.decoder.run(what, given, move |_| reader.one(&block, &receipts, true)).await
    }

    /// The blocks of those hashes with everything in them, in order.
    pub async fn blocks_of(
        &self,
        endpoint: &Endpoint,
        at: &[BlockRef],
    ) -> Result<Vec<Block>, Failure> {
        let mut blocks = Vec::with_capacity(at.len());
        while blocks.len() < at.len() {
            blocks.append(&mut self.first_of(endpoint, &at[blocks.len()..]).await?);
        }
        Ok(blocks)
    }

    /// As many of those blocks as come together, at least one.
    async fn first_of(&self, endpoint: &Endpoint, at: &[BlockRef]) -> Result<Vec<Block>, Failure> {
        let calls: Vec<Call> = at
            .iter()
            .map(|at| {
                let hash = B256::from(at.hash.0);
                Call::new("eth_getBlockByHash", format!(r#"["{hash}",true]"#))
            })
            .collect();
        let answers = endpoint.batch_keeping(&calls, Keep::AllOrRead(&self.slim)).await?;
        let given: Vec<Answer> = answers.into_iter().map_while(Result::ok).collect();
        let (what, expected) = (format!("{} blocks", at.len()), at.to_vec());
        let reader = self.clone();
        let parse = move |given: &[Answer]| {
            given.iter().zip(expected).map(|(answer, at)| reader.block_of(answer, at)).collect()
        };
        let blocks: Vec<FullBlock> = self.decoder.run(what.clone(), given, parse).await?;
        let Assembled { blocks, .. } = self.assembled(endpoint, what, blocks).await?;
        match at.first() {
            // By itself it says what is missing, or is kept if our own code fails on it.
            Some(first) if blocks.is_empty() => Ok(vec![self.block(endpoint, *first).await?]),
            _ => Ok(blocks),
        }
    }

    /// Blocks with their receipts, verified and decoded as far as they come together.
    async fn assembled(
        &self,
        endpoint: &Endpoint,
        what: String,
        blocks: Vec<FullBlock>,
    ) -> Result<Assembled, Failure> {
        let receipts = self.receipts_of(endpoint, &blocks).await?;
        let reader = self.clone();
        let read = move |_: &[Answer]| reader.assemble(&blocks, receipts);
        let mut read = self.decoder.run(what, Vec::new(), read).await?;
        let told_by: Arc<str> = Arc::from(endpoint.name.as_str());
        for block in read.blocks.iter_mut().filter(|block| !block.senders.signed.is_empty()) {
            block.senders.told_by = Arc::clone(&told_by);
        }
        Ok(read)
    }

    /// The receipts of every block that has transactions, up to where they take much memory.
    async fn receipts_of(
        &self,
        endpoint: &Endpoint,
        blocks: &[FullBlock],
    ) -> Result<Vec<Receipts>, Failure> {
        let busy: Vec<&FullBlock> =
            blocks.iter().filter(|block| !block.transactions.is_empty()).collect();
        if busy.is_empty() {
            return Ok(blocks.iter().map(|_| Receipts::None).collect());
        }
        let mut found = None;
        if !endpoint.limited.load(Ordering::Relaxed) {
            let calls: Vec<Call> = busy.iter().map(|block| block_receipts(block.hash)).collect();
            let answers = endpoint.batch_keeping(&calls, Keep::AllOrRead(&self.slim)).await?;
            if answers.iter().any(|answer| matches!(answer, Err(Failure::Unsupported(_)))) {
                endpoint.limited.store(true, Ordering::Relaxed);
            } else {
                let mut receipts = Vec::with_capacity(busy.len());
                for (block, answer) in busy.iter().zip(answers) {
                    receipts.push(match answer {
                        Err(failure) if failure.is_size() => {
                            self.one_by_one(endpoint, block).await?
                        }
                        answer => present(answer)?,
                    });
                    if matches!(receipts.last(), Some(Receipts::TooLarge(_))) {
                        break;
                    }
                }
                found = Some(receipts);
            }
        }
        let found = match found {
            Some(found) => found,
            None => self.each(endpoint, &busy).await?,
        };
        let mut found = found.into_iter();
        Ok(blocks
            .iter()
            .map(|block| {
                if block.transactions.is_empty() {
                    Receipts::None
                } else {
                    found.next().unwrap_or(Receipts::Missing)
                }
            })
            .collect())
    }

    /// Receipts one by one, for endpoints without `eth_getBlockReceipts`.
    async fn each(
        &self,
        endpoint: &Endpoint,
        blocks: &[&FullBlock],
    ) -> Result<Vec<Receipts>, Failure> {
        let calls: Vec<Call> = blocks
            .iter()
            .flat_map(|block| block.transactions.iter())
            .map(transaction_receipt)
            .collect();
        let answers = endpoint.batch_keeping(&calls, Keep::AllOrRead(&self.slim)).await?;
        let mut answers = answers.into_iter();
        let mut receipts = Vec::with_capacity(blocks.len());
        for block in blocks {
            let some: Result<Vec<_>, _> = answers.by_ref().take(block.transactions.len()).collect();
            receipts.push(match some {
                Ok(some) if some.len() == block.transactions.len() => Receipts::Each(some),
                // What was left out for its size waits for the blocks before it.
                Ok(_) if !receipts.is_empty() => Receipts::Missing,
                Ok(_) => self.one_by_one(endpoint, block).await?,
                Err(Failure::NotThere(_)) => Receipts::Missing,
                Err(failure) if failure.is_size() => self.one_by_one(endpoint, block).await?,
                Err(failure) => return Err(failure),
            });
        }
        Ok(receipts)
    }

    /// The receipts of a block that are too much for one answer: what is read of each.
    async fn one_by_one(
        &self,
        endpoint: &Endpoint,
        block: &FullBlock,
    ) -> Result<Receipts, Failure> {
        let calls: Vec<Call> = block.transactions.iter().map(transaction_receipt).collect();
        let answers = endpoint.batch_keeping(&calls, Keep::Read(&self.slim)).await?;
        let some: Vec<Answer> = match answers.into_iter().collect() {
            Ok(some) => some,
            Err(Failure::NotThere(_)) => return Ok(Receipts::Missing),
            Err(failure) if failure.is_size() => return Ok(Receipts::TooLarge(failure)),
            Err(failure) => return Err(failure),
        };
        if some.len() == calls.len() {
            return Ok(Receipts::Each(some));
        }
        let bytes: usize = some.iter().map(|answer| answer.as_bytes().len()).sum();
        Ok(Receipts::TooLarge(endpoint.oversized(bytes)))
    }

    /// Verifies and decodes, up to the first block whose receipts are not there yet or too large, or that our
    /// own code fails on.
    fn assemble(
        &self,
        blocks: &[FullBlock],
        receipts: Vec<Receipts>,
    ) -> Result<Assembled, Failure> {
        let mut out = Assembled { blocks: Vec::with_capacity(blocks.len()), unreadable: None };
        let few = blocks.len() <= FEW;
        for (block, receipts) in blocks.iter().zip(receipts) {
            let what = format!("block {}", block.number.0);
            match self.decoder.attempt(&what, || self.one(block, &receipts, few)) {
                Ok(Ok(block)) => out.blocks.push(block),
                Ok(Err(failure))
                    if !out.blocks.is_empty()
                        && (failure.is_size() || matches!(failure, Failure::NotThere(_))) =>
                {
                    break;
                }
                Ok(Err(failure)) => return Err(failure),
                Err(_) => {
                    out.unreadable = Some(decode::place(block));
                    break;
                }
            }
        }
        Ok(out)
    }

    /// One block, verified and decoded; with every sender proven or with what it takes to prove them.
    fn one(
        &self,
        block: &FullBlock,
        receipts: &Receipts,
        every_sender: bool,
    ) -> Result<Block, Failure> {
        let parsed: Option<Vec<Receipt<'_>>> = match receipts {
            _ if block.transactions.is_empty() => Some(Vec::new()),
            Receipts::None => Some(Vec::new()),
            Receipts::Block(answer) => answer.parse()?,
            Receipts::Each(answers) => {
                answers.iter().map(Answer::parse::<Option<_>>).collect::<Result<_, _>>()?
            }
            Receipts::Missing => None,
            Receipts::TooLarge(failure) => return Err(failure.clone()),
        };
        let parsed = parsed.ok_or_else(|| {
            Failure::NotThere(format!("the receipts of block {}", block.number.0))
        })?;
        let mut block = checked(&self.checker, &self.coin, block, &parsed)?;
        if every_sender {
            self.checker.senders(&block)?;
            block.senders = Senders::default();
        }
        Ok(block)
    }

    /// The block that was asked for by its hash.
    fn block_of(&self, answer: &Answer, at: BlockRef) -> Result<FullBlock, Failure> {
        let hash = B256::from(at.hash.0);
        let block = answer.parse::<Option<Told<'_>>>()?.ok_or_else(|| missing(hash))?;
        if block.hash != hash || block.number.0 != at.number {
            return Err(Failure::Invalid("another block was returned".to_owned()));
        }
        Ok(self.checker.told(block))
    }

    /// The blocks of a run, up to the first that is not there or too large, each the parent of the next.
    fn chain_of(&self, answers: Answers, from: u64) -> Result<Vec<FullBlock>, Failure> {
        let mut blocks: Vec<FullBlock> = Vec::with_capacity(answers.len());
        for (number, answer) in (from..).zip(answers) {
            let answer = match answer {
                Ok(answer) => answer,
                Err(Failure::NotThere(_)) => break,
                Err(failure) if failure.is_size() && !blocks.is_empty() => break,
                Err(failure) => return Err(failure),
            };
            let Some(block) = answer.parse::<Option<Told<'_>>>()? else { break };
            if block.number.0 != number {
                return Err(Failure::Invalid(format!("asked for block {number}, got another")));
            }
            verify::linked(&block)?;
            if blocks.last().is_some_and(|parent| parent.hash != block.parent_hash) {
                return Err(Failure::Moved(format!(
                    "block {number} is not the child of the one before"
                )));
            }
            blocks.push(self.checker.told(block));
        }
        Ok(blocks)
    }
}

/// A block as a node tells it.
type Told<'a> = json::Block<Vec<json::Transaction<'a>>>;

/// Blocks that were read, and the one after them if our own code fails on it.
struct Assembled {
    blocks: Vec<Block>,
    unreadable: Option<BlockRef>,
}

fn missing(hash: B256) -> Failure {
    Failure::NotThere(format!("block {hash}"))
}

fn block_receipts(hash: B256) -> Call {
    Call::new("eth_getBlockReceipts", format!(r#"["{hash}"]"#))
}

fn transaction_receipt(tx: &Transaction) -> Call {
    Call::new("eth_getTransactionReceipt", format!(r#"["{}"]"#, tx.hash))
}

fn present(answer: Result<Answer, Failure>) -> Result<Receipts, Failure> {
    match answer {
        Ok(answer) => Ok(Receipts::Block(answer)),
        Err(Failure::NotThere(_)) => Ok(Receipts::Missing),
        Err(failure) => Err(failure),
    }
}

/// Verifies a block and its receipts, and decodes it.
pub(super) fn checked(
    checker: &Checker,
    coin: &Coin,
    block: &FullBlock,
    receipts: &[Receipt<'_>],
) -> Result<Block, Failure> {
    let verified = checker.block(block, receipts)?;
    let decoded = decode::block(coin, &verified).inspect_err(|failure| {
        if let Failure::Untrusted { check, .. } = failure {
            checker.count(check);
        }
    })?;
    for _ in 0..decoded.unknown_transfers {
        checker.count("unknown_transfer_shape");
    }
    Ok(decoded.block)
}
