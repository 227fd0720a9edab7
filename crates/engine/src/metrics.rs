//! What the engine counts; `docs/metrics.md` lists the names.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tidewire_protocol::{Body, Event};

/// Which clients: their language and their transport.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ClientLabels {
    /// The dialect's name.
    pub dialect: &'static str,
    /// `websocket`, `event_stream` or `poll`.
    pub transport: &'static str,
}

/// Which of a list of named outcomes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct NameLabel {
    /// The name.
    pub name: &'static str,
}

/// Counters and gauges of one node; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Open sessions.
    pub connections: Family<ClientLabels, Gauge>,
    /// Sessions ever opened.
    pub connections_opened: Family<ClientLabels, Counter>,
    /// Sessions ended, by the name of the ending.
    pub closes: Family<NameLabel, Counter>,
    /// Requests refused, by code.
    pub refusals: Family<NameLabel, Counter>,
    /// Times a principal was over a budget, by budget.
    pub over_budget: Family<NameLabel, Counter>,
    /// Bytes that wait for clients that read slowly.
    pub mailbox_bytes: Gauge,
    /// Requests received from clients.
    pub requests: Counter,
    /// Subscriptions in force.
    pub subscriptions: Gauge,
    /// Topics with a listener on this node.
    pub topics: Gauge,
    /// Events given a position.
    pub events: Counter,
    /// Events handed to a client's mailbox or socket.
    pub deliveries: Counter,
    /// Times a subscription fell behind and went on from history.
    pub fell_behind: Counter,
    /// Places told to listeners for whom nothing was said.
    pub bookmarks: Counter,
    /// Gaps that somebody was told, by reason.
    pub gaps: Family<NameLabel, Counter>,
    /// Announcements dropped because the relay was busy; found again in the history.
    pub announcements_dropped: Counter,
    /// Times the relay read events from history because an announcement was missing.
    pub backfills: Counter,
    /// Times a topic waited because what was written to some of its listeners lagged too far behind.
    pub lanes_full: Counter,
    /// Bytes of history in memory.
    pub history_bytes: Gauge,
    /// Topics with history in memory.
    pub history_topics: Gauge,
    /// Topics dropped from memory before their time to make place for others.
    pub topics_displaced: Counter,
    /// Times a new topic was refused because there were as many as there may be.
    pub topics_refused: Counter,
    /// Members tracked on this node.
    pub members: Gauge,
    /// Publications under way that wait for the history or an upstream.
    pub publishing: Gauge,
    /// Failures of history, broker or presence.
    pub failures: Counter,
}

impl Metrics {
    /// Registers everything under the names of `docs/metrics.md`.
    pub fn register(&self, registry: &mut Registry) {
        let r = registry;
        r.register("connections", "Open sessions", self.connections.clone());
        r.register("connections_opened", "Sessions ever opened", self.connections_opened.clone());
        r.register("closes", "Sessions ended, by name", self.closes.clone());
        r.register("refusals", "Requests refused, by code", self.refusals.clone());
        r.register(
            "over_budget",
            "Times a client was over a budget, by budget",
            self.over_budget.clone(),
        );
        r.register(
            "mailbox_bytes",
            "Bytes that wait for clients that read slowly",
            self.mailbox_bytes.clone(),
        );
        r.register("requests", "Requests received from clients", self.requests.clone());
        r.register("subscriptions", "Subscriptions in force", self.subscriptions.clone());
        r.register("topics", "Topics with a listener on this node", self.topics.clone());
        r.register("events", "Events given a position", self.events.clone());
        r.register("deliveries", "Events handed to clients", self.deliveries.clone());
        r.register(
            "fell_behind",
            "Times a subscription went on from history",
            self.fell_behind.clone(),
        );
        r.register(
            "bookmarks",
            "Places told to listeners for whom nothing was said",
            self.bookmarks.clone(),
        );
        r.register("gaps", "Gaps told, by reason", self.gaps.clone());
        r.register(
            "announcements_dropped",
            "Announcements dropped under load and found again in history",
            self.announcements_dropped.clone(),
        );
        r.register("backfills", "Reads of missing events", self.backfills.clone());
        r.register(
            "lanes_full",
            "Times a topic with many listeners waited for some of them",
            self.lanes_full.clone(),
        );
        r.register("history_bytes", "Bytes of history in memory", self.history_bytes.clone());
        r.register("history_topics", "Topics with history", self.history_topics.clone());
        r.register(
            "topics_displaced",
            "Topics forgotten early to make place for others",
            self.topics_displaced.clone(),
        );
        r.register(
            "topics_refused",
            "Times a new topic was refused because there were too many",
            self.topics_refused.clone(),
        );
        r.register("members", "Members tracked on this node", self.members.clone());
        r.register(
            "publishing",
            "Publications under way that wait for the history or PostgreSQL",
            self.publishing.clone(),
        );
        r.register("failures", "Failures of parts", self.failures.clone());
    }

    pub(crate) fn gap(&self, reason: tidewire_protocol::GapReason) {
        self.gaps.get_or_create(&NameLabel { name: reason.word() }).inc();
    }

    /// Counts the gaps among events that somebody is told.
    pub(crate) fn gaps_in<'e>(&self, events: impl IntoIterator<Item = &'e Arc<Event>>) {
        for event in events {
            if let Body::Gap(reason) = event.body {
                self.gap(reason);
            }
        }
    }

    /// Counts a refused request.
    pub fn refused(&self, code: tidewire_protocol::Code) {
        self.refusals.get_or_create(&NameLabel { name: code.word() }).inc();
    }
}
