//! What becomes available before it settles, and what does not.

use super::books::{Books, Payment, block, header};
use crate::{
    amount::Amount,
    chain::{AssetKey, Kind, Ordinal},
    event::{EventType, Told},
    ledger::{LedgerError, known::MatchedBlock},
    model::{Direction, EntryKind, Position, SettledBy, Tier, Transfer},
};

fn tier(up_to: u64, confirmations: u64) -> Tier {
    Tier { asset: AssetKey::Native, up_to: up_to.into(), confirmations }
}

fn deposit(tx: u8, amount: u64) -> Payment {
    Payment { tx, from: None, to: 1, amount }
}

/// A wallet whose deposits of the first block lie `depth` blocks below the head.
fn deep(tiers: &[Tier], deposits: &[Payment], depth: u64) -> Books {
    let mut books = Books::new(1);
    books.chain.tiers = tiers.to_vec();
    let mut parent = books.cursor.head.at;
    for height in 0..=depth {
        let header = header(parent, 1);
        parent = header.at;
        connect(&mut books, &[block(header, if height == 0 { deposits } else { &[] })]);
    }
    books
}

fn connect(books: &mut Books, blocks: &[MatchedBlock]) {
    let settled = books.cursor.settled;
    books.connect(blocks, settled);
}

fn available(books: &Books) -> Amount {
    books.position(1).buckets(Amount::ZERO).unwrap().available
}

fn told(books: &Books) -> Vec<EventType> {
    let kind = |told: &Told| match told {
        Told::Transfer(told) => told.kind,
        Told::Data { kind, .. } => *kind,
    };
    books.events.iter().map(|event| kind(&event.told)).collect()
}

fn only(books: &Books) -> &Transfer {
    books.transfers.values().next().unwrap()
}

#[test]
fn a_small_deposit_is_available_at_its_depth_says_by_which_rule_and_settles_silently() {
    use EntryKind::{Connect, Early, EarlyOver, Settle};
    use EventType::{DepositAvailable, DepositPending};

    for (depth, expected) in [(0, 0u64), (2, 0), (3, 500), (4, 500)] {
        let mut books = deep(&[tier(500, 3)], &[deposit(1, 500)], depth);
        books.advance(depth + 1, |_| Some(500));
        assert_eq!(available(&books), expected.into(), "{depth} blocks below the head");
    }
    let mut books = deep(&[tier(500, 3)], &[deposit(1, 500)], 3);
    books.advance(1, |_| Some(500));
    assert_eq!(only(&books).settled_by, Some(SettledBy::Tier(3)));
    assert_eq!(told(&books), [DepositPending, DepositAvailable]);
    let entries = books.entries.len();
    books.advance(1, |_| Some(500));
    assert_eq!(books.entries.len(), entries, "once");
    books.settle(books.cursor.head);
    assert_eq!(books.position(1), Position::of(500.into()));
    assert_eq!(only(&books).settled_by, Some(SettledBy::Tier(3)));
    assert_eq!(told(&books), [DepositPending, DepositAvailable], "it was told");
    let kinds: Vec<EntryKind> = books.entries.iter().map(|booked| booked.entry.kind).collect();
    assert_eq!(kinds, [Connect, Early, EarlyOver, Settle]);
}

#[test]
fn a_block_that_vanishes_takes_its_early_deposit_back_and_tells_it() {
    let genesis = Books::new(1).cursor.head;
    let mut books = deep(&[tier(500, 1)], &[deposit(1, 300)], 2);
    books.advance(1, |_| Some(300));
    assert_eq!(available(&books), 300.into());
    books.rollback(genesis);
    assert_eq!(books.position(1), Position::default());
    assert_eq!(told(&books).last(), Some(&EventType::DepositOrphaned));
    assert_eq!(books.replayed(1), Position::default(), "each entry has its opposite");
    // It comes again in another block: the same deposit, and the same rule.
    let mut parent = genesis.at;
    for height in 0..2 {
        let header = header(parent, 2);
        parent = header.at;
        let payments = if height == 0 { vec![deposit(1, 300)] } else { Vec::new() };
        connect(&mut books, &[block(header, &payments)]);
    }
    assert_eq!(available(&books), Amount::ZERO, "not before it is as deep again");
    books.advance(1, |_| Some(300));
    assert_eq!(available(&books), 300.into());
    books.told();
}

