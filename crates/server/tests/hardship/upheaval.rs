//! Tables, publications, slots and rights that change while they are used.

use nix::sys::signal::Signal;
use serde_json::json;
use tidewire_postgres::private_cluster::Options;

use super::account::Listener;
use super::{Heard, Scene};
use crate::support::{Client, client, get, until};

const TABLE: &str = "CREATE TABLE moved (id bigint PRIMARY KEY, colour text)";

async fn insert(scene: &mut Scene, id: u64) {
    scene.sql(&format!("INSERT INTO moved (id) VALUES ({id})")).await;
}

/// Somebody who listens to `public.moved` and has heard row 1.
async fn listener(scene: &mut Scene) -> Listener {
    let mut listener = Listener::by_socket(scene.address, "public.moved").await;
    insert(scene, 1).await;
    assert_eq!(listener.next().await, Heard::Row(1));
    listener
}

/// Waits until there is a publication, and the table in it.
async fn is_published(scene: &mut Scene) {
    const MEMBERS: &str = "SELECT count(*) FROM pg_publication_tables WHERE tablename = 'moved'";
    until("a table that is published", async || scene.sql(MEMBERS).await == "1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publication_that_is_dropped_is_made_again_and_told_as_a_gap() {
    let mut scene = Scene::with(Options::default(), TABLE, &[]).await;
    let mut listener = listener(&mut scene).await;
    let name = scene.sql("SELECT pubname FROM pg_publication").await;
    scene.sql(&format!("DROP PUBLICATION {name}")).await;
    assert_eq!(listener.next().await, Heard::gap("connection_lost"));
    is_published(&mut scene).await;
    scene.reads().await;
    insert(&mut scene, 2).await;
    listener.hears(2).await;
    assert!(listener.gaps.iter().all(|reason| reason == "connection_lost"));
    assert!(scene.metric("tidewire_wal_reconnects_total").await > 0);
    assert!(failed(&scene, "publication_lost").await > 0);
}

async fn failed(scene: &Scene, why: &str) -> u64 {
    scene.metric(&format!("tidewire_wal_setbacks_total{{name=\"{why}\"}}")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_is_dropped_and_made_again_is_a_gap_and_goes_on() {
    let mut scene = Scene::with(Options::default(), TABLE, &[]).await;
    let mut listener = listener(&mut scene).await;
    let again = "CREATE TABLE moved (id bigint PRIMARY KEY, colour text, more int)";
    scene.sql(&format!("DROP TABLE moved; {again}")).await;
    assert_eq!(listener.next().await, Heard::gap("connection_lost"));
    is_published(&mut scene).await;
    // Who comes anew is answered once it flows.
    let mut other = client(scene.address).await;
    other.subscribe(json!({ "table": "public.moved" })).await;
    scene.sql("INSERT INTO moved VALUES (2, 'red', 7)").await;
    let record = &other.hear_type("change").await["record"];
    assert_eq!(*record, json!({ "id": 2, "colour": "red", "more": 7 }));
    listener.hears(2).await;
    assert_eq!(listener.rows, 2);
    // One that does not come back is refused, by name.
    scene.sql("DROP TABLE moved").await;
    listener.next().await;
    let wish = json!({ "type": "subscribe", "table": "public.moved" });
    let answer = client(scene.address).await.ask(wish).await;
    assert_eq!(answer["type"], "error", "{answer}");
    assert!(answer["message"].as_str().is_some_and(|said| said.contains("moved")), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_column_that_is_renamed_ends_the_filters_on_it_and_nothing_else() {
    let mut scene = Scene::with(Options::default(), TABLE, &[]).await;
    let mut whole = client(scene.address).await;
    whole.subscribe(json!({ "table": "public.moved" })).await;
    let mut filtered = client(scene.address).await;
    filtered.subscribe(json!({ "table": "public.moved", "filter": "colour=eq.red" })).await;
    filtered.subscribe(json!({ "topic": "room" })).await;
    scene.sql("INSERT INTO moved VALUES (1, 'red')").await;
    assert_eq!(filtered.hear_type("change").await["record"]["colour"], "red");
    scene.sql("ALTER TABLE moved RENAME colour TO hue").await;
    scene.sql("INSERT INTO moved VALUES (2, 'red')").await;
    let ended = filtered.hear_type("ended").await;
    assert!(ended["message"].as_str().is_some_and(|said| said.contains("colour")), "{ended}");
    assert_eq!(filtered.outcome(json!({ "type": "ping" })).await, "pong");
    let said = json!({ "type": "publish", "topic": "room", "data": 1 });
    assert_eq!(filtered.outcome(said).await, "published");
    assert_eq!(colours(&mut whole).await, json!({ "id": 1, "colour": "red" }));
    assert_eq!(colours(&mut whole).await, json!({ "id": 2, "hue": "red" }));
    // The old name is refused as soon as the table was looked at again; the new one is right.
    let poll = "/v1/poll?table=public.moved&timeout=0&filter=colour%3Deq.red";
    until("a filter that is refused", async || get(scene.address, poll).await.status == 400).await;
    let (_, code) = get(scene.address, poll).await.refused().await;
    assert_eq!(code, "bad_field");
    filtered.subscribe(json!({ "table": "public.moved", "filter": "hue=eq.red" })).await;
}

async fn colours(client: &mut Client) -> serde_json::Value {
    client.hear_type("change").await["record"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_postgresql_gave_up_is_made_again_and_told_as_a_gap() {
    let options = Options::default()
        .setting("max_slot_wal_keep_size", "1MB")
        .setting("min_wal_size", "32MB")
        .setting("max_wal_size", "32MB");
    let keys = [("TIDEWIRE_WAL_SLOT", "given_up")];
    let sql = format!("{TABLE}; CREATE TABLE noise (t text)");
    let mut scene = Scene::with(options, &sql, &keys).await;
    let mut listener = listener(&mut scene).await;
    scene.program.signal(Signal::SIGSTOP);
    insert(&mut scene, 2).await;
    until("a slot that is lost", async || {
        scene.sql("INSERT INTO noise SELECT repeat('x', 1000) FROM generate_series(1, 9000)").await;
        scene.sql("SELECT pg_switch_wal(); CHECKPOINT").await;
        let status = "SELECT wal_status FROM pg_replication_slots WHERE slot_name = 'given_up'";
        scene.sql(status).await == "lost"
    })
    .await;
    scene.program.signal(Signal::SIGCONT);
    while listener.next().await != Heard::gap("connection_lost") {}
    scene.reads().await;
    insert(&mut scene, 3).await;
    listener.hears(3).await;
    assert_eq!(listener.gaps, ["connection_lost"]);
    assert!(failed(&scene, "slot_lost").await > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_without_rights_is_told_what_it_lacks_and_goes_on_once_it_has_it() {
    let sql = format!("CREATE ROLE teller LOGIN; {TABLE}");
    let cluster = super::own_cluster(Options::default()).await;
    let url = cluster.socket_url().expect("a short path").replace("postgres@", "teller@");
    let keys = [("TIDEWIRE_POSTGRES_URL", &*url)];
    let mut scene = Scene::over(cluster, &sql, &keys).await;
    let wish = json!({ "type": "subscribe", "table": "public.moved" });
    let mut refused = client(scene.address).await;
    let said = scene.is_held_up_by("GRANT CREATE ON DATABASE");
    let (outcome, _) = tokio::join!(refused.outcome(wish.clone()), said);
    assert_eq!(outcome, "unavailable");
    scene.sql("GRANT CREATE ON DATABASE postgres TO teller").await;
    scene.is_held_up_by("ALTER ROLE … REPLICATION").await;
    assert!(failed(&scene, "privilege").await > 1);
    scene.sql("ALTER ROLE teller REPLICATION").await;
    scene.reads().await;
    // It may not publish what is not its own, and says who may, and how.
    let answer = client(scene.address).await.ask(wish).await;
    let said = answer["message"].as_str().expect("a message");
    assert!(said.contains("ADD TABLE public.moved"), "{answer}");
    scene.sql("ALTER TABLE moved OWNER TO teller").await;
    let mut listener = listener(&mut scene).await;

    // The right is taken back while it is used, and given again.
    scene.sql("ALTER ROLE teller NOREPLICATION").await;
    scene
        .sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE backend_type = 'walsender'",
        )
        .await;
    scene.is_held_up_by("ALTER ROLE … REPLICATION").await;
    insert(&mut scene, 2).await;
    scene.sql("ALTER ROLE teller REPLICATION").await;
    assert_eq!(listener.next().await, Heard::gap("connection_lost"));
    insert(&mut scene, 3).await;
    listener.hears(3).await;
    assert_eq!(listener.rows, 2);
}
