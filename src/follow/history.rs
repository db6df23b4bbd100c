//! The past of watches, looked up beside the following of the chain.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio_util::task::AbortOnDropHandle;

use super::{Follower, TurnError};
use crate::{
    chain::{Address, AssetKey, BlockRef, Header, Movement, Past, Source, SourceError},
    ledger::{
        backfill::{Participant, Range},
        changes::HistoryStep,
    },
    model::{BlockPoint, Cursor, HistoryStatus, WalletNo},
    store::watch as watch_store,
};

/// Between two tries at a history that no node could tell.
const PAUSE: Duration = Duration::from_secs(15);
/// Blocks that are read at once where nodes have no index by address.
const RANGE: u64 = 50;

/// What was found of one history: the block below it, and what moved since.
type Found = (BlockPoint, Vec<(Header, Vec<Movement>)>);

/// What the follower does about histories.
pub(super) enum Histories {
    /// There may be wishes that nobody has looked at.
    Look,
    /// There is nothing to do until another watch opens.
    Rest,
    /// Not before then.
    Wait(Instant),
    /// One is being looked up.
    Asking(Box<Participant>, AbortOnDropHandle<Result<Found, SourceError>>),
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
            if !self.take_in(cursor, *wish, told).await? {
                self.histories = Histories::Wait(Instant::now() + PAUSE);
                return Ok(());
            }
        }
        let cursor = self.current()?;
        let mut session = self.committer.db.read().await?;
        let conn = &mut session.conn();
        let first = watch_store::wanted_histories(conn, cursor.no, WalletNo(0), 1).await?;
        drop(session);
        let Some(mut wish) = first.into_iter().next() else {
            self.histories = Histories::Rest;
            return Ok(());
        };
        // Only what can no longer vanish is history.
        if wish.opened.number > cursor.settled.at.number {
            return Ok(());
        }
        wish.assets = self.config.assets();
        let source = Arc::clone(&self.source);
        let wake_up = Arc::clone(&self.wake_up);
        let tokens: Vec<Address> = wish
            .assets
            .iter()
            .filter_map(|asset| match asset {
                AssetKey::Token(token) => Some(*token),
                AssetKey::Native => None,
            })
            .collect();
        let (address, from, to) = (wish.watch.address, wish.from_block, wish.seen);
        let task = tokio::spawn(async move {
            let told = find(source.as_ref(), address, &tokens, from, to).await;
            wake_up.notify_one();
            told
        });
        self.histories = Histories::Asking(Box::new(wish), AbortOnDropHandle::new(task));
        Ok(())
    }

    /// `false` if it has to be asked again.
    async fn take_in(
        &mut self,
        cursor: &Cursor,
        wish: Participant,
        told: Result<Found, SourceError>,
    ) -> Result<bool, TurnError> {
        let wallet = wish.watch.wallet_id;
        let wishes = [wish];
        let (next, steps) = match told {
            Ok((below, blocks)) => {
                let range = Range { blocks: &blocks, below };
                self.committer.backfill(cursor, &wishes, range).await?
            }
            Err(SourceError::Untrusted(why)) => {
                tracing::error!(
                    chain = %self.config.name,
                    %wallet,
                    error = why,
                    "no node tells this wallet's whole history: its opening balance stays as it is; for its past, add an \
                     endpoint with the full history, delete the wallet and register it again"
                );
                let next = self.committer.give_up(cursor, &wishes).await?;
                (next, vec![HistoryStep::Incomplete])
            }
            Err(error) => {
                tracing::warn!(
                    chain = %self.config.name,
                    %wallet,
                    error = %error,
                    "a history could not be looked up yet, trying again"
                );
                return Ok(false);
            }
        };
        self.cursor = Some(next);
        for step in steps {
            let status = match step {
                HistoryStep::To(_) => continue,
                HistoryStep::Complete => HistoryStatus::Complete,
                HistoryStep::Incomplete => HistoryStatus::Incomplete,
            };
            self.metrics
                .histories_total
                .with_label_values(&[self.config.name.as_str(), status.as_str()])
                .inc();
            tracing::info!(chain = %self.config.name, %wallet, %status, "a history ends");
        }
        Ok(true)
    }
}

/// What moved for an address from the block `from` to the block `to`, and the block below.
async fn find(
    source: &dyn Source,
    address: Address,
    tokens: &[Address],
    from: u64,
    to: BlockPoint,
) -> Result<Found, SourceError> {
    if from > to.at.number {
        return Ok((BlockPoint { at: to.at, time: to.time }, Vec::new()));
    }
    let below = below(source, from).await?;
    let pasts = match source.address_index() {
        Some(index) => index.history(address, tokens, from, to.at).await?,
        None => every_block(source, address, from, to.at).await?,
    };
    Ok((below, pasts.into_iter().map(|past| (past.header, past.movements)).collect()))
}

/// The block below `from`; the first block of a chain has none, so it is its own.
async fn below(source: &dyn Source, from: u64) -> Result<BlockPoint, SourceError> {
    let mut number = from.saturating_sub(1);
    loop {
        if let Some(header) = source.header_at(number).await? {
            return Ok((&header).into());
        }
        if number == 0 || !source.family().skips_heights() {
            return Err(SourceError::NotThere(format!("block {number}")));
        }
        number -= 1;
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
        for mut block in source.blocks(next, end).await? {
            let header = block.header;
            if last.is_some_and(|last| header.parent != last) {
                return Err(SourceError::NotThere(format!(
                    "block {} does not continue the one before it",
                    header.at.number
                )));
            }
            last = Some(header.at);
            block.retain_watched(|other| *other == address);
            let block = source.complete(block).await?;
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
