//! One key and the algorithms it is good for.
//!
//! What a key is for follows from the key alone, and keys that could never verify anything (too
//! short, of an unknown curve) are refused when they are read, where an operator sees it, and not
//! as a wrong signature to every client.

use std::sync::Arc;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk as LibraryJwk};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use thiserror::Error;
use tidewire::Signature;

use super::parts::Parts;

/// Shortest modulus of an RSA key, in bits: RFC 7518, section 3.3, and what the cryptography
/// library verifies with.
const MIN_RSA_BITS: usize = 2048;

/// Longest modulus of an RSA key, in bits, that the cryptography library verifies with.
const MAX_RSA_BITS: usize = 8192;

/// What a base64 secret begins with.
const BASE64_PREFIX: &str = "base64:";

/// Object identifiers of the two curves in DER, tag and length included (RFC 5480, section 2.1.1).
const P256_OID: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384_OID: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];

/// A key to verify signatures with.
#[derive(Clone, Debug)]
pub(super) struct Key {
    /// What tokens call it, when it has a name.
    pub(super) id: Option<Arc<str>>,
    algorithms: Vec<Algorithm>,
    verifier: DecodingKey,
    /// A hash of what the key is, wherever it came from and whatever its name.
    fingerprint: [u8; 32],
}

/// Why something is not a key to verify with.
#[derive(Debug, Error)]
pub enum KeyError {
    /// The secret has no bytes.
    #[error("the secret is empty")]
    EmptySecret,
    /// The text behind `base64:` is not base64.
    #[error("the secret begins with \"base64:\" but what follows is not base64")]
    SecretNotBase64(#[source] base64::DecodeError),
    /// The secret is a PEM file.
    #[error("the secret is a PEM key: name it as the public key, not as the secret")]
    SecretIsPem,
    /// No PEM block, or a broken one.
    #[error("not a PEM file: it must hold a block that begins with -----BEGIN PUBLIC KEY-----")]
    NotPem,
    /// A private key where a public one is due.
    #[error(
        "this is a private key, which this server should not have: \
         write the public one with `openssl pkey -in FILE -pubout`"
    )]
    Private,
    /// A certificate where a key is due.
    #[error(
        "this is a certificate: take the public key out of it with \
         `openssl x509 -in FILE -pubkey -noout`"
    )]
    Certificate,
    /// A block of another sort.
    #[error("not a public key of RSA, P-256, P-384 or Ed25519")]
    Unsupported,
    /// The cryptography library cannot read it.
    #[error("the key cannot be read")]
    Unreadable(#[source] jsonwebtoken::errors::Error),
    /// An RSA key that is too short or too long.
    #[error("an RSA key of {0} bits: it must have {MIN_RSA_BITS} to {MAX_RSA_BITS}")]
    RsaSize(usize),
    /// A member of a JWK is missing, or is not base64url of the right length.
    #[error("member {0:?} is missing or malformed")]
    Member(&'static str),
    /// A JWK that is not for verifying signatures.
    #[error("a key for something else than signatures")]
    OtherUse,
    /// A JWK whose `alg` does not fit the key, or is not supported.
    #[error("its \"alg\" is not one that such a key can verify")]
    Algorithm,
    /// A shared secret in a public place.
    #[error("a shared secret, which must not be published")]
    PublishedSecret,
}

/// Whether everyone may read what the key came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A file of this server's.
    File,
    /// A URL.
    Url,
}

/// A key of a set (RFC 7517), as far as it matters here.
#[derive(Deserialize)]
pub(super) struct Jwk {
    kty: String,
    kid: Option<Arc<str>>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    k: Option<String>,
}

impl Key {
    /// A shared secret: the text's bytes, or those written in base64 behind `base64:`.
    pub(super) fn from_secret(text: &str) -> Result<Self, KeyError> {
        Ok(Self::secret(&secret_bytes(text)?))
    }

    /// All public keys of a PEM text.
    pub(super) fn from_pem(text: &str) -> Result<Vec<Self>, KeyError> {
        let keys: Vec<_> = pem_blocks(text).map(from_pem_block).collect::<Result<_, _>>()?;
        if keys.is_empty() { Err(KeyError::NotPem) } else { Ok(keys) }
    }

