//! `tidemark audit`: the ledger against itself and against the chain, without booking anything.
//!
//! Page by page, each read in one state of the store and compared at that state's settled block: a daemon may
//! run beside it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};

use super::Usage;
use crate::{
    amount::Amount,
    apply::ChainInfo,
    chain::{AssetKey, BlockRef, ChainName, Holding, Settlement, Source, SourceError},
    config::{ChainConfig, Config},
    id::WalletId,
    ledger::Position,
    metrics::Metrics,
    proof,
    retry::Backoff,
    store::{
        Db, audit as audit_store, chain as chain_store,
        proof::{self as proof_store, Claim, Standing, Watched},
    },
};

/// Wallets read in one state of the store.
const PAGE: u64 = 100;
/// How often a node that does not answer is asked for a page.
const TRIES: u32 = 4;
/// Between two lines that tell of the progress where there is no terminal.
const REPORT_EVERY: Duration = Duration::from_secs(10);

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
    #[error("{0} balances are not what they should be")]
    Drift(u64),
    #[error("no balance is wrong, but {0} could not be compared with the chain")]
    Unproven(u64),
}

/// Where a balance is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Difference {
    /// The balance is not the sum of its entries.
    Entries { wallet: Watched, asset: AssetKey, balance: Position, entries: Position },
    /// The settled part is not what the chain's state has at the settled block.
    Chain { wallet: Watched, asset: AssetKey, at: BlockRef, ledger: Amount, chain: Amount },
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
    let style =
        ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len} wallets, {eta} left")?;
    let bar = ProgressBar::new(audit.wallets().await?).with_style(style);
    bar.set_prefix(audit.chain.name.to_string());
    let mut reported = Instant::now();
    let result = audit
        .run(&mut |summary: &Summary, found: &[Difference]| {
            for difference in found {
                bar.suspend(|| println!("{}", audit.text(difference)));
            }
            bar.set_position(summary.wallets);
            if bar.is_hidden() && reported.elapsed() >= REPORT_EVERY {
                reported = Instant::now();
                tracing::info!(
                    chain = %audit.chain.name,
                    wallets = summary.wallets,
                    of = bar.length(),
                    differences = summary.differences,
                    "auditing"
                );
            }
        })
        .await;
    bar.finish_and_clear();
    result
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
    settled: BlockRef,
    wallets: Vec<Watched>,
    standings: BTreeMap<(WalletId, AssetKey), Standing>,
    replayed: BTreeMap<(WalletId, AssetKey), Position>,
}

impl Page {
    /// The assets that a wallet has a balance of, or entries.
    fn booked(&self, wallet: WalletId) -> BTreeSet<AssetKey> {
        // The native coin is the first asset.
        let start = (wallet, AssetKey::Native);
        let balances = self.standings.range(start..).map(|(key, _)| *key);
        let entries = self.replayed.range(start..).map(|(key, _)| *key);
        let own = |key: &(WalletId, AssetKey)| key.0 == wallet;
        balances.take_while(own).chain(entries.take_while(own)).map(|(_, asset)| asset).collect()
    }

    fn balance(&self, wallet: &Watched, asset: AssetKey) -> Position {
        let standing = self.standings.get(&(wallet.wallet_id, asset));
        standing.copied().unwrap_or_default().position
    }
}

