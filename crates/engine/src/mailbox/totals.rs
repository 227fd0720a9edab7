//! The bytes that wait in all mailboxes of a node together.
//!
//! Each mailbox may hold a part of what is left: the more wait in all, the fewer may wait in one, so
//! that the mailboxes with the most go on from history first, and the others hardly notice. (Known
//! as dynamic thresholds from the buffers of switches: Choudhury and Hahne, 1998.)

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The part of what is left that one mailbox may hold.
///
/// With an eighth, a few slow clients have all that `mailbox_bytes` allows, and many share at
/// least eight ninths of the total.
const PART: usize = 8;

/// What waits in all mailboxes; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Totals(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    bytes: AtomicUsize,
    limit: AtomicUsize,
}

impl Totals {
    pub(crate) fn new(limit: usize) -> Self {
        Self(Arc::new(Inner { bytes: AtomicUsize::new(0), limit: AtomicUsize::new(limit) }))
    }

    pub(crate) fn set_limit(&self, limit: usize) {
        self.0.limit.store(limit, Ordering::Relaxed);
    }

    pub(crate) fn bytes(&self) -> usize {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// Most bytes that may wait in one mailbox now; 0 when all that is allowed waits already.
    pub(super) fn part(&self) -> usize {
        self.0.limit.load(Ordering::Relaxed).saturating_sub(self.bytes()) / PART
    }

    pub(super) fn add(&self, bytes: usize) {
        self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn remove(&self, bytes: usize) {
        self.0.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Default for Totals {
    fn default() -> Self {
        Self::new(usize::MAX)
    }
}
