//! What is known of watched Safes on each chain, and when they are read again.

use sqlx::FromRow;

use super::{
    Conn, StoreError,
    chain::number,
    on,
    rows::Table,
    safe::{read_addresses, write_addresses},
    set::{Blobs, sets},
};
use crate::{
    chain::{Address, BlockHash, BlockRef, ChainName, SafePlugs},
    clock::Millis,
    ledger::{
        changes::{SafeRead, SafeStateChanges},
        known::HashMap,
    },
    model::{ChainNo, SafeLook, SafeOnChain},
};

/// The columns of a `safe_state x` that make a [`RawState`].
macro_rules! state_columns {
    () => {
        "x.version AS state_version, x.singleton AS state_singleton, x.trusted AS state_trusted,
         x.owners AS state_owners, x.threshold AS state_threshold, x.modules AS state_modules,
         x.guard AS state_guard, x.module_guard AS state_module_guard, x.fallback_handler AS state_handler,
         x.block_number AS state_number, x.block_hash AS state_hash"
    };
}

#[derive(Debug, FromRow)]
#[expect(clippy::struct_field_names, reason = "columns of a join")]
struct RawState {
    state_version: Option<String>,
    state_singleton: Option<Vec<u8>>,
    state_trusted: Option<bool>,
    state_owners: Option<String>,
    state_threshold: Option<i64>,
    state_modules: Option<String>,
    state_guard: Option<Vec<u8>>,
    state_module_guard: Option<Vec<u8>>,
    state_handler: Option<Vec<u8>>,
    state_number: Option<i64>,
    state_hash: Option<Vec<u8>>,
}

impl RawState {
    /// `None` before it was read.
    fn known(&self) -> Result<Option<SafeOnChain>, StoreError> {
        let Some(version) = self.state_version.clone() else { return Ok(None) };
        let missing = || StoreError::corrupt("a Safe's state lacks a column");
        let address = |bytes: &Option<Vec<u8>>| bytes.as_deref().and_then(Address::from_slice);
        let hash = self.state_hash.as_deref().and_then(BlockHash::from_slice);
        let at = self.state_number.and_then(|number| u64::try_from(number).ok()).zip(hash);
        let (number, hash) = at.ok_or_else(missing)?;
        Ok(Some(SafeOnChain {
            version,
            singleton: address(&self.state_singleton).ok_or_else(missing)?,
            trusted: self.state_trusted.ok_or_else(missing)?,
            owners: read_addresses(self.state_owners.as_deref().ok_or_else(missing)?)?,
            threshold: self.state_threshold.ok_or_else(missing)?,
            plugs: SafePlugs {
                modules: self.state_modules.as_deref().map(read_addresses).transpose()?,
                guard: address(&self.state_guard),
                module_guard: address(&self.state_module_guard),
                fallback_handler: address(&self.state_handler),
            },
            at: BlockRef { number, hash },
        }))
    }
}

#[derive(FromRow)]
struct RawLook {
    #[sqlx(try_from = "Vec<u8>")]
    address: Address,
    #[sqlx(flatten)]
    state: RawState,
    since: Option<i64>,
    revision: i64,
    look_at: Millis,
    looks: i64,
}

impl TryFrom<RawLook> for SafeLook {
    type Error = StoreError;

    fn try_from(row: RawLook) -> Result<Self, StoreError> {
        Ok(Self {
            address: row.address,
            known: row.state.known()?,
            since: row.since.map(u64::try_from).transpose().map_err(StoreError::corrupt)?,
            revision: row.revision,
            look_at: row.look_at,
            looks: u32::try_from(row.looks).unwrap_or(u32::MAX),
        })
    }
}

/// Safes that are to be read by now, the longest due first.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn due(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    now: Millis,
    limit: i64,
) -> Result<Vec<SafeLook>, StoreError> {
    let rows: Vec<RawLook> = on!(conn, c => sqlx::query_as(concat!(
        "SELECT x.address, ",
        state_columns!(),
        ", x.since, x.revision, x.look_at, x.looks FROM safe_state x
         WHERE x.chain_no = $1 AND x.look_at > 0 AND x.look_at <= $2
         ORDER BY x.chain_no, x.look_at LIMIT $3 + 0"
    ))
    .bind(chain.0)
    .bind(now)
    .bind(limit)
    .fetch_all(c)
    .await)?;
    rows.into_iter().map(SafeLook::try_from).collect()
}

