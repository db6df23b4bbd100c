//! Stub.

use url::Url;

use crate::config::WebhookConfig;

/// Whether events may be sent there, as far as the URL tells.
///
/// # Errors
/// Why not.
pub fn url_allowed(url: &Url, config: &WebhookConfig) -> Result<(), String> {
    match url.scheme() {
        "https" => {}
        "http" if config.allow_http => {}
        _ => return Err("must begin with https://".to_owned()),
    }
    let private = match url.host() {
        Some(url::Host::Ipv4(ip)) => ip.is_private() || ip.is_loopback() || ip.is_link_local(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback() || ip.is_unique_local(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => return Err("has no host".to_owned()),
    };
    if private && !config.allow_private_addresses {
        return Err("names a private address".to_owned());
    }
    Ok(())
}
