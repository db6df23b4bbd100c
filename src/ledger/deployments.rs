//! More is known of Safe deployments: their state machine, their wallets and their events.
//!
//! A block only says that a Safe is to be looked at; what the chain's state proves of it is known later, and told
//! by a step of its own.

use std::time::Duration;

use serde::Serialize;

use super::{
    Changes, Known, Refused,
    changes::{DeploymentChange, SafeProof},
    known::{KnownDeployments, MatchedBlock},
    posting::Posting,
};
use crate::{
    chain::{Address, SafeCandidate, SafeState},
    clock::Millis,
    event::{EventType, EventWallet, NewEvent},
    id::{Naming, WalletId},
    model::{
        AdoptSafes, BlockPoint, ChainInfo, CommitKind, Cursor, Deployment, DeploymentStatus,
        NewWallet, SafeFacts, SafeOnChain, ShownSafe, WaitingSafe, WalletChain, WalletKind,
        WalletNo, WalletRef, Watch, WatchStatus,
    },
    view::{SafeDeploymentView, WalletData, WalletRefView, WalletView},
};

/// Between the Safes of one block that one owner led to.
const PACE: Duration = Duration::from_millis(100);
/// Between the first two looks at a Safe that no node could judge.
const SAFE_PAUSE: Duration = Duration::from_secs(1);
/// Between the first two looks at a transaction.
const TX_PAUSE: Duration = Duration::from_secs(15);
/// Between two looks at most.
const LONGEST_PAUSE: Duration = Duration::from_mins(5);
/// Looks in vain after which a Safe is left behind: a day of them.
const MOST_LOOKS: u32 = 300;

/// What a node told of one tracked deployment.
#[derive(Clone, Debug)]
pub struct Examined {
    /// The revision it was read with.
    pub seen: i64,
    pub now: Deployment,
    /// What the state at the settled block proves, where it proves a Safe.
    pub proof: Option<SafeState>,
}

/// What a node told of a Safe that somebody waits for.
#[derive(Clone, Debug)]
pub struct Judged {
    pub safe: WaitingSafe,
    pub verdict: Verdict,
}

/// What the chain's state says of an address.
#[derive(Clone, Debug)]
pub enum Verdict {
    Safe(Box<SafeState>),
    NoSafe,
    /// No node could answer.
    Unknown,
}

impl Judged {
    /// Whether no node could say what it is for so long that it is left behind.
    #[must_use]
    pub fn is_given_up(&self) -> bool {
        matches!(self.verdict, Verdict::Unknown) && self.safe.looks >= MOST_LOOKS
    }
}

/// How long to wait for the next look after so many in vain.
fn pause(first: Duration, looks: u32) -> Duration {
    first.saturating_mul(1 << looks.min(16)).min(LONGEST_PAUSE)
}

/// The deployments as a step has them so far.
pub(super) struct Tracking {
    known: KnownDeployments,
}

/// The data of `safe_deployment.*`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DeploymentData {
    safe_deployment: SafeDeploymentView,
    wallet: Option<WalletRefView>,
}

impl Tracking {
    pub fn new(known: KnownDeployments) -> Self {
        Self { known }
    }

    fn keep(&mut self, row: &Deployment) {
        match self.known.deployments.iter_mut().find(|known| known.id == row.id) {
            Some(known) => known.clone_from(row),
            None => self.known.deployments.push(row.clone()),
        }
    }
}

/// A block with tracked deployments or with Safes of registered owners was connected.
pub(super) fn seen(
    posting: &mut Posting<'_>,
    tracking: &mut Tracking,
    block: &MatchedBlock,
) -> Result<(), Refused> {
    let at = BlockPoint::from(&block.header);
    let waiting = (0..).zip(&block.safes).map(|(place, safe)| WaitingSafe {
        block: at,
        place,
        claim: safe.claim.clone(),
        looks: 0,
        look_at: posting.now.plus(PACE.saturating_mul(safe.rank)),
    });
    posting.changes.looks.waiting.extend(waiting);
    if block.tracked.is_empty() {
        return Ok(());
    }
    let waits = |row: &&Deployment| {
        row.status == DeploymentStatus::Pending && block.tracked.contains(&row.tx)
    };
    let tracked: Vec<Deployment> =
        tracking.known.deployments.iter().filter(waits).cloned().collect();
    for row in tracked {
        let revision = row.revision;
        processing(posting, tracking, row, at, Some(revision))?;
    }
    Ok(())
}

