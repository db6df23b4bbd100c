//! Booking inside one transaction: transfers, entries, balances and the events that tell of them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, hash_map::Entry},
    sync::Arc,
};

use serde_json::json;

use super::{ApplyError, ChainInfo, Figures, MatchedBlock, Opening, Shortage, proof::Comparisons};
use crate::{
    amount::Amount,
    chain::{Address, AssetKey, Header, Kind, Movement, Ordinal, TxId},
    clock::Millis,
    event::{EventType, NewEvent},
    id::{Ids, WalletId},
    ledger::{Direction, Effect, LedgerError, Status},
    metrics::Metrics,
    store::{
        Conn, StoreError,
        chain::{self, AssetRow, Cursor},
        transfer::{self, BalanceRow, TransferRow},
        watch::{self, WalletRef, WatchRow},
    },
    view::{BlockView, BucketsView, TransferView, WalletRefView},
};

/// A balance as this transaction has it so far.
pub(super) struct Held {
    pub(super) row: BalanceRow,
    pub(super) changed_at: Option<u64>,
}

/// What one transaction books. Balances are read once, changed in memory and written once, at the end.
pub(super) struct Book {
    pub(super) chain: Arc<ChainInfo>,
    pub(super) ids: Ids,
    pub(super) now: Millis,
    /// The newest applied block, from which confirmations are counted.
    pub(super) head: u64,
    balances: BTreeMap<(WalletId, AssetKey), Held>,
    assets: HashMap<AssetKey, AssetRow>,
    wallets: HashMap<WalletId, WalletRef>,
    pub(super) events: Vec<NewEvent>,
    /// For the metrics, once the transaction is durable.
    connected: Vec<(Kind, &'static str)>,
    settled_after: Vec<f64>,
    pub(super) deployments: Vec<&'static str>,
    pub(super) comparisons: Comparisons,
}

/// Which side of a transfer is booked first, so that no sum falls below zero on the way.
fn raising(effect: Effect) -> Direction {
    match effect {
        Effect::Connect | Effect::Settle => Direction::In,
        Effect::Disconnect | Effect::Unsettle => Direction::Out,
    }
}

impl Book {
    pub(super) fn new(chain: Arc<ChainInfo>, ids: Ids, now: Millis, head: u64) -> Self {
        Self {
            chain,
            ids,
            now,
            head,
            balances: BTreeMap::new(),
            assets: HashMap::new(),
            wallets: HashMap::new(),
            events: Vec::new(),
            connected: Vec::new(),
            settled_after: Vec::new(),
            deployments: Vec::new(),
            comparisons: Comparisons::default(),
        }
    }

    /// Books a block's movements. Returns what could not be booked because more leaves than is known;
    /// the transaction must not be committed then.
    pub(super) async fn connect(
        &mut self,
        conn: &mut Conn<'_>,
        block: &MatchedBlock,
        figures: &Figures,
    ) -> Result<Vec<Shortage>, ApplyError> {
        if block.movements.is_empty() && block.touched.is_empty() {
            return Ok(Vec::new());
        }
        self.head = block.header.at.number;
        let mut legs = self.legs(conn, block).await?;
        for leg in legs.iter_mut().filter(|leg| leg.direction == raising(Effect::Connect)) {
            self.book_connect(conn, leg).await?;
        }
        let (short, adjustments) = self.cover(conn, block, &legs, figures).await?;
        if !short.is_empty() {
            return Ok(short);
        }
        for leg in legs.iter_mut().filter(|leg| leg.direction != raising(Effect::Connect)) {
            self.book_connect(conn, leg).await?;
        }
        self.freeze(conn, block).await?;
        for row in adjustments.iter().chain(&legs) {
            self.tell(conn, row).await?;
        }
        Ok(short)
    }

