//! The command line: what can be asked for, and each command's body or whose it is.

pub mod allocator;
mod assets;
pub(crate) mod audit;
pub(crate) mod journal;
mod keys;
mod progress;
mod proof;
pub(crate) mod rewind;

use std::path::PathBuf;

use anyhow::Context as _;
pub use assets::AssetsCommand;
pub use audit::AuditArgs;
use clap::{Args, Parser, Subcommand};
pub use journal::VerifyArgs;
pub use keys::KeysCommand;
pub use proof::ProofArgs;
pub use rewind::RewindArgs;

use crate::{
    chain::{ChainName, Family},
    clock::Clock,
    commit::{CommitError, Committer},
    config::{ChainConfig, Config, ConfigError},
    id::Ids,
    logging::{self, Format},
    metrics::Metrics,
    model::ChainInfo,
    store::Db,
    wake::Wake,
};

/// Watches blockchains for registered addresses and keeps their balances exact, explained and proven.
#[derive(Debug, Parser)]
#[command(version, about)]
pub struct Cli {
    /// The configuration file; without it the defaults and the environment hold.
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// How log lines are written: auto is text on a terminal and JSON elsewhere.
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub log_format: Format,

    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Follow the chains, serve the API and deliver webhooks, until stopped.
    Run,
    /// Run everything with a local chain, a demo token and live traffic.
    Dev(DevArgs),
    /// Create, list and revoke API keys.
    #[command(subcommand)]
    Keys(KeysCommand),
    /// List what counts as money, set a token aside, and bring one back.
    #[command(subcommand)]
    Assets(AssetsCommand),
    /// Bring the database's schema up to date.
    Migrate,
    /// Show what would run, without opening anything.
    CheckConfig,
    /// Compare the ledger with its own entries and with the chain, without booking anything: exit code 0
    /// when all is equal, 1 for a difference, 3 when nothing is wrong but something could not be compared.
    Audit(AuditArgs),
    /// Where settlement has stopped because many balances differ from the chain's own figures: take these over.
    AcceptDifferences {
        #[arg(long, value_name = "NAME")]
        chain: String,
    },
    /// Take a chain back to a block, as the way out when it has halted.
    Rewind(RewindArgs),
    /// Compute every hash of the journals anew, and name the first commit that was tampered with: exit code 0 when all
    /// is sound, 1 when it is not.
    VerifyJournal(VerifyArgs),
    /// Check a proof of a balance (GET /v1/wallets/…/proof) without a node, a database or a configuration: exit code 0
    /// when it holds, 1 when it does not.
    VerifyProof(ProofArgs),
}

#[derive(Clone, Copy, Debug, Args)]
pub struct DevArgs {
    /// Stop when the first deposit has been credited and its webhook delivered.
    #[arg(long)]
    pub once: bool,

    /// A Solana chain, by a solana-test-validator, instead of an EVM chain.
    #[arg(long)]
    pub solana: bool,

    /// How many daemons share a PostgreSQL (which must be installed); one of several is killed and started again.
    #[arg(long, value_name = "COUNT", default_value_t = 1, conflicts_with = "solana",
        value_parser = clap::value_parser!(u16).range(1..=9))]
    pub daemons: u16,
}

/// The command does not fit the configuration.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(String);

/// Runs the command.
///
/// # Errors
/// Whatever stopped it; [`exit_code`] tells what the process should answer.
pub async fn execute(cli: Cli) -> anyhow::Result<()> {
    logging::init(cli.log_format);
    // The local chain brings its own configuration, and a proof needs none.
    let command = match cli.command {
        Command::VerifyProof(args) => return proof::run(&args),
        Command::Dev(args) => {
            let family = if args.solana { Family::Solana } else { Family::Evm };
            return crate::dev::run(family, args.daemons, args.once).await;
        }
        command => command,
    };
    let config = Config::load(cli.config.as_deref())?;
    match command {
        Command::Dev(_) | Command::VerifyProof(_) => Ok(()),
        Command::Run => Ok(crate::daemon::run_until_signalled(config).await?),
        Command::Keys(command) => keys::run(&config, command).await,
        Command::Assets(command) => Box::pin(assets::run(&config, command)).await,
        Command::Migrate => migrate(&config).await,
        Command::CheckConfig => {
            print!("{}", describe(&config));
            Ok(())
        }
        Command::Audit(args) => audit::run(&config, &args).await,
        Command::AcceptDifferences { chain } => accept_differences(&config, &chain).await,
        Command::Rewind(args) => rewind::run(&config, args).await,
        Command::VerifyJournal(args) => journal::run(&config, &args).await,
    }
}

