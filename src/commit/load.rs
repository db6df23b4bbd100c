//! Loading what a step needs, in a fixed number of statements.
//!
//! It is read outside of the transaction that writes: the chain's follower is the only one who changes most of
//! it, and what others may change is compared again when it is written.

use super::hot::Hot;
use crate::{
    amount::Amount,
    chain::{Address, AssetKey, TxId},
    id::WalletId,
    ledger::{
        Known,
        backfill::{Participant, Range, ScanMove, Side},
        connect::Blocks,
        known::{
            HashMap, HashSet, KnownDeployments, KnownProofs, MatchedBlock, mark, marks, opening,
        },
        opening::Opening,
        reconcile::{Comparison, Figure, compare},
        rollback::Gone,
    },
    model::{
        Asset, AssetNo, BlockPoint, ChainInfo, Cursor, Direction, ScanNo, Status, Transfer,
        WalletNo, Watch,
    },
    store::{
        Conn, Db, StoreError, asset, asset_opening, balance, chain, correction, participant, safe,
        transfer, watch,
    },
};

/// The store as a step reads it.
pub(super) struct Step<'a> {
    pub(super) db: &'a Db,
    pub(super) chain: &'a ChainInfo,
}

impl<'a> Step<'a> {
    pub fn new(db: &'a Db, chain: &'a ChainInfo) -> Self {
        Self { db, chain }
    }

    pub async fn for_blocks(
        &self,
        cursor: &Cursor,
        input: &Blocks<'_>,
        hot: &mut Hot,
    ) -> Result<(KnownDeployments, Vec<Transfer>), StoreError> {
        hot.begin(cursor);
        let mut session = self.db.read().await?;
        let conn = &mut session.conn();
        let movements = || input.blocks.iter().flat_map(|block| &block.movements);
        let touched = || input.blocks.iter().flat_map(|block| &block.touched);
        let addresses: HashSet<Address> = movements()
            .flat_map(|movement| [movement.from, movement.to])
            .flatten()
            .chain(touched().map(|(query, _)| query.address))
            .collect();
        let unknown = hot.unknown_addresses(addresses);
        hot.learn_watches(watch::open_by_address(conn, cursor.no, &unknown, None).await?);
        let pending = if input.settled.at.number > cursor.settled.at.number {
            transfer::pending_up_to(conn, cursor.no, input.settled.at.number).await?
        } else {
            Vec::new()
        };
        let watches = &hot.known.watches;
        let watching = movements()
            .flat_map(|movement| [movement.from, movement.to])
            .flatten()
            .chain(touched().map(|(query, _)| query.address))
            .filter_map(|address| watches.get(&address))
            .flatten()
            .map(|watch| watch.wallet);
        let wallets: HashSet<WalletNo> = watching.chain(wallets_of(&pending)).collect();
        let keys: HashSet<AssetKey> = movements()
            .map(|movement| movement.asset)
            .chain(touched().map(|(query, _)| query.asset))
            .collect();
        self.learn(conn, cursor, hot, wallets, keys, &pending).await?;
        if transfer::has_unsettled(conn).await? {
            let mut wanted = Vec::new();
            for MatchedBlock { header, movements, .. } in input.blocks {
                wanted.extend(marks(self.chain, &hot.known.watches, header.at, movements));
            }
            hot.known.unsettled = transfer::marked(conn, wanted).await?.into_iter().collect();
        }
        let tracked: Vec<TxId> =
            input.blocks.iter().flat_map(|block| block.tracked.iter().copied()).collect();
        let safes = self.deployments(conn, cursor, &tracked).await?;
        Ok((safes, pending))
    }

