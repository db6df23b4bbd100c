//! The journal of what a follower books, verified as the command does it.

use std::collections::btree_map;

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use super::*;
use crate::{
    cli::journal::{AT_ONCE, AtOnce, Sound, Verdict, Verification},
    ledger::{journal::walk::Tampered, rollback::TakenBack},
    model::RewindOrder,
    seeds,
};

/// Histories with rewinds; [`super::simulation`] has many more without.
const SEEDS: u64 = 20;
const STEPS: usize = 40;

pub(super) fn order() -> RewindOrder {
    RewindOrder { by: Some("a test".to_owned()), reason: "a bad snapshot".to_owned() }
}

/// Verified in many pages.
async fn verdict(store: &TestStore, from: u64, expect: Option<&str>) -> Verdict {
    verified(store, from, expect, AtOnce { commits: 3, entries: 4 }).await.unwrap()
}

async fn verified(
    store: &TestStore,
    from: u64,
    expect: Option<&str>,
    at_once: AtOnce,
) -> anyhow::Result<Verdict> {
    let chain = chain_name();
    let verification = Verification { db: &store.db, chain: &chain, from, expect, at_once };
    verification.run(&mut |_, _| {}).await
}

pub(super) async fn sound(store: &TestStore) -> Sound {
    match verified(store, 1, None, AT_ONCE).await.unwrap() {
        Verdict::Sound(sound) => sound,
        Verdict::Tampered(tampered) => panic!("nobody has edited it: {tampered}"),
    }
}

/// Nothing was edited, so the journal fits.
pub(super) async fn assert_sound(store: &TestStore) {
    let sound = sound(store).await;
    let cursor = store.cursor(&chain_name()).await.unwrap();
    assert_eq!(sound.newest, cursor.journal);
    let entries = store.rows("entry").await;
    let seen = sound.summary.entries + sound.summary.history;
    assert_eq!(i64::try_from(seen), Ok(entries), "every entry is in a commit");
}

pub(super) async fn tampered(store: &TestStore) -> Tampered {
    match verdict(store, 1, None).await {
        Verdict::Tampered(tampered) => tampered,
        Verdict::Sound(sound) => panic!("{sound:?}"),
    }
}

/// A history with deposits, a withdrawal, a reorg and settlement: money that has settled, and more above.
async fn history(store: &TestStore) -> (Rig, BTreeMap<Address, WalletId>) {
    let mut rig = Rig::new(store);
    let (tenant, wallet) = one_wallet(store, &mut rig).await;
    let other = store.register(tenant, &chain_name(), who(8)).await;
    rig.follow().await.unwrap();
    rig.chain.mine(&[pay(1, None, who(9), 500), pay(2, None, who(8), 30)]);
    rig.follow().await.unwrap();
    rig.chain.mine(&[pay(3, Some(who(9)), who(8), 120)]);
    rig.follow().await.unwrap();
    rig.chain.settle(rig.chain.head().at.number - 1);
    rig.follow().await.unwrap();
    let fork = rig.chain.head().at.number - 1;
    rig.chain.cut(fork);
    rig.chain.mine(&[pay(4, None, who(8), 7)]);
    rig.chain.mine(&[]);
    rig.follow().await.unwrap();
    rig.chain.settle(rig.chain.head().at.number);
    rig.follow().await.unwrap();
    rig.chain.mine(&[pay(5, Some(who(8)), who(9), 11)]);
    rig.follow().await.unwrap();
    (rig, BTreeMap::from([(who(9), wallet), (who(8), other)]))
}

/// What is done to the tables, and at which commit it is found, by what the text says of it.
const EDITS: &[(&str, &str)] = &[
    (
        "UPDATE entry SET amount = (SELECT amount FROM entry e WHERE e.commit_no = 3 AND e.amount <> entry.amount
             ORDER BY e.transfer_no LIMIT 1)
         WHERE commit_no = 2 AND kind IN (1, 3)",
        "commit 2: the connect entry",
    ),
    ("DELETE FROM entry WHERE commit_no = 3", "commit 3: it had 2 entries, there are 0"),
    (
        "INSERT INTO entry (transfer_no, kind, amount, created_at, commit_no)
             SELECT transfer_no, 5, amount, created_at, 4 FROM entry WHERE commit_no = 2 AND kind = 1",
        "commit 4: it had",
    ),
    (
        "UPDATE entry SET commit_no = 0 WHERE commit_no = 4",
        "commit 4: it had",
    ),
    (
        "UPDATE balance SET settled = incoming, version = version + 1 WHERE incoming <> settled",
        "another balance of asset",
    ),
    ("DELETE FROM balance", "another balance of asset"),
    ("UPDATE transfer SET memo = 'x' WHERE no IN (SELECT transfer_no FROM entry WHERE commit_no = 2 AND kind IN (1, 3))", "commit 2: its hash"),
    ("UPDATE transfer SET wallet_no = (SELECT MIN(no) FROM wallet)", "its hash"),
    ("UPDATE wallet SET address = (SELECT w.address FROM wallet w ORDER BY w.no LIMIT 1)", "its hash"),
    ("UPDATE journal SET settled_number = settled_number + 1 WHERE commit_no = 3", "commit 3: its hash"),
    ("UPDATE journal SET transfers = transfers + 1 WHERE commit_no = 3", "commit 3: its hash"),
    ("DELETE FROM journal WHERE commit_no = 3", "commit 3: it is not there"),
    ("DELETE FROM journal WHERE commit_no = (SELECT MAX(commit_no) FROM journal)", "commit"),
    ("UPDATE chain_cursor SET commits = commits - 1", "the chain's cursor names commit"),
    ("UPDATE chain_cursor SET settled_number = 0", "the chain's cursor has settled less"),
];

