//! Safes that an ERC-4337 entry point makes: the real `EntryPoint` 0.7 and Safe's own module for it.

use alloy::{
    primitives::{Address, B256, Bytes, U256},
    sol,
    sol_types::{SolCall as _, SolEvent as _, SolValue as _},
};
use serde_json::{Value, json};
use tidemark::dev::{anvil::Request, contracts};

use crate::harness::{Daemon, Node, eventually, npm_folder, on_both_stores, safes::SAFE_1_4_1};

sol! {
    struct UserOperation {
        address sender;
        uint256 nonce;
        bytes initCode;
        bytes callData;
        bytes32 accountGasLimits;
        uint256 preVerificationGas;
        bytes32 gasFees;
        bytes paymasterAndData;
        bytes signature;
    }

    interface EntryPoint {
        function handleOps(UserOperation[] calldata ops, address payable beneficiary) external;

        event UserOperationEvent(
            bytes32 indexed userOpHash,
            address indexed sender,
            address indexed paymaster,
            uint256 nonce,
            bool success,
            uint256 actualGasCost,
            uint256 actualGasUsed
        );
    }

    interface Module {
        function getOperationHash(UserOperation calldata op) external view returns (bytes32);
        function executeUserOp(address to, uint256 value, bytes data, uint8 operation) external;
    }

    interface ModuleSetup {
        function enableModules(address[] calldata modules) external;
    }

    interface Safe {
        function setup(
            address[] calldata owners,
            uint256 threshold,
            address to,
            bytes calldata data,
            address fallbackHandler,
            address paymentToken,
            uint256 payment,
            address paymentReceiver
        ) external;
    }
}

const ETHER: u64 = 1_000_000_000_000_000_000;

/// The contracts of the npm packages.
struct Contracts {
    entry_point: Address,
    module: Address,
    module_setup: Address,
}

impl Contracts {
    async fn deploy(node: &Node) -> Self {
        let artifacts = "@safe-global/safe-4337/build/artifacts/contracts";
        let entry_point =
            made(node, "@account-abstraction/contracts/artifacts/EntryPoint.json", &[]).await;
        let module = format!("{artifacts}/Safe4337Module.sol/Safe4337Module.json");
        let setup = format!("{artifacts}/SafeModuleSetup.sol/SafeModuleSetup.json");
        Self {
            entry_point,
            module: made(node, &module, &entry_point.abi_encode()).await,
            module_setup: made(node, &setup, &[]).await,
        }
    }

    /// An operation that makes a Safe of `owner`, who signs it, and then has the Safe send `value` to `to`.
    async fn operation(&self, node: &Node, owner: Address, to: Address) -> UserOperation {
        let Self { module, module_setup, .. } = *self;
        let enable = ModuleSetup::enableModulesCall { modules: vec![module] };
        let setup = Safe::setupCall {
            owners: vec![owner],
            threshold: U256::from(1),
            to: module_setup,
            data: enable.abi_encode().into(),
            fallbackHandler: module,
            paymentToken: Address::ZERO,
            payment: U256::ZERO,
            paymentReceiver: Address::ZERO,
        };
        let (from, salt) = (node.accounts[0], U256::from(1));
        let planned =
            SAFE_1_4_1.deployment_with(node, from, setup.abi_encode(), salt).await.unwrap();
        let execute = Module::executeUserOpCall {
            to,
            value: U256::from(5),
            data: Bytes::new(),
            operation: 0,
        };
        let pair = |high: u64, low: u64| B256::from(U256::from(high) << 128 | U256::from(low));
        let mut operation = UserOperation {
            sender: planned.address,
            nonce: U256::ZERO,
            initCode: [SAFE_1_4_1.factory.as_slice(), &planned.request.data].concat().into(),
            callData: execute.abi_encode().into(),
            accountGasLimits: pair(1_000_000, 200_000),
            preVerificationGas: U256::from(100_000),
            gasFees: pair(1_000_000_000, 3_000_000_000),
            paymasterAndData: Bytes::new(),
            // Valid at any time.
            signature: vec![0; 12].into(),
        };
        let hash = Module::getOperationHashCall { op: operation.clone() };
        let hash = node.ask(module, hash.abi_encode()).await.unwrap();
        let signed: Bytes = node.call("eth_sign", json!([owner, hash])).await.unwrap();
        let mut signed = signed.to_vec();
        // As Safe tells a message of eth_sign from a bare hash.
        signed[64] += 4;
        operation.signature = [&[0; 12][..], &signed].concat().into();
        operation
    }
}

