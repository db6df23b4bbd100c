//! All watched addresses of a chain, read as fast as the engines give them.
//!
//! A row costs the way through the engine's protocol and ours, some microseconds, which is much for ten
//! million addresses. So the engine packs the addresses of many rows into one value, and several connections
//! read parts of the address space at the same time. All that is read stands in `watch_key` in this order: on
//! PostgreSQL in its index, on SQLite it is the table itself.
//!
//! The pages are statements of their own, so they see several states of the table. No open watch is missed for
//! that: its address, by which the pages follow each other, never changes. What is opened after its page was
//! read is known to the follower that reads here: nobody else opens watches of its chain.

use std::mem;

use futures::{
    StreamExt as _, TryStreamExt as _,
    stream::{self, BoxStream, SelectAll},
};
use sqlx::{ConnectOptions as _, SqliteConnection};

use super::{Db, StoreError, engine::Engine, pool::Pool, session::Session};
use crate::{chain::PackedAddresses, model::ChainNo};

/// $1 the chain, $2 the lowest address, $3 a bound above the highest, $4 how many rows at most, $5 nothing.
///
/// Packs the lowest addresses, one behind the other. SQLite's `string_agg` takes the bytes of a blob as they
/// are, zeros too, and calls the result a text.
pub(super) const LOWEST: &str = "
    SELECT count(*), string_agg(address, $5) FROM (
        SELECT address FROM watch
        WHERE chain_no = $1 AND status IN (1, 2) AND address >= $2 AND address < $3
        ORDER BY address LIMIT $4 + 0) AS lowest";

/// Addresses in one answer: 330 kB of EVM's, 520 kB of Solana's.
const AT_ONCE: i64 = 1 << 14;

/// Where the address space is cut; each part is read through a connection of its own.
const CUTS: [u8; 3] = [0x40, 0x80, 0xc0];

/// Above every address.
const END: &[u8] = &[0xff; 33];

/// SQLite's page cache for a connection that reads everything once, in KiB.
const SQLITE_CACHE: &str = "-2048";

/// The lowest addresses of a part of the address space.
struct Page {
    bytes: Vec<u8>,
    rows: usize,
    /// Where to go on, if there may be more.
    rest: Option<Vec<u8>>,
}

macro_rules! lowest {
    ($c:expr, $chain:expr, $from:expr, $to:expr, $size:expr) => {
        sqlx::query_as(LOWEST)
            .bind($chain.0)
            .bind($from)
            .bind($to)
            .bind($size)
            .bind(&[0_u8; 0][..])
            .fetch_one($c)
            .await?
    };
}

/// A connection for long reads.
enum Scan {
    /// One of its own, so that the others' caches are not filled with what is read once.
    Sqlite(SqliteConnection),
    /// One of the pool for each statement, so that nobody waits long for one.
    Postgres(Pool<Session>),
}

/// Reads the addresses whose movements count on a chain and gives them to `take`, some ten thousand at a
/// time, in no promised order; one that several wallets share may come several times. What is opened or
/// closed meanwhile may be among them or not; what stays open is.
///
/// # Errors
/// [`StoreError`] of the engine; [`StoreError::Corrupt`] if addresses of one chain differ in length.
pub async fn watched_addresses(
    db: &Db,
    chain: ChainNo,
    take: impl FnMut(PackedAddresses<'_>),
) -> Result<(), StoreError> {
    in_pages(db, chain, AT_ONCE, take).await
}

async fn in_pages(
    db: &Db,
    chain: ChainNo,
    size: i64,
    mut take: impl FnMut(PackedAddresses<'_>),
) -> Result<(), StoreError> {
    // Most chains have few: one statement.
    let Some(page) = Scan::open(db).await?.lowest(chain, &[], END, size).await? else {
        return Ok(());
    };
    take(page.addresses(chain)?);
    let Some(mut from) = page.rest else { return Ok(()) };
    let mut parts = SelectAll::new();
    for cut in CUTS {
        if from.as_slice() < [cut].as_slice() {
            let below = mem::replace(&mut from, vec![cut]);
            parts.push(part(db, chain, below, from.clone(), size));
        }
    }
    parts.push(part(db, chain, from, END.to_vec(), size));
    while let Some(page) = parts.try_next().await? {
        take(page.addresses(chain)?);
    }
    Ok(())
}

/// The addresses from `from` on, below `to`.
fn part(
    db: &Db,
    chain: ChainNo,
    from: Vec<u8>,
    to: Vec<u8>,
    size: i64,
) -> BoxStream<'_, Result<Page, StoreError>> {
    let pages = stream::try_unfold((None, Some(from), to), move |(scan, from, to)| async move {
        let Some(from) = from else { return Ok(None) };
        let mut scan = match scan {
            Some(scan) => scan,
            None => Scan::open(db).await?,
        };
        let page = scan.lowest(chain, &from, &to, size).await?;
        Ok(page.map(|mut page| {
            let rest = page.rest.take();
            (page, (Some(scan), rest, to))
        }))
    });
    pages.boxed()
}

impl Page {
    fn addresses(&self, chain: ChainNo) -> Result<PackedAddresses<'_>, StoreError> {
        let (bytes, rows) = (self.bytes.len(), self.rows);
        PackedAddresses::new(&self.bytes, rows).ok_or_else(|| {
            StoreError::corrupt(format!(
                "{rows} watched addresses of chain {} have {bytes} bytes",
                chain.0
            ))
        })
    }
}

