//! Small deposits that become available before their block settles: which are looked at when, and with which figures.
//!
//! Each is looked at once for each tier, when its block comes to lie deep enough. What does not fit then waits for
//! settlement, and so does what no node tells the balance of: nothing waits for it.

use std::sync::Arc;

use tokio_util::task::AbortOnDropHandle;

use super::{
    Announcements, Follower, Turn, TurnError, announcement,
    figures::{self, Told},
};
use crate::{
    chain::{Priority, SourceError},
    commit::Due,
    ledger::reconcile::Figure,
    model::{BalanceRef, BlockPoint, Cursor, Tier, TransferNo},
    store::early::{self, Waiting},
    task::joined,
};

/// Deposits looked at for one commit; those beyond wait for settlement.
const AT_ONCE: i64 = 500;

/// How far deposits were looked at.
#[derive(Debug, Default)]
pub(super) struct Early {
    /// The head at which they were.
    seen: Option<BlockPoint>,
    reading: Option<Reading>,
}

impl Early {
    /// Leaves what is being read: the store may be another one by now.
    pub fn give_up(&mut self) {
        self.reading = None;
    }
}

/// Deposits whose balances are on their way from the nodes.
#[derive(Debug)]
struct Reading {
    head: BlockPoint,
    /// The block after which the balances are read.
    at: BlockPoint,
    deposits: Vec<TransferNo>,
    task: AbortOnDropHandle<Result<Option<Vec<Told>>, SourceError>>,
}

/// Whether a deposit has come to lie deep enough for a tier since the head was at `before`.
fn is_due(tier: &Tier, deposit: &Waiting, before: Option<u64>, head: u64) -> bool {
    let from = deposit.block.saturating_add(tier.confirmations);
    tier.asset == deposit.balance.key
        && deposit.amount <= tier.up_to
        && from <= head
        && before.is_none_or(|before| before < from)
}

impl Follower {
    /// Makes small deposits available. [`Turn::More`] if something came before the balances that this waits for.
    pub(super) async fn advance(
        &mut self,
        cursor: &Cursor,
        announced: &mut Announcements,
    ) -> Result<Turn, TurnError> {
        if self.early.reading.is_none() {
            self.early.reading = self.due(cursor).await?;
        }
        let Some(reading) = self.early.reading.as_mut() else { return Ok(Turn::Idle) };
        let read = tokio::select! {
            biased;
            read = &mut reading.task => read,
            () = announcement(announced) => return Ok(Turn::More),
            () = self.wake_up.notified() => return Ok(Turn::More),
            () = tokio::time::sleep(self.config.poll_interval) => return Ok(Turn::More),
        };
        let Some(Reading { head, at, deposits, .. }) = self.early.reading.take() else {
            return Ok(Turn::Idle);
        };
        let told = match joined(read) {
            Some(Ok(Some(told))) => told,
            Some(Err(error)) => {
                tracing::debug!(chain = %self.config.name, error = %error, "small deposits wait");
                return Ok(Turn::Idle);
            }
            Some(Ok(None)) | None => return Ok(Turn::Idle),
        };
        if self.applied_at(cursor, at.at.number).await? != Some(at) {
            return Ok(Turn::More);
        }
        let figures: Vec<Figure> = told.iter().map(Told::unconfirmed).collect();
        let due = Due { deposits: &deposits, figures: &figures, at };
        if let Some(committed) = self.committer.advance(cursor, due).await? {
            self.committed(&committed);
        }
        self.early.seen = Some(head);
        Ok(Turn::Idle)
    }

    /// Asks for the balances of the deposits that have come to lie deep enough for a tier.
    async fn due(&mut self, cursor: &Cursor) -> Result<Option<Reading>, TurnError> {
        let depths = || self.config.tiers.iter().map(|tier| tier.confirmations);
        let (Some(fewest), Some(most)) = (depths().min(), depths().max()) else { return Ok(None) };
        let head = cursor.head;
        let before = match self.early.seen {
            Some(seen) if seen == head => return Ok(None),
            Some(seen) if self.applied_at(cursor, seen.at.number).await? == Some(seen) => {
                Some(seen.at.number)
            }
            _ => None,
        };
        let settled = cursor.settled.at.number;
        let above = before.map_or(0, |before| before.saturating_sub(most)).max(settled);
        let upto = head.at.number.saturating_sub(fewest);
        if upto <= settled {
            return Ok(None);
        }
        let Some(at) = self.applied_at(cursor, upto).await? else { return Ok(None) };
        let mut session = self.committer.db.read().await?;
        let mut waiting =
            early::waiting(&mut session.conn(), cursor.no, above, upto, AT_ONCE).await?;
        drop(session);
        waiting.retain(|deposit| {
            let tiers = &self.config.tiers;
            tiers.iter().any(|tier| is_due(tier, deposit, before, head.at.number))
        });
        if waiting.is_empty() {
            self.early.seen = Some(head);
            return Ok(None);
        }
        let mut balances: Vec<BalanceRef> = waiting.iter().map(|deposit| deposit.balance).collect();
        balances.sort_by_key(|balance| (balance.address, balance.wallet, balance.asset));
        balances.dedup();
        let source = Arc::clone(&self.source);
        let read = async move { figures::read(source.as_ref(), at.at, &balances).await };
        let task = AbortOnDropHandle::new(tokio::spawn(Priority::Settlement.scope(read)));
        let deposits = waiting.iter().map(|deposit| deposit.no).collect();
        Ok(Some(Reading { head, at, deposits, task }))
    }
}
