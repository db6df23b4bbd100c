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
    /// The conditions on `wallet w`, with `$1` the tenant. Only fixed texts: the values are bound.
    pub(in crate::store) fn conditions(&self) -> String {
        const OPEN: &str =
            "EXISTS (SELECT 1 FROM watch o WHERE o.wallet_no = w.no AND o.status = 1)";
        let mut sql = "w.tenant_id = $1 AND w.deleted_at IS NULL".to_owned();
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
            and("EXISTS (SELECT 1 FROM watch o
                 WHERE o.wallet_no = w.no AND o.status <> 3
                   AND +o.chain_no = (SELECT n.no FROM chain n WHERE n.name = $10))");
        }
        match self.status {
            Some(WalletStatus::Pending) => {
                and("w.disabled_at IS NULL AND NOT ");
                sql.push_str(OPEN);
            }
            Some(WalletStatus::Active) => {
                and("w.disabled_at IS NULL AND ");
                sql.push_str(OPEN);
            }
            Some(WalletStatus::Disabled) => and("w.disabled_at IS NOT NULL"),
            None => {}
        }
        if self.before.is_some() {
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
            .bind($filter.before)
    };
}
pub(in crate::store) use bind_filter;
