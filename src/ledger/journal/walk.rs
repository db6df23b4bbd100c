//! Walking a journal: every hash is computed anew from what is stored, and the first commit that does not fit is
//! named. The walk keeps the sums of all balances of the chain, and nothing else that grows.

use std::collections::BTreeMap;

use super::{Bytes, Connected, Line};
use crate::{
    chain::AssetKey,
    ledger::{Replay, known::HashMap},
    model::{
        AssetNo, BookedEntry, ChainNo, Cursor, Entry, EntryKind, JournalCommit, JournalHash,
        JournalHead, Owner, Position, Transfer, TransferNo, WalletNo,
    },
};

const HISTORY_DOMAIN: &[u8] = b"tidemark history 1";

/// The first commit of a journal that is not what it was when it was made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("commit {commit}: {fault}")]
pub struct Tampered {
    pub commit: u64,
    pub fault: Fault,
}

/// What does not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("it is not there")]
    Removed,
    #[error("it had {booked} entries, there are {found}")]
    Entries { booked: u64, found: u64 },
    #[error("the {} entry of transfer no. {} names commit {claimed}", entry.kind, entry.transfer.0)]
    Misplaced { entry: Entry, claimed: u64 },
    #[error("the transfer no. {} of its {} entry is not there", .0.transfer.0, .0.kind)]
    NoTransfer(Entry),
    #[error("the {} entry of transfer no. {} has another amount than the transfer", .0.kind, .0.transfer.0)]
    Amount(Entry),
    #[error("the {} entry of transfer no. {} has another time than it", .0.kind, .0.transfer.0)]
    Time(Entry),
    #[error("transfer no. {} is not of the tenant to whom its wallet belongs", .0.0)]
    Owner(TransferNo),
    #[error(
        "its hash is not that of what is stored: an entry, its transfer or wallet, the cursor, the order of \
         commits or what came before is another"
    )]
    Contents,
    #[error("wallet no. {} has another balance of asset no. {} than it left: {stored:?}, not {left:?}", wallet.0, asset.0)]
    Balance { wallet: WalletNo, asset: AssetNo, stored: Box<Position>, left: Box<Position> },
    #[error("the chain's cursor names commit {} with the hash {} as the newest", .0.commit, .0.hash)]
    Newest(JournalHead),
    #[error("the chain's cursor has settled less than it, or other blocks")]
    Settled,
}

impl Fault {
    fn at(self, commit: u64) -> Tampered {
        Tampered { commit, fault: self }
    }
}

/// The rows that some entries tell of.
#[derive(Clone, Debug, Default)]
pub struct Told {
    pub transfers: HashMap<TransferNo, Transfer>,
    pub owners: HashMap<WalletNo, Owner>,
    pub assets: HashMap<AssetNo, AssetKey>,
}

/// Consecutive commits, in one state of the store.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// In the order of their numbers.
    pub commits: Vec<JournalCommit>,
    /// All entries of the transfers that are numbered from where the first commit's begin, up to where those of the
    /// commit behind the last one begin.
    pub own: Vec<BookedEntry>,
    /// The entries of other transfers that name one of these commits.
    pub later: Vec<BookedEntry>,
    pub told: Told,
    /// The number of the commit behind the last one, if there is one.
    pub next: Option<u64>,
    /// The newest commit of this state, as the chain's cursor has it.
    pub newest: u64,
}

impl Page {
    /// Whether an entry names a commit that can have settled or taken back its transfer.
    fn knows(&self, booked: &BookedEntry) -> bool {
        let first = self.commits.first().map_or(1, |row| row.number);
        (first..=self.newest).contains(&booked.commit)
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Running {
    sums: Replay,
    /// The newest commit that changed it.
    commit: u64,
}

/// How far a journal was walked.
#[derive(Debug)]
pub struct Walk {
    chain: ChainNo,
    caip2: String,
    head: JournalHead,
    running: HashMap<(WalletNo, AssetNo), Running>,
    history: Bytes,
    /// An entry that belongs to no commit; the commit that lacks it, if there is one, is found before the end.
    stray: Option<Tampered>,
    summary: Summary,
}

/// What was walked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub commits: u64,
    pub entries: u64,
    pub balances: u64,
    /// Entries from before the journal.
    pub history: u64,
}

impl Walk {
    /// A walk that begins behind `after`.
    #[must_use]
    pub fn new(chain: ChainNo, caip2: &str, after: JournalHead) -> Self {
        let mut history = Bytes::default();
        history.string(HISTORY_DOMAIN).string(caip2.as_bytes());
        Self {
            chain,
            caip2: caip2.to_owned(),
            head: after,
            running: HashMap::default(),
            history,
            stray: None,
            summary: Summary::default(),
        }
    }

