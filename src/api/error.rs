//! What a client is told when a request fails: RFC 9457, with a code that stays and a detail that says
//! what to do.

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::{IntoResponses, ToSchema};

use crate::{
    id::WalletId,
    ledger::LedgerError,
    store::{ReadError, StoreError, TxError, outage::Cause},
    string_enum::string_enum,
    view::PointView,
};

string_enum! {
    /// What went wrong, as programs tell it apart. A code is never renamed.
    Code {
        InvalidRequest = "invalid_request",
        InvalidAddress = "invalid_address",
        UnknownChain = "unknown_chain",
        UnknownToken = "unknown_token",
        WalletExists = "wallet_exists",
        ExternalIdExists = "external_id_exists",
        WalletNotFound = "wallet_not_found",
        AccountNotFound = "account_not_found",
        SafeDeploymentNotFound = "safe_deployment_not_found",
        WebhookEndpointNotFound = "webhook_endpoint_not_found",
        EventNotFound = "event_not_found",
        ChallengeNotFound = "challenge_not_found",
        ChallengeUsed = "challenge_used",
        ChallengeExpired = "challenge_expired",
        SignatureInvalid = "signature_invalid",
        ContractWalletUnsupported = "contract_wallet_unsupported",
        FeedRestarted = "feed_restarted",
        LimitReached = "limit_reached",
        NotCovered = "not_covered",
        HistoryTooLong = "history_too_long",
        NotProvable = "not_provable",
        StatePruned = "state_pruned",
        IdempotencyKeyRequired = "idempotency_key_required",
        IdempotencyKeyReused = "idempotency_key_reused",
        IdempotencyInProgress = "idempotency_in_progress",
        Unauthorized = "unauthorized",
        Forbidden = "forbidden",
        PrimaryWallet = "primary_wallet",
        NotFound = "not_found",
        MethodNotAllowed = "method_not_allowed",
        PayloadTooLarge = "payload_too_large",
        UnsupportedMediaType = "unsupported_media_type",
        RateLimited = "rate_limited",
        ChainUnavailable = "chain_unavailable",
        Timeout = "timeout",
        Unavailable = "unavailable",
        Internal = "internal",
    }
}

impl Code {
    const fn status(self) -> StatusCode {
        match self {
            Self::InvalidRequest
            | Self::InvalidAddress
            | Self::UnknownChain
            | Self::UnknownToken
            | Self::IdempotencyKeyRequired => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::WalletNotFound
            | Self::AccountNotFound
            | Self::SafeDeploymentNotFound
            | Self::WebhookEndpointNotFound
            | Self::EventNotFound
            | Self::ChallengeNotFound
            | Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::WalletExists
            | Self::ExternalIdExists
            | Self::IdempotencyInProgress
            | Self::ChallengeUsed
            | Self::NotCovered
            | Self::StatePruned
            | Self::PrimaryWallet => StatusCode::CONFLICT,
            Self::ChallengeExpired | Self::FeedRestarted => StatusCode::GONE,
            Self::LimitReached | Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::IdempotencyKeyReused
            | Self::SignatureInvalid
            | Self::HistoryTooLong
            | Self::NotProvable
            | Self::ContractWalletUnsupported => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Timeout | Self::Unavailable | Self::ChainUnavailable => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Self::InvalidRequest => "The request is not valid",
            Self::InvalidAddress => "The address is not valid",
            Self::FeedRestarted => "The feed does not have this event any more",
            Self::LimitReached => "There are too many of these already",
            Self::NotCovered => "The balance there is not known",
            Self::HistoryTooLong => "The history is too long for one request",
            Self::NotProvable => "The balance has no proof",
            Self::StatePruned => "No node has the state of this block",
            Self::RateLimited => "Too many requests",
            Self::ChainUnavailable => "The chain's nodes do not answer",
            Self::UnknownChain => "Unknown chain",
            Self::UnknownToken => "Unknown token",
            Self::WalletExists => "The address is registered already",
            Self::ExternalIdExists => "The account locator is taken",
            Self::WalletNotFound => "Wallet not found",
            Self::AccountNotFound => "Account not found",
            Self::SafeDeploymentNotFound => "Safe deployment not found",
            Self::WebhookEndpointNotFound => "Webhook endpoint not found",
            Self::EventNotFound => "Event not found",
            Self::ChallengeNotFound => "Challenge not found",
            Self::ChallengeUsed => "The challenge was used already",
            Self::ChallengeExpired => "The challenge has expired",
            Self::SignatureInvalid => "The signature is not valid",
            Self::ContractWalletUnsupported => "A contract's signature cannot be checked",
            Self::IdempotencyKeyRequired => "An idempotency key is required",
            Self::IdempotencyKeyReused => "The idempotency key was used for another request",
            Self::IdempotencyInProgress => "The first request with this key is not finished",
            Self::Unauthorized => "Not authenticated",
            Self::Forbidden => "Not allowed",
            Self::PrimaryWallet => "The wallet is primary",
            Self::NotFound => "No such resource",
            Self::MethodNotAllowed => "The method is not allowed here",
            Self::PayloadTooLarge => "The body is too large",
            Self::UnsupportedMediaType => "The body is not JSON",
            Self::Timeout => "The request took too long",
            Self::Unavailable => "The service is not available",
            Self::Internal => "Internal error",
        }
    }
}

