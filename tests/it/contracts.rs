//! The building blocks themselves: bytecode, contracts, the node.

use std::{path::Path, process::Command};

use alloy::primitives::{U256, keccak256};
use tidemark::dev::{anvil::Request, contracts::SafeSetup};

use crate::harness::{Node, npm_folder};

const CONTRACTS: [(&str, &str); 5] = [
    ("src/dev/contracts", "DemoToken"),
    ("tests/it/contracts", "Elastic"),
    ("tests/it/contracts", "FakeSafeFactory"),
    ("tests/it/contracts", "Mover"),
    ("tests/it/contracts", "Tether"),
];

#[test]
fn the_checked_in_bytecode_is_what_the_source_compiles_to() {
    for (folder, name) in CONTRACTS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        let output = Command::new("node")
            .arg(npm_folder().join("compile.js"))
            .arg(folder.join(format!("{name}.sol")))
            .arg(name)
            .output()
            .expect("node is installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let checked_in = std::fs::read_to_string(folder.join(format!("{name}.hex"))).unwrap();
        assert!(
            String::from_utf8(output.stdout).unwrap() == checked_in,
            "{name}.hex is not what {name}.sol compiles to: node tests/npm/compile.js {} {name}",
            folder.join(format!("{name}.sol")).display(),
        );
    }
}

#[test]
fn the_package_locks_pin_every_package_and_name_no_registry() {
    for folder in ["src/dev/npm", "tests/npm"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join("package-lock.json");
        let lock: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        for (name, package) in lock["packages"].as_object().unwrap() {
            assert!(package["resolved"].is_null(), "{name} in {folder} names a registry");
            // The packages of other machines are not installed here, so nobody could compute their digest.
            let pinned = package["integrity"].is_string() || package["optional"] == true;
            assert!(name.is_empty() || pinned, "{name} in {folder} is not pinned");
        }
    }
}

#[tokio::test]
async fn a_safe_lands_at_its_predicted_address_with_the_public_proxy_code() {
    let node = Node::start().await;
    let from = node.accounts[0];
    for (contracts, code_hash) in [
        (
            node.deploy_safe_1_4_1().await,
            "0xd7d408ebcd99b2b70be43e20253d6d92a8ea8fab29bd3be7f55b10032331fb4c",
        ),
        (
            node.deploy_safe_1_3_0().await,
            "0xb89c1b3bdf2cf8827818646bce9a8f6e372885f8c55e5c07acbd307cb133b000",
        ),
    ] {
        let setup = SafeSetup { owners: vec![from, node.accounts[1]], threshold: 2, salt_nonce: 7 };
        let deployment = contracts.deployment(&node, from, &setup).await.unwrap();
        node.block_with(std::slice::from_ref(&deployment.request)).await;
        let code = node.code(deployment.address).await.unwrap();
        assert_eq!(keccak256(&code).to_string(), code_hash, "Safe {}", contracts.version);
    }
    node.stop().await;
}

#[tokio::test]
async fn the_node_mines_reorganizes_and_has_a_twin() {
    let node = Node::start().await;
    let (rich, payee) = (node.accounts[0], Node::stranger());
    node.mint(payee, 5).await;
    node.pay(rich, payee, 7).await;
    let twin = node.twin().await;
    node.reorg(1, &[(Request::pay(rich, payee, U256::from(9)), 0)]).await.unwrap();
    assert_eq!(node.balance(payee).await.unwrap(), U256::from(9));
    assert_eq!(node.token_balance(payee).await, U256::from(5));
    assert_eq!(twin.balance(payee).await.unwrap(), U256::from(7));
    assert_ne!(twin.head_hash().await, node.head_hash().await);
}
