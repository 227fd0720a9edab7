//! What a client may do: namespaces, grants, API keys.

use http::Method;
use serde_json::{Value, json};
use tidewire_adapters::jwt::Mint;
use tidewire_adapters::{Rights, api_key};

use crate::support::{
    Client, SECRET, Server, client_with, database, get, get_with, granted, jwt, post_with, request,
    token,
};

const NAMESPACES: &str = r#"[
    {"pattern": "news:*", "subscribe": "anyone", "publish": "nobody", "presence": "nobody"},
    {"pattern": "room:*", "subscribe": "authenticated", "publish": "authenticated",
     "presence": "authenticated"},
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
    assert_eq!(asked(&listed, "app.example").await, 403, "origins narrow and never widen");
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
    // Who may subscribe may read what is remembered.
    let expected = ["subscribed", "forbidden", "forbidden", "forbidden", "200"];
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

/// A token without a subject is good for its grants alone, whatever they are.
#[tokio::test]
async fn a_token_without_a_subject_is_good_for_its_grants_alone() {
    let bearer = |rights: Option<Value>| {
        let rights = rights.map(|rights| Rights::from_json(&rights).expect("good rights"));
        jwt(SECRET, &Mint { rights, ..Mint::default() })
    };
    let (bare, empty) = (bearer(None), bearer(Some(json!({}))));
    let some = bearer(Some(json!({ "publish": ["other"] })));
    for (anonymous, token, other) in [
        ("false", &bare, ["forbidden", "forbidden", "forbidden", "forbidden", "403"]),
        ("false", &empty, ["forbidden", "forbidden", "forbidden", "forbidden", "403"]),
        ("false", &some, ["forbidden", "published", "forbidden", "forbidden", "403"]),
        ("true", &empty, ["subscribed", "published", "subscribed", "tracked", "200"]),
    ] {
        let server = server(anonymous).await;
        assert_eq!(tried(&server, Some(token), "other", false).await, other, "{anonymous}");
        let nothing = ["forbidden", "forbidden", "forbidden", "forbidden", "403"];
        assert_eq!(tried(&server, Some(token), "room:1", false).await, nothing, "{anonymous}");
        assert_eq!(tried(&server, Some(token), "other", true).await, nothing, "{anonymous}");
        for topic in ["notify=other", "table=public.other"] {
            let path = format!("/v1/history?{topic}&token={token}");
            assert_eq!(get(server.address, &path).await.status, 403, "{topic}");
        }
        let mut client = connected(&server, Some(token)).await;
        let refused = client.ask(json!({ "type": "subscribe", "topic": "room:1" })).await;
        let message = refused["message"].as_str().expect("a message");
        assert!(message.contains("\"sub\""), "what is missing: {message}");
        let notify = json!({ "type": "subscribe", "notify": "other" });
        assert_eq!(client.outcome(notify).await, "forbidden");
        let notify = json!({ "type": "publish", "notify": "other", "data": 1 });
        assert_eq!(client.outcome(notify).await, "forbidden");
    }
}

