//! Rights to some rows of a table: each user its own, from both sources, on every transport,
//! whatever the client asks for.

use serde_json::{Value, json};

use crate::support::{
    Client, Database, SECRET, Server, client_with, database, encoded, get, granted, token,
};

/// Subjects that would be more than a value if they were read as a part of a filter.
const HOSTILE: [&str; 9] = [
    "*",
    "bob,owner=neq.x",
    "x),or=(owner.neq.y",
    "\"bob\"",
    "bob\"",
    "in.(ann,bob)",
    "bob' OR '1'='1",
    "{sub}",
    "null",
];

struct Scene {
    database: Database,
    server: Server,
    table: String,
}

impl Scene {
    /// A table of notes, of which everyone may see their own by a namespace.
    async fn new(source: &str) -> Self {
        let mut database = database().await;
        let name = format!("notes_{source}");
        database
            .sql(&format!(
                "CREATE TABLE {name} (id int PRIMARY KEY, owner text NOT NULL, body text); \
                 ALTER TABLE {name} REPLICA IDENTITY FULL; \
                 INSERT INTO {name} VALUES (1, 'ann', 'note a1'), (2, 'bob', 'note b1')"
            ))
            .await;
        let table = format!("public.{name}");
        let namespaces = json!([{
            "pattern": format!("table:{table}"),
            "subscribe": "authenticated",
            "rows": "owner=eq.{sub}",
        }]);
        let keys = [
            ("auth.jwt.secret", SECRET),
            ("namespaces", &*namespaces.to_string()),
            ("source", source),
        ];
        let server = Server::of(&database.url(), &keys).await;
        Self { database, server, table }
    }

    async fn sql(&mut self, what: &str) {
        let name = self.table.strip_prefix("public.").expect("it begins so");
        self.database.sql(&what.replace("notes", name)).await;
    }

    async fn connected(&self, path: &str, token: &str) -> Client {
        let path = format!("{path}?token={token}");
        client_with(self.server.address, &path, &[]).await.expect("an upgrade")
    }

    async fn native(&self, subject: &str) -> Client {
        let mut client = self.connected("/v1/ws", &token(subject)).await;
        client.hear_type("welcome").await;
        client
    }

    /// All that the history tells of rows, as text.
    async fn history(&self, token: &str) -> Vec<Value> {
        let path = format!("/v1/history?table={}&after=earliest&token={token}", self.table);
        let answer = get(self.server.address, &path).await.good().await;
        answer["events"].as_array().expect("a list").clone()
    }
}

/// What a change tells, shortly.
fn told(change: &Value) -> (&str, &Value, &Value, &Value) {
    assert_eq!(change["type"], "change", "{change}");
    let op = change["op"].as_str().expect("a word");
    (op, &change["key"]["id"], &change["record"]["body"], &change["old"]["body"])
}

async fn each_sees_its_own(source: &str) {
    let mut scene = Scene::new(source).await;
    let (mut ann, mut bob) = (scene.native("ann").await, scene.native("bob").await);
    for client in [&mut ann, &mut bob] {
        client.subscribe(json!({ "table": scene.table, "snapshot": true })).await;
    }
    for (client, body) in [(&mut ann, "note a1"), (&mut bob, "note b1")] {
        let rows = client.hear_type("rows").await;
        assert_eq!(rows["rows"].as_array().expect("rows").len(), 1, "{rows}");
        assert_eq!(rows["rows"][0]["body"], body);
    }
    scene.sql("INSERT INTO notes VALUES (3, 'bob', 'note b2'), (4, 'ann', 'note a2')").await;
    assert_eq!(told(&ann.hear().await), ("INSERT", &json!(4), &json!("note a2"), &Value::Null));
    assert_eq!(told(&bob.hear().await), ("INSERT", &json!(3), &json!("note b2"), &Value::Null));

    // A row that goes from one to the other is shown to neither as the other has it.
    scene.sql("UPDATE notes SET owner = 'bob', body = 'now of bob' WHERE id = 4").await;
    let left = ann.hear().await;
    assert_eq!(told(&left), ("UPDATE", &json!(4), &Value::Null, &json!("note a2")));
    assert_eq!((&left["move"], left.get("record")), (&json!("leave"), None));
    let came = bob.hear().await;
    assert_eq!(told(&came), ("UPDATE", &json!(4), &json!("now of bob"), &Value::Null));
    assert_eq!((&came["move"], came.get("old")), (&json!("enter"), None));

    scene.sql("DELETE FROM notes WHERE id IN (2, 3); DELETE FROM notes WHERE id = 1").await;
    assert_eq!(told(&ann.hear().await), ("DELETE", &json!(1), &Value::Null, &json!("note a1")));
    assert_eq!(told(&bob.hear().await).1, &json!(2));
    assert_eq!(told(&bob.hear().await).1, &json!(3));

    // The history has for each what was told, and nothing else.
    for (subject, foreign) in
        [("ann", ["note b1", "note b2", "of bob"]), ("bob", ["note a1", "note a2", "of ann"])]
    {
        let events = scene.history(&token(subject)).await;
        assert!(!events.is_empty());
        let text = Value::from(events).to_string();
        for foreign in foreign {
            assert!(!text.contains(foreign), "{subject} may not see {foreign}: {text}");
        }
    }
    asks_for_more(&mut scene).await;
    other_dialects_and_transports(&mut scene).await;
    hostile_subjects(&mut scene).await;
    by_a_grant(&mut scene).await;
}

