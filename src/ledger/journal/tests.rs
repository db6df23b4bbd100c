use std::collections::BTreeSet;

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

    #[test]
    fn the_same_bytes_cut_otherwise_have_another_hash(
        bytes in prop::collection::vec(0u8..3, 0..12),
        one in prop::collection::btree_set(0usize..12, 0..4),
        two in prop::collection::btree_set(0usize..12, 0..4),
    ) {
        let cut = |at: &BTreeSet<usize>| -> Vec<Vec<u8>> {
            let mut rest = bytes.as_slice();
            let mut parts = Vec::new();
            for at in at.iter().rev() {
                let (left, right) = rest.split_at((*at).min(rest.len()));
                parts.push(right.to_vec());
                rest = left;
            }
            parts.push(rest.to_vec());
            parts.reverse();
            parts
        };
        let (one, two) = (cut(&one), cut(&two));
        prop_assert_eq!(one.concat(), two.concat());
        let hashed = |parts: &[Vec<u8>]| {
            let mut out = Bytes::default();
            for part in parts {
                out.string(part);
            }
            out.hash()
        };
        prop_assert_eq!(hashed(&one) == hashed(&two), one == two);
        // A part that may be missing is none that is empty.
        let optional = |parts: &[Vec<u8>]| {
            let mut out = Bytes::default();
            for part in parts {
                let there = (!part.is_empty()).then_some(part);
                out.optional(there, |out, part| {
                    out.string(part);
                });
            }
            out.hash()
        };
        prop_assert_eq!(optional(&one) == optional(&two), one == two);
    }
}

/// All that is hashed of a commit with one transfer.
struct Whole {
    caip2: &'static str,
    previous: JournalHash,
    commit: JournalCommit,
    transfer: Transfer,
    owner: Owner,
    asset: AssetKey,
    entry: Entry,
    wallet: WalletNo,
    balance_of: AssetNo,
    left: Position,
}

impl Whole {
    fn new() -> Self {
        let order = RewindOrder { by: Some("an".to_owned()), reason: "na".to_owned() };
        let transfer = transfer(Some("7"));
        let left = Position {
            settled: Amount::from(1),
            incoming: Amount::from(1000),
            outgoing: Amount::from(2),
            ..Position::default()
        };
        Self {
            caip2: CAIP2,
            previous: JournalHash([7; 32]),
            commit: commit(Some(Rewind { from: 80, order })),
            owner: owner(),
            asset: AssetKey::Token(Address::from([0x66; 20])),
            entry: Entry {
                transfer: transfer.no,
                kind: EntryKind::Connect,
                amount: Amount::from(1000),
            },
            wallet: transfer.wallet,
            balance_of: transfer.asset,
            left,
            transfer,
        }
    }

    fn hash(&self) -> JournalHash {
        let Self { transfer, owner, asset, entry, .. } = self;
        let connected = Some(Connected { transfer, owner: *owner, asset: *asset });
        let mut lines = [Line { entry: *entry, connected }];
        let mut left = [(self.wallet, self.balance_of, self.left)];
        hash(self.caip2, self.previous, &self.commit, &mut lines, &mut left)
    }

    fn order(&mut self) -> &mut RewindOrder {
        &mut self.commit.rewind.as_mut().unwrap().order
    }
}