/// What is known of some addresses that are, or may be, Safes.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn of(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    addresses: &[Address],
) -> Result<HashMap<Address, SafeLook>, StoreError> {
    let addresses = Blobs::of(addresses.iter().map(Address::as_slice));
    if addresses.is_empty() {
        return Ok(HashMap::default());
    }
    let sql = sets(
        conn,
        concat!(
            "SELECT x.address, ",
            state_columns!(),
            ", x.since, x.revision, x.look_at, x.looks FROM safe_state x
             WHERE x.chain_no = $1 AND x.address IN blobs($2)"
        ),
    );
    let rows: Vec<RawLook> =
        on!(conn, c => sqlx::query_as(sql).bind(chain.0).bind(&addresses).fetch_all(c).await)?;
    rows.into_iter().map(|row| Ok((row.address, SafeLook::try_from(row)?))).collect()
}

#[derive(FromRow)]
struct RawSomewhere {
    chain: String,
    #[sqlx(try_from = "Vec<u8>")]
    address: Address,
    #[sqlx(flatten)]
    state: RawState,
}

/// What is known of some Safes on all chains.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn everywhere(
    conn: &mut Conn<'_>,
    addresses: &[Address],
) -> Result<HashMap<(ChainName, Address), SafeOnChain>, StoreError> {
    let addresses = Blobs::of(addresses.iter().map(Address::as_slice));
    if addresses.is_empty() {
        return Ok(HashMap::default());
    }
    let sql = sets(
        conn,
        concat!(
            "SELECT n.name AS chain, x.address, ",
            state_columns!(),
            " FROM safe_state x JOIN chain n ON n.no = x.chain_no + 0 WHERE x.address IN blobs($1)"
        ),
    );
    let rows: Vec<RawSomewhere> =
        on!(conn, c => sqlx::query_as(sql).bind(&addresses).fetch_all(c).await)?;
    let mut known = HashMap::default();
    for row in rows {
        if let Some(state) = row.state.known()? {
            known.insert((ChainName::new(&row.chain), row.address), state);
        }
    }
    Ok(known)
}

/// Whoever runs while it is being read is read once more: the time differs then from the one that was read.
static RAN: Table = Table::upsert(
    "safe_state",
    &["chain_no", "address", "look_at"],
    "ON CONFLICT (chain_no, address) DO UPDATE
     SET look_at = CASE WHEN safe_state.look_at = excluded.look_at THEN excluded.look_at + 1
                        ELSE excluded.look_at END, looks = 0",
);

/// Writes what was read, and what is to be read; what was known before stays where it only begins.
///
/// # Errors
/// [`StoreError::Stale`] if one of them is not as it was read.
pub async fn write(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    changes: &SafeStateChanges,
    now: Millis,
) -> Result<(), StoreError> {
    let SafeStateChanges { ran, begun, read } = changes;
    for read in read {
        let written = match &read.now {
            Some(now) => update(conn, chain, read, now).await?,
            None => forget(conn, chain, &read.before).await?,
        };
        if written != 1 {
            return Err(StoreError::Stale("the state of a Safe was written meanwhile".to_owned()));
        }
    }
    let mut due: Vec<&Address> = ran.iter().chain(begun.iter().map(|(begun, _)| begun)).collect();
    due.sort_unstable();
    due.dedup();
    if !due.is_empty() {
        RAN.write(conn, &due, |row, address| {
            row.push(chain.0)?;
            row.push(address.as_slice())?;
            row.push(now)
        })
        .await?;
    }
    for (address, state) in begun {
        begin(conn, chain, *address, state).await?;
    }
    Ok(())
}

