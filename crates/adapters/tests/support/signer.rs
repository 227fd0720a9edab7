//! Key pairs made for a test, and tokens signed with them.

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P256K1_SHA256_FIXED_SIGNING,
    ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair,
    RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tidewire::protocol::Token;

/// A key pair with a name.
pub(crate) struct Signer {
    name: String,
    key: EncodingKey,
    /// The algorithms it can sign with.
    pub(crate) algorithms: Vec<Algorithm>,
    /// The private key as PEM.
    pub(crate) private_pem: String,
    /// The public key as PEM.
    pub(crate) public_pem: String,
}

impl Signer {
    pub(crate) fn rsa(name: &str) -> Self {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let private: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        let private_pem = pem("PRIVATE KEY", private.as_ref());
        Self {
            name: name.to_owned(),
            key: EncodingKey::from_rsa_pem(private_pem.as_bytes()).unwrap(),
            algorithms: vec![
                Algorithm::RS256,
                Algorithm::RS384,
                Algorithm::RS512,
                Algorithm::PS256,
                Algorithm::PS384,
                Algorithm::PS512,
            ],
            private_pem,
            public_pem: pem("PUBLIC KEY", public.as_ref()),
        }
    }

    pub(crate) fn p256(name: &str) -> Self {
        Self::ec(name, &ECDSA_P256_SHA256_FIXED_SIGNING, Algorithm::ES256)
    }

    pub(crate) fn p384(name: &str) -> Self {
        Self::ec(name, &ECDSA_P384_SHA384_FIXED_SIGNING, Algorithm::ES384)
    }

    fn ec(name: &str, curve: &'static EcdsaSigningAlgorithm, algorithm: Algorithm) -> Self {
        let pair = EcdsaKeyPair::generate(curve).unwrap();
        let private = pair.to_pkcs8v1().unwrap();
        let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        Self {
            name: name.to_owned(),
            key: EncodingKey::from_ec_der(private.as_ref()),
            algorithms: vec![algorithm],
            private_pem: pem("PRIVATE KEY", private.as_ref()),
            public_pem: pem("PUBLIC KEY", public.as_ref()),
        }
    }

    pub(crate) fn ed25519(name: &str) -> Self {
        let pair = Ed25519KeyPair::generate().unwrap();
        let private: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        Self {
            name: name.to_owned(),
            key: EncodingKey::from_ed_der(private.as_ref()),
            algorithms: vec![Algorithm::EdDSA],
            private_pem: pem("PRIVATE KEY", private.as_ref()),
            public_pem: pem("PUBLIC KEY", public.as_ref()),
        }
    }

    /// One of each sort.
    pub(crate) fn all() -> Vec<Self> {
        vec![Self::rsa("rsa"), Self::p256("p256"), Self::p384("p384"), Self::ed25519("ed25519")]
    }

    /// A public key on a curve that no JSON Web Algorithm of ours is for.
    pub(crate) fn foreign_curve_pem() -> String {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256K1_SHA256_FIXED_SIGNING).unwrap();
        let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        pem("PUBLIC KEY", public.as_ref())
    }

    /// The public key as a JWK with the signer's name and without an algorithm.
    pub(crate) fn jwk(&self) -> Value {
        let jwk = Jwk::from_encoding_key(&self.key, self.algorithms[0]).unwrap();
        let mut jwk = serde_json::to_value(jwk).unwrap();
        let members = jwk.as_object_mut().unwrap();
        members.remove("alg");
        members.insert("kid".to_owned(), json!(self.name));
        jwk
    }

    /// A token that names its key.
    pub(crate) fn sign(&self, claims: &Value) -> Token {
        self.sign_as(self.algorithms[0], Some(&self.name), claims)
    }

    /// A token with this algorithm and name of a key in its header.
    pub(crate) fn sign_as(
        &self,
        algorithm: Algorithm,
        name: Option<&str>,
        claims: &Value,
    ) -> Token {
        let header = Header { kid: name.map(str::to_owned), ..Header::new(algorithm) };
        Token::new(jsonwebtoken::encode(&header, claims, &self.key).unwrap())
    }
}

/// A token signed with a shared secret.
pub(crate) fn signed(secret: &[u8], algorithm: Algorithm, claims: &Value) -> Token {
    let key = EncodingKey::from_secret(secret);
    Token::new(jsonwebtoken::encode(&Header::new(algorithm), claims, &key).unwrap())
}

/// One part of a token.
pub(crate) fn encode_part(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

fn pem(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let lines: Vec<_> = body.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}
