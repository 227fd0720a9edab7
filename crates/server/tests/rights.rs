//! What a client may do: namespaces, grants, API keys.

use http::Method;
use serde_json::{Value, json};
use tidewire_adapters::api_key;

use crate::support::{
    Client, SECRET, Server, client_with, get, get_with, granted, post_with, request, token,
};

const NAMESPACES: &str = r#"[
    {"pattern": "news:*", "subscribe": "anyone", "publish": "nobody", "presence": "nobody"},
    {"pattern": "room:*"},
    {"pattern": "wall:*", "subscribe": "anyone", "publish": "anyone", "presence": "anyone"},
    {"pattern": "notify:audit", "subscribe": "nobody", "publish": "nobody"}
]"#;

async fn server(anonymous: &str) -> Server {
    let keys =
        [("auth.jwt.secret", SECRET), ("auth.anonymous", anonymous), ("namespaces", NAMESPACES)];
    Server::start(&keys).await
}

async fn connected(server: &Server, token: Option<&str>) -> Client {
    let path = token.map_or("/v1/ws".to_owned(), |token| format!("/v1/ws?token={token}"));
    let mut client = client_with(server.address, &path, &[]).await.expect("an upgrade");
    client.hear_type("welcome").await;
    client
}

/// Tries everything on a topic: subscribe, publish, see who is there, be seen, read back.
async fn tried(server: &Server, token: Option<&str>, topic: &str, private: bool) -> [String; 5] {
    let mut client = connected(server, token).await;
    let about = |mut request: Value| {
        request["topic"] = json!(topic);
        if private {
            request["private"] = json!(true);
        }
        request
    };
    let subscribe = client.outcome(about(json!({ "type": "subscribe" }))).await;
    let publish = client.outcome(about(json!({ "type": "publish", "data": 1 }))).await;
    let track = client.outcome(about(json!({ "type": "track" }))).await;
    let with_presence = about(json!({ "type": "subscribe", "presence": true }));
    let presence = client.outcome(with_presence).await;
    let kind = if private { "private" } else { "topic" };
    let token = token.map_or(String::new(), |token| format!("&token={token}"));
    let http = |path: &str| format!("{path}?{kind}={topic}{token}");
    let history = get(server.address, &http("/v1/history")).await.status.to_string();
    let members = get(server.address, &http("/v1/presence")).await.status;
    assert_eq!(members == 200, presence == "subscribed", "{presence} but {members}");
    let streamed = get(server.address, &http("/v1/sse")).await.status;
    assert_eq!(streamed == 200, subscribe == "subscribed", "{subscribe} but {streamed}");
    [subscribe, publish, presence, track, history]
}

#[tokio::test]
async fn without_authentication_only_loopback_hosts_are_answered() {
    let asked = async |server: &Server, host: &str| {
        let origin = format!("http://{host}");
        let headers = [("host", host), ("origin", &*origin)];
        get_with(server.address, "/v1/history?topic=a", &headers).await.status
    };
    let open = Server::start(&[]).await;
    assert_eq!(asked(&open, "localhost:8080").await, 200);
    assert_eq!(asked(&open, "evil.example").await, 403);
    let listed = Server::start(&[("origins", "https://app.example")]).await;
    assert_eq!(asked(&listed, "app.example").await, 200);
    let guarded = Server::start(&[("auth.jwt.secret", SECRET), ("auth.anonymous", "true")]).await;
    assert_eq!(asked(&guarded, "app.example").await, 200);
}

#[tokio::test]
async fn namespaces_say_who_may_do_what() {
    let server = server("true").await;
    let ann = token("ann");
    let (no_token, forbidden) = ("unauthorized", "forbidden");
    for (topic, private, who, expected) in [
        ("news:1", false, None, ["subscribed", no_token, no_token, no_token, "200"]),
        ("news:1", false, Some(&*ann), ["subscribed", forbidden, forbidden, forbidden, "200"]),
        ("room:1", false, None, [no_token, no_token, no_token, no_token, "401"]),
        ("room:1", false, Some(&*ann), ["subscribed", "published", "subscribed", "tracked", "200"]),
        ("wall:1", false, None, ["subscribed", "published", "subscribed", "tracked", "200"]),
        // What no namespace names is for every client that is let in; private topics are not.
        ("other", false, None, ["subscribed", "published", "subscribed", "tracked", "200"]),
        ("other", true, Some(&*ann), [forbidden, forbidden, forbidden, forbidden, "403"]),
    ] {
        assert_eq!(tried(&server, who, topic, private).await, expected, "{topic} {who:?}");
    }
}

