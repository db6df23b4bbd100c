//! Addresses, transaction ids and block hashes as raw bytes. Their families give them a text.

use std::fmt;

use super::Family;

/// Stored bytes or words that are not a value of the type named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a {0}")]
pub struct BadValue(pub &'static str);

/// At most `N` bytes, held in place. Unused bytes are zero.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Short<const N: usize> {
    len: u8,
    bytes: [u8; N],
}

impl<const N: usize> Short<N> {
    fn from_slice(slice: &[u8]) -> Option<Self> {
        if slice.is_empty() || slice.len() > N {
            return None;
        }
        let mut bytes = [0; N];
        bytes[..slice.len()].copy_from_slice(slice);
        Some(Self { len: u8::try_from(slice.len()).ok()?, bytes })
    }

    fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

macro_rules! short_bytes {
    ($(#[$doc:meta])* $name:ident, $max:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq)]
        pub struct $name(Short<$max>);

        impl $name {
            #[doc = concat!("`None` when empty or longer than ", $max, " bytes.")]
            #[must_use]
            pub fn from_slice(slice: &[u8]) -> Option<Self> {
                Short::from_slice(slice).map(Self)
            }

            #[must_use]
            pub fn as_slice(&self) -> &[u8] {
                self.0.as_slice()
            }
        }

        impl TryFrom<Vec<u8>> for $name {
            type Error = BadValue;

            fn try_from(bytes: Vec<u8>) -> Result<Self, BadValue> {
                Self::from_slice(&bytes).ok_or(BadValue(stringify!($name)))
            }
        }

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
                Some(self.cmp(other))
            }
        }
        impl Ord for $name {
            fn cmp(&self, other: &Self) -> std::cmp::Ordering {
                self.as_slice().cmp(other.as_slice())
            }
        }
        impl std::hash::Hash for $name {
            fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
                self.as_slice().hash(state);
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "0x{}", hex::encode(self.as_slice()))
            }
        }
    };
}

short_bytes! {
    /// The raw bytes of an address: 20 on EVM chains, 32 on Solana.
    Address, 32
}
short_bytes! {
    /// What names a transaction: a 32-byte hash, or Solana's 64-byte signature.
    TxId, 64
}

impl From<[u8; 20]> for Address {
    fn from(bytes: [u8; 20]) -> Self {
        let mut padded = [0; 32];
        padded[..20].copy_from_slice(&bytes);
        Self(Short { len: 20, bytes: padded })
    }
}

impl From<[u8; 32]> for Address {
    fn from(bytes: [u8; 32]) -> Self {
        Self(Short { len: 32, bytes })
    }
}

impl From<[u8; 64]> for TxId {
    fn from(bytes: [u8; 64]) -> Self {
        Self(Short { len: 64, bytes })
    }
}

impl From<[u8; 32]> for TxId {
    fn from(bytes: [u8; 32]) -> Self {
        let mut padded = [0; 64];
        padded[..32].copy_from_slice(&bytes);
        Self(Short { len: 32, bytes: padded })
    }
}

/// Addresses of one length, one behind the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PackedAddresses<'a> {
    /// Of EVM chains.
    Short(&'a [[u8; 20]]),
    /// Of Solana.
    Long(&'a [[u8; 32]]),
}

impl<'a> PackedAddresses<'a> {
    /// Takes `count` addresses apart; `None` if that does not make them of a length that a family has.
    #[must_use]
    pub fn new(bytes: &'a [u8], count: usize) -> Option<Self> {
        match (bytes.as_chunks(), bytes.as_chunks()) {
            ((short, []), _) if short.len() == count => Some(Self::Short(short)),
            (_, (long, [])) if long.len() == count => Some(Self::Long(long)),
            _ => None,
        }
    }

    /// The highest of them.
    #[must_use]
    pub fn highest(self) -> Option<&'a [u8]> {
        match self {
            Self::Short(short) => short.iter().max().map(<[u8; 20]>::as_slice),
            Self::Long(long) => long.iter().max().map(<[u8; 32]>::as_slice),
        }
    }
}

/// What names a block: 32 bytes in every family.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockHash(pub [u8; 32]);

impl BlockHash {
    #[must_use]
    pub fn from_slice(slice: &[u8]) -> Option<Self> {
        slice.try_into().ok().map(Self)
    }
}

impl TryFrom<Vec<u8>> for BlockHash {
    type Error = BadValue;

    fn try_from(bytes: Vec<u8>) -> Result<Self, BadValue> {
        Self::from_slice(&bytes).ok_or(BadValue("BlockHash"))
    }
}

impl fmt::Debug for BlockHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{}", hex::encode(self.0))
    }
}

/// Why a text is not an address that can be registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error("is not an address of the family {family}: {expected}")]
    Malformed { family: Family, expected: &'static str },
    #[error("has a wrong EIP-55 checksum: write it as {correct}, or all in lower case")]
    Checksum { correct: String },
    #[error("is the zero address, which nobody owns")]
    Zero,
    #[error("is the System Program, which nobody owns")]
    SystemProgram,
    #[error("has no key of its own (it is derived by a program), so nobody can sign for it")]
    NoKey,
}
