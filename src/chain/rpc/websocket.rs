//! How a connection for announcements is opened.

use tokio_tungstenite::tungstenite::{
    client::IntoClientRequest as _,
    handshake::client::Request,
    http::{HeaderName, HeaderValue},
};

use super::SetupError;
use crate::config::EndpointConfig;

/// The request that opens the socket, with the endpoint's headers.
///
/// # Errors
/// Without a URL, or with a URL or header that cannot be used; neither is repeated in the error.
pub(in crate::chain) fn ws_request(endpoint: &EndpointConfig) -> Result<Request, SetupError> {
    let wrong = |what: &str| SetupError::Endpoint {
        endpoint: endpoint.name.clone(),
        detail: format!("{what} of the websocket is not valid"),
    };
    let url = endpoint.ws.as_ref().ok_or_else(|| wrong("the URL"))?;
    let mut request = url.expose().into_client_request().map_err(|_| wrong("the URL"))?;
    for (name, value) in &endpoint.headers {
        let name = HeaderName::try_from(name.as_str()).map_err(|_| wrong("a header's name"))?;
        let value = HeaderValue::try_from(value.expose()).map_err(|_| wrong("a header's value"))?;
        request.headers_mut().insert(name, value);
    }
    Ok(request)
}
