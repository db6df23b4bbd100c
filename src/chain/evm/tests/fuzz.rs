//! The decoders of what an EVM node says, on whatever it says.

use std::{collections::BTreeSet, sync::LazyLock};

use alloy::{
    consensus::{
        ReceiptEnvelope, TxEip4844, TxEip7702, TxEnvelope, proofs::calculate_transaction_root,
    },
    eips::{
        Decodable2718 as _,
        eip2930::{AccessList, AccessListItem},
    },
    primitives::{Address as EvmAddress, B256, U256, keccak256},
};
use alloy_trie::{HashBuilder, Nibbles, TrieAccount, proof::ProofRetainer};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;

use super::{checker, coin, empty_block, mixed_block, mixed_receipts, signing};
use crate::{
    chain::{
        Address, Block, Header, Rules as _, TxId,
        evm::{
            Evm, decode,
            envelope::{Root, Transactions},
            fetch,
            json::{self, Hex, Quantity, Raw, Receipt},
            logs, multicall, proof, safe, senders, state, verify, ws,
        },
        rpc::{Answer, Answers, Failure, testing::answer_of},
        testing::{assert_storable, outcome},
    },
    config::Verification,
    fuzz::{about, run},
};

const ALL: [Verification; 3] = [Verification::Full, Verification::Bloom, Verification::Links];

/// The recorded block as it is decoded.
static MIXED: LazyLock<Block> = LazyLock::new(|| {
    super::read(&checker(Verification::Full), &mixed_block(), &mixed_receipts()).expect("a block")
});

fn header_of(text: &[u8]) -> Result<Header, Failure> {
    let block: json::Block<IgnoredAny> = answer_of(text).parse()?;
    Ok(decode::header(&checker(Verification::Full).header(block)?))
}

#[test]
fn a_header_is_what_its_hash_says_or_nothing() {
    let known = [mixed_block(), empty_block()].map(|block| block.to_string().into_bytes());
    let honest = known.each_ref().map(|text| header_of(text).expect("a header"));
    run("evm_block", known.to_vec(), |input| {
        let header = header_of(input);
        if let Ok(header) = &header {
            assert_storable(&Block::empty(*header));
            for known in honest.iter().filter(|known| known.at.hash == header.at.hash) {
                assert_eq!(header, known, "another header under the same hash");
            }
        }
        outcome(&header)
    });
}

/// A block and its receipts.
#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    block: &'a RawValue,
    #[serde(borrow)]
    receipts: &'a RawValue,
}

#[test]
fn a_block_and_its_receipts_are_decoded_as_they_are_or_not_at_all() {
    run("evm_receipts", Vec::new(), |input| {
        let Ok(Document { block, receipts }) = serde_json::from_slice(input) else {
            return "no document".to_owned();
        };
        let (block, receipts) =
            (answer_of(block.get().as_bytes()), answer_of(receipts.get().as_bytes()));
        let parsed = || block.parse::<json::Block<Vec<json::Transaction<'_>>>>();
        let receipts = receipts.parse::<Vec<Receipt<'_>>>();
        let Ok(receipts) = &receipts else {
            return format!("{} {}", outcome(&parsed()), outcome(&receipts));
        };
        ALL.map(|verification| {
            let checker = checker(verification);
            let block = match parsed() {
                Ok(block) => checker.told(block),
                Err(failure) => return failure.detail(),
            };
            let read = fetch::checked(&checker, &coin(), &block, receipts);
            if let Ok(read) = &read {
                assert_storable(read);
                let logs: usize = receipts.iter().map(|receipt| receipt.logs.len()).sum();
                let withdrawals = block.withdrawals.as_ref().map_or(0, Vec::len);
                // A ticket from L1 moves the most; and what its beneficiary earns.
                let most = 4 * block.transactions.len() + logs + withdrawals + 1;
                assert!(read.movements.len() <= most && read.safes.len() <= logs);
                let owners: usize = read.safes.iter().map(|safe| safe.owners.len()).sum();
                assert!(owners * 64 <= input.len(), "more owners than were written");
                let is_proven = verification == Verification::Full && checker.senders(read).is_ok();
                if is_proven && read.header.at == MIXED.header.at {
                    assert_eq!(read.movements, MIXED.movements, "others under the same header");
                    assert_eq!(read.transactions, MIXED.transactions, "others under the same root");
                }
            }
            format!("{} {}", outcome(&read), read.map_or("", |read| about(read.safes.len())))
        })
        .join(" ")
    });
}

