//! Raw values made into true types. Every function is told the key it checks, so that its error can name it.

use std::{collections::BTreeMap, ops::RangeInclusive, path::Path, time::Duration};

use super::{
    ChainConfig, Config, ConfigError, DifferenceLimits, NativeCoin, Secret, ServerConfig,
    TokenConfig, Verification, WebhookConfig,
    database::{database, replica},
    endpoint,
    fleet::fleet,
    identity::identity,
    known::{self, KnownChain},
    raw::{RawChain, RawConfig, RawNative, RawServer, RawSettlement, RawToken, RawWebhooks, Whole},
    retention::retention,
    tiers::{self, tiers},
};
use crate::chain::{Address, ChainName, Family, HistoryMethod, Settlement, SettlementTag};

const MAX_CHAINS: usize = 32;
const MAX_TOKENS: usize = 10_000;
const MAX_RETRIES: usize = 64;
/// 2^256 has 78 decimal digits; a coin with more decimals could not have a whole unit.
const MAX_DECIMALS: u64 = 77;
const MAX_WORD: usize = 32;

/// A month: no delay or timeout is meant to be longer.
const SECONDS: RangeInclusive<u64> = 1..=31 * 86_400;
pub(super) const MEBIBYTE: u64 = 1024 * 1024;

const UNKNOWN_POLL_MS: u64 = 2000;
const UNKNOWN_LAG_SECONDS: u64 = 120;
const UNKNOWN_SETTLEMENT_SECONDS: u64 = 3600;
const DROPPED_AFTER_SECONDS: u64 = 3600;
const MAX_DIFFERENCES: u64 = 100;
const MAX_DIFFERENCES_PERCENT: u64 = 25;
const WORTHLESS_TRANSFERS: u64 = 10;
const MAX_SAFES_PER_OWNER: u64 = 1_000;

pub(super) fn config(raw: RawConfig) -> Result<Config, ConfigError> {
    if raw.chains.len() > MAX_CHAINS {
        return Err(ConfigError::invalid(
            "chains",
            format!(
                "{} chains are configured, at most {MAX_CHAINS} are possible",
                raw.chains.len()
            ),
            "Spread them over several daemons",
        ));
    }
    let mut chains: BTreeMap<ChainName, ChainConfig> = BTreeMap::new();
    for (name, raw) in raw.chains {
        let chain = chain(&name, raw)?;
        if let Some(twin) = chains.values().find(|other| other.caip2 == chain.caip2) {
            return Err(ConfigError::invalid(
                format!("chains.{name}.{}", chain.family.identity().key()),
                format!("{} is also the chain {}", chain.caip2, twin.name),
                "Name a chain once and put all its endpoints there",
            ));
        }
        chains.insert(chain.name.clone(), chain);
    }
    let database_url = database(&raw.database)?;
    Ok(Config {
        server: server(&raw.server)?,
        fleet: fleet(&raw.fleet, raw.follow, &chains)?,
        replica: replica(raw.database, &database_url)?,
        database_url,
        chains,
        webhooks: webhooks(&raw.webhooks)?,
        retention: retention(&raw.retention)?,
    })
}

fn server(raw: &RawServer) -> Result<ServerConfig, ConfigError> {
    let listen = raw.listen.parse().map_err(|_| {
        ConfigError::invalid(
            "server.listen",
            format!("{:?} is not an address and a port", raw.listen),
            "Write it like 127.0.0.1:8080, 0.0.0.0:8080 or [::1]:8080",
        )
    })?;
    Ok(ServerConfig {
        listen,
        max_body_bytes: size("server.max_body_bytes", raw.max_body_bytes, 1..=1024 * MEBIBYTE)?,
        request_timeout: seconds("server.request_timeout_seconds", raw.request_timeout_seconds)?,
    })
}

