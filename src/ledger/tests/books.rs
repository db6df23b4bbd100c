//! A store in memory, as exact as the real ones about what may be written.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    amount::Amount,
    chain::{AssetKey, BlockHash, BlockRef, Header, Kind, Movement, Ordinal, TxId},
    clock::Millis,
    event::{NewEvent, Told},
    id::{EventId, TransferId},
    ledger::{
        Changes, Decision, Known, Refused, Replay,
        changes::{AssetChange, TransferUpdate},
        connect::{self, Blocks},
        known::{Figures, HashMap, KnownDeployments, MatchedBlock, Watches},
        rollback::{self, Gone},
        settle::{self, Compared},
        testing::{asset, chain, cursor, watch, who},
    },
    model::{
        Asset, AssetNo, Balance, BlockPoint, ChainInfo, Cursor, Direction, Entry, EntryKind,
        Position, Status, Transfer, TransferNo, WalletNo,
    },
};

pub(super) const NOW: Millis = Millis(1_768_469_400_000);

/// A payment of the native coin; `tx` names it, whichever block holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Payment {
    pub tx: u8,
    pub from: Option<u8>,
    pub to: u8,
    pub amount: u64,
}

/// A block of some branch: its hash knows its height, its branch and its parent.
pub(super) fn header(parent: BlockRef, branch: u8) -> Header {
    let number = parent.number + 1;
    let mut hash = parent.hash.0;
    hash.rotate_left(1);
    hash[0] = hash[0].wrapping_mul(31).wrapping_add(branch).wrapping_add(1);
    hash[24..].copy_from_slice(&number.to_be_bytes());
    Header { at: BlockRef { number, hash: BlockHash(hash) }, parent, time: 1_768_000_000 + number }
}

pub(super) fn block(header: Header, payments: &[Payment]) -> MatchedBlock {
    let movement = |payment: &Payment| Movement {
        tx: TxId::from([payment.tx; 32]),
        ordinal: Ordinal::Tx,
        kind: Kind::Transfer,
        asset: AssetKey::Native,
        from: payment.from.map(who),
        to: Some(who(payment.to)),
        amount: payment.amount.into(),
        memo: None,
    };
    MatchedBlock {
        header,
        movements: payments.iter().map(movement).collect(),
        safes: Vec::new(),
        tracked: Vec::new(),
        touched: Vec::new(),
    }
}

/// What was written so far.
pub(super) struct Books {
    pub chain: ChainInfo,
    pub cursor: Cursor,
    watches: Watches,
    assets: HashMap<AssetKey, Asset>,
    balances: HashMap<(WalletNo, AssetNo), Balance>,
    transfers: BTreeMap<TransferNo, Transfer>,
    replaced: BTreeSet<TransferNo>,
    entries: Vec<Entry>,
    pub events: Vec<NewEvent>,
}

impl Books {
    /// Nothing yet: the wallets `1` to `wallets` begin with nothing at the block 0.
    pub fn new(wallets: u8) -> Self {
        let chain = chain();
        let genesis = BlockPoint {
            at: BlockRef { number: 0, hash: BlockHash([0; 32]) },
            time: Millis::from_seconds(1_768_000_000),
        };
        let cursor = cursor(&chain, genesis, 1);
        let native = asset(&chain, 0, AssetKey::Native);
        Self {
            chain,
            cursor,
            watches: (1..=wallets).map(|n| (who(n), vec![watch(n)])).collect(),
            assets: [(AssetKey::Native, native)].into_iter().collect(),
            balances: HashMap::default(),
            transfers: BTreeMap::new(),
            replaced: BTreeSet::new(),
            entries: Vec::new(),
            events: Vec::new(),
        }
    }

    fn known(&self) -> Known {
        let stands = |transfer: &&Transfer| {
            transfer.status != Status::Settled && !self.replaced.contains(&transfer.no)
        };
        Known {
            watches: self.watches.clone(),
            balances: self.balances.clone(),
            assets: self.assets.clone(),
            unsettled: self.transfers.values().filter(stands).cloned().collect(),
        }
    }

    fn pending(&self, from: u64, to: u64) -> Vec<Transfer> {
        let open = |transfer: &&Transfer| {
            transfer.status == Status::Pending && (from..=to).contains(&transfer.block.number)
        };
        self.transfers.values().filter(open).cloned().collect()
    }

    pub fn connect(&mut self, blocks: &[MatchedBlock], settled: BlockPoint) {
        match self.decide(blocks, settled).expect("an honest history is bookable") {
            Decision::Commit(changes) => self.write(*changes),
            Decision::Ask(short) => panic!("an honest history explains itself: {short:?}"),
        }
    }

    pub fn decide(
        &self,
        blocks: &[MatchedBlock],
        settled: BlockPoint,
    ) -> Result<Decision, Refused> {
        let pending = if settled.at.number > self.cursor.settled.at.number {
            self.pending(0, settled.at.number)
        } else {
            Vec::new()
        };
        let figures = Figures::new();
        let input = Blocks { blocks, settled, figures: &figures };
        let known = self.known();
        let safes = KnownDeployments::default();
        connect::connect(&self.chain, &self.cursor, &known, safes, pending, input, NOW)
    }

