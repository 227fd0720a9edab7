//! A history on disk: the server is killed again and again, and whoever comes back misses nothing,
//! is told nothing twice, and hears of no gap.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use tidewire_postgres::private_cluster::Options;

use crate::support::{
    Client, Database, Program, Psql, client, database, get, own_cluster, post, until,
};

/// Rows of a large transaction: several of the pieces in which such a one is told.
const LARGE: u64 = 12_000;

/// Transactions between two large ones.
const BETWEEN: u64 = 150;

/// A server over a database and a folder, on one port for all its lives.
struct Scene {
    database: Database,
    _folder: tempfile::TempDir,
    variables: Vec<(&'static str, String)>,
    program: Program,
    address: SocketAddr,
}

impl Scene {
    async fn new(keys: &[(&'static str, &str)]) -> Self {
        Self::of(database().await, keys).await
    }

    async fn of(database: Database, keys: &[(&'static str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("history").display().to_string();
        let mut variables = vec![
            ("TIDEWIRE_LISTEN", "127.0.0.1:0".to_owned()),
            ("TIDEWIRE_POSTGRES_URL", database.url()),
            ("TIDEWIRE_SOURCE", "wal".to_owned()),
            ("TIDEWIRE_WAL_UNSIGNED_MESSAGES", "true".to_owned()),
            // Who is away for a while finds everything.
            ("TIDEWIRE_HISTORY_EVENTS", "1000000".to_owned()),
            ("TIDEWIRE_HISTORY_BYTES", "256MiB".to_owned()),
        ];
        variables.extend(keys.iter().map(|(name, value)| match *value {
            "FOLDER" => (*name, path.clone()),
            _ => (*name, (*value).to_owned()),
        }));
        let (program, address) = serve(&variables).await;
        variables[0].1 = address.to_string();
        Self { database, _folder: folder, variables, program, address }
    }

    async fn kill(&mut self) {
        self.program.signal(Signal::SIGKILL);
        self.program.ended().await;
    }

    async fn restart(&mut self) {
        (self.program, _) = serve(&self.variables).await;
    }
}

async fn serve(variables: &[(&'static str, String)]) -> (Program, SocketAddr) {
    let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, &**value)).collect();
    Program::serve(&["serve"], &variables).await
}

/// Transactions that the writer may be ahead of the hearer, so that a server which is slow today need
/// not read an ever longer outbox while somebody comes back.
const AHEAD: u64 = 500;

/// Writes numbers, each with a row, a change of it and a message, in one transaction.
struct Writer {
    heard: Arc<watch::Sender<u64>>,
    written: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Writer {
    /// Writes on, but not further than [`AHEAD`] of what was heard.
    fn start(
        url: &str,
        table: &'static str,
        voice: Voice,
        heard: &Arc<watch::Sender<u64>>,
    ) -> Self {
        let mut sql = Psql::open(url);
        let mut follows = heard.subscribe();
        let written = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let (counted, stopped) = (Arc::clone(&written), Arc::clone(&stop));
        let task = tokio::spawn(async move {
            let mut number = 0;
            while !stopped.load(Ordering::Relaxed) {
                let may = |heard: &u64| number < heard.saturating_add(AHEAD);
                follows.wait_for(may).await.expect("the hearer lives");
                number += 1;
                sql.sql(&transaction(table, number, voice)).await;
                counted.store(number, Ordering::Relaxed);
            }
        });
        Self { heard: Arc::clone(heard), written, stop, task }
    }

    /// Waits until so many more transactions have committed.
    async fn commits(&self, more: u64) {
        let target = self.written.load(Ordering::Relaxed) + more;
        // Nobody hears meanwhile.
        self.heard.send_modify(|heard| *heard = (*heard).max(target));
        until("commits", async || self.written.load(Ordering::Relaxed) >= target).await;
    }

    /// The number of the last transaction.
    async fn finish(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.heard.send_replace(u64::MAX);
        self.task.await.expect("it writes to its end");
        self.written.load(Ordering::Relaxed)
    }
}

fn is_large(number: u64) -> bool {
    number.is_multiple_of(BETWEEN)
}

/// How SQL says something on a topic.
type Voice = fn(&str, u64) -> String;

/// In the write-ahead log, where nothing need be installed.
fn in_the_log(topic: &str, number: u64) -> String {
    let message = format!("{{\"topic\":\"{topic}\",\"json\":{number}}}");
    format!("SELECT pg_logical_emit_message(true, 'tidewire', '{message}')")
}

fn by_function(topic: &str, number: u64) -> String {
    format!("SELECT tidewire.publish('{topic}', '{number}'::jsonb)")
}

fn transaction(table: &str, number: u64, voice: Voice) -> String {
    let large = match is_large(number) {
        true => {
            format!("INSERT INTO {table} SELECT {number}, g FROM generate_series(1, {LARGE}) g;")
        }
        false => String::new(),
    };
    format!(
        "BEGIN; INSERT INTO {table} VALUES ({number}, 0); {large} \
         UPDATE {table} SET part = -1 WHERE number = {number} AND part = 0; {}; COMMIT",
        voice(table, number)
    )
}

/// What a client must hear of the table, in order: number and part.
fn changes(upto: u64) -> Vec<(u64, i64)> {
    (1..=upto)
        .flat_map(|number| {
            let rows = if is_large(number) { LARGE as i64 } else { 0 };
            let parts = [0].into_iter().chain(1..=rows).chain([-1]);
            parts.map(move |part| (number, part))
        })
        .collect()
}

/// Who listens to a table and a topic, and goes on where it was when the server comes back.
struct Hearer {
    address: SocketAddr,
    table: String,
    socket: Option<Client>,
    place: [Option<String>; 2],
    changes: Vec<(u64, i64)>,
    messages: Vec<u64>,
    /// The number of the newest message.
    heard: Arc<watch::Sender<u64>>,
    gaps: Vec<Value>,
}

impl Hearer {
    fn new(address: SocketAddr, table: &str) -> Self {
        Self {
            address,
            table: table.to_owned(),
            socket: None,
            place: [None, None],
            changes: Vec::new(),
            messages: Vec::new(),
            heard: Arc::default(),
            gaps: Vec::new(),
        }
    }

    /// Subscribes to both; gives what became of the places.
    async fn come_back(&mut self) -> Vec<Value> {
        let mut socket = client(self.address).await;
        let mut outcomes = Vec::new();
        for (at, (kind, name)) in
            [("table", format!("public.{}", self.table)), ("topic", self.table.clone())]
                .into_iter()
                .enumerate()
        {
            let mut request = json!({ "type": "subscribe", "id": "mine", kind: name });
            if let Some(since) = &self.place[at] {
                request["since"] = json!(since);
            }
            socket.say(&request).await;
            loop {
                let frame = socket.hear().await;
                if frame["id"] == "mine" && frame["code"] == "unavailable" {
                    // PostgreSQL took its time; as a client would, ask again.
                    socket.say(&request).await;
                } else if frame["id"] == "mine" {
                    assert_eq!(frame["type"], "subscribed", "{frame}");
                    self.place[at].get_or_insert(text(&frame["position"]));
                    outcomes.push(frame);
                    break;
                } else {
                    self.take(&frame);
                }
            }
        }
        self.socket = Some(socket);
        outcomes
    }

    fn take(&mut self, frame: &Value) {
        match frame["type"].as_str() {
            Some("change") => {
                let record = &frame["record"];
                let number = record["number"].as_u64().expect("a number");
                self.changes.push((number, record["part"].as_i64().expect("a part")));
                self.place[0] = Some(text(&frame["position"]));
            }
            Some("event") => {
                let number = frame["data"].as_u64().expect("a number");
                self.messages.push(number);
                self.heard.send_replace(number);
                self.place[1] = Some(text(&frame["position"]));
            }
            Some("gap") => self.gaps.push(frame.clone()),
            _ => {}
        }
    }

    /// Reads until it has so many messages, or the connection ends.
    async fn hear(&mut self, messages: u64) {
        while (self.messages.len() as u64) < messages {
            let socket = self.socket.as_mut().expect("it came back");
            let Some(frame) = socket.try_hear().await else { return };
            self.take(&serde_json::from_str(&frame).expect("JSON"));
        }
    }

    /// Whether each change so far came once and in order; says what did not.
    fn is_right(&self, expected: &[(u64, i64)]) -> bool {
        let wrong = self.changes.iter().zip(expected).position(|(heard, made)| heard != made);
        if let Some(at) = wrong {
            let around = at.saturating_sub(2)..(at + 3).min(expected.len()).min(self.changes.len());
            println!("heard {:?}, made {:?}", &self.changes[around.clone()], &expected[around]);
        }
        wrong.is_none()
    }

    /// Reads what is left after the server is gone.
    async fn hear_the_rest(&mut self) {
        self.hear(u64::MAX).await;
        self.socket = None;
    }
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

async fn drop_slot(database: &mut Database, slot: &str) {
    let gone = format!(
        "SELECT count(pg_drop_replication_slot(slot_name)) FROM pg_replication_slots \
         WHERE slot_name = '{slot}' AND NOT active"
    );
    until("the slot can be dropped", async || {
        database.sql(&gone).await;
        let left = format!("SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{slot}'");
        database.sql(&left).await == "0"
    })
    .await;
}

/// Kills the server again and again under a writer; the hearer misses nothing.
async fn endure(scene: &mut Scene, table: &'static str, voice: Voice, kills: u64) {
    let create = format!(
        "CREATE TABLE {table} (number int, part int, PRIMARY KEY (number, part)); \
         ALTER TABLE {table} REPLICA IDENTITY FULL"
    );
    scene.database.sql(&create).await;
    let mut hearer = Hearer::new(scene.address, table);
    hearer.come_back().await;
    let writer = Writer::start(&scene.database.url(), table, voice, &hearer.heard);
    for round in 1..=kills {
        hearer.hear(round * 70).await;
        // Now and then in the middle of a large transaction, at whatever place.
        writer.commits(round * 13 % 50).await;
        scene.kill().await;
        hearer.hear_the_rest().await;
        writer.commits(20).await;
        scene.restart().await;
        for answer in hearer.come_back().await {
            assert_eq!(answer["outcome"], "resumed", "{answer}");
        }
    }
    let last = writer.finish().await;
    hearer.hear(last).await;
    let expected = changes(last);
    while hearer.changes.len() < expected.len() {
        let frame = hearer.socket.as_mut().expect("it came back").hear().await;
        hearer.take(&frame);
    }
    assert_eq!(hearer.gaps, Vec::<Value>::new());
    assert_eq!(hearer.messages, (1..=last).collect::<Vec<_>>(), "each message once, in order");
    assert!(hearer.is_right(&expected));
    assert_eq!(hearer.changes.len(), expected.len(), "each change once");
    println!("{last} transactions, {} changes, {kills} kills, no gap", expected.len());
    scene.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_slot_and_a_history_that_stay_a_killed_server_is_no_gap() {
    let keys = [
        ("TIDEWIRE_WAL_SLOT", "survival"),
        ("TIDEWIRE_HISTORY_STORE", "disk"),
        ("TIDEWIRE_HISTORY_PATH", "FOLDER"),
    ];
    let mut scene = Scene::new(&keys).await;
    endure(&mut scene, "survival", in_the_log, 6).await;
    drop_slot(&mut scene.database, "survival").await;
}

const OUTBOX_ON_DISK: [(&str, &str); 3] = [
    ("TIDEWIRE_SOURCE", "outbox"),
    ("TIDEWIRE_HISTORY_STORE", "disk"),
    ("TIDEWIRE_HISTORY_PATH", "FOLDER"),
];

/// A server that reads the outbox of a cluster of its own.
async fn outbox() -> Scene {
    let cluster = Arc::new(own_cluster(Options::default()).await);
    Scene::of(Database::of(cluster), &OUTBOX_ON_DISK).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_outbox_and_a_history_that_stays_a_killed_server_is_no_gap() {
    endure(&mut outbox().await, "survival", by_function, 6).await;
}

#[tokio::test]
async fn what_the_outbox_did_not_keep_long_enough_is_a_gap_at_its_place() {
    let mut scene = outbox().await;
    scene.database.sql("CREATE TABLE late (number int, part int)").await;
    let mut hearer = Hearer::new(scene.address, "late");
    hearer.come_back().await;
    scene.database.sql(&transaction("late", 1, by_function)).await;
    hearer.hear(1).await;
    scene.kill().await;
    hearer.hear_the_rest().await;
    scene.database.sql("UPDATE tidewire.settings SET retention = '0 seconds'").await;
    scene.database.sql(&transaction("late", 2, by_function)).await;
    until("writers remove what nobody reads", async || {
        scene.database.sql("INSERT INTO late SELECT 2, g FROM generate_series(1, 256) g").await;
        let read = "SELECT EXISTS (SELECT FROM tidewire.outbox WHERE rec->>'part' = '0')";
        scene.database.sql(read).await == "f"
    })
    .await;
    scene.restart().await;
    for answer in hearer.come_back().await {
        assert_eq!(answer["outcome"], "resumed", "{answer}");
    }
    scene.database.sql(&transaction("late", 3, by_function)).await;
    hearer.hear(2).await;
    let reasons: Vec<_> = hearer.gaps.iter().map(|gap| gap["reason"].clone()).collect();
    assert_eq!(reasons, ["connection_lost"; 2], "on the table and on the topic");
    assert_eq!((hearer.messages, &hearer.changes[2..]), (vec![1, 3], &[(3, 0), (3, -1)][..]));
}

#[tokio::test]
async fn with_a_history_in_memory_a_killed_server_is_a_gap_though_the_slot_stays() {
    let mut scene = Scene::new(&[("TIDEWIRE_WAL_SLOT", "forgetful")]).await;
    scene.database.sql("CREATE TABLE forgetful (number int, part int, PRIMARY KEY (number))").await;
    let mut hearer = Hearer::new(scene.address, "forgetful");
    hearer.come_back().await;
    scene.database.sql(&transaction("forgetful", 1, in_the_log)).await;
    hearer.hear(1).await;
    scene.kill().await;
    hearer.hear_the_rest().await;
    scene.restart().await;
    for answer in hearer.come_back().await {
        let outcome = (&answer["outcome"], &answer["reason"]);
        assert_eq!(outcome, (&json!("gap"), &json!("epoch_changed")), "{answer}");
    }
    scene.kill().await;
    drop_slot(&mut scene.database, "forgetful").await;
}

#[tokio::test]
async fn with_a_temporary_slot_a_history_that_stays_tells_the_gap_at_its_place() {
    let keys = [("TIDEWIRE_HISTORY_STORE", "disk"), ("TIDEWIRE_HISTORY_PATH", "FOLDER")];
    let mut scene = Scene::new(&keys).await;
    scene.database.sql("CREATE TABLE passing (number int, part int, PRIMARY KEY (number))").await;
    let mut hearer = Hearer::new(scene.address, "passing");
    hearer.come_back().await;
    scene.database.sql(&transaction("passing", 1, in_the_log)).await;
    hearer.hear(1).await;
    scene.kill().await;
    hearer.hear_the_rest().await;
    scene.database.sql(&transaction("passing", 2, in_the_log)).await;
    scene.restart().await;
    let outcomes = hearer.come_back().await;
    assert_eq!(outcomes[0]["outcome"], "resumed", "{outcomes:?}");
    scene.database.sql(&transaction("passing", 3, in_the_log)).await;
    hearer.hear(2).await;
    let mut gaps: Vec<_> = hearer
        .gaps
        .iter()
        .map(|gap| (gap["table"].is_string(), gap["reason"].as_str().expect("a reason")))
        .collect();
    gaps.sort_unstable();
    // What SQL says on topics may be missing, too.
    assert_eq!(gaps, [(false, "connection_lost"), (true, "not_listening")]);
    assert_eq!(hearer.messages, [1, 3]);
    assert_eq!(hearer.changes.last(), Some(&(3, -1)));
}

async fn say(address: SocketAddr, data: u64) -> String {
    let body = json!({ "topic": "kept", "data": data });
    let answer = post(address, "/v1/publish", &body).await.good().await;
    answer["position"].as_str().expect("a position").to_owned()
}

#[tokio::test]
async fn what_was_published_survives_a_kill_and_a_stop() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("history").display().to_string();
    let variables = [
        ("TIDEWIRE_LISTEN", "127.0.0.1:0"),
        ("TIDEWIRE_HISTORY_STORE", "disk"),
        ("TIDEWIRE_HISTORY_PATH", &path),
    ];
    let mut since = None;
    for (life, end) in [(0, Signal::SIGKILL), (1, Signal::SIGTERM), (2, Signal::SIGKILL)] {
        let (mut program, address) = Program::serve(&["serve"], &variables).await;
        let mut hearer = client(address).await;
        let mut request = json!({ "topic": "kept" });
        if let Some(since) = &since {
            request["since"] = json!(since);
        }
        let answer = hearer.subscribe(request).await;
        assert_eq!(answer["outcome"], if life == 0 { "fresh" } else { "resumed" }, "{answer}");
        if life > 0 {
            assert_eq!(hearer.hear_type("event").await["data"], life * 10 - 9);
        }
        let kept = say(address, life * 10).await;
        say(address, life * 10 + 1).await;
        since = Some(kept);
        let page = get(address, "/v1/history?topic=kept").await.good().await;
        assert_eq!(page["events"].as_array().map(Vec::len), Some(life as usize * 2 + 2), "{page}");
        let metrics = get(address, "/metrics").await.rest().await;
        assert!(metrics.contains("tidewire_history_disk_bytes"), "{metrics}");
        program.signal(end);
        program.ended().await;
    }
}

#[tokio::test]
async fn a_second_server_in_the_same_folder_says_why_it_does_not_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().display().to_string();
    let variables = [
        ("TIDEWIRE_LISTEN", "127.0.0.1:0"),
        ("TIDEWIRE_HISTORY_STORE", "disk"),
        ("TIDEWIRE_HISTORY_PATH", &path),
    ];
    let (_first, _) = Program::serve(&["serve"], &variables).await;
    let output = crate::support::run_program(&["serve"], &variables).await;
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(told.contains("another server keeps its history in") && told.contains(&path), "{told}");
}
