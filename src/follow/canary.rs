//! A canary after an upgrade: the first time that a version of the daemon follows a chain, it reads some settled blocks
//! again. If it reads them otherwise than they were booked, the chain stops before anything is booked in that way.
//!
//! Nothing waits long for nodes that do not tell: the chain is followed then, and they are asked again later.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio_util::task::AbortOnDropHandle;

use super::{Follower, TurnError, prefetch};
use crate::{
    amount::Amount,
    chain::{
        Address, AssetKey, Block, BlockHash, BlockRef, Kind, Ordinal, Priority, Source,
        SourceError, Traced, TxId,
    },
    model::{Cursor, Direction},
    store::canary::{self, Booked},
    task::joined,
};

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Blocks that are read again.
const BLOCKS: usize = 20;
/// Transfers among which they are looked for.
const TRANSFERS: i64 = 2_000;
/// How long the chain waits for them.
#[cfg(not(test))]
const PATIENCE: Duration = Duration::from_secs(10);
#[cfg(test)]
const PATIENCE: Duration = Duration::from_millis(300);
/// How long they may take in all.
const LONGEST: Duration = Duration::from_mins(5);
/// When they are asked for again.
const REST: Duration = Duration::from_mins(10);

/// How far the blocks were read again.
#[derive(Debug, Default)]
pub(super) enum Canary {
    #[default]
    Due,
    Reading(AbortOnDropHandle<Result<(), Finding>>),
    Resting(Instant),
    /// This version reads them as they were booked.
    Passed,
}

impl Canary {
    #[cfg(test)]
    pub fn try_now(&mut self) {
        if let Self::Resting(until) = self {
            *until = Instant::now();
        }
    }
}

/// Why a block is not what was booked, as far as is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    Unreadable(String),
    Different { block: BlockRef, difference: String },
}

/// The place of a movement, and the side of it.
type Side = (Address, TxId, Ordinal, Direction, AssetKey);

/// The newest settled blocks in which something was booked that a block shows, with all that was booked of them.
fn chosen(rows: Vec<Booked>, settled: u64, is_all: bool) -> Vec<(BlockRef, Vec<Booked>)> {
    // The last one may have more transfers than were read.
    let cut = rows.last().map(|row| row.block).filter(|_| !is_all);
    let mut blocks: BTreeMap<(u64, [u8; 32]), Vec<Booked>> = BTreeMap::new();
    for row in rows.into_iter().filter(|row| Some(row.block) != cut) {
        blocks.entry((row.block.number, row.block.hash.0)).or_default().push(row);
    }
    let shows = |(block, rows): &(BlockRef, Vec<Booked>)| {
        block.number <= settled && rows.iter().any(|row| row.firm && is_shown(row.kind))
    };
    let block = |((number, hash), rows)| (BlockRef { number, hash: BlockHash(hash) }, rows);
    blocks.into_iter().rev().map(block).filter(shows).take(BLOCKS).collect()
}

/// Whether a block shows movements of that kind by itself.
fn is_shown(kind: Kind) -> bool {
    !matches!(kind, Kind::Opening | Kind::Adjustment | Kind::Internal)
}

fn is_traced(ordinal: &Ordinal) -> bool {
    matches!(ordinal, Ordinal::Trace(_))
}

/// How a block differs from what was booked of it. Assets that are no money now are left out, and so is what only a trace
/// shows where the block was not traced, then or now. What was not booked is a difference for addresses that something
/// of the block was booked for, in the coin, or in an asset that counted for them in `counting`.
fn difference(
    block: &Block,
    booked: &[Booked],
    money: &HashSet<AssetKey>,
    counting: &HashSet<(Address, AssetKey)>,
) -> Option<String> {
    let addresses: HashSet<Address> = booked.iter().map(|row| row.address).collect();
    let mut shown: HashMap<Side, (Kind, Amount)> = HashMap::new();
    for movement in &block.movements {
        if movement.amount.is_zero() || !money.contains(&movement.asset) {
            continue;
        }
        for (side, direction) in [(movement.from, Direction::Out), (movement.to, Direction::In)] {
            if let Some(address) = side.filter(|address| addresses.contains(address)) {
                let ordinal = movement.ordinal.clone();
                let side = (address, movement.tx, ordinal, direction, movement.asset);
                shown.insert(side, (movement.kind, movement.amount));
            }
        }
    }
    let whole = block.traced == Traced::Whole;
    for row in booked {
        let side = (row.address, row.tx, row.ordinal.clone(), row.direction, row.asset);
        let found = shown.remove(&side);
        let by_trace = row.kind == Kind::Internal || is_traced(&row.ordinal);
        let compared = row.firm
            && money.contains(&row.asset)
            && !matches!(row.kind, Kind::Opening | Kind::Adjustment)
            && (whole || !by_trace);
        if compared && found != Some((row.kind, row.amount)) {
            let found = found.map_or_else(
                || "is not there any more".to_owned(),
                |(kind, amount)| format!("is a {kind} of {amount} now"),
            );
            return Some(format!(
                "the {} {} of {} at {} of transaction {:?} {found}",
                row.direction, row.kind, row.amount, row.ordinal, row.tx
            ));
        }
    }
    let unknown = shown.iter().find(|((address, _, ordinal, _, asset), (kind, _))| {
        let counts = *asset == AssetKey::Native || counting.contains(&(*address, *asset));
        counts && is_shown(*kind) && !is_traced(ordinal)
    });
    unknown.map(|((_, tx, ordinal, direction, _), (kind, amount))| {
        format!(
            "a {direction} {kind} of {amount} at {ordinal} of transaction {tx:?} was not booked"
        )
    })
}

