//! What a tenant chooses for all of its wallets.

use std::sync::Arc;

use axum::{extract::State, http::StatusCode, response::Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    App,
    answer::Json,
    auth::Caller,
    error::{Failures, Problem},
    key::Scope,
    request::{Fields, Payload},
    write::{self, Answer, Write},
};
use crate::{
    clock::Millis,
    id::TenantId,
    model::AdoptSafes,
    store::{Conn, StoreError, setting},
};

/// What a tenant has chosen.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Settings)]
pub(super) struct SettingsView {
    /// Which Safes join the account of the registered owner that led to them: `never`, `sole_owner` (one owner,
    /// who has always been the only one; no module, guard or foreign fallback handler) or `any`. The others become
    /// wallets without an account.
    #[schema(value_type = String, example = "sole_owner")]
    adopt_safes: AdoptSafes,
}

/// What is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = SettingsChanges)]
pub(super) struct SettingsBody {
    /// `never`, `sole_owner` or `any`. Wallets that are there already stay as they are.
    #[schema(example = "never")]
    adopt_safes: Option<String>,
}

async fn view(conn: &mut Conn<'_>, tenant: TenantId) -> Result<SettingsView, Problem> {
    let adopt_safes = setting::adopt_safes(conn, tenant).await?;
    let gone = || StoreError::corrupt(format!("no tenant {tenant}"));
    Ok(SettingsView { adopt_safes: adopt_safes.ok_or_else(gone)? })
}

/// Read the settings
#[utoipa::path(get, path = "/v1/settings", tag = "settings",
    responses((status = 200, body = SettingsView), Failures),
    security(("apiKey" = []), ("bearer" = [])))]
pub(super) async fn read(
    State(app): State<Arc<App>>,
    caller: Caller,
) -> Result<Json<SettingsView>, Problem> {
    let tenant = caller.need(Scope::WalletsRead)?;
    let mut session = app.db.read().await?;
    Ok(Json(view(&mut session.conn(), tenant).await?))
}

struct Update {
    adopt_safes: Option<AdoptSafes>,
}

impl Write for Update {
    const NAME: &'static str = "settings_update";

    async fn apply(
        &self,
        _: &App,
        tenant: TenantId,
        conn: &mut Conn<'_>,
        _: Millis,
    ) -> Result<Answer, Problem> {
        if let Some(adopt) = self.adopt_safes
            && !setting::set_adopt_safes(conn, tenant, adopt).await?
        {
            return Err(StoreError::corrupt(format!("no tenant {tenant}")).into());
        }
        Answer::new(StatusCode::OK, &view(conn, tenant).await?)
    }

    fn committed(&self, _: &App) {}
}

/// Change settings
#[utoipa::path(patch, path = "/v1/settings", tag = "settings", request_body = SettingsBody,
    responses((status = 200, body = SettingsView), Failures),
    security(("apiKey" = []), ("bearer" = [])))]
pub(super) async fn update(
    State(app): State<Arc<App>>,
    caller: Caller,
    payload: Payload,
) -> Result<Response, Problem> {
    let tenant = caller.need(Scope::WalletsWrite)?;
    let body: SettingsBody = payload.parse()?;
    let mut fields = Fields::default();
    let given = body.adopt_safes.as_deref();
    let adopt_safes = fields.word("adoptSafes", given, AdoptSafes::ALL, AdoptSafes::as_str);
    fields.finish()?;
    write::change(&app, tenant, &Update { adopt_safes }).await
}