    /// The newest commit that was found sound.
    #[must_use]
    pub const fn head(&self) -> JournalHead {
        self.head
    }

    #[must_use]
    pub const fn summary(&self) -> Summary {
        self.summary
    }

    /// Takes over the entries of the commits that are not walked over, out of all of the transfers from before the
    /// walk, in the order of their numbers and kinds. `newest` is the newest commit.
    ///
    /// # Errors
    /// [`Tampered`] where an entry cannot be what was booked.
    pub fn begin(
        &mut self,
        entries: &[BookedEntry],
        told: &Told,
        newest: u64,
    ) -> Result<(), Tampered> {
        for booked in entries {
            let BookedEntry { entry, commit, .. } = *booked;
            if commit > self.head.commit {
                // A later commit takes back what an earlier one has connected; it connects nothing of it.
                if connects(entry.kind) || commit > newest {
                    self.stray = Some(Fault::Misplaced { entry, claimed: commit }.at(commit));
                }
                continue;
            }
            let line = self.line(booked, told).map_err(|fault| fault.at(booked.commit))?;
            self.running(booked.entry, told, booked.commit);
            if booked.commit == 0 {
                self.history.line(&line);
                self.summary.history += 1;
            }
        }
        Ok(())
    }

    /// Walks over the next commits.
    ///
    /// # Errors
    /// [`Tampered`] with the first of them that is not what it was.
    pub fn follow(&mut self, page: &Page) -> Result<(), Tampered> {
        let is_here = |number| page.commits.binary_search_by_key(&number, |row| row.number).is_ok();
        let (own, strays): (Vec<BookedEntry>, Vec<BookedEntry>) = page
            .own
            .iter()
            .filter(|booked| connects(booked.entry.kind) || !page.knows(booked))
            .partition(|booked| connects(booked.entry.kind) && is_here(booked.commit));
        let mut lines: BTreeMap<u64, Vec<BookedEntry>> = BTreeMap::new();
        for booked in own.iter().chain(&page.later) {
            lines.entry(booked.commit).or_default().push(*booked);
        }
        for commit in &page.commits {
            let booked = lines.remove(&commit.number).unwrap_or_default();
            let hash = self
                .commit(commit, &booked, &page.told)
                .map_err(|fault| fault.at(self.head.commit + 1))?;
            self.head = JournalHead { commit: commit.number, hash };
            self.summary.commits += 1;
            self.summary.entries += commit.entries;
        }
        if self.stray.is_none() {
            self.stray = strays.first().and_then(|booked| self.stray(page, booked));
        }
        Ok(())
    }

    /// Why an entry belongs to no commit of its page.
    fn stray(&self, page: &Page, booked: &BookedEntry) -> Option<Tampered> {
        let BookedEntry { entry, commit, .. } = *booked;
        let before = |row: &JournalCommit| {
            TransferNo::nth(self.chain, row.transfers).is_some_and(|no| no <= entry.transfer)
        };
        let behind = page.commits.partition_point(before);
        let own = behind.checked_sub(1).and_then(|index| page.commits.get(index))?.number;
        let next = page.commits.get(behind).map(|row| row.number).or(page.next);
        // It is of a commit that should stand behind its own.
        if (own + 1..next.unwrap_or(page.newest + 1)).contains(&commit) {
            return Some(Fault::Removed.at(own + 1));
        }
        Some(Fault::Misplaced { entry, claimed: commit }.at(own))
    }

    /// One commit; gives its hash.
    fn commit(
        &mut self,
        commit: &JournalCommit,
        booked: &[BookedEntry],
        told: &Told,
    ) -> Result<JournalHash, Fault> {
        if commit.number != self.head.commit + 1 {
            return Err(Fault::Removed);
        }
        let found = u64::try_from(booked.len()).unwrap_or(u64::MAX);
        if found != commit.entries {
            return Err(Fault::Entries { booked: commit.entries, found });
        }
        let mut lines = Vec::with_capacity(booked.len());
        let mut touched = BTreeMap::new();
        for booked in booked {
            if booked.time != commit.time {
                return Err(Fault::Time(booked.entry));
            }
            lines.push(self.line(booked, told)?);
            if let Some((key, sums)) = self.running(booked.entry, told, commit.number) {
                touched.insert(key, sums);
            }
        }
        let left = |((wallet, asset), sums): ((WalletNo, AssetNo), Replay)| {
            (wallet, asset, sums.position())
        };
        let mut balances: Vec<_> = touched.into_iter().map(left).collect();
        let hash = super::hash(&self.caip2, self.head.hash, commit, &mut lines, &mut balances);
        if hash == commit.hash { Ok(hash) } else { Err(Fault::Contents) }
    }

