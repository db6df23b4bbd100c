//! Booking in memory: transfers, entries, balances and the events that tell of them, kept together.

use std::collections::hash_map::Entry;

use super::{
    Changes, Known, LedgerError, Refused,
    changes::{AssetChange, AssetClass, BalanceChange, ProofChange, TransferUpdate},
    journal::{self, Connected, Left, Line},
    known::{HashMap, Watches, same_movement, transfer_id},
};
use crate::{
    amount::Amount,
    chain::{AssetKey, Header, Kind, Movement},
    clock::Millis,
    event::{EventType, EventWallet, NewEvent, Told, TransferTold},
    model::{
        Asset, AssetNo, Balance, ChainInfo, CommitKind, Cursor, Direction, Entry as LedgerEntry,
        EntryKind, JournalCommit, JournalHash, JournalHead, Owner, Rewind, SettledBy, Status,
        Transfer, TransferNo, WalletNo,
    },
};

/// A balance as this step has it so far.
#[derive(Clone, Copy, Debug)]
struct Working {
    wallet: WalletNo,
    asset: AssetNo,
    balance: Balance,
    changed_at: Option<u64>,
    /// Whether entries changed it.
    booked: bool,
    proof: ProofChange,
}

/// Where a step has a balance: looked up once for each side of a movement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot(usize);

/// What one step books. Nothing of it is real before [`Posting::finish`]'s changes are written.
pub(super) struct Posting<'a> {
    pub chain: &'a ChainInfo,
    pub now: Millis,
    /// The newest applied block, from which confirmations are counted.
    pub head: u64,
    known: &'a Known,
    slots: HashMap<(WalletNo, AssetNo), Slot>,
    balances: Vec<Working>,
    new_assets: HashMap<AssetKey, Asset>,
    /// What this step connected, with its mark: [`Posting::finish`] looks whether a movement is there twice.
    connected: Vec<(WalletNo, i64, TransferNo)>,
    native: Option<AssetNo>,
    /// Whose sides were made, and of which assets.
    owners: HashMap<WalletNo, Owner>,
    assets: HashMap<AssetNo, AssetKey>,
    kind: CommitKind,
    /// Whether a person has ordered it: then it is a commit of the journal, entries or not.
    pub by_hand: bool,
    /// The order to go back.
    pub rewind: Option<Rewind>,
    /// Of assets whose facts were ever changed.
    versions: HashMap<AssetNo, i64>,
    pub changes: Changes,
}

/// Which side of a transfer is booked first, so that no sum falls below zero on the way.
pub(super) fn booked_first(kind: EntryKind) -> Direction {
    match kind {
        EntryKind::Connect
        | EntryKind::Settle
        | EntryKind::ConnectSettled
        | EntryKind::Early
        | EntryKind::EarlyOver => Direction::In,
        EntryKind::Disconnect | EntryKind::DisconnectSettled => Direction::Out,
    }
}

/// An event that cannot be told.
pub(super) fn no_json(error: &serde_json::Error) -> Refused {
    let context = format!("an event cannot be written down ({error})");
    Refused::new(context, LedgerError::Inconsistent)
}

pub(super) fn refused(transfer: &Transfer, kind: EntryKind, error: LedgerError) -> Refused {
    let Transfer { id, ordinal, direction, amount, wallet, block, .. } = transfer;
    let context = format!(
        "{kind} of transfer {id} ({ordinal}, {direction} {amount}, wallet no. {}, block {})",
        wallet.0, block.number
    );
    Refused::new(context, error)
}

impl<'a> Posting<'a> {
    pub fn new(
        chain: &'a ChainInfo,
        known: &'a Known,
        from: &Cursor,
        next: Cursor,
        now: Millis,
        kind: CommitKind,
    ) -> Self {
        Self {
            chain,
            now,
            head: next.head.at.number,
            known,
            slots: HashMap::default(),
            balances: Vec::new(),
            new_assets: HashMap::default(),
            connected: Vec::new(),
            native: known.assets.get(&AssetKey::Native).map(|native| native.no),
            owners: HashMap::default(),
            assets: HashMap::default(),
            kind,
            by_hand: false,
            rewind: None,
            versions: known
                .assets
                .values()
                .filter(|asset| asset.version > 0)
                .map(|asset| (asset.no, asset.version))
                .collect(),
            changes: Changes::new(from, next, now),
        }
    }

