//! A node and a follower at random, seeded: blocks come one by one or in batches, settle inside a batch or
//! between two, branches come, go and stand again, a transaction comes back in another block with another
//! amount, and tokens log amounts that no balance can hold. After every commit the ledger is the chain as far as it was connected. See [`crate::seeds`].

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use super::{
    books::{Books, HOSTILE, Payment, token},
    histories::{Branch, WALLETS, Wish, point},
    journal::Rows,
};
use crate::{
    amount::Amount,
    chain::{AssetKey, BlockRef, Kind, Movement, Ordinal, TxId},
    ledger::{known::MatchedBlock, testing::who},
    model::{BlockPoint, Position, Status, Tier},
    seeds,
};

const SEEDS: u64 = 1_000;
const STEPS: usize = 100;
/// What may be available early of one wallet, at most.
const LARGEST: u64 = 900;
/// A payment's transaction is one byte.
const TRANSACTIONS: u8 = 250;

fn tiers() -> Vec<Tier> {
    let tier = |up_to: u64, confirmations| Tier {
        asset: AssetKey::Native,
        up_to: up_to.into(),
        confirmations,
    };
    vec![tier(400, 1), tier(LARGEST, 3)]
}

struct Simulation {
    random: StdRng,
    books: Books,
    genesis: BlockPoint,
    /// What stands on the node.
    chain: Branch,
    /// The branch that stood before.
    before: Option<Branch>,
    /// How many of its blocks are connected, and how many are settled.
    connected: usize,
    settled: usize,
    next_tx: u8,
    next_block: u8,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut books = Books::new(WALLETS);
        books.chain.tiers = tiers();
        Self {
            random: StdRng::seed_from_u64(seed),
            genesis: books.cursor.head,
            books,
            chain: Branch::new(),
            before: None,
            connected: 0,
            settled: 0,
            next_tx: 0,
            next_block: 0,
        }
    }

    fn wishes(&mut self) -> Vec<Wish> {
        let most = if self.next_tx < TRANSACTIONS - 4 { 4 } else { 1 };
        (0..self.random.random_range(0..most))
            .map(|_| {
                let from =
                    self.random.random_bool(0.7).then(|| self.random.random_range(1..=WALLETS + 1));
                (from, self.random.random_range(1..=WALLETS + 1), self.random.random_range(0..1000))
            })
            .collect()
    }

    /// A number that no other block has, so that no two blocks have one hash.
    fn block_number(&mut self) -> u8 {
        self.next_block = self.next_block.checked_add(1).expect("fewer blocks");
        self.next_block
    }

    fn mine(&mut self) {
        let (wishes, number) = (self.wishes(), self.block_number());
        self.chain.grow(self.genesis.at, number, &wishes, &mut self.next_tx);
        if self.random.random_bool(0.3) {
            self.log_anything();
        }
    }

    /// Movements of tokens in the newest block that no balance of theirs explains.
    fn log_anything(&mut self) {
        let (block, _) = self.chain.blocks.last_mut().unwrap();
        let half = Amount::new(Amount::MAX.get() >> 1);
        let anyone = |random: &mut StdRng| {
            random.random_bool(0.8).then(|| who(random.random_range(1..=WALLETS + 1)))
        };
        for index in 0..self.random.random_range(1..4) {
            let amounts = [Amount::MAX, half, Amount::ZERO, 7.into()];
            block.movements.push(Movement {
                tx: TxId::from(block.header.at.hash.0),
                ordinal: Ordinal::Log(index),
                kind: Kind::Transfer,
                asset: token(HOSTILE[self.random.random_range(0..HOSTILE.len())]),
                from: anyone(&mut self.random),
                to: anyone(&mut self.random),
                amount: amounts[self.random.random_range(0..amounts.len())],
                memo: None,
            });
        }
    }

    fn point(&self, height: usize) -> BlockPoint {
        height.checked_sub(1).map_or(self.genesis, |below| point(&self.chain.blocks[below].0))
    }

    fn connect(&mut self) {
        let end = (self.connected + self.random.random_range(1..6)).min(self.chain.blocks.len());
        if end == self.connected {
            return;
        }
        if self.random.random() {
            self.settled = self.random.random_range(self.settled..=end);
        }
        let blocks: Vec<MatchedBlock> =
            self.chain.blocks[self.connected..end].iter().map(|(block, _)| block.clone()).collect();
        self.books.connect(&blocks, self.point(self.settled));
        self.connected = end;
    }

    fn settle(&mut self) {
        let upto = self.random.random_range(self.settled..=self.connected);
        if upto > self.settled {
            self.settled = upto;
            self.books.settle(self.point(upto));
        }
    }

    /// Deposits up to a block become available, with a node that has what it should have, less, or says nothing.
    fn advance(&mut self) {
        let at = self.random.random_range(self.settled..=self.connected);
        let (held, honest) = (self.chain.held[at].clone(), self.random.random_bool(0.8));
        let before: Vec<Amount> =
            (1..=WALLETS).map(|wallet| self.books.position(wallet).early).collect();
        let told = |wallet: u8| {
            let held = *held.get(usize::from(wallet))?;
            if honest { Some(held) } else { held.checked_sub(1) }
        };
        self.books.advance(at as u64, told);
        for (wallet, before) in (1..=WALLETS).zip(before) {
            let now = self.books.position(wallet).early;
            assert!(honest || now == before, "the chain has less than the ledger");
            assert!(now == before || now <= LARGEST.into(), "{now} is more than a tier allows");
        }
    }

    /// Another branch from above the settled block, or the one that stood before.
    fn reorg(&mut self) {
        let again = self.before.take().filter(|_| self.random.random_bool(0.4)).and_then(|other| {
            let same = self.chain.blocks.iter().zip(&other.blocks);
            let fork = same.take_while(|((a, _), (b, _))| a.header.at == b.header.at).count();
            (fork >= self.settled).then_some((fork, other))
        });
        let (fork, next) = again.unwrap_or_else(|| self.other_branch());
        if fork < self.connected {
            self.books.rollback(self.point(fork));
            self.connected = fork;
        }
        self.before = Some(std::mem::replace(&mut self.chain, next));
    }

    fn other_branch(&mut self) -> (usize, Branch) {
        let fork = self.random.random_range(self.settled..=self.chain.blocks.len());
        let mut next = self.chain.clone();
        let gone = next.blocks.split_off(fork);
        next.held.truncate(fork + 1);
        let genesis: BlockRef = self.genesis.at;
        let mut deposits =
            gone.iter().flat_map(|(_, paid)| paid).filter(|paid| paid.from.is_none());
        if let Some(deposit) = deposits.next() {
            let amount = deposit.amount + self.random.random_range(0..50);
            let mut held = next.held.last().unwrap().clone();
            held[usize::from(deposit.to)] += amount;
            let number = self.block_number();
            next.push(genesis, number, vec![Payment { amount, ..*deposit }], held);
        }
        for _ in 0..self.random.random_range(0..3) {
            let (wishes, number) = (self.wishes(), self.block_number());
            next.grow(genesis, number, &wishes, &mut self.next_tx);
        }
        (fork, next)
    }

    fn held(&self, wallet: u8) -> u64 {
        self.chain.held[self.connected][usize::from(wallet)]
    }

    fn check(&self) {
        for wallet in 1..=WALLETS {
            assert_eq!(self.books.position(wallet).total(), Ok(self.held(wallet).into()));
            assert_eq!(self.books.replayed(wallet), self.books.position(wallet));
            let early = self.books.early(wallet);
            assert_eq!(self.books.position(wallet).early, early, "the sum of what is open");
            for asset in HOSTILE.map(token) {
                let position = self.books.position_of(wallet, asset);
                assert!(position.total().is_ok(), "{position:?}");
                assert_eq!(self.books.replayed_of(wallet, asset), position);
            }
        }
    }
}

