//! A store in memory, as exact as the real ones about what may be written.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    amount::Amount,
    chain::{
        Address, AssetKey, BlockHash, BlockRef, ChainBalance, Header, Kind, Movement, Ordinal, TxId,
    },
    clock::Millis,
    event::{EventType, NewEvent, Told},
    id::{EventId, TransferId},
    ledger::{
        Changes, Decision, Known, Refused, Replay,
        changes::{AssetChange, TransferUpdate},
        connect::{self, Blocks},
        early::{self, Considered},
        known::{Figures, HashMap, KnownDeployments, MatchedBlock, Shortage, Watches},
        quarantine,
        rollback::{self, Gone},
        settle::{self, Compared},
        testing::{asset, chain, cursor, watch, who},
        traced,
        worthless::Worthless,
    },
    model::{
        Asset, AssetNo, Balance, BlockPoint, BookedEntry, ChainInfo, Cursor, Direction, EntryKind,
        JournalCommit, Position, Status, Transfer, TransferNo, WalletNo,
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

/// Configured tokens, by a byte: their contracts log whatever they like, and hold nothing.
pub(super) const HOSTILE: [u8; 2] = [0xe1, 0xe2];

pub(super) fn token(byte: u8) -> AssetKey {
    AssetKey::Token(Address::from([byte; 20]))
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
        worthless: Worthless::default(),
        safes: Vec::new(),
        ran: Vec::new(),
        tracked: Vec::new(),
        touched: Vec::new(),
        untraced: false,
    }
}

/// What was written so far.
pub(super) struct Books {
    pub chain: ChainInfo,
    pub cursor: Cursor,
    pub watches: Watches,
    pub assets: HashMap<AssetKey, Asset>,
    pub balances: HashMap<(WalletNo, AssetNo), Balance>,
    pub transfers: BTreeMap<TransferNo, Transfer>,
    replaced: BTreeSet<TransferNo>,
    pub entries: Vec<BookedEntry>,
    pub commits: Vec<JournalCommit>,
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
        let assets = [AssetKey::Native].into_iter().chain(HOSTILE.map(token));
        let assets: HashMap<AssetKey, Asset> =
            (0..).zip(assets).map(|(n, key)| (key, asset(&chain, n, key))).collect();
        let cursor = cursor(&chain, genesis, u64::try_from(assets.len()).unwrap());
        Self {
            chain,
            cursor,
            watches: (1..=wallets).map(|n| (who(n), vec![watch(n)])).collect(),
            assets,
            balances: HashMap::default(),
            transfers: BTreeMap::new(),
            replaced: BTreeSet::new(),
            entries: Vec::new(),
            commits: Vec::new(),
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
        self.connect_short(blocks, settled, |short| {
            assert!(
                short.asset != AssetKey::Native,
                "an honest history explains itself: {short:?}"
            );
            Some(Amount::ZERO)
        });
    }

    /// The same, of a chain that has these figures where more leaves than was known of.
    pub fn connect_short(
        &mut self,
        blocks: &[MatchedBlock],
        settled: BlockPoint,
        figure: impl Fn(&Shortage) -> Option<Amount>,
    ) {
        let mut figures = Figures::new();
        loop {
            match self.decide_with(blocks, settled, &figures) {
                Ok(Decision::Commit(changes)) => return self.write(*changes),
                Ok(Decision::Ask(short)) => {
                    let found = short.into_keys().map(|short| (short, figure(&short)));
                    figures.extend(found);
                }
                Err(refused) => self.quarantine(&refused),
            }
        }
    }

    fn quarantine(&mut self, refused: &Refused) {
        let culprit = refused.culprit.expect("an honest history is bookable");
        let token = self.assets.values().find(|asset| asset.no == culprit.token).unwrap();
        let (chain, cursor) = (&self.chain, &self.cursor);
        let changes = quarantine::quarantine(chain, cursor, token, culprit, &[], NOW).unwrap();
        self.write(changes.expect("a token is set aside once"));
    }

    pub fn decide(
        &self,
        blocks: &[MatchedBlock],
        settled: BlockPoint,
    ) -> Result<Decision, Refused> {
        self.decide_with(blocks, settled, &Figures::new())
    }

    fn decide_with(
        &self,
        blocks: &[MatchedBlock],
        settled: BlockPoint,
        figures: &Figures,
    ) -> Result<Decision, Refused> {
        let pending = if settled.at.number > self.cursor.settled.at.number {
            self.pending(0, settled.at.number)
        } else {
            Vec::new()
        };
        let input = Blocks { blocks, settled, figures, traced: &[] };
        let known = self.known();
        let safes = KnownDeployments::default();
        connect::connect(&self.chain, &self.cursor, &known, safes, pending, input, NOW)
    }

    pub fn complete(&mut self, inside: &MatchedBlock) {
        self.write(self.completed(inside));
    }

