//! Whatever strangers send is refused and breaks nothing.

use std::sync::Arc;

use jsonwebtoken::Algorithm;
use proptest::prelude::*;
use serde_json::json;
use tidewire::Authenticator as _;
use tidewire::protocol::Token;
use tidewire_adapters::{ApiKey, ApiKeys, Authenticators, JwtSettings, api_key};

use crate::support::{File, SECRET, Signer, authenticator, claims, encode_part, signed};

fn is_refused(authenticators: &Authenticators, token: String) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(authenticators.identify(&Token::new(token))).is_err()
}

/// A secret, a key set and an API key, all at once.
fn guarded() -> Authenticators {
    let keys: Vec<_> =
        [Signer::p256("p256"), Signer::ed25519("ed")].iter().map(Signer::jwk).collect();
    let set = File::with(&json!({ "keys": keys }).to_string());
    let jwt = authenticator(&JwtSettings {
        secret: Some(SECRET.into()),
        jwks_file: Some(set.path()),
        ..JwtSettings::default()
    });
    let (_, hash) = api_key::generate().unwrap();
    let keys = ApiKeys::new([ApiKey { name: "k".to_owned(), hash, rights: None }]).unwrap();
    Authenticators::default().api_keys(Arc::new(keys)).jwt(Arc::new(jwt))
}

fn header() -> impl Strategy<Value = String> {
    let algorithms = ["HS256", "HS512", "RS256", "PS512", "ES256", "ES384", "EdDSA", "none", ""];
    let names = ["p256", "ed", "other"];
    (
        prop::sample::select(algorithms.to_vec()),
        prop::option::of(prop::sample::select(names.to_vec())),
    )
        .prop_map(|(algorithm, name)| encode_part(&json!({ "alg": algorithm, "kid": name })))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_text_is_refused(texts in prop::collection::vec(".{0,200}", 16)) {
        let guarded = guarded();
        for text in texts {
            let key = format!("twk_{text}");
            prop_assert!(is_refused(&guarded, text));
            prop_assert!(is_refused(&guarded, key));
        }
    }

    #[test]
    fn a_true_header_with_any_rest_is_refused(
        tokens in prop::collection::vec((header(), "[A-Za-z0-9_-]{0,80}", "[A-Za-z0-9_-]{0,120}"), 16),
    ) {
        let guarded = guarded();
        for (header, claims, signature) in tokens {
            let token = format!("{header}.{claims}.{signature}");
            prop_assert!(is_refused(&guarded, token));
        }
    }

    #[test]
    fn a_good_token_with_one_character_changed_is_refused(
        changes in prop::collection::vec((any::<prop::sample::Index>(), "[A-Za-z0-9_.-]"), 16),
    ) {
        let guarded = guarded();
        let good = signed(SECRET.as_bytes(), Algorithm::HS256, &claims());
        for (index, character) in changes {
            let at = index.index(good.expose().len());
            let mut changed = good.expose().to_owned();
            changed.replace_range(at..=at, &character);
            if changed != good.expose() {
                prop_assert!(is_refused(&guarded, changed));
            }
        }
    }
}
