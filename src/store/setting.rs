//! What tenants have chosen.

use super::{
    Conn, StoreError, on,
    set::{Ints, sets},
};
use crate::{
    id::TenantId,
    ledger::known::HashMap,
    model::{AdoptSafes, TenantNo},
};

/// Which Safes a tenant wants in their owners' accounts; `None` if there is no such tenant.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn adopt_safes(
    conn: &mut Conn<'_>,
    tenant: TenantId,
) -> Result<Option<AdoptSafes>, StoreError> {
    let word: Option<String> = on!(conn, c => sqlx::query_scalar(
        "SELECT adopt_safes FROM tenant WHERE id = $1"
    )
    .bind(tenant)
    .fetch_optional(c)
    .await)?;
    word.map(AdoptSafes::try_from).transpose().map_err(StoreError::corrupt)
}

/// The same for some tenants.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn adopt_safes_of(
    conn: &mut Conn<'_>,
    tenants: impl IntoIterator<Item = TenantNo>,
) -> Result<HashMap<TenantNo, AdoptSafes>, StoreError> {
    let tenants = Ints::of(tenants.into_iter().map(|tenant| tenant.0));
    if tenants.is_empty() {
        return Ok(HashMap::default());
    }
    let sql = sets(conn, "SELECT no, adopt_safes FROM tenant WHERE no IN ints($1)");
    let rows: Vec<(i64, String)> =
        on!(conn, c => sqlx::query_as(sql).bind(&tenants).fetch_all(c).await)?;
    let read = |(no, word)| {
        let adopt = AdoptSafes::try_from(word).map_err(StoreError::corrupt)?;
        Ok((TenantNo(no), adopt))
    };
    rows.into_iter().map(read).collect()
}

/// Sets it; `false` if there is no such tenant.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn set_adopt_safes(
    conn: &mut Conn<'_>,
    tenant: TenantId,
    adopt: AdoptSafes,
) -> Result<bool, StoreError> {
    let changed = on!(conn, c => sqlx::query("UPDATE tenant SET adopt_safes = $2 WHERE id = $1")
        .bind(tenant)
        .bind(adopt.as_str())
        .execute(c)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(changed == 1)
}