    /// A key of a set.
    pub(super) fn from_jwk(jwk: &Jwk, place: Place) -> Result<Self, KeyError> {
        jwk.is_for_signatures()?;
        let mut key = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("RSA", _) => Self::rsa(member("n", &jwk.n)?, member("e", &jwk.e)?)?,
            ("EC", Some("P-256")) => Self::ec(jwk, Algorithm::ES256, 32)?,
            ("EC", Some("P-384")) => Self::ec(jwk, Algorithm::ES384, 48)?,
            ("OKP", Some("Ed25519")) => Self::ed(member("x", &jwk.x)?)?,
            ("oct", _) if place == Place::Url => return Err(KeyError::PublishedSecret),
            ("oct", _) => Self::secret(&bytes_of("k", &jwk.k)?),
            _ => return Err(KeyError::Unsupported),
        };
        key.id.clone_from(&jwk.kid);
        if let Some(name) = &jwk.alg {
            let algorithm = super::algorithm(name).filter(|&algorithm| key.is_for(algorithm));
            key.algorithms = vec![algorithm.ok_or(KeyError::Algorithm)?];
        }
        Ok(key)
    }

    fn secret(bytes: &[u8]) -> Self {
        Self {
            id: None,
            algorithms: AlgorithmFamily::Hmac.algorithms().to_vec(),
            verifier: DecodingKey::from_secret(bytes),
            fingerprint: fingerprint("secret", [bytes]),
        }
    }

    fn rsa(modulus: &str, exponent: &str) -> Result<Self, KeyError> {
        let bytes = URL_SAFE_NO_PAD.decode(modulus).map_err(|_| KeyError::Member("n"))?;
        let bits = bit_length(&bytes);
        if !(MIN_RSA_BITS..=MAX_RSA_BITS).contains(&bits) {
            return Err(KeyError::RsaSize(bits));
        }
        let verifier = DecodingKey::from_rsa_components(modulus, exponent)
            .map_err(|_| KeyError::Member("e"))?;
        let fingerprint = fingerprint("rsa", [modulus, exponent]);
        let algorithms = AlgorithmFamily::Rsa.algorithms().to_vec();
        Ok(Self { id: None, algorithms, verifier, fingerprint })
    }

    fn ec(jwk: &Jwk, algorithm: Algorithm, length: usize) -> Result<Self, KeyError> {
        // The library joins the two without a look at their lengths (RFC 7518, section 6.2.1.2).
        if bytes_of("x", &jwk.x)?.len() != length {
            return Err(KeyError::Member("x"));
        }
        if bytes_of("y", &jwk.y)?.len() != length {
            return Err(KeyError::Member("y"));
        }
        let (x, y) = (member("x", &jwk.x)?, member("y", &jwk.y)?);
        let verifier = DecodingKey::from_ec_components(x, y).map_err(KeyError::Unreadable)?;
        let fingerprint = fingerprint("ec", [x, y]);
        Ok(Self { id: None, algorithms: vec![algorithm], verifier, fingerprint })
    }

    fn ed(x: &str) -> Result<Self, KeyError> {
        if URL_SAFE_NO_PAD.decode(x).map_or(0, |bytes| bytes.len()) != 32 {
            return Err(KeyError::Member("x"));
        }
        let verifier = DecodingKey::from_ed_components(x).map_err(KeyError::Unreadable)?;
        let fingerprint = fingerprint("ed25519", [x]);
        Ok(Self { id: None, algorithms: vec![Algorithm::EdDSA], verifier, fingerprint })
    }

    /// Whether the key may be used with this algorithm.
    pub(super) fn is_for(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }

    /// Whether it is the same key under the same name for the same algorithms.
    pub(super) fn is_the_same(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
            && self.id == other.id
            && self.algorithms == other.algorithms
    }

    /// What a token of this key's was signed with.
    pub(super) fn signature(&self, token: &Parts<'_>) -> Signature {
        let key_id = token.key_id.as_deref().map(Into::into);
        let algorithm = format!("{:?}", token.algorithm).into();
        Signature { key: self.fingerprint, key_id, algorithm }
    }

    /// Whether a token with this signature, which was good once, would be good with this key.
    pub(super) fn has_made(&self, signature: &Signature) -> bool {
        self.fingerprint == signature.key
            && super::algorithm(&signature.algorithm).is_some_and(|name| self.is_for(name))
            && (self.id.is_none() || signature.key_id.is_none() || self.id == signature.key_id)
    }

    /// Whether the token was signed with this key; false for algorithms the key is not for.
    pub(super) fn has_signed(&self, token: &Parts<'_>) -> bool {
        self.is_for(token.algorithm)
            && jsonwebtoken::crypto::verify(
                token.signature,
                token.signed,
                &self.verifier,
                token.algorithm,
            )
            .unwrap_or(false)
    }
}