    /// Who watches which address.
    pub fn watches(&self) -> &'a Watches {
        &self.known.watches
    }

    /// Whether an asset is money.
    pub fn counts(&self, key: &AssetKey) -> bool {
        self.known.assets.get(key).is_some_and(|asset| asset.verified)
    }

    /// An asset; one that nobody configured is recorded as unverified.
    pub fn asset(&mut self, key: AssetKey) -> Result<&Asset, Refused> {
        if let Some(known) = self.known.assets.get(&key) {
            return Ok(known);
        }
        match self.new_assets.entry(key) {
            Entry::Occupied(slot) => Ok(slot.into_mut()),
            Entry::Vacant(slot) => {
                let cursor = &mut self.changes.cursor;
                let no = AssetNo::nth(cursor.no, cursor.assets)
                    .ok_or_else(|| Refused::new("a new asset", LedgerError::Overflow))?;
                cursor.assets += 1;
                let asset = Asset {
                    no,
                    chain: self.chain.name.clone(),
                    key,
                    caip19: self.chain.caip19(&key),
                    symbol: None,
                    name: None,
                    decimals: None,
                    verified: false,
                    quarantine: None,
                    version: 0,
                    listing: None,
                };
                self.changes.assets.push(AssetChange::New(asset.clone()));
                Ok(slot.insert(asset))
            }
        }
    }

    /// A movement as one watching wallet sees it. It has no number before it is connected.
    pub fn side(
        &mut self,
        header: &Header,
        movement: &Movement,
        owner: Owner,
        direction: Direction,
    ) -> Result<Transfer, Refused> {
        let asset = self.asset(movement.asset)?;
        let (no, counts) = (asset.no, asset.counts_for(owner.wallet));
        self.owners.insert(owner.wallet, owner);
        self.assets.insert(no, movement.asset);
        let block_time = Millis::from_seconds(header.time);
        let id = transfer_id(self.chain, owner.wallet_id, movement, direction, block_time);
        let counterparty = match direction {
            Direction::In => movement.from,
            Direction::Out => movement.to,
        };
        Ok(Transfer {
            no: TransferNo::default(),
            id,
            wallet: owner.wallet,
            tenant: owner.tenant,
            tx: movement.tx,
            ordinal: movement.ordinal.clone(),
            direction,
            asset: no,
            kind: movement.kind,
            status: Status::Pending,
            amount: movement.amount,
            counterparty,
            counted: counts && !movement.amount.is_zero(),
            block: header.at,
            block_time,
            connection: 1,
            reason: None,
            memo: movement.memo.clone(),
            omitted: None,
            seen_at: self.now,
            settled_by: None,
            settled_at: None,
            orphaned_at: None,
        })
    }

    /// Connects a side: a new transfer, or one that an earlier block held. The entry is written by
    /// [`Posting::book`], once it is known whether the block settles at once.
    pub fn connect(&mut self, side: &mut Transfer, slot: Slot) -> Result<(), Refused> {
        let inconsistent =
            |side: &Transfer| refused(side, EntryKind::Connect, LedgerError::Inconsistent);
        if let Some(known) = self.known.unsettled.same(side) {
            if known.status != Status::Orphaned {
                return Err(inconsistent(known));
            }
            side.id = known.id;
            side.connection = known.connection.checked_add(1).ok_or_else(|| inconsistent(known))?;
            side.seen_at = known.seen_at;
            self.changes.updates.push(TransferUpdate::Replaced(known.no));
        }
        self.connect_next(side, slot)
    }

    /// Connects a pending transfer anew, with another amount. The old connection has to be taken back beside it, and
    /// replaced.
    pub fn connect_anew(
        &mut self,
        known: &Transfer,
        amount: Amount,
        slot: Slot,
    ) -> Result<Transfer, Refused> {
        let connection = known.connection.checked_add(1);
        let inconsistent = || refused(known, EntryKind::Connect, LedgerError::Inconsistent);
        let connection = connection.ok_or_else(inconsistent)?;
        let mut side = Transfer { amount, connection, ..known.clone() };
        self.connect_next(&mut side, slot)?;
        Ok(side)
    }

    fn connect_next(&mut self, side: &mut Transfer, slot: Slot) -> Result<(), Refused> {
        let cursor = &mut self.changes.cursor;
        side.no = TransferNo::nth(cursor.no, cursor.transfers)
            .ok_or_else(|| refused(side, EntryKind::Connect, LedgerError::Overflow))?;
        cursor.transfers += 1;
        self.connected.push((side.wallet, side.id.mark(), side.no));
        self.apply_at(slot, side, EntryKind::Connect)
    }

    /// Connects a side of a block that has settled already.
    pub fn connect_settled(&mut self, side: &mut Transfer) -> Result<(), Refused> {
        let slot = self.slot(side.wallet, side.asset);
        self.connect(side, slot)?;
        self.apply_at(slot, side, EntryKind::Settle)
    }

    /// The rule by which what settles becomes available.
    pub fn policy(&self) -> SettledBy {
        SettledBy::Policy(self.chain.settlement)
    }

    /// Ends that a pending transfer is available already, if it is: its block settles or vanishes.
    pub fn end_early(&mut self, transfer: &Transfer) -> Result<(), Refused> {
        if transfer.is_early() {
            self.apply(transfer, EntryKind::EarlyOver)?;
            self.entry(transfer, EntryKind::EarlyOver);
        }
        Ok(())
    }

    /// Records a connected side for good, settled or not.
    pub fn book(&mut self, mut side: Transfer, settled: bool) {
        let class = match (side.counted, self.native == Some(side.asset)) {
            (false, _) => AssetClass::Unverified,
            (true, true) => AssetClass::Native,
            (true, false) => AssetClass::Token,
        };
        self.changes.report.connected.push((side.kind, class));
        let kind = if settled { EntryKind::ConnectSettled } else { EntryKind::Connect };
        self.entry(&side, kind);
        if settled {
            side.status = Status::Settled;
            side.settled_by = Some(self.policy());
            side.settled_at = Some(self.now);
            if side.kind != Kind::Opening {
                self.changes.report.settled.push(side.block_time);
            }
        }
        self.changes.transfers.push(side);
    }

    /// Writes the entry of what [`Posting::apply`] did, for what counts as money.
    pub fn entry(&mut self, transfer: &Transfer, kind: EntryKind) {
        if transfer.counted {
            let Transfer { no, amount, .. } = *transfer;
            self.changes.entries.push(LedgerEntry { transfer: no, kind, amount });
        }
    }

    /// Changes the balance, for what counts as money.
    pub fn apply(&mut self, transfer: &Transfer, kind: EntryKind) -> Result<(), Refused> {
        let slot = self.slot(transfer.wallet, transfer.asset);
        self.apply_at(slot, transfer, kind)
    }

    /// As [`Posting::apply`], to a balance that was looked up.
    pub fn apply_at(
        &mut self,
        slot: Slot,
        transfer: &Transfer,
        kind: EntryKind,
    ) -> Result<(), Refused> {
        if !transfer.counted {
            return Ok(());
        }
        let working = &mut self.balances[slot.0];
        working.balance.position =
            working.balance.position.apply(kind, transfer.direction, transfer.amount).map_err(
                |error| {
                    let refused = refused(transfer, kind, error);
                    if self.native == Some(transfer.asset) {
                        refused
                    } else {
                        refused.by_token(transfer)
                    }
                },
            )?;
        working.changed_at = Some(self.head);
        working.booked = true;
        if kind == EntryKind::DisconnectSettled {
            working.proof = ProofChange::Gone;
        }
        Ok(())
    }

    /// Where this step has a balance; one that has no row yet is empty.
    pub fn slot(&mut self, wallet: WalletNo, asset: AssetNo) -> Slot {
        let Self { slots, balances, known, .. } = self;
        *slots.entry((wallet, asset)).or_insert_with(|| {
            let balance = known.balances.get(&(wallet, asset)).copied().unwrap_or_default();
            balances.push(Working {
                wallet,
                asset,
                balance,
                changed_at: None,
                booked: false,
                proof: ProofChange::Kept,
            });
            Slot(balances.len() - 1)
        })
    }

    pub fn balance_at(&self, slot: Slot) -> Balance {
        self.balances[slot.0].balance
    }

    pub fn balance(&mut self, wallet: WalletNo, asset: AssetNo) -> Balance {
        let slot = self.slot(wallet, asset);
        self.balance_at(slot)
    }

    /// Room for what so many sides of movements become.
    pub fn reserve(&mut self, sides: usize) {
        self.connected.reserve(sides);
        self.changes.transfers.reserve(sides);
        self.changes.entries.reserve(sides);
        self.changes.events.reserve(sides);
        self.changes.report.connected.reserve(sides);
    }

    /// Remembers that the chain's state says the same after the settled block `block`. Without a balance there is nothing
    /// to be remembered.
    pub fn agreed(&mut self, wallet: WalletNo, asset: AssetNo, block: u64, figure: Amount) {
        let (head, slot) = (self.head, self.slot(wallet, asset));
        let working = &mut self.balances[slot.0];
        if working.balance.version > 0 || working.changed_at.is_some() {
            working.proof = ProofChange::Agreed { block, figure };
            working.changed_at = Some(head);
        }
    }

    /// Takes over what the asset's issuer has frozen. Without a balance there is nothing that could be.
    pub fn set_frozen(&mut self, wallet: WalletNo, asset: AssetNo, frozen: Amount) {
        let (head, slot) = (self.head, self.slot(wallet, asset));
        let working = &mut self.balances[slot.0];
        let exists = working.balance.version > 0 || working.changed_at.is_some();
        if exists && working.balance.frozen != frozen {
            working.balance.frozen = frozen;
            working.changed_at = Some(head);
        }
    }

    /// The event that tells where a transfer stands now, if one does.
    pub fn tell(&mut self, transfer: &Transfer) {
        let slot = self.slot(transfer.wallet, transfer.asset);
        self.tell_at(slot, transfer, transfer.status);
    }

    /// The event that tells that a transfer stands as `status` says, if one does, with its balance.
    pub fn tell_at(&mut self, slot: Slot, transfer: &Transfer, status: Status) {
        let Some(kind) = event_type(transfer, status) else { return };
        let balance = self.balance_at(slot);
        let told = TransferTold {
            kind,
            transfer: transfer.no,
            id: transfer.id,
            connection: transfer.connection,
            status,
            and_settled: false,
            position: balance.position,
            locked: balance.locked(),
            head: self.head,
            asset_version: self.versions.get(&transfer.asset).copied().unwrap_or(0),
        };
        self.changes.events.push(NewEvent {
            tenant: transfer.tenant,
            wallet: Some(EventWallet::No(transfer.wallet)),
            time: transfer.block_time,
            told: Told::Transfer(told),
        });
    }

    /// Whether a side stands already and was not taken back.
    pub fn stands(&self, side: &Transfer) -> bool {
        self.known.unsettled.same(side).is_some_and(|known| known.status != Status::Orphaned)
    }

    /// An event with data of its own.
    pub fn tell_data(&mut self, event: Result<NewEvent, serde_json::Error>) -> Result<(), Refused> {
        self.changes.events.push(event.map_err(|error| no_json(&error))?);
        Ok(())
    }

    /// Makes the commit one of the chain's journal, once all is booked.
    fn journal(&mut self) -> Result<(), Refused> {
        let Changes { from, cursor, entries, transfers, now, .. } = &self.changes;
        // They are numbered from where the chain stood, without gaps.
        let first = TransferNo::nth(from.no, from.transfers).unwrap_or_default();
        let index = |no: TransferNo| usize::try_from(no.0 - first.0).ok();
        let mut numbered: Vec<Option<&Transfer>> = vec![None; transfers.len()];
        for transfer in transfers {
            if let Some(place) = index(transfer.no).and_then(|index| numbered.get_mut(index)) {
                *place = Some(transfer);
            }
        }
        let found = |no: TransferNo| {
            let transfer = numbered.get(index(no)?).copied().flatten()?;
            let (owner, asset) =
                (self.owners.get(&transfer.wallet)?, self.assets.get(&transfer.asset)?);
            Some(Connected { transfer, owner: *owner, asset: *asset })
        };
        let mut lines = Vec::with_capacity(entries.len());
        for &entry in entries {
            let connected = match entry.kind {
                EntryKind::Connect | EntryKind::ConnectSettled => Some(found(entry.transfer)),
                _ => None,
            };
            if connected.is_some_and(|found| found.is_none()) {
                let context = format!("the {} entry of no transfer", entry.kind);
                return Err(Refused::new(context, LedgerError::Inconsistent));
            }
            lines.push(Line { entry, connected: connected.flatten() });
        }
        let booked = self.balances.iter().filter(|working| working.booked);
        let left = |working: &Working| (working.wallet, working.asset, working.balance.position);
        let mut balances: Vec<Left> = booked.map(left).collect();
        let mut commit = JournalCommit {
            number: from.journal.commit + 1,
            kind: self.kind,
            head: cursor.head.at,
            settled: cursor.settled.at,
            transfers: from.transfers,
            entries: u64::try_from(lines.len()).unwrap_or(u64::MAX),
            time: *now,
            rewind: self.rewind.take(),
            hash: JournalHash::default(),
        };
        commit.hash =
            journal::hash(&self.chain.caip2, from.journal.hash, &commit, &mut lines, &mut balances);
        self.changes.cursor.journal = JournalHead { commit: commit.number, hash: commit.hash };
        self.changes.journal = Some(commit);
        Ok(())
    }

    /// What is to be written.
    ///
    /// # Errors
    /// When one movement was connected twice.
    pub fn finish(mut self) -> Result<Changes, Refused> {
        self.connected.sort_unstable();
        let transfers = &self.changes.transfers;
        let find = |no| transfers.iter().find(|transfer| transfer.no == no);
        // Two movements can have one mark, so those that share it are compared with each other.
        for alike in self.connected.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
            for (index, (.., first)) in alike.iter().enumerate() {
                for (.., second) in &alike[index + 1..] {
                    if let (Some(first), Some(second)) = (find(*first), find(*second))
                        && same_movement(first, second)
                    {
                        return Err(refused(second, EntryKind::Connect, LedgerError::Inconsistent));
                    }
                }
            }
        }
        if !self.changes.entries.is_empty() || self.by_hand {
            self.journal()?;
        }
        let changed = self.balances.into_iter().filter_map(|working| {
            let Working { wallet, asset, balance, changed_at, proof, .. } = working;
            Some(BalanceChange { wallet, asset, balance, block: changed_at?, proof })
        });
        self.changes.balances = changed.collect();
        // In the order of the table: neighbours are written together.
        self.changes.balances.sort_by_cached_key(|change| (change.wallet, change.asset));
        Ok(self.changes)
    }
}

