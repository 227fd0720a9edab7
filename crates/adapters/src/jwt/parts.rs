//! A token taken apart: what it says of itself, before any of it is believed.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};
use tidewire::protocol::{Code, FromObject, Refusal};

/// Header, claims and signature of a token (RFC 7515, section 3.1).
pub(super) struct Parts<'a> {
    /// How it claims to be signed.
    pub(super) algorithm: Algorithm,
    /// Which key it claims to be signed with.
    pub(super) key_id: Option<String>,
    /// What is signed: header, dot and claims as they were sent.
    pub(super) signed: &'a [u8],
    /// The signature in base64url.
    pub(super) signature: &'a str,
    claims: &'a str,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default)]
    crit: Option<IgnoredAny>,
}

impl<'a> Parts<'a> {
    /// Takes a token apart.
    ///
    /// # Errors
    /// `TokenInvalid` when it has another form, is not signed, or asks for what is unknown here.
    pub(super) fn of(token: &'a str) -> Result<Self, Refusal> {
        let (signed, signature) = token.rsplit_once('.').ok_or_else(not_three)?;
        let (header, claims) = signed.split_once('.').ok_or_else(not_three)?;
        if claims.contains('.') {
            return Err(not_three());
        }
        let header = decode(header).and_then(|json| serde_json::from_slice(&json).ok());
        let FromObject(header): FromObject<Header> =
            header.ok_or_else(|| invalid("the token's header cannot be read"))?;
        let algorithm = read_algorithm(&header)?;
        // RFC 7515, section 4.1.11: whoever does not understand all of it must refuse.
        if header.crit.is_some() {
            return Err(invalid("the token asks for extensions that are not known here (crit)"));
        }
        Ok(Self { algorithm, key_id: header.kid, signed: signed.as_bytes(), signature, claims })
    }

    /// The claims; to be looked at once the signature is known to be good.
    ///
    /// # Errors
    /// `TokenInvalid` when they are not a JSON object.
    pub(super) fn claims(&self) -> Result<Map<String, Value>, Refusal> {
        decode(self.claims)
            .and_then(|json| serde_json::from_slice(&json).ok())
            .ok_or_else(|| invalid("the token's claims are not a JSON object"))
    }
}

fn read_algorithm(header: &Header) -> Result<Algorithm, Refusal> {
    if header.alg.eq_ignore_ascii_case("none") {
        return Err(invalid("the token is not signed"));
    }
    super::algorithm(&header.alg)
        .ok_or_else(|| invalid("the token is signed with an algorithm that is not known here"))
}

fn decode(part: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(part).ok()
}

fn not_three() -> Refusal {
    invalid("the token is not three parts of base64url joined by dots")
}

fn invalid(message: &str) -> Refusal {
    Refusal::new(Code::TokenInvalid, message)
}
