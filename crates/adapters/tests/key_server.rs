//! Keys from a key server: found when new, kept when it is down, asked for with moderation.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tidewire::Authenticator as _;
use tidewire::protocol::Code;
use tidewire_adapters::{JwtAuthenticator, JwtSettings};

use crate::support::{
    KeyServer, Signer, authenticator, claims, identify, is_good, refused, signed, soon,
};

/// Asks whenever there is a reason to.
fn eager(server: &KeyServer) -> JwtSettings {
    JwtSettings {
        jwks_url: Some(server.url()),
        jwks_cooldown: Duration::ZERO,
        ..JwtSettings::default()
    }
}

/// Asks once and not again within the test.
fn patient(server: &KeyServer) -> JwtSettings {
    JwtSettings { jwks_cooldown: Duration::from_secs(3600), ..eager(server) }
}

#[tokio::test]
async fn the_first_token_waits_for_the_keys() {
    let signer = Signer::p256("a");
    let server = KeyServer::of(&[&signer]).await;
    server.hold();
    let ours = Arc::new(authenticator(&patient(&server)));
    assert!(!ours.is_ready());

    let token = signer.sign(&claims());
    let waiting = tokio::spawn({
        let ours = Arc::clone(&ours);
        async move { identify(&*ours, &token).await }
    });
    server.has_requests(1).await;
    server.open();
    assert!(waiting.await.unwrap().is_ok());
    assert!(ours.is_ready());
}

#[tokio::test]
async fn a_new_key_is_fetched_when_a_token_names_it_and_a_withdrawn_one_is_forgotten() {
    let [old, new] = ["old", "new"].map(Signer::p256);
    let server = KeyServer::of(&[&old]).await;
    let ours = authenticator(&eager(&server));
    assert!(is_good(&ours, &old.sign(&claims())).await);
    assert_eq!(server.requests(), 1);

    server.publish(&[&new]);
    assert!(is_good(&ours, &old.sign(&claims())).await, "known until the next fetch");
    assert_eq!(server.requests(), 1);
    assert!(is_good(&ours, &new.sign(&claims())).await);
    assert_eq!(server.requests(), 2);
    let (code, message) = refused(&ours, &old.sign(&claims())).await;
    assert_eq!(code, Code::TokenInvalid);
    assert_eq!(message, "the token is signed with a key that is not known here");
}

#[tokio::test]
async fn many_tokens_with_a_new_key_cause_one_request() {
    let [old, new] = ["old", "new"].map(Signer::ed25519);
    let server = KeyServer::of(&[&old]).await;
    let ours = Arc::new(authenticator(&eager(&server)));
    assert!(is_good(&*ours, &old.sign(&claims())).await);

    server.publish(&[&new]);
    server.hold();
    let token = new.sign(&claims());
    let waiting: Vec<_> = (0..50)
        .map(|_| {
            let (ours, token) = (Arc::clone(&ours), token.clone());
            tokio::spawn(async move { is_good(&*ours, &token).await })
        })
        .collect();
    server.has_requests(2).await;
    server.open();
    for outcome in waiting {
        assert!(outcome.await.unwrap());
    }
    assert_eq!(server.requests(), 2);
}

