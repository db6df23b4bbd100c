//! Watched Safes: when their state is to be read, and what is told of it once it was.
//!
//! Their logs only say when to look. What is told is what the chain's state says after the newest block, so that a
//! delegate call which changes a Safe without a word is told of as well.

use std::time::Duration;

use serde::Serialize;

use super::{
    Changes, Known, Refused,
    changes::{SafeChange, SafeProof, SafeRead},
    known::MatchedBlock,
    posting::Posting,
};
use crate::{
    chain::{Address, SafeRejection, SafeState},
    clock::Millis,
    event::{EventType, EventWallet, NewEvent},
    model::{
        BlockPoint, ChainInfo, CommitKind, Cursor, SafeLook, SafeOnChain, ShownSafe, TenantNo,
        WalletRef, Watch,
    },
    view::{BlockRefView, SafeStateView, WalletRefView},
};

/// Between two readings of a Safe that never runs.
const REVISIT: Duration = Duration::from_hours(24);
/// Between the first two questions that no node answers.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(5);

/// A Safe that nodes were asked for.
#[derive(Clone, Debug)]
pub struct Looked {
    pub before: SafeLook,
    /// The block after which it was read.
    pub at: BlockPoint,
    pub reading: Reading,
}

/// What the chain's state says of a watched Safe.
#[derive(Clone, Debug)]
pub enum Reading {
    Safe(SafeState),
    /// It is none, with what is in its slot 0.
    NoSafe(SafeRejection, Option<Address>),
    /// No node could answer.
    Unknown,
}

/// Who watches a Safe, as events show it.
pub type Holder = (Watch, WalletRef);

/// A block was connected: the Safes that logged in it, and those that money has left, are read.
pub(super) fn ran(posting: &mut Posting<'_>, block: &MatchedBlock) {
    let watches = posting.watches();
    let is_contract = |address: &Address| {
        watches.get(address).is_some_and(|watching| watching.iter().any(|watch| !watch.is_eoa))
    };
    let spent = block.movements.iter().filter_map(|movement| movement.from).filter(is_contract);
    posting.changes.safe_states.ran.extend(block.ran.iter().copied().chain(spent));
}

/// The data of `safe.owners_changed` and `safe.changed`.
#[derive(Serialize)]
struct SafeData {
    wallet: WalletRefView,
    chain: String,
    block: BlockRefView,
    safe: SafeStateView,
    before: SafeStateView,
}

/// Takes over what nodes said of watched Safes.
///
/// # Errors
/// A number ran out, or an event cannot be written down.
pub fn looked(
    chain: &ChainInfo,
    cursor: &Cursor,
    known: &Known,
    holders: &[Holder],
    looked: Vec<Looked>,
    now: Millis,
) -> Result<Changes, Refused> {
    let mut posting = Posting::new(chain, known, cursor, cursor.clone(), now, CommitKind::Safes);
    for Looked { before, at, reading } in looked {
        let holders: Vec<_> =
            holders.iter().filter(|(watch, _)| watch.address == before.address).collect();
        if holders.is_empty() {
            // Nobody watches it any more.
            posting.changes.safe_states.read.push(SafeRead { before, now: None });
            continue;
        }
        let (state, since) = match (reading, &before.known) {
            (Reading::Unknown, _) => {
                let pause = PAUSE.saturating_mul(1 << before.looks.min(16)).min(LONGEST_PAUSE);
                let later = SafeLook {
                    looks: before.looks.saturating_add(1),
                    look_at: now.plus(pause),
                    ..before.clone()
                };
                posting.changes.safe_states.read.push(SafeRead { before, now: Some(later) });
                continue;
            }
            (Reading::Safe(state), _) => {
                (SafeOnChain::new(&state, at.at), before.since.or(Some(at.at.number)))
            }
            // It never was one, or it has vanished with the block that made it.
            (Reading::NoSafe(..), None) => {
                posting.changes.safe_states.read.push(SafeRead { before, now: None });
                continue;
            }
            (Reading::NoSafe(SafeRejection::NoCode, _), Some(_)) if before.since.is_none() => {
                posting.changes.safe_states.read.push(SafeRead { before, now: None });
                continue;
            }
            (Reading::NoSafe(_, singleton), Some(known)) => {
                let singleton = singleton.unwrap_or(known.singleton);
                let state = SafeOnChain { trusted: false, singleton, at: at.at, ..known.clone() };
                (state, before.since)
            }
        };
        let changes = before.known.as_ref().map_or(Vec::new(), |known| changes(known, &state));
        let read = SafeLook {
            known: Some(state.clone()),
            since,
            revision: before.revision.saturating_add(1),
            look_at: now.plus(REVISIT),
            looks: 0,
            ..before.clone()
        };
        if before.known.is_none() || !changes.is_empty() {
            for (watch, wallet) in holders {
                let tenant = watch.tenant;
                hold(&mut posting, tenant, wallet, &state);
                if let Some(known) = &before.known {
                    tell(&mut posting, tenant, wallet, (known, &read, &state), &changes, at)?;
                }
            }
        }
        let told = changes.into_iter().map(|change| (before.address, change));
        posting.changes.report.safe_changes.extend(told);
        posting.changes.safe_states.read.push(SafeRead { before, now: Some(read) });
    }
    posting.finish()
}

