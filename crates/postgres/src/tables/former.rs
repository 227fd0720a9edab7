//! What a history that outlives the process holds of the source that is not used any more.
//!
//! Both sources tell the same tables on the same topics, so one that came back to its own mark would
//! tell again what the other told meanwhile. So a source that begins ends what the other left: its
//! marks go, and topics that SQL spoke on are told that something may be missing. Tables need no
//! word: without a mark each of them begins with a gap.

use bytes::Bytes;
use tidewire::history::Mark;
use tidewire::{Error, Publisher};
use tidewire_protocol::{Draft, GapReason, Topic};

/// What the marks of the write-ahead log begin with.
pub(super) const WAL: &str = "wal:";

/// What stands before the name of a topic that SQL spoke on, in the marks of both sources.
const VOICE: &str = "/topic:";

/// Ends the marks that begin so.
///
/// # Errors
/// When the history does not take it; nothing is changed then.
pub(super) async fn end(publisher: &Publisher, prefix: &str) -> Result<(), Error> {
    let marks = publisher.marks(prefix).await?;
    if marks.is_empty() {
        return Ok(());
    }
    tracing::info!(source = prefix, "what another source of row changes left in the history ends");
    let spoken = marks.iter().filter_map(|mark| {
        let (_, topic) = mark.source.split_once(VOICE)?;
        Topic::application(topic).ok()
    });
    let gaps = spoken.map(|topic| Draft::gap(topic, GapReason::ConnectionLost)).collect();
    let ends = |mark: Mark| Mark { place: Bytes::new(), ..mark };
    publisher.publish_marked(gaps, marks.into_iter().map(ends).collect()).await.map(drop)
}
