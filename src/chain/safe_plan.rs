//! A Safe that does not have to exist yet: what it is to be, and where it will stand.

use super::Address;
use crate::string_enum::string_enum;

string_enum! {
    /// Which of a version's two singletons a Safe runs. Both do the same; one of them logs it.
    SafeLayer {
        L1 = "l1",
        L2 = "l2",
    }
}

/// A Safe as it is to be deployed, by `createProxyWithNonce` and with nothing but its owners set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SafePlan {
    pub version: String,
    /// Which of a version's deployments makes it.
    pub deployment: String,
    pub layer: SafeLayer,
    pub owners: Vec<Address>,
    pub threshold: u64,
    /// A number of 256 bits, big endian.
    pub salt_nonce: [u8; 32],
    /// The version's own one, if not said.
    pub fallback_handler: Option<Address>,
}

/// Where a planned Safe will stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedSafe {
    pub address: Address,
    pub version: &'static str,
    pub singleton: Address,
}

/// Why there cannot be such a Safe.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    #[error("is none whose addresses can be told before: use {0}")]
    Version(String),
    #[error("has no such deployment: use {0}")]
    Deployment(String),
    #[error("is an address that no Safe takes as an owner")]
    Owner(usize),
    #[error("is named twice")]
    Twice(usize),
    #[error("must name 1 to {} owners", super::SafeState::MOST_OWNERS)]
    Owners,
    #[error("must be at least 1 and at most the number of owners")]
    Threshold,
}

string_enum! {
    /// What one of Safe's own contracts is for.
    SafeRole {
        Factory = "factory",
        Singleton = "singleton",
        SingletonL2 = "singleton_l2",
        FallbackHandler = "fallback_handler",
    }
}

/// One of Safe's own contracts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SafeContract {
    pub role: SafeRole,
    pub address: Address,
    /// The hash of its code, where that is known.
    pub code: Option<[u8; 32]>,
}

/// One deployment of one version of Safe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SafeRelease {
    pub version: &'static str,
    pub deployment: &'static str,
    pub contracts: Vec<SafeContract>,
    /// The hashes of the code of its proxies, of each build that is in use.
    pub proxies: Vec<[u8; 32]>,
}
