//! Transactions are hashed as their specifications say.

use alloy::{
    consensus::{
        TxEip1559, TxEip2930, TxEip4844, TxEip7702, TxEnvelope, TxLegacy,
        proofs::calculate_transaction_root,
    },
    eips::{
        eip2930::{AccessList, AccessListItem},
        eip7702::Authorization,
    },
    primitives::{Address as EvmAddress, B256, Bytes, TxKind, U256},
};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::signing::{address, shown, sign, signature};
use crate::chain::evm::{
    decode,
    envelope::{Root, Transactions},
    json, senders,
};

/// What a node says of transactions, hashed.
fn hashed(shown: &[Value]) -> Transactions {
    hashed_of(shown, false)
}

fn hashed_of(shown: &[Value], is_development: bool) -> Transactions {
    let text = json!(shown).to_string();
    let told: Vec<json::Transaction<'_>> = serde_json::from_str(&text).expect("transactions");
    Transactions::hashed(&told, is_development)
}

/// Whether it is what its own hash says, and sent by whom it says.
fn is_genuine(shown: &Value) -> bool {
    let hashed = hashed(std::slice::from_ref(shown));
    matches!(hashed.root, Some(Root::Is(_)))
        && hashed.other.is_none()
        && senders::prove_one(&hashed[0]).is_ok()
}

prop_compose! {
    fn access_list()(items in prop::collection::vec((any::<[u8; 20]>(),
        prop::collection::vec(any::<[u8; 32]>(), 0..3)), 0..3)) -> AccessList {
        let item = |(address, keys): ([u8; 20], Vec<[u8; 32]>)| AccessListItem {
            address: address.into(),
            storage_keys: keys.into_iter().map(B256::from).collect(),
        };
        AccessList(items.into_iter().map(item).collect())
    }
}

/// A number of any length.
fn number() -> impl Strategy<Value = U256> {
    (any::<[u64; 4]>(), 0..256_usize).prop_map(|(limbs, shift)| U256::from_limbs(limbs) >> shift)
}

fn small() -> impl Strategy<Value = u64> {
    (any::<u64>(), 0..64_u32).prop_map(|(number, shift)| number >> shift)
}

fn fee() -> impl Strategy<Value = u128> {
    (any::<u128>(), 0..128_u32).prop_map(|(number, shift)| number >> shift)
}

fn input() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..300).prop_map(Bytes::from)
}

/// Something of each type, signed by the first of them.
fn envelope() -> impl Strategy<Value = TxEnvelope> {
    let ids = (small(), small(), small(), any::<Option<[u8; 20]>>());
    let moved = (number(), input(), fee(), fee(), fee(), access_list());
    (0..5, ids, moved).prop_map(|(kind, ids, moved)| {
        let (chain_id, nonce, gas_limit, to) = ids;
        let (value, input, gas_price, tip, blob, access_list) = moved;
        let creates = to.map_or(TxKind::Create, |to| TxKind::Call(to.into()));
        let to = EvmAddress::from(to.unwrap_or_default());
        match kind {
            0 => {
                // Before EIP-155 nothing says which chain is meant; ids have at most 63 bits.
                let chain_id = (chain_id % 3 > 0).then_some(chain_id >> 2);
                sign(
                    TxLegacy { chain_id, nonce, gas_price, gas_limit, to: creates, value, input },
                    0,
                )
            }
            1 => {
                let to = creates;
                sign(
                    TxEip2930 {
                        chain_id,
                        nonce,
                        gas_price,
                        gas_limit,
                        to,
                        value,
                        access_list,
                        input,
                    },
                    0,
                )
            }
            2 => sign(
                TxEip1559 {
                    chain_id,
                    nonce,
                    gas_limit,
                    max_fee_per_gas: gas_price,
                    max_priority_fee_per_gas: tip,
                    to: creates,
                    value,
                    access_list,
                    input,
                },
                0,
            ),
            3 => sign(
                TxEip4844 {
                    chain_id,
                    nonce,
                    gas_limit,
                    max_fee_per_gas: gas_price,
                    max_priority_fee_per_gas: tip,
                    to,
                    value,
                    access_list,
                    input,
                    blob_versioned_hashes: (0..blob % 4).map(|_| B256::repeat_byte(1)).collect(),
                    max_fee_per_blob_gas: blob,
                },
                0,
            ),
            _ => sign(
                TxEip7702 {
                    chain_id,
                    nonce,
                    gas_limit,
                    max_fee_per_gas: gas_price,
                    max_priority_fee_per_gas: tip,
                    to,
                    value,
                    access_list,
                    input,
                    authorization_list: (0..blob % 3).map(|n| authorized(n, nonce)).collect(),
                },
                0,
            ),
        }
    })
}