/// What the chain's state said of Safes that somebody waits for.
///
/// # Errors
/// A number ran out, or an event cannot be written down.
pub fn judged(
    chain: &ChainInfo,
    cursor: &Cursor,
    known: &Known,
    deployments: KnownDeployments,
    judged: Vec<Judged>,
    now: Millis,
) -> Result<Changes, Refused> {
    let mut posting = Posting::new(chain, known, cursor, cursor.clone(), now, CommitKind::Safes);
    let mut tracking = Tracking::new(deployments);
    for judged in judged {
        let given_up = judged.is_given_up();
        let Judged { safe, verdict } = judged;
        match verdict {
            Verdict::Unknown if !given_up => {
                let look_at = now.plus(pause(SAFE_PAUSE, safe.looks));
                let later = WaitingSafe { looks: safe.looks.saturating_add(1), look_at, ..safe };
                posting.changes.looks.put_off.push(later);
                continue;
            }
            Verdict::NoSafe | Verdict::Unknown => {}
            Verdict::Safe(proof) => {
                proven(&mut posting, &mut tracking, &safe, &proof)?;
            }
        }
        posting.changes.looks.judged.push(safe);
    }
    posting.finish()
}

/// A Safe stands: for those who track its transaction, and for those who have registered one of its owners.
fn proven(
    posting: &mut Posting<'_>,
    tracking: &mut Tracking,
    safe: &WaitingSafe,
    proof: &SafeState,
) -> Result<(), Refused> {
    let WaitingSafe { block: at, claim, .. } = safe;
    let fits = |row: &&Deployment| {
        row.tx == claim.tx
            && !row.is_decided()
            && row.block.is_none_or(|block| block == at.at)
            && row.address.is_none_or(|known| known == claim.address)
    };
    let rows: Vec<Deployment> = tracking.known.deployments.iter().filter(fits).cloned().collect();
    for mut row in rows {
        let revision = row.revision;
        row.prove(claim.address, proof);
        safe_wallet(posting, tracking, &mut row, proof)?;
        processing(posting, tracking, row, *at, Some(revision))?;
    }
    found_by_address(posting, tracking, safe, proof)?;
    found_by_owner(posting, tracking, safe, proof)
}

/// Tracks a Safe for every tenant that watches its address and does not track it yet: it was registered before it was
/// deployed. Whoever deploys it, it is the same Safe.
fn found_by_address(
    posting: &mut Posting<'_>,
    tracking: &mut Tracking,
    safe: &WaitingSafe,
    proof: &SafeState,
) -> Result<(), Refused> {
    let watching = tracking.known.watching.values();
    let mut watching: Vec<Watch> =
        watching.filter(|watch| watch.address == safe.claim.address).cloned().collect();
    watching.sort_unstable_by_key(|watch| watch.tenant);
    for watch in watching {
        if !tracking.knows(&watch, &safe.claim) {
            let row = newly_found(posting, &watch, safe);
            let row = Deployment { found_by_owner: false, owner_wallet: None, ..row };
            track(posting, tracking, row, safe, proof)?;
        }
    }
    Ok(())
}

