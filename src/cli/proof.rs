//! `tidemark verify-proof`: a proof of a balance, checked without a node, a store or a configuration.
//!
//! The file may be anybody's. Nothing in it is taken for true or shown that the check does not cover.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::Usage;
use crate::{
    chain::{AssetKey, BalanceProof, Family, Layout, Place, Proven, StorageProof},
    clock::Millis,
};

/// A proof has some 20 KB.
const LARGEST: u64 = 16 * 1024 * 1024;

/// What is checked.
#[derive(Clone, Debug, clap::Args)]
pub struct ProofArgs {
    /// What GET /v1/wallets/…/proof has answered; from the standard input with - or nothing.
    #[arg(value_name = "FILE", default_value = "-")]
    pub file: PathBuf,
    /// The hash of the block, from a source that you trust: the proof must be of this block.
    #[arg(long, value_name = "HASH")]
    pub block_hash: Option<String>,
}

/// The file proves nothing; the process answers 1.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("nothing is proven: {0}")]
pub struct Unproven(String);

impl Unproven {
    fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

/// What a proof says of itself.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Told {
    address: String,
    asset: ToldAsset,
    balance: ToldBalance,
    block: ToldBlock,
    header: String,
    account: String,
    account_proof: Vec<String>,
    storage_proof: Vec<ToldWord>,
    place: Option<ToldPlace>,
}

#[derive(Debug, Deserialize)]
struct ToldAsset {
    id: String,
}

#[derive(Debug, Deserialize)]
struct ToldBalance {
    raw: String,
}

#[derive(Debug, Deserialize)]
struct ToldBlock {
    number: u64,
    hash: String,
    time: String,
}

#[derive(Debug, Deserialize)]
struct ToldWord {
    key: String,
    value: String,
    proof: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct ToldPlace {
    layout: String,
    slot: String,
    bits: u16,
}

/// Checks a file and tells of it.
///
/// # Errors
/// [`Unproven`], or what made the check impossible.
pub(super) fn run(args: &ProofArgs) -> anyhow::Result<()> {
    let text = read(&args.file)
        .map_err(|error| Usage(format!("{} cannot be read: {error}", args.file.display())))?;
    println!("{}", verified(&text, args.block_hash.as_deref())?);
    Ok(())
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    if file == Path::new("-") {
        io::stdin().take(LARGEST).read_to_end(&mut text)?;
    } else {
        File::open(file)?.take(LARGEST).read_to_end(&mut text)?;
    }
    Ok(text)
}

/// What is proven, in words, and what is not.
pub(super) fn verified(text: &[u8], trusted: Option<&str>) -> anyhow::Result<String> {
    let told: Told = serde_json::from_slice(text)
        .map_err(|error| Unproven::new(format!("the file is no proof of a balance: {error}")))?;
    let (family, caip2, asset) = Family::parse_caip19(&told.asset.id)
        .ok_or_else(|| Unproven::new("asset.id names no asset that is known here"))?;
    let trusted = trusted.map(|hash| {
        let wrong = || Usage("--block-hash is not the hash of a block".to_owned());
        family.parse_block_hash(hash).ok_or_else(wrong)
    });
    let trusted = trusted.transpose()?;
    let proof = told.proof(family, asset)?;
    let proven = family.check_proof(&proof).map_err(|error| Unproven::new(error.to_string()))?;
    told.agrees(family, &proof, &proven)?;
    if trusted.is_some_and(|hash| hash != proven.at.hash) {
        let hash = family.format_block_hash(&proven.at.hash);
        return Err(Unproven::new(format!("it is of another block, {hash}")).into());
    }
    Ok(report(family, caip2, &proof, &proven, trusted.is_some()))
}

impl Told {
    fn proof(&self, family: Family, asset: AssetKey) -> Result<BalanceProof, Unproven> {
        let owner = family.parse_address(&self.address);
        let owner = owner.map_err(|error| Unproven::new(format!("address: {error}")))?;
        let storage = match (&self.place, self.storage_proof.as_slice()) {
            (None, []) => None,
            (Some(place), [word]) => Some(word.storage(place)?),
            _ => return Err(Unproven::new("place and storageProof do not belong together")),
        };
        Ok(BalanceProof {
            owner,
            asset,
            header: bytes("header", &self.header)?,
            account: all_bytes("accountProof", &self.account_proof)?,
            storage,
        })
    }