    /// What comes of a trace, without writing it.
    pub fn completed(&self, inside: &MatchedBlock) -> Changes {
        let known = self.known();
        let pending = self.pending(inside.header.at.number, u64::MAX);
        let changes = traced::complete(&self.chain, &self.cursor, &known, &pending, inside, NOW);
        changes.expect("what a trace shows is booked")
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

    /// Lets the tiers make deposits of the native coin available, all of blocks up to `at`. A node has so much of each
    /// wallet's after it.
    pub fn advance(&mut self, at: u64, held: impl Fn(u8) -> Option<u64>) {
        let known = self.known();
        let native = self.assets[&AssetKey::Native].no;
        let figure = |wallet: u8| {
            let figure = ChainBalance::from(Amount::from(held(wallet)?));
            Some(((WalletNo(wallet.into()), native), figure))
        };
        let considered = Considered {
            deposits: self.pending(0, at),
            figures: (0..=u8::MAX).filter_map(figure).collect(),
            above: self.pending(at + 1, u64::MAX),
        };
        let changes = early::advance(&self.chain, &self.cursor, &known, considered, NOW);
        self.write(changes.expect("what was connected can become available"));
    }

    /// Writes as the store does, and refuses what it would refuse.
    fn write(&mut self, changes: Changes) {
        assert_eq!(changes.from, self.cursor, "decided upon what is there");
        self.cursor = changes.cursor;
        for change in changes.assets {
            let AssetChange::Changed { before, after } = change else {
                panic!("every asset is configured here")
            };
            assert_eq!(self.assets.insert(after.key, after), Some(before));
        }
        for update in changes.updates {
            match update {
                TransferUpdate::Settled(no, by) => {
                    let transfer = self.transfers.get_mut(&no).unwrap();
                    assert_eq!(transfer.status, Status::Pending);
                    assert!(transfer.settled_by.is_none_or(|known| known == by), "the rule stays");
                    transfer.status = Status::Settled;
                    transfer.settled_by = Some(by);
                }
                TransferUpdate::Early(no, by) => {
                    let transfer = self.transfers.get_mut(&no).unwrap();
                    assert_eq!((transfer.status, transfer.settled_by), (Status::Pending, None));
                    transfer.settled_by = Some(by);
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
        assert_eq!(changes.journal.is_some(), !changes.entries.is_empty());
        self.commits.extend(changes.journal);
        for entry in changes.entries {
            let twin = |other: &BookedEntry| {
                (other.entry.transfer, other.entry.kind) == (entry.transfer, entry.kind)
            };
            assert!(!self.entries.iter().any(twin), "{entry:?} is booked twice");
            assert_eq!(self.transfers[&entry.transfer].amount, entry.amount);
            let commit = self.cursor.journal.commit;
            self.entries.push(BookedEntry { entry, commit, time: NOW });
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
        self.position_of(wallet, AssetKey::Native)
    }

    pub fn position_of(&self, wallet: u8, asset: AssetKey) -> Position {
        let key = (WalletNo(wallet.into()), self.assets[&asset].no);
        self.balances.get(&key).copied().unwrap_or_default().position
    }

    /// What of a wallet's native coin is available though it has not settled, transfer by transfer.
    pub fn early(&self, wallet: u8) -> Amount {
        let native = self.assets[&AssetKey::Native].no;
        let own = |row: &&Transfer| {
            row.is_early() && row.wallet == WalletNo(wallet.into()) && row.asset == native
        };
        let rows = self.transfers.values().filter(own);
        rows.fold(Amount::ZERO, |sum, row| sum.checked_add(row.amount).unwrap())
    }

    /// The balances, by wallet.
    pub fn positions(&self, wallets: u8) -> Vec<Position> {
        (1..=wallets).map(|wallet| self.position(wallet)).collect()
    }

    /// What the entries alone add up to.
    pub fn replayed(&self, wallet: u8) -> Position {
        self.replayed_of(wallet, AssetKey::Native)
    }

    pub fn replayed_of(&self, wallet: u8, asset: AssetKey) -> Position {
        let asset = self.assets[&asset].no;
        let mut sum = Replay::default();
        for BookedEntry { entry, .. } in &self.entries {
            let transfer = &self.transfers[&entry.transfer];
            if transfer.wallet == WalletNo(wallet.into()) && transfer.asset == asset {
                sum.add(entry.kind, transfer.direction, entry.amount);
            }
        }
        sum.position()
    }

    /// The entries by what they did, however many rows tell it.
    pub fn effects(&self) -> BTreeSet<(TransferId, u32, EntryKind, Amount)> {
        let mut all = BTreeSet::new();
        for BookedEntry { entry, .. } in &self.entries {
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

    /// Where each transfer of the native coin stands, by its last connection.
    pub fn standing(&self) -> BTreeMap<(TransferId, Direction), (Status, Amount)> {
        let native = self.assets[&AssetKey::Native].no;
        let stands = |row: &&Transfer| row.asset == native && !self.replaced.contains(&row.no);
        let stands = self.transfers.values().filter(stands);
        stands.map(|row| ((row.id, row.direction), (row.status, row.amount))).collect()
    }

    /// The last that was told of each transfer.
    pub fn last_told(&self) -> BTreeMap<TransferId, Status> {
        let mut last = BTreeMap::new();
        for event in &self.events {
            let Told::Transfer(told) = &event.told else { continue };
            let available = told.and_settled || told.kind == EventType::DepositAvailable;
            last.insert(told.id, if available { Status::Settled } else { told.status });
        }
        last
    }
}
