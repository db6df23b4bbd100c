//! One history, one ledger: however it is cut into commits, whatever branches it took.

use proptest::prelude::*;

use super::books::{Books, Payment, block, header};
use crate::{
    chain::BlockRef,
    ledger::{LedgerError, known::MatchedBlock},
    model::{BlockPoint, Position, Status},
};

pub(super) const WALLETS: u8 = 3;

/// What somebody tries to pay; what nobody has is not paid.
pub(super) type Wish = (Option<u8>, u8, u64);

fn wishes() -> impl Strategy<Value = Vec<Wish>> {
    let wish = (prop::option::of(1..=WALLETS + 1), 1..=WALLETS + 1, 0u64..1000);
    prop::collection::vec(wish, 0..4)
}

/// What a chain allows of some wishes: nobody spends more than there is.
fn honest(wishes: &[Wish], held: &mut [u64], next_tx: &mut u8) -> Vec<Payment> {
    let mut made = Vec::new();
    for &(from, to, amount) in wishes {
        let amount = from.map_or(amount, |from| amount.min(held[usize::from(from)]));
        if let Some(from) = from {
            held[usize::from(from)] -= amount;
        }
        held[usize::from(to)] += amount;
        *next_tx = next_tx.wrapping_add(1);
        made.push(Payment { tx: *next_tx, from, to, amount });
    }
    made
}

pub(super) fn point(block: &MatchedBlock) -> BlockPoint {
    (&block.header).into()
}

/// A chain with what each wallet holds after each block.
#[derive(Clone)]
pub(super) struct Branch {
    pub blocks: Vec<(MatchedBlock, Vec<Payment>)>,
    pub held: Vec<Vec<u64>>,
}

impl Branch {
    pub fn new() -> Self {
        Self { blocks: Vec::new(), held: vec![vec![0; usize::from(WALLETS) + 2]] }
    }

    fn tip(&self, genesis: BlockRef) -> BlockRef {
        self.blocks.last().map_or(genesis, |(block, _)| block.header.at)
    }

    pub fn grow(&mut self, genesis: BlockRef, branch: u8, wishes: &[Wish], next_tx: &mut u8) {
        let mut held = self.held.last().unwrap().clone();
        let payments = honest(wishes, &mut held, next_tx);
        self.push(genesis, branch, payments, held);
    }