/// Whatever a client asks for, it is asked within its own rows.
async fn asks_for_more(scene: &mut Scene) {
    scene.sql("TRUNCATE notes; INSERT INTO notes VALUES (10, 'ann', 'secret of ann')").await;
    let mut clients = Vec::new();
    for wish in [
        json!({ "filter": "owner=eq.ann" }),
        json!({ "filter": "or=(owner.eq.ann,id.gt.0)" }),
        json!({ "filter": "not.and=(owner.eq.bob,id.lt.0)" }),
        json!({ "filter": "owner=neq.x" }),
        json!({ "filter": "owner=isdistinct.bob" }),
        json!({ "columns": ["id", "body"] }),
        json!({ "columns": ["body"], "filter": "id=gt.0" }),
        json!({ "events": ["INSERT", "UPDATE", "DELETE"] }),
        json!({ "since": "earliest" }),
    ] {
        for snapshot in [false, true] {
            let mut wish = wish.clone();
            wish["table"] = json!(scene.table);
            if wish.get("since").is_none() {
                wish["snapshot"] = json!(snapshot);
            }
            let mut bob = scene.native("bob").await;
            bob.subscribe(wish.clone()).await;
            clients.push((wish, bob));
        }
    }
    scene.sql("UPDATE notes SET body = 'secret of ann, too' WHERE id = 10").await;
    scene.sql("INSERT INTO notes VALUES (11, 'bob', 'note of bob'); TRUNCATE notes").await;
    for (wish, bob) in &mut clients {
        loop {
            let frame = bob.hear().await;
            assert!(!frame.to_string().contains("secret"), "{wish}: {frame}");
            // Everyone is told that no row is left; those who want other operations the insert.
            let is_last = frame["op"] == "TRUNCATE" && frame["position"] != Value::Null;
            let is_own = frame["record"]["body"] == "note of bob";
            if is_own || (is_last && wish.get("since").is_none()) {
                break;
            }
        }
    }
    // A filter inside of the own rows is one as ever.
    let mut bob = scene.native("bob").await;
    bob.subscribe(json!({ "table": scene.table, "filter": "body=like.keep*" })).await;
    scene.sql("INSERT INTO notes VALUES (12, 'bob', 'drop'), (13, 'bob', 'keep')").await;
    assert_eq!(bob.hear_type("change").await["key"]["id"], 13);
}

async fn other_dialects_and_transports(scene: &mut Scene) {
    let ann = token("ann");
    let query = format!("table={}&token={ann}", scene.table);
    let address = scene.server.address;
    let mut stream = get(address, &format!("/v1/sse?{query}&filter=id%3Dgt.0")).await;
    let mut again = get(address, &format!("/v1/sse?{query}&since=earliest")).await;
    let mut fluxbase = scene.connected("/realtime", &ann).await;
    let (schema, name) = scene.table.split_once('.').expect("a schema");
    let subscribe = json!({ "type": "subscribe", "channel": "mine", "config": {
        "event": "*", "schema": schema, "table": name,
    }});
    fluxbase.say(&subscribe).await;
    fluxbase.hear_type("ack").await;
    scene
        .sql("INSERT INTO notes VALUES (20, 'bob', 'secret of bob'), (21, 'ann', 'for ann')")
        .await;
    assert_eq!(stream.message().await.json()["record"]["body"], "for ann");
    loop {
        let event = again.message().await.json();
        assert!(!event.to_string().contains("bob"), "{event}");
        if event["record"]["body"] == "for ann" {
            break;
        }
    }
    let frame = fluxbase.hear_type("postgres_changes").await;
    assert_eq!(frame["payload"]["record"]["body"], "for ann");
    let polled = get(address, &format!("/v1/poll?{query}&since=earliest&timeout=0")).await;
    let polled = polled.good().await.to_string();
    assert!(polled.contains("for ann") && !polled.contains("secret of bob"), "{polled}");
}

