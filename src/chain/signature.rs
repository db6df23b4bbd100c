//! Whether a message was signed by the owner of an address: EIP-191 `personal_sign` on EVM chains, ed25519
//! (RFC 8032) on Solana.
//!
//! Only the address and the message count: no node is asked. So a contract, whose signatures only its own
//! code can judge (EIP-1271), cannot be verified here. Of the encodings of one signature one is accepted:
//! malleable ones are refused.

use alloy::primitives::{Address as EvmAddress, eip191_hash_message};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use k256::ecdsa::{RecoveryId, VerifyingKey as EvmKey};

use super::{Address, AddressError, Family, address::base58};

/// r, s and v.
const EVM_LENGTH: usize = 65;
const EVM_FORM: &str = "65 bytes in hexadecimal digits after 0x, the last of them 0, 1, 27 or 28";
const SOLANA_FORM: &str = "64 bytes in base58 or base64";

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
    #[error("messages of the family {0} are not supported by this version")]
    Unsupported(Family),
}

impl Family {
    /// Whether an address can sign at all.
    ///
    /// # Errors
    /// [`AddressError::NoKey`] for a Solana address that is not on the curve (it is derived by a program) or
    /// of small order (its signatures prove nothing); [`AddressError::Unsupported`] for other families.
    pub fn check_signer(self, address: &Address) -> Result<(), AddressError> {
        match self {
            Self::Evm => Ok(()),
            Self::Solana => match solana_key(address) {
                Some(key) if !key.is_weak() => Ok(()),
                _ => Err(AddressError::NoKey),
            },
            Self::Tron => Err(AddressError::Unsupported(self)),
        }
    }

    /// Checks that the owner of `address` signed `message`. `signature` is as wallets give it: for EVM r, s
    /// and v (0, 1, 27 or 28) in hexadecimal digits after 0x; for Solana 64 bytes in base58 or base64.
    ///
    /// # Errors
    /// See [`SignatureError`].
    pub fn verify_signature(
        self,
        address: &Address,
        message: &str,
        signature: &str,
    ) -> Result<(), SignatureError> {
        match self {
            Self::Evm => verify_evm(address, message, signature),
            Self::Solana => verify_solana(address, message, signature),
            Self::Tron => Err(SignatureError::Unsupported(self)),
        }
    }
}

fn verify_evm(address: &Address, message: &str, text: &str) -> Result<(), SignatureError> {
    let malformed = SignatureError::Malformed(EVM_FORM);
    let bytes = text.strip_prefix("0x").and_then(|digits| hex::decode(digits).ok());
    let bytes = bytes.ok_or(malformed)?;
    if bytes.len() > EVM_LENGTH {
        return Err(SignatureError::Contract);
    }
    let (scalars, odd) = match bytes.split_last() {
        Some((0 | 27, rest)) if bytes.len() == EVM_LENGTH => (rest, false),
        Some((1 | 28, rest)) if bytes.len() == EVM_LENGTH => (rest, true),
        _ => return Err(malformed),
    };
    let wrong = |_| SignatureError::Wrong;
    let signature = k256::ecdsa::Signature::from_slice(scalars).map_err(wrong)?;
    if signature.normalize_s().is_some() {
        return Err(SignatureError::Malleable);
    }
    let hash = eip191_hash_message(message);
    let id = RecoveryId::new(odd, false);
    let key = EvmKey::recover_from_prehash(hash.as_slice(), &signature, id).map_err(wrong)?;
    if evm_address(&key) == *address { Ok(()) } else { Err(SignatureError::Wrong) }
}

fn evm_address(key: &EvmKey) -> Address {
    // A byte that says "not compressed" goes before the two coordinates.
    let point = key.to_encoded_point(false);
    EvmAddress::from_raw_public_key(&point.as_bytes()[1..]).into_array().into()
}

fn verify_solana(address: &Address, message: &str, text: &str) -> Result<(), SignatureError> {
    // 64 bytes in base64 end with two signs of equality, which base58 does not have.
    let bytes = base58::<64>(text)
        .or_else(|| STANDARD.decode(text).ok()?.try_into().ok())
        .ok_or(SignatureError::Malformed(SOLANA_FORM))?;
    let key = solana_key(address).ok_or(SignatureError::Wrong)?;
    // Strict: neither the key nor R may be of small order, else one signature fits many messages.
    key.verify_strict(message.as_bytes(), &ed25519_dalek::Signature::from_bytes(&bytes))
        .map_err(|_| SignatureError::Wrong)
}

