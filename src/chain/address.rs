//! Addresses, transaction ids and block hashes as raw bytes, and the families that give them their text.

use std::{fmt, str::FromStr};

/// Stored bytes or words that are not a value of the type named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a {0}")]
pub struct BadValue(pub &'static str);

/// At most `N` bytes, held in place. Comparing and hashing see the used bytes only.
#[derive(Clone, Copy)]
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
        #[derive(Clone, Copy)]
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

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.as_slice() == other.as_slice()
            }
        }
        impl Eq for $name {}
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
    /// The raw bytes of an address: 20 on EVM chains and Tron (without Tron's 0x41), 32 on Solana.
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

/// A kind of chain: which [`super::Source`] follows it and how its addresses are written.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    Evm,
    Solana,
    Tron,
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
    #[error("addresses of the family {0} are not supported by this version")]
    Unsupported(Family),
}

const EVM_FORM: &str = "0x and 40 hexadecimal digits are expected";
const SOLANA_FORM: &str = "32 bytes in base58 are expected";

impl Family {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Evm => "evm",
            Self::Solana => "solana",
            Self::Tron => "tron",
        }
    }

    /// Whether a height can stay without a block for ever, as Solana's skipped slots do.
    #[must_use]
    pub const fn skips_heights(self) -> bool {
        match self {
            Self::Solana => true,
            Self::Evm | Self::Tron => false,
        }
    }

    /// Reads an address as a user writes it, with the family's checksum.
    ///
    /// # Errors
    /// See [`AddressError`]. An EVM address in one case passes; in mixed case EIP-55 must hold. A Solana
    /// address is its length only: base58 as Solana uses it has no checksum.
    pub fn parse_address(self, text: &str) -> Result<Address, AddressError> {
        match self {
            Self::Evm => parse_evm(text),
            Self::Solana => parse_solana(text),
            Self::Tron => Err(AddressError::Unsupported(self)),
        }
    }

    /// The address as the family writes it: EIP-55 for EVM, base58 for Solana.
    #[must_use]
    pub fn format_address(self, address: &Address) -> String {
        match self {
            Self::Evm if address.as_slice().len() == 20 => {
                alloy::primitives::Address::from_slice(address.as_slice()).to_checksum(None)
            }
            Self::Solana => bs58::encode(address.as_slice()).into_string(),
            Self::Evm | Self::Tron => format!("{address:?}"),
        }
    }

    /// The block hash as the family writes it.
    #[must_use]
    pub fn format_block_hash(self, hash: &BlockHash) -> String {
        match self {
            Self::Solana => bs58::encode(hash.0).into_string(),
            Self::Evm | Self::Tron => format!("{hash:?}"),
        }
    }

    /// Reads a block hash; `None` when it has not the family's form.
    #[must_use]
    pub fn parse_block_hash(self, text: &str) -> Option<BlockHash> {
        match self {
            Self::Solana => base58::<32>(text).map(BlockHash),
            Self::Evm | Self::Tron => {
                hex::decode(text.strip_prefix("0x")?).ok()?.try_into().ok().map(BlockHash)
            }
        }
    }

    /// The transaction id as the family writes it.
    #[must_use]
    pub fn format_tx(self, tx: &TxId) -> String {
        match self {
            Self::Solana => bs58::encode(tx.as_slice()).into_string(),
            Self::Evm | Self::Tron => format!("{tx:?}"),
        }
    }

    /// Reads a transaction id; `None` when it has not the family's form.
    #[must_use]
    pub fn parse_tx(self, text: &str) -> Option<TxId> {
        match self {
            Self::Evm => {
                let bytes: [u8; 32] =
                    hex::decode(text.strip_prefix("0x")?).ok()?.try_into().ok()?;
                Some(TxId::from(bytes))
            }
            Self::Solana => base58::<64>(text).map(TxId::from),
            Self::Tron => None,
        }
    }
}

