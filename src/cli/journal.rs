//! `tidemark verify-journal`: every hash of the journals computed anew from what is stored, without a node.
//!
//! Page by page, each read in one state of the store: a daemon may run beside it, and the walk goes on to where the
//! journal ends by then. There the balances are compared, in the same state.

use std::fmt::Write as _;

use super::{Usage, open, progress::Progress};
use crate::{
    chain::ChainName,
    config::Config,
    ledger::journal::walk::{Fault, Page, Summary, Tampered, Told, Walk},
    model::{
        AssetNo, BookedEntry, Cursor, JournalCommit, JournalHash, JournalHead, Rewind, TransferNo,
        WalletNo,
    },
    store::{
        Conn, Db, StoreError, asset as asset_store, balance as balance_store, chain as chain_store,
        journal as journal_store, transfer as transfer_store, wallet as wallet_store,
    },
};

/// What is read at once.
pub(crate) const AT_ONCE: AtOnce = AtOnce { commits: 500, entries: 20_000 };
/// Digits of a hash that tell it apart: what the metric shows of it.
const LEAST_DIGITS: usize = 12;

/// What is verified.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct VerifyArgs {
    /// Only this chain; all that were ever followed without it.
    #[arg(long, value_name = "NAME")]
    pub chain: Option<String>,
    /// From this commit on; what is before it is only added up.
    #[arg(long, value_name = "COMMIT", requires = "chain", value_parser = clap::value_parser!(u64).range(1..))]
    pub from: Option<u64>,
    /// A hash that was kept elsewhere, or its first 12 digits or more: a commit must have it.
    #[arg(long, value_name = "HASH", value_parser = digits)]
    pub expect: Option<String>,
}

fn digits(hash: &str) -> Result<String, String> {
    let known = (LEAST_DIGITS..=2 * size_of::<JournalHash>()).contains(&hash.len());
    if known && hash.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        Ok(hash.to_ascii_lowercase())
    } else {
        Err(format!("a hash has 64 hexadecimal digits, of which {LEAST_DIGITS} are enough"))
    }
}

/// Why a journal is not what it should be; the process answers 1.
#[derive(Debug, thiserror::Error)]
pub enum Finding {
    #[error("{0} of the journals were tampered with")]
    Tampered(usize),
    #[error("no commit has the expected hash: the journal was cut off or written anew")]
    Unexpected,
}

/// A journal that is sound.
#[derive(Clone, Debug)]
pub(crate) struct Sound {
    /// The commit that was verified first.
    pub from: u64,
    pub newest: JournalHead,
    pub summary: Summary,
    /// Over the entries from before the journal.
    pub history: JournalHash,
    /// The commit that has the expected hash.
    pub expected: Option<u64>,
    pub rewinds: Vec<(u64, JournalCommit, Rewind)>,
}

/// How much of a journal is in memory, however long it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AtOnce {
    /// At most.
    pub commits: usize,
    /// About so many: those of a single commit are read together.
    pub entries: u32,
}

/// What became of one chain's journal.
#[derive(Clone, Debug)]
pub(crate) enum Verdict {
    Sound(Sound),
    Tampered(Tampered),
}

/// One chain's verification.
pub(crate) struct Verification<'a> {
    pub db: &'a Db,
    pub chain: &'a ChainName,
    pub from: u64,
    pub expect: Option<&'a str>,
    pub at_once: AtOnce,
}

/// Verifies what was asked for and tells of it.
///
/// # Errors
/// [`Finding`] where something was tampered with; otherwise what made the verification impossible.
pub(super) async fn run(config: &Config, args: &VerifyArgs) -> anyhow::Result<()> {
    let db = open(config).await?;
    let outcome = all(&db, args).await;
    db.close().await;
    outcome
}

async fn all(db: &Db, args: &VerifyArgs) -> anyhow::Result<()> {
    let mut session = db.read().await?;
    let followed = chain_store::cursors(&mut session.conn()).await?;
    drop(session);
    let named =
        |cursor: &&Cursor| args.chain.as_ref().is_none_or(|name| cursor.chain.as_str() == name);
    let chains: Vec<&Cursor> = followed.iter().filter(named).collect();
    if let (Some(name), true) = (&args.chain, chains.is_empty()) {
        return Err(Usage(format!("no chain {name:?} was ever followed with this database")).into());
    }
    let (mut tampered, mut expected) = (0, args.expect.is_none());
    for Cursor { chain, .. } in chains {
        let (from, expect) = (args.from.unwrap_or(1), args.expect.as_deref());
        let verification = Verification { db, chain, from, expect, at_once: AT_ONCE };
        match verification.shown().await? {
            Verdict::Sound(sound) => {
                expected |= sound.expected.is_some();
                print!("{}", sound.text(chain));
            }
            Verdict::Tampered(found) => {
                tampered += 1;
                println!("{}", verification.text(&found).await?);
            }
        }
    }
    if tampered > 0 {
        return Err(Finding::Tampered(tampered).into());
    }
    if expected { Ok(()) } else { Err(Finding::Unexpected.into()) }
}

