//! Safes that a block brings for somebody: noticed with the block, judged by the chain's state beside the follower,
//! and made wallets of once that has answered. No block waits for a proof.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures::{StreamExt as _, stream};
use tokio_util::task::AbortOnDropHandle;

use super::{Follower, TurnError};
use crate::{
    chain::{
        Address, BlockRef, SafeCandidate, SafeRejection, SafeState, Source, SourceError, TxId,
    },
    ledger::{
        deployments::{Judged, Verdict},
        known::ClaimedSafe,
    },
    model::{Cursor, WaitingSafe},
    store::safe_look,
    task::joined,
};

/// Safes of one block that are noticed.
const OF_ONE_BLOCK: usize = 1_000;
/// Safes that are judged in one round.
const AT_ONCE: i64 = 32;
/// Of these at the same time.
const CONCURRENTLY: usize = 8;
/// How long a round waits for one Safe.
const PATIENCE: Duration = Duration::from_secs(30);

/// Safes that are being judged.
pub(super) type Judging = Option<AbortOnDropHandle<Vec<Judged>>>;

/// Why a Safe concerns somebody.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Lead {
    Owner(Address),
    /// It was registered before it was deployed.
    Itself(Address),
    Transaction(TxId),
}

impl Follower {
    /// What of a block's Safes somebody waits for: their transaction is tracked, they are registered themselves, or
    /// an owner that they claim is. Whoever deploys a contract writes what is in it, so only what a known factory made counts.
    pub(super) fn claimed(
        &self,
        block: BlockRef,
        safes: Vec<SafeCandidate>,
        tracked: &[TxId],
    ) -> Vec<ClaimedSafe> {
        let mut counts: HashMap<Lead, u32> = HashMap::new();
        let mut claimed = Vec::new();
        for claim in safes {
            if claim.factory.is_none() || claim.owners.len() > SafeState::MOST_OWNERS {
                continue;
            }
            let lead = if tracked.contains(&claim.tx) {
                Lead::Transaction(claim.tx)
            } else if self.watchlist.contains(&claim.address) {
                Lead::Itself(claim.address)
            } else if self.config.safes_per_owner == 0 {
                continue;
            } else {
                let mut owners = claim.owners.iter();
                let Some(owner) = owners.find(|owner| self.watchlist.contains(owner)) else {
                    continue;
                };
                Lead::Owner(*owner)
            };
            let count = counts.entry(lead).or_default();
            claimed.push(ClaimedSafe { claim, rank: *count });
            *count = count.saturating_add(1);
        }
        if claimed.len() > OF_ONE_BLOCK {
            // Of those who are many, the last ones go.
            claimed.sort_by_key(|safe| safe.rank);
            let beyond = claimed.split_off(OF_ONE_BLOCK).len();
            tracing::warn!(
                chain = %self.config.name,
                block.number = block.number,
                safes = beyond,
                "a block sets up more Safes of registered owners than are looked at: these are left out"
            );
            self.count_safes("omitted", u64::try_from(beyond).unwrap_or(u64::MAX));
        }
        claimed
    }

    /// Takes in what was judged, and has more judged. Nothing here waits for a node.
    pub(super) async fn judge_safes(&mut self, cursor: &Cursor) -> Result<(), TurnError> {
        if let Some(task) = &mut self.judging {
            if !task.is_finished() {
                return Ok(());
            }
            let judged = joined(task.await).unwrap_or_default();
            self.judging = None;
            let committed = self.committer.judged(cursor, &judged).await?;
            self.committed(&committed);
            for judged in &judged {
                let outcome = match judged.verdict {
                    _ if judged.is_given_up() => {
                        tracing::warn!(
                            chain = %self.config.name,
                            block.number = judged.safe.block.at.number,
                            address = %self.config.family.format_address(&judged.safe.claim.address),
                            "no node could judge a Safe of a registered owner for a day: it is left out"
                        );
                        "omitted"
                    }
                    Verdict::Safe(_) => "proven",
                    Verdict::NoSafe => "rejected",
                    Verdict::Unknown => "unanswered",
                };
                self.count_safes(outcome, 1);
            }
        }
        let mut session = self.committer.db.read().await?;
        let conn = &mut session.conn();
        let due = safe_look::due_safes(conn, cursor.no, self.clock.now(), AT_ONCE).await?;
        drop(session);
        if due.is_empty() {
            return Ok(());
        }
        let (source, wake_up) = (Arc::clone(&self.source), Arc::clone(&self.wake_up));
        self.judging = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            let source = source.as_ref();
            let judge = |safe| judge_waiting(source, safe);
            let judged = stream::iter(due).map(judge).buffer_unordered(CONCURRENTLY);
            let judged = judged.collect().await;
            wake_up.notify_one();
            judged
        })));
        Ok(())
    }

    fn count_safes(&self, outcome: &str, count: u64) {
        let labels = [self.config.name.as_str(), outcome];
        self.metrics.safe_candidates_total.with_label_values(&labels).inc_by(count);
    }
}

async fn judge_waiting(source: &dyn Source, safe: WaitingSafe) -> Judged {
    let judging = judge(source, safe.claim.address, safe.block.at, Some(&safe.claim));
    let verdict = match tokio::time::timeout(PATIENCE, judging).await {
        Ok(Ok(Ok(state))) => Verdict::Safe(Box::new(state)),
        Ok(Ok(Err(_))) => Verdict::NoSafe,
        Ok(Err(_)) | Err(_) => Verdict::Unknown,
    };
    Judged { safe, verdict }
}

/// Whether the state after `at` holds a Safe; where that state is gone, the state at the head decides. Without a
/// claim of how it was set up it is never called plain.
pub(super) async fn judge(
    source: &dyn Source,
    address: Address,
    at: BlockRef,
    claim: Option<&SafeCandidate>,
) -> Result<Result<SafeState, SafeRejection>, SourceError> {
    let Some(safes) = source.safes() else { return Ok(Err(SafeRejection::NotASafe)) };
    let judged = match safes.safe_state(address, at).await {
        Err(SourceError::NotThere(_)) => {
            let head = source.head().await?;
            safes.safe_state(address, head.at).await?
        }
        judged => judged?,
    };
    Ok(judged.map(|state| match claim {
        Some(claim) => state.set_up_as(claim),
        None => SafeState { plain: false, ..state },
    }))
}
