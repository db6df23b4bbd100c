//! `tidemark assets`: what counts as money, how a token is set aside by hand, and the way back.

use std::fmt::Write as _;

use anyhow::{Context as _, ensure};

use super::{Usage, configured, open};
use crate::{
    chain::AssetKey,
    clock::Clock,
    commit::Committer,
    config::{ChainConfig, Config},
    id::Ids,
    metrics::Metrics,
    model::{Asset, ChainInfo},
    store::{Db, asset, chain as chain_store},
    wake::Wake,
};

/// What is to be done with assets.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum AssetsCommand {
    /// List what counts as money, and what is quarantined.
    List {
        /// Only this chain; all configured ones without it.
        #[arg(long, value_name = "NAME")]
        chain: Option<String>,
    },
    /// Set a token aside that counts: its balances stay as they are, and nothing more of it is booked.
    Quarantine {
        /// The chain's name in the configuration.
        #[arg(long, value_name = "NAME")]
        chain: String,
        /// Its CAIP-19 id, as the list shows it, or its contract.
        #[arg(long)]
        asset: String,
    },
    /// Bring a quarantined token back: whoever follows the chain takes it as newly configured.
    Release {
        /// The chain's name in the configuration.
        #[arg(long, value_name = "NAME")]
        chain: String,
        /// Its CAIP-19 id, as the list shows it, or its contract.
        #[arg(long)]
        asset: String,
    },
}

/// Carries out a command on the store that the configuration names.
///
/// # Errors
/// When the store cannot be used, or the command names what is not there.
pub(super) async fn run(config: &Config, command: AssetsCommand) -> anyhow::Result<()> {
    let done = match command {
        AssetsCommand::List { chain } => {
            let chains: Vec<&ChainConfig> = match &chain {
                Some(name) => vec![configured(config, name)?],
                None => config.chains.values().collect(),
            };
            let db = open(config).await?;
            let listed = list(&db, &chains).await;
            db.close().await;
            listed
        }
        AssetsCommand::Quarantine { chain, asset } => {
            let chain = configured(config, &chain)?;
            let key = named(chain, &asset)?;
            let db = open(config).await?;
            let set_aside = quarantine(&db, chain, key).await;
            db.close().await;
            set_aside
        }
        AssetsCommand::Release { chain, asset } => {
            let chain = configured(config, &chain)?;
            let key = named(chain, &asset)?;
            let db = open(config).await?;
            let released = release(&db, chain, key).await;
            db.close().await;
            released
        }
    };
    println!("{}", done?);
    Ok(())
}

async fn list(db: &Db, chains: &[&ChainConfig]) -> anyhow::Result<String> {
    let mut session = db.read().await?;
    let conn = &mut session.conn();
    let mut lines = Vec::new();
    for chain in chains {
        let Some(cursor) = chain_store::cursor(conn, &chain.name).await? else { continue };
        let mut listed = asset::listed_on(conn, cursor.no).await?;
        listed.sort_unstable_by_key(|asset| asset.key);
        lines.extend(listed.iter().map(line));
    }
    if lines.is_empty() {
        return Ok("no assets: no daemon has followed a chain yet".to_owned());
    }
    Ok(lines.join("\n"))
}

fn line(asset: &Asset) -> String {
    let symbol = asset.symbol.as_deref().unwrap_or_default();
    let mut line = format!("{}  {symbol}  {}  ", asset.chain, asset.caip19);
    let _ = match asset.quarantine {
        Some(set_aside) => write!(
            line,
            "quarantined since {} at block {} ({})",
            set_aside.since, set_aside.block, set_aside.reason
        ),
        None => write!(line, "counts"),
    };
    line
}

/// The token that was named.
fn named(chain: &ChainConfig, text: &str) -> Result<AssetKey, Usage> {
    let contract = text.rsplit([':', '/']).next().unwrap_or_default();
    let key = chain.family.parse_address(contract).map(AssetKey::Token);
    let info = ChainInfo::from(chain);
    let is_of_chain =
        |key: &AssetKey| contract == text || info.caip19(key).eq_ignore_ascii_case(text);
    key.ok().filter(is_of_chain).ok_or_else(|| {
        let name = &chain.name;
        Usage(format!("{text:?} names no token of {name}: use an id of tidemark assets list"))
    })
}

fn committer(db: &Db, chain: &ChainConfig) -> Committer {
    let clock = Clock::System;
    Committer::new(
        db.clone(),
        Ids::new(clock.clone()),
        clock,
        Metrics::new(),
        Wake::default(),
        ChainInfo::from(chain),
    )
}

/// A running daemon need not be stopped: its next commit is refused, and it reads anew what counts.
async fn quarantine(db: &Db, chain: &ChainConfig, key: AssetKey) -> anyhow::Result<String> {
    let set_aside = committer(db, chain).set_aside(key).await;
    let asset = set_aside.context("the token could not be quarantined")?;
    let asset = asset.context("it does not count; see tidemark assets list")?;
    Ok(format!(
        "quarantined: its balances stay as they are, and it no longer counts; the way back is: tidemark assets release \
         --chain {} --asset {}",
        chain.name, asset.caip19
    ))
}

/// A running daemon need not be stopped: it looks for what was released before each block.
async fn release(db: &Db, chain: &ChainConfig, key: AssetKey) -> anyhow::Result<String> {
    let released = committer(db, chain).release(key).await;
    let released = released.context("the token could not be released")?;
    ensure!(released.is_some(), "it is not quarantined; see tidemark assets list");
    let is_configured = chain.assets().contains(&key);
    let what = if is_configured {
        "the chain's daemon counts it again, from the balances that the chain has then"
    } else {
        "it is not in the configuration, so it does not count"
    };
    Ok(format!("released: {what}"))
}
