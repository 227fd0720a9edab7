//! What a broker does in the usual case; that it may fail is the relay's business.

use std::sync::Arc;

use parking_lot::Mutex;
use tidewire_protocol::{
    Audience, Body, Draft, Epoch, Event, Payload, Position, SessionId, Topic, TopicKind,
};

use super::{eventually, message, new_topic};
use crate::broker::{Broker, Inlet};

/// What a broker handed over.
#[derive(Clone, Default)]
struct Received(Arc<Mutex<Vec<Arc<Event>>>>);

impl Received {
    fn attach(broker: &dyn Broker) -> Self {
        let received = Self::default();
        let list = Arc::clone(&received.0);
        broker.attach(Inlet::new(move |events| list.lock().extend(events)));
        received
    }

    fn on(&self, topic: &Topic) -> Vec<Arc<Event>> {
        self.0.lock().iter().filter(|event| event.topic == *topic).cloned().collect()
    }

    /// Waits until so many events have come on the topic.
    async fn count(&self, topic: &Topic, count: usize, sentence: &str) -> Vec<Arc<Event>> {
        eventually(sentence, async || Some(self.on(topic)).filter(|events| events.len() >= count))
            .await
    }
}

/// Checks that a broker carries events on one node.
///
/// # Panics
/// When it does not.
pub async fn broker(make: impl AsyncFn() -> Arc<dyn Broker>) {
    what_is_announced_arrives_in_order(make().await).await;
    an_event_arrives_whole(make().await).await;
    a_topic_can_be_followed_again(make().await).await;
    kinds_do_not_collide(make().await).await;
}

/// Checks that a broker carries events between nodes: each call of `make` gives another node's
/// end of the same bus.
///
/// # Panics
/// When it does not.
pub async fn broker_between_nodes(make: impl AsyncFn() -> Arc<dyn Broker>) {
    let (here, there) = (make().await, make().await);
    let (at_here, at_there) = (Received::attach(&*here), Received::attach(&*there));
    let topic = new_topic();
    follow(&here, &topic).await;
    follow(&there, &topic).await;
    for seq in 1..=50 {
        let from = if seq % 2 == 0 { &here } else { &there };
        announce(from, &[event(message(&topic, seq), seq)]).await;
    }
    for (received, node) in [(at_here, "one node"), (at_there, "the other node")] {
        let sentence = format!("{node} should receive what both announced on a topic it follows");
        received.count(&topic, 50, &sentence).await;
    }
}

async fn what_is_announced_arrives_in_order(broker: Arc<dyn Broker>) {
    let received = Received::attach(&*broker);
    let topic = new_topic();
    follow(&broker, &topic).await;
    announce(&broker, &[]).await;
    for batch in 0..10 {
        let events: Vec<_> =
            (1..=10).map(|seq| event(message(&topic, "x"), batch * 10 + seq)).collect();
        announce(&broker, &events).await;
    }
    let sentence = "a followed topic's announcements should arrive once follow has returned";
    let arrived = received.count(&topic, 100, sentence).await;
    let numbers: Vec<_> = arrived.iter().map(|event| event.position.seq).collect();
    let expected: Vec<_> = (1..=100).collect();
    assert_eq!(numbers, expected, "in the usual case events should arrive once and in order");
}

async fn an_event_arrives_whole(broker: Arc<dyn Broker>) {
    let received = Received::attach(&*broker);
    let topic = new_topic();
    follow(&broker, &topic).await;
    let payloads = [
        Payload::Text("two\nlines \"quoted\" 🦀".into()),
        Payload::json(r#"{ "a": [1, null] }"#).expect("JSON"),
        Payload::Binary(vec![0, 255, 13, 10].into()),
    ];
    let drafts = payloads.into_iter().map(|payload| Draft {
        name: Some("order.created".into()),
        audience: Audience::Except(SessionId(u64::MAX)),
        body: Body::Message(payload),
        topic: topic.clone(),
    });
    let events: Vec<_> = drafts.zip(1..).map(|(draft, seq)| event(draft, seq)).collect();
    announce(&broker, &events).await;
    let arrived = received.count(&topic, events.len(), "events of all sorts should arrive").await;
    assert_eq!(
        format!("{arrived:?}"),
        format!("{events:?}"),
        "an event should arrive as it was announced"
    );
}

async fn a_topic_can_be_followed_again(broker: Arc<dyn Broker>) {
    let received = Received::attach(&*broker);
    let topic = new_topic();
    for seq in 1..=3 {
        follow(&broker, &topic).await;
        announce(&broker, &[event(message(&topic, seq), seq)]).await;
        let sentence = "a topic that is followed again should receive its announcements";
        eventually(sentence, async || {
            received.on(&topic).iter().any(|event| event.position.seq == seq).then_some(())
        })
        .await;
        broker.unfollow(&topic).await.expect("unfollowing at a broker that works");
    }
    broker.unfollow(&topic).await.expect("unfollowing what is not followed is nothing");
}

async fn kinds_do_not_collide(broker: Arc<dyn Broker>) {
    let received = Received::attach(&*broker);
    let named = new_topic();
    let kinds = [TopicKind::Application, TopicKind::Private, TopicKind::Notify];
    let mut topics: Vec<_> =
        kinds.iter().map(|kind| Topic::new(*kind, named.name()).expect("a topic's name")).collect();
    topics.push(named.presence());
    for topic in &topics {
        follow(&broker, topic).await;
    }
    for topic in &topics {
        announce(&broker, &[event(message(topic, "x"), 1)]).await;
    }
    for topic in &topics {
        let arrived = received.count(topic, 1, "each kind should receive its own events").await;
        assert_eq!(arrived.len(), 1, "an event of {topic} should arrive as its own alone");
    }
}

async fn follow(broker: &Arc<dyn Broker>, topic: &Topic) {
    broker.follow(topic).await.expect("following at a broker that works");
}

async fn announce(broker: &Arc<dyn Broker>, events: &[Arc<Event>]) {
    broker.announce(events).await.expect("announcing at a broker that works");
}

fn event(draft: Draft, seq: u64) -> Arc<Event> {
    let position = Position { epoch: Epoch(7), seq };
    Arc::new(Event::new(draft, position, 1_767_225_600_000))
}
