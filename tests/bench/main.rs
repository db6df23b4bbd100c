//! Figures with their goals beside them: `cargo bench`, or only some of them: `cargo bench -- head scan`.
//!
//! Each measurement runs the real program in a process of its own, on SQLite with durable commits, and asks
//! it over HTTP like a customer. Node, load and daemon share this machine. Nothing is subtracted.

mod catch_up;
mod daemon;
mod head;
mod http;
mod reads;
mod recorded;
mod seed;
mod solana;

use std::{fmt, time::Duration};

use anyhow::Context as _;

/// A measurement that hangs is given up.
const PATIENCE: Duration = Duration::from_mins(1);

/// One line of the table.
pub struct Figure {
    pub what: String,
    pub value: f64,
    pub unit: &'static str,
    pub goal: Option<Goal>,
}

#[derive(Clone, Copy)]
pub enum Goal {
    AtLeast(f64),
    Under(f64),
}

impl Figure {
    pub fn new(what: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { what: what.into(), value, unit, goal: None }
    }

    #[must_use]
    pub fn with_goal(self, goal: Goal) -> Self {
        Self { goal: Some(goal), ..self }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = usize::from(self.value < 1000.0);
        let Self { what, value, unit, .. } = self;
        let (goal, verdict) = match self.goal {
            None => (String::new(), ""),
            Some(Goal::AtLeast(least)) => {
                (format!("at least {least}"), if *value >= least { "met" } else { "missed" })
            }
            Some(Goal::Under(most)) => {
                (format!("under {most}"), if *value < most { "met" } else { "missed" })
            }
        };
        write!(f, "{what:<58} {value:>10.digits$} {unit:<9} {goal:<15} {verdict}")
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // Cargo adds flags of its own.
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let wants =
        |name: &str| wanted.is_empty() || wanted.iter().any(|part| name.contains(part.as_str()));
    if wants("head") {
        show("head", head::measure()).await?;
    }
    if wants("reads") {
        show("reads", reads::measure()).await?;
    }
    if wants("catch-up") {
        show("catch-up", catch_up::near_empty_blocks()).await?;
    }
    if wants("solana") {
        show("solana", solana::measure()).await?;
    }
    for share in [0.001, 0.05] {
        if wants("scan") {
            show("scan", catch_up::transfer_logs(share)).await?;
        }
    }
    Ok(())
}

async fn show(
    name: &str,
    figures: impl Future<Output = anyhow::Result<Vec<Figure>>>,
) -> anyhow::Result<()> {
    let figures = tokio::time::timeout(PATIENCE, figures)
        .await
        .with_context(|| format!("{name}: not done within {} s", PATIENCE.as_secs()))?
        .with_context(|| name.to_owned())?;
    for figure in figures {
        println!("{figure}");
    }
    Ok(())
}
