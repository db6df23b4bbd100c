//! What a watch is told of the time before it.

use super::*;
use crate::{
    chain::{HistoryMethod, Kind},
    follow::backfill::budget::Budget,
    model::{HistoryStatus, Status, WalletChain},
    store::{transfer, wallet},
};

/// Registers with the history since a block, and follows until it is there.
async fn register_since(store: &TestStore, rig: &mut Rig, address: Address, from: u64) -> WalletId {
    let tenant = store.tenant().await;
    let id = store.register_since(tenant, &chain_name(), address, Some(from)).await;
    rig.follow().await.unwrap();
    id
}

pub(super) async fn until_decided(store: &TestStore, rig: &mut Rig) {
    for _ in 0..500 {
        rig.follow().await.unwrap();
        if store.wanted_histories().await == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("the history never came");
}

async fn status(store: &TestStore, wallet: WalletId) -> Option<HistoryStatus> {
    let mut session = store.db.read().await.unwrap();
    wallet::history_of(&mut session.conn(), wallet, &chain_name()).await.unwrap()
}

/// Kind, status and amount of what stands, by block.
pub(super) async fn standing(store: &TestStore, wallet: WalletId) -> Vec<(u64, Kind, Amount)> {
    let wallet = store.wallet_no(wallet).await;
    let cursor = store.cursor(&chain_name()).await.unwrap();
    let mut session = store.db.read().await.unwrap();
    let rows = transfer::settled_of(&mut session.conn(), cursor.no, &[wallet]).await.unwrap();
    let mut rows: Vec<_> = rows
        .into_iter()
        .filter(|row| row.status == Status::Settled)
        .map(|row| (row.block.number, row.kind, row.amount))
        .collect();
    rows.sort();
    rows
}

fn past(rig: &Rig) {
    rig.chain.mine(&[pay(1, None, who(9), 100)]);
    rig.chain.mine(&[pay(2, Some(who(9)), who(8), 30)]);
    rig.chain.mine(&[]);
    rig.chain.mine(&[pay(3, Some(who(8)), who(9), 5), pay(4, Some(who(9)), who(9), 2)]);
    rig.chain.mine(&[]);
}

#[tokio::test]
async fn the_history_takes_the_place_of_the_opening_and_changes_no_balance() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        rig.follow().await.unwrap();
        past(&rig);
        rig.follow().await.unwrap();
        let wallet = register_since(&store, &mut rig, who(9), 2).await;
        let opened = store.position(wallet, &chain_name(), AssetKey::Native).await;
        assert_eq!(opened.total(), Ok(75.into()), "it is there at once, before its history");
        rig.chain.mine(&[pay(5, None, who(9), 1)]);
        rig.follow().await.unwrap();
        assert_eq!(status(&store, wallet).await, Some(HistoryStatus::Wanted), "not settled yet");
        rig.chain.settle(6);
        until_decided(&store, &mut rig).await;
        assert_eq!(status(&store, wallet).await, Some(HistoryStatus::Complete));
        assert_eq!(
            standing(&store, wallet).await,
            [
                (1, Kind::Opening, 100.into()),
                (2, Kind::Transfer, 30.into()),
                (4, Kind::Transfer, 2.into()),
                (4, Kind::Transfer, 2.into()),
                (4, Kind::Transfer, 5.into()),
                (6, Kind::Transfer, 1.into()),
            ]
        );
        assert_exact(&store, &rig, &BTreeMap::from([(who(9), wallet)])).await;
        store.close().await;
    }
}

#[tokio::test]
async fn a_restart_and_a_reorg_in_the_middle_lose_and_double_nothing() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        rig.follow().await.unwrap();
        past(&rig);
        rig.chain.settle(3);
        rig.follow().await.unwrap();
        let wallet = register_since(&store, &mut rig, who(9), 1).await;
        let wallets = BTreeMap::from([(who(9), wallet)]);
        // The block that it began at vanishes.
        rig.chain.cut(3);
        rig.chain.mine(&[pay(3, Some(who(8)), who(9), 5)]);
        rig.chain.mine(&[]);
        rig.chain.mine(&[]);
        rig.follow().await.unwrap();
        rig.restart(&store);
        rig.follow().await.unwrap();
        assert_exact(&store, &rig, &wallets).await;
        rig.chain.settle(6);
        until_decided(&store, &mut rig).await;
        rig.restart(&store);
        until_decided(&store, &mut rig).await;
        assert_eq!(
            standing(&store, wallet).await,
            [
                (1, Kind::Transfer, 100.into()),
                (2, Kind::Transfer, 30.into()),
                (4, Kind::Transfer, 5.into()),
            ]
        );
        assert_exact(&store, &rig, &wallets).await;
        store.close().await;
    }
}