    /// For what moved inside the transactions of a connected block: the watches that had begun before it, and what
    /// is pending from it on of those wallets that have corrections there or lose something in it.
    pub async fn for_traced(
        &self,
        cursor: &Cursor,
        block: &MatchedBlock,
    ) -> Result<(Known, Vec<Transfer>), StoreError> {
        let MatchedBlock { header, movements, .. } = block;
        let mut session = self.db.read().await?;
        let conn = &mut session.conn();
        let sides = movements.iter().flat_map(|movement| [movement.from, movement.to]).flatten();
        let addresses: HashSet<Address> = sides.collect();
        let addresses: Vec<Address> = addresses.into_iter().collect();
        let number = header.at.number;
        let watches = watch::open_by_address(conn, cursor.no, &addresses, Some(number)).await?;
        let wallets: HashSet<WalletNo> =
            watches.values().flatten().map(|watch| watch.wallet).collect();
        let wallets: Vec<WalletNo> = wallets.into_iter().collect();
        let balances = balance::of_wallets(conn, cursor.no, &wallets).await?;
        let keys: HashSet<AssetKey> = movements.iter().map(|movement| movement.asset).collect();
        let keys = keys.into_iter().chain([AssetKey::Native]).collect();
        let assets = assets(conn, cursor, keys, Vec::new()).await?;
        let wanted = marks(self.chain, &watches, header.at, movements).collect();
        let unsettled = transfer::marked(conn, wanted).await?.into_iter().collect();
        let mut walked = correction::corrected_from(conn, cursor.no, &wallets, number).await?;
        let losing = movements.iter().filter_map(|movement| watches.get(&movement.from?));
        walked.extend(losing.flatten().map(|watch| watch.wallet));
        let walked: Vec<WalletNo> = walked.into_iter().collect();
        let pending = correction::pending_of(conn, cursor.no, &walked, number).await?;
        Ok((Known { watches, balances, assets, unsettled }, pending))
    }

    pub async fn for_settling(
        &self,
        cursor: &Cursor,
        settled: BlockPoint,
        figures: &[Figure],
        hot: &mut Hot,
    ) -> Result<Vec<Transfer>, StoreError> {
        hot.begin(cursor);
        let mut session = self.db.read().await?;
        let conn = &mut session.conn();
        let pending = transfer::pending_up_to(conn, cursor.no, settled.at.number).await?;
        let compared = figures.iter().map(|figure| figure.balance.wallet);
        let wallets: HashSet<WalletNo> = compared.chain(wallets_of(&pending)).collect();
        let keys: HashSet<AssetKey> = figures.iter().map(|figure| figure.balance.key).collect();
        self.learn(conn, cursor, hot, wallets, keys, &pending).await?;
        Ok(pending)
    }

    /// Reads what is not known yet of some wallets' balances and of some assets.
    async fn learn(
        &self,
        conn: &mut Conn<'_>,
        cursor: &Cursor,
        hot: &mut Hot,
        wallets: HashSet<WalletNo>,
        mut keys: HashSet<AssetKey>,
        pending: &[Transfer],
    ) -> Result<(), StoreError> {
        let unknown = hot.unknown_wallets(wallets);
        let balances = balance::of_wallets(conn, cursor.no, &unknown).await?;
        hot.learn_balances(unknown, balances);
        keys.insert(AssetKey::Native);
        let unknown = hot.unknown_assets(keys);
        if !unknown.is_empty() {
            hot.learn_assets(asset::by_keys(conn, cursor.no, &unknown).await?);
        }
        let numbers = pending.iter().map(|transfer| transfer.asset).collect();
        let unknown = hot.unknown_numbers(&numbers);
        hot.learn_assets(asset::by_numbers(conn, &unknown).await?.into_values());
        Ok(())
    }

    pub async fn for_balances(
        &self,
        cursor: &Cursor,
        figures: &[Figure],
    ) -> Result<Known, StoreError> {
        let mut session = self.db.read().await?;
        let conn = &mut session.conn();
        let wallets: Vec<WalletNo> = figures.iter().map(|figure| figure.balance.wallet).collect();
        let balances = balance::of_wallets(conn, cursor.no, &wallets).await?;
        let keys: HashSet<AssetKey> = figures.iter().map(|figure| figure.balance.key).collect();
        let assets = assets(conn, cursor, keys, Vec::new()).await?;
        Ok(Known { balances, assets, ..Known::default() })
    }

