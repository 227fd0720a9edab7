//! Tables as a world outside: which source their changes come from, what listeners want of them,
//! and their rows.

mod former;
mod securing;

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tidewire::protocol::{Code, Interest, Payload, Refusal, Topic};
use tidewire::{Prepared, Publisher, TableRows, Upstream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::changes::{SharedSource, SourceStatus};
use crate::connect::Target;
use crate::outbox::{OutboxOptions, OutboxSource, marks};
use crate::prepare::Preparer;
use crate::row_security::RowSecurity;
use crate::snapshot::{SnapshotLimits, Snapshots};
use crate::sql::{Sink, installation, set_sink};
use crate::wal::{SlotKind, WalError, WalOptions, WalSource};
use securing::{Listened, Securing};

/// How long a client that subscribes waits for a source to be chosen while the database is down.
const CHOICE_PATIENCE: Duration = Duration::from_secs(10);

/// Pause between two attempts to find out what the database allows.
const PROBE_PAUSE: Duration = Duration::from_secs(2);

/// Where row changes come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SourceChoice {
    /// The write-ahead log where the database allows it, else the outbox.
    #[default]
    Auto,
    /// The write-ahead log, by logical replication.
    Wal,
    /// Triggers that write an outbox.
    Outbox,
}

impl FromStr for SourceChoice {
    type Err = UnknownSource;

    fn from_str(text: &str) -> Result<Self, UnknownSource> {
        match text {
            "auto" => Ok(Self::Auto),
            "wal" => Ok(Self::Wal),
            "outbox" => Ok(Self::Outbox),
            _ => Err(UnknownSource),
        }
    }
}

/// The text names no source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a source of row changes is one of auto, wal and outbox")]
pub struct UnknownSource;

/// How row changes are followed.
#[derive(Clone, Default)]
pub struct TableOptions {
    /// Where they come from.
    pub source: SourceChoice,
    /// For the write-ahead log.
    pub wal: WalOptions,
    /// For the outbox.
    pub outbox: OutboxOptions,
    /// How many rows a subscription may begin with.
    pub snapshot: SnapshotLimits,
    /// Who sees tables with row level security; nobody by default.
    pub row_security: Option<RowSecurity>,
    /// Where the source that is chosen registers what it counts.
    pub registry: Option<Arc<Mutex<Registry>>>,
}

/// Tables of one database. Dropping it cuts its source off; [`TableSource::shutdown`] ends it
/// politely.
pub struct TableSource {
    chosen: watch::Receiver<Option<Chosen>>,
    preparer: Preparer,
    snapshots: Snapshots,
    /// Someone wants a table.
    wanted: Arc<Notify>,
    row_security: RowSecurity,
    listened: Listened,
    secured: watch::Receiver<u64>,
    stop: CancellationToken,
    choosing: Mutex<Option<JoinHandle<()>>>,
    securing: Mutex<Option<JoinHandle<()>>>,
}

/// The source that was chosen.
#[derive(Clone)]
struct Chosen {
    source: SharedSource,
    /// Why it is not the write-ahead log, where that would have been taken; for clients.
    why_not_wal: Option<Arc<str>>,
}

impl Chosen {
    /// A source that lacks something in the database is not the only way: the other one may take
    /// less.
    fn explain(&self, mut refusal: Refusal) -> Refusal {
        if let (Code::NotConfigured, Some(why)) = (refusal.code, &self.why_not_wal) {
            refusal.message = format!(
                "{}; or, to read the write-ahead log instead, mend this and start the server \
                 again: {why}",
                refusal.message
            );
        }
        refusal
    }
}

impl TableSource {
    /// Will find out what the database allows, and start the source, when a table is first
    /// listened to: a server that is asked for none leaves no slot and no trigger. With a
    /// persistent slot it starts at once, so that nothing is missed, and where the SQL surface is
    /// installed too, because `tidewire.publish` may say something at any time.
    ///
    /// Does not wait for the database, which may be down. Must be called inside a Tokio runtime.
    pub fn start(target: Target, publisher: Publisher, mut options: TableOptions) -> Self {
        let preparer = Preparer::new(&target);
        let snapshots = Snapshots::new(&target, preparer.clone(), options.snapshot);
        let (chosen_is, chosen) = watch::channel(None);
        let (wanted, stop) = (Arc::new(Notify::new()), CancellationToken::new());
        let rule = options.row_security.clone();
        let row_security =
            rule.unwrap_or_else(|| RowSecurity::new(&target, std::iter::empty::<Arc<str>>()));
        options.wal.bypass_row_security = row_security.is_bypassed();
        let (switched, secured) = watch::channel(0);
        let listened = Listened::default();
        let securing = Securing {
            listened: listened.clone(),
            rule: row_security.clone(),
            publisher: publisher.clone(),
            chosen: chosen.clone(),
            switched,
            stop: stop.clone(),
        };
        let securing = Mutex::new(Some(tokio::spawn(securing.run())));
        if options.wal.slot != SlotKind::Temporary && options.source != SourceChoice::Outbox {
            wanted.notify_one();
        }
        let (wish, stopping) = (Arc::clone(&wanted), stop.clone());
        let choosing = tokio::spawn(async move {
            tokio::select! {
                () = stopping.cancelled() => return,
                () = wish.notified() => {}
                () = has_messages(&target) => {}
            }
            choose(target, publisher, options, chosen_is, stopping).await;
        });
        let choosing = Mutex::new(Some(choosing));
        Self {
            chosen,
            preparer,
            snapshots,
            wanted,
            row_security,
            listened,
            secured,
            stop,
            choosing,
            securing,
        }
    }

    /// Changes whenever row level security was switched on for a table that is listened to: then
    /// whoever may not see it any more is to be told so.
    pub fn secured(&self) -> watch::Receiver<u64> {
        self.secured.clone()
    }