/// Tracks a Safe for every tenant that has one of its owners registered and does not track it yet.
fn found_by_owner(
    posting: &mut Posting<'_>,
    tracking: &mut Tracking,
    safe: &WaitingSafe,
    proof: &SafeState,
) -> Result<(), Refused> {
    let mut owners: Vec<Address> = proof.owners.clone();
    owners.sort_unstable();
    owners.dedup();
    let watches = owners.iter().filter_map(|owner| tracking.known.owners.get(owner));
    let watches: Vec<_> = watches.flatten().filter(|watch| watch.is_eoa).cloned().collect();
    for watch in watches {
        if tracking.knows(&watch, &safe.claim) {
            continue;
        }
        let found = tracking.known.found.entry(watch.wallet_id).or_default();
        if *found >= posting.chain.safes_per_owner {
            posting.changes.report.omitted_safes += 1;
            continue;
        }
        *found += 1;
        let row = newly_found(posting, &watch, safe);
        track(posting, tracking, row, safe, proof)?;
    }
    Ok(())
}

/// What begins to be tracked because somebody watches one of its owners.
fn newly_found(posting: &Posting<'_>, watch: &Watch, safe: &WaitingSafe) -> Deployment {
    let WaitingSafe { block: at, claim: safe, .. } = safe;
    let id = Naming::new("safe_deployment")
        .field(watch.tenant_id.0.as_bytes())
        .field(posting.chain.name.as_str().as_bytes())
        .field(safe.tx.as_slice())
        .field(safe.address.as_slice());
    Deployment {
        id: id.at(at.time),
        tenant: watch.tenant,
        tenant_id: watch.tenant_id,
        chain: posting.chain.name.clone(),
        tx: safe.tx,
        found_by_owner: true,
        status: DeploymentStatus::Processing,
        reason: None,
        address: None,
        wallet_id: None,
        owner_wallet: Some(watch.wallet_id),
        version: None,
        singleton: None,
        owners: Vec::new(),
        threshold: None,
        block: None,
        sender: None,
        nonce: None,
        missing_since: None,
        look_at: posting.now,
        looks: 0,
        revision: 0,
        created_at: posting.now,
        updated_at: posting.now,
    }
}

fn track(
    posting: &mut Posting<'_>,
    tracking: &mut Tracking,
    mut row: Deployment,
    safe: &WaitingSafe,
    proof: &SafeState,
) -> Result<(), Refused> {
    row.prove(safe.claim.address, proof);
    safe_wallet(posting, tracking, &mut row, proof)?;
    processing(posting, tracking, row, safe.block, None)
}

fn processing(
    posting: &mut Posting<'_>,
    tracking: &mut Tracking,
    mut row: Deployment,
    at: BlockPoint,
    seen: Option<i64>,
) -> Result<(), Refused> {
    row.status = DeploymentStatus::Processing;
    row.block = Some(at.at);
    row.missing_since = None;
    row.look_at = look_at(posting, at.at.number);
    row.looks = 0;
    let news = seen.is_none() || tracking.status_of(&row) != Some(DeploymentStatus::Processing);
    let row = change(posting, tracking, row, seen, news, at.time)?;
    tracking.keep(&row);
    Ok(())
}

/// When a deployment in this block is looked at.
fn look_at(posting: &Posting<'_>, block: u64) -> Millis {
    let settled = block <= posting.changes.cursor.settled.at.number;
    if settled { posting.now } else { Deployment::WHEN_SETTLED }
}

