//! Who uses a budget: a subject, a token that names none, or an address.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use tidewire_protocol::Token;

use crate::auth::Identity;

/// The part of an IPv6 address that one customer of a network commonly has: /64.
const CUSTOMER: u128 = !0 << 64;

/// The part of a host's address by which it is counted: an IPv4 address, or the /64 of an IPv6
/// one, since a host can use any address of its /64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Network(IpAddr);

impl Network {
    /// Clients whose address is not known share one budget.
    pub const UNKNOWN: Self = Self(IpAddr::V4(Ipv4Addr::UNSPECIFIED));

    /// The network of an address; an IPv4 address that is mapped into IPv6 is an IPv4 address.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(address) => Self(Ipv6Addr::from_bits(address.to_bits() & CUSTOMER).into()),
            address @ IpAddr::V4(_) => Self(address),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(address) => address.fmt(f),
            IpAddr::V6(address) => write!(f, "{address}/64"),
        }
    }
}

/// A token by its SHA-256, so that the token itself need not be kept.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenDigest([u8; 16]);

impl TokenDigest {
    /// Half of the hash: 128 bits that nobody finds another token for.
    pub fn of(token: &Token) -> Self {
        let hash = Sha256::digest(token.expose().as_bytes());
        let (half, _) = hash.split_first_chunk().expect("a SHA-256 has 32 bytes");
        Self(*half)
    }
}

impl fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenDigest")
    }
}

/// Who uses a budget.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Principal {
    /// The subject of a token, from whatever address.
    Subject(Arc<str>),
    /// A token that names no subject.
    Token(TokenDigest),
    /// A client without a token.
    Network(Network),
    /// A client of a server without authentication, which serves this machine alone.
    Local,
}

impl Principal {
    /// Who a client is that has this identity, at this address.
    pub fn of(identity: &Identity, address: Option<IpAddr>) -> Self {
        match (&identity.subject, identity.token) {
            (Some(subject), _) => Self::Subject(Arc::clone(subject)),
            (None, Some(token)) => Self::Token(token),
            (None, None) if identity.superuser => Self::Local,
            (None, None) => Self::at(address),
        }
    }

    /// A client of which nothing but the address is known.
    pub fn at(address: Option<IpAddr>) -> Self {
        Self::Network(address.map_or(Network::UNKNOWN, Network::of))
    }

    /// The principal as a text that outlives the process; see [`Principal::read`].
    pub(crate) fn written(&self) -> String {
        match self {
            Self::Subject(subject) => format!("s{subject}"),
            Self::Token(TokenDigest(half)) => format!("t{:032x}", u128::from_be_bytes(*half)),
            Self::Network(Network(address)) => format!("n{address}"),
            Self::Local => "l".to_owned(),
        }
    }

    /// Reads what [`Principal::written`] wrote.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_at_checked(1)?;
        Some(match kind {
            "s" => Self::Subject(rest.into()),
            "t" => {
                let half = u128::from_str_radix(rest, 16).ok()?;
                Self::Token(TokenDigest(half.to_be_bytes()))
            }
            "n" => Self::Network(Network(rest.parse().ok()?)),
            "l" => Self::Local,
            _ => return None,
        })
    }

    /// Whether a good token was shown.
    pub fn is_authenticated(&self) -> bool {
        matches!(self, Self::Subject(_) | Self::Token(_))
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Subject(subject) => write!(f, "subject {subject:?}"),
            Self::Token(_) => f.write_str("a token without a subject"),
            Self::Network(network) => write!(f, "address {network}"),
            Self::Local => f.write_str("this machine"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str) -> Principal {
        Principal::at(Some(address.parse().unwrap()))
    }

    #[test]
    fn hosts_of_one_customer_are_one_principal() {
        assert_eq!(at("2001:db8::1"), at("2001:db8::ffff:1"));
        assert_ne!(at("2001:db8::1"), at("2001:db8:0:1::1"));
        assert_ne!(at("192.0.2.1"), at("192.0.2.2"));
        assert_eq!(at("::ffff:192.0.2.1"), at("192.0.2.1"));
    }

    #[test]
    fn a_subject_is_one_principal_from_anywhere_and_no_address_is_taken_for_it() {
        let named = |name: &str| Identity { subject: Some(name.into()), ..Identity::default() };
        let from = |identity: &Identity, address: &str| {
            Principal::of(identity, Some(address.parse().unwrap()))
        };
        assert_eq!(from(&named("a"), "192.0.2.1"), from(&named("a"), "192.0.2.2"));
        assert_ne!(from(&named("192.0.2.1"), "192.0.2.1"), at("192.0.2.1"));
        assert_eq!(from(&Identity::anonymous(), "192.0.2.1"), at("192.0.2.1"));
        let digest = |text: &str| Some(TokenDigest::of(&Token::new(text)));
        let bearer = |text| Identity { token: digest(text), ..Identity::default() };
        assert_ne!(from(&bearer("a"), "192.0.2.1"), from(&bearer("b"), "192.0.2.1"));
    }
}