fn webhooks(raw: &RawWebhooks) -> Result<WebhookConfig, ConfigError> {
    let key = "webhooks.retry_schedule_seconds";
    if raw.retry_schedule_seconds.len() > MAX_RETRIES {
        return Err(ConfigError::invalid(
            key,
            format!("has more than {MAX_RETRIES} entries"),
            "Use fewer and longer pauses",
        ));
    }
    let retry_schedule = raw
        .retry_schedule_seconds
        .iter()
        .enumerate()
        .map(|(index, &pause)| seconds(&format!("{key}[{index}]"), pause))
        .collect::<Result<_, _>>()?;
    let max_in_flight = size("webhooks.max_in_flight", raw.max_in_flight, 1..=65_536)?;
    let max_in_flight_per_endpoint = size(
        "webhooks.max_in_flight_per_endpoint",
        raw.max_in_flight_per_endpoint,
        1..=raw.max_in_flight.0,
    )?;
    Ok(WebhookConfig {
        allow_http: raw.allow_http,
        allow_private_addresses: raw.allow_private_addresses,
        retry_schedule,
        request_timeout: seconds("webhooks.request_timeout_seconds", raw.request_timeout_seconds)?,
        max_in_flight,
        max_in_flight_per_endpoint,
        disable_after: seconds("webhooks.disable_after_seconds", raw.disable_after_seconds)?,
    })
}

fn chain(name: &str, raw: RawChain) -> Result<ChainConfig, ConfigError> {
    let key = format!("chains.{name}");
    short_name(&key, name)?;
    let known = known::find(name);
    let family = family(&key, name, raw.family.as_deref(), known)?;
    let defaults = family.defaults();
    let (chain_id, caip2) =
        identity(&key, name, family, raw.chain_id, raw.genesis.as_deref(), known)?;
    let number = |field: &str, value: Option<Whole>, default: u64, range| {
        whole(&format!("{key}.{field}"), value.unwrap_or(Whole(default)), range)
    };
    let start_block = raw
        .start_block
        .map(|Whole(block)| {
            number("start_block", Some(Whole(block)), 0, 0..=i64::MAX.unsigned_abs())
        })
        .transpose()?;
    let poll_interval = number(
        "poll_interval_ms",
        raw.poll_interval_ms,
        known.map_or(UNKNOWN_POLL_MS, |chain| chain.poll_interval_ms),
        10..=600_000,
    )?;
    let lag_limit = number(
        "lag_limit_seconds",
        raw.lag_limit_seconds,
        known.map_or(UNKNOWN_LAG_SECONDS, |chain| chain.lag_limit_seconds),
        SECONDS,
    )?;
    let settlement_limit = number(
        "settlement_limit_seconds",
        raw.settlement_limit_seconds,
        known.map_or(UNKNOWN_SETTLEMENT_SECONDS, |chain| chain.settlement_limit_seconds),
        SECONDS,
    )?;
    let native = native(&format!("{key}.native"), defaults.native, raw.native, known)?;
    let settlement = settlement(&format!("{key}.settlement"), family, raw.settlement)?;
    let tokens = tokens(&format!("{key}.tokens"), family, chain_id, raw.tokens, known)?;
    let endpoints =
        endpoint::endpoints(&format!("{key}.endpoints"), raw.endpoints, defaults.max_batch)?;
    let of = tiers::Of { family, settlement, native: &native, tokens: &tokens };
    Ok(ChainConfig {
        name: ChainName::new(name),
        family,
        caip2,
        chain_id,
        tiers: tiers(&format!("{key}.tiers"), of, raw.tiers)?,
        native,
        settlement,
        quorum: endpoint::quorum(&format!("{key}.quorum"), raw.quorum, &endpoints)?,
        endpoints,
        tokens,
        verification: verification(&key, family, raw.verification.as_deref(), known)?,
        history: history(&key, family, raw.history.as_deref())?,
        poll_interval: Duration::from_millis(poll_interval),
        lag_limit: Duration::from_secs(lag_limit),
        settlement_limit: Duration::from_secs(settlement_limit),
        batch_blocks: number("batch_blocks", raw.batch_blocks, defaults.batch_blocks, 1..=10_000)?,
        start_block,
        sweep_per_minute: number(
            "sweep_per_minute",
            raw.sweep_per_minute,
            defaults.sweep_per_minute,
            0..=60_000,
        )?,
        differences: DifferenceLimits {
            count: number("max_differences", raw.max_differences, MAX_DIFFERENCES, 0..=100_000)?,
            percent: number(
                "max_differences_percent",
                raw.max_differences_percent,
                MAX_DIFFERENCES_PERCENT,
                0..=100,
            )?,
        },
        worthless_transfers: number(
            "worthless_transfers",
            raw.worthless_transfers,
            WORTHLESS_TRANSFERS,
            0..=1_000,
        )?,
        safes_per_owner: number(
            "max_safes_per_owner",
            raw.max_safes_per_owner,
            MAX_SAFES_PER_OWNER,
            0..=100_000,
        )?,
        dropped_after: Duration::from_secs(number(
            "dropped_after_seconds",
            raw.dropped_after_seconds,
            DROPPED_AFTER_SECONDS,
            SECONDS,
        )?),
    })
}

