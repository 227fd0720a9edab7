//! The parts that the engine brings pass the suites that others must pass.

use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::RwLock;
use tidewire::broker::LocalBroker;
use tidewire::conformance::{self, KEPT, MEMBERS};
use tidewire::history::{HistoryLimits, MemoryHistory, MemorySettings};
use tidewire::presence::MemoryPresence;
use tidewire::{Limits, Metrics, Namespaces};
use tokio_util::sync::CancellationToken;

#[tokio::test(flavor = "multi_thread")]
async fn the_history_in_memory_keeps_its_promises() {
    conformance::history(async || {
        let limits = HistoryLimits { events: KEPT, ..HistoryLimits::default() };
        let namespaces = Namespaces::new(Vec::new(), limits, false);
        let namespaces = Arc::new(RwLock::new(Arc::new(namespaces)));
        Arc::new(MemoryHistory::new(MemorySettings::default(), namespaces)) as _
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_broker_of_one_node_carries_events() {
    conformance::broker(async || Arc::new(LocalBroker::default()) as _).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_presence_in_memory_keeps_its_promises() {
    let stop = CancellationToken::new();
    conformance::presence(async |publisher| {
        let limits = Limits { members: MEMBERS, ..Limits::default() };
        let limits = Arc::new(ArcSwap::from_pointee(limits));
        let presence = Arc::new(MemoryPresence::new(limits, Metrics::default()));
        let (telling, stop) = (Arc::clone(&presence), stop.clone());
        tokio::spawn(async move { telling.run(publisher, stop).await });
        presence as _
    })
    .await;
    stop.cancel();
}
