//! Contracts on a local node: the real Safe, at the addresses it has on every public chain, and a demo token.

use std::path::Path;

use alloy::{
    primitives::{Address, B256, Bytes, U256, address, keccak256},
    sol,
    sol_types::{SolCall as _, SolValue as _},
};
use anyhow::{Context as _, bail, ensure};

use super::anvil::{Request, Rpc};

/// Arachnid's deterministic deployer: CREATE2 with the first 32 bytes of the input as salt. On every Anvil.
const DEPLOYER: Address = address!("0x4e59b44847b379578588920cA78FbF26c0B4956C");
/// Safe's own deployer: the same code at another address.
const SAFE_DEPLOYER: Address = address!("0x914d7Fec6aaC8cd542e72Bca78B30650d45643d7");
/// Enough for the largest of these contracts.
const DEPLOYMENT_GAS: u64 = 7_000_000;

/// Compiled from `contracts/DemoToken.sol`; a test compiles it again and compares.
const DEMO_TOKEN: &str = include_str!("contracts/DemoToken.hex");

sol! {
    /// The demo token's calls.
    interface DemoToken {
        function mint(address to, uint256 value) external;
        function burn(uint256 value) external;
        function transfer(address to, uint256 value) external returns (bool);
        function transferMany(address[] calldata to, uint256 value) external;
        function balanceOf(address owner) external view returns (uint256);
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

    interface SafeProxyFactory {
        function proxyCreationCode() external pure returns (bytes memory);
        function createProxyWithNonce(address singleton, bytes calldata initializer, uint256 saltNonce)
            external
            returns (address proxy);
    }
}

/// Symbol, name and decimals of the demo token.
pub const DEMO_SYMBOL: &str = "DUSD";
pub const DEMO_NAME: &str = "Demo Dollar";
pub const DEMO_DECIMALS: u8 = 6;

/// Deploys the demo token.
///
/// # Errors
/// If the node refuses.
pub async fn deploy_demo_token(rpc: &Rpc, from: Address) -> anyhow::Result<Address> {
    deploy(rpc, from, DEMO_TOKEN).await
}

/// Deploys creation code written in hexadecimal digits.
///
/// # Errors
/// If the text is no code or the node refuses.
pub async fn deploy(rpc: &Rpc, from: Address, code: &str) -> anyhow::Result<Address> {
    let code = Bytes::from(hex::decode(code.trim())?);
    let receipts = rpc.send_all(&[Request::create(from, code).with_gas(DEPLOYMENT_GAS)]).await?;
    receipts.first().and_then(|receipt| receipt.contract_address).context("no contract was made")
}

/// Where one version of Safe is.
#[derive(Clone, Copy, Debug)]
pub struct SafeContracts {
    pub version: &'static str,
    pub singleton: Address,
    pub singleton_l2: Address,
    pub factory: Address,
    pub fallback_handler: Address,
}

/// Version 1.4.1 on every chain.
pub const SAFE_1_4_1: SafeContracts = SafeContracts {
    version: "1.4.1",
    singleton: address!("0x41675C099F32341bf84BFc5382aF534df5C7461a"),
    singleton_l2: address!("0x29fcB43b46531BcA003ddC8FCB67FFE91900C762"),
    factory: address!("0x4e1DCf7AD4e460CfD30791CCC4F9c8a4f820ec67"),
    fallback_handler: address!("0xfd0732Dc9E303f09fCEf3a7388Ad10A83459Ec99"),
};

/// Version 1.3.0 on most chains.
pub const SAFE_1_3_0: SafeContracts = SafeContracts {
    version: "1.3.0",
    singleton: address!("0xd9Db270c1B5E3Bd161E8c8503c55cEABeE709552"),
    singleton_l2: address!("0x3E5c63644E683549055b9Be8653de26E0B4CD36E"),
    factory: address!("0xa6B71E26C5e0845f74c812102Ca7114b6a896AB2"),
    fallback_handler: address!("0xf48f2B2d2a534e402487b3ee7C18c33Aec0Fe5e4"),
};

/// Deploys Safe 1.4.1 from the npm packages in `modules`.
///
/// # Errors
/// If an artifact is missing, the node refuses, or a contract did not land on its public address.
pub async fn deploy_safe_1_4_1(
    rpc: &Rpc,
    from: Address,
    modules: &Path,
) -> anyhow::Result<SafeContracts> {
    let folder = modules.join("@safe-global/safe-contracts/build/artifacts/contracts");
    rpc.set_code(SAFE_DEPLOYER, &rpc.code(DEPLOYER).await?).await?;
    let contracts = [
        ("Safe.sol/Safe.json", SAFE_1_4_1.singleton),
        ("SafeL2.sol/SafeL2.json", SAFE_1_4_1.singleton_l2),
        ("proxies/SafeProxyFactory.sol/SafeProxyFactory.json", SAFE_1_4_1.factory),
        (
            "handler/CompatibilityFallbackHandler.sol/CompatibilityFallbackHandler.json",
            SAFE_1_4_1.fallback_handler,
        ),
    ];
    deploy_artifacts(rpc, from, SAFE_DEPLOYER, &folder, &contracts).await?;
    Ok(SAFE_1_4_1)
}

/// Deploys Safe 1.3.0 from the npm packages in `modules`.
///
/// # Errors
/// As [`deploy_safe_1_4_1`].
pub async fn deploy_safe_1_3_0(
    rpc: &Rpc,
    from: Address,
    modules: &Path,
) -> anyhow::Result<SafeContracts> {
    let folder = modules.join("@gnosis.pm/safe-contracts/build/artifacts/contracts");
    let contracts = [
        ("GnosisSafe.sol/GnosisSafe.json", SAFE_1_3_0.singleton),
        ("GnosisSafeL2.sol/GnosisSafeL2.json", SAFE_1_3_0.singleton_l2),
        ("proxies/GnosisSafeProxyFactory.sol/GnosisSafeProxyFactory.json", SAFE_1_3_0.factory),
        (
            "handler/CompatibilityFallbackHandler.sol/CompatibilityFallbackHandler.json",
            SAFE_1_3_0.fallback_handler,
        ),
    ];
    deploy_artifacts(rpc, from, DEPLOYER, &folder, &contracts).await?;
    Ok(SAFE_1_3_0)
}

#[derive(serde::Deserialize)]
struct Artifact {
    bytecode: Bytes,
}

/// Deploys through a deterministic deployer with salt 0, as the public chains' contracts were.
async fn deploy_artifacts(
    rpc: &Rpc,
    from: Address,
    deployer: Address,
    folder: &Path,
    contracts: &[(&str, Address)],
) -> anyhow::Result<()> {
    let mut requests = Vec::with_capacity(contracts.len());
    for (file, expected) in contracts {
        let path = folder.join(file);
        let text =
            std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let artifact: Artifact =
            serde_json::from_slice(&text).with_context(|| path.display().to_string())?;
        let lands = deployer.create2(B256::ZERO, keccak256(&artifact.bytecode));
        ensure!(lands == *expected, "{file} would be deployed at {lands}, not at {expected}");
        let data = [B256::ZERO.as_slice(), &artifact.bytecode].concat();
        requests.push(Request::call(from, deployer, data).with_gas(DEPLOYMENT_GAS));
    }
    // One block each: together they are larger than a block may be.
    for request in &requests {
        rpc.send_all(std::slice::from_ref(request)).await?;
    }
    for (file, expected) in contracts {
        if rpc.code(*expected).await?.is_empty() {
            bail!("{file} was not deployed");
        }
    }
    Ok(())
}

/// What a new Safe is to be.
#[derive(Clone, Debug)]
pub struct SafeSetup {
    pub owners: Vec<Address>,
    pub threshold: u64,
    pub salt_nonce: u64,
}

/// A deployment that is ready to be sent.
#[derive(Clone, Debug)]
pub struct SafeDeployment {
    pub request: Request,
    /// Where the Safe will be, whoever sends it.
    pub address: Address,
}

impl SafeContracts {
    /// Prepares `createProxyWithNonce` and computes the address it will make.
    ///
    /// # Errors
    /// If the factory is not on the node.
    pub async fn deployment(
        &self,
        rpc: &Rpc,
        from: Address,
        setup: &SafeSetup,
    ) -> anyhow::Result<SafeDeployment> {
        let initializer = Safe::setupCall {
            owners: setup.owners.clone(),
            threshold: U256::from(setup.threshold),
            to: Address::ZERO,
            data: Bytes::new(),
            fallbackHandler: self.fallback_handler,
            paymentToken: Address::ZERO,
            payment: U256::ZERO,
            paymentReceiver: Address::ZERO,
        };
        let salt_nonce = U256::from(setup.salt_nonce);
        self.deployment_with(rpc, from, initializer.abi_encode(), salt_nonce).await
    }

    /// As [`SafeContracts::deployment`], set up by any call.
    ///
    /// # Errors
    /// If the factory is not on the node.
    pub async fn deployment_with(
        &self,
        rpc: &Rpc,
        from: Address,
        initializer: Vec<u8>,
        salt_nonce: U256,
    ) -> anyhow::Result<SafeDeployment> {
        let answer =
            rpc.ask(self.factory, SafeProxyFactory::proxyCreationCodeCall {}.abi_encode()).await?;
        let mut code =
            SafeProxyFactory::proxyCreationCodeCall::abi_decode_returns(&answer)?.to_vec();
        code.extend(self.singleton.abi_encode());
        let salt = keccak256([keccak256(&initializer), B256::from(salt_nonce)].concat());
        let call = SafeProxyFactory::createProxyWithNonceCall {
            singleton: self.singleton,
            initializer: initializer.into(),
            saltNonce: salt_nonce,
        };
        Ok(SafeDeployment {
            request: Request::call(from, self.factory, call.abi_encode()),
            address: self.factory.create2(salt, keccak256(&code)),
        })
    }
}

/// A transfer of the demo token.
#[must_use]
pub fn token_transfer(token: Address, from: Address, to: Address, value: U256) -> Request {
    Request::call(from, token, DemoToken::transferCall { to, value }.abi_encode())
}

/// New demo money.
#[must_use]
pub fn token_mint(token: Address, from: Address, to: Address, value: U256) -> Request {
    Request::call(from, token, DemoToken::mintCall { to, value }.abi_encode())
}

/// What the demo token itself says of a balance, after the newest block.
///
/// # Errors
/// If the node does not answer.
pub async fn token_balance(rpc: &Rpc, token: Address, owner: Address) -> anyhow::Result<U256> {
    let answer = rpc.ask(token, DemoToken::balanceOfCall { owner }.abi_encode()).await?;
    Ok(DemoToken::balanceOfCall::abi_decode_returns(&answer)?)
}
