//! `tidemark audit`: the ledger against itself and against the chain, without booking anything.
//!
//! Page by page, each read in one state of the store and compared at that state's settled block: a daemon may
//! run beside it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::Context as _;

use super::{Usage, progress::Progress};
use crate::{
    amount::Amount,
    chain::{BlockRef, ChainName, Settlement, Source, SourceError},
    config::{ChainConfig, Config},
    follow::figures::{self, Told},
    ledger::changes::AssetOpening,
    metrics::Metrics,
    model::{Asset, AssetNo, Balance, BalanceRef, ChainNo, Position, WalletNo},
    retry::Backoff,
    store::{
        Db, asset as asset_store, asset_opening,
        audit::{self as audit_store, Replayed},
        balance as balance_store, chain as chain_store, correction,
        watch::{self as watch_store, Watched},
        watch_count::{self, Miscount},
    },
};

/// Wallets read in one state of the store.
const PAGE: u64 = 100;
/// How often a node that does not answer is asked for a page.
const TRIES: u32 = 4;

/// What is audited.
#[derive(Clone, Debug, clap::Args)]
pub struct AuditArgs {
    /// Only this chain; all configured ones without it.
    #[arg(long, value_name = "NAME")]
    pub chain: Option<String>,
    /// At most so many wallets of each chain.
    #[arg(long, value_name = "N")]
    pub limit: Option<u64>,
}

/// What the audit found is its exit code.
#[derive(Debug, thiserror::Error)]
pub enum Finding {
    #[error("{0} figures are not what they should be")]
    Drift(u64),
    #[error("no figure is wrong, but {0} balances could not be compared with the chain")]
    Unproven(u64),
}

/// Where the books are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Difference {
    /// The balance is not the sum of its entries.
    Entries { wallet: Watched, asset: Asset, balance: Position, entries: Position },
    /// The settled part is not what the chain's state has at the settled block.
    Chain { wallet: Watched, asset: Asset, at: BlockRef, ledger: Amount, chain: Amount },
    /// So many entries have another amount than their transfer.
    Altered { wallet: Watched, entries: u64 },
    /// So many movements stand more than once.
    Doubled { wallet: Watched, movements: u64 },
    /// The kept number of a tenant's addresses is not that of its watches.
    Miscounted(Miscount),
}

/// What was audited of one chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    pub wallets: u64,
    /// Balances recomputed from entries.
    pub balances: u64,
    /// Figures compared with the chain's own.
    pub compared: u64,
    pub differences: u64,
    /// Figures that the node could not tell.
    pub unproven: u64,
    /// Figures that hold only from a later block on.
    pub unfinished: u64,
}

/// One chain's audit.
pub(crate) struct Audit<'a> {
    pub db: &'a Db,
    pub source: &'a dyn Source,
    pub chain: &'a ChainConfig,
    pub limit: Option<u64>,
}

/// Audits what was asked for and tells of it.
///
/// # Errors
/// [`Finding`] where not everything is equal; otherwise what made the audit impossible.
pub(super) async fn run(config: &Config, args: &AuditArgs) -> anyhow::Result<()> {
    let chains: Vec<&ChainConfig> = match &args.chain {
        Some(name) => vec![super::configured(config, name)?],
        None => config.chains.values().collect(),
    };
    if chains.is_empty() {
        return Err(Usage("no chain is configured: there is nothing to audit".to_owned()).into());
    }
    let db = super::open(config).await?;
    let outcome = all(config, &db, &chains, args.limit).await;
    db.close().await;
    finding(&outcome?)
}

/// What the process answers.
pub(crate) fn finding(total: &Summary) -> anyhow::Result<()> {
    match total {
        Summary { differences: 0, unproven: 0, .. } => Ok(()),
        Summary { differences: 0, unproven, .. } => Err(Finding::Unproven(*unproven).into()),
        Summary { differences, .. } => Err(Finding::Drift(*differences).into()),
    }
}

