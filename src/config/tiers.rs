//! Which deposits are available before they settle.

use super::{
    ConfigError, NativeCoin, TokenConfig,
    check::whole,
    raw::{RawTier, Whole},
};
use crate::{
    amount::{Amount, from_units},
    chain::{AssetKey, Family, Settlement},
    model::Tier,
};

const MAX_TIERS: usize = 1_000;

/// The chain whose tiers are checked.
#[derive(Clone, Copy)]
pub(super) struct Of<'a> {
    pub family: Family,
    pub settlement: Settlement,
    pub native: &'a NativeCoin,
    pub tokens: &'a [TokenConfig],
}

/// The tiers, those of an asset by their confirmations, the fewest first.
pub(super) fn tiers(key: &str, of: Of<'_>, raw: Vec<RawTier>) -> Result<Vec<Tier>, ConfigError> {
    if raw.is_empty() {
        return Ok(Vec::new());
    }
    if of.family.check_settlement(Settlement::Confirmations(1)).is_err() {
        let problem = format!("no confirmations are counted on chains of the family {}", of.family);
        return Err(ConfigError::invalid(key, problem, "Remove the tiers"));
    }
    if raw.len() > MAX_TIERS {
        let problem =
            format!("{} tiers are configured, at most {MAX_TIERS} are possible", raw.len());
        return Err(ConfigError::invalid(key, problem, "Keep those of the assets that matter"));
    }
    let mut tiers = Vec::with_capacity(raw.len());
    for (index, raw) in raw.into_iter().enumerate() {
        tiers.push((index, tier(&format!("{key}[{index}]"), of, &raw)?));
    }
    tiers.sort_by_key(|(_, tier)| (tier.asset, tier.confirmations));
    for pair in tiers.windows(2) {
        let [(_, less), (index, more)] = pair else { continue };
        if less.asset == more.asset && more.up_to <= less.up_to {
            return Err(ConfigError::invalid(
                format!("{key}[{index}].up_to"),
                format!(
                    "is no more than what the same asset has after {} confirmations",
                    less.confirmations
                ),
                "More confirmations must allow more: raise it, or remove this tier",
            ));
        }
    }
    Ok(tiers.into_iter().map(|(_, tier)| tier).collect())
}

fn tier(key: &str, of: Of<'_>, raw: &RawTier) -> Result<Tier, ConfigError> {
    if raw.up_to_usd.is_some() {
        return Err(ConfigError::invalid(
            format!("{key}.up_to_usd"),
            "this version knows no prices",
            "Name an asset and write up_to in its whole units",
        ));
    }
    let (Some(asset), Some(up_to)) = (&raw.asset, &raw.up_to) else {
        return Err(ConfigError::invalid(
            key,
            "asset or up_to is missing",
            "Write it like { asset = \"USDC\", up_to = \"1000\", confirmations = 3 }",
        ));
    };
    let (asset, decimals) = named(&format!("{key}.asset"), of, asset)?;
    let most = match of.settlement {
        Settlement::Tag(_) => 100_000,
        // What comes with settlement, or later, is never earlier.
        Settlement::Confirmations(count) => count.saturating_sub(1),
    };
    let confirmations =
        whole(&format!("{key}.confirmations"), Whole(raw.confirmations.0), 1..=most)?;
    let up_to = from_units(up_to, decimals).filter(|amount| *amount > Amount::ZERO);
    let up_to = up_to.ok_or_else(|| {
        ConfigError::invalid(
            format!("{key}.up_to"),
            format!("is no amount above 0 of an asset with {decimals} decimals"),
            "Write whole units as a text, like \"1000\" or \"0.5\"",
        )
    })?;
    Ok(Tier { asset, up_to, confirmations })
}

/// The asset of that symbol or contract, and its decimals.
fn named(key: &str, of: Of<'_>, name: &str) -> Result<(AssetKey, u8), ConfigError> {
    let contract = of.family.parse_address(name).ok();
    let native = (of.native.symbol == name).then_some((AssetKey::Native, of.native.decimals));
    let tokens = of
        .tokens
        .iter()
        .filter(|token| token.symbol == name || Some(token.contract) == contract)
        .map(|token| (AssetKey::Token(token.contract), token.decimals));
    let found: Vec<_> = native.into_iter().chain(tokens).collect();
    match found.as_slice() {
        [one] => Ok(*one),
        [] => Err(ConfigError::invalid(
            key,
            format!("{name:?} is neither the coin nor a configured token of this chain"),
            "Write a symbol or a contract, or configure the token",
        )),
        _ => Err(ConfigError::invalid(
            key,
            format!("{name:?} names {} assets of this chain", found.len()),
            "Write the contract of the one that is meant",
        )),
    }
}