    /// Whether what is said beside the proof is what it shows.
    fn agrees(
        &self,
        family: Family,
        proof: &BalanceProof,
        proven: &Proven,
    ) -> Result<(), Unproven> {
        let Self { balance, block, account, address, .. } = self;
        let whose = match proof.asset {
            AssetKey::Native => proof.owner,
            AssetKey::Token(contract) => contract,
        };
        let time = Millis::from_seconds(proven.time).to_string();
        let number = proven.at.number;
        let hash = family.format_block_hash(&proven.at.hash);
        for (what, told, shown) in [
            ("block.hash", &block.hash, &hash),
            ("block.number", &block.number.to_string(), &number.to_string()),
            ("block.time", &block.time, &time),
            ("balance.raw", &balance.raw, &proven.amount.to_string()),
            ("account", account, &family.format_address(&whose)),
            ("address", address, &family.format_address(&proof.owner)),
        ] {
            if told != shown {
                return Err(Unproven::new(format!("{what} is not what the proof shows, {shown}")));
            }
        }
        Ok(())
    }
}

impl ToldWord {
    fn storage(&self, place: &ToldPlace) -> Result<StorageProof, Unproven> {
        let layout = Layout::parse(&place.layout)
            .ok_or_else(|| Unproven::new("place.layout is none that is known here"))?;
        Ok(StorageProof {
            place: Place { layout, slot: word("place.slot", &place.slot)?, bits: place.bits },
            key: word("storageProof.key", &self.key)?,
            value: word("storageProof.value", &self.value)?,
            nodes: all_bytes("storageProof.proof", &self.proof)?,
        })
    }
}

fn bytes(what: &str, text: &str) -> Result<Vec<u8>, Unproven> {
    let digits = text.strip_prefix("0x").and_then(|digits| hex::decode(digits).ok());
    digits.ok_or_else(|| Unproven::new(format!("{what} is not in hexadecimal digits after 0x")))
}

fn all_bytes(what: &str, texts: &[String]) -> Result<Vec<Vec<u8>>, Unproven> {
    texts.iter().map(|text| bytes(what, text)).collect()
}

fn word(what: &str, text: &str) -> Result<[u8; 32], Unproven> {
    let wrong = |_| Unproven::new(format!("{what} has not 32 bytes"));
    bytes(what, text)?.try_into().map_err(wrong)
}

fn report(
    family: Family,
    caip2: &str,
    proof: &BalanceProof,
    proven: &Proven,
    is_trusted: bool,
) -> String {
    let hash = family.format_block_hash(&proven.at.hash);
    let address = family.format_address(&proof.owner);
    let (number, time) = (proven.at.number, Millis::from_seconds(proven.time));
    let is_block = if is_trusted {
        "It is the block that you named."
    } else {
        "Not proven: that this block is on the chain. Compare its hash with a source that you trust, or name it \
         with --block-hash."
    };
    let amount = proven.amount;
    let mut lines = vec![format!("Proven for block {number} with the hash {hash}, of {time}:")];
    match (&proof.asset, &proof.storage) {
        (AssetKey::Token(contract), Some(StorageProof { place, key, .. })) => {
            let Place { layout, slot, bits } = place;
            let contract = family.format_address(contract);
            lines.push(format!(
                "The lowest {bits} bits in slot 0x{} of the storage of {contract} are {amount}.",
                hex::encode(key)
            ));
            lines.push(format!(
                "That slot is the address's in the mapping at slot 0x{} ({layout}). If the contract keeps balances \
                 there, {address} has {amount} base units of it.",
                hex::encode(slot)
            ));
        }
        _ => lines.push(format!("{address} has {amount} base units of the native coin.")),
    }
    lines.push(is_block.to_owned());
    lines.push(format!(
        "Not proven: that the chain is {caip2}, as the file says. No header names its chain; its hash does."
    ));
    if proof.storage.is_some() {
        lines.push(
            "Not proven: that it does. Look into its source code, or call balanceOf at that block."
                .to_owned(),
        );
    }
    lines.push("Not proven: names, symbols and decimals in the file.".to_owned());
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    /// Answers of a daemon that followed Anvil: of a token, and of the native coin.
    const RECORDED: [&str; 2] =
        [include_str!("proof/token.json"), include_str!("proof/native.json")];

    fn recorded() -> [Value; 2] {
        RECORDED.map(|text| serde_json::from_str(text).expect("a recorded proof"))
    }

    fn verify(proof: &Value) -> anyhow::Result<String> {
        verified(proof.to_string().as_bytes(), None)
    }

    /// The places of all that a proof covers.
    fn places(proof: &Value) -> Vec<String> {
        let mut places: Vec<String> = [
            "/address",
            "/asset/id",
            "/balance/raw",
            "/block/number",
            "/block/hash",
            "/block/time",
        ]
        .into_iter()
        .chain(["/header", "/account"])
        .map(str::to_owned)
        .collect();
        let list = |of: &str| proof.pointer(of).and_then(Value::as_array).map_or(0, Vec::len);
        places.extend((0..list("/accountProof")).map(|n| format!("/accountProof/{n}")));
        if list("/storageProof") > 0 {
            let own = ["/place/layout", "/place/slot", "/place/bits"];
            places.extend(own.map(str::to_owned));
            places.extend(["key", "value"].map(|of| format!("/storageProof/0/{of}")));
            let nodes = list("/storageProof/0/proof");
            places.extend((0..nodes).map(|n| format!("/storageProof/0/proof/{n}")));
        }
        places
    }

    #[test]
    fn what_a_daemon_has_answered_is_proven_and_said_in_plain_words() {
        for proof in recorded() {
            let said = verify(&proof).expect("a proof");
            let raw = proof["balance"]["raw"].as_str().expect("digits");
            let address = proof["address"].as_str().expect("an address");
            assert!(said.contains(&format!("{address} has {raw} base units")), "{said}");
            assert!(said.contains("Not proven: that this block is on the chain"), "{said}");
            let hash = proof["block"]["hash"].as_str().expect("a hash");
            let named = verified(proof.to_string().as_bytes(), Some(hash)).expect("that block");
            assert!(named.contains("the block that you named"), "{named}");
            let other = format!("0x{}", "5a".repeat(32));
            let other = verified(proof.to_string().as_bytes(), Some(&other));
            assert!(other.expect_err("another block").is::<Unproven>());
            let bad = verified(proof.to_string().as_bytes(), Some("0x5a"));
            assert!(bad.expect_err("no hash").is::<Usage>());
        }
    }

    #[test]
    fn nothing_that_a_stranger_wrote_beside_the_proof_is_shown() {
        for mut proof in recorded() {
            proof["asset"]["symbol"] = "\u{1b}[31mEVIL".into();
            proof["asset"]["decimals"] = 0.into();
            proof["check"] = "trust me".into();
            let said = verify(&proof).expect("the proof itself");
            assert!(!said.contains("EVIL") && !said.contains("trust me"), "{said}");
        }
    }

    #[test]
    fn what_is_missing_or_of_another_shape_proves_nothing() {
        for proof in recorded() {
            for (field, value) in proof.as_object().expect("an object") {
                let is_covered = places(&proof).iter().any(|place| {
                    place[1..].split('/').next() == Some(field) || field.contains("torage")
                });
                let mut less = proof.clone();
                less.as_object_mut().expect("an object").remove(field);
                let needed = is_covered && !value.is_null();
                assert_eq!(verify(&less).is_err(), needed, "without {field}");
            }
        }
        for text in ["", "{}", "[]", "null", "\"0x\""] {
            assert!(verified(text.as_bytes(), None).is_err(), "{text}");
        }
    }

    #[test]
    fn one_block_has_one_balance_of_an_address_whatever_a_file_says() {
        let [token, native] = recorded();
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let (hash, address) = (text(&native["block"]["hash"]), text(&native["address"]));
        let has =
            format!("{address} has {} base units of the native", text(&native["balance"]["raw"]));
        let key = text(&token["storageProof"][0]["key"]);
        let holds = format!("slot {key} of the storage of {} are ", text(&token["account"]));
        let files = [&token, &native].map(|proof| proof.to_string().into_bytes()).to_vec();
        crate::fuzz::run("balance_proof", files, |input| match verified(input, None) {
            Ok(said) if said.contains(&hash) && said.contains(" of the native coin") => {
                assert!(!said.contains(&address) || said.contains(&has), "{said}");
                "a coin".to_owned()
            }
            Ok(said) => {
                let is_whole = said.contains("lowest 256 bits") && said.contains(&holds);
                assert!(!is_whole || said.contains(&text(&token["balance"]["raw"])), "{said}");
                "a token".to_owned()
            }
            Err(error) => error.to_string().chars().take(40).collect(),
        });
    }

    proptest! {
        #[test]
        fn no_field_of_a_proof_can_say_something_else(
            which in 0..2_usize, place: prop::sample::Index, at: prop::sample::Index, digit in 1..16_u32,
        ) {
            let mut proof = recorded()[which].clone();
            let places = places(&proof);
            let place = &places[place.index(places.len())];
            let value = proof.pointer_mut(place).expect("a field");
            let before = value.clone();
            *value = match &before {
                Value::Number(number) => (number.as_u64().expect("a number") ^ u64::from(digit)).into(),
                Value::String(text) => {
                    let mut text: Vec<char> = text.chars().collect();
                    let at = at.index(text.len());
                    // Which chain the file names is not proven, and said to be so.
                    let start = if place == "/asset/id" { 13 } else { 0 };
                    let at = at.max(start.min(text.len() - 1));
                    text[at] = match text[at].to_digit(16) {
                        Some(old) => char::from_digit(old ^ digit, 16).expect("a digit"),
                        None => '~',
                    };
                    text.into_iter().collect::<String>().into()
                }
                other => panic!("{other}"),
            };
            // The coin's number in SLIP-44 says nothing of what is held.
            if place == "/asset/id" && before.as_str().expect("a text").contains("slip44") {
                return Ok(());
            }
            prop_assert!(verify(&proof).is_err(), "{place}: {before} as {}", proof.pointer(place).expect("it"));
        }
    }
}
