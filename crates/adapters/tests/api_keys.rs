//! Keys of producers.

use serde_json::json;
use tidewire::protocol::{Code, Token};
use tidewire::{Action, Topic};
use tidewire_adapters::api_key::{self, ApiKey, ApiKeyError, ApiKeys};
use tidewire_adapters::{Look, Rights};

use crate::support::{identify, refused};

fn entry(name: &str, hash: &str) -> ApiKey {
    ApiKey { name: name.to_owned(), hash: hash.to_owned(), rights: None }
}

#[tokio::test]
async fn a_new_key_is_known_by_its_hash_and_nothing_else_is() {
    let (key, hash) = api_key::generate().unwrap();
    assert_eq!(key.expose().len(), "twk_".len() + 43);
    assert_eq!(Look::of(&key), Look::ApiKey);
    assert_eq!(hash, api_key::written_hash(key.expose()));

    let keys = ApiKeys::new([entry("importer", &hash)]).unwrap();
    let identity = identify(&keys, &key).await.unwrap();
    assert_eq!(identity.subject.as_deref(), Some("key:importer"));
    assert!(identity.expires_at.is_none() && identity.grants.is_none() && !identity.superuser);

    let (other, _) = api_key::generate().unwrap();
    for token in [other, Token::new(hash), Token::new("twk_"), Token::new("")] {
        let (code, message) = refused(&keys, &token).await;
        assert_eq!(
            (code, message.as_str()),
            (Code::TokenInvalid, "this API key is not known here")
        );
    }
}

#[tokio::test]
async fn a_key_carries_the_rights_it_is_configured_with() {
    let (key, hash) = api_key::generate().unwrap();
    let rights = Rights::from_json(&json!({ "publish": ["orders:*"] })).unwrap();
    let keys = ApiKeys::new([ApiKey { rights: Some(rights), ..entry("shop", &hash) }]).unwrap();
    let identity = identify(&keys, &key).await.unwrap();
    let topic = Topic::application("orders:1").unwrap();
    assert!(identity.is_granted(Action::Publish, &topic));
    assert!(!identity.is_granted(Action::Subscribe, &topic));
}

#[tokio::test]
async fn keys_are_exchanged_at_once_and_kept_on_an_error() {
    let (old, old_hash) = api_key::generate().unwrap();
    let (new, new_hash) = api_key::generate().unwrap();
    let keys = ApiKeys::new([entry("a", &old_hash)]).unwrap();

    assert!(keys.reload([entry("a", "sha256:short")]).is_err());
    assert!(identify(&keys, &old).await.is_ok());
    keys.reload([entry("a", &new_hash.to_uppercase().replace("SHA256", "sha256"))]).unwrap();
    assert!(identify(&keys, &old).await.is_err());
    assert!(identify(&keys, &new).await.is_ok());
}

#[test]
fn entries_that_cannot_be_meant_are_refused() {
    let (_, hash) = api_key::generate().unwrap();
    let bad = |name: &str| ApiKeyError::BadHash(name.to_owned());
    for (entries, expected) in [
        (vec![entry("", &hash)], ApiKeyError::NoName),
        (vec![entry("a", &hash), entry("a", &hash)], ApiKeyError::Repeated("a".to_owned())),
        (vec![entry("a", &hash["sha256:".len()..])], bad("a")),
        (vec![entry("a", &hash[..hash.len() - 1])], bad("a")),
        (vec![entry("a", &format!("sha256:{}", "g".repeat(64)))], bad("a")),
        (vec![entry("a", &format!("sha256:{}", "+1".repeat(32)))], bad("a")),
    ] {
        assert_eq!(ApiKeys::new(entries).unwrap_err(), expected);
    }
}
