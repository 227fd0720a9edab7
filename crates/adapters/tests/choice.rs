//! Which authenticator a token goes to.

use std::sync::Arc;

use async_trait::async_trait;
use tidewire::protocol::{Code, Refusal, Token};
use tidewire::{Authenticator, Identity};
use tidewire_adapters::{Authenticators, Look};

use crate::support::{identify, refused};

/// Takes every token for one subject, or refuses each with one code.
struct Always(Result<&'static str, Code>);

#[async_trait]
impl Authenticator for Always {
    async fn identify(&self, _: &Token) -> Result<Identity, Refusal> {
        match self.0 {
            Ok(subject) => Ok(Identity { subject: Some(subject.into()), ..Identity::default() }),
            Err(code) => Err(Refusal::new(code, code.word())),
        }
    }
}

fn always(subject: &'static str) -> Arc<Always> {
    Arc::new(Always(Ok(subject)))
}

fn never(code: Code) -> Arc<Always> {
    Arc::new(Always(Err(code)))
}

async fn subject(authenticators: &Authenticators, token: &str) -> Option<String> {
    let identity = identify(authenticators, &Token::new(token)).await.ok()?;
    identity.subject.map(|subject| subject.as_ref().to_owned())
}

#[test]
fn a_token_is_known_by_its_look() {
    for (token, look) in [
        ("twk_abc", Look::ApiKey),
        ("twk_a.b.c", Look::ApiKey),
        ("a.b.c", Look::Jwt),
        ("a.b.", Look::Jwt),
        ("a.b", Look::Other),
        ("a.b.c.d.e", Look::Other),
        ("", Look::Other),
    ] {
        assert_eq!(Look::of(&Token::new(token)), look, "{token}");
    }
}

#[tokio::test]
async fn each_look_has_its_reader() {
    let all =
        Authenticators::default().api_keys(always("key")).jwt(always("jwt")).other(always("sql"));
    assert_eq!(subject(&all, "twk_x").await.as_deref(), Some("key"));
    assert_eq!(subject(&all, "a.b.c").await.as_deref(), Some("jwt"));
    assert_eq!(subject(&all, "session-cookie").await.as_deref(), Some("sql"));
}

#[tokio::test]
async fn a_refused_jwt_is_not_offered_to_others() {
    let strict = Authenticators::default().jwt(never(Code::TokenInvalid)).other(always("sql"));
    assert_eq!(subject(&strict, "a.b.c").await, None);
    assert_eq!(subject(&strict, "abc").await.as_deref(), Some("sql"));
}

#[tokio::test]
async fn a_look_without_a_reader_goes_to_those_who_read_anything() {
    let sql = Authenticators::default().other(always("sql"));
    for token in ["twk_x", "a.b.c", "abc"] {
        assert_eq!(subject(&sql, token).await.as_deref(), Some("sql"));
    }
}

#[tokio::test]
async fn what_nobody_reads_is_refused() {
    let jwt_only = Authenticators::default().jwt(always("jwt"));
    assert_eq!(refused(&jwt_only, &Token::new("abc")).await.0, Code::TokenInvalid);
    let nobody = Authenticators::default();
    assert!(nobody.is_empty());
    assert_eq!(refused(&nobody, &Token::new("a.b.c")).await.0, Code::TokenInvalid);
}

#[tokio::test]
async fn among_several_the_first_yes_counts_and_the_most_telling_no() {
    let second = Authenticators::default().other(never(Code::TokenInvalid)).other(always("second"));
    assert_eq!(subject(&second, "abc").await.as_deref(), Some("second"));
    for codes in [[Code::Unavailable, Code::TokenInvalid], [Code::TokenInvalid, Code::Unavailable]]
    {
        let [first, second] = codes.map(never);
        let both = Authenticators::default().other(first).other(second);
        assert_eq!(refused(&both, &Token::new("abc")).await.0, Code::Unavailable);
    }
}

#[tokio::test]
async fn a_token_that_is_too_long_reaches_nobody() {
    let all = Authenticators::default().other(always("sql"));
    let long = Token::new("x".repeat(16 * 1024 + 1));
    assert_eq!(refused(&all, &long).await.0, Code::TokenInvalid);
}
