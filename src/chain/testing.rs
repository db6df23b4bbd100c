//! What every decoded block must be, whoever wrote the bytes that it was decoded from.

use std::collections::HashSet;

use super::{Block, BlockRef, rpc::Failure};
use crate::model::{ordinal_bytes, read_ordinal};

/// A word for what came of decoding.
///
/// # Panics
/// For a failure that says something else than that the bytes are not good: they can be anybody's.
pub(super) fn outcome<T>(result: &Result<T, Failure>) -> String {
    let Err(failure) = result else { return "decoded".to_owned() };
    match failure {
        Failure::Invalid(_)
        | Failure::NotThere(_)
        | Failure::Moved(_)
        | Failure::Reverted
        | Failure::Untrusted { .. } => failure.detail(),
        other => panic!("bytes are no reason for this: {other:?}"),
    }
}

/// Whether the store can hold all of a block, each movement once.
///
/// # Panics
/// If it cannot.
pub(super) fn assert_storable(block: &Block) {
    let header = &block.header;
    assert!(header.at.number <= BlockRef::MAX_HEIGHT, "the height {}", header.at.number);
    assert!(header.parent.number <= header.at.number, "{header:?}");
    for fact in &block.transactions {
        assert!(fact.nonce.is_none_or(|nonce| i64::try_from(nonce).is_ok()), "{fact:?}");
    }
    let mut places = HashSet::new();
    for movement in &block.movements {
        let ordinal = ordinal_bytes(&movement.ordinal);
        assert_eq!(read_ordinal(&ordinal).as_ref(), Some(&movement.ordinal));
        let memo = movement.memo.as_deref().unwrap_or_default();
        assert!(!memo.contains('\0'), "PostgreSQL holds no such text");
        for (who, incoming) in [(movement.to, true), (movement.from, false)] {
            let Some(who) = who else { continue };
            let tx = movement.tx.as_slice();
            let place = (who, incoming, movement.asset, tx, ordinal.clone());
            assert!(places.insert(place), "two movements at one place: {movement:?}");
        }
    }
}
