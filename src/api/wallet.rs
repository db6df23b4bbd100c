//! Wallets: list, read, rename, make primary, delete. Registering one is in `register`.

mod register;

use std::sync::Arc;

use axum::{extract::State, http::StatusCode, response::Response};
use serde::{Deserialize, Deserializer};
use utoipa::{IntoParams, ToSchema};

pub(super) use self::register::{__path_create, Register, create};
pub use self::register::{AccountBody, WalletBody};
use super::{
    App,
    answer::Json,
    auth::Caller,
    error::{Code, Failures, Problem},
    key::Scope,
    locator::{self, Locator},
    page::{Page, Window},
    request::{Fields, Named, Params, Payload},
    write::{self, Answer, Write},
};
use crate::{
    chain::ChainName,
    clock::Millis,
    event::{EventType, EventWallet, NewEvent},
    id::{TenantId, WalletId},
    model::{WalletKind, WalletStatus},
    store::{
        self, Conn, account,
        wallet::{self, AccountFilter, WalletChanges, WalletFilter},
    },
    view::{WalletData, WalletView},
};

pub(super) const LONGEST_NICKNAME: usize = 128;
pub(super) const LONGEST_REFERENCE: usize = 256;

#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// Only wallets watched on this chain.
    chain: Option<String>,
    /// `eoa`, `safe` or `contract`.
    kind: Option<String>,
    /// The account's externalId or its id.
    account: Option<String>,
    /// `pending`, `active` or `disabled`.
    status: Option<String>,
    client_reference_id: Option<String>,
    address: Option<String>,
    /// 1 to 200; 50 if left out.
    limit: Option<String>,
    /// The nextCursor of the page before.
    cursor: Option<String>,
}

/// List wallets
///
/// The newest first.
#[utoipa::path(get, path = "/v1/wallets", tag = "wallets", params(ListParams),
    responses((status = 200, body = Page<WalletView>), Failures),
    security(("apiKey" = []), ("bearer" = [])))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Params(params): Params<ListParams>,
) -> Result<Json<Page<WalletView>>, Problem> {
    let tenant = caller.need(Scope::WalletsRead)?;
    let mut fields = Fields::default();
    let window = Window::read(&mut fields, params.limit.as_deref(), params.cursor.as_deref());
    let kind = fields.word("kind", params.kind.as_deref(), WalletKind::ALL, WalletKind::as_str);
    let status =
        fields.word("status", params.status.as_deref(), WalletStatus::ALL, WalletStatus::as_str);
    fields.finish()?;
    let chain = params.chain.map(|name| app.chain("chain", &name).map(|c| c.name.clone()));
    let (address, family) = match params.address {
        Some(text) => {
            let filter = Locator::parse(text)?.filter;
            if filter.address.is_none() {
                return Err(Problem::field(Code::InvalidAddress, "address", "is not an address"));
            }
            (filter.address, filter.family)
        }
        None => (None, None),
    };
    let filter = WalletFilter {
        id: None,
        address,
        family,
        kind,
        account: params.account.map(|text| match text.parse() {
            Ok(id) => AccountFilter::Id(id),
            Err(_) => AccountFilter::External(text),
        }),
        client_reference_id: params.client_reference_id,
        chain: chain.transpose()?,
        status,
        before: window.before.map(WalletId),
    };
    let (filter, fetch) = (&filter, window.fetch());
    let read = app.reads.read(|mut session| async move {
        wallet::list(&mut session.conn(), tenant, filter, fetch).await
    });
    let rows = read.await?;
    Ok(Json(window.page(rows, |row| row.id.0, |row| WalletView::from(&row))))
}

/// Read a wallet
#[utoipa::path(get, path = "/v1/wallets/{locator}", tag = "wallets",
    params(("locator" = String, Path, description = "wlt_…, an address, external:{id}, email:a@b.c:evm, …")),
    responses((status = 200, body = WalletView), Failures),
    security(("apiKey" = []), ("bearer" = [])))]
pub(super) async fn read(
    State(app): State<Arc<App>>,
    caller: Caller,
    Named(locator): Named,
) -> Result<Json<WalletView>, Problem> {
    let tenant = caller.need(Scope::WalletsRead)?;
    let locator = &Locator::parse(locator)?;
    let read = app
        .reads
        .read(|mut session| async move { locator.resolve(&mut session.conn(), tenant).await });
    Ok(Json((&read.await?).into()))
}

/// A field that is there, be it null.
#[expect(clippy::option_option, reason = "left out, null and a text mean three things")]
fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(from).map(Some)
}

/// What is left out stays; null clears.
#[expect(clippy::option_option, reason = "left out, null and a text mean three things")]
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WalletChangesBody {
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    nickname: Option<Option<String>>,
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    client_reference_id: Option<Option<String>>,
    /// Of an account's wallets of one family one can be primary.
    is_primary: Option<bool>,
}

struct Update {
    locator: Locator,
    changes: WalletChanges,
}

impl Write for Update {
    const NAME: &'static str = "wallet_update";