/// Each changes one field, or gives a part of one to another.
const CHANGES: &[fn(&mut Whole)] = &[
    |whole| whole.caip2 = "eip155:10",
    |whole| whole.previous.0[31] ^= 1,
    |whole| whole.commit.number += 1,
    |whole| whole.commit.kind = CommitKind::Settlement,
    |whole| whole.commit.head.number += 1,
    |whole| whole.commit.head.hash.0[0] ^= 1,
    |whole| whole.commit.settled.number += 1,
    |whole| whole.commit.settled.hash.0[31] ^= 1,
    |whole| std::mem::swap(&mut whole.commit.head, &mut whole.commit.settled),
    |whole| std::mem::swap(&mut whole.commit.head.hash, &mut whole.commit.settled.hash),
    |whole| whole.commit.transfers += 1,
    |whole| whole.commit.time.0 += 1,
    |whole| whole.commit.rewind = None,
    |whole| whole.commit.rewind.as_mut().unwrap().from += 1,
    |whole| whole.order().by = None,
    |whole| *whole.order() = RewindOrder { by: Some(String::new()), reason: "anna".to_owned() },
    |whole| *whole.order() = RewindOrder { by: Some("a".to_owned()), reason: "nna".to_owned() },
    |whole| *whole.order() = RewindOrder { by: Some("ann".to_owned()), reason: "a".to_owned() },
    |whole| *whole.order() = RewindOrder { by: Some("na".to_owned()), reason: "an".to_owned() },
    |whole| whole.entry.transfer.0 += 1,
    |whole| whole.entry.kind = EntryKind::ConnectSettled,
    |whole| whole.entry.amount = Amount::from(1001),
    |whole| whole.entry.amount = Amount::from(1000 << 8),
    |whole| whole.transfer.id = TransferId(Uuid::from_u128(0xcdab)),
    |whole| whole.transfer.connection += 1,
    |whole| whole.owner.wallet.0 += 1,
    |whole| whole.owner.wallet_id = WalletId(Uuid::from_u128(0xabcd)),
    |whole| whole.owner.address = Address::from([0x45; 20]),
    |whole| whole.owner.address = Address::from([0x44; 32]),
    |whole| whole.owner.tenant.0 += 1,
    |whole| whole.transfer.asset.0 += 1,
    |whole| whole.asset = AssetKey::Native,
    |whole| whole.asset = AssetKey::Token(Address::from([0x22; 20])),
    |whole| whole.transfer.direction = Direction::Out,
    |whole| whole.transfer.kind = Kind::Internal,
    |whole| whole.transfer.counterparty = None,
    |whole| whole.transfer.counterparty = Some(Address::from([0x66; 20])),
    |whole| whole.transfer.tx = TxId::from([0x12; 32]),
    |whole| whole.transfer.ordinal = Ordinal::Log(301),
    |whole| whole.transfer.ordinal = Ordinal::Trace(vec![300]),
    |whole| whole.transfer.block.number += 1,
    |whole| whole.transfer.block.hash.0[7] ^= 1,
    |whole| whole.transfer.block_time.0 += 1,
    |whole| whole.transfer.memo = None,
    |whole| whole.transfer.memo = Some(String::new()),
    |whole| whole.transfer.memo = Some("77".to_owned()),
    |whole| whole.wallet.0 += 1,
    |whole| whole.balance_of.0 += 1,
    |whole| whole.left.settled = Amount::ZERO,
    |whole| whole.left.incoming = Amount::from(1001),
    |whole| whole.left.outgoing = Amount::from(3),
    |whole| std::mem::swap(&mut whole.left.settled, &mut whole.left.incoming),
    |whole| std::mem::swap(&mut whole.left.incoming, &mut whole.left.outgoing),
    |whole| std::mem::swap(&mut whole.left.settled, &mut whole.left.outgoing),
];

#[test]
fn each_field_of_a_commit_counts_in_its_own_place() {
    let mut seen = BTreeSet::from([Whole::new().hash().0]);
    for (index, change) in CHANGES.iter().enumerate() {
        let mut whole = Whole::new();
        change(&mut whole);
        assert!(seen.insert(whole.hash().0), "change no. {index} is not seen, or gives another");
    }
    // What is told elsewhere is not hashed here.
    let mut later = Whole::new();
    later.transfer.status = Status::Settled;
    later.transfer.seen_at = Millis(1);
    later.commit.hash = JournalHash([9; 32]);
    assert_eq!(later.hash(), Whole::new().hash());
}
