//! Signatures by ed25519 (RFC 8032).

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ed25519_dalek::{Signature, VerifyingKey};

use crate::chain::{Address, SignatureError, base58};

const FORM: &str = "64 bytes in base58 or base64";

/// Whether the key that `address` is signed `message`; `text` is the signature in base58 or base64.
pub(super) fn verify(address: &Address, message: &str, text: &str) -> Result<(), SignatureError> {
    // 64 bytes in base64 end with two signs of equality, which base58 does not have.
    let bytes = base58::decode_64(text)
        .or_else(|| STANDARD.decode(text).ok()?.try_into().ok())
        .ok_or(SignatureError::Malformed(FORM))?;
    let key = key(address).ok_or(SignatureError::Wrong)?;
    // Strict: neither the key nor R may be of small order, else one signature fits many messages.
    key.verify_strict(message.as_bytes(), &Signature::from_bytes(&bytes))
        .map_err(|_| SignatureError::Wrong)
}

/// The address as a key; `None` for one that is not on the curve.
pub(super) fn key(address: &Address) -> Option<VerifyingKey> {
    VerifyingKey::from_bytes(address.as_slice().try_into().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signer as _, SigningKey};

    use super::*;
    use crate::chain::{AddressError, Rules as _, TxId, solana::Solana};

    const MESSAGE: &str = "a message\nof two lines";

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
            let address = Solana.parse_address(address).expect("an address");
            assert_eq!(Solana.verify_signature(&address, message, signature), Ok(()));
            let other = message.replace("Version: 1", "Version: 2");
            let verified = Solana.verify_signature(&address, &other, signature);
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
            let verify = |signature: &str| Solana.verify_signature(&address, message, signature);
            let signature = bytes(signature);
            assert_eq!(
                verify(&Solana.format_tx(&TxId::from_slice(&signature).expect("64 bytes"))),
                Ok(())
            );
            assert_eq!(verify(&STANDARD.encode(&signature)), Ok(()));
            let mut wrong = signature;
            wrong[5] ^= 1;
            assert_eq!(verify(&STANDARD.encode(&wrong)), Err(SignatureError::Wrong));
        }
    }

    #[test]
    fn a_solana_signature_is_64_bytes_of_the_right_key() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let address = Address::from(key.verifying_key().to_bytes());
        let verify = |text: &str| Solana.verify_signature(&address, MESSAGE, text);
        let signature = key.sign(MESSAGE.as_bytes()).to_bytes();
        assert_eq!(verify(&Solana.format_tx(&TxId::from(signature))), Ok(()));
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
            assert_eq!(verify(bad), Err(SignatureError::Malformed(FORM)));
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
        assert_eq!(Solana.check_signer(&address), Err(AddressError::NoKey));
        let verified = Solana.verify_signature(&address, MESSAGE, &STANDARD.encode(signature));
        assert_eq!(verified, Err(SignatureError::Wrong));
        // As an address that a program derives: on no curve.
        let derived = (2..=255)
            .map(|n| Address::from([n; 32]))
            .find(|address| key(address).is_none())
            .expect("half of all texts are no points");
        assert_eq!(Solana.check_signer(&derived), Err(AddressError::NoKey));
        let key = SigningKey::from_bytes(&[7; 32]).verifying_key();
        assert_eq!(Solana.check_signer(&Address::from(key.to_bytes())), Ok(()));
    }
}