/// Reads blocks again, the newest first, and compares each. Those that no node has any more are left out.
async fn read(
    source: Arc<dyn Source>,
    blocks: Vec<(BlockRef, Vec<Booked>)>,
    money: HashSet<AssetKey>,
) -> Result<(), Finding> {
    let all = || blocks.iter().flat_map(|(_, rows)| rows);
    let watched: HashSet<Address> = all().map(|row| row.address).collect();
    let counting: HashSet<(Address, AssetKey)> =
        all().filter(|row| row.firm).map(|row| (row.address, row.asset)).collect();
    let mut compared = 0;
    for (at, booked) in &blocks {
        let watched = |address: &Address| watched.contains(address);
        let read = match source.block(*at).await {
            Ok(Some(mut block)) => {
                source.trace(std::slice::from_mut(&mut block), prefetch::PATIENCE).await;
                block.retain_watched(watched);
                source.completed(block, &watched).await
            }
            Ok(None) => continue,
            Err(error) => Err(error),
        };
        let block = match read {
            Ok(block) => block,
            Err(SourceError::NotThere(_)) => continue,
            Err(error) => return Err(Finding::Unreadable(error.to_string())),
        };
        if let Some(difference) = difference(&block, booked, &money, &counting) {
            return Err(Finding::Different { block: *at, difference });
        }
        compared += 1;
    }
    if compared == 0 {
        return Err(Finding::Unreadable("no node has these blocks any more".to_owned()));
    }
    Ok(())
}

impl Follower {
    /// Reads settled blocks again, if this version has not done so on this chain.
    pub(super) async fn canary(&mut self, cursor: &Cursor) -> Result<(), TurnError> {
        match &self.canary {
            Canary::Passed => return Ok(()),
            Canary::Resting(until) if Instant::now() < *until => return Ok(()),
            Canary::Reading(task) if !task.is_finished() => return Ok(()),
            Canary::Reading(_) => {}
            Canary::Due | Canary::Resting(_) => {
                let mut session = self.committer.db.read().await?;
                let conn = &mut session.conn();
                if canary::read_by(conn, cursor.no).await?.as_deref() == Some(VERSION) {
                    self.canary = Canary::Passed;
                    return Ok(());
                }
                let rows = canary::newest(conn, cursor.no, TRANSFERS).await?;
                drop(session);
                let is_all = i64::try_from(rows.len()) != Ok(TRANSFERS);
                let blocks = chosen(rows, cursor.settled.at.number, is_all);
                if blocks.is_empty() {
                    return self.reads_alike(cursor).await;
                }
                let reading = read(Arc::clone(&self.source), blocks, self.money.clone());
                let reading = async move {
                    tokio::time::timeout(LONGEST, Priority::Background.scope(reading))
                        .await
                        .unwrap_or_else(|_| Err(Finding::Unreadable("it took too long".to_owned())))
                };
                self.canary = Canary::Reading(AbortOnDropHandle::new(tokio::spawn(reading)));
            }
        }
        let Canary::Reading(task) = &mut self.canary else { return Ok(()) };
        let Ok(read) = tokio::time::timeout(PATIENCE, task).await else {
            tracing::warn!(
                chain = %self.config.name,
                "settled blocks are still being read again after the upgrade: the chain is followed meanwhile"
            );
            return Ok(());
        };
        match joined(read) {
            Some(Ok(())) => self.reads_alike(cursor).await,
            Some(Err(Finding::Different { block, difference })) => {
                self.canary = Canary::Due;
                Err(TurnError::Halt(format!(
                    "version {VERSION} reads the settled block {} ({:?}) otherwise than it was booked: {difference}",
                    block.number, block.hash
                )))
            }
            Some(Err(Finding::Unreadable(why))) => {
                self.canary = Canary::Resting(Instant::now() + REST);
                tracing::warn!(
                    chain = %self.config.name,
                    error = %why,
                    "settled blocks cannot be read again after the upgrade: the chain is followed, and they are tried later"
                );
                Ok(())
            }
            None => {
                self.canary = Canary::Resting(Instant::now() + REST);
                Ok(())
            }
        }
    }

    async fn reads_alike(&mut self, cursor: &Cursor) -> Result<(), TurnError> {
        self.committer.was_read_by(cursor, VERSION).await?;
        self.canary = Canary::Passed;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