    pub fn settle(&mut self, settled: BlockPoint) {
        let known = self.known();
        let pending = self.pending(0, settled.at.number);
        let proofs = crate::ledger::known::KnownProofs::default();
        let compared = Compared { figures: &[], proofs: &proofs };
        let changes =
            settle::settle(&self.chain, &self.cursor, &known, pending, settled, compared, NOW);
        self.write(changes.expect("what was connected settles"));
    }

    pub fn rollback(&mut self, fork: BlockPoint) {
        let known = self.known();
        let transfers = self.pending(fork.at.number + 1, u64::MAX);
        let gone = Gone { transfers, ..Gone::default() };
        let changes = rollback::rollback(&self.chain, &self.cursor, &known, gone, fork, NOW);
        self.write(changes.expect("what was connected can be taken back"));
    }

    /// Writes as the store does, and refuses what it would refuse.
    fn write(&mut self, changes: Changes) {
        assert_eq!(changes.from, self.cursor, "decided upon what is there");
        self.cursor = changes.cursor;
        for change in changes.assets {
            let AssetChange::New(asset) = change else { panic!("no configuration changes here") };
            assert!(self.assets.insert(asset.key, asset).is_none());
        }
        for update in changes.updates {
            match update {
                TransferUpdate::Settled(no) => {
                    let transfer = self.transfers.get_mut(&no).unwrap();
                    assert_eq!(transfer.status, Status::Pending);
                    transfer.status = Status::Settled;
                }
                TransferUpdate::Orphaned { no, mark, .. } => {
                    let transfer = self.transfers.get_mut(&no).unwrap();
                    assert_eq!((transfer.status, transfer.id.mark()), (Status::Pending, mark));
                    transfer.status = Status::Orphaned;
                }
                TransferUpdate::Replaced(no) => {
                    assert_eq!(self.transfers[&no].status, Status::Orphaned);
                    assert!(self.replaced.insert(no));
                }
            }
        }
        for transfer in changes.transfers {
            assert!(self.transfers.insert(transfer.no, transfer).is_none(), "numbers are unique");
        }
        for entry in changes.entries {
            let twin =
                |other: &&Entry| (other.transfer, other.kind) == (entry.transfer, entry.kind);
            assert!(!self.entries.iter().any(|other| twin(&other)), "{entry:?} is booked twice");
            assert_eq!(self.transfers[&entry.transfer].amount, entry.amount);
            self.entries.push(entry);
        }
        for change in changes.balances {
            let key = (change.wallet, change.asset);
            let old = self.balances.get(&key).copied().unwrap_or_default();
            assert_eq!(old.version, change.balance.version, "written over what was read");
            let version = old.version + 1;
            self.balances.insert(key, Balance { version, ..change.balance });
        }
        self.events.extend(changes.events);
    }

    pub fn position(&self, wallet: u8) -> Position {
        let key = (WalletNo(wallet.into()), self.assets[&AssetKey::Native].no);
        self.balances.get(&key).copied().unwrap_or_default().position
    }

    /// The balances, by wallet.
    pub fn positions(&self, wallets: u8) -> Vec<Position> {
        (1..=wallets).map(|wallet| self.position(wallet)).collect()
    }

    /// What the entries alone add up to.
    pub fn replayed(&self, wallet: u8) -> Position {
        let mut sum = Replay::default();
        for entry in &self.entries {
            let transfer = &self.transfers[&entry.transfer];
            if transfer.wallet == WalletNo(wallet.into()) {
                sum.add(entry.kind, transfer.direction, entry.amount);
            }
        }
        sum.position()
    }

    /// The entries by what they did, however many rows tell it.
    pub fn effects(&self) -> BTreeSet<(TransferId, u32, EntryKind, Amount)> {
        let mut all = BTreeSet::new();
        for entry in &self.entries {
            let Transfer { id, connection, .. } = self.transfers[&entry.transfer];
            let kinds = match entry.kind {
                EntryKind::ConnectSettled => vec![EntryKind::Connect, EntryKind::Settle],
                kind => vec![kind],
            };
            for kind in kinds {
                assert!(all.insert((id, connection, kind, entry.amount)), "an effect is once");
            }
        }
        all
    }

    /// Every event by its id, in the order of the feed. No id is told twice.
    pub fn told(&self) -> Vec<EventId> {
        let told: Vec<EventId> = self.events.iter().flat_map(NewEvent::ids).collect();
        let once: BTreeSet<EventId> = told.iter().copied().collect();
        assert_eq!(once.len(), told.len(), "an event is told once");
        told
    }

    /// Where each transfer stands, by its last connection.
    pub fn standing(&self) -> BTreeMap<(TransferId, Direction), (Status, Amount)> {
        let stands = self.transfers.values().filter(|row| !self.replaced.contains(&row.no));
        stands.map(|row| ((row.id, row.direction), (row.status, row.amount))).collect()
    }

    /// The last that was told of each transfer.
    pub fn last_told(&self) -> BTreeMap<TransferId, Status> {
        let mut last = BTreeMap::new();
        for event in &self.events {
            let Told::Transfer(told) = &event.told else { continue };
            last.insert(told.id, if told.and_settled { Status::Settled } else { told.status });
        }
        last
    }
}