async fn made(node: &Node, artifact: &str, arguments: &[u8]) -> Address {
    let file = npm_folder().join("node_modules").join(artifact);
    let text = std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let artifact: Value = serde_json::from_slice(&text).unwrap();
    let code: Bytes = artifact["bytecode"].as_str().unwrap().parse().unwrap();
    let code = alloy::hex::encode([&code, arguments].concat());
    contracts::deploy(node, node.accounts[0], &code).await.unwrap()
}

on_both_stores! {
    /// One operation of the bundle fails after its Safe was made: the Safe stands all the same.
    async fn a_bundle_makes_safes_though_one_of_its_operations_fails(store) {
        let node = Node::start().await;
        node.place_safe(&SAFE_1_4_1).await;
        let contracts = Contracts::deploy(&node).await;
        let daemon = Daemon::start(&node, &store).await;
        let api = daemon.customer("acme").await;
        let (good, bad) = (node.accounts[1], node.accounts[2]);
        // A contract that takes no money.
        let refuses = contracts.module_setup;
        let payee = Node::stranger();
        let operations = [
            contracts.operation(&node, good, payee).await,
            contracts.operation(&node, bad, refuses).await,
        ];
        let safes = operations.each_ref().map(|operation| operation.sender);
        for owner in [good, bad] {
            api.watch(owner).await;
        }
        // Each Safe pays for its operation itself, and is watched before it is there.
        for safe in safes {
            api.watch(safe).await;
            node.pay(node.accounts[0], safe, ETHER).await;
        }
        let bundle = EntryPoint::handleOpsCall {
            ops: operations.to_vec(),
            beneficiary: node.accounts[5],
        };
        let request = Request::call(node.accounts[0], contracts.entry_point, bundle.abi_encode());
        let receipt = node.block_with(&[request.with_gas(5_000_000)]).await.remove(0);
        let receipt: Value = node
            .call("eth_getTransactionReceipt", json!([receipt.transaction_hash]))
            .await
            .unwrap();
        assert_eq!(receipt["status"], "0x1");
        let outcome = |safe: Address| {
            let logs = receipt["logs"].as_array().unwrap();
            let of_it = |log: &&Value| {
                log["topics"][0] == EntryPoint::UserOperationEvent::SIGNATURE_HASH.to_string()
                    && log["topics"][2] == safe.into_word().to_string()
            };
            let log = logs.iter().find(of_it).unwrap();
            let data: Bytes = log["data"].as_str().unwrap().parse().unwrap();
            U256::from_be_slice(&data[32..64]) == U256::from(1)
        };
        assert_eq!(safes.map(outcome), [true, false]);
        node.settle().await;
        for (safe, owner) in safes.into_iter().zip([good, bad]) {
            let wallet = eventually("the Safe", || async {
                let answer = api.get(&format!("/v1/wallets/{safe}")).await;
                let told = &answer.body["safe"]["deployments"][0]["status"];
                (answer.status == 200 && told == "completed").then_some(answer.body)
            })
            .await;
            assert_eq!(wallet["safe"]["owners"], json!([owner.to_checksum(None)]));
            // The operation's fee left it inside the bundle's transaction.
            let balance = api.balance_settled(safe, "ETH", &node).await;
            assert_eq!(balance.available, node.balance(safe).await.unwrap());
            assert!(balance.available < U256::from(ETHER));
        }
        assert_eq!(node.balance(payee).await.unwrap(), U256::from(5));
        let bundle = receipt["transactionHash"].as_str().unwrap();
        let events = api.events().await;
        let completed = |event: &&Value| {
            event["type"] == "safe_deployment.completed"
                && event["data"]["safeDeployment"]["txHash"] == bundle
        };
        assert_eq!(events.iter().filter(completed).count(), 2);
    }
}
