//! A journal fits what was booked, and nothing else: whatever is edited behind its back is named, at its commit.

use std::collections::BTreeMap;

use proptest::{prelude::*, sample::Index};
use uuid::Uuid;

use super::{
    books::{Books, NOW, Payment, block, header},
    histories::point,
};
use crate::{
    amount::Amount,
    chain::{AssetKey, BlockHash},
    clock::Millis,
    id::{TransferId, WalletId},
    ledger::{
        Replay,
        journal::{
            Connected, Line, hash,
            walk::{Fault, Page, Summary, Tampered, Told, Walk},
        },
    },
    model::{
        AssetNo, BookedEntry, CommitKind, Cursor, Direction, EntryKind, JournalCommit, JournalHash,
        JournalHead, Owner, Position, TenantNo, Transfer, TransferNo, WalletNo,
    },
};

/// The rows that a verification reads.
#[derive(Clone)]
pub(super) struct Rows {
    pub cursor: Cursor,
    pub commits: Vec<JournalCommit>,
    pub entries: Vec<BookedEntry>,
    pub transfers: BTreeMap<TransferNo, Transfer>,
    owners: BTreeMap<WalletNo, Owner>,
    assets: BTreeMap<AssetNo, AssetKey>,
    balances: BTreeMap<(WalletNo, AssetNo), Position>,
}

impl Rows {
    pub fn of(books: &Books) -> Self {
        let owners = books.watches.values().flatten().map(|watch| (watch.wallet, watch.owner()));
        Self {
            cursor: books.cursor.clone(),
            commits: books.commits.clone(),
            entries: books.entries.clone(),
            transfers: books.transfers.clone(),
            owners: owners.collect(),
            assets: books.assets.values().map(|asset| (asset.no, asset.key)).collect(),
            balances: books.balances.iter().map(|(key, of)| (*key, of.position)).collect(),
        }
    }

    fn told(&self) -> Told {
        Told {
            transfers: self.transfers.clone().into_iter().collect(),
            owners: self.owners.clone().into_iter().collect(),
            assets: self.assets.clone().into_iter().collect(),
        }
    }

    /// Walks as the command does, from commit `from` on, over so many commits at once.
    pub fn verify(&self, from: u64, size: usize) -> Result<(Summary, JournalHash), Tampered> {
        let told = self.told();
        let newest = self.cursor.journal.commit;
        let last = self.commits.iter().rfind(|commit| commit.number < from);
        let after = last.map_or(JournalHead::default(), |commit| JournalHead {
            commit: commit.number,
            hash: commit.hash,
        });
        let mut walk = Walk::new(self.cursor.no, &self.cursor.caip2, after);
        let rest: Vec<&JournalCommit> =
            self.commits.iter().filter(|commit| commit.number >= from).collect();
        let number =
            |commit: &JournalCommit| TransferNo::nth(self.cursor.no, commit.transfers).unwrap();
        let all = TransferNo::of_chain(self.cursor.no);
        let sorted = |first: TransferNo, end: TransferNo| {
            let within = |booked: &&BookedEntry| (first..end).contains(&booked.entry.transfer);
            let mut found: Vec<BookedEntry> = self.entries.iter().filter(within).copied().collect();
            found.sort_by_key(|booked| (booked.entry.transfer, booked.entry.kind.code()));
            found
        };
        let end = rest.first().map_or(all.1, |commit| number(commit));
        walk.begin(&sorted(all.0, end), &told, newest)?;
        for (index, page) in rest.chunks(size).enumerate() {
            let end = rest.get((index + 1) * size).map_or(all.1, |commit| number(commit));
            let later = |booked: &&BookedEntry| {
                let connects = [EntryKind::Connect, EntryKind::ConnectSettled];
                let named = page[0].number..=page[page.len() - 1].number;
                !connects.contains(&booked.entry.kind) && named.contains(&booked.commit)
            };
            walk.follow(&Page {
                commits: page.iter().map(|commit| (*commit).clone()).collect(),
                own: sorted(number(page[0]), end),
                later: self.entries.iter().filter(later).copied().collect(),
                told: told.clone(),
                next: rest.get((index + 1) * size).map(|commit| commit.number),
                newest,
            })?;
        }
        walk.end(&self.cursor, self.commits.last())?;
        let balances: Vec<_> =
            self.balances.iter().map(|((wallet, asset), of)| (*wallet, *asset, *of)).collect();
        for page in balances.chunks(size) {
            walk.compare(page)?;
        }
        walk.finish()
    }

    fn entry(&mut self, index: Index) -> &mut BookedEntry {
        let at = index.index(self.entries.len());
        &mut self.entries[at]
    }

    fn commit(&mut self, index: Index) -> &mut JournalCommit {
        let at = index.index(self.commits.len());
        &mut self.commits[at]
    }

