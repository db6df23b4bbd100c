//! Figures with their goals beside them: `cargo bench`, or only some of them: `cargo bench -- head scan`.
//!
//! Each measurement runs the real program in a process of its own, on SQLite with durable commits or on a
//! PostgreSQL server of the benches' own with fsync, and asks it over HTTP like a customer. Node, load and
//! daemon share this machine. Nothing is subtracted. Where a chain was followed, what the daemon holds
//! afterwards is compared with the chain: a wrong figure of money ends the benches.

mod addresses;
mod announced;
mod answer;
mod backfill;
mod catch_up;
mod client;
mod counted;
mod daemon;
mod decide;
mod dense;
mod figure;
mod head;
mod http;
mod idle;
mod internal;
mod reads;
mod recorded;
mod register;
mod registrations;
mod seed;
mod serve;
mod solana;
mod store;
mod wallet;

use std::{
    collections::HashMap,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use dense::Dense;
use figure::Figure;
use store::{Engine, Postgres};
use tokio::signal::unix::{SignalKind, signal};

/// Said beside the measurements, these ask for one engine only.
const SQLITE: &str = "sqlite";
const POSTGRES: &str = "postgres";
/// A measurement that hangs is given up.
const PATIENCE: Duration = Duration::from_mins(30);

type Measuring<'a> = Pin<Box<dyn Future<Output = anyhow::Result<()>> + 'a>>;

struct Measurement {
    name: &'static str,
    about: &'static str,
    run: for<'a> fn(&'a mut Bench) -> Measuring<'a>,
}

const MEASUREMENTS: &[Measurement] = &[
    Measurement {
        name: "idle",
        about: "memory of a daemon with nothing to do",
        run: |bench| Box::pin(idle::measure(bench)),
    },
    Measurement {
        name: "head",
        about: "from a real node's announcement to the readable balance; requests to settle",
        run: |bench| Box::pin(head::measure(bench)),
    },
    Measurement {
        name: "internal",
        about: "from the announcement to the balance with what only a trace shows",
        run: |bench| Box::pin(internal::measure(bench)),
    },
    Measurement {
        name: "reads",
        about: "balance reads over HTTP",
        run: |bench| Box::pin(reads::measure(bench)),
    },
    Measurement {
        name: "registrations",
        about: "wallets registered over HTTP",
        run: |bench| Box::pin(registrations::measure(bench)),
    },
    Measurement {
        name: "decide",
        about: "the ledger's rules alone, in memory",
        run: |bench| Box::pin(async { decide::measure(bench) }),
    },
    Measurement {
        name: "near-empty",
        about: "blocks of one transaction, caught up",
        run: |bench| Box::pin(catch_up::near_empty_blocks(bench)),
    },
    Measurement {
        name: "scan",
        about: "the dense chain with nothing to book, against a client that only fetches",
        run: |bench| Box::pin(catch_up::scan(bench)),
    },
    Measurement {
        name: "tracing",
        about: "the dense chain with and without traces, of which one transaction in a thousand matters",
        run: |bench| Box::pin(catch_up::tracing(bench)),
    },
    Measurement {
        name: "catch-up",
        about: "the dense chain with all of its accounts registered, and with 5 % of them",
        run: |bench| Box::pin(catch_up::dense(bench)),
    },
    Measurement {
        name: "backfill",
        about: "20,000 wallets that ask for their past on the dense chain",
        run: |bench| Box::pin(backfill::measure(bench)),
    },
    Measurement {
        name: "wallet",
        about: "a wallet of 250,000 transfers: its balance, its pages, filters",
        run: |bench| Box::pin(wallet::measure(bench)),
    },
    Measurement {
        name: "solana",
        about: "full blocks of a Solana cluster, caught up by the whole daemon",
        run: |bench| Box::pin(solana::measure(bench)),
    },
    Measurement {
        name: "addresses",
        about: "start with millions of registered addresses, and what they cost a block",
        run: |bench| Box::pin(addresses::measure(bench)),
    },
];

/// What the measurements share.
pub struct Bench {
    figures: Vec<Figure>,
    /// `None` until it was looked for.
    engines: Option<Vec<Engine>>,
    /// The engines that were asked for; both if none was.
    only: Vec<String>,
    dense: Option<Arc<Dense>>,
    /// What the catch-up with all accounts took, by engine.
    all_accounts: HashMap<&'static str, Duration>,
}

