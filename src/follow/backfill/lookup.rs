//! Histories that nodes list by address: each is looked up by itself, and then booked piece by piece.

use std::{sync::Arc, time::Instant};

use tokio_util::task::AbortOnDropHandle;

use super::{
    super::{Follower, TurnError},
    Lane, Run,
};
use crate::{
    chain::{Address, HistoryBlock, Priority, Source, SourceError},
    follow::backfill::plan::Advance,
    ledger::{
        backfill::{Range, sides},
        changes::HistoryEnd,
    },
    model::{BlockPoint, Cursor, HistoryStatus, WalletNo},
    store::participant,
    task::joined,
};

/// How many heights in a row may be without a block before the search for one is given up.
const MAX_EMPTY_HEIGHTS: usize = 1000;

/// A history that is being looked up.
pub(super) struct Lookup {
    wallet: WalletNo,
    address: Address,
    found: AbortOnDropHandle<Result<Found, SourceError>>,
}

/// What was found of a history.
pub(super) struct Found {
    address: Address,
    /// The block below all that counts.
    below: BlockPoint,
    /// What moved, the newest first, and is not booked yet.
    history_blocks: Vec<HistoryBlock>,
}

impl Found {
    /// How many blocks make one commit of about so many movements, and the block that is needed next after them.
    fn piece(&self, movements: usize) -> (usize, BlockPoint) {
        let mut sum = 0;
        let full = self.history_blocks.iter().position(|past| {
            sum += past.movements.len();
            sum >= movements
        });
        let end = full.map_or(self.history_blocks.len(), |last| last + 1);
        (end, self.history_blocks.get(end).map_or(self.below, |past| (&past.header).into()))
    }
}

impl Lookup {
    pub fn is_over(&self) -> bool {
        self.found.is_finished()
    }
}

impl Follower {
    /// `None` if nobody wants it any more.
    pub(super) async fn begin_lookup(
        &mut self,
        run: &Run<Lane>,
    ) -> Result<Option<Lookup>, TurnError> {
        let mut session = self.committer.db.read().await?;
        let wanted = participant::whose(&mut session.conn(), run.scan.no).await?;
        drop(session);
        let Some((wallet, address)) = wanted else {
            let nobody = Advance { lane: run.lane, scan: run.scan, absorbs: Vec::new() };
            self.backfill.plan.advanced(&nobody, run.scan.next, true);
            return Ok(None);
        };
        let (source, wake_up) = (Arc::clone(&self.source), Arc::clone(&self.wake_up));
        let (tokens, scan) = (self.tokens(), run.scan);
        let found = AbortOnDropHandle::new(tokio::spawn(Priority::Background.scope(async move {
            let found = async {
                let index = source
                    .address_index()
                    .ok_or_else(|| SourceError::NotThere("an index of addresses".to_owned()))?;
                let below = below(source.as_ref(), scan.from).await?;
                let mut history_blocks =
                    index.history(address, &tokens, scan.from, scan.next).await?;
                history_blocks.reverse();
                Ok(Found { address, below, history_blocks })
            };
            let found = found.await;
            wake_up.notify_one();
            found
        })));
        Ok(Some(Lookup { wallet, address, found }))
    }

    /// What was found, if it was.
    pub(super) async fn end_lookup(
        &mut self,
        cursor: &Cursor,
        run: &Run<Lane>,
        lookup: Lookup,
    ) -> Result<Option<Found>, TurnError> {
        let Lookup { wallet, address, found } = lookup;
        let found = joined(found.await).unwrap_or_else(|| {
            let detail = "the task that looked up a history was cancelled".to_owned();
            Err(SourceError::Unavailable { detail, retry_after: None })
        });
        match found {
            Ok(found) => return Ok(Some(found)),
            Err(SourceError::Untrusted(why)) => {
                tracing::error!(
                    chain = %self.config.name,
                    wallet.no = wallet.0,
                    error = why,
                    "no node tells this wallet's whole history: its opening balance stays as it is; for its past, add an \
                     endpoint with the full history, delete the wallet and register it again"
                );
                let covered_from = Some(run.scan.next.number + 1);
                let status = HistoryStatus::Incomplete;
                let end = HistoryEnd { wallet, address, status, covered_from };
                self.end_histories(cursor, &[end]).await?;
                self.backfill.reload();
            }
            Err(error) => self.cannot_be_read(run, &error),
        }
        Ok(None)
    }

    /// Books as much of what was found as one commit takes; gives what is left.
    pub(super) async fn book_piece(
        &mut self,
        cursor: &Cursor,
        mut run: Run<Lane>,
        mut found: Found,
    ) -> Result<Option<(Run<Lane>, Found)>, TurnError> {
        let (end, below) = found.piece(self.backfill.budget.sides());
        let rest = found.history_blocks.split_off(end);
        let is_whose = |address: &Address| *address == found.address;
        let sides = sides(&found.history_blocks, &self.config.assets(), is_whose);
        let range = Range { blocks: &found.history_blocks, below, sides: &sides, is_last: true };
        let advance = Advance { lane: run.lane, scan: run.scan, absorbs: Vec::new() };
        let started = Instant::now();
        if !self.book_range(cursor, &run, &[advance], range).await? {
            return Ok(None);
        }
        self.backfill.budget.took(sides.len(), started.elapsed());
        run.scan.next = below.at;
        found.history_blocks = rest;
        Ok(Some((run, found)).filter(|(run, _)| self.backfill.plan.has(run.lane, &run.scan)))
    }
}

/// The block below `from`.
async fn below(source: &dyn Source, from: u64) -> Result<BlockPoint, SourceError> {
    for number in (0..from).rev().take(MAX_EMPTY_HEIGHTS) {
        if let Some(header) = source.header_at(number).await? {
            return Ok((&header).into());
        }
        if !source.family().skips_heights() {
            break;
        }
    }
    Err(SourceError::NotThere(format!("the block below {from}")))
}
