//! Idempotency keys of several callers.

use http::Method;
use serde_json::{Value, json};
use tidewire_adapters::Rights;
use tidewire_adapters::jwt::Mint;

use super::{ATTACKER, OTHER, Peer, guarded};
use crate::support::{SECRET, Server, jwt, request, token};

/// Publishes under a key; the answer.
async fn publish(server: &Server, token: &str, key: &str, body: &Value) -> Value {
    let authorization = format!("Bearer {token}");
    let headers = [
        ("content-type", "application/json"),
        ("authorization", &*authorization),
        ("idempotency-key", key),
    ];
    let body = body.to_string();
    request(server.address, Method::POST, "/v1/publish", &headers, &body).await.json().await
}

#[tokio::test]
async fn a_key_is_its_callers_own() {
    let server = guarded(&[("auth.anonymous", "true")]).await;
    let publish = async |token: &str, data: i32| {
        publish(&server, token, "k", &json!({ "topic": "a", "data": data })).await
    };
    let first = publish(&token("ann"), 1).await;
    assert_eq!(publish(&token("ann"), 1).await, first);
    assert!(publish(&token("bob"), 2).await["position"].is_string());
    // Tokens without a subject, by the token.
    let granted = |issued: &str| {
        let rights = Rights::from_json(&json!({ "publish": [issued, "a"] })).unwrap();
        jwt(SECRET, &Mint { rights: Some(rights), ..Mint::default() })
    };
    assert!(publish(&granted("x"), 3).await["position"].is_string());
    assert!(publish(&granted("y"), 4).await["position"].is_string());
}

#[tokio::test]
async fn without_a_token_a_key_belongs_to_an_address() {
    let server = guarded(&[
        ("auth.anonymous", "true"),
        ("namespaces", r#"[{"pattern":"*","publish":"anyone"}]"#),
    ])
    .await;
    for (from, data, expected) in
        [(ATTACKER, 1, 200), (OTHER, 2, 200), (ATTACKER, 1, 200), (ATTACKER, 3, 409)]
    {
        let mut peer = Peer::connect(from, server.address).await;
        let body = json!({ "topic": "a", "data": data }).to_string();
        let lines = format!("Idempotency-Key: k\r\nContent-Length: {}\r\n", body.len());
        peer.ask("POST", "/v1/publish", &lines).await;
        peer.send(body.as_bytes()).await;
        assert_eq!(peer.status().await, expected, "{from} {data}");
    }
}

#[tokio::test]
async fn items_of_a_batch_have_keys_that_nobody_can_give() {
    let server = guarded(&[]).await;
    let ann = token("ann");
    let item = |data: i32| json!({ "topic": "a", "data": data });
    let batch = publish(&server, &ann, "k", &json!([item(1)])).await;
    assert!(batch["results"][0]["position"].is_string());
    for key in ["k/0", "k"] {
        let single = publish(&server, &ann, key, &item(2)).await;
        assert!(single["position"].is_string(), "{key}: {single}");
    }
    let forged = json!({ "topic": "a", "data": 3, "key": "k\u{0}0" });
    assert_eq!(publish(&server, &ann, "other", &forged).await["error"]["code"], "bad_field");
}

#[tokio::test]
async fn one_subjects_keys_push_out_nobody_elses() {
    let keys = [("idempotency.keys", "20"), ("budgets.idempotency_keys", "10")];
    let server = guarded(&keys).await;
    let (ann, mallory) = (token("ann"), token("mallory"));
    let item = |data: i32| json!({ "topic": "a", "data": data });
    let first = publish(&server, &ann, "k", &item(1)).await;
    for number in 0..40 {
        publish(&server, &mallory, &number.to_string(), &item(number)).await;
    }
    assert_eq!(publish(&server, &ann, "k", &item(1)).await, first);
}
