//! Clients of a node, and parts that fail on demand.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::{Mutex, RwLock};
use serde_json::{Value, json};
use tidewire::error::Kind;
use tidewire::history::{HistoryLimits, MemoryHistory, MemorySettings};
use tidewire::protocol::dialect::Native;
use tidewire::protocol::{Close, Frame, Payload, Wire};
use tidewire::{
    Draft, Error, Event, History, Identity, Namespaces, Node, Opening, Page, Position, Session,
    Topic,
};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

/// How long something may take that happens; with paused time, it takes none.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// How long nothing must happen for a test to believe that nothing will; time is paused.
const QUIET: Duration = Duration::from_millis(500);

/// A client that speaks the native dialect to a session.
pub(crate) struct Client {
    pub(crate) session: Session,
    backlog: VecDeque<Value>,
    last_id: u64,
    wire: Wire,
}

impl Client {
    pub(crate) fn open(node: &Node) -> Self {
        Self::with(node, Wire::Lines, Identity::everything())
    }

    pub(crate) fn with(node: &Node, wire: Wire, identity: Identity) -> Self {
        Self::opening(node, Opening::new(Arc::new(Native), wire, identity))
    }

    pub(crate) fn opening(node: &Node, opening: Opening) -> Self {
        let wire = opening.wire;
        let session = node.open(opening).expect("there is room for a connection");
        Self { session, backlog: VecDeque::new(), last_id: 0, wire }
    }

    /// Sends a request and waits for its answer; what comes before that is kept for later.
    pub(crate) async fn ask(&mut self, request: Value) -> Value {
        let id = self.tell(request).await;
        let mut earlier = std::mem::take(&mut self.backlog);
        loop {
            let frame = self.next().await;
            if frame["id"] == id {
                earlier.append(&mut self.backlog);
                self.backlog = earlier;
                return frame;
            }
            earlier.push_back(frame);
        }
    }

    /// Sends a request with an id and gives that.
    pub(crate) async fn tell(&mut self, mut request: Value) -> u64 {
        self.last_id += 1;
        request["id"] = self.last_id.into();
        self.say(&request).await.expect("the session goes on");
        self.last_id
    }

    /// Sends a request as it is.
    pub(crate) async fn say(&mut self, request: &Value) -> Result<(), Close> {
        self.session.receive(Frame::text(request.to_string())).await
    }

    /// Subscribes to an application topic and waits for the answer.
    pub(crate) async fn subscribe(&mut self, topic: &str) -> Value {
        let answer = self.ask(json!({"type": "subscribe", "topic": topic})).await;
        assert_eq!(answer["type"], "subscribed", "{answer}");
        answer
    }

    /// Subscribes from a place and waits for the answer.
    pub(crate) async fn resume(&mut self, topic: &str, since: &Value) -> Value {
        self.ask(json!({"type": "subscribe", "topic": topic, "since": since})).await
    }

    /// The next frame.
    pub(crate) async fn next(&mut self) -> Value {
        let next = timeout(SOON, self.next_or_end()).await;
        let next = next.expect("a frame should come soon");
        next.unwrap_or_else(|why| panic!("the session ended with {why:?}"))
    }

    async fn next_or_end(&mut self) -> Result<Value, Close> {
        loop {
            if let Some(frame) = self.backlog.pop_front() {
                return Ok(frame);
            }
            self.session.ready().await?;
            self.session.go_on().await;
            self.take();
        }
    }

    /// Takes what waits, without waiting for more.
    fn take(&mut self) {
        for outgoing in self.session.take() {
            self.backlog.extend(frames(self.wire, &outgoing.bytes));
        }
    }

    /// The next frame, which must be an event.
    pub(crate) async fn event(&mut self) -> Value {
        let frame = self.next().await;
        assert_eq!(frame["type"], "event", "{frame}");
        frame
    }

    /// The contents of the next events.
    pub(crate) async fn contents(&mut self, count: usize) -> Vec<Value> {
        let mut contents = Vec::new();
        for _ in 0..count {
            contents.push(self.event().await["data"].take());
        }
        contents
    }

    /// Makes sure that nothing more comes. Time must be paused.
    pub(crate) async fn hears_nothing(&mut self) {
        let next = timeout(QUIET, self.next_or_end()).await;
        assert!(next.is_err(), "nothing should come, but {next:?} came");
    }

    /// Every frame until nothing more comes.
    pub(crate) async fn everything(&mut self) -> Vec<Value> {
        let mut frames = Vec::new();
        while let Ok(frame) = timeout(QUIET, self.next_or_end()).await {
            frames.push(frame.unwrap_or_else(|why| panic!("the session ended with {why:?}")));
        }
        frames
    }

    /// Waits for the end of the session; what comes before is kept.
    pub(crate) async fn end(&mut self) -> Close {
        let end = async {
            let mut frames = std::mem::take(&mut self.backlog);
            loop {
                match self.next_or_end().await {
                    Ok(frame) => frames.push_back(frame),
                    Err(why) => {
                        self.backlog = frames;
                        return why;
                    }
                }
            }
        };
        timeout(SOON, end).await.expect("the session should end soon")
    }

    /// Everything that came and was not looked at.
    pub(crate) fn rest(&mut self) -> Vec<Value> {
        self.take();
        self.backlog.drain(..).collect()
    }
}

