//! What operators see: presence, statistics, metrics.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::json;

use crate::support::{Server, client, database, get, post, until};

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
    let answer = get(server.address, "/metrics").await;
    assert!(answer.header("content-type").starts_with("application/openmetrics-text"));
    let (documented, sampled) = (documented(), sampled(&answer.rest().await));
    let missing: Vec<_> = documented.difference(&sampled).collect();
    assert!(missing.is_empty(), "documented but not there: {missing:?}");
    let unknown: Vec<_> = sampled.difference(&documented).collect();
    assert!(unknown.is_empty(), "there but not in docs/metrics.md: {unknown:?}");
}
