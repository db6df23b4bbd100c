//! The first answers to POSTs, kept so that a repeated request is not executed twice. All functions work on
//! the keys of several requests at once. [`super::retention`] forgets them.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::{Database, Encode, FromRow, QueryBuilder, Type};

use super::{Conn, StoreError, on, set::runs};
use crate::{clock::Millis, id::TenantId};

/// An idempotency key and whose it is.
pub type Key = (TenantId, String);

/// What was answered, and to which request.
#[derive(Clone, Debug, FromRow)]
pub struct FirstAnswer {
    pub request_hash: Vec<u8>,
    pub status: i32,
    pub body: String,
}

#[derive(FromRow)]
struct Row {
    tenant_id: TenantId,
    key: String,
    #[sqlx(flatten)]
    answer: FirstAnswer,
}

/// Takes keys for the transaction at hand, each with the hash of its request; none may be named twice. Gives
/// those taken. Somebody else had the others after `cutoff`; their answers are in the store by now, because
/// a transaction that has taken a key makes the next one wait.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn take(
    conn: &mut Conn<'_>,
    mut requests: Vec<(&Key, &[u8; 32])>,
    now: Millis,
    cutoff: Millis,
) -> Result<BTreeSet<Key>, StoreError> {
    // Who takes several takes them in the order in which everybody does.
    requests.sort_unstable();
    let mut taken = BTreeSet::new();
    for run in runs(&requests) {
        let rows: Vec<Key> = on!(conn, c => {
            let mut query = QueryBuilder::new(
                "INSERT INTO idempotency_key (tenant_id, key, request_hash, status, body, created_at) ",
            );
            query.push_values(run, |mut row, ((tenant, key), hash)| {
                row.push_bind(*tenant)
                    .push_bind(key)
                    .push_bind(&hash[..])
                    .push_bind(0)
                    .push_bind("")
                    .push_bind(now);
            });
            query.push(
                " ON CONFLICT (tenant_id, key) DO UPDATE
                  SET request_hash = excluded.request_hash, status = excluded.status,
                      body = excluded.body, created_at = excluded.created_at
                  WHERE idempotency_key.created_at < ",
            );
            query.push_bind(cutoff).push(" RETURNING tenant_id, key");
            query.build_query_as().fetch_all(c).await
        })?;
        taken.extend(rows);
    }
    Ok(taken)
}

/// The first answers to the requests with these keys.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn first_answers(
    conn: &mut Conn<'_>,
    keys: &[&Key],
) -> Result<BTreeMap<Key, FirstAnswer>, StoreError> {
    let mut found = BTreeMap::new();
    for run in runs(keys) {
        let rows: Vec<Row> = on!(conn, c => {
            let mut query = asked(run);
            query.push(
                ") SELECT k.tenant_id, k.key, k.request_hash, k.status, k.body
                   FROM asked CROSS JOIN idempotency_key k
                   WHERE k.tenant_id = asked.tenant_id AND k.key = asked.key",
            );
            query.build_query_as().fetch_all(c).await
        })?;
        found.extend(rows.into_iter().map(|row| ((row.tenant_id, row.key), row.answer)));
    }
    Ok(found)
}

/// Keeps answers (status and body) with the keys that the same transaction took.
///
/// # Errors
/// [`StoreError::Corrupt`] if a key was not taken.
pub async fn keep_answers(
    conn: &mut Conn<'_>,
    answers: &[(&Key, u16, &str)],
) -> Result<(), StoreError> {
    for run in runs(answers) {
        let changed = on!(conn, c => {
            let mut query =
                QueryBuilder::new("WITH answer (tenant_id, key, status, body) AS (");
            query.push_values(run, |mut row, ((tenant, key), status, body)| {
                row.push_bind(*tenant).push_bind(key).push_bind(i32::from(*status)).push_bind(*body);
            });
            query.push(
                ") UPDATE idempotency_key SET status = answer.status, body = answer.body FROM answer
                   WHERE idempotency_key.tenant_id = answer.tenant_id
                     AND idempotency_key.key = answer.key",
            );
            query.build().execute(c).await.map(|done| done.rows_affected())
        })?;
        if usize::try_from(changed) != Ok(run.len()) {
            return Err(StoreError::corrupt("an idempotency key vanished"));
        }
    }
    Ok(())
}

/// Gives back keys that the same transaction took, because their requests were refused.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn give_back(conn: &mut Conn<'_>, keys: &[&Key]) -> Result<(), StoreError> {
    for run in runs(keys) {
        on!(conn, c => {
            let mut query = asked(run);
            query.push(
                ") DELETE FROM idempotency_key
                   WHERE (tenant_id, key) IN (SELECT tenant_id, key FROM asked)",
            );
            query.build().execute(c).await.map(|_| ())
        })?;
    }
    Ok(())
}

/// The start of a statement on some keys.
fn asked<'a, DB: Database>(run: &[&'a Key]) -> QueryBuilder<DB>
where
    TenantId: Encode<'a, DB> + Type<DB>,
    &'a str: Encode<'a, DB> + Type<DB>,
{
    let mut query = QueryBuilder::new("WITH asked (tenant_id, key) AS (");
    query.push_values(run, |mut row, (tenant, key)| {
        row.push_bind(*tenant).push_bind(key.as_str());
    });
    query
}

#[cfg(test)]
mod tests;