/// Exactly `N` bytes in base58; the buffer is bounded, so a long text costs nothing.
pub(super) fn base58<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let length = bs58::decode(text).onto(&mut bytes).ok()?;
    (length == N).then_some(bytes)
}

fn parse_solana(text: &str) -> Result<Address, AddressError> {
    let bytes = base58::<32>(text)
        .ok_or(AddressError::Malformed { family: Family::Solana, expected: SOLANA_FORM })?;
    if bytes == [0; 32] {
        return Err(AddressError::SystemProgram);
    }
    Ok(Address::from(bytes))
}

fn parse_evm(text: &str) -> Result<Address, AddressError> {
    let malformed = || AddressError::Malformed { family: Family::Evm, expected: EVM_FORM };
    let digits = text.strip_prefix("0x").ok_or_else(malformed)?;
    let bytes: [u8; 20] =
        hex::decode(digits).ok().and_then(|bytes| bytes.try_into().ok()).ok_or_else(malformed)?;
    if bytes == [0; 20] {
        return Err(AddressError::Zero);
    }
    let has = |test: fn(&u8) -> bool| digits.as_bytes().iter().any(test);
    if has(u8::is_ascii_lowercase) && has(u8::is_ascii_uppercase) {
        let correct = alloy::primitives::Address::from(bytes).to_checksum(None);
        if correct != text {
            return Err(AddressError::Checksum { correct });
        }
    }
    Ok(Address::from(bytes))
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl TryFrom<String> for Family {
    type Error = BadValue;

    fn try_from(text: String) -> Result<Self, BadValue> {
        text.parse()
    }
}

impl FromStr for Family {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        match text {
            "evm" => Ok(Self::Evm),
            "solana" => Ok(Self::Solana),
            "tron" => Ok(Self::Tron),
            _ => Err(BadValue("Family")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mixed_case_address_must_keep_its_checksum() {
        let good = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed";
        let address = Family::Evm.parse_address(good).expect("EIP-55's own example");
        assert_eq!(Family::Evm.format_address(&address), good);
        assert_eq!(Family::Evm.parse_address(&good.to_lowercase()), Ok(address));
        let wrong = good.replace("aAeb", "aaeb");
        assert_eq!(
            Family::Evm.parse_address(&wrong),
            Err(AddressError::Checksum { correct: good.to_owned() })
        );
    }

    #[test]
    fn a_solana_address_is_32_bytes_in_base58_and_keeps_its_case() {
        let usdc = "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v";
        let address = Family::Solana.parse_address(usdc).expect("the mint of USDC");
        assert_eq!(Family::Solana.format_address(&address), usdc);
        assert_ne!(Family::Solana.parse_address(&usdc.replace('W', "w")), Ok(address));
        let system = "11111111111111111111111111111111";
        assert_eq!(Family::Solana.parse_address(system), Err(AddressError::SystemProgram));
        for text in ["", "0", &usdc[3..], &format!("{usdc}1"), &usdc.replace('W', "0"), "0x12"] {
            assert!(
                matches!(Family::Solana.parse_address(text), Err(AddressError::Malformed { .. })),
                "{text}"
            );
        }
        assert!(Family::Solana.parse_tx(usdc).is_none(), "32 bytes are no signature");
        let signature = TxId::from([7; 64]);
        let text = Family::Solana.format_tx(&signature);
        assert_eq!(Family::Solana.parse_tx(&text), Some(signature));
    }

    #[test]
    fn the_zero_address_and_other_families_texts_are_refused() {
        let zero = format!("0x{}", "0".repeat(40));
        assert_eq!(Family::Evm.parse_address(&zero), Err(AddressError::Zero));
        for text in [
            "",
            "0x",
            "0x12",
            "TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t",
            "5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
        ] {
            assert!(matches!(Family::Evm.parse_address(text), Err(AddressError::Malformed { .. })));
        }
    }
}
