use serde_json::{Value, json};

use super::{
    checker, config, endpoint, mixed_block, mixed_receipts,
    node::{Node, Reply, honest},
    read,
};
use crate::{
    chain::{
        Address, BlockHash, BlockRef, Family, SafeCandidate, SafePlugs, SafeRejection, SafeSource,
        SafeState, evm::EvmSource,
    },
    config::Verification,
    metrics::Metrics,
};

const SAFE: &str = "0xc77390af00000000000000000000000000000001";
const FACTORY_1_3_0: &str = "0xa6b71e26c5e0845f74c812102ca7114b6a896ab2";
const FACTORY_1_4_1: &str = "0x4e1dcf7ad4e460cfd30791ccc4f9c8a4f820ec67";
const OWNERS: [&str; 2] =
    ["0x70997970c51812dc3a010c7d01b50e0d17dc79c8", "0x3c44cdddb6a900fa2b585dd299e03d12fa4293bc"];

fn who(text: &str) -> Address {
    Family::Evm.parse_address(text).expect("an address")
}

fn word(hexadecimal: &str) -> String {
    format!("{:0>64}", hexadecimal.trim_start_matches("0x"))
}

fn setup() -> Value {
    setup_with("0")
}

/// It calls `initializer` while it is set up.
fn setup_with(initializer: &str) -> Value {
    let data = ["80", "1", initializer, "0", "2", OWNERS[0], OWNERS[1]].map(word).concat();
    json!({
        "address": SAFE,
        "topics": [
            "0x141df868a6331af528e38c83b7aa03edc19be66e37ae67f9285bf4f8e3c6a1a8",
            format!("0x{}", word(FACTORY_1_4_1)),
        ],
        "data": format!("0x{data}"),
    })
}

fn creation(factory: &str, indexed: bool) -> Value {
    creation_with(factory, indexed, "41675c099f32341bf84bfc5382af534df5c7461a")
}

fn creation_with(factory: &str, indexed: bool, singleton: &str) -> Value {
    let topic = "0x4f51faf6c4561ff95f067657e43439f0f856d97c04d9ec9070a6199ad418e235";
    let singleton = word(singleton);
    if indexed {
        json!({
            "address": factory,
            "topics": [topic, format!("0x{}", word(SAFE))],
            "data": format!("0x{singleton}"),
        })
    } else {
        json!({
            "address": factory,
            "topics": [topic],
            "data": format!("0x{}{singleton}", word(SAFE)),
        })
    }
}

fn candidates(logs: Value) -> Vec<SafeCandidate> {
    let mut receipts = mixed_receipts();
    receipts[0]["logs"] = logs;
    read(&checker(Verification::Links), &mixed_block(), &receipts).expect("a block").safes
}

#[test]
fn a_safe_is_seen_in_every_shape_of_its_creation() {
    for (factory, indexed) in [(FACTORY_1_3_0, false), (FACTORY_1_4_1, true)] {
        let seen = candidates(json!([setup(), creation(factory, indexed)]));
        let [safe] = &seen[..] else { panic!("one Safe") };
        assert_eq!(safe.address, who(SAFE));
        assert_eq!(safe.factory, Some(who(factory)));
        assert_eq!(safe.owners, OWNERS.map(who));
        assert!(safe.plain);
    }
}

#[test]
fn a_safe_that_a_failed_user_operation_has_made_is_seen_all_the_same() {
    let name = "UserOperationEvent(bytes32,address,address,uint256,bool,uint256,uint256)";
    let failed = json!({
        "address": "0x0000000071727de22e5e9d8baf0edac6f37da032",
        "topics": [
            alloy::primitives::keccak256(name).to_string(),
            format!("0x{}", word("1")),
            format!("0x{}", word(SAFE)),
            format!("0x{}", word("0")),
        ],
        "data": format!("0x{}{}{}{}", word("0"), word("0"), word("5208"), word("5208")),
    });
    let seen = candidates(json!([setup(), creation(FACTORY_1_4_1, true), failed]));
    let [safe] = &seen[..] else { panic!("one Safe") };
    assert!(safe.address == who(SAFE) && safe.owners == OWNERS.map(who) && safe.plain);
}

/// `SafeToL2Setup` of 1.4.1, which every new Safe of the app is set up with.
const TO_L2: &str = "0xbd89a1ce4dde368ffab0ec35506eece0b1ffdc54";

fn changed_master_copy(singleton: &str) -> Value {
    json!({
        "address": SAFE,
        "topics": ["0x75e41bc35ff1bf14d81d1d2f649c0084a0f974f9289c803ec9898eeec4c8d0b8"],
        "data": format!("0x{}", word(singleton)),
    })
}

