//! What operators see: presence, statistics, metrics.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::json;
use tidewire_adapters::api_key;

use crate::support::{Program, Server, client, database, get, get_with, post, run_program, until};

#[tokio::test]
async fn presence_tells_who_is_there() {
    let server = Server::start(&[]).await;
    let path = "/v1/presence?topic=room";
    assert_eq!(get(server.address, path).await.good().await, json!({ "members": [] }));
    let mut ann = client(server.address).await;
    ann.subscribe(json!({ "topic": "room" })).await;
    let meta = json!({ "typing": true });
    let tracked =
        ann.ask(json!({ "type": "track", "topic": "room", "key": "ann", "meta": meta })).await;
    let member = json!({ "ref": tracked["ref"], "key": "ann", "meta": meta });
    assert_eq!(get(server.address, path).await.good().await, json!({ "members": [member] }));
    // Other kinds of the same name are other topics.
    for other in ["/v1/presence?private=room", "/v1/presence?notify=room"] {
        assert_eq!(get(server.address, other).await.good().await, json!({ "members": [] }));
    }
    assert_eq!(get(server.address, "/v1/presence").await.status, 400);
    assert_eq!(get(server.address, "/v1/presence?table=public.a").await.status, 400);
    drop(ann);
    until("an empty room", async || {
        get(server.address, path).await.good().await == json!({ "members": [] })
    })
    .await;
}

#[tokio::test]
async fn statistics_count_what_is_here() {
    let server = Server::start(&[]).await;
    let mut hearers = [client(server.address).await, client(server.address).await];
    for hearer in &mut hearers {
        hearer.subscribe(json!({ "topic": "room" })).await;
    }
    hearers[0].subscribe(json!({ "topic": "other" })).await;
    post(server.address, "/v1/publish", &json!({ "topic": "room", "data": 1 })).await.good().await;
    for hearer in &mut hearers {
        hearer.hear_type("event").await;
    }
    let stats = get(server.address, "/v1/stats").await.good().await;
    let expected = [("connections", 2), ("topics", 2), ("subscriptions", 3), ("events", 1)];
    for (name, count) in expected {
        assert_eq!(stats[name], count, "{name}: {stats}");
    }
    assert_eq!((&stats["deliveries"], &stats["version"]), (&json!(2), &json!("0.1.0")));
    assert!(stats["uptime_seconds"].is_u64());
    assert_eq!(get(server.address, "/v1/stats?verbose=1").await.status, 400);
}

/// The names that `docs/metrics.md` has in its tables.
fn documented() -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md");
    let page = std::fs::read_to_string(path).expect("the page");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    rows.filter(|name| name.starts_with("tidewire_")).map(str::to_owned).collect()
}

/// The names of samples, each of which must be a name, labels and a number.
fn sampled(text: &str) -> BTreeSet<String> {
    assert_eq!(text.lines().last(), Some("# EOF"));
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let names = samples.map(|line| {
        let (sample, value) = line.rsplit_once(' ').expect("a sample and its value");
        assert!(value.parse::<f64>().is_ok(), "{line}");
        let name = sample.split('{').next().expect("there is a first part");
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        assert!(name.starts_with("tidewire_") && name.chars().all(is_plain), "{line}");
        name.to_owned()
    });
    names.collect()
}

#[tokio::test]
async fn every_metric_is_there_and_documented() {
    let database = database().await;
    let server = Server::of(&database.url(), &[]).await;
    // Families show themselves once something happened: an ending, a refusal, a gap.
    let mut gone = client(server.address).await;
    gone.subscribe(json!({ "topic": "room", "since": "abc-1" })).await;
    assert_eq!(gone.outcome(json!({ "type": "dance" })).await, "unknown_type");
    drop(gone);
    until("an ending that is counted", async || {
        let text = get(server.address, "/metrics").await.rest().await;
        text.contains("tidewire_closes_total{name=\"normal\"} 1")
    })
    .await;
    let plain = get(server.address, "/metrics").await;
    assert!(plain.header("content-type").starts_with("text/plain; version=0.0.4"));
    assert!(!plain.rest().await.contains("# EOF"));
    let accept = [("accept", "application/openmetrics-text;version=1.0.0,text/plain;q=0.5")];
    let answer = get_with(server.address, "/metrics", &accept).await;
    assert!(answer.header("content-type").starts_with("application/openmetrics-text"));
    let (mut documented, sampled) = (documented(), sampled(&answer.rest().await));
    // Where no authentication is configured nobody has a budget.
    documented.remove("tidewire_over_budget_total");
    let missing: Vec<_> = documented.difference(&sampled).collect();
    assert!(missing.is_empty(), "documented but not there: {missing:?}");
    let unknown: Vec<_> = sampled.difference(&documented).collect();
    assert!(unknown.is_empty(), "there but not in docs/metrics.md: {unknown:?}");
}

