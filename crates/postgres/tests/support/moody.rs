//! A history in memory that can be made to fail or to stand still.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tidewire::error::Kind;
use tidewire::history::{Mark, MemoryHistory, MemorySettings};
use tidewire::{Error, Event, History, Page, Position, Topic};
use tidewire_protocol::Draft;
use tokio::sync::watch;

use super::PATIENCE;

/// How a history behaves towards changes of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    Well,
    Failing,
    Still,
    /// As a disk that has room for a mark and for nothing larger.
    Full,
}

/// A history that can be made to fail or to stand still.
pub(crate) struct Moody {
    memory: MemoryHistory,
    marks: Mutex<HashMap<Arc<str>, Bytes>>,
    mood: watch::Receiver<Mood>,
    /// Drafts that it takes with marks before it stands still for good, if it does.
    left: watch::Sender<Option<usize>>,
    lasting: bool,
}

impl Moody {
    /// One that keeps marks, as if it outlived us.
    pub(crate) fn new() -> (watch::Sender<Mood>, Arc<Self>) {
        Self::of(true)
    }

    /// One that ends with the process, so it keeps no marks.
    pub(crate) fn fleeting() -> (watch::Sender<Mood>, Arc<Self>) {
        Self::of(false)
    }

    fn of(lasting: bool) -> (watch::Sender<Mood>, Arc<Self>) {
        let (sender, mood) = watch::channel(Mood::Well);
        let memory = MemoryHistory::new(MemorySettings::default(), Arc::default());
        let (marks, left) = (Mutex::default(), watch::Sender::default());
        (sender, Arc::new(Self { memory, marks, mood, left, lasting }))
    }

    /// Takes so many more drafts and no more, as one whose process is killed then; `None` takes all.
    pub(crate) fn takes(&self, drafts: Option<usize>) {
        self.left.send_replace(drafts);
    }

    /// Waits until it took all that it takes.
    pub(crate) async fn stands_still(&self) {
        let still = async {
            self.left.subscribe().wait_for(|left| *left == Some(0)).await.expect("it lives");
        };
        tokio::time::timeout(PATIENCE, still)
            .await
            .expect("it takes all that it takes within 30 s");
    }

    /// The marks that are kept, for a backup.
    pub(crate) fn marks_now(&self) -> HashMap<Arc<str>, Bytes> {
        self.marks.lock().clone()
    }

    /// Goes back to a backup.
    pub(crate) fn put_marks(&self, marks: HashMap<Arc<str>, Bytes>) {
        *self.marks.lock() = marks;
    }

    fn has_room(&self, drafts: usize) -> bool {
        let mut fits = true;
        self.left.send_if_modified(|left| {
            let Some(room) = left else { return false };
            let rest = room.checked_sub(drafts);
            fits = rest.is_some();
            // What does not fit ends it.
            *room = rest.unwrap_or_default();
            true
        });
        fits
    }
}

fn moody() -> Error {
    Error::new(Kind::History, "the history is moody")
}

#[async_trait]
impl History for Moody {
    async fn append(&self, drafts: Vec<Draft>) -> Vec<Result<Arc<Event>, Error>> {
        let mut mood = self.mood.clone();
        mood.wait_for(|mood| *mood != Mood::Still).await.expect("the test lives");
        if *self.mood.borrow() == Mood::Failing {
            return drafts.iter().map(|_| Err(moody())).collect();
        }
        self.memory.append(drafts).await
    }

    async fn read(&self, topic: &Topic, after: Position, limit: usize) -> Result<Page, Error> {
        self.memory.read(topic, after, limit).await
    }

    async fn read_back(
        &self,
        topic: &Topic,
        before: Option<Position>,
        limit: usize,
    ) -> Result<Page, Error> {
        self.memory.read_back(topic, before, limit).await
    }

    async fn head(&self, topic: &Topic) -> Result<Position, Error> {
        self.memory.head(topic).await
    }

    async fn earliest(&self, topic: &Topic) -> Result<Position, Error> {
        self.memory.earliest(topic).await
    }

    fn keeps_marks(&self) -> bool {
        self.lasting
    }

    async fn append_marked(
        &self,
        drafts: Vec<Draft>,
        marks: Vec<Mark>,
    ) -> Result<Vec<Arc<Event>>, Error> {
        if *self.mood.borrow() == Mood::Full && !drafts.is_empty() {
            return Err(moody());
        }
        if !self.has_room(drafts.len()) {
            std::future::pending::<()>().await;
        }
        let events = self.append(drafts).await.into_iter().collect::<Result<Vec<_>, _>>()?;
        let mut kept = self.marks.lock();
        for mark in marks {
            kept.insert(mark.source, mark.place);
        }
        Ok(events)
    }

    async fn mark(&self, source: &str) -> Result<Option<Bytes>, Error> {
        Ok(self.marks.lock().get(source).cloned())
    }

    async fn marks(&self, prefix: &str) -> Result<Vec<Mark>, Error> {
        let marks = self.marks.lock();
        let asked = marks.iter().filter(|(name, place)| {
            // A mark without a place was taken back.
            name.starts_with(prefix) && !place.is_empty()
        });
        Ok(asked.map(|(name, at)| Mark { source: name.clone(), place: at.clone() }).collect())
    }
}