impl Sound {
    fn text(&self, chain: &ChainName) -> String {
        let Self { from, newest, summary, history, expected, rewinds } = self;
        let Summary { commits, entries, balances, history: before } = summary;
        let mut text = String::new();
        // Writing to a String cannot fail.
        for (commit, JournalCommit { head, time, .. }, Rewind { from, order }) in rewinds {
            let by = order.by.as_deref().unwrap_or("somebody");
            let (to, reason) = (head.number, &order.reason);
            let _ = writeln!(
                text,
                "{chain}: commit {commit} took the chain back from block {from} to {to}, {time}, by {by}: {reason}"
            );
        }
        if *before > 0 {
            let _ = writeln!(
                text,
                "{chain}: {before} entries are from before the journal; their hash is {history}"
            );
        }
        if let Some(commit) = expected {
            let _ = writeln!(text, "{chain}: commit {commit} has the expected hash");
        }
        let _ = writeln!(
            text,
            "{chain}: {commits} commits from {from} on with {entries} entries are sound, {balances} balances \
             are what they left; commit {} has the hash {}",
            newest.commit, newest.hash
        );
        text
    }
}

impl Verification<'_> {
    /// Verifies with a progress bar on a terminal, and with lines elsewhere.
    async fn shown(&self) -> anyhow::Result<Verdict> {
        let mut progress = Progress::new(self.chain.as_str(), "commits", 0)?;
        self.run(&mut |commit, newest| {
            progress.of(newest);
            progress.at(commit, |of| {
                tracing::info!(chain = %self.chain, commit, of, "verifying the journal");
            });
        })
        .await
    }

    /// Verifies; `tell` gets the last verified and the newest commit after each page.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub(crate) async fn run(
        &self,
        tell: &mut (dyn FnMut(u64, u64) + Send),
    ) -> anyhow::Result<Verdict> {
        let found = self.walk(tell).await;
        match found {
            Ok(sound) => Ok(Verdict::Sound(sound)),
            Err(Stop::Tampered(tampered)) => Ok(Verdict::Tampered(tampered)),
            Err(Stop::Failed(error)) => Err(error),
        }
    }

    async fn walk(&self, tell: &mut (dyn FnMut(u64, u64) + Send)) -> Result<Sound, Stop> {
        let mut tx = self.db.snapshot().await?;
        let conn = &mut tx.conn();
        let cursor = self.cursor(conn).await?;
        let before =
            journal_store::commits(conn, cursor.no, self.from.saturating_sub(2), 1).await?;
        let mut last = before.into_iter().find(|row| row.number + 1 == self.from);
        let after = match &last {
            Some(row) => JournalHead { commit: row.number, hash: row.hash },
            None if self.from == 1 => JournalHead::default(),
            None => {
                let text = format!("{} has no commit {}", self.chain, self.from - 1);
                return Err(Stop::Failed(Usage(text).into()));
            }
        };
        let first = journal_store::commits(conn, cursor.no, after.commit, 1).await?;
        drop(tx);
        let mut walk = Walk::new(cursor.no, &cursor.caip2, after);
        self.begin(&mut walk, &cursor, first.first()).await?;
        let mut expected = self.is_expected(after.hash).then_some(after.commit);
        let mut rewinds = Vec::new();
        loop {
            let mut tx = self.db.snapshot().await?;
            let conn = &mut tx.conn();
            let cursor = self.cursor(conn).await?;
            let page = self.page(conn, &cursor, walk.head().commit).await?;
            if page.commits.is_empty() {
                walk.end(&cursor, last.as_ref())?;
                let newest = walk.head();
                let (summary, history) = self.balances(conn, walk).await?;
                let from = self.from;
                return Ok(Sound { from, newest, summary, history, expected, rewinds });
            }
            drop(tx);
            walk.follow(&page)?;
            for row in page.commits {
                if self.is_expected(row.hash) {
                    expected = Some(row.number);
                }
                if let Some(rewind) = &row.rewind {
                    rewinds.push((row.number, row.clone(), rewind.clone()));
                }
                last = Some(row);
            }
            tell(walk.head().commit, page.newest);
        }
    }

    fn is_expected(&self, hash: JournalHash) -> bool {
        self.expect.is_some_and(|digits| hash.to_string().starts_with(digits))
    }

    async fn cursor(&self, conn: &mut Conn<'_>) -> Result<Cursor, Stop> {
        let cursor = chain_store::cursor(conn, self.chain).await?;
        cursor
            .ok_or_else(|| Stop::Failed(Usage(format!("{} was never followed", self.chain)).into()))
    }

    /// Adds up what was booked before the commit that is verified first.
    async fn begin(
        &self,
        walk: &mut Walk,
        cursor: &Cursor,
        first: Option<&JournalCommit>,
    ) -> Result<(), Stop> {
        let (start, end) = TransferNo::of_chain(cursor.no);
        let end = first.map_or(Some(end), |row| TransferNo::nth(cursor.no, row.transfers));
        let end = end.ok_or_else(|| StoreError::corrupt("a number of transfers"))?;
        let mut after = (TransferNo(start.0 - 1), i16::MAX);
        loop {
            let mut tx = self.db.snapshot().await?;
            let conn = &mut tx.conn();
            let newest = self.cursor(conn).await?.journal.commit;
            let entries =
                journal_store::entries(conn, after, end, self.at_once.entries.into()).await?;
            let Some(last) = entries.last() else { return Ok(()) };
            after = (last.entry.transfer, last.entry.kind.code());
            let told = told(conn, &entries).await?;
            drop(tx);
            walk.begin(&entries, &told, newest)?;
        }
    }

    /// The commits behind `after`, with what they booked.
    async fn page(&self, conn: &mut Conn<'_>, cursor: &Cursor, after: u64) -> Result<Page, Stop> {
        let AtOnce { commits: most, entries } = self.at_once;
        let limit = i64::try_from(most + 1).unwrap_or(i64::MAX);
        let mut commits = journal_store::commits(conn, cursor.no, after, limit).await?;
        let mut sum = 0u64;
        let full = commits.iter().position(|row| {
            sum = sum.saturating_add(row.entries);
            sum > entries.into()
        });
        let most = full.unwrap_or(most).clamp(1, most);
        let next = commits.get(most).map(|row| (row.number, row.transfers));
        commits.truncate(most);
        let (Some(first), Some(last)) = (commits.first(), commits.last()) else {
            return Ok(Page::default());
        };
        let number = |n: u64| {
            TransferNo::nth(cursor.no, n)
                .ok_or_else(|| StoreError::corrupt("a number of transfers"))
        };
        let begin = (TransferNo(number(first.transfers)?.0 - 1), i16::MAX);
        let end = next.map_or(Ok(TransferNo::of_chain(cursor.no).1), |(_, first)| number(first))?;
        let next = next.map(|(next, _)| next);
        let (from, to) = (first.number, last.number);
        let own = journal_store::entries(conn, begin, end, i64::MAX).await?;
        let later = journal_store::later_entries(conn, cursor.no, from, to).await?;
        let told = told(conn, own.iter().chain(&later)).await?;
        Ok(Page { commits, own, later, told, next, newest: cursor.journal.commit })
    }

    /// Compares all balances with what the journal left of them.
    async fn balances(
        &self,
        conn: &mut Conn<'_>,
        mut walk: Walk,
    ) -> Result<(Summary, JournalHash), Stop> {
        let mut after = (WalletNo(i64::MIN), AssetNo(i64::MIN));
        loop {
            let balances = balance_store::all(conn, after, self.at_once.entries.into()).await?;
            let Some(&(wallet, asset, _)) = balances.last() else { return Ok(walk.finish()?) };
            after = (wallet, asset);
            walk.compare(&balances)?;
        }
    }

    /// One line: the chain, the commit, what does not fit, and whose it is where that is a balance.
    async fn text(&self, tampered: &Tampered) -> anyhow::Result<String> {
        let mut text = format!("{}: {tampered}", self.chain);
        if let Fault::Balance { wallet, asset, .. } = tampered.fault {
            let mut session = self.db.read().await?;
            let conn = &mut session.conn();
            for owned in wallet_store::owners(conn, [wallet]).await? {
                let _ = write!(text, "; wallet {} of {}", owned.owner.wallet_id, owned.tenant);
            }
            for asset in asset_store::by_numbers(conn, &[asset]).await?.values() {
                let _ = write!(text, ", {}", asset.caip19);
            }
        }
        Ok(text)
    }
}

