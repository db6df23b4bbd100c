//! The real Safe in every version, at its public addresses: the runtime code of the npm packages, put there by the node.

use std::path::PathBuf;

use alloy::{
    primitives::{Address, B256, Bytes, U256, address},
    sol,
    sol_types::SolCall as _,
};
use serde_json::{Value, json};
pub use tidemark::dev::contracts::SAFE_1_4_1;
use tidemark::dev::{
    anvil::Request,
    contracts::{SAFE_1_3_0, SafeContracts, SafeDeployment, SafeSetup},
    npm::Packages,
};

use super::{Node, npm_folder};

sol! {
    /// The setup of 1.0.0.
    interface FirstSafe {
        function setup(
            address[] calldata owners,
            uint256 threshold,
            address to,
            bytes calldata data,
            address paymentToken,
            uint256 payment,
            address paymentReceiver
        ) external;
    }
}

sol! {
    interface Wallet {
        function addOwnerWithThreshold(address owner, uint256 threshold) external;
        function changeThreshold(uint256 threshold) external;
        function enableModule(address module) external;
        function setGuard(address guard) external;
        function setFallbackHandler(address handler) external;
        function execTransaction(
            address to,
            uint256 value,
            bytes calldata data,
            uint8 operation,
            uint256 safeTxGas,
            uint256 baseGas,
            uint256 gasPrice,
            address gasToken,
            address refundReceiver,
            bytes calldata signatures
        ) external returns (bool);
    }
}

/// What a Safe is told to do.
#[derive(Default)]
pub struct Execution {
    pub to: Address,
    pub value: U256,
    pub data: Bytes,
    pub by_delegation: bool,
    /// Where it is not zero, the Safe's own transaction may fail inside one that succeeds.
    pub gas: U256,
    /// What the Safe pays whoever sends it, for each unit of gas.
    pub gas_price: U256,
    pub gas_token: Address,
    pub refund_receiver: Address,
}

impl Execution {
    /// Sent by the one owner, who may act for it alone.
    pub fn by(self, owner: Address, safe: Address) -> Request {
        // Who sends it has approved it.
        let signature = [owner.into_word().as_slice(), &[0; 32], &[1]].concat();
        let call = Wallet::execTransactionCall {
            to: self.to,
            value: self.value,
            data: self.data,
            operation: u8::from(self.by_delegation),
            safeTxGas: self.gas,
            baseGas: U256::ZERO,
            gasPrice: self.gas_price,
            gasToken: self.gas_token,
            refundReceiver: self.refund_receiver,
            signatures: signature.into(),
        };
        Request::call(owner, safe, call.abi_encode()).with_gas(300_000)
    }
}

/// What a Safe does that one owner, who sends it, may act for alone.
pub fn execute(
    owner: Address,
    safe: Address,
    to: Address,
    data: Vec<u8>,
    by_delegation: bool,
) -> Request {
    Execution { to, data: data.into(), by_delegation, ..Execution::default() }.by(owner, safe)
}

/// How the API is told of a Safe of the first singleton, as the tests' factories are asked for it.
pub fn plan(safe: &SafeContracts, setup: &SafeSetup) -> Value {
    let owners: Vec<String> = setup.owners.iter().map(ToString::to_string).collect();
    let deployment = if safe.factory == SAFE_1_3_0_EIP155.factory { "eip155" } else { "canonical" };
    json!({
        "version": safe.version,
        "owners": owners,
        "threshold": setup.threshold,
        "saltNonce": setup.salt_nonce.to_string(),
        "singleton": "l1",
        "deployment": deployment,
    })
}

/// A contract that does nothing but write values into slots of whoever calls it by delegation.
pub fn writer(slots: &[(B256, B256)]) -> Vec<u8> {
    let write = |(slot, value): &(B256, B256)| {
        [&[0x7f], value.as_slice(), &[0x7f], slot.as_slice(), &[0x55]].concat()
    };
    let code = [slots.iter().map(write).collect::<Vec<_>>().concat(), vec![0x00]].concat();
    let length = u8::try_from(code.len()).unwrap();
    // PUSH1 length, DUP1, PUSH1 11, PUSH1 0, CODECOPY, PUSH1 0, RETURN, and a byte of nothing.
    [&[0x60, length, 0x80, 0x60, 11, 0x60, 0, 0x39, 0x60, 0, 0xf3], &code[..]].concat()
}

pub const SAFE_1_0_0: SafeContracts = SafeContracts {
    version: "1.0.0",
    singleton: address!("0xb6029EA3B2c51D09a50B53CA8012FeEB05bDa35A"),
    singleton_l2: Address::ZERO,
    factory: address!("0x12302fE9c02ff50939BaAaaf415fc226C078613C"),
    fallback_handler: Address::ZERO,
};

