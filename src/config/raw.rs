//! The configuration as it is written: names and shapes only. What the values must be is told by `check`.
//!
//! No structure here prints itself: most of them hold secrets.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, Visitor},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawConfig {
    pub server: RawServer,
    pub database: RawDatabase,
    #[serde(default)]
    pub chains: BTreeMap<String, RawChain>,
    /// The chains that this daemon may follow; all without it.
    pub follow: Option<Vec<String>>,
    pub fleet: RawFleet,
    pub webhooks: RawWebhooks,
    pub retention: RawRetention,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_field_names, reason = "the keys name their unit")]
pub(super) struct RawFleet {
    pub lease_seconds: Whole,
    pub heartbeat_seconds: Whole,
    pub rebalance_seconds: Whole,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawServer {
    pub listen: String,
    pub max_body_bytes: Whole,
    pub request_timeout_seconds: Whole,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDatabase {
    pub url: String,
    pub url_file: Option<PathBuf>,
    pub read_url: Option<String>,
    pub read_url_file: Option<PathBuf>,
    pub read_lag_limit_seconds: Whole,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawChain {
    pub family: Option<String>,
    pub chain_id: Option<Whole>,
    pub genesis: Option<String>,
    pub native: Option<RawNative>,
    pub settlement: Option<RawSettlement>,
    #[serde(default)]
    pub tiers: Vec<RawTier>,
    #[serde(default)]
    pub endpoints: Vec<RawEndpoint>,
    pub quorum: Option<Whole>,
    #[serde(default)]
    pub tokens: Vec<RawToken>,
    pub verification: Option<String>,
    pub history: Option<String>,
    pub poll_interval_ms: Option<Whole>,
    pub lag_limit_seconds: Option<Whole>,
    pub settlement_limit_seconds: Option<Whole>,
    pub batch_blocks: Option<Whole>,
    pub start_block: Option<Whole>,
    pub sweep_per_minute: Option<Whole>,
    pub max_differences: Option<Whole>,
    pub max_differences_percent: Option<Whole>,
    pub worthless_transfers: Option<Whole>,
    pub max_safes_per_owner: Option<Whole>,
    pub dropped_after_seconds: Option<Whole>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawNative {
    pub symbol: String,
    pub name: Option<String>,
    pub decimals: Whole,
    pub slip44: Whole,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawToken {
    pub contract: String,
    pub symbol: String,
    pub name: Option<String>,
    pub decimals: Whole,
    pub wraps_native: Option<bool>,
    pub destroys_funds: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTier {
    pub asset: Option<String>,
    pub up_to: Option<String>,
    pub up_to_usd: Option<de::IgnoredAny>,
    pub confirmations: Whole,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawEndpoint {
    pub name: Option<String>,
    pub url: Option<String>,
    pub url_file: Option<PathBuf>,
    pub ws: Option<String>,
    pub ws_file: Option<PathBuf>,
    pub weight: Option<Whole>,
    pub max_requests_per_second: Option<Whole>,
    pub max_requests_per_day: Option<Whole>,
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    pub connect_timeout_seconds: Option<Whole>,
    pub request_timeout_seconds: Option<Whole>,
    pub max_response_bytes: Option<Whole>,
    pub max_batch: Option<Whole>,
    pub tracing: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawWebhooks {
    pub allow_http: bool,
    pub allow_private_addresses: bool,
    pub retry_schedule_seconds: Vec<Whole>,
    pub request_timeout_seconds: Whole,
    pub max_in_flight: Whole,
    pub max_in_flight_per_endpoint: Whole,
    pub disable_after_seconds: Whole,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRetention {
    pub events_days: Whole,
    pub deliveries_days: Whole,
    pub delivery_attempts_days: Whole,
    pub idempotency_keys_hours: Whole,
    pub expired_secrets_days: Whole,
    pub expired_challenges_days: Whole,
    pub worthless_transfers_days: Whole,
}

/// A whole number, or its digits as a text (all that the environment has). A fraction is refused: the
/// `config` crate would round it, and a token must not have 6.7 decimals.
#[derive(Clone, Copy)]
pub(super) struct Whole(pub u64);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Digits;

        impl Visitor<'_> for Digits {
            type Value = Whole;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number that is not negative")
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Whole, E> {
                Ok(Whole(value))
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Whole, E> {
                u64::try_from(value)
                    .map(Whole)
                    .map_err(|_| E::invalid_value(de::Unexpected::Signed(value), &self))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Whole, E> {
                text.trim()
                    .parse()
                    .map(Whole)
                    .map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }

        deserializer.deserialize_any(Digits)
    }
}

/// `"finalized"`, `"safe"` or `{ confirmations = 12 }`.
pub(super) enum RawSettlement {
    Tag(String),
    Confirmations(Whole),
}

impl<'de> Deserialize<'de> for RawSettlement {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TagOrTable;

        impl<'de> Visitor<'de> for TagOrTable {
            type Value = RawSettlement;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(r#""finalized", "safe" or { confirmations = 12 }"#)
            }

            fn visit_str<E: de::Error>(self, tag: &str) -> Result<RawSettlement, E> {
                Ok(RawSettlement::Tag(tag.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawSettlement, A::Error> {
                let mut count = None;
                while let Some(key) = map.next_key::<String>()? {
                    if key != "confirmations" {
                        return Err(de::Error::unknown_field(&key, &["confirmations"]));
                    }
                    count = Some(map.next_value()?);
                }
                count
                    .map(RawSettlement::Confirmations)
                    .ok_or_else(|| de::Error::missing_field("confirmations"))
            }
        }

        deserializer.deserialize_any(TagOrTable)
    }
}