#[tokio::test]
async fn a_rewind_below_the_beginning_takes_the_history_back_and_it_comes_again() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        rig.follow().await.unwrap();
        past(&rig);
        rig.chain.settle(5);
        rig.follow().await.unwrap();
        let wallet = register_since(&store, &mut rig, who(9), 1).await;
        until_decided(&store, &mut rig).await;
        let before = standing(&store, wallet).await;
        let target = rig.chain.header_at(2).await.unwrap().unwrap();
        rig.follower.committer.rewind(&target, &journal::order()).await.unwrap();
        rig.follower.cursor = None;
        until_decided(&store, &mut rig).await;
        rig.chain.mine(&[]);
        rig.chain.settle(6);
        until_decided(&store, &mut rig).await;
        assert_exact(&store, &rig, &BTreeMap::from([(who(9), wallet)])).await;
        assert_eq!(standing(&store, wallet).await, before);
        store.close().await;
    }
}

#[tokio::test]
async fn a_history_that_does_not_lead_to_the_opening_is_not_booked() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        rig.follow().await.unwrap();
        rig.chain.mine(&[pay(1, None, who(9), 100)]);
        rig.chain.mine(&[pay(2, Some(who(9)), who(8), 60)]);
        // The spending is not shown: a hundred came in, and forty are there.
        rig.chain.hide_last();
        rig.chain.mine(&[]);
        rig.chain.settle(3);
        rig.follow().await.unwrap();
        let wallet = register_since(&store, &mut rig, who(9), 1).await;
        until_decided(&store, &mut rig).await;
        assert_eq!(status(&store, wallet).await, Some(HistoryStatus::Incomplete));
        let counted =
            rig.follower.metrics.histories_total.with_label_values(&["scripted", "incomplete"]);
        assert_eq!(counted.get(), 1, "an operator sees it");
        assert_eq!(standing(&store, wallet).await, [(3, Kind::Opening, 40.into())]);
        assert_exact(&store, &rig, &BTreeMap::from([(who(9), wallet)])).await;
        store.close().await;
    }
}

#[tokio::test]
async fn a_history_that_begins_after_the_watch_is_empty() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        rig.follow().await.unwrap();
        past(&rig);
        rig.chain.settle(5);
        rig.follow().await.unwrap();
        let wallet = register_since(&store, &mut rig, who(9), 50).await;
        until_decided(&store, &mut rig).await;
        assert_eq!(status(&store, wallet).await, Some(HistoryStatus::Complete));
        assert_eq!(standing(&store, wallet).await, [(5, Kind::Opening, 75.into())]);
        store.close().await;
    }
}

/// A chain on which everybody from 1 to 9 is paid now and then, and pays the next one.
fn lively(rig: &Rig, blocks: u64) {
    for n in 0..blocks {
        let number = |n: u64| who(u8::try_from(n % 9 + 1).unwrap());
        let (one, other) = (number(n), number(n + 1));
        let token_pay = |tx, from, to| Payment { asset: token(), ..pay(tx, from, to, 1) };
        rig.chain.mine(&[
            pay(4 * n, None, one, 10),
            pay(4 * n + 1, Some(one), other, 3),
            token_pay(4 * n + 2, None, other),
            token_pay(4 * n + 3, Some(other), one),
        ]);
    }
    rig.chain.settle(blocks);
}

/// A rig on a lively chain, followed to its head.
pub(super) async fn on_a_lively_chain(store: &TestStore, blocks: u64) -> Rig {
    let mut rig = Rig::new(store);
    rig.follow().await.unwrap();
    lively(&rig, blocks);
    rig.follow().await.unwrap();
    rig.chain.read();
    rig
}

pub(super) async fn covered_from(
    store: &TestStore,
    tenant: TenantId,
    wallet: WalletId,
) -> Option<u64> {
    shown(store, tenant, wallet).await.covered_from
}

