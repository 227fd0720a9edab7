//! The history on disk: what every history promises, and what is its own.

mod damage;
mod limits;
mod model;
mod place;

use std::path::Path;
use std::sync::Arc;

use parking_lot::RwLock;
use tempfile::TempDir;
use tidewire::Namespaces;
use tidewire::conformance::{self, Ending, KEPT};
use tidewire::history::{History, HistoryLimits, Page};
use tidewire_adapters::disk::{DiskError, DiskHistory, DiskMetrics, DiskSettings};
use tidewire_protocol::{Body, Draft, Event, Payload, Position, Topic};

/// A history in a folder that goes away with it.
struct Place {
    settings: DiskSettings,
    limits: HistoryLimits,
    metrics: DiskMetrics,
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        Self::copied_to(tempfile::tempdir().expect("a folder"))
    }

    fn copied_to(folder: TempDir) -> Self {
        let settings = DiskSettings::new(folder.path());
        let limits = HistoryLimits { events: KEPT, ..HistoryLimits::default() };
        Self { settings, limits, metrics: DiskMetrics::default(), folder }
    }

    fn open(&self) -> Result<DiskHistory, DiskError> {
        self.open_with(Namespaces::new(Vec::new(), self.limits, false))
    }

    fn open_with(&self, namespaces: Namespaces) -> Result<DiskHistory, DiskError> {
        let namespaces = Arc::new(RwLock::new(Arc::new(namespaces)));
        DiskHistory::open(self.settings.clone(), namespaces, self.metrics.clone())
    }

    fn history(&self) -> DiskHistory {
        self.open().expect("a history that can be opened")
    }

    /// The folder as a process that is killed now leaves it.
    fn killed(&self) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        copy(self.folder.path(), folder.path());
        let mut copied = Self::copied_to(folder);
        let path = copied.settings.path.clone();
        copied.settings = DiskSettings { path, ..self.settings.clone() };
        copied.limits = self.limits;
        copied
    }

    /// The files of the log, oldest first.
    fn segments(&self) -> Vec<std::path::PathBuf> {
        let entries = std::fs::read_dir(self.folder.path()).expect("a folder");
        let paths = entries.map(|entry| entry.expect("a file").path());
        let is_segment = |path: &std::path::PathBuf| path.extension().is_some_and(|it| it == "log");
        let mut segments: Vec<_> = paths.filter(is_segment).collect();
        segments.sort();
        segments
    }

    fn bytes(&self) -> u64 {
        self.segments().iter().map(|path| path.metadata().map_or(0, |it| it.len())).sum()
    }
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).expect("a folder") {
        let path = entry.expect("a file").path();
        // A segment that is let go of meanwhile is not there any more for a process to find.
        let _ = std::fs::copy(&path, to.join(path.file_name().expect("a file has a name")));
    }
}

fn topic(name: &str) -> Topic {
    Topic::application(name).expect("a topic's name")
}

fn message(topic: &Topic, text: impl std::fmt::Display) -> Draft {
    Draft::message(topic.clone(), Payload::Text(text.to_string().into()))
}

fn text(event: &Event) -> &str {
    match &event.body {
        Body::Message(Payload::Text(text)) => text,
        other => panic!("a text was said, but {other:?} came back"),
    }
}

async fn say(history: &DiskHistory, topic: &Topic, text: impl std::fmt::Display) -> Position {
    let said = history.append(vec![message(topic, text)]).await.pop().expect("one result");
    said.expect("a history that works").position
}

/// The texts after a place.
async fn read(history: &DiskHistory, topic: &Topic, after: Position) -> Vec<String> {
    match history.read(topic, after, 100_000).await.expect("a history that works") {
        Page::Events(events) => events.iter().map(|event| text(event).to_owned()).collect(),
        Page::Lost { reason, .. } => panic!("{topic} lost {after}: {reason}"),
    }
}

async fn head(history: &DiskHistory, topic: &Topic) -> Position {
    history.head(topic).await.expect("a history that works")
}

async fn earliest(history: &DiskHistory, topic: &Topic) -> Position {
    history.earliest(topic).await.expect("a history that works")
}

async fn conforms(memory_bytes: usize) {
    let mut place = Place::new();
    place.settings.memory_bytes = memory_bytes;
    let history: Arc<dyn History> = Arc::new(place.history());
    conformance::history(async || Arc::clone(&history)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_keeps_the_promises_of_every_history() {
    conforms(256 << 20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_keeps_them_without_memory_for_events() {
    conforms(0).await;
}

async fn survives(memory_bytes: usize) {
    let places = parking_lot::Mutex::new(Vec::new());
    let open = |mut place: Place| {
        place.settings.memory_bytes = memory_bytes;
        let history = Arc::new(place.history());
        places.lock().push((place, Arc::clone(&history)));
        history as Arc<dyn History>
    };
    conformance::surviving_history(
        async || open(Place::new()),
        async |before, ending| {
            drop(before);
            let (place, history) = places.lock().pop().expect("one is open");
            match ending {
                Ending::Killed => {
                    let next = open(place.killed());
                    drop(history);
                    next
                }
                Ending::Stopped => {
                    history.close().await.expect("a disk that works");
                    drop(history);
                    open(place)
                }
            }
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_survives_the_end_of_its_process() {
    survives(256 << 20).await;
    survives(0).await;
}
