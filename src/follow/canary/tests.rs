use super::*;
use crate::chain::{BlockHash, Header, Movement};

fn who(number: u8) -> Address {
    Address::from([number; 20])
}

fn token(number: u8) -> AssetKey {
    AssetKey::Token(Address::from([number; 20]))
}

fn at(number: u64) -> BlockRef {
    BlockRef { number, hash: BlockHash([1; 32]) }
}

fn movement(log: u32, asset: AssetKey, to: u8, amount: u64) -> Movement {
    Movement {
        tx: TxId::from([7; 32]),
        ordinal: Ordinal::Log(log),
        kind: Kind::Transfer,
        asset,
        from: None,
        to: Some(who(to)),
        amount: amount.into(),
        memo: None,
    }
}

fn booked(movement: &Movement) -> Booked {
    Booked {
        block: at(5),
        address: movement.to.unwrap(),
        tx: movement.tx,
        ordinal: movement.ordinal.clone(),
        direction: Direction::In,
        asset: movement.asset,
        kind: movement.kind,
        amount: movement.amount,
        firm: true,
    }
}

/// What is found where these movements are read and those were booked.
fn found(read: &[Movement], rows: &[Booked], traced: Traced) -> Option<String> {
    let header = Header { at: at(5), parent: at(4), time: 0 };
    let block = Block { movements: read.to_vec(), traced, ..Block::empty(header) };
    let money = HashSet::from([AssetKey::Native, token(1), token(2)]);
    let counting = rows.iter().filter(|row| row.firm).map(|row| (row.address, row.asset)).collect();
    difference(&block, rows, &money, &counting)
}

#[test]
fn a_changed_a_missing_and_a_new_movement_are_differences() {
    let (one, two) = (movement(0, token(1), 9, 50), movement(1, AssetKey::Native, 9, 3));
    let rows = [booked(&one), booked(&two)];
    let read = |movements: &[Movement]| found(movements, &rows, Traced::Whole);
    assert_eq!(read(&[one.clone(), two.clone()]), None);
    let more = Movement { amount: 51.into(), ..one.clone() };
    assert!(read(&[more, two.clone()]).unwrap().contains("of 51 now"));
    let other = Movement { kind: Kind::Mint, ..one.clone() };
    assert!(read(&[other, two.clone()]).unwrap().contains("is a mint"));
    assert!(read(std::slice::from_ref(&two)).unwrap().contains("not there any more"));
    let moved = Movement { ordinal: Ordinal::Log(4), ..one.clone() };
    assert!(read(&[moved, two.clone()]).is_some(), "its identity is its place");
    for asset in [token(1), AssetKey::Native] {
        let new = movement(2, asset, 9, 1);
        assert!(read(&[one.clone(), two.clone(), new]).unwrap().contains("was not booked"));
    }
    let left = Movement { from: Some(who(9)), to: None, ..movement(3, AssetKey::Native, 0, 1) };
    assert!(read(&[one.clone(), two.clone(), left]).is_some(), "what left it, too");
}

#[test]
fn what_was_not_known_then_or_is_not_read_now_is_no_difference() {
    let one = movement(0, token(1), 9, 50);
    let rows = |others: &[Booked]| [std::slice::from_ref(&booked(&one)), others].concat();
    let read = |movements: &[Movement], others: &[Booked], traced| {
        found(&[std::slice::from_ref(&one), movements].concat(), &rows(others), traced)
    };
    // Somebody registered since, a token that is configured since, one that is not, nothing of something.
    assert_eq!(read(&[movement(1, token(1), 8, 5)], &[], Traced::Whole), None);
    assert_eq!(read(&[movement(1, token(2), 9, 5)], &[], Traced::Whole), None);
    assert_eq!(read(&[movement(1, token(3), 9, 5)], &[], Traced::Whole), None);
    assert_eq!(read(&[movement(1, token(1), 9, 0)], &[], Traced::Whole), None);
    let unverified = Booked { firm: false, ..booked(&movement(1, token(1), 9, 5)) };
    assert_eq!(read(&[movement(1, token(1), 9, 5)], &[unverified], Traced::Whole), None);
    // A token that was set aside since, and what no block shows.
    assert_eq!(read(&[], &[booked(&movement(1, token(3), 9, 5))], Traced::Whole), None);
    for kind in [Kind::Opening, Kind::Adjustment] {
        let row = Booked { kind, ..booked(&movement(1, token(1), 9, 5)) };
        assert_eq!(read(&[], &[row], Traced::Whole), None);
    }
    // Traced then and not now, and the other way round.
    let inside = Movement {
        kind: Kind::Internal,
        ordinal: Ordinal::Trace(vec![0]),
        ..movement(1, AssetKey::Native, 9, 5)
    };
    assert_eq!(read(&[], &[booked(&inside)], Traced::Not), None);
    assert_eq!(read(std::slice::from_ref(&inside), &[], Traced::Whole), None);
    assert!(read(&[], &[booked(&inside)], Traced::Whole).is_some(), "traced, and not found");
}

#[test]
fn the_newest_settled_blocks_are_chosen_and_none_that_was_read_in_part() {
    let row = |number: u64| Booked { block: at(number), ..booked(&movement(0, token(1), 9, 5)) };
    let rows: Vec<Booked> = (1..=40).rev().map(row).collect();
    let numbers = |rows: &[Booked], settled, is_all| -> Vec<u64> {
        chosen(rows.to_vec(), settled, is_all).iter().map(|(at, _)| at.number).collect()
    };
    assert_eq!(numbers(&rows, 35, true), (16..=35).rev().collect::<Vec<_>>());
    assert_eq!(numbers(&rows[..3], 40, true), [40, 39, 38]);
    assert_eq!(numbers(&rows[..3], 40, false), [40, 39], "the last may have more");
    let opening = Booked { kind: Kind::Opening, ..row(50) };
    assert_eq!(numbers(&[opening, row(3)], 60, true), [3]);
}
