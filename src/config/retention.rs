//! How long is kept what only grows.

use std::time::Duration;

use super::{
    ConfigError, RetentionConfig,
    check::whole,
    raw::{RawRetention, Whole},
};

/// A century: who wants more writes 0.
const LONGEST_DAYS: u64 = 36_500;
/// A year of answers that are never asked for again.
const LONGEST_HOURS: u64 = 8_760;

pub(super) fn retention(raw: &RawRetention) -> Result<RetentionConfig, ConfigError> {
    Ok(RetentionConfig {
        events: days("events_days", raw.events_days)?,
        deliveries: days("deliveries_days", raw.deliveries_days)?,
        delivery_attempts: days("delivery_attempts_days", raw.delivery_attempts_days)?,
        idempotency_keys: hours("idempotency_keys_hours", raw.idempotency_keys_hours)?,
        expired_secrets: days("expired_secrets_days", raw.expired_secrets_days)?,
        expired_challenges: days("expired_challenges_days", raw.expired_challenges_days)?,
        worthless_transfers: days("worthless_transfers_days", raw.worthless_transfers_days)?,
    })
}

/// `None` for 0: for ever.
fn days(field: &str, value: Whole) -> Result<Option<Duration>, ConfigError> {
    let days = whole(&format!("retention.{field}"), value, 0..=LONGEST_DAYS)?;
    Ok((days > 0).then(|| Duration::from_secs(days * 24 * 60 * 60)))
}

fn hours(field: &str, value: Whole) -> Result<Duration, ConfigError> {
    let hours = whole(&format!("retention.{field}"), value, 1..=LONGEST_HOURS)?;
    Ok(Duration::from_secs(hours * 60 * 60))
}