impl Audit<'_> {
    async fn wallets(&self) -> anyhow::Result<u64> {
        let mut session = self.db.read().await?;
        let open = audit_store::open_watches(&mut session.conn(), &self.chain.name).await?;
        Ok(self.limit.map_or(open, |limit| limit.min(open)))
    }

    /// Walks over all open watches; after each page, `tell` gets the sums so far and what was found.
    pub(crate) async fn run(
        &self,
        tell: &mut (dyn FnMut(&Summary, &[Difference]) + Send),
    ) -> anyhow::Result<Summary> {
        let mut summary = Summary::default();
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

    /// The next page; `None` where the chain was never followed, or nothing more is to be read.
    async fn page(&self, after: Option<&Watched>, limit: u64) -> anyhow::Result<Option<Page>> {
        let name = &self.chain.name;
        let mut tx = self.db.snapshot().await?;
        let mut conn = tx.conn();
        let Some(cursor) = chain_store::cursor(&mut conn, name).await? else { return Ok(None) };
        let rows = i64::try_from(limit).unwrap_or(i64::MAX);
        let any = proof_store::ANY_BLOCK;
        let wallets = proof_store::watched_after(&mut conn, name, after, any, rows).await?;
        if wallets.is_empty() {
            return Ok(None);
        }
        let standings = proof_store::standings(&mut conn, name, &wallets).await?;
        let mut replayed = BTreeMap::new();
        for wallet in &wallets {
            let id = wallet.wallet_id;
            let positions = audit_store::replayed(&mut conn, name, id).await?;
            replayed.extend(positions.into_iter().map(|(asset, at)| ((id, asset), at)));
        }
        Ok(Some(Page { settled: cursor.settled.at, wallets, standings, replayed }))
    }

    async fn compare(&self, page: &Page, summary: &mut Summary) -> anyhow::Result<Vec<Difference>> {
        let mut found = Vec::new();
        let mut claims: Vec<Claim> = Vec::new();
        for &wallet in &page.wallets {
            let booked = page.booked(wallet.wallet_id);
            for &asset in &booked {
                summary.balances += 1;
                let balance = page.balance(&wallet, asset);
                let entries = page.replayed.get(&(wallet.wallet_id, asset)).copied();
                let entries = entries.unwrap_or_default();
                if balance != entries {
                    found.push(Difference::Entries { wallet, asset, balance, entries });
                }
            }
            // Below its beginning a watch does not know the whole balance.
            if wallet.opened <= page.settled.number {
                let assets: BTreeSet<AssetKey> =
                    self.chain.assets().into_iter().chain(booked).collect();
                claims.extend(assets.into_iter().map(|asset| wallet.claim(asset)));
            } else {
                summary.unfinished += 1;
            }
        }
        let Some(figures) = self.figures(page.settled, &claims).await else {
            summary.unproven += count(claims.len());
            summary.wallets += count(page.wallets.len());
            summary.differences += count(found.len());
            return Ok(found);
        };
        summary.unproven += count(claims.len() - figures.len());
        let watched: BTreeMap<WalletId, Watched> =
            page.wallets.iter().map(|wallet| (wallet.wallet_id, *wallet)).collect();
        for (claim, holding) in figures {
            let Some(&wallet) = watched.get(&claim.wallet_id) else { continue };
            let ledger = page.balance(&wallet, claim.asset).settled;
            if ledger != holding.total && self.is_unfinished(&claim, page.settled).await? {
                summary.unfinished += 1;
                continue;
            }
            summary.compared += 1;
            if ledger != holding.total {
                let (asset, at, chain) = (claim.asset, page.settled, holding.total);
                found.push(Difference::Chain { wallet, asset, at, ledger, chain });
            }
        }
        summary.wallets += count(page.wallets.len());
        summary.differences += count(found.len());
        Ok(found)
    }

    /// The chain's own figures; `None` where the node no longer has that state, or does not answer.
    async fn figures(&self, at: BlockRef, claims: &[Claim]) -> Option<Vec<(Claim, Holding)>> {
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(5));
        for attempt in 1..=TRIES {
            match self.ask(at, claims).await {
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
        claims: &[Claim],
    ) -> Result<Option<Vec<(Claim, Holding)>>, SourceError> {
        // A source that has seen what is settled asks for states that are nearer to it.
        if let Settlement::Tag(tag) = self.chain.settlement {
            self.source.settled(tag).await?;
        }
        proof::read(self.source, at, claims).await
    }

    async fn is_unfinished(&self, claim: &Claim, at: BlockRef) -> anyhow::Result<bool> {
        let mut session = self.db.read().await?;
        let mut conn = session.conn();
        Ok(proof_store::is_unfinished(&mut conn, &self.chain.name, claim, at.number).await?)
    }

    /// One line per difference: chain, wallet, address, asset, and both figures.
    fn text(&self, difference: &Difference) -> String {
        let (wallet, asset) = match difference {
            Difference::Entries { wallet, asset, .. } | Difference::Chain { wallet, asset, .. } => {
                (wallet, asset)
            }
        };
        let sums = |at: &Position| {
            format!("settled {} incoming {} outgoing {}", at.settled, at.incoming, at.outgoing)
        };
        let figures = match difference {
            Difference::Entries { balance, entries, .. } => {
                format!("balance {}, its entries {}", sums(balance), sums(entries))
            }
            Difference::Chain { at, ledger, chain, .. } => {
                format!("ledger {ledger}, chain {chain} at block {}", at.number)
            }
        };
        format!(
            "{} {} {} {}: {figures}",
            self.chain.name,
            wallet.wallet_id,
            self.chain.family.format_address(&wallet.address),
            ChainInfo::from(self.chain).caip19(asset),
        )
    }
}