fn family(
    key: &str,
    name: &str,
    written: Option<&str>,
    known: Option<&KnownChain>,
) -> Result<Family, ConfigError> {
    if let Some(known) = known {
        let family = known.family;
        if written.is_some_and(|written| written != family.as_str()) {
            return Err(ConfigError::invalid(
                format!("{key}.family"),
                format!("{name} is a chain of the family {family}"),
                "Remove it, or give your chain another name",
            ));
        }
        return Ok(family);
    }
    let text = match written {
        Some(text) => text,
        // It will be built in one day; until then its name says the family.
        None if Family::TO_COME.contains(&name) => name,
        None => {
            return Err(ConfigError::invalid(
                format!("{key}.family"),
                "is missing, and no chain of this name is built in",
                format!(
                    "Write {}, or use one of {}",
                    families(|family| {
                        format!("family = \"{family}\" and {}", family.identity().key())
                    }),
                    known_names()
                ),
            ));
        }
    };
    match Family::parse(text) {
        Some(family) => Ok(family),
        None if Family::TO_COME.contains(&text) => Err(ConfigError::invalid(
            format!("{key}.family"),
            format!("{text} is not supported by this version"),
            "Remove the chain, or use a version that supports it",
        )),
        None => Err(ConfigError::invalid(
            format!("{key}.family"),
            format!("{text:?} is not a family of chains"),
            format!("Write {}", families(|family| format!("\"{family}\""))),
        )),
    }
}

/// What is said of each family, as a choice.
fn families(say: impl Fn(&Family) -> String) -> String {
    Family::ALL.iter().map(say).collect::<Vec<_>>().join(" or ")
}

fn known_names() -> String {
    known::CHAINS.iter().map(|chain| chain.name).collect::<Vec<_>>().join(", ")
}

fn native(
    key: &str,
    default: NativeCoin,
    raw: Option<RawNative>,
    known: Option<&KnownChain>,
) -> Result<NativeCoin, ConfigError> {
    let Some(raw) = raw else {
        return Ok(match known.map(|chain| &chain.native) {
            Some(native) => NativeCoin {
                symbol: native.symbol.to_owned(),
                name: native.name.to_owned(),
                slip44: native.slip44,
                ..default
            },
            None => default,
        });
    };
    let slip44 = whole(&format!("{key}.slip44"), raw.slip44, 0..=u64::from(u32::MAX >> 1))?;
    symbol(&format!("{key}.symbol"), &raw.symbol)?;
    Ok(NativeCoin {
        name: raw.name.unwrap_or_else(|| raw.symbol.clone()),
        decimals: decimals(&format!("{key}.decimals"), raw.decimals)?,
        slip44: u32::try_from(slip44).unwrap_or(u32::MAX),
        symbol: raw.symbol,
    })
}

