//! What a history promises beyond the life of its process.

use std::sync::Arc;

use bytes::Bytes;
use tidewire_protocol::{Draft, Position, Topic};

use super::{message, new_topic};
use crate::history::{History, Mark, Page};

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It closes the history.
    Stopped,
    /// It is killed and closes nothing.
    Killed,
}

/// Checks what a history that outlives its process promises beside
/// [`history`](super::history()): epochs, positions, events and marks are after an end of the
/// process what they were before it.
///
/// `make` gives a history that is empty or has other topics only, and `next` ends the process it
/// is in, or does as if, and gives the history as the next process finds it.
///
/// # Panics
/// When a promise is broken.
pub async fn surviving_history(
    make: impl AsyncFn() -> Arc<dyn History>,
    next: impl AsyncFn(Arc<dyn History>, Ending) -> Arc<dyn History>,
) {
    for ending in [Ending::Stopped, Ending::Killed] {
        events_survive(make().await, &next, ending).await;
        a_head_that_was_told_survives(make().await, &next, ending).await;
        marks_survive(make().await, &next, ending).await;
        a_mark_is_as_old_as_its_events(make().await, &next, ending).await;
    }
}

async fn events_survive(
    history: Arc<dyn History>,
    next: &impl AsyncFn(Arc<dyn History>, Ending) -> Arc<dyn History>,
    ending: Ending,
) {
    let topics = [new_topic(), new_topic(), new_topic()];
    let mut history = history;
    let mut first = Vec::new();
    for topic in &topics {
        first.push(head(&history, topic).await);
    }
    for round in 0..3 {
        let drafts: Vec<Draft> =
            (0..30).map(|number| message(&topics[number % 3], round * 10 + number / 3)).collect();
        let said = append(&history, drafts).await;
        history = next(history, ending).await;
        for (topic, first) in topics.iter().zip(&first) {
            let last = Position { seq: first.seq + (round as u64 + 1) * 10, ..*first };
            assert_eq!(
                head(&history, topic).await,
                last,
                "epoch and head should survive ({ending:?})"
            );
            let kept = read(&history, topic, *first).await;
            let expected: Vec<String> = (0..(round + 1) * 10).map(|n| n.to_string()).collect();
            assert_eq!(kept, expected, "events should survive, each once and in order");
        }
        assert!(said.iter().all(|place| place.epoch == first[0].epoch), "one epoch is one epoch");
    }
}

async fn a_head_that_was_told_survives(
    history: Arc<dyn History>,
    next: &impl AsyncFn(Arc<dyn History>, Ending) -> Arc<dyn History>,
    ending: Ending,
) {
    let topic = new_topic();
    let told = head(&history, &topic).await;
    let history = next(history, ending).await;
    let page = history.read(&topic, told, 10).await.expect("a history that works");
    assert!(
        matches!(page, Page::Events(events) if events.is_empty()),
        "who was told the head of a topic without events should go on there ({ending:?})"
    );
    let said = append(&history, vec![message(&topic, 1)]).await;
    assert_eq!(said, [told.next()], "the first event should follow the head that was told");
}

async fn marks_survive(
    history: Arc<dyn History>,
    next: &impl AsyncFn(Arc<dyn History>, Ending) -> Arc<dyn History>,
    ending: Ending,
) {
    assert!(history.keeps_marks(), "a history that survives should keep marks");
    let (one, other) = (new_topic().to_string(), new_topic().to_string());
    assert_eq!(mark(&history, &one).await, None, "a source should have no mark at first");
    mark_alone(&history, &one, "1").await;
    mark_alone(&history, &other, "2").await;
    let all = history.marks(&other[..other.len() - 1]).await.expect("a history that works");
    let all: Vec<&str> = all.iter().map(|mark| &*mark.source).collect();
    assert_eq!(all, [&*other], "marks should be found by how their sources begin");
    let history = next(history, ending).await;
    assert_eq!(mark(&history, &one).await.as_deref(), Some(&b"1"[..]), "a mark should survive");
    mark_alone(&history, &one, "3").await;
    mark_alone(&history, &other, "").await;
    for history in [Arc::clone(&history), next(history, ending).await] {
        assert_eq!(
            mark(&history, &one).await.as_deref(),
            Some(&b"3"[..]),
            "a mark should replace the one before ({ending:?})"
        );
        assert_eq!(mark(&history, &other).await, None, "an empty mark should forget the source");
    }
}

async fn a_mark_is_as_old_as_its_events(
    history: Arc<dyn History>,
    next: &impl AsyncFn(Arc<dyn History>, Ending) -> Arc<dyn History>,
    ending: Ending,
) {
    let topic = new_topic();
    let first = head(&history, &topic).await;
    let source: Arc<str> = topic.to_string().into();
    let mut history = history;
    for number in 0..5 {
        let place = Bytes::from(number.to_string());
        let marks = vec![Mark { source: Arc::clone(&source), place }];
        let said = history.append_marked(vec![message(&topic, number)], marks).await;
        assert_eq!(said.expect("a history that works").len(), 1, "one event for one draft");
        history = next(history, ending).await;
        let newest = read(&history, &topic, first).await.pop().map(Bytes::from);
        assert_eq!(
            mark(&history, &source).await,
            newest,
            "a mark and the events it was appended with should both be there ({ending:?})"
        );
    }
}

async fn mark_alone(history: &Arc<dyn History>, source: &str, place: &str) {
    let mark = Mark { source: source.into(), place: Bytes::copy_from_slice(place.as_bytes()) };
    history.append_marked(Vec::new(), vec![mark]).await.expect("a history that works");
}

async fn mark(history: &Arc<dyn History>, source: &str) -> Option<Bytes> {
    history.mark(source).await.expect("a history that works")
}

async fn append(history: &Arc<dyn History>, drafts: Vec<Draft>) -> Vec<Position> {
    let said = history.append(drafts).await;
    said.into_iter().map(|event| event.expect("a history that works").position).collect()
}

async fn head(history: &Arc<dyn History>, topic: &Topic) -> Position {
    history.head(topic).await.expect("a history that works")
}

async fn read(history: &Arc<dyn History>, topic: &Topic, after: Position) -> Vec<String> {
    match history.read(topic, after, 1_000).await.expect("a history that works") {
        Page::Events(events) => events.iter().map(|event| super::history::text(event)).collect(),
        Page::Lost { reason, .. } => panic!("events that should survive are lost: {reason}"),
    }
}