#[tokio::test]
async fn made_up_names_of_keys_cause_no_requests_within_the_cooldown() {
    let signer = Signer::ed25519("a");
    let server = KeyServer::of(&[&signer]).await;
    let ours = authenticator(&patient(&server));
    assert!(is_good(&ours, &signer.sign(&claims())).await);
    for number in 0..100 {
        let name = format!("made up {number}");
        let token = signer.sign_as(signer.algorithms[0], Some(&name), &claims());
        assert_eq!(refused(&ours, &token).await.0, Code::TokenInvalid);
    }
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn a_client_that_gives_up_does_not_stop_the_fetch_for_others() {
    let [old, new] = ["old", "new"].map(Signer::ed25519);
    let server = KeyServer::of(&[&old]).await;
    let ours = Arc::new(authenticator(&eager(&server)));
    assert!(is_good(&*ours, &old.sign(&claims())).await);

    server.publish(&[&new]);
    server.hold();
    let token = new.sign(&claims());
    let impatient = tokio::spawn({
        let (ours, token) = (Arc::clone(&ours), token.clone());
        async move { is_good(&*ours, &token).await }
    });
    server.has_requests(2).await;
    impatient.abort();
    server.open();
    assert!(is_good(&*ours, &token).await);
    assert_eq!(server.requests(), 2);
}

type Break = fn(&KeyServer);

#[tokio::test]
async fn old_keys_are_kept_through_every_sort_of_outage() {
    let [known, unknown] = ["known", "unknown"].map(Signer::ed25519);
    let breaks: [(&str, Break); 6] = [
        ("an error status", |server| server.fail_with(500)),
        ("not found", |server| server.fail_with(404)),
        ("no JSON", |server| server.answer_with("<html>".to_owned())),
        ("an empty set", |server| server.answer_with(json!({ "keys": [] }).to_string())),
        ("a huge answer", |server| server.answer_with(" ".repeat(2 * 1024 * 1024))),
        ("a redirect", |server| server.redirect_to(format!("{}/elsewhere", server.url()))),
    ];
    for (what, make) in breaks {
        let server = KeyServer::of(&[&known]).await;
        let ours = authenticator(&eager(&server));
        assert!(is_good(&ours, &known.sign(&claims())).await);

        make(&server);
        let (code, message) = refused(&ours, &unknown.sign(&claims())).await;
        assert_eq!(code, Code::Unavailable, "{what}");
        assert!(message.contains("cannot be fetched at the moment"), "{message}");
        assert!(is_good(&ours, &known.sign(&claims())).await, "{what}");
        assert_eq!(server.requests(), 2, "{what}");

        server.publish(&[&known, &unknown]);
        assert!(is_good(&ours, &unknown.sign(&claims())).await, "after {what}");
    }
}

#[tokio::test]
async fn a_wrong_signature_stays_one_while_the_key_server_is_down() {
    let signer = Signer::p256("a");
    let server = KeyServer::of(&[&signer]).await;
    let ours = authenticator(&eager(&server));
    assert!(is_good(&ours, &signer.sign(&claims())).await);
    server.fail_with(500);
    let stranger = Signer::p256("a");
    for name in [None, Some("a")] {
        let forged = stranger.sign_as(stranger.algorithms[0], name, &claims());
        let (code, message) = refused(&ours, &forged).await;
        assert_eq!(
            (code, message.as_str()),
            (Code::TokenInvalid, "the token's signature is wrong")
        );
    }
}

#[tokio::test]
async fn without_any_keys_tokens_are_refused_for_now_and_accepted_later() {
    let signer = Signer::p256("a");
    let server = KeyServer::of(&[&signer]).await;
    server.fail_with(503);
    let ours = authenticator(&eager(&server));
    assert_eq!(refused(&ours, &signer.sign(&claims())).await.0, Code::Unavailable);
    assert!(!ours.is_ready());

    server.publish(&[&signer]);
    assert!(is_good(&ours, &signer.sign(&claims())).await);
    assert!(ours.is_ready());
}

#[tokio::test]
async fn a_key_server_that_is_not_there_is_no_error_at_the_start() {
    let signer = Signer::p256("a");
    let server = KeyServer::of(&[]).await;
    let settings = eager(&server);
    drop(server);
    let ours = authenticator(&settings);
    assert_eq!(refused(&ours, &signer.sign(&claims())).await.0, Code::Unavailable);
}

#[tokio::test]
async fn a_shared_secret_works_while_the_key_server_is_down() {
    let server = KeyServer::of(&[]).await;
    let ours = authenticator(&JwtSettings {
        secret: Some(crate::support::SECRET.into()),
        ..eager(&server)
    });
    let hmac = jsonwebtoken::Algorithm::HS256;
    assert!(is_good(&ours, &signed(crate::support::SECRET.as_bytes(), hmac, &claims())).await);
    assert_eq!(refused(&ours, &signed(b"other", hmac, &claims())).await.0, Code::TokenInvalid);
}

#[tokio::test]
async fn a_shared_secret_that_a_key_server_publishes_is_not_trusted() {
    let signer = Signer::ed25519("a");
    let server = KeyServer::of(&[&signer]).await;
    let secret = json!({ "kty": "oct", "k": "c2VjcmV0", "alg": "HS256" });
    server.answer_with(json!({ "keys": [signer.jwk(), secret] }).to_string());
    let ours = authenticator(&eager(&server));
    assert!(is_good(&ours, &signer.sign(&claims())).await);
    let forged = signed(b"secret", jsonwebtoken::Algorithm::HS256, &claims());
    assert_eq!(refused(&ours, &forged).await.0, Code::TokenInvalid);
}

#[tokio::test]
async fn a_token_that_names_no_key_is_tried_with_all_of_them() {
    let [a, b] = ["a", "b"].map(Signer::p256);
    let server = KeyServer::of(&[&a, &b]).await;
    let ours = authenticator(&patient(&server));
    for signer in [&a, &b] {
        let token = signer.sign_as(signer.algorithms[0], None, &claims());
        assert!(is_good(&ours, &token).await);
    }
}

#[tokio::test]
async fn keys_are_fetched_again_when_they_have_grown_old() {
    let signer = Signer::ed25519("a");
    let server = KeyServer::of(&[&signer]).await;
    let _ours =
        authenticator(&JwtSettings { jwks_refresh: Duration::from_millis(1), ..patient(&server) });
    server.has_requests(3).await;
}

#[tokio::test]
async fn reading_the_settings_again_keeps_fetched_keys_of_the_same_url() {
    let signer = Signer::ed25519("a");
    let server = KeyServer::of(&[&signer]).await;
    let ours = authenticator(&patient(&server));
    assert!(is_good(&ours, &signer.sign(&claims())).await);

    let stricter = JwtSettings { audience: vec!["us".into()], ..patient(&server) };
    ours.reload(&stricter).unwrap();
    let (_, message) = refused(&ours, &signer.sign(&claims())).await;
    assert!(message.contains("not meant for this server"), "{message}");
    assert_eq!(server.requests(), 1);

    let other = KeyServer::of(&[&Signer::ed25519("b")]).await;
    ours.reload(&patient(&other)).unwrap();
    assert_eq!(refused(&ours, &signer.sign(&claims())).await.0, Code::TokenInvalid);
    soon("a request at the other server", other.has_requests(1)).await;
}

#[tokio::test]
async fn keys_over_plain_http_from_elsewhere_are_refused() {
    let settings =
        JwtSettings { jwks_url: Some("http://id.example/keys".into()), ..JwtSettings::default() };
    let error = JwtAuthenticator::new(&settings).unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("it must begin with https://"), "{source}");
}

