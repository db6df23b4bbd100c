//! Judging tracked Safe deployments by the chain's state.

use std::time::{Duration, Instant};

use super::{Follower, TurnError};
use crate::{
    chain::{Address, BlockRef, SafeCandidate, SafeRejection, SafeState, SourceError, TxLookup},
    ledger::deployments::Examined,
    model::{Cursor, Deployment, DeploymentStatus},
    store::safe,
};

/// How often the node is asked for a transaction that it did not show in a block.
const EXAMINE_EVERY: Duration = Duration::from_secs(15);

impl Follower {
    /// Whether the state after `at` holds a Safe; where that state is gone, the state at the head decides.
    pub(super) async fn prove(
        &self,
        address: Address,
        at: BlockRef,
    ) -> Result<Option<SafeState>, TurnError> {
        Ok(self.judge(address, at).await?.ok())
    }

    async fn judge(
        &self,
        address: Address,
        at: BlockRef,
    ) -> Result<Result<SafeState, SafeRejection>, TurnError> {
        let Some(safes) = self.source.safes() else { return Ok(Err(SafeRejection::NotASafe)) };
        match safes.safe_state(address, at).await {
            Err(SourceError::NotThere(_)) => {
                let head = self.source.head().await?;
                Ok(safes.safe_state(address, head.at).await?)
            }
            judged => Ok(judged?),
        }
    }

    /// Refreshes what is tracked; asks for what was not seen in a block yet, and judges what has settled.
    pub(super) async fn examine_deployments(&mut self, cursor: &Cursor) -> Result<(), TurnError> {
        if self.source.safes().is_none() {
            return Ok(());
        }
        let mut session = self.committer.db.read().await?;
        let open = safe::undecided(&mut session.conn(), cursor.no).await?;
        drop(session);
        self.tracked = open.iter().map(|row| row.tx).collect();
        self.examined.retain(|id, _| open.iter().any(|row| row.id == *id));
        let mut changes = Vec::new();
        for row in open {
            let settled = row.block.is_some_and(|at| at.number <= cursor.settled.at.number);
            let due = match row.status {
                DeploymentStatus::Processing => settled,
                _ => self.examined.get(&row.id).is_none_or(|last| last.elapsed() >= EXAMINE_EVERY),
            };
            if !due {
                continue;
            }
            self.examined.insert(row.id, Instant::now());
            if let Some(change) = self.examine(row, cursor).await? {
                changes.push(change);
            }
        }
        if changes.is_empty() {
            return Ok(());
        }
        let committed = self.committer.deployments(cursor, &changes).await?;
        self.committed(&committed);
        Ok(())
    }

    async fn examine(
        &self,
        row: Deployment,
        cursor: &Cursor,
    ) -> Result<Option<Examined>, TurnError> {
        let seen = row.revision;
        let change = |now: Deployment, proof| Some(Examined { seen, now, proof });
        let lookup = match self.source.safes() {
            Some(safes) => safes.transaction(row.tx).await?,
            None => None,
        };
        let Some(lookup) = lookup else {
            return self.missing(row, cursor).await;
        };
        let mut now = row.clone();
        now.missing_since = None;
        now.sender = Some(lookup.sender);
        now.nonce = lookup.nonce;
        let TxLookup { mined: Some((at, success, candidates)), .. } = lookup else {
            let news = row.sender.is_none() || row.missing_since.is_some();
            return Ok(if news { change(now, None) } else { None });
        };
        // A block above the cursor is judged when it is connected.
        if at.number > cursor.head.at.number {
            return Ok(None);
        }
        let canonical = self.source.header_at(at.number).await?;
        if canonical.is_none_or(|header| header.at != at) {
            return Ok(None);
        }
        now.block = Some(at);
        let settled = at.number <= cursor.settled.at.number;
        let state = if settled { cursor.settled.at } else { cursor.head.at };
        let judged = self.judge_any(&row, &candidates, state).await?;
        let proof = judged.as_ref().ok().map(|(address, proof)| {
            now.prove(*address, proof);
            proof.clone()
        });
        if !settled {
            now.status = DeploymentStatus::Processing;
            return Ok(change(now, proof));
        }
        // Somebody else may have deployed the very same Safe: the state decides, not the transaction.
        match judged {
            Ok(_) => now.status = DeploymentStatus::Completed,
            Err(rejection) => {
                now.status = DeploymentStatus::Failed;
                let reason = match rejection {
                    _ if !success => "reverted",
                    Some(SafeRejection::NoCode) | None => SafeRejection::NotASafe.as_str(),
                    Some(rejection) => rejection.as_str(),
                };
                now.reason = Some(reason.to_owned());
            }
        }
        Ok(change(now, proof))
    }

    /// The first address that is a Safe, of the one known before and those that the receipt names.
    async fn judge_any(
        &self,
        row: &Deployment,
        candidates: &[SafeCandidate],
        at: BlockRef,
    ) -> Result<Result<(Address, SafeState), Option<SafeRejection>>, TurnError> {
        let mut why = None;
        let named = candidates.iter().map(|candidate| candidate.address);
        let candidates: Vec<Address> = match row.address {
            Some(address) => vec![address],
            None => named.collect(),
        };
        for address in candidates {
            match self.judge(address, at).await? {
                Ok(proof) => return Ok(Ok((address, proof))),
                Err(rejection) => why = why.or(Some(rejection)),
            }
        }
        Ok(Err(why))
    }

    /// No node knows the transaction: given up after a while, unless the Safe stands all the same.
    async fn missing(
        &self,
        row: Deployment,
        cursor: &Cursor,
    ) -> Result<Option<Examined>, TurnError> {
        let seen = row.revision;
        let mut now = row.clone();
        let time = self.clock.now();
        let Some(since) = row.missing_since else {
            now.missing_since = Some(time);
            now.status = DeploymentStatus::Pending;
            now.block = None;
            return Ok(Some(Examined { seen, now, proof: None }));
        };
        let mut replaced = false;
        if let (Some(sender), Some(nonce), Some(safes)) =
            (row.sender, row.nonce, self.source.safes())
        {
            replaced = match safes.next_nonce(sender, cursor.settled.at).await {
                Ok(next) => next > nonce,
                Err(SourceError::NotThere(_)) => false,
                Err(error) => return Err(error.into()),
            };
        }
        if !replaced && time.since(since) < self.config.dropped_after {
            return Ok(None);
        }
        if let Some(address) = row.address
            && let Ok(proof) = self.judge(address, cursor.settled.at).await?
        {
            now.prove(address, &proof);
            now.status = DeploymentStatus::Completed;
            return Ok(Some(Examined { seen, now, proof: Some(proof) }));
        }
        now.status = DeploymentStatus::Failed;
        now.reason = Some(if replaced { "replaced" } else { "dropped" }.to_owned());
        Ok(Some(Examined { seen, now, proof: None }))
    }
}
