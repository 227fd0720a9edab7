//! The document at `/v1/openapi.json` is true.

use std::collections::BTreeSet;

use http::Method;
use serde_json::Value;
use tidewire_protocol::{Code, GapReason};

use crate::support::{Server, get, request};

/// Values of parameters, where a path has them; a poll does not wait.
const GIVEN: &str = "topic=a&channels=a&timeout=0";

async fn document(server: &Server) -> Value {
    get(server.address, "/v1/openapi.json").await.good().await
}

fn words(list: &Value) -> Vec<&str> {
    let words = list.as_array().expect("a list").iter();
    words.map(|word| word.as_str().expect("a word")).collect()
}

#[tokio::test]
async fn every_documented_path_is_served_and_no_other_method() {
    let server = Server::start(&[]).await;
    let document = document(&server).await;
    for (path, operations) in document["paths"].as_object().expect("paths") {
        for method in ["GET", "POST", "PUT", "DELETE", "PATCH"] {
            let operation = &operations[method.to_lowercase()];
            let known: Method = method.parse().expect("a method");
            let parameters = words_of_parameters(&document, operation);
            let given = GIVEN.split('&').filter(|pair| {
                pair.split_once('=').is_some_and(|(name, _)| parameters.contains(name))
            });
            let query = given.collect::<Vec<_>>().join("&");
            let answer = request(server.address, known, &format!("{path}?{query}"), &[], "").await;
            let status = answer.status.to_string();
            if operation.is_null() {
                // A WebSocket's path says what it needs instead, whatever the method.
                assert!(status == "405" || status == "426", "{method} {path}: {status}");
            } else {
                assert!(!operation["responses"][&status].is_null(), "{method} {path}: {status}");
            }
        }
    }
}

fn words_of_parameters(document: &Value, operation: &Value) -> BTreeSet<String> {
    let parameters = operation["parameters"].as_array().map_or(&[][..], Vec::as_slice);
    let resolved = parameters.iter().map(|parameter| match parameter["$ref"].as_str() {
        Some(reference) => document.pointer(&reference[1..]).expect("a parameter"),
        None => parameter,
    });
    resolved.map(|parameter| parameter["name"].as_str().expect("a name").to_owned()).collect()
}

#[tokio::test]
async fn documented_parameters_are_known_to_the_server_and_others_are_not() {
    let server = Server::start(&[]).await;
    let document = document(&server).await;
    for path in ["/v1/history", "/v1/presence", "/v1/stats", "/v1/sse", "/v1/poll"] {
        let operation = &document["paths"][path]["get"];
        let answer = get(server.address, &format!("{path}?unknown=1")).await.json().await;
        let message = answer["error"]["message"].as_str().expect("a message").to_owned();
        let (_, known) = message.split_once("there are ").expect("the message names them");
        let known: BTreeSet<String> = known.split(", ").map(str::to_owned).collect();
        let mut expected = words_of_parameters(&document, operation);
        expected.remove("Last-Event-ID");
        expected.extend(["token".to_owned(), "access_token".to_owned()]);
        assert_eq!(known, expected, "{path}");
    }
}

#[tokio::test]
async fn the_documents_codes_and_reasons_are_those_there_are() {
    let server = Server::start(&[]).await;
    let document = document(&server).await;
    let schemas = &document["components"]["schemas"];
    let codes: Vec<&str> = Code::ALL.iter().map(|code| code.word()).collect();
    assert_eq!(words(&schemas["Code"]["enum"]), codes);
    let retries: BTreeSet<&str> = Code::ALL.iter().map(|code| code.retry().word()).collect();
    assert_eq!(words(&schemas["Retry"]["enum"]).into_iter().collect::<BTreeSet<_>>(), retries);
    let reasons = GapReason::ALL.map(GapReason::word);
    assert_eq!(words(&schemas["GapReason"]["enum"]), reasons);
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
}

#[tokio::test]
async fn every_reference_leads_somewhere_and_every_part_is_used() {
    let server = Server::start(&[]).await;
    let document = document(&server).await;
    let mut references = BTreeSet::new();
    collect(&document, &mut references);
    for reference in &references {
        assert!(document.pointer(&reference[1..]).is_some(), "{reference}");
    }
    for kind in ["parameters", "schemas", "responses"] {
        for name in document["components"][kind].as_object().expect("a table").keys() {
            let reference = format!("#/components/{kind}/{name}");
            assert!(references.contains(&reference), "{reference} is not used");
        }
    }
}

fn collect(value: &Value, references: &mut BTreeSet<String>) {
    match value {
        Value::Object(table) => {
            if let Some(Value::String(reference)) = table.get("$ref") {
                references.insert(reference.clone());
            }
            table.values().for_each(|value| collect(value, references));
        }
        Value::Array(list) => list.iter().for_each(|value| collect(value, references)),
        _ => {}
    }
}