/// The JSON frames in bytes of a transport.
pub(crate) fn frames(wire: Wire, mut bytes: &[u8]) -> Vec<Value> {
    if wire == Wire::Lines {
        let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        return lines.map(|line| serde_json::from_slice(line).expect("a line is JSON")).collect();
    }
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let (header, length) = match bytes[1] {
            126 => (4, usize::from(u16::from_be_bytes([bytes[2], bytes[3]]))),
            127 => {
                let length: [u8; 8] = bytes[2..10].try_into().expect("eight bytes");
                (10, usize::try_from(u64::from_be_bytes(length)).expect("a length"))
            }
            short => (2, usize::from(short)),
        };
        if bytes[0] == 0x81 {
            let text = &bytes[header..header + length];
            frames.push(serde_json::from_slice(text).expect("a text frame is JSON"));
        }
        bytes = &bytes[header + length..];
    }
    frames
}

pub(crate) fn topic(name: &str) -> Topic {
    Topic::application(name).expect("a topic's name")
}

/// Publishes a text as a source does.
pub(crate) async fn publish(node: &Node, name: &str, content: &str) -> Position {
    let draft = Draft::message(topic(name), Payload::Text(content.into()));
    let event = node.publisher().publish(vec![draft]).await.remove(0);
    event.expect("a history that works").position
}

/// Publishes numbers, each alone.
pub(crate) async fn count(node: &Node, name: &str, numbers: std::ops::Range<usize>) {
    for number in numbers {
        publish(node, name, &number.to_string()).await;
    }
}

/// Numbers as [`count`] publishes them.
pub(crate) fn numbers(numbers: std::ops::Range<usize>) -> Vec<Value> {
    numbers.map(|number| number.to_string().into()).collect()
}

/// A history in memory that keeps so many events of each topic.
pub(crate) fn keeping(events: usize) -> MemoryHistory {
    let limits = HistoryLimits { events, bytes: usize::MAX, ..HistoryLimits::default() };
    let namespaces = Namespaces::new(Vec::new(), limits, false);
    let namespaces = Arc::new(RwLock::new(Arc::new(namespaces)));
    MemoryHistory::new(MemorySettings::default(), namespaces)
}

/// Waits until something is so.
pub(crate) async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let wait = async {
        while !so() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(SOON, wait).await.unwrap_or_else(|_| panic!("it should soon be so that {what}"));
}

/// A history in memory that can be made to fail, to hang, or to begin again.
pub(crate) struct Troubled {
    memory: Mutex<Arc<MemoryHistory>>,
    failing: AtomicBool,
    /// The topics whose reads hang.
    hanging: Mutex<Vec<Topic>>,
    released: Notify,
    pub(crate) reads: AtomicUsize,
}

impl Troubled {
    pub(crate) fn keeping(events: usize) -> Arc<Self> {
        Arc::new(Self {
            memory: Mutex::new(Arc::new(keeping(events))),
            failing: AtomicBool::new(false),
            hanging: Mutex::default(),
            released: Notify::new(),
            reads: AtomicUsize::new(0),
        })
    }

    pub(crate) fn fail(&self, failing: bool) {
        self.failing.store(failing, Ordering::SeqCst);
    }

    /// Reads of these topics, and of no others, hang from now on.
    pub(crate) fn hang(&self, topics: impl IntoIterator<Item = Topic>) {
        *self.hanging.lock() = topics.into_iter().collect();
        self.released.notify_waiters();
    }

    /// Everything is lost, and the numbers begin again.
    pub(crate) fn begin_again(&self, events: usize) {
        *self.memory.lock() = Arc::new(keeping(events));
    }

    fn memory(&self) -> Result<Arc<MemoryHistory>, Error> {
        if self.failing.load(Ordering::SeqCst) {
            return Err(Error::new(Kind::History, "the disk is gone"));
        }
        Ok(Arc::clone(&self.memory.lock()))
    }

    async fn attend(&self, topic: &Topic) -> Result<Arc<MemoryHistory>, Error> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        loop {
            let released = self.released.notified();
            if !self.hanging.lock().contains(topic) {
                return self.memory();
            }
            released.await;
        }
    }
}

#[async_trait]
impl History for Troubled {
    async fn append(&self, drafts: Vec<Draft>) -> Vec<Result<Arc<Event>, Error>> {
        match self.memory() {
            Ok(memory) => memory.append(drafts).await,
            Err(_) => drafts.iter().map(|_| self.memory().map(|_| unreachable!())).collect(),
        }
    }

    async fn read(&self, topic: &Topic, after: Position, limit: usize) -> Result<Page, Error> {
        self.attend(topic).await?.read(topic, after, limit).await
    }

    async fn read_back(
        &self,
        topic: &Topic,
        before: Option<Position>,
        limit: usize,
    ) -> Result<Page, Error> {
        self.attend(topic).await?.read_back(topic, before, limit).await
    }

    async fn head(&self, topic: &Topic) -> Result<Position, Error> {
        self.memory()?.head(topic).await
    }

    async fn earliest(&self, topic: &Topic) -> Result<Position, Error> {
        self.memory()?.earliest(topic).await
    }
}