/// The wallet's chain, as the API shows it.
pub(super) async fn shown(store: &TestStore, tenant: TenantId, id: WalletId) -> WalletChain {
    let mut session = store.db.read().await.unwrap();
    let found = wallet::by_id(&mut session.conn(), tenant, id).await.unwrap().unwrap();
    found.chains[0].clone()
}

/// Whether every transfer since `from` is there, and each opening what the chain had below them.
pub(super) async fn assert_explained(
    store: &TestStore,
    rig: &Rig,
    wallet: WalletId,
    address: Address,
    from: u64,
) {
    let got = standing(store, wallet).await;
    // A block that is followed shows transfers of nothing, too; a history is told of money alone.
    let transfers: Vec<u64> = got
        .iter()
        .filter(|(_, kind, amount)| *kind == Kind::Transfer && !amount.is_zero())
        .map(|(number, ..)| *number)
        .collect();
    assert_eq!(transfers, rig.chain.heights_of(address, from));
    let mut openings: BTreeMap<u64, Amount> = BTreeMap::new();
    for (number, _, amount) in got.iter().filter(|(_, kind, _)| *kind == Kind::Opening) {
        let sum = openings.entry(*number).or_default();
        *sum = sum.checked_add(*amount).unwrap();
    }
    // An opening is moved down only by what it explains, so that the two assets' can lie apart.
    let mut had = [AssetKey::Native, token()].map(|asset| {
        let first = rig.chain.heights_of_asset(address, asset, from).first().copied();
        (first, rig.chain.balance_at(from - 1, address, asset))
    });
    had.sort();
    for (number, amount) in openings {
        assert!(number + 1 >= from);
        let fits = |first: Option<u64>| first.is_none_or(|first| number < first);
        let both = had[0].1.checked_add(had[1].1);
        let one = had.iter().any(|(first, had)| *had == amount && fits(*first));
        assert!(one || (both == Some(amount) && had.iter().all(|(first, _)| fits(*first))));
    }
    let opened = got.iter().filter(|(_, kind, _)| *kind == Kind::Opening);
    let opened = opened.fold(Amount::ZERO, |sum, one| sum.checked_add(one.2).unwrap());
    assert_eq!(Some(opened), had[0].1.checked_add(had[1].1), "what was there before");
}

/// Whether all is there that was asked for.
pub(super) async fn assert_complete(
    store: &TestStore,
    rig: &Rig,
    tenant: TenantId,
    wallet: WalletId,
    address: Address,
) {
    let shown = shown(store, tenant, wallet).await;
    if shown.from_block.is_some() {
        assert_eq!(shown.history, Some(HistoryStatus::Complete));
    }
    let from = shown.covered_from.unwrap().max(1);
    assert!(shown.from_block.is_none_or(|asked| from == asked.max(1) || asked > from));
    assert_explained(store, rig, wallet, address, from).await;
}

#[tokio::test]
async fn many_histories_are_found_by_one_reading_of_the_chain() {
    for store in TestStore::all().await {
        let mut rig = on_a_lively_chain(&store, 60).await;
        let mut wallets = BTreeMap::new();
        let tenants = [store.tenant().await, store.tenant().await, store.tenant().await];
        // As many as fill the last transaction that enlists them.
        for (tenant, wallet) in tenants.iter().cycle().zip(1..=10) {
            let id = store.register_since(*tenant, &chain_name(), who(wallet), Some(0)).await;
            wallets.insert(who(wallet), id);
        }
        until_decided(&store, &mut rig).await;
        let mut read = rig.chain.read();
        read.sort_unstable();
        let expected: Vec<(u64, u64)> = (0..20).map(|n| (3 * n + 1, 3 * n + 3)).collect();
        assert_eq!(read, expected, "each block once, for all of them");
        assert_exact(&store, &rig, &wallets).await;
        for (&address, &wallet) in &wallets {
            assert_eq!(status(&store, wallet).await, Some(HistoryStatus::Complete));
            assert_explained(&store, &rig, wallet, address, 1).await;
        }
        let counted =
            rig.follower.metrics.histories_total.with_label_values(&["scripted", "complete"]);
        assert_eq!(counted.get(), 10);
        store.close().await;
    }
}

