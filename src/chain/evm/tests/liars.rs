//! What a node can say of an honest block that is not so, and who is asked then.

use alloy::{
    consensus::TxEip1559,
    primitives::{Address as EvmAddress, U256},
};
use serde_json::{Value, json};

use super::{
    config, endpoint, mixed_block, mixed_receipts,
    node::{Node, Reply, honest},
    signing::{address, shown, sign},
};
use crate::{
    chain::{
        Address, Block, BlockHash, BlockRef, Family, LogIndex as _, SafeSource as _, Source as _,
        SourceError, evm::EvmSource,
    },
    config::EndpointConfig,
    metrics::Metrics,
};

struct World {
    source: EvmSource,
    metrics: Metrics,
}

impl World {
    fn new(endpoints: Vec<EndpointConfig>) -> Self {
        let metrics = Metrics::new();
        let source = EvmSource::new(&config(endpoints), metrics.clone()).expect("a source");
        Self { source, metrics }
    }

    /// A liar that is asked first, and an honest node.
    fn of(liar: &Node, good: &Node) -> Self {
        Self::new(vec![endpoint("liar", &liar.url, 2), endpoint("good", &good.url, 1)])
    }

    fn failed(&self, check: &str) -> u64 {
        self.metrics.verification_failures_total.with_label_values(&["anvil", check]).get()
    }

    fn healthy(&self, endpoint: &str) -> bool {
        self.metrics.rpc_endpoint_healthy.with_label_values(&["anvil", endpoint]).get() == 1
    }
}

fn mixed() -> BlockRef {
    let hash = mixed_block()["hash"].as_str().expect("a hash").to_owned();
    let hash = alloy::hex::decode(hash).expect("hexadecimal");
    BlockRef { number: 1, hash: BlockHash::from_slice(&hash).expect("32 bytes") }
}

type Told = (Value, Value);
type Change = fn(&mut Value, &mut Value);

/// The recorded block and its receipts, not as they are.
fn changed(change: Change) -> Told {
    let (mut block, mut receipts) = (mixed_block(), mixed_receipts());
    change(&mut block, &mut receipts);
    (block, receipts)
}

/// A node that tells this of the recorded block, and else the truth.
async fn telling((block, receipts): Told) -> Node {
    Node::start(move |method, params| match (method, honest(method, params)) {
        (_, Reply::Result(true_one)) if true_one == mixed_block() => Reply::Result(block.clone()),
        ("eth_getBlockReceipts", Reply::Result(true_one)) if true_one == mixed_receipts() => {
            Reply::Result(receipts.clone())
        }
        (_, reply) => reply,
    })
    .await
}

fn stranger() -> Value {
    json!(EvmAddress::repeat_byte(0x77))
}

/// A transaction of another block in the place of the fourth, with all that belongs to it.
fn foreign(block: &mut Value, receipts: &mut Value) {
    let tx = TxEip1559 { value: U256::from(9), chain_id: 31_337, ..TxEip1559::default() };
    let other = shown(&sign(tx, 1), address(1));
    receipts[3]["transactionHash"] = other["hash"].clone();
    block["transactions"][3] = other;
}

