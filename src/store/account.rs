//! Accounts: the owners inside a tenant. [`super::registration`] makes them.

use super::{Conn, StoreError, on};
use crate::{
    clock::Millis,
    id::{AccountId, TenantId},
};

/// Holds the account's row until commit, so that it gets one primary wallet and not two.
///
/// # Errors
/// [`StoreError::Corrupt`] if there is no such account.
pub async fn lock(
    conn: &mut Conn<'_>,
    tenant: TenantId,
    account: AccountId,
    now: Millis,
) -> Result<(), StoreError> {
    let changed = on!(conn, c => sqlx::query(
        "UPDATE account SET updated_at = $3 WHERE id = $1 AND tenant_id = $2",
    )
    .bind(account)
    .bind(tenant)
    .bind(now)
    .execute(c)
    .await
    .map(|done| done.rows_affected()))?;
    if changed == 1 { Ok(()) } else { Err(StoreError::corrupt(format!("no account {account}"))) }
}
