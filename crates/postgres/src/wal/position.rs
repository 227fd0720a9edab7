//! Catching up: returning once everything that a query could have seen was published.

use std::time::Duration;

use tidewire_protocol::Refusal;
use tokio::time::Instant;
use tokio_postgres::Client;

use super::pgoutput::Lsn;
use super::shared::Shared;

/// How long catching up may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often the server is asked how far it is while we wait. It tells by itself when it is done
/// with its log; asking is for when it was already.
const ASK_EVERY: Duration = Duration::from_millis(50);

/// What begins a page of the log, and the first page of a segment.
const PAGE_HEAD: u64 = 24;
const SEGMENT_HEAD: u64 = 40;
const PAGE: u64 = 8_192;

/// Returns once everything that committed before now was published.
pub(super) async fn catch_up(shared: &Shared) -> Result<(), Refusal> {
    let deadline = Instant::now() + PATIENCE;
    let target = match shared.pool.get().await {
        Ok(pooled) => pooled.run(end_of_log).await,
        Err(_) => None,
    };
    let Some(Ok(target)) = target else { return Err(shared.unavailable()) };
    let caught_up =
        |progress: &super::shared::Progress| progress.run.is_some() && progress.processed >= target;
    loop {
        shared.ask.notify_one();
        let soon = (Instant::now() + ASK_EVERY).min(deadline);
        if shared.until(soon, caught_up).await.is_ok() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(shared.unavailable());
        }
    }
}

/// The place behind everything that is visible now. What is not flushed yet, because its writers
/// do not wait for that, is flushed: the log is sent no further.
async fn end_of_log(client: &Client) -> Result<Lsn, tokio_postgres::Error> {
    const SQL: &str = "SELECT pg_catalog.pg_current_wal_insert_lsn()::text, \
         pg_catalog.pg_current_wal_flush_lsn()::text, \
         pg_catalog.pg_size_bytes(pg_catalog.current_setting('wal_segment_size'))";
    // Only a transaction that writes something flushes.
    const FLUSH: &str = "BEGIN; SET LOCAL synchronous_commit = local; \
         SELECT pg_catalog.pg_logical_emit_message(true, 'tidewire.flush', ''); COMMIT";
    let row = client.query_one(SQL, &[]).await?;
    let place = |at: usize| row.get::<_, String>(at).parse().unwrap_or_default();
    let (inserted, flushed): (Lsn, Lsn) = (place(0), place(1));
    let segment = u64::try_from(row.get::<_, i64>(2)).unwrap_or(PAGE);
    let end = end_of_record(inserted, segment);
    if flushed < end {
        client.batch_execute(FLUSH).await?;
    }
    Ok(end)
}

/// Where the last record ends, given where the next one will begin: at the end of a page the two
/// are a page's head apart, and the stream tells the former.
fn end_of_record(next: Lsn, segment: u64) -> Lsn {
    let head = match next.0 % segment.max(PAGE) {
        SEGMENT_HEAD => SEGMENT_HEAD,
        at if at % PAGE == PAGE_HEAD && at > PAGE => PAGE_HEAD,
        _ => 0,
    };
    Lsn(next.0 - head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_of_a_page_is_not_waited_for() {
        let segment = 16 << 20;
        for (next, end) in [
            (segment + 40, segment),
            (segment + PAGE + 24, segment + PAGE),
            (segment + PAGE + 40, segment + PAGE + 40),
            (segment + 100, segment + 100),
        ] {
            assert_eq!(end_of_record(Lsn(next), segment), Lsn(end));
        }
    }
}