#[test]
fn a_safe_in_which_other_code_may_have_run_is_not_plain() {
    let plain = |logs: Value| candidates(logs).iter().all(|safe| safe.plain);
    let made = || creation(FACTORY_1_4_1, true);
    assert!(plain(json!([changed_master_copy(SINGLETON), setup_with(TO_L2), made()])));
    for logs in [
        // A delegate call can write what no reading of the modules shows.
        json!([setup_with(OWNERS[0]), made()]),
        json!([changed_master_copy(OWNERS[0]), setup_with(TO_L2), made()]),
        // Code of the first singleton.
        json!([setup(), creation_with(FACTORY_1_4_1, true, OWNERS[0])]),
        json!([setup(), creation_with(FACTORY_1_3_0, false, OWNERS[0])]),
        // One of these is a lie.
        json!([setup(), setup(), made()]),
        json!([setup_with(OWNERS[0]), setup(), made()]),
        // Whoever sets it up later.
        json!([made()]),
    ] {
        assert!(!plain(logs.clone()), "{logs}");
    }
}

#[test]
fn a_safe_whose_owners_are_not_those_of_its_setup_is_not_plain() {
    let claim = candidates(json!([setup(), creation(FACTORY_1_4_1, true)])).remove(0);
    let with = |owners: &[&str]| SafeState {
        version: "1.4.1",
        singleton: who(SINGLETON),
        owners: owners.iter().map(|owner| who(owner)).collect(),
        threshold: 1,
        plugs: SafePlugs::default(),
        plain: true,
    };
    assert!(with(&[OWNERS[1], OWNERS[0]]).set_up_as(&claim).plain);
    assert!(!with(&[OWNERS[0]]).set_up_as(&claim).plain, "somebody was an owner for a while");
    let unknown = SafeCandidate { factory: None, ..claim };
    assert!(!with(&OWNERS).set_up_as(&unknown).plain);
}

#[test]
fn a_setup_without_a_known_factory_is_seen_without_a_factory() {
    for logs in [json!([setup()]), json!([setup(), creation(OWNERS[0], true)])] {
        let seen = candidates(logs);
        let [safe] = &seen[..] else { panic!("one Safe") };
        assert_eq!((safe.factory, safe.owners.len()), (None, 2));
    }
}

#[test]
fn a_creation_that_anyone_could_emit_is_not_seen() {
    assert_eq!(candidates(json!([creation(OWNERS[0], true)])), []);
}

#[test]
fn a_proxy_that_was_not_set_up_is_seen_without_owners() {
    let seen = candidates(json!([creation(FACTORY_1_4_1, true)]));
    let [safe] = &seen[..] else { panic!("one Safe") };
    assert_eq!((safe.factory, safe.owners.len()), (Some(who(FACTORY_1_4_1)), 0));
}

#[test]
fn owners_that_do_not_decode_are_not_guessed() {
    let mut broken = setup();
    let text = broken["data"].as_str().expect("data").to_owned();
    broken["data"] = json!(text[..text.len() - 2]);
    let seen = candidates(json!([broken]));
    assert_eq!(seen[0].owners, []);
}

const FACTORY_1_1_1: &str = "0x76e2cfc1f5fa8f6a5b3fc4c8f4788f0116861f9b";

/// `ProxyCreation` as the factories before 1.3.0 log it.
fn early_creation(factory: &str) -> Value {
    json!({
        "address": factory,
        "topics": ["0xa38789425dbeee0239e16ff2d2567e31720127fbc6430758c1a4efc6aef29f80"],
        "data": format!("0x{}", word(SAFE)),
    })
}

/// What is claimed of a Safe that an early factory made, in a transaction that called `to` with `input`.
fn early(to: &str, input: &str) -> Vec<SafeCandidate> {
    let mut block = mixed_block();
    block["transactions"][0]["to"] = json!(to);
    block["transactions"][0]["input"] = json!(input);
    let mut receipts = mixed_receipts();
    receipts[0]["logs"] = json!([early_creation(FACTORY_1_1_1)]);
    read(&checker(Verification::Links), &block, &receipts).expect("a block").safes
}

/// `createProxy` or one of its kin, called with a setup of the two owners.
fn early_call(creation: &str, setup: &str) -> String {
    let owners = ["100", "1", "0", "0", "0", "0", "0", "0", "2", OWNERS[0], OWNERS[1]];
    let setup = format!("{setup}{}", owners.map(word).concat());
    let length = format!("{:x}", setup.len() / 2);
    let head = [OWNERS[0], "60", "7", &length].map(word).concat();
    format!("0x{creation}{head}{setup:0<800}")
}

