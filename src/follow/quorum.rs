//! A second opinion: settlement waits until two endpoints agree on the block that settles, and on the figures of what
//! settles with it. Following goes on meanwhile.
//!
//! Here the endpoints are compared with each other; with the ledger they are compared as ever, when it settles.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio_util::task::AbortOnDropHandle;

use super::{Announcements, Follower, Turn, TurnError, announcement, figures};
use crate::{
    chain::{BlockRef, Certainty, Header, Priority, SettlementTag, Source, SourceError},
    model::{BalanceRef, BlockPoint, Cursor},
    retry::Backoff,
    string_enum::string_enum,
    task::joined,
};

string_enum! {
    /// Why two endpoints have not agreed.
    Dissent {
        /// They have different blocks at the height that is to settle.
        Block = "block",
        /// They tell differently of what is held.
        Figure = "figure",
        /// Fewer than two have answered, or have the block and its state.
        Silence = "silence",
    }
}

/// What was agreed upon, and what is being asked.
#[derive(Debug, Default)]
pub(super) struct Quorum {
    agreed: Option<BlockPoint>,
    asking: Option<Asking>,
    /// Why it waits, and until when.
    dissent: Option<(Dissent, Instant, Backoff)>,
}

#[derive(Debug)]
struct Asking {
    point: BlockPoint,
    task: AbortOnDropHandle<Result<(), Dissent>>,
}

impl Quorum {
    /// Leaves what is being asked: the store may be another one by now.
    pub fn give_up(&mut self) {
        self.asking = None;
    }

    fn waits(&self) -> bool {
        self.dissent.as_ref().is_some_and(|(_, until, _)| Instant::now() < *until)
    }

    #[cfg(test)]
    pub fn try_now(&mut self) {
        if let Some((_, until, _)) = &mut self.dissent {
            *until = Instant::now();
        }
    }
}

/// How far settlement may go.
pub(super) enum Gate {
    Open(BlockPoint),
    /// Nothing settles in this turn.
    Closed(Turn),
}

/// The newest block that two of these endpoints call settled.
fn second(mut told: Vec<Header>) -> Option<Header> {
    told.sort_by_key(|header| std::cmp::Reverse(header.at.number));
    told.get(1).copied()
}

/// Whether two endpoints have the same block there, and tell the same of the balances after it.
async fn agree(source: &dyn Source, at: BlockRef, balances: &[BalanceRef]) -> Result<(), Dissent> {
    let told = source.header_by_each(at.number).await.map_err(|_| Dissent::Silence)?;
    let (same, others): (Vec<_>, Vec<_>) =
        told.into_iter().flatten().partition(|header| header.at == at);
    if same.len() < 2 {
        return Err(if others.is_empty() { Dissent::Silence } else { Dissent::Block });
    }
    let sure = figures::for_sure(source, at, balances).await;
    let mut verdict = Ok(());
    for balance in balances {
        match sure.get(&balance.query()) {
            // What an asset itself does not tell, no second endpoint knows either.
            Some((figure, _)) if figure.unreadable => {}
            Some((_, Certainty::Agreed | Certainty::Proven)) => {}
            Some((_, Certainty::Disputed)) => return Err(Dissent::Figure),
            Some((_, Certainty::Told)) | None => verdict = Err(Dissent::Silence),
        }
    }
    verdict
}

impl Follower {
    /// Whether nothing settles without a second opinion.
    pub(super) fn needs_quorum(&self) -> bool {
        self.config.quorum > 1
    }

    /// The newest block that the node calls settled, or that two do.
    pub(super) async fn called_settled(
        &mut self,
        tag: SettlementTag,
    ) -> Result<Option<Header>, SourceError> {
        if !self.needs_quorum() {
            return self.source.settled(tag).await;
        }
        let told = self.source.settled_by_each(tag).await?;
        let said = second(told);
        if said.is_none() && !self.quorum.waits() {
            self.dissent(Dissent::Silence);
        }
        Ok(said)
    }

