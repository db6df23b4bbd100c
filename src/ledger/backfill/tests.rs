//! The promises of a history, for any past, however its blocks are cut into ranges.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::{
    chain::{BlockHash, Kind, Ordinal, TxId},
    ledger::{
        Replay,
        testing::{asset, chain, cursor, watch, who},
    },
    model::{Balance, Position, TransferNo, WalletNo},
};

fn assets() -> [AssetKey; 2] {
    [AssetKey::Native, AssetKey::Token(Address::from([0xee; 20]))]
}

/// Who pays whom how much of what; nobody is 0.
#[derive(Clone, Copy, Debug)]
struct Payment {
    from: u8,
    to: u8,
    asset: usize,
    amount: u64,
}

fn at(number: u64) -> BlockRef {
    let mut hash = [3; 32];
    hash[..8].copy_from_slice(&number.to_be_bytes());
    BlockRef { number, hash: BlockHash(hash) }
}

fn point(number: u64) -> BlockPoint {
    BlockPoint { at: at(number), time: Millis::from_seconds(1_700_000_000 + number) }
}

fn block(number: u64, payments: &[Payment]) -> HistoryBlock {
    let header = Header { at: at(number), parent: at(number - 1), time: 1_700_000_000 + number };
    let movement = |(index, payment): (usize, &Payment)| Movement {
        tx: TxId::from([u8::try_from(number).unwrap(); 32]),
        ordinal: Ordinal::Log(u32::try_from(index).unwrap()),
        kind: Kind::Transfer,
        asset: assets()[payment.asset],
        from: (payment.from > 0).then(|| who(payment.from)),
        to: (payment.to > 0).then(|| who(payment.to)),
        amount: payment.amount.into(),
        memo: None,
    };
    let movements = payments.iter().enumerate().map(movement).collect();
    HistoryBlock { movements, ..HistoryBlock::empty(header) }
}

/// A chain's past in which nobody spends more than there is: by block, from 1 on.
fn pasts() -> impl Strategy<Value = Vec<Vec<Payment>>> {
    let payment = (0..4_u8, 0..4_u8, 0..2_usize, 0..100_u64);
    let requests = proptest::collection::vec(proptest::collection::vec(payment, 0..4), 1..25);
    requests.prop_map(|blocks| {
        let mut held = [[0_u64; 4]; 2];
        blocks
            .into_iter()
            .map(|block| {
                block
                    .into_iter()
                    .map(|(from, to, asset, amount)| {
                        let held = &mut held[asset];
                        let amount =
                            if from > 0 { amount.min(held[usize::from(from)]) } else { amount };
                        if from > 0 {
                            held[usize::from(from)] -= amount;
                        }
                        if to > 0 {
                            held[usize::from(to)] += amount;
                        }
                        Payment { from, to, asset, amount }
                    })
                    .collect()
            })
            .collect()
    })
}

fn held(pasts: &[Vec<Payment>], upto: u64, wallet: u8, asset: usize) -> Amount {
    let blocks = pasts.iter().take(usize::try_from(upto).unwrap());
    let of_asset = blocks.flatten().filter(|payment| payment.asset == asset);
    let sum = of_asset.fold(0_u64, |sum, payment| {
        let sum = if payment.to == wallet { sum + payment.amount } else { sum };
        if payment.from == wallet { sum - payment.amount } else { sum }
    });
    sum.into()
}

/// The store in memory.
struct World {
    chain: ChainInfo,
    cursor: Cursor,
    known: Known,
    transfers: BTreeMap<TransferNo, Transfer>,
    /// Connections that another stands for.
    replaced: BTreeSet<TransferNo>,
    entries: Vec<(TransferNo, EntryKind, Amount)>,
    participants: Vec<Participant>,
    /// How far each history is; `None` once it has ended.
    next: BTreeMap<WalletNo, Option<u64>>,
    ended: Vec<HistoryEnd>,
}