#[test]
fn a_receipt_is_hashed_as_the_consensus_encodes_it() {
    run("evm_receipt", Vec::new(), |input| {
        let answer = answer_of(input);
        let receipt = answer.parse::<Receipt<'_>>();
        let Ok(receipt) = &receipt else { return outcome(&receipt) };
        let Some(bytes) = verify::encode(receipt) else { return "no encoding".to_owned() };
        if receipt.kind() > 4 {
            return "a type of its own".to_owned();
        }
        let mut rest = &bytes[..];
        let read = ReceiptEnvelope::decode_2718(&mut rest).expect("the encoding of a receipt");
        assert!(rest.is_empty(), "something follows");
        assert_eq!(Some(read.status()), receipt.success());
        assert_eq!(read.cumulative_gas_used(), receipt.cumulative_gas_used.0);
        assert_eq!(read.logs().len(), receipt.logs.len());
        for (read, log) in read.logs().iter().zip(&receipt.logs) {
            assert_eq!((read.address, read.topics()), (log.address, &log.topics[..]));
            assert_eq!(Some(read.data.data.to_vec()), log.data.to_vec());
        }
        format!("encoded {}", about(receipt.logs.len()))
    });
}

#[test]
fn a_transaction_is_hashed_as_another_implementation_hashes_it() {
    let blobs =
        TxEip4844 { blob_versioned_hashes: vec![B256::repeat_byte(1)], ..TxEip4844::default() };
    let lists = TxEip7702 {
        access_list: AccessList(vec![AccessListItem {
            address: signing::address(2),
            storage_keys: vec![B256::repeat_byte(2)],
        }]),
        ..TxEip7702::default()
    };
    let more = [signing::sign(blobs, 1), signing::sign(lists, 1)];
    let more = more.iter().map(|tx| signing::shown(tx, signing::address(1)));
    let known = mixed_block()["transactions"].as_array().expect("a list").clone().into_iter();
    let known = known.chain(more).map(|tx| tx.to_string().into_bytes()).collect();
    run("evm_transaction", known, |input| {
        let answer = answer_of(input);
        let told = answer.parse::<json::Transaction<'_>>();
        let Ok(told) = &told else { return outcome(&told) };
        let hashed = Transactions::hashed(std::slice::from_ref(told), false);
        let Some(Root::Is(root)) = hashed.root else { return format!("{:?}", hashed.root) };
        let parity = told.y_parity.or(told.v).and_then(Raw::word).map(U256::from_be_bytes);
        // A legacy transaction's chain is told twice; and the other one makes a bit of whatever stands for one.
        if told.kind() > 0
            && parity.is_some_and(|parity| parity < U256::from(2))
            && let Ok(other) = serde_json::from_slice::<TxEnvelope>(input)
        {
            assert_eq!(calculate_transaction_root(&[other]), root);
        }
        format!("{:?} {}", hashed.other, outcome(&senders::prove_one(&hashed[0])))
    });
}

/// Answers to a batch, as their results stand in a list; an object is an error.
fn answers(input: &[u8]) -> Option<Answers> {
    let results: Vec<&RawValue> = serde_json::from_slice(input).ok()?;
    let answer = |raw: &RawValue| match raw.get() {
        r#"{"error":"reverted"}"# => Err(Failure::Reverted),
        text => Ok(answer_of(text.as_bytes())),
    };
    Some(results.into_iter().map(answer).collect())
}