    /// What is known beside figures that differ from the ledger's.
    pub async fn for_figures(
        &self,
        cursor: &Cursor,
        known: &mut Known,
        at: BlockPoint,
        figures: &[Figure],
    ) -> Result<KnownProofs, StoreError> {
        let differs = |Figure { balance, holding, .. }: &&Figure| {
            let key = (balance.wallet, balance.asset);
            let position = known.balances.get(&key).copied().unwrap_or_default().position;
            // What settles now is settled in comparing; a balance that only differs by that is read for nothing.
            compare(position, holding.total) != Comparison::Equal
        };
        let wallets: Vec<WalletNo> =
            figures.iter().filter(differs).map(|figure| figure.balance.wallet).collect();
        let mut session = self.db.read().await?;
        let conn = &mut session.conn();
        let number = at.at.number;
        let unfinished = correction::unfinished(conn, cursor.no, &wallets, number).await?;
        let adjustments = correction::adjustments_at(conn, &wallets, at.time).await?;
        // Those that were taken back may be booked again, as what they were.
        let (gone, stand): (Vec<Transfer>, Vec<Transfer>) =
            adjustments.into_iter().partition(|row| row.status == Status::Orphaned);
        known.unsettled = gone.into_iter().collect();
        let booked = stand.into_iter().map(|row| (row.wallet, row.id)).collect();
        Ok(KnownProofs { unfinished, booked })
    }

    pub async fn for_rollback(
        &self,
        cursor: &Cursor,
        fork: u64,
        below_settled: bool,
    ) -> Result<(Known, Gone), StoreError> {
        let mut session = self.db.read().await?;
        let conn = &mut session.conn();
        let reopened = watch::opened_above(conn, cursor.no, fork).await?;
        let anew: Vec<WalletNo> = reopened.iter().map(|(wallet, _)| *wallet).collect();
        let mut transfers = transfer::pending_above(conn, cursor.no, fork).await?;
        let mut remembered = None;
        if below_settled {
            let applied = chain::block_at_or_below(conn, cursor.no, fork).await?;
            remembered = applied.map(|block| block.at).filter(|at| at.number == fork);
            let settled = transfer::settled_above(conn, cursor.no, fork).await?;
            let begun_anew: HashSet<&WalletNo> = anew.iter().collect();
            transfers.extend(settled.into_iter().filter(|row| !begun_anew.contains(&row.wallet)));
        }
        // A watch that begins anew begins with nothing: neither the settled part of its opening stays, nor
        // what explains it from before.
        transfers.extend(transfer::settled_of(conn, cursor.no, &anew).await?);
        let deployments = safe::processing_above(conn, cursor.no, fork).await?;
        // An asset that began to count above the fork begins anew for these wallets.
        let openings = asset_opening::above(conn, cursor.no, fork).await?;
        for opening in &openings {
            let settled = transfer::settled_openings_above(conn, cursor.no, opening, fork).await?;
            transfers.extend(settled);
        }
        let mut taken = HashSet::default();
        transfers.retain(|row| taken.insert(row.no));
        let numbers: Vec<AssetNo> = openings.iter().map(|opening| opening.asset).collect();
        let listed = asset::by_numbers(conn, &numbers).await?;
        let asset_openings = openings
            .into_iter()
            .filter_map(|opening| Some((opening, listed.get(&opening.asset)?.clone())))
            .collect();
        let wallets: Vec<WalletNo> = wallets_of(&transfers).collect();
        let balances = balance::of_wallets(conn, cursor.no, &wallets).await?;
        let assets = assets(conn, cursor, HashSet::default(), pending_assets(&transfers)).await?;
        let known = Known { balances, assets, ..Known::default() };
        Ok((known, Gone { transfers, reopened, deployments, asset_openings, remembered }))
    }

    pub async fn for_openings(
        &self,
        cursor: &Cursor,
        openings: &[Opening],
    ) -> Result<Known, StoreError> {
        let mut session = self.db.read().await?;
        let conn = &mut session.conn();
        let wallets: Vec<WalletNo> = openings.iter().map(|opening| opening.watch.wallet).collect();
        let balances = balance::of_wallets(conn, cursor.no, &wallets).await?;
        let held = openings.iter().flat_map(|opening| &opening.balances);
        let keys: HashSet<AssetKey> = held.map(|held| held.asset).collect();
        let assets = assets(conn, cursor, keys, Vec::new()).await?;
        // A watch that was taken back and begins again at the same block has its openings still.
        let at = cursor.head.at;
        let mut marks = Vec::new();
        for Opening { watch, balances, .. } in openings {
            for held in balances {
                for settled in [true, false] {
                    let zero = Amount::ZERO;
                    let movement = opening(at, settled, watch.address, held.asset, zero);
                    marks.push(mark(self.chain, watch.wallet_id, &movement, Direction::In));
                }
            }
        }
        let unsettled = transfer::marked(conn, marks).await?.into_iter().collect();
        Ok(Known { balances, assets, unsettled, ..Known::default() })
    }