impl World {
    /// Wallets 1 to 3 that opened at the chain's head, asking for their past since some block.
    fn opened(pasts: &[Vec<Payment>], since: [u64; 3]) -> Self {
        let head = pasts.len() as u64;
        let chain = chain();
        let mut cursor = cursor(&chain, point(head), 2);
        let by_key = (0..).zip(assets()).map(|(n, key)| (key, asset(&chain, n, key))).collect();
        let mut known = Known { assets: by_key, ..Known::default() };
        let (mut transfers, mut entries) = (BTreeMap::new(), Vec::new());
        let mut participants = Vec::new();
        for (wallet, from_block) in (1..=3_u8).zip(since) {
            let watch = watch(wallet);
            for (index, key) in assets().into_iter().enumerate() {
                let amount = held(pasts, head, wallet, index);
                if amount.is_zero() {
                    continue;
                }
                let movement = opening(at(head), true, watch.address, key, amount);
                let header = block(head, &[]).header;
                let mut posting = Posting::new(
                    &chain,
                    &known,
                    &cursor,
                    cursor.clone(),
                    Millis(0),
                    CommitKind::History,
                );
                let mut side =
                    posting.side(&header, &movement, watch.owner(), Direction::In).unwrap();
                posting.connect_settled(&mut side).unwrap();
                posting.book(side, true);
                let changes = posting.finish().unwrap();
                cursor = changes.cursor;
                transfers.extend(changes.transfers.into_iter().map(|row| (row.no, row)));
                entries.extend(changes.entries.iter().map(|e| (e.transfer, e.kind, e.amount)));
                for change in changes.balances {
                    known.balances.insert((change.wallet, change.asset), change.balance);
                }
            }
            participants.push(Participant {
                watch,
                seen: head,
                opened: at(head),
                from_block,
                openings: Vec::new(),
            });
        }
        let next = participants.iter().map(|one| (one.watch.wallet, Some(head))).collect();
        let ended = Vec::new();
        let replaced = BTreeSet::new();
        Self { chain, cursor, known, transfers, replaced, entries, participants, next, ended }
    }

    /// Books the blocks above `below` that were not booked yet, in pieces of about `most` sides, and is killed after
    /// `pieces` of them.
    fn read_down_to(&mut self, blocks: &[HistoryBlock], below: u64, most: usize, pieces: usize) {
        let top = self.next.values().flatten().max().copied().unwrap_or(0);
        let inside = |past: &&HistoryBlock| (below + 1..=top).contains(&past.header.at.number);
        let blocks: Vec<HistoryBlock> = blocks.iter().rev().filter(inside).cloned().collect();
        let sides = sides(&blocks, &assets(), |_| true);
        let mut left = sides.as_slice();
        for _ in 0..pieces {
            let piece = piece(left, most);
            let (own, rest) = left.split_at(piece.sides);
            let own_blocks = &blocks[..piece.blocks.unwrap_or(blocks.len())];
            let below = blocks.get(own_blocks.len()).map_or(below, |next| next.header.at.number);
            let is_last = rest.is_empty();
            self.book(Range { blocks: own_blocks, below: point(below), sides: own, is_last });
            if is_last {
                return;
            }
            left = rest;
        }
    }

    /// Histories that need a block above `below`, as they stand.
    fn participants(&self, below: u64) -> Vec<Participant> {
        let is_one = |one: &&Participant| self.next[&one.watch.wallet].is_some_and(|it| it > below);
        let participants = self.participants.iter().filter(is_one).map(|one| {
            let wallet = one.watch.wallet;
            let standing = self.transfers.values().filter(|row| {
                row.wallet == wallet && row.kind == Kind::Opening && row.status == Status::Settled
            });
            let openings = standing.cloned().collect();
            Participant { seen: self.next[&wallet].unwrap(), openings, ..one.clone() }
        });
        participants.collect()
    }