/// Takes over what the follower learned of tracked deployments.
///
/// # Errors
/// A number ran out, or an event cannot be written down.
pub fn examined(
    chain: &ChainInfo,
    cursor: &Cursor,
    known: &Known,
    deployments: KnownDeployments,
    examined: Vec<Examined>,
    now: Millis,
) -> Result<Changes, Refused> {
    let mut posting = Posting::new(chain, known, cursor, cursor.clone(), now, CommitKind::Safes);
    let mut tracking = Tracking::new(deployments);
    for Examined { seen, now: mut row, proof } in examined {
        let as_read = |known: &Deployment| known.id == row.id && known.revision == seen;
        let Some(before) = tracking.known.deployments.iter().find(|known| as_read(known)) else {
            // A block has said more of it meanwhile; it is looked at again.
            continue;
        };
        (row.look_at, row.looks) = (before.look_at, before.looks);
        if *before == row {
            let (look_at, looks) =
                (now.plus(pause(TX_PAUSE, row.looks)), row.looks.saturating_add(1));
            posting.changes.looks.deployments.push((row.id, seen, look_at, looks));
            continue;
        }
        let news = before.status != row.status;
        row.looks = if news { 0 } else { row.looks.saturating_add(1) };
        row.look_at = match (row.status, row.block) {
            (DeploymentStatus::Processing, Some(block)) => look_at(&posting, block.number),
            _ => now.plus(pause(TX_PAUSE, row.looks)),
        };
        if let Some(proof) = &proof {
            safe_wallet(&mut posting, &mut tracking, &mut row, proof)?;
        }
        let row = change(&mut posting, &tracking, row, Some(seen), news, now)?;
        tracking.keep(&row);
    }
    posting.finish()
}

/// The blocks that held them are gone: these deployments are pending again.
pub(super) fn gone(posting: &mut Posting<'_>, deployments: Vec<Deployment>) -> Result<(), Refused> {
    let nothing = Tracking::new(KnownDeployments::default());
    for mut row in deployments {
        let seen = row.revision;
        row.status = DeploymentStatus::Pending;
        row.block = None;
        row.look_at = posting.now;
        row.looks = 0;
        change(posting, &nothing, row, Some(seen), true, posting.now)?;
    }
    Ok(())
}

impl Tracking {
    /// Whether the tenant tracks that Safe of that transaction already.
    fn knows(&self, watch: &Watch, safe: &SafeCandidate) -> bool {
        self.known.deployments.iter().any(|row| {
            row.tenant == watch.tenant && row.tx == safe.tx && row.address == Some(safe.address)
        })
    }

    fn status_of(&self, row: &Deployment) -> Option<DeploymentStatus> {
        let known = self.known.deployments.iter().find(|known| known.id == row.id);
        known.map(|known| known.status)
    }
}

/// Writes a deployment and tells of its status, if that is `news` and worth an event.
fn change(
    posting: &mut Posting<'_>,
    tracking: &Tracking,
    mut row: Deployment,
    seen: Option<i64>,
    news: bool,
    time: Millis,
) -> Result<Deployment, Refused> {
    row.updated_at = posting.now;
    row.revision += 1;
    // Two changes of one deployment in one step are written as one.
    let changes = &mut posting.changes.deployments;
    match changes.iter_mut().find(|change| change.now.id == row.id) {
        Some(change) => change.now.clone_from(&row),
        None => changes.push(DeploymentChange { seen, now: row.clone() }),
    }
    let kind = match row.status {
        _ if !news => return Ok(row),
        DeploymentStatus::Pending => return Ok(row),
        DeploymentStatus::Processing => EventType::SafeDeploymentProcessing,
        DeploymentStatus::Completed => EventType::SafeDeploymentCompleted,
        DeploymentStatus::Failed => EventType::SafeDeploymentFailed,
    };
    posting.changes.report.deployments.push(row.status);
    let family = posting.chain.family;
    let wallet = row.wallet_id.and_then(|id| tracking.known.wallets.get(&id));
    let wallet = wallet.map(WalletRefView::from);
    let data = DeploymentData { safe_deployment: SafeDeploymentView::new(&row, family), wallet };
    let block = row.block.map(|block| block.hash.0).unwrap_or_default();
    let event = NewEvent::data(
        row.tenant,
        row.wallet_id.map(EventWallet::Id),
        kind,
        &[row.id.0.as_bytes(), &block],
        time,
        &data,
    );
    posting.tell_data(event)?;
    Ok(row)
}

