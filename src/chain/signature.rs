//! Why a text does not prove that the owner of an address signed a message.
//!
//! Only the address and the message count: no node is asked. So a contract, whose signatures only its own
//! code can judge (EIP-1271), cannot be verified here. Of the encodings of one signature one is accepted:
//! malleable ones are refused. How a family signs is its own: [`super::Rules::verify_signature`].

/// Why a text does not prove that an address signed a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The text is not a signature at all.
    #[error("must be {0}")]
    Malformed(&'static str),
    /// Longer than a key's signature: only a contract makes such ones (EIP-1271, ERC-6492).
    #[error("is longer than a key's signature, as those of contracts are")]
    Contract,
    /// A signature with the greater of its two values of s, which anybody can make of the other one (EIP-2).
    #[error("has a high s")]
    Malleable,
    /// Somebody else's signature, or one over something else.
    #[error("was not made over this message by this address")]
    Wrong,
}
