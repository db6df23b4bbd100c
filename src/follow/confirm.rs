//! What becomes of differences from the chain's own figures: believed, doubted, or too many for the daemon alone.

use std::time::{Duration, Instant};

use super::{
    Follower, TurnError,
    figures::{Told, Weighed},
};
use crate::{
    amount::Amount,
    chain::Certainty,
    ledger::reconcile::{Belief, Comparison, Figure},
    model::Cursor,
    retry::Backoff,
    store::chain as chain_store,
};

/// Whether settlement stands still because too many balances differ, and when it is tried again.
#[derive(Debug, Default)]
pub(super) struct Stopped(Option<(Instant, Backoff)>);

impl Stopped {
    /// Whether it stands still, waiting or being tried again.
    pub fn is_stopped(&self) -> bool {
        self.0.is_some()
    }

    pub fn waits(&self) -> bool {
        self.0.as_ref().is_some_and(|(until, _)| Instant::now() < *until)
    }

    #[cfg(test)]
    pub fn try_now(&mut self) {
        if let Some((until, _)) = &mut self.0 {
            *until = Instant::now();
        }
    }

    /// Whether this is news.
    fn stop(&mut self) -> bool {
        let news = self.0.is_none();
        let pauses = || Backoff::new(Duration::from_secs(5), Duration::from_mins(1));
        let (until, backoff) = self.0.get_or_insert_with(|| (Instant::now(), pauses()));
        *until = Instant::now() + backoff.next_delay();
        news
    }
}

impl Weighed {
    /// Whether it counts as a difference that is the nodes' word. A proven one does not: no node can make it up, and
    /// strangers and customers can move money in ways that no log shows, of as many addresses as they like.
    fn differs(&self) -> bool {
        self.difference.is_some_and(|(comparison, certainty)| {
            comparison != Comparison::Equal
                && [Certainty::Told, Certainty::Agreed].contains(&certainty)
        })
    }
}

impl Follower {
    /// Whether more balances differ than are taken over without a person.
    pub(super) fn too_many(&self, weighed: &[Weighed]) -> bool {
        let differing = weighed.iter().filter(|weighed| weighed.differs()).count();
        self.config.differences.exceeded(differing, weighed.len())
    }

    /// Whether a person has accepted, since the last block settled, that so many differ.
    pub(super) async fn accepted(&self, cursor: &Cursor) -> Result<bool, TurnError> {
        let mut session = self.committer.db.read().await?;
        Ok(chain_store::differences_accepted(&mut session.conn(), cursor.no).await?)
    }

    /// Nothing settles until the figures agree, or a person accepts them.
    pub(super) fn stop(&mut self, weighed: &[Weighed]) {
        if self.stopped.stop() {
            let differing = weighed.iter().filter(|weighed| weighed.differs()).count();
            tracing::error!(
                chain = %self.config.name,
                differences = differing,
                compared = weighed.len(),
                "too many balances differ from the chain's own figures: nothing settles until they agree, or a \
                 person accepts it: look at the endpoints first, then: tidemark accept-differences --chain {}",
                self.config.name
            );
        }
        self.gauge_stopped(1);
    }

    /// Settlement works again.
    pub(super) fn goes_on(&mut self) {
        if self.stopped.0.take().is_some() {
            tracing::info!(chain = %self.config.name, "blocks settle again");
        }
        self.gauge_stopped(0);
    }

    /// What the ledger is to make of figures after the settled block `at`.
    pub(super) fn beliefs(&mut self, weighed: &[Weighed], at: u64, accepted: bool) -> Vec<Figure> {
        let mut disputed = 0;
        let mut figures = Vec::with_capacity(weighed.len());
        for Weighed { told, difference } in weighed {
            let Told { balance, holding } = *told;
            let belief = match *difference {
                None | Some((Comparison::Equal, _)) => {
                    self.doubts.resolved([&balance]);
                    Belief::Unconfirmed
                }
                Some((_, certainty)) if accepted && certainty > Certainty::Disputed => {
                    self.doubts.resolved([&balance]);
                    Belief::Confirmed { most: Amount::MAX }
                }
                Some((comparison, certainty)) => {
                    disputed += u64::from(certainty == Certainty::Disputed);
                    self.doubts.weigh(balance, comparison, certainty, at)
                }
            };
            if matches!(belief, Belief::Confirmed { .. }) {
                self.sweep.walk.suspect(balance.wallet, self.clock.now());
            }
            figures.push(Figure { balance, holding, belief });
        }
        if disputed > 0 {
            tracing::warn!(
                chain = %self.config.name,
                block.number = at,
                balances = disputed,
                "the endpoints tell differently of what is held: nothing is booked for that"
            );
            self.metrics
                .disputed_figures_total
                .with_label_values(&[self.config.name.as_str()])
                .inc_by(disputed);
        }
        self.gauge_doubts();
        figures
    }
}