/// A subject is a value, whatever characters it has.
async fn hostile_subjects(scene: &mut Scene) {
    let mut clients = Vec::new();
    for subject in HOSTILE {
        let mut client = scene.native(subject).await;
        client.subscribe(json!({ "table": scene.table, "snapshot": true })).await;
        let rows = client.hear_type("rows").await;
        assert_eq!(rows["rows"], json!([]), "{subject} sees rows of others");
        clients.push((subject, client));
    }
    scene
        .sql("INSERT INTO notes VALUES (30, 'bob', 'secret'), (31, 'null', 'secret of null')")
        .await;
    for (number, subject) in HOSTILE.into_iter().enumerate() {
        let (id, owner) = (100 + number, subject.replace('\'', "''"));
        scene.sql(&format!("INSERT INTO notes VALUES ({id}, '{owner}', 'own')")).await;
    }
    for (number, (subject, client)) in clients.iter_mut().enumerate() {
        let mut change = client.hear_type("change").await;
        if *subject == "null" {
            assert_eq!(change["key"]["id"], 31);
            change = client.hear_type("change").await;
        }
        assert_eq!(change["key"]["id"], 100 + number, "{subject}");
        let events = scene.history(&encoded(&token(subject))).await;
        let foreign = |event: &&Value| event["record"]["owner"].as_str() != Some(subject);
        let mut inserted = events.iter().filter(|event| event["op"] == "INSERT");
        assert!(!inserted.any(|event| foreign(&event)), "{subject}: {events:?}");
    }
}

/// A grant of the token's own is written with the rows behind a question mark.
async fn by_a_grant(scene: &mut Scene) {
    let rights = |text: &str| json!({ "subscribe": [format!("table:{}?{text}", scene.table)] });
    let token = granted("ann", &rights("body=eq.shared"));
    let mut client = scene.connected("/v1/ws", &token).await;
    client.hear_type("welcome").await;
    client.subscribe(json!({ "table": scene.table })).await;
    scene.sql("INSERT INTO notes VALUES (40, 'bob', 'secret'), (41, 'bob', 'shared')").await;
    scene.sql("INSERT INTO notes VALUES (42, 'ann', 'own')").await;
    // What the namespace and the grant give adds up.
    assert_eq!(client.hear_type("change").await["key"]["id"], 41);
    assert_eq!(client.hear_type("change").await["key"]["id"], 42);
    // Somebody else's token on the same connection: other rows, so the subscription ends.
    let other = json!({ "type": "authenticate", "token": crate::support::token("bob") });
    client.say(&other).await;
    let ended = client.hear_type("ended").await;
    assert_eq!(ended["code"], "forbidden");
    scene.sql("INSERT INTO notes VALUES (43, 'ann', 'secret')").await;
    client.subscribe(json!({ "table": scene.table })).await;
    scene.sql("INSERT INTO notes VALUES (44, 'bob', 'own of bob')").await;
    assert_eq!(client.hear_type("change").await["key"]["id"], 44);
}

#[tokio::test]
async fn each_user_sees_its_own_rows_and_no_others_by_the_log() {
    each_sees_its_own("wal").await;
}

#[tokio::test]
async fn each_user_sees_its_own_rows_and_no_others_by_the_outbox() {
    each_sees_its_own("outbox").await;
}

/// PostgreSQL reads `007` as 7, and a subject is nobody but itself.
#[tokio::test]
async fn a_subject_that_is_another_way_to_write_a_number_has_no_rows() {
    let mut database = database().await;
    database.sql("CREATE TABLE numbered (id int PRIMARY KEY, owner int)").await;
    let namespaces = r#"[{"pattern": "table:public.numbered", "subscribe": "authenticated",
                          "rows": "owner=eq.{sub}"}]"#;
    let keys = [("auth.jwt.secret", SECRET), ("namespaces", namespaces)];
    let server = Server::of(&database.url(), &keys).await;
    for (subject, expected) in
        [("7", "subscribed"), ("007", "forbidden"), (" 7", "forbidden"), ("ann", "bad_field")]
    {
        let path = format!("/v1/ws?token={}", token(subject));
        let mut client = client_with(server.address, &path, &[]).await.expect("an upgrade");
        let subscribe = json!({ "type": "subscribe", "table": "public.numbered" });
        assert_eq!(client.outcome(subscribe).await, expected, "{subject:?}");
    }
}
