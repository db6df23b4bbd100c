use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::{
    chain::{Address, BlockHash, BlockRef, Kind, Ordinal, TxId},
    clock::Millis,
    id::{TransferId, WalletId},
    model::{CommitKind, Direction, EntryKind, Rewind, RewindOrder, Status, TenantNo, TransferNo},
};

const CAIP2: &str = "eip155:1";

fn transfer(memo: Option<&str>) -> Transfer {
    Transfer {
        no: TransferNo(1 << 44 | 5),
        id: TransferId(Uuid::from_u128(0xabcd)),
        wallet: WalletNo(3),
        tenant: TenantNo(2),
        tx: TxId::from([0x11; 32]),
        ordinal: Ordinal::Log(300),
        direction: Direction::In,
        asset: AssetNo(1 << 32 | 1),
        kind: Kind::Transfer,
        status: Status::Pending,
        amount: Amount::from(1000),
        counterparty: Some(Address::from([0x22; 20])),
        counted: true,
        block: BlockRef { number: 77, hash: BlockHash([0x33; 32]) },
        block_time: Millis(70_000),
        connection: 1,
        reason: None,
        memo: memo.map(str::to_owned),
        omitted: None,
        seen_at: Millis(71_000),
        settled_by: None,
        settled_at: None,
        orphaned_at: None,
    }
}

fn owner() -> Owner {
    Owner {
        wallet: WalletNo(3),
        tenant: TenantNo(2),
        wallet_id: WalletId(Uuid::from_u128(0xef)),
        address: Address::from([0x44; 20]),
    }
}

fn commit(rewind: Option<Rewind>) -> JournalCommit {
    JournalCommit {
        number: 9,
        kind: CommitKind::Blocks,
        head: BlockRef { number: 77, hash: BlockHash([0x33; 32]) },
        settled: BlockRef { number: 70, hash: BlockHash([0x55; 32]) },
        transfers: 5,
        entries: 2,
        time: Millis(71_000),
        rewind,
        hash: JournalHash::default(),
    }
}

/// The bytes as the module's text says, written down by hand.
#[test]
fn the_hash_is_over_exactly_what_the_text_says() {
    fn number(out: &mut Vec<u8>, mut number: u64) {
        loop {
            let seven = u8::try_from(number % 128).unwrap();
            number /= 128;
            out.push(if number > 0 { seven + 128 } else { seven });
            if number == 0 {
                break;
            }
        }
    }
    fn string(out: &mut Vec<u8>, bytes: &[u8]) {
        number(out, bytes.len().try_into().unwrap());
        out.extend(bytes);
    }
    let mut bytes = Vec::new();
    let out = &mut bytes;
    string(out, b"tidemark journal 1");
    string(out, &[7; 32]);
    string(out, b"eip155:1");
    number(out, 9);
    string(out, b"blocks");
    number(out, 77);
    string(out, &[0x33; 32]);
    number(out, 70);
    string(out, &[0x55; 32]);
    number(out, 5);
    number(out, 71_000);
    // A rewind, by somebody.
    number(out, 1);
    number(out, 80);
    number(out, 1);
    string(out, b"ann");
    string(out, b"a bad snapshot");
    number(out, 2);
    // The settlement of an earlier transfer comes first.
    number(out, 1 << 44 | 2);
    number(out, 2);
    string(out, &[]);
    number(out, 0);
    number(out, 1 << 44 | 5);
    number(out, 1);
    string(out, &[3, 232]);
    number(out, 1);
    string(out, Uuid::from_u128(0xabcd).as_bytes());
    number(out, 1);
    number(out, 3);
    string(out, Uuid::from_u128(0xef).as_bytes());
    string(out, &[0x44; 20]);
    number(out, 2);
    number(out, 1 << 32 | 1);
    string(out, &[0x66; 20]);
    string(out, b"in");
    string(out, b"transfer");
    number(out, 1);
    string(out, &[0x22; 20]);
    string(out, &[0x11; 32]);
    string(out, &[1, 0xac, 0x02]);
    number(out, 77);
    string(out, &[0x33; 32]);
    number(out, 70_000);
    number(out, 1);
    string(out, "für 7".as_bytes());
    number(out, 1);
    number(out, 3);
    number(out, 1 << 32 | 1);
    string(out, &[]);
    string(out, &[3, 232]);
    string(out, &[1]);
    let expected: [u8; 32] = Sha256::digest(&bytes).into();

    let transfer = transfer(Some("für 7"));
    let asset = AssetKey::Token(Address::from([0x66; 20]));
    let connected = Some(Connected { transfer: &transfer, owner: owner(), asset });
    let entry = |no: i64, kind, amount: u64| Entry {
        transfer: TransferNo(1 << 44 | no),
        kind,
        amount: Amount::from(amount),
    };
    let mut lines = [
        Line { entry: entry(5, EntryKind::Connect, 1000), connected },
        Line { entry: entry(2, EntryKind::Settle, 0), connected: None },
    ];
    let position =
        Position { incoming: Amount::from(1000), outgoing: Amount::from(1), ..Position::default() };
    let order = RewindOrder { by: Some("ann".to_owned()), reason: "a bad snapshot".to_owned() };
    let commit = commit(Some(Rewind { from: 80, order }));
    let mut left = [(WalletNo(3), AssetNo(1 << 32 | 1), position)];
    let hash = hash(CAIP2, JournalHash([7; 32]), &commit, &mut lines, &mut left);
    assert_eq!(hash, JournalHash(expected));
    assert_eq!(hash.to_string(), hex::encode(expected));
    let digits = u64::try_from(hash.prefix()).unwrap();
    assert!(hash.to_string().starts_with(&format!("{digits:012x}")));
}

