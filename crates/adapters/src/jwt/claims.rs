//! From the claims of a token with a good signature to an [`Identity`]; pure.
//!
//! What is malformed is refused, never passed over: a token whose `exp` is a text would live for
//! ever, and one whose grants are misspelt would surprise its bearer much later.

use std::sync::Arc;

use serde_json::{Map, Value};
use tidewire::Identity;
use tidewire::protocol::{Code, Refusal};

use super::claim_path;
use super::settings::JwtSettings;
use crate::rights::Rights;

/// Longest subject and role, in bytes: as long as a topic's name, since a subject is shown to all
/// who see presence and often stands in a topic's name.
const MAX_NAME_BYTES: usize = 255;

/// What a token must say to be accepted.
#[derive(Clone)]
pub(super) struct Rules {
    audience: Vec<String>,
    issuer: Vec<String>,
    leeway: u64,
    require_exp: bool,
    role_claim: String,
    grants_claim: String,
}

impl Rules {
    pub(super) fn new(settings: &JwtSettings) -> Self {
        Self {
            audience: settings.audience.clone(),
            issuer: settings.issuer.clone(),
            leeway: settings.leeway.as_secs(),
            require_exp: settings.require_exp,
            role_claim: settings.role_claim.clone(),
            grants_claim: settings.grants_claim.clone(),
        }
    }

    /// Who the bearer is, if the token is good at the time `now`.
    ///
    /// # Errors
    /// `TokenExpired` when it has run out or is not valid yet, otherwise `TokenInvalid`.
    pub(super) fn identity(
        &self,
        claims: Map<String, Value>,
        now: u64,
    ) -> Result<Identity, Refusal> {
        self.check_issuer(&claims)?;
        self.check_audience(&claims)?;
        self.check_begin(&claims, now)?;
        let identity = Identity {
            subject: subject(&claims)?,
            role: name(&claims, &self.role_claim)?,
            expires_at: self.expiry(&claims, now)?,
            ..Identity::default()
        };
        let identity = match claim_path::find(&claims, &self.grants_claim) {
            Some(grants) => rights(grants)?.given_to(identity),
            None => identity,
        };
        Ok(Identity { claims: Some(Arc::new(claims.into())), ..identity })
    }

    fn check_issuer(&self, claims: &Map<String, Value>) -> Result<(), Refusal> {
        if self.issuer.is_empty() {
            return Ok(());
        }
        let issuer = claims.get("iss").and_then(Value::as_str);
        if issuer.is_some_and(|issuer| self.issuer.iter().any(|ours| ours == issuer)) {
            return Ok(());
        }
        Err(invalid("the token is not from an issuer that is trusted here (iss)"))
    }

    /// One text, or a list of which one must be ours (RFC 7519, section 4.1.3).
    fn check_audience(&self, claims: &Map<String, Value>) -> Result<(), Refusal> {
        if self.audience.is_empty() {
            return Ok(());
        }
        let is_ours = |value: &Value| {
            value.as_str().is_some_and(|audience| self.audience.iter().any(|ours| ours == audience))
        };
        match claims.get("aud") {
            Some(Value::Array(list)) if list.iter().any(is_ours) => Ok(()),
            Some(audience) if is_ours(audience) => Ok(()),
            _ => Err(invalid("the token is not meant for this server (aud)")),
        }
    }

    fn check_begin(&self, claims: &Map<String, Value>, now: u64) -> Result<(), Refusal> {
        match date(claims, "nbf")? {
            Some(begin) if begin > now.saturating_add(self.leeway) => {
                Err(Refusal::new(Code::TokenExpired, "the token is not valid yet (nbf)"))
            }
            _ => Ok(()),
        }
    }

    /// When the identity ends, if ever.
    fn expiry(&self, claims: &Map<String, Value>, now: u64) -> Result<Option<u64>, Refusal> {
        let Some(expiry) = date(claims, "exp")? else {
            if self.require_exp {
                return Err(invalid("the token does not say when it runs out (exp)"));
            }
            return Ok(None);
        };
        let last = expiry.saturating_add(self.leeway);
        if last <= now {
            return Err(Refusal::new(Code::TokenExpired, "the token has run out (exp)"));
        }
        // A token that is accepted for the leeway alone must live that long, or the client would
        // be let in and thrown out again at once.
        Ok(Some(if expiry > now { expiry } else { last }))
    }
}

/// A NumericDate in whole seconds; before 1970 is 0.
fn date(claims: &Map<String, Value>, name: &str) -> Result<Option<u64>, Refusal> {
    let Some(value) = claims.get(name).filter(|value| !value.is_null()) else {
        return Ok(None);
    };
    // A fraction is allowed (RFC 7519, section 2); `as` saturates at both ends.
    let seconds = value.as_u64().or_else(|| value.as_f64().map(|seconds| seconds as u64));
    match seconds {
        Some(seconds) => Ok(Some(seconds)),
        None => Err(invalid(&format!("the claim {name} is not a number of seconds"))),
    }
}

/// A short text that names somebody.
fn name(claims: &Map<String, Value>, path: &str) -> Result<Option<Arc<str>>, Refusal> {
    let Some(value) = claim_path::find(claims, path) else {
        return Ok(None);
    };
    let text = value.as_str().ok_or_else(|| invalid(&format!("the claim {path} is not a text")))?;
    if text.is_empty() || text.len() > MAX_NAME_BYTES || text.chars().any(char::is_control) {
        let message = format!(
            "the claim {path} must have 1 to {MAX_NAME_BYTES} bytes and no control characters"
        );
        return Err(invalid(&message));
    }
    Ok(Some(text.into()))
}