fn simulate(seed: u64) {
    let mut simulation = Simulation::new(seed);
    for _ in 0..STEPS {
        match simulation.random.random_range(0..14) {
            0..4 => simulation.mine(),
            4..8 => simulation.connect(),
            8..10 => simulation.settle(),
            10..12 => simulation.advance(),
            _ => simulation.reorg(),
        }
        simulation.check();
    }
    while simulation.connected < simulation.chain.blocks.len() {
        simulation.connect();
    }
    if simulation.settled < simulation.connected {
        simulation.settled = simulation.connected;
        simulation.books.settle(simulation.point(simulation.settled));
    }
    let books = &simulation.books;
    for wallet in 1..=WALLETS {
        assert_eq!(books.position(wallet), Position::of(simulation.held(wallet).into()));
        assert_eq!(books.replayed(wallet), books.position(wallet));
    }
    // The journal fits, in whatever pages it is read.
    let size = simulation.random.random_range(1..20);
    let (summary, _) = Rows::of(&simulation.books).verify(1, size).expect("nothing was edited");
    let books = &simulation.books;
    assert_eq!(summary.entries, books.entries.len() as u64);
    // Each effect and each event is once, and what was told last of a transfer is how it stands.
    books.effects();
    books.told();
    let told = books.last_told();
    for ((id, _), (status, amount)) in books.standing() {
        assert_ne!(status, Status::Pending, "all has settled");
        if !amount.is_zero() {
            assert_eq!(told.get(&id), Some(&status), "{id:?}");
        }
    }
}

#[test]
fn whatever_a_node_and_a_follower_do_the_ledger_is_the_chain_that_stands() {
    seeds::each(SEEDS, simulate);
}
