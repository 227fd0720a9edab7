//! Every algorithm, from every sort of key; and none that the key is not for.

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use tidewire::protocol::{Code, Token};
use tidewire_adapters::{JwtError, JwtSettings};

use crate::support::{
    File, NOW, SECRET, Signer, authenticator, claims, clock_at, encode_part, identify, is_good,
    refused, signed,
};

fn with_secret(secret: &str) -> JwtSettings {
    JwtSettings { secret: Some(secret.into()), ..JwtSettings::default() }
}

fn with_pem(pem: &str) -> JwtSettings {
    JwtSettings { public_key: Some(pem.to_owned()), ..JwtSettings::default() }
}

fn set_of(keys: &[Value]) -> File {
    File::with(&json!({ "keys": keys }).to_string())
}

fn with_set(file: &File) -> JwtSettings {
    JwtSettings { jwks_file: Some(file.path()), ..JwtSettings::default() }
}

/// The error and what caused it, in one line.
fn error(settings: &JwtSettings) -> String {
    let error = tidewire_adapters::JwtAuthenticator::new(settings).expect_err("an error");
    let source = std::error::Error::source(&error).map(ToString::to_string);
    format!("{error}: {}", source.unwrap_or_default())
}

fn with_algorithm(mut jwk: Value, algorithm: &str) -> Value {
    jwk["alg"] = json!(algorithm);
    jwk
}

#[tokio::test]
async fn a_shared_secret_checks_all_three_hmac_algorithms() {
    let ours = authenticator(&with_secret(SECRET));
    for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
        let token = signed(SECRET.as_bytes(), algorithm, &claims());
        let identity = identify(&ours, &token).await.unwrap();
        assert_eq!(identity.subject.as_deref(), Some("alice"), "{algorithm:?}");
        assert_eq!(identity.expires_at, Some(NOW + 3600));

        let (code, message) = refused(&ours, &signed(b"another", algorithm, &claims())).await;
        assert_eq!(
            (code, message.as_str()),
            (Code::TokenInvalid, "the token's signature is wrong")
        );
    }
}

#[tokio::test]
async fn a_secret_may_be_written_in_base64_of_either_alphabet() {
    let bytes = [0xfb, 0xef, 0xff].repeat(11);
    let token = signed(&bytes, Algorithm::HS256, &claims());
    for secret in [format!("base64:{}", "++//".repeat(11)), format!("base64:{}", "--__".repeat(11))]
    {
        assert!(is_good(&authenticator(&with_secret(&secret)), &token).await, "{secret}");
    }
    assert!(error(&with_secret("base64:***")).contains("not base64"));
    assert!(error(&with_secret("base64:")).contains("the secret is empty"));
}

#[tokio::test]
async fn public_keys_check_every_algorithm_they_are_for() {
    let signers = Signer::all();
    let all = set_of(&signers.iter().map(Signer::jwk).collect::<Vec<_>>());
    let by_set = authenticator(&with_set(&all));
    for signer in &signers {
        let by_pem = authenticator(&with_pem(&signer.public_pem));
        for &algorithm in &signer.algorithms {
            for name in [None, Some(signer.jwk()["kid"].as_str().unwrap())] {
                let token = signer.sign_as(algorithm, name, &claims());
                assert!(is_good(&by_pem, &token).await, "{algorithm:?} by PEM");
                assert!(is_good(&by_set, &token).await, "{algorithm:?} by key set");
            }
        }
    }
}

#[tokio::test]
async fn several_sources_of_keys_are_used_together() {
    let [a, b, c] = ["a", "b", "c"].map(Signer::ed25519);
    let pems = File::with(&format!("{}\n{}", a.public_pem, b.public_pem));
    let set = set_of(&[c.jwk()]);
    let all = authenticator(&JwtSettings {
        secret: Some(SECRET.into()),
        public_key_file: Some(pems.path()),
        jwks_file: Some(set.path()),
        ..JwtSettings::default()
    });
    for token in [
        signed(SECRET.as_bytes(), Algorithm::HS256, &claims()),
        a.sign(&claims()),
        b.sign(&claims()),
        c.sign(&claims()),
    ] {
        assert!(is_good(&all, &token).await);
    }
    let stranger = Signer::ed25519("c").sign(&claims());
    assert_eq!(refused(&all, &stranger).await.1, "the token's signature is wrong");
}