/// Each lie by the check that it fails.
const LIES: &[(&str, &str, Change)] = &[
    ("a doubled value", "transactions_root", |block, _| {
        block["transactions"][0]["value"] = json!("0x1bc16d674ec80000");
    }),
    ("a value from nowhere", "transactions_root", |block, _| {
        block["transactions"][1]["value"] = json!("0xde0b6b3a7640000");
    }),
    ("no value", "transactions_root", |block, _| {
        block["transactions"][0].as_object_mut().expect("an object").remove("value");
    }),
    ("another sender", "sender", |block, _| block["transactions"][0]["from"] = stranger()),
    ("no sender", "sender", |block, _| {
        block["transactions"][2].as_object_mut().expect("an object").remove("from");
    }),
    ("a swapped recipient", "transactions_root", |block, _| {
        block["transactions"][0]["to"] = stranger();
    }),
    ("a creation made a payment", "transactions_root", |block, _| {
        block["transactions"][4]["to"] = stranger();
    }),
    ("a transaction left out", "receipts_root", |block, receipts| {
        block["transactions"].as_array_mut().expect("a list").pop();
        receipts.as_array_mut().expect("a list").pop();
    }),
    ("a transaction left out, and not its receipt", "receipt_links", |block, _| {
        block["transactions"].as_array_mut().expect("a list").pop();
    }),
    ("a transaction of another block", "transactions_root", foreign),
    ("another nonce", "transactions_root", |block, _| {
        block["transactions"][0]["nonce"] = json!("0x1");
    }),
    ("another input", "transactions_root", |block, _| {
        block["transactions"][1]["input"] = json!("0x00");
    }),
    ("another access list", "transactions_root", |block, _| {
        block["transactions"][1]["accessList"] =
            json!([{ "address": stranger(), "storageKeys": [] }]);
    }),
    ("another chain", "transactions_root", |block, _| {
        block["transactions"][1]["chainId"] = json!("0x1");
    }),
    ("another signature", "transactions_root", |block, _| {
        block["transactions"][2]["yParity"] = json!("0x1");
    }),
    ("another offer for gas", "transactions_root", |block, _| {
        block["transactions"][2]["maxFeePerGas"] = json!("0x77359401");
    }),
    ("another hash", "transaction_hash", |block, receipts| {
        let hash = json!(format!("0x{}", "77".repeat(32)));
        block["transactions"][0]["hash"] = hash.clone();
        receipts[0]["transactionHash"] = hash;
    }),
    ("another type", "transaction_type", |block, _| {
        block["transactions"][0]["type"] = json!("0x7e");
        block["transactions"][0]["mint"] = json!("0xde0b6b3a7640000");
    }),
    ("a type that nobody can hash", "transaction_type", |block, _| {
        block["transactions"][0]["type"] = json!("0x7f");
    }),
    ("such a type in both", "receipts_root", |block, receipts| {
        block["transactions"][0]["type"] = json!("0x7f");
        receipts[0]["type"] = json!("0x7f");
    }),
    ("more gas used", "gas_used", |_, receipts| receipts[1]["gasUsed"] = json!("0xffffff")),
    ("less gas used", "gas_used", |_, receipts| receipts[0]["gasUsed"] = json!("0x0")),
    ("more paid for gas", "gas_price", |_, receipts| {
        receipts[2]["effectiveGasPrice"] = json!("0xde0b6b3a7640000");
    }),
    ("less paid for gas", "gas_price", |_, receipts| {
        receipts[0]["effectiveGasPrice"] = json!("0x1");
    }),
    ("more paid for gas, told elsewhere", "gas_price", |block, receipts| {
        receipts[2].as_object_mut().expect("an object").remove("effectiveGasPrice");
        block["transactions"][2]["gasPrice"] = json!("0xde0b6b3a7640000");
    }),
    ("a fee of a rollup", "l1_fee", |_, receipts| {
        receipts[0]["l1Fee"] = json!("0xde0b6b3a7640000");
    }),
    ("an operator's fee", "l1_fee", |_, receipts| {
        receipts[0]["operatorFeeConstant"] = json!("0xde0b6b3a7640000");
    }),
    ("another contract created", "contract_address", |_, receipts| {
        receipts[4]["contractAddress"] = stranger();
    }),
    ("no contract created", "contract_address", |_, receipts| {
        receipts[4]["contractAddress"] = Value::Null;
    }),
    ("a withdrawal that is none", "withdrawals_root", |block, _| {
        block["withdrawals"] = json!([
            { "index": "0x1", "validatorIndex": "0x1", "amount": "0x1", "address": stranger() },
        ]);
    }),
];

#[tokio::test]
async fn whatever_a_node_says_of_an_honest_block_that_is_not_so_another_is_asked() {
    let good = Node::start(honest).await;
    let expected = World::new(vec![endpoint("good", &good.url, 1)]).source.block(mixed()).await;
    let expected = format!("{:?}", expected.expect("an answer").expect("a block"));
    for (lie, check, change) in LIES {
        let (liar, good) = (telling(changed(*change)).await, Node::start(honest).await);
        for way in ["by its hash", "in a run", "among others"] {
            let world = World::of(&liar, &good);
            let read = match way {
                "by its hash" => {
                    world.source.block(mixed()).await.map(Option::into_iter).map(Vec::from_iter)
                }
                "in a run" => world.source.blocks(1, 2).await,
                _ => world.source.blocks_of(&[mixed()]).await,
            };
            let read = read.unwrap_or_else(|error| panic!("{lie}, {way}: {error}"));
            assert_eq!(format!("{:?}", read[0]), expected, "{lie}, {way}");
            assert_eq!(world.failed(check), 1, "{lie}, {way}");
            assert!(!world.healthy("liar"), "{lie}, {way}");
        }
        assert_eq!(liar.times("eth_getBlockReceipts"), 3, "{lie}: asked once each time");
        let alone = World::new(vec![endpoint("liar", &liar.url, 1)]);
        for _ in 0..2 {
            let error = alone.source.block(mixed()).await.expect_err(lie);
            assert!(matches!(error, SourceError::Untrusted(_)), "{lie}: {error}");
        }
    }
}

