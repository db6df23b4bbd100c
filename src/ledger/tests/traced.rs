//! Blocks that are taken in before anybody has told what moved inside their transactions, seeded: traces come late, in
//! any order or never, between settlement and reorgs, with the chain's own figures at hand or without.

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use super::{
    books::{Books, Payment, block, header},
    histories::{WALLETS, point},
    journal::Rows,
};
use crate::{
    amount::Amount,
    chain::{Header, Kind, Ordinal},
    clock::Millis,
    ledger::{Changes, changes::TransferUpdate, known::MatchedBlock, testing::who},
    model::{BlockPoint, Reason, Status, Transfer},
    seeds,
};

const SEEDS: u64 = 2_000;
const STEPS: usize = 80;
/// A payment's transaction is one byte.
const TRANSACTIONS: u8 = 250;

struct Mined {
    shown: MatchedBlock,
    /// What only a trace shows.
    inside: MatchedBlock,
    /// What everybody holds after it.
    held: Vec<u64>,
    traced: bool,
}

/// What only a trace of a block shows.
fn told(header: Header, payments: &[Payment]) -> MatchedBlock {
    let mut inside = block(header, payments);
    for movement in &mut inside.movements {
        (movement.ordinal, movement.kind) = (Ordinal::Trace(vec![0]), Kind::Internal);
    }
    inside
}

struct Simulation {
    random: StdRng,
    books: Books,
    genesis: BlockPoint,
    chain: Vec<Mined>,
    settled: usize,
    next_tx: u8,
    branch: u8,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let books = Books::new(WALLETS);
        let genesis = books.cursor.head;
        let random = StdRng::seed_from_u64(seed);
        Self { random, books, genesis, chain: Vec::new(), settled: 0, next_tx: 0, branch: 0 }
    }

    fn point(&self, height: usize) -> BlockPoint {
        height.checked_sub(1).map_or(self.genesis, |below| point(&self.chain[below].shown))
    }

    fn held(&self) -> Vec<u64> {
        let none = || vec![0; usize::from(WALLETS) + 1];
        self.chain.last().map_or_else(none, |mined| mined.held.clone())
    }

    /// Mines a block and connects what it shows.
    fn connect(&mut self) {
        let mut held = self.held();
        let (mut shown, mut inside) = (Vec::new(), Vec::new());
        for _ in 0..self.random.random_range(0..4) {
            if self.next_tx >= TRANSACTIONS {
                break;
            }
            let to = self.random.random_range(1..=WALLETS);
            let payer = self.random.random_range(1..=WALLETS);
            let has = held[usize::from(payer)];
            let amount = self.random.random_range(1..100);
            let from = (has >= amount && self.random.random_bool(0.7)).then_some(payer);
            if let Some(payer) = from {
                held[usize::from(payer)] -= amount;
            }
            // Some leave for good.
            let to = if from.is_some() && self.random.random_bool(0.6) { WALLETS + 1 } else { to };
            if to <= WALLETS {
                held[usize::from(to)] += amount;
            }
            self.next_tx += 1;
            let payment = Payment { tx: self.next_tx, from, to, amount };
            if self.random.random() { &mut shown } else { &mut inside }.push(payment);
        }
        self.branch = self.branch.wrapping_add(1);
        let header = header(self.point(self.chain.len()).at, self.branch);
        let inside = told(header, &inside);
        let traced = inside.movements.is_empty();
        let shown = MatchedBlock { untraced: !traced, ..block(header, &shown) };
        self.chain.push(Mined { shown: shown.clone(), inside, held: held.clone(), traced });
        // A node that knows the state after the block, or none.
        let known = self.random.random_bool(0.5);
        let settled = self.point(self.settled);
        self.books.connect_short(&[shown], settled, |short| {
            let wallet = (1..=WALLETS).find(|n| who(*n) == short.address).unwrap();
            known.then(|| Amount::from(held[usize::from(wallet)]))
        });
    }

    fn complete(&mut self) {
        let open: Vec<usize> =
            (self.settled..self.chain.len()).filter(|&index| !self.chain[index].traced).collect();
        if open.is_empty() {
            return;
        }
        let index = open[self.random.random_range(0..open.len())];
        self.books.complete(&self.chain[index].inside);
        self.chain[index].traced = true;
    }

    /// Blocks settle that are traced, or that nobody will trace.
    fn settle(&mut self) {
        let traced = self.chain[self.settled..].iter().take_while(|mined| mined.traced).count();
        let upto = self.settled + self.random.random_range(0..=traced);
        if upto > self.settled {
            self.settled = upto;
            let point = self.point(upto);
            self.books.settle(point);
        }
    }

    fn reorg(&mut self) {
        let fork = self.random.random_range(self.settled..=self.chain.len());
        if fork < self.chain.len() {
            let point = self.point(fork);
            self.books.rollback(point);
            self.chain.truncate(fork);
        }
    }

    fn check(&self) {
        let traced = self.chain.iter().all(|mined| mined.traced);
        for wallet in 1..=WALLETS {
            let position = self.books.position(wallet);
            assert_eq!(self.books.replayed(wallet), position);
            assert!(position.total().is_ok(), "{position:?}");
            if traced {
                let held = self.held()[usize::from(wallet)];
                assert_eq!(position.total(), Ok(held.into()), "wallet {wallet}");
            }
        }
        if traced {
            let standing = |row: &crate::model::Transfer| {
                row.kind == Kind::Adjustment && row.status == Status::Pending
            };
            let left: Vec<_> = self.books.transfers.values().filter(|row| standing(row)).collect();
            assert!(left.is_empty(), "all is explained: {left:?}");
        }
    }
}