#[tokio::test]
async fn channels_and_tables_are_nobodys_until_a_rule_names_them() {
    let namespaces = r#"[{"pattern": "*", "subscribe": "anyone", "publish": "anyone"}]"#;
    let keys = [("auth.jwt.secret", SECRET), ("namespaces", namespaces)];
    let server = Server::start(&keys).await;
    let all = granted("ann", &json!({ "subscribe": ["*"], "publish": ["*"] }));
    for token in [token("ann"), all] {
        let mut client = connected(&server, Some(&token)).await;
        assert_eq!(
            client.outcome(json!({ "type": "subscribe", "topic": "a" })).await,
            "subscribed"
        );
        for what in [
            json!({ "type": "subscribe", "topic": "a", "private": true }),
            json!({ "type": "subscribe", "notify": "a" }),
            json!({ "type": "publish", "notify": "a", "data": 1 }),
            json!({ "type": "subscribe", "table": "public.a" }),
        ] {
            assert_eq!(client.outcome(what.clone()).await, "forbidden", "{what}");
        }
        let header = [("authorization", &*format!("Bearer {token}"))];
        let body = json!({ "channel": "a", "payload": "x" });
        assert_eq!(post_with(server.address, "/notify", &header, &body).await.status, 403);
        let events = get_with(server.address, "/events?channels=a", &header).await;
        assert_eq!(events.status, 403);
    }
    let admin = granted("root", &json!({ "admin": true }));
    let mut client = connected(&server, Some(&admin)).await;
    for own in ["tidewire", "tidewire_outbox"] {
        let subscribe = json!({ "type": "subscribe", "notify": own });
        assert_eq!(client.outcome(subscribe).await, "forbidden");
        let publish = json!({ "type": "publish", "notify": own, "data": 1 });
        assert_eq!(client.outcome(publish).await, "forbidden");
    }
}

/// What is remembered may be read by whom it would have been sent to, on every transport, and by
/// nobody else.
#[tokio::test]
async fn who_may_subscribe_may_begin_at_any_position_and_nobody_else() {
    let server = server("false").await;
    let admin = granted("root", &json!({ "admin": true }));
    let said = json!({ "topic": "vault", "private": true, "data": "kept" });
    let header = [("authorization", &*format!("Bearer {admin}"))];
    post_with(server.address, "/v1/publish", &header, &said).await.good().await;
    let reader = granted("ann", &json!({ "subscribe": ["private:vault"] }));
    let only_history = granted("ann", &json!({ "history": ["private:vault"] }));
    let stranger = granted("ann", &json!({ "publish": ["private:vault"] }));
    for (token, may_listen, may_read) in
        [(&reader, true, true), (&only_history, false, true), (&stranger, false, false)]
    {
        let query = format!("private=vault&since=earliest&token={token}");
        let status = |allowed| if allowed { 200 } else { 403 };
        let mut stream = get(server.address, &format!("/v1/sse?{query}")).await;
        assert_eq!(stream.status, status(may_listen));
        if may_listen {
            assert_eq!(stream.message().await.json()["data"], "kept");
        }
        let header = [("last-event-id", "earliest")];
        let path = format!("/v1/sse?private=vault&token={token}");
        let stream = get_with(server.address, &path, &header).await;
        assert_eq!(stream.status, status(may_listen));
        let polled = get(server.address, &format!("/v1/poll?{query}&timeout=0")).await;
        assert_eq!(polled.status, status(may_listen));
        if may_listen {
            assert_eq!(polled.json().await["events"][0]["data"], "kept");
        }
        let mut client = connected(&server, Some(token)).await;
        let subscribe = json!({
            "type": "subscribe", "topic": "vault", "private": true, "since": "earliest",
        });
        let expected = if may_listen { "subscribed" } else { "forbidden" };
        assert_eq!(client.outcome(subscribe).await, expected);
        if may_listen {
            assert_eq!(client.hear_type("event").await["data"], "kept");
        }
        let path = format!("/v1/ws?{query}");
        let mut client = client_with(server.address, &path, &[]).await.expect("an upgrade");
        client.hear_type("welcome").await;
        let first = client.hear().await;
        let expected = if may_listen { "subscribed" } else { "error" };
        assert_eq!(first["type"], expected, "{first}");
        let path = format!("/v1/history?private=vault&after=earliest&token={token}");
        assert_eq!(get(server.address, &path).await.status, status(may_read));
    }
}

