//! Frames of clients and what they mean, in `golden/*.txt`.
//!
//! A line that begins with `>` is a frame; the next line is the command it means, or the frame that
//! refuses it. To accept what the code does now, run with `BLESS=1` and read the difference.

use std::fmt::Write;
use std::path::Path;

use tidewire_protocol::dialect::{Alle, Dialect, Fluxbase, Native};
use tidewire_protocol::{
    Answer, Command, Frame, Interest, Payload, Reference, Since, Tag, TopicKind,
};

#[test]
fn native_frames_mean_what_their_golden_file_says() {
    check(&Native, "native.txt");
}

#[test]
fn alle_frames_mean_what_their_golden_file_says() {
    check(&Alle, "alle.txt");
}

#[test]
fn fluxbase_frames_mean_what_their_golden_file_says() {
    check(&Fluxbase, "fluxbase.txt");
}

#[test]
fn fluxbase_reads_a_binary_frame_like_a_text() {
    let frame =
        Frame::Binary(bytes::Bytes::from_static(b"{\"type\":\"subscribe\",\"channel\":\"a\"}"));
    assert_eq!(meaning(&Fluxbase, &frame), "subscribe topic:a with presence");
    let frame = Frame::Binary(bytes::Bytes::from_static(&[0xff]));
    assert!(meaning(&Fluxbase, &frame).starts_with("refused "));
}

#[test]
fn binary_frames_are_refused_by_native_and_ignored_by_alle() {
    let frame = Frame::Binary(bytes::Bytes::from_static(b"{\"type\":\"ping\"}"));
    assert_eq!(meaning(&Alle, &frame), "nothing");
    assert!(meaning(&Native, &frame).contains("\"binary_frame\""));
}

fn check(dialect: &dyn Dialect, file: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file);
    let golden = std::fs::read_to_string(&path).expect("the golden file can be read");
    let now = retold(dialect, &golden);
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, now).expect("the golden file can be written");
        return;
    }
    for (line, (then, now)) in golden.lines().zip(now.lines()).enumerate() {
        assert_eq!(then, now, "{file}, line {}", line + 1);
    }
    assert_eq!(golden.lines().count(), now.lines().count(), "{file} has a meaning for each frame");
}

/// The file with every meaning as the dialect sees it.
fn retold(dialect: &dyn Dialect, golden: &str) -> String {
    let mut out = String::new();
    for line in golden.lines().filter(|line| line.is_empty() || line.starts_with(['#', '>'])) {
        writeln!(out, "{line}").unwrap();
        if let Some(frame) = line.strip_prefix("> ") {
            writeln!(out, "{}", meaning(dialect, &Frame::text(unescaped(frame)))).unwrap();
        }
    }
    out
}

/// `␤` stands for a line end, so that a frame is one line of its file.
fn unescaped(frame: &str) -> String {
    frame.replace('␤', "\n")
}

fn meaning(dialect: &dyn Dialect, frame: &Frame) -> String {
    match dialect.decode(frame) {
        Ok(commands) if commands.is_empty() => "nothing".to_owned(),
        Ok(commands) => commands.iter().map(told).collect::<Vec<_>>().join("; "),
        Err(refusal) => match dialect.answer(&Answer::Refused(refusal)) {
            Some(Frame::Text { text, .. }) => format!("refused {text}"),
            other => panic!("a refusal is a text frame, not {other:?}"),
        },
    }
}

fn told(command: &Command) -> String {
    match command {
        Command::Subscribe(it) => {
            let since = match it.since {
                Since::Now => String::new(),
                Since::Earliest => " since earliest".to_owned(),
                Since::Position(position) => format!(" since {position}"),
            };
            let presence = if it.presence { " with presence" } else { "" };
            let implied = if it.implied { " implied" } else { "" };
            let key = key(it.key.as_deref());
            let tag = it.tag.as_ref().map_or(String::new(), |Tag(tag)| format!(" tag {tag}"));
            let wanted = wanted(&it.interest);
            let snapshot = if it.snapshot { " with snapshot" } else { "" };
            let id = id(it.reference.as_ref());
            format!(
                "subscribe {}{since}{wanted}{snapshot}{presence}{implied}{tag}{key}{id}",
                it.topic
            )
        }
        Command::Unsubscribe { topic, key: name, reference } => {
            format!("unsubscribe {topic}{}{}", key(name.as_deref()), id(reference.as_ref()))
        }
        Command::Publish(it) => {
            let (kind, content) = match &it.payload {
                Payload::Json(text) => ("json", text),
                Payload::Text(text) => ("text", text),
                Payload::Binary(_) => unreachable!("text frames hold no bytes"),
            };
            assert!(kind == "text" || it.topic.kind() != TopicKind::Notify);
            let name = it.name.as_ref().map_or(String::new(), |name| format!(" event {name:?}"));
            let echo = if it.echo { "" } else { " without echo" };
            let confirm = if it.confirm { " confirmed" } else { "" };
            let key = key(it.idempotency_key.as_deref());
            let id = id(it.reference.as_ref());
            format!("publish {} {kind} {content:?}{name}{key}{echo}{confirm}{id}", it.topic)
        }
        Command::Track { topic, key, meta, reference } => {
            let key = key.as_ref().map_or(String::new(), |key| format!(" as {key:?}"));
            format!("track {topic}{key} meta {meta}{}", id(reference.as_ref()))
        }
        Command::Untrack { topic, reference } => {
            format!("untrack {topic}{}", id(reference.as_ref()))
        }
        Command::Authenticate { token, reference } => {
            format!("authenticate {:?}{}", token.expose(), id(reference.as_ref()))
        }
        Command::Ping { reference } => format!("ping{}", id(reference.as_ref())),
    }
}

/// What of a table is wanted.
fn wanted(interest: &Interest) -> String {
    let words: Vec<_> = interest.operations.iter().map(|operation| operation.word()).collect();
    let mut out = String::new();
    if !words.is_empty() {
        write!(out, " events {}", words.join(" ")).unwrap();
    }
    if !interest.columns.is_empty() {
        write!(out, " columns {}", interest.columns.join(" ")).unwrap();
    }
    if let Some(filter) = &interest.filter {
        write!(out, " where {filter:?}").unwrap();
    }
    out
}

fn key(name: Option<&str>) -> String {
    name.map_or(String::new(), |name| format!(" key {name:?}"))
}

fn id(reference: Option<&Reference>) -> String {
    reference.map_or(String::new(), |Reference(json)| format!(" id {json}"))
}
