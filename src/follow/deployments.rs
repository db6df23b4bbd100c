//! Looking for the transactions of tracked Safe deployments, beside the follower: what a tenant asks for costs a
//! turn nothing but two small reads, and no other tenant's turn to be asked for.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt as _, stream};
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use super::{Follower, TurnError, safes::judge};
use crate::{
    chain::{
        Address, SafeCandidate, SafeRejection, SafeSource, SafeState, Source, SourceError, TxFact,
        TxId, TxLookup,
    },
    clock::Millis,
    id::{SafeDeploymentId, TenantId},
    ledger::deployments::Examined,
    model::{Cursor, Deployment, DeploymentStatus},
    store::{safe_look, safe_look::Pending},
    task::joined,
};

/// Deployments of one tenant that are looked at in one round.
const OF_ONE_TENANT: i64 = 4;
/// Deployments that are looked at in one round.
const AT_ONCE: usize = 32;
/// Of these at the same time.
const CONCURRENTLY: usize = 8;
/// Tenants that one turn looks at for what is due.
const TENANTS: usize = 64;
/// Between the beginnings of two rounds.
const ROUND: Duration = Duration::from_millis(500);
/// How long a round waits for one transaction.
const PATIENCE: Duration = Duration::from_secs(30);
/// Proxies of one transaction that are judged; one that deploys a Safe has one.
const PROXIES: usize = 8;
/// Deployments read at once when all of them are.
const PAGE: i64 = 5_000;
/// How long before a reading of the store a deployment may be dated that only came after it.
const OVERLAP: Duration = Duration::from_mins(1);

/// Transactions that are to be noticed in a block.
#[derive(Default)]
pub(super) struct Tracked {
    txs: HashSet<TxId>,
    /// Until when what is tracked is known; `None` before the first time.
    until: Option<Millis>,
}

impl Tracked {
    /// Those that are in a block.
    pub fn among(&self, transactions: &[TxFact]) -> Vec<TxId> {
        if self.txs.is_empty() {
            return Vec::new();
        }
        transactions.iter().map(|fact| fact.tx).filter(|tx| self.txs.contains(tx)).collect()
    }

    /// All is to be read again.
    pub fn forget(&mut self) {
        *self = Self::default();
    }
}

/// What is being looked for.
#[derive(Default)]
pub(super) struct Lookups {
    task: Option<AbortOnDropHandle<Vec<Looked>>>,
    begun: Option<Instant>,
    /// The tenant that was looked after last.
    after: Option<TenantId>,
}

/// A deployment as it was read, and what became of it.
struct Looked {
    before: Deployment,
    found: Examined,
}

impl Looked {
    /// Nothing new.
    fn nothing(before: Deployment) -> Self {
        let found = Examined { seen: before.revision, now: before.clone(), proof: None };
        Self { before, found }
    }
}

impl Follower {
    /// Takes in what was found of tracked deployments and of Safes that wait, and asks for more. Nothing here waits
    /// for a node.
    pub(super) async fn examine_deployments(&mut self, cursor: &Cursor) -> Result<(), TurnError> {
        if self.source.safes().is_none() {
            return Ok(());
        }
        self.track(cursor).await?;
        Box::pin(self.judge_safes(cursor)).await?;
        let cursor = self.current()?;
        Box::pin(self.look_at_safes(&cursor)).await?;
        self.read_safe_contracts(&cursor).await?;
        let cursor = self.current()?;
        Box::pin(self.look_up(&cursor)).await
    }

    /// Reads which transactions are tracked since the last time.
    pub(super) async fn track(&mut self, cursor: &Cursor) -> Result<(), TurnError> {
        let now = self.clock.now();
        let since = self.tracked.until.map_or(Millis(0), |until| until.minus(OVERLAP));
        let mut after = (since, SafeDeploymentId(Uuid::nil()));
        let mut session = self.committer.db.read().await?;
        loop {
            let page = safe_look::pending(&mut session.conn(), cursor.no, after, PAGE).await?;
            self.tracked.txs.extend(page.iter().map(|row| row.tx));
            let full = i64::try_from(page.len()) == Ok(PAGE);
            match page.last() {
                Some(&Pending { created_at, id, .. }) if full => after = (created_at, id),
                _ => break,
            }
        }
        self.tracked.until = Some(now);
        Ok(())
    }

