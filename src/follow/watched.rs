//! How the watchlist is kept as the store has it: read once, then changed by what this follower opens and closes.
//!
//! Nobody else opens watches of its chain. A failure does not change that, so after one nothing is read again but
//! the cursor. Whether a commit that failed was done all the same may be unknown, so an address is watched from
//! before the commit that opens it, and stays until it is certain that nobody watches it: a commit that came later
//! had to wait for the cursor's row until the one in doubt was over.

use std::collections::{BTreeSet, HashSet};

use super::{Follower, TurnError};
use crate::{
    chain::Address,
    commit::Committed,
    ledger::opening::Opening,
    model::{Cursor, Watch},
    store::{StoreError, watch as watch_store, watch_load::watched_addresses},
};

/// Addresses looked up at once.
const AT_ONCE: usize = 1000;

/// What the watchlist was made of.
#[derive(Default)]
pub(super) struct Watched {
    /// The cursor up to which it holds all that is watched; `None` until it was read.
    at: Option<Cursor>,
    /// Addresses in it that perhaps nobody watches.
    doubtful: BTreeSet<Address>,
    /// Whether a commit has succeeded since the last one in doubt.
    certain: bool,
}

impl Watched {
    fn in_doubt(&mut self, addresses: impl IntoIterator<Item = Address>) {
        self.doubtful.extend(addresses);
        self.certain = false;
    }

    pub(super) fn committed(&mut self, committed: &Committed) {
        for address in &committed.opened {
            self.doubtful.remove(address);
        }
        self.doubtful.extend(committed.closed.iter().copied());
        self.certain = true;
        self.at = Some(committed.cursor.clone());
    }

    /// The cursor was moved by a commit that opens nothing.
    pub(super) fn moved(&mut self, cursor: &Cursor) {
        self.at = Some(cursor.clone());
    }
}

impl Follower {
    /// Reads which addresses are watched, unless the cursor is where this follower has left it: whoever else moved
    /// it may have opened watches.
    pub(super) async fn load_watched(&mut self, cursor: &Cursor) -> Result<(), StoreError> {
        if self.watched.at.as_ref() == Some(cursor) {
            return Ok(());
        }
        self.watched.at = None;
        watched_addresses(&self.committer.db, cursor.no, |some| self.watchlist.insert_packed(some))
            .await?;
        self.watched.moved(cursor);
        Ok(())
    }

    /// Before a commit that opens and closes watches.
    pub(super) fn expect(&mut self, openings: &[Opening], closings: &[Watch]) {
        let opening = || openings.iter().map(|opening| opening.watch.address);
        self.watchlist.insert(opening());
        self.watched.in_doubt(opening().chain(closings.iter().map(|watch| watch.address)));
    }

    /// Drops addresses from memory that nobody watches any more.
    pub(super) async fn forget(&mut self) -> Result<(), TurnError> {
        let Watched { at: Some(cursor), doubtful, certain: true } = &self.watched else {
            return Ok(());
        };
        let doubtful: Vec<Address> = doubtful.iter().copied().collect();
        if doubtful.is_empty() {
            return Ok(());
        }
        let mut session = self.committer.db.read().await?;
        for some in doubtful.chunks(AT_ONCE) {
            let still = watch_store::still_open(&mut session.conn(), cursor.no, some).await?;
            let still: HashSet<Address> = still.into_iter().collect();
            for address in some.iter().filter(|address| !still.contains(*address)) {
                self.watchlist.remove(address);
            }
        }
        self.watched.doubtful.clear();
        Ok(())
    }
}
