//! When blocks settle on a chain.

use super::*;
use crate::{chain::AssetKey, model::Tier};

#[test]
fn settlement_has_three_forms() {
    let settlement = |line: &str| chain("base", line).settlement;
    assert_eq!(settlement("settlement = \"safe\""), Settlement::Tag(SettlementTag::Safe));
    assert_eq!(settlement("settlement = \"finalized\""), Settlement::Tag(SettlementTag::Finalized));
    let twelve = "settlement = { confirmations = 12 }";
    assert_eq!(settlement(twelve), Settlement::Confirmations(12));
    chain_refused(
        "base",
        "settlement = \"latest\"",
        ".settlement",
        &["latest", "confirmations = 12"],
    );
    chain_refused(
        "base",
        "settlement = { blocks = 12 }",
        ".settlement",
        &["blocks", "confirmations"],
    );
    chain_refused("base", "settlement = {}", ".settlement.confirmations", &["missing"]);
    chain_refused("base", "settlement = { confirmations = -1 }", ".settlement.confirmations", &[]);
}

/// The slowest settlement that is usual, in seconds, as the chains' own documentation and exchanges have it.
const USUAL: &[(&str, u64)] = &[
    ("ethereum", 19 * 60),
    ("optimism", 30 * 60),
    ("bnb", 108),
    ("polygon", 8 * 60),
    ("base", 20 * 60),
    ("arbitrum", 17 * 60),
    ("avalanche", 5),
    ("sei", 1),
    ("solana", 13),
];

#[test]
fn every_known_chain_settles_by_its_own_finality_and_a_stall_is_longer_than_usual() {
    for known in known::CHAINS {
        let chain = chain(known.name, "");
        assert_eq!(chain.settlement, Settlement::Tag(SettlementTag::Finalized), "{}", known.name);
        let twin = known.name.split('-').next().unwrap();
        let name = if twin == "sepolia" { "ethereum" } else { twin };
        let (_, usual) = USUAL.iter().find(|(other, _)| *other == name).expect("a usual time");
        let limit = chain.settlement_limit.as_secs();
        assert!(
            limit * 10 >= usual * 17,
            "{}: {usual} s are usual, {limit} s are a stall",
            known.name
        );
        if known.name == name {
            assert!(
                limit <= (usual * 4).max(120),
                "{}: a stall of {limit} s is seen late",
                known.name
            );
        }
    }
}

#[test]
fn what_counts_as_a_stall_can_be_set() {
    assert_eq!(chain("polygon", "").settlement_limit, Duration::from_mins(16));
    assert_eq!(
        chain("polygon", "settlement_limit_seconds = 60").settlement_limit,
        Duration::from_mins(1)
    );
    let unknown = chain("mine", "family = \"evm\"\nchain_id = 31337\n");
    assert_eq!(unknown.settlement_limit, Duration::from_hours(1));
    chain_refused("base", "settlement_limit_seconds = 0", ".settlement_limit_seconds", &["from 1"]);
}

const TIERS: &str = "tiers = [
    { asset = \"USDC\", up_to = \"5000\", confirmations = 10 },
    { asset = \"ETH\", up_to = \"0.05\", confirmations = 2 },
    { asset = \"0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913\", up_to = \"1000.5\", confirmations = 3 },
]";

#[test]
fn tiers_are_written_in_whole_units_of_an_asset() {
    let chain = chain("base", TIERS);
    let usdc = chain.tokens.iter().find(|token| token.symbol == "USDC").unwrap().contract;
    let tier =
        |asset, up_to: u64, confirmations| Tier { asset, up_to: up_to.into(), confirmations };
    let usdc = AssetKey::Token(usdc);
    assert_eq!(
        chain.tiers,
        [
            tier(AssetKey::Native, 50_000_000_000_000_000, 2),
            tier(usdc, 1_000_500_000, 3),
            tier(usdc, 5_000_000_000, 10),
        ]
    );
    assert!(super::chain("base", "").tiers.is_empty(), "none without being asked");
}

#[test]
fn a_tier_that_cannot_be_meant_is_refused() {
    let refused = |tiers: &str, key: &str, words: &[&str]| {
        chain_refused("base", &format!("tiers = [{tiers}]"), &format!(".tiers{key}"), words);
    };
    refused("{ up_to_usd = 1000, confirmations = 3 }", "[0].up_to_usd", &["no prices", "up_to"]);
    refused("{ up_to = \"5\", confirmations = 3 }", "[0]", &["asset", "missing"]);
    refused("{ asset = \"USDC\", confirmations = 3 }", "[0]", &["up_to", "missing"]);
    let of = |asset: &str, up_to: &str, count: u32| {
        format!("{{ asset = \"{asset}\", up_to = \"{up_to}\", confirmations = {count} }}")
    };
    refused(&of("GOLD", "5", 3), "[0].asset", &["GOLD", "neither"]);
    for bad in ["0", "-5", "1e3", "0.0000001", "1,000"] {
        refused(&of("USDC", bad, 3), "[0].up_to", &["6 decimals"]);
    }
    refused(&of("USDC", "5", 0), "[0].confirmations", &["from 1"]);
    let both = format!("{}, {}", of("USDC", "1000", 10), of("USDC", "1000", 3));
    refused(&both, "[0].up_to", &["no more than", "3 confirmations"]);
    let late = format!("settlement = {{ confirmations = 3 }}\ntiers = [{}]", of("USDC", "5", 3));
    chain_refused("base", &late, ".tiers[0].confirmations", &["from 1 to 2"]);
    let solana = format!("tiers = [{}]", of("SOL", "5", 3));
    chain_refused("solana", &solana, ".tiers", &["solana"]);
}

#[test]
fn a_quorum_needs_two_endpoints() {
    assert_eq!(chain("base", "").quorum, 1);
    let text = "[chains.base]\nquorum = 2\nendpoints = [{ url = \"https://a.example\" }, \
                { url = \"https://b.example\" }]\n";
    assert_eq!(good(text).chains[&ChainName::new("base")].quorum, 2);
    chain_refused("base", "quorum = 2", ".quorum", &["one is configured", "Add an endpoint"]);
    for bad in [0, 3] {
        chain_refused("base", &format!("quorum = {bad}"), ".quorum", &["from 1 to 2"]);
    }
}
