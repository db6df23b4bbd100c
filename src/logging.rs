//! Logs, on stderr: readable on a terminal, one JSON object a line elsewhere. `RUST_LOG` chooses what.

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, filter::LevelFilter};

/// How a log line is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Text where stderr is a terminal, JSON elsewhere.
    #[default]
    Auto,
    Text,
    Json,
}

impl Format {
    fn is_json(self, terminal: bool) -> bool {
        match self {
            Self::Auto => !terminal,
            Self::Text => false,
            Self::Json => true,
        }
    }
}

/// Installs the process's log. A second call changes nothing, so tests may all call it.
pub fn init(format: Format) {
    let terminal = std::io::stderr().is_terminal();
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .try_from_env()
        .map_err(|error| match std::env::var_os(EnvFilter::DEFAULT_ENV) {
            Some(set) if !set.is_empty() => Some(error),
            _ => None,
        });
    let (filter, error) = match filter {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new("info"), error),
    };
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(terminal);
    let installed = if format.is_json(terminal) {
        log.json().flatten_event(true).with_current_span(true).with_span_list(false).try_init()
    } else {
        log.try_init()
    };
    if let (Ok(()), Some(error)) = (installed, error) {
        tracing::warn!(%error, "RUST_LOG is not understood; logging at info");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_gets_text_and_everything_else_json() {
        assert!(!Format::Auto.is_json(true));
        assert!(Format::Auto.is_json(false));
        assert!(!Format::Text.is_json(false));
        assert!(Format::Json.is_json(true));
    }

    #[test]
    fn a_second_start_of_the_log_is_harmless() {
        init(Format::Json);
        init(Format::Text);
    }
}