/// 2 for what the user must write differently, 3 for what an audit could not prove, 1 for what went wrong.
#[must_use]
pub fn exit_code(error: &anyhow::Error) -> u8 {
    if error.is::<ConfigError>() || error.is::<Usage>() {
        2
    } else if matches!(error.downcast_ref(), Some(audit::Finding::Unproven(_))) {
        3
    } else {
        1
    }
}

/// The chain that the user named.
fn configured<'a>(config: &'a Config, chain: &str) -> Result<&'a ChainConfig, Usage> {
    config.chains.get(chain).ok_or_else(|| {
        let names: Vec<_> = config.chains.keys().map(ChainName::as_str).collect();
        let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        Usage(format!("no chain {chain:?} is configured; there is: {names}"))
    })
}

async fn migrate(config: &Config) -> anyhow::Result<()> {
    let db = open(config).await?;
    db.close().await;
    println!("The database is up to date.");
    Ok(())
}

fn committer(db: &Db, chain: &ChainConfig, metrics: Metrics) -> Committer {
    let clock = Clock::System;
    let ids = Ids::new(clock.clone());
    Committer::new(db.clone(), ids, clock, metrics, Wake::default(), ChainInfo::from(chain))
}

async fn accept_differences(config: &Config, chain: &str) -> anyhow::Result<()> {
    let chain = configured(config, chain)?;
    let db = open(config).await?;
    let outcome = committer(&db, chain, Metrics::new()).accept_differences().await;
    db.close().await;
    match outcome {
        Err(CommitError::CursorMoved(_)) => {
            anyhow::bail!("{} has not been followed yet: there is nothing to accept", chain.name)
        }
        outcome => outcome?,
    }
    println!("What settles next on {} is taken over, however much differs.", chain.name);
    Ok(())
}

async fn open(config: &Config) -> anyhow::Result<Db> {
    Db::open(config.database_url.expose(), &Metrics::new())
        .await
        .context("the database cannot be used")
}

