//! What the listening task and those who attach share: the channels, who waits, how it goes.
//!
//! The lock is held for moments and never across a wait.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::{Mutex, MutexGuard};
use tidewire_protocol::{GapReason, Topic};
use tokio::sync::{Notify, oneshot};

use super::channels::{Batch, Channels, Full};
use super::metrics::NotifyMetrics;
use super::status::{NotifyStatus, State};
use crate::connect::ConnectError;
use crate::steadiness::Steadiness;

/// What the listening task and those who attach share.
pub(super) struct Shared {
    channels: Mutex<Channels>,
    waiting: Mutex<HashMap<Arc<str>, Vec<oneshot::Sender<()>>>>,
    changed: Notify,
    status: Mutex<NotifyStatus>,
    steadiness: Mutex<Steadiness>,
    pub(super) metrics: NotifyMetrics,
}

impl Shared {
    pub(super) fn new(channels: Channels) -> Self {
        let metrics = NotifyMetrics::default();
        metrics.channels.set(channels.len() as i64);
        Self {
            channels: Mutex::new(channels),
            waiting: Mutex::new(HashMap::new()),
            changed: Notify::new(),
            status: Mutex::new(NotifyStatus::new()),
            steadiness: Mutex::default(),
            metrics,
        }
    }

    pub(super) fn channels(&self) -> MutexGuard<'_, Channels> {
        self.channels.lock()
    }

    /// Registers an attach; the receiver is told when LISTEN is active, at once if it is already.
    pub(super) fn want(&self, topic: &Topic) -> Result<oneshot::Receiver<()>, Full> {
        let (told, wait) = oneshot::channel();
        let mut channels = self.channels.lock();
        channels.want(topic.name())?;
        if channels.is_ready(topic.name()) {
            let _ = told.send(());
        } else {
            self.waiting.lock().entry(topic.name().into()).or_default().push(told);
            self.changed.notify_one();
        }
        self.metrics.channels.set(channels.len() as i64);
        Ok(wait)
    }

    /// An attach is over.
    pub(super) fn settled(&self, topic: &Topic, attached: bool) {
        self.change(|channels| channels.settled(topic.name(), attached));
        if !attached {
            self.forget_dead_waits(topic);
        }
    }

    fn forget_dead_waits(&self, topic: &Topic) {
        let mut waiting = self.waiting.lock();
        if let Some(all) = waiting.get_mut(topic.name()) {
            all.retain(|told| !told.is_closed());
            if all.is_empty() {
                waiting.remove(topic.name());
            }
        }
    }

    pub(super) fn release(&self, topic: &Topic) {
        self.change(|channels| channels.release(topic.name()));
    }

    fn change(&self, change: impl FnOnce(&mut Channels)) {
        let mut channels = self.channels.lock();
        change(&mut channels);
        self.metrics.channels.set(channels.len() as i64);
        self.changed.notify_one();
    }

    /// Waits until somebody came or went. Cancel safe.
    pub(super) async fn wishes_changed(&self) {
        self.changed.notified().await;
    }

    pub(super) fn next_batch(&self) -> Option<Batch> {
        self.channels.lock().next_batch()
    }

    pub(super) fn batch_done(&self, batch: &Batch) {
        self.channels.lock().batch_done();
        self.metrics.listens.inc_by(batch.listen_count() as u64);
        self.metrics.unlistens.inc_by(batch.unlisten_count() as u64);
    }

    /// Tells everyone whose channel is listened to now, gap said or not.
    pub(super) fn wake_attaches(&self) {
        let channels = self.channels.lock();
        let mut waiting = self.waiting.lock();
        if waiting.is_empty() {
            return;
        }
        for (_, all) in waiting.extract_if(|channel, _| channels.is_listening(channel)) {
            for told in all {
                // Whoever gave up meanwhile needs no telling.
                let _ = told.send(());
            }
        }
    }

    pub(super) fn owed(&self) -> Vec<(Topic, GapReason)> {
        self.channels.lock().owed()
    }

    pub(super) fn paid(&self, topic: &Topic) {
        self.channels.lock().paid(topic.name());
    }

    pub(super) fn owe(&self, topic: &Topic) {
        self.channels.lock().owe(topic.name());
    }

    pub(super) fn connected(&self) {
        self.channels.lock().connected();
        let mut status = self.status.lock();
        if status.connections > 0 {
            self.metrics.reconnects.inc();
        }
        status.connections += 1;
        self.steadiness.lock().opened();
        self.look(&mut status);
        tracing::info!("listening to PostgreSQL");
    }

    pub(super) fn disconnected(&self) {
        self.channels.lock().disconnected();
        self.steadiness.lock().closed();
        self.look(&mut self.status.lock());
    }

    /// Looks whether listening works.
    fn look(&self, status: &mut NotifyStatus) {
        let works = self.steadiness.lock().is_steady();
        status.enter(if works { State::Connected } else { State::Disconnected });
        self.metrics.connected.set(i64::from(works));
    }

    /// Keeps and logs an error; the same one again is not worth a line.
    pub(super) fn failed(&self, error: &ConnectError) {
        let text = error.to_string();
        let mut status = self.status.lock();
        match self.steadiness.lock().is_news(&text) {
            true => tracing::warn!(error = text, "not listening to PostgreSQL, trying again"),
            false => tracing::debug!(error = text, "still not listening to PostgreSQL"),
        }
        status.last_error = Some(text);
    }

    /// How it goes.
    pub(super) fn status(&self) -> NotifyStatus {
        let mut status = self.status.lock();
        self.look(&mut status);
        let mut status = status.clone();
        status.channels = self.channels.lock().len();
        status
    }
}

impl NotifyStatus {
    fn new() -> Self {
        Self {
            state: State::Disconnected,
            since: SystemTime::now(),
            last_error: None,
            channels: 0,
            connections: 0,
        }
    }

    fn enter(&mut self, state: State) {
        if self.state != state {
            self.state = state;
            self.since = SystemTime::now();
        }
    }
}
