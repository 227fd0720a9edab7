//! What a history promises.

use std::collections::BTreeSet;
use std::sync::Arc;

use tidewire_protocol::presence::{Member, PresenceDiff};
use tidewire_protocol::{
    Audience, Body, Draft, Epoch, Event, GapReason, Payload, Position, SessionId, Topic, TopicKind,
};
use tokio::task::JoinSet;

use super::{message, new_topic};
use crate::history::{History, Page};

/// The history that is checked keeps about so many events of one topic: all of them up to this
/// number, and not many times as many.
pub const KEPT: usize = 100;

/// Checks every promise of [`History`] against the histories that `make` gives.
///
/// They must keep about [`KEPT`] events of each topic.
///
/// # Panics
/// When a promise is broken.
pub async fn history(make: impl AsyncFn() -> Arc<dyn History>) {
    an_unused_topic_has_a_place(make().await).await;
    positions_follow_each_other(make().await).await;
    a_batch_keeps_its_order(make().await).await;
    concurrent_appends_leave_no_holes(make().await).await;
    an_event_is_readable_before_its_append_returns(make().await).await;
    an_event_comes_back_whole(make().await).await;
    pages_follow_each_other_forwards(make().await).await;
    pages_follow_each_other_backwards(make().await).await;
    lost_places_have_their_reasons(make().await).await;
    old_events_are_trimmed_and_said_to_be(make().await).await;
    the_head_never_goes_back(make().await).await;
    topics_do_not_touch_each_other(make().await).await;
}

async fn an_unused_topic_has_a_place(history: Arc<dyn History>) {
    let topic = new_topic();
    let head = head(&history, &topic).await;
    assert_eq!(
        self::head(&history, &topic).await,
        head,
        "the head of a topic on which nothing is said should stay where it is"
    );
    assert_eq!(
        earliest(&history, &topic).await,
        head,
        "the earliest place of a topic without events should be its head"
    );
    assert!(
        read(&history, &topic, head, 10).await.is_empty(),
        "reading on from the head of a topic without events should give nothing"
    );
    let back = history.read_back(&topic, None, 10).await;
    assert!(
        events(back, "reading back").is_empty(),
        "reading back a topic without events should give nothing"
    );
    assert!(
        history.append(Vec::new()).await.is_empty(),
        "appending nothing should have no results"
    );
    history.tick();
    let event = append(&history, message(&topic, 1)).await;
    assert_eq!(
        event.position,
        head.next(),
        "the first event of a topic should follow the head that was told before"
    );
}

async fn positions_follow_each_other(history: Arc<dyn History>) {
    let topic = new_topic();
    let mut last = head(&history, &topic).await;
    for number in 0..20 {
        let event = append(&history, message(&topic, number)).await;
        assert_eq!(event.position, last.next(), "the position of an event should follow the last");
        assert_eq!(
            head(&history, &topic).await,
            event.position,
            "the head should be at the newest event once it is appended"
        );
        last = event.position;
    }
}

async fn a_batch_keeps_its_order(history: Arc<dyn History>) {
    let topics = [new_topic(), new_topic(), new_topic()];
    let mut heads = Vec::new();
    for topic in &topics {
        heads.push(head(&history, topic).await);
    }
    let drafts: Vec<Draft> =
        (0..30).map(|number| message(&topics[number % 2 + number / 20], number)).collect();
    let results = history.append(drafts.clone()).await;
    assert_eq!(results.len(), drafts.len(), "there should be one result for each draft");
    for (draft, result) in drafts.iter().zip(results) {
        let event = result.expect("an append to a history that works");
        assert_eq!(event.topic, draft.topic, "results should be in the order of their drafts");
        assert_eq!(
            text(&event),
            draft_text(draft),
            "results should be in the order of their drafts"
        );
        let place = topics.iter().position(|topic| *topic == draft.topic).expect("one of ours");
        assert_eq!(
            event.position,
            heads[place].next(),
            "events of one batch should follow each other in the order of their drafts"
        );
        heads[place] = event.position;
    }
}