#[test]
fn a_safe_from_before_1_3_0_is_seen_with_the_owners_of_its_call() {
    for creation in ["61b69abd", "1688f0b9", "d18af54d"] {
        for setup in ["a97ab18a", "b63e800d"] {
            let seen = early(FACTORY_1_1_1, &early_call(creation, setup));
            let [safe] = &seen[..] else { panic!("one Safe") };
            assert_eq!((safe.address, safe.factory), (who(SAFE), Some(who(FACTORY_1_1_1))));
            assert_eq!(safe.owners, OWNERS.map(who), "{creation} {setup}");
            assert!(!safe.plain, "nothing tells what ran in it");
        }
    }
}

#[test]
fn a_call_that_claims_no_owners_makes_none() {
    let whole = early_call("1688f0b9", "b63e800d");
    for (to, input) in [
        // Somebody else's contract, which called the factory in its turn.
        (OWNERS[0], whole.clone()),
        (FACTORY_1_1_1, early_call("1688f0b9", "00000000")),
        (FACTORY_1_1_1, early_call("00000000", "b63e800d")),
        (FACTORY_1_1_1, whole[..500].to_owned()),
        (FACTORY_1_1_1, "0x".to_owned()),
        (FACTORY_1_1_1, format!("0x1688f0b9{}", "f".repeat(192))),
    ] {
        let seen = early(to, &input);
        assert_eq!((seen.len(), seen[0].owners.len()), (1, 0), "{to} {input}");
    }
    let mut receipts = mixed_receipts();
    receipts[0]["logs"] = json!([early_creation(OWNERS[0])]);
    let block = read(&checker(Verification::Links), &mixed_block(), &receipts).expect("a block");
    assert_eq!(block.safes, [], "anyone can log that");
}

/// The runtime code of a proxy of 1.4.1.
const PROXY: &str = include_str!("safe_proxy.hex");

/// What the state proves of an address whose node answers like this.
async fn proof(
    code: &'static str,
    singleton: &'static str,
    owners: fn() -> Reply,
    threshold: &'static str,
) -> Result<SafeState, SafeRejection> {
    proof_with(code, singleton, owners, threshold, no_modules, |_| "0").await
}

fn no_modules() -> Reply {
    Reply::Result(json!(format!("0x{}", ["40", "1", "0"].map(word).concat())))
}

/// The same, with modules and with what is in its storage beside the singleton.
async fn proof_with(
    code: &'static str,
    singleton: &'static str,
    owners: fn() -> Reply,
    threshold: &'static str,
    modules: fn() -> Reply,
    plugged: fn(&str) -> &'static str,
) -> Result<SafeState, SafeRejection> {
    let node = Node::start(move |method, params| match method {
        "eth_getCode" => Reply::Result(json!(code.trim())),
        "eth_getStorageAt" => {
            let slot = params[1].as_str().expect("a slot").trim_start_matches("0x");
            let held =
                if slot.chars().all(|digit| digit == '0') { singleton } else { plugged(slot) };
            Reply::Result(json!(format!("0x{}", word(held))))
        }
        "eth_call" if params[0]["data"] == "0xa0e67e2b" => owners(),
        "eth_call" if params[0]["data"].as_str().is_some_and(|data| data.len() > 10) => modules(),
        "eth_call" => Reply::Result(json!(format!("0x{}", word(threshold)))),
        _ => honest(method, params),
    })
    .await;
    let config = config(vec![endpoint("one", &node.url, 1)]);
    let source = EvmSource::new(&config, Metrics::new()).expect("a source");
    let at = BlockRef { number: 1, hash: BlockHash([1; 32]) };
    source.safe_state(who(SAFE), at).await.expect("an answer")
}

fn two_owners() -> Reply {
    let words = ["20", "2", OWNERS[0], OWNERS[1]].map(word).concat();
    Reply::Result(json!(format!("0x{words}")))
}

fn no_owners() -> Reply {
    Reply::Result(json!(format!("0x{}", ["20", "0"].map(word).concat())))
}

const SINGLETON: &str = "0x29fcb43b46531bca003ddc8fcb67ffe91900c762";

#[tokio::test]
async fn a_safe_is_proven_by_code_singleton_owners_and_threshold() {
    let proven = proof(PROXY, SINGLETON, two_owners, "2").await.expect("a Safe");
    assert_eq!((proven.version, proven.threshold), ("1.4.1", 2));
    assert_eq!((proven.singleton, proven.owners), (who(SINGLETON), OWNERS.map(who).to_vec()));
    assert!(proven.plain);
}

