//! What one client heard of a table whose ids rise: each once and in order, or a gap was named.

use std::borrow::Cow;
use std::net::SocketAddr;

use serde::Deserialize;
use serde_json::json;

use crate::support::{Answer, Client, client, get};

/// What matters of a frame; a value of millions of bytes is not taken apart.
#[derive(Deserialize)]
struct Frame<'f> {
    #[serde(borrow)]
    r#type: Cow<'f, str>,
    #[serde(borrow)]
    reason: Option<Cow<'f, str>>,
    #[serde(borrow)]
    position: Option<Cow<'f, str>>,
    record: Option<Record>,
}

#[derive(Deserialize)]
struct Record {
    id: u64,
}

/// One thing heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Row(u64),
    Gap(String),
}

impl Heard {
    /// A gap for that reason.
    pub(super) fn gap(reason: &str) -> Self {
        Self::Gap(reason.to_owned())
    }
}

/// Somebody who listens to one table.
pub(super) struct Listener {
    way: Way,
    /// Where it is.
    pub(super) position: Option<String>,
    /// The id heard last.
    last: u64,
    /// Whether a gap was named since.
    after_gap: bool,
    pub(super) rows: u64,
    pub(super) gaps: Vec<String>,
}

enum Way {
    Socket(Client),
    Stream(Answer),
}

impl Listener {
    /// Over a WebSocket, which is sent the ids and nothing else.
    pub(super) async fn by_socket(address: SocketAddr, table: &str) -> Self {
        let mut client = client(address).await;
        client.subscribe(json!({ "table": table, "columns": ["id"] })).await;
        Self::new(Way::Socket(client))
    }

    /// The same, from where another one was; it must be resumed.
    pub(super) async fn resumed(address: SocketAddr, table: &str, before: Self) -> Self {
        let mut client = client(address).await;
        let wish = json!({ "table": table, "columns": ["id"], "since": before.position });
        let answer = client.subscribe(wish).await;
        assert_eq!(answer["outcome"], "resumed", "{answer}");
        Self { way: Way::Socket(client), ..before }
    }

    /// Over Server-Sent Events, with everything.
    pub(super) async fn by_stream(address: SocketAddr, table: &str) -> Self {
        let mut stream = get(address, &format!("/v1/sse?table={table}")).await;
        stream.named("subscribed").await;
        Self::new(Way::Stream(stream))
    }

    fn new(way: Way) -> Self {
        Self { way, position: None, last: 0, after_gap: false, rows: 0, gaps: Vec::new() }
    }

    /// The next row or gap; `None` at the end of the connection.
    pub(super) async fn try_next(&mut self) -> Option<Heard> {
        loop {
            let text = match &mut self.way {
                Way::Socket(client) => client.try_hear().await?,
                Way::Stream(stream) => match stream.next_sse().await?.data() {
                    Some(data) => data.to_owned(),
                    None => continue,
                },
            };
            let frame: Frame<'_> = serde_json::from_str(&text).expect("a frame");
            let heard = match (&*frame.r#type, frame.record, frame.reason) {
                ("change", Some(record), _) => Heard::Row(record.id),
                ("gap", _, Some(reason)) => Heard::Gap(reason.into_owned()),
                ("error" | "close", ..) => panic!("{text}"),
                _ => continue,
            };
            self.position = frame.position.map(Cow::into_owned).or(self.position.take());
            self.note(&heard);
            return Some(heard);
        }
    }

    /// The next row or gap.
    pub(super) async fn next(&mut self) -> Heard {
        self.try_next().await.expect("the connection lives")
    }

    /// Ids follow each other, but for a gap that was named.
    fn note(&mut self, heard: &Heard) {
        match heard {
            Heard::Gap(reason) => {
                self.gaps.push(reason.clone());
                self.after_gap = true;
            }
            Heard::Row(id) => {
                let follows = *id == self.last + 1 || (self.after_gap && *id > self.last);
                assert!(follows, "{id} after {}, gaps: {:?}", self.last, self.gaps);
                (self.last, self.after_gap) = (*id, false);
                self.rows += 1;
            }
        }
    }

    /// The id heard last.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// Reads on until a row with this id or one above it.
    pub(super) async fn hears_at_least(&mut self, id: u64) {
        while !matches!(self.next().await, Heard::Row(heard) if heard >= id) {}
    }

    /// Reads on until this row; gives the gaps that were named up to there.
    pub(super) async fn hears(&mut self, id: u64) -> &[String] {
        while self.next().await != Heard::Row(id) {}
        &self.gaps
    }
}