    /// The block's movements as each watching wallet sees them, in chain order.
    async fn legs(
        &mut self,
        conn: &mut Conn<'_>,
        block: &MatchedBlock,
    ) -> Result<Vec<TransferRow>, ApplyError> {
        let addresses: BTreeSet<Address> =
            block.movements.iter().flat_map(|m| [m.from, m.to]).flatten().collect();
        let found = watch::open_by_address(conn, &self.chain.name, &addresses).await?;
        let mut watches: HashMap<Address, Vec<WatchRow>> = HashMap::new();
        for watch in found {
            watches.entry(watch.address).or_default().push(watch);
        }
        let mut legs = Vec::new();
        for movement in &block.movements {
            for (address, direction) in
                [(movement.from, Direction::Out), (movement.to, Direction::In)]
            {
                let Some(watching) = address.and_then(|address| watches.get(&address)) else {
                    continue;
                };
                for watch in watching {
                    let leg = self.leg(conn, &block.header, movement, watch, direction).await?;
                    legs.push(leg);
                }
            }
        }
        Ok(legs)
    }

    pub(super) async fn leg(
        &mut self,
        conn: &mut Conn<'_>,
        header: &Header,
        movement: &Movement,
        watch: &WatchRow,
        direction: Direction,
    ) -> Result<TransferRow, ApplyError> {
        let asset = self.asset(conn, movement.asset).await?;
        Ok(TransferRow {
            id: self.ids.next(),
            wallet_id: watch.wallet_id,
            tenant_id: watch.tenant_id,
            chain: self.chain.name.clone(),
            tx: movement.tx,
            ordinal: movement.ordinal.to_string(),
            direction,
            asset: movement.asset,
            kind: movement.kind,
            status: Status::Pending,
            amount: movement.amount,
            from: movement.from,
            to: movement.to,
            counted: asset.verified && !movement.amount.is_zero(),
            block: header.at,
            block_time: Millis::from_seconds(header.time),
            connections: 1,
            reason: None,
            memo: movement.memo.clone(),
            seen_at: self.now,
            settled_at: None,
            orphaned_at: None,
        })
    }

    /// Where the outgoing legs exceed what the ledger knows of, books what the chain's own figure proves;
    /// without a figure, names what has to be asked.
    async fn cover(
        &mut self,
        conn: &mut Conn<'_>,
        block: &MatchedBlock,
        legs: &[TransferRow],
        figures: &Figures,
    ) -> Result<(Vec<Shortage>, Vec<TransferRow>), ApplyError> {
        let mut spent: BTreeMap<(WalletId, AssetKey), (Amount, &TransferRow)> = BTreeMap::new();
        for leg in legs.iter().filter(|leg| leg.counted && leg.direction == Direction::Out) {
            let sum = spent.entry((leg.wallet_id, leg.asset)).or_insert((Amount::ZERO, leg));
            sum.0 = sum
                .0
                .checked_add(leg.amount)
                .ok_or_else(|| ledger_error(leg, Effect::Connect, LedgerError::Overflow))?;
        }
        let (mut short, mut adjustments) = (Vec::new(), Vec::new());
        for ((wallet, asset), (sum, leg)) in spent {
            let position = self.balance(conn, wallet, asset).await?.row.position;
            let missing = position
                .shortfall(sum)
                .map_err(|error| ledger_error(leg, Effect::Connect, error))?;
            if missing.is_zero() {
                continue;
            }
            let Some(address) = leg.from else { continue };
            let number = block.header.at.number;
            let shortage = Shortage { number, address, asset };
            let Some(figure) = figures.get(&shortage) else {
                short.push(shortage);
                continue;
            };
            let amount = missing
                .checked_add(figure.unwrap_or_default())
                .ok_or_else(|| ledger_error(leg, Effect::Connect, LedgerError::Overflow))?;
            let mut row = TransferRow {
                id: self.ids.next(),
                tx: TxId::from(block.header.at.hash.0),
                ordinal: Ordinal::Adjustment(number).to_string(),
                direction: Direction::In,
                kind: Kind::Adjustment,
                amount,
                from: None,
                to: Some(address),
                memo: None,
                reason: Some(
                    if figure.is_some() { "untraced_credit" } else { "untraced_credit_at_least" }
                        .to_owned(),
                ),
                ..leg.clone()
            };
            self.book_connect(conn, &mut row).await?;
            adjustments.push(row);
        }
        Ok((short, adjustments))
    }