#[tokio::test]
async fn whoever_came_by_a_key_that_is_not_published_any_more_is_found_out() {
    let [old, new, third] = ["old", "new", "third"].map(Signer::p256);
    let server = KeyServer::of(&[&old, &new]).await;
    let ours = authenticator(&eager(&server));
    let by_old = identify(&ours, &old.sign(&claims())).await.unwrap();
    let by_new = identify(&ours, &new.sign(&claims())).await.unwrap();
    assert!(ours.review(&by_old).is_ok() && ours.review(&by_new).is_ok());
    let mut removals = ours.removals();
    removals.mark_unchanged();

    // One that is added takes nothing away.
    server.publish(&[&old, &new, &third]);
    assert!(is_good(&ours, &third.sign(&claims())).await);
    assert!(!removals.has_changed().unwrap());
    server.publish(&[&new]);
    assert!(!is_good(&ours, &Signer::p256("unknown").sign(&claims())).await);
    soon("a key that is gone", removals.changed()).await.unwrap();
    assert_eq!(ours.review(&by_old).unwrap_err().code, Code::TokenInvalid);
    assert_eq!(ours.review(&by_new).unwrap().subject, by_new.subject);

    ours.clear();
    assert!(ours.review(&by_new).is_err() && !is_good(&ours, &new.sign(&claims())).await);
}

#[tokio::test]
async fn the_same_key_from_another_place_is_the_same_key() {
    let signer = Signer::p256("a");
    let server = KeyServer::of(&[&signer]).await;
    let ours = authenticator(&eager(&server));
    let bearer = identify(&ours, &signer.sign(&claims())).await.unwrap();
    let pem = JwtSettings { public_key: Some(signer.public_pem.clone()), ..JwtSettings::default() };
    ours.reload(&pem).unwrap();
    assert!(ours.review(&bearer).is_ok());
    let other = JwtSettings { public_key: Some(Signer::p256("b").public_pem), ..pem };
    ours.reload(&other).unwrap();
    assert!(ours.review(&bearer).is_err());
}
