//! Where in a token's claims something stands.
//!
//! `role` is a claim; `app_metadata.role` is a member of a claim. A claim whose whole name is the
//! path comes first, since names such as `https://example.com/role` have dots of their own.

use serde_json::{Map, Value};

/// Finds what stands at `path`; null counts as nothing.
pub(super) fn find<'a>(claims: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    let found = claims.get(path).or_else(|| {
        let (claim, rest) = path.split_once('.')?;
        find(claims.get(claim)?.as_object()?, rest)
    });
    found.filter(|value| !value.is_null())
}

/// Puts `value` where [`find`] will see it.
pub(super) fn put(claims: &mut Map<String, Value>, path: &str, value: Value) {
    let inner = path.split_once('.').filter(|_| !path.contains("://"));
    let Some((claim, rest)) = inner else {
        claims.insert(path.to_owned(), value);
        return;
    };
    let member = claims.entry(claim).or_insert_with(|| Map::new().into());
    if !member.is_object() {
        *member = Map::new().into();
    }
    put(member.as_object_mut().expect("made an object above"), rest, value);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_path_leads_through_objects_and_a_whole_name_comes_first() {
        let claims = json!({
            "role": "a",
            "app": { "meta": { "role": "b" } },
            "https://example.com/role": "c",
            "empty": null,
        });
        let claims = claims.as_object().unwrap();
        assert_eq!(find(claims, "role"), Some(&json!("a")));
        assert_eq!(find(claims, "app.meta.role"), Some(&json!("b")));
        assert_eq!(find(claims, "https://example.com/role"), Some(&json!("c")));
        for path in ["empty", "app.role", "role.role", "", "."] {
            assert_eq!(find(claims, path), None, "{path}");
        }
    }

    #[test]
    fn what_is_put_is_found() {
        let mut claims = Map::new();
        for path in ["role", "app.meta.role", "https://example.com/role"] {
            put(&mut claims, path, json!(path));
            assert_eq!(find(&claims, path), Some(&json!(path)));
        }
    }
}