    /// A transfer that is in the ledger, and the commit that connected it.
    fn transfer(&mut self, index: Index) -> (&mut Transfer, u64) {
        let connects = |booked: &&BookedEntry| {
            matches!(booked.entry.kind, EntryKind::Connect | EntryKind::ConnectSettled)
        };
        let connected: Vec<_> = self.entries.iter().filter(connects).copied().collect();
        let BookedEntry { entry, commit, .. } = *index.get(&connected);
        (self.transfers.get_mut(&entry.transfer).unwrap(), commit)
    }
}

/// A history with everything in it that commits do: the wallets 1 to 3, deposits, payments between them, a fork that
/// brings a deposit back, settlement with and behind the blocks.
pub(super) fn history() -> Books {
    let mut books = Books::new(3);
    let genesis = books.cursor.head;
    let pay = |tx, from, to, amount| Payment { tx, from, to, amount };
    let first = block(header(genesis.at, 1), &[pay(1, None, 1, 500), pay(2, None, 2, 30)]);
    let second = block(header(first.header.at, 1), &[pay(3, Some(1), 3, 120)]);
    let third = block(header(second.header.at, 1), &[pay(4, None, 2, 7), pay(5, Some(2), 1, 5)]);
    books.connect(&[first.clone(), second.clone()], point(&first));
    books.connect(std::slice::from_ref(&third), point(&first));
    books.settle(point(&second));
    books.rollback(point(&second));
    let other = block(header(second.header.at, 2), &[pay(4, None, 2, 9)]);
    let empty = block(header(other.header.at, 2), &[]);
    let last = block(header(empty.header.at, 2), &[pay(6, Some(3), 2, 20)]);
    books.connect(&[other, empty.clone()], point(&second));
    books.settle(point(&empty));
    books.connect(std::slice::from_ref(&last), point(&last));
    books
}

#[test]
fn a_journal_is_sound_however_it_is_cut_into_pages_and_wherever_the_walk_begins() {
    use CommitKind::{Blocks, Reorg, Settlement};

    let rows = Rows::of(&history());
    let kinds: Vec<CommitKind> = rows.commits.iter().map(|commit| commit.kind).collect();
    assert_eq!(kinds, [Blocks, Blocks, Settlement, Reorg, Blocks, Settlement, Blocks]);
    for size in 1..=8 {
        for from in 1..=8 {
            let (summary, _) = rows.verify(from, size).unwrap();
            assert_eq!(summary.commits, 8 - from);
            assert_eq!(summary.balances, 3);
            assert_eq!(summary.history, 0);
        }
    }
}

#[test]
fn what_was_booked_before_the_journal_is_added_up_and_has_a_hash() {
    let mut rows = Rows::of(&history());
    // As if the first two commits were from before: their entries name none.
    for booked in &mut rows.entries {
        booked.commit = booked.commit.saturating_sub(2);
    }
    rows.commits.drain(..2);
    let mut previous = JournalHash::default();
    for index in 0..rows.commits.len() {
        rows.commits[index].number -= 2;
        // What an upgraded chain would have made: the walk itself tells the hash that fits.
        previous = rehash(&rows, index, previous);
        rows.commits[index].hash = previous;
    }
    rows.cursor.journal = JournalHead { commit: rows.commits.len() as u64, hash: previous };
    let (summary, history) = rows.verify(1, 3).unwrap();
    let old = rows.entries.iter().filter(|booked| booked.commit == 0).count();
    assert!(old > 3);
    assert_eq!(summary.history, old as u64);

    // The sums before decide about every balance after: and the hash tells of the rest.
    let mut edited = rows.clone();
    let (no, transfer) = edited.transfers.iter_mut().next().unwrap();
    let wallet = transfer.wallet;
    transfer.amount = Amount::from(501);
    for booked in edited.entries.iter_mut().filter(|booked| booked.entry.transfer == *no) {
        booked.entry.amount = Amount::from(501);
    }
    let touched = rows.entries.iter().filter(|booked| {
        booked.commit > 0 && rows.transfers[&booked.entry.transfer].wallet == wallet
    });
    let commit = touched.map(|booked| booked.commit).min().unwrap();
    assert_eq!(edited.verify(1, 3), Err(Tampered { commit, fault: Fault::Contents }));
    let mut renamed = rows.clone();
    renamed.transfers.values_mut().next().unwrap().memo = Some("other".to_owned());
    assert_ne!(renamed.verify(1, 3).unwrap().1, history);
    assert_eq!(rows.verify(1, 1).unwrap().1, history);
}

