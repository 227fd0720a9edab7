//! Rights that are taken away while clients are connected.

use serde_json::{Value, json};
use tidewire_adapters::api_key;
use tidewire_adapters::jwt::Mint;

use crate::support::{Client, SECRET, Server, client_with, get, granted, jwt, post_with, token};

async fn connected(server: &Server, token: &str) -> Client {
    let path = format!("/v1/ws?token={token}");
    let mut client = client_with(server.address, &path, &[]).await.expect("an upgrade");
    client.hear_type("welcome").await;
    client
}

async fn publish(server: &Server, token: &str, topic: &str, data: &str) {
    let header = [("authorization", &*format!("Bearer {token}"))];
    let body = json!({ "topic": topic, "data": data });
    post_with(server.address, "/v1/publish", &header, &body).await.good().await;
}

#[tokio::test]
async fn a_removed_api_key_ends_the_connections_that_came_by_it() {
    let [ours, theirs] = [(), ()].map(|()| api_key::generate().expect("random bytes"));
    let entry = |name: &str, hash: &str| json!({ "name": name, "hash": hash });
    let both = json!([entry("ours", &ours.1), entry("theirs", &theirs.1)]).to_string();
    let one = json!([entry("ours", &ours.1)]).to_string();
    let server = Server::start(&[("auth.keys", &both), ("auth.jwt.secret", SECRET)]).await;
    let mut stays = connected(&server, ours.0.expose()).await;
    let mut ends = connected(&server, theirs.0.expose()).await;
    for client in [&mut stays, &mut ends] {
        client.subscribe(json!({ "topic": "news" })).await;
    }
    let path = format!("/v1/sse?topic=news&token={}", theirs.0.expose());
    let mut stream = get(server.address, &path).await;

    server.reload(&[("auth.keys", &one), ("auth.jwt.secret", SECRET)]).await;
    let (last, code, name) = ends.end().await;
    assert_eq!((code, &*name, &last["retry"]), (4502, "revoked", &json!(false)));
    assert_eq!(stream.named("close").await.json()["name"], "revoked");
    while stream.next_sse().await.is_some() {}
    assert_eq!(get(server.address, &path).await.status, 401);
    publish(&server, ours.0.expose(), "news", "goes on").await;
    assert_eq!(stays.hear_type("event").await["data"], "goes on");

    // All authentication but one is gone: what came by it goes, too.
    let mut by_token = connected(&server, &token("ann")).await;
    server.reload(&[("auth.keys", &one)]).await;
    assert_eq!(by_token.end().await.1, 4502);
    assert_eq!(stays.outcome(json!({ "type": "ping" })).await, "pong");
}

#[tokio::test]
async fn another_signing_key_ends_the_connections_of_the_one_before() {
    const OTHER: &str = "another secret for tests, thirty-two bytes or more";
    let server = Server::start(&[("auth.jwt.secret", SECRET)]).await;
    let mut client = connected(&server, &token("ann")).await;
    client.subscribe(json!({ "topic": "news" })).await;
    // The same key read again is the same key.
    server.reload(&[("auth.jwt.secret", SECRET), ("limits.burst", "100")]).await;
    publish(&server, &token("bob"), "news", "still here").await;
    assert_eq!(client.hear_type("event").await["data"], "still here");
    // So is a token that would be refused for what it says.
    server.reload(&[("auth.jwt.secret", OTHER)]).await;
    assert_eq!(client.end().await.1, 4502);
}

#[tokio::test]
async fn a_token_that_would_now_be_refused_is_revoked() {
    let server = Server::start(&[("auth.jwt.secret", SECRET)]).await;
    let mut client = connected(&server, &token("ann")).await;
    server.reload(&[("auth.jwt.secret", SECRET), ("auth.jwt.audience", "somebody-else")]).await;
    assert_eq!(client.end().await.1, 4502);
}