    fn book(&mut self, range: Range<'_>) {
        let below = range.below.at.number;
        // The store gives all who moved, however far ahead they are.
        let all = self.participants(0);
        let moved =
            |one: &&Participant| range.sides.iter().any(|side| side.address == one.watch.address);
        let moved: Vec<Participant> = all.into_iter().filter(|one| moved(&one)).collect();
        let changes = loop {
            let (chain, cursor, known) = (&self.chain, &self.cursor, &self.known);
            match backfill(chain, cursor, known, &moved, &[], range, Millis(0)) {
                Ok(changes) => break changes,
                Err(refused) => {
                    let token = refused.culprit.expect("only a token is refused").token;
                    let asset = self.known.assets.values_mut().find(|asset| asset.no == token);
                    assert!(std::mem::replace(&mut asset.unwrap().verified, false));
                }
            }
        };
        assert!(changes.events.is_empty(), "the past is no news");
        self.cursor = changes.cursor;
        self.entries.extend(changes.entries.iter().map(|e| (e.transfer, e.kind, e.amount)));
        for update in changes.updates {
            let (TransferUpdate::Orphaned { no, .. }
            | TransferUpdate::Replaced(no)
            | TransferUpdate::Early(no, _)
            | TransferUpdate::Settled(no, _)) = update;
            self.transfers.get_mut(&no).unwrap().status = Status::Orphaned;
            if matches!(update, TransferUpdate::Replaced(_)) {
                self.replaced.insert(no);
            }
        }
        self.transfers.extend(changes.transfers.into_iter().map(|row| (row.no, row)));
        for change in changes.balances {
            self.known.balances.insert((change.wallet, change.asset), change.balance);
        }
        assert_eq!(changes.watches.scans.is_some(), range.is_last);
        let moves_on = changes.watches.ahead.map(|(_, wallets)| wallets);
        for one in &self.participants {
            let wallet = one.watch.wallet;
            let Some(before) = self.next[&wallet] else { continue };
            let next = match &moves_on {
                // As the store writes it: whatever stood there before.
                Some(wallets) if wallets.contains(&wallet) => below,
                Some(_) => before,
                None => before.min(below),
            };
            self.next.insert(wallet, Some(next).filter(|next| *next >= one.from_block.max(1)));
        }
        for end in changes.watches.ended {
            self.next.insert(end.wallet, None);
            self.ended.push(end);
        }
    }

    /// What stands of a wallet: block, place, direction, asset and amount.
    fn standing(&self, wallet: u8) -> Vec<(u64, String, Direction, AssetNo, Amount)> {
        let mut rows: Vec<_> = self
            .transfers
            .values()
            .filter(|row| row.wallet.0 == i64::from(wallet) && row.status == Status::Settled)
            .map(|row| {
                let place = row.ordinal.to_string();
                (row.block.number, place, row.direction, row.asset, row.amount)
            })
            .collect();
        rows.sort();
        rows
    }

    fn positions(&self) -> BTreeMap<(WalletNo, AssetNo), Position> {
        let balances = self.known.balances.iter();
        let held = |balance: &Balance| balance.position;
        balances
            .map(|(key, balance)| (*key, held(balance)))
            .filter(|(_, position)| *position != Position::default())
            .collect()
    }

    fn replayed(&self) -> BTreeMap<(WalletNo, AssetNo), Position> {
        let mut sums: BTreeMap<(WalletNo, AssetNo), Replay> = BTreeMap::new();
        for (no, kind, amount) in &self.entries {
            let row = &self.transfers[no];
            sums.entry((row.wallet, row.asset)).or_default().add(*kind, row.direction, *amount);
        }
        sums.into_iter()
            .map(|(key, sum)| (key, sum.position()))
            .filter(|(_, position)| *position != Position::default())
            .collect()
    }
}

fn blocks(pasts: &[Vec<Payment>]) -> Vec<HistoryBlock> {
    (1..).zip(pasts).map(|(number, payments)| block(number, payments)).collect()
}