/// A secret that no answer for strangers may hold.
const PASSWORD: &str = "hunter2";

#[tokio::test]
async fn strangers_are_told_which_part_fails_and_operators_why() {
    // Nothing listens there.
    let url = format!("postgresql://tide:{PASSWORD}@127.0.0.1:1/shop");
    let (key, hash) = api_key::generate().expect("random bytes");
    let keys = json!([{ "name": "ops", "hash": hash, "grants": { "admin": true } }]).to_string();
    let variables = [
        ("TIDEWIRE_LISTEN", "127.0.0.1:0"),
        ("TIDEWIRE_LISTEN_OPERATORS", "127.0.0.1:0"),
        ("TIDEWIRE_POSTGRES_URL", &*url),
        ("TIDEWIRE_AUTH_KEYS", &*keys),
    ];
    let (program, address) = Program::serve(&[], &variables).await;
    let line = program.logged("serving operators address=").await;
    let (_, operators) = line.split_once("address=").expect("an address");
    let operators = operators.trim().parse().expect("an address");
    until("a reason", async || {
        let part = get(operators, "/ready").await.json().await["parts"]["postgres"].clone();
        part["error"].is_string()
    })
    .await;
    let stranger = json!({ "ready": false, "failure": "unreachable" });
    for headers in [vec![], vec![("authorization", "Bearer wrong")]] {
        let answer = get_with(address, "/ready", &headers).await;
        assert_eq!(answer.status, 503);
        assert_eq!(answer.json().await["parts"]["postgres"], stranger);
        let refused = get_with(address, "/metrics", &headers).await.refused().await;
        assert_eq!(refused, (403, "forbidden".to_owned()));
    }
    let token = format!("Bearer {}", key.expose());
    for (address, headers) in [(operators, vec![]), (address, vec![("authorization", &*token)])] {
        let answer = get_with(address, "/ready", &headers).await.rest().await;
        assert!(answer.contains("127.0.0.1") && !answer.contains(PASSWORD), "{answer}");
        assert_eq!(get_with(address, "/metrics", &headers).await.status, 200);
    }
    assert_eq!(get(operators, "/v1/stats").await.status, 404, "nothing else is there");
}

#[tokio::test]
async fn the_program_leaves_no_picture_of_its_memory() {
    let (program, _) = Program::serve(&[], &[("TIDEWIRE_LISTEN", "127.0.0.1:0")]).await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", program.pid()));
    let limits = limits.expect("the limits of the process");
    let line = limits.lines().find(|line| line.starts_with("Max core file size")).expect("a line");
    assert_eq!(line.split_whitespace().nth(4), Some("0"), "{line}");
}

#[tokio::test]
async fn credentials_in_addresses_are_not_printed_and_warned_of_on_the_command_line() {
    let url = format!("postgresql://tide:{PASSWORD}@127.0.0.1:1/shop");
    let keys = format!("https://me:{PASSWORD}@keys.example/jwks?token={PASSWORD}");
    let variables = [("TIDEWIRE_AUTH_JWT_JWKS_URL", &*keys), ("TIDEWIRE_POSTGRES_URL", &*url)];
    let printed = run_program(&["config"], &variables).await;
    let printed = String::from_utf8(printed.stdout).expect("UTF-8");
    assert!(printed.contains("# jwks_url = \"https://***@keys.example/jwks?***\""), "{printed}");
    assert!(!printed.contains(PASSWORD), "{printed}");

    let told = run_program(&["tables", "--postgres-url", &url], &[]).await;
    let told = String::from_utf8(told.stderr).expect("UTF-8");
    assert!(told.contains("set TIDEWIRE_POSTGRES_URL"), "{told}");
    assert!(!told.contains(PASSWORD), "{told}");
    let listen = [("TIDEWIRE_LISTEN", "127.0.0.1:0")];
    let (program, _) = Program::serve(&["--postgres-url", &url], &listen).await;
    program.logged("the password in --postgres-url can be read").await;
    let (quiet, _) = Program::serve(&[], &[listen[0], ("TIDEWIRE_POSTGRES_URL", &url)]).await;
    assert_eq!(quiet.count_logged("can be read by every user"), 0);
}