    pub async fn assets(
        &self,
        cursor: &Cursor,
        known: &mut Known,
        keys: &[AssetKey],
    ) -> Result<(), StoreError> {
        let mut session = self.db.read().await?;
        let found = asset::by_keys(&mut session.conn(), cursor.no, keys).await?;
        known.assets.extend(found.into_iter().map(|asset| (asset.key, asset)));
        Ok(())
    }

    pub async fn for_backfill(
        &self,
        cursor: &Cursor,
        scans: &[ScanMove],
        range: Range<'_>,
        hot: &mut Hot,
    ) -> Result<Vec<Participant>, StoreError> {
        hot.begin(cursor);
        let mut session = self.db.read().await?;
        let conn = &mut session.conn();
        let moved = || {
            let of = |side: &Side| side.of(range.blocks).map(|(_, movement)| (*side, movement));
            range.sides.iter().filter_map(of)
        };
        let mut addresses: Vec<Address> = range.sides.iter().map(|side| side.address).collect();
        addresses.dedup();
        let seen = |scan: &ScanMove| {
            let own = (scan.no, scan.seen.number);
            scan.absorbs.iter().copied().chain([own]).collect::<Vec<_>>()
        };
        let scans: Vec<(ScanNo, u64)> = scans.iter().flat_map(seen).collect();
        let mut participants =
            participant::participants(conn, cursor.no, &scans, &addresses).await?;
        let wallets: Vec<WalletNo> =
            participants.iter().map(|participant| participant.watch.wallet).collect();
        let mut openings: HashMap<WalletNo, Vec<Transfer>> = HashMap::default();
        for opening in transfer::openings(conn, cursor.no, &wallets).await? {
            openings.entry(opening.wallet).or_default().push(opening);
        }
        let keys: HashSet<AssetKey> = moved().map(|(_, movement)| movement.asset).collect();
        let wallets = wallets.into_iter().collect();
        self.learn(conn, cursor, hot, wallets, keys.clone(), &[]).await?;
        let mut watching: HashMap<Address, Vec<WalletId>> = HashMap::default();
        for Participant { watch, openings: known, .. } in &mut participants {
            *known = openings.remove(&watch.wallet).unwrap_or_default();
            watching.entry(watch.address).or_default().push(watch.wallet_id);
        }
        if transfer::has_unsettled(conn).await? {
            let mut wanted = Vec::new();
            for (Side { address, direction, .. }, movement) in moved() {
                let wallets = watching.get(&address).into_iter().flatten();
                wanted.extend(wallets.map(|id| mark(self.chain, *id, movement, direction)));
            }
            for Participant { watch, from_block, .. } in &participants {
                let Watch { wallet_id, address, .. } = watch;
                let start = range.start(*from_block).at;
                for &asset in &keys {
                    let movement = opening(start, true, *address, asset, Amount::ZERO);
                    wanted.push(mark(self.chain, *wallet_id, &movement, Direction::In));
                }
            }
            hot.known.unsettled = transfer::marked(conn, wanted).await?.into_iter().collect();
        }
        Ok(participants)
    }
}

fn wallets_of(transfers: &[Transfer]) -> impl Iterator<Item = WalletNo> {
    transfers.iter().map(|transfer| transfer.wallet)
}

fn pending_assets(transfers: &[Transfer]) -> Vec<AssetNo> {
    transfers.iter().map(|transfer| transfer.asset).collect()
}

/// The assets of a step, by what they are on the chain.
pub(super) async fn assets(
    conn: &mut Conn<'_>,
    cursor: &Cursor,
    keys: HashSet<AssetKey>,
    numbers: Vec<AssetNo>,
) -> Result<HashMap<AssetKey, Asset>, StoreError> {
    let keys: Vec<AssetKey> = keys.into_iter().collect();
    let found = asset::by_keys(conn, cursor.no, &keys).await?;
    let mut known: HashMap<_, _> = found.into_iter().map(|asset| (asset.key, asset)).collect();
    let found: HashSet<AssetNo> = known.values().map(|asset| asset.no).collect();
    let missing: Vec<AssetNo> = numbers.into_iter().filter(|no| !found.contains(no)).collect();
    let rest = asset::by_numbers(conn, &missing).await?;
    known.extend(rest.into_values().map(|asset| (asset.key, asset)));
    Ok(known)
}
