//! How to speak to a server: one small file for each, so that one generator drives them all.
//!
//! `{topic}`, its `{number}`, `{payload}` and `{position}` stand for what is put in; everything else is sent as it
//! is written. `templates/native.toml` shows every field.

use anyhow::{Context as _, bail};
use serde::Deserialize;

use crate::inbound::Framing;

/// The built-in templates.
const BUILT_IN: &[&str] = &[
    include_str!("../templates/native.toml"),
    include_str!("../templates/native-address.toml"),
    include_str!("../templates/native-sse.toml"),
    include_str!("../templates/notify.toml"),
    include_str!("../templates/rows.toml"),
    include_str!("../templates/rows-by-key.toml"),
    include_str!("../templates/alle.toml"),
    include_str!("../templates/nchan.toml"),
    include_str!("../templates/nchan-sse.toml"),
    include_str!("../templates/ws.toml"),
    include_str!("../templates/socket.io.toml"),
    include_str!("../templates/nats.toml"),
];

/// How to speak to one server.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Template {
    pub(crate) name: String,
    pub(crate) subscribe: Subscribe,
    pub(crate) publish: Publish,
}

/// How to receive what is said on a topic.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Subscribe {
    pub(crate) framing: Framing,
    #[serde(flatten)]
    pub(crate) way: Way,
    /// Further headers of the request, `name: value`.
    #[serde(default)]
    pub(crate) headers: Vec<String>,
    /// Whether what is sent goes out in binary frames.
    #[serde(default)]
    pub(crate) binary: bool,
    /// A message that wants an answer, and the answer.
    pub(crate) heartbeat: Option<(String, String)>,
    /// What a message has in it that tells of lost events.
    pub(crate) gap: Option<String>,
    /// What a message has in it that refuses something.
    pub(crate) refusal: Option<String>,
    /// What stands right before a position, which ends at the next `"`.
    pub(crate) position: Option<String>,
    /// How to come back to a position.
    pub(crate) resume: Option<Way>,
}

/// What is asked for and said until events come.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Way {
    pub(crate) path: String,
    #[serde(default)]
    pub(crate) dialogue: Vec<Step>,
}

/// One turn of the talk before events come.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Step {
    /// Say this.
    Send(String),
    /// Go on once a message has this in it.
    Expect(String),
}

/// How to say something, in as many ways as the server has.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Publish {
    pub(crate) http: Option<HttpPublish>,
    pub(crate) websocket: Option<WebSocketPublish>,
    pub(crate) nats: Option<NatsPublish>,
    pub(crate) sql: Option<SqlPublish>,
}

/// `POST` requests on connections that are kept.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HttpPublish {
    pub(crate) path: String,
    pub(crate) content_type: String,
    pub(crate) body: String,
}

/// Messages on a WebSocket.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WebSocketPublish {
    pub(crate) path: String,
    pub(crate) message: String,
    /// What the answer to each has in it.
    pub(crate) answer: String,
    /// What a refusal has in it.
    pub(crate) refusal: String,
}

/// `PUB` on TCP.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NatsPublish {}

/// Statements to PostgreSQL, each a transaction of its own.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SqlPublish {
    pub(crate) notify: Option<String>,
    /// Statements that change a row each, in turns.
    #[serde(default)]
    pub(crate) insert: Vec<String>,
    /// What makes the table that `insert` writes to.
    #[serde(default)]
    pub(crate) insert_setup: Vec<String>,
}

impl Template {
    /// A built-in template by its name, or one from a file.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub(crate) fn named(name: &str) -> anyhow::Result<Self> {
        let mut names = Vec::new();
        for text in BUILT_IN {
            let template = Self::parse(text)?;
            if template.name == name {
                return Ok(template);
            }
            names.push(template.name);
        }
        if name.ends_with(".toml") {
            let text = std::fs::read_to_string(name).with_context(|| format!("reading {name}"))?;
            return Self::parse(&text).with_context(|| format!("in {name}"));
        }
        bail!("there is no template {name}; there are {}, or name a .toml file", names.join(", "))
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        toml::from_str(text).context("a template that cannot be read")
    }

    /// The request that opens a subscriber's connection.
    pub(crate) fn request(&self, way: &Way, host: &str, topic: &str, position: &str) -> String {
        let path = way.path.replace("{topic}", topic).replace("{position}", position);
        let mut request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n");
        for header in &self.subscribe.headers {
            request.push_str(header);
            request.push_str("\r\n");
        }
        if self.subscribe.framing != Framing::EventStream {
            request.push_str(UPGRADE);
        }
        request.push_str("\r\n");
        request
    }

    /// The status that begins the talk.
    pub(crate) fn status(&self) -> u16 {
        if self.subscribe.framing == Framing::EventStream { 200 } else { 101 }
    }

    /// The position that a message tells.
    pub(crate) fn position<'a>(&self, message: &'a [u8]) -> Option<&'a str> {
        let before = self.subscribe.position.as_ref()?.as_bytes();
        let start = memchr::memmem::find(message, before)? + before.len();
        let length = memchr::memchr(b'"', &message[start..])?;
        std::str::from_utf8(&message[start..start + length]).ok()
    }
}

/// The number in a topic's name.
pub(crate) fn number_of(topic: &str) -> &str {
    topic.trim_start_matches(|char: char| !char.is_ascii_digit())
}

/// What makes a request a WebSocket's. The key may be anything: the answer to it is not checked.
pub(crate) const UPGRADE: &str = "connection: Upgrade\r\nupgrade: websocket\r\n\
    sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_template_can_be_read_and_publishes_somehow() {
        for text in BUILT_IN {
            let template = Template::parse(text).unwrap();
            let Publish { http, websocket, nats, sql } = &template.publish;
            let ways = [http.is_some(), websocket.is_some(), nats.is_some(), sql.is_some()];
            assert!(ways.contains(&true), "{}", template.name);
            assert_eq!(Template::named(&template.name).unwrap().name, template.name);
        }
    }

    #[test]
    fn a_request_has_its_topic_and_ends_with_an_empty_line() {
        let template = Template::named("native-sse").unwrap();
        let request = template.request(&template.subscribe.way, "h:1", "t7", "");
        assert!(request.starts_with("GET /v1/sse?topic=t7 HTTP/1.1\r\nhost: h:1\r\n"), "{request}");
        assert!(request.ends_with("\r\n\r\n"), "{request}");
        let resume = template.subscribe.resume.as_ref().unwrap();
        let request = template.request(resume, "h:1", "t7", "4f1c-9");
        assert!(request.contains("topic=t7&since=4f1c-9 "), "{request}");
    }

    #[test]
    fn a_position_ends_at_the_quote() {
        let template = Template::named("native").unwrap();
        let message = br#"{"type":"event","position":"4f1c-18","at":1}"#;
        assert_eq!(template.position(message), Some("4f1c-18"));
        assert_eq!(template.position(b"{}"), None);
    }

    #[test]
    fn an_unknown_template_is_answered_with_those_there_are() {
        let error = Template::named("natif").unwrap_err().to_string();
        assert!(error.contains("native, native-address, native-sse"), "{error}");
    }
}