fn authorized(chain_id: u128, nonce: u64) -> alloy::eips::eip7702::SignedAuthorization {
    let chain_id = U256::from(chain_id);
    let authorization = Authorization { chain_id, address: address(3), nonce };
    let signature = signature(authorization.signature_hash(), 3);
    authorization.into_signed(signature)
}

/// What `field` can be told to be instead.
fn changed(value: &Value, nibble: usize) -> Option<Value> {
    let text = value.as_str()?;
    let mut digits: Vec<u8> = text.bytes().collect();
    let at = 2 + nibble % digits.len().checked_sub(2).filter(|length| *length > 0)?;
    digits[at] = if digits[at] == b'7' { b'3' } else { b'7' };
    Some(json!(String::from_utf8(digits).expect("a text")))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn types_0_to_4_are_hashed_and_signed_as_another_implementation_has_it(
        all in prop::collection::vec(envelope(), 1..4),
    ) {
        let shown: Vec<Value> = all.iter().map(|tx| shown(tx, address(0))).collect();
        let hashed = hashed(&shown);
        prop_assert_eq!(hashed.root, Some(Root::Is(calculate_transaction_root(&all))));
        prop_assert_eq!(hashed.other, None);
        for tx in hashed.iter() {
            prop_assert!(tx.signed.is_some());
            prop_assert!(senders::prove_one(tx).is_ok());
        }
    }

    #[test]
    fn nothing_of_a_transaction_can_be_told_otherwise(
        tx in envelope(), field in any::<prop::sample::Index>(), nibble in any::<usize>(),
    ) {
        let honest = shown(&tx, address(0));
        prop_assert!(is_genuine(&honest));
        let fields: Vec<&String> = honest.as_object().expect("an object").keys().collect();
        let name = fields[field.index(fields.len())].clone();
        let mut lie = honest.clone();
        // Of what says the same twice one is read; a legacy transaction names its chain in its signature.
        let unread = name == "v" && lie.get("yParity").is_some()
            || name == "chainId" && lie["type"] == "0x0";
        match changed(&lie[&name], nibble) {
            Some(other) if !unread && other != lie[&name] => lie[&name] = other,
            _ => return Ok(()),
        }
        // Some numbers can be written in two ways.
        let read = |tx: &Value| format!("{:?}", hashed(std::slice::from_ref(tx)));
        if name != "type" && read(&lie) == read(&honest) {
            return Ok(());
        }
        prop_assert!(!is_genuine(&lie), "{name}: {lie}");
    }
}

#[test]
fn a_deposit_of_the_op_stack_is_hashed_as_base_has_it() {
    // https://basescan.org/tx/0xc468b38a20375922828c8126912740105125143b9856936085474b2590bbca91, and the first
    // transaction of Base's block 49,835,559, as nodes show them.
    let old = json!({
        "type": "0x7e",
        "hash": "0xc468b38a20375922828c8126912740105125143b9856936085474b2590bbca91",
        "sourceHash": "0x417d134467f4737fcdf2475f0ecdd2a0ed6d87ecffc888ba9f60ee7e3b8ac26a",
        "from": "0xdeaddeaddeaddeaddeaddeaddeaddeaddead0001",
        "to": "0x4200000000000000000000000000000000000015",
        "value": "0x0", "gas": "0xf4240",
        "input": "0x440a5e20000008dd00101c1200000000000000040000000066c352bb000000000139c4f500000000000000\
            000000000000000000000000000000000000000000c0cff1460000000000000000000000000000000000000000000000\
            000000000000000001d4c88f4065ac9671e8b1329b90773e89b5ddff9cf8675b2b5e9c1b2832060993000000000000000\
            0000000005050f69a9786f081509234f1a7f4684b5e5b76c9",
    });
    let new = json!({
        "type": "0x7e",
        "hash": "0x73c76c412a79f3627c0476707c86480ee5aba928a70d5d0ec571b33af7ae2973",
        "sourceHash": "0x6c50b229180c42d3e3c6ab43d4b6bc834f77cebf276c153bc493d47615ef5d93",
        "from": "0xdeaddeaddeaddeaddeaddeaddeaddeaddead0001",
        "to": "0x4200000000000000000000000000000000000015",
        "mint": "0x0", "value": "0x0", "gas": "0xf4240", "gasPrice": "0x0", "nonce": "0x2f86e2a",
        "r": "0x0", "s": "0x0", "v": "0x0", "yParity": "0x0", "depositReceiptVersion": "0x1",
        "input": "0x3db6be2b000008dd00101c120000000000000005000000006a7b38ef000000000188a59c0000000000000\
            000000000000000000000000000000000000000000012e257a2000000000000000000000000000000000000000000000\
            0000000000001677bd677697c0d34f19135cd7f9ca858bb91c210b88b1056966ec1b55a4d12c4f7d6dd00000000000000\
            00000000005050f69a9786f081509234f1a7f4684b5e5b76c90000000000000000000000000094",
    });
    for deposit in [old, new] {
        assert!(is_genuine(&deposit), "{deposit}");
        for field in ["from", "to", "value", "mint", "isSystemTx"] {
            let mut lie = deposit.clone();
            lie[field] = match field {
                "from" | "to" => json!(address(1)),
                "isSystemTx" => json!(true),
                _ => json!("0x1"),
            };
            assert!(!is_genuine(&lie), "{field}");
        }
    }
}