#[test]
fn logs_lead_to_the_blocks_that_were_asked_for_and_nowhere_else() {
    let contract = EvmAddress::repeat_byte(0x11);
    let (lo, hi) = (1, 9);
    run("evm_logs", Vec::new(), |input| {
        let Some(answers) = answers(input) else { return "no list".to_owned() };
        let found = logs::places(answers, &[contract], lo, hi);
        if let Ok(found) = &found {
            assert!(found.keys().all(|number| (lo..=hi).contains(number)), "{found:?}");
        }
        let count = found.as_ref().map_or(0, std::collections::BTreeMap::len);
        format!("{} {}", outcome(&found), about(count))
    });
}

/// Whether an answer is bytes in hexadecimal digits, as a node writes them.
fn is_hex(answer: &Result<Answer, Failure>) -> bool {
    match answer {
        Ok(answer) => answer.parse::<Hex<'_>>().is_ok_and(|hex| hex.to_vec().is_some()),
        Err(failure) => *failure == Failure::Reverted,
    }
}

#[test]
fn what_a_contract_answers_makes_it_a_safe_or_not_and_is_no_fault_of_the_node() {
    let asked = safe::questions(EvmAddress::ZERO, B256::ZERO);
    run("evm_safe_state", Vec::new(), |input| {
        let Some(mut answers) = answers(input) else { return "no list".to_owned() };
        answers.resize_with(asked.len(), || Ok(answer_of(format!(r#""0x{:064}""#, 0).as_bytes())));
        // The node's own part: bytes, and 32 of them in a slot; only calls can revert.
        let slot = |answer: &Result<Answer, Failure>| {
            let answer = answer.as_ref().ok().and_then(|answer| answer.parse::<Hex<'_>>().ok());
            answer.is_some_and(|hex| hex.to_array::<32>().is_some())
        };
        let honest = asked.iter().zip(&answers).all(|(call, answer)| match call.method {
            "eth_getStorageAt" => slot(answer),
            "eth_getCode" => answer.is_ok() && is_hex(answer),
            _ => is_hex(answer),
        });
        let judged = safe::judge(answers);
        assert!(!honest || judged.is_ok(), "a contract's answer is blamed on the node: {judged:?}");
        if let Ok(Ok(state)) = &judged {
            let owners = state.owners.len();
            assert!((1..=256).contains(&owners) && owners * 64 <= input.len());
            assert!(usize::try_from(state.threshold).is_ok_and(|n| (1..=owners).contains(&n)));
        }
        match &judged {
            Ok(Err(rejection)) => rejection.as_str().to_owned(),
            Ok(Ok(state)) => format!("a Safe {}", about(state.owners.len())),
            Err(_) => outcome(&judged),
        }
    });
}

#[test]
fn a_balance_is_a_figure_or_none() {
    run("evm_balances", Vec::new(), |input| {
        let answer = answer_of(input);
        let figures = multicall::figures(&answer, 3);
        assert!(figures.as_ref().is_ok_and(|figures| figures.len() == 3) || figures.is_err());
        let native = answer.parse::<U256>();
        let token = state::token_balance(Ok(answer.clone()));
        let nonce = answer.parse::<Quantity>();
        if let (Ok(Some(token)), Ok(native)) = (&token, &native) {
            assert_eq!(token, native, "one word, and two figures");
        }
        let found: Vec<_> = figures.iter().flatten().map(|figure| format!("{figure:?}")).collect();
        let found: BTreeSet<String> =
            found.iter().map(|text| text.chars().take(4).collect()).collect();
        let (native, nonce) = (native.is_ok(), nonce.is_ok());
        format!("{} {found:?} {} {native} {nonce}", outcome(&figures), outcome(&token))
    });
}

#[test]
fn a_balance_is_proven_as_the_state_root_has_it_or_not_at_all() {
    let owner = EvmAddress::repeat_byte(0x11);
    let path = |who: EvmAddress| Nibbles::unpack(keccak256(who));
    let mut leaves: Vec<_> = (0x11..0x31).map(|n| (path(EvmAddress::repeat_byte(n)), n)).collect();
    leaves.sort();
    let mut trie =
        <HashBuilder>::default().with_proof_retainer(ProofRetainer::new(vec![path(owner)]));
    for (path, n) in leaves {
        let account = TrieAccount { nonce: 7, balance: U256::from(n), ..TrieAccount::default() };
        trie.add_leaf(path, &alloy::rlp::encode(account));
    }
    let root = trie.root();
    let nodes = trie.take_proof_nodes().into_nodes_sorted();
    let nodes: Vec<_> = nodes.into_iter().map(|(_, node)| node).collect();
    let empty = TrieAccount::default();
    let honest = serde_json::json!({
        "address": owner, "balance": "0x11", "nonce": "0x7", "storageHash": empty.storage_root,
        "codeHash": empty.code_hash, "accountProof": nodes, "storageProof": [],
    });
    let honest = honest.to_string().into_bytes();
    let proven = |input: &[u8]| {
        let account = answer_of(input).parse()?;
        Ok::<_, Failure>(proof::proven(root, owner, &account))
    };
    assert_eq!(proven(&honest), Ok(Some(U256::from(0x11))));
    run("evm_proof", vec![honest], |input| {
        let balance = proven(input);
        if let Ok(Some(balance)) = balance {
            assert_eq!(balance, U256::from(0x11), "another balance under the same root");
        }
        format!("{} {}", outcome(&balance), balance.is_ok_and(|balance| balance.is_some()))
    });
}

#[test]
fn a_transaction_that_is_looked_up_is_the_one_that_was_asked_for() {
    let block = mixed_block();
    let hash = block["transactions"][0]["hash"].as_str().expect("a hash");
    let tx = TxId::from(hash.parse::<B256>().expect("a hash").0);
    run("evm_lookup", Vec::new(), |input| {
        let Some(answers) = answers(input) else { return "no list".to_owned() };
        let found = state::mined(&checker(Verification::Full), tx, answers);
        if let Ok(found) = &found {
            assert!(found.nonce.is_none_or(|nonce| i64::try_from(nonce).is_ok()), "{found:?}");
            if let Some((at, _, safes)) = &found.mined {
                assert!(at.number <= crate::chain::BlockRef::MAX_HEIGHT, "{at:?}");
                assert!(safes.iter().all(|safe| safe.tx == tx));
            }
        }
        let mined = found.as_ref().ok().map(|found| found.mined.is_some());
        format!("{} {mined:?}", outcome(&found))
    });
}

#[test]
fn an_announcement_is_only_a_place_to_look_at() {
    run("evm_announcement", Vec::new(), |input| {
        let Ok(text) = str::from_utf8(input) else { return "no text".to_owned() };
        match ws::announced(text) {
            Ok(announced) => format!("{}", announced.is_some()),
            Err(error) => error.to_string(),
        }
    });
}

#[derive(Deserialize)]
struct Signed {
    address: String,
    message: String,
    signature: String,
}

/// Who signed what with which bytes, if somebody did.
fn signed(input: &[u8]) -> Result<(Address, String, Vec<u8>), String> {
    let Signed { address, message, signature } =
        serde_json::from_slice(input).map_err(|error| error.to_string())?;
    let address = Evm.parse_address(&address).map_err(|error| error.to_string())?;
    let verified = Evm.verify_signature(&address, &message, &signature);
    verified.map_err(|error| error.to_string())?;
    // v is 27 and 28 as well as 0 and 1.
    let mut bytes = hex::decode(&signature[2..]).expect("it was read");
    bytes[64] %= 27;
    Ok((address, message, bytes))
}

#[test]
fn a_signature_is_the_one_that_was_made_in_every_text_that_is_taken_for_one() {
    let known = include_bytes!("../../../fuzz/corpus/evm_signature/tally.json");
    let known = signed(known).expect("a published signature");
    run("evm_signature", Vec::new(), |input| {
        let signed = signed(input);
        assert!(signed.as_ref().map_or(true, |signed| *signed == known), "forged: {signed:?}");
        signed.err().unwrap_or_default()
    });
}
