//! What is let go of, and when.

use std::time::Duration;

use tidewire::auth::Pattern;
use tidewire::history::History;
use tidewire::namespace::Namespace;
use tidewire_protocol::GapReason;

use super::*;

const LIMIT: u64 = 2 << 20;

fn small() -> Place {
    let mut place = Place::new();
    place.settings.total_bytes = LIMIT;
    place
}

/// Says so many kilobytes on a topic, in batches of sixteen.
async fn fill(history: &DiskHistory, topic: &Topic, kilobytes: usize) {
    let kilobyte = "x".repeat(900);
    for batch in 0..kilobytes / 16 {
        let drafts = (0..16).map(|at| message(topic, format!("{batch} {at} {kilobyte}")));
        for said in history.append(drafts.collect()).await {
            said.expect("a history that works");
        }
    }
}

#[tokio::test]
async fn a_quiet_topic_outlives_the_segments_that_a_busy_one_fills() {
    let place = small();
    let history = place.history();
    let (quiet, busy) = (topic("quiet"), topic("busy"));
    let first = head(&history, &quiet).await;
    for number in 0..50 {
        say(&history, &quiet, number).await;
        fill(&history, &busy, 256).await;
        assert!(place.bytes() <= LIMIT, "the log takes {} bytes", place.bytes());
    }
    let expected: Vec<String> = (0..50).map(|number| number.to_string()).collect();
    assert_eq!(read(&history, &quiet, first).await, expected);
    assert_eq!(place.metrics.discarded.get(), 0);
    let next = place.killed();
    assert_eq!(read(&next.history(), &quiet, first).await, expected, "moved events survive, too");
}

#[tokio::test]
async fn what_is_too_much_for_the_disk_goes_and_is_said_to_be_gone() {
    let mut place = small();
    place.limits = HistoryLimits { events: 1_000_000, bytes: 1 << 30, ..place.limits };
    let history = place.history();
    let busy = topic("busy");
    let first = head(&history, &busy).await;
    fill(&history, &busy, 8 << 10).await;
    assert!(place.bytes() <= LIMIT, "the log takes {} bytes", place.bytes());
    assert!(place.metrics.discarded.get() > 0, "it is counted");
    let page = history.read(&busy, first, 10).await.expect("a history that works");
    assert!(matches!(page, Page::Lost { reason: GapReason::HistoryTrimmed, .. }), "{page:?}");
    let (from, head) = (earliest(&history, &busy).await, head(&history, &busy).await);
    let kept = read(&history, &busy, from).await;
    assert_eq!(kept.len() as u64, head.seq - from.seq);
    assert!(kept.len() > 1_000, "most of the limit is used: {} events", kept.len());
    let next = place.killed();
    assert_eq!(read(&next.history(), &busy, from).await, kept);
}

#[tokio::test]
async fn a_topic_of_which_nothing_is_kept_keeps_its_numbers() {
    let place = small();
    let pattern = "fleeting".parse::<Pattern>().expect("a pattern");
    let nothing = Namespace { events: Some(0), ..Namespace::of(pattern) };
    let namespaces = Namespaces::new(vec![nothing], place.limits, false);
    let history = place.open_with(namespaces.clone()).expect("a disk that works");
    let (fleeting, busy) = (topic("fleeting"), topic("busy"));
    for number in 0..3 {
        say(&history, &fleeting, number).await;
    }
    let told = head(&history, &fleeting).await;
    fill(&history, &busy, 8 << 10).await;
    assert_eq!(head(&history, &fleeting).await, told);
    let killed = place.killed();
    let next = killed.open_with(namespaces).expect("a disk that works");
    assert_eq!(head(&next, &fleeting).await, told, "though no segment of then is left");
    assert_eq!(say(&next, &fleeting, "on").await, told.next());
}

#[tokio::test]
async fn limits_hold_for_what_was_there_before_a_restart() {
    let mut place = Place::new();
    let history = place.history();
    let topic = topic("a");
    for number in 0..50 {
        say(&history, &topic, number).await;
    }
    let head = head(&history, &topic).await;
    let mut killed = place.killed();
    killed.limits.events = 10;
    let next = killed.history();
    assert_eq!(earliest(&next, &topic).await, Position { seq: head.seq - 10, ..head });
    killed.limits = HistoryLimits { age: Duration::ZERO, ..killed.limits };
    // Older than nothing is at least a millisecond.
    tokio::time::sleep(Duration::from_millis(2)).await;
    assert_eq!(earliest(&killed.killed().history(), &topic).await, head);
    place.limits.bytes = 300;
    assert_eq!(earliest(&place.killed().history(), &topic).await, head.before());
}

#[tokio::test]
async fn a_page_of_events_that_are_not_in_memory_comes_from_the_disk() {
    let mut place = Place::new();
    place.limits.events = 5_000;
    let history = place.history();
    let topic = topic("a");
    let first = head(&history, &topic).await;
    for batch in 0..100 {
        let drafts = (0..20).map(|number| message(&topic, batch * 20 + number)).collect();
        history.append(drafts).await;
        say(&history, &super::topic("b"), batch).await;
    }
    let next = place.killed();
    let found = next.history();
    let expected: Vec<String> = (0..2_000).map(|number| number.to_string()).collect();
    assert_eq!(read(&found, &topic, first).await, expected);
    assert_eq!(next.metrics.fetched.get(), 2_000);
    say(&found, &topic, 2_000).await;
    let back = found.read_back(&topic, None, 3).await.expect("a history that works");
    let Page::Events(back) = back else { panic!("it is kept: {back:?}") };
    assert_eq!(back.iter().map(|event| text(event)).collect::<Vec<_>>(), ["2000", "1999", "1998"]);
}