#[tokio::test]
async fn whatever_is_edited_in_the_tables_is_named() {
    for (sql, expected) in EDITS {
        for store in TestStore::all().await {
            history(&store).await;
            assert!(store.execute(sql).await.unwrap() > 0, "{sql}");
            let found = tampered(&store).await.to_string();
            assert!(found.contains(expected), "{sql}: {found}");
            store.close().await;
        }
    }
}

#[tokio::test]
async fn a_kept_hash_is_found_and_a_journal_that_was_cut_off_has_not_got_it() {
    for store in TestStore::all().await {
        let (_, wallets) = history(&store).await;
        let newest = sound(&store).await.newest;
        let kept = newest.hash.to_string();
        for from in [1, 3, newest.commit, newest.commit + 1] {
            for digits in [&kept[..], &kept[..12]] {
                let Verdict::Sound(sound) = verdict(&store, from, Some(digits)).await else {
                    panic!("nobody has edited it");
                };
                assert_eq!(sound.expected, Some(newest.commit));
                assert_eq!(sound.summary.commits, newest.commit + 1 - from);
            }
        }
        // Somebody takes the last payment out of every table.
        assert_eq!(wallets.len(), 2);
        for sql in [
            "DELETE FROM transfer WHERE no IN (SELECT transfer_no FROM entry
                 WHERE commit_no = (SELECT commits FROM chain_cursor))",
            "DELETE FROM entry WHERE commit_no = (SELECT commits FROM chain_cursor)",
            "DELETE FROM journal WHERE commit_no = (SELECT commits FROM chain_cursor)",
            "UPDATE balance SET outgoing = (SELECT b.outgoing FROM balance b ORDER BY b.outgoing LIMIT 1),
                 incoming = (SELECT b.incoming FROM balance b ORDER BY b.incoming LIMIT 1)",
            "UPDATE chain_cursor SET commits = commits - 1, journal_hash =
                 (SELECT hash FROM journal ORDER BY commit_no DESC LIMIT 1)",
        ] {
            assert!(store.execute(sql).await.unwrap() > 0, "{sql}");
        }
        let Verdict::Sound(cut) = verdict(&store, 1, Some(&kept)).await else {
            panic!("nothing of it is left to be found");
        };
        assert_eq!((cut.newest.commit, cut.expected), (newest.commit - 1, None));
        store.close().await;
    }
}

#[tokio::test]
async fn what_was_edited_before_the_first_commit_that_is_verified_is_found_where_it_counts() {
    for store in TestStore::all().await {
        history(&store).await;
        let newest = sound(&store).await.newest.commit;
        assert!(newest > 6, "more than two pages");
        let named = async |from: u64| match verdict(&store, from, None).await {
            Verdict::Sound(_) => None,
            Verdict::Tampered(tampered) => Some(tampered.commit),
        };
        let memo = "UPDATE transfer SET memo = 'x' WHERE no IN (
                        SELECT transfer_no FROM entry WHERE commit_no = 2 AND kind IN (1, 3))";
        assert!(store.execute(memo).await.unwrap() > 0);
        assert_eq!((named(1).await, named(2).await), (Some(2), Some(2)));
        assert_eq!(named(3).await, None, "no sum depends on it");
        assert!(store.execute("UPDATE balance SET version = version + 1").await.unwrap() > 0);
        assert_eq!(named(3).await, None, "nor does a balance on how often it was written");
        let more = "UPDATE entry SET amount = (SELECT amount FROM entry e WHERE e.commit_no = 3
                        AND e.amount <> entry.amount ORDER BY e.transfer_no LIMIT 1) WHERE commit_no = 2 AND kind IN (1, 3)";
        assert!(store.execute(more).await.unwrap() > 0);
        for from in 1..=newest + 1 {
            assert!(named(from).await.is_some_and(|commit| commit >= 2), "from commit {from}");
        }
        let refused = verified(&store, newest + 2, None, AT_ONCE).await.map(drop);
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains(&format!("no commit {}", newest + 1)), "{refused}");
        store.close().await;
    }
}

