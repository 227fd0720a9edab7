//! The `Host` of a request: exactly one, and a valid one (RFC 9112, section 3.2).
//!
//! Two servers in a row that read a request with two hosts differently can be made to answer one
//! for the other.

use http::header::HOST;
use http::{HeaderMap, Version};
use tidewire_protocol::{Code, Refusal};

/// Refuses a request of HTTP/1.1 that does not name one host.
///
/// # Errors
/// `BadField`.
pub(crate) fn check(version: Version, headers: &HeaderMap) -> Result<(), Refusal> {
    let mut hosts = headers.get_all(HOST).iter();
    let is_good = match (hosts.next(), hosts.next()) {
        (Some(host), None) => is_valid(host.as_bytes()),
        // HTTP/1.0 needs none, and later versions have the host in the address.
        (None, _) => version != Version::HTTP_11,
        (Some(_), Some(_)) => false,
    };
    if is_good {
        return Ok(());
    }
    Err(Refusal::new(Code::BadField, "a request has exactly one valid Host"))
}

/// A name, an IPv4 address or an IPv6 address in brackets, with a port or without.
fn is_valid(host: &[u8]) -> bool {
    let (name, rest) = match host {
        [b'[', rest @ ..] => {
            let Some(end) = rest.iter().position(|&byte| byte == b']') else { return false };
            let is_part = |byte: &u8| byte.is_ascii_hexdigit() || b":.".contains(byte);
            if !rest[..end].iter().all(is_part) {
                return false;
            }
            (&rest[..end], &rest[end + 1..])
        }
        _ => host.split_at(host.iter().position(|&byte| byte == b':').unwrap_or(host.len())),
    };
    let is_port = rest.is_empty() || rest[0] == b':' && rest[1..].iter().all(u8::is_ascii_digit);
    !name.is_empty() && name.iter().all(|byte| is_of_name(*byte)) && is_port
}

/// What a registered name has (RFC 3986, section 3.2.2), and the colons of an IPv6 address.
fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_valid_host_is_taken_and_nothing_else() {
        for host in ["localhost", "localhost:8080", "127.0.0.1", "[::1]:80", "[::1]", "a.example:"]
        {
            assert!(is_valid(host.as_bytes()), "{host}");
        }
        for host in
            ["", ":80", "a b", "a/b", "user@a", "a:b", "a:1:2", "[::1", "[g]", "[::1]x", "a?b"]
        {
            assert!(!is_valid(host.as_bytes()), "{host}");
        }
        let mut headers = HeaderMap::new();
        assert!(check(Version::HTTP_11, &headers).is_err());
        assert!(check(Version::HTTP_10, &headers).is_ok());
        assert!(check(Version::HTTP_2, &headers).is_ok());
        headers.append(HOST, "a".parse().unwrap());
        assert!(check(Version::HTTP_11, &headers).is_ok());
        headers.append(HOST, "a".parse().unwrap());
        assert!(check(Version::HTTP_11, &headers).is_err());
    }
}