fn in_slot(slot: &str, name: &str, value: &'static str) -> &'static str {
    if slot == name { value } else { "0" }
}

const HANDLER: &str = "0xfd0732dc9e303f09fcef3a7388ad10a83459ec99";
const HANDLER_SLOT: &str = "6c9a6c4a39284e37ed1cf53d337577d14212a4870fb976a4366c693b939918d5";
const GUARD_SLOT: &str = "4a204f620c8c5ccdca3fd54d003badd85ba500436a431f0cbda4f558c93c34c8";
const MODULE_GUARD_SLOT: &str = "b104e0b93118902c651344349b610029d694cfdec91c589c91ebafbcd0289947";

/// What is asked of the modules, what is in the storage, and whether that is plain.
type Case = (fn() -> Reply, fn(&str) -> &'static str, bool);

#[tokio::test]
async fn a_safe_with_anything_plugged_into_it_is_not_plain() {
    let one_module =
        || Reply::Result(json!(format!("0x{}", ["40", "1", "1", OWNERS[0]].map(word).concat())));
    let endless = || Reply::Result(json!(format!("0x{}", ["40", "0", "0"].map(word).concat())));
    let garbage = || Reply::Result(json!("0x01"));
    let reverted = || Reply::error(3, "execution reverted");
    let nothing = |_: &str| "0";
    let handler = |slot: &str| in_slot(slot, HANDLER_SLOT, HANDLER);
    let foreign = |slot: &str| in_slot(slot, HANDLER_SLOT, OWNERS[0]);
    let guard = |slot: &str| in_slot(slot, GUARD_SLOT, OWNERS[0]);
    let module_guard = |slot: &str| in_slot(slot, MODULE_GUARD_SLOT, OWNERS[0]);
    let overlong = |slot: &str| in_slot(slot, GUARD_SLOT, MODULE_GUARD_SLOT);
    let cases: [Case; 10] = [
        (no_modules, nothing, true),
        (no_modules, handler, true),
        (no_modules, foreign, false),
        (no_modules, guard, false),
        (no_modules, module_guard, false),
        (no_modules, overlong, false),
        (one_module, nothing, false),
        (endless, nothing, false),
        (garbage, nothing, false),
        (reverted, nothing, false),
    ];
    for (number, (modules, plugged, plain)) in cases.into_iter().enumerate() {
        let proven = proof_with(PROXY, SINGLETON, two_owners, "2", modules, plugged).await;
        assert_eq!(proven.expect("a Safe").plain, plain, "case {number}");
    }
}

#[tokio::test]
async fn what_is_not_a_safe_is_told_apart() {
    let reverted = || Reply::error(3, "execution reverted");
    // As Solidity failed before 0.8, in the Safes before 1.3.0.
    let invalid = || Reply::error(-32000, "invalid opcode: INVALID");
    let no_addresses = || Reply::Result(json!(format!("0x{}", word("20"))));
    let countless = || {
        let words = ["20".to_owned(), "101".to_owned()].map(|text| word(&text)).concat();
        Reply::Result(json!(format!("0x{words}{}", word(OWNERS[0]).repeat(257))))
    };
    for (code, singleton, owners, threshold, why) in [
        ("0x", SINGLETON, two_owners as fn() -> Reply, "2", SafeRejection::NoCode),
        ("0x6001", SINGLETON, two_owners, "2", SafeRejection::NotASafe),
        (PROXY, OWNERS[0], two_owners, "2", SafeRejection::UnknownSingleton),
        (PROXY, SINGLETON, two_owners, "0", SafeRejection::NotSetUp),
        (PROXY, SINGLETON, no_owners, "2", SafeRejection::NotSetUp),
        (PROXY, SINGLETON, reverted, "0", SafeRejection::NotSetUp),
        (PROXY, SINGLETON, invalid, "0", SafeRejection::NotSetUp),
        (PROXY, SINGLETON, no_addresses, "1", SafeRejection::Malformed),
        (PROXY, SINGLETON, countless, "1", SafeRejection::Malformed),
        (PROXY, SINGLETON, two_owners, "3", SafeRejection::Malformed),
        (PROXY, SINGLETON, two_owners, "8000000000000000", SafeRejection::Malformed),
        (PROXY, SINGLETON, two_owners, "10000000000000000", SafeRejection::Malformed),
    ] {
        assert_eq!(proof(code, singleton, owners, threshold).await, Err(why));
    }
}
