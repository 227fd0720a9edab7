//! Sees what a source of row changes publishes, and keeps a copy of the tables from it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tidewire::{Broker, Error, Event, History, Inlet, Node, Publisher, Topic};
use tidewire_protocol::change::{Change, Operation, Row};
use tidewire_protocol::{Body, GapReason, Payload};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Hears everything that is published.
pub(crate) struct Witness(mpsc::Receiver<Arc<Event>>);

/// Something was published.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Seen {
    Change(Arc<Change>),
    Gap(String, GapReason),
    Message(String, Option<String>, Payload),
}

impl Witness {
    /// A publisher, and who hears what it publishes.
    pub(crate) fn new() -> (Publisher, Self) {
        let (sender, receiver) = mpsc::channel(1_000_000);
        let prepared = Node::builder().broker(Arc::new(Recorder(sender))).prepare();
        (prepared.publisher().clone(), Self(receiver))
    }

    /// The same before a history of the test's own.
    pub(crate) fn with(history: Arc<dyn History>) -> (Publisher, Self) {
        let (sender, receiver) = mpsc::channel(1_000_000);
        let node = Node::builder().history(history).broker(Arc::new(Recorder(sender)));
        (node.prepare().publisher().clone(), Self(receiver))
    }

    /// The next event.
    pub(crate) async fn next(&mut self) -> Seen {
        self.next_within(Duration::from_secs(30)).await
    }

    /// The next event, where PostgreSQL has more to do for it than usual.
    pub(crate) async fn next_within(&mut self, limit: Duration) -> Seen {
        let next = timeout(limit, self.0.recv()).await;
        let next = next.unwrap_or_else(|_| panic!("no event within {limit:?}"));
        Seen::of(&next.expect("the broker lives"))
    }

    /// The next change; anything else is a failure.
    pub(crate) async fn change(&mut self) -> Arc<Change> {
        match self.next().await {
            Seen::Change(change) => change,
            other => panic!("not a change: {other:?}"),
        }
    }

    /// What is there already.
    pub(crate) fn taken(&mut self) -> Vec<Seen> {
        std::iter::from_fn(|| self.0.try_recv().ok()).map(|event| Seen::of(&event)).collect()
    }
}

impl Seen {
    fn of(event: &Event) -> Self {
        let topic = event.topic.name().to_owned();
        match &event.body {
            Body::Change(change) => {
                let (schema, table) = (&change.relation.schema, &change.relation.table);
                assert_eq!(topic, format!("{schema}.{table}"), "a row on the topic of another");
                Self::Change(Arc::clone(change))
            }
            Body::Gap(reason) => Self::Gap(topic, *reason),
            Body::Message(payload) => {
                Self::Message(topic, event.name.as_deref().map(str::to_owned), payload.clone())
            }
            other => panic!("a source of changes never says {other:?}"),
        }
    }
}

/// In words: a gap of a topic, or a row's `id` behind the name its table had.
pub(crate) fn word(seen: &Seen) -> String {
    match seen {
        Seen::Change(change) => {
            let row = change.record.as_ref().or(change.old.as_ref());
            let id = row.map(|row| object(change, row)["id"].clone());
            let (schema, table) = (&change.relation.schema, &change.relation.table);
            format!("{schema}.{table} {}", id.unwrap_or_else(|| change.operation.word().to_owned()))
        }
        Seen::Gap(topic, _) => format!("{topic} gap"),
        Seen::Message(topic, ..) => format!("{topic} message"),
    }
}

/// A row as an object, for comparing.
pub(crate) fn object(change: &Change, row: &Row) -> BTreeMap<String, String> {
    let pairs = change.relation.columns().iter().zip(row.values());
    let known = pairs.filter_map(|(column, value)| Some((column, value.json()?)));
    known.map(|(column, json)| (column.name.to_string(), json.to_owned())).collect()
}

/// A table rebuilt from its changes; its key is the column `id`.
#[derive(Default)]
pub(crate) struct Replica(pub(crate) BTreeMap<String, BTreeMap<String, String>>);

impl Replica {
    pub(crate) fn apply(&mut self, change: &Change) {
        let new = change.record.as_ref().map(|row| object(change, row));
        let old = change.old.as_ref().map(|row| object(change, row));
        let id = |row: &Option<BTreeMap<String, String>>| row.as_ref().unwrap()["id"].clone();
        match change.operation {
            Operation::Insert => {
                let before = self.0.insert(id(&new), new.clone().unwrap());
                assert_eq!(before, None, "inserted twice: {change:?}");
            }
            Operation::Update => {
                let before = self.0.remove(&id(&old));
                assert_eq!(before, old, "updated from another state: {change:?}");
                self.0.insert(id(&new), new.unwrap());
            }
            Operation::Delete => {
                let before = self.0.remove(&id(&old));
                assert_eq!(before, old, "deleted from another state: {change:?}");
            }
            Operation::Truncate => self.0.clear(),
        }
    }
}

struct Recorder(mpsc::Sender<Arc<Event>>);

#[async_trait]
impl Broker for Recorder {
    fn attach(&self, _: Inlet) {}

    async fn announce(&self, events: &[Arc<Event>]) -> Result<(), Error> {
        for event in events {
            // The test that does not listen any more has ended.
            let _ = self.0.send(Arc::clone(event)).await;
        }
        Ok(())
    }

    async fn follow(&self, _: &Topic) -> Result<(), Error> {
        Ok(())
    }

    async fn unfollow(&self, _: &Topic) -> Result<(), Error> {
        Ok(())
    }
}