/// The hash of a commit of rows that were made by hand.
fn rehash(rows: &Rows, index: usize, previous: JournalHash) -> JournalHash {
    let commit = &rows.commits[index];
    let mut sums: BTreeMap<(WalletNo, AssetNo), (Replay, bool)> = BTreeMap::new();
    let mut lines = Vec::new();
    for BookedEntry { entry, commit: of, .. } in &rows.entries {
        let transfer = &rows.transfers[&entry.transfer];
        if *of > commit.number {
            continue;
        }
        let sum = sums.entry((transfer.wallet, transfer.asset)).or_default();
        sum.0.add(entry.kind, transfer.direction, entry.amount);
        if *of == commit.number {
            sum.1 = true;
            let connects = matches!(entry.kind, EntryKind::Connect | EntryKind::ConnectSettled);
            let connected = connects.then(|| Connected {
                transfer,
                owner: rows.owners[&transfer.wallet],
                asset: rows.assets[&transfer.asset],
            });
            lines.push(Line { entry: *entry, connected });
        }
    }
    let left = sums.into_iter().filter(|(_, (_, touched))| *touched);
    let mut left: Vec<_> = left.map(|((w, a), (sum, _))| (w, a, sum.position())).collect();
    hash(&rows.cursor.caip2, previous, commit, &mut lines, &mut left)
}

/// Edits some rows; gives the commit that is to be named, if anything was edited.
type Edit = fn(&mut Rows, Index) -> Option<u64>;

const ONE: Amount = Amount::new(alloy::primitives::U256::from_limbs([1, 0, 0, 0]));

/// What somebody with the database's password can do, and where it must be found.
const EDITS: &[(&str, Edit)] = &[
    ("the amount of an entry", |rows, index| {
        let booked = rows.entry(index);
        booked.entry.amount = booked.entry.amount.saturating_add(ONE);
        Some(booked.commit)
    }),
    ("the time of an entry", |rows, index| {
        let booked = rows.entry(index);
        booked.time = Millis(booked.time.0 + 1);
        Some(booked.commit)
    }),
    ("an entry deleted", |rows, index| {
        let at = index.index(rows.entries.len());
        Some(rows.entries.remove(at).commit)
    }),
    ("an entry inserted", |rows, index| {
        let BookedEntry { entry, commit, .. } = *rows.entry(index);
        let kind = EntryKind::DisconnectSettled;
        rows.entries.push(BookedEntry {
            entry: crate::model::Entry { kind, ..entry },
            commit,
            time: NOW,
        });
        Some(commit)
    }),
    ("an entry inserted that names no commit", |rows, index| {
        let (transfer, commit) = rows.transfer(index);
        let (transfer, amount) = (transfer.no, transfer.amount);
        let kind = EntryKind::DisconnectSettled;
        let claimed = [0, 1_000][index.index(2)];
        rows.entries.push(BookedEntry {
            entry: crate::model::Entry { transfer, kind, amount },
            commit: claimed,
            time: NOW,
        });
        Some(commit)
    }),
    ("a transfer and its amounts", |rows, index| {
        let (transfer, commit) = rows.transfer(index);
        transfer.amount = transfer.amount.saturating_add(ONE);
        let (no, amount) = (transfer.no, transfer.amount);
        for booked in rows.entries.iter_mut().filter(|booked| booked.entry.transfer == no) {
            booked.entry.amount = amount;
        }
        Some(commit)
    }),
    ("the wallet of a transfer", |rows, index| {
        let (transfer, commit) = rows.transfer(index);
        transfer.wallet = WalletNo(transfer.wallet.0 % 3 + 1);
        Some(commit)
    }),
    ("the direction of a transfer", |rows, index| {
        let (transfer, commit) = rows.transfer(index);
        transfer.direction = match transfer.direction {
            Direction::In => Direction::Out,
            Direction::Out => Direction::In,
        };
        Some(commit)
    }),
    ("the memo of a transfer", |rows, index| {
        let (transfer, commit) = rows.transfer(index);
        transfer.memo = Some(String::new());
        Some(commit)
    }),
    ("the id of a transfer", |rows, index| {
        let (transfer, commit) = rows.transfer(index);
        transfer.id = TransferId(Uuid::from_u128(7));
        Some(commit)
    }),
    ("a transfer deleted", |rows, index| {
        let (transfer, commit) = rows.transfer(index);
        let no = transfer.no;
        rows.transfers.remove(&no);
        Some(commit)
    }),
    ("a wallet given to another tenant", |rows, index| {
        let (transfer, _) = rows.transfer(index);
        let wallet = transfer.wallet;
        rows.owners.get_mut(&wallet).unwrap().tenant = TenantNo(2);
        rows.first_of(wallet)
    }),
    ("the id of a wallet", |rows, index| {
        let (transfer, _) = rows.transfer(index);
        let wallet = transfer.wallet;
        rows.owners.get_mut(&wallet).unwrap().wallet_id = WalletId(Uuid::from_u128(77));
        rows.first_of(wallet)
    }),
    ("an entry moved to another commit", |rows, index| {
        let booked = rows.entry(index);
        let before = booked.commit;
        booked.commit = before + 1;
        Some(before)
    }),
    ("an entry moved before the journal", |rows, index| {
        let booked = rows.entry(index);
        let before = booked.commit;
        booked.commit = 0;
        Some(before)
    }),
    ("a balance", |rows, index| {
        let keys: Vec<_> = rows.balances.keys().copied().collect();
        let key = *index.get(&keys);
        rows.balances.get_mut(&key).unwrap().settled = Amount::from(1_000_000);
        rows.last_of(key)
    }),
    ("a balance deleted", |rows, index| {
        let keys: Vec<_> = rows.balances.keys().copied().collect();
        let key = *index.get(&keys);
        rows.balances.remove(&key);
        rows.last_of(key)
    }),
    ("the cursor in a commit", |rows, index| {
        let commit = rows.commit(index);
        commit.settled.number += 1;
        Some(commit.number)
    }),
    ("the block in a commit", |rows, index| {
        let commit = rows.commit(index);
        commit.head.hash = BlockHash([9; 32]);
        Some(commit.number)
    }),
    ("the kind of a commit", |rows, index| {
        let commit = rows.commit(index);
        commit.kind = CommitKind::History;
        Some(commit.number)
    }),
    ("the hash of a commit", |rows, index| {
        let commit = rows.commit(index);
        commit.hash.0[31] ^= 1;
        Some(commit.number)
    }),
    ("the time of a commit", |rows, index| {
        let commit = rows.commit(index);
        commit.time = Millis(commit.time.0 + 1);
        Some(commit.number)
    }),
    ("a commit removed", |rows, index| {
        let at = index.index(rows.commits.len());
        Some(rows.commits.remove(at).number)
    }),
    ("two commits swapped", |rows, index| {
        let at = index.index(rows.commits.len() - 1);
        rows.commits.swap(at, at + 1);
        let (a, b) = (rows.commits[at].number, rows.commits[at + 1].number);
        rows.commits[at].number = b;
        rows.commits[at + 1].number = a;
        Some(b)
    }),
    ("the chain's newest hash", |rows, _| {
        rows.cursor.journal.hash.0[0] ^= 1;
        Some(rows.cursor.journal.commit)
    }),
    ("what the chain has settled", |rows, _| {
        rows.cursor.settled.at.number -= 1;
        Some(rows.cursor.journal.commit)
    }),
];