    fn line<'a>(&self, booked: &BookedEntry, told: &'a Told) -> Result<Line<'a>, Fault> {
        let entry = booked.entry;
        let transfer = told.transfers.get(&entry.transfer).ok_or(Fault::NoTransfer(entry))?;
        if transfer.amount != entry.amount {
            return Err(Fault::Amount(entry));
        }
        let owner =
            told.owners.get(&transfer.wallet).filter(|owner| owner.tenant == transfer.tenant);
        let asset =
            told.assets.get(&transfer.asset).filter(|_| transfer.asset.chain() == self.chain);
        let (Some(owner), Some(asset)) = (owner, asset) else {
            return Err(Fault::Owner(transfer.no));
        };
        let connected =
            connects(entry.kind).then_some(Connected { transfer, owner: *owner, asset: *asset });
        Ok(Line { entry, connected })
    }

    /// The sums of the entry's balance with it.
    fn running(
        &mut self,
        entry: Entry,
        told: &Told,
        commit: u64,
    ) -> Option<((WalletNo, AssetNo), Replay)> {
        let transfer = told.transfers.get(&entry.transfer)?;
        let key = (transfer.wallet, transfer.asset);
        let running = self.running.entry(key).or_default();
        running.sums.add(entry.kind, transfer.direction, entry.amount);
        running.commit = commit;
        Some((key, running.sums))
    }

    /// Compares the end of the journal with the cursor of the same state.
    ///
    /// # Errors
    /// [`Tampered`] where they do not fit; `last` is the newest commit, if there is one.
    pub fn end(&mut self, cursor: &Cursor, last: Option<&JournalCommit>) -> Result<(), Tampered> {
        if let Some(stray) = self.stray.take() {
            return Err(stray);
        }
        let newest = self.head.commit;
        if cursor.journal.commit > newest {
            return Err(Fault::Removed.at(newest + 1));
        }
        if cursor.journal != self.head {
            return Err(Fault::Newest(cursor.journal).at(newest));
        }
        if let Some(last) = last {
            let settled = cursor.settled.at;
            // It only goes back by a rewind, which is a commit.
            if settled.number < last.settled.number
                || settled.number == last.settled.number && settled.hash != last.settled.hash
            {
                return Err(Fault::Settled.at(newest));
            }
        }
        Ok(())
    }

    /// Compares balances with what the journal left of them.
    ///
    /// # Errors
    /// [`Tampered`] with the commit that left another one.
    pub fn compare(&mut self, stored: &[(WalletNo, AssetNo, Position)]) -> Result<(), Tampered> {
        for &(wallet, asset, stored) in stored {
            if asset.chain() != self.chain {
                continue;
            }
            let Running { sums, commit } =
                self.running.remove(&(wallet, asset)).unwrap_or_default();
            let left = sums.position();
            if left != stored {
                let (stored, left) = (Box::new(stored), Box::new(left));
                return Err(Fault::Balance { wallet, asset, stored, left }.at(commit));
            }
            self.summary.balances += 1;
        }
        Ok(())
    }

    /// What was compared with no balance must be nothing.
    ///
    /// # Errors
    /// [`Tampered`] with the commit that left a balance that is not there.
    pub fn finish(self) -> Result<(Summary, JournalHash), Tampered> {
        let stored = Position::default();
        let missing = self.running.iter().filter(|(_, running)| running.sums.position() != stored);
        if let Some((&(wallet, asset), running)) = missing.min_by_key(|(key, _)| **key) {
            let left = running.sums.position();
            let (stored, left) = (Box::new(stored), Box::new(left));
            return Err(Fault::Balance { wallet, asset, stored, left }.at(running.commit));
        }
        Ok((self.summary, self.history.hash()))
    }
}

fn connects(kind: EntryKind) -> bool {
    matches!(kind, EntryKind::Connect | EntryKind::ConnectSettled)
}
