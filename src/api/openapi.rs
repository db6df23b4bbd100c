//! `/openapi.json`, generated from the handlers.

use std::sync::OnceLock;

use axum::{http::header, response::IntoResponse};
use utoipa::{
    Modify, OpenApi,
    openapi::{
        OpenApi as Document,
        security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};

use super::{
    FieldError, ProblemBody, asset, balance, chain, delivery, endpoint, event, health, ownership,
    safe_deployment, transfer, wallet,
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Tidemark",
        description = "Watches blockchains for registered addresses and keeps their balances. Errors are \
                       application/problem+json with a `code` that stays. A revoked key works for up to 5 \
                       seconds more.",
    ),
    paths(
        wallet::list, wallet::create, wallet::read, wallet::update, wallet::delete,
        balance::read, transfer::list,
        safe_deployment::list, safe_deployment::create, safe_deployment::read,
        ownership::create, ownership::verify,
        asset::list, chain::list, event::list,
        endpoint::list, endpoint::create, endpoint::read, endpoint::delete, endpoint::rotate_secret,
        delivery::list, delivery::test, delivery::replay,
        health::healthz, health::readyz, health::metrics, document,
    ),
    components(schemas(event::EventBody, ProblemBody, FieldError)),
    modifiers(&Security),
)]
pub(super) struct ApiDocument;

struct Security;

impl Modify for Security {
    fn modify(&self, document: &mut Document) {
        let components = document.components.get_or_insert_default();
        let key = SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new("X-API-Key")));
        components.add_security_scheme("apiKey", key);
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
    }
}

/// This document
#[utoipa::path(get, path = "/openapi.json", tag = "operation",
    responses((status = 200, body = Object, content_type = "application/json")))]
pub(super) async fn document() -> impl IntoResponse {
    static TEXT: OnceLock<String> = OnceLock::new();
    let text = TEXT.get_or_init(|| ApiDocument::openapi().to_json().unwrap_or_default());
    ([(header::CONTENT_TYPE, "application/json")], text.as_str())
}