async fn all(
    config: &Config,
    db: &Db,
    chains: &[&ChainConfig],
    limit: Option<u64>,
) -> anyhow::Result<Summary> {
    let mut total = Summary::default();
    for chain in chains {
        let source = crate::daemon::source(config, chain, &Metrics::new())?;
        let audit = Audit { db, source: source.as_ref(), chain, limit };
        let summary = shown(&audit).await.with_context(|| format!("{}", chain.name))?;
        println!("{}", summary.text(&chain.name));
        total.add(summary);
    }
    Ok(total)
}

/// Audits with a progress bar on a terminal, and with lines elsewhere.
async fn shown(audit: &Audit<'_>) -> anyhow::Result<Summary> {
    let wallets = audit.wallets().await?;
    let mut progress = Progress::new(audit.chain.name.as_str(), "wallets", wallets)?;
    audit
        .run(&mut |summary: &Summary, found: &[Difference]| {
            for difference in found {
                progress.line(&audit.text(difference));
            }
            progress.at(summary.wallets, |of| {
                tracing::info!(
                    chain = %audit.chain.name,
                    wallets = summary.wallets,
                    of,
                    differences = summary.differences,
                    "auditing"
                );
            });
        })
        .await
}

impl Summary {
    fn add(&mut self, other: Self) {
        self.wallets += other.wallets;
        self.balances += other.balances;
        self.compared += other.compared;
        self.differences += other.differences;
        self.unproven += other.unproven;
        self.unfinished += other.unfinished;
    }

    fn text(&self, chain: &ChainName) -> String {
        let Self { wallets, balances, compared, differences, unproven, unfinished } = self;
        format!(
            "{chain}: {wallets} wallets, {balances} balances recomputed, {compared} figures compared with \
             the chain: {differences} differences, {unproven} not provable, {unfinished} not settled yet"
        )
    }
}

