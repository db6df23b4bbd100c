//! Statements that no other test of this library runs, with nothing to find: only their texts are of interest.

use crate::{
    chain::{Address, ChainName, Family, SafeState, TxId},
    clock::Millis,
    id::{AccountId, KeyId, WalletId},
    ledger::changes::DeploymentChange,
    model::{ChainNo, DeploymentStatus, LocatorKind, Status, WalletNo},
    store::{
        account, asset, balance, delivery, endpoint,
        history::{self, TransferFilter},
        key, safe,
        testing::TestStore,
        transfer,
        wallet::{self, AccountFilter, WalletChanges, WalletFilter},
        watch,
    },
};

const NOW: Millis = Millis(0);

/// In a transaction of its own, which is undone. Most find nothing, and some say so.
macro_rules! run {
    ($store:expr, $conn:ident => $($call:expr),+ $(,)?) => {$({
        let mut tx = $store.db.begin().await.unwrap();
        let $conn = &mut tx.conn();
        drop($call.await);
    })+};
}

#[tokio::test]
async fn statements_that_no_other_test_runs_are_understood_by_every_store() {
    for store in TestStore::all().await {
        let tenant = store.tenant().await;
        let name = ChainName::new("a");
        let address = Address::from([1; 20]);
        let id = store.register(tenant, &name, address).await;
        let no = store.wallet_no(id).await;
        lists(&store, tenant, id).await;
        let (chain, account) = (ChainNo(1), store.ids.next::<AccountId>());
        let pending = TransferFilter { status: Some(Status::Pending), ..TransferFilter::default() };
        let changes = WalletChanges {
            client_reference_id: Some(Some("r".to_owned())),
            ..WalletChanges::default()
        };
        let tx = TxId::from([1; 32]);
        let proof =
            SafeState { version: "1.4.1", singleton: address, owners: vec![address], threshold: 1 };
        run!(store, conn =>
            key::keys(conn, None),
            key::revoke_key(conn, store.ids.next::<KeyId>(), NOW),
            asset::verified(conn),
            account::lock(conn, tenant, account, NOW),
            delivery::release_all(conn),
            endpoint::delete(conn, tenant, store.ids.next(), NOW),
            history::page(conn, no, &pending, 1),
            transfer::newest_block(conn, chain, 1),
            wallet::demote_others(conn, tenant, account, Family::Evm, id, NOW),
            wallet::update(conn, tenant, id, &changes, NOW),
            watch::newest_opening(conn, chain, 1),
            watch::watched(conn, chain, &[WalletNo(1)], 1),
            watch::count_open(conn, &name),
            watch::watching(conn, chain, Family::Evm, &[address]),
            watch::shown(conn, Family::Evm, &[id]),
            safe::undecided(conn, chain),
            safe::of_transactions(conn, chain, &[tx]),
            safe::by_tx(conn, tenant, &name, &tx),
            safe::get(conn, tenant, store.ids.next()),
            safe::list(conn, tenant, None, None, None, 1),
            safe::list(
                conn,
                tenant,
                Some(&name),
                Some(DeploymentStatus::Pending),
                Some(store.ids.next()),
                1,
            ),
            safe::write_proof(conn, id, &proof, NOW),
            async {
                let new = store.ids.next();
                safe::insert_by_hash(conn, new, tenant, &name, &tx, NOW).await.unwrap();
                let now = safe::get(conn, tenant, new).await.unwrap().unwrap();
                safe::write(conn, chain, &DeploymentChange { seen: Some(now.revision), now }).await
            },
        );
        store.close().await;
    }
}

/// Each way in which a tenant's wallets are looked for.
async fn lists(store: &TestStore, tenant: crate::id::TenantId, id: WalletId) {
    let filter = WalletFilter::default;
    let of = |account| WalletFilter { account: Some(account), ..WalletFilter::default() };
    let filters = [
        filter(),
        WalletFilter { id: Some(id), ..filter() },
        WalletFilter { before: Some(id), ..filter() },
        WalletFilter { address: Some(Address::from([1; 20])), ..filter() },
        WalletFilter { client_reference_id: Some("r".to_owned()), ..filter() },
        WalletFilter { chain: Some(ChainName::new("a")), ..filter() },
        of(AccountFilter::Id(store.ids.next())),
        of(AccountFilter::External("u".to_owned())),
        of(AccountFilter::Locator(LocatorKind::UserId, "u".to_owned())),
    ];
    for filter in filters {
        run!(store, conn =>
            wallet::list(conn, tenant, &filter, 1),
            wallet::matching(conn, tenant, &filter),
            balance::holdings(conn, tenant, &filter),
        );
    }
}