fn settlement(
    key: &str,
    family: Family,
    raw: Option<RawSettlement>,
) -> Result<Settlement, ConfigError> {
    let settlement = match raw {
        None => Settlement::Tag(SettlementTag::Finalized),
        Some(RawSettlement::Tag(tag)) => match SettlementTag::parse(&tag) {
            Some(tag) => Settlement::Tag(tag),
            None => {
                return Err(ConfigError::invalid(
                    key,
                    format!("{tag:?} is not a settlement policy"),
                    "Write \"finalized\", \"safe\" or { confirmations = 12 }",
                ));
            }
        },
        Some(RawSettlement::Confirmations(count)) => {
            Settlement::Confirmations(whole(&format!("{key}.confirmations"), count, 0..=100_000)?)
        }
    };
    family.check_settlement(settlement).map_err(|instead| {
        ConfigError::invalid(
            key,
            format!("{settlement} is not a settlement policy of the family {family}: {instead}"),
            "Leave it out",
        )
    })?;
    Ok(settlement)
}

fn verification(
    key: &str,
    family: Family,
    written: Option<&str>,
    known: Option<&KnownChain>,
) -> Result<Verification, ConfigError> {
    let Some(written) = written else {
        return Ok(known.map_or(Verification::Full, |chain| chain.verification));
    };
    let possible = family.verifications();
    possible.iter().copied().find(|way| way.as_str() == written).ok_or_else(|| {
        let words: Vec<String> = possible.iter().map(|way| format!("\"{way}\"")).collect();
        ConfigError::invalid(
            format!("{key}.verification"),
            format!("{written:?} is not a way of verification of the family {family}"),
            format!("Write {}", words.join(" or ")),
        )
    })
}

/// How the past of a wallet is looked for.
fn history(key: &str, family: Family, written: Option<&str>) -> Result<HistoryMethod, ConfigError> {
    let possible = family.history_methods();
    let words: Vec<String> = possible.iter().map(|method| format!("\"{method}\"")).collect();
    let found = match written {
        Some(written) => possible.iter().find(|method| method.as_str() == written),
        None => possible.first(),
    };
    found.copied().ok_or_else(|| {
        ConfigError::invalid(
            format!("{key}.history"),
            format!(
                "{:?} is not a way to find the past of a wallet of the family {family}",
                written.unwrap_or_default()
            ),
            format!("Write {}", words.join(" or ")),
        )
    })
}

/// The known tokens, then those of the file; one of the file replaces the known one of the same contract.
fn tokens(
    key: &str,
    family: Family,
    chain_id: u64,
    raw: Vec<RawToken>,
    known: Option<&KnownChain>,
) -> Result<Vec<TokenConfig>, ConfigError> {
    if raw.len() > MAX_TOKENS {
        return Err(ConfigError::invalid(
            key,
            format!("{} tokens are configured, at most {MAX_TOKENS} are possible", raw.len()),
            "Keep the tokens that you credit",
        ));
    }
    let mut tokens = Vec::new();
    for &(contract, symbol, name, decimals) in known.map_or(&[][..], |chain| chain.tokens) {
        tokens.push(TokenConfig {
            contract: token_contract(key, family, chain_id, contract)?,
            symbol: symbol.to_owned(),
            name: name.to_owned(),
            decimals,
            wraps_native: known::wraps_native(chain_id, contract),
            destroys_funds: known::destroys_funds(chain_id, contract),
        });
    }
    let mut written: BTreeMap<Address, usize> = BTreeMap::new();
    for (index, raw) in raw.into_iter().enumerate() {
        let key = format!("{key}[{index}]");
        let contract = token_contract(&format!("{key}.contract"), family, chain_id, &raw.contract)?;
        symbol(&format!("{key}.symbol"), &raw.symbol)?;
        if let Some(first) = written.insert(contract, index) {
            return Err(ConfigError::invalid(
                format!("{key}.contract"),
                format!("is the same contract as entry {first}"),
                "Remove one of the two",
            ));
        }
        let token = TokenConfig {
            contract,
            name: raw.name.unwrap_or_else(|| raw.symbol.clone()),
            decimals: decimals(&format!("{key}.decimals"), raw.decimals)?,
            wraps_native: raw
                .wraps_native
                .unwrap_or_else(|| known::wraps_native(chain_id, &raw.contract)),
            destroys_funds: raw
                .destroys_funds
                .unwrap_or_else(|| known::destroys_funds(chain_id, &raw.contract)),
            symbol: raw.symbol,
        };
        match tokens.iter_mut().find(|known| known.contract == contract) {
            Some(known) => *known = token,
            None => tokens.push(token),
        }
    }
    Ok(tokens)
}

