//! Who signed: a message by EIP-191 `personal_sign`, or whatever else has a hash.

use alloy::primitives::{Address as EvmAddress, eip191_hash_message};
use k256::{
    AffinePoint, ProjectivePoint, Scalar, U256,
    ecdsa::Signature,
    elliptic_curve::{
        ops::{Invert as _, LinearCombination as _, Reduce},
        point::DecompressPoint as _,
        sec1::ToEncodedPoint as _,
        subtle::Choice,
    },
};

use crate::chain::{Address, SignatureError};

/// r, s and v.
const LENGTH: usize = 65;
const FORM: &str = "65 bytes in hexadecimal digits after 0x, the last of them 0, 1, 27 or 28";

/// Whether the key of `address` signed `message`; `text` is r, s and v.
pub(super) fn verify(address: &Address, message: &str, text: &str) -> Result<(), SignatureError> {
    let malformed = SignatureError::Malformed(FORM);
    let bytes = text.strip_prefix("0x").and_then(|digits| hex::decode(digits).ok());
    let bytes = bytes.ok_or(malformed)?;
    if bytes.len() > LENGTH {
        return Err(SignatureError::Contract);
    }
    let (scalars, odd) = match bytes.split_last() {
        Some((0 | 27, rest)) if bytes.len() == LENGTH => (rest, false),
        Some((1 | 28, rest)) if bytes.len() == LENGTH => (rest, true),
        _ => return Err(malformed),
    };
    let signature = Signature::from_slice(scalars).map_err(|_| SignatureError::Wrong)?;
    if signature.normalize_s().is_some() {
        return Err(SignatureError::Malleable);
    }
    let hash = eip191_hash_message(message);
    if signed(&hash.0, &signature, odd) == Some(*address) {
        Ok(())
    } else {
        Err(SignatureError::Wrong)
    }
}

/// The address whose key signed what has this hash; `None` if none did.
pub(super) fn signer(hash: &[u8; 32], r: &[u8; 32], s: &[u8; 32], odd: bool) -> Option<Address> {
    signed(hash, &Signature::from_scalars(*r, *s).ok()?, odd)
}

/// "Public Key Recovery Operation" of SEC 1, 4.1.6. That the key verifies the signature follows from how it was made:
/// to look at it again, as the library does, would take the same time once more.
fn signed(hash: &[u8; 32], signature: &Signature, odd: bool) -> Option<Address> {
    let (r, s) = signature.split_scalars();
    let point = AffinePoint::decompress(&r.to_bytes(), Choice::from(u8::from(odd)));
    let point = Option::<AffinePoint>::from(point)?;
    let hash = <Scalar as Reduce<U256>>::reduce_bytes(&(*hash).into());
    let inverse = *r.invert();
    let key = ProjectivePoint::lincomb(
        &ProjectivePoint::GENERATOR,
        &-(inverse * hash),
        &point.into(),
        &(inverse * *s),
    );
    address_of(&key.to_affine())
}

fn address_of(key: &AffinePoint) -> Option<Address> {
    // A byte that says "not compressed" goes before the two coordinates; the point at infinity has none.
    let point = key.to_encoded_point(false);
    let coordinates = point.as_bytes().get(1..).filter(|bytes| bytes.len() == 64)?;
    Some(EvmAddress::from_raw_public_key(coordinates).into_array().into())
}

#[cfg(test)]
mod tests {
    use alloy::primitives::U256;

    use super::*;
    use crate::{
        chain::{Rules as _, evm::Evm, sign_in::SignIn},
        clock::Millis,
    };

    const MESSAGE: &str = "a message\nof two lines";

    fn evm(seed: u8, message: &str) -> (Address, Vec<u8>) {
        let key = k256::ecdsa::SigningKey::from_slice(&[seed; 32]).expect("a key");
        let hash = eip191_hash_message(message);
        let (signature, id) = key.sign_prehash_recoverable(hash.as_slice()).expect("a signature");
        (
            address_of(key.verifying_key().as_affine()).expect("an address"),
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
            network: Evm.network("eip155:1").expect("a network"),
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
        let address = Evm.parse_address(address).expect("an address");
        assert_eq!(Evm.verify_signature(&address, &message, signature), Ok(()));
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
        let address =
            Evm.parse_address("0xc95EB884FE852e241D409234bfC7045CB9E31BD7").expect("an address");
        assert_eq!(Evm.verify_signature(&address, message, signature), Ok(()));
    }

    #[test]
    fn an_evm_signature_has_one_form_and_one_signer() {
        let (address, signature) = evm(7, MESSAGE);
        let verify = |bytes: &[u8]| Evm.verify_signature(&address, MESSAGE, &text(bytes));
        assert_eq!(verify(&signature), Ok(()));
        let with_v = |v: u8| [&signature[..64], &[v]].concat();
        let v = signature[64];
        assert_eq!(verify(&with_v(v - 27)), Ok(()));
        assert_eq!(verify(&with_v(55 - v)), Err(SignatureError::Wrong), "the other parity");
        let malformed = Err(SignatureError::Malformed(FORM));
        for v in [2, 26, 29, 35, 37, 255] {
            assert_eq!(verify(&with_v(v)), malformed, "{v}");
        }
        assert_eq!(verify(&signature[..64]), malformed, "ERC-2098 is another form");
        assert_eq!(verify(&[]), malformed);
        assert_eq!(verify(&[0; 65]), Err(SignatureError::Wrong));
        assert_eq!(verify(&[&signature[..], &[0]].concat()), Err(SignatureError::Contract));
        let bare = hex::encode(&signature);
        assert_eq!(Evm.verify_signature(&address, MESSAGE, &bare), malformed);

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
}
