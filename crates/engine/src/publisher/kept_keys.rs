//! Idempotency keys in a history that outlives the process: kept in the same append as the event,
//! so that there is never one without the other.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::budget::Principal;
use crate::history::{History, KEY_PREFIX, Mark, PublishedKey};
use crate::idempotency::{Idempotency, Key};
use crate::limits::Limits;

/// Longest source of a mark in bytes, as [`Mark`] says.
const SOURCE_BYTES: usize = 511;

/// The mark of a key; `None` for one whose caller has so long a name that it is remembered in
/// memory alone.
pub(super) fn mark(key: &Key, fingerprint: u64) -> Option<Mark> {
    let (caller, name) = (key.0.written(), &key.1);
    let source = format!("{KEY_PREFIX}{}:{caller}{name}", caller.len());
    let place = fingerprint.to_le_bytes().to_vec().into();
    (source.len() <= SOURCE_BYTES).then(|| Mark { source: source.into(), place })
}

fn read(mark: &Mark) -> Option<(Key, u64)> {
    let (length, rest) = mark.source.strip_prefix(KEY_PREFIX)?.split_once(':')?;
    let (caller, name) = rest.split_at_checked(length.parse().ok()?)?;
    let fingerprint = u64::from_le_bytes(mark.place[..].try_into().ok()?);
    Some(((Principal::read(caller)?, name.into()), fingerprint))
}

/// Remembers the keys that the history kept.
pub(super) fn restore(history: &Arc<dyn History>, idempotency: &Idempotency, limits: &Limits) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let age = |at| now.saturating_sub(Duration::from_millis(at));
    let keys = history.published_keys().into_iter().filter_map(|kept| {
        let PublishedKey { mark, position, at } = kept;
        let (key, fingerprint) = read(&mark)?;
        (age(at) < limits.idempotency_ttl).then(|| (key, fingerprint, Some(position), age(at)))
    });
    idempotency.restore(keys, limits);
}

#[cfg(test)]
mod tests {
    use tidewire_protocol::Token;

    use super::*;
    use crate::budget::TokenDigest;

    fn subject(name: &str) -> Principal {
        Principal::Subject(name.into())
    }

    #[test]
    fn what_is_kept_of_a_key_is_read_as_it_was() {
        let network = |address: &str| Principal::at(address.parse().ok());
        let token = Principal::Token(TokenDigest::of(&Token::new("a token")));
        for (caller, name) in [
            (Principal::Local, "k"),
            (subject("ann"), "a:b\x00000"),
            (subject("12:x"), "9"),
            (subject(""), ""),
            (subject("\u{e9}"), "\u{e9}"),
            (network("192.0.2.1"), "k"),
            (network("2001:db8::7"), "k"),
            (token, "k"),
        ] {
            let key: Key = (caller, name.into());
            assert_eq!(read(&mark(&key, 7).expect("a short one")), Some((key, 7)));
        }
        assert_eq!(mark(&(subject(&"x".repeat(520)), "long".into()), 7), None);
    }

    #[test]
    fn what_is_no_key_is_not_read() {
        for source in
            ["key/", "key/x", "key/9:ab", "key/-1:ab", "key/1:xk", "key/0:k", "other/1:lk"]
        {
            let place = 7u64.to_le_bytes().to_vec().into();
            assert_eq!(read(&Mark { source: source.into(), place }), None, "{source}");
        }
        let mark = Mark { source: "key/1:lk".into(), place: vec![1].into() };
        assert_eq!(read(&mark), None);
    }
}