/// Who the token names; never an API key, whose subjects begin with `key:`.
fn subject(claims: &Map<String, Value>) -> Result<Option<Arc<str>>, Refusal> {
    let subject = name(claims, "sub")?;
    if subject.as_deref().is_some_and(|subject| subject.starts_with(crate::api_key::SUBJECT)) {
        return Err(invalid("the claim sub must not begin with \"key:\", which names API keys"));
    }
    Ok(subject)
}

fn rights(grants: &Value) -> Result<Rights, Refusal> {
    Rights::from_json(grants)
        .map_err(|error| invalid(&format!("the token cannot be used: {error}")))
}

fn invalid(message: &str) -> Refusal {
    Refusal::new(Code::TokenInvalid, message)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn settings() -> JwtSettings {
        JwtSettings { require_exp: false, ..JwtSettings::default() }
    }

    #[track_caller]
    fn check(settings: &JwtSettings, claims: &Value) -> Result<Identity, Refusal> {
        Rules::new(settings).identity(claims.as_object().unwrap().clone(), NOW)
    }

    #[test]
    fn a_token_runs_out_after_the_leeway_and_not_before() {
        for (exp, expected) in [
            (json!(NOW + 1), Ok(Some(NOW + 1))),
            (json!(NOW), Ok(Some(NOW + 5))),
            (json!(NOW - 4), Ok(Some(NOW + 1))),
            (json!(NOW - 5), Err(Code::TokenExpired)),
            (json!(0), Err(Code::TokenExpired)),
            (json!(-1), Err(Code::TokenExpired)),
            (json!(NOW as f64 + 0.5), Ok(Some(NOW + 5))),
            (json!(1e300), Ok(Some(u64::MAX))),
            (json!("tomorrow"), Err(Code::TokenInvalid)),
            (json!(null), Ok(None)),
        ] {
            let claims = json!({ "exp": exp });
            let outcome = check(&settings(), &claims).map(|identity| identity.expires_at);
            assert_eq!(outcome.map_err(|refusal| refusal.code), expected, "exp {exp}");
        }
    }

    #[test]
    fn a_token_without_an_end_is_refused_unless_switched_off() {
        let strict = JwtSettings::default();
        assert_eq!(check(&strict, &json!({})).unwrap_err().code, Code::TokenInvalid);
        assert_eq!(check(&settings(), &json!({})).unwrap().expires_at, None);
    }

    #[test]
    fn a_token_begins_before_its_time_by_the_leeway_only() {
        for (nbf, expected) in [
            (json!(NOW), None),
            (json!(NOW + 5), None),
            (json!(NOW + 6), Some(Code::TokenExpired)),
            (json!([]), Some(Code::TokenInvalid)),
        ] {
            let refused = check(&settings(), &json!({ "nbf": nbf })).err();
            assert_eq!(refused.map(|refusal| refusal.code), expected, "nbf {nbf}");
        }
    }

    #[test]
    fn one_of_our_audiences_must_be_among_the_tokens() {
        let ours = JwtSettings { audience: vec!["a".into(), "b".into()], ..settings() };
        for (claims, is_good) in [
            (json!({ "aud": "a" }), true),
            (json!({ "aud": ["x", "b"] }), true),
            (json!({ "aud": ["x"] }), false),
            (json!({ "aud": [] }), false),
            (json!({ "aud": { "a": 1 } }), false),
            (json!({}), false),
        ] {
            assert_eq!(check(&ours, &claims).is_ok(), is_good, "{claims}");
        }
        assert!(check(&settings(), &json!({ "aud": "whoever" })).is_ok());
    }

    #[test]
    fn the_issuer_must_be_one_of_ours() {
        let ours = JwtSettings { issuer: vec!["https://id.example/".into()], ..settings() };
        assert!(check(&ours, &json!({ "iss": "https://id.example/" })).is_ok());
        for claims in [json!({ "iss": "https://id.example" }), json!({}), json!({ "iss": 1 })] {
            assert_eq!(check(&ours, &claims).unwrap_err().code, Code::TokenInvalid);
        }
    }

    #[test]
    fn the_bearer_is_taken_from_the_configured_claims() {
        let settings = JwtSettings {
            role_claim: "app.role".into(),
            grants_claim: "app.rights".into(),
            ..settings()
        };
        let claims = json!({
            "sub": "u1", "app": { "role": "editor", "rights": { "publish": ["room:*"] } },
        });
        let identity = check(&settings, &claims).unwrap();
        assert_eq!(identity.subject.as_deref(), Some("u1"));
        assert_eq!(identity.role.as_deref(), Some("editor"));
        assert_eq!(identity.claims.as_deref(), Some(&claims));
        assert_eq!(identity.grants.unwrap()[0].pattern.to_string(), "room:*");
    }

    #[test]
    fn malformed_claims_are_refused_and_not_passed_over() {
        for (claims, part) in [
            (json!({ "sub": 7 }), "sub is not a text"),
            (json!({ "sub": "" }), "sub must have 1 to 255 bytes"),
            (json!({ "sub": "a\nb" }), "no control characters"),
            (json!({ "sub": "key:importer" }), "which names API keys"),
            (json!({ "role": ["admin"] }), "role is not a text"),
            (json!({ "tidewire": { "admin": 1 } }), "the grant \"admin\""),
            (json!({ "tidewire": { "subscibe": [] } }), "unknown action"),
        ] {
            let refused = check(&settings(), &claims).unwrap_err();
            assert_eq!(refused.code, Code::TokenInvalid, "{claims}");
            assert!(refused.message.contains(part), "{claims}: {}", refused.message);
        }
    }

    #[test]
    fn an_administrators_token_may_do_everything() {
        let identity = check(&settings(), &json!({ "tidewire": { "admin": true } })).unwrap();
        assert!(identity.superuser);
    }
}
