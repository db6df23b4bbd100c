//! The text that the owner of an address signs to show that it is theirs: EIP-4361 on EVM chains, and
//! Sign-In With Solana (the `sign-in-with-solana` grammar of Phantom's specification, which the wallet
//! standard's `solana:signIn` builds too), which is modelled on it.
//!
//! What a user says stands in the text only as a [`Domain`], [`Uri`], [`Statement`] or [`Nonce`]: their
//! grammars know no line break, so nobody can add a line to a message or pass one field off as another.

use std::{fmt, net::Ipv6Addr, str::FromStr};

use super::BadValue;
use crate::clock::Millis;

/// The version of both specifications.
pub const VERSION: &str = "1";

const LONGEST_HOST: usize = 253;
const LONGEST_STATEMENT: usize = 500;
const LONGEST_URI: usize = 2048;
/// EIP-4361 asks for so many; see [`Nonce::random`] for ours.
const SHORTEST_NONCE: usize = 8;
/// log2(62^22) = 131 bits.
const NONCE: usize = 22;

macro_rules! texts {
    ($($(#[$doc:meta])* $name:ident = $is:expr, $what:literal;)*) => { $(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name(String);

        impl FromStr for $name {
            type Err = BadValue;

            fn from_str(text: &str) -> Result<Self, BadValue> {
                let is: fn(&str) -> bool = $is;
                if is(text) { Ok(Self(text.to_owned())) } else { Err(BadValue($what)) }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )* };
}

texts! {
    /// Who asks for the signature: an authority of RFC 3986 as browsers show it, a host with its port if it
    /// has one. User information, which only ever deceives (`bank.example@thief.example`), is refused.
    Domain = is_authority,
        "host with its port if it has one, such as app.example or localhost:3000, without scheme and \
         path (international names in Punycode)";
    /// What the signature is for: a URI of RFC 3986.
    Uri = is_uri, "URI of at most 2048 characters, such as https://app.example/login";
    /// What the user agrees to by signing. The alphabet is EIP-4361's own.
    Statement = is_statement,
        "line of 1 to 500 letters, digits, spaces and - . _ ~ : / ? # [ ] @ ! $ & ' ( ) * + , ; = (that \
         is all EIP-4361 allows)";
    /// What makes a message the only one of its kind.
    Nonce = is_nonce, "nonce of at least 8 letters and digits";
}

impl Uri {
    /// The root of a site.
    #[must_use]
    pub fn of(domain: &Domain) -> Self {
        Self(format!("https://{domain}"))
    }
}

impl Nonce {
    /// 22 letters and digits: 131 bits, if `rng` is a cryptographic one.
    pub fn random(rng: impl rand::CryptoRng) -> Self {
        use rand::Rng as _;
        Self(rng.sample_iter(rand::distr::Alphanumeric).take(NONCE).map(char::from).collect())
    }
}

const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

const fn is_sub_delimiter(byte: u8) -> bool {
    matches!(byte, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=')
}

fn is_statement(text: &str) -> bool {
    let allowed = |byte| {
        is_unreserved(byte)
            || is_sub_delimiter(byte)
            || matches!(byte, b' ' | b':' | b'/' | b'?' | b'#' | b'[' | b']' | b'@')
    };
    (1..=LONGEST_STATEMENT).contains(&text.len()) && text.bytes().all(allowed)
}

fn is_nonce(text: &str) -> bool {
    text.len() >= SHORTEST_NONCE && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

fn is_authority(text: &str) -> bool {
    let (is_host, port) = if let Some(rest) = text.strip_prefix('[') {
        let Some((ip, rest)) = rest.split_once(']') else { return false };
        (ip.parse::<Ipv6Addr>().is_ok(), rest)
    } else {
        let (host, port) = text.split_at(text.find(':').unwrap_or(text.len()));
        let named = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        ((1..=LONGEST_HOST).contains(&host.len()) && host.bytes().all(named), port)
    };
    is_host && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
}

fn is_port(text: &str) -> bool {
    // A number's parser would take a sign too.
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok_and(|port| port > 0)
}

fn is_uri(text: &str) -> bool {
    if text.len() > LONGEST_URI {
        return false;
    }
    let Some((scheme, rest)) = text.split_once(':') else { return false };
    let is_scheme = scheme.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
    let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (is_place, path) = match rest.strip_prefix("//") {
        Some(rest) => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            (is_authority(authority), path)
        }
        None => (!rest.is_empty(), rest),
    };
    is_scheme && is_place && [path, query, fragment].into_iter().all(is_path)
}

/// The characters of a path, a query or a fragment, with whole percent encodings.
fn is_path(text: &str) -> bool {
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let is = match byte {
            b'%' => {
                let mut digit = || bytes.next().is_some_and(|byte| byte.is_ascii_hexdigit());
                digit() && digit()
            }
            b':' | b'@' | b'/' | b'?' => true,
            _ => is_unreserved(byte) || is_sub_delimiter(byte),
        };
        if !is {
            return false;
        }
    }
    true
}

/// A chain as sign-in messages name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Whose account it is, in the message's first line.
    pub(super) account: &'static str,
    pub(super) id: String,
    /// What stands between the address and the fields where there is no statement: the one place in which
    /// the grammars differ.
    pub(super) gap: &'static str,
}

impl Network {
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }
}

/// Everything that a message says.
#[derive(Clone, Debug)]
pub struct SignIn {
    pub network: Network,
    pub domain: Domain,
    /// As the family writes it.
    pub address: String,
    pub statement: Option<Statement>,
    pub uri: Uri,
    pub nonce: Nonce,
    pub issued_at: Millis,
    pub expires_at: Millis,
}

/// The text to be signed, byte for byte; lines end with LF, and the last one with nothing.
impl fmt::Display for SignIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Network { account, id, gap } = &self.network;
        writeln!(f, "{} wants you to sign in with your {account} account:", self.domain)?;
        f.write_str(&self.address)?;
        match &self.statement {
            Some(statement) => write!(f, "\n\n{statement}\n\n")?,
            None => f.write_str(gap)?,
        }
        write!(
            f,
            "URI: {}\nVersion: {VERSION}\nChain ID: {id}\nNonce: {}\nIssued At: {}\nExpiration Time: {}",
            self.uri, self.nonce, self.issued_at, self.expires_at
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::Family;

    fn sign_in(family: Family, caip2: &str, statement: Option<&str>) -> SignIn {
        SignIn {
            network: family.network(caip2).expect("a family with messages"),
            domain: "app.example:8443".parse().expect("a domain"),
            address: "ADDRESS".to_owned(),
            statement: statement.map(|text| text.parse().expect("a statement")),
            uri: "https://app.example:8443/login?a=b#c".parse().expect("a URI"),
            nonce: "32891756abc".parse().expect("a nonce"),
            issued_at: Millis(1_768_469_400_000),
            expires_at: Millis(1_768_470_000_000),
        }
    }

    const FIELDS: &str = "Nonce: 32891756abc\nIssued At: 2026-01-15T09:30:00.000Z\nExpiration Time: \
                          2026-01-15T09:40:00.000Z";

    #[test]
    fn an_evm_message_follows_eip_4361_which_leaves_two_lines_without_a_statement() {
        let with = sign_in(Family::Evm, "eip155:8453", Some("I accept (all of it)."));
        let expected = format!(
            "app.example:8443 wants you to sign in with your Ethereum account:\nADDRESS\n\n\
             I accept (all of it).\n\nURI: https://app.example:8443/login?a=b#c\nVersion: 1\n\
             Chain ID: 8453\n{FIELDS}"
        );
        assert_eq!(with.to_string(), expected);
        let without = sign_in(Family::Evm, "eip155:8453", None).to_string();
        assert_eq!(without, expected.replace("I accept (all of it).\n", ""));
    }

    #[test]
    fn a_solana_message_follows_its_grammar_which_leaves_one_line_without_a_statement() {
        let mainnet = "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp";
        let with = sign_in(Family::Solana, mainnet, Some("I accept."));
        let expected = format!(
            "app.example:8443 wants you to sign in with your Solana account:\nADDRESS\n\n\
             I accept.\n\nURI: https://app.example:8443/login?a=b#c\nVersion: 1\n\
             Chain ID: mainnet\n{FIELDS}"
        );
        assert_eq!(with.to_string(), expected);
        let without = sign_in(Family::Solana, mainnet, None).to_string();
        assert_eq!(without, expected.replace("I accept.\n\n", ""));
        let id = |caip2| Family::Solana.network(caip2).map(|network| network.id);
        assert_eq!(id("solana:EtWTRABZaYq6iMfeYKouRu166VU2xqa1").as_deref(), Some("devnet"));
        assert_eq!(id("solana:anythingelse").as_deref(), Some("localnet"));
        assert_eq!(id("tron:0x2b6653dc"), None);
    }

    #[test]
    fn a_domain_is_a_host_and_its_port() {
        for good in [
            "app.example",
            "localhost:3000",
            "127.0.0.1:80",
            "[::1]:8080",
            "[2001:db8::1]",
            "xn--a",
        ] {
            assert!(good.parse::<Domain>().is_ok(), "{good}");
        }
        for bad in [
            "",
            " ",
            "a b",
            "a\nb",
            "a\r",
            "a\u{2028}b",
            "https://a",
            "a/b",
            "a?b",
            "a#b",
            "u@a",
            "a:",
            "a:0",
            "a:65536",
            "a:+80",
            "a:80:80",
            ":80",
            "[::1",
            "[x]",
            "[::1]x",
            "ä.example",
            "a%41",
            &"a".repeat(254),
        ] {
            assert!(bad.parse::<Domain>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_uri_has_a_scheme_and_only_characters_that_a_uri_may_have() {
        for good in [
            "https://app.example",
            "https://a:1/b/c?d=e&f#g?h",
            "did:key:z6Mk",
            "urn:a",
            "app+x://a/%20",
            "http://[::1]:3000/",
            "https://a/?x=%2F",
        ] {
            assert!(good.parse::<Uri>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "app.example",
            "/a",
            ":a",
            "1a:b",
            "https:",
            "https://",
            "https://u@a/",
            "https://a b",
            "https://a/\nb",
            "https://a/\u{7f}",
            "https://a/\"",
            "https://a/<",
            "https://a/%2",
            "https://a/%zz",
            "https://a/ä",
            "https://a/#b#c",
            "https://a/[b]",
            &format!("https://a/{}", "a".repeat(2048)),
        ] {
            assert!(bad.parse::<Uri>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_statement_is_one_line_of_the_alphabet_of_eip_4361() {
        for good in
            ["I accept the ExampleOrg Terms of Service: https://example.com/tos", "a", "[x] #1"]
        {
            assert!(good.parse::<Statement>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "a\nb",
            "a\rb",
            "a\tb",
            "a\u{85}b",
            "a\u{2028}b",
            "a\"b",
            "100%",
            "é",
            &"a".repeat(501),
        ] {
            assert!(bad.parse::<Statement>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_nonce_is_long_and_never_the_same() {
        let (one, two) = (Nonce::random(rand::rng()), Nonce::random(rand::rng()));
        assert_ne!(one, two);
        assert_eq!(one.to_string().len(), NONCE);
        assert_eq!(one.to_string().parse(), Ok(one));
        assert!("short12".parse::<Nonce>().is_err());
        assert!("with space".parse::<Nonce>().is_err());
    }
}
