//! Where a Safe will stand, by CREATE2: its address commits to the factory, the singleton and the whole setup.

use std::collections::HashSet;

use alloy::{
    primitives::{Address as EvmAddress, B256, Bytes, U256, keccak256},
    sol,
    sol_types::SolCall as _,
};

use super::releases::{RELEASES, Release};
use crate::chain::{
    Address, PlanError, PlannedSafe, SafeLayer, SafePlan, SafeState,
    evm::{decode::address as plain, state::evm},
};

sol! {
    /// As it is since 1.1.1.
    function setup(
        address[] calldata owners,
        uint256 threshold,
        address to,
        bytes calldata data,
        address fallbackHandler,
        address paymentToken,
        uint256 payment,
        address paymentReceiver
    ) external;
}

/// Where the Safe will stand.
///
/// # Errors
/// There cannot be one.
pub(in crate::chain) fn place(plan: &SafePlan) -> Result<PlannedSafe, PlanError> {
    let (release, proxies) = release(plan)?;
    let owners = owners(&plan.owners)?;
    if plan.threshold == 0 || plan.threshold > owners.len() as u64 {
        return Err(PlanError::Threshold);
    }
    let handler = match plan.fallback_handler {
        Some(handler) => evm(handler).unwrap_or_default(),
        None => release.fallback_handlers.first().map_or(EvmAddress::ZERO, |own| own.address),
    };
    let initializer = setupCall {
        owners,
        threshold: U256::from(plan.threshold),
        to: EvmAddress::ZERO,
        data: Bytes::new(),
        fallbackHandler: handler,
        paymentToken: EvmAddress::ZERO,
        payment: U256::ZERO,
        paymentReceiver: EvmAddress::ZERO,
    };
    let setup = keccak256(initializer.abi_encode());
    let salt = keccak256([setup, B256::from(plan.salt_nonce)].concat());
    let (singleton, proxy) = match (plan.layer, release.singleton_l2) {
        (SafeLayer::L2, Some(singleton)) => (singleton, proxies.1),
        (SafeLayer::L1, _) | (_, None) => (release.singleton, proxies.0),
    };
    Ok(PlannedSafe {
        address: plain(release.factory.address.create2(salt, proxy)),
        version: release.version,
        singleton: plain(singleton.address),
    })
}

/// With what it makes proxies of.
fn release(plan: &SafePlan) -> Result<(&'static Release, (B256, B256)), PlanError> {
    let told = || RELEASES.iter().filter_map(|release| Some((release, release.makes?)));
    let of_version = || told().filter(|(release, _)| release.version == plan.version);
    let list = |mut words: Vec<&str>| {
        words.dedup();
        words.join(", ")
    };
    if of_version().next().is_none() {
        let known = told().map(|(release, _)| release.version).collect();
        return Err(PlanError::Version(list(known)));
    }
    let found = of_version().find(|(release, _)| release.deployment == plan.deployment);
    found.ok_or_else(|| {
        let known = of_version().map(|(release, _)| release.deployment).collect();
        PlanError::Deployment(list(known))
    })
}

/// The owners, if a Safe takes them: its setup refuses nobody, the end of its own list, and whoever is there twice.
fn owners(asked: &[Address]) -> Result<Vec<EvmAddress>, PlanError> {
    if asked.is_empty() || asked.len() > SafeState::MOST_OWNERS {
        return Err(PlanError::Owners);
    }
    let end = EvmAddress::with_last_byte(1);
    let mut seen = HashSet::new();
    let mut owners = Vec::with_capacity(asked.len());
    for (place, owner) in asked.iter().enumerate() {
        let owner = evm(*owner).map_err(|_| PlanError::Owner(place))?;
        if owner.is_zero() || owner == end {
            return Err(PlanError::Owner(place));
        }
        if !seen.insert(owner) {
            return Err(PlanError::Twice(place));
        }
        owners.push(owner);
    }
    Ok(owners)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::Family;

    fn who(text: &str) -> Address {
        Family::Evm.parse_address(text).expect("an address")
    }

    fn plan(version: &str) -> SafePlan {
        let owners = [
            "0x70997970C51812dc3A010C7d01b50e0d17dc79C8",
            "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC",
            "0x90F79bf6EB2c4f870365E785982E1f101E93b906",
        ];
        SafePlan {
            version: version.to_owned(),
            deployment: "canonical".to_owned(),
            layer: SafeLayer::L2,
            owners: owners.map(who).to_vec(),
            threshold: 2,
            salt_nonce: B256::with_last_byte(7).0,
            fallback_handler: None,
        }
    }

    /// The addresses are those at which the real factories have made these Safes.
    #[test]
    fn a_safe_will_stand_where_its_factory_puts_it() {
        for (version, address) in [
            ("1.3.0", "0x55C19473bB396B82fBC6c43d5f6cfB72d465Bdb2"),
            ("1.4.1", "0x73355b79C280dc2cC7d466199021F544dc47779F"),
            ("1.5.0", "0xF1D0b1d6bD57F44B0e3BC102e9c4f30dE4443581"),
        ] {
            assert_eq!(place(&plan(version)).map(|safe| safe.address), Ok(who(address)));
        }
        let later = SafePlan { salt_nonce: B256::with_last_byte(8).0, ..plan("1.5.0") };
        let address = who("0x51D746b4aFA212b89153A4B5f3136EBA99897AF6");
        assert_eq!(place(&later).map(|safe| safe.address), Ok(address));
    }

    #[test]
    fn each_word_of_a_plan_moves_the_safe() {
        let asked = plan("1.3.0");
        let mut places = HashSet::new();
        let mut owners = asked.owners.clone();
        owners.reverse();
        for plan in [
            asked.clone(),
            SafePlan { version: "1.4.1".to_owned(), ..asked.clone() },
            SafePlan { deployment: "eip155".to_owned(), ..asked.clone() },
            SafePlan { layer: SafeLayer::L1, ..asked.clone() },
            SafePlan { owners, ..asked.clone() },
            SafePlan { threshold: 1, ..asked.clone() },
            SafePlan { salt_nonce: [0; 32], ..asked.clone() },
            SafePlan { fallback_handler: Some(Address::from([0; 20])), ..asked },
        ] {
            assert!(places.insert(place(&plan).expect("a place").address), "{plan:?}");
        }
    }

    #[test]
    fn what_no_factory_would_set_up_has_no_place() {
        let asked = plan("1.4.1");
        let with = |owner: Address| {
            let mut owners = asked.owners.clone();
            owners[1] = owner;
            place(&SafePlan { owners, ..asked.clone() })
        };
        assert_eq!(with(Address::from([0; 20])), Err(PlanError::Owner(1)));
        let end = plain(EvmAddress::with_last_byte(1));
        assert_eq!(with(end), Err(PlanError::Owner(1)));
        assert_eq!(with(asked.owners[0]), Err(PlanError::Twice(1)));
        for threshold in [0, 4, u64::MAX] {
            let plan = SafePlan { threshold, ..asked.clone() };
            assert_eq!(place(&plan), Err(PlanError::Threshold));
        }
        let alone = SafePlan { owners: Vec::new(), ..asked.clone() };
        assert_eq!(place(&alone), Err(PlanError::Owners));
        let early = SafePlan { version: "1.1.1".to_owned(), ..asked.clone() };
        assert_eq!(place(&early), Err(PlanError::Version("1.3.0, 1.4.1, 1.5.0".to_owned())));
        let elsewhere = SafePlan { deployment: "eip155".to_owned(), ..asked };
        assert_eq!(place(&elsewhere), Err(PlanError::Deployment("canonical".to_owned())));
    }
}