impl Rows {
    fn first_of(&self, wallet: WalletNo) -> Option<u64> {
        let of = |booked: &&BookedEntry| self.transfers[&booked.entry.transfer].wallet == wallet;
        self.entries.iter().filter(of).map(|booked| booked.commit).min()
    }

    fn last_of(&self, key: (WalletNo, AssetNo)) -> Option<u64> {
        let of = |booked: &&BookedEntry| {
            let transfer = &self.transfers[&booked.entry.transfer];
            (transfer.wallet, transfer.asset) == key
        };
        self.entries.iter().filter(of).map(|booked| booked.commit).max()
    }
}

proptest! {
    #[test]
    fn whatever_is_edited_is_named_at_its_commit(index: Index, size in 1usize..8) {
        let rows = Rows::of(&history());
        for (what, edit) in EDITS {
            let mut edited = rows.clone();
            let Some(commit) = edit(&mut edited, index) else { continue };
            let found = edited.verify(1, size).expect_err(what);
            prop_assert_eq!(found.commit, commit, "{}: {}", what, found);
        }
    }
}

#[test]
fn a_journal_without_its_end_is_sound_and_only_a_kept_hash_tells() {
    // All that the last commit did is undone, and every trace of it removed.
    let rows = Rows::of(&history());
    let mut cut = rows.clone();
    let gone = cut.commits.pop().unwrap();
    cut.entries.retain(|booked| booked.commit < gone.number);
    let kept = cut.commits.last().unwrap();
    cut.cursor.journal = JournalHead { commit: kept.number, hash: kept.hash };
    let mut sums: BTreeMap<_, Replay> = BTreeMap::new();
    for BookedEntry { entry, .. } in &cut.entries {
        let transfer = &cut.transfers[&entry.transfer];
        let sum = sums.entry((transfer.wallet, transfer.asset)).or_default();
        sum.add(entry.kind, transfer.direction, entry.amount);
    }
    cut.balances = sums.into_iter().map(|(key, sum)| (key, sum.position())).collect();
    cut.verify(1, 3).unwrap();
    assert!(cut.commits.iter().all(|commit| commit.hash != gone.hash));
}
