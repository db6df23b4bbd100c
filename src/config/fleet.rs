//! Which chains this daemon may follow, and how it shares them with others.

use std::{collections::BTreeMap, time::Duration};

use super::{ChainConfig, ConfigError, FleetConfig, check::whole, raw::RawFleet};
use crate::chain::ChainName;

/// Longer leases leave a chain without a follower for as long.
const LONGEST_LEASE: u64 = 300;
const LONGEST_REBALANCE: u64 = 86_400;

pub(super) fn fleet(
    raw: &RawFleet,
    follow: Option<Vec<String>>,
    chains: &BTreeMap<ChainName, ChainConfig>,
) -> Result<FleetConfig, ConfigError> {
    let lease = whole("fleet.lease_seconds", raw.lease_seconds, 2..=LONGEST_LEASE)?;
    let key = "fleet.heartbeat_seconds";
    let heartbeat = whole(key, raw.heartbeat_seconds, 1..=LONGEST_LEASE)?;
    if heartbeat * 2 > lease {
        return Err(ConfigError::invalid(
            key,
            format!("{heartbeat} s are more than half of a lease of {lease} s"),
            "Use at most half of fleet.lease_seconds, better a third: one that is late must not lose the chains",
        ));
    }
    let key = "fleet.rebalance_seconds";
    let rebalance = whole(key, raw.rebalance_seconds, 1..=LONGEST_REBALANCE)?;
    let follow = follow.map(|names| {
        let found = names.iter().enumerate().map(|(index, name)| {
            let chain = chains.keys().find(|chain| chain.as_str() == name);
            chain.cloned().ok_or_else(|| {
                ConfigError::invalid(
                    format!("follow[{index}]"),
                    format!("names the chain {name:?}, which is not configured"),
                    "Name chains of this configuration, none ([]) to follow none, or leave follow out to follow all",
                )
            })
        });
        found.collect::<Result<_, _>>()
    });
    Ok(FleetConfig {
        follow: follow.transpose()?,
        lease: Duration::from_secs(lease),
        heartbeat: Duration::from_secs(heartbeat),
        rebalance: Duration::from_secs(rebalance),
    })
}
