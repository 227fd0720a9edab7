//! Having changes of a table recorded, one table at a time.

use tidewire_protocol::{Refusal, Topic};
use tokio::sync::Mutex;

use super::enabling;
use crate::connect::Pool;

/// What it takes to have changes of a table recorded.
pub(super) struct Recording {
    pool: Pool,
    /// Whether triggers may be made, and the outbox installed.
    install: bool,
    /// Installing and making triggers takes locks that two at a time would only wait for.
    one_at_a_time: Mutex<()>,
}

impl Recording {
    pub(super) fn new(pool: Pool, install: bool) -> Self {
        Self { pool, install, one_at_a_time: Mutex::default() }
    }

    /// Makes sure that changes of the table are recorded, and gives its oid.
    ///
    /// # Errors
    /// A refusal for whoever asks for the table.
    pub(super) async fn ensure(&self, table: &Topic) -> Result<u32, Refusal> {
        let _turn = self.one_at_a_time.lock().await;
        enabling::ensure(&self.pool, table, self.install).await
    }
}
