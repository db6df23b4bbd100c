//! Which wallets of a tenant: conditions as fixed texts, values always bound.

use crate::{
    chain::{Address, ChainName, Family},
    id::{AccountId, WalletId},
    model::{LocatorKind, WalletKind, WalletStatus},
};

/// Which account's wallets.
#[derive(Clone, Debug)]
pub enum AccountFilter {
    Id(AccountId),
    External(String),
    Locator(LocatorKind, String),
}

/// Which wallets of a tenant; every condition that is set must hold.
#[derive(Clone, Debug, Default)]
pub struct WalletFilter {
    pub id: Option<WalletId>,
    pub address: Option<Address>,
    pub family: Option<Family>,
    pub kind: Option<WalletKind>,
    pub account: Option<AccountFilter>,
    pub client_reference_id: Option<String>,
    pub chain: Option<ChainName>,
    pub status: Option<WalletStatus>,
    /// Only wallets that were made before this one.
    pub before: Option<WalletId>,
}

impl WalletFilter {
    /// Whether it names few wallets, of which all may be read.
    pub(in crate::store) fn is_narrow(&self) -> bool {
        let Self { id, address, account, client_reference_id, .. } = self;
        id.is_some() || address.is_some() || account.is_some() || client_reference_id.is_some()
    }

    /// The conditions on `wallet w`, with `$1` the tenant. Only fixed texts: the values are bound.
    ///
    /// Whose the wallet is leads to all of a tenant's wallets, so it is said in a way that no index has where
    /// something else leads to few, and as a range in the order of `wallet_of_tenant` where nothing does.
    pub(in crate::store) fn conditions(&self) -> String {
        // No EXISTS: PostgreSQL would make a join of it, which the order of the wallets does not survive.
        const OPEN: &str =
            "(SELECT 1 FROM watch o WHERE o.wallet_no = w.no AND o.status + 0 = 1 LIMIT 1)";
        let mut sql = if self.id.is_some() || self.account.is_some() {
            "CASE WHEN w.deleted_at IS NULL THEN w.tenant_id END = $1"
        } else if self.address.is_some() {
            "CASE WHEN w.address = $3 THEN w.tenant_id END = $1 AND w.deleted_at IS NULL"
        } else if self.is_narrow() {
            "w.tenant_id = $1 AND w.deleted_at IS NULL"
        } else {
            "w.tenant_id BETWEEN $1 AND $1 AND (w.tenant_id, w.id) < ($1, $11) AND w.deleted_at IS NULL"
        }
        .to_owned();
        let mut and = |condition: &str| {
            sql.push_str(" AND ");
            sql.push_str(condition);
        };
        if self.id.is_some() {
            and("w.id = $2");
        }
        if self.address.is_some() {
            and("w.address = $3");
        }
        if self.family.is_some() {
            and("w.family = $4");
        }
        if self.kind.is_some() {
            and("w.kind = $5");
        }
        match &self.account {
            Some(AccountFilter::Id(_)) => and("w.account_id = $6"),
            Some(AccountFilter::External(_)) => and("w.account_id = (
                SELECT a.id FROM account a WHERE a.tenant_id = $1 AND a.external_id = $7)"),
            Some(AccountFilter::Locator(..)) => and("w.account_id = (
                SELECT l.account_id FROM account_locator l
                WHERE l.tenant_id = $1 AND l.kind = $8 AND l.value = $7)"),
            None => {}
        }
        if self.client_reference_id.is_some() {
            and("w.client_reference_id = $9");
        }
        if self.chain.is_some() {
            and("(SELECT 1 FROM watch o
                 WHERE o.wallet_no = w.no AND o.status <> 3
                   AND +o.chain_no = (SELECT n.no FROM chain n WHERE n.name = $10) LIMIT 1) IS NOT NULL");
        }
        match self.status {
            Some(WalletStatus::Pending) => {
                and("w.disabled_at IS NULL AND ");
                sql.push_str(OPEN);
                sql.push_str(" IS NULL");
            }
            Some(WalletStatus::Active) => {
                and("w.disabled_at IS NULL AND ");
                sql.push_str(OPEN);
                sql.push_str(" IS NOT NULL");
            }
            Some(WalletStatus::Disabled) => and("w.disabled_at IS NOT NULL"),
            None => {}
        }
        if self.before.is_some() && self.is_narrow() {
            sql.push_str(" AND w.id < $11");
        }
        sql
    }

    pub(in crate::store) fn account_id(&self) -> Option<AccountId> {
        match &self.account {
            Some(AccountFilter::Id(id)) => Some(*id),
            _ => None,
        }
    }

    pub(in crate::store) fn account_name(&self) -> Option<&str> {
        match &self.account {
            Some(AccountFilter::External(value) | AccountFilter::Locator(_, value)) => Some(value),
            _ => None,
        }
    }

    pub(in crate::store) fn locator_kind(&self) -> Option<&'static str> {
        match &self.account {
            Some(AccountFilter::Locator(kind, _)) => Some(kind.as_str()),
            _ => None,
        }
    }
}

/// Binds `$1` to `$11` of [`WalletFilter::conditions`].
macro_rules! bind_filter {
    ($query:expr, $tenant:expr, $filter:expr) => {
        $query
            .bind($tenant)
            .bind($filter.id)
            .bind($filter.address.as_ref().map($crate::chain::Address::as_slice))
            .bind($filter.family.map($crate::chain::Family::as_str))
            .bind($filter.kind.map($crate::model::WalletKind::as_str))
            .bind($filter.account_id())
            .bind($filter.account_name())
            .bind($filter.locator_kind())
            .bind($filter.client_reference_id.as_deref())
            .bind($filter.chain.as_ref().map($crate::chain::ChainName::as_str))
            .bind($filter.before.unwrap_or($crate::id::WalletId(uuid::Uuid::max())))
    };
}
pub(in crate::store) use bind_filter;
