//! A token's contract chose figures that cannot be booked, or a person does not trust it: the token is set aside, and
//! the chain goes on without it.
//!
//! Its movements are recorded as those of a token that nobody configured are. What was booked of it before still
//! settles or vanishes with its block. Only a person brings it back, see [`released`].

use serde::Serialize;

use super::{
    Changes, Culprit, Known, Refused,
    changes::AssetChange,
    posting::{Posting, no_json},
};
use crate::{
    chain::AssetKey,
    clock::Millis,
    event::{EventType, NewEvent},
    model::{Asset, ChainInfo, CommitKind, Cursor, Quarantine, QuarantineReason, TenantNo},
    view::AssetView,
};

/// The data of `asset.quarantined`.
#[derive(Serialize)]
struct Quarantined<'a> {
    chain: &'a str,
    asset: AssetView,
}

/// Sets a token aside from here on, and tells those who hold some of it. `None` if it does not count as it is:
/// then setting it aside would mend nothing. What a person does is a commit of the journal: whoever follows the chain
/// beside it sees that it does not build upon the newest one, and reads anew what counts.
///
/// # Errors
/// The event cannot be written down.
pub fn quarantine(
    chain: &ChainInfo,
    cursor: &Cursor,
    before: &Asset,
    culprit: Culprit,
    holders: &[TenantNo],
    now: Millis,
) -> Result<Option<Changes>, Refused> {
    if !before.verified || before.key == AssetKey::Native {
        return Ok(None);
    }
    let Culprit { block, reason, .. } = culprit;
    let after = Asset {
        verified: false,
        quarantine: Some(Quarantine { since: now, block, reason }),
        version: before.version.saturating_add(1),
        listing: None,
        ..before.clone()
    };
    let known = Known::default();
    let mut posting = Posting::new(chain, &known, cursor, cursor.clone(), now, CommitKind::Assets);
    posting.by_hand = reason == QuarantineReason::Operator;
    let changes = &mut posting.changes;
    let data = Quarantined { chain: chain.name.as_str(), asset: (&after).into() };
    for &tenant in holders {
        let event = NewEvent::data(
            tenant,
            None,
            EventType::AssetQuarantined,
            &[&tenant.0.to_be_bytes(), after.caip19.as_bytes(), &after.version.to_be_bytes()],
            cursor.head.time,
            &data,
        );
        changes.events.push(event.map_err(|error| no_json(&error))?);
    }
    changes.assets.push(AssetChange::Changed { before: before.clone(), after });
    posting.finish().map(Some)
}

/// A token that a person releases: neither set aside nor counted, as if it were configured anew. `None` if it is not
/// set aside.
#[must_use]
pub fn released(before: &Asset) -> Option<AssetChange> {
    before.quarantine?;
    let version = before.version.saturating_add(1);
    let after = Asset { verified: false, quarantine: None, version, ..before.clone() };
    Some(AssetChange::Changed { before: before.clone(), after })
}
