//! Base58 of the two lengths that Solana has: 32 bytes for addresses and hashes, 64 for signatures.

use five8::{BASE58_ENCODED_32_MAX_LEN, BASE58_ENCODED_64_MAX_LEN};

/// `None` if the text is not exactly 32 bytes; a longer text costs no more.
pub(super) fn decode_32(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    five8::decode_32(text, &mut bytes).ok()?;
    Some(bytes)
}

/// `None` if the text is not exactly 64 bytes; a longer text costs no more.
pub(super) fn decode_64(text: &str) -> Option<[u8; 64]> {
    let mut bytes = [0; 64];
    five8::decode_64(text, &mut bytes).ok()?;
    Some(bytes)
}

pub(super) fn encode_32(bytes: &[u8; 32]) -> String {
    let mut text = [0; BASE58_ENCODED_32_MAX_LEN];
    let length = five8::encode_32(bytes, &mut text);
    ascii(&text, length)
}

pub(super) fn encode_64(bytes: &[u8; 64]) -> String {
    let mut text = [0; BASE58_ENCODED_64_MAX_LEN];
    let length = five8::encode_64(bytes, &mut text);
    ascii(&text, length)
}

fn ascii(text: &[u8], length: u8) -> String {
    text[..usize::from(length)].iter().copied().map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_exactly_as_many_bytes_as_it_stands_for() {
        for bytes in [[0; 32], [255; 32], [7; 32]] {
            let text = encode_32(&bytes);
            assert_eq!(decode_32(&text), Some(bytes));
            assert_eq!(decode_64(&text), None);
            for wrong in [format!("1{text}"), format!("{text}1"), text[2..].to_owned()] {
                assert_eq!(decode_32(&wrong), None, "{wrong}");
            }
        }
        for bytes in [[0; 64], [255; 64], [7; 64]] {
            let text = encode_64(&bytes);
            assert_eq!(decode_64(&text), Some(bytes));
            assert_eq!(decode_32(&text), None);
        }
        for nothing in ["", "0", "O", "I", "l", "é", &"1".repeat(100_000), &"z".repeat(100_000)] {
            assert_eq!((decode_32(nothing), decode_64(nothing)), (None, None), "{nothing:.10}");
        }
    }
}