    async fn look_up(&mut self, cursor: &Cursor) -> Result<(), TurnError> {
        if let Some(task) = &mut self.lookups.task {
            if !task.is_finished() {
                return Ok(());
            }
            let looked = joined(task.await).unwrap_or_default();
            self.lookups.task = None;
            self.looked(cursor, looked).await?;
        }
        if self.lookups.begun.is_some_and(|begun| begun.elapsed() < ROUND) {
            return Ok(());
        }
        let rows = self.due_deployments(cursor).await?;
        if rows.is_empty() {
            return Ok(());
        }
        self.lookups.begun = Some(Instant::now());
        let looker = Looker {
            source: Arc::clone(&self.source),
            cursor: self.current()?,
            now: self.clock.now(),
            dropped_after: self.config.dropped_after,
        };
        let wake_up = Arc::clone(&self.wake_up);
        self.lookups.task = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            let look = |row| looker.look(row);
            let found = stream::iter(rows).map(look).buffer_unordered(CONCURRENTLY).collect().await;
            wake_up.notify_one();
            found
        })));
        Ok(())
    }

    /// What is due, a few of each tenant: it begins behind the tenant where it ended the last time.
    async fn due_deployments(&mut self, cursor: &Cursor) -> Result<Vec<Deployment>, TurnError> {
        let now = self.clock.now();
        let mut session = self.committer.db.read().await?;
        let conn = &mut session.conn();
        let mut rows = Vec::new();
        let after = &mut self.lookups.after;
        let mut from_first = after.is_none();
        for _ in 0..TENANTS {
            let Some((tenant, look_at)) = safe_look::next_tenant(conn, cursor.no, *after).await?
            else {
                *after = None;
                if from_first || !rows.is_empty() {
                    break;
                }
                from_first = true;
                continue;
            };
            *after = Some(tenant);
            if look_at <= now {
                let due =
                    safe_look::due_deployments(conn, cursor.no, tenant, now, OF_ONE_TENANT).await?;
                rows.extend(due);
            }
            if rows.len() >= AT_ONCE {
                break;
            }
        }
        Ok(rows)
    }

    /// Writes what was found. What a node says of a block that is not ours (any more) counts for nothing.
    async fn looked(&mut self, cursor: &Cursor, looked: Vec<Looked>) -> Result<(), TurnError> {
        let mut examined = Vec::with_capacity(looked.len());
        for Looked { before, found } in looked {
            let ours = match found.now.block {
                Some(at) if at.number > cursor.settled.at.number => {
                    let ours = self.applied_at(cursor, at.number).await?;
                    ours.is_some_and(|ours| ours.at == at)
                }
                _ => true,
            };
            examined.push(if ours { found } else { Looked::nothing(before).found });
        }
        if examined.is_empty() {
            return Ok(());
        }
        let committed = self.committer.deployments(cursor, &examined).await?;
        for Examined { now, .. } in examined.iter().filter(|examined| examined.now.is_decided()) {
            self.tracked.txs.remove(&now.tx);
        }
        self.committed(&committed);
        Ok(())
    }
}

/// Who asks the nodes, and what is known of the chain when it begins.
struct Looker {
    source: Arc<dyn Source>,
    cursor: Cursor,
    now: Millis,
    dropped_after: Duration,
}