#[test]
fn arbitrums_own_first_transaction_is_hashed_as_arbitrum_has_it_and_moves_nothing() {
    // Of Arbitrum One's block 150,000,000.
    let honest = json!({
        "type": "0x6a", "chainId": "0xa4b1", "gas": "0x0", "gasPrice": "0x0", "nonce": "0x0",
        "hash": "0x23f3f2a9c24b841171116d8032af7a2190389c1567e12a4174cf9bb1ec310765",
        "from": "0x00000000000000000000000000000000000a4b05",
        "to": "0x00000000000000000000000000000000000a4b05",
        "value": "0x0", "v": "0x0", "r": "0x0", "s": "0x0",
        "input": "0x6bf6a42d0000000000000000000000000000000000000000000000000000000000000000000000000000000\
            00000000000000000000000000000000000000000011b3fb30000000000000000000000000000000000000000000000000\
            000000008f0d1800000000000000000000000000000000000000000000000000000000000000001",
    });
    assert!(is_genuine(&honest));
    let mut lie = honest;
    lie["value"] = json!("0xde0b6b3a7640000");
    lie["to"] = json!(address(1));
    assert!(!is_genuine(&lie), "neither is in its encoding");
}

#[test]
fn arbitrums_other_types_are_lists_of_their_fields() {
    use alloy::rlp::Encodable;
    let word = |n: u8| B256::repeat_byte(n);
    let fields: &[(&str, Value)] = &[
        ("chainId", json!("0xa4b1")),
        ("requestId", json!(word(1))),
        ("from", json!(address(1))),
        ("to", json!(address(2))),
        ("value", json!("0x1234")),
        ("nonce", json!("0x7")),
        ("gasPrice", json!("0x5f5e100")),
        ("gas", json!("0x186a0")),
        ("input", json!("0x0102")),
        ("ticketId", json!(word(2))),
        ("refundTo", json!(address(3))),
        ("maxRefund", json!("0x55")),
        ("submissionFeeRefund", json!("0x66")),
        ("l1BaseFee", json!("0x77")),
        ("depositValue", json!("0x8888")),
        ("retryTo", json!(address(4))),
        ("retryValue", json!("0x0")),
        ("beneficiary", json!(address(5))),
        ("maxSubmissionFee", json!("0x99")),
        ("retryData", json!("0x7f")),
    ];
    let request = word(1);
    let whole = |fields: &[&dyn Encodable]| {
        let mut payload = Vec::new();
        for field in fields {
            field.encode(&mut payload);
        }
        let mut out = Vec::new();
        alloy::rlp::Header { list: true, payload_length: payload.len() }.encode(&mut out);
        [out, payload].concat()
    };
    let (data, retry) = (Bytes::from_static(&[1, 2]), Bytes::from_static(&[0x7f]));
    let (id, price, gas) = (0xa4b1_u64, 100_000_000_u64, 100_000_u64);
    let cases = [
        ("0x64", whole(&[&id, &request, &address(1), &address(2), &0x1234_u64])),
        ("0x65", whole(&[&id, &address(1), &7_u64, &price, &gas, &address(2), &0x1234_u64, &data])),
        (
            "0x66",
            whole(&[&id, &request, &address(1), &price, &gas, &address(2), &0x1234_u64, &data]),
        ),
        (
            "0x68",
            whole(&[
                &id,
                &7_u64,
                &address(1),
                &price,
                &gas,
                &address(2),
                &0x1234_u64,
                &data,
                &word(2),
                &address(3),
                &0x55_u64,
                &0x66_u64,
            ]),
        ),
        (
            "0x69",
            whole(&[
                &id,
                &request,
                &address(1),
                &0x77_u64,
                &0x8888_u64,
                &price,
                &gas,
                &address(4),
                &0_u64,
                &address(5),
                &0x99_u64,
                &address(3),
                &retry,
            ]),
        ),
    ];
    for (kind, list) in cases {
        let byte = u8::from_str_radix(&kind[2..], 16).expect("a type");
        let hash = alloy::primitives::keccak256([vec![byte], list].concat());
        let mut tx = json!({ "type": kind, "hash": hash });
        for (name, value) in fields {
            tx[*name] = value.clone();
        }
        if kind == "0x69" {
            assert!(!is_genuine(&tx), "its value is not in its encoding");
            tx["value"] = json!("0x0");
        }
        assert!(is_genuine(&tx), "{kind}");
    }
}