    /// How the source is; `None` before it was needed.
    pub fn status(&self) -> Option<SourceStatus> {
        self.chosen.borrow().as_ref().map(|chosen| chosen.source.status())
    }

    /// Ends the source and lets go of what it holds in the database.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        let tasks = [self.choosing.lock().take(), self.securing.lock().take()];
        for task in tasks.into_iter().flatten() {
            let _ = task.await;
        }
        let chosen = self.chosen.borrow().clone();
        if let Some(chosen) = chosen {
            chosen.source.shutdown().await;
        }
    }

    async fn chosen(&self) -> Result<Chosen, Refusal> {
        self.wanted.notify_one();
        let mut chosen = self.chosen.clone();
        let waited = tokio::time::timeout(CHOICE_PATIENCE, chosen.wait_for(Option::is_some)).await;
        match waited {
            Ok(Ok(chosen)) => Ok(chosen.clone().expect("it was waited for")),
            _ => Err(Refusal::new(Code::Unavailable, "the database cannot be reached")),
        }
    }
}

impl Drop for TableSource {
    fn drop(&mut self) {
        self.stop.cancel();
        let tasks = [&mut self.choosing, &mut self.securing];
        for task in tasks.into_iter().filter_map(|task| task.get_mut().take()) {
            task.abort();
        }
    }
}

/// Returns when the SQL surface is found to be installed; never when it is not.
async fn has_messages(target: &Target) {
    loop {
        match installation(target).await {
            Ok(Some(_)) => return,
            Ok(None) => return std::future::pending().await,
            // The database may be down for now.
            Err(_) => tokio::time::sleep(PROBE_PAUSE).await,
        }
    }
}

/// Starts the source that was asked for, or the one that the database allows.
async fn choose(
    target: Target,
    publisher: Publisher,
    options: TableOptions,
    chosen: watch::Sender<Option<Chosen>>,
    stop: CancellationToken,
) {
    let (wal, why_not_wal) = match options.source {
        SourceChoice::Wal => (true, None),
        SourceChoice::Outbox => (false, None),
        SourceChoice::Auto => {
            tokio::select! {
                () = stop.cancelled() => return,
                obstacle = obstacle_to_wal(&target, &options.wal) => match obstacle {
                    None => (true, None),
                    Some(why) => (false, why.nameless().map(Arc::from)),
                },
            }
        }
    };
    if wal && let Err(why) = set_sink(&target, Sink::Wal).await {
        tracing::warn!(
            error = &why as &dyn std::error::Error,
            "tidewire.publish() may write where nobody reads"
        );
    }
    let other = if wal { marks::OUTBOX } else { former::WAL };
    tokio::select! {
        () = stop.cancelled() => return,
        () = end_former(&publisher, other) => {}
    }
    let registry = options.registry;
    let mut registry = registry.as_ref().map(|registry| registry.lock());
    let source: SharedSource = if wal {
        let source = WalSource::start(target, publisher, options.wal);
        registry.iter_mut().for_each(|registry| source.metrics().register(registry));
        Arc::new(source)
    } else {
        let source = OutboxSource::start(target, publisher, options.outbox);
        registry.iter_mut().for_each(|registry| source.metrics().register(registry));
        Arc::new(source)
    };
    drop(registry);
    tracing::info!(source = source.status().name, "following row changes");
    chosen.send_replace(Some(Chosen { source, why_not_wal }));
}

/// Ends what the other source left in the history, however long that takes: until then nothing must be
/// told.
async fn end_former(publisher: &Publisher, other: &str) {
    while let Err(error) = former::end(publisher, other).await {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "the history does not take that the source of row changes is another now"
        );
        tokio::time::sleep(PROBE_PAUSE).await;
    }
}

/// Asks until the database answers, and gives why its log cannot be read, if it cannot.
async fn obstacle_to_wal(target: &Target, options: &WalOptions) -> Option<WalError> {
    loop {
        match WalSource::probe(target, options).await {
            Ok(()) => return None,
            Err(why) if why.is_unsupported() => {
                tracing::info!(%why, "row changes come from triggers, not from the write-ahead log");
                return Some(why);
            }
            Err(why) => {
                tracing::debug!(%why, "finding out how row changes may be followed");
                tokio::time::sleep(PROBE_PAUSE).await;
            }
        }
    }
}

#[async_trait]
impl Upstream for TableSource {
    async fn attach(&self, topic: &Topic) -> Result<(), Refusal> {
        self.row_security.check_for_any(topic).await?;
        let chosen = self.chosen().await?;
        chosen.source.add(topic).await.map_err(|refusal| chosen.explain(refusal))?;
        self.listened.insert(topic);
        // It may have been switched on since; from here on it is looked after.
        self.row_security.check_for_any(topic).await
    }

    fn detach(&self, topic: &Topic) {
        self.listened.remove(topic);
        if let Some(chosen) = self.chosen.borrow().as_ref() {
            chosen.source.remove(topic);
        }
    }

    async fn emit(&self, topic: &Topic, _: &Payload) -> Result<(), Refusal> {
        Err(Refusal::new(Code::BadField, "tables are written in SQL").about(topic))
    }

    async fn prepare(&self, topic: &Topic, interest: &Interest) -> Result<Prepared, Refusal> {
        self.preparer.prepare(topic, interest).await
    }

    async fn snapshot(&self, topic: &Topic, interest: &Interest) -> Result<TableRows, Refusal> {
        let rows = self.snapshots.snapshot(topic, interest).await?;
        // Asked after the rows were read, so that it was not on when they were.
        self.row_security.check_for_any(topic).await?;
        self.chosen().await?.source.catch_up().await?;
        Ok(rows)
    }
}
