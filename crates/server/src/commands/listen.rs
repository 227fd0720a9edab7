//! `tidewire listen`: prints events, one line for each, and goes on after a lost connection where
//! it was.

mod lines;

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher as _;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use serde_json::{Value, json};
use tidewire::{Identity, Node, Opening};
use tidewire_postgres::{NotifyOptions, NotifySource, Target as Database};
use tidewire_protocol::dialect::Native;
use tidewire_protocol::{Command, Subscription, Topic, TopicKind, Wire};

use super::plain::{chain, escaped, sentence};
use super::remote::Remote;
use crate::args::{Args, ListenFlags, Target};

/// Pauses between attempts to connect again: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

pub(super) fn run(args: &Args, flags: ListenFlags) -> anyhow::Result<()> {
    if flags.since.is_some() && flags.names.len() > 1 {
        bail!("--since is a place in one channel; name one channel");
    }
    hint_at_tables(&flags);
    let target = flags.connection.target(&args.global, |name| std::env::var(name).ok());
    let mut listener = Listener::new(flags);
    super::small_runtime()?.block_on(async {
        match target {
            Target::Server { url, token } => listener.follow_server(&url, token.as_deref()).await,
            Target::Postgres(url) => listener.follow_database(&url).await,
        }
    })
}

/// A name with a dot is nearly always meant as a table, and a channel of that name is silent.
fn hint_at_tables(flags: &ListenFlags) {
    let is_channel = !flags.table && !flags.topic;
    if let Some(name) = flags.names.iter().find(|name| is_channel && name.contains('.')) {
        let name = escaped(name);
        eprintln!("tidewire: listening to the NOTIFY channel {name}; for a table, add --table");
    }
}

/// What is followed, and how far it was printed.
struct Listener {
    /// `topic`, `table` or `notify`.
    kind: &'static str,
    names: Vec<String>,
    filter: Option<String>,
    snapshot: bool,
    json: bool,
    places: HashMap<String, String>,
    /// Tables whose snapshot is not complete: a position counts once it is.
    incomplete: HashSet<String>,
}

/// Why a connection ended.
enum Ended {
    /// Connecting again may help.
    Lost(anyhow::Error),
    /// The server asked us to come back after a pause.
    SentAway(anyhow::Error, Duration),
    /// It will not.
    Refused(anyhow::Error),
    /// Nobody reads what is printed.
    Unread,
}

impl Listener {
    fn new(flags: ListenFlags) -> Self {
        let kind = match (flags.topic, flags.table) {
            (true, _) => "topic",
            (_, true) => "table",
            _ => "notify",
        };
        let mut places = HashMap::new();
        if let (Some(since), Some(name)) = (flags.since, flags.names.first()) {
            places.insert(name.clone(), since);
        }
        let ListenFlags { names, filter, snapshot, json, .. } = flags;
        Self { kind, names, filter, snapshot, json, places, incomplete: HashSet::new() }
    }

    /// Follows a server until it refuses or nobody reads.
    async fn follow_server(&mut self, url: &str, token: Option<&str>) -> anyhow::Result<()> {
        let mut backoff = FIRST_PAUSE;
        // The first attempt tells at once what is wrong.
        let mut connected = Ok(Remote::connect(url, token).await?);
        loop {
            let ended = match connected {
                Ok(remote) => {
                    backoff = FIRST_PAUSE;
                    self.read(remote).await
                }
                Err(error) => Ended::Lost(error),
            };
            let pause = match ended {
                Ended::Unread => return Ok(()),
                Ended::Refused(error) => return Err(error),
                Ended::Lost(error) => {
                    eprintln!("tidewire: {}; connecting again", chain(&error));
                    let pause = backoff;
                    backoff = (backoff * 2).min(LONGEST_PAUSE);
                    pause
                }
                Ended::SentAway(error, pause) => {
                    eprintln!("tidewire: {}; connecting again in {pause:?}", chain(&error));
                    pause
                }
            };
            tokio::time::sleep(scattered(pause)).await;
            connected = Remote::connect(url, token).await;
        }
    }

    async fn read(&mut self, mut remote: Remote) -> Ended {
        for (id, name) in self.names.clone().into_iter().enumerate() {
            // A number: a name may be longer than an id can be.
            let mut request = json!({ "type": "subscribe", "id": id, self.kind: name });
            if let Some(place) = self.places.get(&name) {
                request["since"] = json!(place);
            }
            if let Some(filter) = &self.filter {
                request["filter"] = json!(filter);
            }
            if self.snapshot {
                request["snapshot"] = json!(true);
            }
            if let Err(error) = remote.send(&request).await {
                return Ended::Lost(error);
            }
        }
        loop {
            match remote.next_text().await {
                Ok(text) => {
                    if let Err(ended) = self.take(&text) {
                        return ended;
                    }
                }
                Err(error) => return Ended::Lost(error),
            }
        }
    }