#[test]
fn a_fee_in_a_token_is_signed_as_celo_has_it() {
    // Celo's 0x2499b178a0e54fb856354bb53c9cb0fe2d1f70b2e6c876f6470e7a6e5090f3ac, as `cast tx` shows it.
    let honest = json!({
        "type": "0x7b", "chainId": "0xa4ec", "nonce": "0x705",
        "hash": "0x2499b178a0e54fb856354bb53c9cb0fe2d1f70b2e6c876f6470e7a6e5090f3ac",
        "from": "0xefe945ee33ce4ab037ff4d1e1384d0efcd95f37b",
        "to": "0x7a1e295c4babdf229776680c93ed0f73d069abc0",
        "value": "0x0", "gasPrice": "0x1ae0426f1", "gas": "0x3644c", "maxFeePerGas": "0x26442dbed",
        "maxPriorityFeePerGas": "0x4d7ee", "accessList": [],
        "input": "0xcac35c7a290decd9548b62a8d60345a988386fc84ba6bc95484008f6362f93160ef3e563",
        "r": "0xaa0cfaa3df893578b3504062b862428f0e4a94046370cf2a4fd6c392c0760dd8",
        "s": "0x1337d022bbb8faed78a9707e6c38d51f575816e7f85aa540f3d37a9081c58a71",
        "v": "0x0", "yParity": "0x0", "feeCurrency": "0x2f25deb3848c207fc8e0c34035b3ba7fc157602b",
    });
    assert!(is_genuine(&honest));
    for field in ["feeCurrency", "from"] {
        let mut lie = honest.clone();
        lie[field] = json!(address(1));
        assert!(!is_genuine(&lie), "{field}");
    }
}

#[test]
fn what_is_no_field_of_a_transaction_is_named() {
    let tx = sign(TxEip1559 { input: Bytes::from_static(&[1, 2]), ..TxEip1559::default() }, 0);
    let honest = shown(&tx, address(0));
    for (field, nonsense) in [
        ("input", json!("0xzz")),
        ("input", json!("0x123")),
        ("input", json!(5)),
        ("input", json!([])),
        ("r", json!("0x")),
        ("r", json!(format!("0x{}", "1".repeat(65)))),
        ("s", json!("-1")),
        ("accessList", json!("0x")),
        ("accessList", json!([{}])),
        ("chainId", json!(true)),
        ("maxFeePerGas", json!({})),
        ("yParity", json!("0x\u{e9}")),
    ] {
        let mut lie = honest.clone();
        lie[field] = nonsense.clone();
        let root = hashed(&[lie]).root;
        let named = matches!(root, Some(Root::Bad(0, _)));
        // No digits at all are a zero, in some nodes.
        assert!(named || nonsense == "0x", "{field}: {nonsense}: {root:?}");
    }
}

#[test]
fn what_a_development_node_sends_for_others_is_taken_on_its_own_networks_only() {
    // Anvil 1.7.1, after `anvil_impersonateAccount`.
    let shown: Value =
        serde_json::from_str(include_str!("impersonated.json")).expect("a transaction");
    let [own, other] = [true, false].map(|own| hashed_of(std::slice::from_ref(&shown), own));
    assert_eq!((own.root, own.other), (other.root, None));
    assert!(senders::prove_one(&own[0]).is_ok());
    assert_eq!(other.other, Some(0), "elsewhere its hash is that of what it holds");
    let mut lie = shown;
    lie["from"] = json!(address(1));
    assert_eq!(hashed_of(&[lie], true).other, Some(0));
}

#[test]
fn an_unsigned_transaction_of_a_chains_own_is_sent_by_whom_its_node_says() {
    let mut tx = shown(&sign(TxLegacy::default(), 0), address(0));
    for part in ["v", "r", "s"] {
        tx[part] = json!("0x0");
    }
    let hashed = hashed(&[tx]);
    assert!(hashed[0].signed.is_none() && matches!(hashed.root, Some(Root::Is(_))));
    assert_eq!(hashed[0].from.map(decode::address), Some(decode::address(address(0))));
}
