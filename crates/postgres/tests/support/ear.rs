//! Hears what a source publishes: a node's publisher whose broker hands events to the test.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tidewire::{Broker, Error, Event, Inlet, Node, Publisher, Topic};
use tidewire_postgres::{NotifyOptions, NotifySource, Target};
use tidewire_protocol::{Body, GapReason, Payload};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::comes_true;

/// Something was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Said(String, String),
    Gap(String, GapReason),
}

impl Heard {
    pub(crate) fn said(channel: &str, payload: &str) -> Self {
        Self::Said(channel.to_owned(), payload.to_owned())
    }

    pub(crate) fn lost(channel: &str) -> Self {
        Self::Gap(channel.to_owned(), GapReason::ConnectionLost)
    }
}

/// A source and what it publishes.
pub(crate) struct Ear {
    pub(crate) source: NotifySource,
    events: Mutex<Option<mpsc::Receiver<Heard>>>,
}

impl Ear {
    /// Starts listening.
    pub(crate) fn open(target: Target, options: NotifyOptions) -> Self {
        let (sender, receiver) = mpsc::channel(100_000);
        let prepared = Node::builder().broker(Arc::new(Recorder(sender))).prepare();
        let publisher: Publisher = prepared.publisher().clone();
        let source = NotifySource::start(target, publisher, options);
        Self { source, events: Mutex::new(Some(receiver)) }
    }

    /// The next event, apart from the mark that a channel's history begins with.
    pub(crate) async fn next(&self) -> Heard {
        loop {
            match self.next_of_all().await {
                Heard::Gap(_, GapReason::NotListening) => {}
                heard => return heard,
            }
        }
    }

    /// The next event.
    pub(crate) async fn next_of_all(&self) -> Heard {
        let mut events = self.events.lock().take().expect("one test task listens");
        let next = timeout(Duration::from_secs(20), events.recv()).await;
        *self.events.lock() = Some(events);
        next.expect("an event within 20 s").expect("the broker lives")
    }

    /// Waits until something is so.
    pub(crate) async fn until(&self, what: &str, mut so: impl FnMut(&NotifySource) -> bool) {
        let came = comes_true(async || so(&self.source)).await;
        assert!(came, "not in time: {what}; {:?}", self.source.status());
    }
}

pub(crate) fn topic(channel: &str) -> Topic {
    Topic::notify(channel).unwrap()
}

struct Recorder(mpsc::Sender<Heard>);

#[async_trait]
impl Broker for Recorder {
    fn attach(&self, _: Inlet) {}

    async fn announce(&self, events: &[Arc<Event>]) -> Result<(), Error> {
        for event in events {
            let channel = event.topic.name().to_owned();
            let heard = match &event.body {
                Body::Message(Payload::Text(text)) => Heard::Said(channel, text.to_string()),
                Body::Gap(reason) => Heard::Gap(channel, *reason),
                other => panic!("a NOTIFY never is {other:?}"),
            };
            // The test that does not listen any more has ended.
            let _ = self.0.send(heard).await;
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