impl Bench {
    /// Takes a figure into the table.
    pub fn figure(&mut self, figure: Figure) {
        println!("{figure}");
        self.figures.push(figure);
    }

    pub fn figures(&mut self, figures: impl IntoIterator<Item = Figure>) {
        figures.into_iter().for_each(|figure| self.figure(figure));
    }

    /// SQLite, and PostgreSQL where it is installed.
    pub async fn engines(&mut self) -> anyhow::Result<Vec<Engine>> {
        if let Some(engines) = &self.engines {
            return Ok(engines.clone());
        }
        let asked = |name: &str| self.only.is_empty() || self.only.iter().any(|only| only == name);
        let mut engines = Vec::new();
        if asked(SQLITE) {
            engines.push(Engine::Sqlite);
        }
        let server = if asked(POSTGRES) { Some(Postgres::start().await?) } else { None };
        match server {
            None => {}
            Some(Some(server)) => engines.push(Engine::Postgres(server)),
            Some(None) => println!(
                "SKIPPED: all figures on PostgreSQL. No initdb and postgres in the PATH, in \
                 /usr/lib/postgresql or in /usr/pgsql-*: install the server and start again."
            ),
        }
        self.engines = Some(engines.clone());
        Ok(engines)
    }

    /// The dense chain, recorded once.
    pub fn dense(&mut self) -> Arc<Dense> {
        Arc::clone(self.dense.get_or_insert_with(|| Arc::new(Dense::record())))
    }

    /// What the catch-up with all accounts took, if it was measured.
    pub fn of_all_accounts(&self, engine: &Engine) -> Option<Duration> {
        self.all_accounts.get(engine.name()).copied()
    }

    /// Remembers what the catch-up with all accounts took: others are compared with it.
    pub fn all_accounts(&mut self, engine: &Engine, took: Duration) {
        self.all_accounts.insert(engine.name(), took);
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [argument, url, last] = &arguments[..]
        && argument == client::ARGUMENT
    {
        return client::run(url, last).await;
    }
    if arguments.iter().any(|argument| argument == "--help" || argument == "-h") {
        help();
        return Ok(());
    }
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    // What is dropped is killed: the daemons and the PostgreSQL server.
    tokio::select! {
        done = measure(&arguments) => done,
        _ = terminate.recv() => anyhow::bail!("terminated"),
        _ = interrupt.recv() => anyhow::bail!("interrupted"),
    }
}

fn help() {
    println!(
        "cargo bench                 everything\ncargo bench -- NAME...      only these; with {SQLITE} or \
         {POSTGRES} among them, on that engine only:"
    );
    for Measurement { name, about, .. } in MEASUREMENTS {
        println!("  {name:<14} {about}");
    }
}

async fn measure(arguments: &[String]) -> anyhow::Result<()> {
    // Cargo adds flags of its own.
    let words = arguments.iter().filter(|argument| !argument.starts_with('-'));
    let (only, wanted): (Vec<&String>, Vec<&String>) =
        words.partition(|word| [SQLITE, POSTGRES].contains(&word.as_str()));
    let only = only.into_iter().cloned().collect();
    for name in &wanted {
        let known = MEASUREMENTS.iter().any(|measurement| measurement.name == name.as_str());
        anyhow::ensure!(known, "there is no measurement {name}: cargo bench -- --help lists them");
    }
    let begun = Instant::now();
    let mut bench = Bench {
        figures: Vec::new(),
        engines: None,
        only,
        dense: None,
        all_accounts: HashMap::new(),
    };
    for Measurement { name, run, .. } in MEASUREMENTS {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted.as_str() == *name) {
            tokio::time::timeout(PATIENCE, run(&mut bench))
                .await
                .with_context(|| format!("{name}: not done in {} s", PATIENCE.as_secs()))?
                .with_context(|| *name)?;
        }
    }
    let verdicts: Vec<bool> = bench.figures.iter().filter_map(Figure::is_met).collect();
    let met = verdicts.iter().filter(|met| **met).count();
    println!("{met} of {} goals met, {} s", verdicts.len(), begun.elapsed().as_secs());
    Ok(())
}