/// What is different.
fn changes(before: &SafeOnChain, now: &SafeOnChain) -> Vec<SafeChange> {
    let sorted = |safe: &SafeOnChain| {
        let mut owners = safe.owners.clone();
        owners.sort_unstable();
        owners
    };
    let owners = sorted(before) != sorted(now) || before.threshold != now.threshold;
    let singleton = before.singleton != now.singleton || before.trusted != now.trusted;
    let all = [
        (owners, SafeChange::Owners),
        (before.plugs != now.plugs, SafeChange::Plugs),
        (singleton && now.trusted, SafeChange::Singleton),
        (singleton && !now.trusted, SafeChange::Untrusted),
    ];
    all.into_iter().filter_map(|(changed, change)| changed.then_some(change)).collect()
}

/// The wallet shows what was read. Of what is no Safe any more, it goes on to show what was last proven.
fn hold(posting: &mut Posting<'_>, tenant: TenantNo, wallet: &WalletRef, state: &SafeOnChain) {
    if state.trusted {
        posting.changes.safes.push(SafeProof {
            wallet: wallet.id,
            tenant,
            state: state.clone(),
            found_by_owner: false,
        });
    }
}

fn tell(
    posting: &mut Posting<'_>,
    tenant: TenantNo,
    wallet: &WalletRef,
    (before, read, state): (&SafeOnChain, &SafeLook, &SafeOnChain),
    changes: &[SafeChange],
    at: BlockPoint,
) -> Result<(), Refused> {
    let family = posting.chain.family;
    let mut shown = wallet.clone();
    if shown.safe.is_some() && state.trusted {
        shown.safe = Some(ShownSafe::from(state));
    }
    let owners = changes.contains(&SafeChange::Owners);
    let others = changes.iter().any(|change| *change != SafeChange::Owners);
    for (changed, kind) in
        [(owners, EventType::SafeOwnersChanged), (others, EventType::SafeChanged)]
    {
        if !changed {
            continue;
        }
        let data = SafeData {
            wallet: WalletRefView::from(&shown),
            chain: posting.chain.name.to_string(),
            block: BlockRefView::new(at.at, family),
            safe: SafeStateView::new(state, family),
            before: SafeStateView::new(before, family),
        };
        let chain = posting.chain.name.clone();
        let event = NewEvent::data(
            tenant,
            Some(EventWallet::Id(wallet.id)),
            kind,
            &[
                wallet.id.0.as_bytes(),
                chain.as_str().as_bytes(),
                &read.revision.to_be_bytes(),
                &at.at.hash.0,
            ],
            at.time,
            &data,
        );
        posting.tell_data(event)?;
    }
    Ok(())
}
