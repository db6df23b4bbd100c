//! Who is asking: the key in the request, the tenant it belongs to, and what it allows.

use std::sync::Arc;

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header, request::Parts},
};

use super::{
    App,
    error::{Code, Problem},
    key::{self, Scope},
};
use crate::{id::TenantId, store};

/// Longer texts are no keys and are not even hashed.
const LONGEST: usize = 128;

/// The tenant on whose behalf a request is served.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller {
    pub tenant: TenantId,
    scopes: u8,
}

const fn bit(scope: Scope) -> u8 {
    1 << scope as u8
}

impl Caller {
    /// # Errors
    /// 403 that names the scope, unless the key has it or is an admin's.
    pub fn need(&self, scope: Scope) -> Result<TenantId, Problem> {
        if self.scopes & (bit(scope) | bit(Scope::Admin)) != 0 {
            return Ok(self.tenant);
        }
        Err(Problem::new(
            Code::Forbidden,
            format!(
                "This key lacks the scope '{scope}'. Make one with: tidemark keys create --scopes {scope}"
            ),
        ))
    }
}

fn presented(headers: &HeaderMap) -> Option<&str> {
    if let Some(key) = headers.get("x-api-key") {
        return key.to_str().ok();
    }
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, key) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let key = presented(&parts.headers)
            .filter(|key| !key.is_empty() && key.len() <= LONGEST)
            .ok_or_else(|| {
            Problem::new(
                Code::Unauthorized,
                "Send an API key in the header X-API-Key, or as Authorization: Bearer <key>. \
                     Make one with: tidemark keys create",
            )
        })?;
        // The look-up is by hash, so its time tells nothing about the key.
        let hash = key::hash(key);
        let now = app.clock.now();
        if let Some(caller) = app.callers.get(&hash, now) {
            return Ok(caller);
        }
        let mut session = app.db.read().await?;
        let row = store::key::valid_key(&mut session.conn(), &hash).await?.ok_or_else(|| {
            Problem::new(
                Code::Unauthorized,
                "The API key is not known or was revoked. Check it, or make a new one with: \
                 tidemark keys create",
            )
        })?;
        let scopes = row.scopes.split(' ').filter_map(Scope::parse).fold(0, |all, s| all | bit(s));
        let caller = Self { tenant: row.tenant_id, scopes };
        app.callers.put(hash, caller, now);
        Ok(caller)
    }
}
