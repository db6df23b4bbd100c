use proptest::prelude::*;

use super::*;
use crate::{api::wallet::register::Owner, chain::Address, clock::Clock};

const NOW: Millis = Millis(1_768_469_400_000);

/// A store that only registrations write to.
#[derive(Clone, Default)]
struct Store {
    known: BTreeMap<WatchKey, WalletId>,
    accounts: BTreeMap<AccountKey, AccountId>,
    locators: BTreeMap<LocatorKey, AccountId>,
    wallets: Vec<NewWallet>,
}

impl Store {
    fn known(&self) -> Known {
        Known {
            watched: self.known.clone(),
            accounts: self.accounts.clone(),
            locators: self.locators.clone(),
        }
    }

    /// Writes as the tables would: a key that is there already is a failure.
    fn write(&mut self, new: Registrations) {
        for (key, id) in new.accounts {
            assert_eq!(self.accounts.insert(key, id), None, "an account is made twice");
        }
        for (key, id) in new.locators {
            assert!(self.accounts.values().any(|account| *account == id));
            assert_eq!(self.locators.insert(key, id), None, "a locator is made twice");
        }
        for (account, family) in new.primaries {
            for wallet in &mut self.wallets {
                if wallet.account_id == Some(account) && wallet.family == family {
                    wallet.is_primary = false;
                }
            }
        }
        self.wallets.extend(new.wallets);
        for watch in new.watches {
            assert!(self.wallets.iter().any(|wallet| wallet.id == watch.wallet));
            assert_eq!(self.known.insert(watch.key, watch.wallet), None, "watched twice");
        }
    }

    /// What it holds, with numbers for ids.
    fn described(&self) -> Vec<String> {
        let number = |id: AccountId| self.accounts.iter().find(|(_, account)| **account == id);
        let mut lines: Vec<String> = Vec::new();
        for wallet in &self.wallets {
            let owner = wallet.account_id.and_then(number).map(|(key, _)| key.clone());
            let watched: Vec<_> =
                self.known.iter().filter(|(_, id)| **id == wallet.id).map(|(key, _)| key).collect();
            lines.push(format!("{:?} {owner:?} {} {watched:?}", wallet.address, wallet.is_primary));
        }
        let named = |(key, id): (&LocatorKey, &AccountId)| {
            format!("{key:?} {:?}", number(*id).map(|(key, _)| key))
        };
        lines.extend(self.locators.iter().map(named));
        lines
    }
}

const CHAINS: [&str; 2] = ["base", "ethereum"];

/// As the store numbers what is asked for.
fn numbered(tenant_id: TenantId, register: &Register) -> Asked<'_> {
    let no = |name: &ChainName| CHAINS.iter().position(|chain| *chain == name.as_str());
    let no = |name| ChainNo(i64::try_from(no(name).expect("a chain")).expect("a small number"));
    let chains = register.chains.iter();
    Asked {
        tenant: TenantNo(i64::try_from(tenant_id.0.as_u128()).expect("a small number")),
        tenant_id,
        chains: chains
            .map(|(name, &from_block)| AskedChain { no: no(name), name, from_block })
            .collect(),
        register,
    }
}

fn asked() -> impl Strategy<Value = (TenantId, Register)> {
    let owner = (0..3u8, proptest::option::of(0..3u8));
    let chains = proptest::collection::btree_map(0..2usize, proptest::option::of(0..9u64), 1..3);
    (0..2u128, 1..6u8, chains, proptest::option::of(owner), any::<bool>()).prop_map(
        |(tenant, address, chains, owner, primary)| {
            let chains =
                chains.into_iter().map(|(n, from)| (ChainName::new(CHAINS[n]), from)).collect();
            let owner = owner.map(|(external, user)| Owner {
                external_id: external.to_string(),
                locators: user
                    .map(|user| (LocatorKind::UserId, user.to_string()))
                    .into_iter()
                    .collect(),
            });
            let register = Register {
                address: Address::from([address; 20]),
                family: Family::Evm,
                safe: None,
                chains,
                is_primary: primary && owner.is_some(),
                owner,
                client_reference_id: None,
                nickname: None,
            };
            (TenantId(uuid::Uuid::from_u128(tenant)), register)
        },
    )
}

/// Registers in batches of these sizes; gives the store and what each was told.
fn run(all: &[(TenantId, Register)], sizes: &[usize]) -> (Vec<String>, Vec<String>) {
    let ids = Ids::new(Clock::manual(NOW));
    let (mut store, mut told, mut rest) = (Store::default(), Vec::new(), all);
    let mut sizes = sizes.iter().copied().cycle();
    while !rest.is_empty() {
        let (batch, later) = rest.split_at(sizes.next().unwrap_or(1).min(rest.len()));
        let mut deciding = Deciding::new(store.known(), &ids, NOW);
        for (tenant, register) in batch {
            told.push(match deciding.register(&numbered(*tenant, register)) {
                Ok(row) => format!("{} primary: {}", row.chains.len(), row.is_primary),
                Err(Refusal::Exists { chain, .. }) => format!("exists on {chain:?}"),
                Err(Refusal::NamesAnother { kind, .. }) => format!("{kind} names another"),
            });
        }
        store.write(deciding.finish());
        rest = later;
    }
    (store.described(), told)
}

proptest! {
    #[test]
    fn any_batching_of_the_same_registrations_makes_and_tells_the_same(
        all in proptest::collection::vec(asked(), 1..24),
        sizes in proptest::collection::vec(1..8usize, 1..4),
    ) {
        prop_assert_eq!(run(&all, &sizes), run(&all, &[1]));
    }

    #[test]
    fn an_account_has_one_primary_wallet_of_a_family_at_most(
        all in proptest::collection::vec(asked(), 1..24),
    ) {
        let (described, _) = run(&all, &[24]);
        let mut primaries: Vec<_> = described
            .iter()
            .filter_map(|line| line.split_once(" true ")?.0.split_once(' '))
            .map(|(_, owner)| owner)
            .collect();
        primaries.sort_unstable();
        let count = primaries.len();
        primaries.dedup();
        prop_assert_eq!(primaries.len(), count);
    }
}

#[test]
fn what_is_refused_adds_nothing() {
    let ids = Ids::new(Clock::manual(NOW));
    let tenant = TenantId(uuid::Uuid::nil());
    let register = |address: u8, external: &str, locators: &[&str]| Register {
        address: Address::from([address; 20]),
        family: Family::Evm,
        safe: None,
        chains: BTreeMap::from([(ChainName::new("base"), None)]),
        owner: Some(Owner {
            external_id: external.to_owned(),
            locators: locators.iter().map(|v| (LocatorKind::X, (*v).to_owned())).collect(),
        }),
        client_reference_id: None,
        nickname: None,
        is_primary: true,
    };
    let mut deciding = Deciding::new(Known::default(), &ids, NOW);
    deciding.register(&numbered(tenant, &register(1, "a", &["a"]))).expect("the first");
    let same = deciding.register(&numbered(tenant, &register(1, "b", &["b"])));
    assert!(matches!(same, Err(Refusal::Exists { .. })));
    let taken = deciding.register(&numbered(tenant, &register(2, "c", &["c", "a"])));
    assert!(matches!(taken, Err(Refusal::NamesAnother { .. })));
    let new = deciding.finish();
    let counts = (new.accounts.len(), new.locators.len(), new.wallets.len(), new.watches.len());
    assert_eq!(counts, (1, 1, 1, 1));
    assert!(new.wallets[0].is_primary && new.primaries.is_empty());
}