#[tokio::test]
async fn a_topic_of_each_users_own_is_open_to_that_user_alone() {
    let own = r#"[{"pattern": "private:user:{sub}", "subscribe": "authenticated",
                   "publish": "authenticated", "presence": "authenticated"},
                  {"pattern": "user:{sub}", "subscribe": "authenticated",
                   "publish": "authenticated", "presence": "authenticated"}]"#;
    let server = Server::start(&[("auth.jwt.secret", SECRET), ("namespaces", own)]).await;
    let expected = ["subscribed", "published", "subscribed", "tracked", "200"];
    for private in [true, false] {
        assert_eq!(tried(&server, Some(&token("ann")), "user:ann", private).await, expected);
    }
    let nothing = ["forbidden", "forbidden", "forbidden", "forbidden", "403"];
    for hostile in ["bob", "*", "a*", "ann:x", "{sub}", "user:ann"] {
        let token = token(hostile);
        for private in [true, false] {
            let found = tried(&server, Some(&token), "user:ann", private).await;
            assert_eq!(found, nothing, "{hostile}");
        }
    }
}

#[tokio::test]
async fn who_is_seen_is_shown_with_the_verified_subject_and_leaves_with_it() {
    let server = Server::start(&[("auth.jwt.secret", SECRET)]).await;
    let mut watcher = connected(&server, Some(&token("eve"))).await;
    watcher.subscribe(json!({ "topic": "room", "presence": true })).await;
    let mut client = connected(&server, Some(&token("mallory"))).await;
    client.subscribe(json!({ "topic": "room" })).await;
    // Anyone may claim any key; whose token it was is told beside it.
    let track =
        json!({ "type": "track", "topic": "room", "key": "ann", "meta": {"subject": "ann"} });
    assert_eq!(client.outcome(track.clone()).await, "tracked");
    let joined = watcher.hear_type("presence").await;
    let member = &joined["joins"][0];
    assert_eq!((&member["key"], &member["subject"]), (&json!("ann"), &json!("mallory")));
    let path = format!("/v1/presence?topic=room&token={}", token("eve"));
    let members = get(server.address, &path).await.good().await;
    assert_eq!(members["members"][0]["subject"], "mallory");
    // The same person with a newer token stays.
    let newer = json!({ "type": "authenticate", "token": token("mallory") });
    assert_eq!(client.outcome(newer).await, "authenticated");
    let other = json!({ "type": "authenticate", "token": token("bob") });
    assert_eq!(client.outcome(other).await, "authenticated");
    let left = watcher.hear_type("presence").await;
    assert_eq!((&left["leaves"][0]["subject"], &left["joins"]), (&json!("mallory"), &json!([])));
    assert_eq!(client.outcome(track).await, "tracked");
    assert_eq!(watcher.hear_type("presence").await["joins"][0]["subject"], "bob");
}

#[tokio::test]
async fn in_the_alle_dialect_channels_and_their_history_follow_the_same_rules() {
    let mut database = database().await;
    let server = Server::of(&database.url(), &[("auth.jwt.secret", SECRET)]).await;
    let reader = granted("ann", &json!({ "subscribe": ["notify:alle_rights"] }));
    let stranger = granted("ann", &json!({ "subscribe": ["*", "private:*", "table:*"] }));
    for (token, allowed) in [(&reader, true), (&stranger, false)] {
        let status = if allowed { 200 } else { 403 };
        let path = format!("/events?channels=alle_rights&token={token}");
        let mut stream = get(server.address, &format!("{path}&since=earliest")).await;
        assert_eq!(stream.status, status);
        let header = [("last-event-id", "earliest")];
        assert_eq!(get_with(server.address, &path, &header).await.status, status);
        let path = format!("/?token={token}");
        let mut client = client_with(server.address, &path, &[]).await.expect("an upgrade");
        client.say(&json!({ "type": "subscribe", "channel": "alle_rights" })).await;
        let answer = client.hear().await;
        assert_eq!(answer["type"], if allowed { "subscribed" } else { "error" }, "{answer}");
        if allowed {
            database.notify("alle_rights", "heard").await;
            assert!(stream.message().await.text().contains("heard"));
        }
    }
}
