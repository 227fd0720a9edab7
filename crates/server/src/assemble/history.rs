//! The history, where the settings put it on disk.

use std::sync::Arc;

use anyhow::Context as _;
use parking_lot::RwLock;
use prometheus_client::registry::Registry;
use tidewire::{Metrics, Namespaces};
use tidewire_adapters::disk::{DiskHistory, DiskMetrics, DiskSettings, Sync};

use crate::config::Settings;

/// Opens the history on disk, if there is to be one.
///
/// # Errors
/// When its folder cannot be used.
pub(super) fn open(
    settings: &Settings,
    namespaces: &Arc<RwLock<Arc<Namespaces>>>,
    metrics: &Metrics,
    registry: &mut Registry,
) -> anyhow::Result<Option<Arc<DiskHistory>>> {
    let history = &settings.history;
    let Some(path) = &history.path else { return Ok(None) };
    let disk = DiskSettings {
        total_bytes: history.disk_bytes,
        memory_bytes: history.total_bytes,
        sync: match history.fsync {
            true => Sync::Batch,
            false => Sync::Never,
        },
        topics: history.topics,
        idle: history.idle_topic,
        key_time: settings.idempotency.ttl,
        ..DiskSettings::new(path)
    };
    let metrics = DiskMetrics::beside(metrics);
    metrics.register(registry);
    let opened = DiskHistory::open(disk, Arc::clone(namespaces), metrics);
    opened.map(|disk| Some(Arc::new(disk))).context("opening the history")
}