/// The wallet of a proven Safe: the tenant's own at that address, else a new one. It joins the account of the
/// owner that led to it if the tenant wants such Safes there.
fn safe_wallet(
    posting: &mut Posting<'_>,
    tracking: &mut Tracking,
    row: &mut Deployment,
    proof: &SafeState,
) -> Result<(), Refused> {
    let Some(address) = row.address else { return Ok(()) };
    let place = (row.tenant, address);
    // What was read since goes before what was proven at an earlier block.
    let head = posting.changes.cursor.head.at;
    let states = &mut tracking.known.states;
    let state = states.entry(address).or_insert_with(|| SafeOnChain::new(proof, head)).clone();
    posting.changes.safe_states.begun.push((address, state.clone()));
    let known = tracking.known.watching.get(&place).map(|watch| watch.wallet_id);
    let wallet = if let Some(known) = known {
        if let Some(shown) = tracking.known.wallets.get_mut(&known)
            && shown.safe.is_some()
        {
            shown.safe = Some((&state).into());
        }
        known
    } else {
        let id = register_safe(posting, tracking, row, address, (proof, &state))?;
        let watch = Watch {
            wallet: WalletNo::default(),
            tenant: row.tenant,
            wallet_id: id,
            tenant_id: row.tenant_id,
            address,
            is_eoa: false,
            activated: false,
        };
        tracking.known.watching.insert(place, watch);
        id
    };
    posting.changes.safes.push(SafeProof {
        wallet,
        tenant: row.tenant,
        state,
        found_by_owner: known.is_none() && row.found_by_owner,
    });
    row.wallet_id = Some(wallet);
    Ok(())
}

fn register_safe(
    posting: &mut Posting<'_>,
    tracking: &mut Tracking,
    row: &mut Deployment,
    address: Address,
    (proof, state): (&SafeState, &SafeOnChain),
) -> Result<WalletId, Refused> {
    if row.owner_wallet.is_none() {
        let watches = row.owners.iter().filter_map(|owner| tracking.known.owners.get(owner));
        let own = |watch: &&Watch| watch.tenant == row.tenant && watch.is_eoa;
        row.owner_wallet = watches.flatten().find(own).map(|watch| watch.wallet_id);
    }
    let owner = row.owner_wallet.and_then(|owner| tracking.known.wallets.get(&owner));
    let adopt = tracking.known.adopt.get(&row.tenant).copied().unwrap_or(AdoptSafes::SoleOwner);
    let account_id = owner.and_then(|owner| owner.account_id).filter(|_| adopt.adopts(proof));
    let now = posting.now;
    let wallet = NewWallet {
        id: Naming::new("safe_wallet")
            .field(row.id.0.as_bytes())
            .field(&row.revision.to_be_bytes())
            .at(now),
        tenant: row.tenant,
        tenant_id: row.tenant_id,
        account_id,
        family: posting.chain.family,
        address,
        kind: WalletKind::Safe,
        safe: Some(SafeFacts {
            found_by_owner: row.found_by_owner,
            version: Some(state.version.clone()),
            singleton: Some(state.singleton),
            owners: state.owners.clone(),
            threshold: Some(state.threshold),
        }),
        client_reference_id: None,
        nickname: None,
        is_primary: false,
    };
    let made = wallet.requested(
        vec![WalletChain {
            chain: posting.chain.name.clone(),
            status: WatchStatus::Requested,
            from_block: None,
            history: None,
            history_method: None,
            opened: None,
            opened_time: None,
            covered_from: None,
            untraced: None,
            head: Some(posting.head),
            deployment: None,
            safe: None,
        }],
        now,
    );
    let id = wallet.id;
    posting.changes.wallets.push(wallet);
    let data = WalletData { wallet: WalletView::from(&made) };
    let event = NewEvent::data(
        row.tenant,
        Some(EventWallet::Id(id)),
        EventType::WalletCreated,
        &[id.0.as_bytes()],
        now,
        &data,
    );
    posting.tell_data(event)?;
    let shown = WalletRef {
        id,
        family: posting.chain.family,
        address,
        account_id,
        client_reference_id: None,
        safe: row.found_by_owner.then(|| ShownSafe::from(state)),
    };
    tracking.known.wallets.insert(id, shown);
    Ok(id)
}
