//! Which web pages may talk to this server from a browser.
//!
//! Browsers send a page's origin along, but open a WebSocket, or send a simple request, to anywhere
//! without asking first. So the origin is checked on every request that has one, and CORS, by
//! which a browser asks, follows the same rule. Clients that are not browsers send no origin and
//! are not concerned.

use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, ORIGIN, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use tidewire_protocol::{Code, Refusal};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::router::Transports;

/// How long a browser may remember the answer to a preflight: ten minutes, so that a change of the
/// allowed origins is felt soon; Chromium keeps none for longer than two hours anyway.
const PREFLIGHT_AGE: Duration = Duration::from_secs(600);

/// Which web pages may talk to this server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origins {
    /// Pages that this server itself served: their host is the request's `Host`.
    #[default]
    Same,
    /// The same on this machine alone: a request whose `Host` is not a loopback name or address is
    /// turned away, whoever sends it. For a server on which everybody may do everything: else a
    /// page could make its own name stand for this machine, and so be of the same origin. The listed
    /// origins may connect too, to such a `Host`.
    Loopback(Vec<Origin>),
    /// Pages that this server itself served, and pages of the listed origins.
    Listed(Vec<Origin>),
    /// Any page. Safe only where every right needs a token.
    Any,
}

/// An origin such as `https://app.example.com`, or all its subdomains: `https://*.example.com`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(String);

/// The text is not an origin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" is not an origin; write scheme and host without a path, such as \"https://app.example.com\""
)]
pub struct OriginError(String);

impl FromStr for Origin {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, OriginError> {
        let lower = text.to_ascii_lowercase();
        let host = lower.split_once("://").filter(|(scheme, _)| !scheme.is_empty());
        match host {
            Some((_, host)) if !host.is_empty() && !host.contains(['/', '?', '#', ' ']) => {
                Ok(Self(lower))
            }
            _ => Err(OriginError(text.into())),
        }
    }
}

impl Origin {
    fn matches(&self, origin: &str) -> bool {
        let Some((before, after)) = self.0.split_once("://*.") else {
            return self.0.eq_ignore_ascii_case(origin);
        };
        let origin = origin.to_ascii_lowercase();
        origin.split_once("://").is_some_and(|(scheme, host)| {
            let subdomain = host.strip_suffix(after).and_then(|rest| rest.strip_suffix('.'));
            scheme == before && subdomain.is_some_and(|name| !name.is_empty())
        })
    }
}

impl Origins {
    /// Whether a request with these headers may be answered; always without an `Origin`, unless
    /// the `Host` itself is wrong.
    pub fn allow(&self, headers: &HeaderMap, uri: &Uri) -> bool {
        self.allow_host(headers, uri)
            && headers.get_all(ORIGIN).iter().all(|it| self.allow_origin(it, headers, uri))
    }

    /// Whatever a request says of its host must be right; one that says nothing is no browser's.
    fn allow_host(&self, headers: &HeaderMap, uri: &Uri) -> bool {
        let Self::Loopback(_) = self else { return true };
        let mut hosts = headers.get_all(HOST).iter();
        hosts.all(|host| host.to_str().is_ok_and(is_loopback))
            && uri.authority().is_none_or(|host| is_loopback(host.as_str()))
    }

    fn allow_origin(&self, origin: &HeaderValue, headers: &HeaderMap, uri: &Uri) -> bool {
        if !self.allow_host(headers, uri) {
            return false;
        }
        let Ok(origin) = origin.to_str() else { return false };
        let listed = match self {
            Self::Any => return true,
            Self::Same => &[][..],
            Self::Listed(list) | Self::Loopback(list) => list,
        };
        is_same(origin, headers, uri) || listed.iter().any(|allowed| allowed.matches(origin))
    }

    /// CORS by the same rule, without credentials: tokens are sent by the page, never by cookie.
    pub(crate) fn cors(self: &Arc<Self>) -> CorsLayer {
        let origins = Arc::clone(self);
        let allowed = match **self {
            Self::Any => AllowOrigin::any(),
            _ => AllowOrigin::predicate(move |origin, parts| {
                origins.allow_origin(origin, &parts.headers, &parts.uri)
            }),
        };
        CorsLayer::new()
            .allow_origin(allowed)
            .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE])
            .allow_headers([
                AUTHORIZATION,
                CONTENT_TYPE,
                HeaderName::from_static("idempotency-key"),
                HeaderName::from_static("last-event-id"),
            ])
            .expose_headers([RETRY_AFTER])
            .max_age(PREFLIGHT_AGE)
    }
}

fn is_same(origin: &str, headers: &HeaderMap, uri: &Uri) -> bool {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    // HTTP/2 has the host in `:authority`.
    let host = host.or_else(|| uri.authority().map(http::uri::Authority::as_str));
    let page = origin.split_once("://").map(|(_, host)| host);
    matches!((page, host), (Some(page), Some(host)) if page.eq_ignore_ascii_case(host))
}