/// So many blocks in one question that not every sender is proven when they are read.
async fn many(world: &World) -> Vec<Block> {
    world.source.blocks_of(&[mixed(); 9]).await.expect("blocks")
}

fn who(text: &str) -> crate::chain::Address {
    Family::Evm.parse_address(text).expect("an address")
}

/// Who sends the first transaction of the recorded block, and who gets what it pays.
const SENDER: &str = "0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266";
const RECEIVER: &str = "0x70997970c51812dc3a010c7d01b50e0d17dc79c8";

#[tokio::test]
async fn among_many_blocks_a_wrong_sender_is_refuted_where_it_matters_and_another_is_asked() {
    let lie: Change = |block, _| block["transactions"][0]["from"] = stranger();
    let good = Node::start(honest).await;
    let is = |one: Address| move |address: &Address| *address == one;
    let honest_one = World::new(vec![endpoint("good", &good.url, 1)]);
    // Who is said to have paid, and who was paid.
    for watched in [who(&stranger().as_str().expect("a text").to_lowercase()), who(RECEIVER)] {
        let liar = telling(changed(lie)).await;
        let world = World::of(&liar, &good);
        let mut block = many(&world).await.remove(0);
        assert_eq!((world.failed("sender"), world.healthy("liar")), (0, true), "nobody knows yet");
        block.retain_watched(is(watched));
        let block = world.source.completed(block, &is(watched)).await.expect("the truth");
        let mut truth = honest_one.source.block(mixed()).await.expect("it").expect("a block");
        truth.retain_watched(is(watched));
        assert_eq!(block.movements, truth.movements);
        assert_eq!(block.transactions[0].sender, who(SENDER));
        assert!(block.senders.signed.is_empty());
        assert_eq!((world.failed("sender"), world.healthy("liar")), (1, false));
        let alone = World::new(vec![endpoint("liar", &liar.url, 1)]);
        let mut block = many(&alone).await.remove(0);
        block.retain_watched(is(watched));
        let error = alone.source.completed(block, &is(watched)).await.map(drop);
        let error = error.expect_err("nobody else is there");
        assert!(matches!(error, SourceError::Untrusted(_)), "{error}");
    }
}

#[tokio::test]
async fn among_many_blocks_only_senders_that_matter_are_proven() {
    let good = Node::start(honest).await;
    let world = World::new(vec![endpoint("good", &good.url, 1)]);
    let mut kept = Vec::new();
    // Somebody who pays, somebody who gets a token and nobody.
    let nobody = "0x1111111111111111111111111111111111111111";
    for watched in [SENDER, "0x3c44cdddb6a900fa2b585dd299e03d12fa4293bc", nobody] {
        let mut block = many(&world).await.remove(0);
        assert_eq!((block.senders.signed.len(), &*block.senders.told_by), (5, "good"));
        block.retain_watched(|address| *address == who(watched));
        kept.push(block.senders.signed.iter().map(|one| one.place).collect::<Vec<_>>());
        world
            .source
            .complete(block, &|address| *address == who(watched))
            .await
            .expect("honest senders");
    }
    // The second one's own payment is the fourth.
    assert_eq!(kept, [vec![0], vec![3], vec![]]);
}

#[tokio::test]
async fn a_transaction_that_is_looked_up_is_what_its_hash_says_or_another_is_asked() {
    let good = Node::start(honest).await;
    let text = mixed_block()["transactions"][0]["hash"].as_str().expect("a hash").to_owned();
    let tx = Family::Evm.parse_tx(&text).expect("a transaction id");
    for (field, lie, check) in
        [("nonce", json!("0x5"), "transaction_hash"), ("from", stranger(), "sender")]
    {
        let liar = Node::start(move |method, params| match honest(method, params) {
            Reply::Result(mut tx) if method == "eth_getTransactionByHash" => {
                tx[field] = lie.clone();
                Reply::Result(tx)
            }
            reply => reply,
        })
        .await;
        let world = World::of(&liar, &good);
        let found = world.source.transaction(tx).await.expect("an answer").expect("it is there");
        assert_eq!((found.sender, found.nonce), (who(SENDER), Some(0)));
        assert_eq!(world.failed(check), 1);
    }
}