#[tokio::test]
async fn a_public_key_is_never_taken_for_a_shared_secret() {
    let signer = Signer::rsa("rsa");
    let set = set_of(&[signer.jwk()]);
    let modulus = signer.jwk()["n"].as_str().unwrap().to_owned();
    for ours in [authenticator(&with_pem(&signer.public_pem)), authenticator(&with_set(&set))] {
        for secret in [&signer.public_pem, signer.public_pem.trim_end(), &modulus] {
            let forged = signed(secret.as_bytes(), Algorithm::HS256, &claims());
            let (code, message) = refused(&ours, &forged).await;
            assert_eq!(code, Code::TokenInvalid);
            assert_eq!(message, "the token's algorithm is not one that its key is for");
        }
    }
    assert!(error(&with_secret(&signer.public_pem)).contains("the secret is a PEM key"));
}

#[tokio::test]
async fn a_key_that_names_its_algorithm_is_for_no_other() {
    let signer = Signer::rsa("rsa");
    let set = set_of(&[with_algorithm(signer.jwk(), "RS256")]);
    let ours = authenticator(&with_set(&set));
    assert!(is_good(&ours, &signer.sign_as(Algorithm::RS256, Some("rsa"), &claims())).await);
    for algorithm in [Algorithm::RS512, Algorithm::PS256] {
        let token = signer.sign_as(algorithm, Some("rsa"), &claims());
        assert_eq!(
            refused(&ours, &token).await.1,
            "the token's algorithm is not one that its key is for"
        );
    }
}

#[tokio::test]
async fn the_newer_name_of_eddsa_is_known_too() {
    let signer = Signer::ed25519("ed");
    let set = set_of(&[with_algorithm(signer.jwk(), "Ed25519")]);
    assert!(is_good(&authenticator(&with_set(&set)), &signer.sign(&claims())).await);
}

#[tokio::test]
async fn an_unsigned_token_is_refused() {
    let ours = authenticator(&with_secret(SECRET));
    for name in ["none", "None", "NONE"] {
        let header = encode_part(&json!({ "alg": name, "typ": "JWT" }));
        for signature in ["", "AAAA"] {
            let token = format!("{header}.{}.{signature}", encode_part(&claims()));
            let (code, message) = refused(&ours, &Token::new(token)).await;
            assert_eq!((code, message.as_str()), (Code::TokenInvalid, "the token is not signed"));
        }
    }
}

#[tokio::test]
async fn a_changed_token_is_refused_whatever_was_changed() {
    let ours = authenticator(&with_secret(SECRET));
    let good = signed(SECRET.as_bytes(), Algorithm::HS256, &claims());
    let parts: Vec<_> = good.expose().split('.').collect();
    let other_claims = encode_part(&json!({ "sub": "mallory", "exp": NOW + 3600 }));
    let other_header = encode_part(&json!({ "typ": "JWT", "alg": "HS512" }));
    for token in [
        format!("{}.{other_claims}.{}", parts[0], parts[2]),
        format!("{other_header}.{}.{}", parts[1], parts[2]),
        format!("{}.{}.", parts[0], parts[1]),
        format!("{}.{}.{}=", parts[0], parts[1], parts[2]),
        format!("{}.{}.{}", parts[0], parts[1], &parts[2][1..]),
        format!("{}.{}", parts[0], parts[1]),
        format!("{}.{}.{}.x", parts[0], parts[1], parts[2]),
        format!(" {}", good.expose()),
        String::new(),
        "..".to_owned(),
    ] {
        assert_eq!(
            refused(&ours, &Token::new(token.clone())).await.0,
            Code::TokenInvalid,
            "{token}"
        );
    }
}