/// Which event tells of a transfer's status. Openings are told by `wallet.activated`; a fee by the balance
/// in the event of what it was paid for; an adjustment when it is booked, not again when it settles; what is
/// not money by none.
pub(super) fn event_type(transfer: &Transfer, status: Status) -> Option<EventType> {
    if !transfer.counted {
        return None;
    }
    match (transfer.kind, transfer.direction, status) {
        (Kind::Opening | Kind::Fee, ..) => None,
        (Kind::Adjustment, _, Status::Settled) if !transfer.is_proven() => None,
        (Kind::Adjustment, ..) => Some(EventType::BalanceAdjusted),
        (_, Direction::In, Status::Pending) if transfer.is_early() => {
            Some(EventType::DepositAvailable)
        }
        (_, Direction::In, Status::Pending) => Some(EventType::DepositPending),
        // Told when it became available.
        (_, Direction::In, Status::Settled)
            if matches!(transfer.settled_by, Some(SettledBy::Tier(_))) =>
        {
            None
        }
        (_, Direction::In, Status::Settled) => Some(EventType::DepositAvailable),
        (_, Direction::In, Status::Orphaned) => Some(EventType::DepositOrphaned),
        (_, Direction::Out, Status::Pending) => Some(EventType::WithdrawalPending),
        (_, Direction::Out, Status::Settled) => Some(EventType::WithdrawalSettled),
        (_, Direction::Out, Status::Orphaned) => Some(EventType::WithdrawalOrphaned),
    }
}