    async fn apply(
        &self,
        _: &App,
        tenant: TenantId,
        conn: &mut Conn<'_>,
        now: Millis,
    ) -> Result<Answer, Problem> {
        // What events say of a wallet changes between two events, never within one.
        store::key::lock_tenant(conn, tenant).await?;
        let row = self.locator.resolve(conn, tenant).await?;
        if self.changes.is_primary == Some(true) {
            let account = row.account_id.ok_or_else(|| {
                Problem::field(
                    Code::InvalidRequest,
                    "isPrimary",
                    "needs a wallet with an account: this one has none",
                )
            })?;
            account::lock(conn, tenant, account, now).await?;
            wallet::demote_others(conn, tenant, account, row.family, row.id, now).await?;
        }
        let found = wallet::update(conn, tenant, row.id, &self.changes, now).await?;
        let row = wallet::by_id(conn, tenant, row.id).await?.filter(|_| found);
        let row =
            row.ok_or_else(|| Problem::new(Code::WalletNotFound, "The wallet was deleted."))?;
        Answer::new(StatusCode::OK, &WalletView::from(&row))
    }

    fn committed(&self, _: &App) {}
}

/// Rename a wallet, or make it primary
#[utoipa::path(patch, path = "/v1/wallets/{locator}", tag = "wallets",
    params(("locator" = String, Path, description = "wlt_…, an address, external:{id}, email:a@b.c:evm, …")),
    request_body = WalletChangesBody,
    responses((status = 200, body = WalletView), Failures),
    security(("apiKey" = []), ("bearer" = [])))]
pub(super) async fn update(
    State(app): State<Arc<App>>,
    caller: Caller,
    Named(locator): Named,
    payload: Payload,
) -> Result<Response, Problem> {
    let tenant = caller.need(Scope::WalletsWrite)?;
    let body: WalletChangesBody = payload.parse()?;
    let mut fields = Fields::default();
    let text = |field: &Option<Option<String>>| field.clone().flatten();
    fields.text("nickname", text(&body.nickname).as_deref(), LONGEST_NICKNAME);
    fields.text("clientReferenceId", text(&body.client_reference_id).as_deref(), LONGEST_REFERENCE);
    fields.finish()?;
    let changes = WalletChanges {
        nickname: body.nickname,
        client_reference_id: body.client_reference_id,
        is_primary: body.is_primary,
    };
    write::change(&app, tenant, &Update { locator: Locator::parse(locator)?, changes }).await
}

struct Delete {
    id: WalletId,
    chains: Vec<ChainName>,
}

impl Write for Delete {
    const NAME: &'static str = "wallet_delete";

    async fn apply(
        &self,
        app: &App,
        tenant: TenantId,
        conn: &mut Conn<'_>,
        now: Millis,
    ) -> Result<Answer, Problem> {
        // In the order in which the ledger takes them: the tenant's row, then the wallet's.
        store::key::lock_tenant(conn, tenant).await?;
        let gone = || Problem::new(Code::WalletNotFound, "The wallet was deleted meanwhile.");
        let row = wallet::by_id(conn, tenant, self.id).await?.ok_or_else(gone)?;
        if row.is_primary || !wallet::delete(conn, tenant, self.id, now).await? {
            return Err(Problem::new(
                Code::PrimaryWallet,
                format!(
                    "{0} is its account's primary wallet. Make another one primary first, or send \
                     PATCH /v1/wallets/{0} with {{\"isPrimary\":false}}.",
                    self.id
                ),
            ));
        }
        let mut view = WalletView::from(&row);
        view.status = WalletStatus::Disabled;
        view.updated_at = now;
        for chain in &mut view.chains {
            chain.status = if chain.status == "active" { "closing" } else { "closed" };
            chain.covered_from = None;
            chain.internal_from = None;
            chain.covered_to = None;
        }
        let data = WalletData { wallet: view };
        let no = store::event::tenant_no(conn, tenant).await?;
        let of = Some(EventWallet::No(row.no));
        let kind = EventType::WalletDisabled;
        let event = NewEvent::data(no, of, kind, &[self.id.0.as_bytes()], now, &data);
        let event = event.map_err(Problem::internal)?;
        store::event::append(conn, &app.ids, now, &[event]).await?;
        Ok(Answer::empty())
    }

    fn committed(&self, app: &App) {
        app.metrics.events_total.with_label_values(&[EventType::WalletDisabled.as_str()]).inc();
        self.chains.iter().for_each(|chain| app.wake.chain(chain));
        app.wake.deliveries();
    }
}

/// Delete a wallet
///
/// It is no longer shown and no longer watched. A primary wallet is refused.
#[utoipa::path(delete, path = "/v1/wallets/{locator}", tag = "wallets",
    params(("locator" = String, Path, description = "wlt_…, an address, external:{id}, email:a@b.c:evm, …")),
    responses((status = 204, description = "It is deleted."), Failures),
    security(("apiKey" = []), ("bearer" = [])))]
pub(super) async fn delete(
    State(app): State<Arc<App>>,
    caller: Caller,
    Named(locator): Named,
) -> Result<Response, Problem> {
    let tenant = caller.need(Scope::WalletsWrite)?;
    let row = locator::find(&app, tenant, locator).await?;
    let chains = row.chains.into_iter().map(|on| on.chain).collect();
    write::change(&app, tenant, &Delete { id: row.id, chains }).await
}
