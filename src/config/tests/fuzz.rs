//! Whatever stands in the file and in the environment.

use std::path::PathBuf;

use super::super::{Config, ConfigError, load::defaults};
use crate::fuzz::{about, run};

/// In every value of the corpus that may be a secret.
const SECRET: &str = "s3cr3t";

fn outcome(loaded: &Result<Config, ConfigError>) -> String {
    match loaded {
        Ok(config) => {
            for chain in config.chains.values() {
                assert!(!chain.endpoints.is_empty(), "{} has no endpoint", chain.name);
            }
            assert!(!format!("{config:?}").contains(SECRET), "a secret is printed");
            format!("loaded {}", about(config.chains.len()))
        }
        Err(error) => {
            let text = error.to_string();
            let (key, problem) = text.split_once(": ").unwrap_or(("", &text));
            // Elsewhere it is what somebody wrote into a place where no secret belongs.
            let is_place =
                ["url", "headers", "is not valid TOML"].iter().any(|word| key.contains(word));
            assert!(!is_place || !text.contains(SECRET), "a secret is printed: {text}");
            problem.to_owned()
        }
    }
}

#[test]
fn a_file_is_a_configuration_or_says_what_is_wrong_without_its_secrets() {
    run("config_file", vec![defaults().into()], |input| {
        outcome(&Config::from_toml(&String::from_utf8_lossy(input)))
    });
}

#[test]
fn a_variable_is_a_part_of_the_configuration_or_says_what_is_wrong() {
    run("config_variables", Vec::new(), |input| {
        let text = String::from_utf8_lossy(input);
        let variables = text.lines().filter_map(|line| line.split_once('='));
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        outcome(&Config::load_with(None::<PathBuf>.as_deref(), variables))
    });
}
