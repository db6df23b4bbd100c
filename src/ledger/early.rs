//! Small deposits become available before their block settles, so many blocks below the head.
//!
//! Only what a block itself proves to have come in: transfers of the coin by a transaction, and of tokens, new ones
//! included, by a log; never what a trace, an opening or a comparison shows. A contract can log more than it moves, so the chain must have
//! at least what the ledger has after the newest block that is considered. What is available that way of one balance,
//! and has not settled, never exceeds the tier, however many deposits it is made of. If their block vanishes, the
//! rollback takes them back as it takes back any deposit, and tells it.

use super::{Changes, Known, Refused, changes::TransferUpdate, known::HashMap, posting::Posting};
use crate::{
    amount::Amount,
    chain::{ChainBalance, Kind, Ordinal},
    clock::Millis,
    model::{
        AssetNo, ChainInfo, CommitKind, Cursor, Direction, EntryKind, SettledBy, Status, Tier,
        Transfer, WalletNo,
    },
};

/// What is considered, and what is known of it.
#[derive(Clone, Debug, Default)]
pub struct Considered {
    /// Deposits, in chain order.
    pub deposits: Vec<Transfer>,
    /// What a node has of their balances after the newest block that is considered.
    pub figures: HashMap<(WalletNo, AssetNo), ChainBalance>,
    /// The pending transfers of blocks above it.
    pub above: Vec<Transfer>,
}

/// Makes those of the deposits available that a tier allows.
///
/// # Errors
/// Booking would break an invariant.
pub fn advance(
    chain: &ChainInfo,
    cursor: &Cursor,
    known: &Known,
    considered: Considered,
    now: Millis,
) -> Result<Changes, Refused> {
    let mut posting =
        Posting::new(chain, known, cursor, cursor.clone(), now, CommitKind::Settlement);
    let Considered { deposits, figures, above } = considered;
    for mut deposit in deposits {
        let Some(asset) = known.assets.values().find(|asset| asset.no == deposit.asset) else {
            continue;
        };
        let slot = posting.slot(deposit.wallet, deposit.asset);
        let position = posting.balance_at(slot).position;
        let tier = chain.tiers.iter().find(|tier| {
            tier.asset == asset.key
                && depth(&deposit, cursor) >= Some(tier.confirmations)
                && fits(position.early, deposit.amount, tier)
        });
        let Some(tier) = tier.filter(|_| asset.verified && is_shown(&deposit)) else { continue };
        let key = (deposit.wallet, deposit.asset);
        let held = position.total().ok().and_then(|total| before(total, key, &above));
        let figure = figures.get(&key).filter(|figure| !figure.unreadable);
        if held.is_none() || figure.map(|figure| figure.total) < held {
            continue;
        }
        let by = SettledBy::Tier(tier.confirmations);
        posting.apply_at(slot, &deposit, EntryKind::Early)?;
        posting.entry(&deposit, EntryKind::Early);
        posting.changes.updates.push(TransferUpdate::Early(deposit.no, by));
        deposit.settled_by = Some(by);
        posting.tell_at(slot, &deposit, Status::Pending);
    }
    posting.finish()
}

fn depth(deposit: &Transfer, cursor: &Cursor) -> Option<u64> {
    cursor.head.at.number.checked_sub(deposit.block.number)
}

/// Whether so much more of a balance may be available early.
fn fits(early: Amount, more: Amount, tier: &Tier) -> bool {
    early.checked_add(more).is_some_and(|sum| sum <= tier.up_to)
}

/// Whether a block shows the deposit itself, and it has not been available yet.
fn is_shown(deposit: &Transfer) -> bool {
    deposit.counted
        && deposit.status == Status::Pending
        && deposit.settled_by.is_none()
        && deposit.direction == Direction::In
        && matches!(
            (deposit.kind, &deposit.ordinal),
            (Kind::Transfer, Ordinal::Tx | Ordinal::Log(_)) | (Kind::Mint, Ordinal::Log(_))
        )
}

/// What the ledger had of a balance below some transfers.
fn before(total: Amount, key: (WalletNo, AssetNo), above: &[Transfer]) -> Option<Amount> {
    let own = |row: &&Transfer| row.counted && (row.wallet, row.asset) == key;
    let (came, left): (Vec<&Transfer>, Vec<&Transfer>) =
        above.iter().filter(own).partition(|row| row.direction == Direction::In);
    let sum = |rows: Vec<&Transfer>| {
        rows.iter().try_fold(Amount::ZERO, |sum, row| sum.checked_add(row.amount))
    };
    total.checked_add(sum(left)?)?.checked_sub(sum(came)?)
}
