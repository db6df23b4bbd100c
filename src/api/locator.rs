//! Naming a wallet in a path: `wlt_…`, an address, `external:{id}`, `email:a@b.c:evm`, `userId:42:evm:safe`.

use axum::http::StatusCode;

use super::{
    App,
    error::{Code, Problem},
};
use crate::{
    chain::Family,
    id::{TenantId, WalletId},
    model::{LocatorKind, Wallet, WalletKind},
    store::{
        Conn,
        balance::Holdings,
        wallet::{self, AccountFilter, WalletFilter},
    },
};

const FORMS: &str = "A wallet is named by its id (wlt_…), its address, external:{id}, or \
                     email:{email}:{family} (also userId, phoneNumber, x; with :safe for the Safe)";

/// A locator, read.
#[derive(Debug)]
pub(super) struct Locator {
    pub filter: WalletFilter,
    text: String,
}

fn not_found(text: &str) -> Problem {
    Problem::new(
        Code::WalletNotFound,
        format!("No wallet matches '{text}'. List wallets with GET /v1/wallets. {FORMS}."),
    )
}

impl Locator {
    /// # Errors
    /// 400 for an address with a wrong checksum or a locator without a family; 404 for what can name nothing.
    pub fn parse(text: String) -> Result<Self, Problem> {
        let filter = Self::filter(&text)?;
        Ok(Self { filter, text })
    }

    fn filter(text: &str) -> Result<WalletFilter, Problem> {
        let nothing = WalletFilter::default;
        if text.starts_with("wlt_") {
            let id = text.parse().map_err(|_| not_found(text))?;
            return Ok(WalletFilter { id: Some(id), ..nothing() });
        }
        if let Some((kind, rest)) = text.split_once(':') {
            if kind == "external" {
                let account = Some(AccountFilter::External(rest.to_owned()));
                return Ok(WalletFilter { account, ..nothing() });
            }
            let kind = LocatorKind::parse(kind).ok_or_else(|| not_found(text))?;
            let (rest, wallet_kind) = match rest.strip_suffix(":safe") {
                Some(rest) => (rest, Some(WalletKind::Safe)),
                None => (rest, None),
            };
            let (value, family) = rest.rsplit_once(':').unwrap_or((rest, ""));
            if Family::TO_COME.contains(&family) {
                return Err(not_found(text));
            }
            let Some(family) = Family::parse(family) else {
                let families: Vec<String> =
                    Family::ALL.iter().map(|family| format!(":{family}")).collect();
                return Err(Problem::invalid(format!(
                    "'{text}' does not end with a family ({}). {FORMS}.",
                    families.join(" or ")
                )));
            };
            return Ok(WalletFilter {
                account: Some(AccountFilter::Locator(kind, canonical(kind, value))),
                family: Some(family),
                kind: wallet_kind,
                ..nothing()
            });
        }
        for &family in Family::ALL {
            match family.parse_address(text) {
                Ok(address) => {
                    let (address, family) = (Some(address), Some(family));
                    return Ok(WalletFilter { address, family, ..nothing() });
                }
                Err(error) if family.resembles_address(text) => {
                    return Err(Problem::field(Code::InvalidAddress, "locator", error.to_string()));
                }
                Err(_) => {}
            }
        }
        Err(not_found(text))
    }

    /// The one wallet that is meant: of an account's wallets the primary one; else the only one that was registered;
    /// where none was, the Safe that was found by its owner first.
    ///
    /// # Errors
    /// 404 if there is none, 409 with the ids if there are several and none is the account's primary one.
    pub async fn resolve(&self, conn: &mut Conn<'_>, tenant: TenantId) -> Result<Wallet, Problem> {
        self.choose(wallet::matching(conn, tenant, &self.filter).await?)
    }

    pub fn choose<W: Candidate>(&self, mut found: Vec<W>) -> Result<W, Problem> {
        if found.len() > 1 && self.filter.account.is_some() {
            let primaries = found.iter().filter(|wallet| wallet.is_primary()).count();
            if primaries == 1 {
                found.retain(Candidate::is_primary);
            }
        }
        if found.len() > 1 {
            // Anybody can make Safes for somebody's owner: they stand in nobody's way.
            if found.iter().any(|wallet| !wallet.is_found_by_owner()) {
                found.retain(|wallet| !wallet.is_found_by_owner());
            } else if let Some(first) = found.iter().map(Candidate::id).min() {
                found.retain(|wallet| wallet.id() == first);
            }
        }
        if found.len() > 1 {
            let ids: Vec<String> = found.iter().map(|wallet| wallet.id().to_string()).collect();
            return Err(Problem {
                status: StatusCode::CONFLICT,
                ..Problem::invalid(format!(
                    "'{}' matches several wallets: name one of {} instead.",
                    self.text,
                    ids.join(", ")
                ))
            });
        }
        found.pop().ok_or_else(|| not_found(&self.text))
    }
}

