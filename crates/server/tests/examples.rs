//! The examples of `docs/http-api.md`: sent as written, answered in the shape that is shown.

use std::net::SocketAddr;
use std::path::Path;

use http::Method;
use serde_json::Value;

use crate::support::{Server, database, request};

/// Where the page says that the server is.
const BASE: &str = "http://127.0.0.1:8080";

/// A request as written for curl, and the answer that is shown.
struct Example {
    words: Vec<String>,
    answer: Value,
}

#[tokio::test]
async fn the_requests_of_the_page_are_answered_as_shown() {
    let database = database().await;
    let server = Server::of(&database.url(), &[]).await;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/http-api.md");
    let page = std::fs::read_to_string(path).expect("the page");
    let examples = examples(&page);
    assert!(examples.len() > 5, "{} examples", examples.len());
    for example in examples {
        let answer = send(server.address, &example.words).await;
        let Example { words, answer: shown } = &example;
        assert!(shows(shown, &answer), "{words:?} is answered {answer}, not like {shown}");
    }
}

/// Each block of `sh` with the block of `json` after it.
fn examples(page: &str) -> Vec<Example> {
    let mut blocks = page.split("```").skip(1).step_by(2).peekable();
    let mut examples = Vec::new();
    while let Some(block) = blocks.next() {
        let Some(command) = block.strip_prefix("sh\n") else { continue };
        let answer = blocks.peek().and_then(|next| next.strip_prefix("json\n"));
        let answer = serde_json::from_str(answer.expect("an answer is shown")).expect("JSON");
        examples.push(Example { words: words(command), answer });
    }
    examples
}

/// Splits a command as a shell does, as far as the page needs it.
fn words(command: &str) -> Vec<String> {
    let command = command.replace("\\\n", " ");
    let mut words = Vec::new();
    for (index, part) in command.split('\'').enumerate() {
        match index % 2 {
            0 => words.extend(part.split_whitespace().map(str::to_owned)),
            _ => words.push(part.to_owned()),
        }
    }
    words
}

/// Does what curl would.
async fn send(address: SocketAddr, words: &[String]) -> Value {
    let [curl, words @ ..] = words else { panic!("a command") };
    assert_eq!(curl, "curl");
    let (mut method, mut headers, mut body, mut path) = (Method::GET, Vec::new(), "", "");
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "-d" => (method, body) = (Method::POST, words.next().expect("a body")),
            "-H" => headers.extend(words.next().expect("a header").split_once(": ")),
            address => path = address.strip_prefix(BASE).expect("the server's address"),
        }
    }
    if method == Method::POST {
        // Curl's own, which a server may not insist on being JSON.
        headers.push(("content-type", "application/x-www-form-urlencoded"));
    }
    request(address, method, path, &headers, body).await.good().await
}

/// Whether what is shown is in the answer: the same names with the same sorts of values. There may
/// be more, as the page says of answers in general.
fn shows(shown: &Value, answer: &Value) -> bool {
    match (shown, answer) {
        (Value::Object(shown), Value::Object(answer)) => shown
            .iter()
            .all(|(name, value)| answer.get(name).is_some_and(|found| shows(value, found))),
        (Value::Array(shown), Value::Array(answer)) => {
            shown.len() == answer.len()
                && shown.iter().zip(answer).all(|(shown, answer)| shows(shown, answer))
        }
        (shown, answer) => std::mem::discriminant(shown) == std::mem::discriminant(answer),
    }
}
