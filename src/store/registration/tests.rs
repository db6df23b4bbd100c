use super::*;
use crate::{
    model::WalletKind,
    store::{Db, testing::TestStore, wallet},
};

const NOW: Millis = Millis(1_768_469_400_000);

struct Made {
    tenant: TenantId,
    account: AccountId,
    new: Registrations,
}

async fn number(store: &TestStore, tenant: TenantId, chain: &str) -> (TenantNo, ChainNo) {
    let name = ChainName::new(chain);
    store
        .db
        .run_tx("test", |mut tx| {
            let names = BTreeSet::from([name.clone()]);
            async move {
                let mut conn = tx.conn();
                let tenants = tenants(&mut conn, &BTreeSet::from([tenant])).await?;
                let chains = chains(&mut conn, &names).await?;
                let (name, no) = chains.into_iter().next().expect("a number");
                assert!(names.contains(&name));
                Ok::<_, StoreError>((tx, (tenants[&tenant], no)))
            }
        })
        .await
        .unwrap()
}

/// A primary wallet of an account with a locator, watched on two chains.
async fn registration(store: &TestStore, tenant: TenantId, account: AccountId, byte: u8) -> Made {
    let address = Address::from([byte; 20]);
    let id: WalletId = store.ids.next();
    let (no, base) = number(store, tenant, "base").await;
    let (_, ethereum) = number(store, tenant, "ethereum").await;
    let watch =
        |chain: ChainNo, from_block| NewWatch { key: (no, chain, address), wallet: id, from_block };
    let new = Registrations {
        accounts: vec![((tenant, "player".to_owned()), account)],
        locators: vec![((tenant, LocatorKind::UserId, "7".to_owned()), account)],
        wallets: vec![NewWallet {
            id,
            tenant: no,
            tenant_id: tenant,
            account_id: Some(account),
            family: Family::Evm,
            address,
            kind: WalletKind::Eoa,
            safe: None,
            client_reference_id: Some("r".to_owned()),
            nickname: None,
            is_primary: true,
        }],
        watches: vec![watch(base, None), watch(ethereum, Some(7))],
        primaries: Vec::new(),
    };
    Made { tenant, account, new }
}

async fn write(db: &Db, new: &Registrations) -> Result<BTreeMap<WalletId, WalletNo>, StoreError> {
    db.run_tx("test", |mut tx| async move {
        let numbers = insert(&mut tx.conn(), new, NOW).await?;
        Ok((tx, numbers))
    })
    .await
}

#[tokio::test]
async fn what_was_registered_is_found_by_its_keys_and_nothing_else_is() {
    for store in TestStore::all().await {
        let both = [(store.tenant().await, 1), (store.tenant().await, 2)];
        for (tenant, byte) in both {
            let made = registration(&store, tenant, store.ids.next(), byte).await;
            let id = made.new.wallets[0].id;
            let numbers = write(&store.db, &made.new).await.unwrap();
            assert_eq!(numbers[&id], store.wallet_no(id).await);
            let mut session = store.db.read().await.unwrap();
            let mut conn = session.conn();
            let keys: Vec<WatchKey> = made.new.watches.iter().map(|watch| watch.key).collect();
            let other = (keys[0].0, keys[0].1, Address::from([9; 20]));
            let asked = [keys[0], other, keys[1]];
            let found = watched(&mut conn, &asked).await.unwrap();
            assert_eq!(found, BTreeMap::from([(keys[0], id), (keys[1], id)]));
            let name = |name: &str| (tenant, name.to_owned());
            let asked = BTreeSet::from([name("player"), name("nobody")]);
            let found = accounts(&mut conn, &asked).await.unwrap();
            assert_eq!(found, BTreeMap::from([(name("player"), made.account)]));
            let named = |kind| (tenant, kind, "7".to_owned());
            let asked = BTreeSet::from([named(LocatorKind::UserId), named(LocatorKind::X)]);
            let found = locators(&mut conn, &asked).await.unwrap();
            assert_eq!(found, BTreeMap::from([(named(LocatorKind::UserId), made.account)]));
            let row = wallet::by_id(&mut conn, made.tenant, id).await.unwrap().unwrap();
            assert!(row.is_primary && row.client_reference_id.as_deref() == Some("r"));
            let from: Vec<_> = row.chains.iter().map(|on| (on.from_block, on.history)).collect();
            assert_eq!(from, [(None, None), (Some(7), Some(HistoryStatus::Wanted))]);
        }
        store.close().await;
    }
}

#[tokio::test]
async fn a_key_that_came_into_being_meanwhile_is_a_collision_and_nothing_is_written() {
    for store in TestStore::all().await {
        let tenant = store.tenant().await;
        let first = registration(&store, tenant, store.ids.next(), 1).await;
        write(&store.db, &first.new).await.unwrap();
        // Each time only one key is an old one.
        let other = async |byte| registration(&store, tenant, first.account, byte).await.new;
        let mut same_account = other(2).await;
        same_account.locators.clear();
        same_account.accounts[0].1 = store.ids.next();
        let mut same_locator = other(3).await;
        same_locator.accounts.clear();
        let mut same_watch = other(1).await;
        same_watch.accounts.clear();
        same_watch.locators.clear();
        for new in [same_account, same_locator, same_watch] {
            let done = write(&store.db, &new).await;
            assert!(matches!(done, Err(StoreError::Collision(_))), "{done:?}");
            let mut session = store.db.read().await.unwrap();
            let id = new.wallets[0].id;
            let row = wallet::by_id(&mut session.conn(), tenant, id).await.unwrap();
            assert!(row.is_none(), "nothing of it is there");
        }
        store.close().await;
    }
}

#[tokio::test]
async fn a_new_primary_wallet_takes_the_place_of_the_one_before() {
    for store in TestStore::all().await {
        let tenant = store.tenant().await;
        let first = registration(&store, tenant, store.ids.next(), 1).await;
        write(&store.db, &first.new).await.unwrap();
        let mut second = registration(&store, tenant, first.account, 2).await.new;
        second.accounts.clear();
        second.locators.clear();
        second.primaries.push((first.account, Family::Evm));
        write(&store.db, &second).await.unwrap();
        let mut session = store.db.read().await.unwrap();
        for (id, primary) in [(first.new.wallets[0].id, false), (second.wallets[0].id, true)] {
            let row = wallet::by_id(&mut session.conn(), tenant, id).await.unwrap().unwrap();
            assert_eq!(row.is_primary, primary);
        }
        drop(session);
        store.close().await;
    }
}