fn count(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// What one page of wallets looks like in one state of the store.
struct Page {
    chain: ChainNo,
    settled: BlockRef,
    wallets: Vec<Watched>,
    assets: BTreeMap<AssetNo, Asset>,
    balances: BTreeMap<(WalletNo, AssetNo), Balance>,
    replayed: BTreeMap<WalletNo, Replayed>,
    /// Where assets began to count in blocks that have not settled.
    openings: Vec<AssetOpening>,
}

impl Page {
    /// The assets that a wallet has a balance of, or entries.
    fn booked(&self, wallet: WalletNo) -> BTreeSet<AssetNo> {
        let all = (wallet, AssetNo(i64::MIN))..=(wallet, AssetNo(i64::MAX));
        let balances = self.balances.range(all).map(|((_, asset), _)| *asset);
        let replayed = self.replayed.get(&wallet).into_iter();
        balances.chain(replayed.flat_map(|books| books.positions.keys().copied())).collect()
    }

    /// Whether the asset counted for the wallet when the settled block did: below its beginning a balance is not
    /// known.
    fn begun(&self, wallet: &Watched, asset: &Asset) -> bool {
        let unsettled = self.openings.iter().any(|at| at.holds(asset.no, wallet.wallet));
        asset.counts_for(wallet.wallet) && !unsettled
    }

    fn balance(&self, wallet: &Watched, asset: AssetNo) -> Position {
        let balance = self.balances.get(&(wallet.wallet, asset));
        balance.copied().unwrap_or_default().position
    }
}

impl Audit<'_> {
    async fn wallets(&self) -> anyhow::Result<u64> {
        let mut session = self.db.read().await?;
        let open = watch_store::count_open(&mut session.conn(), &self.chain.name).await?;
        Ok(self.limit.map_or(open, |limit| limit.min(open)))
    }

    /// Counts the watches, then walks over all open ones; after each page, `tell` gets the sums so far and what
    /// was found.
    pub(crate) async fn run(
        &self,
        tell: &mut (dyn FnMut(&Summary, &[Difference]) + Send),
    ) -> anyhow::Result<Summary> {
        let mut summary = Summary::default();
        let miscounts = self.miscounts().await?;
        summary.differences = count(miscounts.len());
        let miscounts: Vec<_> = miscounts.into_iter().map(Difference::Miscounted).collect();
        tell(&summary, &miscounts);
        let mut after: Option<Watched> = None;
        loop {
            let left = self.limit.map_or(PAGE, |limit| PAGE.min(limit - summary.wallets));
            let Some(page) = self.page(after.as_ref(), left).await? else { break };
            after = page.wallets.last().copied();
            let found = self.compare(&page, &mut summary).await?;
            tell(&summary, &found);
        }
        Ok(summary)
    }

    async fn miscounts(&self) -> anyhow::Result<Vec<Miscount>> {
        let mut session = self.db.read().await?;
        Ok(watch_count::wrong(&mut session.conn(), &self.chain.name).await?)
    }

    /// The next page; `None` where the chain was never followed, or nothing more is to be read.
    async fn page(&self, after: Option<&Watched>, limit: u64) -> anyhow::Result<Option<Page>> {
        let mut tx = self.db.snapshot().await?;
        let mut conn = tx.conn();
        let Some(cursor) = chain_store::cursor(&mut conn, &self.chain.name).await? else {
            return Ok(None);
        };
        let rows = i64::try_from(limit).unwrap_or(i64::MAX);
        let any = i64::MAX.unsigned_abs();
        let wallets = watch_store::watched_after(&mut conn, cursor.no, after, any, rows).await?;
        if wallets.is_empty() {
            return Ok(None);
        }
        let numbers: Vec<WalletNo> = wallets.iter().map(|wallet| wallet.wallet).collect();
        let balances = balance_store::of_wallets(&mut conn, cursor.no, &numbers).await?;
        let mut replayed = BTreeMap::new();
        for wallet in &wallets {
            let books = audit_store::replayed(&mut conn, cursor.no, wallet.wallet).await?;
            replayed.insert(wallet.wallet, books);
        }
        let booked = balances
            .keys()
            .map(|(_, asset)| *asset)
            .chain(replayed.values().flat_map(|books: &Replayed| books.positions.keys().copied()));
        let booked: Vec<AssetNo> = booked.collect();
        let mut assets = asset_store::by_numbers(&mut conn, &booked).await?;
        let configured = asset_store::by_keys(&mut conn, cursor.no, &self.chain.assets()).await?;
        assets.extend(configured.into_iter().map(|asset| (asset.no, asset)));
        let settled = cursor.settled.at.number;
        let openings = asset_opening::above(&mut conn, cursor.no, settled).await?;
        Ok(Some(Page {
            chain: cursor.no,
            settled: cursor.settled.at,
            wallets,
            assets,
            balances: balances.into_iter().collect(),
            replayed,
            openings,
        }))
    }

    async fn compare(&self, page: &Page, summary: &mut Summary) -> anyhow::Result<Vec<Difference>> {
        let mut found = Vec::new();
        let mut asked: Vec<BalanceRef> = Vec::new();
        let configured = self.chain.assets();
        for &wallet in &page.wallets {
            let booked = page.booked(wallet.wallet);
            Self::recompute(page, wallet, &booked, summary, &mut found);
            // Below its beginning a watch does not know the whole balance.
            if wallet.opened <= page.settled.number {
                // What does not count (any more) stays as it was last booked, whatever the chain says.
                let own = |asset: &&Asset| {
                    let held = booked.contains(&asset.no) || configured.contains(&asset.key);
                    held && asset.verified
                };
                let (begun, unfinished): (Vec<&Asset>, Vec<&Asset>) =
                    page.assets.values().filter(own).partition(|asset| page.begun(&wallet, asset));
                summary.unfinished += count(unfinished.len());
                asked.extend(begun.into_iter().map(|asset| wallet.balance(asset)));
            } else {
                summary.unfinished += 1;
            }
        }
        let Some(figures) = self.figures(page.settled, &asked).await else {
            summary.unproven += count(asked.len());
            summary.wallets += count(page.wallets.len());
            summary.differences += count(found.len());
            return Ok(found);
        };
        summary.unproven += count(asked.len() - figures.len());
        let watched: BTreeMap<WalletNo, Watched> =
            page.wallets.iter().map(|wallet| (wallet.wallet, *wallet)).collect();
        let unfinished = self.unfinished(page).await?;
        for Told { balance, holding: figure } in figures {
            let Some(&wallet) = watched.get(&balance.wallet) else { continue };
            let ledger = page.balance(&wallet, balance.asset).settled;
            let differs = ledger != figure.total;
            if differs && unfinished.contains(&(balance.wallet, balance.asset)) {
                summary.unfinished += 1;
                continue;
            }
            summary.compared += 1;
            if differs && let Some(asset) = page.assets.get(&balance.asset).cloned() {
                let (at, chain) = (page.settled, figure.total);
                found.push(Difference::Chain { wallet, asset, at, ledger, chain });
            }
        }
        summary.wallets += count(page.wallets.len());
        summary.differences += count(found.len());
        Ok(found)
    }

    /// Compares a wallet's balances with the sums of their entries, and looks for what no index guards.
    fn recompute(
        page: &Page,
        wallet: Watched,
        booked: &BTreeSet<AssetNo>,
        summary: &mut Summary,
        found: &mut Vec<Difference>,
    ) {
        let books = page.replayed.get(&wallet.wallet).cloned().unwrap_or_default();
        for no in booked {
            summary.balances += 1;
            let balance = page.balance(&wallet, *no);
            let entries = books.positions.get(no).copied().unwrap_or_default();
            if balance != entries
                && let Some(asset) = page.assets.get(no).cloned()
            {
                found.push(Difference::Entries { wallet, asset, balance, entries });
            }
        }
        if books.altered > 0 {
            found.push(Difference::Altered { wallet, entries: books.altered });
        }
        if books.doubled > 0 {
            found.push(Difference::Doubled { wallet, movements: books.doubled });
        }
    }

    /// The chain's own figures; `None` where the node no longer has that state, or does not answer.
    async fn figures(&self, at: BlockRef, balances: &[BalanceRef]) -> Option<Vec<Told>> {
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(5));
        for attempt in 1..=TRIES {
            match self.ask(at, balances).await {
                Ok(figures) => return figures,
                Err(error) if attempt == TRIES => {
                    tracing::warn!(chain = %self.chain.name, error = %error, "the node tells no balances");
                }
                Err(_) => tokio::time::sleep(backoff.next_delay()).await,
            }
        }
        None
    }

    async fn ask(
        &self,
        at: BlockRef,
        balances: &[BalanceRef],
    ) -> Result<Option<Vec<Told>>, SourceError> {
        // A source that has seen what is settled asks for states that are nearer to it.
        if let Settlement::Tag(tag) = self.chain.settlement {
            self.source.settled(tag).await?;
        }
        figures::read(self.source, at, balances).await
    }

    async fn unfinished(&self, page: &Page) -> anyhow::Result<BTreeSet<(WalletNo, AssetNo)>> {
        let mut session = self.db.read().await?;
        let wallets: Vec<WalletNo> = page.wallets.iter().map(|wallet| wallet.wallet).collect();
        let (conn, number) = (&mut session.conn(), page.settled.number);
        Ok(correction::unfinished(conn, page.chain, &wallets, number).await?)
    }

    /// One line per difference: chain, whose it is (wallet and address, or tenant), and both figures.
    fn text(&self, difference: &Difference) -> String {
        let sums = |at: &Position| {
            format!("settled {} incoming {} outgoing {}", at.settled, at.incoming, at.outgoing)
        };
        let (wallet, figures) = match difference {
            Difference::Entries { wallet, asset, balance, entries } => (
                wallet,
                format!(
                    "{}: balance {}, its entries {}",
                    asset.caip19,
                    sums(balance),
                    sums(entries)
                ),
            ),
            Difference::Chain { wallet, asset, at, ledger, chain } => (
                wallet,
                format!("{}: ledger {ledger}, chain {chain} at block {}", asset.caip19, at.number),
            ),
            Difference::Altered { wallet, entries } => {
                (wallet, format!("{entries} entries have another amount than their transfer"))
            }
            Difference::Doubled { wallet, movements } => {
                (wallet, format!("{movements} movements stand more than once"))
            }
            Difference::Miscounted(Miscount { tenant, kept, watches }) => {
                let chain = &self.chain.name;
                return format!(
                    "{chain} {tenant} {kept} watched addresses counted, {watches} watches"
                );
            }
        };
        let address = self.chain.family.format_address(&wallet.address);
        format!("{} {} {address} {figures}", self.chain.name, wallet.wallet_id)
    }
}
