//! `/openapi.json`: an outline, filled in by the routes.

use std::sync::OnceLock;

use axum::{http::header, response::IntoResponse};
use utoipa::{
    Modify, OpenApi,
    openapi::{
        OpenApi as Document,
        security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};

use super::{FieldError, ProblemBody, event, routes};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Tidemark",
        description = "Watches blockchains for registered addresses and keeps their balances. Errors are \
                       application/problem+json with a `code` that stays. A revoked key works for up to 5 \
                       seconds more.",
    ),
    components(schemas(event::EventBody, ProblemBody, FieldError)),
    modifiers(&Security),
)]
struct Outline;

/// The document before any route is in it.
pub(super) fn outline() -> Document {
    Outline::openapi()
}

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
    let text = TEXT.get_or_init(|| routes().into_openapi().to_json().unwrap_or_default());
    ([(header::CONTENT_TYPE, "application/json")], text.as_str())
}
