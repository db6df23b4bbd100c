//! What token contracts say of themselves: name, symbol, decimals. Whoever made a contract chose it, so it is only
//! compared with the configuration, and shown to operators in a bounded form.

use alloy::{hex, primitives::Address as EvmAddress};

use super::{
    json::Hex,
    multicall::{LATEST, Multicall, WORD, place},
};
use crate::chain::{
    TokenFacts,
    rpc::{Call, Endpoint, Failure},
};

/// Characters of a name or a symbol that are kept.
const MOST_SHOWN: usize = 40;
/// The selectors of `decimals()`, `symbol()` and `name()`.
const QUESTIONS: [[u8; 4]; 3] =
    [[0x31, 0x3c, 0xe5, 0x67], [0x95, 0xd8, 0x9b, 0x41], [0x06, 0xfd, 0xde, 0x03]];

/// What each of these contracts says by the newest state. A contract that says nothing, or nothing that can be
/// understood, fails nothing.
pub(super) async fn facts(
    endpoint: &Endpoint,
    multicall: &Multicall,
    tokens: &[EvmAddress],
) -> Result<Vec<TokenFacts>, Failure> {
    let calls: Vec<(EvmAddress, Vec<u8>)> = tokens
        .iter()
        .flat_map(|token| QUESTIONS.map(|question| (*token, question.to_vec())))
        .collect();
    let mut returned = multicall.returned(endpoint, &calls).await?;
    // A contract that uses up all gas makes those after it fail: each is asked by itself.
    let open: Vec<usize> = (0..calls.len()).filter(|&n| returned[n].is_none()).collect();
    let asked: Vec<Call> = open
        .iter()
        .map(|&n| {
            let (token, data) = &calls[n];
            let data = hex::encode_prefixed(data);
            Call::new("eth_call", format!(r#"[{{"to":"{token:?}","data":"{data}"}},{LATEST}]"#))
        })
        .collect();
    for (n, answer) in open.into_iter().zip(endpoint.batch(&asked).await?) {
        returned[n] = answer.ok().and_then(|answer| answer.parse::<Hex<'_>>().ok()?.to_vec());
    }
    let facts = returned.chunks(QUESTIONS.len()).map(|told| match told {
        [told_decimals, symbol, name] => TokenFacts {
            decimals: told_decimals.as_deref().and_then(decimals),
            symbol: symbol.as_deref().and_then(text),
            name: name.as_deref().and_then(text),
        },
        _ => TokenFacts::default(),
    });
    Ok(facts.collect())
}

/// One word that is a small number.
fn decimals(returned: &[u8]) -> Option<u8> {
    let [zeros @ .., last] = returned else { return None };
    (zeros.len() == WORD - 1 && zeros.iter().all(|byte| *byte == 0)).then_some(*last)
}

/// A `string`, or the `bytes32` of the time before it (MKR, SAI): up to its first zero.
fn text(returned: &[u8]) -> Option<String> {
    let bytes = if returned.len() == WORD {
        returned
    } else {
        let content = returned.get(place(returned, 0)?..)?;
        let length = place(content, 0)?;
        let content = content.get(WORD..)?;
        // What is over the limit was not kept.
        &content[..content.len().min(length)]
    };
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    shown(&bytes[..end])
}

/// A text that a stranger chose, fit to be shown: short, and without anything that is not seen, or that turns the
/// direction of what is; `None` if nothing is left.
fn shown(bytes: &[u8]) -> Option<String> {
    let hidden = |c: &char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    let text = String::from_utf8_lossy(bytes);
    let shown: String = text.chars().filter(|c| !hidden(c)).take(MOST_SHOWN).collect();
    let shown = shown.trim();
    (!shown.is_empty()).then(|| shown.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn word(number: u8) -> [u8; 32] {
        let mut word = [0; 32];
        word[31] = number;
        word
    }

    fn string(content: &[u8], length: u8) -> Vec<u8> {
        [&word(32), &word(length), content].concat()
    }

    #[test]
    fn a_symbol_is_read_from_a_string_and_from_bytes32() {
        let mut maker = [0; 32];
        maker[..3].copy_from_slice(b"MKR");
        assert_eq!(text(&maker).as_deref(), Some("MKR"));
        let mut padded = [0; 32];
        padded[..4].copy_from_slice(b"DUSD");
        assert_eq!(text(&string(&padded, 4)).as_deref(), Some("DUSD"));
        assert_eq!(text(&string("USD₮0".as_bytes(), 7)).as_deref(), Some("USD₮0"));
        assert_eq!(text(&string(&[], 0)), None);
        assert_eq!(text(&[0; 32]), None);
        assert_eq!(text(&[]), None);
    }

    #[test]
    fn a_hostile_symbol_is_bounded_and_has_nothing_in_it_that_a_terminal_obeys() {
        let text = |content: &[u8]| text(&string(content, 255)).unwrap_or_default();
        assert_eq!(text(b"A\x1b[2J\nB\xff\xfeC"), "A[2JB\u{fffd}\u{fffd}C");
        assert_eq!(text("US\u{202e}DC\u{200b}".as_bytes()), "USDC");
        let long = "X".repeat(992);
        let kept = text(long.as_bytes());
        assert!(kept.starts_with("XXX") && kept.chars().count() <= MOST_SHOWN, "{kept}");
    }

    #[test]
    fn decimals_are_one_word_below_256() {
        assert_eq!(decimals(&word(6)), Some(6));
        assert_eq!(decimals(&word(255)), Some(255));
        let mut large = word(6);
        large[30] = 1;
        for none in [&large[..], &[], &[6], &[0; 64]] {
            assert_eq!(decimals(none), None);
        }
    }

    proptest! {
        #[test]
        fn whatever_a_contract_returns_is_read_without_harm(
            returned in proptest::collection::vec(any::<u8>(), 0..200),
            lengths in any::<[u8; 2]>(),
        ) {
            decimals(&returned);
            for bytes in [returned.clone(), [&word(lengths[0])[..], &word(lengths[1]), &returned].concat()] {
                let Some(text) = text(&bytes) else { continue };
                prop_assert!(text.chars().count() <= MOST_SHOWN && !text.contains(char::is_control));
            }
        }
    }
}