#[test]
fn many_small_deposits_are_together_no_more_than_the_tier() {
    let many: Vec<Payment> = (1..=20).map(|tx| deposit(tx, 99)).collect();
    let mut books = deep(&[tier(100, 1), tier(500, 3)], &many, 1);
    books.advance(1, |_| Some(1980));
    assert_eq!(available(&books), 99.into());
    // Deeper, the next tier counts for all of them together.
    for _ in 0..2 {
        let next = block(header(books.cursor.head.at, 1), &[]);
        connect(&mut books, &[next]);
    }
    books.advance(1, |_| Some(1980));
    assert_eq!(available(&books), (99 * 5).into());
    // What has settled is no risk any more.
    let head = books.cursor.head;
    books.settle(head);
    let next = block(header(head.at, 1), &[deposit(30, 99)]);
    let after = block(header(next.header.at, 1), &[]);
    connect(&mut books, &[next, after]);
    books.advance(head.at.number + 1, |_| Some(1980 + 99));
    assert_eq!(available(&books), (1980 + 99).into());
}

#[test]
fn only_what_a_block_shows_and_the_chain_has_is_available_early() {
    let refuses = |what: &str, change: &dyn Fn(&mut Transfer), held: Option<u64>| {
        let mut books = deep(&[tier(500, 1)], &[deposit(1, 300)], 2);
        books.transfers.values_mut().for_each(change);
        books.advance(1, |_| held);
        assert_eq!(books.position(1).early, Amount::ZERO, "{what}");
        assert_eq!(told(&books).len(), 1, "{what}");
    };
    let nothing = |_: &mut Transfer| {};
    refuses("more was logged than moved", &nothing, Some(299));
    refuses("no node tells it", &nothing, None);
    refuses("an internal transfer", &|row| row.kind = Kind::Internal, Some(300));
    refuses("a trace", &|row| row.ordinal = Ordinal::Trace(vec![0]), Some(300));
    for kind in [Kind::Adjustment, Kind::Opening, Kind::Withdrawal, Kind::Reward, Kind::Mint] {
        refuses(kind.as_str(), &|row| row.kind = kind, Some(300));
    }
    refuses("no money", &|row| row.counted = false, Some(300));
    refuses("what left", &|row| row.direction = Direction::Out, Some(300));

    // New money is shown by its log.
    let mut books = deep(&[tier(500, 1)], &[deposit(1, 300)], 2);
    books.transfers.values_mut().for_each(|row| {
        (row.kind, row.ordinal) = (Kind::Mint, Ordinal::Log(0));
    });
    books.advance(1, |_| Some(300));
    assert_eq!(books.position(1).early, 300.into());

    // What is above the block whose figure is known is not in it.
    let mut books = deep(&[tier(500, 1)], &[deposit(1, 300)], 1);
    let next = block(header(books.cursor.head.at, 1), &[deposit(2, 50)]);
    connect(&mut books, &[next]);
    books.advance(2, |_| Some(299));
    assert_eq!(books.position(1).early, Amount::ZERO);
    books.advance(2, |_| Some(300));
    assert_eq!(books.position(1).early, 300.into());
}

#[test]
fn a_token_that_was_set_aside_and_one_without_a_tier_wait() {
    let mut books = deep(&[tier(500, 1)], &[deposit(1, 300)], 2);
    books.assets.get_mut(&AssetKey::Native).unwrap().verified = false;
    books.advance(1, |_| Some(300));
    assert_eq!(books.position(1).early, Amount::ZERO);
    let other = Tier { asset: super::books::token(0xe1), ..tier(500, 1) };
    let mut books = deep(&[other], &[deposit(1, 300)], 2);
    books.advance(1, |_| Some(300));
    assert_eq!(books.position(1).early, Amount::ZERO);
}

#[test]
fn early_money_can_be_spent_and_an_entry_that_does_not_fit_is_refused() {
    use Direction::{In, Out};

    let apply = |position: Position, kind, direction, amount: u64| {
        position.apply(kind, direction, amount.into())
    };
    let connected = apply(Position::default(), EntryKind::Connect, In, 100).unwrap();
    let early = apply(connected, EntryKind::Early, In, 60).unwrap();
    let spent = apply(early, EntryKind::Connect, Out, 50).unwrap();
    let buckets = spent.buckets(4.into()).unwrap();
    assert_eq!(
        (buckets.available, buckets.frozen, buckets.pending),
        (6.into(), 4.into(), 40.into())
    );
    let refused = Err(LedgerError::Inconsistent);
    assert_eq!(apply(early, EntryKind::Early, In, 41), refused, "more than came in");
    assert_eq!(apply(early, EntryKind::EarlyOver, In, 61), refused);
    assert_eq!(apply(early, EntryKind::Settle, In, 50), refused, "what is early ends first");
    assert_eq!(apply(early, EntryKind::Disconnect, In, 50), refused);
    assert_eq!(apply(early, EntryKind::Early, Out, 1), refused);
}