async fn concurrent_appends_leave_no_holes(history: Arc<dyn History>) {
    let topic = new_topic();
    let first = head(&history, &topic).await;
    let mut tasks = JoinSet::new();
    for task in 0..8 {
        let (history, topic) = (Arc::clone(&history), topic.clone());
        tasks.spawn(append_some(history, topic, task));
    }
    let positions: Vec<Position> = tasks.join_all().await.concat();
    let expected: BTreeSet<Position> =
        (1..=80).map(|seq| Position { seq: first.seq + seq, ..first }).collect();
    assert_eq!(
        positions.iter().copied().collect::<BTreeSet<_>>(),
        expected,
        "concurrent appends should be given every position once, without holes"
    );
    let kept = read(&history, &topic, first, 1_000).await;
    assert_eq!(
        kept.iter().map(|event| event.position).collect::<BTreeSet<_>>(),
        expected,
        "what was appended concurrently should be readable without holes"
    );
}

/// Ten events, some of them in batches.
async fn append_some(history: Arc<dyn History>, topic: Topic, task: usize) -> Vec<Position> {
    let mut positions = Vec::new();
    for batch in [1, 3, 1, 5] {
        let drafts = (0..batch).map(|number| message(&topic, format!("{task} {number}"))).collect();
        for result in history.append(drafts).await {
            positions.push(result.expect("an append to a history that works").position);
        }
    }
    assert!(positions.is_sorted(), "one task's appends should be given positions in order");
    positions
}

async fn an_event_is_readable_before_its_append_returns(history: Arc<dyn History>) {
    let topic = new_topic();
    let mut tasks = JoinSet::new();
    for task in 0..4 {
        let (history, topic) = (Arc::clone(&history), topic.clone());
        tasks.spawn(async move {
            for number in 0..10 {
                let event = append(&history, message(&topic, format!("{task} {number}"))).await;
                let found = read(&history, &topic, event.position.before(), 1).await;
                let found = found.first().map(|event| (event.position, text(event)));
                assert_eq!(
                    found,
                    Some((event.position, text(&event))),
                    "an event should be readable before its append returns"
                );
            }
        });
    }
    tasks.join_all().await;
}

