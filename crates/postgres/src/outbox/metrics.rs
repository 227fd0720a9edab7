//! What the outbox counts; `docs/row-changes.md` lists the names.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Counters and gauges of an [`OutboxSource`](super::OutboxSource); cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct OutboxMetrics {
    /// Rows read from the outbox.
    pub rows: Counter,
    /// Changes that PostgreSQL could not record, or that cannot be read, each of which became a gap.
    pub unrecorded: Counter,
    /// Messages that could not be delivered; where their topic could be read, it was told a gap.
    pub bad_messages: Counter,
    /// Polls of the outbox.
    pub polls: Counter,
    /// Times the reader went to sleep.
    pub sleeps: Counter,
    /// Times the reading connection was opened again.
    pub reconnects: Counter,
    /// Times that changes were lost, for every table that is followed.
    pub interruptions: Counter,
    /// 1 while changes flow.
    pub connected: Gauge,
}

impl OutboxMetrics {
    /// Registers everything under names that begin with `outbox_`.
    pub fn register(&self, registry: &mut Registry) {
        let r = registry.sub_registry_with_prefix("outbox");
        r.register("rows", "Rows read from the outbox", self.rows.clone());
        r.register(
            "unrecorded",
            "Changes that could not be recorded or read",
            self.unrecorded.clone(),
        );
        r.register("bad_messages", "Messages without sense", self.bad_messages.clone());
        r.register("polls", "Polls of the outbox", self.polls.clone());
        r.register("sleeps", "Times the reader went to sleep", self.sleeps.clone());
        r.register("reconnects", "Times reading began again", self.reconnects.clone());
        r.register("interruptions", "Times changes were lost", self.interruptions.clone());
        r.register("connected", "1 while changes flow", self.connected.clone());
    }
}