    /// Connects one transfer: a new one, or one that an earlier block held.
    pub(super) async fn book_connect(
        &mut self,
        conn: &mut Conn<'_>,
        row: &mut TransferRow,
    ) -> Result<(), ApplyError> {
        match transfer::same_movement(conn, row).await? {
            None => transfer::insert_transfer(conn, row).await?,
            Some(known) if known.status == Status::Orphaned => {
                row.id = known.id;
                row.connections = known.connections + 1;
                row.seen_at = known.seen_at;
                transfer::update_transfer(conn, row).await?;
            }
            Some(known) => {
                return Err(ledger_error(&known, Effect::Connect, LedgerError::Inconsistent));
            }
        }
        self.effect(conn, row, Effect::Connect).await?;
        let class = match (row.counted, row.asset) {
            (false, _) => "unverified",
            (true, AssetKey::Native) => "native",
            (true, AssetKey::Token(_)) => "token",
        };
        self.connected.push((row.kind, class));
        Ok(())
    }

    /// Settles one transfer that is connected.
    pub(super) async fn book_settle(
        &mut self,
        conn: &mut Conn<'_>,
        row: &mut TransferRow,
    ) -> Result<(), ApplyError> {
        self.effect(conn, row, Effect::Settle).await?;
        row.status = Status::Settled;
        row.settled_at = Some(self.now);
        Ok(transfer::update_transfer(conn, row).await?)
    }

    /// Settles the pending transfers of blocks up to `upto`.
    pub(super) async fn settle(
        &mut self,
        conn: &mut Conn<'_>,
        upto: u64,
    ) -> Result<(), ApplyError> {
        let mut rows = transfer::pending_up_to(conn, &self.chain.name, upto).await?;
        for first in [true, false] {
            for row in &mut rows {
                if (row.direction == raising(Effect::Settle)) == first {
                    self.book_settle(conn, row).await?;
                    if row.kind != Kind::Opening {
                        self.settled_after.push(self.now.since(row.block_time).as_secs_f64());
                    }
                }
            }
        }
        for row in &rows {
            self.tell(conn, row).await?;
        }
        Ok(())
    }

    /// Takes transfers back, whatever their status: their blocks are gone.
    pub(super) async fn disconnect(
        &mut self,
        conn: &mut Conn<'_>,
        mut rows: Vec<TransferRow>,
    ) -> Result<(), ApplyError> {
        for first in [true, false] {
            for row in &mut rows {
                if (row.direction == raising(Effect::Disconnect)) == first {
                    if row.status == Status::Settled {
                        self.effect(conn, row, Effect::Unsettle).await?;
                    }
                    self.effect(conn, row, Effect::Disconnect).await?;
                    row.status = Status::Orphaned;
                    row.settled_at = None;
                    row.orphaned_at = Some(self.now);
                    transfer::update_transfer(conn, row).await?;
                }
            }
        }
        for row in &rows {
            self.tell(conn, row).await?;
        }
        Ok(())
    }

