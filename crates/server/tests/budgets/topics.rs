//! New topics without end.

use serde_json::{Value, json};

use super::guarded;
use crate::support::{get, post_with, token};

#[tokio::test]
async fn one_subject_makes_so_many_topics_and_another_still_makes_its_own() {
    let keys = [("budgets.new_topic_burst", "100"), ("budgets.new_topics_per_second", "1")];
    let server = guarded(&keys).await;
    let publish = async |subject: &str, from: u32, to: u32| {
        let items =
            (from..to).map(|number| json!({ "topic": format!("{subject}{number}"), "data": 1 }));
        let authorization = format!("Bearer {}", token(subject));
        let headers = [("authorization", authorization.as_str())];
        let body = Value::from_iter(items);
        let answer = post_with(server.address, "/v1/publish", &headers, &body).await.good().await;
        let results = answer["results"].as_array().expect("a list").clone();
        results.iter().filter(|result| result["position"].is_string()).count()
    };
    let made = publish("mallory", 0, 500).await;
    assert!((100..150).contains(&made), "{made}");
    assert_eq!(publish("mallory", 0, 50).await, 50, "those that exist may be published on");
    assert_eq!(publish("ann", 0, 50).await, 50);
    let metrics = get(server.address, "/metrics").await.rest().await;
    assert!(metrics.contains("tidewire_over_budget_total{name=\"new_topics\"}"), "{metrics}");
}
