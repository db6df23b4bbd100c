//! Names of chains and of the assets on them.

use std::{borrow::Borrow, fmt, sync::Arc};

use super::{Address, BadValue};

/// A network's stable name: `ethereum`, `base`, `solana`, ….
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChainName(Arc<str>);

impl ChainName {
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for ChainName {
    fn from(name: String) -> Self {
        Self(name.into())
    }
}

impl Borrow<str> for ChainName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ChainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ChainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl serde::Serialize for ChainName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// An asset on one chain: the native coin, or the token at a contract (EVM, Tron) or mint (Solana).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AssetKey {
    Native,
    Token(Address),
}

impl AssetKey {
    /// The form in the store: nothing for the native coin, the contract's bytes for a token.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Native => &[],
            Self::Token(contract) => contract.as_slice(),
        }
    }

    /// The inverse of [`AssetKey::as_bytes`]; `None` for more than 32 bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.is_empty() {
            Some(Self::Native)
        } else {
            Address::from_slice(bytes).map(Self::Token)
        }
    }
}

impl TryFrom<Vec<u8>> for AssetKey {
    type Error = BadValue;

    fn try_from(bytes: Vec<u8>) -> Result<Self, BadValue> {
        Self::from_bytes(&bytes).ok_or(BadValue("AssetKey"))
    }
}