#[tokio::test]
async fn unknown_extensions_and_algorithms_are_refused() {
    let ours = authenticator(&with_secret(SECRET));
    for (header, expected) in [
        (json!({ "alg": "HS256", "crit": ["b64"], "b64": false }), "crit"),
        (json!({ "alg": "HS1024" }), "an algorithm that is not known here"),
        (json!({ "alg": 7 }), "header cannot be read"),
        (json!({ "typ": "JWT" }), "header cannot be read"),
        (json!({ "alg": "HS256", "kid": 7 }), "header cannot be read"),
    ] {
        let token = format!("{}.{}.AAAA", encode_part(&header), encode_part(&claims()));
        let (code, message) = refused(&ours, &Token::new(token)).await;
        assert_eq!(code, Code::TokenInvalid);
        assert!(message.contains(expected), "{header}: {message}");
    }
}

#[tokio::test]
async fn a_token_of_more_than_16_kib_is_not_looked_at() {
    let ours = authenticator(&with_secret(SECRET));
    let long = json!({ "sub": "alice", "exp": NOW + 60, "x": "x".repeat(16 * 1024) });
    let (code, message) = refused(&ours, &signed(SECRET.as_bytes(), Algorithm::HS256, &long)).await;
    assert_eq!(
        (code, message.as_str()),
        (Code::TokenInvalid, "a token is at most 16384 bytes long")
    );
}

#[tokio::test]
async fn refusals_say_what_is_wrong() {
    let ours = authenticator(&JwtSettings {
        audience: vec!["tidewire".into()],
        issuer: vec!["us".into()],
        ..with_secret(SECRET)
    });
    let good = json!({ "aud": "tidewire", "iss": "us", "exp": NOW + 60 });
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        signed(SECRET.as_bytes(), Algorithm::HS256, &claims)
    };
    for (token, code, part) in [
        (with("exp", json!(NOW - 60)), Code::TokenExpired, "has run out"),
        (with("nbf", json!(NOW + 60)), Code::TokenExpired, "not valid yet"),
        (with("aud", json!("other")), Code::TokenInvalid, "not meant for this server"),
        (with("iss", json!("them")), Code::TokenInvalid, "issuer"),
        (with("exp", json!(null)), Code::TokenInvalid, "does not say when it runs out"),
        (with("tidewire", json!([])), Code::TokenInvalid, "grants must be an object"),
    ] {
        let (said, message) = refused(&ours, &token).await;
        assert_eq!(said, code, "{message}");
        assert!(message.contains(part), "{message}");
    }
}

#[tokio::test]
async fn the_examples_of_the_standards_are_read_as_they_say() {
    // RFC 7515, appendices A.1 to A.3: one set of claims, three algorithms.
    let claims = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    let keys = set_of(&[
        json!({ "kty": "oct", "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow" }),
        json!({ "kty": "RSA", "e": "AQAB", "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ" }),
        json!({ "kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0" }),
    ]);
    let then =
        tidewire_adapters::JwtAuthenticator::with_clock(&with_set(&keys), clock_at(1_300_819_379));
    let then = then.unwrap();
    for (header, signature) in [
        ("eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9", "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"),
        (
            "eyJhbGciOiJSUzI1NiJ9",
            "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
        ),
        (
            "eyJhbGciOiJFUzI1NiJ9",
            "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
        ),
    ] {
        let token = Token::new(format!("{header}.{claims}.{signature}"));
        let identity = identify(&then, &token).await.unwrap();
        assert_eq!(identity.expires_at, Some(1_300_819_380));
        assert_eq!(identity.claims.unwrap()["iss"], "joe");
    }
}