    pub fn push(&mut self, genesis: BlockRef, branch: u8, payments: Vec<Payment>, held: Vec<u64>) {
        let block = block(header(self.tip(genesis), branch), &payments);
        self.blocks.push((block, payments));
        self.held.push(held);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Blocks go in by batches of any size, and settle by steps of any size, inside batches and between them.
    #[test]
    fn any_batching_of_one_history_gives_the_same_balances_entries_and_events(
        wishes in prop::collection::vec(wishes(), 1..14),
        cuts in prop::collection::vec((1usize..6, 0usize..8, any::<bool>()), 1..14),
    ) {
        let genesis = Books::new(WALLETS).cursor.head.at;
        let mut chain = Branch::new();
        let mut next_tx = 0;
        for wishes in &wishes {
            chain.grow(genesis, 0, wishes, &mut next_tx);
        }
        let blocks: Vec<MatchedBlock> = chain.blocks.iter().map(|(block, _)| block.clone()).collect();

        // Block by block, each settled by itself at once: the plainest way.
        let mut plain = Books::new(WALLETS);
        for block in &blocks {
            let settled = plain.cursor.settled;
            plain.connect(std::slice::from_ref(block), settled);
            plain.settle(point(block));
        }

        let mut cut = Books::new(WALLETS);
        let (mut done, mut settled) = (0, 0);
        for (size, settles, inside) in cuts.into_iter().cycle().take(200) {
            let end = (done + size).min(blocks.len());
            if inside && end > done {
                settled = settled.max((end).min(settled + settles));
                let at = settled.checked_sub(1).map_or(cut.cursor.settled, |n| point(&blocks[n]));
                cut.connect(&blocks[done..end], at);
            } else {
                let at = cut.cursor.settled;
                cut.connect(&blocks[done..end], at);
                let upto = end.min(settled + settles);
                if upto > settled {
                    settled = upto;
                    cut.settle(point(&blocks[settled - 1]));
                }
            }
            done = end;
        }
        if settled < blocks.len() {
            cut.settle(point(blocks.last().unwrap()));
        }

        prop_assert_eq!(cut.positions(WALLETS), plain.positions(WALLETS));
        prop_assert_eq!(cut.effects(), plain.effects());
        prop_assert_eq!(cut.standing(), plain.standing());
        let mut told = (cut.told(), plain.told());
        told.0.sort_unstable();
        told.1.sort_unstable();
        prop_assert_eq!(told.0, told.1);
        for wallet in 1..=WALLETS {
            prop_assert_eq!(cut.replayed(wallet), cut.position(wallet));
            let held = chain.held.last().unwrap()[usize::from(wallet)];
            prop_assert_eq!(cut.position(wallet), Position::of(held.into()));
        }
    }

    /// Branches come, go and come again (A → B → A); a transaction of one comes back on the other, at another
    /// height and with another amount. The ledger is the branch that stands, and told of every turn.
    #[test]
    fn whatever_branches_come_and_go_the_ledger_is_the_one_that_stands(
        turns in prop::collection::vec(
            (0usize..5, 1usize..4, prop::collection::vec(wishes(), 1..5), any::<bool>(), 0u64..50),
            1..8,
        ),
    ) {
        let mut books = Books::new(WALLETS);
        let genesis = books.cursor.head.at;
        let mut chain = Branch::new();
        let mut before: Option<Branch> = None;
        let mut next_tx = 0;
        let mut settled = 0usize;
        for (turn, (back, settles, wishes, return_to, change)) in turns.into_iter().enumerate() {
            let fork = chain.blocks.len().saturating_sub(back).max(settled);
            let common = before.as_ref().filter(|_| return_to).map(|other| {
                let same = chain.blocks.iter().zip(&other.blocks);
                same.take_while(|((a, _), (b, _))| a.header.at == b.header.at).count()
            });
            let (fork, next) = match (common, before.take()) {
                // The branch that was left stands again, with the very same blocks.
                (Some(common), Some(other)) if common >= settled => (common, other),
                _ => {
                    let mut next = chain.clone();
                    next.blocks.truncate(fork);
                    next.held.truncate(fork + 1);
                    let gone: Vec<Payment> =
                        chain.blocks[fork..].iter().flat_map(|(_, paid)| paid.clone()).collect();
                    let branch = u8::try_from(turn % 200).unwrap() + 1;
                    for (n, wishes) in wishes.iter().enumerate() {
                        next.grow(genesis, branch, wishes, &mut next_tx);
                        // A deposit comes back once, with more than before.
                        if n == 0 && let Some(again) = gone.iter().find(|paid| paid.from.is_none()) {
                            let mut held = next.held.last().unwrap().clone();
                            let amount = again.amount + change;
                            held[usize::from(again.to)] += amount;
                            next.push(genesis, branch, vec![Payment { amount, ..*again }], held);
                        }
                    }
                    (fork, next)
                }
            };
            if fork < chain.blocks.len() {
                let at = fork.checked_sub(1).map_or(
                    BlockPoint { at: genesis, time: books.cursor.settled.time },
                    |n| point(&chain.blocks[n].0),
                );
                books.rollback(at);
                before = Some(chain.clone());
            }
            chain = next;
            let new: Vec<MatchedBlock> =
                chain.blocks[fork..].iter().map(|(block, _)| block.clone()).collect();
            let at = books.cursor.settled;
            books.connect(&new, at);
            if turn % 2 == 1 && chain.blocks.len() > settled {
                settled = chain.blocks.len().min(settled + settles);
                books.settle(point(&chain.blocks[settled - 1].0));
            }
            for wallet in 1..=WALLETS {
                let held = chain.held.last().unwrap()[usize::from(wallet)];
                prop_assert_eq!(books.position(wallet).total(), Ok(held.into()));
                prop_assert_eq!(books.replayed(wallet), books.position(wallet));
            }
        }
        // What was told last of a transfer is how it stands.
        books.told();
        let told = books.last_told();
        for ((id, _), (status, amount)) in books.standing() {
            if !amount.is_zero() {
                prop_assert_eq!(told.get(&id), Some(&status), "{:?}", id);
            }
        }
        prop_assert!(books.standing().values().all(|(status, _)| *status != Status::Settled
            || settled > 0));
    }
}

#[test]
fn a_movement_that_a_commit_holds_twice_is_refused_wherever_it_stands() {
    let books = Books::new(WALLETS);
    let genesis = books.cursor.settled;
    let payment = |tx, to| Payment { tx, from: None, to, amount: 5 };
    let first = block(header(genesis.at, 0), &[payment(1, 1), payment(2, 1), payment(1, 2)]);
    let next = |payments: &[Payment]| block(header(first.header.at, 0), payments);
    let decide = |block| books.decide(&[first.clone(), block], genesis);
    assert!(decide(next(&[payment(3, 1), payment(4, 1)])).is_ok());
    let error = decide(next(&[payment(3, 1), payment(1, 1)])).unwrap_err();
    assert_eq!(error.error, LedgerError::Inconsistent);
}
