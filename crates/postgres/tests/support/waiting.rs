//! Waiting for what nobody tells, such as a row in a table: it is asked for again and again.

use std::time::Duration;

use tokio::time::{sleep, timeout};

/// Longest anything may take; generous, since the machine may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Between two questions: some hundreds a second disturb nothing.
const PAUSE: Duration = Duration::from_millis(5);

/// Whether something is so within [`PATIENCE`].
pub(crate) async fn comes_true(mut so: impl AsyncFnMut() -> bool) -> bool {
    let asked = async {
        while !so().await {
            sleep(PAUSE).await;
        }
    };
    timeout(PATIENCE, asked).await.is_ok()
}

/// Waits until something is so.
pub(crate) async fn until(what: &str, so: impl AsyncFnMut() -> bool) {
    assert!(comes_true(so).await, "not within {PATIENCE:?}: {what}");
}