proptest! {
    #[test]
    fn pieces_hold_each_side_once_and_all_that_happened_to_an_address_above_a_block(
        pasts in pasts(),
        most in 1..12_usize,
    ) {
        let blocks: Vec<HistoryBlock> = blocks(&pasts).into_iter().rev().collect();
        let sides = sides(&blocks, &assets(), |_| true);
        // What moves nothing is no side.
        let movements: usize = pasts.iter().flatten().filter(|one| one.amount > 0).map(|one| {
            usize::from(one.from > 0) + usize::from(one.to > 0)
        }).sum();
        prop_assert_eq!(sides.len(), movements);
        let mut left = sides.as_slice();
        while !left.is_empty() {
            let Piece { sides, blocks: covered } = piece(left, most);
            let (own, rest) = left.split_at(sides);
            prop_assert!(!own.is_empty());
            let mut addresses: Vec<Address> = own.iter().map(|side| side.address).collect();
            addresses.dedup();
            let of_one = addresses.len() == 1;
            let largest = own.chunk_by(|a, b| a.block == b.block).map(<[Side]>::len).max();
            prop_assert!(own.len() <= most || of_one && Some(own.len()) == largest);
            match covered {
                None => prop_assert!(rest.iter().all(|side| !addresses.contains(&side.address))),
                Some(covered) => {
                    prop_assert!(of_one, "only what is too much for one commit is parted");
                    prop_assert!(own.iter().all(|side| side.block < covered));
                    let mut later = rest.iter().filter(|side| side.address == addresses[0]);
                    prop_assert!(later.all(|side| side.block >= covered));
                }
            }
            left = rest;
        }
    }

    #[test]
    fn any_cut_of_one_past_ends_in_the_same_transfers_and_openings_and_changes_no_balance(
        pasts in pasts(),
        since in [0..26_u64, 0..26, 0..26],
        cuts in proptest::collection::btree_set(1..25_u64, 0..6),
        most in 1..12_usize,
        killed_after in 0..4_usize,
        most_before in 1..12_usize,
        further in 0..4_u64,
    ) {
        let head = pasts.len() as u64;
        let since = since.map(|from| from.min(head));
        let blocks = blocks(&pasts);
        let mut world = World::opened(&pasts, since);
        let before = world.positions();
        for cut in cuts.into_iter().rev().filter(|cut| *cut < head).chain([0]) {
            // Before the kill the cuts were others.
            world.read_down_to(&blocks, cut.saturating_sub(further), most_before, killed_after);
            prop_assert_eq!(&world.positions(), &before, "the sum stays");
            prop_assert_eq!(&world.replayed(), &before, "and its entries explain it");
            world.read_down_to(&blocks, cut, most, usize::MAX);
            prop_assert_eq!(&world.positions(), &before, "after the rest, too");
            prop_assert_eq!(&world.replayed(), &before);
            for wallet in 1..=3_u8 {
                // After every range the openings are what the chain had at its end, or further down.
                let from = since[usize::from(wallet) - 1].max(1);
                let next = world.next[&WalletNo(wallet.into())];
                prop_assert!(next.is_none_or(|next| next <= cut));
                let below = next.unwrap_or(0).max(from - 1);
                for (index, asset) in assets().into_iter().enumerate() {
                    let no = world.known.assets[&asset].no;
                    let opened = world.standing(wallet).into_iter().filter(|row| {
                        row.1.starts_with("opening") && row.3 == no
                    });
                    let opened = opened.fold(Amount::ZERO, |sum, row| {
                        sum.checked_add(row.4).unwrap()
                    });
                    prop_assert_eq!(opened, held(&pasts, below, wallet, index));
                }
            }
        }
        let mut whole = World::opened(&pasts, since);
        whole.read_down_to(&blocks, 0, usize::MAX, 1);
        for wallet in 1..=3_u8 {
            let from = since[usize::from(wallet) - 1].max(1);
            let transfers = |world: &World| -> Vec<_> {
                let rows = world.standing(wallet).into_iter();
                rows.filter(|row| !row.1.starts_with("opening")).collect()
            };
            prop_assert_eq!(transfers(&world), transfers(&whole));
            let told = (from..=head).flat_map(|number| {
                pasts[usize::try_from(number).unwrap() - 1].iter().flat_map(move |payment| {
                    let sides = [payment.from, payment.to].into_iter();
                    let own = sides.filter(move |side| *side == wallet && payment.amount > 0);
                    own.map(move |_| number)
                })
            });
            let found: Vec<u64> = transfers(&world).into_iter().map(|row| row.0).collect();
            prop_assert_eq!(found, told.collect::<Vec<u64>>(), "each side once");
        }
        prop_assert!(world.ended.is_empty());
    }

    #[test]
    fn a_past_that_contradicts_its_opening_ends_for_that_wallet_alone(
        pasts in pasts(),
        invented in 1..25_u64,
        amount in 1..1_000_u64,
    ) {
        let head = pasts.len() as u64;
        let mut blocks = blocks(&pasts);
        let mut world = World::opened(&pasts, [0; 3]);
        let before = world.positions();
        // Somebody got more, as the blocks have it, than there is now, and did not spend it.
        let number = invented.min(head);
        let more = held(&pasts, head, 2, 0).get() + alloy::primitives::U256::from(amount);
        let more = u64::try_from(more).unwrap();
        let spent: u64 = pasts.iter().flatten().filter(|one| one.from == 2 && one.asset == 0)
            .map(|one| one.amount).sum();
        let lie = Payment { from: 0, to: 2, asset: 0, amount: more + spent };
        let real = &pasts[usize::try_from(number).unwrap() - 1];
        let with_lie: Vec<Payment> = real.iter().copied().chain([lie]).collect();
        blocks[usize::try_from(number).unwrap() - 1] = block(number, &with_lie);
        world.read_down_to(&blocks, 0, usize::MAX, 1);
        prop_assert_eq!(&world.positions(), &before);
        prop_assert_eq!(&world.replayed(), &before);
        let ended: Vec<i64> = world.ended.iter().map(|end| end.wallet.0).collect();
        prop_assert_eq!(ended, [2], "and nothing of it is booked");
        prop_assert!(world.standing(2).iter().all(|row| row.0 == head));
        let mut honest = World::opened(&pasts, [0; 3]);
        honest.read_down_to(&self::blocks(&pasts), 0, usize::MAX, 1);
        for wallet in [1, 3] {
            prop_assert_eq!(world.standing(wallet), honest.standing(wallet));
        }
    }

    #[test]
    fn a_token_that_no_balance_can_hold_is_left_out_of_the_past_and_all_else_is_found(
        pasts in pasts(),
        absurd in 1..25_u64,
        cut in 0..25_u64,
    ) {
        let mut blocks = blocks(&pasts);
        let mut world = World::opened(&pasts, [0; 3]);
        let before = world.positions();
        let number = absurd.min(pasts.len() as u64);
        for index in 100..102 {
            blocks[usize::try_from(number).unwrap() - 1].movements.push(Movement {
                tx: TxId::from([0xee; 32]),
                ordinal: Ordinal::Log(index),
                kind: Kind::Transfer,
                asset: assets()[1],
                from: None,
                to: Some(who(2)),
                amount: Amount::MAX,
                memo: None,
            });
        }
        world.read_down_to(&blocks, cut, usize::MAX, usize::MAX);
        world.read_down_to(&blocks, 0, usize::MAX, usize::MAX);
        prop_assert!(world.ended.is_empty());
        prop_assert_eq!(&world.positions(), &before);
        prop_assert_eq!(&world.replayed(), &before);
        prop_assert!(!world.known.assets[&assets()[1]].verified);
        let mut honest = World::opened(&pasts, [0; 3]);
        honest.read_down_to(&self::blocks(&pasts), cut, usize::MAX, usize::MAX);
        honest.read_down_to(&self::blocks(&pasts), 0, usize::MAX, usize::MAX);
        let native = honest.known.assets[&AssetKey::Native].no;
        let of = |world: &World, wallet| {
            let mut standing = world.standing(wallet);
            standing.retain(|row| row.3 == native);
            standing
        };
        for wallet in 1..=3 {
            prop_assert_eq!(of(&world, wallet), of(&honest, wallet));
        }
    }
}