impl Scan {
    async fn open(db: &Db) -> Result<Self, StoreError> {
        Ok(match &db.engine {
            Engine::Sqlite { snapshots, .. } => {
                let options = snapshots.options().clone();
                Self::Sqlite(options.pragma("cache_size", SQLITE_CACHE).connect().await?)
            }
            Engine::Postgres { pool, .. } => Self::Postgres(pool.clone()),
        })
    }

    /// The lowest addresses from `from` on, below `to`; `None` if there is none.
    async fn lowest(
        &mut self,
        chain: ChainNo,
        from: &[u8],
        to: &[u8],
        size: i64,
    ) -> Result<Option<Page>, StoreError> {
        let (count, bytes): (i64, Option<Vec<u8>>) = match self {
            Self::Sqlite(c) => lowest!(c, chain, from, to, size),
            Self::Postgres(pool) => lowest!(pool.lend().await?.conn(), chain, from, to, size),
        };
        let Some(bytes) = bytes.filter(|_| count > 0) else { return Ok(None) };
        let rows = usize::try_from(count).map_err(StoreError::corrupt)?;
        let mut page = Page { bytes, rows, rest: None };
        if count >= size {
            // The next possible address is the highest with a zero byte behind it.
            let highest = page.addresses(chain)?.highest();
            page.rest = highest.map(|highest| [highest, &[0]].concat());
        }
        Ok(Some(page))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{
        chain::{Address, ChainName},
        id::TenantId,
        store::{on, testing::TestStore},
    };

    async fn number(store: &TestStore, name: &str) -> ChainNo {
        let mut tx = store.db.begin().await.unwrap();
        let chain = crate::store::chain::ensure(&mut tx.conn(), &ChainName::new(name)).await;
        tx.commit().await.unwrap();
        chain.unwrap()
    }

    async fn read(store: &TestStore, chain: ChainNo, size: i64) -> Vec<Address> {
        let mut addresses = Vec::new();
        in_pages(&store.db, chain, size, |packed| match packed {
            PackedAddresses::Short(some) => {
                addresses.extend(some.iter().copied().map(Address::from));
            }
            PackedAddresses::Long(some) => {
                addresses.extend(some.iter().copied().map(Address::from));
            }
        })
        .await
        .unwrap();
        addresses
    }

    /// Opens all watches that were asked for, and closes those that are to be closed.
    async fn bring_about(store: &TestStore) {
        let mut tx = store.db.begin().await.unwrap();
        on!(&mut tx.conn(), c => sqlx::query("UPDATE watch SET status = 3 WHERE status = 2")
            .execute(c).await.map(|_| ()))
        .unwrap();
        on!(&mut tx.conn(), c => sqlx::query(
            "UPDATE watch SET status = 1, opened_number = 1, opened_hash = $1 WHERE status = 0",
        )
        .bind(&[1_u8; 32][..]).execute(c).await.map(|_| ()))
        .unwrap();
        tx.commit().await.unwrap();
    }

    /// Bytes that a text could lose or change, and both sides of each cut.
    fn awkward<const N: usize>() -> Vec<[u8; N]>
    where
        Address: From<[u8; N]>,
    {
        let mut addresses: Vec<[u8; N]> = [0x01, 0x3f, 0x40, 0x7f, 0x80, 0xbf, 0xc0, 0xfe, 0xff]
            .into_iter()
            .flat_map(|byte| {
                let mut leading = [0; N];
                leading[0] = byte;
                [[byte; N], leading]
            })
            .collect();
        let texts: [&[u8]; 6] = [b"\0", b",", b"'", b"\\x00", b"\xef\xbb\xbf", b"\xed\xa0\x80"];
        for text in texts {
            let mut address = [b'a'; N];
            address[..text.len()].copy_from_slice(text);
            addresses.push(address);
            address[N - text.len()..].copy_from_slice(text);
            addresses.push(address);
        }
        let zeros = [0; N];
        addresses.extend((0..100).map(|n| {
            let mut near = zeros;
            near[N - 1] = n;
            near
        }));
        addresses
    }

    #[tokio::test]
    async fn every_address_that_counts_is_read_byte_for_byte_in_pages_of_any_size() {
        for store in TestStore::all().await {
            let tenant = store.tenant().await;
            let mut model: [BTreeSet<Address>; 2] = Default::default();
            for address in awkward::<20>().into_iter().map(Address::from) {
                store.register(tenant, &ChainName::new("ethereum"), address).await;
                model[0].insert(address);
            }
            for address in awkward::<32>().into_iter().map(Address::from) {
                store.register(tenant, &ChainName::new("solana"), address).await;
                model[1].insert(address);
            }
            bring_about(&store).await;
            let chains = [number(&store, "ethereum").await, number(&store, "solana").await];
            for size in [1, 2, 7, 50, 1000] {
                for (chain, model) in chains.into_iter().zip(&model) {
                    let read = read(&store, chain, size).await;
                    assert_eq!(read.len(), model.len(), "none is read twice");
                    assert_eq!(&BTreeSet::from_iter(read), model);
                }
            }
            let other = number(&store, "base").await;
            assert_eq!(read(&store, other, 7).await, []);
            store.close().await;
        }
    }

    #[tokio::test]
    async fn a_watch_counts_from_its_opening_until_it_is_closed() {
        for store in TestStore::all().await {
            let (tenant, address) = (store.tenant().await, Address::from([7; 20]));
            let wallet = store.register(tenant, &ChainName::new("ethereum"), address).await;
            let chain = number(&store, "ethereum").await;
            assert_eq!(read(&store, chain, 10).await, [], "requested");
            bring_about(&store).await;
            assert_eq!(read(&store, chain, 10).await, [address], "open");
            store.ask_to_close(wallet).await;
            assert_eq!(read(&store, chain, 10).await, [address], "closing");
            bring_about(&store).await;
            assert_eq!(read(&store, chain, 10).await, [], "closed");
            store.close().await;
        }
    }

    #[tokio::test]
    async fn an_address_of_more_wallets_than_a_page_holds_hides_no_other() {
        for store in TestStore::all().await {
            let name = ChainName::new("ethereum");
            let shared = Address::from([0x77; 20]);
            let mut model = BTreeSet::from([shared]);
            for n in 0..7 {
                let tenant = store.tenant().await;
                store.register(tenant, &name, shared).await;
                for own in [Address::from([n; 20]), Address::from([0xf0 | n; 20])] {
                    store.register(tenant, &name, own).await;
                    model.insert(own);
                }
            }
            bring_about(&store).await;
            let chain = number(&store, "ethereum").await;
            for size in 1..25 {
                assert_eq!(BTreeSet::from_iter(read(&store, chain, size).await), model);
            }
            store.close().await;
        }
    }

    /// Opens and closes other watches without end, and moves the rows of all.
    async fn bustle(store: &TestStore, tenant: TenantId, name: &ChainName) {
        for n in 0_u64.. {
            let mut address = [0; 20];
            address[0] = (n * 37).to_be_bytes()[7];
            address[1..9].copy_from_slice(&n.to_be_bytes());
            let wallet = store.register(tenant, name, Address::from(address)).await;
            bring_about(store).await;
            store.ask_to_close(wallet).await;
            let mut tx = store.db.begin().await.unwrap();
            on!(&mut tx.conn(), c => sqlx::query("UPDATE watch SET updated_at = updated_at + 1")
                .execute(c).await.map(|_| ()))
            .unwrap();
            tx.commit().await.unwrap();
        }
    }

    #[tokio::test]
    async fn what_stays_open_is_read_whatever_is_opened_and_closed_meanwhile() {
        for store in TestStore::all().await {
            let (tenant, name) = (store.tenant().await, ChainName::new("ethereum"));
            let staying: BTreeSet<Address> =
                (0..80).map(|n| Address::from([n * 3 + 1; 20])).collect();
            for address in &staying {
                store.register(tenant, &name, *address).await;
            }
            bring_about(&store).await;
            let chain = number(&store, "ethereum").await;
            let reading = async {
                for _ in 0..20 {
                    let read = BTreeSet::from_iter(read(&store, chain, 3).await);
                    assert_eq!(staying.difference(&read).next(), None);
                }
            };
            tokio::select! {
                () = reading => {}
                () = bustle(&store, tenant, &name) => {}
            }
            store.close().await;
        }
    }

    #[tokio::test]
    async fn addresses_of_different_lengths_on_one_chain_are_not_guessed_apart() {
        for store in TestStore::all().await {
            let (tenant, name) = (store.tenant().await, ChainName::new("ethereum"));
            store.register(tenant, &name, Address::from([1; 20])).await;
            store.register(tenant, &name, Address::from([2; 32])).await;
            bring_about(&store).await;
            let read = watched_addresses(&store.db, number(&store, "ethereum").await, |_| ()).await;
            assert!(matches!(read, Err(StoreError::Corrupt(_))), "{read:?}");
            store.close().await;
        }
    }
}