/// What is wrong with one field of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// Where the field is, such as `account.externalId` or `chains[1]`.
    pub field: String,
    pub message: String,
}

impl FieldError {
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

/// The blocks at which balances are known.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Covered)]
pub struct CoveredView {
    pub chain: String,
    /// CAIP-19; null where it is said of all that is held on the chain.
    pub asset: Option<String>,
    /// Null while nothing is known yet.
    pub from: Option<PointView>,
    pub to: PointView,
}

/// A request's failure. The outermost layer writes it, since only that knows path and request id.
#[derive(Clone, Debug)]
pub struct Problem {
    pub code: Code,
    pub status: StatusCode,
    pub detail: String,
    pub errors: Vec<FieldError>,
    /// The wallet that stands in the way of another one.
    pub existing: Option<WalletId>,
    /// From where to where balances are known.
    pub covered: Vec<CoveredView>,
    /// For the log only: the client is not told.
    pub cause: Option<String>,
    /// The store found a collision: doing the whole transaction again may help.
    pub again: bool,
    /// The store cannot work now, and why.
    pub outage: Option<Cause>,
}

impl Problem {
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            status: code.status(),
            detail: detail.into(),
            errors: Vec::new(),
            existing: None,
            covered: Vec::new(),
            cause: None,
            again: false,
            outage: None,
        }
    }

    /// A request with one bad field.
    pub fn field(code: Code, field: &str, message: impl Into<String>) -> Self {
        let message = message.into();
        let detail = format!("'{field}' {message}");
        Self { errors: vec![FieldError::new(field, message)], ..Self::new(code, detail) }
    }

    /// A request with bad fields.
    pub fn fields(errors: Vec<FieldError>) -> Self {
        let texts: Vec<String> =
            errors.iter().map(|error| format!("'{}' {}", error.field, error.message)).collect();
        Self { errors, ..Self::new(Code::InvalidRequest, texts.join("; ")) }
    }

    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::new(Code::InvalidRequest, detail)
    }

    /// A failure of ours.
    pub fn internal(cause: impl std::fmt::Display) -> Self {
        Self {
            cause: Some(cause.to_string()),
            ..Self::new(
                Code::Internal,
                "Something failed on our side. Try again; if it stays, report the requestId.",
            )
        }
    }

    /// The body on the wire.
    pub(super) fn body(&self, instance: &str, request_id: &str) -> ProblemBody {
        ProblemBody {
            kind: format!("https://tidemark.dev/errors/{}", self.code),
            title: self.code.title(),
            status: self.status.as_u16(),
            code: self.code.as_str(),
            detail: self.detail.clone(),
            instance: instance.to_owned(),
            request_id: request_id.to_owned(),
            errors: self.errors.clone(),
            existing_id: self.existing,
            covered: self.covered.clone(),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Collision(_) | StoreError::Stale(_) | StoreError::Unavailable(_) => Self {
                again: error.outage().is_none(),
                outage: error.outage(),
                cause: Some(error.to_string()),
                ..Self::new(
                    Code::Unavailable,
                    "The store cannot answer now. Try again in a moment, with the same Idempotency-Key \
                     if the request has one.",
                )
            },
            StoreError::Constraint { .. } | StoreError::Unusable(_) | StoreError::Corrupt(_) => {
                Self::internal(error)
            }
        }
    }
}

impl TxError for Problem {
    fn is_collision(&self) -> bool {
        self.again
    }

    fn outage(&self) -> Option<Cause> {
        self.outage
    }
}

impl ReadError for Problem {
    fn outage(&self) -> Option<String> {
        let failed = self.status.is_server_error() && !self.again;
        failed.then(|| self.cause.clone().unwrap_or_default())
    }
}

impl From<LedgerError> for Problem {
    fn from(error: LedgerError) -> Self {
        Self::internal(format!("a stored balance is impossible: {error}"))
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(Box::new(self));
        response
    }
}

/// An error, as RFC 9457 has it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Problem)]
pub struct ProblemBody {
    #[serde(rename = "type")]
    #[schema(example = "https://tidemark.dev/errors/wallet_not_found")]
    pub kind: String,
    pub title: &'static str,
    #[schema(example = 404)]
    pub status: u16,
    /// For programs; never renamed.
    #[schema(example = "wallet_not_found")]
    pub code: &'static str,
    /// For people: what is wrong and what to do.
    pub detail: String,
    pub instance: String,
    pub request_id: String,
    /// What is wrong with each field.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// With `wallet_exists`: the wallet that is there already.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub existing_id: Option<WalletId>,
    /// With `not_covered`: from where to where the balances are known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub covered: Vec<CoveredView>,
}

/// The failures that every operation can answer with.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "it only describes answers")]
pub(super) enum Failures {
    /// The request cannot be served as it is; `code` and `detail` say why and what to do.
    #[response(status = "4XX", content_type = "application/problem+json")]
    Refused(ProblemBody),
    /// It failed on our side; try again with the same idempotency key.
    #[response(status = "5XX", content_type = "application/problem+json")]
    Failed(ProblemBody),
}
