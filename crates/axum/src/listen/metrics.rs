//! What the accept loop counts; `docs/metrics.md` lists the names.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

/// Counters of the accept loop; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct ListeningMetrics {
    /// Sockets accepted.
    pub accepted: Counter,
    /// Times no socket could be accepted, most often for want of open files.
    pub accept_failures: Counter,
    /// Sockets cut off because their first request did not come in time.
    pub cut_off: Counter,
    /// TLS handshakes that failed.
    pub tls_failures: Counter,
}

impl ListeningMetrics {
    /// Registers everything under the names of `docs/metrics.md`.
    pub fn register(&self, registry: &mut Registry) {
        let r = registry;
        r.register("sockets_accepted", "Sockets accepted", self.accepted.clone());
        r.register("accept_failures", "Times no socket was accepted", self.accept_failures.clone());
        r.register("sockets_cut_off", "Sockets without a request in time", self.cut_off.clone());
        r.register("tls_failures", "TLS handshakes that failed", self.tls_failures.clone());
    }
}