#[tokio::test]
async fn the_example_of_rfc_8037_has_a_good_signature_over_what_are_no_claims() {
    let keys = set_of(&[json!({
        "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
    })]);
    let token = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    let message = refused(&authenticator(&with_set(&keys)), &Token::new(token)).await.1;
    assert_eq!(message, "the token's claims are not a JSON object");
}

#[test]
fn keys_that_could_never_check_anything_are_refused_at_the_start() {
    let signer = Signer::p256("p256");
    for (pem, part) in [
        (signer.private_pem.as_str(), "this is a private key"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", "this is a certificate"),
        ("not a key", "not a PEM file"),
        ("-----BEGIN PUBLIC KEY-----\n!\n-----END PUBLIC KEY-----", "not a PEM file"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "not a public key of RSA"),
        (&Signer::foreign_curve_pem(), "not a public key of RSA"),
    ] {
        let said = error(&with_pem(pem));
        assert!(said.contains(part), "{pem}: {said}");
    }
}

#[test]
fn keys_of_a_set_that_are_of_no_use_are_named_with_the_reason() {
    let mut private_use = Signer::rsa("rsa").jwk();
    private_use["use"] = json!("enc");
    let mut off_curve = Signer::p256("p256").jwk();
    off_curve["x"] = json!("AAAA");
    for (jwk, part) in [
        (private_use, "something else than signatures"),
        (off_curve, "member \"x\""),
        (with_algorithm(Signer::p256("p256").jwk(), "ES384"), "its \"alg\""),
        (json!({ "kty": "RSA", "n": "AQAB", "e": "AQAB" }), "an RSA key of 17 bits"),
        (json!({ "kty": "RSA", "n": "AQAB" }), "member \"e\""),
        (json!({ "kty": "EC", "crv": "P-521", "x": "AA", "y": "AA" }), "not a public key of RSA"),
        (json!({ "kty": "oct", "k": "" }), "member \"k\""),
        (json!({ "crv": "P-256" }), "not a JWK"),
        (json!(7), "not a JWK"),
    ] {
        let file = set_of(&[jwk]);
        let said = error(&with_set(&file));
        assert!(said.contains(part), "{said}");
    }
    assert!(error(&with_set(&File::with("[]"))).contains("not a JSON object"));
    assert!(error(&with_set(&set_of(&[]))).contains("no key in it"));
}

#[tokio::test]
async fn a_useful_key_in_a_set_is_found_among_useless_ones() {
    let signer = Signer::p384("p384");
    let set = set_of(&[json!({ "kty": "??" }), json!(null), signer.jwk()]);
    assert!(is_good(&authenticator(&with_set(&set)), &signer.sign(&claims())).await);
}

#[test]
fn settings_without_a_key_are_refused() {
    let none = tidewire_adapters::JwtAuthenticator::new(&JwtSettings::default());
    assert!(matches!(none, Err(JwtError::NoKeys)));
    let missing = JwtSettings { jwks_file: Some("/nowhere/keys".into()), ..JwtSettings::default() };
    assert!(error(&missing).contains("cannot read /nowhere/keys named by auth.jwt.jwks_file"));
}

#[tokio::test]
async fn reading_the_settings_again_exchanges_keys_and_keeps_the_old_on_an_error() {
    let [old, new] = ["old", "new"].map(Signer::ed25519);
    let file = File::with(&old.public_pem);
    let settings = JwtSettings { public_key_file: Some(file.path()), ..JwtSettings::default() };
    let ours = authenticator(&settings);
    assert!(is_good(&ours, &old.sign(&claims())).await);

    file.rewrite("broken");
    assert!(ours.reload(&settings).is_err());
    assert!(is_good(&ours, &old.sign(&claims())).await);

    file.rewrite(&new.public_pem);
    ours.reload(&settings).unwrap();
    assert!(is_good(&ours, &new.sign(&claims())).await);
    assert!(!is_good(&ours, &old.sign(&claims())).await);
}

#[test]
fn settings_never_show_the_secret() {
    assert!(!format!("{:?}", with_secret(SECRET)).contains(SECRET));
}
