//! Safe's contracts, version by version, as the Safe deployments repository lists them.
//!
//! From 1.3.0 on an address commits to what is deployed there (CREATE2), on every chain. The earlier ones are where
//! Safe's own account has put them, and nobody else can put anything there.

use alloy::primitives::{Address, B256, address, b256};

use crate::chain::{SafeContract, SafeRelease, SafeRole, evm::decode::address as plain};

/// A contract, and keccak256 of its runtime code where that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Contract {
    pub address: Address,
    pub code: Option<B256>,
}

/// One deployment of one version; 1.3.0 has two.
#[derive(Clone, Copy, Debug)]
pub(super) struct Release {
    pub version: &'static str,
    /// The same version can stand at two places: `eip155` is for chains that refuse transactions without a chain id.
    pub deployment: &'static str,
    pub factory: Contract,
    pub singleton: Contract,
    /// The one that logs what it executes.
    pub singleton_l2: Option<Contract>,
    /// They answer for a Safe and cannot spend.
    pub fallback_handlers: &'static [Contract],
    /// keccak256 of the runtime code of its proxies, of each build that is in use.
    pub proxies: &'static [B256],
    /// keccak256 of what the factory makes a proxy of either singleton with: its creation code and its argument. Where
    /// there is none, nobody asks where such a Safe will stand.
    pub makes: Option<(B256, B256)>,
}

const fn contract(address: Address, code: B256) -> Contract {
    Contract { address, code: Some(code) }
}

/// A contract whose code nobody has written down.
const fn somewhere(address: Address) -> Contract {
    Contract { address, code: None }
}

/// The same contract since 1.1.0 but for what its compiler wrote behind the code.
const PROXIES_1_1: &[B256] = &[
    b256!("aea7d4252f6245f301e540cfbee27d3a88de543af8e49c5c62405d5499fab7e5"),
    b256!("46d3681ae4f67a4cee3a549d7a914afcd24b9681e013fe2e8e7a7bd4b20a9023"),
    b256!("d8724d863b8d429d28fc17e2e2f847118c297b4d9c7ec76ef9f8a31328762986"),
];

const FACTORY_1_1_1: Contract = contract(
    address!("76E2cFc1F5Fa8F6a5b3fC4c8F4788F0116861F9B"),
    b256!("0f0bb9c13be3b595d6f0fde841d5247a96f7e315bd8b97e1363553bee9a7d995"),
);

const FACTORY_1_3_0: B256 =
    b256!("337d7f54be11b6ed55fef7b667ea5488db53db8320a05d1146aa4bd169a39a9b");
const SINGLETON_1_3_0: B256 =
    b256!("bba688fbdb21ad2bb58bc320638b43d94e7d100f6f3ebaab0a4e4de6304b1c2e");
const SINGLETON_L2_1_3_0: B256 =
    b256!("21842597390c4c6e3c1239e434a682b054bd9548eee5e9b1d6a4482731023c0f");
const HANDLER_1_3_0: B256 =
    b256!("03e69f7ce809e81687c69b19a7d7cca45b6d551ffdec73d9bb87178476de1abf");
const PROXY_1_3_0: B256 = b256!("b89c1b3bdf2cf8827818646bce9a8f6e372885f8c55e5c07acbd307cb133b000");

const CANONICAL: &str = "canonical";

