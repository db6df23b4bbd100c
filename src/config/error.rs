//! What can be wrong with a configuration, told without ever repeating a value that may be a secret.

use std::{io, path::PathBuf};

use ::config::ConfigError as Source;

/// Why the configuration cannot be used. Each says where, what, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error(
        "the configuration file {} cannot be read: {error}. Check the path after --config and that this user may read it",
        path.display()
    )]
    Unreadable { path: PathBuf, error: io::Error },
    #[error("{origin} is not valid TOML: {detail}. Correct it there")]
    Syntax { origin: String, detail: String },
    #[error("{key}: {problem}. {advice}")]
    Invalid { key: String, problem: String, advice: String },
}

impl ConfigError {
    pub(super) fn invalid(
        key: impl Into<String>,
        problem: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self::Invalid { key: key.into(), problem: problem.into(), advice: advice.into() }
    }

    /// A parser's complaint, without the lines of the file that it quotes.
    pub(super) fn syntax(origin: impl Into<String>, error: &Source) -> Self {
        let text = match error {
            Source::FileParse { cause, .. } => cause.to_string(),
            other => other.to_string(),
        };
        let quoted = |line: &&str| {
            line.trim_start().trim_start_matches(char::is_numeric).trim_start().starts_with('|')
        };
        let detail: Vec<_> =
            text.lines().filter(|line| !quoted(line) && !line.trim().is_empty()).collect();
        Self::Syntax { origin: origin.into(), detail: detail.join(": ") }
    }

    /// A value of the wrong shape, or a key that does not exist.
    pub(super) fn shape(error: &Source) -> Self {
        let mut keys = Vec::new();
        let mut innermost = error;
        while let Source::At { error, key, .. } = innermost {
            keys.extend(key.clone());
            innermost = error;
        }
        let mut at = keys.join(".");
        let (problem, advice) = match innermost {
            Source::Type { unexpected, expected, key, .. } => {
                if let Some(key) = key {
                    at = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
                }
                (
                    format!("{} where {expected} is expected", kind(unexpected)),
                    "Write it as config/default.toml shows",
                )
            }
            Source::NotFound(key) => {
                at = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
                ("is missing".to_owned(), "Add it")
            }
            other => {
                let text = without_value(&other.to_string());
                let advice = if text.starts_with("unknown field") {
                    "Correct the name or remove it"
                } else {
                    "Write it as config/default.toml shows"
                };
                (text, advice)
            }
        };
        if at.is_empty() {
            "the configuration".clone_into(&mut at);
        }
        // The crate writes a missing field of a list's entry as `tokens[0]decimals`.
        let at = at.split_inclusive(']').collect::<Vec<_>>().join(".").replace("]..", "].");
        Self::invalid(at, problem, advice)
    }
}

/// The kind of a value, without the value: the crate keeps the type to itself, its text begins with the kind.
fn kind(unexpected: &impl ToString) -> &'static str {
    let text = unexpected.to_string();
    if text.starts_with("string") {
        "a text is given"
    } else if text.starts_with("boolean") {
        "true or false is given"
    } else if text.starts_with("floating") {
        "a fraction is given"
    } else if text.starts_with("sequence") {
        "a list is given"
    } else if text.starts_with("map") {
        "a table is given"
    } else if text.starts_with("unit") {
        "nothing is given"
    } else {
        "a number is given"
    }
}

/// Takes out the text that serde quotes: `invalid type: string "https://…", expected …`.
fn without_value(text: &str) -> String {
    match (text.find("string \""), text.rfind("\", expected")) {
        (Some(start), Some(end)) if start < end => {
            format!("{}a text{}", &text[..start], &text[end + 1..])
        }
        _ => text.to_owned(),
    }
}
