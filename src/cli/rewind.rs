//! `tidemark rewind`: takes a chain back, or says what that would take back.

use std::{collections::BTreeMap, fmt::Write as _};

use anyhow::Context as _;

use super::{committer, configured, open};
use crate::{
    chain::{ChainName, Header, Source},
    config::{ChainConfig, Config},
    ledger::rollback::{TakenBack, TakenBalance, TakenSum},
    metrics::Metrics,
    model::{AssetNo, RewindOrder, WalletNo},
    store::{self, Db, asset as asset_store, wallet as wallet_store},
};

/// Bytes of a reason, at most.
const LONGEST_REASON: usize = 500;

/// How far a chain is taken back, and why.
#[derive(Clone, Debug, clap::Args)]
pub struct RewindArgs {
    /// The chain's name in the configuration.
    #[arg(long, value_name = "NAME")]
    pub chain: String,
    /// The last block that stays.
    #[arg(long, value_name = "BLOCK")]
    pub to: u64,
    /// Why; kept in the journal, with your user name.
    #[arg(long, value_name = "TEXT", required_unless_present = "dry_run", value_parser = reason)]
    pub reason: Option<String>,
    /// Say what would be taken back, and from whom, and change nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// A line of text.
fn reason(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() || text.len() > LONGEST_REASON || text.chars().any(char::is_control) {
        return Err(format!("a reason is one line of 1 to {LONGEST_REASON} bytes"));
    }
    Ok(text.to_owned())
}

/// The name of the user, where the system tells it.
fn user() -> Option<String> {
    let names =
        ["SUDO_USER", "USER", "LOGNAME"].into_iter().filter_map(|name| std::env::var(name).ok());
    names.map(|name| name.trim().to_owned()).find(|name| reason(name).is_ok())
}

/// Takes the chain back, unless it is only asked what that would do, and tells of it.
///
/// # Errors
/// When the chain cannot be taken back to that block; nothing was changed then.
pub(super) async fn run(config: &Config, args: RewindArgs) -> anyhow::Result<()> {
    let chain = configured(config, &args.chain)?;
    let (name, to) = (&chain.name, args.to);
    let order = args.reason.filter(|_| !args.dry_run);
    let order = order.map(|reason| RewindOrder { by: user(), reason });
    let db = open(config).await?;
    let outcome = taken(config, &db, chain, to, order.as_ref()).await;
    db.close().await;
    let text = outcome.with_context(|| match order {
        Some(_) => format!("{name} was not rewound to block {to}"),
        None => format!("{name} cannot be rewound to block {to}"),
    })?;
    print!("{text}");
    match order {
        Some(_) => println!("{name} stands at block {to} and goes on from there."),
        None => println!("Nothing was changed."),
    }
    Ok(())
}

/// What is taken back, as text. A running daemon need not be stopped: the cursor moves in one transaction, and
/// whoever built upon the old one reads it again.
async fn taken(
    config: &Config,
    db: &Db,
    chain: &ChainConfig,
    to: u64,
    order: Option<&RewindOrder>,
) -> anyhow::Result<String> {
    let metrics = Metrics::new();
    let source = crate::daemon::source(config, chain, &metrics)?;
    let target: Header = source
        .header_at(to)
        .await?
        .with_context(|| format!("the node has no block {to}: choose one that it has"))?;
    check_branch(db, source.as_ref(), &chain.name, to).await?;
    let committer = committer(db, chain, metrics);
    let taken = match order {
        Some(order) => committer.rewind(&target, order).await?.taken,
        None => committer.would_rewind(&target).await?,
    };
    text(db, chain, &taken).await
}

/// What stays must be on the node's chain: movements of another branch would stay in the balances for ever.
/// The newest block at or below `to` with a booked movement or the beginning of a watch decides: what lies
/// below it is linked to it, and between it and `to` nothing is booked.
async fn check_branch(
    db: &Db,
    source: &dyn Source,
    name: &ChainName,
    to: u64,
) -> anyhow::Result<()> {
    let mut session = db.read().await?;
    let Some(cursor) = store::chain::cursor(&mut session.conn(), name).await? else {
        return Ok(());
    };
    let booked = store::settling::newest_block(&mut session.conn(), cursor.no, to).await?;
    let opened = store::watch::newest_opening(&mut session.conn(), cursor.no, to).await?;
    drop(session);
    for block in booked.into_iter().chain(opened) {
        let number = block.number;
        anyhow::ensure!(
            source.header_at(number).await?.is_some_and(|header| header.at == block),
            "block {number} that was applied is not on the node's chain: rewind to a lower block"
        );
    }
    Ok(())
}

/// What was taken back: of whom, tenant by tenant and wallet by wallet, and what is told of it.
pub(crate) async fn text(
    db: &Db,
    chain: &ChainConfig,
    taken: &TakenBack,
) -> anyhow::Result<String> {
    let wallets =
        taken.balances.keys().map(|(wallet, _)| *wallet).chain(taken.anew.iter().copied());
    let mut session = db.read().await?;
    let conn = &mut session.conn();
    let mut owned = wallet_store::owners(conn, wallets).await?;
    let assets: Vec<AssetNo> = taken.balances.keys().map(|(_, asset)| *asset).collect();
    let assets = asset_store::by_numbers(conn, &assets).await?;
    drop(session);
    owned.sort_by(|a, b| (&a.tenant, a.owner.wallet).cmp(&(&b.tenant, b.owner.wallet)));
    let mut text = String::new();
    // Writing to a String cannot fail.
    for tenant in owned.chunk_by(|a, b| a.owner.tenant == b.owner.tenant) {
        let Some(first) = tenant.first() else { continue };
        let _ = writeln!(text, "tenant {}", first.tenant);
        for wallet_store::Owned { owner, .. } in tenant {
            let address = chain.family.format_address(&owner.address);
            let anew =
                if taken.anew.contains(&owner.wallet) { ", whose watch begins anew" } else { "" };
            let _ = writeln!(text, "  {} {address}{anew}", owner.wallet_id);
            for (asset, balance) in balances(taken, owner.wallet) {
                let named = assets.get(&asset).map_or("an asset", |asset| asset.caip19.as_str());
                let _ = writeln!(text, "    {named}: {}", sums(balance));
            }
        }
        for ((_, kind), count) in
            taken.events.iter().filter(|((no, _), _)| *no == first.owner.tenant)
        {
            let _ = writeln!(text, "  {count} events {kind}");
        }
    }
    let totals = taken.balances.values();
    let transfers: u64 = totals.map(|of| of.deposits.transfers + of.withdrawals.transfers).sum();
    let TakenBack { balances, anew, worthless, .. } = taken;
    let events: u64 = taken.events.values().sum();
    let _ = writeln!(
        text,
        "{}: {transfers} transfers of {} balances and {worthless} that are no money are taken back, {} watches \
         begin anew, {events} events are sent",
        chain.name,
        balances.len(),
        anew.len()
    );
    Ok(text)
}

fn balances(taken: &TakenBack, wallet: WalletNo) -> impl Iterator<Item = (AssetNo, &TakenBalance)> {
    let all = (wallet, AssetNo(i64::MIN))..=(wallet, AssetNo(i64::MAX));
    let balances: &BTreeMap<_, _> = &taken.balances;
    balances.range(all).map(|((_, asset), balance)| (*asset, balance))
}

fn sums(balance: &TakenBalance) -> String {
    let TakenBalance { deposits, withdrawals, before, after } = balance;
    let total = |position: &crate::model::Position| {
        position.total().map_or_else(|error| error.to_string(), |total| total.to_string())
    };
    let sum = |TakenSum { transfers, amount }: &TakenSum| format!("{transfers} ({amount})");
    format!(
        "deposits {}, withdrawals {}; balance {}, then {}",
        sum(deposits),
        sum(withdrawals),
        total(before),
        total(after)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_line_that_says_something() {
        assert_eq!(reason("  a bad snapshot ").as_deref(), Ok("a bad snapshot"));
        for bad in ["", "  ", "two\nlines", "\u{1b}[2J", &"x".repeat(501)] {
            assert!(reason(bad).is_err(), "{bad:?}");
        }
    }
}
