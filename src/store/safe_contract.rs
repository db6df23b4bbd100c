//! Which of Safe's own contracts stand on a chain.

use super::{Conn, StoreError, on, rows::Table};
use crate::{
    chain::{Address, ChainName},
    clock::Millis,
    ledger::known::HashMap,
    model::ChainNo,
};

/// The hash of the code at an address; `None` where there is none.
pub type Code = (Address, Option<[u8; 32]>);

static SAFE_CONTRACT: Table = Table::upsert(
    "safe_contract",
    &["chain_no", "address", "code", "read_at"],
    "ON CONFLICT (chain_no, address) DO UPDATE SET code = excluded.code, read_at = excluded.read_at",
);

/// Writes what was read; no address twice.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn write(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    codes: &[Code],
    now: Millis,
) -> Result<(), StoreError> {
    if codes.is_empty() {
        return Ok(());
    }
    SAFE_CONTRACT
        .write(conn, codes, |row, (address, code)| {
            row.push(chain.0)?;
            row.push(address.as_slice())?;
            row.push(code.as_ref().map(|code| &code[..]))?;
            row.push(now)
        })
        .await?;
    Ok(())
}

/// What was last read on a chain, by address.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn of(
    conn: &mut Conn<'_>,
    chain: &ChainName,
) -> Result<HashMap<Address, Option<Vec<u8>>>, StoreError> {
    let rows: Vec<(Vec<u8>, Option<Vec<u8>>)> = on!(conn, c => sqlx::query_as(
        "SELECT address, code FROM safe_contract WHERE chain_no = (SELECT no FROM chain WHERE name = $1)",
    )
    .bind(chain.as_str())
    .fetch_all(c)
    .await)?;
    let contract = |(address, code): (Vec<u8>, _)| {
        Ok((address.try_into().map_err(StoreError::corrupt)?, code))
    };
    rows.into_iter().map(contract).collect()
}