#[tokio::test]
async fn a_history_that_was_interrupted_goes_on_where_it_was() {
    for store in TestStore::all().await {
        let mut rig = on_a_lively_chain(&store, 60).await;
        rig.chain.lose([20]);
        let tenant = store.tenant().await;
        let long = store.register_since(tenant, &chain_name(), who(2), Some(2)).await;
        let short = store.register_since(tenant, &chain_name(), who(3), Some(41)).await;
        let backing_off = |rig: &Rig| {
            rig.follower.metrics.history_scans_backing_off.with_label_values(&["scripted"]).get()
        };
        // Ranges end at 60, 57, 54 and so on.
        while covered_from(&store, tenant, long).await != Some(22) || backing_off(&rig) == 0 {
            rig.follow().await.unwrap();
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        assert_eq!(covered_from(&store, tenant, short).await, Some(41));
        assert_eq!(status(&store, short).await, Some(HistoryStatus::Complete));
        assert_explained(&store, &rig, short, who(3), 41).await;
        assert_exact(&store, &rig, &BTreeMap::from([(who(2), long), (who(3), short)])).await;
        // A block comes meanwhile, and another process takes over when the blocks are there again.
        rig.chain.mine(&[pay(1000, None, who(2), 5)]);
        rig.follow().await.unwrap();
        assert_exact(&store, &rig, &BTreeMap::from([(who(2), long)])).await;
        rig.chain.lose([]);
        rig.chain.read();
        rig.restart(&store);
        until_decided(&store, &mut rig).await;
        let highest = rig.chain.read().into_iter().map(|(_, to)| to).max();
        assert_eq!(highest, Some(21), "what was found is not read again");
        assert_eq!(backing_off(&rig), 0);
        rig.chain.settle(61);
        rig.follow().await.unwrap();
        assert_explained(&store, &rig, long, who(2), 2).await;
        assert_exact(&store, &rig, &BTreeMap::from([(who(2), long)])).await;
        store.close().await;
    }
}

#[tokio::test]
async fn blocks_go_on_between_the_batches_of_a_history() {
    for store in TestStore::all().await {
        let mut rig = on_a_lively_chain(&store, 90).await;
        rig.follower.backfill.limit(Budget::new(Duration::from_mins(1), 2));
        let tenant = store.tenant().await;
        store.register_since(tenant, &chain_name(), who(2), Some(1)).await;
        let mut announced = rig.chain.announced();
        let (mut turns, mut tx) = (0, 1000);
        while turns == 0 || store.wanted_histories().await > 0 {
            tx += 1;
            let number = rig.chain.mine(&[pay(tx, None, who(2), 1)]).number;
            rig.chain.settle(number);
            rig.follower.turn(&mut announced).await.unwrap();
            let head = store.cursor(&chain_name()).await.unwrap().head.at;
            assert_eq!(head, rig.chain.head().at, "whatever there was to be booked of the past");
            turns += 1;
            tokio::task::yield_now().await;
        }
        assert!(turns >= 5, "{turns} turns");
        store.close().await;
    }
}

#[tokio::test]
async fn a_past_that_contradicts_its_opening_ends_for_that_wallet_alone() {
    for store in TestStore::all().await {
        let mut rig = on_a_lively_chain(&store, 10).await;
        rig.chain.mine(&[pay(1000, Some(who(4)), who(11), 1), pay(1001, None, who(12), 100)]);
        // The spending is not shown.
        rig.chain.mine(&[pay(1002, Some(who(12)), who(11), 60)]);
        rig.chain.hide_last();
        rig.chain.settle(12);
        rig.follow().await.unwrap();
        let tenant = store.tenant().await;
        let mut wallets = BTreeMap::new();
        for wallet in [2, 4, 12] {
            let id = store.register_since(tenant, &chain_name(), who(wallet), Some(1)).await;
            wallets.insert(who(wallet), id);
        }
        until_decided(&store, &mut rig).await;
        assert_exact(&store, &rig, &wallets).await;
        for wallet in [2, 4] {
            let id = wallets[&who(wallet)];
            assert_eq!(status(&store, id).await, Some(HistoryStatus::Complete));
            assert_explained(&store, &rig, id, who(wallet), 1).await;
        }
        let odd = wallets[&who(12)];
        assert_eq!(status(&store, odd).await, Some(HistoryStatus::Incomplete));
        assert_eq!(standing(&store, odd).await, [(12, Kind::Opening, 40.into())]);
        store.close().await;
    }
}

/// A rig whose histories are found by the index of logs.
async fn with_an_index(store: &TestStore) -> Rig {
    let mut rig = on_a_lively_chain(store, 60).await;
    Arc::make_mut(&mut rig.follower.config).history = HistoryMethod::Logs;
    rig
}

/// What stands of one asset's kind: the openings and the transfers, by block.
async fn tokens_since(store: &TestStore, wallet: WalletId) -> (Vec<u64>, Vec<(u64, Amount)>) {
    let got = standing(store, wallet).await;
    let transfers = got.iter().filter(|(_, kind, _)| *kind == Kind::Transfer);
    let openings = got.iter().filter(|(_, kind, _)| *kind == Kind::Opening);
    (
        transfers.map(|(number, ..)| *number).collect(),
        openings.map(|(number, _, amount)| (*number, *amount)).collect(),
    )
}

#[tokio::test]
async fn an_index_of_logs_finds_the_tokens_past_and_leaves_the_native_coin_as_it_was() {
    for store in TestStore::all().await {
        let mut rig = with_an_index(&store).await;
        let tenant = store.tenant().await;
        let wallet = store.register_since(tenant, &chain_name(), who(2), Some(20)).await;
        until_decided(&store, &mut rig).await;
        assert_eq!(status(&store, wallet).await, Some(HistoryStatus::Complete));
        let shown = shown(&store, tenant, wallet).await;
        assert_eq!(shown.history_method, Some(HistoryMethod::Logs));
        assert_eq!(shown.covered_from, Some(20));
        let read: Vec<u64> = rig.chain.read().into_iter().map(|(from, _)| from).collect();
        assert!(read.len() < 20, "only where there was something to be found: {read:?}");
        let native = rig.chain.balance(who(2), AssetKey::Native);
        let before = rig.chain.balance_at(19, who(2), token());
        let (transfers, mut openings) = tokens_since(&store, wallet).await;
        assert_eq!(openings.pop(), Some((60, native)));
        let (below, amounts): (Vec<u64>, Vec<Amount>) = openings.into_iter().unzip();
        assert_eq!(amounts, [before].into_iter().filter(|had| !had.is_zero()).collect::<Vec<_>>());
        assert!(below.iter().all(|below| transfers.iter().all(|number| number > below)));
        assert_eq!(transfers, rig.chain.heights_of_asset(who(2), token(), 20));
        assert_exact(&store, &rig, &BTreeMap::from([(who(2), wallet)])).await;
        store.close().await;
    }
}

#[tokio::test]
async fn what_an_index_of_logs_leaves_out_is_noticed() {
    for store in TestStore::all().await {
        let mut rig = with_an_index(&store).await;
        let heights = rig.chain.heights_of_asset(who(2), token(), 20);
        let legs = |height: &u64| heights.iter().filter(|other| *other == height).count();
        rig.chain.unindex(heights.iter().copied().find(|height| legs(height) == 1));
        let tenant = store.tenant().await;
        let wallet = store.register_since(tenant, &chain_name(), who(2), Some(20)).await;
        until_decided(&store, &mut rig).await;
        assert_eq!(status(&store, wallet).await, Some(HistoryStatus::Incomplete));
        assert_exact(&store, &rig, &BTreeMap::from([(who(2), wallet)])).await;
        store.close().await;
    }
}

#[tokio::test]
async fn what_an_index_of_logs_found_is_not_called_complete_where_no_node_can_say_so() {
    for store in TestStore::all().await {
        let mut rig = with_an_index(&store).await;
        rig.chain.prune(true);
        let tenant = store.tenant().await;
        let since_20 = store.register_since(tenant, &chain_name(), who(2), Some(20)).await;
        let since_ever = store.register_since(tenant, &chain_name(), who(3), Some(0)).await;
        until_decided(&store, &mut rig).await;
        assert_eq!(status(&store, since_20).await, Some(HistoryStatus::Incomplete));
        assert_eq!(
            status(&store, since_ever).await,
            Some(HistoryStatus::Complete),
            "before a chain begins nobody has a token: no node is needed to say so"
        );
        let wallets = BTreeMap::from([(who(2), since_20), (who(3), since_ever)]);
        assert_exact(&store, &rig, &wallets).await;
        store.close().await;
    }
}