async fn an_event_comes_back_whole(history: Arc<dyn History>) {
    let topic = new_topic();
    let member = |reference: &str| Member {
        reference: reference.into(),
        key: "key \"1\"".into(),
        subject: Some("user \"1\"".into()),
        meta: r#"{"a":1}"#.into(),
    };
    let diff = PresenceDiff { joins: vec![member("a")], leaves: vec![member("b")] };
    let json = Payload::json(r#"{ "b":2, "a": "\u00e9🦀" }"#).expect("JSON");
    let bodies = [
        Body::Message(json),
        Body::Message(Payload::Text("two\nlines \0 and \"quotes\"".into())),
        Body::Message(Payload::Text("".into())),
        Body::Message(Payload::Binary(vec![0, 255, 10, 13].into())),
        Body::Gap(GapReason::ConnectionLost),
        Body::Presence(Arc::new(diff)),
    ];
    for (number, body) in bodies.into_iter().enumerate() {
        let audience = match number {
            0 => Audience::Except(SessionId(u64::MAX)),
            _ => Audience::Everyone,
        };
        let name = (number % 2 == 0).then(|| "order.created".into());
        let draft = Draft { topic: topic.clone(), name, body, audience };
        let said = append(&history, draft.clone()).await;
        let whole = format!("{:?}", Event::new(draft, said.position, said.at));
        assert_eq!(format!("{said:?}"), whole, "an event should be what its draft was");
        let found = read(&history, &topic, said.position.before(), 1).await;
        assert_eq!(
            found.first().map(|event| format!("{event:?}")),
            Some(whole),
            "an event should come back from the history as it went in"
        );
    }
}

async fn pages_follow_each_other_forwards(history: Arc<dyn History>) {
    let (topic, first) = filled(&history, 50).await;
    for size in [1, 7, 50, 1_000] {
        let mut place = first;
        let mut numbers = Vec::new();
        loop {
            let page = read(&history, &topic, place, size).await;
            assert!(page.len() <= size, "a page should have at most as many events as asked for");
            let Some(last) = page.last() else { break };
            place = last.position;
            numbers.extend(page.iter().map(|event| text(event)));
        }
        assert_eq!(numbers, count_to(50), "pages forwards should follow each other, oldest first");
        assert_eq!(place, head(&history, &topic).await, "the last page should end at the head");
    }
}

async fn pages_follow_each_other_backwards(history: Arc<dyn History>) {
    let (topic, _) = filled(&history, 50).await;
    let head = head(&history, &topic).await;
    for (size, start) in [(1, None), (7, Some(head.next())), (50, None), (1_000, None)] {
        let mut before = start;
        let mut numbers = Vec::new();
        loop {
            let page = history.read_back(&topic, before, size).await;
            let page = events(page, "reading back");
            assert!(page.len() <= size, "a page should have at most as many events as asked for");
            let Some(last) = page.last() else { break };
            before = Some(last.position);
            numbers.extend(page.iter().map(|event| text(event)));
        }
        numbers.reverse();
        assert_eq!(numbers, count_to(50), "pages backwards should follow each other, newest first");
    }
}

async fn lost_places_have_their_reasons(history: Arc<dyn History>) {
    let (topic, first) = filled(&history, 3).await;
    let head = head(&history, &topic).await;
    let ahead = head.next();
    lost(&history, &topic, ahead, GapReason::PositionUnknown, "ahead of the head").await;
    let far_ahead = Position { seq: u64::MAX, ..head };
    lost(&history, &topic, far_ahead, GapReason::PositionUnknown, "ahead of the head").await;
    for seq in [0, first.seq, head.seq, u64::MAX] {
        let other = Position { epoch: Epoch(head.epoch.0.wrapping_add(1)), seq };
        lost(&history, &topic, other, GapReason::EpochChanged, "of another epoch").await;
        let back = history.read_back(&topic, Some(other), 10).await;
        assert!(
            matches!(back, Ok(Page::Lost { reason: GapReason::EpochChanged, .. })),
            "reading back from a place of another epoch should be lost for that reason: {back:?}"
        );
    }
}

async fn old_events_are_trimmed_and_said_to_be(history: Arc<dyn History>) {
    let topic = new_topic();
    let first = head(&history, &topic).await;
    for batch in 0..20 {
        let drafts = (0..KEPT).map(|number| message(&topic, batch * KEPT + number)).collect();
        for result in history.append(drafts).await {
            result.expect("an append to a history that works");
        }
    }
    let (earliest, head) = (earliest(&history, &topic).await, head(&history, &topic).await);
    assert_eq!(head.seq - first.seq, 20 * KEPT as u64, "no event should be without a position");
    assert!(
        earliest > first,
        "a history that keeps {KEPT} events should let go of some when {} are said",
        20 * KEPT
    );
    lost(&history, &topic, first, GapReason::HistoryTrimmed, "older than what is kept").await;
    lost(&history, &topic, earliest.before(), GapReason::HistoryTrimmed, "just trimmed").await;
    let kept = read(&history, &topic, earliest, 20 * KEPT).await;
    assert!(kept.len() >= KEPT, "a history that keeps {KEPT} events should not keep fewer");
    let expected: Vec<_> =
        (earliest.seq + 1..=head.seq).map(|seq| (seq - first.seq - 1).to_string()).collect();
    let numbers: Vec<_> = kept.iter().map(|event| text(event)).collect();
    assert_eq!(numbers, expected, "everything after the earliest place should be readable");
    let back = events(history.read_back(&topic, None, 20 * KEPT).await, "reading back");
    assert_eq!(
        back.len(),
        kept.len(),
        "backwards there should be as many events as forwards from the earliest place"
    );
}

async fn the_head_never_goes_back(history: Arc<dyn History>) {
    let topic = new_topic();
    let writer = {
        let (history, topic) = (Arc::clone(&history), topic.clone());
        tokio::spawn(async move {
            for number in 0..3 * KEPT {
                append(&history, message(&topic, number)).await;
            }
        })
    };
    let mut last = head(&history, &topic).await;
    while !writer.is_finished() {
        let earliest = earliest(&history, &topic).await;
        let head = head(&history, &topic).await;
        assert!(head >= last, "the head should never go back, but went from {last} to {head}");
        assert!(earliest <= head, "the earliest place {earliest} should not be after {head}");
        last = head;
        tokio::task::yield_now().await;
    }
    writer.await.expect("the writer");
}

async fn topics_do_not_touch_each_other(history: Arc<dyn History>) {
    let named = new_topic();
    let name = &named.name()[..named.name().len().min(60)];
    let kinds = [TopicKind::Application, TopicKind::Private, TopicKind::Notify];
    let mut topics: Vec<_> =
        kinds.iter().map(|kind| Topic::new(*kind, name).expect("a topic's name")).collect();
    topics.push(named.presence());
    topics.push(Topic::application(&format!("{name}:2")).expect("a topic's name"));
    topics.push(Topic::application(&name.to_uppercase()).expect("a topic's name"));
    let mut places = Vec::new();
    for topic in &topics {
        places.push(head(&history, topic).await);
    }
    for (number, topic) in topics.iter().enumerate() {
        for _ in 0..=number {
            append(&history, message(topic, topic)).await;
        }
    }
    for (number, (topic, place)) in topics.iter().zip(places).enumerate() {
        let events = read(&history, topic, place, 100).await;
        assert_eq!(events.len(), number + 1, "{topic} should have its own events and no others");
        assert!(
            events.iter().all(|event| event.topic == *topic && text(event) == topic.to_string()),
            "{topic} should have its own events and no others"
        );
    }
}

/// A topic with so many events, numbered from 0, and the place before them.
async fn filled(history: &Arc<dyn History>, count: usize) -> (Topic, Position) {
    let topic = new_topic();
    let first = head(history, &topic).await;
    let drafts = (0..count).map(|number| message(&topic, number)).collect();
    for result in history.append(drafts).await {
        result.expect("an append to a history that works");
    }
    (topic, first)
}

fn count_to(end: usize) -> Vec<String> {
    (0..end).map(|number| number.to_string()).collect()
}

async fn append(history: &Arc<dyn History>, draft: Draft) -> Arc<Event> {
    let mut results = history.append(vec![draft]).await;
    assert_eq!(results.len(), 1, "there should be one result for one draft");
    results.remove(0).expect("an append to a history that works")
}

async fn read(
    history: &Arc<dyn History>,
    topic: &Topic,
    after: Position,
    limit: usize,
) -> Vec<Arc<Event>> {
    let page = events(history.read(topic, after, limit).await, "reading");
    let mut last = after;
    for event in &page {
        assert_eq!(
            event.position,
            last.next(),
            "a page should begin right after the place asked for and have no holes"
        );
        last = event.position;
    }
    page
}

fn events(page: Result<Page, crate::Error>, doing: &str) -> Vec<Arc<Event>> {
    match page.unwrap_or_else(|error| panic!("{doing} a history that works failed: {error:?}")) {
        Page::Events(events) => events,
        Page::Lost { head, reason } => {
            panic!("{doing} what should be kept was answered with {reason}, the head being {head}")
        }
    }
}

async fn lost(
    history: &Arc<dyn History>,
    topic: &Topic,
    after: Position,
    expected: GapReason,
    place: &str,
) {
    let head = head(history, topic).await;
    match history.read(topic, after, 10).await.expect("reading a history that works") {
        Page::Lost { head: told, reason } => {
            assert_eq!(reason, expected, "a place {place} should be lost for its own reason");
            assert_eq!(told, head, "who lost the place should be told the head");
        }
        Page::Events(events) => panic!(
            "a place {place} should be lost because of {expected}, but gave {} events",
            events.len()
        ),
    }
}

async fn head(history: &Arc<dyn History>, topic: &Topic) -> Position {
    history.head(topic).await.expect("asking a history that works for a head")
}

async fn earliest(history: &Arc<dyn History>, topic: &Topic) -> Position {
    history.earliest(topic).await.expect("asking a history that works for the earliest place")
}

pub(super) fn text(event: &Event) -> String {
    body_text(&event.body)
}

fn draft_text(draft: &Draft) -> String {
    body_text(&draft.body)
}

fn body_text(body: &Body) -> String {
    match body {
        Body::Message(Payload::Text(text)) => text.to_string(),
        other => panic!("a text was said, but {other:?} came back"),
    }
}