fn token_contract(
    key: &str,
    family: Family,
    chain_id: u64,
    text: &str,
) -> Result<Address, ConfigError> {
    let contract = family.parse_address(text).map_err(|error| {
        ConfigError::invalid(
            key,
            format!("{text:?} {error}"),
            "Copy the contract from the token issuer's own page",
        )
    })?;
    if known::is_native_contract(chain_id, contract.as_slice()) {
        return Err(ConfigError::invalid(
            key,
            format!(
                "{text} is the native coin of this chain under another name, and would count twice"
            ),
            "Remove this token: the native coin is always tracked",
        ));
    }
    Ok(contract)
}

fn symbol(key: &str, symbol: &str) -> Result<(), ConfigError> {
    // A comma parts symbols in queries; a slash or a blank would not survive a URL.
    let good = |c: char| c.is_alphanumeric() || ".-_+$₮".contains(c);
    if symbol.is_empty() || symbol.chars().count() > MAX_WORD || !symbol.chars().all(good) {
        return Err(ConfigError::invalid(
            key,
            format!("{symbol:?} is not a symbol"),
            format!("Use up to {MAX_WORD} letters, digits and . - _ + $"),
        ));
    }
    Ok(())
}

fn decimals(key: &str, value: Whole) -> Result<u8, ConfigError> {
    let value = whole(key, value, 0..=MAX_DECIMALS)?;
    u8::try_from(value).map_err(|_| out_of_range(key, value, &(0..=MAX_DECIMALS)))
}

/// The value of `field`, or the trimmed contents of the file named by `field_file`.
pub(super) fn secret(
    key: &str,
    field: &str,
    written: Option<String>,
    file: Option<&Path>,
) -> Result<Option<Secret>, ConfigError> {
    let (text, key) = match (written, file) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => {
            return Err(ConfigError::invalid(
                format!("{key}.{field}"),
                format!("both {field} and {field}_file are given"),
                "Keep one of the two",
            ));
        }
        (Some(text), None) => (text, format!("{key}.{field}")),
        (None, Some(path)) => {
            let key = format!("{key}.{field}_file");
            let text = std::fs::read_to_string(path).map_err(|error| {
                ConfigError::invalid(
                    &key,
                    format!("{} cannot be read: {error}", path.display()),
                    "Check the path and that this user may read it",
                )
            })?;
            (text, key)
        }
    };
    let text = text.trim();
    if text.is_empty() {
        return Err(ConfigError::invalid(key, "is empty", "Write the URL there"));
    }
    Ok(Some(Secret::new(text)))
}

/// Names that stand in URLs, logs and metric labels.
pub(super) fn short_name(key: &str, name: &str) -> Result<(), ConfigError> {
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if name.is_empty() || name.len() > MAX_WORD || !name.bytes().all(good) {
        return Err(ConfigError::invalid(
            key,
            "is not a usable name",
            format!("Use 1 to {MAX_WORD} of the characters a-z, 0-9 and -"),
        ));
    }
    Ok(())
}

pub(super) fn whole(
    key: &str,
    Whole(value): Whole,
    range: RangeInclusive<u64>,
) -> Result<u64, ConfigError> {
    if range.contains(&value) { Ok(value) } else { Err(out_of_range(key, value, &range)) }
}

fn out_of_range(key: &str, value: u64, range: &RangeInclusive<u64>) -> ConfigError {
    ConfigError::invalid(
        key,
        format!("{value} is out of range"),
        format!("Use a number from {} to {}", range.start(), range.end()),
    )
}

pub(super) fn size(
    key: &str,
    value: Whole,
    range: RangeInclusive<u64>,
) -> Result<usize, ConfigError> {
    let value = whole(key, value, range.clone())?;
    usize::try_from(value).map_err(|_| out_of_range(key, value, &range))
}

pub(super) fn seconds(key: &str, value: Whole) -> Result<Duration, ConfigError> {
    whole(key, value, SECONDS).map(Duration::from_secs)
}
