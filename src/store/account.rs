//! Accounts: the owners inside a tenant, and the locators that name them.

use super::{Conn, StoreError, on};
use crate::{
    clock::Millis,
    id::{AccountId, TenantId},
    string_enum::string_enum,
};

string_enum! {
    /// What names an account besides its external id; each value names one account of a tenant.
    LocatorKind {
        Email = "email",
        UserId = "userId",
        PhoneNumber = "phoneNumber",
        X = "x",
    }
}

/// The account with that external id, made if there is none.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn ensure(
    conn: &mut Conn<'_>,
    new: AccountId,
    tenant: TenantId,
    external_id: &str,
    now: Millis,
) -> Result<AccountId, StoreError> {
    on!(conn, c => sqlx::query(
        "INSERT INTO account (id, tenant_id, external_id, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $4) ON CONFLICT (tenant_id, external_id) DO NOTHING",
    )
    .bind(new)
    .bind(tenant)
    .bind(external_id)
    .bind(now)
    .execute(c)
    .await
    .map(|_| ()))?;
    on!(conn, c => sqlx::query_scalar(
        "SELECT id FROM account WHERE tenant_id = $1 AND external_id = $2",
    )
    .bind(tenant)
    .bind(external_id)
    .fetch_optional(c)
    .await)?
    .ok_or_else(|| StoreError::corrupt(format!("the account {external_id} vanished")))
}

/// Lets a locator name an account; gives the account that it names now, which is another one if it
/// was taken.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn ensure_locator(
    conn: &mut Conn<'_>,
    tenant: TenantId,
    account: AccountId,
    kind: LocatorKind,
    value: &str,
) -> Result<AccountId, StoreError> {
    on!(conn, c => sqlx::query(
        "INSERT INTO account_locator (tenant_id, kind, value, account_id)
         VALUES ($1, $2, $3, $4) ON CONFLICT (tenant_id, kind, value) DO NOTHING",
    )
    .bind(tenant)
    .bind(kind.as_str())
    .bind(value)
    .bind(account)
    .execute(c)
    .await
    .map(|_| ()))?;
    on!(conn, c => sqlx::query_scalar(
        "SELECT account_id FROM account_locator WHERE tenant_id = $1 AND kind = $2 AND value = $3",
    )
    .bind(tenant)
    .bind(kind.as_str())
    .bind(value)
    .fetch_optional(c)
    .await)?
    .ok_or_else(|| StoreError::corrupt(format!("the locator {kind}:{value} vanished")))
}

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