#[tokio::test]
async fn a_block_in_which_nothing_is_booked_makes_no_commit() {
    for store in TestStore::all().await {
        let (mut rig, wallets) = history(&store).await;
        let before = sound(&store).await;
        for _ in 0..5 {
            rig.chain.mine(&[pay(90, None, who(1), 5)]);
            rig.follow().await.unwrap();
        }
        let after = sound(&store).await;
        assert_eq!(after.newest, before.newest);
        assert_exact(&store, &rig, &wallets).await;
        store.close().await;
    }
}

#[tokio::test]
async fn what_another_hash_was_decided_upon_is_not_committed() {
    for store in TestStore::all().await {
        let (mut rig, wallets) = history(&store).await;
        let cursor = store.cursor(&chain_name()).await.unwrap();
        let mut stale = cursor.clone();
        stale.journal.hash.0[0] ^= 1;
        rig.chain.mine(&[pay(6, None, who(9), 3)]);
        let next = cursor.head.at.number + 1;
        let block = rig.chain.blocks(next, next).await.unwrap();
        let matched = rig.follower.matched(block).await.unwrap();
        let committer = rig.follower.committer.clone();
        let figures = BTreeMap::new();
        let refused = committer.connect(&stale, &matched, stale.settled, &figures, &[]).await;
        assert!(matches!(refused, Err(CommitError::CursorMoved(_))), "{refused:?}");
        assert_eq!(store.cursor(&chain_name()).await.unwrap(), cursor);
        rig.follow().await.unwrap();
        assert_exact(&store, &rig, &wallets).await;
        store.close().await;
    }
}

#[tokio::test]
async fn what_a_rewind_would_take_back_is_what_it_then_takes_back() {
    for store in TestStore::all().await {
        let (mut rig, wallets) = history(&store).await;
        let cursor = store.cursor(&chain_name()).await.unwrap();
        let (before, told_before) = (store.everything().await, store.rows("event").await);
        for table in ["balance", "block", "chain_cursor", "entry", "event", "journal", "transfer"] {
            assert!(!before[table].is_empty(), "{table}");
        }
        let committer = rig.follower.committer.clone();
        for to in (0..=cursor.head.at.number).rev() {
            let target = rig.chain.header_at(to).await.unwrap().unwrap();
            committer.would_rewind(&target).await.unwrap();
        }
        let target = rig.chain.header_at(cursor.head.at.number - 3).await.unwrap().unwrap();
        let said = committer.would_rewind(&target).await.unwrap();
        let entries = sound(&store).await.summary.entries;
        assert_eq!(store.everything().await, before, "neither that nor verifying changes a thing");
        let done = committer.rewind(&target, &order()).await.unwrap();
        assert_eq!(done.taken, said);
        let TakenBack { balances, events, .. } = said;
        let after = sound(&store).await;
        let taken = balances.values().map(|of| of.deposits.transfers + of.withdrawals.transfers);
        assert_eq!(taken.sum::<u64>(), after.summary.entries - entries);
        let told: u64 = events.values().sum();
        assert!(told > 0);
        assert_eq!(store.rows("event").await - told_before, i64::try_from(told).unwrap());
        for ((wallet, asset), taken) in balances {
            let id = wallets.values().copied();
            for id in id {
                if store.wallet_no(id).await == wallet {
                    let native = store.asset_no(&chain_name(), AssetKey::Native).await;
                    let key = if native == Some(asset) { AssetKey::Native } else { token() };
                    assert_eq!(store.position(id, &chain_name(), key).await, taken.after);
                }
            }
        }
        let [(commit, row, rewind)] = &after.rewinds[..] else { panic!("{after:?}") };
        assert_eq!((*commit, row.head), (after.newest.commit, target.at));
        assert_eq!((rewind.from, &rewind.order), (cursor.head.at.number, &order()));
        rig.chain.mine(&[]);
        rig.follow().await.unwrap();
        assert_exact(&store, &rig, &wallets).await;
        store.close().await;
    }
}

#[tokio::test]
async fn a_rewind_that_takes_nothing_back_stays_in_the_journal_all_the_same() {
    for store in TestStore::all().await {
        let (rig, _) = history(&store).await;
        let head = rig.chain.head();
        rig.follower.committer.rewind(&head, &order()).await.unwrap();
        let after = sound(&store).await;
        assert_eq!(after.rewinds.len(), 1);
        store
            .execute("UPDATE journal SET reason = 'the node was right' WHERE kind = 5")
            .await
            .unwrap();
        let found = tampered(&store).await;
        assert_eq!(found.commit, after.newest.commit, "{found}");
        store.close().await;
    }
}

