//! The pages under `docs/` say what the code does, example by example and row by row.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

use tidewire_protocol::dialect::{Alle, AlleEvents, Dialect, Fluxbase, Native, View};
use tidewire_protocol::{Body, Close, Code, Command, Frame, GapReason};

use crate::samples::{self, Sample};

/// Types of requests that the native page must show in an example.
const NATIVE_TYPES: [&str; 7] =
    ["subscribe", "unsubscribe", "publish", "track", "untrack", "authenticate", "ping"];

/// Fields of requests that the native page must show in an example.
const NATIVE_FIELDS: [&str; 18] = [
    "type", "id", "topic", "table", "notify", "private", "since", "presence", "event", "data",
    "echo", "key", "meta", "token", "events", "columns", "filter", "snapshot",
];

#[test]
fn every_native_request_shown_is_one() {
    let page = page("dialects/native.md");
    let examples = blocks(&page, "json client");
    check_requests(&Native, &examples);
    let shown: String = examples.concat();
    for word in NATIVE_TYPES {
        assert!(shown.contains(&format!("{{\"type\":\"{word}\"")), "no example of {word}");
    }
    for field in NATIVE_FIELDS {
        assert!(shown.contains(&format!("\"{field}\":")), "no example has {field}");
    }
}

#[test]
fn every_native_frame_is_shown_as_it_is_written() {
    let page = page("dialects/native.md");
    check_frames(&Native, &samples::native(), &blocks(&page, "json server"));
}

#[test]
fn every_reason_for_a_gap_is_explained() {
    let page = page("dialects/native.md");
    for reason in GapReason::ALL {
        assert!(page.contains(&format!("| `{reason}` | ")), "{reason} has no row");
    }
}

#[test]
fn every_alle_request_shown_is_one() {
    check_requests(&Alle, &blocks(&page("dialects/alle.md"), "json client"));
}

#[test]
fn every_alle_frame_is_shown_as_it_is_written() {
    let page = page("dialects/alle.md");
    check_frames(&Alle, &samples::alle(), &blocks(&page, "json server"));
    check_frames(&AlleEvents, &samples::alle_events(), &blocks(&page, "json stream"));
}

#[test]
fn every_fluxbase_request_shown_is_one() {
    for example in blocks(&page("dialects/fluxbase.md"), "json client") {
        let commands = Fluxbase.decode(&Frame::text(&example));
        assert!(commands.is_ok(), "{example} is refused: {commands:?}");
    }
}

#[test]
fn every_fluxbase_frame_is_shown_as_it_is_written() {
    let page = page("dialects/fluxbase.md");
    check_frames(&Fluxbase, &samples::fluxbase(), &blocks(&page, "json server"));
}

#[test]
fn the_page_of_errors_has_every_code() {
    let mut rows = String::new();
    for code in Code::ALL {
        let (word, status, retry) = (code.word(), code.status(), code.retry().word());
        writeln!(rows, "| `{word}` | {status} | {retry} | {} |", code.meaning()).unwrap();
    }
    check_table("errors.md", &rows);
}

#[test]
fn the_page_of_endings_has_every_ending() {
    let mut rows = String::new();
    for close in Close::ALL {
        let after = match (close, close.retry_after()) {
            (Close::Restart { .. }, _) => "as told".to_owned(),
            (_, Some(seconds)) => format!("{seconds} s"),
            (_, None) => "no".to_owned(),
        };
        let (code, name) = (close.code(), close.name());
        writeln!(rows, "| {code} | `{name}` | {after} | {} |", close.meaning()).unwrap();
    }
    check_table("close-codes.md", &rows);
}

/// Each example is one request.
fn check_requests(dialect: &dyn Dialect, examples: &[String]) {
    assert!(!examples.is_empty(), "the page has examples");
    for example in examples {
        let commands: Vec<Command> =
            dialect.decode(&Frame::text(example)).unwrap_or_else(|refusal| {
                panic!("the {} dialect refuses {example}: {refusal:?}", dialect.name())
            });
        assert_eq!(commands.len(), 1, "{example}");
    }
}

/// The examples are the samples as the dialect writes them, none more and none fewer.
fn check_frames(dialect: &dyn Dialect, samples: &[Sample], examples: &[String]) {
    let written: BTreeSet<String> = samples.iter().flat_map(|it| frames(dialect, it)).collect();
    let shown: BTreeSet<String> = examples.iter().cloned().collect();
    let missing: Vec<_> = written.difference(&shown).collect();
    let wrong: Vec<_> = shown.difference(&written).collect();
    assert!(missing.is_empty() && wrong.is_empty(), "missing: {missing:#?}\nwrong: {wrong:#?}");
}

fn frames(dialect: &dyn Dialect, sample: &Sample) -> Vec<String> {
    let frames = match sample {
        Sample::Answer(answer) => dialect.answers(answer),
        Sample::Event(event) => Vec::from_iter(dialect.event(event, None)),
        Sample::Change(change, tag, movement) => {
            let view = View { tag: tag.as_ref(), columns: None, movement: *movement };
            Vec::from_iter(dialect.change(&samples::changed(change), change, &view))
        }
        Sample::Presence(event, members) => {
            let Body::Presence(diff) = &event.body else { panic!("{event:?} is no presence") };
            dialect.presence(event, diff, Some(members), None)
        }
        Sample::Bookmark(topic, position) => {
            Vec::from_iter(dialect.bookmark(topic, *position, None))
        }
        Sample::Close(close) => Vec::from_iter(dialect.close(*close)),
        Sample::Heartbeat => Vec::from_iter(dialect.heartbeat()),
    };
    assert!(!frames.is_empty(), "the {} dialect has nothing for {sample:?}", dialect.name());
    let text = |frame| match frame {
        Frame::Text { text, .. } => text,
        Frame::Binary(_) => panic!("these dialects write text"),
    };
    frames.into_iter().map(text).collect()
}

fn check_table(name: &str, rows: &str) {
    let page = page(name);
    let heading = page.find("|---|").expect("the page has a table");
    let start = heading + page[heading..].find('\n').expect("the heading is a line") + 1;
    assert_eq!(&page[start..], rows, "the rows of docs/{name} should be those on the right");
}

fn page(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The contents of the fenced blocks of one language, their line breaks taken out.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if line.strip_prefix("```") == Some(language) {
            let block = lines.by_ref().take_while(|line| *line != "```");
            blocks.push(block.map(str::trim_start).collect());
        }
    }
    blocks
}