    /// Books the balances with which a watch begins, at the cursor's head.
    pub(super) async fn opening(
        &mut self,
        conn: &mut Conn<'_>,
        opening: &Opening,
        cursor: &Cursor,
    ) -> Result<(), ApplyError> {
        let watch = &opening.watch;
        let at = cursor.head.at;
        for balance in &opening.balances {
            let sure = balance.settled.min(balance.total);
            let parts = [
                (Ordinal::OpeningSettled(at.number), sure),
                (Ordinal::OpeningUnsettled(at.number), balance.total.saturating_sub(sure)),
            ];
            for (ordinal, amount) in parts {
                if amount.is_zero() {
                    continue;
                }
                let settled = matches!(ordinal, Ordinal::OpeningSettled(_));
                let movement = Movement {
                    tx: TxId::from(at.hash.0),
                    ordinal,
                    kind: Kind::Opening,
                    asset: balance.asset,
                    from: None,
                    to: Some(watch.address),
                    amount,
                    memo: None,
                };
                let header = Header {
                    at,
                    parent: at,
                    time: u64::try_from(cursor.head.time.seconds()).unwrap_or(0),
                };
                let mut row = self.leg(conn, &header, &movement, watch, Direction::In).await?;
                self.book_connect(conn, &mut row).await?;
                if row.counted {
                    self.balance(conn, row.wallet_id, row.asset).await?.row.frozen = balance.frozen;
                }
                if settled {
                    self.book_settle(conn, &mut row).await?;
                }
            }
        }
        if !watch.activated {
            let family = self.chain.family;
            let data = json!({
                "wallet": WalletRefView {
                    id: watch.wallet_id,
                    address: family.format_address(&watch.address),
                    account_id: watch.account_id,
                    client_reference_id: watch.client_reference_id.clone(),
                },
                "chain": self.chain.name,
                "block": BlockView {
                    number: at.number,
                    hash: family.format_block_hash(&at.hash),
                    time: cursor.head.time,
                },
            });
            let kind = EventType::WalletActivated;
            self.events.push(NewEvent::new(watch.tenant_id, Some(watch.wallet_id), kind, &data));
        }
        Ok(())
    }

    /// Writes an entry and changes the balance, for what counts as money.
    pub(super) async fn effect(
        &mut self,
        conn: &mut Conn<'_>,
        row: &TransferRow,
        effect: Effect,
    ) -> Result<(), ApplyError> {
        if !row.counted {
            return Ok(());
        }
        transfer::insert_entry(conn, row, effect, self.now).await?;
        let at = self.head;
        let held = self.balance(conn, row.wallet_id, row.asset).await?;
        held.row.position = held
            .row
            .position
            .apply(effect, row.direction, row.amount)
            .map_err(|error| ledger_error(row, effect, error))?;
        held.changed_at = Some(at);
        Ok(())
    }

    /// The event that tells where a transfer stands now, with the balance after all of its block.
    pub(super) async fn tell(
        &mut self,
        conn: &mut Conn<'_>,
        row: &TransferRow,
    ) -> Result<(), ApplyError> {
        let Some(kind) = event_type(row) else { return Ok(()) };
        let held = self.balance(conn, row.wallet_id, row.asset).await?.row;
        let buckets = held
            .position
            .buckets(held.locked())
            .map_err(|error| ledger_error(row, Effect::Connect, error))?;
        let wallet = self.wallet(conn, row.wallet_id).await?;
        let asset = self.asset(conn, row.asset).await?;
        let family = self.chain.family;
        let data = json!({
            "wallet": WalletRefView {
                id: row.wallet_id,
                address: family.format_address(&wallet.address),
                account_id: wallet.account_id,
                client_reference_id: wallet.client_reference_id,
            },
            "transfer": TransferView::new(row, &asset, family, self.head),
            "balance": BucketsView::new(&buckets, &asset),
        });
        self.events.push(NewEvent::new(row.tenant_id, Some(row.wallet_id), kind, &data));
        Ok(())
    }

    pub(super) async fn balance(
        &mut self,
        conn: &mut Conn<'_>,
        wallet: WalletId,
        asset: AssetKey,
    ) -> Result<&mut Held, StoreError> {
        let key = (wallet, asset);
        if !self.balances.contains_key(&key) {
            let row = transfer::balance(conn, wallet, &self.chain.name, &asset).await?;
            self.balances.insert(key, Held { row, changed_at: None });
        }
        self.balances
            .get_mut(&key)
            .ok_or_else(|| StoreError::corrupt("a balance just read is gone"))
    }