/// Why a walk ended before the journal.
enum Stop {
    Tampered(Tampered),
    Failed(anyhow::Error),
}

impl From<Tampered> for Stop {
    fn from(tampered: Tampered) -> Self {
        Self::Tampered(tampered)
    }
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.into())
    }
}

/// The rows that entries tell of.
async fn told(
    conn: &mut Conn<'_>,
    entries: impl IntoIterator<Item = &BookedEntry>,
) -> Result<Told, StoreError> {
    let numbers = entries.into_iter().map(|booked| booked.entry.transfer);
    let transfers = transfer_store::by_numbers(conn, numbers).await?;
    let wallets = transfers.iter().map(|transfer| transfer.wallet);
    let owners = wallet_store::owners(conn, wallets).await?;
    let assets: Vec<AssetNo> = transfers.iter().map(|transfer| transfer.asset).collect();
    let assets = asset_store::by_numbers(conn, &assets).await?;
    Ok(Told {
        transfers: transfers.into_iter().map(|transfer| (transfer.no, transfer)).collect(),
        owners: owners.into_iter().map(|owned| (owned.owner.wallet, owned.owner)).collect(),
        assets: assets.into_values().map(|asset| (asset.no, asset.key)).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_hash_is_named_by_enough_digits_and_nothing_else() {
        assert_eq!(digits(&"Ab".repeat(32)).as_deref(), Ok("ab".repeat(32).as_str()));
        assert_eq!(digits("0123456789ab").as_deref(), Ok("0123456789ab"));
        for bad in ["", "0123456789a", "0123456789ag", &"0".repeat(65)] {
            assert!(digits(bad).is_err(), "{bad}");
        }
    }
}