/// The oldest first.
pub(super) const RELEASES: &[Release] = &[
    Release {
        version: "1.0.0",
        deployment: CANONICAL,
        factory: contract(
            address!("12302fE9c02ff50939BaAaaf415fc226C078613C"),
            b256!("84a375ad96ab395850d46cd601ed6354d3cf3fb67cec0caf18f34af5c9d1a7f0"),
        ),
        singleton: somewhere(address!("b6029EA3B2c51D09a50B53CA8012FeEB05bDa35A")),
        singleton_l2: None,
        fallback_handlers: &[],
        // The same code but for what the compiler wrote behind it.
        proxies: &[
            b256!("056c9d8c4971536770b5d591f52ec8227269ceb17dcfd9ac0cc3174b940af8d2"),
            b256!("f8fffcb9b9c73fbc4ffb6dc52f0001fa998951e0d4177894b1b899f7732b6eaf"),
            b256!("9999daa94896b1dc51734d94c68aec28587d45e0584a50b319cb99b1f335d99b"),
        ],
        makes: None,
    },
    Release {
        version: "1.1.0",
        deployment: CANONICAL,
        factory: somewhere(address!("50e55Af101C777bA7A1d560a774A82eF002ced9F")),
        singleton: somewhere(address!("aE32496491b53841efb51829d6f886387708F99B")),
        singleton_l2: None,
        fallback_handlers: &[],
        proxies: PROXIES_1_1,
        makes: None,
    },
    Release {
        version: "1.1.1",
        deployment: CANONICAL,
        factory: FACTORY_1_1_1,
        singleton: contract(
            address!("34CfAC646f301356fAa8B21e94227e3583Fe3F5F"),
            b256!("56b8be58b5ad629a621593a2e5e5e8e9a28408dc06e95597497b303902772e45"),
        ),
        singleton_l2: None,
        fallback_handlers: &[HANDLER_1_1_1],
        proxies: PROXIES_1_1,
        makes: None,
    },
    // It came with no factory of its own.
    Release {
        version: "1.2.0",
        deployment: CANONICAL,
        factory: FACTORY_1_1_1,
        singleton: somewhere(address!("6851D6fDFAfD08c0295C392436245E5bc78B0185")),
        singleton_l2: None,
        fallback_handlers: &[HANDLER_1_1_1],
        proxies: PROXIES_1_1,
        makes: None,
    },
    Release {
        version: "1.3.0",
        deployment: CANONICAL,
        factory: contract(address!("a6B71E26C5e0845f74c812102Ca7114b6a896AB2"), FACTORY_1_3_0),
        singleton: contract(address!("d9Db270c1B5E3Bd161E8c8503c55cEABeE709552"), SINGLETON_1_3_0),
        singleton_l2: Some(contract(
            address!("3E5c63644E683549055b9Be8653de26E0B4CD36E"),
            SINGLETON_L2_1_3_0,
        )),
        fallback_handlers: &[contract(
            address!("f48f2B2d2a534e402487b3ee7C18c33Aec0Fe5e4"),
            HANDLER_1_3_0,
        )],
        proxies: &[PROXY_1_3_0],
        makes: Some((
            b256!("56e3081a3d1bb38ed4eed1a39f7729c3cc77c7825794c15bbf326f3047fd779c"),
            b256!("caf2dc2f91b804b2fcf1ed3a965a1ff4404b840b80c124277b00a43b4634b2ce"),
        )),
    },
    Release {
        version: "1.3.0",
        deployment: "eip155",
        factory: contract(address!("C22834581EbC8527d974F8a1c97E1bEA4EF910BC"), FACTORY_1_3_0),
        singleton: contract(address!("69f4D1788e39c87893C980c06EdF4b7f686e2938"), SINGLETON_1_3_0),
        singleton_l2: Some(contract(
            address!("fb1bffC9d739B8D520DaF37dF666da4C687191EA"),
            SINGLETON_L2_1_3_0,
        )),
        fallback_handlers: &[contract(
            address!("017062a1dE2FE6b99BE3d9d37841FeD19F573804"),
            HANDLER_1_3_0,
        )],
        proxies: &[PROXY_1_3_0],
        makes: Some((
            b256!("b3e501cfec8bd01fe46110901ec2dbff08b51dfc5ac094de6535e2c4bbdb59d9"),
            b256!("ea577b319e453ad8c9c606cacfe42c5750522aa0379d419931cb34698e3630e0"),
        )),
    },
    Release {
        version: "1.4.1",
        deployment: CANONICAL,
        factory: contract(
            address!("4e1DCf7AD4e460CfD30791CCC4F9c8a4f820ec67"),
            b256!("50c3cdc4074750a7a974204a716c999edd37482f907608d960b2b025ee0b3317"),
        ),
        singleton: contract(
            address!("41675C099F32341bf84BFc5382aF534df5C7461a"),
            b256!("1fe2df852ba3299d6534ef416eefa406e56ced995bca886ab7a553e6d0c5e1c4"),
        ),
        singleton_l2: Some(contract(
            address!("29fcB43b46531BcA003ddC8FCB67FFE91900C762"),
            b256!("b1f926978a0f44a2c0ec8fe822418ae969bd8c3f18d61e5103100339894f81ff"),
        )),
        fallback_handlers: &[contract(
            address!("fd0732Dc9E303f09fCEf3a7388Ad10A83459Ec99"),
            b256!("7c6007a5d711cea8dfd5d91f5940ec29c7f200fe511eb1fc1397b367af3c42f9"),
        )],
        proxies: &[b256!("d7d408ebcd99b2b70be43e20253d6d92a8ea8fab29bd3be7f55b10032331fb4c")],
        makes: Some((
            b256!("76733d705f71b79841c0ee960a0ca880f779cde7ef446c989e6d23efc0a4adfb"),
            b256!("e298282cefe913ab5d282047161268a8222e4bd4ed106300c547894bbefd31ee"),
        )),
    },
    Release {
        version: "1.5.0",
        deployment: CANONICAL,
        factory: contract(
            address!("14F2982D601c9458F93bd70B218933A6f8165e7b"),
            b256!("967dae4cda22b0c9ef7f31b010bdc1ceb0af9904b0c3dc060b5302e4c18a4529"),
        ),
        singleton: contract(
            address!("Ff51A5898e281Db6DfC7855790607438dF2ca44b"),
            b256!("dda019cbd7c867a533a2a86e5c53434fdc50b13122b5a5ddb4a8df61b31c20f2"),
        ),
        singleton_l2: Some(contract(
            address!("EdD160fEBBD92E350D4D398fb636302fccd67C7e"),
            b256!("180193227186ccb85316c94db1f0d156ed932b14712cfaac78901899178572dc"),
        )),
        fallback_handlers: &[
            contract(
                address!("3EfCBb83A4A7AfcB4F68D501E2c2203a38be77f4"),
                b256!("3c6a85bcf7b563daa624b884b4e9a1b9fa5371edde7be945d998071a48f28bbc"),
            ),
            // The extensible one.
            contract(
                address!("85a8ca358D388530ad0fB95D0cb89Dd44Fc242c3"),
                b256!("ba5bafdfba82e226b6dc8ae29bedf5026bd854ab4bee00128ca322717a5f2acf"),
            ),
            // The one that only takes tokens.
            contract(
                address!("54e86d004d71a8D2112ec75FaCE57D730b0433F3"),
                b256!("cbc723172700efa52cc33ee26c7fc7e284edc8097f9dc307857fe525fec98cd8"),
            ),
        ],
        proxies: &[b256!("4e381985ca68b3e5d27b4425fa581c19cf33146d3f887a3cfca96f55528ea46f")],
        makes: Some((
            b256!("9dd695a8d96e2c0f6ede304e13cc2efe754fa353b7389a23340c9317113bc975"),
            b256!("c00f8ed2d8e1bacf9a81836a956d9be01fbb50416bce76c09d18859e6bb6d223"),
        )),
    },
];