fn simulate(seed: u64) {
    let mut simulation = Simulation::new(seed);
    for _ in 0..STEPS {
        match simulation.random.random_range(0..12) {
            0..5 => simulation.connect(),
            5..9 => simulation.complete(),
            9 => simulation.settle(),
            10 => simulation.reorg(),
            _ => {}
        }
        simulation.check();
    }
    while simulation.chain.iter().any(|mined| !mined.traced) {
        simulation.complete();
        simulation.check();
    }
    simulation.settled = simulation.chain.len();
    let point = simulation.point(simulation.settled);
    simulation.books.settle(point);
    simulation.check();
    simulation.books.effects();
    simulation.books.told();
    let (summary, _) = Rows::of(&simulation.books).verify(1, 7).expect("nothing was edited");
    assert_eq!(summary.entries, simulation.books.entries.len() as u64);
    let told = simulation.books.last_told();
    for ((id, _), (status, _)) in simulation.books.standing() {
        assert_ne!(status, Status::Pending, "all has settled");
        // A correction is told when it is booked, not again when it settles.
        assert_eq!(told.get(&id), Some(&status), "{id:?}");
    }
}

#[test]
fn traces_that_come_late_and_in_any_order_end_in_the_chains_own_figures_and_nothing_taken_for_granted()
 {
    seeds::each(SEEDS, simulate);
}

#[test]
fn a_trace_that_is_told_twice_is_booked_once() {
    let mut simulation = Simulation::new(7);
    while simulation.chain.iter().all(|mined| mined.traced) {
        simulation.connect();
    }
    let inside = simulation.chain.last().unwrap().inside.clone();
    simulation.books.complete(&inside);
    let once = simulation.books.positions(WALLETS);
    simulation.books.complete(&inside);
    assert_eq!(simulation.books.positions(WALLETS), once);
}

const fn pay(tx: u8, from: Option<u8>, to: u8, amount: u64) -> Payment {
    Payment { tx, from, to, amount }
}

/// Wallet 1 gets fifty and forty inside two blocks that nobody has traced, and spends seventy in a third one, after
/// which a node says that so much is held, or nothing.
fn short(held: Option<u64>) -> (Books, [MatchedBlock; 2]) {
    let mut books = Books::new(1);
    let genesis = books.cursor.head;
    let open = |parent| MatchedBlock { untraced: true, ..block(header(parent, 1), &[]) };
    let first = open(genesis.at);
    let second = open(first.header.at);
    let third = block(header(second.header.at, 1), &[pay(3, Some(1), 2, 70)]);
    let inside =
        [told(first.header, &[pay(1, None, 1, 50)]), told(second.header, &[pay(2, None, 1, 40)])];
    books.connect_short(&[first, second, third], genesis, |_| held.map(Amount::from));
    (books, inside)
}

