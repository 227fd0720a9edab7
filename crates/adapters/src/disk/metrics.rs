//! What the history on disk counts; `docs/metrics.md` lists the names.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Counters and gauges of a [`DiskHistory`](super::DiskHistory); cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct DiskMetrics {
    /// Bytes of the log on disk.
    pub bytes: Gauge,
    /// Files that the log consists of.
    pub segments: Gauge,
    /// Events kept.
    pub events: Gauge,
    /// Events that a reader waited for, because they were not in memory.
    pub fetched: Counter,
    /// Events let go of because the limit of bytes on disk was reached, before their topic's limits.
    pub discarded: Counter,
    /// Writes and reads that failed.
    pub failures: Counter,
    /// Times the log was found not to be whole at the start, and begun anew.
    pub lost: Counter,
    /// Bytes of memory; the engine's own gauge for histories.
    pub memory_bytes: Gauge,
    /// Topics remembered; the engine's own gauge for histories.
    pub topics: Gauge,
    /// Times a new topic was refused; the engine's own counter for histories.
    pub topics_refused: Counter,
    /// Topics forgotten early to make place for others; the engine's own counter for histories.
    pub topics_displaced: Counter,
}

impl DiskMetrics {
    /// With the engine's gauges and counters for what every history has, which are registered by the engine.
    pub fn beside(metrics: &tidewire::Metrics) -> Self {
        Self {
            memory_bytes: metrics.history_bytes.clone(),
            topics: metrics.history_topics.clone(),
            topics_refused: metrics.topics_refused.clone(),
            topics_displaced: metrics.topics_displaced.clone(),
            ..Self::default()
        }
    }

    /// Registers everything that is of the disk, under names that begin with `history_disk_`.
    pub fn register(&self, registry: &mut Registry) {
        let r = registry.sub_registry_with_prefix("history_disk");
        r.register("bytes", "Bytes of the log on disk", self.bytes.clone());
        r.register("segments", "Files of the log", self.segments.clone());
        r.register("events", "Events kept", self.events.clone());
        r.register("fetched", "Events read from the disk", self.fetched.clone());
        r.register("discarded", "Events let go of for want of room", self.discarded.clone());
        r.register("failures", "Writes and reads that failed", self.failures.clone());
        r.register("lost", "Times the log was not whole at the start", self.lost.clone());
    }
}