    /// Follows a database directly, with an engine of our own: the same order, the same gaps.
    async fn follow_database(&mut self, url: &str) -> anyhow::Result<()> {
        let target: Database = url.parse()?;
        // The first attempt tells at once what is wrong; later ones are repeated without end.
        target.probe().await?;
        let prepared = Node::builder().prepare();
        let publisher = prepared.publisher().clone();
        let source = Arc::new(NotifySource::start(target, publisher, NotifyOptions::default()));
        let node = prepared.upstream(TopicKind::Notify, Arc::clone(&source) as _).start();
        let opening = Opening::new(Arc::new(Native), Wire::Lines, Identity::everything());
        let mut session = node.open(opening).map_err(|refusal| refused(&refusal.message))?;
        for name in self.names.clone() {
            let topic = Topic::notify(&name)?;
            let wish = Command::Subscribe(Subscription::to(topic));
            session.perform(wish).await.map_err(|refusal| refused(&refusal.message))?;
        }
        loop {
            session.ready().await.map_err(|why| refused(why.meaning()))?;
            for outgoing in session.take() {
                match self.take(std::str::from_utf8(&outgoing.bytes)?) {
                    Ok(()) => {}
                    Err(Ended::Unread) => return Ok(()),
                    Err(Ended::Lost(error) | Ended::SentAway(error, _) | Ended::Refused(error)) => {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// Prints a frame if it is something to be told, and notes how far it comes.
    fn take(&mut self, text: &str) -> Result<(), Ended> {
        let frame: Value = serde_json::from_str(text).map_err(|error| Ended::Lost(error.into()))?;
        let frame = &frame;
        let name = frame[self.kind].as_str().unwrap_or_default().to_owned();
        self.note_place(&name, frame);
        match frame["type"].as_str().unwrap_or_default() {
            "event" | "change" | "rows" => self.print(&name, text).map_err(|_| Ended::Unread),
            "gap" => self.print_gap(&name, frame),
            "subscribed" if frame["outcome"] == "gap" => self.print_gap(&name, frame),
            "error" | "ended" => Err(Ended::Refused(refused(sentence(&frame["message"])))),
            "close" => Err(sent_away(frame)),
            _ => Ok(()),
        }
    }

    /// Where to go on after a lost connection; from the beginning while a snapshot is incomplete.
    fn note_place(&mut self, name: &str, frame: &Value) {
        let begins = frame["type"] == "subscribed" && frame["outcome"] != "resumed";
        if begins && self.snapshot {
            self.incomplete.insert(name.to_owned());
            self.places.remove(name);
        }
        if frame["type"] == "rows" && frame["last"] == true {
            self.incomplete.remove(name);
        }
        if let Some(position) = frame["position"].as_str()
            && !self.incomplete.contains(name)
        {
            self.places.insert(name.to_owned(), position.to_owned());
        }
    }

    fn print(&self, name: &str, frame: &str) -> std::io::Result<()> {
        let mut out = std::io::stdout().lock();
        if self.json {
            writeln!(out, "{}", lines::json(frame))?;
        } else {
            for line in lines::of(frame) {
                writeln!(out, "{}\t{line}", escaped(name))?;
            }
        }
        out.flush()
    }

    /// A gap is one of the events in JSON, and a word to the person otherwise.
    fn print_gap(&self, name: &str, frame: &Value) -> Result<(), Ended> {
        if self.json {
            let mut gap = frame.clone();
            gap["type"] = json!("gap");
            return self.print(name, &gap.to_string()).map_err(|_| Ended::Unread);
        }
        let (name, reason) = (escaped(name), escaped(sentence(&frame["reason"])));
        eprintln!("tidewire: events of {name} are missing here: {reason}");
        Ok(())
    }
}

/// What a close frame asks for: to come back after a while, or not at all.
fn sent_away(frame: &Value) -> Ended {
    let error = refused(sentence(&frame["message"]));
    if frame["retry"] == false {
        return Ended::Refused(error);
    }
    match frame["retry_after"].as_u64().map(Duration::from_secs) {
        Some(pause) => Ended::SentAway(error, pause),
        None => Ended::Lost(error),
    }
}

/// Up to a quarter longer, so that those who lost the same server do not come back as one.
fn scattered(pause: Duration) -> Duration {
    let share = RandomState::new().hash_one(()) % 256;
    pause + pause.mul_f64(share as f64 / 1_024.0)
}

fn refused(message: &str) -> anyhow::Error {
    anyhow::anyhow!("{}", escaped(message)).context("refused")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_as_long_as_asked_and_not_much_longer() {
        let asked = Duration::from_secs(4);
        for _ in 0..100 {
            assert!((asked..Duration::from_secs(5)).contains(&scattered(asked)));
        }
    }
}
