//! What the source counts; `docs/metrics.md` lists the names.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tidewire::metrics::NameLabel;

use super::error::WalErrorKind;

/// Counters and gauges of a [`WalSource`](super::WalSource); cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct WalMetrics {
    /// Changes of rows handed to the publisher.
    pub changes: Counter,
    /// Transactions read.
    pub transactions: Counter,
    /// Messages that SQL said on topics.
    pub messages: Counter,
    /// Messages with our prefix that make no sense.
    pub bad_messages: Counter,
    /// Messages with our prefix that `tidewire.publish` did not write, which are ignored.
    pub forged: Counter,
    /// Bytes of the log's messages read.
    pub bytes: Counter,
    /// Times the stream began again.
    pub reconnects: Counter,
    /// Times reading ended or could not begin, by [`WalErrorKind::word`].
    pub setbacks: Family<NameLabel, Counter>,
    /// Rows that were too large; their tables were told a gap.
    pub oversized: Counter,
    /// Rows with a character that has no Unicode form; their tables were told a gap.
    pub unreadable: Counter,
    /// Values that did not fit their type and were told as strings.
    pub misshapen: Counter,
    /// Drafts that the history did not take; their topics were told a gap.
    pub failures: Counter,
    /// Transactions that were sent while they ran, kept on disk, and told when they committed.
    pub streamed: Counter,
    /// Bytes of running transactions that were written to disk.
    pub spooled: Counter,
    /// Times they could not be kept, so that the stream began again without them.
    pub spool_refusals: Counter,
    /// Bytes of running transactions that are on disk.
    pub spool_bytes: Gauge,
    /// Bytes of log that PostgreSQL keeps for the slot.
    pub lag_bytes: Gauge,
    /// Seconds since the slot is in use without a pause.
    pub slot_age: Gauge,
    /// 1 when the slot is in danger of being given up by PostgreSQL.
    pub slot_in_danger: Gauge,
    /// 1 while the log is read.
    pub connected: Gauge,
}

impl WalMetrics {
    pub(super) fn set_back(&self, why: WalErrorKind) {
        self.setbacks.get_or_create(&NameLabel { name: why.word() }).inc();
    }

    /// Registers everything under names that begin with `wal_`.
    pub fn register(&self, registry: &mut Registry) {
        let r = registry.sub_registry_with_prefix("wal");
        r.register("changes", "Changes of rows published", self.changes.clone());
        r.register("transactions", "Transactions read", self.transactions.clone());
        r.register("messages", "Messages that SQL said on topics", self.messages.clone());
        r.register(
            "forged_messages",
            "Messages that tidewire.publish did not write, ignored",
            self.forged.clone(),
        );
        r.register("bad_messages", "Messages without sense", self.bad_messages.clone());
        r.register("bytes", "Bytes of the log's messages read", self.bytes.clone());
        r.register("reconnects", "Times the stream began again", self.reconnects.clone());
        r.register(
            "setbacks",
            "Times reading ended or could not begin, by reason",
            self.setbacks.clone(),
        );
        r.register("oversized", "Rows that were too large", self.oversized.clone());
        let unreadable = self.unreadable.clone();
        r.register("unreadable", "Rows with a character without a Unicode form", unreadable);
        r.register("misshapen", "Values told as strings", self.misshapen.clone());
        r.register("failures", "Drafts the history did not take", self.failures.clone());
        r.register("streamed", "Transactions kept while they ran", self.streamed.clone());
        r.register("spooled_bytes", "Bytes kept of running transactions", self.spooled.clone());
        r.register(
            "spool_refusals",
            "Times running transactions could not be kept",
            self.spool_refusals.clone(),
        );
        r.register("spool_bytes", "Bytes of running transactions", self.spool_bytes.clone());
        r.register("lag_bytes", "Bytes PostgreSQL keeps for the slot", self.lag_bytes.clone());
        r.register("slot_age_seconds", "Age of the slot's use", self.slot_age.clone());
        r.register(
            "slot_in_danger",
            "1 when the slot may be given up",
            self.slot_in_danger.clone(),
        );
        r.register("connected", "1 while the log is read", self.connected.clone());
    }
}