#[test]
fn a_block_that_nobody_traced_is_told_to_the_scans_that_have_it_before_themselves() {
    let pasts = vec![Vec::new(); 12];
    let world = World::opened(&pasts, [0; 3]);
    let mut blocks = blocks(&pasts);
    blocks.reverse();
    blocks.truncate(9);
    for past in &mut blocks {
        past.untraced = [11, 8, 5].contains(&past.header.at.number);
    }
    let scan = |no, seen, absorbs| ScanMove { no: ScanNo(no), seen: at(seen), absorbs };
    let scans = [
        scan(1, 12, vec![(ScanNo(2), 8), (ScanNo(3), 7), (ScanNo(4), 4)]),
        scan(5, 11, Vec::new()),
    ];
    for is_last in [true, false] {
        let range = Range { blocks: &blocks, below: point(3), sides: &[], is_last };
        let World { chain, cursor, known, .. } = &world;
        let changes = backfill(chain, cursor, known, &[], &scans, range, Millis(0)).unwrap();
        let told: Vec<(u64, Vec<i64>)> = (changes.watches.untraced.into_iter())
            .map(|(number, scans)| (number, scans.into_iter().map(|scan| scan.0).collect()))
            .collect();
        assert_eq!(told, [(5, vec![3]), (8, vec![2]), (11, vec![1, 5])], "the highest of each");
    }
}