    /// How far two endpoints have agreed on the way to `said`.
    pub(super) async fn quorum(
        &mut self,
        cursor: &Cursor,
        said: BlockPoint,
        announced: &mut Announcements,
    ) -> Result<Gate, TurnError> {
        if !self.needs_quorum() {
            return Ok(Gate::Open(said));
        }
        if let Some(agreed) = self.quorum.agreed
            && agreed.at.number > cursor.settled.at.number
            && self.applied_at(cursor, agreed.at.number).await? == Some(agreed)
        {
            return Ok(Gate::Open(agreed));
        }
        if self.quorum.waits() {
            return Ok(Gate::Closed(Turn::Idle));
        }
        if self.quorum.asking.is_none() {
            let balances = self.settling(cursor, said).await?;
            let source = Arc::clone(&self.source);
            let asked = async move { agree(source.as_ref(), said.at, &balances).await };
            let task = AbortOnDropHandle::new(tokio::spawn(Priority::Settlement.scope(asked)));
            self.quorum.asking = Some(Asking { point: said, task });
        }
        let Some(asking) = self.quorum.asking.as_mut() else {
            return Ok(Gate::Closed(Turn::Idle));
        };
        let verdict = tokio::select! {
            biased;
            verdict = &mut asking.task => joined(verdict).unwrap_or(Err(Dissent::Silence)),
            () = announcement(announced) => return Ok(Gate::Closed(Turn::More)),
            () = self.wake_up.notified() => return Ok(Gate::Closed(Turn::More)),
            () = tokio::time::sleep(self.config.poll_interval) => return Ok(Gate::Closed(Turn::More)),
        };
        let Some(Asking { point, .. }) = self.quorum.asking.take() else {
            return Ok(Gate::Closed(Turn::Idle));
        };
        if self.applied_at(cursor, point.at.number).await? != Some(point) {
            return Ok(Gate::Closed(Turn::More));
        }
        if let Err(dissent) = verdict {
            self.dissent(dissent);
            return Ok(Gate::Closed(Turn::Idle));
        }
        if self.quorum.dissent.take().is_some() {
            tracing::info!(chain = %self.config.name, "two endpoints agree again: blocks settle");
        }
        self.gauge_dissent(None);
        self.quorum.agreed = Some(point);
        Ok(Gate::Open(point))
    }

    /// Settlement waits, and is tried again after a growing pause.
    fn dissent(&mut self, dissent: Dissent) {
        let news = self.quorum.dissent.as_ref().is_none_or(|(before, ..)| *before != dissent);
        let pauses = || Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        let (why, until, backoff) =
            self.quorum.dissent.get_or_insert_with(|| (dissent, Instant::now(), pauses()));
        *why = dissent;
        *until = Instant::now() + backoff.next_delay();
        self.gauge_dissent(Some(dissent));
        if !news {
            return;
        }
        let chain = &self.config.name;
        match dissent {
            Dissent::Block => tracing::error!(
                %chain,
                "the endpoints have different blocks at the height that is to settle: nothing settles until two agree"
            ),
            Dissent::Figure => tracing::error!(
                %chain,
                "the endpoints tell differently of what settles: nothing settles until two agree"
            ),
            Dissent::Silence => tracing::warn!(
                %chain,
                "fewer than two endpoints tell of the block that is to settle and of its state: nothing settles yet"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::BlockHash;

    #[test]
    fn what_only_one_endpoint_calls_settled_is_not() {
        let header = |number: u64| {
            let at = BlockRef { number, hash: BlockHash([1; 32]) };
            Header { at, parent: at, time: number }
        };
        let newest = |told: &[u64]| {
            second(told.iter().map(|number| header(*number)).collect()).map(|said| said.at.number)
        };
        assert_eq!(newest(&[]), None);
        assert_eq!(newest(&[7]), None);
        assert_eq!(newest(&[7, 9]), Some(7));
        assert_eq!(newest(&[9, 5, 8]), Some(8));
    }
}