async fn update(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    read: &SafeRead,
    now: &SafeLook,
) -> Result<u64, StoreError> {
    let SafeRead { before, .. } = read;
    let state = now.known.as_ref();
    let plugs = state.map(|state| &state.plugs);
    let plug = |of: fn(&SafePlugs) -> Option<&Address>| plugs.and_then(of).map(Address::as_slice);
    Ok(on!(conn, c => sqlx::query(
        "UPDATE safe_state
         SET version = $3, singleton = $4, trusted = $5, owners = $6, threshold = $7, modules = $8, guard = $9,
             module_guard = $10, fallback_handler = $11, block_number = $12, block_hash = $13, since = $14,
             revision = $15, looks = $16, look_at = CASE WHEN look_at = $17 THEN $18 ELSE look_at END
         WHERE chain_no = $1 AND address = $2 AND revision = $19",
    )
    .bind(chain.0)
    .bind(now.address.as_slice())
    .bind(state.map(|state| state.version.as_str()))
    .bind(state.map(|state| state.singleton.as_slice()))
    .bind(state.map(|state| state.trusted))
    .bind(state.map(|state| write_addresses(&state.owners)))
    .bind(state.map(|state| state.threshold))
    .bind(plugs.and_then(|plugs| plugs.modules.as_deref()).map(write_addresses))
    .bind(plug(|plugs| plugs.guard.as_ref()))
    .bind(plug(|plugs| plugs.module_guard.as_ref()))
    .bind(plug(|plugs| plugs.fallback_handler.as_ref()))
    .bind(state.map(|state| number(state.at.number)).transpose()?)
    .bind(state.map(|state| &state.at.hash.0[..]))
    .bind(now.since.map(number).transpose()?)
    .bind(now.revision)
    .bind(i64::from(now.looks))
    .bind(before.look_at)
    .bind(now.look_at)
    .bind(before.revision)
    .execute(c)
    .await
    .map(|done| done.rows_affected()))?)
}

/// It is no Safe, or none any more.
async fn forget(conn: &mut Conn<'_>, chain: ChainNo, before: &SafeLook) -> Result<u64, StoreError> {
    Ok(on!(conn, c => sqlx::query(
        "DELETE FROM safe_state WHERE chain_no = $1 AND address = $2 AND revision = $3",
    )
    .bind(chain.0)
    .bind(before.address.as_slice())
    .bind(before.revision)
    .execute(c)
    .await
    .map(|done| done.rows_affected()))?)
}

/// Of a Safe that has a row.
async fn begin(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    address: Address,
    state: &SafeOnChain,
) -> Result<(), StoreError> {
    let plug = |plug: &Option<Address>| plug.as_ref().map(|address| address.as_slice().to_vec());
    on!(conn, c => sqlx::query(
        "UPDATE safe_state
         SET version = $3, singleton = $4, trusted = $5, owners = $6, threshold = $7, modules = $8, guard = $9,
             module_guard = $10, fallback_handler = $11, block_number = $12, block_hash = $13, since = $12,
             revision = revision + 1
         WHERE chain_no = $1 AND address = $2 AND version IS NULL",
    )
    .bind(chain.0)
    .bind(address.as_slice())
    .bind(&state.version)
    .bind(state.singleton.as_slice())
    .bind(state.trusted)
    .bind(write_addresses(&state.owners))
    .bind(state.threshold)
    .bind(state.plugs.modules.as_deref().map(write_addresses))
    .bind(plug(&state.plugs.guard))
    .bind(plug(&state.plugs.module_guard))
    .bind(plug(&state.plugs.fallback_handler))
    .bind(number(state.at.number)?)
    .bind(&state.at.hash.0[..])
    .execute(c)
    .await
    .map(|_| ()))?;
    Ok(())
}

/// Those of these addresses that are known Safes are read at once: somebody watches them from now on.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn watched_from_now(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    addresses: impl IntoIterator<Item = Address>,
    now: Millis,
) -> Result<(), StoreError> {
    let addresses: Vec<Address> = addresses.into_iter().collect();
    let addresses = Blobs::of(addresses.iter().map(Address::as_slice));
    if addresses.is_empty() {
        return Ok(());
    }
    let sql = sets(
        conn,
        "UPDATE safe_state SET look_at = CASE WHEN look_at = $3 THEN $3 + 1 ELSE $3 END
         WHERE chain_no = $1 AND address IN blobs($2)",
    );
    on!(conn, c => sqlx::query(sql)
        .bind(chain.0)
        .bind(&addresses)
        .bind(now)
        .execute(c)
        .await
        .map(|_| ()))?;
    Ok(())
}

/// Blocks above a fork are gone: what was read after them is read again, and what is being read counts for nothing.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn doubt_above(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    fork: u64,
    now: Millis,
) -> Result<(), StoreError> {
    on!(conn, c => sqlx::query(
        "UPDATE safe_state
         SET look_at = CASE WHEN look_at = $3 THEN $3 + 1 ELSE $3 END,
             since = CASE WHEN since <= $2 THEN since END, revision = revision + 1
         WHERE chain_no = $1 AND block_number > $2",
    )
    .bind(chain.0)
    .bind(number(fork)?)
    .bind(now)
    .execute(c)
    .await
    .map(|_| ()))?;
    Ok(())
}
