//! The SSRF filter: a webhook never goes to an address that is not public.
//!
//! A host name is resolved at the moment of connecting, and only its public addresses are handed to the
//! connector. An address written in the URL is checked as it stands. Redirects are not followed, so there is
//! no second target.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

use crate::config::WebhookConfig;

/// Longer URLs are refused.
const MAX_URL_LENGTH: usize = 2048;

/// Whether an endpoint may have this URL; the error says why not, in words for the tenant.
///
/// # Errors
/// Another scheme than https (http where the configuration allows it), credentials, no host, too long, or
/// a host that is on its face not public.
pub fn url_allowed(url: &Url, config: &WebhookConfig) -> Result<(), String> {
    match url.scheme() {
        "https" => {}
        "http" if config.allow_http => {}
        _ => return Err("the URL must begin with https://".to_owned()),
    }
    if url.as_str().len() > MAX_URL_LENGTH {
        return Err(format!("the URL is longer than {MAX_URL_LENGTH} characters"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("the URL must not contain credentials".to_owned());
    }
    let public = match url.host() {
        None => return Err("the URL has no host".to_owned()),
        Some(Host::Ipv4(ip)) => is_public(IpAddr::V4(ip)),
        Some(Host::Ipv6(ip)) => is_public(IpAddr::V6(ip)),
        Some(Host::Domain(name)) => !is_local_name(name),
    };
    if public || config.allow_private_addresses {
        Ok(())
    } else {
        Err("the URL leads to an address that is not public".to_owned())
    }
}

fn is_local_name(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

/// Whether an address belongs to the public internet.
#[must_use]
pub fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

/// The IANA registry of special-purpose addresses (RFC 6890), and a metadata service outside of it.
fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let special = ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local() // with the metadata service 169.254.169.254
        || ip.is_multicast()
        || ip.is_documentation()
        || a == 0
        || a >= 240 // reserved, and broadcast
        || (a == 100 && (64..128).contains(&b)) // carrier-grade NAT
        || (a == 192 && b == 0 && c == 0) // protocol assignments, with Oracle's metadata service
        || (a == 192 && b == 88 && c == 99) // 6to4 relays
        || (a == 198 && (b == 18 || b == 19)) // benchmarks
        || ip == Ipv4Addr::new(168, 63, 129, 16); // Azure's platform service
    !special
}

/// Only global unicast, `2000::/3`, is public, without the parts that carry another address inside or lead
/// nowhere. Loopback, IPv4-mapped, NAT64, unique local, link-local and multicast all lie outside of it.
fn is_public_v6(ip: Ipv6Addr) -> bool {
    let [a, b, ..] = ip.segments();
    let global = a & 0xe000 == 0x2000;
    let special = match a {
        // Protocol assignments, with Teredo; documentation.
        0x2001 => b < 0x0200 || b == 0x0db8,
        // 6to4.
        0x2002 => true,
        // Documentation.
        0x3fff => b < 0x1000,
        _ => false,
    };
    global && !special
}

/// Why a name gave no address to connect to.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    #[error("the name leads to no public address")]
    NotPublic,
    #[error("the name cannot be resolved: {0}")]
    Unknown(io::Error),
}

/// Resolves as the system does and keeps the public addresses only.
#[derive(Clone, Copy, Debug)]
pub struct PublicResolver {
    pub allow_private_addresses: bool,
}

impl PublicResolver {
    async fn addresses(self, name: &str) -> Result<Vec<SocketAddr>, ResolveError> {
        let found: Vec<SocketAddr> =
            tokio::net::lookup_host((name, 0)).await.map_err(ResolveError::Unknown)?.collect();
        let kept: Vec<SocketAddr> = found
            .into_iter()
            .filter(|address| self.allow_private_addresses || is_public(address.ip()))
            .collect();
        if kept.is_empty() { Err(ResolveError::NotPublic) } else { Ok(kept) }
    }
}

impl Resolve for PublicResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let resolver = *self;
        Box::pin(async move {
            let addresses = resolver.addresses(name.as_str()).await?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn config(allow: bool) -> WebhookConfig {
        WebhookConfig {
            allow_http: allow,
            allow_private_addresses: allow,
            retry_schedule: Vec::new(),
            request_timeout: Duration::from_secs(1),
            max_in_flight: 1,
            max_in_flight_per_endpoint: 1,
            disable_after: Duration::from_secs(1),
        }
    }

    fn allowed(url: &str, config: &WebhookConfig) -> bool {
        url_allowed(&url.parse().unwrap(), config).is_ok()
    }

    #[test]
    fn an_endpoint_is_a_public_https_url_without_credentials() {
        let strict = config(false);
        assert!(allowed("https://consumer.example/hook?key=1", &strict));
        assert!(allowed("https://1.1.1.1/", &strict));
        assert!(allowed("https://[2606:4700::1111]:8443/", &strict));
        for url in [
            "http://consumer.example/",
            "ftp://consumer.example/",
            "file:///etc/passwd",
            "https://user@consumer.example/",
            "https://user:secret@consumer.example/",
            "https://localhost/",
            "https://LOCALHOST./",
            "https://a.localhost/",
            "https://127.0.0.1/",
            "https://2130706433/",
            "https://0x7f.1/",
            "https://0/",
            "https://[::1]/",
            "https://[::ffff:10.0.0.1]/",
            "https://169.254.169.254/latest",
        ] {
            assert!(!allowed(url, &strict), "{url}");
        }
        let long = format!("https://consumer.example/{}", "a".repeat(MAX_URL_LENGTH));
        assert!(!allowed(&long, &strict));
    }

    #[test]
    fn development_may_use_http_and_private_addresses_but_no_credentials() {
        let open = config(true);
        assert!(allowed("http://localhost:3000/", &open));
        assert!(allowed("http://127.0.0.1:3000/", &open));
        assert!(!allowed("http://user:secret@127.0.0.1:3000/", &open));
        assert!(!allowed("ftp://127.0.0.1/", &open));
    }

    #[test]
    fn no_address_that_leads_inside_is_public() {
        for ip in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.53",
            "168.63.129.16",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.168.1.1",
            "192.88.99.1",
            "198.19.0.1",
            "203.0.113.7",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::10.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "64:ff9b::a00:1",
            "64:ff9b:1::a00:1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:a00:1::1",
            "3fff::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is_public(ip.parse().unwrap()), "{ip}");
        }
        for ip in ["1.1.1.1", "100.63.0.1", "172.32.0.1", "198.20.0.1", "2606:4700::1111"] {
            assert!(is_public(ip.parse().unwrap()), "{ip}");
        }
    }

    #[tokio::test]
    async fn a_name_that_leads_inside_resolves_to_nothing() {
        let strict = PublicResolver { allow_private_addresses: false };
        assert!(matches!(strict.addresses("localhost").await, Err(ResolveError::NotPublic)));
        let open = PublicResolver { allow_private_addresses: true };
        assert!(!open.addresses("localhost").await.unwrap().is_empty());
    }
}
