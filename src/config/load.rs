//! Where the configuration comes from, in order: what is compiled in, the file, the environment.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use ::config::{Environment, File, FileFormat, FileSourceString, Source, Value};

use super::{Config, ConfigError, check, raw::RawConfig};

const DEFAULTS: &str = include_str!("../../config/default.toml");
const PREFIX: &str = "TIDEMARK";
const SEPARATOR: &str = "__";

impl Config {
    /// Reads the file, if one is named, and the process's environment.
    ///
    /// # Errors
    /// [`ConfigError`], with the key and what to do about it.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        let variables = std::env::vars_os().filter_map(|(key, value)| {
            // Only what carries the prefix is ours to judge; anything else may be no Unicode at all.
            let key = key.into_string().ok()?;
            Some((key, value.to_string_lossy().into_owned()))
        });
        Self::load_with(file, variables)
    }

    /// Reads a text in place of a file, and no environment: for tests and for the local chain.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        Self::build(Some((PathBuf::from("the text given"), text.to_owned())), std::iter::empty())
    }

    pub(super) fn load_with(
        file: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let text = file
            .map(|path| match std::fs::read_to_string(path) {
                Ok(text) => Ok((path.to_owned(), text)),
                Err(error) => Err(ConfigError::Unreadable { path: path.to_owned(), error }),
            })
            .transpose()?;
        Self::build(text, environment)
    }

    fn build(
        text: Option<(PathBuf, String)>,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let mut builder = ::config::Config::builder().add_source(toml(DEFAULTS));
        if let Some((path, text)) = text {
            // Parsed once for itself, so that a syntax error is told with the file's name.
            toml(&text)
                .collect()
                .map_err(|error| ConfigError::syntax(path.display().to_string(), &error))?;
            builder = builder.add_source(toml(&text));
        }
        let (plain, structured) = split(environment);
        builder = builder.add_source(
            Environment::with_prefix(PREFIX)
                .prefix_separator(SEPARATOR)
                .separator(SEPARATOR)
                .ignore_empty(true)
                .source(Some(plain)),
        );
        for (key, value) in structured {
            builder = builder.set_override(&key, value).map_err(|_| {
                ConfigError::invalid(
                    &key,
                    "is not the name of a key",
                    "Correct or remove the environment variable",
                )
            })?;
        }
        let merged = builder.build().map_err(|error| ConfigError::shape(&error))?;
        let raw: RawConfig =
            merged.try_deserialize().map_err(|error| ConfigError::shape(&error))?;
        check::config(raw)
    }
}

fn toml(text: &str) -> File<FileSourceString, FileFormat> {
    File::from_str(text, FileFormat::Toml)
}

/// Parts the variables that hold a TOML list or table from those that hold a plain text.
fn split(
    environment: impl Iterator<Item = (String, String)>,
) -> (HashMap<String, String>, Vec<(String, Value)>) {
    let mut plain = HashMap::new();
    let mut structured = Vec::new();
    for (name, text) in environment {
        // As the `config` crate does, which knows no upper case in keys.
        let lower = name.to_lowercase();
        let Some(key) = lower.strip_prefix("tidemark__") else { continue };
        match structure(&text) {
            Some(value) => structured.push((key.replace(SEPARATOR, "."), value)),
            None => {
                plain.insert(name, text);
            }
        }
    }
    (plain, structured)
}

/// `None` for a plain text, an IPv6 address in brackets included.
fn structure(text: &str) -> Option<Value> {
    if !text.trim_start().starts_with(['[', '{']) {
        return None;
    }
    toml(&format!("value = {text}")).collect().ok()?.remove("value")
}

#[cfg(test)]
pub(super) fn defaults() -> &'static str {
    DEFAULTS
}