fn hash_of(transfers: &[Transfer], rewind: Option<&(Option<String>, String)>) -> JournalHash {
    let line = |transfer| {
        let connected = Some(Connected { transfer, owner: owner(), asset: AssetKey::Native });
        let entry =
            Entry { transfer: transfer.no, kind: EntryKind::Connect, amount: transfer.amount };
        Line { entry, connected }
    };
    let mut lines: Vec<Line<'_>> = transfers.iter().map(line).collect();
    let rewind = rewind.map(|(by, reason)| Rewind {
        from: 0,
        order: RewindOrder { by: by.clone(), reason: reason.clone() },
    });
    hash(CAIP2, JournalHash::default(), &commit(rewind), &mut lines, &mut [])
}

/// What strangers choose, out of few values, so that parts of one could be taken for parts of another.
fn chosen() -> impl Strategy<Value = Vec<Transfer>> {
    let text = || prop::option::of("[\u{0}-\u{2}a]{0,3}");
    let one = (0u64..3, text(), prop::option::of(0u8..3), 0u32..3, 0u8..2);
    let made = |(no, (amount, memo, counterparty, log, tx)): (i64, _)| {
        let (amount, memo): (u64, Option<String>) = (amount, memo);
        let counterparty: Option<u8> = counterparty;
        Transfer {
            no: TransferNo(no),
            amount: Amount::from(amount << 8),
            counterparty: counterparty.map(|byte| Address::from([byte; 20])),
            ordinal: Ordinal::Log(log),
            tx: TxId::from([tx; 32]),
            ..transfer(memo.as_deref())
        }
    };
    prop::collection::vec(one, 0..3).prop_map(move |all| (0..).zip(all).map(made).collect())
}

proptest! {
    #[test]
    fn two_commits_have_one_hash_only_if_they_are_the_same(
        one in chosen(),
        two in chosen(),
        by in prop::option::of((prop::option::of("[ab]{0,2}"), "[ab]{0,2}")),
        other in prop::option::of((prop::option::of("[ab]{0,2}"), "[ab]{0,2}")),
    ) {
        let same = one == two && by == other;
        prop_assert_eq!(hash_of(&one, by.as_ref()) == hash_of(&two, other.as_ref()), same);
    }
}
