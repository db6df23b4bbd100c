//! How old blocks are read.

use std::collections::HashSet;

use parking_lot::RwLock;

use super::*;
use crate::{
    chain::HistoryBlock,
    follow::backfill::descent::{Batch, Descent, Reading, Step, Way},
};

fn reading(chain: &Arc<Scripted>, lo: u64, hi: u64) -> Reading {
    Reading {
        source: Arc::clone(chain) as Arc<dyn Source>,
        way: Way::Blocks,
        lo,
        hi,
        wanted: Arc::new(RwLock::new(HashSet::from([who(9)]))),
        range: 4,
        movements: 1000,
        wake_up: Arc::new(Notify::new()),
        in_flight: 4,
    }
}

/// All batches of a run, and what ended it early.
async fn read(reading: Reading) -> (Vec<Batch>, Option<SourceError>) {
    let wake_up = Arc::clone(&reading.wake_up);
    let mut descent = Descent::begin(reading);
    let mut batches = Vec::new();
    loop {
        match descent.step().await {
            Step::Reading => wake_up.notified().await,
            Step::Batch(batch) => batches.push(batch),
            Step::Failed(error) => return (batches, Some(error)),
            Step::Over => return (batches, None),
        }
    }
}

fn numbers(blocks: &[HistoryBlock]) -> Vec<u64> {
    blocks.iter().map(|past| past.header.at.number).collect()
}

/// A chain of 30 blocks with a payment to and from the one who is wanted in every one, and one of strangers.
fn busy() -> Arc<Scripted> {
    let chain = Arc::new(Scripted::new());
    for tx in 1..=30 {
        chain.mine(&[
            pay(3 * tx, None, who(9), 2),
            pay(3 * tx + 1, Some(who(9)), who(8), 1),
            pay(3 * tx + 2, None, who(7), 1),
        ]);
    }
    chain
}

#[tokio::test]
async fn a_run_is_handed_on_downwards_with_what_is_wanted_of_every_block() {
    let chain = busy();
    let (batches, error) = read(reading(&chain, 3, 28)).await;
    assert!(error.is_none());
    let [batch] = batches.as_slice() else { panic!("one batch") };
    assert_eq!(numbers(&batch.blocks), (3..=28).rev().collect::<Vec<_>>());
    assert_eq!((batch.lo, batch.hi), (3, 28));
    assert_eq!(Some(batch.below), chain.header_at(2).await.unwrap());
    assert!(batch.blocks.iter().all(|past| past.movements.len() == 2));
    assert!(batch.blocks.iter().all(|past| batch.holds(past.header.at)));
    assert!(!batch.holds(batch.below.at));
    let mut ranges = chain.read();
    ranges.sort_unstable();
    assert_eq!(ranges, [(3, 4), (5, 8), (9, 12), (13, 16), (17, 20), (21, 24), (25, 28)]);
}

#[tokio::test]
async fn a_batch_ends_with_the_block_that_fills_it_and_the_next_begins_below() {
    let chain = busy();
    let (batches, error) = read(Reading { movements: 20, ..reading(&chain, 1, 28) }).await;
    assert!(error.is_none());
    let ranges: Vec<(u64, u64)> = batches.iter().map(|batch| (batch.lo, batch.hi)).collect();
    assert_eq!(ranges, [(19, 28), (9, 18), (1, 8)]);
    for pair in batches.windows(2) {
        assert_eq!(pair[0].below, pair[1].blocks[0].header);
    }
    assert_eq!(batches[2].below.at.number, 0);
}

#[tokio::test]
async fn what_was_read_before_a_failure_is_not_lost() {
    let chain = busy();
    chain.lose([7]);
    let (batches, error) = read(reading(&chain, 1, 28)).await;
    assert!(matches!(error, Some(SourceError::NotThere(_))), "{error:?}");
    assert_eq!((batches[0].lo, batches[0].hi), (9, 28));
}

#[tokio::test]
async fn a_branch_that_does_not_lead_to_what_was_read_is_not_taken() {
    let chain = busy();
    // Ranges end at 28, 24, 20, 16 and so on: within one, and between two.
    for below in [23, 21] {
        chain.branch_below(below);
        let (batches, error) = read(Reading { lo: 15, ..reading(&chain, 1, 28) }).await;
        assert!(matches!(error, Some(SourceError::Unavailable { .. })), "{error:?}");
        for past in batches.iter().flat_map(|batch| &batch.blocks) {
            assert!(past.header.parent.number >= below - 1, "nothing of the other branch");
        }
    }
}

#[tokio::test]
async fn a_run_that_nobody_wants_any_more_is_not_read_to_its_end() {
    let chain = busy();
    let wake_up = Arc::new(Notify::new());
    let reading =
        Reading { movements: 1, range: 1, wake_up: Arc::clone(&wake_up), ..reading(&chain, 1, 30) };
    let mut descent = Descent::begin(reading);
    while !matches!(descent.step().await, Step::Batch(_)) {
        wake_up.notified().await;
    }
    drop(descent);
    tokio::task::yield_now().await;
    let read = chain.read().len();
    assert!(read < 15, "{read} ranges, of which one batch was taken");
}

#[tokio::test]
async fn only_blocks_in_which_the_index_shows_a_transfer_are_looked_at() {
    let chain = Arc::new(Scripted::new());
    let token_pay = |tx, to| Payment { asset: token(), ..pay(tx, None, to, 5) };
    for tx in 1..=40 {
        chain.mine(&match tx {
            5 | 20 | 39 => vec![pay(1000 + tx, None, who(9), 1), token_pay(tx, who(9))],
            6 => vec![token_pay(tx, who(7))],
            _ => vec![pay(tx, None, who(9), 1)],
        });
    }
    let at = async |number| chain.header_at(number).await.unwrap().unwrap().at;
    let anchors = vec![at(38).await, at(20).await, at(12).await];
    let AssetKey::Token(contract) = token() else { panic!("a token") };
    let way = Way::Logs { tokens: vec![contract], anchors };
    let logs = Reading { way: way.clone(), ..reading(&chain, 3, 38) };
    let (batches, error) = read(logs.clone()).await;
    assert!(error.is_none());
    let [batch] = batches.as_slice() else { panic!("one batch") };
    assert_eq!((batch.lo, batch.hi, batch.below.at), (3, 38, at(2).await));
    assert_eq!(numbers(&batch.blocks), [38, 20, 12, 5], "what was found, and the anchors");
    let movements: Vec<AssetKey> =
        batch.blocks.iter().flat_map(|past| &past.movements).map(|m| m.asset).collect();
    assert_eq!(movements, [token(), token()], "the native coin is not looked for");
    assert_eq!(chain.read(), [(20, 20), (5, 5)]);
    // A batch that is full ends at a found block.
    let (batches, _) = read(Reading { movements: 1, ..logs.clone() }).await;
    let ranges: Vec<(u64, u64)> = batches.iter().map(|batch| (batch.lo, batch.hi)).collect();
    assert_eq!(ranges, [(20, 38), (5, 19), (3, 4)]);
    // Another branch at an anchor.
    chain.cut(30);
    chain.mine(&[]);
    for _ in 0..10 {
        chain.mine(&[]);
    }
    let (batches, error) = read(logs).await;
    assert!(error.is_none());
    let Way::Logs { anchors, .. } = &way else { panic!("by logs") };
    let held = |anchor: &BlockRef| batches.iter().any(|batch| batch.holds(*anchor));
    assert_eq!(anchors.iter().map(held).collect::<Vec<_>>(), [false, true, true]);
}