/// What the fourth migration did, undone.
const DOWN: &[&str] = &[
    "DROP TABLE journal",
    "DROP INDEX entry_later",
    "ALTER TABLE entry DROP COLUMN commit_no",
    "ALTER TABLE chain_cursor DROP COLUMN commits",
    "ALTER TABLE chain_cursor DROP COLUMN journal_hash",
];

#[tokio::test]
async fn a_chain_from_before_the_journal_gets_one_and_its_past_is_added_up() {
    for store in TestStore::all().await {
        let (mut rig, wallets) = history(&store).await;
        let before = store.cursor(&chain_name()).await.unwrap();
        store.upgrade(DOWN).await;
        let cursor = store.cursor(&chain_name()).await.unwrap();
        assert_eq!((cursor.journal.commit, cursor.epoch), (0, before.epoch + 1));
        let old = store.rows("entry").await;
        let past = sound(&store).await;
        assert_eq!((past.newest.commit, i64::try_from(past.summary.history)), (0, Ok(old)));

        // The old process is fenced off; a new one goes on.
        rig.chain.mine(&[pay(6, None, who(9), 3)]);
        rig.restart(&store);
        rig.follow().await.unwrap();
        rig.chain.settle(rig.chain.head().at.number);
        rig.follow().await.unwrap();
        let now = sound(&store).await;
        assert_eq!((now.history, i64::try_from(now.summary.history)), (past.history, Ok(old)));
        assert!(now.newest.commit > 1 && now.summary.entries > 1);
        assert_exact(&store, &rig, &wallets).await;

        // What an old entry says decides about the sums that the first commits have.
        for table in ["UPDATE transfer SET amount = (SELECT amount FROM entry WHERE commit_no = 1 AND kind = 1)
                           WHERE no = (SELECT MIN(transfer_no) FROM entry)",
            "UPDATE entry SET amount = (SELECT amount FROM entry e WHERE commit_no = 1 AND kind = 1)
                 WHERE transfer_no = (SELECT MIN(transfer_no) FROM entry)"] {
            assert!(store.execute(table).await.unwrap() > 0);
        }
        assert_eq!(tampered(&store).await.commit, 1);
        store.close().await;
    }
}

/// Blocks, settlement, reorgs, registrations with a past, restarts and rewinds by hand, in any order.
async fn simulate(seed: u64, store: &TestStore) {
    let mut random = StdRng::seed_from_u64(seed);
    let (mut rig, mut wallets) = history(store).await;
    let tenant = store.tenant().await;
    for tx in 100..100 + STEPS as u64 {
        match random.random_range(0..10) {
            0..4 => {
                let to = who(random.random_range(6..=9));
                rig.chain.mine(&[pay(tx, None, to, random.random_range(1..100))]);
            }
            4 => {
                let (floor, head) = (rig.chain.settled_number(), rig.chain.head().at.number);
                rig.chain.settle(random.random_range(floor..=head));
            }
            5 => {
                let (floor, head) = (rig.chain.settled_number(), rig.chain.head().at.number);
                rig.chain.cut(random.random_range(floor..=head));
                rig.chain.mine(&[pay(tx, None, who(9), 1)]);
            }
            6 => {
                let address = who(random.random_range(6..=7));
                if let btree_map::Entry::Vacant(slot) = wallets.entry(address) {
                    let since = random.random_range(0..4);
                    slot.insert(
                        store.register_since(tenant, &chain_name(), address, Some(since)).await,
                    );
                }
            }
            7 => rig.restart(store),
            _ => {
                let settled = store.cursor(&chain_name()).await.unwrap().settled.at.number;
                let head = rig.chain.head().at.number;
                let to = random.random_range(settled.saturating_sub(6)..=head);
                if let Some(target) = rig.chain.header_at(to).await.unwrap() {
                    let committer = rig.follower.committer.clone();
                    let said = committer.would_rewind(&target).await.unwrap();
                    let done = committer.rewind(&target, &order()).await.unwrap();
                    assert_eq!(done.taken, said);
                    assert_sound(store).await;
                    rig.chain.mine(&[]);
                }
            }
        }
        rig.follow().await.unwrap();
        assert_sound(store).await;
    }
    rig.restart(store);
    rig.follow().await.unwrap();
    assert_exact(store, &rig, &wallets).await;
}

#[test]
fn a_journal_is_sound_whatever_is_taken_back_by_hand() {
    seeds::each(SEEDS, |seed| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(async {
            for store in TestStore::all().await {
                Box::pin(simulate(seed, &store)).await;
                store.close().await;
            }
        });
    });
}
