//! When blocks settle on a chain.

use super::*;

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
        assert!(limit * 10 >= usual * 17, "{}: {usual} s are usual, {limit} s are a stall", known.name);
        if known.name == name {
            assert!(limit <= (usual * 4).max(120), "{}: a stall of {limit} s is seen late", known.name);
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
