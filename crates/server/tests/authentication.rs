//! Who a client is: tokens in every place, their end, and a function in the database.

use std::net::SocketAddr;

use serde_json::json;

use crate::support::{
    Client, SECRET, Server, client_with, database, get, get_with, post, post_with, short_lived,
    token,
};

async fn with_jwt(keys: &[(&'static str, &str)]) -> Server {
    let mut all = vec![("auth.jwt.secret", SECRET)];
    all.extend_from_slice(keys);
    Server::start(&all).await
}

/// Connects in the native dialect and subscribes to a topic: the answer's type or code.
async fn outcome(address: SocketAddr, path: &str, headers: &[(&'static str, &str)]) -> String {
    match client_with(address, path, headers).await {
        Err(status) => status.to_string(),
        Ok(mut client) => {
            client.hear_type("welcome").await;
            client.outcome(json!({ "type": "subscribe", "topic": "room" })).await
        }
    }
}

#[tokio::test]
async fn a_token_is_taken_from_every_place_where_it_may_be() {
    let server = with_jwt(&[]).await;
    let address = server.address;
    let (good, bad) = (token("ann"), format!("{}x", token("ann")));
    for (token, ws, http) in [(&good, "subscribed", 200), (&bad, "401", 401)] {
        let bearer = format!("Bearer {token}");
        let offered = format!("bearer, {token}");
        let header = [("authorization", &*bearer)];
        assert_eq!(outcome(address, "/v1/ws", &header).await, ws);
        let protocol = [("sec-websocket-protocol", &*offered)];
        assert_eq!(outcome(address, "/v1/ws", &protocol).await, ws);
        for name in ["token", "access_token"] {
            assert_eq!(outcome(address, &format!("/v1/ws?{name}={token}"), &[]).await, ws);
            for path in [
                "/v1/sse?topic=room",
                "/v1/poll?topic=room&timeout=0",
                "/v1/history?topic=room",
                "/v1/presence?topic=room",
                "/v1/stats?",
            ] {
                assert_eq!(get(address, &format!("{path}&{name}={token}")).await.status, http);
                assert_eq!(get_with(address, path, &header).await.status, http, "{path}");
            }
        }
        let body = json!({ "topic": "room", "data": 1 });
        assert_eq!(post_with(address, "/v1/publish", &header, &body).await.status, http);
    }
}

#[tokio::test]
async fn without_a_token_nothing_may_be_done() {
    let server = with_jwt(&[]).await;
    let address = server.address;
    for path in [
        "/v1/sse?topic=room",
        "/v1/poll?topic=room&timeout=0",
        "/v1/history?topic=room",
        "/v1/presence?topic=room",
        "/v1/stats",
    ] {
        let answer = get(address, path).await;
        assert_eq!(answer.header("www-authenticate"), "Bearer", "{path}");
        assert_eq!(answer.refused().await, (401, "unauthorized".to_owned()), "{path}");
    }
    let body = json!({ "topic": "room", "data": 1 });
    let answer = post(address, "/v1/publish", &body).await.refused().await;
    assert_eq!(answer, (401, "unauthorized".to_owned()));
    let body = json!({ "channel": "room", "payload": "x" });
    let answer = post(address, "/notify", &body).await;
    assert_eq!(answer.status, 401);
    let told = json!({ "success": false, "error": "Authentication required" });
    assert_eq!(answer.json().await, told);
    assert_eq!(outcome(address, "/v1/ws", &[]).await, "unauthorized");
    for path in ["/health", "/ready", "/metrics", "/v1/openapi.json", "/"] {
        assert_eq!(get(address, path).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn a_client_may_show_its_token_on_the_open_connection_but_not_for_ever() {
    let server = with_jwt(&[("auth.timeout", "1s")]).await;
    let mut silent = client_with(server.address, "/v1/ws", &[]).await.expect("an upgrade");
    let mut client = client_with(server.address, "/v1/ws", &[]).await.expect("an upgrade");
    assert_eq!(client.hear().await["subject"], json!(null));
    let wrong = json!({ "type": "authenticate", "token": "a.b.c" });
    assert_eq!(client.outcome(wrong).await, "token_invalid");
    let answer = client.ask(json!({ "type": "authenticate", "token": token("ann") })).await;
    assert_eq!((&answer["type"], &answer["subject"]), (&json!("authenticated"), &json!("ann")));
    assert!(answer["expires_at"].is_u64());
    client.subscribe(json!({ "topic": "room" })).await;

    let mut alle = client_with(server.address, "/", &[]).await.expect("an upgrade");
    alle.say(&json!({ "type": "subscribe", "channel": "c" })).await;
    assert_eq!(alle.hear().await["message"], "Authentication required");
    alle.say(&json!({ "type": "authenticate", "token": "a.b.c" })).await;
    assert_eq!(alle.hear().await["message"], "Authentication failed");
    alle.say(&json!({ "type": "authenticate", "token": token("ann") })).await;
    assert_eq!(alle.hear().await, json!({ "type": "authenticated", "user_id": "ann" }));

    let (_, code, name) = silent.end().await;
    assert_eq!((code, &*name), (4501, "unauthorized"));
    assert_eq!(client.outcome(json!({ "type": "ping" })).await, "pong");
}

#[tokio::test]
async fn a_connection_ends_with_its_token_unless_a_newer_one_is_shown() {
    let server = with_jwt(&[("auth.jwt.leeway", "0s")]).await;
    let token = short_lived("ann", 2);
    let path = format!("/v1/ws?token={token}");
    let mut clients: Vec<Client> = Vec::new();
    for _ in 0..2 {
        let mut client = client_with(server.address, &path, &[]).await.expect("an upgrade");
        client.hear_type("welcome").await;
        client.subscribe(json!({ "topic": "room" })).await;
        clients.push(client);
    }
    let stream_path = format!("/v1/sse?topic=room&token={token}");
    let mut stream = get(server.address, &stream_path).await;
    let [stays, leaves] = &mut clients[..] else { panic!("there are two") };
    let newer = json!({ "type": "authenticate", "token": short_lived("ann", 600) });
    assert_eq!(stays.outcome(newer).await, "authenticated");

    let (last, code, name) = leaves.end().await;
    assert_eq!((code, &*name), (4500, "token_expired"));
    assert_eq!(last["retry"], false);
    assert_eq!(stream.named("close").await.json()["name"], "token_expired");
    while stream.next_sse().await.is_some() {}
    let again = get(server.address, &stream_path).await.refused().await;
    assert_eq!(again, (401, "token_expired".to_owned()));
    assert_eq!(client_with(server.address, &path, &[]).await.err(), Some(401));

    let said = json!({ "type": "publish", "topic": "room", "data": "still here" });
    stays.say(&said).await;
    assert_eq!(stays.hear_type("event").await["data"], "still here");
}

#[tokio::test]
async fn a_function_in_the_database_knows_who_is_who() {
    let mut database = database().await;
    database
        .sql(
            "CREATE SCHEMA app; CREATE TABLE app.sessions (secret text, name text, ends timestamptz);
             INSERT INTO app.sessions VALUES ('good', 'ann', 'infinity'), ('old', 'bob', '-infinity');
             CREATE FUNCTION app.authenticate(token text)
             RETURNS TABLE (user_id text, authenticated boolean) LANGUAGE plpgsql AS $$ BEGIN
               IF token = 'boom' THEN RAISE EXCEPTION 'no'; END IF;
               RETURN QUERY SELECT name, ends > now() FROM app.sessions WHERE secret = token;
             END $$",
        )
        .await;
    let keys = [("auth.function", "app.authenticate")];
    let server = Server::of(&database.url(), &keys).await;
    let address = server.address;
    for token in ["old", "unknown", "boom", "'; DROP TABLE app.sessions; --"] {
        let bearer = format!("Bearer {token}");
        let answer = get_with(address, "/v1/stats", &[("authorization", &bearer)]).await;
        assert_eq!(answer.refused().await, (401, "token_invalid".to_owned()), "{token}");
    }
    let header = [("authorization", "Bearer good")];
    let mut client = client_with(address, "/v1/ws", &header).await.expect("an upgrade");
    assert_eq!(client.hear().await["subject"], "ann");
    client.subscribe(json!({ "notify": "known" })).await;

    let mut alle = client_with(address, "/", &[]).await.expect("an upgrade");
    alle.say(&json!({ "type": "authenticate", "token": "good" })).await;
    assert_eq!(alle.hear().await, json!({ "type": "authenticated", "user_id": "ann" }));

    let body = json!({ "channel": "known", "payload": "hello" });
    assert_eq!(post(address, "/notify", &body).await.status, 401);
    let said = post_with(address, "/notify", &header, &body).await.good().await;
    assert_eq!(said, json!({ "success": true }));
    assert_eq!(client.hear_type("event").await["data"], "hello");
    let streamed = get(address, "/events?channels=known").await;
    assert_eq!((streamed.status, &*streamed.rest().await), (401, "Authentication required"));
    assert_eq!(get(address, "/events?channels=known&token=good").await.status, 200);
    assert_eq!(get(address, "/events?channels=known&token=old").await.status, 401);
}
