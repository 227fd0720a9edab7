//! Fluxbase's paths beside its WebSocket.

use serde_json::json;

use crate::support::{SECRET, Server, client, client_with, encoded, get, get_with, granted, token};

#[tokio::test]
async fn the_counts_have_exactly_the_documented_keys_and_need_no_token() {
    let secret = [("auth.jwt.secret", SECRET)];
    let server = Server::start(&secret).await;
    let counts = get(server.address, "/api/realtime/stats?any=parameter").await.good().await;
    assert_eq!(counts, json!({"connections": 0, "channels": 0}));
}

#[tokio::test]
async fn connections_and_topics_are_counted() {
    let server = Server::start(&[]).await;
    let mut client = client(server.address).await;
    client.subscribe(json!({"topic": "room:1"})).await;
    let counts = get(server.address, "/api/realtime/stats").await.good().await;
    assert_eq!(counts, json!({"connections": 1, "channels": 1}));
}

#[tokio::test]
async fn the_newer_list_shows_who_is_connected_from_where_and_since_when() {
    let server = Server::start(&[]).await;
    let path = "/api/v1/realtime/stats";
    let nobody = json!({"total_connections": 0, "connections": [], "limit": 25, "offset": 0});
    assert_eq!(get(server.address, path).await.good().await, nobody);

    let _first = client(server.address).await;
    let _second = client_with(server.address, "/realtime", &[]).await.expect("an upgrade");
    let _third = get(server.address, "/v1/sse?topic=a").await;
    let list = get(server.address, path).await.good().await;
    assert_eq!(
        (&list["total_connections"], list["connections"].as_array().unwrap().len()),
        (&json!(3), 3)
    );
    let keys = ["connected_at", "email", "id", "remote_addr", "user_id"];
    for one in list["connections"].as_array().unwrap() {
        assert_eq!(one.as_object().unwrap().keys().collect::<Vec<_>>(), keys);
        assert!(one["remote_addr"].as_str().unwrap().starts_with("127.0.0.1:"), "{one}");
        assert!(one["connected_at"].as_str().unwrap().ends_with('Z'), "{one}");
        assert!(one["user_id"].is_null() && one["email"].is_null(), "{one}");
    }
    let odd = get(server.address, &format!("{path}?limit=1000&offset=1&any=1")).await.good().await;
    assert_eq!((&odd["limit"], &odd["offset"]), (&json!(100), &json!(1)));
    assert_eq!(odd["connections"], json!([list["connections"][1], list["connections"][2]]));
    let odd = get(server.address, &format!("{path}?limit=-5&offset=x")).await.good().await;
    assert_eq!((&odd["limit"], &odd["offset"]), (&json!(25), &json!(0)));
    let address = list["connections"][1]["remote_addr"].as_str().unwrap();
    let search = get(server.address, &format!("{path}?search={}", encoded(address))).await;
    let search = search.good().await;
    assert_eq!(
        (&search["total_connections"], &search["connections"][0]),
        (&json!(1), &list["connections"][1])
    );
}

#[tokio::test]
async fn the_newer_list_is_for_administrators_where_there_is_authentication() {
    let server = Server::start(&[("auth.jwt.secret", SECRET)]).await;
    let path = "/api/v1/realtime/stats";
    let answer = get(server.address, path).await;
    assert_eq!((answer.status, answer.header("www-authenticate")), (401, "Bearer"));
    assert!(answer.json().await["error"].is_string());
    let answer = get(server.address, &format!("{path}?token=nonsense")).await;
    assert_eq!(answer.status, 401);
    assert_eq!(answer.json().await, json!({"error": "Invalid or expired token"}));
    let answer = get(server.address, &format!("{path}?token={}", token("ann"))).await;
    assert_eq!(answer.status, 403);

    let ann = format!("/realtime?token={}", token("ann"));
    let _ann = client_with(server.address, &ann, &[]).await.expect("an upgrade");
    let mut bob = client_with(server.address, "/realtime", &[]).await.expect("an upgrade");
    bob.say(&json!({"type": "access_token", "token": token("bob")})).await;
    assert_eq!(bob.hear().await["type"], "ack");
    let admin = format!("Bearer {}", granted("root", &json!({"admin": true})));
    for (search, users) in [("", vec!["ann", "bob"]), ("?search=BO", vec!["bob"])] {
        let headers = [("authorization", &*admin)];
        let list = get_with(server.address, &format!("{path}{search}"), &headers).await;
        let list = list.good().await;
        let found = list["connections"].as_array().unwrap().iter();
        let mut found: Vec<_> = found.map(|one| one["user_id"].as_str().unwrap()).collect();
        found.sort_unstable();
        assert_eq!(found, users);
    }
}

#[tokio::test]
async fn the_example_page_loads_nothing_from_elsewhere() {
    let server = Server::start(&[]).await;
    let page = get(server.address, "/examples/fluxbase").await;
    assert!(page.header("content-security-policy").contains("default-src 'self'"));
    let page = page.rest().await;
    assert!(!page.contains("://"), "an address of another server");
    let parts = page.split(['"']).filter(|part| part.starts_with("/examples/"));
    let parts: Vec<_> = parts.collect();
    assert!(parts.len() >= 4, "{parts:?}");
    for part in parts {
        assert_eq!(get(server.address, part).await.status, 200, "{part}");
    }
}
