//! Where a request comes from: the other end of its socket, or whom a trusted proxy names.
//!
//! A header that names the client is believed from right to left, as far as each hop is a trusted
//! proxy: whoever is left of the first stranger may have been written by it.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use axum::extract::ConnectInfo;
use http::header::FORWARDED;
use http::{Extensions, HeaderMap, HeaderName};
use ipnet::IpNet;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The header in which proxies name the client.
///
/// It is one of the two and not whichever is there: a proxy that sets one passes on the other as
/// the client wrote it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// The address of a proxy, or a network of them: `10.0.0.1`, `10.0.0.0/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proxy(IpNet);

/// The text is neither an address nor a network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is neither an address nor a network such as 10.0.0.0/8")]
pub struct ProxyError(String);

impl FromStr for Proxy {
    type Err = ProxyError;

    fn from_str(text: &str) -> Result<Self, ProxyError> {
        let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        network.map(Self).map_err(|_| ProxyError(text.to_owned()))
    }
}

/// The proxies whose word about a client's address is taken; none by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    /// Their addresses.
    pub networks: Vec<Proxy>,
    /// Where they name the client.
    pub header: ForwardedHeader,
}

impl Proxies {
    /// Whether this is the address of one of them.
    pub fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks.iter().any(|Proxy(network)| network.contains(&address))
    }

    /// The client of a request that came from `peer`: `peer` itself unless it is a proxy, else the
    /// last address that the header names and that is no proxy's. A proxy that names nobody, or
    /// something that is no address, stands for its client itself.
    pub fn client(&self, peer: SocketAddr, headers: &HeaderMap) -> SocketAddr {
        let mut client = peer;
        if !self.contain(peer.ip()) {
            return client;
        }
        let (name, read): (_, fn(&str) -> Option<SocketAddr>) = match self.header {
            ForwardedHeader::XForwardedFor => (X_FORWARDED_FOR, node),
            ForwardedHeader::Forwarded => (FORWARDED, forwarded),
        };
        let lines: Vec<_> = headers.get_all(name).iter().collect();
        for line in lines.iter().rev() {
            let Ok(line) = line.to_str() else { return client };
            for hop in line.rsplit(',') {
                let Some(address) = read(hop.trim()) else { return client };
                client = address;
                if !self.contain(client.ip()) {
                    return client;
                }
            }
        }
        client
    }
}

/// The client of a request, as the accept loop noted it.
pub(crate) fn client(request: &Extensions) -> Option<SocketAddr> {
    request.get().map(|&ConnectInfo(client)| client)
}

/// The address in one element of `Forwarded`.
fn forwarded(element: &str) -> Option<SocketAddr> {
    let mut pairs = element.split(';').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(name, _)| name.trim().eq_ignore_ascii_case("for"))?;
    node(value.trim().trim_matches('"'))
}

/// An address with or without a port; an IPv6 address has brackets where it has a port.
fn node(text: &str) -> Option<SocketAddr> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some(address);
    }
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok().map(|address| SocketAddr::new(address, 0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn proxies(header: ForwardedHeader) -> Proxies {
        let networks = ["10.0.0.0/8", "2001:db8:1::/48"].map(|text| text.parse().unwrap());
        Proxies { networks: networks.into(), header }
    }

    fn client(header: ForwardedHeader, peer: &str, lines: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in lines {
            let name = match header {
                ForwardedHeader::XForwardedFor => X_FORWARDED_FOR,
                ForwardedHeader::Forwarded => FORWARDED,
            };
            headers.append(name, line.parse().unwrap());
        }
        let peer = SocketAddr::new(peer.parse().unwrap(), 1);
        proxies(header).client(peer, &headers).ip().to_string()
    }

    #[test]
    fn only_a_proxy_is_believed_and_only_about_the_hop_before_it() {
        let client = |peer, lines: &[&str]| client(ForwardedHeader::XForwardedFor, peer, lines);
        assert_eq!(client("192.0.2.1", &["198.51.100.1"]), "192.0.2.1", "no proxy");
        assert_eq!(client("10.0.0.1", &["198.51.100.1"]), "198.51.100.1");
        assert_eq!(client("::ffff:10.0.0.1", &["198.51.100.1"]), "198.51.100.1");
        assert_eq!(client("10.0.0.1", &["203.0.113.1, 198.51.100.1"]), "198.51.100.1", "forged");
        assert_eq!(
            client("10.0.0.1", &["203.0.113.1", "198.51.100.1:80, 10.0.0.2"]),
            "198.51.100.1"
        );
        assert_eq!(client("2001:db8:1::1", &["[2001:db8:2::1]:80"]), "2001:db8:2::1");
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &["198.51.100.1, unknown"]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &["unknown, 10.0.0.2"]), "10.0.0.2");
    }

    #[test]
    fn the_standard_header_is_read_by_its_own_rules() {
        let client = |lines: &[&str]| client(ForwardedHeader::Forwarded, "10.0.0.1", lines);
        assert_eq!(
            client(&["for=203.0.113.1, proto=https;For=\"198.51.100.1:4711\""]),
            "198.51.100.1"
        );
        assert_eq!(client(&["for=\"[2001:db8:2::1]\";by=10.0.0.1"]), "2001:db8:2::1");
        assert_eq!(client(&["for=_hidden"]), "10.0.0.1");
        assert_eq!(client(&["proto=https"]), "10.0.0.1");
    }

    proptest! {
        #[test]
        fn any_header_gives_an_address(line in "[ -~]{0,40}", standard: bool) {
            let kinds = [ForwardedHeader::XForwardedFor, ForwardedHeader::Forwarded];
            client(kinds[usize::from(standard)], "10.0.0.1", &[&line]);
        }
    }
}