/// The correction that stands, if there is one.
fn correction(books: &Books) -> Option<Transfer> {
    let stands = |row: &&Transfer| row.kind == Kind::Adjustment && row.status == Status::Pending;
    let mut rows = books.transfers.values().filter(stands);
    let first = rows.next().cloned();
    assert!(rows.next().is_none(), "one at most");
    first
}

/// What stands of the correction: its amount and its reason; and the total.
fn state(books: &Books) -> (Option<(u64, Option<Reason>)>, Amount) {
    let correction = correction(books).map(|row| (row.amount.get().to(), row.reason));
    (correction, books.position(1).total().unwrap())
}

#[test]
fn a_correction_shrinks_with_each_trace_and_a_figure_of_the_chain_stays() {
    let (credit, least) = (Some(Reason::UntracedCredit), Some(Reason::UntracedCreditAtLeast));
    for (held, amounts, reason, totals) in
        [(Some(20), [90, 50], credit, [20, 20]), (None, [70, 30], least, [0, 0])]
    {
        let (mut books, [first, second]) = short(held);
        assert_eq!(state(&books), (Some((amounts[0], reason)), totals[0].into()));
        let old = correction(&books).unwrap();
        let is_gone = |changes: &Changes, no, replaced| {
            let explained = Some(Reason::ExplainedByTrace);
            let gone = changes.updates.iter().filter(|update| {
                matches!(update, TransferUpdate::Orphaned { no: of, reason, .. }
                    if *of == no && *reason == explained)
            });
            assert_eq!(gone.count(), 1, "{:?}", changes.updates);
            assert_eq!(changes.updates.contains(&TransferUpdate::Replaced(no)), replaced);
        };
        let changes = books.completed(&second);
        assert_eq!(changes.blocks.traced, [second.header.at], "it is traced from now on");
        is_gone(&changes, old.no, true);
        books.complete(&second);
        assert_eq!(state(&books), (Some((amounts[1], reason)), totals[1].into()));
        let smaller = correction(&books).unwrap();
        assert_eq!((smaller.id, smaller.connection), (old.id, old.connection + 1));
        is_gone(&books.completed(&first), smaller.no, false);
        books.complete(&first);
        assert_eq!(state(&books), (None, 20.into()), "all is explained");
        let news = books.last_told();
        assert_eq!(news[&old.id], Status::Orphaned);
        let internal = books.transfers.values().filter(|row| row.kind == Kind::Internal);
        let internal: Vec<_> = internal.map(|row| news[&row.id]).collect();
        assert_eq!(internal, [Status::Pending; 2], "each is told");
    }
}

#[test]
fn a_trace_that_changes_no_sum_leaves_the_correction_as_it_stands() {
    let (mut books, [first, _]) = short(Some(20));
    let before = correction(&books).unwrap();
    books.complete(&told(first.header, &[pay(4, None, 1, 8), pay(5, Some(1), 2, 8)]));
    let after = correction(&books).unwrap();
    assert_eq!((after.no, after.connection), (before.no, before.connection));
    assert_eq!(state(&books), (Some((90, Some(Reason::UntracedCredit))), 20.into()));
}

#[test]
fn more_than_was_known_of_that_a_trace_shows_leaving_must_have_come_in_there() {
    let mut books = Books::new(1);
    let genesis = books.cursor.head;
    let open = MatchedBlock { untraced: true, ..block(header(genesis.at, 1), &[]) };
    let header = open.header;
    books.connect_short(&[open], genesis, |_| None);
    books.complete(&told(header, &[pay(1, Some(1), 2, 25)]));
    let least = Some(Reason::UntracedCreditAtLeast);
    assert_eq!(state(&books), (Some((25, least)), 0.into()));
    let row = correction(&books).unwrap();
    assert_eq!((row.block, row.block_time), (header.at, Millis::from_seconds(header.time)));
    assert_eq!(books.last_told()[&row.id], Status::Pending);
}