impl Looker {
    async fn look(&self, before: Deployment) -> Looked {
        let found = match tokio::time::timeout(PATIENCE, self.examine(&before)).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => {
                tracing::debug!(
                    chain = %self.cursor.chain,
                    deployment = %before.id,
                    %error,
                    "a deployment cannot be looked at now"
                );
                None
            }
            Err(_) => None,
        };
        match found {
            Some((now, proof)) => {
                let found = Examined { seen: before.revision, now, proof };
                Looked { before, found }
            }
            None => Looked::nothing(before),
        }
    }

    /// The deployment as it stands by what the nodes say, and what its Safe was proven by; `None` if there is
    /// nothing to say.
    async fn examine(
        &self,
        row: &Deployment,
    ) -> Result<Option<(Deployment, Option<SafeState>)>, SourceError> {
        let Some(safes) = self.source.safes() else { return Ok(None) };
        let cursor = &self.cursor;
        let Some(lookup) = safes.transaction(row.tx).await? else {
            return self.missing(safes, row).await;
        };
        let mut now = row.clone();
        now.missing_since = None;
        now.sender = Some(lookup.sender);
        // No account has sent so many.
        now.nonce = lookup.nonce.filter(|nonce| i64::try_from(*nonce).is_ok());
        let TxLookup { mined: Some((at, success, candidates)), .. } = lookup else {
            return Ok(Some((now, None)));
        };
        // A block above the cursor is noticed when it is connected.
        if at.number > cursor.head.at.number {
            return Ok(None);
        }
        let canonical = self.source.header_at(at.number).await?;
        if canonical.is_none_or(|header| header.at != at) {
            return Ok(None);
        }
        now.block = Some(at);
        let settled = at.number <= cursor.settled.at.number;
        let judged = self.judge_any(row, &candidates, settled).await?;
        let proof = judged.as_ref().ok().map(|(address, proof)| {
            now.prove(*address, proof);
            proof.clone()
        });
        if !settled {
            now.status = DeploymentStatus::Processing;
            return Ok(Some((now, proof)));
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
        Ok(Some((now, proof)))
    }

    /// The first address that is a Safe, of the one known before and those that a known factory made.
    async fn judge_any(
        &self,
        row: &Deployment,
        candidates: &[SafeCandidate],
        settled: bool,
    ) -> Result<Result<(Address, SafeState), Option<SafeRejection>>, SourceError> {
        let at = if settled { self.cursor.settled.at } else { self.cursor.head.at };
        let source = self.source.as_ref();
        if let Some(address) = row.address {
            let claim = candidates.iter().find(|candidate| candidate.address == address);
            let judged = judge(source, address, at, claim).await?;
            return Ok(judged.map(|proof| (address, proof)).map_err(Some));
        }
        let mut why = None;
        let made = candidates.iter().filter(|candidate| candidate.factory.is_some());
        for claim in made.take(PROXIES) {
            match judge(source, claim.address, at, Some(claim)).await? {
                Ok(proof) => return Ok(Ok((claim.address, proof))),
                Err(rejection) => why = why.or(Some(rejection)),
            }
        }
        Ok(Err(why))
    }

    /// No node knows the transaction: given up after a while, unless the Safe stands all the same.
    async fn missing(
        &self,
        safes: &dyn SafeSource,
        row: &Deployment,
    ) -> Result<Option<(Deployment, Option<SafeState>)>, SourceError> {
        let settled = self.cursor.settled.at;
        let mut now = row.clone();
        let Some(since) = row.missing_since else {
            now.missing_since = Some(self.now);
            now.status = DeploymentStatus::Pending;
            now.block = None;
            return Ok(Some((now, None)));
        };
        let mut replaced = false;
        if let (Some(sender), Some(nonce)) = (row.sender, row.nonce) {
            replaced = match safes.next_nonce(sender, settled).await {
                Ok(next) => next > nonce,
                Err(SourceError::NotThere(_)) => false,
                Err(error) => return Err(error),
            };
        }
        if !replaced && self.now.since(since) < self.dropped_after {
            return Ok(None);
        }
        if let Some(address) = row.address
            && let Ok(proof) = judge(self.source.as_ref(), address, settled, None).await?
        {
            now.prove(address, &proof);
            now.status = DeploymentStatus::Completed;
            return Ok(Some((now, Some(proof))));
        }
        now.status = DeploymentStatus::Failed;
        now.reason = Some(if replaced { "replaced" } else { "dropped" }.to_owned());
        Ok(Some((now, None)))
    }
}