pub const SAFE_1_1_1: SafeContracts = SafeContracts {
    version: "1.1.1",
    singleton: address!("0x34CfAC646f301356fAa8B21e94227e3583Fe3F5F"),
    singleton_l2: Address::ZERO,
    factory: address!("0x76E2cFc1F5Fa8F6a5b3fC4c8F4788F0116861F9B"),
    fallback_handler: address!("0xd5D82B6aDDc9027B22dCA772Aa68D5d74cdBdF44"),
};

/// 1.3.0 on chains that refuse transactions without a chain id.
pub const SAFE_1_3_0_EIP155: SafeContracts = SafeContracts {
    version: "1.3.0",
    singleton: address!("0x69f4D1788e39c87893C980c06EdF4b7f686e2938"),
    singleton_l2: address!("0xfb1bffC9d739B8D520DaF37dF666da4C687191EA"),
    factory: address!("0xC22834581EbC8527d974F8a1c97E1bEA4EF910BC"),
    fallback_handler: address!("0x017062a1dE2FE6b99BE3d9d37841FeD19F573804"),
};

pub const SAFE_1_5_0: SafeContracts = SafeContracts {
    version: "1.5.0",
    singleton: address!("0xFf51A5898e281Db6DfC7855790607438dF2ca44b"),
    singleton_l2: address!("0xEdD160fEBBD92E350D4D398fb636302fccd67C7e"),
    factory: address!("0x14F2982D601c9458F93bd70B218933A6f8165e7b"),
    fallback_handler: address!("0x3EfCBb83A4A7AfcB4F68D501E2c2203a38be77f4"),
};

pub const ALL_SAFES: [SafeContracts; 6] =
    [SAFE_1_0_0, SAFE_1_1_1, SAFE_1_3_0, SAFE_1_3_0_EIP155, SAFE_1_4_1, SAFE_1_5_0];

/// Where an artifact of a version lies, and at which address it belongs.
async fn artifacts(safe: &SafeContracts) -> Vec<(PathBuf, Address)> {
    let own = npm_folder().join("node_modules");
    let (folder, names) = match safe.version {
        "1.0.0" | "1.1.1" => (
            own.join(format!("safe-contracts-{}/build/contracts", safe.version)),
            ["GnosisSafe.json", "", "ProxyFactory.json", "DefaultCallbackHandler.json"],
        ),
        "1.3.0" => (
            own.join("@gnosis.pm/safe-contracts/build/artifacts/contracts"),
            [
                "GnosisSafe.sol/GnosisSafe.json",
                "GnosisSafeL2.sol/GnosisSafeL2.json",
                "proxies/GnosisSafeProxyFactory.sol/GnosisSafeProxyFactory.json",
                "handler/CompatibilityFallbackHandler.sol/CompatibilityFallbackHandler.json",
            ],
        ),
        version => {
            let package = if version == "1.5.0" {
                own.join("@safe-global/safe-smart-account")
            } else {
                Packages::install().await.unwrap().modules().join("@safe-global/safe-contracts")
            };
            (
                package.join("build/artifacts/contracts"),
                [
                    "Safe.sol/Safe.json",
                    "SafeL2.sol/SafeL2.json",
                    "proxies/SafeProxyFactory.sol/SafeProxyFactory.json",
                    "handler/CompatibilityFallbackHandler.sol/CompatibilityFallbackHandler.json",
                ],
            )
        }
    };
    let places = [safe.singleton, safe.singleton_l2, safe.factory, safe.fallback_handler];
    let files = names.map(|name| folder.join(name)).into_iter().zip(places);
    files.filter(|(_, place)| !place.is_zero()).collect()
}

impl Node {
    /// Puts a version of Safe where it belongs.
    pub async fn place_safe(&self, safe: &SafeContracts) {
        for (file, place) in artifacts(safe).await {
            let text =
                std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            let artifact: Value = serde_json::from_slice(&text).unwrap();
            let code: Bytes = artifact["deployedBytecode"].as_str().unwrap().parse().unwrap();
            self.set_code(place, &code).await.unwrap();
        }
        self.mine(1).await.unwrap();
    }

    /// The deployment of a Safe of any version, ready to be sent.
    pub async fn safe_deployment(&self, safe: &SafeContracts, setup: &SafeSetup) -> SafeDeployment {
        let from = self.accounts[0];
        if safe.version != SAFE_1_0_0.version {
            return safe.deployment(self, from, setup).await.unwrap();
        }
        let initializer = FirstSafe::setupCall {
            owners: setup.owners.clone(),
            threshold: U256::from(setup.threshold),
            to: Address::ZERO,
            data: Bytes::new(),
            paymentToken: Address::ZERO,
            payment: U256::ZERO,
            paymentReceiver: Address::ZERO,
        };
        let salt_nonce = U256::from(setup.salt_nonce);
        safe.deployment_with(self, from, initializer.abi_encode(), salt_nonce).await.unwrap()
    }
}
