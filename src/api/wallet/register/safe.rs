//! A Safe that is registered before it is deployed: its address is told by its owners, its threshold and a number.

use alloy::primitives::U256;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::{
    api::{
        error::{Code, Problem},
        request::Fields,
    },
    chain::{Address, Family, PlanError, PlannedSafe, SafeLayer, SafePlan, SafeState},
    model::SafeFacts,
};

/// A Safe to be deployed by `createProxyWithNonce`, set up with its owners and nothing else.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = NewSafe)]
pub struct SafeBody {
    /// `1.3.0`, `1.4.1` or `1.5.0`.
    #[schema(example = "1.4.1")]
    version: String,
    /// In their order: another order is another Safe.
    owners: Vec<String>,
    threshold: u64,
    /// In decimal digits, or as hexadecimal digits behind `0x`: at most 256 bits.
    #[schema(example = "0")]
    salt_nonce: String,
    /// The version's own one if left out; the zero address for none.
    fallback_handler: Option<String>,
    /// Which of the version's singletons: `l2` (it logs what it executes) or `l1`; `l2` if left out.
    singleton: Option<String>,
    /// `canonical`, or `eip155` for version 1.3.0 where that is deployed so; `canonical` if left out.
    deployment: Option<String>,
}

const NOBODY: &str = "0x0000000000000000000000000000000000000000";

/// Where the Safe will stand, and what will be known of it there.
pub(super) fn planned(body: &SafeBody, family: Family) -> Result<(Address, SafeFacts), Problem> {
    if family != Family::WITH_SAFES {
        let detail = "must name EVM chains: others have no Safes";
        return Err(Problem::field(Code::InvalidRequest, "chains", detail));
    }
    let mut fields = Fields::default();
    let mut address = |field: &str, text: &str| match family.parse_address(text) {
        Ok(address) => Some(address),
        Err(error) => {
            fields.refuse(field, error.to_string());
            None
        }
    };
    let named = body.owners.iter().take(SafeState::MOST_OWNERS + 1).enumerate();
    let owners: Vec<Option<Address>> =
        named.map(|(n, owner)| address(&format!("safe.owners[{n}]"), owner)).collect();
    let handler = body.fallback_handler.as_deref();
    let handler = handler.map(|handler| match handler {
        // No account has this address, and here it says that there is none.
        NOBODY => Some(Address::from([0; 20])),
        handler => address("safe.fallbackHandler", handler),
    });
    let layer =
        fields.word("safe.singleton", body.singleton.as_deref(), SafeLayer::ALL, SafeLayer::as_str);
    let salt_nonce = salt(&body.salt_nonce);
    if salt_nonce.is_none() {
        fields.refuse("safe.saltNonce", "is not a number of at most 256 bits");
    }
    fields.finish()?;
    let plan = SafePlan {
        version: body.version.clone(),
        deployment: body.deployment.clone().unwrap_or_else(|| "canonical".to_owned()),
        layer: layer.unwrap_or(SafeLayer::L2),
        owners: owners.into_iter().flatten().collect(),
        threshold: body.threshold,
        salt_nonce: salt_nonce.unwrap_or_default(),
        fallback_handler: handler.flatten(),
    };
    let safe = family.place_of(&plan).map_err(|error| refused(&error))?;
    let PlannedSafe { address, version, singleton } = safe;
    let facts = SafeFacts {
        found_by_owner: false,
        version: Some(version.to_owned()),
        singleton: Some(singleton),
        owners: plan.owners,
        threshold: i64::try_from(plan.threshold).ok(),
    };
    Ok((address, facts))
}

fn refused(error: &PlanError) -> Problem {
    let field = match error {
        PlanError::Version(_) => "safe.version".to_owned(),
        PlanError::Deployment(_) => "safe.deployment".to_owned(),
        PlanError::Owner(n) | PlanError::Twice(n) => format!("safe.owners[{n}]"),
        PlanError::Owners => "safe.owners".to_owned(),
        PlanError::Threshold => "safe.threshold".to_owned(),
    };
    Problem::field(Code::InvalidRequest, &field, error.to_string())
}

/// The number, big endian.
fn salt(text: &str) -> Option<[u8; 32]> {
    let (digits, radix) = match text.strip_prefix("0x") {
        Some(digits) => (digits, 16),
        None => (text, 10),
    };
    // Longer ones only have zeros in front.
    if digits.is_empty() || digits.len() > 78 || !digits.chars().all(|digit| digit.is_digit(radix))
    {
        return None;
    }
    U256::from_str_radix(digits, radix.into()).ok().map(|number| number.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_salt_is_a_number_of_256_bits_in_either_writing() {
        let mut seven = [0; 32];
        seven[31] = 7;
        assert_eq!((salt("7"), salt("0x7"), salt("007")), (Some(seven), Some(seven), Some(seven)));
        let mut large = [0; 32];
        large[30..].copy_from_slice(&[0x01, 0x00]);
        assert_eq!((salt("256"), salt("0x100")), (Some(large), Some(large)));
        let most = "115792089237316195423570985008687907853269984665640564039457584007913129639935";
        assert_eq!(salt(most), Some([0xff; 32]));
        assert_eq!(salt(&format!("0x{}", "f".repeat(64))), Some([0xff; 32]));
        let over = "115792089237316195423570985008687907853269984665640564039457584007913129639936";
        let long = format!("0x1{}", "0".repeat(64));
        for wrong in ["", "0x", "-1", "1.0", "0xg", "ff", over, &long, &"0".repeat(79)] {
            assert_eq!(salt(wrong), None, "{wrong}");
        }
    }
}
