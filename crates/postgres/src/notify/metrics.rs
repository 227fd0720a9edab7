//! What the source counts; `docs/metrics.md` lists the names.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Counters and gauges of a [`NotifySource`](super::NotifySource); cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct NotifyMetrics {
    /// Notifications received.
    pub received: Counter,
    /// Notifications nobody wanted any more, or that fell into a gap.
    pub dropped: Counter,
    /// Notifications with a character that has no Unicode form; their channels were told a gap.
    pub unreadable: Counter,
    /// Notifications sent for clients.
    pub sent: Counter,
    /// Times the listening connection was opened again.
    pub reconnects: Counter,
    /// Channels that LISTEN was said for.
    pub listens: Counter,
    /// Channels that UNLISTEN was said for.
    pub unlistens: Counter,
    /// Channels that are wanted now.
    pub channels: Gauge,
    /// 1 while there is a listening connection.
    pub connected: Gauge,
}

impl NotifyMetrics {
    /// Registers everything under names that begin with `notify_`.
    pub fn register(&self, registry: &mut Registry) {
        let r = registry.sub_registry_with_prefix("notify");
        r.register("received", "Notifications received", self.received.clone());
        r.register("dropped", "Notifications nobody wanted any more", self.dropped.clone());
        let unreadable = self.unreadable.clone();
        r.register("unreadable", "Notifications without a Unicode form", unreadable);
        r.register("sent", "Notifications sent for clients", self.sent.clone());
        r.register("reconnects", "Times listening began again", self.reconnects.clone());
        r.register("listens", "Channels LISTEN was said for", self.listens.clone());
        r.register("unlistens", "Channels UNLISTEN was said for", self.unlistens.clone());
        r.register("channels", "Channels that are wanted", self.channels.clone());
        r.register("connected", "1 while there is a connection", self.connected.clone());
    }
}