fn solana_key(address: &Address) -> Option<ed25519_dalek::VerifyingKey> {
    ed25519_dalek::VerifyingKey::from_bytes(address.as_slice().try_into().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use alloy::primitives::U256;
    use ed25519_dalek::{Signer as _, SigningKey};

    use super::*;
    use crate::{
        chain::sign_in::{Network, SignIn},
        clock::Millis,
    };

    const MESSAGE: &str = "a message\nof two lines";

    fn evm(seed: u8, message: &str) -> (Address, Vec<u8>) {
        let key = k256::ecdsa::SigningKey::from_slice(&[seed; 32]).expect("a key");
        let hash = eip191_hash_message(message);
        let (signature, id) = key.sign_prehash_recoverable(hash.as_slice()).expect("a signature");
        (
            evm_address(key.verifying_key()),
            [&signature.to_bytes()[..], &[27 + id.to_byte()]].concat(),
        )
    }

    fn text(bytes: &[u8]) -> String {
        format!("0x{}", hex::encode(bytes))
    }

    fn millis(text: &str) -> Millis {
        Millis(text.parse::<jiff::Timestamp>().expect("a time").as_millisecond())
    }

    #[test]
    fn the_published_example_of_eip_4361_is_built_and_verified() {
        // `test/verification_positive.json` of spruceid/siwe: "example message".
        let address = "0x9D85ca56217D2bb651b00f15e694EB7E713637D4";
        let message = SignIn {
            network: Network::new(Family::Evm, "eip155:1").expect("a network"),
            domain: "login.xyz".parse().expect("a domain"),
            address: address.to_owned(),
            statement: Some(
                "Sign-In With Ethereum Example Statement".parse().expect("a statement"),
            ),
            uri: "https://login.xyz".parse().expect("a URI"),
            nonce: "bTyXgcQxn2htgkjJn".parse().expect("a nonce"),
            issued_at: millis("2022-01-27T17:09:38.578Z"),
            expires_at: millis("2100-01-07T14:31:43.952Z"),
        }
        .to_string();
        let signature = "0xdc35c7f8ba2720df052e0092556456127f00f7707eaa8e3bbff7e56774e7f2e05a093cfc9e02964c\
                         33d86e8e066e221b7d153d27e5a2e97ccd5ca7d3f2ce06cb1b";
        let address = Family::Evm.parse_address(address).expect("an address");
        assert_eq!(Family::Evm.verify_signature(&address, &message, signature), Ok(()));
    }

    #[test]
    fn a_published_signature_with_a_bare_parity_is_verified() {
        // The same file: "recovery byte starting at 0 tally_example".
        let message = "www.tally.xyz wants you to sign in with your Ethereum account:\n\
                       0xc95EB884FE852e241D409234bfC7045CB9E31BD7\n\nSign in with Ethereum to Tally\n\n\
                       URI: https://tally.xyz\nVersion: 1\nChain ID: 1\nNonce: 15050747\n\
                       Issued At: 2022-06-30T14:08:51.382Z";
        let signature = "0x8c46b6eb8505939892d8e9b075f89f8277321b17b993151f37810cdda38cce6f4a85909d2b53e6a1\
                         4629c74c0ac38bf4becde78ee5b2529812bf6cceaf7b2a2501";
        let address = Family::Evm
            .parse_address("0xc95EB884FE852e241D409234bfC7045CB9E31BD7")
            .expect("an address");
        assert_eq!(Family::Evm.verify_signature(&address, message, signature), Ok(()));
    }

    #[test]
    fn published_sign_ins_with_solana_are_verified() {
        // The tests of supabase/auth, `internal/api/web3_test.go`.
        for (address, message, signature) in [
            (
                "9pStGkfG4TfFkk5VBwaP6XPLVXr8mq6uWfFJcchWHdwP",
                "linkly.id wants you to sign in with your Solana account:\n\
                 9pStGkfG4TfFkk5VBwaP6XPLVXr8mq6uWfFJcchWHdwP\n\nStatement\n\nURI: https://linkly.id/\n\
                 Version: 1\nIssued At: 2025-03-29T00:00:00Z\nExpiration Time: 2025-03-29T00:10:00Z\n\
                 Not Before: 2025-03-29T00:00:00Z",
                "ZrHNyLlKHwDs2nE8uM8pBrzgRbLGy5sKuiFXChdygoLN4NZK4mcozcF1HV5sK6aZyfI5ao+kz98kr88tbGgkBg==",
            ),
            (
                "2S3iKQhUGa8qy9GAdHWNJhjwcCKTPhBaCpt84SaFCXXa",
                "localhost:5173 wants you to sign in with your Solana account:\n\
                 2S3iKQhUGa8qy9GAdHWNJhjwcCKTPhBaCpt84SaFCXXa\n\nSign in on localhost\n\n\
                 URI: http://localhost:5173/\nVersion: 1\nIssued At: 2025-05-16T14:52:03.613Z",
                "Ybkgj9JAc4NGFpCn7KCOXJEKzcOqWVqEuKSkb6t30iTK+Y74xZUWn9Uq/VbNhMIkuiZSh2Xi7Y6EwzWUn3UMAw==",
            ),
        ] {
            let address = Family::Solana.parse_address(address).expect("an address");
            assert_eq!(Family::Solana.verify_signature(&address, message, signature), Ok(()));
            let other = message.replace("Version: 1", "Version: 2");
            let verified = Family::Solana.verify_signature(&address, &other, signature);
            assert_eq!(verified, Err(SignatureError::Wrong));
        }
    }

    #[test]
    fn the_vectors_of_rfc_8032_hold() {
        // Section 7.1, tests 1 and 2: the messages are empty and the byte 0x72.
        for (key, message, signature) in [
            (
                "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
                "",
                "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701c\
                 f9b46bd25bf5f0595bbe24655141438e7a100b",
            ),
            (
                "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
                "r",
                "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0\
                 f11d8c387b2eaeb4302aeeb00d291612bb0c00",
            ),
        ] {
            let bytes = |text: &str| hex::decode(text).expect("digits");
            let address = Address::from_slice(&bytes(key)).expect("an address");
            let verify =
                |signature: &str| Family::Solana.verify_signature(&address, message, signature);
            let signature = bytes(signature);
            assert_eq!(verify(&bs58::encode(&signature).into_string()), Ok(()));
            assert_eq!(verify(&STANDARD.encode(&signature)), Ok(()));
            let mut wrong = signature;
            wrong[5] ^= 1;
            assert_eq!(verify(&STANDARD.encode(&wrong)), Err(SignatureError::Wrong));
        }
    }

    #[test]
    fn an_evm_signature_has_one_form_and_one_signer() {
        let (address, signature) = evm(7, MESSAGE);
        let verify = |bytes: &[u8]| Family::Evm.verify_signature(&address, MESSAGE, &text(bytes));
        assert_eq!(verify(&signature), Ok(()));
        let with_v = |v: u8| [&signature[..64], &[v]].concat();
        let v = signature[64];
        assert_eq!(verify(&with_v(v - 27)), Ok(()));
        assert_eq!(verify(&with_v(55 - v)), Err(SignatureError::Wrong), "the other parity");
        let malformed = Err(SignatureError::Malformed(EVM_FORM));
        for v in [2, 26, 29, 35, 37, 255] {
            assert_eq!(verify(&with_v(v)), malformed, "{v}");
        }
        assert_eq!(verify(&signature[..64]), malformed, "ERC-2098 is another form");
        assert_eq!(verify(&[]), malformed);
        assert_eq!(verify(&[0; 65]), Err(SignatureError::Wrong));
        assert_eq!(verify(&[&signature[..], &[0]].concat()), Err(SignatureError::Contract));
        let bare = hex::encode(&signature);
        assert_eq!(Family::Evm.verify_signature(&address, MESSAGE, &bare), malformed);

        let order = U256::from_str_radix(
            "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141",
            16,
        )
        .expect("the order of secp256k1");
        let high = order - U256::from_be_slice(&signature[32..64]);
        let high = [&signature[..32], &high.to_be_bytes::<32>(), &[55 - v]].concat();
        assert_eq!(verify(&high), Err(SignatureError::Malleable));

        let (_, others) = evm(8, MESSAGE);
        assert_eq!(verify(&others), Err(SignatureError::Wrong));
        let (_, over_another) = evm(7, "another message");
        assert_eq!(verify(&over_another), Err(SignatureError::Wrong));
    }

    #[test]
    fn a_solana_signature_is_64_bytes_of_the_right_key() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let address = Address::from(key.verifying_key().to_bytes());
        let verify = |text: &str| Family::Solana.verify_signature(&address, MESSAGE, text);
        let signature = key.sign(MESSAGE.as_bytes()).to_bytes();
        assert_eq!(verify(&bs58::encode(signature).into_string()), Ok(()));
        let others = SigningKey::from_bytes(&[8; 32]).sign(MESSAGE.as_bytes()).to_bytes();
        assert_eq!(verify(&STANDARD.encode(others)), Err(SignatureError::Wrong));
        let mut greater = signature;
        greater[63] |= 0xe0;
        assert_eq!(
            verify(&STANDARD.encode(greater)),
            Err(SignatureError::Wrong),
            "s past the order"
        );
        for bad in
            ["", "0x12", &STANDARD.encode([1; 63]), &STANDARD.encode([1; 65]), &"1".repeat(100_000)]
        {
            assert_eq!(verify(bad), Err(SignatureError::Malformed(SOLANA_FORM)));
        }
    }

    #[test]
    fn a_key_that_proves_nothing_is_no_signer() {
        // The neutral element: with s = 0 and R neutral too, the equation holds for every message.
        let mut neutral = [0; 32];
        neutral[0] = 1;
        let mut signature = [0; 64];
        signature[0] = 1;
        let address = Address::from(neutral);
        assert_eq!(Family::Solana.check_signer(&address), Err(AddressError::NoKey));
        let verified =
            Family::Solana.verify_signature(&address, MESSAGE, &STANDARD.encode(signature));
        assert_eq!(verified, Err(SignatureError::Wrong));
        // As an address that a program derives: on no curve.
        let derived = (2..=255)
            .map(|n| Address::from([n; 32]))
            .find(|address| solana_key(address).is_none())
            .expect("half of all texts are no points");
        assert_eq!(Family::Solana.check_signer(&derived), Err(AddressError::NoKey));
        let key = SigningKey::from_bytes(&[7; 32]).verifying_key();
        assert_eq!(Family::Solana.check_signer(&Address::from(key.to_bytes())), Ok(()));
    }
}