/// The parts that make a key, each with its length before it so that none runs into the next.
fn fingerprint<const N: usize>(sort: &str, parts: [impl AsRef<[u8]>; N]) -> [u8; 32] {
    let mut hash = Sha256::new_with_prefix(sort);
    for part in parts {
        let part = part.as_ref();
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

impl Jwk {
    fn is_for_signatures(&self) -> Result<(), KeyError> {
        let usage = self.usage.as_deref().is_none_or(|usage| usage == "sig");
        let verify = |operations: &Vec<String>| operations.iter().any(|name| name == "verify");
        if usage && self.key_ops.as_ref().is_none_or(verify) {
            Ok(())
        } else {
            Err(KeyError::OtherUse)
        }
    }
}

/// The bytes of a shared secret as it is written in the settings.
pub(super) fn secret_bytes(text: &str) -> Result<Vec<u8>, KeyError> {
    if text.trim_start().starts_with("-----BEGIN") {
        return Err(KeyError::SecretIsPem);
    }
    let bytes = match text.strip_prefix(BASE64_PREFIX) {
        Some(encoded) => decode_any(encoded.trim()).map_err(KeyError::SecretNotBase64)?,
        None => text.as_bytes().to_vec(),
    };
    if bytes.is_empty() { Err(KeyError::EmptySecret) } else { Ok(bytes) }
}

/// People copy secrets from many places: both alphabets, with and without padding.
fn decode_any(encoded: &str) -> Result<Vec<u8>, base64::DecodeError> {
    let url_safe = encoded.contains(['-', '_']);
    let alphabet = if url_safe { alphabet::URL_SAFE } else { alphabet::STANDARD };
    let config =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    GeneralPurpose::new(&alphabet, config).decode(encoded)
}

fn pem_blocks(text: &str) -> impl Iterator<Item = &str> {
    let starts = text.match_indices("-----BEGIN ").map(|(at, _)| at);
    let ends = text.match_indices("-----BEGIN ").map(|(at, _)| at).skip(1).chain([text.len()]);
    starts.zip(ends).map(|(start, end)| &text[start..end])
}

fn from_pem_block(block: &str) -> Result<Key, KeyError> {
    let label = block.strip_prefix("-----BEGIN ").and_then(|rest| rest.split("-----").next());
    match label {
        Some("PUBLIC KEY" | "RSA PUBLIC KEY") => {}
        Some("CERTIFICATE") => return Err(KeyError::Certificate),
        Some(label) if label.ends_with("PRIVATE KEY") => return Err(KeyError::Private),
        Some(_) => return Err(KeyError::Unsupported),
        None => return Err(KeyError::NotPem),
    }
    let der = pem_body(block).ok_or(KeyError::NotPem)?;
    let pem = block.as_bytes();
    let key = [DecodingKey::from_rsa_pem, DecodingKey::from_ec_pem, DecodingKey::from_ed_pem]
        .into_iter()
        .find_map(|read| read(pem).ok())
        .ok_or(KeyError::Unsupported)?;
    from_library_key(&key, &der)
}

/// Goes through the parts of the key, so that a key from a PEM file is checked as one of a set is.
fn from_library_key(key: &DecodingKey, der: &[u8]) -> Result<Key, KeyError> {
    let jwk = LibraryJwk::from_decoding_key(key, None).map_err(KeyError::Unreadable)?;
    match jwk.algorithm {
        AlgorithmParameters::RSA(rsa) => Key::rsa(&rsa.n, &rsa.e),
        AlgorithmParameters::OctetKeyPair(pair) => Key::ed(&pair.x),
        AlgorithmParameters::EllipticCurve(point) => {
            let algorithm = curve(der).ok_or(KeyError::Unsupported)?;
            let fingerprint = fingerprint("ec", [&point.x, &point.y]);
            Ok(Key { id: None, algorithms: vec![algorithm], verifier: key.clone(), fingerprint })
        }
        _ => Err(KeyError::Unsupported),
    }
}

/// The library tells curves apart by the length of the point alone, and others share those lengths.
fn curve(der: &[u8]) -> Option<Algorithm> {
    let has = |oid: &[u8]| der.windows(oid.len()).any(|window| window == oid);
    match (has(P256_OID), has(P384_OID)) {
        (true, false) => Some(Algorithm::ES256),
        (false, true) => Some(Algorithm::ES384),
        _ => None,
    }
}

fn pem_body(block: &str) -> Option<Vec<u8>> {
    let lines = block.lines().skip(1).take_while(|line| !line.starts_with("-----END"));
    let body: String = lines.flat_map(|line| line.trim().chars()).collect();
    STANDARD.decode(body).ok()
}

fn member<'a>(name: &'static str, value: &'a Option<String>) -> Result<&'a str, KeyError> {
    value.as_deref().ok_or(KeyError::Member(name))
}

fn bytes_of(name: &'static str, value: &Option<String>) -> Result<Vec<u8>, KeyError> {
    let bytes = URL_SAFE_NO_PAD.decode(member(name, value)?).map_err(|_| KeyError::Member(name))?;
    if bytes.is_empty() { Err(KeyError::Member(name)) } else { Ok(bytes) }
}

fn bit_length(bytes: &[u8]) -> usize {
    let mut bytes = bytes.iter().skip_while(|&&byte| byte == 0);
    let Some(first) = bytes.next() else { return 0 };
    (8 - first.leading_zeros() as usize) + 8 * bytes.count()
}
