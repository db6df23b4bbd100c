//! Blocks became irreversible.

use super::{
    Changes, Known, Refused,
    changes::TransferUpdate,
    connect::REMEMBERED_BELOW_SETTLED,
    known::KnownProofs,
    posting::{Posting, booked_first},
    reconcile::{self, Figure},
};
use crate::{
    chain::Kind,
    clock::Millis,
    model::{BlockPoint, ChainInfo, CommitKind, Cursor, EntryKind, Status, Transfer},
};

/// The chain's own figures, and what is known beside them.
#[derive(Clone, Copy, Debug)]
pub struct Compared<'a> {
    pub figures: &'a [Figure],
    pub proofs: &'a KnownProofs,
}

/// Settles up to `settled`, a block at or below the cursor's head, and takes over what the chain itself says
/// after exactly that block: one commit, so that no settled figure is ever seen that was known to be wrong.
///
/// `pending` are the transfers of the blocks up to `settled`, in chain order.
///
/// # Errors
/// Booking would break an invariant.
pub fn settle(
    chain: &ChainInfo,
    cursor: &Cursor,
    known: &Known,
    pending: Vec<Transfer>,
    settled: BlockPoint,
    compared: Compared<'_>,
    now: Millis,
) -> Result<Changes, Refused> {
    let next = Cursor { settled, ..cursor.clone() };
    let mut posting = Posting::new(chain, known, cursor, next, now, CommitKind::Settlement);
    settle_pending(&mut posting, pending)?;
    posting.changes.blocks.forget_below(settled.at.number.saturating_sub(REMEMBERED_BELOW_SETTLED));
    reconcile::take_over(&mut posting, settled, compared.figures, compared.proofs)?;
    posting.finish()
}

/// Settles transfers that earlier commits connected.
pub(super) fn settle_pending(
    posting: &mut Posting<'_>,
    mut pending: Vec<Transfer>,
) -> Result<(), Refused> {
    for first in [true, false] {
        for transfer in &mut pending {
            if (transfer.direction == booked_first(EntryKind::Settle)) == first {
                posting.end_early(transfer)?;
                posting.apply(transfer, EntryKind::Settle)?;
                posting.entry(transfer, EntryKind::Settle);
                let by = transfer.settled_by.unwrap_or(posting.policy());
                posting.changes.updates.push(TransferUpdate::Settled(transfer.no, by));
                transfer.status = Status::Settled;
                transfer.settled_by = Some(by);
                transfer.settled_at = Some(posting.now);
                if transfer.kind != Kind::Opening {
                    posting.changes.report.settled.push(transfer.block_time);
                }
            }
        }
    }
    for transfer in &pending {
        posting.tell(transfer);
    }
    Ok(())
}