const HANDLER_1_1_1: Contract = somewhere(address!("d5D82B6aDDc9027B22dCA772Aa68D5d74cdBdF44"));

/// `SafeToL2Setup`: what may be called while a Safe is set up, since it does nothing but take another singleton,
/// which it tells.
pub(super) const SETUPS: &[Address] = &[
    address!("BD89A1CE4DDe368FFAB0eC35506eEcE0b1fFdc54"), // 1.4.1
    address!("900C7589200010D6C6eCaaE5B06EBe653bc2D82a"), // 1.5.0
];

impl Release {
    /// Whether its Safes say nothing of how they were set up (`SafeSetup` came with 1.3.0).
    pub fn is_silent(&self) -> bool {
        matches!(self.version, "1.0.0" | "1.1.0" | "1.1.1" | "1.2.0")
    }

    fn shown(&self) -> SafeRelease {
        let contract = |role, contract: Contract| SafeContract {
            role,
            address: plain(contract.address),
            code: contract.code.map(|code| code.0),
        };
        let main = [(SafeRole::Factory, self.factory), (SafeRole::Singleton, self.singleton)];
        let layer = self.singleton_l2.map(|singleton| (SafeRole::SingletonL2, singleton));
        let handlers =
            self.fallback_handlers.iter().map(|handler| (SafeRole::FallbackHandler, *handler));
        let all = main.into_iter().chain(layer).chain(handlers);
        SafeRelease {
            version: self.version,
            deployment: self.deployment,
            contracts: all.map(|(role, known)| contract(role, known)).collect(),
            proxies: self.proxies.iter().map(|code| code.0).collect(),
        }
    }

    fn singletons(&self) -> impl Iterator<Item = Contract> {
        std::iter::once(self.singleton).chain(self.singleton_l2)
    }
}

/// The version whose singleton stands at an address.
pub(super) fn version_of(singleton: Address) -> Option<&'static str> {
    let of = |release: &&Release| release.singletons().any(|known| known.address == singleton);
    RELEASES.iter().find(of).map(|release| release.version)
}

/// The first version that came with this factory.
pub(super) fn made_by(factory: Address) -> Option<&'static Release> {
    RELEASES.iter().find(|release| release.factory.address == factory)
}

pub(super) fn is_proxy(code: B256) -> bool {
    RELEASES.iter().any(|release| release.proxies.contains(&code))
}

pub(super) fn is_fallback_handler(address: Address) -> bool {
    let mut all = RELEASES.iter().flat_map(|release| release.fallback_handlers);
    all.any(|known| known.address == address)
}

/// All of them, as others see them.
pub(in crate::chain::evm) fn all() -> Vec<SafeRelease> {
    RELEASES.iter().map(Release::shown).collect()
}