/// What would run: no secret and no URL.
fn describe(config: &Config) -> String {
    use std::fmt::Write as _;

    let engine = config.database_url.expose().split("://").next().unwrap_or_default();
    let mut text = String::new();
    let mut line = |line: String| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{line}");
    };
    line(format!("listen    {}", config.server.listen));
    line(format!("database  {engine}"));
    for chain in config.chains.values() {
        let endpoints: Vec<_> = chain.endpoints.iter().map(|e| e.name.as_str()).collect();
        line(format!("chain     {} ({})", chain.name, chain.caip2));
        line(format!(
            "          native coin {}, {} tokens",
            chain.native.symbol,
            chain.tokens.len()
        ));
        line(format!("          settled by {}", chain.settlement));
        line(format!("          verification {}", chain.verification.as_str()));
        line(format!("          endpoints {}", endpoints.join(", ")));
    }
    if config.chains.is_empty() {
        line("chain     none: the API only; add [chains.NAME] to follow one".to_owned());
    }
    if config.webhooks.allow_http || config.webhooks.allow_private_addresses {
        line(
            "warning   webhooks.allow_http and allow_private_addresses are for development only"
                .to_owned(),
        );
    }
    line("The configuration is valid.".to_owned());
    text
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_documented_commands_are_understood() {
        for line in [
            "tidemark dev",
            "tidemark dev --once",
            "tidemark dev --solana --once",
            "tidemark dev --daemons 3",
            "tidemark --config my.toml run",
            "tidemark run --config my.toml",
            "tidemark --config my.toml keys list --tenant acme",
            "tidemark keys revoke key_1",
            "tidemark --config my.toml assets list --chain base",
            "tidemark --config my.toml assets quarantine --chain base --asset 0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913",
            "tidemark --config my.toml assets release --chain base --asset eip155:8453/erc20:0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913",
            "tidemark --config my.toml migrate",
            "tidemark --config my.toml check-config",
            "tidemark --config my.toml audit",
            "tidemark --config my.toml audit --chain base --limit 1000",
            "tidemark --config my.toml rewind --chain ethereum --to 19000000 --reason snapshot",
            "tidemark --config my.toml rewind --chain ethereum --to 19000000 --dry-run",
            "tidemark --config my.toml verify-journal",
            "tidemark --config my.toml verify-journal --chain ethereum --from 1000 --expect 0123456789ab",
            "tidemark --config my.toml accept-differences --chain ethereum",
            "tidemark verify-proof",
            "tidemark verify-proof - --block-hash 0x0123",
            "tidemark verify-proof proof.json",
        ] {
            assert!(parse(line).is_ok(), "{line}");
        }
        let line = "tidemark --config my.toml keys create --tenant acme --scopes wallets:read,wallets:write";
        match parse(line).expect("the documented line").command {
            Command::Keys(KeysCommand::Create { tenant, scopes }) => {
                assert_eq!(tenant, "acme");
                assert_eq!(scopes.len(), 2);
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn nobody_rewinds_without_a_reason() {
        let rewind = "tidemark rewind --chain ethereum --to 19000000";
        assert!(parse(rewind).is_err());
        let mut line: Vec<&str> = rewind.split_whitespace().collect();
        line.extend(["--reason", " "]);
        assert!(Cli::try_parse_from(line).is_err());
    }

    #[test]
    fn a_bad_configuration_exits_with_2_and_a_failure_with_1() {
        let config = Config::from_toml("[server]\nport = 1").expect_err("an unknown key");
        assert_eq!(exit_code(&config.into()), 2);
        assert_eq!(exit_code(&Usage("no such chain".to_owned()).into()), 2);
        assert_eq!(exit_code(&anyhow::anyhow!("the node is gone")), 1);
        assert_eq!(exit_code(&audit::Finding::Drift(2).into()), 1);
        assert_eq!(exit_code(&audit::Finding::Unproven(2).into()), 3);
    }

    #[tokio::test]
    async fn naming_a_chain_that_is_not_configured_is_bad_usage() {
        let config = Config::from_toml("").expect("the defaults");
        let args = RewindArgs { chain: "ethereum".to_owned(), to: 1, reason: None, dry_run: true };
        let error = rewind::run(&config, args).await.expect_err("no such chain");
        assert_eq!(exit_code(&error), 2);
        let args = AuditArgs { chain: Some("ethereum".to_owned()), limit: None };
        let error = audit::run(&config, &args).await.expect_err("no such chain");
        assert_eq!(exit_code(&error), 2);
    }

    #[test]
    fn check_config_shows_endpoints_by_name_and_no_secret() {
        let config = Config::from_toml(
            r#"
            database.url = "postgres://user:hunter2@db.internal/tidemark"
            [chains.base]
            endpoints = [{ url = "https://rpc.example.com/hunter3", name = "main" }, { url = "https://b.example.com" }]
            "#,
        )
        .expect("a good configuration");
        let text = describe(&config);
        assert!(text.contains("endpoints main, endpoint-2"), "{text}");
        assert!(
            text.contains("base (eip155:8453)") && text.contains("settled by finalized"),
            "{text}"
        );
        assert!(text.contains("7 tokens"), "{text}");
        for secret in ["hunter", "example.com", "db.internal"] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
}