    /// An asset; one that nobody configured is recorded as unverified.
    async fn asset(&mut self, conn: &mut Conn<'_>, key: AssetKey) -> Result<AssetRow, StoreError> {
        if let Entry::Vacant(slot) = self.assets.entry(key) {
            let known = chain::asset(conn, &self.chain.name, &key).await?;
            let row = if let Some(row) = known {
                row
            } else {
                let row = AssetRow {
                    chain: self.chain.name.clone(),
                    key,
                    caip19: self.chain.caip19(&key),
                    symbol: None,
                    name: None,
                    decimals: None,
                    verified: false,
                };
                chain::insert_unverified_asset(conn, &row, self.now).await?;
                row
            };
            slot.insert(row);
        }
        Ok(self.assets[&key].clone())
    }

    pub(super) async fn wallet(
        &mut self,
        conn: &mut Conn<'_>,
        id: WalletId,
    ) -> Result<WalletRef, StoreError> {
        if let Entry::Vacant(slot) = self.wallets.entry(id) {
            slot.insert(watch::wallet_ref(conn, id).await?);
        }
        Ok(self.wallets[&id].clone())
    }

    /// Writes the changed balances; gives the events, which the caller appends.
    pub(super) async fn finish(
        &mut self,
        conn: &mut Conn<'_>,
    ) -> Result<Vec<NewEvent>, StoreError> {
        for ((wallet, asset), held) in &self.balances {
            if let Some(block) = held.changed_at {
                let name = &self.chain.name;
                transfer::write_balance(conn, *wallet, name, asset, &held.row, block, self.now)
                    .await?;
            }
        }
        Ok(std::mem::take(&mut self.events))
    }

    /// Counts what was committed.
    pub(super) fn report(&self, metrics: &Metrics) {
        let name = self.chain.name.as_str();
        for (kind, class) in &self.connected {
            metrics.transfers_total.with_label_values(&[name, kind.as_str(), *class]).inc();
        }
        for seconds in &self.settled_after {
            metrics.settlement_delay_seconds.with_label_values(&[name]).observe(*seconds);
        }
        self.comparisons.report(&self.chain, metrics);
        for status in &self.deployments {
            metrics.safe_deployments.with_label_values(&[name, *status]).inc();
        }
    }
}

pub(super) fn ledger_error(row: &TransferRow, effect: Effect, error: LedgerError) -> ApplyError {
    let context = format!(
        "{} of transfer {} ({}, {} {}, wallet {}, block {})",
        effect, row.id, row.ordinal, row.direction, row.amount, row.wallet_id, row.block.number
    );
    ApplyError::Ledger { context, error }
}

/// Which event tells of a transfer's status. Openings are told by `wallet.activated`; a fee by the balance
/// in the event of what it was paid for; an adjustment when it is booked, not again when it settles; what is
/// not money by none.
fn event_type(row: &TransferRow) -> Option<EventType> {
    if !row.counted {
        return None;
    }
    match (row.kind, row.direction, row.status) {
        (Kind::Opening | Kind::Fee, ..) => None,
        (Kind::Adjustment, _, Status::Settled) if !row.is_proven() => None,
        (Kind::Adjustment, ..) => Some(EventType::BalanceAdjusted),
        (_, Direction::In, Status::Pending) => Some(EventType::DepositPending),
        (_, Direction::In, Status::Settled) => Some(EventType::DepositAvailable),
        (_, Direction::In, Status::Orphaned) => Some(EventType::DepositOrphaned),
        (_, Direction::Out, Status::Pending) => Some(EventType::WithdrawalPending),
        (_, Direction::Out, Status::Settled) => Some(EventType::WithdrawalSettled),
        (_, Direction::Out, Status::Orphaned) => Some(EventType::WithdrawalOrphaned),
    }
}
