//! A tail that was never whole is cut off; one that was lost is told.

use std::fs::OpenOptions;
use std::path::Path;

use tidewire::history::{History, Mark};
use tidewire_protocol::GapReason;

use super::*;

fn cut(path: &Path, bytes: u64) {
    OpenOptions::new().write(true).open(path).expect("a file").set_len(bytes).expect("a disk");
}

fn length(path: &Path) -> u64 {
    path.metadata().expect("a file").len()
}

#[tokio::test]
async fn a_call_that_was_killed_anywhere_is_whole_or_nothing() {
    let place = Place::new();
    let history = place.history();
    let topics = [topic("a"), topic("b")];
    let first = [head(&history, &topics[0]).await, head(&history, &topics[1]).await];
    say(&history, &topics[0], "0").await;
    let before = place.killed();
    let upto = std::fs::read(before.folder.path().join("upto")).expect("a file");
    let shorter = length(&place.segments()[0]);
    let drafts = (1..5).map(|number| message(&topics[number % 2], number)).collect();
    let mark = Mark { source: "source".into(), place: vec![7].into() };
    history.append_marked(drafts, vec![mark]).await.expect("a disk that works");
    let longer = length(&place.segments()[0]);
    for end in shorter..=longer {
        // As the disk is when the process is killed while, or right after, the record is written.
        let killed = place.killed();
        cut(&killed.segments()[0], end);
        std::fs::write(killed.folder.path().join("upto"), &upto).expect("a disk");
        let found = killed.history();
        let texts = [
            read(&found, &topics[0], first[0]).await.join(","),
            read(&found, &topics[1], first[1]).await.join(","),
        ];
        let (expected, mark) = match end == longer {
            true => (["0,2,4", "1,3"], Some(vec![7])),
            false => (["0", ""], None),
        };
        assert_eq!(texts, expected, "cut at {end} of {shorter} to {longer}");
        assert_eq!(found.mark("source").await.unwrap().map(|mark| mark.to_vec()), mark);
        let next = say(&found, &topics[0], "next").await;
        assert_eq!(next, Position { seq: if end == longer { 4 } else { 2 }, ..first[0] });
        let after = killed.killed();
        let again = after.history();
        assert_eq!(read(&again, &topics[0], next.before()).await, ["next"], "cut at {end}");
    }
}

/// Opens what is left of a history with five events after something was done to its files.
async fn check_begins_anew(harm: impl FnOnce(&Place)) {
    let place = Place::new();
    let history = place.history();
    let topic = topic("a");
    for number in 0..5 {
        say(&history, &topic, number).await;
    }
    let before = head(&history, &topic).await;
    let killed = place.killed();
    harm(&killed);
    let found = killed.history();
    let after = head(&found, &topic).await;
    assert_ne!(before.epoch, after.epoch, "numbers begin again, so it is another epoch");
    assert_eq!(after.seq, 0);
    let page = found.read(&topic, before, 10).await.expect("a history that works");
    assert!(matches!(page, Page::Lost { reason: GapReason::EpochChanged, .. }), "{page:?}");
    assert_eq!(killed.metrics.lost.get(), 1, "it is counted");
    say(&found, &topic, "on").await;
    assert_eq!(read(&killed.killed().history(), &topic, after).await, ["on"], "and it works");
}

#[tokio::test]
async fn a_tail_that_was_acknowledged_and_is_gone_begins_another_epoch() {
    for missing in [1, 50, 150] {
        check_begins_anew(|place| {
            let newest = place.segments().pop().expect("a segment");
            cut(&newest, length(&newest) - missing);
        })
        .await;
    }
}

#[tokio::test]
async fn a_byte_that_is_another_begins_another_epoch() {
    for at in [3, 30, 100, 180] {
        check_begins_anew(|place| {
            let newest = place.segments().pop().expect("a segment");
            let mut content = std::fs::read(&newest).expect("a file");
            content[at] ^= 1;
            std::fs::write(&newest, content).expect("a disk");
        })
        .await;
    }
}

#[tokio::test]
async fn a_log_that_is_gone_begins_another_epoch() {
    check_begins_anew(|place| std::fs::remove_file(&place.segments()[0]).expect("a file")).await;
    let upto = |place: &Place| std::fs::remove_file(place.folder.path().join("upto"));
    check_begins_anew(|place| upto(place).expect("a file")).await;
}

#[tokio::test]
async fn an_old_event_that_is_damaged_counts_as_gone() {
    let mut place = Place::new();
    place.settings.memory_bytes = 0;
    let history = place.history();
    let topic = topic("a");
    let first = head(&history, &topic).await;
    say(&history, &topic, "said").await;
    let segment = place.segments().remove(0);
    let mut content = std::fs::read(&segment).expect("a file");
    let last = content.len() - 1;
    content[last] ^= 1;
    std::fs::write(&segment, content).expect("a disk");
    let page = history.read(&topic, first, 10).await.expect("a history that works");
    assert!(matches!(page, Page::Lost { reason: GapReason::HistoryTrimmed, .. }), "{page:?}");
    assert_eq!(place.metrics.failures.get(), 1);
}
