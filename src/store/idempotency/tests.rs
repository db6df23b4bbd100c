use super::*;
use crate::store::{Db, testing::TestStore};

const DAY: i64 = 86_400_000;

fn hash(of: &Key) -> [u8; 32] {
    let mut hash = [0; 32];
    hash[0] = u8::try_from(of.1.len()).unwrap();
    hash
}

/// Takes keys, keeps an answer with each and commits; gives those taken.
async fn use_up(db: &Db, keys: &[Key], now: i64) -> BTreeSet<Key> {
    db.run_tx("test", |mut tx| async move {
        let mut conn = tx.conn();
        let hashes: Vec<_> = keys.iter().map(hash).collect();
        let requests = keys.iter().zip(&hashes).collect();
        let taken = take(&mut conn, requests, Millis(now), Millis(now - DAY)).await?;
        let bodies: Vec<_> = taken.iter().map(|key| format!("{} at {now}", key.1)).collect();
        let answers: Vec<_> =
            taken.iter().zip(&bodies).map(|(key, body)| (key, 201, body.as_str())).collect();
        keep_answers(&mut conn, &answers).await?;
        Ok::<_, StoreError>((tx, taken))
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn a_key_is_taken_once_in_its_time_and_keeps_its_answer() {
    for store in TestStore::all().await {
        let (a, b) = (store.tenant().await, store.tenant().await);
        let key = |tenant, name: &str| (tenant, name.to_owned());
        let first = [key(a, "one"), key(a, "three"), key(b, "one")];
        assert_eq!(use_up(&store.db, &first, DAY).await, BTreeSet::from(first.clone()));
        let second = [key(a, "three"), key(b, "three"), key(a, "one")];
        let taken = use_up(&store.db, &second, DAY + 1).await;
        assert_eq!(taken, BTreeSet::from([key(b, "three")]), "the others are taken");
        let mut session = store.db.read().await.unwrap();
        let asked = [&key(a, "one"), &key(a, "three"), &key(b, "nine")];
        let answers = first_answers(&mut session.conn(), &asked).await.unwrap();
        assert_eq!(answers.len(), 2);
        let one = &answers[asked[0]];
        assert_eq!((one.status, one.body.as_str()), (201, format!("one at {DAY}").as_str()));
        assert_eq!(one.request_hash, hash(asked[0]));
        drop(session);
        let late = [key(a, "one"), key(b, "three")];
        let taken = use_up(&store.db, &late, 2 * DAY + 1).await;
        assert_eq!(taken, BTreeSet::from([key(a, "one")]), "a day later it is free");
        store.close().await;
    }
}

#[tokio::test]
async fn a_key_given_back_is_free_and_an_answer_needs_a_key() {
    for store in TestStore::all().await {
        let key = (store.tenant().await, "k".to_owned());
        let asked = &key;
        store
            .db
            .run_tx("test", |mut tx| async move {
                let mut conn = tx.conn();
                let hash = hash(asked);
                let taken = take(&mut conn, vec![(asked, &hash)], Millis(DAY), Millis(0)).await?;
                assert_eq!(taken.len(), 1);
                give_back(&mut conn, &[asked]).await?;
                let kept = keep_answers(&mut conn, &[(asked, 200, "{}")]).await;
                assert!(matches!(kept, Err(StoreError::Corrupt(_))), "{kept:?}");
                Ok::<_, StoreError>((tx, ()))
            })
            .await
            .unwrap();
        assert_eq!(use_up(&store.db, &[key], DAY).await.len(), 1);
        store.close().await;
    }
}
