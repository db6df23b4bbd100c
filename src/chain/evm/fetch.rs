//! Blocks with their receipts, from one endpoint, verified and decoded.
//!
//! Receipts are asked for by block hash only: a number may mean another block a moment later.

use std::sync::{Arc, atomic::Ordering};

use alloy::primitives::B256;

use super::{
    decode,
    json::Receipt,
    verify::{Checker, FullBlock},
};
use crate::chain::{
    Block, BlockRef,
    rpc::{Answer, Answers, Call, Endpoint, Failure},
};

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
}

/// The blocks from `from` to `to`, or as many of them as there are.
pub(super) async fn blocks(
    endpoint: &Endpoint,
    checker: &Arc<Checker>,
    from: u64,
    to: u64,
) -> Result<Vec<Block>, Failure> {
    let calls: Vec<Call> = (from..=to)
        .map(|number| Call::new("eth_getBlockByNumber", format!(r#"["{number:#x}",true]"#)))
        .collect();
    let answers = endpoint.batch(&calls).await?;
    let blocks = beside(move || chain_of(answers, from)).await?;
    let receipts = receipts(endpoint, &blocks).await?;
    let checker = Arc::clone(checker);
    beside(move || assemble(&checker, &blocks, receipts)).await
}

/// The block of that hash with everything in it, in one round trip where the endpoint allows it.
pub(super) async fn block(
    endpoint: &Endpoint,
    checker: &Arc<Checker>,
    at: BlockRef,
) -> Result<Block, Failure> {
    let hash = B256::from(at.hash.0);
    let mut calls = vec![Call::new("eth_getBlockByHash", format!(r#"["{hash}",true]"#))];
    if !endpoint.limited.load(Ordering::Relaxed) {
        calls.push(block_receipts(hash));
    }
    let mut answers = endpoint.batch(&calls).await?.into_iter();
    let missing = || Failure::NotThere(format!("block {hash}"));
    let answer = answers.next().ok_or_else(missing)??;
    let block: FullBlock = answer.parse::<Option<_>>()?.ok_or_else(missing)?;
    if block.hash != hash || block.number.0 != at.number {
        return Err(Failure::Invalid("another block was returned".to_owned()));
    }
    let blocks = vec![block];
    let receipts = match answers.next() {
        _ if blocks[0].transactions.is_empty() => vec![Receipts::None],
        Some(Ok(answer)) => vec![Receipts::Block(answer)],
        Some(Err(Failure::Unsupported(_))) | None => {
            endpoint.limited.store(true, Ordering::Relaxed);
            receipts(endpoint, &blocks).await?
        }
        Some(Err(failure)) => return Err(failure),
    };
    let checker = Arc::clone(checker);
    let mut blocks = beside(move || assemble(&checker, &blocks, receipts)).await?;
    blocks.pop().ok_or_else(missing)
}

fn block_receipts(hash: B256) -> Call {
    Call::new("eth_getBlockReceipts", format!(r#"["{hash}"]"#))
}

/// Runs what keeps a processor busy for a while beside the tasks that wait for the network.
async fn beside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|_| Err(Failure::Invalid("the decoder failed".to_owned())))
}

/// The blocks of a run, up to the first that is not there, each the parent of the next.
fn chain_of(answers: Answers, from: u64) -> Result<Vec<FullBlock>, Failure> {
    let mut blocks: Vec<FullBlock> = Vec::with_capacity(answers.len());
    for (number, answer) in (from..).zip(answers) {
        let answer = match answer {
            Ok(answer) => answer,
            Err(Failure::NotThere(_)) => break,
            Err(failure) => return Err(failure),
        };
        let Some(block) = answer.parse::<Option<FullBlock>>()? else { break };
        if block.number.0 != number {
            return Err(Failure::Invalid(format!("asked for block {number}, got another")));
        }
        if blocks.last().is_some_and(|parent| parent.hash != block.parent_hash) {
            return Err(Failure::Moved(format!(
                "block {number} is not the child of the one before"
            )));
        }
        blocks.push(block);
    }
    Ok(blocks)
}

/// The receipts of every block that has transactions.
async fn receipts(endpoint: &Endpoint, blocks: &[FullBlock]) -> Result<Vec<Receipts>, Failure> {
    let busy: Vec<&FullBlock> =
        blocks.iter().filter(|block| !block.transactions.is_empty()).collect();
    if busy.is_empty() {
        return Ok(blocks.iter().map(|_| Receipts::None).collect());
    }
    let mut found = None;
    if !endpoint.limited.load(Ordering::Relaxed) {
        let calls: Vec<Call> = busy.iter().map(|block| block_receipts(block.hash)).collect();
        let answers = endpoint.batch(&calls).await?;
        if answers.iter().any(|answer| matches!(answer, Err(Failure::Unsupported(_)))) {
            endpoint.limited.store(true, Ordering::Relaxed);
        } else {
            found = Some(answers.into_iter().map(present).collect::<Result<Vec<_>, _>>()?);
        }
    }
    let found = match found {
        Some(found) => found,
        None => each(endpoint, &busy).await?,
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

fn present(answer: Result<Answer, Failure>) -> Result<Receipts, Failure> {
    match answer {
        Ok(answer) => Ok(Receipts::Block(answer)),
        Err(Failure::NotThere(_)) => Ok(Receipts::Missing),
        Err(failure) => Err(failure),
    }
}

/// Receipts one by one, for endpoints without `eth_getBlockReceipts`.
async fn each(endpoint: &Endpoint, blocks: &[&FullBlock]) -> Result<Vec<Receipts>, Failure> {
    let calls: Vec<Call> = blocks
        .iter()
        .flat_map(|block| &block.transactions)
        .map(|tx| Call::new("eth_getTransactionReceipt", format!(r#"["{}"]"#, tx.hash)))
        .collect();
    let mut answers = endpoint.batch(&calls).await?.into_iter();
    blocks
        .iter()
        .map(|block| {
            let some: Result<Vec<_>, _> = answers.by_ref().take(block.transactions.len()).collect();
            match some {
                Ok(some) => Ok(Receipts::Each(some)),
                Err(Failure::NotThere(_)) => Ok(Receipts::Missing),
                Err(failure) => Err(failure),
            }
        })
        .collect()
}

/// Verifies and decodes, up to the first block whose receipts are not there yet.
fn assemble(
    checker: &Checker,
    blocks: &[FullBlock],
    receipts: Vec<Receipts>,
) -> Result<Vec<Block>, Failure> {
    let mut out = Vec::with_capacity(blocks.len());
    for (block, receipts) in blocks.iter().zip(receipts) {
        let parsed: Option<Vec<Receipt<'_>>> = match &receipts {
            Receipts::None => Some(Vec::new()),
            Receipts::Block(answer) => answer.parse()?,
            Receipts::Each(answers) => {
                answers.iter().map(Answer::parse::<Option<_>>).collect::<Result<_, _>>()?
            }
            Receipts::Missing => None,
        };
        match parsed {
            Some(parsed) => out.push(checked(checker, block, &parsed)?),
            None if out.is_empty() => {
                return Err(Failure::NotThere(format!("the receipts of block {}", block.number.0)));
            }
            None => break,
        }
    }
    Ok(out)
}

/// One block, verified and decoded.
pub(super) fn checked(
    checker: &Checker,
    block: &FullBlock,
    receipts: &[Receipt<'_>],
) -> Result<Block, Failure> {
    let verified = checker.block(block, receipts)?;
    let decoded = decode::block(&verified).inspect_err(|failure| {
        if let Failure::Untrusted { check, .. } = failure {
            checker.count(check);
        }
    })?;
    for _ in 0..decoded.unknown_transfers {
        checker.count("unknown_transfer_shape");
    }
    Ok(decoded.block)
}