/// A locator's value as it is compared: e-mail addresses without regard to case.
pub(super) fn canonical(kind: LocatorKind, value: &str) -> String {
    match kind {
        LocatorKind::Email => value.to_lowercase(),
        LocatorKind::UserId | LocatorKind::PhoneNumber | LocatorKind::X => value.to_owned(),
    }
}

/// A wallet that a locator may mean.
pub(super) trait Candidate {
    fn id(&self) -> WalletId;
    fn is_primary(&self) -> bool;
    /// Whether it is a Safe that became a wallet because one of its owners is registered.
    fn is_found_by_owner(&self) -> bool;
}

impl Candidate for Wallet {
    fn id(&self) -> WalletId {
        self.id
    }

    fn is_found_by_owner(&self) -> bool {
        self.safe.as_ref().is_some_and(|safe| safe.found_by_owner)
    }

    fn is_primary(&self) -> bool {
        self.is_primary
    }
}

impl Candidate for Holdings {
    fn id(&self) -> WalletId {
        self.wallet_id
    }

    fn is_found_by_owner(&self) -> bool {
        self.found_by_owner
    }

    fn is_primary(&self) -> bool {
        self.is_primary
    }
}

/// Resolves a locator with a connection of its own.
pub(super) async fn find(app: &App, tenant: TenantId, text: String) -> Result<Wallet, Problem> {
    let locator = Locator::parse(text)?;
    let mut session = app.db.read().await?;
    locator.resolve(&mut session.conn(), tenant).await
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    /// A wallet of an account: its number, and whether it is primary or a Safe that was found.
    struct Of(u128, bool, bool);

    impl Candidate for Of {
        fn id(&self) -> WalletId {
            WalletId(Uuid::from_u128(self.0))
        }

        fn is_primary(&self) -> bool {
            self.1
        }

        fn is_found_by_owner(&self) -> bool {
            self.2
        }
    }

    #[test]
    fn safes_that_were_found_make_no_locator_ambiguous() {
        let chosen = |text: &str, wallets: Vec<Of>| {
            let locator = Locator::parse(text.to_owned()).expect("a locator");
            locator.choose(wallets).map(|chosen| chosen.0).map_err(|problem| problem.status)
        };
        let registered = |number| Of(number, false, false);
        let found = |number| Of(number, false, true);
        for text in ["external:a", "email:a@b.c:evm", "0x742D35CC6634C0532925a3B844Bc9E7595F2bD18"]
        {
            assert_eq!(chosen(text, vec![found(9), registered(1), found(8)]), Ok(1));
            assert_eq!(chosen(text, vec![found(9), found(7), found(8)]), Ok(7), "the first one");
            let two = vec![found(9), registered(1), registered(2)];
            assert_eq!(chosen(text, two), Err(StatusCode::CONFLICT));
            assert_eq!(chosen(text, vec![]), Err(StatusCode::NOT_FOUND));
        }
        let primary = vec![registered(1), Of(2, true, false), found(3)];
        assert_eq!(chosen("external:a", primary), Ok(2));
    }

    #[test]
    fn a_locator_says_whose_wallet_of_which_family_and_kind() {
        let filter = |text: &str| Locator::filter(text).map_err(|problem| problem.code);
        let both = filter("userId:a:b:evm:safe").expect("a locator");
        assert!(matches!(both.account,
            Some(AccountFilter::Locator(LocatorKind::UserId, value)) if value == "a:b"));
        assert_eq!((both.family, both.kind), (Some(Family::Evm), Some(WalletKind::Safe)));
        let email = filter("email:A@b.C:evm").expect("a locator");
        assert!(matches!(email.account,
            Some(AccountFilter::Locator(LocatorKind::Email, value)) if value == "a@b.c"));
        assert_eq!(filter("email:a@b.c").err(), Some(Code::InvalidRequest));
        assert_eq!(filter("email:a@b.c:tron").err(), Some(Code::WalletNotFound));
        assert_eq!(filter("wlt_short").err(), Some(Code::WalletNotFound));
        assert_eq!(filter("0x12").err(), Some(Code::InvalidAddress));
        assert_eq!(filter("nothing").err(), Some(Code::WalletNotFound));
    }
}