/// Whether a `Host` can mean this machine alone; browsers resolve `localhost` and names below it
/// without asking anybody.
fn is_loopback(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) => (address, port),
            None => return false,
        },
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    if !(port.is_empty() || port.strip_prefix(':').is_some_and(is_port)) {
        return false;
    }
    if let Ok(address) = name.parse::<IpAddr>() {
        return address.to_canonical().is_loopback();
    }
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

/// Whether the request may be answered.
///
/// # Errors
/// The answer for those of pages that are not allowed.
pub(crate) fn check(
    transports: &Transports,
    headers: &HeaderMap,
    uri: &Uri,
) -> Result<(), Box<Response>> {
    let origins = transports.origins();
    if origins.allow(headers, uri) {
        return Ok(());
    }
    let message = match origins.allow_host(headers, uri) {
        true => "pages of this origin may not use this server; add it to the allowed origins",
        false => {
            "without authentication this server answers to loopback names only, such as \
             localhost; configure authentication, or set insecure where everybody may do everything"
        }
    };
    Err(Box::new(transports.refuse(&Refusal::new(Code::OriginForbidden, message))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(origins: &Origins, origin: &str, host: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(ORIGIN, origin.parse().unwrap());
        headers.insert(HOST, host.parse().unwrap());
        origins.allow(&headers, &Uri::from_static("/v1/ws"))
    }

    #[test]
    fn a_page_of_this_server_is_allowed_by_default_and_others_are_not() {
        assert!(check(&Origins::Same, "http://127.0.0.1:8080", "127.0.0.1:8080"));
        assert!(check(&Origins::Same, "https://Example.com", "example.com"));
        for origin in ["http://127.0.0.1:3000", "https://evil.example", "null", "file://", ""] {
            assert!(!check(&Origins::Same, origin, "127.0.0.1:8080"), "{origin}");
        }
    }

    #[test]
    fn a_name_that_was_made_to_stand_for_this_machine_is_refused() {
        let origins = Origins::Loopback(Vec::new());
        for host in
            ["localhost:8080", "127.0.0.1:8080", "[::1]:8080", "[::1]", "LOCALHOST", "a.localhost"]
        {
            assert!(check(&origins, &format!("http://{host}"), host), "{host}");
            assert!(!check(&origins, "http://evil.example", host), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:8080",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "10.0.0.1",
            "[::2]",
            "[::1",
            "localhost:x",
            "",
            "127.1",
            "evillocalhost",
        ] {
            assert!(!check(&origins, &format!("http://{host}"), host), "{host}");
            let mut headers = HeaderMap::new();
            headers.insert(HOST, host.parse().unwrap());
            assert!(!origins.allow(&headers, &Uri::from_static("/v1/poll")), "{host}");
        }
        let elsewhere = Uri::from_static("http://evil.example/v1/poll");
        assert!(!origins.allow(&HeaderMap::new(), &elsewhere), "HTTP/2");
        let mut headers = HeaderMap::new();
        headers.append(HOST, HeaderValue::from_static("localhost"));
        assert!(!origins.allow(&headers, &elsewhere), "the address is absolute");
        headers.append(HOST, HeaderValue::from_static("evil.example"));
        assert!(!origins.allow(&headers, &Uri::from_static("/")), "two hosts");
        assert!(origins.allow(&HeaderMap::new(), &Uri::from_static("/")));
    }

    #[test]
    fn a_client_that_is_no_browser_is_not_concerned() {
        assert!(Origins::Same.allow(&HeaderMap::new(), &Uri::from_static("/")));
    }

    #[test]
    fn on_http2_the_host_is_the_authority() {
        let mut headers = HeaderMap::new();
        headers.insert(ORIGIN, HeaderValue::from_static("https://example.com"));
        assert!(Origins::Same.allow(&headers, &Uri::from_static("https://example.com/v1/sse")));
    }

    #[test]
    fn listed_origins_and_their_subdomains_are_allowed_exactly() {
        let list = ["https://app.example.com", "https://*.example.org"];
        let origins = Origins::Listed(list.iter().map(|text| text.parse().unwrap()).collect());
        for (origin, expected) in [
            ("https://app.example.com", true),
            ("http://app.example.com", false),
            ("https://app.example.com.evil.net", false),
            ("https://a.example.org", true),
            ("https://a.b.example.org", true),
            ("https://example.org", false),
            ("https://evilexample.org", false),
            ("http://a.example.org", false),
            ("null", false),
        ] {
            assert_eq!(check(&origins, origin, "localhost"), expected, "{origin}");
        }
    }

    #[test]
    fn what_is_not_an_origin_is_refused() {
        for text in ["example.com", "https://", "https://a/b", "*", "://x"] {
            assert!(text.parse::<Origin>().is_err(), "{text}");
        }
    }
}