#[tokio::test]
async fn anonymous_clients_are_off_where_authentication_is_configured() {
    let server = server("false").await;
    let expected = ["unauthorized", "unauthorized", "unauthorized", "unauthorized", "401"];
    assert_eq!(tried(&server, None, "wall:1", false).await, expected);
}

#[tokio::test]
async fn a_tokens_own_grants_come_on_top() {
    let server = server("false").await;
    let grants = json!({ "publish": ["news:*"], "subscribe": ["private:vault"] });
    let editor = granted("ann", &grants);
    let expected = ["subscribed", "published", "forbidden", "forbidden", "200"];
    assert_eq!(tried(&server, Some(&editor), "news:1", false).await, expected);
    let expected = ["subscribed", "forbidden", "forbidden", "forbidden", "403"];
    assert_eq!(tried(&server, Some(&editor), "vault", true).await, expected);
    let admin = granted("root", &json!({ "admin": true }));
    let expected = ["subscribed", "published", "subscribed", "tracked", "200"];
    assert_eq!(tried(&server, Some(&admin), "vault", true).await, expected);
}

#[tokio::test]
async fn a_newer_token_with_fewer_rights_ends_what_it_does_not_allow() {
    let server = server("false").await;
    let vault = granted("ann", &json!({ "subscribe": ["private:vault"] }));
    let mut client = connected(&server, Some(&vault)).await;
    client.subscribe(json!({ "topic": "vault", "private": true })).await;
    client.subscribe(json!({ "topic": "room:1" })).await;
    client.say(&json!({ "type": "authenticate", "token": token("ann") })).await;
    let ended = client.hear_type("ended").await;
    assert_eq!((&ended["topic"], &ended["code"]), (&json!("vault"), &json!("forbidden")));
    client.say(&json!({ "type": "publish", "topic": "room:1", "data": 1 })).await;
    assert_eq!(client.hear_type("event").await["topic"], "room:1");
}

#[tokio::test]
async fn an_api_key_publishes_what_its_grants_allow() {
    let (key, hash) = api_key::generate().expect("random bytes");
    let (stranger, _) = api_key::generate().expect("random bytes");
    let keys = format!(
        r#"[{{"name": "importer", "hash": "{hash}", "grants": {{"publish": ["news:*"]}}}}]"#
    );
    let server = Server::start(&[("auth.keys", &keys), ("namespaces", NAMESPACES)]).await;
    let bearer = format!("Bearer {}", key.expose());
    let header = [("authorization", &*bearer)];
    for (topic, status) in [("news:1", 200), ("room:1", 200), ("news", 200)] {
        let body = json!({ "topic": topic, "data": 1 });
        let answer = post_with(server.address, "/v1/publish", &header, &body).await;
        assert_eq!(answer.status, status, "{topic}");
    }
    let body = json!({ "topic": "vault", "private": true, "data": 1 });
    let answer = post_with(server.address, "/v1/publish", &header, &body).await;
    assert_eq!(answer.refused().await, (403, "forbidden".to_owned()));
    // In a batch each publication is judged by itself.
    let batch = json!([{ "topic": "news:1", "data": 1 }, { "notify": "audit", "data": "x" }]);
    let answer = post_with(server.address, "/v1/publish", &header, &batch).await.good().await;
    assert!(answer["results"][0]["position"].is_string());
    assert_eq!(answer["results"][1]["error"]["code"], "forbidden");
    // The Alle door asks the same.
    let body = json!({ "channel": "audit", "payload": "x" });
    let answer = post_with(server.address, "/notify", &header, &body).await;
    assert_eq!((answer.status, &answer.json().await["success"]), (403, &json!(false)));

    let bearer = format!("Bearer {}", stranger.expose());
    let header = [("authorization", &*bearer)];
    let path = "/v1/publish";
    let answer = request(server.address, Method::POST, path, &header, "{}").await;
    assert_eq!(answer.refused().await, (401, "token_invalid".to_owned()));
}
