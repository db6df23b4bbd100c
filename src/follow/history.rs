//! The past of watches, looked up beside the following of the chain.

use std::time::{Duration, Instant};

use tokio_util::task::AbortOnDropHandle;

use super::{Follower, TurnError};
use crate::{
    chain::{Address, AssetKey, BlockRef, Past, Source, SourceError},
    store::{
        backfill::{self as backfill_store, HistoryStatus, HistoryWish},
        chain::Cursor,
    },
};

/// Between two tries at a history that no node could tell.
const PAUSE: Duration = Duration::from_secs(15);
/// Blocks that are read at once where nodes have no index by address.
const RANGE: u64 = 50;

/// What the follower does about histories.
pub(super) enum Histories {
    /// There may be wishes that nobody has looked at.
    Look,
    /// There is nothing to do until another watch opens.
    Rest,
    /// Not before then.
    Wait(Instant),
    /// One is being looked up.
    Asking(HistoryWish, AbortOnDropHandle<Result<Vec<Past>, SourceError>>),
}

impl Follower {
    /// Takes in the history that was looked up, and begins with the next.
    pub(super) async fn histories(&mut self, cursor: &Cursor) -> Result<(), TurnError> {
        match &self.histories {
            Histories::Rest => return Ok(()),
            Histories::Wait(until) if Instant::now() < *until => return Ok(()),
            Histories::Asking(_, task) if !task.is_finished() => return Ok(()),
            _ => {}
        }
        if let Histories::Asking(wish, task) =
            std::mem::replace(&mut self.histories, Histories::Look)
        {
            let told = task.await.map_err(|error| {
                TurnError::Retry(format!("the task that looked up a history ended: {error}"))
            })?;
            if !self.take_in(cursor, &wish, told).await? {
                self.histories = Histories::Wait(Instant::now() + PAUSE);
                return Ok(());
            }
        }
        let mut session = self.applier.db.read().await?;
        let wish = backfill_store::first_wish(&mut session.conn(), &self.config.name).await?;
        drop(session);
        let Some(wish) = wish else {
            self.histories = Histories::Rest;
            return Ok(());
        };
        // Only what can no longer vanish is history.
        if wish.opened.number > cursor.settled.at.number {
            return Ok(());
        }
        let source = std::sync::Arc::clone(&self.source);
        let bell = std::sync::Arc::clone(&self.bell);
        let tokens: Vec<Address> = self
            .config
            .assets()
            .into_iter()
            .filter_map(|asset| match asset {
                AssetKey::Token(token) => Some(token),
                AssetKey::Native => None,
            })
            .collect();
        let (address, from, to) = (wish.watch.address, wish.from, wish.opened);
        let task = tokio::spawn(async move {
            let told = if from > to.number {
                Ok(Vec::new())
            } else {
                match source.address_index() {
                    Some(index) => index.history(address, &tokens, from, to).await,
                    None => every_block(source.as_ref(), address, from, to).await,
                }
            };
            bell.notify_one();
            told
        });
        self.histories = Histories::Asking(wish, AbortOnDropHandle::new(task));
        Ok(())
    }

    /// `false` if it has to be asked again.
    async fn take_in(
        &self,
        cursor: &Cursor,
        wish: &HistoryWish,
        told: Result<Vec<Past>, SourceError>,
    ) -> Result<bool, TurnError> {
        let past = match told {
            Ok(past) => Some(past),
            Err(SourceError::Untrusted(why)) => {
                tracing::error!(
                    chain = %self.config.name,
                    wallet = %wish.watch.wallet_id,
                    error = why,
                    "no node tells this wallet's whole history: its opening balance stays as it is; for its past, add an \
                     endpoint with the full history, delete the wallet and register it again"
                );
                None
            }
            Err(error) => {
                tracing::warn!(
                    chain = %self.config.name,
                    wallet = %wish.watch.wallet_id,
                    error = %error,
                    "a history could not be looked up yet, trying again"
                );
                return Ok(false);
            }
        };
        let status = self.applier.backfill(cursor, wish, past.as_deref()).await?;
        if status != HistoryStatus::Wanted {
            self.metrics
                .histories_total
                .with_label_values(&[self.config.name.as_str(), status.as_str()])
                .inc();
        }
        if status == HistoryStatus::Complete {
            tracing::info!(
                chain = %self.config.name,
                wallet = %wish.watch.wallet_id,
                blocks = past.as_ref().map_or(0, Vec::len),
                "history booked"
            );
        }
        Ok(true)
    }
}

/// What moved for one address, from all blocks between, one range after the other.
async fn every_block(
    source: &dyn Source,
    address: Address,
    from: u64,
    to: BlockRef,
) -> Result<Vec<Past>, SourceError> {
    let mut pasts = Vec::new();
    let mut last: Option<BlockRef> = None;
    let mut next = from;
    while next <= to.number {
        let end = to.number.min(next.saturating_add(RANGE - 1));
        for block in source.blocks(next, end).await? {
            let header = block.header;
            if last.is_some_and(|last| header.parent != last) {
                return Err(SourceError::NotThere(format!(
                    "block {} does not continue the one before it",
                    header.at.number
                )));
            }
            last = Some(header.at);
            let block = source.complete(block, &|other| *other == address).await?;
            if !block.movements.is_empty() {
                pasts.push(Past { header, movements: block.movements });
            }
        }
        next = end + 1;
    }
    if last.is_some_and(|last| last != to) {
        return Err(SourceError::NotThere(format!("block {} is another one", to.number)));
    }
    Ok(pasts)
}