#[tokio::test]
async fn a_right_that_is_taken_away_ends_what_it_allowed_and_nothing_else() {
    let rules = |vault: &str| {
        json!([
            { "pattern": "vault", "subscribe": vault, "publish": vault, "presence": vault },
        ])
        .to_string()
    };
    let (open, shut) = (rules("authenticated"), rules("nobody"));
    let server = Server::start(&[("auth.jwt.secret", SECRET), ("namespaces", &open)]).await;
    let mut client = connected(&server, &token("ann")).await;
    let keeps = granted("bob", &json!({ "subscribe": ["vault"], "presence": ["vault"] }));
    let mut keeps = connected(&server, &keeps).await;
    for client in [&mut client, &mut keeps] {
        client.subscribe(json!({ "topic": "vault", "presence": true })).await;
        client.subscribe(json!({ "topic": "news" })).await;
    }
    let track = json!({ "type": "track", "topic": "vault" });
    assert_eq!(client.outcome(track).await, "tracked");
    assert_eq!(keeps.hear_type("presence").await["joins"][0]["subject"], "ann");

    server.reload(&[("auth.jwt.secret", SECRET), ("namespaces", &shut)]).await;
    let ended = client.hear_type("ended").await;
    assert_eq!((&ended["topic"], &ended["code"]), (&json!("vault"), &json!("forbidden")));
    assert_eq!(keeps.hear_type("presence").await["leaves"][0]["subject"], "ann");
    let again: Value = json!({ "type": "subscribe", "topic": "vault" });
    assert_eq!(client.outcome(again).await, "forbidden");
    publish(&server, &token("eve"), "news", "goes on").await;
    assert_eq!(client.hear_type("event").await["data"], "goes on");
    assert_eq!(keeps.hear_type("event").await["data"], "goes on");
}

#[tokio::test]
async fn an_api_key_has_the_grants_that_it_has_now() {
    let (key, hash) = api_key::generate().expect("random bytes");
    let keys =
        |grants: Value| json!([{ "name": "reader", "hash": hash, "grants": grants }]).to_string();
    let more = keys(json!({ "subscribe": ["private:a", "private:b"] }));
    let less = keys(json!({ "subscribe": ["private:b"] }));
    let server = Server::start(&[("auth.keys", &more)]).await;
    let mut client = connected(&server, key.expose()).await;
    for topic in ["a", "b"] {
        client.subscribe(json!({ "topic": topic, "private": true })).await;
    }
    server.reload(&[("auth.keys", &less)]).await;
    assert_eq!(client.hear_type("ended").await["topic"], "a");
    let subscribe = json!({ "type": "subscribe", "topic": "a", "private": true });
    assert_eq!(client.outcome(subscribe).await, "forbidden");
    client.subscribe(json!({ "topic": "b", "private": true })).await;
}

#[tokio::test]
async fn a_key_that_is_taken_out_of_a_key_set_ends_the_connections_of_its_tokens() {
    // A secret, and the same in base64url as a key set has it.
    const ONE: (&str, &str) = (
        "one secret of a set, thirty-two bytes",
        "b25lIHNlY3JldCBvZiBhIHNldCwgdGhpcnR5LXR3byBieXRlcw",
    );
    const TWO: (&str, &str) = (
        "two secret of a set, thirty-two bytes",
        "dHdvIHNlY3JldCBvZiBhIHNldCwgdGhpcnR5LXR3byBieXRlcw",
    );
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("keys.json");
    let write = |keys: &[(&str, &str)]| {
        let keys: Vec<_> = keys.iter().map(|(_, k)| json!({ "kty": "oct", "k": k })).collect();
        std::fs::write(&file, json!({ "keys": keys }).to_string()).expect("a file");
    };
    write(&[ONE, TWO]);
    let path = file.display().to_string();
    let keys = [("auth.jwt.jwks_file", &*path)];
    let server = Server::start(&keys).await;
    let signed = |secret| jwt(secret, &Mint { subject: Some("ann".into()), ..Mint::default() });
    let mut ends = connected(&server, &signed(ONE.0)).await;
    let mut stays = connected(&server, &signed(TWO.0)).await;
    write(&[TWO]);
    server.reload(&keys).await;
    assert_eq!(ends.end().await.1, 4502);
    assert_eq!(stays.outcome(json!({ "type": "ping" })).await, "pong");
}
