//! Minted tokens are good for the settings they were minted for.

use std::time::Duration;

use tidewire::protocol::Code;
use tidewire::{Action, Topic};
use tidewire_adapters::jwt::{Mint, MintError, mint};
use tidewire_adapters::{JwtAuthenticator, JwtSettings, Rights};

use crate::support::{NOW, SECRET, authenticator, clock_at, identify, refused};

fn settings() -> JwtSettings {
    JwtSettings {
        secret: Some(SECRET.into()),
        audience: vec!["first".into(), "second".into()],
        issuer: vec!["us".into()],
        role_claim: "app_metadata.role".into(),
        grants_claim: "https://tidewire.example/grants".into(),
        ..JwtSettings::default()
    }
}

fn wanted() -> Mint {
    Mint {
        subject: Some("alice".to_owned()),
        role: Some("editor".to_owned()),
        rights: Some(Rights::default().and(Action::Publish, "room:*".parse().unwrap())),
        ttl: Duration::from_secs(60),
    }
}

#[tokio::test]
async fn a_minted_token_says_what_was_wanted() {
    let token = mint(&settings(), &wanted(), NOW).unwrap();
    let identity = identify(&authenticator(&settings()), &token).await.unwrap();
    assert_eq!(identity.subject.as_deref(), Some("alice"));
    assert_eq!(identity.role.as_deref(), Some("editor"));
    assert_eq!(identity.expires_at, Some(NOW + 60));
    assert!(identity.is_granted(Action::Publish, &Topic::application("room:1").unwrap()));
    assert!(!identity.is_granted(Action::Publish, &Topic::application("lobby").unwrap()));
}

#[tokio::test]
async fn a_minted_token_runs_out() {
    let token = mint(&settings(), &wanted(), NOW).unwrap();
    let later = JwtAuthenticator::with_clock(&settings(), clock_at(NOW + 65)).unwrap();
    assert_eq!(refused(&later, &token).await.0, Code::TokenExpired);
}

#[tokio::test]
async fn a_base64_secret_signs_what_it_checks() {
    let settings = JwtSettings {
        secret: Some("base64:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=".into()),
        ..JwtSettings::default()
    };
    let token = mint(&settings, &Mint::default(), NOW).unwrap();
    assert!(identify(&authenticator(&settings), &token).await.is_ok());
}

#[test]
fn without_a_secret_nothing_is_minted() {
    let minted = mint(&JwtSettings::default(), &Mint::default(), NOW);
    assert!(matches!(minted, Err(MintError::NoSecret)));
}
